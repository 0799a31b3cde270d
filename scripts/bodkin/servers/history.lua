-- SPDX-License-Identifier: MIT
-- The matches made lately, and what both ends told of them: for the admin socket's `why`, and where the two of a pair
-- are, for one another (whereabouts.lua); nobody else is answered.
-- A match is kept for an hour after the last that happened to it, unless too many came after.

local addresses = require "bodkin.servers.addresses"
local core = require "bodkin.core"
local kind = require "bodkin.kind"
local outcome = require "bodkin.outcome"
local printable = require("bodkin.client.request").printable

local M = {}
local History = {}
History.__index = History

local KEPT_US, SWEEP_MS = 3600000000, 60000
local ENDS_EACH = 4              -- of the matches kept, on the average: two ends a pair
local LISTED_MAX, TOLD_MAX = 50, 24 -- in one answer, a line of less than 64 KB: matches, and ends of a match

function M.new(server)
  local max = server.limits.history
  return setmetatable({
    server = server, max = max, ends_max = ENDS_EACH * max, by_match = {}, count = 0, ends = 0,
  }, History)
end

-- A list from the one touched longest ago to the latest.
local function unlink(self, r)
  if r.before then r.before.after = r.after else self.first = r.after end
  if r.after then r.after.before = r.before else self.last = r.before end
  r.before, r.after = nil, nil
end

local function append(self, r)
  r.touched_us, r.before = self.server.env.now(), self.last
  if self.last then self.last.after = r else self.first = r end
  self.last = r
end

local function drop(self, r)
  unlink(self, r)
  self.by_match[r.match] = nil
  self.count, self.ends = self.count - 1, self.ends - r.count
end

local function forget(self)
  local now = self.server.env.now()
  while self.first and (self.count > self.max or self.ends > self.ends_max and self.count > 1
    or now - self.first.touched_us >= KEPT_US) do
    drop(self, self.first)
  end
end

local function sweep(self)
  self.timer = self.server.env.timer(SWEEP_MS, function()
    self.timer = nil
    forget(self)
    if self.first then sweep(self) end
  end)
end

local function person(p)
  local addrs = addresses.pack(p.assoc, p.ephemeral, p.rtt_ms, p.nat, p.pubs, p.locals)
  return { id = p.id, name = p.name, addrs = addrs }
end

-- name, role: those in its tickets for relays, see tickets.lua.
local function enter(self, r, p, other, name, role)
  r.members[p.id] = person(p)
  local key = p.id .. other.id
  local known = r.ends[key]
  r.ends[key] = { name = name, role = role } -- or it is paired anew, with another key
  if known then return end
  r.order[#r.order + 1] = key
  r.count, self.ends = r.count + 1, self.ends + 1
end

-- Two people are told of each other. how: "room", "selection", or "queue" and its name; name: what the pair is called
-- in its tickets for relays, where it has any, with a as role 0.
function History:paired(match, how, a, b, name)
  local env = self.server.env
  local r = self.by_match[match]
  if r then
    unlink(self, r)
  else
    r = {
      match = match, how = how, at = env.time and env.time(), app = a.app, members = {}, ends = {}, order = {},
      count = 0,
    }
    self.by_match[match] = r
    self.count = self.count + 1
  end
  append(self, r)
  enter(self, r, a, b, name, 0)
  enter(self, r, b, a, name, 1)
  forget(self)
  if not self.timer then sweep(self) end
end

local function end_of(self, match, id, peer)
  local r = self.by_match[match]
  return r and r.ends[id .. peer], r
end

-- A client has acknowledged that it was told of a peer.
function History:acknowledged(match, id, peer)
  local e = end_of(self, match, id, peer)
  if e then e.acknowledged = true end
end

-- A client has left a match, whatever it reports of it.
function History:left(id, match)
  local r = self.by_match[match]
  for _, key in ipairs(r and r.order or {}) do
    if key:sub(1, #id) == id then r.ends[key].left = true end
  end
end

-- The two of a pair, as they were known last (addrs: see addresses.lua; to be set when that changes), and name and role
-- of the first in tickets; nil when there is none, or one has said that it is over.
function History:pair(match, id, peer)
  local mine, r = end_of(self, match, id, peer)
  local other = end_of(self, match, peer, id)
  if not mine or not other then return nil end
  for _, e in ipairs { mine, other } do
    local report = e.report and outcome.unpack(e.report)
    if e.left or report and report.state == "closed" then return nil end
  end
  return r.members[id], r.members[peer], mine.name, mine.role
end

-- What a client says of its own end, which replaces what it said before. Whether it was believed, and the report where
-- it is news.
function History:report(id, match, peer, bytes)
  local e, r = end_of(self, match, id, peer)
  local report = e and outcome.unpack(bytes)
  if not report then return false end
  if e.n and report.n < e.n then return true end -- overtaken by a later one
  e.n, e.report, e.acknowledged = report.n, bytes, true
  unlink(self, r)
  append(self, r)
  return true, report
end

-- --- answers

local function texts(addrs)
  local out = {}
  for i, a in ipairs(addrs) do out[i] = core.addr.format(a) end
  return out
end

-- One end as node:why gives it at that client, as far as it is known here.
local function told(self, r, key)
  local id, peer, e = key:sub(1, 16), key:sub(17), r.ends[key]
  local me, other = r.members[id], r.members[peer]
  local _, _, pubs, locals, _, nat = addresses.unpack(me.addrs)
  local _, _, peer_pubs, peer_locals, _, peer_nat = addresses.unpack(other.addrs)
  local out = e.report and outcome.unpack(e.report) or { state = "unknown", paths = {} }
  out.match, out.self, out.peer = core.crypto.hex(r.match), core.crypto.hex(id), core.crypto.hex(peer)
  out.own_name, out.name, out.at = printable(me.name), printable(other.name), r.at
  out.public, out.peer_public = texts(addresses.told(pubs)), texts(addresses.told(peer_pubs))
  out["local"], out.over = texts(locals), #out.public < #pubs and "tcp" or nil
  out.peer_local = texts(addresses.visible(self.server.local_rule, peer_locals, peer_pubs, pubs))
  out.behaviour, out.peer_behaviour = out.behaviour or kind.unpack(nat), kind.unpack(peer_nat)
  out.acknowledged = e.acknowledged or false
  return out
end

local FAILED = { no_path = true, consent_lost = true }

-- "failed" where an end of it found no path or lost it, "connected" where one had one; else "unknown".
local function verdict(r)
  local best = "unknown"
  for _, key in ipairs(r.order) do
    local report = r.ends[key].report and outcome.unpack(r.ends[key].report)
    if report and FAILED[report.reason] then return "failed" end
    if report and report.confirmed_ms then best = "connected" end
  end
  return best
end

local function brief(self, r)
  local members = {}
  for _, m in pairs(r.members) do members[#members + 1] = { id = core.crypto.hex(m.id), name = printable(m.name) } end
  table.sort(members, function(a, b) return a.id < b.id end)
  return {
    match = core.crypto.hex(r.match), how = r.how, app = printable(r.app), at = r.at,
    age_s = (self.server.env.now() - r.touched_us) // 1000000, verdict = verdict(r),
    members = table.move(members, 1, 4, 1, {}), count = #members,
  }
end

local function full(self, r)
  local out = brief(self, r)
  out.ends, out.more = {}, math.max(0, #r.order - TOLD_MAX)
  for i = 1, math.min(#r.order, TOLD_MAX) do out.ends[i] = told(self, r, r.order[i]) end
  return out
end

-- Who or what is asked for: a match by its id, a client by its id or name.
local function asked_for(r, asked)
  if outcome.means(asked, core.crypto.hex(r.match)) then return true end
  for _, m in pairs(r.members) do
    if m.name == asked or outcome.means(asked, core.crypto.hex(m.id)) then return true end
  end
  return false
end

-- { matches = { …, the latest first }, total = how many there are }. Where one is asked for and only one fits, it has
-- its `ends`, two for each pair one after the other.
function History:why(asked)
  forget(self)
  local found, r = {}, self.last
  while r do
    if not asked or asked_for(r, asked) then found[#found + 1] = r end
    r = r.before
  end
  if asked and #found == 1 then return { matches = { full(self, found[1]) }, total = 1 } end
  local out = { matches = {}, total = #found }
  for i = 1, math.min(#found, LISTED_MAX) do out.matches[i] = brief(self, found[i]) end
  return out
end

function History:close()
  if self.timer then self.timer:cancel() end
  self.timer, self.first, self.last, self.by_match, self.count, self.ends = nil, nil, nil, {}, 0, 0
end

return M
