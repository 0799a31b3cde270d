-- SPDX-License-Identifier: MIT
-- What the lab runs inside its namespaces, each in a process of its own: the copier, the observer in the net and
-- the prober behind the NAT (see probe.lua), and a meter of one-way delay.

local attackers = require "bodkin.sim.attacker"
local core = require "bodkin.core"
local random = require "bodkin.sim.random"

local M = {}

-- Ports of the observer's sockets: 1 and 2 at its first address, 3 at its second one, with the port of 1.
local PORTS = { 34781, 34782, 34781 }

local function say(...)
  io.stdout:write(table.concat({ ... }, " "), "\n")
  io.stdout:flush()
end

local function address(ip, port)
  return assert(core.addr.parse(ip, port))
end

-- The man in the middle as the copier's hook; what he does is noted in the file.
local function hook(config, attacks_file)
  local attacks = assert(io.open(attacks_file, "w"))
  attacks:setvbuf "line"
  local attacker = attackers.new {
    random = random.new(config.seed, "attacker"), deeds = config.attack.deeds,
    on_deed = function(deed, src, dst, bytes)
      attacks:write(("%s %s %s %d\n"):format(deed, core.addr.format(src), core.addr.format(dst), #bytes))
    end,
  }
  core.on_error(function(text) -- a lab in which he does not what he should is none
    io.stderr:write(text, "\n")
    os.exit(1)
  end)
  return function(rule, src, dst, bytes, emit) attacker:see(config.rules[rule].attack, src, dst, bytes, emit) end
end

-- copier CONFIG READY ATTACKS: copies packets until standard input ends; READY is a file it makes once it works.
function M.copier(config_file, ready_file, attacks_file)
  local config = assert(loadfile(config_file))()
  config.stop_fd = 0
  if config.attack then config.hook = hook(config, attacks_file) end
  config.ready = function() assert(io.open(ready_file, "w")):close() end
  local stats, message = core.tun.copy(config)
  if not stats then error(message, 0) end
end

-- observer IP WITNESS-IP: "where ID" is answered with "seen ID SOURCE"; "poke ID N TARGET" with "did ID", and
-- with "poked ID" sent to TARGET from socket N.
function M.observer(ip, witness)
  local loop = core.loop {}
  local socks = {}
  for n, port in ipairs(PORTS) do
    local sock = assert(loop:udp(address(n == 3 and witness or ip, port), {}))
    socks[n] = sock
    sock:on_packet(function(from, bytes)
      local id = bytes:match "^where (%S+)$"
      if id then return sock:send(from, ("seen %s %s"):format(id, core.addr.format(from))) end
      local poke, which, target = bytes:match "^poke (%S+) ([123]) (%S+)$"
      if not poke then return end
      local to = core.addr.parse(target)
      if to then socks[tonumber(which)]:send(to, "poked " .. poke) end
      sock:send(from, "did " .. poke)
    end)
  end
  say "ready"
  loop:run()
end

-- One prober's conversations: sockets on one loop, and waiting.
local Prober = {}
Prober.__index = Prober

function Prober:socket()
  local sock = assert(self.loop:udp(address(self.ip, 0), {}))
  sock:on_packet(function(from, bytes)
    self.heard[bytes] = core.addr.format(from)
    local id, source = bytes:match "^seen (%S+) (%S+)$"
    if id then self.heard["seen " .. id] = source end
    self.loop:stop()
  end)
  return sock
end

function Prober:id()
  self.count = self.count + 1
  return tostring(self.count)
end

-- Runs the loop until `ready` gives a value, or for that long.
function Prober:wait(ms, ready)
  local up = false
  local timer = self.loop:timer(ms, function()
    up = true
    self.loop:stop()
  end)
  local value = ready()
  while not value and not up do
    self.loop:run()
    value = ready()
  end
  timer:cancel()
  return value
end

-- Calls `send` and waits for `key` to be heard, a few times over.
function Prober:try(key, send)
  for _ = 1, self.tries do
    send()
    local value = self:wait(self.rtt_ms + 150, function() return self.heard[key] end)
    if value then return value end
  end
end

-- Where observer socket `n` sees `sock`.
function Prober:where(sock, n)
  local id = self:id()
  local seen = self:try("seen " .. id, function() sock:send(self.observers[n], "where " .. id) end)
  if not seen then error("no answer from " .. core.addr.format(self.observers[n]), 0) end
  return seen
end

-- Whether what observer socket `n` sends to `target`, a mapping of `sock`, gets through.
function Prober:poke(sock, n, target)
  for _ = 1, self.tries // 2 do -- more than once only where the lab loses packets
    local id = self:id()
    local did = self:try("did " .. id, function()
      sock:send(self.observers[1], ("poke %s %d %s"):format(id, n, target))
    end)
    if not did then error("no answer from " .. core.addr.format(self.observers[1]), 0) end
    if self:wait(100, function() return self.heard["poked " .. id] end) then return true end
  end
  return false
end

-- The least TTL with which a datagram reaches the observer.
function Prober:hops()
  local sock, id = self:socket(), self:id()
  local function least()
    for ttl = 1, 12 do
      if self.heard["seen " .. id .. "." .. ttl] then return ttl end
    end
  end
  for _ = 1, self.tries do
    for ttl = 1, 12 do sock:send(self.observers[1], ("where %s.%d"):format(id, ttl), ttl) end
    self:wait(self.rtt_ms + 150, function() end)
  end
  return least()
end

-- Whether a host behind the NAT reaches another socket behind it by that one's mapping.
function Prober:hairpin()
  local one, other, id = self:socket(), self:socket(), self:id()
  local seen = self:where(one, 1)
  local target = self:where(other, 1)
  for _ = 1, self.tries do
    one:send(assert(core.addr.parse(target)), "hair " .. id)
    local from = self:wait(100, function() return self.heard["hair " .. id] end)
    if from then return from == seen and "yes" or "unmapped" end
  end
  return "no"
end

-- prober IP OBSERVER-IP WITNESS-IP RTT-MS TRIES [SILENCE-MS]: says what the NAT does, as "name value" lines. With
-- SILENCE-MS: also whether a mapping still lets in what it did, after nothing was sent for that long.
function M.prober(ip, observer, witness, rtt_ms, tries, silence_ms)
  local p = setmetatable({ ip = ip, rtt_ms = tonumber(rtt_ms), tries = tonumber(tries), heard = {}, count = 0,
    loop = core.loop {},
    observers = { address(observer, PORTS[1]), address(observer, PORTS[2]), address(witness, PORTS[3]) } }, Prober)
  local sock = p:socket()
  say("local", (core.addr.format(sock:addr())))
  for n = 1, 3 do say("seen" .. n, p:where(sock, n)) end
  local fresh = p:socket()
  local mapping = p:where(fresh, 1)
  say("open_port", tostring(p:poke(fresh, 2, mapping)))
  say("open_address", tostring(p:poke(fresh, 3, mapping)))
  say("before", mapping)
  say("after", p:where(fresh, 3)) -- the first packet to where the last poke came from
  say("hops", tostring(p:hops()))
  say("hairpin", p:hairpin())
  if silence_ms then
    local quiet = p:socket()
    mapping = p:where(quiet, 1)
    p:wait(tonumber(silence_ms), function() end)
    local id = p:id()
    local did = p:try("did " .. id, function() -- asked from another mapping, so that this one stays silent
      sock:send(p.observers[1], ("poke %s 1 %s"):format(id, mapping))
    end)
    say("outlives_silence", tostring(p:wait(100, function() return did and p.heard["poked " .. id] end) ~= nil))
  end
  say "done"
end

-- receiver IP PORT: a line with the one-way delay in µs for each stamp that comes.
function M.receiver(ip, port)
  local loop = core.loop {}
  local sock = assert(loop:udp(address(ip, tonumber(port)), {}))
  sock:on_packet(function(_, bytes)
    local now = core.now()
    local n, sent = bytes:match "^stamp (%d+) (%d+)$"
    if n then say(n, tostring(now - tonumber(sent))) end
  end)
  say "ready"
  loop:run()
end

-- sender IP TO-IP PORT COUNT INTERVAL-MS [TTL]: stamps, one at a time.
function M.sender(ip, to, port, count, interval_ms, ttl)
  local loop = core.loop {}
  local sock = assert(loop:udp(address(ip, 0), {}))
  local target = address(to, tonumber(port))
  local n = 0
  local function send()
    n = n + 1
    sock:send(target, ("stamp %d %d"):format(n, core.now()), tonumber(ttl))
    if n < tonumber(count) then
      loop:timer(tonumber(interval_ms), send)
    else
      loop:timer(50, function() loop:stop() end)
    end
  end
  send()
  loop:run()
end

local modes = { copier = M.copier, observer = M.observer, prober = M.prober, receiver = M.receiver, sender = M.sender }

function M.main(mode, ...)
  return assert(modes[mode], "no such agent")(...)
end

return M
