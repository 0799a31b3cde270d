-- SPDX-License-Identifier: MIT
-- Tokens: what a game's own backend says of a player, signed, for servers to believe and policies to read as
-- ticket.claims. base64url(claims ‖ signature): the claims a msgpack map, the signature (64 bytes) Ed25519 over
-- "bodkin token 1" 0x00 ‖ claims; at most 512 bytes before base64url. Claims: exp (required) and nbf, seconds since
-- 1970; sub, a text; id, the client it is for (32 hexadecimal digits); app, the application it is for; others are the
-- game's own. examples/issue_token.py issues one.

local core = require "bodkin.core"

local crypto, wire = core.crypto, core.wire
local M = { max = 512 }

local PREFIX = "bodkin token 1\0"
local SIGNATURE = 64
local LAST_S = 1 << 53 -- what every language's numbers hold

local function whole(v)
  return math.type(v) == "integer" and v > 0 and v < LAST_S, "whole seconds since 1970"
end

local checks = {
  exp = whole, nbf = whole,
  sub = function(v) return type(v) == "string" and utf8.len(v) ~= nil, "a text" end,
  id = function(v) return type(v) == "string" and #v == 32 and not v:find "[^%da-f]", "32 hexadecimal digits" end,
  app = function(v) return type(v) == "string" and #v >= 1 and #v <= 64, "1 to 64 bytes" end,
}

-- true, or nil and what is wrong.
local function check(claims)
  if type(claims) ~= "table" then return nil, "the claims are no map" end
  if claims.exp == nil then return nil, "exp is missing" end
  for name, value in pairs(claims) do
    if type(name) ~= "string" then return nil, "the claims are no map" end
    if checks[name] then
      local ok, expected = checks[name](value)
      if not ok then return nil, ("%s is not %s"):format(name, expected) end
    end
  end
  return true
end

-- A token's text, or nil, message, "invalid" or "limit". seed: the secret of a token key, 32 bytes.
function M.issue(seed, claims)
  local ok, why = check(claims)
  if not ok then return nil, ("no token can say that: %s"):format(why), "invalid" end
  local bytes, err, code = wire.encode(claims)
  if not bytes then return nil, ("no token can say that: %s"):format(err), code end
  if #bytes + SIGNATURE > M.max then
    return nil, ("the claims have %d bytes and may have %d; say less"):format(#bytes, M.max - SIGNATURE), "limit"
  end
  return crypto.base64url(bytes .. crypto.sign(seed, PREFIX .. bytes))
end

-- The bytes of a text, white space around it aside, or nil: it is no token. Nothing in them is believed yet.
function M.bytes(text)
  local word = #text <= 2 * M.max and text:match "^%s*(%S+)%s*$"
  local bytes = word and crypto.unbase64url(word)
  return bytes and #bytes > SIGNATURE and #bytes <= M.max and bytes or nil
end

local function signed(claims, signature, publics)
  for _, public in ipairs(publics) do
    if crypto.verify(public, PREFIX .. claims, signature) then return true end
  end
  return false
end

-- The claims of a token, or nil, message of at most 40 bytes, "refused". publics: the keys that may have signed it,
-- 32 bytes each (two while they are rotated); now_s: seconds since 1970; id (16 bytes) and app: of the client who
-- shows it.
function M.open(bytes, publics, now_s, id, app)
  local function refuse(why) return nil, why, "refused" end
  if #bytes <= SIGNATURE or #bytes > M.max then return refuse "that is no token" end
  local packed = bytes:sub(1, -SIGNATURE - 1)
  if not signed(packed, bytes:sub(-SIGNATURE), publics) then return refuse "no key known here signed the token" end
  local claims = wire.decode(packed)
  if not check(claims) then return refuse "the token's claims are not right" end
  if now_s >= claims.exp then return refuse "the token has expired" end
  if claims.nbf and now_s < claims.nbf then return refuse "the token is not valid yet" end
  if claims.id and not crypto.equal(claims.id, id and crypto.hex(id) or "") then
    return refuse "the token is another client's"
  end
  if claims.app and claims.app ~= app then return refuse "the token is for another app" end
  return claims
end

return M
