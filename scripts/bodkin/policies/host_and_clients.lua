-- SPDX-License-Identifier: MIT
-- A star: one of the players is the host, and only the way to it counts for each of the others. It is the one whom all
-- of them reach best, and of those the one with the shortest way to the farthest.
local bodkin = require "bodkin"

local REACH, GIVE_UP_S = 0.8, 20 -- how likely the host is to be reached by each, at first; after so long anything does
local NEAR_MS, PER_S = 60, 10    -- how far the farthest may be from it at first, and what each second adds

-- The least chance, and the longest way, that somebody who has waited so long takes.
local function least(waited_ms) return REACH * math.max(0, 1 - waited_ms / 1000 / GIVE_UP_S) end
local function most(waited_ms) return NEAR_MS + waited_ms / 1000 * PER_S end

-- The host of these, and why; nil where none of them would do, and why the best one would not.
local function star(players, waited_ms)
  local host, why = bodkin.best_host(players)
  if why.reach < least(waited_ms) then return nil, "reach" end
  if why.rtt_ms and why.rtt_ms > most(waited_ms) then return nil, "distance" end
  return host, why
end

-- Who is likely to be the centre of those near the anchor: the one that most of them reach, then the nearest.
local function by_cost(center, near)
  local list = {}
  for i, ticket in ipairs(near) do
    local ms = bodkin.rtt_ms(center, ticket) or 150
    list[i] = { cost = ms + (1 - bodkin.reach(center, ticket)) * 1000, ticket = ticket }
  end
  table.sort(list, function(a, b) return a.cost < b.cost end)
  return list
end

-- The anchor and the cheapest others around a center, and what the last of them costs.
local function around(center, anchor, near, wanted)
  local players, worst = { anchor }, 0
  if center ~= anchor then players[2] = center end
  for _, other in ipairs(by_cost(center, near)) do
    if #players == wanted then break end
    if other.ticket ~= center then
      players[#players + 1], worst = other.ticket, other.cost
    end
  end
  return players, worst
end

return bodkin.policy {
  size = { 2, 16 },
  props = { players = { type = "integer", min = 2, max = 16, default = 4 } },
  shard = "players",
  window_ms = 250,

  form = function(anchor, near)
    local wanted, best, least_cost = anchor.props.players, nil, nil
    if #near + 1 < wanted then return nil end
    for i = 0, math.min(#near, 8) do -- any of them may be the one in the middle, the anchor or those who came first
      local players, cost = around(near[i] or anchor, anchor, near, wanted)
      local host = star(players, anchor.waited_ms)
      if host and (not least_cost or cost < least_cost) then best, least_cost = players, cost end
    end
    if not best then return nil end
    local host, why = bodkin.best_host(best)
    return { teams = { best }, host = host,
      data = { rtt_ms = why.rtt_ms and math.floor(why.rtt_ms), reach = math.floor(why.reach * 100) / 100 } }
  end,
}
