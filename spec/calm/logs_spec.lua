-- SPDX-License-Identifier: MIT
-- Logs and events that cannot be written, to real processes: a full disk, a reader that went away or stands still.
-- They serve and talk on, without waiting and without end, and a log tells of its gaps.

local support = require "spec.calm.support"

local CHATTY = [[
local bodkin = require "bodkin"
return bodkin.policy {
  size = 2, window_ms = 10,
  form = function(a, near)
    for i = 1, 20 do print(("x"):rep(200)) end
    return nil
  end,
}]]

describe("what cannot be written:", function()
  local world
  before_each(function() world = support.world() end)
  after_each(function() world:close() end)

  -- Where output may go, and what a shell has to do before; stderr and stdout in one place.
  local function places()
    local fifo = world.dir .. "/output"
    assert(os.execute("mkfifo " .. fifo))
    return {
      { redirect = "%d>/dev/full" },
      { first = ("exec 9<>%s 8>%s 9<&-"):format(fifo, fifo), redirect = "%d>&8" },
      { first = ("exec 9<>%s"):format(fifo), redirect = "%d>&9", fifo = fifo },
    }
  end

  local function server_with(place, policy)
    local config = world.dir .. "/config.lua"
    support.write_file(world.dir .. "/policy.lua", policy)
    support.write_file(config, ([[
      return require("bodkin").config { queues = { ["*"] = { policy = "%s/policy.lua" } } }]]):format(world.dir))
    return world:server({ first = place.first, redirect = place.redirect:format(2) }, config)
  end

  -- Two tickets that wait make the policy print all the time.
  local function wait_in_queue(server)
    for i = 1, 2 do
      world:bodkin { "match", "any", "--server", server.url, "--bind", "127.0.0.1:0", "--name", "n" .. i }
    end
  end

  for i, name in ipairs { "a full disk", "a pipe without a reader", "a pipe nobody reads" } do
    it("stderr of a server to " .. name, function()
      local place = places()[i]
      local server = server_with(place, CHATTY)
      wait_in_queue(server)
      local most = 0
      for _ = 1, 8 do
        world:turn(120)
        most = math.max(most, world:answers(server, 1000))
      end
      local load = world:load({ server }, 300)
      support.say("server, stderr to %s: answers within %.0f ms, %.1f %% of a core", name, most, 100 * load)
      assert.is_true(most < 500)
      assert.is_true(load < 0.3)
      assert.is_nil(server:code())
      assert.is_true((support.status(server)).ticket_queued == 2)
      if not place.fifo then return end
      local reader <close> = assert(io.popen(("timeout 0.5 cat %s"):format(place.fifo)))
      local lost, whole = nil, true
      for line in reader:lines() do
        lost = lost or line:match "(%d+) lines of this log were lost"
        whole = whole and line:find "^%d%d%d%d%-%d%d%-%d%dT[%d:]+Z %a+ " ~= nil
      end
      assert.is_true(whole)
      assert.is_true(tonumber(lost) > 100, lost)
    end)

    it("stderr of a client to " .. name, function()
      local server, place = world:server(), places()[i]
      local host = world:bodkin({ "host", "--server", server.url, "-v", "--json", "--bind", "127.0.0.1:0" },
        { first = place.first, redirect = place.redirect:format(2) })
      local code = host:expect '"code":"([^"]+)"'
      local join = world:bodkin { "join", code, "--server", server.url, "--bind", "127.0.0.1:0" }
      world:heard(join, "connected to", 3000)
      assert.is_number(world:talk(join, host, 1000))
      assert.is_nil(host:code())
    end)

    it("stdout of a client to " .. name, function()
      local server, place = world:server(), places()[i]
      local host = world:bodkin({ "host", "--server", server.url, "--bind", "127.0.0.1:0" },
        { first = place.first, redirect = place.redirect:format(1) })
      local code = world:heard(host, "bodkin join (%S+)", 3000)
      local join = world:bodkin { "join", code, "--server", server.url, "--bind", "127.0.0.1:0" }
      world:heard(join, "connected to", 3000)
      if name == "a pipe without a reader" then -- as for any program in a pipe: it leaves
        join.input:write "x\n"
        assert.equal(0, host:wait(2000))
        world:heard(join, "has left", 1000)
        return
      end
      local line = ("x"):rep(1000) .. "\n"
      for n = 1, 1500 do
        join.input:write(line)
        if n % 30 == 0 then world:turn(5) end
      end
      world:turn(300)
      local load = world:load({ host }, 300)
      support.say("client, stdout to %s: %.1f %% of a core", name, 100 * load)
      assert.is_true(load < 0.05)
      assert.is_number(world:talk(host, join, 1000))
      if not place.fifo then return end
      local reader <close> = assert(io.popen(("timeout 1 cat %s | grep -cx x*"):format(place.fifo)))
      local lost = tonumber(world:heard(host, "(%d+) lines of stdout were lost", 4000))
      assert.equal(1500, lost + tonumber(reader:read "l"))
    end)
  end

  it("a log on a disk that fills up: whole lines, and once there is room, how many are missing", function()
    local disk = world.dir .. "/disk"
    os.execute("mkdir " .. disk)
    if not os.execute(("mount -t tmpfs -o size=64k bodkin-calm %s 2>/dev/null"):format(disk)) then
      return pending "only root may mount a disk"
    end
    local _ <close> = setmetatable({}, { __close = function() os.execute("umount -l " .. disk) end })
    support.write_file(disk .. "/filler", ("x"):rep(16384))
    local server = server_with({ redirect = "%d>>" .. disk .. "/log" }, CHATTY)
    wait_in_queue(server)
    world:wait("a full disk", 5000, function() return #(support.read_file(disk .. "/log") or "") >= 49152 end)
    world:turn(200)
    assert.is_true(world:answers(server, 1000) < 500)
    os.remove(disk .. "/filler")
    world:wait("a line that tells of the others", 3000, function()
      return support.read_file(disk .. "/log"):find "[1-9]%d* lines of this log were lost: it could not be written\n"
    end)
    local torn = 0
    for line in support.read_file(disk .. "/log"):gmatch "[^\n]+" do
      torn = torn + (line:find "^%d%d%d%d%-%d%d%-%d%dT[%d:]+Z %a+ " and 0 or 1)
    end
    assert.equal(0, torn) -- a line may lack its end, none its beginning
  end)

  it("a trace: it ends, and says so, and the client goes on; a device is no file to be replaced", function()
    local full = world.dir .. "/full" -- /dev/full, but for what might go wrong here
    if not os.execute(("mknod %s c 1 7 2>/dev/null"):format(full)) then return pending "only root may make a device" end
    local server = world:server()
    local host, join = world:pair(server, { "--trace", full })
    assert.is_number(world:talk(join, host, 1000))
    for _, p in ipairs { host, join } do
      world:heard(p, "the trace ends here: No space left on device", 1000)
      assert.equal(1, select(2, p:stderr():gsub("the trace ends", "")))
    end
    assert.matches("^c", (support.run { "stat", "-c", "%F", full }))
    -- A file that others might read is not written to: another takes its place.
    local path = world.dir .. "/trace"
    support.write_file(path, "old")
    assert(os.execute("chmod 666 " .. path))
    local third = world:bodkin { "host", "--server", server.url, "--bind", "127.0.0.1:0", "--trace", path }
    world:heard(third, "bodkin join", 3000)
    assert.equal("600\n", (support.run { "stat", "-c", "%a", path }))
    assert.is_nil(support.read_file(path):find "old")
  end)
end)
