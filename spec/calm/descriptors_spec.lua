-- SPDX-License-Identifier: MIT
-- Real processes that may open no further file: they serve and talk on, do not spin, and do again what needs one
-- within a second of having some.

local support = require "spec.calm.support"

local POLICY = [[
local bodkin = require "bodkin"
return bodkin.policy { size = 2, window_ms = 50 }]]

describe("no descriptors", function()
  local world
  before_each(function() world = support.world() end)
  after_each(function() world:close() end)

  local function limit(p, n) assert(os.execute(("prlimit --pid %d --nofile=%d:4096"):format(p.pid, n))) end

  -- The lowest number that is free is the one it would get.
  local function exhaust(p)
    local open, n = {}, 0
    local pipe <close> = assert(io.popen(("ls /proc/%d/fd"):format(p.pid)))
    for fd in pipe:lines() do open[tonumber(fd)] = true end
    while open[n] do n = n + 1 end
    limit(p, n)
  end

  local function relieve(p) limit(p, 1024) end

  local function config()
    support.write_file(world.dir .. "/policy.lua", POLICY)
    support.write_file(world.dir .. "/config.lua", ([[
      return require("bodkin").config { queues = { duel = { policy = "%s/policy.lua" } } }]]):format(world.dir))
    return world.dir .. "/config.lua"
  end

  it("at a server: it answers, its admin socket waits without a spin and then answers", function()
    local server = world:server()
    local host, join = world:pair(server)
    exhaust(server)
    local answers = {}
    for i = 1, 30 do -- more than its descriptors could ever take
      local stream = assert(world.env.loop:connect(server.admin))
      stream:on_line(function(line) answers[#answers + 1] = line and i end)
      stream:write "status\n"
    end
    world:turn(50)
    local load, answer = world:load({ server }, 500), world:answers(server, 1000)
    assert.is_true(#answers < 30)
    assert.is_number(world:talk(host, join, 1000))
    local began = support.now_ms()
    relieve(server)
    world:wait("all answers of the admin socket", 1000, function() return #answers == 30 end)
    support.say("server without descriptors: %.1f %% of a core, answers in %.0f ms; its admin socket %.0f ms after it",
      100 * load, answer, support.now_ms() - began)
    assert.is_true(load < 0.05)
    assert.equal("", server:stderr())
  end)

  it("at a server whose policy process ended meanwhile: it is started within a second of having some", function()
    local server = world:server({}, config())
    local function child()
      local pipe <close> = assert(io.popen("pgrep -P " .. server.pid))
      return pipe:read "l"
    end
    world:wait("the policy process", 2000, child)
    exhaust(server)
    -- The socket to the old one is let go of as it ends: one descriptor of the two that a new one takes.
    assert(os.execute("kill -9 " .. child()))
    world:turn(3500)
    assert.is_nil(child())
    local load, answer = world:load({ server }, 500), world:answers(server, 1000)
    local began = support.now_ms()
    relieve(server)
    world:wait("another policy process", 1000, child)
    local after = support.now_ms() - began
    local pair = {}
    for i = 1, 2 do
      pair[i] = world:bodkin { "match", "duel", "--server", server.url, "--bind", "127.0.0.1:0", "--send", "x",
        "--expect", "1", "--timeout", "5" }
    end
    for _, p in ipairs(pair) do assert.equal(0, p:wait(5000), p:stderr()) end
    local _, said = server:stderr():gsub("no policy process", "")
    support.say("no policy process could be started: %.1f %% of a core, answers in %.0f ms; one %.0f ms after it; "
      .. "said %d times", 100 * load, answer, after, said)
    assert.is_true(load < 0.05)
    assert.is_true(said >= 1 and said <= 2, server:stderr())
  end)

  it("at a client: it talks, stays registered and notices nothing", function()
    local server = world:server()
    local host, join = world:pair(server)
    exhaust(host)
    exhaust(join)
    local load = world:load({ host, join }, 500)
    assert.is_number(world:talk(host, join, 1000))
    assert.is_number(world:talk(join, host, 1000))
    -- Into its room comes another, for which it needs no descriptor either.
    local code = host:stderr():match "bodkin join (%S+)"
    local third = world:bodkin { "join", code, "--server", server.url, "--bind", "127.0.0.1:0" }
    world:heard(third, "connected to", 3000)
    support.say("clients without descriptors: %.1f %% of a core", 100 * load)
    assert.is_true(load < 0.05)
    for _, p in ipairs { host, join } do
      assert.is_nil(p:code())
      assert.is_nil(p:stderr():find "traceback", p:stderr())
    end
  end)
end)
