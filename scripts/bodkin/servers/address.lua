-- SPDX-License-Identifier: MIT
-- The address server (S1): tells a client the public address that its request came from, read from the
-- packet's header, with a proof of it that the matching server believes. It keeps nothing. Any STUN client is told,
-- too, without a proof: its request is shorter than the answer, so each network gets so many and no more.

local limits = require "bodkin.servers.limits"
local role = require("bodkin.servers.role").role

local BURST_S = 10 -- seconds' worth of STUN answers at once
local NETWORKS = 8192 -- remembered

return role {
  name = "address",
  wants = { address_request = { "tx" } },
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
    }
  end,
}
