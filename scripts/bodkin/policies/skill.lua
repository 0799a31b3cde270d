-- SPDX-License-Identifier: MIT
-- One against one, of about the same skill: the longer somebody waits, the further apart the two may be.
local bodkin = require "bodkin"

local NEAR, PER_S, FAR = 50, 10, 400 -- the window at first, what each second adds, and where it ends

local function window(ticket)
  return math.min(NEAR + ticket.waited_ms / 1000 * PER_S, FAR)
end

return bodkin.policy {
  teams = { 1, 1 },
  props = {
    mmr = { type = "number", min = 0, max = 10000 },
    mode = { type = "string", default = "" },
  },
  index = "mmr",
  shard = "mode",
  window_ms = 250,

  -- Both have to accept the distance, so nobody new is given to one who has waited long.
  compatible = function(a, b)
    local gap = math.abs(a.props.mmr - b.props.mmr)
    if gap <= window(a) and gap <= window(b) then return true end
    return false, "further apart in mmr than both accept yet"
  end,

  form = function(anchor, near)
    local other = near[1] -- the nearest by index
    local gap = math.floor(math.abs(anchor.props.mmr - other.props.mmr))
    return { teams = { { anchor }, { other } }, data = { gap = gap } }
  end,
}
