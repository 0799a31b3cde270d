-- SPDX-License-Identifier: MIT
-- A network of datagrams that is not there: realms (address spaces), nodes with addresses in them, and boxes
-- that join an inner realm to an outer one and may rewrite or drop what passes (see sim/nat.lua). Time is
-- the virtual loop's; what is random comes from the seed.
--
-- A packet crosses a realm from node to node. Each crossing takes a delay, may be lost, doubled or held back, and
-- passes `hops` routers; a box is a router, too. A packet for an address that is not in a realm goes to the
-- realm's box; outside all boxes it vanishes, as one to a port without a socket does. No ICMP.
--
-- A segment of sim/tcp.lua is a packet, too: with `tcp`, whose lost(why) is called where it vanishes. By chance it is
-- not lost, but late, as if it had been sent again.

local addr = require("bodkin.core").addr
local attackers = require "bodkin.sim.attacker"
local random = require "bodkin.sim.random"

local M = {}

M.DATAGRAM_MAX = 1200
M.TTL = 64
M.SELF_MS = 0.05 -- to a host's own address; more than 0, as every real path
M.RETRY_MS, M.RETRY_MAX_MS = 200, 3200 -- until a segment is sent again; doubles

local Net = {}
Net.__index = Net

local function ip_of(address)
  return address:sub(1, -3)
end

local function pick(value, from, to)
  if not value then return 0 end
  local kind = type(value)
  if kind == "number" then return value end
  if kind == "function" then return value(from.name, to.name) end
  local row = value[from.name]
  return row and row[to.name] or value.default or 0
end

local function new_realm(options, hops)
  return {
    at = {}, -- ip -> node
    delay_ms = options.delay_ms,
    jitter_ms = options.jitter_ms,
    loss = options.loss,
    duplicate = options.duplicate,
    reorder = options.reorder,
    reorder_ms = options.reorder_ms or 50,
    isolated = options.isolated,
    hops = options.hops or hops,
  }
end

-- options: loop (virtual; its now() and timer(ms, fn) are used), seed, record = fn(event, src, dst, bytes) or nil,
-- and for the outermost realm delay_ms (one way), jitter_ms (0..this much more), loss (0..1), duplicate and
-- reorder (0..1: of a second copy; of being held back by 0..reorder_ms, 50, more), hops (3), isolated (hosts of
-- it do not reach each other, as on a guest Wi-Fi). All of them but the last three are a number, a fn(from, to) of
-- the names of two nodes, or { [from] = { [to] = number }, default = number }. So is attack: 0..1, how likely a man in
-- the middle does something to a datagram that crosses the outermost realm (see sim/attacker.lua), with attack_deeds
-- and on_deed.
function M.new(options)
  local self = setmetatable({
    loop = options.loop,
    record = options.record or function() end,
    random = random.new(options.seed, "net"),
    outer = new_realm(options, 3),
  }, Net)
  if options.attack then
    self.outer.attack = options.attack
    self.attacker = attackers.new { random = random.new(options.seed, "attacker"), deeds = options.attack_deeds,
      on_deed = options.on_deed }
  end
  return self
end

-- Whether a box gives what is inside other addresses outside: NATs do, for IPv4.
local function hides(box, ip)
  return box.model.ips and #ip == 6
end

local function attach(net, node, behind)
  node.behind, node.realm = behind, behind and behind.inner or net.outer
  for _, ip in ipairs(node.ips) do
    local key = ip_of(ip)
    local other = node.realm.at[key]
    if other then
      error(("%s and %s cannot both have %s"):format(other.name, node.name, addr.format(ip)), 3)
    end
    node.realm.at[key] = node
    local box = behind
    while box and not hides(box, ip) do -- known outside, too
      box.realm.at[key] = box
      box = box.realm.box
    end
  end
  return node
end

local function detach(node)
  for _, ip in ipairs(node.ips) do
    local key, at, box = ip_of(ip), node.realm.at, node.behind
    at[key] = nil
    while box and not hides(box, ip) do
      box.realm.at[key] = nil
      box = box.realm.box
    end
  end
end

-- A node with packed addresses `ips`, behind a box or not; blocks = "udp": it sends and gets no datagram.
function Net:host(name, ips, behind, blocks)
  return attach(self, { name = name, ips = ips, sockets = {}, next_port = 49152, blocks = blocks }, behind)
end

-- A box with a model. options: of the realm inside (as in new; by default no delay, no loss, no hop), tcp_model (of the
-- segments that pass; without one they are treated as datagrams), blocks = "udp": no datagram passes.
function Net:box(name, model, options, behind)
  local box = { name = name, ips = model.ips or {}, model = model, inner = new_realm(options, 0),
    tcp_model = options.tcp_model or model, blocks = options.blocks }
  box.inner.box = box
  return attach(self, box, behind)
end

-- A host goes elsewhere: other addresses, behind another box or none. Its sockets stay; one bound to an address
-- that it has no more sends and hears nothing.
function Net:move(node, ips, behind)
  detach(node)
  node.ips = ips
  attach(self, node, behind)
end

-- While a host is asleep, what comes for it is lost. (Whoever runs programs on it stops them.)
function Net.sleep(_, node, asleep)
  node.asleep = asleep
end

local arrive

local function after(net, ms, fn)
  net.loop:timer(ms, fn)
end

local function drop(net, packet, why)
  net.record("drop:" .. why, packet.src, packet.dst, packet.bytes)
  if packet.tcp then packet.tcp.lost(why) end
end

local function routers(net, packet, n)
  packet.ttl = packet.ttl - n
  if packet.ttl > 0 then return true end
  drop(net, packet, "ttl")
end

-- How late a segment is that is lost now and then.
local function retries_ms(net, loss)
  local ms, retry_ms = 0, M.RETRY_MS
  while net.random:float() < loss and ms < 10 * M.RETRY_MAX_MS do
    ms, retry_ms = ms + retry_ms, math.min(2 * retry_ms, M.RETRY_MAX_MS)
  end
  return ms
end

local cross

-- What the man in the middle makes of a packet on its way from node to node.
local function attack(net, packet, from, to, realm)
  net.attacker:see(pick(realm.attack, from, to), packet.src, packet.dst, packet.bytes, function(ms, src, dst, bytes)
    local forged = { src = src, dst = dst, bytes = bytes, ttl = packet.ttl, attacked = true }
    local at = realm.at[ip_of(src)] or from -- a reflected one leaves from where the other went
    if ms <= 0 then return cross(net, forged, at, realm) end
    after(net, ms, function() cross(net, forged, at, realm) end)
  end)
end

function cross(net, packet, from, realm)
  local to = realm.at[ip_of(packet.dst)] or realm.box
  if not to or to == from and to.inner then
    return drop(net, packet, "nowhere")
  end
  if realm.isolated and not (from.inner or to.inner or from == to) then
    return drop(net, packet, "isolated")
  end
  if to == from then return after(net, M.SELF_MS, function() arrive(net, packet, to, realm) end) end
  if realm.attack and not (packet.attacked or packet.tcp) then return attack(net, packet, from, to, realm) end
  if not routers(net, packet, realm.hops) then return end
  local loss = pick(realm.loss, from, to)
  local late = packet.tcp and loss > 0 and retries_ms(net, loss) or 0
  if not packet.tcp and loss > 0 and net.random:float() < loss then return drop(net, packet, "lost") end
  local delay, jitter = pick(realm.delay_ms, from, to), pick(realm.jitter_ms, from, to)
  local held, twice = pick(realm.reorder, from, to), pick(realm.duplicate, from, to)
  local copies = not packet.tcp and twice > 0 and net.random:float() < twice and 2 or 1
  for i = 1, copies do
    local ms, copy = delay + late, packet
    if i < copies then copy = { src = packet.src, dst = packet.dst, bytes = packet.bytes, ttl = packet.ttl } end
    if jitter > 0 then ms = ms + jitter * net.random:float() end
    if held > 0 and net.random:float() < held then ms = ms + realm.reorder_ms * net.random:float() end
    if ms <= 0 and to.inner then
      arrive(net, copy, to, realm)
    else
      after(net, ms, function() arrive(net, copy, to, realm) end)
    end
  end
end

local function socket_at(node, address)
  return node.sockets[address] or node.sockets[("\0"):rep(#address - 2) .. address:sub(-2)]
end

local function deliver(net, packet, node)
  if node.asleep then return drop(net, packet, "asleep") end
  if packet.tcp then return packet.tcp.arrive(packet, node) end
  if node.blocks == "udp" then return drop(net, packet, "blocked") end
  local sock = socket_at(node, packet.dst)
  net.record(sock and "recv" or "drop:noport", packet.src, packet.dst, packet.bytes)
  if sock then sock.on_packet(packet.src, packet.bytes, packet.dst) end
end

function arrive(net, packet, node, realm)
  if not node.inner then return deliver(net, packet, node) end
  if not routers(net, packet, 1) then return end
  if not packet.tcp and node.blocks == "udp" then return drop(net, packet, "blocked") end
  local model = packet.tcp and node.tcp_model or node.model
  local outward = realm == node.inner
  local verb = outward and model.outbound or model.inbound
  local src, dst, back = verb(model, net.loop:now(), packet.src, packet.dst)
  if not src then return drop(net, packet, dst) end
  packet.src, packet.dst = src, dst
  cross(net, packet, node, outward and not back and node.realm or node.inner)
end

-- A packet leaves a node.
function Net:emit(node, packet)
  self.record(packet.tcp and "tcp:send" or "send", packet.src, packet.dst, packet.bytes)
  if not packet.tcp and node.blocks == "udp" then return drop(self, packet, "blocked") end
  if addr.class(packet.dst) ~= "loopback" then return cross(self, packet, node, node.realm) end
  after(self, M.SELF_MS, function() deliver(self, packet, node) end)
end

-- A packet with whatever source, from a node: forged, or one that was overheard.
function Net:inject(node, src, dst, bytes)
  cross(self, { src = src, dst = dst, bytes = bytes, ttl = M.TTL }, node, node.realm)
end

local Socket = {}
Socket.__index = Socket

local function is_any(address)
  return not address:sub(1, -3):find("[^\0]")
end

local function in_use(node, address)
  local any, ip, port = is_any(address), ip_of(address), addr.port(address)
  for bound in pairs(node.sockets) do
    if #bound == #address and addr.port(bound) == port and (any or is_any(bound) or ip_of(bound) == ip) then
      return true
    end
  end
end

function M.has_ip(node, address)
  if is_any(address) or addr.class(address) == "loopback" then return true end
  for _, ip in ipairs(node.ips) do
    if addr.same_ip(ip, address) then return true end
  end
end

-- A port that nothing on the node uses.
function Net.free_port(_, node)
  local port = node.next_port
  node.next_port = port < 65535 and port + 1 or 49152
  return port
end

-- Binds a socket on a host; port 0: the next one free. on_packet(from, bytes, to). It sends max_bytes (1200) at once.
-- Or nil and a sentence.
function Net:bind(node, address, on_packet, max_bytes)
  if not M.has_ip(node, address) then return nil, "Cannot assign requested address" end
  if addr.port(address) == 0 then
    repeat
      address = addr.with_port(address, self:free_port(node))
    until not in_use(node, address)
  elseif in_use(node, address) then
    return nil, "Address already in use"
  end
  local sock = setmetatable({ net = self, node = node, address = address, on_packet = on_packet,
    max_bytes = max_bytes or M.DATAGRAM_MAX }, Socket)
  node.sockets[address] = sock
  return sock
end

-- `own`: the address it is to leave from, where the host has that; else the first of the family.
function M.source(sock, to, own)
  if not is_any(sock.address) then return M.has_ip(sock.node, sock.address) and sock.address or nil end
  if addr.class(to) == "loopback" then return addr.with_port(to, addr.port(sock.address)) end
  if own and not is_any(own) and #own == #to and M.has_ip(sock.node, own) then
    return addr.with_port(own, addr.port(sock.address))
  end
  for _, ip in ipairs(sock.node.ips) do
    if #ip == #to then return addr.with_port(ip, addr.port(sock.address)) end
  end
end

-- True when the packet was taken, whatever becomes of it; false when a kernel would have no route for it;
-- nil and a sentence when it is none that this socket sends.
function Socket:send(to, bytes, ttl, own)
  local net, node = self.net, self.node
  if #to ~= #self.address then return nil, "another address family" end
  if #bytes > self.max_bytes then return nil, ("longer than %d bytes"):format(self.max_bytes) end
  local src = M.source(self, to, own)
  if not src or addr.port(to) == 0 then
    net.record("drop:unroutable", src or self.address, to, bytes)
    return false
  end
  local packet = { src = src, dst = to, bytes = bytes, ttl = ttl and ttl > 0 and ttl or M.TTL }
  net:emit(node, packet)
  return true
end

function Socket:close()
  self.node.sockets[self.address] = nil
end

return M
