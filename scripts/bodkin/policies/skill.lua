-- SPDX-License-Identifier: MIT
-- One against one, of about the same skill: the longer somebody waits, the further apart the two may be. The skill is
-- what the game's backend claims; where there are no tokens, what the client says.
local bodkin = require "bodkin"

local NEAR, PER_S, FAR = 50, 10, 400 -- the window at first, what each second adds, and where it ends

local function skill(ticket) return ticket.claims.mmr or ticket.props.mmr end

local function window(ticket)
  return math.min(NEAR + ticket.waited_ms / 1000 * PER_S, FAR)
end

return bodkin.policy {
  teams = { 1, 1 },
  props = {
    mmr = { type = "number", min = 0, max = 10000, optional = true },
    mode = { type = "string", default = "" },
  },
  claims = { mmr = "number?" },
  index = skill,
  shard = "mode",
  window_ms = 250,

  admit = function(ticket)
    if not skill(ticket) then return false, "mmr is missing, and no token claims it" end
    return true
  end,

  -- Both have to accept the distance, so nobody new is given to one who has waited long. In a long queue most are asked
  -- about somebody whom any window lets in.
  compatible = function(a, b)
    local gap = math.abs(skill(a) - skill(b))
    if gap <= NEAR or gap <= window(a) and gap <= window(b) then return true end
    return false, "mmr too far apart"
  end,
}
