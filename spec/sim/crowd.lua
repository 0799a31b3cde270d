-- SPDX-License-Identifier: MIT
-- A server and n clients, each behind a NAT of its own, on a lossy network: they register, every second one
-- joins the one before it, all leave. Returns the trace as text, and how many sessions there were.
-- Run by system_spec.lua, also in a process of its own.
local node = require "bodkin.client.node"
local servers = require "bodkin.servers"
local task = require "bodkin.task"
local worlds = require "bodkin.sim.world"

return function(seed, n)
  local world = worlds.new { seed = seed, delay_ms = 20, jitter_ms = 3, loss = 0.05 }
  local server = assert(servers.open(world:host({ name = "server", ip = "198.51.100.10" }).env, {
    listen = { "198.51.100.10:4433" },
  }))
  local nodes, connected = {}, 0

  local function client(i, env)
    task.sleep(env, env.random(1):byte() * 4)
    nodes[i] = assert(node.open {
      env = env, server = "bodkin://server", server_keys = server.public_keys, app = "crowd/1", name = "n" .. i,
      props = { even = i % 2 == 0, n = i },
      on_event = function(event)
        if event.event == "connected" then connected = connected + 1 end
      end,
    })
    if i % 2 == 1 then return end
    task.sleep(env, 3000)
    assert(nodes[i]:join(nodes[i - 1].id))
  end

  for i = 1, n do
    local nat = world:nat { name = "nat" .. i, ip = ("203.0.%d.%d"):format(i >> 8, i & 255), kind = "port_restricted" }
    local host = world:host { name = "client" .. i, ip = "192.168.1.2", behind = nat }
    task.spawn(client, i, host.env)
  end
  world:run(20000)
  for i = 1, n do task.spawn(function() nodes[i]:close() end) end
  world:run(5000)
  server:close()
  world:close()
  return table.concat(world:trace(), "\n"), connected
end
