-- SPDX-License-Identifier: MIT
-- Five against five, alone or in parties of up to five, each with a role or any: a team has at most one tank, one
-- healer and three that do damage. Parties stay together; of the ways to fill the teams, one with the most even skill
-- is taken.
local bodkin = require "bodkin"

local TEAMS, LIMITS = { 5, 5 }, { role = { tank = 1, healer = 1, damage = 3 } }
local NEAR, PER_S, FAR = 150, 15, 800 -- how far apart two tickets may be at first, each second more, and at the most

-- What the game's backend claims; where there are no tokens, what the client says.
local function skill_of(member) return member.claims.mmr or member.props.mmr end

local function skill(ticket)
  if ticket.size == 1 then return skill_of(ticket) end
  local sum = 0
  for _, member in ipairs(ticket.members) do sum = sum + skill_of(member) end
  return sum / ticket.size
end

local function window(ticket) return math.min(NEAR + ticket.waited_ms / 1000 * PER_S, FAR) end

return bodkin.policy {
  teams = TEAMS,
  party = 5,
  props = {
    mmr = { type = "number", min = 0, max = 10000, default = 1500 },
    role = { "any", "tank", "healer", "damage", default = "any" },
    mode = { type = "string", default = "" },
  },
  claims = { mmr = "number?" },
  index = skill,
  shard = "mode",
  window_ms = 500,

  compatible = function(a, b)
    local gap = math.abs(skill(a) - skill(b))
    if gap <= window(a) and gap <= window(b) then return true end
    return false, "mmr too far apart"
  end,

  form = function(anchor, near)
    local list = { anchor }
    for i = 1, #near do list[i + 1] = near[i] end
    local packed = bodkin.pack(list, TEAMS, LIMITS)
    if not packed then return nil end
    local chosen = packed[1]
    for _, ticket in ipairs(packed[2]) do chosen[#chosen + 1] = ticket end
    local teams, gap = bodkin.split(chosen, TEAMS, skill_of, LIMITS)
    if not teams then return nil end
    return { teams = teams, data = { gap = math.floor(gap) } }
  end,
}
