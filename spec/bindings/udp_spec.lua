-- SPDX-License-Identifier: MIT
-- On loopback with the real loop: waits for packets, never for time, but for a limit.
local core = require "bodkin.core"
local message = require "bodkin.message"

local ANY = core.addr.parse "127.0.0.1:0"
local TX = ("t"):rep(12)

describe("udp", function()
  local loop, counters, errors, on_error

  before_each(function()
    loop, counters, errors = core.loop {}, core.counters(), {}
    on_error = core.on_error(function(text) errors[#errors + 1] = text end)
  end)
  after_each(function()
    loop:close()
    core.on_error(on_error)
    assert.equal(0, loop:handles())
  end)

  local function open(number) return assert(loop:udp(ANY, { counters = counters, number = number })) end

  local function run()
    local late
    local limit = loop:timer(3000, function()
      late = true
      loop:stop()
    end)
    loop:run()
    if not late and tostring(loop) ~= "loop (closed)" then limit:cancel() end
    assert.is_nil(late, "nothing came in 3 s")
  end

  it("says its address, and carries bytes both ways", function()
    local a, b = open(), open()
    assert.equal("127.0.0.1", core.addr.format(a:addr()):match "^[^:]+")
    assert.is_true(core.addr.port(a:addr()) > 0)
    assert.equal("udp (" .. core.addr.format(a:addr()) .. ")", tostring(a))
    b:on_packet(function(from, bytes, to)
      assert.equal(a:addr(), from)
      assert.equal(b:addr(), to)
      b:send(from, bytes .. " back")
    end)
    local got
    a:on_packet(function(_, bytes)
      got = bytes
      loop:stop()
    end)
    assert.is_true(a:send(b:addr(), "there"))
    run()
    assert.equal("there back", got)
    assert.equal(0, #errors)
    assert.equal(2, counters:get "udp_tx")
  end)

  it("says why it cannot be opened", function()
    local a = open()
    local none, text, code = loop:udp(a:addr())
    assert.is_nil(none)
    assert.equal("invalid", code)
    assert.matches("^cannot bind 127.0.0.1:%d+: Address already in use", text)
    assert.equal(1, loop:handles())
    assert.has_error(function() loop:udp "x" end)
    assert.has_error(function() loop:udp(ANY, { number = 65536 }) end)
    assert.has_error(function() loop:udp(ANY, { counters = {} }) end)
  end)

  it("refuses what cannot be sent", function()
    local a = open()
    for _, case in ipairs { { core.addr.parse "[::1]:5", "x" }, { a:addr(), ("x"):rep(1201) } } do
      local ok, text, code = a:send(case[1], case[2])
      assert.is_nil(ok)
      assert.equal("string", type(text))
      assert.equal("invalid", code)
    end
    assert.has_error(function() a:send(a:addr(), "x", 256) end)
    assert.has_error(function() a:send("nowhere", "x") end)
  end)

  it("throws when closed, but for close and tostring", function()
    local a = open()
    a:close()
    a:close()
    assert.equal("udp (closed)", tostring(a))
    for _, call in ipairs { "send", "addr", "router", "mux", "on_packet" } do
      assert.has_error(function() a[call](a, ANY, "x") end, "closed socket")
    end
    assert.equal(0, loop:handles())
  end)

  it("lives until closed, though nobody holds it", function()
    local to = open():on_packet(function() loop:stop() end):addr()
    for _ = 1, 3 do collectgarbage() end
    open():send(to, "x")
    run()
  end)

  it("gives a router what comes, and its replies leave by the socket", function()
    local server, client = open(), open()
    local router = core.router(counters)
    router:reply_schemas { message.address_report }
    router:on(message.address_request, nil, function(reply, from, tx)
      assert.equal(client:addr(), from)
      assert.is_true(reply("address_report", tx, core.addr.mask(from, tx), ("p"):rep(20)))
    end)
    server:router(router)
    client:on_packet(function(from, bytes)
      local tx, xaddr = message.address_report:decode(bytes)
      assert.equal(server:addr(), from)
      assert.equal(TX, tx)
      assert.equal(client:addr(), core.addr.mask(xaddr, tx))
      loop:stop()
    end)
    client:send(server:addr(), message.address_request:encode(TX))
    run()
    assert.same({}, errors)
  end)

  it("offers a packet to the router first, then to the function", function()
    local a, b, n = open(), open(), 0
    local router = core.router(counters)
    router:on(message.maintained, nil, function() n = n + 1 end)
    local got = {}
    a:router(router):on_packet(function(_, bytes)
      got[#got + 1] = bytes
      if bytes == "last" then loop:stop() end
    end)
    b:send(a:addr(), message.maintained:encode(TX, ("b"):rep(8)))
    b:send(a:addr(), message.maintained:encode(TX, ("b"):rep(8)) .. "x")
    b:send(a:addr(), message.address_request:encode(TX))
    b:send(a:addr(), "last")
    run()
    assert.equal(1, n)
    assert.equal(3, #got)
    assert.equal(0, counters:get "drop_msgpack")
  end)

  it("counts what nothing takes", function()
    local a, b = open(), open()
    b:send(a:addr(), "nobody")
    local c = open():on_packet(function() loop:stop() end)
    b:send(c:addr(), "x")
    run()
    assert.equal(1, counters:get "drop_unknown")
  end)

  it("counts and reports a handler's error, and goes on", function()
    local a, n = open(), 0
    a:on_packet(function()
      n = n + 1
      if n == 1 then error "bad" end
      loop:stop()
    end)
    a:send(a:addr(), "1")
    a:send(a:addr(), "2")
    run()
    assert.equal(1, #errors)
    assert.equal(1, counters:get "handler_error")
  end)

  it("may be closed inside its handler, in the middle of a batch", function()
    local a, b, n = open(), open(), 0
    local replied
    local router = core.router(counters)
    router:reply_schemas { message.done }
    router:on(message.address_request, nil, function(reply, _, tx)
      n = n + 1
      a:close()
      a = nil
      for _ = 1, 3 do collectgarbage() end
      replied = reply("done", tx)
      loop:timer(1, function() loop:stop() end)
    end)
    a:router(router)
    for _ = 1, 5 do b:send(a:addr(), message.address_request:encode(TX)) end
    run()
    assert.equal(1, n)
    assert.is_false(replied)
    assert.same({}, errors)
  end)

  it("may see its loop closed inside its handler", function()
    local a = open()
    a:on_packet(function() loop:close() end)
    for _ = 1, 5 do a:send(a:addr(), "x") end
    run()
    assert.equal("udp (closed)", tostring(a))
    assert.same({}, errors)
  end)

  it("survives ICMP errors", function()
    local a, gone = open(), open()
    local nowhere = gone:addr()
    gone:close()
    a:on_packet(function() loop:stop() end)
    a:send(nowhere, "x")
    loop:timer(1, function() a:send(a:addr(), "still here") end)
    run()
    assert.same({}, errors)
  end)
end)
