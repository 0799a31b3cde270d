-- SPDX-License-Identifier: MIT
-- Key pairs of made-up people, by name, for specs that add whole matches to a mux by hand.

local crypto = require("bodkin.core").crypto

local M = {}
local made = {}

-- Public and secret half, one after the other. `use`: "static" or "ephemeral".
function M.pair(name, use)
  local key = use .. ":" .. name
  if not made[key] then
    local public, secret = crypto.keypair(crypto.mac(("p"):rep(32), key, 32))
    made[key] = public .. secret
  end
  return made[key]
end

-- Fills in the keys of a match as `me` is told of it; returns it.
function M.keys(match, me, peer)
  match.own, match.own_ephemeral = M.pair(me, "static"), M.pair(me, "ephemeral")
  match.peer_key, match.peer_ephemeral = M.pair(peer, "static"):sub(1, 32), M.pair(peer, "ephemeral"):sub(1, 32)
  return match
end

return M
