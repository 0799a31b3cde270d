-- SPDX-License-Identifier: MIT
-- Queues: clients that wait to be put together by a policy. The tickets here are the truth; the policies see copies,
-- and what they make of them is checked before anybody is told. A ticket lives as long as its client's registration.
--
-- What a policy calls a ticket is a party here: the tickets of clients who play together, mostly of one alone. It is
-- listed, so that a policy has it, while all of it is there and none of its clients is asked about a match. So none is
-- in two matches, whatever passes were under way, and no party is split.

local backfills = require "bodkin.servers.backfills"
local core = require "bodkin.core"
local people = require "bodkin.servers.people"
local policies = require "bodkin.servers.policies"
local proposals = require "bodkin.servers.proposals"
local recent = require "bodkin.servers.recent"
local waits = require "bodkin.servers.waits"
local webhooks = require "bodkin.servers.webhook"

local M = {}
local Queues = {}
Queues.__index = Queues

local IDLE_MS = 60000                              -- an empty queue is forgotten after
local REPEAT_US, REPEATS_MAX = 30000000, 65536     -- how long an ended ticket is known again
local KNOWN = {} -- how one ended: as its client knows by itself

local function now_ms(self) return self.server.env.now() // 1000 end

local function forget(self, q)
  if q.timer then q.timer:cancel() end
  self.queues[q.name] = nil
  self.count = self.count - 1
  if not q.is_named then self.others = self.others - 1 end
  self.policies:forget(q.name)
end

-- The queue that has been empty for longest, of those without a policy of their own.
local function longest_empty(self)
  local found
  for _, q in pairs(self.queues) do
    local longer = not found or q.emptied < found.emptied
    if q.count == 0 and not q.is_named and longer then found = q end
  end
  return found
end

-- It is the last that became empty.
local function emptied(self, q)
  self.emptied = self.emptied + 1
  q.emptied = self.emptied
end

-- Anybody may name a queue. So there are only so many, and those with a policy of their own are not among these.
function Queues:queue_of(name)
  local q = self.queues[name]
  if q then return q end
  local is_named = self.server.policy_slots[name] ~= nil
  if not is_named and self.others >= self.server.limits.queues then
    local other = longest_empty(self)
    if not other then return nil end
    forget(self, other)
  end
  self.made = self.made + 1
  q = { no = self.made, name = name, is_named = is_named, parties = {}, count = 0, order = {}, first = 1, last = 0 }
  emptied(self, q)
  self.queues[name] = q
  self.count = self.count + 1
  if not is_named then self.others = self.others + 1 end
  return q
end

-- --- parties: { no, queue, app, since_ms, size, tickets, key (none: one client alone), members (see instance.lua),
-- admitted, listed }; one of a running match: backfills.lua
local function by_no(list)
  table.sort(list, function(a, b) return a.no < b.no end)
  return list
end

local function all_of(tickets)
  local list = {}
  for _, t in pairs(tickets or {}) do list[#list + 1] = t end
  return by_no(list)
end

local function alive(p) return p.queue.parties[p.no] == p end

local function offer(self, p)
  p.offered = true
  self.policies:add(p.queue.name, p)
end

-- Lists a party, or takes it back from the policy, as it should be.
function Queues:settle(p)
  if not alive(p) then return end
  local ready = not p.held and not p.pause and #p.tickets == p.size
  for _, t in ipairs(p.tickets) do ready = ready and not self.proposals:busy(t.id) end
  if ready == p.listed then return end
  p.listed = ready
  if not ready then return self.policies:drop(p.queue.name, p.no) end
  if not p.seats then
    p.members = {}
    for i, t in ipairs(p.tickets) do p.members[i] = { t.props, t.claims, self.server.network:of(t.id) } end
  end
  offer(self, p)
end

-- What a policy used up comes to nothing, or only to a part of it.
function Queues:relist(list)
  for _, p in ipairs(list) do
    if alive(p) and p.listed then offer(self, p) end
  end
end

function Queues:enter(q, p)
  self.last = self.last + 1
  p.no, p.queue, p.since_ms, p.listed = self.last, q, now_ms(self), false
  q.parties[p.no], q.count, q.last = p, q.count + 1, q.last + 1
  q.order[q.last] = p
  if p.key then self.parties[p.key] = p end
  return p
end

function Queues:remove(p)
  if not alive(p) then return end
  local q = p.queue
  q.parties[p.no], q.count = nil, q.count - 1
  if q.count == 0 then emptied(self, q) end
  if p.key then self.parties[p.key] = nil end
  if p.listed then self.policies:drop(q.name, p.no) end
  p.listed = false
end

-- Tells a party how much of it is there, and what happened.
local function tell_waiting(self, p, text)
  for _, t in ipairs(p.tickets) do
    self.notices:push(t.id, "waiting", t.ticket, function() return #p.tickets, p.size, text end)
  end
end

-- Another one is in it, or one less: so it is admitted anew, under another number, since what the policy says of the
-- one before may be on its way.
local function changed(self, p, text)
  if not alive(p) then return end
  if #p.tickets == 0 then return self:remove(p) end
  if p.offered then
    local q = p.queue
    if p.listed then self.policies:drop(q.name, p.no) end
    self.last = self.last + 1
    q.parties[p.no], q.parties[self.last] = nil, p
    p.no, p.listed, p.offered, p.admitted = self.last, false, nil, false
  end
  self:settle(p)
  tell_waiting(self, p, text)
end

-- --- tickets: { no, id, name, ticket = 16 bytes, party, props, claims, asker = { assoc, tx } of who waits for an
-- answer }
local function answer(self, of, name, ...)
  local asker = of.asker
  if not asker then return false end
  of.asker = nil
  self.server:push(asker.assoc, name, asker.tx, ...)
  return true
end

local function number_of(code) return -core.errors[code].value end

-- Answers a host that wants more players: refused where there is a code. Who asks again is told the same.
function Queues:decided(b, code, text)
  if not b.asker then return end
  if not code then return answer(self, b, "done") end
  b.refused = { code = code, text = text }
  answer(self, b, "refused", number_of(code), text)
end

-- Takes a ticket from its party; how and match: see waits.lua. Whether it was there.
local function detach(self, t, how, match)
  if self.by_ticket[t.ticket] ~= t then return false end
  self.waits:ended(t, how, match)
  self.by_ticket[t.ticket], self.total = nil, self.total - 1
  local of = self.of[t.id]
  of[t.ticket] = nil
  if not next(of) then self.of[t.id] = nil end
  self.ended:put(self.server.env.now(), t.ticket, KNOWN)
  for i, other in ipairs(t.party.tickets) do
    if other == t then table.remove(t.party.tickets, i) break end
  end
  return true
end

-- Who has not heard of it asks again, and is told the same.
local function tell_end(self, t, code, text)
  self.ended:put(self.server.env.now(), t.ticket, { code = code, text = text })
  if answer(self, t, "refused", number_of(code), text) then return end
  self.notices:push(t.id, "ended", t.ticket, function() return number_of(code), text end)
end

-- Ends a ticket; the others of its party wait for it to be whole again. text: why, which its client is told with code,
-- none where it knows; others: what they are.
local function finish(self, t, code, text, others)
  self.waits:leaving(t.party)
  if not detach(self, t, text) then return end
  if code then tell_end(self, t, code, text) end
  self.proposals:gone(t)
  changed(self, t.party, others or "one of the party left")
end

-- Ends a party.
local function finish_all(self, p, code, text)
  local tickets = table.move(p.tickets, 1, #p.tickets, 1, {})
  self.waits:leaving(p)
  self:remove(p)
  for _, t in ipairs(tickets) do
    detach(self, t, text)
    tell_end(self, t, code, text)
  end
end

-- --- a queue's clock
-- Ends who has waited for too long, the oldest first.
local function expire(self, q)
  local expire_ms = self.policies:about(q.name).expire_ms
  local now = now_ms(self)
  while q.first <= q.last do
    local p = q.order[q.first]
    if alive(p) and not p.seats then
      if not expire_ms or now - p.since_ms < expire_ms then break end
      p.overdue = true
      if not p.held then self:lapse(p) end
    end
    q.order[q.first], q.first = nil, q.first + 1
  end
  if q.last - q.first < 2 * q.count + 64 then return end
  local kept = {}
  for i = q.first, q.last do
    if alive(q.order[i]) then kept[#kept + 1] = q.order[i] end
  end
  q.order, q.first, q.last = kept, 1, #kept
end

function Queues:lapse(p)
  self.server.counters:add("ticket_expired", #p.tickets)
  self.policies:event(p.queue.name, "on_expire", p.no)
  finish_all(self, p, "no_match", "no match came about in time")
end

local function arm(self, q)
  if q.timer then return end
  local empty = q.count == 0
  q.timer = self.server.env.timer(empty and IDLE_MS or self.policies:window_ms(q.name), function()
    q.timer = nil
    if q.count > 0 then
      q.idle = false
      expire(self, q)
      self.policies:tick(q.name)
    elseif empty then
      return forget(self, q)
    end
    arm(self, q)
  end)
  q.idle = empty
end

-- An idle queue's timer is far away.
function Queues:wake(q)
  if q.timer and q.idle then
    q.timer:cancel()
    q.timer = nil
  end
  arm(self, q)
end

-- --- what policies tell
local function verdict(self, queue, no, ok, text)
  local q = self.queues[queue]
  local p = q and q.parties[no]
  if not p or p.admitted or not p.listed then return end
  if ok then
    p.admitted = true
    if p.seats then return self:decided(p) end
    for _, t in ipairs(p.tickets) do
      if t.asker then
        self.server.counters:add "ticket_queued"
        answer(self, t, "queued", t.ticket)
      end
    end
    return
  end
  text = policies.reason(text, "the queue does not admit you")
  self.server.counters:add("ticket_refused", math.max(1, #p.tickets))
  if p.seats then
    self:decided(p, "refused", text)
    return self:remove(p)
  end
  finish_all(self, p, "refused", text)
end

local function unfit(self, queue, no, text)
  local q = self.queues[queue]
  local p = q and q.parties[no]
  if not p then return self.policies:drop(queue, no) end
  if p.seats or not p.listed then return end
  self.server.counters:add("ticket_refused", #p.tickets)
  finish_all(self, p, "refused", policies.reason(text, "the queue's policy does not take you"))
end

local function sizes_wrong(about, teams, players, count)
  if about.teams then
    if #teams ~= #about.teams then return true end
    for i, n in ipairs(about.teams) do
      if players[i] ~= n then return true end
    end
  end
  return count < about.size[1] or count > about.size[2]
end

-- The parties that a policy's result names: { { party, team }, … } of those that wait yet, whether one of them does
-- not, players by team, and in all; or nil and what the policy did wrong. Not its fault: that one left while it was
-- thinking.
local function named(self, q, teams)
  local list, seen, players, count, missing = {}, {}, {}, 0, false
  if type(teams) ~= "table" then return nil, "teams are missing" end
  for number, team in ipairs(teams) do
    if type(team) ~= "table" then return nil, "a team is no list" end
    players[number] = 0
    for _, no in ipairs(team) do
      if math.type(no) ~= "integer" or no < 1 or no > self.last then return nil, "a ticket that never was" end
      if seen[no] then return nil, "the same ticket twice" end
      seen[no] = true
      local p = q.parties[no]
      if p and p.seats then return nil, "a running match among the tickets" end
      if p and p.admitted and p.listed then
        list[#list + 1] = { party = p, team = number }
        players[number], count = players[number] + p.size, count + p.size
      else
        missing = true
      end
    end
  end
  for i = 2, #list do
    if list[i].party.app ~= list[1].party.app then return nil, "clients of different apps" end
  end
  return list, missing, players, count
end

local function parties_of(list)
  local out = {}
  for i, l in ipairs(list) do out[i] = l.party end
  return out
end

-- Who plays: { id, ticket, team, person, t }.
local function players_of(self, list)
  local out = {}
  for _, l in ipairs(list) do
    for _, t in ipairs(l.party.tickets) do
      out[#out + 1] = { id = t.id, name = t.name, ticket = t.ticket, team = l.team, t = t,
        person = people.registered(self.server.registry, t.id) }
    end
  end
  return out
end

-- They are in a match: these tickets are over, and all others of the same clients. Nobody need be told of the former.
local function taken(self, list, match)
  local clients = {}
  for _, l in ipairs(list) do
    self:remove(l.party)
    while l.party.tickets[1] do
      local t = l.party.tickets[1]
      detach(self, t, "matched", match)
      clients[#clients + 1] = t.id
    end
  end
  for _, id in ipairs(clients) do
    for _, t in ipairs(all_of(self.of[id])) do
      finish(self, t, "closed", "matched in another queue", "one of the party found a match elsewhere")
    end
  end
end

-- Makes the match that m = { queue, version, list, match, joins (what is filled up, or nil), teams, host, data,
-- encoded, players by team } says. False while one of them leaves too much unacknowledged: that one's ticket ends, and
-- where it is in the match that is filled up, that looks for nobody for a while.
local function commit(self, m)
  local q, run = m.queue, m.joins and m.joins.run
  local players, host = players_of(self, m.list), nil
  for _, l in ipairs(m.list) do
    if l.party.no == m.host then host = l.party.tickets[1].id end
  end
  local present = run and self.backfills:present(run) or {}
  local told, behind = self.matches:announce { match = m.match, members = players, present = present,
    host = host or run and run.host, data = run and run.data or m.encoded, queue = q.name }
  if behind and behind.t then
    finish(self, behind.t, "limit", "too much is unacknowledged", "one of the party does not answer")
  elseif behind then
    self.backfills:pause(m.joins)
  end
  if not told then return false end
  if run then
    self.server.counters:add("match_joined", #players)
  else
    self.server.counters:add "match_formed"
    self.policies:event(q.name, "on_match", { teams = m.teams, host = m.host, data = m.data }, m.version)
  end
  taken(self, m.list, m.match)
  self.backfills:formed(m, host, players)
  if self.webhook then
    self.webhook:matched { match = m.match, queue = q.name, app = m.list[1].party.app, players = players,
      host = host or run and run.host, data = m.data, encoded = m.encoded, joined = run and true }
  end
  return true
end

-- A proposal came to nothing, because of these tickets: who is not to blame waits on, where it was in the line.
local function fall_through(self, m, blamed, text)
  local guilty = {}
  for t in pairs(blamed) do guilty[t.party] = true end
  for _, l in ipairs(m.list) do
    local p = l.party
    local no = p.no
    p.held = nil
    for _, t in ipairs(table.move(p.tickets, 1, #p.tickets, 1, {})) do
      if blamed[t] then
        local why = t.declined and "you declined the match" or "you did not accept in time"
        finish(self, t, "closed", why, "one of the party did not accept")
      end
    end
    if guilty[p] then self.policies:event(m.queue.name, "on_decline", no, m.version) end
  end
  for _, l in ipairs(m.list) do
    local p = l.party
    if alive(p) and p.overdue then
      self:lapse(p)
    elseif alive(p) and #p.tickets == p.size then
      tell_waiting(self, p, text)
    end
  end
  for _, asked in ipairs(m.asked) do -- also of who is out of it by now: it may wait elsewhere
    for _, t in ipairs(all_of(self.of[asked.id])) do self:settle(t.party) end
  end
  if m.joins then self.backfills:free(m.joins) end
end

-- Asks the players first.
local function propose(self, m, accept_ms, count)
  local tickets = {}
  for _, l in ipairs(m.list) do
    l.party.held = true
    table.move(l.party.tickets, 1, #l.party.tickets, #tickets + 1, tickets)
  end
  m.asked = tickets
  if m.joins then self.backfills:hold(m.joins) end
  self.server.counters:add "match_proposed"
  self.proposals:open(m.match, tickets, accept_ms, count, function(blamed)
    if blamed then
      self.server.counters:add "match_declined"
      return fall_through(self, m, blamed, "somebody did not accept the match")
    end
    if m.joins and not self.backfills:open_for(m.joins, m.players) or not commit(self, m) then
      return fall_through(self, m, {}, "the match could not be made")
    end
    if m.joins then self.backfills:free(m.joins) end
  end)
  for _, t in ipairs(tickets) do
    for _, other in ipairs(all_of(self.of[t.id])) do self:settle(other.party) end
  end
end

-- A result of a policy; joins: the number of the running match that they join, or nil.
local function result(self, q, version, teams, host, data, joins)
  local function wrong(why) return self.policies:blame(version.n, "its result was " .. why) end
  local list, missing, players, count = named(self, q, teams)
  if not list then return wrong(missing) end
  local encoded = core.wire.encode(data)
  if not encoded or #encoded > 512 then return wrong "data of more than 512 bytes" end
  local m = { queue = q, version = version, list = list, teams = teams, host = host, data = data, encoded = encoded,
    players = players, match = self.server.env.random(16) }
  if joins then
    m.joins = q.parties[joins]
    local why
    m.joins, why = self.backfills:wanted(q, joins, list, players)
    if why then return wrong(why) end
    if m.joins then m.match, count = m.joins.run.match, count + #self.backfills:present(m.joins.run) end
  elseif not missing and sizes_wrong(version.about, teams, players, count) then
    return wrong(("a match of %d"):format(count))
  end
  for _, one in ipairs(m.joins and players_of(self, list) or {}) do
    if m.joins.run.members[one.id] then
      finish(self, one.t, "closed", "you are in that match already")
      missing = true
    end
  end
  if missing or joins and not m.joins or #list == 0 then
    self:relist(parties_of(list))
    return m.joins and self:relist { m.joins }
  end
  if version.about.accept_ms then return propose(self, m, version.about.accept_ms, count) end
  if not commit(self, m) then self:relist(parties_of(list)) end
  if m.joins then self:relist { m.joins } end
end

-- --- what clients ask
local function handlers(self, on)
  local server = self.server
  local registry, env = server.registry, server.env

  local function too_many(id)
    if self.total >= server.limits.tickets then return "too many wait here" end
    local n = 0
    for _ in pairs(self.of[id] or {}) do n = n + 1 end
    return n >= server.limits.tickets_each and "you wait in too many queues" or nil
  end

  local function refuse(reply, tx, code, text)
    server.counters:add "ticket_refused"
    server:refuse(reply, tx, code, text)
  end

  -- The party a ticket is of, new or with others in it: nil, code, text where it cannot be.
  local function party_of(q, app, id, size)
    if not id then return self:enter(q, { app = app, size = 1, tickets = {} }) end
    local key = table.concat({ app, q.name, id }, "\0")
    local p = self.parties[key]
    if not p then return self:enter(q, { app = app, size = size, tickets = {}, key = key }) end
    if p.size ~= size then return nil, "invalid", ("this party is of %d"):format(p.size) end
    if #p.tickets >= p.size then return nil, "limit", "the party is complete already" end
    return p
  end

  -- Of one client there is one ticket in a queue: an older one is of a program that is gone, or not wanted any more.
  local function replace(q, id)
    for _, t in ipairs(all_of(self.of[id])) do
      if t.party.queue == q then finish(self, t, "closed", "queued again with another ticket") end
    end
  end

  function on.enqueue(reply, _, tx, ticket, queue, props, party, party_size)
    local id, _, assoc = reply:who()
    local known = registry:get(id)
    if not known and server.registrar:deciding(id) then return end
    if not known then return refuse(reply, tx, "refused", "not registered: register first") end
    local t = self.by_ticket[ticket]
    if t and t.id ~= id then return refuse(reply, tx, "bad_key", "this ticket is another's") end
    local before = self.ended:get(env.now(), ticket)
    if before and before.code then return server:refuse(reply, tx, before.code, before.text) end
    if before or t and not t.asker and (t.party.key or t.party.admitted) then return reply("queued", tx, ticket) end
    local asker = { assoc = assoc, tx = tx }
    if t then
      t.asker = asker
      return
    end
    local given = people.map(props) and core.wire.decode(people.map(props))
    if not given then return refuse(reply, tx, "invalid", "props must be a map") end
    local is_name = utf8.len(queue) and not queue:find "%c" and queue ~= "*"
    if not is_name then return refuse(reply, tx, "invalid", "no queue's name") end
    if (party == nil) ~= (party_size == nil) then
      return refuse(reply, tx, "invalid", "a party has an id and a size")
    end
    local text = self.policies:too_large(queue, party_size or 1)
    if text then return refuse(reply, tx, "refused", text) end
    text = too_many(id)
    if self.matches:behind(id, self.policies:about(queue).size[2] - 1) then text = "too much is unacknowledged" end
    local q = not text and self:queue_of(queue)
    if not q then return refuse(reply, tx, "limit", text or "too many queues here") end
    replace(q, id)
    local p, code
    p, code, text = party_of(q, known.app, party, party_size)
    if not p then return refuse(reply, tx, code, text) end
    self.count_tickets = self.count_tickets + 1
    t = { no = self.count_tickets, id = id, name = known.name, ticket = ticket, party = p, props = given,
      claims = server.admission:of(id) }
    self.by_ticket[ticket], self.total = t, self.total + 1
    self.of[id] = self.of[id] or {}
    self.of[id][ticket] = t
    table.insert(p.tickets, t)
    if p.key then -- its others may come late: the answer does not wait for them
      server.counters:add "ticket_queued"
      reply("queued", tx, ticket)
      changed(self, p, "")
    else
      t.asker = asker
      self:settle(p)
    end
    self:wake(q)
  end

  -- The ticket of a client that asks about it: false where it is another's, which it hears.
  local function own(reply, tx, ticket)
    local t = self.by_ticket[ticket]
    if t and t.id ~= reply:who() then
      server:refuse(reply, tx, "bad_key", "this ticket is another's")
      return false
    end
    return t
  end

  function on.cancel(reply, _, tx, ticket)
    local t = own(reply, tx, ticket)
    if t == false then return end
    if t then
      server.counters:add "ticket_cancelled"
      t.asker = nil
      finish(self, t, nil, "taken back by its client")
    end
    reply("done", tx)
  end

  function on.accept(reply, _, tx, ticket, match)
    local t = own(reply, tx, ticket)
    if t == false then return end
    reply("done", tx)
    if t then self.proposals:accept(t, tx, match) end
  end

  function on.decline(reply, _, tx, ticket, match)
    local t = own(reply, tx, ticket)
    if t == false then return end
    reply("done", tx)
    if not t then return end
    t.declined = true
    self.proposals:decline(t, tx, match)
    t.declined = nil
  end
end

-- A client is out of a match.
function Queues:left(id, match) self.backfills:left(id, match) end

-- A registration ended.
function Queues:gone(id)
  self.notices:gone(id)
  for _, t in ipairs(all_of(self.of[id])) do
    self.server.counters:add "ticket_dropped"
    t.asker = nil
    finish(self, t, nil, "its client's registration ended")
  end
  self.backfills:gone(id)
end

-- Adds its handlers to `on`; returns the object to tell when a registration ends. matches: see selection.lua.
function M.install(server, on, matches)
  local self = setmetatable({
    server = server, matches = matches, queues = {}, count = 0, others = 0, made = 0, emptied = 0, by_ticket = {},
    of = {}, total = 0, last = 0, count_tickets = 0, parties = {}, notices = matches.notices,
    ended = recent.new { span_us = REPEAT_US, max = REPEATS_MAX, now_us = server.env.now() },
  }, Queues)
  self.proposals = proposals.new(server.env, self.notices, function(t)
    self.policies:event(t.party.queue.name, "on_accept", t.party.no)
  end)
  local function resend(filter)
    local list = {}
    for _, q in pairs(self.queues) do
      for _, p in pairs(q.parties) do
        if p.listed and (not filter or filter(p)) then
          list[#list + 1] = p
        end
      end
    end
    self:relist(by_no(list))
  end
  self.policies = policies.new {
    server = server, slots = server.policy_slots, open_link = server.open_policy_link, on_record = server.on_record,
    watch = server.watch,
    on = {
      verdict = function(...) verdict(self, ...) end,
      unfit = function(...) unfit(self, ...) end,
      match = function(queue, ...)
        local q = self.queues[queue]
        if q then result(self, q, ...) end
      end,
      resend = function() resend() end,
      ask_again = function(queue) resend(function(p) return not p.admitted and p.queue.name == queue end) end,
    },
  }
  self.backfills = backfills.install(self, on)
  self.waits = waits.install(server, on, self)
  self.webhook = server.webhook and webhooks.new(server, server.webhook)
  function server.why_waits(_, asked, done) self.waits:why(asked, done) end
  handlers(self, on)
  function server.reload_policies() self.policies:reload() end
  server.recording = self.policies.recording
  server:at_close(function()
    for _, q in pairs(self.queues) do
      if q.timer then q.timer:cancel() end
      for _, p in pairs(q.parties) do
        if p.pause then p.pause:cancel() end
      end
    end
    self.proposals:close()
    self.policies:close()
    self.waits:close()
    if self.webhook then self.webhook:close() end
  end)
  server:at_status(function(info)
    info.tickets, info.queues, info.proposals = self.total, self.count, self.proposals.count
  end)
  return self
end

return M
