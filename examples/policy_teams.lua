-- SPDX-License-Identifier: MIT
-- Two against two. Of the four, the best and the weakest play together, and the one who waited longest is the host.
--   bodkin check examples/policy_teams.lua
--   bodkin serve --policy teams=examples/policy_teams.lua
--   bodkin match teams --props '{"mmr":1500}' --server 'bodkin://127.0.0.1:4433#KEY'

local bodkin = require "bodkin"

local function by_skill(a, b) return a.props.mmr > b.props.mmr end

return bodkin.policy {
  teams = { 2, 2 },
  props = { mmr = { type = "number", min = 0, max = 5000 } },
  index = "mmr",
  window_ms = 500,

  -- The nearest first; who has waited a minute plays with anybody.
  compatible = function(a, b)
    local gap = math.abs(a.props.mmr - b.props.mmr)
    return gap <= 100 + math.max(a.waited_ms, b.waited_ms) / 20
  end,

  form = function(anchor, near)
    if #near < 3 then return nil end
    local four = { anchor, near[1], near[2], near[3] }
    table.sort(four, by_skill)
    return {
      teams = { { four[1], four[4] }, { four[2], four[3] } },
      host = anchor,
      data = { best = four[1].props.mmr },
    }
  end,
}
