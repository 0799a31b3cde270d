-- SPDX-License-Identifier: MIT
-- The tickets of a node: what waits in queues, part of its sharing manager's work. A ticket is known for as long as
-- the match it led to, since each peer of that comes with a `matched` of its own.

local core = require "bodkin.core"
local request = require "bodkin.client.request"
local task = require "bodkin.task"

local code_of, printable = request.code_of, request.printable

local M = {}
local Queues = {}
Queues.__index = Queues

function M.new()
  return setmetatable({ tickets = {} }, Queues)
end

local function finish(self, t, ...)
  if not t.match then self.tickets[t.raw] = nil end
  if t.timer then t.timer:cancel() end
  t.timer = nil
  t.result = table.pack(...)
  if t.resume then t.resume(...) end
end

-- A party's id on the wire: whoever knows the text is of it.
local function party_id(text) return core.crypto.mac(("bodkin party"):rep(2), text, 16) end

-- In a task: queues a ticket. It may have ended here while it was asked for, and the server know of it only since.
local function enqueue(node, t)
  local ok, err, code = node.sharing:enqueue(t.raw, t.queue, t.props, t.party, t.party_size)
  if ok and t.result and not t.match then node.sharing:cancel(t.raw) end
  return ok, err, code
end

-- In a task: the match, or nil, message, code. props: a table; options: timeout_ms (nil: for ever), party = { id = a
-- text, size = }, accept = "ask": its matches are accepted by accept() alone.
function Queues:wait(node, queue, props, options)
  local encoded, err, code = core.wire.encode(props)
  if not encoded then return nil, err, code end
  if #encoded > 128 then return nil, "props do not fit in 128 bytes; say less", "limit" end
  local party, timeout_ms = options.party, options.timeout_ms
  local t = { raw = node.env.random(16), queue = queue, props = encoded, ask = options.accept == "ask",
    party = party and party_id(party.id), party_size = party and party.size }
  t.id = core.crypto.hex(t.raw)
  if timeout_ms then
    t.timer = node.env.timer(timeout_ms, function()
      t.timer = nil
      node.sharing:cancel(t.raw)
      finish(self, t, nil, ("no match in queue %s within %g s: does anybody else wait there, and fit?"):format(
        queue, timeout_ms / 1000),
        "no_match")
    end)
  end
  self.tickets[t.raw] = t
  local ok
  ok, err, code = enqueue(node, t)
  if not ok and not t.result then finish(self, t, nil, err, code) end
  if ok and not t.result then node:emit("queued", { ticket = t.id }) end
  if not t.result then
    task.await(function(resume)
      t.resume = resume
      return function()
        t.resume = nil
        if not t.match then self:cancel(node, t.id) end
      end
    end)
  end
  return table.unpack(t.result, 1, t.result.n)
end

local function waiting(self)
  local list = {}
  for _, t in pairs(self.tickets) do
    if not t.match then list[#list + 1] = t end
  end
  table.sort(list, function(a, b) return a.raw < b.raw end)
  return list
end

-- --- what the server says of a ticket, unasked
local on = {}

-- A match that needs to be accepted.
function on.proposed(self, node, t, match, accept_ms, players)
  t.proposal = match
  node:emit("proposed", { ticket = t.id, accept_ms = accept_ms, players = players })
  if not t.ask then self:answer(node, "accept", t.id) end
end

-- Its party has changed, or a match did not come about: it waits on.
function on.waiting(_, node, t, present, of, text)
  t.proposal = nil
  node:emit("queued", { ticket = t.id, present = present, of = of, reason = text ~= "" and printable(text) or nil })
end

function on.ended(self, _, t, number, text)
  finish(self, t, nil, text ~= "" and printable(text) or "the ticket ended", code_of(number))
end

function Queues:told(node, name, raw, ...)
  local t = self.tickets[raw]
  if t and not t.match and not t.result then on[name](self, node, t, ...) end
end

-- "accept" or "decline" of the match that a ticket was told of. Whether there was one.
function Queues:answer(node, how, id)
  for raw, t in pairs(self.tickets) do
    if t.id == id and t.proposal and not t.match then
      node.sharing:answer(how, raw, t.proposal)
      t.proposal = nil
      return true
    end
  end
  return false
end

function Queues:expects(raw) return self.tickets[raw] ~= nil end

-- The match that a ticket led to; with its other peers it is told again.
function Queues:matched(raw, match)
  local t = self.tickets[raw]
  if t.match then return end
  t.match = match
  finish(self, t, match)
  -- So has the server done with these, in the same moment.
  for _, other in ipairs(waiting(self)) do finish(self, other, nil, "matched in another queue", "closed") end
end

-- Whether there was such a ticket, waiting.
function Queues:cancel(node, id)
  for raw, t in pairs(self.tickets) do
    if t.id == id and not t.match then
      node.sharing:cancel(raw)
      finish(self, t, nil, "the ticket was taken back", "closed")
      return true
    end
  end
  return false
end

function Queues:left(match)
  for raw, t in pairs(self.tickets) do
    if t.match == match then self.tickets[raw] = nil end
  end
end

-- In a task: the server forgot everything, so what waits is queued again, under the same ticket.
function Queues:restarted(node)
  for _, t in ipairs(waiting(self)) do
    t.proposal = nil
    local ok, err, code = enqueue(node, t)
    if not ok and not t.result then finish(self, t, nil, err, code) end
  end
end

-- Nobody can wait: there is no registration to be had.
function Queues:abandon(err, code)
  for _, t in ipairs(waiting(self)) do finish(self, t, nil, err, code) end
end

function Queues:close()
  self:abandon("the node is closed", "closed")
end

return M
