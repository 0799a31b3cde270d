-- SPDX-License-Identifier: MIT
-- A match: the peers put together, any number of them, each with a session of its own in the mux.

local core = require "bodkin.core"
local fresh = require "bodkin.client.fresh"
local outcome = require "bodkin.outcome"
local task = require "bodkin.task"
local printable = require("bodkin.client.request").printable

local M = { payload_max = 1120 }
local Match = {}
Match.__index = Match
Match.__name = "bodkin.match"

-- Messages nobody has fetched yet; beyond it the oldest go, as a socket's buffer would have it.
local backlog_max = 1024

-- `raw` is the match id. A match that is hosted stays open without peers; another ends with its last peer.
function M.new(node, raw)
  return setmetatable({
    node = node, raw = raw, id = core.crypto.hex(raw), hosted = false, of_n = 2,
    by_id = {}, order = {}, queue = task.queue(), backlog = 0, waiters = {},
  }, Match)
end

local function path_fields(x)
  return { path = x.path, via = x.via, remote = core.addr.format(x.remote) }
end

local function listed(candidates, relays)
  local out = {}
  for i, c in ipairs(candidates) do out[i] = ("%s (%s)"):format(core.addr.format(c[1]), c[2]) end
  for _, at in ipairs(relays) do out[#out + 1] = ("%s (relay)"):format(core.addr.format(at)) end
  return table.concat(out, ", ")
end

function Match:emit(name, peer, fields)
  fields = fields or {}
  fields.match, fields.peer = self.id, peer.id
  self.node:emit(name, fields, self)
end

-- All are here and the one who was asked for is not among them: the server lies, or is wrong.
function Match:check_wanted()
  if not self.wanted or self.closed or self.by_id[self.wanted] or #self.order < self.of_n - 1 then return end
  self.node:emit("error", {
    code = "bad_key", message = ("the server put others into the match than client %s"):format(self.wanted),
    hint = "do you trust this server?",
  }, self)
  self:leave()
end

-- The server scheduled the session with a peer again, since one of the two has a fresh port.
local function matched_again(self, peer, m)
  if not peer.session or m.again <= peer.again then return end
  peer.again = m.again
  self.node.mux:renew(peer.session, {
    epoch = peer.epoch, start_in_ms = m.start_in_ms, opener_ttl = self.node.addresses:opener_ttl(m.pubs),
    candidates = fresh.candidates(self.node, peer, m),
  })
end

-- What `matched` brought: begins the session with that peer. One that is there already is left alone, unless it is told
-- again on purpose.
function Match:matched(m)
  local id = core.crypto.hex(m.peer)
  local peer = self.by_id[id]
  if peer and m.again > 0 then return matched_again(self, peer, m) end
  if peer and peer.session then return end
  if not peer then
    peer = { id = id }
    self.by_id[id] = peer
    self.order[#self.order + 1] = peer
  end
  peer.name, peer.props, peer.connected, peer.reason = printable(m.name), m.props or {}, false, nil
  peer.commit_us, peer.again, peer.epoch, peer.fresh, peer.note = m.commit_us, m.again, 0, nil, nil
  self.of_n = math.max(self.of_n, m.of_n)
  self.node.history:matched(self, peer, m)
  if m.seat then
    self.team, peer.team = m.seat.team, m.seat.peer_team
    self.host = m.seat.host and core.crypto.hex(m.seat.host)
  end
  self.data = m.data
  local candidates, ephemeral = self.node.addresses:candidates(m.pubs, m.locals), self.node.ephemerals:pair(m.own)
  local session, err
  local relays = self.node.relays:usable(m.ticket and m.relays)
  if not ephemeral then
    err = "the match came too late for its keys"
  elseif #candidates == 0 and #relays == 0 then
    err = outcome.NO_ADDRESS
  else
    peer.tried = "none of these answered in 10 s: " .. listed(candidates, relays)
    session, err = self.node.mux:add {
      match = m.match, key = m.key, self = self.node.identity.id, peer = m.peer, start_in_ms = m.start_in_ms,
      opener_ttl = self.node.addresses:opener_ttl(m.pubs),
      own = self.node.identity.key .. self.node.identity.key_secret, own_ephemeral = ephemeral,
      peer_key = m.peer_key, peer_ephemeral = m.peer_ephemeral, candidates = candidates,
    }
  end
  if session then
    peer.session = session
    self.node.sessions[session] = { match = self, peer = peer }
    self.node.relays:open(session, relays, m.ticket)
  end
  local ids = {}
  for i, p in ipairs(self.order) do ids[i] = p.id end
  self.node:emit("matched", { match = self.id, peers = ids, team = self.team, host = self.host, data = m.data }, self)
  peer.tried = session and peer.tried or err
  self:check_wanted()
  if session then return end
  if self.closed then return self.node.history:over(self, peer, "closed", err) end
  self:over(peer, "no_path")
end

-- An event of the session with a peer.
function Match:on_session(kind, peer, x)
  if kind == "message" then return self:received(peer, x) end
  if kind == "closed" then return self:over(peer, x) end
  if kind == "silent" then return fresh.open(self.node, self, peer) end
  local fields = path_fields(x)
  peer.path, peer.via, peer.remote = fields.path, fields.via, fields.remote
  peer.connected = true
  if peer.commit_us then fields.commit_ms = (self.node.env.now() - peer.commit_us) / 1000 end
  if kind == "connected" then
    peer.first_ms = peer.first_ms or x.ms
    fields.first_ms = x.ms
  else
    peer.confirmed_ms = peer.confirmed_ms or x.ms
    fields.confirmed_ms, fields.rtt_ms, fields.why = x.ms, x.rtt_ms, self.node:paths(peer.session)
    self.node.history:changed(self, peer, x.rtt_ms)
  end
  self:emit(kind, peer, fields)
  self:wake()
end

function Match:received(peer, data)
  if self.reader then return self.reader(peer.id, data) end
  if self.backlog >= backlog_max then
    self.queue:pop()
    self.backlog = self.backlog - 1
  end
  local fields = { event = "message", match = self.id, peer = peer.id, channel = 0, data = data }
  if self.queue:push(fields) then self.backlog = self.backlog + 1 end
  self.node:emit("message", fields, self)
end

local function hint_of(note)
  if not note then return "is UDP allowed on both sides? bodkin ping shows whether it is here" end
  if note ~= outcome.NO_ADDRESS then return "try again" end
  return "give both an address of the same kind, IPv4 or IPv6, or the server a relay that has both"
end

-- The session with a peer has ended; or there was none, and peer.tried says why.
function Match:over(peer, reason)
  local note = not peer.session and peer.tried or nil
  self.node.history:over(self, peer, reason, note)
  peer.session, peer.connected, peer.reason, peer.note = nil, false, reason, note
  fresh.release(self.node, peer)
  self:emit("closed", peer, { reason = reason, note = note })
  if reason == "no_path" and not self.closed then
    self.node:emit("error", {
      code = "no_path", hint = hint_of(note),
      message = ("no path to peer %s %s: %s"):format(peer.id, note and "could be tried" or "worked", peer.tried),
    }, self)
  end
  if not self.hosted and #self.order >= self.of_n - 1 and not self:any("session") then self:leave() end
  self:wake()
end

function Match:any(field)
  for _, peer in ipairs(self.order) do
    if peer[field] then return peer end
  end
end

-- What wait_connected says now; nothing while there is nothing to say.
function Match:verdict()
  if self:any("connected") then return true end
  if not self.closed then return end
  local lost = self:any("reason")
  if not lost then return nil, "the match is closed", "closed" end
  if lost.reason ~= "no_path" then return nil, "the peer is gone: " .. lost.reason, "closed" end
  if lost.note then return nil, ("no path to peer %s could be tried: %s"):format(lost.id, lost.note), "no_path" end
  return nil, ("no path to peer %s worked: is UDP allowed on both sides? try bodkin ping"):format(lost.id), "no_path"
end

function Match:wake()
  if self:any("connected") or self.closed then
    local waiters = self.waiters
    self.waiters = {}
    for _, resume in ipairs(waiters) do resume(self:verdict()) end
  end
end

-- In a task: waits until data may flow to a peer. true, or nil, message, code: no_path, closed, timeout, or
-- no_match when nobody came at all. Without timeout_ms it waits as long as the match lasts.
function Match:wait_connected(timeout_ms)
  if self:any("connected") or self.closed then return self:verdict() end
  return task.await(function(resume)
    local timer
    local function finish(...)
      if timer then timer:cancel() end
      resume(...)
    end
    self.waiters[#self.waiters + 1] = finish
    if not timeout_ms then return end
    timer = self.node.env.timer(timeout_ms, function()
      for i, waiter in ipairs(self.waiters) do
        if waiter == finish then table.remove(self.waiters, i) break end
      end
      if #self.order == 0 then return resume(nil, "nobody came into the match in time", "no_match") end
      resume(nil, "no peer was connected in time", "timeout")
    end)
    return function() timer:cancel() end
  end)
end

-- One datagram, unreliable, at most 1120 bytes, to a peer (its id) or to every one connected.
-- true, or nil, message, code: "invalid" before connected.
function Match:send(data, peer)
  if type(data) ~= "string" then error("match:send takes a string", 2) end
  if self.closed then return nil, "the match is closed", "closed" end
  if #data > M.payload_max then
    return nil, ("%d bytes do not fit in a datagram of %d; send less at once"):format(#data, M.payload_max), "invalid"
  end
  local targets = self.order
  if peer then
    local one = self.by_id[peer]
    if not one then return nil, ("there is no peer %s in this match"):format(peer), "invalid" end
    targets = { one }
  end
  local sent, err, code = false, "no peer is connected yet; wait for connected", "invalid"
  for _, p in ipairs(targets) do
    if p.connected then
      local ok, why, which = self.node.mux:send(p.session, data)
      if ok then sent = true else err, code = why, which end
    end
  end
  if sent then return true end
  return nil, err, code
end

-- In a task: `for m in match:messages() do`, each { match, peer, channel, data }; ends when the match closes.
function Match:messages()
  return function()
    local m = self.queue:pop()
    if m then self.backlog = self.backlog - 1 end
    return m
  end
end

-- In place of messages() and the event: fn(peer, data), called at once for each, for programs that carry many. It may
-- not wait.
function Match:on_data(fn) self.reader = fn end

-- Everyone met in this match: { id =, name =, props =, team =, connected =, path =, via =, remote =, reason = }, and of
-- the path in use rtt_ms, jitter_ms and loss (see Node:paths) as far as they are known.
function Match:peers()
  local out = {}
  for i, p in ipairs(self.order) do
    out[i] = {
      id = p.id, name = p.name, props = p.props, team = p.team, connected = p.connected, path = p.path, via = p.via,
      remote = p.remote, reason = p.reason,
    }
    for _, path in ipairs(p.session and self.node:paths(p.session) or {}) do
      if path.selected then out[i].rtt_ms, out[i].jitter_ms, out[i].loss = path.rtt_ms, path.jitter_ms, path.loss end
    end
  end
  return out
end

-- In a task, of a match that a queue made: asks for more players, where its policy fills up what is running. wanted:
-- { seats = { how many are open, by team }, props = what its policy is to know }. Only its host may, where the policy
-- named one. What is asked replaces what was asked before. true, or nil, message, code.
function Match:backfill(wanted)
  if type(wanted) ~= "table" or type(wanted.seats) ~= "table" then
    error("match:backfill takes { seats = { number, … }, props = { … } }", 2)
  end
  if self.closed then return nil, "the match is closed", "closed" end
  local seats, err, code = core.wire.encode(core.wire.array(wanted.seats))
  if not seats then return nil, err, code end
  if #seats > 64 then return nil, "seats are numbers by team", "invalid" end
  local props
  props, err, code = core.wire.encode(wanted.props or {})
  if not props then return nil, err, code end
  if #props > 128 then return nil, "props do not fit in 128 bytes; say less", "limit" end
  return self.node.sharing:backfill(self.raw, seats, props)
end

-- In a task: nobody else is wanted.
function Match:stop_backfill() return self:backfill { seats = {} } end

-- Tells the peers and the server, and closes the match. Idempotent.
function Match:leave()
  if self.closed then return end
  self.closed = true
  for _, peer in ipairs(self.order) do
    if peer.session then self.node.mux:leave(peer.session) end
  end
  self.queue:close()
  self.node:left(self)
  self:wake()
end

return M
