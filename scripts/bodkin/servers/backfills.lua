-- SPDX-License-Identifier: MIT
-- Running matches that want more players: each stands in its queue as a party without tickets, with seats by team, from
-- when its host asks until they are taken, it takes that back, or the match is over.

local core = require "bodkin.core"
local people = require "bodkin.servers.people"
local recent = require "bodkin.servers.recent"
local running = require "bodkin.servers.running"

local M = {}
local Backfills = {}
Backfills.__index = Backfills

local REPEAT_US, REPEATS_MAX = 30000000, 8192 -- how long a request is known again: seats are not opened twice
local TEAMS_MAX = 32
local PAUSE_MS = 1000

-- code, text: what its host is told, if it waits for an answer yet; code nil: its seats are taken.
local function withdraw(self, run, code, text)
  local b = run.open
  run.open = nil
  if not b then return end
  if b.pause then b.pause:cancel() end
  self.queues:remove(b)
  self.queues:decided(b, code, text)
end

local function ended(self, run) withdraw(self, run, "closed", "the match is over, or you left it") end

-- Those of a match that are registered: { id, ticket, team, person }.
function Backfills:present(run)
  local list = {}
  for _, m in ipairs(self.running:members(run)) do
    m.person = people.registered(self.queues.server.registry, m.id)
    if m.person then list[#list + 1] = m end
  end
  return list
end

local function enough(b, players)
  for team, n in ipairs(players) do
    if n > (b.seats[team] or 0) then return false end
  end
  return true
end

-- What a result says is joined, by number: nil where its seats are gone meanwhile; nil and what the policy did wrong.
function Backfills:wanted(q, no, list, players)
  if math.type(no) ~= "integer" or no < 1 or no > self.queues.last then return nil, "a match that never was" end
  local b = q.parties[no]
  if b and not b.seats then return nil, "a ticket in place of a running match" end
  if b and list[1] and list[1].party.app ~= b.app then return nil, "clients of another app than the match" end
  return self:open_for(b, players) and b.listed and b or nil
end

-- Whether these players, by team, find their seats.
function Backfills.open_for(_, b, players)
  return b ~= nil and b.run.open == b and enough(b, players)
end

-- While those who are to join are asked, nobody else is looked for.
function Backfills:hold(b)
  b.held = true
  self.queues:settle(b)
end

function Backfills:free(b)
  b.held = nil
  self.queues:settle(b)
end

-- One who is in it does not answer: whoever would join waits for nothing, and so is not asked for a while.
function Backfills:pause(b)
  b.pause = b.pause or self.queues.server.env.timer(PAUSE_MS, function()
    b.pause = nil
    self.queues:settle(b)
  end)
  self.queues:settle(b)
end

-- A match was made, m as in queues.lua.
function Backfills:formed(m, host, players)
  local b = m.joins
  if not b then
    local about = m.version.about
    if not about.backfill then return end
    return self.running:begin({ match = m.match, queue = m.queue.name, app = m.list[1].party.app, host = host,
      data = m.encoded }, players)
  end
  self.running:enter(b.run, players)
  local left = 0
  for team, n in ipairs(b.seats) do
    b.seats[team] = n - (m.players[team] or 0)
    left = left + b.seats[team]
  end
  if left == 0 then withdraw(self, b.run) end
end

-- A client left a match.
function Backfills:left(id, match)
  local run = self.running:left(id, match)
  if run and run.open and run.open.by == id then ended(self, run) end
end

function Backfills:gone(id)
  for _, run in ipairs(self.running:gone(id)) do
    if run.open and run.open.by == id then ended(self, run) end
  end
end

-- The seats that a client asks for: numbers by team, {} for none; nil where it is no such list.
local function seats_of(encoded)
  local given = core.wire.decode(encoded)
  if given == core.wire.null then return {} end
  if type(given) ~= "table" or #given > TEAMS_MAX then return nil end
  local seats, sum = {}, 0
  for key in pairs(given) do
    if math.type(key) ~= "integer" then return nil end
  end
  for i, n in ipairs(given) do
    if math.type(n) ~= "integer" or n < 0 or n > TEAMS_MAX then return nil end
    seats[i], sum = n, sum + n
  end
  return sum > 0 and seats or {}
end

-- More than a match of this queue has, with those who are in it?
local function too_many(self, run, seats)
  local about = self.queues.policies:about(run.queue)
  local n, by_team = self.running:present(run)
  for team, free in ipairs(seats) do
    n = n + free
    if about.teams and free > 0 and free + (by_team[team] or 0) > (about.teams[team] or 0) then return true end
  end
  return n > about.size[2]
end

local function handler(self, on)
  local queues = self.queues
  local server = queues.server
  local repeats = recent.new { span_us = REPEAT_US, max = REPEATS_MAX, now_us = server.env.now() }

  function on.backfill(reply, _, tx, match, seats, props)
    local id, _, assoc = reply:who()
    local now = server.env.now()
    local before = repeats:get(now, id .. tx)
    if before then
      if before.asker then return end -- its answer comes when the policy has said something
      if before.refused then return server:refuse(reply, tx, before.refused.code, before.refused.text) end
      return reply("done", tx)
    end
    local run = self.running:get(match)
    if not run or not run.members[id] then
      return server:refuse(reply, tx, "no_match", "no such match can be joined")
    end
    if run.host and run.host ~= id and run.members[run.host] then
      return server:refuse(reply, tx, "refused", "only the host of a match may ask")
    end
    local wanted, given = seats_of(seats), people.map(props) and core.wire.decode(people.map(props))
    if not wanted then return server:refuse(reply, tx, "invalid", "seats are numbers by team") end
    if not given then return server:refuse(reply, tx, "invalid", "props must be a map") end
    if too_many(self, run, wanted) then
      return server:refuse(reply, tx, "invalid", "more seats than a match has")
    end
    local q = #wanted > 0 and queues:queue_of(run.queue)
    if q == nil then return server:refuse(reply, tx, "limit", "too many queues here") end
    withdraw(self, run, "closed", "something else was asked for since")
    if not q then
      repeats:put(now, id .. tx, {})
      return reply("done", tx)
    end
    local b = queues:enter(q, { app = run.app, size = 0, tickets = {}, seats = wanted, run = run, by = id,
      members = { { given, server.admission:of(id) } }, asker = { assoc = assoc, tx = tx } })
    run.open = b
    repeats:put(now, id .. tx, b)
    queues:settle(b)
    queues:wake(q)
  end
end

-- Adds its handler to `on`; queues: see queues.lua.
function M.install(queues, on)
  local self = setmetatable({ queues = queues }, Backfills)
  self.running = running.new(queues.server.limits.running, function(run) ended(self, run) end)
  handler(self, on)
  return self
end

return M
