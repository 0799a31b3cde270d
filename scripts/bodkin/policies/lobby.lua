-- SPDX-License-Identifier: MIT
-- A lobby: up to eight play, whoever comes. It begins when it is full, or when the first has waited ten seconds and
-- there are at least two; who comes later joins one that has seats left and asks for more.
local bodkin = require "bodkin"

local MOST, WAIT_MS = 8, 10000

return bodkin.policy {
  size = { 2, MOST },
  party = 4,
  props = {
    map = { type = "string", default = "" },
    seats = { type = "integer", min = 0, max = MOST, default = 0 }, -- what a running one says of itself
  },
  shard = "map",
  window_ms = 500,

  form = function(anchor, near)
    local players, count = { anchor }, anchor.size
    for _, other in ipairs(near) do
      if count + other.size <= MOST then players[#players + 1], count = other, count + other.size end
    end
    if count < 2 or count < MOST and anchor.waited_ms < WAIT_MS then return nil end
    return { teams = { players }, host = anchor, data = { map = anchor.props.map } }
  end,

  on_backfill = function(match, near)
    local joining, free = {}, match.seats[1]
    for _, ticket in ipairs(near) do
      if ticket.size <= free then joining[#joining + 1], free = ticket, free - ticket.size end
    end
    return joining[1] and { teams = { joining } }
  end,
}
