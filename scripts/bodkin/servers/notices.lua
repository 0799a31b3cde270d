-- SPDX-License-Identifier: MIT
-- What clients are told of their tickets, unasked: each again until it is acknowledged, as `matched` is. What is newer
-- about a ticket takes the place of what was on its way.

local M = {}
local Notices = {}
Notices.__index = Notices

local FIRST_WAIT_MS, TRIES = 20, 10 -- as delivery.lua has it
local EACH = 16                     -- of one client: the oldest is given up for a seventeenth

-- locate(id) -> the association by which that client is to be reached now, or nil.
function M.new(server, locate)
  return setmetatable({ server = server, locate = locate, by_tx = {}, of = {} }, Notices)
end

local function drop(self, n)
  if self.by_tx[n.tx] ~= n then return end
  if n.timer then n.timer:cancel() end
  self.by_tx[n.tx] = nil
  local list = self.of[n.id]
  for i, other in ipairs(list) do
    if other == n then table.remove(list, i) break end
  end
  if #list == 0 then self.of[n.id] = nil end
end

local function send(self, n)
  local server, assoc = self.server, self.locate(n.id)
  if not assoc then return drop(self, n) end
  server:push(assoc, n.name, n.tx, n.ticket, n.fields((server.env.now() - n.at_us) // 1000))
  n.tries = n.tries + 1
  n.timer = server.env.timer(n.wait_ms, function()
    if n.tries < TRIES then return send(self, n) end
    drop(self, n)
  end)
  n.wait_ms = n.wait_ms * 2
end

-- Tells the client `id` of its ticket; fields(age_ms) -> what stands after tx and ticket in the message of that name.
function Notices:push(id, name, ticket, fields)
  local server, list = self.server, self.of[id] or {}
  for _, n in ipairs(list) do
    if n.ticket == ticket then drop(self, n) break end
  end
  if #list >= EACH then drop(self, list[1]) end
  local n = { id = id, name = name, ticket = ticket, fields = fields, tx = server.env.random(12),
    at_us = server.env.now(), tries = 0, wait_ms = FIRST_WAIT_MS }
  list[#list + 1] = n
  self.of[id], self.by_tx[n.tx] = list, n
  send(self, n)
end

-- An acknowledgement by a client. Whether it was of one of these.
function Notices:ack(id, tx)
  local n = self.by_tx[tx]
  if not n or n.id ~= id then return false end
  drop(self, n)
  return true
end

-- A client is gone, and nothing need reach it any more.
function Notices:gone(id)
  while self.of[id] do drop(self, self.of[id][1]) end
end

function Notices:close()
  for _, n in pairs(self.by_tx) do
    if n.timer then n.timer:cancel() end
  end
  self.by_tx, self.of = {}, {}
end

return M
