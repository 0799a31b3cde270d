-- SPDX-License-Identifier: MIT
-- The whole system with a man in the middle on every link: two pairs of clients and their server, as in
-- spec/lab/mitm_spec.lua, but by the hundred. ATTACK=first:count says which seeds.

local attackers = require "bodkin.sim.attacker"
local servers = require "bodkin.servers"
local talker = require "spec.lab.talker"
local task = require "bodkin.task"
local worlds = require "bodkin.sim.world"

local KINDS = { "none", "port_restricted", "full_cone", "address_restricted", "firewall" }
local first, count = (os.getenv "ATTACK" or os.getenv "SOAK" and "1:2000" or "1:40"):match "^(%d+):(%d+)$"

local function host(world, i, name, kind)
  local ip = "203.0.113." .. i
  if kind == "none" then return world:host { name = name, ip = ip } end
  local behind = world:nat { name = "nat " .. name, kind = kind, ip = kind ~= "firewall" and ip or nil }
  return world:host { name = name, ip = kind == "firewall" and ip or "192.168.1.2", behind = behind }
end

-- Returns { sent, got, connected (sides), deeds = { name -> how often } }; throws when anything is delivered that was
-- not sent, or twice, or a script threw.
local function play(seed, attack)
  local total = { sent = 0, got = 0, connected = 0, deeds = {} }
  local world = worlds.new { seed = seed, delay_ms = 5 + seed % 40, jitter_ms = 3, attack = attack, trace = false,
    on_deed = function(name) total.deeds[name] = (total.deeds[name] or 0) + 1 end }
  local hub = world:host { name = "server", ip = "198.51.100.10" }
  local server = assert(servers.open(hub.env, { listen = { "198.51.100.10:4433" } }))
  local tasks = {}
  for pair = 1, 2 do
    local app, sent, connected = "talk" .. pair, { a = {}, b = {} }, {}
    for i, role in ipairs { "a", "b" } do
      local peer, seen = role == "a" and "b" or "a", {}
      local env = host(world, 2 * pair + i, role .. pair, KINDS[1 + (seed + 2 * i + pair) % #KINDS]).env
      tasks[#tasks + 1] = task.spawn(talker.talk, {
        env = env, role = role, url = "bodkin://198.51.100.10:4433", server_keys = server.public_keys,
        app = app, count = 25, every_ms = 20,
        on = function(kind, x)
          if kind == "sent" then
            sent[role][x], total.sent = true, total.sent + 1
          elseif kind == "connected" and not connected[role] then
            connected[role], total.connected = true, total.connected + 1
          elseif kind == "got" then
            local n = talker.number(app, peer, x)
            if not n or not sent[peer][n] then error(("delivered, but never sent: %q"):format(x)) end
            if seen[n] then error(("delivered twice: %q"):format(x)) end
            seen[n], total.got = true, total.got + 1
          end
        end,
      })
    end
  end
  world:run_until(function()
    for _, t in ipairs(tasks) do if not t:done() then return false end end
    return true
  end, 60000)
  for _, t in ipairs(tasks) do
    assert(t:done(), "a talker does not end")
    local ok, err = t:join()
    assert(ok, err)
  end
  assert(server.counters:get "handler_error" == 0, "a handler threw")
  server:close()
  world:close()
  return total
end

describe("a man in the middle of everything", function()
  it("delivers nothing that was not sent, nor twice, and breaks nothing", function()
    local all, began = { sent = 0, got = 0, connected = 0 }, os.clock()
    local deeds = {}
    for seed = tonumber(first), tonumber(first) + tonumber(count) - 1 do
      local ok, total = xpcall(play, debug.traceback, seed, (1 + seed % 5) / 10)
      if not ok then error(("ATTACK=%d:1: %s"):format(seed, total), 0) end
      for name in pairs(all) do all[name] = all[name] + total[name] end
      for name, n in pairs(total.deeds) do deeds[name] = (deeds[name] or 0) + n end
    end
    print(("# man in the middle of everything: %d worlds, %.0f a second; %d of %d sides connected, %d of %d messages "
      .. "delivered"):format(count, count / (os.clock() - began), all.connected, 4 * count, all.got, all.sent))
    if tonumber(count) < 20 then return end
    for _, name in ipairs(attackers.names) do assert(deeds[name], "he never did " .. name) end
    assert(all.connected > 2.5 * count, all.connected)
  end)

  it("is not noticed when he merely forwards", function()
    for seed = 1, 5 do
      local total = play(seed, 0)
      assert.same({ 4, 100, 100, {} }, { total.connected, total.sent, total.got, total.deeds })
    end
  end)
end)
