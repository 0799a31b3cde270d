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
local message = require "bodkin.message"
local nets = require "bodkin.sim.net"
local nats = require "bodkin.sim.nat"
local process = require "bodkin.sim.process"
local random = require "bodkin.sim.random"

local addr = core.addr

local M = {}

local World = {}
World.__index = World

local START_US = 1000000 -- not 0, which often means never

local type_names = { [0xc1] = "frame" }
local schema_names = {}
for _, schema in ipairs(message.all) do schema_names[schema.type] = schema.name end
for _, schema in pairs(core.wire.peer_schemas) do schema_names[schema.type] = schema.name end

local function type_name(bytes)
  local first, second = bytes:byte(1, 2)
  if first and first & 0xf0 == 0x90 then return schema_names[second] or "array" end
  return type_names[first] or "bytes"
end

local function recorder(world)
  return function(event, src, dst, bytes)
    local line = ("%d %s %s > %s %d %s %s"):format(world.loop:now(), event, addr.format(src), addr.format(dst), #bytes,
      type_name(bytes), core.crypto.hex(bytes:sub(1, 8)))
    world.lines[#world.lines + 1] = line
  end
end

local function packed(ip)
  local address, err = addr.parse(ip, 0)
  return address or error(err, 4)
end

-- options: seed (1); delay_ms (20), jitter_ms, loss, hops of the network outside all NATs (see sim/net.lua);
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
    hops = options.hops,
    record = options.trace ~= false and recorder(self) or nil,
  }
  self.on_error = options.on_error or function(text) table.insert(self.errors, text) end
  self.runtimes_on_error = core.on_error(self.on_error)
  return self
end

-- A NAT. options: name, kind, ip (text; its outer one), timeout_ms (see sim/nat.lua), behind = another NAT,
-- and delay_ms, jitter_ms, loss, hops of the network inside it (nothing).
function World:nat(options)
  local model = nats.new {
    kind = options.kind,
    ip = options.ip and packed(options.ip),
    timeout_ms = options.timeout_ms,
  }
  return self.net:box(options.name, model, options, options.behind)
end

-- A host. options: name, ip (text, or an array of them), behind = NAT. Has `env`, and `log`: its lines.
function World:host(options)
  local ips = {}
  for i, ip in ipairs(type(options.ip) == "table" and options.ip or { options.ip }) do ips[i] = packed(ip) end
  local host = {
    name = options.name,
    world = self,
    node = self.net:host(options.name, ips, options.behind),
    random = random.new(self.seed, "host " .. options.name),
    log = {},
    kill = process.kill,
  }
  self.names[host.name] = ips
  table.insert(self.hosts, host)
  process.start(host)
  return host
end

function World:now()
  return self.loop:now()
end

-- Every datagram, an array of lines: time in µs, event, source > destination, length, type, first bytes in
-- hex. Events: send, recv, drop:WHY (lost, nowhere,
-- noport, unroutable, ttl, hairpin, unmapped, filtered).
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
