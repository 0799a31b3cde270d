-- SPDX-License-Identifier: MIT
-- Sends `matched` until it is acknowledged: at 0, 20 and 60 ms, each further wait twice the one before,
-- ten times in about ten seconds. Each repeat says how long ago the commit was, and start_in shrinks by it.
-- Both of a pair are told in one instant, and the nearer one to wait, so that both begin at once (why: "The race" in
-- docs/NAT.md).

local addresses = require "bodkin.servers.addresses"

local M = {}
local Delivery = {}
Delivery.__index = Delivery

local OWN_LEN = 8 -- of an ephemeral, to tell its owner which it was
local FIRST_WAIT_MS, TRIES = 20, 10 -- 0, 20, 60, 140, 300, 620, 1260, 2540, 5100, 10220 ms
local LATE = 6 -- sent so often, more than any way there and back takes

-- So much at most: a client that claims to be far away delays its own matches by that, and nobody else's.
local WAIT_MAX_MS = 500

-- How long `to` waits for its peer: the difference of their one-way delays. Where one is unknown nobody waits.
local function start_in_ms(to, peer)
  if not to.rtt_ms or not peer.rtt_ms then return 0 end
  return math.max(0, math.min((peer.rtt_ms - to.rtt_ms + 1) // 2, WAIT_MAX_MS))
end

-- locate(person) -> the association by which that client is to be reached now; acknowledged(d), of one pushed.
function M.new(server, locate, acknowledged)
  return setmetatable({
    server = server, locate = locate, acknowledged = acknowledged, by_tx = {}, by_pair = {}, total = 0,
    count = {}, late = {}, -- by client: of all on their way, and of those sent LATE times
  }, Delivery)
end

local function drop(self, d)
  if self.by_tx[d.tx] ~= d then return end
  if d.timer then d.timer:cancel() end
  self.by_tx[d.tx] = nil
  if self.by_pair[d.pair] == d then self.by_pair[d.pair] = nil end
  local n = self.count[d.to.id] - 1
  self.count[d.to.id] = n > 0 and n or nil
  if d.tries >= LATE then
    local late = self.late[d.to.id] - 1
    self.late[d.to.id] = late > 0 and late or nil
  end
  self.total = self.total - 1
end

local function send(self, d)
  local server = self.server
  local age_ms = (server.env.now() - d.commit_us) // 1000
  local peer = d.peer
  server:push(self.locate(d.to), "matched", d.tx, d.match, d.key, peer.key, peer.ephemeral, d.own, peer.name,
    peer.props, addresses.told(peer.pubs), d.locals, d.of_n, math.max(0, d.start_in_ms - age_ms),
    math.min(age_ms, 60000), d.data, d.seat, server.relays, d.ticket, d.again or 0,
    server.shared_clock and d.commit_us or nil, d.to.nat, peer.nat)
  server.counters:add("matched_sent")
  d.tries = d.tries + 1
  if d.tries == LATE then self.late[d.to.id] = (self.late[d.to.id] or 0) + 1 end
  d.timer = server.env.timer(d.wait_ms, function()
    if d.tries < TRIES then return send(self, d) end
    server.counters:add("matched_lost")
    drop(self, d)
  end)
  d.wait_ms = d.wait_ms * 2
end

-- Whether one client can be sent `more` further messages without too many being unacknowledged.
function Delivery:fits(id, more)
  return (self.count[id] or 0) + more <= self.server.limits.pending
end

-- Whether one cannot be, because of what it has left unacknowledged for long: what is merely on its way tells nothing.
function Delivery:behind(id, more)
  return self.late[id] ~= nil and not self:fits(id, more)
end

-- Whether `more` further messages can be kept at all.
function Delivery:room_for(more)
  return self.total + more <= self.server.limits.pending_all
end

-- d: to and peer (people, see people.lua), match, key, locals (of the peer, as `to` may see them), of_n, data and
-- seat (encoded), ticket (for relays, or nil), again (how often this pair was told before; nil: never). The first is
-- sent now. One that was on its way for the same pair of the same match is dropped: it is void. Returns d.
function Delivery:push(d)
  local server = self.server
  d.tx, d.commit_us, d.tries, d.wait_ms = server.env.random(12), server.env.now(), 0, FIRST_WAIT_MS
  d.pair = d.match .. d.to.id .. d.peer.id
  d.own, d.start_in_ms = d.to.ephemeral:sub(1, OWN_LEN), start_in_ms(d.to, d.peer)
  if self.by_pair[d.pair] then drop(self, self.by_pair[d.pair]) end
  self.by_tx[d.tx], self.by_pair[d.pair] = d, d
  self.count[d.to.id] = (self.count[d.to.id] or 0) + 1
  self.total = self.total + 1
  send(self, d)
  return d
end

-- An acknowledgement by a client.
function Delivery:ack(id, tx)
  local d = self.by_tx[tx]
  if not d or d.to.id ~= id then return false end
  drop(self, d)
  self.acknowledged(d)
  return true
end

-- A client is gone, and nothing need reach it any more.
function Delivery:gone(id)
  if not self.count[id] then return end
  local list = {}
  for _, d in pairs(self.by_tx) do
    if d.to.id == id then list[#list + 1] = d end
  end
  for _, d in ipairs(list) do drop(self, d) end
end

function Delivery:close()
  for _, d in pairs(self.by_tx) do d.timer:cancel() end
  self.by_tx, self.by_pair, self.count, self.total = {}, {}, {}, 0
end

return M
