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
  local list, here = {}, server.socks[server.via]:addr()
  at = at or addr.class(here) ~= "none" and here
  for _, sock in ipairs(at and server.socks or {}) do
    local bound = sock:addr()
    local there = addr.class(bound) == "none" and #bound == #at and addr.with_port(at, addr.port(bound)) or bound
    if #there == #at and there ~= at and #list < OTHERS_MAX then list[#list + 1] = { address = there, sock = sock } end
  end
  return list
end

-- What a client asks to learn how its NAT filters: one answer, to where the request came from, that is proven to be the
-- sender's, and no longer than it; but from another of our addresses (`via`). Where there is no such: which there are.
local function probe(server, reply, from, tx, proof, via)
  if not server.cookie:valid(proof, from) then
    if proof then server.counters:add "address_cookie_bad" end
    return server:report(reply, from, tx)
  end
  local list, addresses = others(server, reply:at()), {}
  for i, other in ipairs(list) do addresses[i] = other.address end
  if not list[via] then return reply("probe_report", tx, 0, addresses) end
  local bytes = server.schemas.probe_report:encode(tx, via, {})
  if #bytes > reply:length() then return server.counters:add "refuse_reply" end
  server.counters:add "probed"
  list[via].sock:send(from, bytes, nil, addresses[via])
end

return role {
  name = "address",
  wants = { address_request = { "tx" }, probe_request = { "tx", "proof", "via" } },
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
      probe_request = function(...) probe(server, ...) end,
    }
  end,
}
