-- SPDX-License-Identifier: MIT
-- The relay: two peers with tickets for each other, each of which has proven its address, reach each other through it
-- where no direct path is. What it forwards it cannot read, and no datagram says where to. C forwards; this script
-- opens.

local core = require "bodkin.core"
local role = require("bodkin.servers.role").role

local SWEEP_MS = 250

return role {
  name = "relay",
  wants = { relay_open = { "tx", "proof", "ticket", "tag", "hello" } },
  on = function(server)
    local env, bounds, counters = server.env, server.limits, server.counters
    local relay = core.relay {
      seed = env.random(32), counters = counters, max = bounds.relay_pairs, rate = bounds.relay_rate,
      burst = bounds.relay_rate, bytes_max = bounds.relay_bytes,
    }
    server.relay = relay

    -- Only while there is somebody: an idle server sleeps.
    local timer
    local function sweep()
      timer = relay:sweep(env.now()) > 0 and env.timer(SWEEP_MS, sweep) or nil
    end

    local function refuse(reply, tx, code, text)
      counters:add "relay_refused"
      server:refuse(reply, tx, code, text)
    end

    server:at_close(function()
      if timer then timer:cancel() end
      relay:close()
    end)
    server:at_status(function(info) info.relayed = relay:count() end)

    return {
      relay_open = function(reply, from, tx, proof, ticket, tag, hello)
        if not server:prove(reply, from, tx, proof) then return end
        local pair, side, left_s = server.tickets:open(ticket)
        if not pair then return refuse(reply, tx, "refused", "no ticket of this deployment, or expired") end
        local now = env.now()
        local channel, other_hello, other, number, other_tx, other_channel, news = relay:open(now, reply, pair, side,
          now + left_s * 1000000, tag, tx, hello)
        if not channel then return refuse(reply, tx, "limit", "no room, or the pair has had its share") end
        timer = timer or env.timer(SWEEP_MS, sweep)
        reply("relay_opened", tx, channel, other_hello, left_s)
        if not other then return end
        -- It has waited for this: its own request was answered without a hello, or with one that is old now.
        server.socks[number]:send(other, assert(server.schemas.relay_opened:encode(other_tx, other_channel, news)))
      end,
    }
  end,
}
