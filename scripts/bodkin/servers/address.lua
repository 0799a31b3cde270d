-- SPDX-License-Identifier: MIT
-- The address server (S1): tells a client the public address that its request came from, read from the
-- packet's header, with a proof of it that the matching server believes. It keeps nothing. Any STUN client is told,
-- too, without a proof: its request is shorter than the answer, so each network gets so many and no more.

local core = require "bodkin.core"
local limits = require "bodkin.servers.limits"
local role = require("bodkin.servers.role").role

local BURST_S = 10 -- seconds' worth of STUN answers at once
local NETWORKS = 8192 -- remembered
local OTHERS_MAX = 4

local addr = core.addr

-- The other addresses at which this server is, as who came to `at` would name them: { address =, sock = }, …, always in
-- the same order. A socket of all addresses is at the one that was asked.
local function others(server, at)
  if server:over_tcp() then return {} end
  local list, here = {}, server.socks[server.via]:addr()
  at = at or addr.class(here) ~= "none" and here
  for _, sock in ipairs(at and server.udp or {}) do
    local bound = sock:addr()
    local there = addr.class(bound) == "none" and #bound == #at and addr.with_port(at, addr.port(bound)) or bound
    if #there == #at and there ~= at and #list < OTHERS_MAX then list[#list + 1] = { address = there, sock = sock } end
  end
  return list
end

-- Answers that are due after a silence: late(from, tx, after_s, send) asks for one, and again, from now on.
local function lateness(server)
  local env, bounds = server.env, server.limits
  local timers, count, of_source = {}, 0, {}
  server:at_close(function()
    for _, timer in pairs(timers) do timer:cancel() end
  end)
  return function(from, tx, after_s, send)
    local key, source = from .. tx, limits.source(from)
    if timers[key] then
      timers[key]:cancel()
    elseif count >= bounds.late_probes or (of_source[source] or 0) >= bounds.late_probes_each then
      return server.counters:add "probe_limited"
    else
      count, of_source[source] = count + 1, (of_source[source] or 0) + 1
    end
    timers[key] = env.timer(after_s * 1000, function()
      local left = of_source[source] - 1
      timers[key], count, of_source[source] = nil, count - 1, left > 0 and left or nil
      send()
    end)
  end
end

-- What a client asks to learn how its NAT filters: one answer, to where the request came from, that is proven to be the
-- sender's, and no longer than it; but from another of our addresses (`via`). Where there is no such: which there are.
-- And how long its mapping lives: from the same address, after a silence.
local function prober(server)
  local late = lateness(server)
  local function send(sock, from, at, bytes)
    server.counters:add "probed"
    sock:send(from, bytes, nil, at)
  end
  return function(reply, from, tx, proof, via, after_s)
    if not server:believes(reply, from, tx, proof) then return end
    local list, addresses = others(server, reply:at()), {}
    for i, other in ipairs(list) do addresses[i] = other.address end
    local waits = after_s > 0 and not reply:sealed() and not server:over_tcp()
    if not list[via] and not waits then return reply("probe_report", tx, 0, addresses) end
    -- 19 bytes: shorter than any request, whose proof alone has 22.
    local bytes = server.schemas.probe_report:encode(tx, waits and 0 or via, {})
    if not waits then return send(list[via].sock, from, addresses[via], bytes) end
    local sock, at = server.socks[server.via], reply:at()
    late(from, tx, after_s, function() send(sock, from, at, bytes) end)
  end
end

return role {
  name = "address",
  wants = { address_request = { "tx" }, probe_request = { "tx", "proof", "via", "after_s" } },
  on = function(server)
    if server.stun then
      local env, counters, each = server.env, server.counters, server.limits.stun_each
      local gate = limits.buckets {
        rate = each, burst = BURST_S * each, source = limits.network, sources = NETWORKS, now_us = env.now(),
      }
      function server.answers_stun(from)
        local may = gate:may(env.now(), from)
        if not may then counters:add "stun_limited" end
        return may
      end
    end
    return {
      address_request = function(reply, from, tx) server:report(reply, from, tx) end,
      probe_request = prober(server),
    }
  end,
}
