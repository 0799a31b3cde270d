-- SPDX-License-Identifier: MIT
-- Associations with clients: who may open one, how many, and when they end. What is sealed in them C sees to.

local core = require "bodkin.core"
local limits = require "bodkin.servers.limits"

local M = {}

local SWEEP_MS = 1000
local SWEEP_PASSES = 10 -- all are looked at in so many sweeps

local BURST_S = 10 -- seconds' worth of handshakes from one source at once
local SOURCES = 65536 -- remembered

local refusals = {
  bad_key = "this server has another key",
  limit = "too many clients here",
}

-- Adds its handlers to `on`, and server.assocs.
function M.install(server, on)
  local env, bounds, counters = server.env, server.limits, server.counters
  server.assocs = core.assocs {
    keys = server.keys, seed = env.random(32), now_us = env.now(), counters = counters, max = bounds.associations,
  }
  local of_source = {} -- how many from each
  local gate = limits.buckets {
    rate = bounds.handshakes_each, burst = BURST_S * bounds.handshakes_each, sources = SOURCES,
    all_rate = bounds.handshakes, all_burst = bounds.handshakes, now_us = env.now(),
  }

  local timer
  local function sweep()
    timer = env.timer(SWEEP_MS, sweep)
    for _, origin in ipairs(server.assocs:sweep(env.now(), SWEEP_PASSES)) do
      local source = limits.source(origin)
      local n = of_source[source] - 1
      of_source[source] = n > 0 and n or nil
    end
  end
  sweep()

  function on.open(reply, from, tx, proof, noise)
    if not server:prove(reply, from, tx, proof) then return end
    local source = limits.source(from)
    local here = of_source[source] or 0
    if here >= bounds.associations_each or not gate:may(env.now(), from, 1, here > 0) then
      counters:add "association_refused"
      return server:refuse(reply, tx, "limit", "too many from your address: try later")
    end
    server.held = {} -- what is pushed to this client meanwhile follows the answer
    local answer, text, x = server.routers[server.via]:open(reply, noise)
    local held = server.held
    server.held = nil
    if not answer then -- x is a code; of a message seen before, nothing is said
      if refusals[x] then server:refuse(reply, tx, x, refusals[x]) end
      return text
    end
    if x then of_source[source] = here + 1 end
    reply("opened", tx, answer)
    for _, push in ipairs(held) do server:push_bytes(push.assoc, push.bytes) end
  end

  -- For who has no key yet, and takes the first that it is told.
  function on.key_request(reply, _, tx) reply("key_report", tx, server.public_keys) end

  server:at_close(function() timer:cancel() end)
  server:at_status(function(info) info.associations = server.assocs:count() end)
end

return M
