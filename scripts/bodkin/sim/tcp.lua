-- SPDX-License-Identifier: MIT
-- Datagrams over TCP on the simulated network, as runtime/io/tcp.c has them over the real one: each in a segment of its
-- own, reliable and in order. A segment goes the way of every packet; one that does not arrive, but for chance (see
-- sim/net.lua), ends its connection after a while.

local addr = require("bodkin.core").addr
local nets = require "bodkin.sim.net"

local M = {}

M.QUEUE_MAX = 65536 -- bytes on their way or waiting for a connection
M.FIRST_MS, M.IDLE_MS, M.AGAIN_MS, M.UNACKED_MS = 5000, 60000, 500, 10000
M.MAX, M.MAX_EACH = 4096, 256

local Socket = {}
Socket.__index = Socket

local Conn = {}
Conn.__index = Conn

-- Every connection of a node by its two addresses.
local function key_of(own, remote) return own .. "|" .. remote end

local function segment(conn, kind, bytes)
  conn.sent = conn.sent + (kind == "data" and 1 or 0)
  local number = conn.sent
  return {
    src = conn.own, dst = conn.remote, bytes = bytes or "", ttl = nets.TTL,
    tcp = {
      kind = kind, number = number,
      arrive = function(packet, node) M.arrive(conn.sock.net, packet, node) end,
      lost = function()
        if kind ~= "reset" then conn:after(M.UNACKED_MS, function() conn:over("tcp_failed") end) end
      end,
    },
  }
end

function Conn:after(ms, fn)
  self.sock.net.loop:timer(ms, function()
    if not self.gone then fn() end
  end)
end

function Conn:emit(kind, bytes)
  local net, node, packet = self.sock.net, self.sock.node, segment(self, kind, bytes)
  if nets.has_ip(node, self.own) then return net:emit(node, packet) end
  packet.tcp.lost() -- the host has that address no more
end

local function new_conn(sock, own, remote, known)
  local conn = setmetatable({ sock = sock, own = own, remote = remote, known = known, sent = 0, got = 0, early = {},
    queue = {}, queued = 0, used_us = sock.net.loop:now() }, Conn)
  sock.conns[known], sock.node.connections[key_of(own, remote)] = conn, conn
  return conn
end

local function is_free(sock, remote)
  local all, each = 0, 0
  for _, conn in pairs(sock.conns) do
    all = all + 1
    if addr.same_ip(conn.remote, remote) then each = each + 1 end
  end
  return all < sock.max and each < sock.max_each
end

-- The connection is no more; one that this side made is remembered for a while as one that failed.
function Conn:over(why)
  if self.gone then return end
  local sock = self.sock
  self.gone, self.early = true, {}
  sock.node.connections[key_of(self.own, self.remote)] = nil
  if why then sock.count(why) end
  if sock.listens then
    sock.conns[self.known] = nil
  else
    sock.net.loop:timer(M.AGAIN_MS, function()
      if sock.conns[self.known] == self then sock.conns[self.known] = nil end
    end)
  end
end

function Conn:reset(why)
  if self.gone then return end
  self:emit "reset"
  self:over(why)
end

-- Looks whether anything came, or went where this side connected.
function Conn:watch(ms)
  self:after(ms, function()
    local idle_ms = (self.sock.net.loop:now() - self.used_us) / 1000
    if idle_ms >= M.IDLE_MS then return self:reset() end
    if self.sock.listens and self.got == 0 then return self:reset "tcp_broken" end
    self:watch(math.max(M.IDLE_MS - idle_ms, 1))
  end)
end

function Conn:send(bytes)
  if not self.open then
    self.queue[#self.queue + 1] = bytes
  else
    self:emit("data", bytes)
  end
end

function Conn:opened()
  self.open = true
  self.sock.count "tcp_opened"
  self:watch(self.sock.listens and M.FIRST_MS or M.IDLE_MS)
  for _, bytes in ipairs(self.queue) do self:emit("data", bytes) end
  self.queue, self.queued = {}, 0
end

-- What came early waits for what is late.
function Conn:take(number, bytes)
  self.early[number] = bytes
  while not self.gone and self.early[self.got + 1] do
    self.got = self.got + 1
    bytes, self.early[self.got] = self.early[self.got], nil
    self.used_us = self.sock.net.loop:now()
    self.sock.on_packet(self.known, bytes, self.own)
  end
end

local function listener(node, dst)
  return node.listening[dst] or node.listening[("\0"):rep(#dst - 2) .. dst:sub(-2)]
end

local function accept(packet, node)
  local sock = listener(node, packet.dst)
  if not sock or not is_free(sock, packet.src) then
    if sock then sock.count "tcp_refused" end
    return false
  end
  local conn = new_conn(sock, packet.dst, packet.src, packet.src)
  conn:opened()
  conn:emit "accept"
  return true
end

-- A segment has come to a node.
function M.arrive(net, packet, node)
  local kind = packet.tcp.kind
  net.record("tcp:recv", packet.src, packet.dst, packet.bytes)
  local conn = node.connections and node.connections[key_of(packet.dst, packet.src)]
  if conn and kind == "accept" and not conn.open then return conn:opened() end
  if conn and kind == "data" then return conn:take(packet.tcp.number, packet.bytes) end
  if conn and kind == "reset" then return conn:over(not conn.open and "tcp_failed" or nil) end
  if kind == "reset" or kind == "syn" and node.listening and accept(packet, node) then return end
  net:emit(node, { src = packet.dst, dst = packet.src, bytes = "", ttl = nets.TTL, tcp = {
    kind = "reset", arrive = function(...) M.arrive(net, ...) end, lost = function() end,
  } })
end

-- On a host: one that listens at `address`, or with options.port connects to that port of whom it sends to. options:
-- max, max_each (connections); on_packet(from, bytes, to); count(counter's name, by = 1). Or nil and a sentence.
function M.bind(net, node, address, options)
  if not nets.has_ip(node, address) then return nil, "Cannot assign requested address" end
  node.listening, node.connections = node.listening or {}, node.connections or {}
  if not options.port then
    if addr.port(address) == 0 then address = addr.with_port(address, net:free_port(node)) end
    if node.listening[address] then return nil, "Address already in use" end
  end
  local sock = setmetatable({ net = net, node = node, address = address, conns = {}, listens = not options.port,
    port = options.port, max = options.max or M.MAX, max_each = options.max_each or M.MAX_EACH,
    on_packet = options.on_packet, count = options.count, max_bytes = nets.DATAGRAM_MAX }, Socket)
  if sock.listens then node.listening[address] = sock end
  return sock
end

local function dial(sock, to)
  local remote = addr.with_port(to, sock.port)
  local own = nets.source(sock, remote)
  if not own or not is_free(sock, remote) then return nil end
  local conn = new_conn(sock, addr.with_port(own, sock.net:free_port(sock.node)), remote, to)
  conn:emit "syn"
  conn:after(M.FIRST_MS, function()
    if not conn.open then conn:over "tcp_failed" end
  end)
  return conn
end

-- As net.lua's; true also when there is no connection.
function Socket:send(to, bytes, ttl)
  if #to ~= #self.address then return nil, "another address family" end
  if #bytes > self.max_bytes or #bytes == 0 then return nil, ("not 1 to %d bytes"):format(self.max_bytes) end
  if ttl and ttl > 0 or addr.port(to) == 0 then return nil, "no TTL over TCP, and no port 0" end
  local conn = self.conns[to]
  if not conn and not self.listens then conn = dial(self, to) end
  if not conn or conn.gone then
    self.count "tcp_tx_dropped"
    return true
  end
  if not conn.open then
    if conn.queued + #bytes + 2 > M.QUEUE_MAX then
      self.count "tcp_tx_dropped"
      return nil, "too much is waiting", "limit"
    end
    conn.queued = conn.queued + #bytes + 2
  end
  if not self.listens then conn.used_us = self.net.loop:now() end
  self.count "tcp_tx"
  self.count("tcp_tx_bytes", #bytes)
  conn:send(bytes)
  return true
end

function Socket:close()
  if self.listens then self.node.listening[self.address] = nil end
  local list = {}
  for _, conn in pairs(self.conns) do list[#list + 1] = conn end
  table.sort(list, function(a, b) return a.own .. a.known < b.own .. b.known end)
  for _, conn in ipairs(list) do conn:reset() end
  self.conns = {}
end

return M
