-- SPDX-License-Identifier: MIT
-- How tickets ended, for an hour after, and why those wait that are there now: for the admin socket's `why`, and for
-- the client that has one. Of one that leaves unmatched after a while, the policy is asked first why it waited.

local core = require "bodkin.core"
local outcome = require "bodkin.outcome"
local recent = require "bodkin.servers.recent"
local printable = require("bodkin.client.request").printable

local M = {}
local Waits = {}
Waits.__index = Waits

local KEPT_US = 3600000000
local ASKED_MS = 1000          -- who waited less is not asked about …
local ASKS, ASKS_US = 20, 1000000 -- … nor more than so many in this time
local EACH_US, CLIENTS_MAX = 2000000, 65536 -- a client asks once in this time for each ticket that it may have
local SAID_MAX = 1000          -- bytes of what it is told
local LISTED_MAX, EXPLAINED_MAX = 20, 4 -- in one answer
local AGAIN_MS, PATIENCE_MS = 300, 1500 -- a queue's policy may just be made anew; its process may hang

local handlers

-- Adds its handler to `on`; queues: to ask about the tickets that wait.
function M.install(server, on, queues)
  local self = setmetatable({ server = server, queues = queues, list = {}, first = 1, last = 0, timers = {},
    leaving_asks = { n = 0, at_us = 0 }, client_asks = { n = 0, at_us = 0 },
    by_client = recent.new { span_us = EACH_US, max = CLIENTS_MAX, now_us = server.env.now() } }, Waits)
  handlers(self, on)
  return self
end

local function now_us(self) return self.server.env.now() end

local function forget(self)
  while self.first <= self.last and (self.last - self.first >= self.server.limits.waits
    or now_us(self) - self.list[self.first].at_us >= KEPT_US) do
    self.list[self.first] = nil
    self.first = self.first + 1
  end
end

-- Whether there may be one more of these now, of so many in that time.
local function may_ask(self, asks, most, span_us)
  local now = now_us(self)
  if now - asks.at_us >= span_us then asks.n, asks.at_us = 0, now end
  asks.n = asks.n + 1
  return asks.n <= most
end

local function may_client(self, id)
  local now = now_us(self)
  local asks = self.by_client:get(now, id) or { n = 0, at_us = now }
  self.by_client:put(now, id, asks)
  return may_ask(self, asks, self.server.limits.tickets_each, EACH_US)
end

-- A party is about to leave without a match: has the policy say why it waited, before that forgets it.
function Waits:leaving(p)
  if not p.listed or p.seats or now_us(self) // 1000 - p.since_ms < ASKED_MS then return end
  if not may_ask(self, self.leaving_asks, ASKS, ASKS_US) then return end
  local box = {}
  p.explained = box
  self.queues.policies:explain(p.queue.name, p.no, function(said) box.said = said end)
end

-- A ticket ended. how: a sentence's end; match: its id, or nil.
function Waits:ended(t, how, match)
  local p = t.party
  self.last = self.last + 1
  self.list[self.last] = { ticket = t.ticket, id = t.id, name = t.name, queue = p.queue.name, size = p.size,
    at_us = now_us(self), waited_ms = now_us(self) // 1000 - p.since_ms, how = how, match = match,
    explained = not match and p.explained or nil }
  forget(self)
end

-- --- answers
local function told(r)
  return {
    ticket = core.crypto.hex(r.ticket), id = core.crypto.hex(r.id), name = printable(r.name),
    queue = printable(r.queue), waited_ms = r.waited_ms, size = r.size,
  }
end

local function is_asked_for(r, asked)
  return r.name == asked or outcome.means(asked, core.crypto.hex(r.ticket))
    or outcome.means(asked, core.crypto.hex(r.id))
end

local function waiting(self, asked)
  local out = {}
  for _, t in pairs(self.queues.by_ticket) do
    if is_asked_for(t, asked) then out[#out + 1] = t end
  end
  table.sort(out, function(a, b) return a.no < b.no end)
  return out
end

local function live(self, t)
  local p = t.party
  local out = told { ticket = t.ticket, id = t.id, name = t.name, queue = p.queue.name, size = p.size,
    waited_ms = now_us(self) // 1000 - p.since_ms }
  out.state = p.held and "asked" or #p.tickets < p.size and "party" or "waiting"
  out.here = #p.tickets
  return out
end

local function after(self, ms, fn)
  local timer
  timer = self.server.env.timer(ms, function()
    self.timers[timer] = nil
    fn()
  end)
  self.timers[timer] = true
  return function()
    if self.timers[timer] then timer:cancel() end
    self.timers[timer] = nil
  end
end

-- Has the policy explain these, { row =, party = } each, then calls done, in any case.
local function explain(self, list, done)
  local left, cancel = #list, nil
  local function one_less()
    left = left - 1
    if left ~= 0 then return end
    if cancel then cancel() end
    done()
  end
  if left == 0 then return done() end
  for _, l in ipairs(list) do
    local function ask(is_last)
      self.queues.policies:explain(l.party.queue.name, l.party.no, function(said)
        if not said and not is_last and left > 0 then return after(self, AGAIN_MS, function() ask(true) end) end
        l.row.said = said
        one_less()
      end)
    end
    ask(false)
  end
  if left <= 0 then return end
  cancel = after(self, PATIENCE_MS, function()
    left = 0
    done()
  end)
end

-- done(list): the tickets of a client, by its id or name, or one by its id: those that wait first, then those that
-- ended, the latest first. Each { ticket, id, name, queue, waited_ms, size, state = "waiting", "party" (not whole:
-- `here` of size are), "asked" (to accept a match) or "ended", how, match, ago_s, said = see instance:explain }.
function Waits:why(asked, done)
  forget(self)
  local out, to_explain = {}, {}
  for _, t in ipairs(waiting(self, asked)) do
    if #out == LISTED_MAX then break end
    local row = live(self, t)
    out[#out + 1] = row
    if row.state == "waiting" and #to_explain < EXPLAINED_MAX then
      to_explain[#to_explain + 1] = { row = row, party = t.party }
    end
  end
  for i = self.last, self.first, -1 do
    local r = self.list[i]
    if #out == LISTED_MAX then break end
    if is_asked_for(r, asked) then
      local row = told(r)
      row.state, row.how, row.ago_s = "ended", r.how, (now_us(self) - r.at_us) // 1000000
      row.match = r.match and core.crypto.hex(r.match)
      row.said = r.explained and r.explained.said
      out[#out + 1] = row
    end
  end
  explain(self, to_explain, function() done(out) end)
end

-- What a policy said, encoded, with as many of its reasons as fit; or nil.
local function encoded(said)
  local bytes = said and core.wire.encode(said)
  while bytes and #bytes > SAID_MAX do
    if not table.remove(said.reasons) then return nil end
    bytes = core.wire.encode(said)
  end
  return bytes
end

-- Tells a client why its ticket waits. A repeat of its question is answered with the same, once that is known.
function handlers(self, on)
  local server = self.server

  function on.why(reply, _, tx, ticket)
    local id, _, assoc = reply:who()
    local t = self.queues.by_ticket[ticket]
    if not t then return server:refuse(reply, tx, "no_match", "there is no such ticket") end
    if t.id ~= id then return server:refuse(reply, tx, "bad_key", "this ticket is another's") end
    local before = t.why
    if before and before.tx == tx then
      if before.told then reply("waits", tx, ticket, table.unpack(before.told, 1, 4)) end
      return
    end
    if not may_client(self, id) then return server:refuse(reply, tx, "limit", "you asked a moment ago") end
    local row, p = live(self, t), t.party
    local asks = row.state == "waiting"
    if asks and not may_ask(self, self.client_asks, server.limits.explains, ASKS_US) then
      return server:refuse(reply, tx, "limit", "many ask why: ask later")
    end
    local question, is_later = { tx = tx }, false
    t.why = question
    explain(self, asks and { { row = row, party = p } } or {}, function()
      question.told = { math.min(row.waited_ms, 0xffffffff), math.max(1, row.here), row.size, encoded(row.said) }
      if self.queues.by_ticket[ticket] ~= t then return end -- its client hears what became of it
      if not is_later then return reply("waits", tx, ticket, table.unpack(question.told, 1, 4)) end
      server:push(assoc, "waits", tx, ticket, table.unpack(question.told, 1, 4))
    end)
    is_later = true
  end
end

function Waits:count() return self.last - self.first + 1 end

function Waits:close()
  for timer in pairs(self.timers) do timer:cancel() end
  self.timers, self.list, self.first, self.last = {}, {}, 1, 0
end

return M
