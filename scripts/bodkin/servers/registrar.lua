-- SPDX-License-Identifier: MIT
-- Whether a client may be registered: what the policy of all queues says, where it has on_register. It is asked when a
-- client comes for the first time, or with another name, app, other properties or claims.

local core = require "bodkin.core"
local recent = require "bodkin.servers.recent"

local M = {}
local Registrar = {}
Registrar.__index = Registrar

local REPEAT_US, REPEATS_MAX = 30000000, 65536 -- how long a refused request is known again

function M.new(server, policies)
  return setmetatable({
    server = server, policies = policies, pending = {},
    refused = recent.new { span_us = REPEAT_US, max = REPEATS_MAX, now_us = server.env.now() },
  }, Registrar)
end

-- Whether anybody is asked about here.
function Registrar:active() return self.policies:registrar() ~= nil end

-- Whether a client's registration is being decided. What needs one is then not answered: its repeat will be.
function Registrar:deciding(id) return self.pending[id] ~= nil end

local function same(a, b, claims)
  return a.app == b.app and a.name == b.name and a.props == b.props and claims == b.claims
end

-- Whether a request is decided already: nobody is asked, or it says what was admitted before.
function Registrar:settled(r)
  if not self:active() then return true end
  local known = self.server.registry:get(r.id)
  return known ~= nil and same(known, r, self.server.admission:of(r.id))
end

-- r: a request { id, tx, app, name, props, claims, … }. answer(r, true) or answer(r, false, code, text) follows, at
-- once or later, with the newest repeat of it.
function Registrar:decide(r, answer)
  local server, id = self.server, r.id
  local before = self.refused:get(server.env.now(), id .. r.tx)
  if before then return answer(r, false, before.code, before.text) end
  local pending = self.pending[id]
  if pending and same(pending.r, r, pending.r.claims) then
    pending.r = r
    return
  end
  self:forget(id)
  local mine = { r = r }
  self.pending[id] = mine
  local client = { id = core.crypto.hex(id), app = r.app, name = r.name, props = r.props, claims = r.claims }
  mine.question = self.policies:allow(client, function(ok, text)
    self.pending[id] = nil
    if ok then return answer(mine.r, true) end
    self.refused:put(server.env.now(), id .. mine.r.tx, { code = "refused", text = text })
    answer(mine.r, false, "refused", text)
  end)
  if mine.question then return end
  self.pending[id] = nil
  answer(r, false, "limit", "too many ask at once: try again")
end

-- Nothing is to be decided about this client any more.
function Registrar:forget(id)
  local pending = self.pending[id]
  if not pending then return end
  self.pending[id] = nil
  self.policies:disregard(pending.question)
end

return M
