-- SPDX-License-Identifier: MIT
-- A world in which the unchanged client and server scripts run: hosts on a virtual network, each with the
-- driver contract (env), all on one virtual clock. Same seed and same scripts: the same trace.
--
--   local world = require("bodkin.sim.world").new { seed = 1, delay_ms = 20 }
--   local nat = world:nat { name = "nat", ip = "203.0.113.1", kind = "port_restricted" }
--   local a = world:host { name = "a", ip = "192.168.1.2", behind = nat }
--   local b = world:host { name = "b", ip = "198.51.100.1" }
--   ... start scripts with a.env and b.env ...
--   world:run(1000)
--   world:close()
--
-- What a script leaves open, and errors in callbacks and tasks, end in an error of run or close.

local core = require "bodkin.core"
local nets = require "bodkin.sim.net"
local nats = require "bodkin.sim.nat"
local process = require "bodkin.sim.process"
local random = require "bodkin.sim.random"
local traces = require "bodkin.sim.trace"

local addr = core.addr

local M = {}

local World = {}
World.__index = World

local CONNECTION_MS = 7440000 -- how long a NAT knows a silent one at least (RFC 5382 REQ-5)
local START_US = 1000000 -- not 0, which often means never

-- One text, or an array of them, as an array of packed addresses.
local function packed(ips)
  local list = {}
  for i, ip in ipairs(type(ips) == "table" and ips or { ips }) do
    local address, err = addr.parse(ip, 0)
    list[i] = address or error(err, 4)
  end
  return list
end

-- options: seed (1); delay_ms (20), jitter_ms, loss, duplicate, reorder, reorder_ms, hops, attack, attack_deeds and
-- on_deed of the network outside all NATs (see sim/net.lua);
-- trace (true; false keeps none); log = fn(line) to see lines as they come; on_error = fn(text), else an
-- error in a callback is an error of the run that was under way.
function M.new(options)
  options = options or {}
  local self = setmetatable({
    seed = options.seed or 1,
    loop = core.loop { virtual = true, now_us = START_US },
    names = {}, -- name -> array of packed addresses, for env.resolve; hosts are in it
    hosts = {},
    lines = {},
    errors = {},
    log = options.log,
  }, World)
  self.net = nets.new {
    loop = self.loop,
    seed = self.seed,
    delay_ms = options.delay_ms or 20,
    jitter_ms = options.jitter_ms,
    loss = options.loss,
    duplicate = options.duplicate,
    reorder = options.reorder,
    reorder_ms = options.reorder_ms,
    hops = options.hops,
    attack = options.attack,
    attack_deeds = options.attack_deeds,
    on_deed = options.on_deed,
    record = options.trace ~= false and traces.recorder(self.loop, self.lines) or nil,
  }
  self.on_error = options.on_error or function(text) table.insert(self.errors, text) end
  self.runtimes_on_error = core.on_error(self.on_error)
  return self
end

-- A NAT, or a router or firewall. options: name, kind or behaviour (see sim/nat.lua; ip: text, or an array of
-- them), behind = another NAT, blocks = "udp" (none passes, TCP does), and delay_ms, jitter_ms, loss, hops and so on of
-- the network inside it (nothing).
-- box:reboot() and box:rebind() do what the model's verbs of these names do.
function World:nat(options)
  local of_model, of_tcp = { random = random.new(self.seed, "nat " .. options.name) }, {}
  for name, value in pairs(options) do of_model[name] = value end
  of_model.ips = options.ip and packed(options.ip)
  for name, value in pairs(of_model) do of_tcp[name] = value end
  -- Connections are seen to begin and to end, so that neither silence nor what was not asked for counts (RFC 5382).
  of_tcp.random = random.new(self.seed, "nat of tcp " .. options.name)
  of_tcp.race, of_tcp.timeout_ms, of_tcp.unreplied_ms = false, CONNECTION_MS, CONNECTION_MS
  local of_realm = setmetatable({ tcp_model = nats.new(of_tcp) }, { __index = options })
  local box = self.net:box(options.name, nats.new(of_model), of_realm, options.behind)
  function box.reboot()
    box.model:reboot()
    box.tcp_model:reboot()
  end
  function box.rebind()
    box.model:rebind()
    box.tcp_model:rebind()
  end
  return box
end

local Host = { kill = process.kill }
Host.__index = Host

-- A host. options: name, ip (text, or an array of them), behind = NAT, blocks = "udp" (its own firewall). Has `env`,
-- and `log`: its lines.
-- host:kill() see sim/process.lua.
function World:host(options)
  local ips = packed(options.ip)
  local host = setmetatable({
    name = options.name,
    world = self,
    node = self.net:host(options.name, ips, options.behind, options.blocks),
    random = random.new(self.seed, "host " .. options.name),
    log = {},
  }, Host)
  self.names[host.name] = ips
  table.insert(self.hosts, host)
  process.start(host)
  return host
end

-- Roaming: from now on it is at ip (text, or an array), behind a NAT or not. Nobody tells its programs.
function Host:move(ip, behind)
  local ips = packed(ip)
  self.world.net:move(self.node, ips, behind)
  self.world.names[self.name] = ips
end

-- Asleep, it hears nothing, and its timers wait; those that became due fire when it wakes.
function Host:sleep()
  self.asleep = self.asleep or {}
  self.world.net:sleep(self.node, true)
end

function Host:wake()
  local due = self.asleep or {}
  self.asleep = nil
  self.world.net:sleep(self.node, false)
  for _, fn in ipairs(due) do fn() end
end

function World:now()
  return self.loop:now()
end

-- Every datagram, an array of lines (see sim/trace.lua). Events: send, recv, tcp:send, tcp:recv, drop:WHY (lost,
-- nowhere, noport, unroutable, ttl, isolated, asleep, blocked; of a NAT hairpin, full, unmapped, filtered, accepted,
-- closed).
function World:trace()
  return self.lines
end

local function raise(self)
  if #self.errors == 0 then return end
  local text = table.concat(self.errors, "\n")
  self.errors = {}
  error(text, 3)
end

-- Lets so much time pass.
function World:run(ms)
  self.loop:advance(math.tointeger(ms * 1000 // 1))
  raise(self)
end

-- Lets time pass until fn() is true, at most ms; returns whether it is.
function World:run_until(fn, ms)
  local late = false
  local limit = self.loop:timer(ms, function() late = true end)
  while not fn() and not late and #self.errors == 0 do self.loop:step() end
  limit:cancel()
  raise(self)
  return fn() and true or false
end

-- Throws, naming what and where, when a script left a socket, timer or mux open.
function World:close()
  if self.closed then return end
  self.closed = true
  core.on_error(self.runtimes_on_error)
  for _, host in ipairs(self.hosts) do
    for _, leak in ipairs(process.leaks(host)) do table.insert(self.errors, leak) end
    host.env.close()
  end
  raise(self)
end

return M
