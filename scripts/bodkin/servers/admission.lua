-- SPDX-License-Identifier: MIT
-- Who may register or select here: whoever holds a token that is valid, where the server wants one. What the token
-- claims stays with the client's registration, for policies.

local people = require "bodkin.servers.people"
local token = require "bodkin.token"

local M = {}
local Admission = {}
Admission.__index = Admission

-- server: with token_keys (32 bytes each) or nil, require_token.
function M.new(server)
  return setmetatable({ server = server, claims = {} }, Admission)
end

-- The claims of a client ({} without a token), or nil, code, text.
function Admission:check(id, app, name, props, bytes)
  local wrong = people.wrong(app, name, props)
  if wrong then return nil, "invalid", wrong end
  local server = self.server
  if not server.token_keys then return {} end -- whatever is shown, nobody here can tell what it is worth
  if not bytes then
    if server.require_token then return nil, "refused", "a token is needed here" end
    return {}
  end
  local claims, text, code = token.open(bytes, server.token_keys, server.cookie.time(), id, app)
  if not claims then return nil, code, text end
  return claims
end

-- With a registration, until it ends.
function Admission:keep(id, claims) self.claims[id] = next(claims) and claims or nil end
function Admission:of(id) return self.claims[id] or {} end
function Admission:gone(id) self.claims[id] = nil end

return M
