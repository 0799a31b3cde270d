-- SPDX-License-Identifier: MIT
-- Pairs whose tests met silence: each side opens a fresh port and says so, and the server tells both again, in one
-- instant, with the same keys. What it needs for that it remembers as long as sessions seek.

local addresses = require "bodkin.servers.addresses"
local people = require "bodkin.servers.people"
local recent = require "bodkin.servers.recent"

local M = {}
local Renewals = {}
Renewals.__index = Renewals

local KEPT_US, KEPT_MAX = 15000000, 8192 -- a session seeks for 10 s
local TIMES_MAX = 2                      -- fresh ports of one side in one match
-- The first one to say so waits for the other, which met the same silence at the same time but may be further away,
-- or lose a packet or two on its way here.
local PATIENCE_MS = 500

-- push(d): see Delivery:push.
function M.new(server, push)
  return setmetatable({
    server = server, push = push, timers = {},
    pairs = recent.new { span_us = KEPT_US, max = KEPT_MAX, now_us = server.env.now() },
  }, Renewals)
end

local function key_of(match, one, other)
  if one > other then one, other = other, one end
  return match .. one .. other
end

-- Both sides of a pair are told now: d and back, as for Delivery:push.
function Renewals:note(d, back)
  self.pairs:put(self.server.env.now(), key_of(d.match, d.to.id, d.peer.id), {
    again = 0, told = { [d.to.id] = d, [back.to.id] = back }, epochs = {}, fresh = {},
  })
end

-- Tells both, with what is known of each now.
local function tell(self, pair)
  if pair.timer then
    pair.timer:cancel()
    self.timers[pair.timer], pair.timer = nil, nil
  end
  pair.again = pair.again + 1
  local list = {}
  for _, d in pairs(pair.told) do list[#list + 1] = d end
  table.sort(list, function(a, b) return a.to.id < b.to.id end)
  local server = self.server
  for _, d in ipairs(list) do
    local to = people.now(server.registry, d.to, pair.fresh[d.to.id])
    local peer = people.now(server.registry, d.peer, pair.fresh[d.peer.id])
    self.push {
      to = to, peer = peer, match = d.match, key = d.key, of_n = d.of_n, data = d.data, seat = d.seat,
      locals = addresses.visible(server.local_rule, peer.locals, peer.pubs, to.pubs), ticket = d.ticket,
      again = pair.again,
    }
  end
end

local function await_other(self, pair)
  if pair.timer then return end
  pair.timer = self.server.env.timer(PATIENCE_MS, function() tell(self, pair) end)
  self.timers[pair.timer] = true
end

-- Adds its handler to `on`.
function Renewals:install(on)
  local server = self.server

  function on.renew(reply, from, tx, match, peer, epoch, pubs, rtt_ms)
    local id, _, assoc = reply:who()
    local pair = self.pairs:get(server.env.now(), key_of(match, id, peer))
    if not pair then return server:refuse(reply, tx, "no_match", "no such pair, or long ago") end
    if epoch > (pair.epochs[id] or 0) then -- else a repeat
      if epoch > TIMES_MAX then return server:refuse(reply, tx, "limit", "that was often enough") end
      local proven = addresses.proven(server, from, pubs, {})
      if #proven == 0 then return server:refuse(reply, tx, "invalid", "no address with a proof") end
      pair.epochs[id], pair.fresh[id] = epoch, { pubs = proven, rtt_ms = rtt_ms, assoc = assoc }
      if (pair.epochs[peer] or 0) >= epoch then tell(self, pair) else await_other(self, pair) end
    end
    reply("done", tx)
  end
end

function Renewals:close()
  for timer in pairs(self.timers) do timer:cancel() end
  self.timers = {}
end

return M
