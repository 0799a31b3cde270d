-- SPDX-License-Identifier: MIT
-- The tickets of a node: what waits in queues, part of its sharing manager's work. A ticket is known for as long as
-- the match it led to, since each peer of that comes with a `matched` of its own.

local core = require "bodkin.core"
local request = require "bodkin.client.request"
local task = require "bodkin.task"

local waiting_of = require "bodkin.waiting"

local code_of, printable = request.code_of, request.printable

-- When the server is asked why a ticket still waits, and then each so long; where too many ask, less often. And before
-- its own time is over, so that what ends it says why.
local ASKS_MS, ASK_EACH_MS, ASK_RARELY_MS, ASK_BEFORE_MS = { 3000, 10000, 30000 }, 60000, 300000, 1000

local M = {}
local Queues = {}
Queues.__index = Queues

function M.new()
  return setmetatable({ tickets = {} }, Queues)
end

local function finish(self, t, ...)
  if not t.match then self.tickets[t.raw] = nil end
  if t.timer then t.timer:cancel() end
  if t.ask_timer then t.ask_timer:cancel() end
  t.timer, t.ask_timer = nil, nil
  t.result = table.pack(...)
  if t.resume then t.resume(...) end
end

-- --- why it waits
local function reason_of(present, of, said)
  if present < of then return ("%d of its party of %d are there"):format(present, of) end
  return type(said) == "table" and waiting_of.said(said) or nil
end

-- told(): where the server said something new of it.
local function ask_why(node, t, told)
  node.sharing:why(t.raw, function(waited_ms, present, of, said)
    t.is_rare = not waited_ms and of == "limit"
    local reason = waited_ms and reason_of(present, of, said)
    if not reason or t.result or t.proposal or reason == t.reason then return end
    t.reason = reason
    if told then told(waited_ms, present, of) end
  end)
end

local function ask_later(self, node, t, i)
  local at_ms, before_ms = ASKS_MS[i], ASKS_MS[i - 1] or 0
  local wait_ms = at_ms and at_ms - before_ms or t.is_rare and ASK_RARELY_MS or ASK_EACH_MS
  local left_ms = t.end_us and (t.end_us - node.env.now()) / 1000 - ASK_BEFORE_MS
  local is_last = left_ms ~= nil and wait_ms >= left_ms
  if is_last then wait_ms = math.max(left_ms, (left_ms + ASK_BEFORE_MS) / 2) end
  t.ask_timer = node.env.timer(math.ceil(wait_ms), function()
    t.ask_timer = nil
    ask_why(node, t, not is_last and function(waited_ms, present, of)
      node:emit("queued", { ticket = t.id, waited_ms = waited_ms, present = present, of = of, reason = t.reason })
    end)
    if not is_last then ask_later(self, node, t, i + 1) end
  end)
end

-- In a task: asks the server to queue a ticket. One that ended meanwhile is taken back once more: the server may have
-- heard of that first.
local function enqueue(self, node, t)
  local ok, err, code = node.sharing:enqueue(t.raw, t.queue, t.props, t.party, t.party_size)
  if not ok and not t.result then finish(self, t, nil, err, code) end
  if ok and t.result and not t.match then node.sharing:cancel(t.raw) end
  return ok
end

-- A party's id on the wire: whoever knows the text is of it.
local function party_id(text) return core.crypto.mac(("bodkin party"):rep(2), text, 16) end

-- In a task: the match, or nil, message, code. props: a table; options: timeout_ms (nil: for ever), party = { id = a
-- text, size = }, accept = "ask": its matches are accepted by accept() alone.
function Queues:wait(node, queue, props, options)
  local encoded, err, code = core.wire.encode(props)
  if not encoded then return nil, err, code end
  if #encoded > 128 then return nil, "props do not fit in 128 bytes; say less", "limit" end
  local party, timeout_ms = options.party, options.timeout_ms
  local t = { raw = node.env.random(16), queue = queue, props = encoded, ask = options.accept == "ask",
    party = party and party_id(party.id), party_size = party and party.size,
    end_us = timeout_ms and node.env.now() + timeout_ms * 1000 }
  t.id = core.crypto.hex(t.raw)
  if timeout_ms then
    t.timer = node.env.timer(timeout_ms, function()
      t.timer = nil
      node.sharing:cancel(t.raw)
      finish(self, t, nil, ("no match in queue %s within %g s: %s"):format(queue, timeout_ms / 1000,
        t.reason and t.reason .. "; wait longer?" or "does anybody else wait there, and fit?"), "no_match")
    end)
  end
  self.tickets[t.raw] = t
  if enqueue(self, node, t) and not t.result then
    if not t.is_told then node:emit("queued", { ticket = t.id }) end
    ask_later(self, node, t, 1)
  end
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
  t.proposal, t.is_told = nil, true
  node:emit("queued", { ticket = t.id, present = present, of = of, reason = text ~= "" and printable(text) or nil })
end

function on.ended(self, _, t, number, text)
  local code = code_of(number)
  text = text ~= "" and printable(text) or "the ticket ended"
  if code == "no_match" then text = ("%s%s; try again?"):format(text, t.reason and ": " .. t.reason or "") end
  finish(self, t, nil, text, code)
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
  local others = waiting(self) -- and not what begins to wait now that this match is there
  finish(self, t, match)
  -- So has the server done with these, in the same moment.
  for _, other in ipairs(others) do
    if not other.result then finish(self, other, nil, "matched in another queue", "closed") end
  end
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
    if not t.result then enqueue(self, node, t) end
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
