-- SPDX-License-Identifier: MIT
-- What a client does when an end of a session may have moved: tells the server, and with it the peer, where it is, and
-- hears where that one is. It looks at its own interfaces from time to time, too: what changes there need not wait for
-- silence.

local core = require "bodkin.core"
local message = require "bodkin.message"

local M = {}
local Roaming = {}
Roaming.__index = Roaming

local LOOK_MS, SELDOM_MS = 1000, 10000 -- at the interfaces, while there are matches and while there are none
local ANSWER_MS = 900                  -- a question that is not answered by then is asked anew, with what is known then

-- `config`: env, requests, router, addresses, mux, node, server = its address.
function M.new(config)
  local self = setmetatable({
    env = config.env, requests = config.requests, addresses = config.addresses, mux = config.mux, node = config.node,
    server = config.server,
  }, Roaming)
  config.router:on(message.whereabouts, nil, function(reply, from, tx, ...)
    if self.requests.pending[tx] then return self.requests:answer("whereabouts", reply, from, tx, ...) end
    self:told(...)
  end)
  return self
end

-- A peer of a match may be at these addresses now, and there may be a fresh ticket for its relays.
function Roaming:told(match, peer, pubs, locals, ticket)
  local m = self.node.matches[match]
  local p = m and m.by_id[core.crypto.hex(peer)]
  if not p or not p.session then return self.env.counters:add "drop_reply" end
  self.mux:listed(p.session, self.addresses:candidates(pubs, locals))
  if ticket then self.node.relays:renewed(p.session, ticket) end
end

-- Nothing comes back in a session.
function Roaming:ask(session)
  local s = self.node.sessions[session]
  if not s then return end
  local match, peer = s.match.raw, core.crypto.unhex(s.peer.id)
  self.requests:post({
    to = self.server, sealed = true, quiet = true, expect = "whereabouts", timeout_ms = ANSWER_MS,
    build = function(tx)
      return message.where:encode(tx, match, peer, self.addresses:pubs(), self.addresses:locals())
    end,
  }, function(ok, ...)
    if ok then return self:told(...) end
    if select(2, ...) == "timeout" then self.node.carriage:look() end
  end)
end

-- An address of this host is another: everything that it was known by is said anew, at once.
function Roaming:moved()
  local node = self.node
  self.mux:moved(self.addresses:left())
  node.relays:moved()
  for session in pairs(node.sessions) do self:ask(session) end
  node.addresses:moved()
  node.requests:moved()
  node.registration:kick()
  node.maintenance:moved()
end

local function look_later(self)
  self.often = next(self.node.matches) ~= nil
  self.timer = self.env.timer(self.often and LOOK_MS or SELDOM_MS, function()
    local changed = self.addresses:changed()
    look_later(self)
    if not changed then return end
    self.node.carriage:moved()
    self:moved()
  end)
end

-- Looks at the interfaces from now on; to be called again when a match begins.
function Roaming:start()
  if not self.timer then self.addresses:changed() end
  if self.timer and (self.often or not next(self.node.matches)) then return end
  self:close()
  look_later(self)
end

-- Idempotent.

function Roaming:close()
  if self.timer then self.timer:cancel() end
  self.timer = nil
end

return M
