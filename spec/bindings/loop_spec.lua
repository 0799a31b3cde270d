-- SPDX-License-Identifier: MIT
local core = require "bodkin.core"

local function collect()
  for _ = 1, 3 do collectgarbage() end
end

describe("virtual loop", function()
  local loop
  before_each(function() loop = core.loop { virtual = true, now_us = 1000 } end)
  after_each(function() loop:close() end)

  it("starts where it is told, and moves when it is told", function()
    assert.equal(1000, loop:now())
    loop:advance(500)
    assert.equal(1500, loop:now())
    assert.equal(0, core.loop({ virtual = true }):now())
  end)

  it("fires in order of time, then of setting; each at its own time", function()
    local order = {}
    for i, ms in ipairs { 3, 1, 2, 1, 0, 0.5, 2 } do
      loop:timer(ms, function() order[#order + 1] = i .. "@" .. loop:now() end)
    end
    loop:advance(2000)
    assert.same({ "5@1000", "6@1500", "2@2000", "4@2000", "3@3000", "7@3000" }, order)
    assert.equal(3000, loop:now())
    assert.equal(1, loop:handles())
  end)

  it("fires what callbacks set while it is due", function()
    local order = {}
    loop:timer(1, function()
      order[#order + 1] = "a"
      loop:timer(0, function() order[#order + 1] = "c" end)
      loop:timer(1, function() order[#order + 1] = "d" end)
    end)
    loop:timer(1, function() order[#order + 1] = "b" end)
    loop:advance(2000)
    assert.equal("abcd", table.concat(order))
  end)

  it("steps from timer to timer", function()
    local n = 0
    loop:timer(5, function() n = n + 1 end)
    loop:timer(5, function() n = n + 1 end)
    assert.is_true(loop:step())
    assert.equal(1, n)
    assert.equal(6000, loop:now())
    assert.is_true(loop:step())
    assert.is_false(loop:step())
  end)

  it("runs until no timer is left, or until stopped", function()
    local n = 0
    local function again()
      n = n + 1
      if n == 5 then loop:stop() end
      loop:timer(10, again)
    end
    again()
    loop:run()
    assert.equal(5, n)
    assert.equal(1, loop:handles())
    loop:timer(1, function() loop:stop() end)
    loop:advance(1000000)
    assert.equal(42000, loop:now())
  end)

  it("has no sockets, files or names", function()
    assert.has_error(function() loop:udp(core.addr.parse "127.0.0.1:0") end)
    assert.has_error(function() loop:listen("/tmp/x", print) end)
    assert.has_error(function() loop:connect "/tmp/x" end)
    assert.has_error(function() loop:stdin() end)
    assert.has_error(function() loop:fd(0) end)
    assert.has_error(function() loop:resolve("x", 1, print) end)
  end)

  it("is not run inside itself", function()
    local ok, message
    loop:timer(1, function() ok, message = pcall(loop.advance, loop, 1) end)
    loop:run()
    assert.is_false(ok)
    assert.matches("runs already", message)
    loop:advance(1)
  end)

  it("takes callbacks from coroutines that are dead", function()
    local running
    local co = coroutine.create(function()
      loop:timer(1, function() running = { coroutine.running() } end)
    end)
    coroutine.resume(co)
    co = nil
    collect()
    loop:run()
    assert.is_not_nil(running)
    assert.is_nil(co)
    coroutine.wrap(function()
      loop:timer(1, function() running = "inside" end)
      loop:run()
    end)()
    assert.equal("inside", running)
  end)

  it("goes on after an error in a callback", function()
    local errors, n = {}, 0
    local before = core.on_error(function(text) errors[#errors + 1] = text end)
    loop:timer(1, function() error "one" end)
    loop:timer(2, function() n = n + 1 end)
    loop:timer(3, function() coroutine.yield() end)
    loop:timer(4, function() n = n + 1 end)
    loop:run()
    core.on_error(before)
    assert.equal(2, n)
    assert.equal(2, #errors)
    assert.equal(0, loop:handles())
  end)
end)

describe("timer", function()
  local loop
  before_each(function() loop = core.loop { virtual = true } end)
  after_each(function() loop:close() end)

  it("fires once, without arguments", function()
    local args
    loop:timer(1, function(...) args = table.pack(...) end)
    loop:advance(10000)
    assert.equal(0, args.n)
    assert.equal(0, loop:handles())
  end)

  it("is cancelled, twice, also after it fired", function()
    local n = 0
    local t = loop:timer(1, function() n = n + 1 end)
    t:cancel()
    t:cancel()
    assert.equal("timer (not set)", tostring(t))
    loop:advance(10000)
    assert.equal(0, n)
    local u = loop:timer(1, function() n = n + 1 end)
    loop:advance(10000)
    u:cancel()
    assert.equal(1, n)
  end)

  it("is set again: before it fired, after, after cancel, and from inside", function()
    local at = {}
    local t
    t = loop:timer(5, function()
      at[#at + 1] = loop:now()
      if #at == 2 then t:again(1) end
    end)
    loop:advance(3000)
    t:again(5)
    loop:advance(10000)
    t:again(2)
    loop:advance(10000)
    t:cancel()
    t:again(1)
    loop:advance(10000)
    assert.same({ 8000, 15000, 16000, 24000 }, at)
    assert.equal(0, loop:handles())
  end)

  it("lives while it is set, though nobody holds it", function()
    local n = 0
    for i = 1, 100 do loop:timer(i, function() n = n + 1 end) end
    collect()
    assert.equal(100, loop:handles())
    loop:run()
    assert.equal(100, n)
  end)

  it("is garbage when it is not set", function()
    local weak = setmetatable({}, { __mode = "v" })
    weak[1] = loop:timer(1, function() end)
    weak[2] = loop:timer(2, function() end)
    weak[2]:cancel()
    loop:advance(1000)
    collect()
    assert.is_nil(next(weak))
  end)

  it("is closed by a scope", function()
    do
      local _ <close> = loop:timer(1, error)
    end
    assert.equal(0, loop:handles())
  end)

  it("refuses delays and functions that are none", function()
    assert.has_error(function() loop:timer(-1, print) end)
    assert.has_error(function() loop:timer(0 / 0, print) end)
    assert.has_error(function() loop:timer(1e300, print) end)
    assert.has_error(function() loop:timer(1) end)
    assert.has_error(function() loop:timer("x", print) end)
    assert.equal(0, loop:handles())
  end)
end)

describe("closing a loop", function()
  it("closes what lives on it, twice without harm", function()
    local loop = core.loop { virtual = true }
    local t = loop:timer(1, error)
    loop:close()
    loop:close()
    assert.equal(0, loop:handles())
    assert.equal("timer (not set)", tostring(t))
    assert.equal("loop (closed)", tostring(loop))
    t:cancel()
    assert.has_error(function() t:again(1) end, "closed loop")
    for _, method in ipairs { "now", "run", "stop", "step" } do
      assert.has_error(function() loop[method](loop) end, "closed loop")
    end
    assert.has_error(function() loop:timer(1, print) end)
    assert.has_error(function() loop:advance(1) end)
  end)

  it("works from inside a callback", function()
    for _, virtual in ipairs { true, false } do
      local loop, late = core.loop { virtual = virtual }, false
      loop:timer(0, function()
        loop:close()
        assert.has_error(function() loop:timer(0, print) end)
        assert.equal("closed loop", select(2, pcall(loop.now, loop)))
      end)
      loop:timer(1, function() late = true end)
      loop:run()
      assert.is_false(late)
      assert.equal("loop (closed)", tostring(loop))
      assert.equal(0, loop:handles())
    end
  end)

  it("is done by the collector, in whatever order", function()
    for _ = 1, 20 do
      local loop = core.loop { virtual = math.random(2) == 1 }
      local kept = {}
      for i = 1, 10 do kept[i] = loop:timer(i, function() return kept, loop end) end
      kept[3]:cancel()
    end
    collect()
  end)

  it("is done at the end of a state, whatever is still open", function()
    local script = [[
      local core = require "bodkin.core"
      local loop, other = core.loop {}, core.loop { virtual = true }
      local at = core.addr.parse "127.0.0.1:0"
      local keep = {}
      local function nothing() end
      for i = 1, 3 do
        local mux = core.mux { seed = ("s"):rep(32) }:drive(loop, print)
        local udp = loop:udp(at, { number = i }):mux(mux):router(core.router()):on_packet(print)
        udp:send(udp:addr(), "x")
        keep[i] = { loop:timer(i, nothing), other:timer(i, nothing), udp, mux }
      end
      loop:resolve("127.0.0.1", 1, print)
      setmetatable({}, { __gc = function()
        for _, k in ipairs(keep) do
          pcall(k[1].again, k[1], 1)
          pcall(k[2].again, k[2], 1)
          pcall(k[3].send, k[3], at, "x")
          pcall(k[4].tick, k[4])
        end
        pcall(other.step, other)
        other:close()
        loop:close()
      end })
      print "end"]]
    local path = os.tmpname()
    for _, first in ipairs { "", "_G.keep_me = setmetatable({}, { __gc = function() collectgarbage() end })\n" } do
      local file = assert(io.open(path, "w"))
      file:write(first, script)
      file:close()
      local pipe = assert(io.popen("lua5.4 " .. path .. " 2>&1"))
      assert.equal("end\n", pipe:read "a")
      assert.is_true(pipe:close())
    end
    os.remove(path)
  end)
end)

describe("real loop", function()
  it("fires timers in order and stops", function()
    local loop <close> = core.loop {}
    local order, start = {}, loop:now()
    for i = 1, 12 do loop:timer(2, function() order[#order + 1] = i end) end
    loop:timer(2, function() loop:stop() end)
    loop:run()
    assert.equal("1 2 3 4 5 6 7 8 9 10 11 12", table.concat(order, " "))
    assert.is_true(loop:now() >= start + 2000)
  end)

  it("counts from now, however long the script took before", function()
    local loop <close> = core.loop {}
    local first = loop:now()
    while core.now() < first + 2000 do end
    assert.is_true(loop:now() >= first + 2000)
  end)

  it("moves no time by hand", function()
    local loop <close> = core.loop {}
    assert.has_error(function() loop:advance(1) end)
    assert.has_error(function() loop:step() end)
  end)
end)
