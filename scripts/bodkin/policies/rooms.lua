-- SPDX-License-Identifier: MIT
-- Those who name the same room are put together, once as many wait as the one who waits longest asks for.
local bodkin = require "bodkin"

return bodkin.policy {
  size = { 2, 16 },
  props = {
    room = "string",
    players = { type = "integer", min = 2, max = 16, default = 2 },
  },
  shard = "room",

  admit = function(ticket)
    if ticket.props.room == "" then return false, "a room needs a name" end
    return true
  end,

  form = function(anchor, near)
    local wanted = anchor.props.players
    if #near + 1 < wanted then return nil end
    local team = table.move(near, 1, wanted - 1, 2, { anchor })
    return { teams = { team }, host = anchor, data = { room = anchor.props.room } }
  end,
}
