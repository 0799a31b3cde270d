-- SPDX-License-Identifier: MIT
-- Matches that their players are asked about first. Who is in one is in no other, so a client has one at most. It ends
-- as soon as all have accepted, one declines or leaves, or the time is over.

local M = {}
local Proposals = {}
Proposals.__index = Proposals

local ANSWERS = 8 -- of a ticket's, known again: more than it is asked in the 5 s in which it repeats one

-- accepted(ticket), of each that does.
function M.new(env, notices, accepted)
  return setmetatable({ env = env, notices = notices, accepted = accepted, of = {}, count = 0 }, Proposals)
end

-- The proposal in which a client is, or nil.
function Proposals:busy(id) return self.of[id] end

local function over(self, p, blamed)
  if p.over then return end
  p.over = true
  p.timer:cancel()
  for _, t in ipairs(p.tickets) do self.of[t.id] = nil end
  self.count = self.count - 1
  p.done(blamed)
end

-- Asks the clients of these tickets; match: the id it is to have; ms: how long they have; players: how many it is of;
-- done(nil), or done(blamed): the set of tickets because of which it comes to nothing.
function Proposals:open(match, tickets, ms, players, done)
  local p = { match = match, tickets = tickets, done = done, asked = {}, has = {}, left = #tickets }
  for _, t in ipairs(tickets) do p.asked[t], p.has[t], self.of[t.id] = true, true, p end
  self.count = self.count + 1
  p.timer = self.env.timer(ms, function() over(self, p, p.asked) end)
  for _, t in ipairs(tickets) do
    self.notices:push(t.id, "proposed", t.ticket, function(age_ms) return match, math.max(0, ms - age_ms), players end)
  end
end

-- Whether an answer came before: a match that runs is proposed again under its id, and a repeat of what was said the
-- last time says nothing of this time.
local function again(t, tx)
  t.answers = t.answers or {}
  for _, known in ipairs(t.answers) do
    if known == tx then return true end
  end
  table.insert(t.answers, tx)
  if #t.answers > ANSWERS then table.remove(t.answers, 1) end
end

-- The answer of a ticket's client, by its tx, about the match of this id; a late or repeated one changes nothing.
function Proposals:accept(t, tx, match)
  local p = self.of[t.id]
  if again(t, tx) or not p or p.match ~= match or not p.asked[t] then return end
  p.asked[t], p.left = nil, p.left - 1
  self.accepted(t)
  if p.left == 0 then over(self, p, nil) end
end

-- Also who has accepted may.
function Proposals:decline(t, tx, match)
  local p = self.of[t.id]
  if not again(t, tx) and p and p.match == match and p.has[t] then over(self, p, { [t] = true }) end
end

-- A ticket ended: what it is part of comes to nothing.
function Proposals:gone(t)
  local p = self.of[t.id]
  if p and p.has[t] then over(self, p, { [t] = true }) end
end

function Proposals:close()
  for _, p in pairs(self.of) do p.timer:cancel() end
  self.of, self.count = {}, 0
end

return M
