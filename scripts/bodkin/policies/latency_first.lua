-- SPDX-License-Identifier: MIT
-- Groups of so many players as each of them wants, near to one another: a way between two costs its round-trip time,
-- and more the less likely it is that they do without a relay. The longer somebody waits, the more a way may cost.
local bodkin = require "bodkin"

local NEAR_MS, PER_S = 40, 20 -- what a way may cost at first, and what each second adds
local UNKNOWN_MS = 120        -- the way to one that is not placed
local SURE, RELAY_MS = 0.9, 100 -- how likely is good enough, and what it is worth to do without a relay

local function cost(a, b)
  return (bodkin.rtt_ms(a, b) or UNKNOWN_MS) + math.max(0, SURE - bodkin.reach(a, b)) * RELAY_MS
end

local function window(ticket)
  return NEAR_MS + ticket.waited_ms / 1000 * PER_S
end

-- Both have to accept what the way costs.
local function fits(a, b)
  local ms = cost(a, b)
  return ms <= window(a) and ms <= window(b), ms
end

-- Whether one fits all who are chosen; it was compared with the first.
local function fits_all(chosen, other)
  for i = 2, #chosen do
    if not fits(chosen[i], other) then return false end
  end
  return true
end

return bodkin.policy {
  size = { 2, 16 },
  props = { players = { type = "integer", min = 2, max = 16, default = 2 } },
  shard = "players",
  index = bodkin.place,
  window_ms = 250,

  compatible = function(a, b) return (fits(a, b)) end,

  form = function(anchor, near)
    local wanted, list, chosen = anchor.props.players, {}, { anchor }
    if #near + 1 < wanted then return nil end
    for i, ticket in ipairs(near) do list[i] = { cost = cost(anchor, ticket), ticket = ticket } end
    table.sort(list, function(a, b) return a.cost < b.cost end)
    for _, other in ipairs(list) do
      if fits_all(chosen, other.ticket) then chosen[#chosen + 1] = other.ticket end
      if #chosen == wanted then
        local host, why = bodkin.best_host(chosen)
        return { teams = { chosen }, host = host, data = { rtt_ms = why.rtt_ms and math.floor(why.rtt_ms) } }
      end
    end
  end,
}
