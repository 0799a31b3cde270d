-- SPDX-License-Identifier: MIT
-- What became of each match with each peer, for who asks why: told while it lasts, kept for an hour after, and reported
-- to the server, a second after a path was confirmed or another took over, from time to time, and at the end.

local core = require "bodkin.core"
local message = require "bodkin.message"
local outcome = require "bodkin.outcome"

local M = {}
local History = {}
History.__index = History

local KEPT_US, KEPT_MAX = 3600000000, 256
local SETTLE_MS = 1000     -- what changes within it is one report
local AGAIN_MS = 1200000   -- the server forgets a match of which it hears nothing for an hour
local REPORT_MS = 2000     -- a report is repeated for so long
local UNDER_WAY_MAX = 64   -- reports not answered yet; beyond, one is not sent

function M.new(node)
  return setmetatable({ node = node, live = {}, past = {}, under_way = 0 }, History)
end

local function texts(addrs)
  local out = {}
  for i, a in ipairs(addrs) do out[i] = core.addr.format(a) end
  return out
end

-- `m` brought a peer into a match: what is known at the beginning.
function History:matched(match, peer, m)
  local node = self.node
  peer.first_ms, peer.confirmed_ms, peer.rtt_ms, peer.path, peer.via, peer.remote = nil, nil, nil, nil, nil, nil
  peer.story = {
    at = node.env.time and node.env.time(), begun_us = node.env.now(), told = 0,
    public = node.addresses:public_texts(), ["local"] = node.addresses:local_texts(),
    peer_public = texts(m.pubs), peer_local = texts(m.locals), over = node.carriage.over_tcp and "tcp" or nil,
  }
  self.live[peer.story] = { match, peer }
end

-- As node:why gives it.
local function record(self, match, peer)
  local story, node = peer.story, self.node
  return {
    match = match.id, self = node.id, own_name = node.name, peer = peer.id, name = peer.name, at = story.at,
    public = story.public, ["local"] = story["local"], peer_public = story.peer_public,
    peer_local = story.peer_local, over = story.over, behaviour = node.behaviour,
    state = peer.connected and "connected" or "seeking", connected = peer.connected, path = peer.path, via = peer.via,
    remote = peer.remote, first_ms = peer.first_ms, confirmed_ms = peer.confirmed_ms, rtt_ms = peer.rtt_ms,
    lasted_ms = (node.env.now() - story.begun_us) / 1000, paths = node:paths(peer.session),
  }
end

local function tell(self, r, story)
  if self.under_way >= UNDER_WAY_MAX then return end
  story.told = story.told + 1
  local match, peer, report = core.crypto.unhex(r.match), core.crypto.unhex(r.peer), outcome.pack(r, story.told)
  local posted = self.node.requests:post({
    to = self.node.server, sealed = true, expect = "done", timeout_ms = REPORT_MS, quiet = true,
    build = function(tx) return message.outcome:encode(tx, match, peer, report) end,
  }, function() self.under_way = self.under_way - 1 end)
  if posted then self.under_way = self.under_way + 1 end
end

local function tell_in(self, match, peer, ms)
  local story = peer.story
  story.timer = self.node.env.timer(ms, function()
    story.timer = nil
    tell(self, record(self, match, peer), story)
    tell_in(self, match, peer, AGAIN_MS)
    story.waiting = false
  end)
end

-- A path was confirmed, or another took over.
function History:changed(match, peer, rtt_ms)
  local story = peer.story
  peer.rtt_ms = rtt_ms
  if story.waiting then return end
  if story.timer then story.timer:cancel() end
  story.waiting = true
  tell_in(self, match, peer, SETTLE_MS)
end

local function forget(self)
  local now = self.node.env.now()
  while self.past[1] and (#self.past > KEPT_MAX or now - self.past[1].over_us > KEPT_US) do
    table.remove(self.past, 1)
  end
end

-- It has ended; to be called while the session can still be asked. note: why it never began.
function History:over(match, peer, reason, note)
  local story = peer.story
  if not self.live[story] then return end
  self.live[story] = nil
  if story.timer then story.timer:cancel() end
  peer.connected = false
  local r = record(self, match, peer)
  r.state, r.reason, r.note = "closed", reason, note
  table.insert(self.past, { over_us = self.node.env.now(), record = r })
  forget(self)
  tell(self, r, story)
end

local function asked_for(r, id)
  return not id or outcome.means(id, r.match) or outcome.means(id, r.peer) or r.name == id
end

-- Those of a match, of a peer by id or by name; of all without one. The oldest first, those that last at the end.
function History:why(id)
  forget(self)
  local out = {}
  for _, p in ipairs(self.past) do
    if asked_for(p.record, id) then out[#out + 1] = p.record end
  end
  for _, m in ipairs(self.node:ordered()) do
    for _, peer in ipairs(m.order) do
      local r = self.live[peer.story] and record(self, m, peer)
      if r and asked_for(r, id) then out[#out + 1] = r end
    end
  end
  return out
end

-- The node is closed: what has not ended ends now.
function History:close()
  local live = {}
  for _, entry in pairs(self.live) do live[#live + 1] = entry end
  for _, entry in ipairs(live) do self:over(entry[1], entry[2], "closed") end
end

return M
