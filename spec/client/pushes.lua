-- SPDX-License-Identifier: MIT
-- A registered client behind a NAT whose mappings live for so long, for an hour of virtual time, and pushes of the
-- server, each repeated as `matched` is until one arrives: how many found no mapping, and what maintenance cost.

local addr = require("bodkin.core").addr
local addresses = require "bodkin.servers.addresses"
local support = require "spec.client.support"

local M = {}

local HOUR_MS, EACH_MS = 3600000, 30000
local AT_MS = { 0, 20, 60, 140, 300, 620, 1260, 2540, 5100, 10220 }
local SERVER = addr.parse("198.51.100.10:4433", 0)

-- ports: how the NAT chooses them; options: adapt, loss. Returns counts { pushes =, late = (none of the copies of the
-- first 100 ms arrived), lost = (none at all), messages = (to the server), bytes = (of these), spare = (messages of
-- spare sockets) }, and how often maintenance was sent in the end.
function M.hour(seed, timeout_ms, ports, options)
  local s = support.new { seed = seed, delay_ms = 20, trace = false, loss = options.loss }
  local nat = s:nat("nat", "203.0.113.1", { timeout_ms = timeout_ms, ports = ports })
  local host = s:host("a", "192.168.1.2", nat)
  local node = s:open(host, { behaviour = false, adapt = options.adapt })
  local seen = { pushes = 0, late = 0, lost = 0, messages = 0, bytes = 0, spare = 0 }
  local main, arrived = addr.with_port(addr.parse("192.168.1.2:0", 0), addr.port(node.socks[4]:addr())), {}
  local record = s.world.net.record
  s.world.net.record = function(event, src, dst, bytes)
    record(event, src, dst, bytes)
    if event == "send" and dst == SERVER and src == main then
      seen.messages, seen.bytes = seen.messages + 1, seen.bytes + #bytes
    elseif event == "send" and src:sub(1, 4) == main:sub(1, 4) then
      seen.spare = seen.spare + 1
    elseif event == "recv" and dst == main and bytes:sub(1, 4) == "push" then
      arrived[bytes] = true
    end
  end
  local random = require("bodkin.sim.random").new(seed, "pushes")
  local loop, n = s.world.loop, 0
  local function push()
    n = n + 1
    seen.pushes = seen.pushes + 1
    local bytes = ("push %d"):format(n)
    for i, ms in ipairs(AT_MS) do
      loop:timer(ms, function()
        local entry = s.server.registry:get(node.identity.id)
        local _, _, pubs = addresses.unpack(entry.addrs)
        if not arrived[bytes] then s.world.net:inject(s.hub.node, SERVER, pubs[1], bytes) end
      end)
      if i == 1 then
        loop:timer(ms + 100, function() if not arrived[bytes] then seen.late = seen.late + 1 end end)
      end
    end
    loop:timer(11000, function() if not arrived[bytes] then seen.lost = seen.lost + 1 end end)
  end
  local function later()
    loop:timer(EACH_MS // 2 + random:integer() % EACH_MS, function()
      push()
      later()
    end)
  end
  later()
  s.world:run(HOUR_MS)
  s.world.net.record = record
  local interval, long = node.maintenance.interval, node.maintenance.long
  s:close()
  return seen, long and "long" or interval / 1000 .. " s"
end

return M
