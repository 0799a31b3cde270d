-- SPDX-License-Identifier: MIT
-- What the server learns of the network between its clients, for its policies: a coordinate for each (core.coord), of
-- which the server is the origin, from the round-trip times that clients measured to the server and to peers; and
-- how often NATs of two classes let each other through.
--
-- A client's word moves nobody but itself: what it says it measured to a peer moves its own point, as far as the
-- peer's is sure; what it says of an outcome counts as one of a few a client may tell of.

local addresses = require "bodkin.servers.addresses"
local core = require "bodkin.core"
local network = require "bodkin.policy.network"
local people = require "bodkin.servers.people"
local recent = require "bodkin.servers.recent"

local M = {}
local Network = {}
Network.__index = Network

local KEPT_US = 3600000000      -- a client's place, after it was there last
local MEASURED = 12             -- peers, the latest, that a place is made from …
local PASSES = 20               -- … so many times over (spec/core/test_coords.c)
local PLACED = 4                -- of fewer, a place is a guess: three dimensions and a height have four unknowns
local OUTCOMES, OUTCOME_US = 32, 10000000 -- that count of one client at once, and one more in each so long
local NOTICEABLE = 0.02         -- a chance changed by
local TELL_US = 10000000        -- between two tables told
local RELAYED_MS = 5000         -- a pair that goes by a relay for so long did not reach each other
-- The server is where it is, and as sure of it as a host that has been measured often.
local ORIGIN = core.coord.pack(0, 0, 0, 0, 0.1)

-- on_table(version, bytes): chances changed noticeably.
function M.new(server, on_table)
  local now_us = server.env.now()
  return setmetatable({
    server = server, on_table = on_table, table = network.new(), told = network.default, version = 0, told_us = now_us,
    clients = recent.new { span_us = KEPT_US, max = server.limits.places, now_us = now_us },
    outcomes = recent.new { span_us = KEPT_US, max = server.limits.history, now_us = now_us },
  }, Network)
end

-- What is known of a client, kept for another hour.
local function client_of(self, id)
  local now_us = self.server.env.now()
  local c = self.clients:get(now_us, id)
  if not c then c = { peers = {}, class = 0, outcomes = OUTCOMES, outcomes_us = now_us } end
  self.clients:put(now_us, id, c)
  return c
end

-- Its place, from all that it measured. What is measured to one that is forgotten does not count any more.
local function place(self, id, c)
  local now_us, list = self.server.env.now(), {}
  if c.rtt_ms then list[1], list[2] = ORIGIN, c.rtt_ms end
  for i = #c.peers, 1, -1 do
    local peer = self.clients:get(now_us, c.peers[i].id)
    if peer and peer.coord then
      list[#list + 1], list[#list + 2] = peer.coord, c.peers[i].rtt_ms
    elseif not peer then
      table.remove(c.peers, i)
    end
  end
  if #list > 0 then
    c.coord = core.coord.refine(c.coord, string.unpack("<i8", id), PASSES, table.unpack(list))
  end
end

-- A client says, with a registration or a selection, how far the server is, and perhaps the kind of its NAT.
function Network:seen(person)
  if not person or not person.nat and not person.rtt_ms then return end -- nothing is kept where nothing is said
  local c = client_of(self, person.id)
  if person.nat then c.class = network.of_kind(person.nat) end
  if not person.rtt_ms or person.rtt_ms == c.rtt_ms then return end
  c.rtt_ms = math.max(1, person.rtt_ms)
  place(self, person.id, c)
end

local function measured(self, id, c, peer, rtt_ms)
  for i, p in ipairs(c.peers) do
    if p.id == peer then
      table.remove(c.peers, i)
      break
    end
  end
  table.insert(c.peers, { id = peer, rtt_ms = rtt_ms })
  if #c.peers > MEASURED then table.remove(c.peers, 1) end
  place(self, id, c)
end

-- Whether two are behind one NAT: what becomes of them tells of its hairpinning, and of their network.
local function same_ip(self, id, peer)
  local a, b = people.registered(self.server.registry, id), people.registered(self.server.registry, peer)
  return a and b and #addresses.visible("same-public", { true }, a.pubs, b.pubs) > 0
end

-- true: they reached each other; false: they did not; nil: that is not known yet.
local function is_direct(report)
  if report.path == "direct" and report.confirmed_ms then return true end
  if report.reason == "no_path" then return false end
  if report.path == "relay" and (report.lasted_ms or 0) >= RELAYED_MS then return false end
  return nil
end

local function may_tell(self, c)
  local now_us = self.server.env.now()
  c.outcomes = math.min(OUTCOMES, c.outcomes + (now_us - c.outcomes_us) / OUTCOME_US)
  c.outcomes_us = now_us
  if c.outcomes < 1 then return false end
  c.outcomes = c.outcomes - 1
  return true
end

local function tell(self)
  local now_us = self.server.env.now()
  if now_us < self.told_us + TELL_US then return end
  local bytes = self.table:pack()
  if network.difference(bytes, self.told) < NOTICEABLE then return end
  self.told, self.told_us, self.version = bytes, now_us, self.version + 1
  self.on_table(self.version, bytes)
end

-- Counts what became of a pair, once; that they did not reach each other is taken back where they do later on.
local function count(self, c, key, other_class, direct)
  local now_us = self.server.env.now()
  local before = self.outcomes:get(now_us, key)
  if before and (before.direct or not direct) then return end
  if not before and not may_tell(self, c) then return end
  if before then self.table:count(before.a, before.b, false, true) end
  local o = { a = c.class, b = other_class, direct = direct }
  self.outcomes:put(now_us, key, o)
  self.table:count(o.a, o.b, direct)
  tell(self)
end

-- A client's report (see outcome.lua) of its end of a match with a peer, as it was believed.
function Network:report(id, match, peer, report)
  local c, other = client_of(self, id), client_of(self, peer)
  if report.behaviour then
    local class = network.of_words(report.behaviour)
    if class > 0 then c.class = class end
  end
  if report.rtt_ms and (report.path == "direct" or report.path == "lan") then
    measured(self, id, c, peer, report.rtt_ms)
  end
  local direct = is_direct(report)
  if direct == nil or same_ip(self, id, peer) then return end
  count(self, c, match .. (id < peer and id .. peer or peer .. id), other.class, direct)
end

-- What policies are told of a client (network.pack); nil where nothing is known. One that has measured few is told of
-- as if every way of its went by the server: that is an upper bound, and lies between no two by chance.
function Network:of(id)
  local c = self.clients:get(self.server.env.now(), id)
  if not c then return nil end
  local coord
  if c.coord and #c.peers >= PLACED then
    coord = { core.coord.unpack(c.coord) }
  elseif c.rtt_ms then
    coord = { 0, 0, 0, c.rtt_ms }
  end
  return network.pack(coord, c.class)
end

return M
