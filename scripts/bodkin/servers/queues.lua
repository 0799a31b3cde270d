-- SPDX-License-Identifier: MIT
-- Queues: clients that wait to be put together by a policy. The tickets here are the truth; the policies see copies,
-- and what they make of them is checked before anybody is told. A ticket lives as long as its client's registration.

local core = require "bodkin.core"
local people = require "bodkin.servers.people"
local policies = require "bodkin.servers.policies"
local recent = require "bodkin.servers.recent"

local M = {}
local Queues = {}
Queues.__index = Queues

local IDLE_MS = 60000                              -- an empty queue is forgotten after
local REPEAT_US, REPEATS_MAX = 30000000, 65536     -- how long an ended ticket is known again

local function queue_of(self, name)
  local q = self.queues[name]
  if q then return q end
  if self.count >= self.server.limits.queues then return nil end
  q = { name = name, tickets = {}, count = 0 }
  self.queues[name] = q
  self.count = self.count + 1
  return q
end

local function arm(self, q)
  if q.timer then return end
  local empty = q.count == 0
  q.timer = self.server.env.timer(empty and IDLE_MS or self.policies:window_ms(q.name), function()
    q.timer = nil
    if q.count > 0 then
      q.idle = false
      self.policies:tick(q.name)
    elseif empty then
      self.queues[q.name] = nil
      self.count = self.count - 1
      return self.policies:forget(q.name)
    end
    arm(self, q)
  end)
  q.idle = empty
end

-- An idle queue's timer is far away.
local function wake(self, q)
  if q.timer and q.idle then
    q.timer:cancel()
    q.timer = nil
  end
  arm(self, q)
end

local function remove(self, t)
  local q = t.queue
  if q.tickets[t.no] ~= t then return end
  q.tickets[t.no], self.by_ticket[t.ticket] = nil, nil
  q.count, self.total = q.count - 1, self.total - 1
  local of = self.of[t.id]
  of[t.ticket] = nil
  if not next(of) then self.of[t.id] = nil end
  self.ended:put(self.server.env.now(), t.ticket, true)
  self.policies:drop(q.name, t.no)
end

-- --- what policies tell
local function answer(self, t, name, ...)
  local asker = t.asker
  if not asker then return end
  t.asker = nil
  self.server:push(asker.assoc, name, asker.tx, ...)
end

local function verdict(self, queue, no, ok, text)
  local q = self.queues[queue]
  local t = q and q.tickets[no]
  if not t or t.admitted then return end
  if ok then
    t.admitted = true
    self.server.counters:add "ticket_queued"
    return answer(self, t, "queued", t.ticket)
  end
  self.server.counters:add "ticket_refused"
  answer(self, t, "refused", -core.errors.refused.value, policies.reason(text, "the queue does not admit you"))
  remove(self, t)
end

local function sizes_wrong(about, teams, count)
  if about.teams then
    if #teams ~= #about.teams then return true end
    for i, team in ipairs(teams) do
      if #team ~= about.teams[i] then return true end
    end
  end
  return count < about.size[1] or count > about.size[2]
end

-- The tickets that a policy's result names, as members { ticket, team }; nil and what the policy did wrong.
-- Not its fault: that one of them left while it was thinking, then there are fewer.
local function members_of(self, q, version, teams)
  local list, seen, count = {}, {}, 0
  if type(teams) ~= "table" then return nil, "teams are missing" end
  for number, team in ipairs(teams) do
    if type(team) ~= "table" then return nil, "a team is no list" end
    for _, no in ipairs(team) do
      if math.type(no) ~= "integer" or no < 1 or no > self.last then return nil, "a ticket that never was" end
      if seen[no] then return nil, "the same ticket twice" end
      seen[no], count = true, count + 1
      local t = q.tickets[no]
      if t and t.admitted then list[#list + 1] = { ticket = t, team = number } end
    end
  end
  if sizes_wrong(version.about, teams, count) then return nil, ("a match of %d"):format(count) end
  for i = 2, #list do
    if list[i].ticket.app ~= list[1].ticket.app then return nil, "clients of different apps" end
  end
  return list, nil, count
end

-- Those of a match that did not come about wait on.
local function wait_on(self, q, list)
  for _, m in ipairs(list) do
    if q.tickets[m.ticket.no] == m.ticket then self.policies:add(q.name, m.ticket) end
  end
end

local function commit(self, q, version, teams, host, data)
  local list, wrong, count = members_of(self, q, version, teams)
  local encoded = core.wire.encode(data)
  if not wrong and (not encoded or #encoded > 512) then wrong = "data of more than 512 bytes" end
  if wrong then return self.policies:blame(version.n, "its result was " .. wrong) end
  local host_id
  for _, m in ipairs(list) do
    m.person = people.registered(self.server.registry, m.ticket.id)
    if m.ticket.no == host then host_id = m.ticket.id end
  end
  local here = {}
  for _, m in ipairs(list) do
    if not m.person then remove(self, m.ticket) else here[#here + 1] = m end
  end
  if #here < count then return wait_on(self, q, here) end
  if not self.matches:announce(here, host_id, encoded, q.name) then return wait_on(self, q, here) end
  self.server.counters:add "match_formed"
  for _, m in ipairs(here) do remove(self, m.ticket) end
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

  function on.enqueue(reply, _, tx, ticket, queue, props)
    local id, _, assoc = reply:who()
    local known = registry:get(id)
    if not known and server.registrar:deciding(id) then return end
    if not known then return refuse(reply, tx, "refused", "not registered: register first") end
    local t = self.by_ticket[ticket]
    if t and t.id ~= id then return refuse(reply, tx, "bad_key", "this ticket is another's") end
    if t and t.admitted or self.ended:get(env.now(), ticket) then return reply("queued", tx, ticket) end
    local asker = { assoc = assoc, tx = tx }
    if t then
      t.asker = asker
      return
    end
    local given = people.map(props) and core.wire.decode(people.map(props))
    if not given then return refuse(reply, tx, "invalid", "props must be a map") end
    local is_name = utf8.len(queue) and not queue:find "%c" and queue ~= "*"
    if not is_name then return refuse(reply, tx, "invalid", "no queue's name") end
    local text = too_many(id)
    local q = not text and queue_of(self, queue)
    if not q then return refuse(reply, tx, "limit", text or "too many queues here") end
    self.last = self.last + 1
    t = { no = self.last, id = id, ticket = ticket, queue = q, app = known.app, since_ms = env.now() // 1000,
      members = { { given, server.admission:of(id) } }, asker = asker }
    q.tickets[t.no], self.by_ticket[ticket] = t, t
    q.count, self.total = q.count + 1, self.total + 1
    self.of[id] = self.of[id] or {}
    self.of[id][ticket] = t
    self.policies:add(queue, t)
    wake(self, q)
  end

  function on.cancel(reply, _, tx, ticket)
    local t = self.by_ticket[ticket]
    if t then
      if t.id ~= reply:who() then return server:refuse(reply, tx, "bad_key", "this ticket is another's") end
      server.counters:add "ticket_cancelled"
      remove(self, t)
    end
    reply("done", tx)
  end
end

-- A registration ended.
function Queues:gone(id)
  local list = {}
  for _, t in pairs(self.of[id] or {}) do list[#list + 1] = t end
  table.sort(list, function(a, b) return a.no < b.no end)
  for _, t in ipairs(list) do
    self.server.counters:add "ticket_dropped"
    remove(self, t)
  end
end

local function in_order(tickets)
  local list = {}
  for _, t in pairs(tickets) do list[#list + 1] = t end
  table.sort(list, function(a, b) return a.no < b.no end)
  return list
end

-- Adds its handlers to `on`; returns the object to tell when a registration ends. matches: see selection.lua.
function M.install(server, on, matches)
  local self = setmetatable({
    server = server, matches = matches, queues = {}, count = 0, by_ticket = {}, of = {}, total = 0, last = 0,
    ended = recent.new { span_us = REPEAT_US, max = REPEATS_MAX, now_us = server.env.now() },
  }, Queues)
  local function resend(filter)
    for _, t in ipairs(in_order(self.by_ticket)) do
      if not filter or filter(t) then self.policies:add(t.queue.name, t) end
    end
  end
  self.policies = policies.new {
    server = server, slots = server.policy_slots, open_link = server.open_policy_link, on_record = server.on_record,
    on = {
      verdict = function(...) verdict(self, ...) end,
      match = function(queue, ...)
        local q = self.queues[queue]
        if q then commit(self, q, ...) end
      end,
      resend = function() resend() end,
      ask_again = function(queue) resend(function(t) return not t.admitted and t.queue.name == queue end) end,
    },
  }
  handlers(self, on)
  function server.reload_policies() self.policies:reload() end
  server.recording = self.policies.recording
  server:at_close(function()
    for _, q in pairs(self.queues) do
      if q.timer then q.timer:cancel() end
    end
    self.policies:close()
  end)
  server:at_status(function(info) info.tickets, info.queues = self.total, self.count end)
  return self
end

return M
