-- SPDX-License-Identifier: MIT
-- What `bodkin netcheck` says behind each kind of NAT, in the simulator, with a server at two IPs of two ports each:
-- for docs/NAT.md.

local addr = require("bodkin.core").addr
local behaviour = require "bodkin.client.behaviour"
local netcheck = require "bodkin.cli.netcheck"
local servers = require "bodkin.servers"
local task = require "bodkin.task"
local worlds = require "bodkin.sim.world"

local M = {}

M.kinds = { "none", "firewall", "full_cone", "address_restricted", "port_restricted", "plain_linux",
  "symmetric_random", "symmetric_sequential", "address_dependent" }

local LISTEN = { "198.51.100.10:4433", "198.51.100.10:4434", "198.51.100.11:4433", "198.51.100.11:4434" }

-- What was found behind a NAT of this kind (see client/behaviour.lua).
function M.found(kind)
  local world = worlds.new { seed = 1, delay_ms = 20 }
  local server = assert(servers.open(world:host({ name = "server", ip = { "198.51.100.10", "198.51.100.11" } }).env, {
    listen = LISTEN, roles = { "address" },
  }))
  local translates = kind ~= "none" and kind ~= "firewall"
  local host = world:host {
    name = "client", ip = translates and "192.168.1.2" or "203.0.113.2",
    behind = kind ~= "none" and world:nat { name = "nat", kind = kind, ip = translates and "203.0.113.1" or nil }
      or nil,
  }
  local found
  local t = task.spawn(function() found = assert(behaviour.discover(host.env, addr.parse(LISTEN[1], 0))) end)
  world:run_until(function() return t:done() end, 60000)
  server:close()
  world:close()
  return found
end

function M.transcripts()
  local out = {}
  for _, kind in ipairs(M.kinds) do
    out[#out + 1] = kind .. ":\n\n```\n" .. table.concat(netcheck.lines("IPv4", M.found(kind)), "\n") .. "\n```"
  end
  return table.concat(out, "\n\n")
end

return M
