-- SPDX-License-Identifier: MIT
-- One end of a tunnel: datagrams of programs on this host, to and from peers. A *flow* is one local address of a
-- program at the end that listens ("at"); at the other one ("to") each flow of each peer has a socket of its own, so
-- that the program there sees as many addresses as there are flows. Nothing goes to an address but `to`, or from `at`
-- to one that did not send there first.

local core = require "bodkin.core"
local frame = require "bodkin.tunnel.frame"

local M = {}
local Tunnel = {}
Tunnel.__index = Tunnel
Tunnel.__name = "bodkin.tunnel"

M.FLOWS_MAX = 64 -- of a peer, and of the programs here
M.SOCKETS_MAX = 512 -- for all peers together
M.IDLE_US = 120 * 1000000 -- a flow without a datagram for so long is forgotten
local YOUNG_US = 5 * 1000000 -- one used within so long is not given up for another
local PART_US = 1000000 -- that long half a datagram waits for its other half
local PARTS_MAX = 8 -- such halves of a flow
local SWEEP_MS = 5000
local HELLO_MS, HELLO_MAX_MS = 200, 2000
local SILENT_US = 10 * 1000000 -- without a word of a tunnel's, a peer has none

local opposite = { at = "to", to = "at" }

-- What may be counted: why a datagram was not carried, and how many were.
local causes = {
  too_long = "longer than %d bytes, the most that a tunnel carries",
  early = "they came while no peer was connected",
  flows = "more flows at once than %d of a peer, %d of all",
  part = "half of a datagram came, and not the other one",
  socket = "no socket could be opened for a flow",
  unsent = "they could not be sent",
  stray = "they were of no flow known here, or not from where they should",
}
local order = { "too_long", "early", "flows", "part", "socket", "unsent", "stray" }
-- Of these a user is told at once, with these figures.
local told = { too_long = { frame.DATAGRAM_MAX }, flows = { M.FLOWS_MAX, M.SOCKETS_MAX }, socket = {} }

-- options: env; at or to (a packed address); send(peer, bytes) -> true | nil; say(format, ...) for what a user should
-- know; misfit(peer, message, code), told of a peer that is not the other end of a tunnel.
-- Returns the tunnel, or nil, message, code.
function M.open(options)
  local self = setmetatable({
    env = options.env, send_frame = options.send, say = options.say, misfit = options.misfit,
    side = options.at and "at" or "to", to = options.to, peers = {}, sockets = 0, sources = 0, by_source = {},
    by_number = {}, last_number = 0, local_counters = core.counters(),
    dropped = {}, sent = 0, received = 0,
  }, Tunnel)
  self.far = opposite[self.side]
  for _, cause in ipairs(order) do self.dropped[cause] = 0 end
  if options.at then
    local err, code
    self.sock, err, code = self:socket(options.at)
    if not self.sock then return nil, err .. "; is another program using it?", code end
    self.sock:on_packet(function(from, bytes, to) self:from_source(from, bytes, to) end)
  end
  self.timer = self.env.timer(SWEEP_MS, function() self:sweep() end)
  return self
end

-- They are no mux's, and so need no number among its sockets.
function Tunnel:socket(bind)
  return self.env.udp(bind, { number = 0, counters = self.local_counters, max_bytes = frame.DATAGRAM_MAX })
end

-- Where --at listens.
function Tunnel:addr() return self.sock:addr() end

function Tunnel:drop(cause, n)
  self.dropped[cause] = self.dropped[cause] + (n or 1)
  if not told[cause] or self.dropped[cause] > (n or 1) then return end
  self.say("datagrams are dropped: " .. causes[cause], table.unpack(told[cause]))
end

-- What was carried and what was not, as a sentence.
function Tunnel:summary()
  local text, list = ("%d datagrams sent to peers, %d received"):format(self.sent, self.received), {}
  for _, cause in ipairs(order) do
    local n = self.dropped[cause]
    if n > 0 then list[#list + 1] = ("%d dropped: " .. causes[cause]):format(n, table.unpack(told[cause] or {})) end
  end
  return #list > 0 and text .. "; " .. table.concat(list, "; ") or text
end

-- The other side of this tunnel may be behind this peer: whether it is not known to be none.
function Tunnel:useful(id)
  local peer = self.peers[id]
  return not peer or not peer.side or peer.side == self.far
end

-- --- flows

local function oldest(flows)
  local found
  for _, flow in pairs(flows) do
    if not found or flow.last_us < found.last_us then found = flow end
  end
  return found
end

-- Whether there is room for one more among these `count` flows, made by giving up the one idle for longest if need be.
function Tunnel:room(flows, count)
  if count < M.FLOWS_MAX and self.sockets < M.SOCKETS_MAX then return true end
  local flow = oldest(flows)
  if not flow or self.env.now() - flow.last_us < YOUNG_US then return false end
  self:forget(flow)
  return true
end

function Tunnel:forget(flow)
  if flow.peer then
    flow.sock:close()
    flow.peer.flows[flow.number] = nil
    flow.peer.count, self.sockets = flow.peer.count - 1, self.sockets - 1
  else
    self.by_source[flow.from], self.by_number[flow.number] = nil, nil
    self.sources = self.sources - 1
  end
end

local function new_flow(self, number, fields)
  fields.number, fields.last_us, fields.next_part, fields.parts = number, self.env.now(), 0, {}
  return fields
end

-- A number that no flow has now; one that was just given up comes last.
function Tunnel:flow_of_source(from)
  if not self:room(self.by_source, self.sources) then return self:drop "flows" end
  repeat self.last_number = (self.last_number + 1) & 0xffff until not self.by_number[self.last_number]
  local flow = new_flow(self, self.last_number, { from = from })
  self.by_source[from], self.by_number[flow.number] = flow, flow
  self.sources = self.sources + 1
  return flow
end

function Tunnel:flow_of_peer(peer, number)
  if not self:room(peer.flows, peer.count) then return self:drop "flows" end
  -- To a program on this host from an address that only this host has.
  local addr = core.addr
  local any = addr.parse(addr.family(self.to) == 4 and "0.0.0.0" or "::", 0)
  local sock = self:socket(addr.class(self.to) == "loopback" and addr.with_port(self.to, 0) or any)
  if not sock then return self:drop "socket" end
  local flow = new_flow(self, number, { sock = sock, peer = peer })
  sock:on_packet(function(from, bytes)
    if from ~= self.to then return self:drop "stray" end
    self.answered = true
    self:forward(peer, flow, bytes)
  end)
  peer.flows[number], peer.count, self.sockets = flow, peer.count + 1, self.sockets + 1
  return flow
end

-- --- datagrams

function Tunnel:forward(peer, flow, bytes)
  flow.last_us = self.env.now()
  local whole, rest = frame.split(flow.number, flow.next_part, bytes)
  if rest then flow.next_part = (flow.next_part + 1) & 0xff end
  if self.send_frame(peer.id, whole) and (not rest or self.send_frame(peer.id, rest)) then
    self.sent = self.sent + 1
  else
    self:drop "unsent"
  end
end

function Tunnel:from_source(from, bytes, to)
  local peer = self.chosen
  if not peer then return self:drop "early" end
  local flow = self.by_source[from] or self:flow_of_source(from)
  if not flow then return end
  flow.own = to -- it answers from there
  self:forward(peer, flow, bytes)
end

-- The whole datagram once both parts are there.
function Tunnel:join(flow, kind, number, bytes)
  local now_us, slot = self.env.now(), number % PARTS_MAX
  local other = flow.parts[slot]
  if other and other.number == number and other.kind ~= kind and now_us - other.us <= PART_US then
    flow.parts[slot] = nil
    return kind == frame.SECOND and other.bytes .. bytes or bytes .. other.bytes
  end
  if other then self:drop "part" end
  flow.parts[slot] = { number = number, kind = kind, bytes = bytes, us = now_us }
end

-- What a data frame of the peer's held.
function Tunnel:input(id, bytes)
  local peer = self.peers[id]
  if not peer then return end
  local kind, number, part, data = frame.read(bytes)
  if kind == frame.HELLO then return self:hear(peer, number, part, data) end
  -- Data are sent to no other than the opposite side, so who sends some has heard our hello and is that.
  if kind and not peer.side then self:learn(peer, self.far) end
  if not kind or peer.side ~= self.far then return self:drop "stray" end
  local flow
  if self.side == "to" then
    flow = peer.flows[number] or self:flow_of_peer(peer, number)
    if not flow then return end
  else
    flow = peer == self.chosen and self.by_number[number]
    if not flow then return self:drop "stray" end
  end
  flow.last_us = self.env.now()
  if kind ~= frame.WHOLE then
    data = self:join(flow, kind, part, data)
    if not data then return end
  end
  self.received = self.received + 1
  local ok
  if self.side == "to" then
    self.first_us = self.first_us or flow.last_us
    ok = flow.sock:send(self.to, data)
  else
    ok = self.sock:send(flow.from, data, nil, flow.own)
  end
  if not ok then self:drop "unsent" end
end

-- --- peers

-- Datagrams may be lost, hellos, too: it is asked until there is an answer.
local function greet(self, peer, wait_ms)
  self.send_frame(peer.id, frame.hello(self.side, true))
  peer.timer = self.env.timer(wait_ms, function()
    if not peer.side and self.env.now() - peer.since_us >= SILENT_US then
      peer.side = "none"
      self.misfit(peer.id, ("peer %s is connected, but not by a tunnel: does it run bodkin tunnel?"):format(peer.id),
        "app_mismatch")
    end
    if peer.side ~= "none" then greet(self, peer, math.min(2 * wait_ms, HELLO_MAX_MS)) end
  end)
end

-- Data may flow to a peer; this may be told again.
function Tunnel:connected(id)
  if self.peers[id] then return end
  local peer = { id = id, flows = {}, count = 0, since_us = self.env.now() }
  self.peers[id] = peer
  greet(self, peer, HELLO_MS)
end

function Tunnel:hear(peer, version, side, ask)
  if version ~= frame.VERSION then
    if peer.side then return end
    peer.side = "none"
    return self.misfit(peer.id, ("the tunnel of peer %s is of version %d, this one of %d"):format(peer.id, version,
      frame.VERSION), "too_old")
  end
  if not ask then peer.timer:cancel() end
  if ask then self.send_frame(peer.id, frame.hello(self.side, false)) end
  if not peer.side then self:learn(peer, side) end
end

function Tunnel:choose()
  for _, peer in pairs(self.peers) do
    if peer.side == "to" and (not self.chosen or peer.since_us < self.chosen.since_us) then self.chosen = peer end
  end
  if self.chosen then self.say("datagrams to udp:%s go to %s", core.addr.format(self.sock:addr()), self.chosen.id) end
end

function Tunnel:learn(peer, side)
  peer.side = side
  if side == self.side then
    return self.misfit(peer.id, ("peer %s has --%s, as this side does: one of the two needs --%s"):format(peer.id, side,
      self.far), "invalid")
  end
  if self.side == "to" then
    return self.say("udp:%s is open to %s", core.addr.format(self.to), peer.id)
  end
  if not self.chosen then return self:choose() end
  self.say("%s has --to, as %s does: what is sent here goes on to the latter", peer.id, self.chosen.id)
end

-- The peer is gone.
function Tunnel:closed(id)
  local peer = self.peers[id]
  if not peer then return end
  self.peers[id] = nil
  peer.timer:cancel()
  for _, flow in pairs(peer.flows) do self:forget(flow) end
  if self.chosen ~= peer then return end
  self.chosen = nil
  self:choose()
end

-- --- upkeep

local function sweep_flows(self, flows, now_us)
  for _, flow in pairs(flows) do
    for slot, part in pairs(flow.parts) do
      if now_us - part.us > PART_US then
        flow.parts[slot] = nil
        self:drop "part"
      end
    end
    if now_us - flow.last_us >= M.IDLE_US then self:forget(flow) end
  end
end

function Tunnel:sweep()
  local now_us = self.env.now()
  sweep_flows(self, self.by_source, now_us)
  for _, peer in pairs(self.peers) do sweep_flows(self, peer.flows, now_us) end
  local long = self.local_counters:get "udp_rx_truncated" - self.dropped.too_long
  if long > 0 then self:drop("too_long", long) end
  if not self.answered and self.first_us and now_us - self.first_us >= SILENT_US then
    self.answered = true -- it is said once
    self.say("nothing came back from udp:%s yet: is the program there running?", core.addr.format(self.to))
  end
  self.timer:again(SWEEP_MS)
end

-- Lets go of every socket and timer. Idempotent.
function Tunnel:close()
  if self.is_closed then return end
  self.is_closed = true
  self.timer:cancel()
  self.chosen, self.choose = nil, function() end
  for id in pairs(self.peers) do self:closed(id) end
  if self.sock then self.sock:close() end
end

return M
