-- SPDX-License-Identifier: MIT
local core = require "bodkin.core"
local task = require "bodkin.task"
local worlds = require "bodkin.sim.world"

local addr = core.addr

local function at(text)
  return assert(addr.parse(text, 0))
end

describe("sim world", function()
  -- Hosts that chatter at random for a while; returns the trace as text.
  local function chatter(seed)
    local world = worlds.new { seed = seed, delay_ms = 10, jitter_ms = 5, loss = 0.1 }
    local socks = {}
    for i = 1, 20 do
      local host = world:host { name = "h" .. i, ip = "10.0.0." .. i }
      local env = host.env
      local sock = assert(env.udp(at(("10.0.0.%d:%d"):format(i, 5000))))
      socks[i] = sock
      sock:on_packet(function(from, bytes)
        if #bytes > 1 then sock:send(from, bytes:sub(2)) end
      end)
      task.spawn(function()
        for _ = 1, 5 do
          task.sleep(env, env.random(1):byte())
          sock:send(at(("10.0.0.%d:%d"):format(env.random(1):byte() % 20 + 1, 5000)), env.random(4))
        end
      end)
    end
    world:run(3000)
    for _, sock in ipairs(socks) do sock:close() end
    world:close()
    return table.concat(world:trace(), "\n")
  end

  it("does the same for the same seed, and something else for another", function()
    local one, two, other = chatter(1), chatter(1), chatter(2)
    assert.is_true(#one > 5000)
    assert.is_true(one == two)
    assert.is_true(one ~= other)
  end)

  it("does the same in another process", function()
    local script = [[
      package.path, package.cpath = %q, %q
      local worlds = require "bodkin.sim.world"
      local world = worlds.new { seed = 5, loss = 0.5, jitter_ms = 3 }
      local parse = require("bodkin.core").addr.parse
      local a = world:host { name = "a", ip = "10.0.0.1" }.env
      world:host { name = "b", ip = "10.0.0.2" }
      local sock = a.udp(parse("10.0.0.1", 5000))
      for _ = 1, 20 do sock:send(parse("10.0.0.2", 5000), a.random(8)) end
      world:run(100)
      print(table.concat(world:trace(), "\n"))]]
    local name = os.tmpname()
    local file = assert(io.open(name, "w"))
    file:write(script:format(package.path, package.cpath))
    file:close()
    local function run()
      local pipe <close> = assert(io.popen("exec /usr/bin/lua5.4 " .. name, "r"))
      return pipe:read "a"
    end
    local one, two = run(), run()
    os.remove(name)
    assert.matches("drop:lost", one)
    assert.matches("drop:noport", one)
    assert.equal(one, two)
  end)

  it("shows each datagram in its trace", function()
    local world = worlds.new { delay_ms = 20 }
    local a = world:host { name = "a", ip = "10.0.0.1" }
    local b = world:host { name = "b", ip = "10.0.0.2" }
    local from = assert(a.env.udp(at "10.0.0.1:5000"))
    local to = assert(b.env.udp(at "10.0.0.2:6000"))
    from:send(to:addr(), "\193hello, world")
    world:run(20)
    assert.same({
      "1000000 send 10.0.0.1:5000 > 10.0.0.2:6000 13 frame c168656c6c6f2c20",
      "1020000 recv 10.0.0.1:5000 > 10.0.0.2:6000 13 frame c168656c6c6f2c20",
    }, world:trace())
    from:send(to:addr(), assert(require("bodkin.message").maintain:encode(("t"):rep(12), ("i"):rep(16))))
    assert.matches(" maintain 9", world:trace()[3], 1, true)
    from:close()
    to:close()
    world:close()
  end)

  it("keeps none when asked to", function()
    local world = worlds.new { trace = false }
    local a <close> = assert(world:host({ name = "a", ip = "10.0.0.1" }).env.udp(at "10.0.0.1:5000"))
    a:send(at "10.0.0.9:1", "x")
    world:run(1)
    assert.same({}, world:trace())
    a:close()
    world:close()
  end)

  it("runs for so long, or until something is true", function()
    local world = worlds.new()
    local env = world:host({ name = "a", ip = "10.0.0.1" }).env
    local start = world:now()
    world:run(1.5)
    assert.equal(start + 1500, env.now())
    local fired
    env.timer(10, function() fired = true end)
    assert.is_true(world:run_until(function() return fired end, 100))
    assert.equal(start + 11500, world:now())
    assert.is_false(world:run_until(function() return false end, 7))
    assert.equal(start + 18500, world:now())
    world:close()
  end)

  it("keeps each host's log with the virtual time", function()
    local seen = {}
    local world = worlds.new { log = function(line) table.insert(seen, line) end }
    local host = world:host { name = "a", ip = "10.0.0.1" }
    world:run(250)
    host.env.log:warn("only %d left", 3)
    assert.same({ "1250000 a warn only 3 left" }, host.log)
    assert.same(host.log, seen)
    world:close()
  end)

  it("resolves hosts and the names it was given", function()
    local world = worlds.new()
    local host = world:host { name = "a", ip = { "10.0.0.1", "2001:db8::1" } }
    world.names["match.example"] = { at "198.51.100.1", at "198.51.100.2" }
    local got = {}
    for _, name in ipairs { "a", "match.example", "nobody.example" } do
      host.env.resolve(name, 4433, function(list, err) got[name] = list or err end)
    end
    world:run(1)
    assert.same({ at "10.0.0.1:4433", at "[2001:db8::1]:4433" }, got.a)
    assert.same({ at "198.51.100.1:4433", at "198.51.100.2:4433" }, got["match.example"])
    assert.matches("nobody.example: no such name", got["nobody.example"], 1, true)
    world:close()
  end)

  describe("close", function()
    it("names what was left open, and where it was made", function()
      local world = worlds.new()
      local env = world:host({ name = "a", ip = "10.0.0.1" }).env
      env.udp(at "10.0.0.1:5000")
      env.timer(1000, function() end)
      env.mux { seed = ("s"):rep(32), on = function() end }
      local ok, err = pcall(world.close, world)
      assert.is_false(ok)
      assert.matches("a left open a socket 10.0.0.1:5000 made at [^\n]*world_spec.lua:%d+", err)
      assert.matches("a left open a timer made at [^\n]*world_spec.lua:%d+", err)
      assert.matches("a left open a mux made at [^\n]*world_spec.lua:%d+", err)
      world:close()
    end)

    it("is content with timers that fired or were cancelled, and handles that were closed", function()
      local world = worlds.new()
      local env = world:host({ name = "a", ip = "10.0.0.1" }).env
      env.timer(1, function() end)
      env.timer(1000, function() end):cancel()
      assert(env.udp(at "10.0.0.1:5000")):close()
      env.mux({ seed = ("s"):rep(32), on = function() end }):close()
      world:run(2)
      world:close()
    end)

    it("gives on_error back", function()
      local before = core.on_error()
      core.on_error(before)
      worlds.new():close()
      local after = core.on_error()
      core.on_error(after)
      assert.equal(before, after)
    end)
  end)

  describe("errors", function()
    it("in a callback end the run, with their traceback", function()
      local world = worlds.new()
      local env = world:host({ name = "a", ip = "10.0.0.1" }).env
      env.timer(1, function() error("in a timer") end)
      assert.error_matches(function() world:run(5) end, "in a timer.*traceback")
      world:run(5)
      world:close()
    end)

    it("in a task end the run", function()
      local world = worlds.new()
      local env = world:host({ name = "a", ip = "10.0.0.1" }).env
      task.spawn(function()
        task.sleep(env, 1)
        error("in a task")
      end)
      assert.error_matches(function() world:run_until(function() end, 5) end, "in a task.*traceback")
      world:close()
    end)

    it("in a task before the first run are not lost", function()
      local world = worlds.new()
      task.spawn(error, "at once")
      assert.error_matches(function() world:close() end, "at once")
    end)

    it("in a router's handler end the run", function()
      local world = worlds.new()
      local env = world:host({ name = "a", ip = "10.0.0.1" }).env
      local message = require "bodkin.message"
      local sock = assert(env.udp(at "10.0.0.1:5000"))
      local router = core.router(env.counters)
      router:on(message.maintain, { "tx" }, function() error("in a handler") end)
      sock:router(router)
      sock:send(sock:addr(), assert(message.maintain:encode(("t"):rep(12), ("i"):rep(16))))
      assert.error_matches(function() world:run(1) end, "in a handler")
      sock:close()
      world:close()
    end)

    it("go to on_error where one was given", function()
      local seen
      local world = worlds.new { on_error = function(text) seen = text end }
      world:host({ name = "a", ip = "10.0.0.1" }).env.timer(1, function() error("mine") end)
      world:run(5)
      assert.matches("mine", seen)
      world:close()
    end)
  end)

  it("kills a program without a word, and its host starts another", function()
    local world = worlds.new()
    local a = world:host { name = "a", ip = "10.0.0.1" }
    local env = a.env
    local fired
    local sock = assert(env.udp(at "10.0.0.1:5000"))
    env.timer(1, function() fired = true end)
    a:kill()
    world:run(5)
    assert.is_nil(fired)
    assert.error_matches(function() sock:send(sock:addr(), "x") end, "closed")
    assert.error_matches(function() env.timer(1, print) end, "closed")
    local again <close> = assert(a.env.udp(at "10.0.0.1:5000"))
    assert.not_equal(env.random, a.env.random)
    again:close()
    world:close()
  end)
end)
