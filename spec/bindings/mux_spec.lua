-- SPDX-License-Identifier: MIT
local core = require "bodkin.core"
local people = require "spec.people"

local A, B = core.addr.parse "192.0.2.1:1000", core.addr.parse "192.0.2.2:2000"
local MATCH, KEY = ("m"):rep(16), ("k"):rep(32)
local IDS = { ("a"):rep(16), ("b"):rep(16) }

local function match(me, candidates)
  return people.keys({
    match = MATCH, key = KEY, self = IDS[me], peer = IDS[3 - me], start_in_ms = 0, candidates = candidates,
  }, tostring(me), tostring(3 - me))
end

local function refused(code, ...)
  local ok, text, got = ...
  assert.is_nil(ok)
  assert.equal("string", type(text))
  assert.equal(code, got)
end

describe("mux by hand", function()
  local a, b, counters, events

  before_each(function()
    counters, events = core.counters(), {}
    a = core.mux { seed = ("1"):rep(32), counters = counters }
    b = core.mux { seed = ("2"):rep(32), counters = counters, max_sessions = 2 }
  end)
  after_each(function()
    a:close()
    b:close()
  end)

  -- Carries what one has to send to the other, and notes the rest, until both are quiet.
  local function settle(now)
    local busy = true
    while busy do
      busy = false
      for i, mux in ipairs { a, b } do
        while true do
          local kind, p, q, r, ttl = mux:next()
          if not kind then break end
          busy = true
          if kind ~= "send" then
            events[#events + 1] = { i, kind, p, q }
          else
            assert.equal(1, p)
            assert.equal(i == 1 and B or A, q)
            assert.equal(0, ttl)
            local other = i == 1 and b or a
            assert.is_true(other:input(now, 1, i == 1 and A or B, i == 1 and B or A, r))
          end
        end
      end
    end
  end

  local function join(now)
    local sa = assert(a:add(now, match(1, { { B, "srflx", 1 } })))
    local sb = assert(b:add(now, match(2, { { A, "host", 1 } })))
    a:tick(now)
    b:tick(now)
    settle(now)
    return sa, sb
  end

  local function find(i, kind)
    for _, e in ipairs(events) do
      if e[1] == i and e[2] == kind then return e end
    end
  end

  it("connects, talks and leaves", function()
    local sa, sb = join(1000)
    local info = find(1, "connected")[4]
    assert.equal("direct", info.path)
    assert.equal("srflx", info.via)
    assert.equal(B, info.remote)
    assert.equal("number", type(info.ms))
    assert.equal("number", type(find(1, "path")[4].rtt_ms))
    assert.is_true(a:send(2000, sa, "hello"))
    settle(2000)
    assert.same({ 2, "message", sb, "hello" }, find(2, "message"))
    b:leave(3000, sb)
    settle(3000)
    assert.same({ 2, "closed", sb, "closed" }, find(2, "closed"))
    assert.same({ 1, "closed", sa, "left" }, find(1, "closed"))
    refused("closed", a:send(4000, sa, "late"))
    b:leave(4000, sb)
    b:leave(4000, 12345)
  end)

  it("says what became of its paths", function()
    local sa = join(1000)
    local paths = a:paths(sa)
    assert.equal(1, #paths)
    assert.equal("srflx", paths[1].via)
    assert.equal(B, paths[1].remote)
    assert.equal("none", paths[1].reason)
    assert.is_true(paths[1].selected)
    assert.equal("integer", math.type(paths[1].tests))
    assert.equal("number", type(paths[1].rtt_ms))
    assert.is_nil(a:paths(99))
    assert.is_nil(a:paths(-1))
  end)

  it("has a deadline when it has work", function()
    assert.is_nil(a:deadline())
    local sa = assert(a:add(1000, match(1, { { B, "srflx", 1 } })))
    assert.equal("integer", math.type(a:deadline()))
    local now = 1000
    while a:deadline() do
      now = math.max(now, a:deadline())
      a:tick(now)
      while true do
        local kind, session, reason = a:next()
        if not kind then break end
        if kind == "closed" then
          assert.same({ sa, "no_path" }, { session, reason })
          assert.equal(B, a:paths(sa)[1].remote)
        end
      end
    end
    assert.equal(1, counters:get "session_closed")
  end)

  it("refuses sessions and sends that make no sense", function()
    local sa = join(1000)
    refused("invalid", a:add(1000, match(1, { { B, "srflx", 1 } })))
    refused("invalid", a:add(1000, match(1, {})))
    refused("invalid", a:send(1000, sa, ("x"):rep(1121)))
    refused("closed", a:send(1000, 77, "x"))
    local many = match(2, { { A, "host", 1 } })
    for i = 1, 2 do
      many.match = ("%016d"):format(i)
      local ok, _, code = b:add(1000, many)
      if i == 2 then refused("limit", ok, _, code) end
    end
    for _, bad in ipairs { { match = "x" }, { key = "x" }, { self = "x" }, { peer = false }, { start_in_ms = -1 },
      { candidates = false }, { candidates = { 1 } }, { candidates = { { "x", "host", 1 } } },
      { candidates = { { A, "nonsense", 1 } } }, { candidates = { { A, "host" } } },
      { candidates = { { A, "host", 65537 } } }, { candidates = { { A, "host", -1 } } } } do
      local m = match(1, { { B, "srflx", 1 } })
      for k, v in pairs(bad) do m[k] = v end
      assert.has_error(function() a:add(1000, m) end)
    end
    assert.has_error(function() a:add(nil, match(1, { { B, "srflx", 1 } })) end)
  end)

  it("takes no number of a socket that does not fit, and no time that goes back", function()
    assert.has_error(function() a:input(5000, 65537, B, A, "\xc1") end)
    assert.has_error(function() a:input(5000, -1, B, A, "\xc1") end)
    a:tick(5000)
    a:tick(5000)
    assert.error_matches(function() a:tick(4999) end, "before")
    assert.error_matches(function() a:leave(0, 1) end, "before")
    local loop <close> = core.loop { virtual = true, now_us = 4000 }
    assert.error_matches(function() a:drive(loop, print) end, "later")
    loop:advance(1000)
    a:drive(loop, print)
    assert.error_matches(function() a:tick(6000) end, "driven")
    a:tick()
  end)

  it("leaves to others what is not its own, and survives changed bytes", function()
    assert.is_false(a:input(1, 1, B, A, core.wire.encode { 1, 1, "x" }))
    assert.is_false(a:input(1, 1, B, nil, ""))
    assert.is_true(a:input(1, 1, B, nil, "\xc1" .. ("x"):rep(40)))
    local sa = join(1000)
    a:send(1000, sa, "data")
    local _, _, _, bytes = a:next()
    for i = 1, #bytes do
      b:input(1000, 1, A, B, bytes:sub(1, i - 1) .. string.char(bytes:byte(i) ~ 1) .. bytes:sub(i + 1))
      b:input(1000, 1, A, B, bytes:sub(1, i - 1))
    end
    events = {}
    settle(1000)
    assert.is_nil(find(2, "message"))
    b:input(1000, 1, A, B, bytes)
    settle(1000)
    assert.equal("data", find(2, "message")[4])
  end)

  it("throws when closed, but for close and tostring", function()
    a:close()
    a:close()
    assert.equal("mux (closed)", tostring(a))
    for _, method in ipairs { "drive", "add", "send", "leave", "input", "tick", "deadline", "next", "paths" } do
      assert.has_error(function() a[method](a, 1, 1, "x") end, "closed mux")
    end
    assert.has_error(function() core.mux {} end)
    assert.has_error(function() core.mux { seed = "short" } end)
  end)
end)

describe("mux driven", function()
  local loop, counters, errors, on_error, ends

  before_each(function()
    loop, counters, errors, ends = core.loop {}, core.counters(), {}, {}
    on_error = core.on_error(function(text) errors[#errors + 1] = text end)
  end)
  after_each(function()
    loop:close()
    core.on_error(on_error)
    assert.equal(0, loop:handles())
  end)

  local function open(i, fn)
    local e = { events = {} }
    e.mux = core.mux { seed = tostring(i):rep(32), counters = counters }
    e.mux:drive(loop, function(kind, session, x)
      e.events[#e.events + 1] = kind
      if fn then fn(e, kind, session, x) end
    end)
    e.sock = assert(loop:udp(core.addr.parse "127.0.0.1:0", { counters = counters, number = 7 })):mux(e.mux)
    ends[i] = e
    return e
  end

  local function add(i)
    ends[i].session = assert(ends[i].mux:add(nil, match(i, { { ends[3 - i].sock:addr(), "host", 7 } })))
  end

  local function run()
    local late
    local limit = loop:timer(3000, function()
      late = true
      loop:stop()
    end)
    loop:run()
    if tostring(loop) ~= "loop (closed)" then limit:cancel() end
    assert.is_nil(late, "nothing happened in 3 s")
    assert.same({}, errors)
  end

  it("connects two over loopback, talks and leaves, with nothing in between in Lua", function()
    local got = {}
    local function on(e, kind, session, x)
      if kind == "connected" then
        assert.equal("host", x.via)
        assert.is_true(e.mux:send(nil, session, "first"))
      elseif kind == "message" then
        got[#got + 1] = x
        if #got == 2 then ends[1].mux:leave(nil, ends[1].session) end
      elseif kind == "closed" then
        ends.closed = (ends.closed or 0) + 1
        if ends.closed == 2 then loop:stop() end
      end
    end
    open(1, on)
    open(2, on)
    add(1)
    add(2)
    run()
    assert.same({ "first", "first" }, got)
    assert.equal("closed", ends[1].events[#ends[1].events])
    assert.is_true(counters:get "frame_sent" > 1)
  end)

  it("carries out what verbs inside events leave, after what was there before", function()
    local order, depth = {}, 0
    local function on(e, kind, session, x)
      depth = depth + 1
      assert.equal(1, depth)
      order[#order + 1] = kind
      if kind == "connected" then
        for i = 1, 3 do e.mux:send(nil, session, tostring(i)) end
        if e == ends[1] then e.mux:leave(nil, 999) end
      elseif kind == "message" and x == "3" then
        ends.done = (ends.done or 0) + 1
        if ends.done == 2 then loop:stop() end
      end
      depth = depth - 1
    end
    open(1, on)
    open(2, on)
    add(1)
    add(2)
    run()
  end)

  it("may be closed inside an event, and its socket, and its loop", function()
    for _, what in ipairs { "mux", "sock", "both", "loop" } do
      loop = core.loop {}
      open(1, function(e, kind)
        if kind ~= "connected" then return end
        if what == "loop" then
          loop:close()
          return
        end
        if what ~= "sock" then e.mux:close() end
        if what ~= "mux" then e.sock:close() end
        ends[1], e.mux, e.sock = nil, nil, nil
        for _ = 1, 3 do collectgarbage() end
        loop:stop()
      end)
      open(2)
      add(1)
      add(2)
      run()
      loop:close()
    end
  end)

  it("counts and reports errors of its function, and goes on", function()
    open(1, function(_, kind)
      if kind == "path" then loop:stop() end
      error "bad"
    end)
    open(2)
    add(1)
    add(2)
    assert.has_error(run) -- which looks at errors
    assert.is_true(#errors >= 2)
    assert.equal(#errors, counters:get "handler_error")
  end)

  it("hands on to the router what is not its own", function()
    local message = require "bodkin.message"
    local e, other = open(1), open(2)
    local router = core.router(counters)
    router:on(message.maintained, nil, function() loop:stop() end)
    e.sock:router(router)
    other.sock:send(e.sock:addr(), "\xc1" .. ("x"):rep(40))
    other.sock:send(e.sock:addr(), message.maintained:encode(("t"):rep(12), ("b"):rep(8)))
    run()
    assert.equal(1, counters:get "drop_frame")
  end)

  it("is a handle of its loop, until closed", function()
    local e = open(1)
    assert.equal(2, loop:handles())
    assert.equal("mux (driven)", tostring(e.mux))
    e.mux:close()
    e.mux:close()
    assert.equal(1, loop:handles())
    e.sock:close()
    assert.equal(0, loop:handles())
  end)

  it("takes one socket of a number, on its own loop", function()
    local e = open(1)
    local at = core.addr.parse "127.0.0.1:0"
    assert.has_error(function() assert(loop:udp(at, { number = 7 })):mux(e.mux) end)
    assert.has_error(function() e.sock:mux(e.mux) end)
    assert.has_error(function() assert(loop:udp(at, { number = 8 })):mux(core.mux { seed = ("x"):rep(32) }) end)
    local other <close> = core.loop {}
    assert.has_error(function() assert(other:udp(at, { number = 8 })):mux(e.mux) end)
    assert.has_error(function() e.mux:drive(loop, print) end)
    assert.has_error(function() e.mux:next() end)
    e.sock:close()
    assert(loop:udp(at, { number = 7 })):mux(e.mux)
  end)

  it("lives on when its sockets are closed, and drops what it would send", function()
    local e = open(1)
    open(2)
    add(1)
    e.sock:close()
    loop:timer(30, function() loop:stop() end)
    run()
    assert.is_true(counters:get "test_sent" > 0)
    e.mux:leave(nil, e.session)
    assert.equal("closed", e.events[#e.events])
  end)
end)
