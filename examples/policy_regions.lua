-- SPDX-License-Identifier: MIT
-- Up to eight in a match, of one mode; of one region at first, of any after ten seconds. A match starts with four, and
-- waits three seconds for more.
--   bodkin check examples/policy_regions.lua
--   bodkin serve --policy party=examples/policy_regions.lua

local bodkin = require "bodkin"

return bodkin.policy {
  size = { 4, 8 },
  props = {
    mode = { "race", "battle" },
    region = { type = { "eu", "us", "asia" }, default = "eu" },
    version = { type = "integer", min = 1, max = 4 },
  },
  shard = "mode",

  admit = function(ticket)
    if ticket.props.version < 3 then return false, "please update the game" end
    return true
  end,

  compatible = function(a, b)
    if a.props.version ~= b.props.version then return false end
    return a.props.region == b.props.region or a.waited_ms > 10000 and b.waited_ms > 10000
  end,

  form = function(anchor, near)
    local players = { anchor }
    for _, other in ipairs(near) do
      if #players < 8 then players[#players + 1] = other end
    end
    if #players < 8 and anchor.waited_ms < 3000 then return nil end
    return { teams = { players }, host = anchor, data = { mode = anchor.props.mode, players = #players } }
  end,
}
