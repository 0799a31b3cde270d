-- SPDX-License-Identifier: MIT
-- A simulated world with a server in it, and clients that run as tasks. Public addresses are made of
-- 198.51.100.0/24 (server) and 203.0.113.0/24 (NATs, clients).

local core = require "bodkin.core"
local node = require "bodkin.client.node"
local servers = require "bodkin.servers"
local sim = require "bodkin.sim.world"
local task = require "bodkin.task"

local M = { url = "bodkin://198.51.100.10:4433", key = ("k"):rep(32) }
M.NO_RELAY = { "address", "matching", "maintenance" }
M.keys = { (core.crypto.keypair(M.key)) }
local S = {}
S.__index = S

-- options: of the world (seed, delay_ms, loss …); roles, relays, limits, maintenance_mode, expose_addresses,
-- shared_clock of the server; tcp: it listens on TCP, too (true: 443, or a port); keys: the deployment's.
function M.new(options)
  options = options or {}
  local self = setmetatable({ world = sim.new(options), options = options, nodes = {}, servers = {} }, S)
  self.hub = self.world:host { name = "server", ip = "198.51.100.10" }
  self.server = self:serve(self.hub, options.roles)
  return self
end

function S:serve(host, roles, keys)
  local o = self.options
  local server = assert(servers.open(host.env, {
    listen = { core.addr.format(host.node.ips[1]):gsub(":0$", ":4433") .. "" }, roles = roles,
    listen_tcp = o.tcp and { core.addr.format(core.addr.with_port(host.node.ips[1], o.tcp == true and 443 or o.tcp)) },
    keys = keys or o.keys or { M.key },
    relays = o.relays, limits = o.limits, maintenance_mode = o.maintenance_mode,
    expose_addresses = o.expose_addresses, local_addresses = o.local_addresses, shared_clock = o.shared_clock,
  }))
  self.servers[host] = server
  return server
end

-- The server dies without a word.
function S:kill(host)
  host = host or self.hub
  host:kill()
  self.servers[host] = nil
end

function S:nat(name, ip, options)
  local o = { name = name, ip = ip, kind = "port_restricted" }
  for k, v in pairs(options or {}) do o[k] = v end
  return self.world:nat(o)
end

function S:host(name, ip, behind)
  return self.world:host { name = name, ip = ip, behind = behind }
end

-- Runs fn as a task until it returns, for at most ms; returns what it returned.
function S:run(fn, ms)
  local t = task.spawn(fn)
  self.world:run_until(function() return t:done() end, ms or 60000)
  assert(t:done(), "the task did not end in time")
  local result = table.pack(t:join())
  assert(result[1], result[2])
  return table.unpack(result, 2, result.n)
end

-- A node on a host, which notes its events in node.log; or nil, message, code.
function S:try(host, options)
  local log = {}
  local o = { env = host.env, server = M.url, server_keys = M.keys, app = "spec/1" }
  o.on_event = function(e) log[#log + 1] = e end
  for k, v in pairs(options or {}) do o[k] = v end
  return self:run(function()
    local n, err, code = node.open(o)
    if n then
      n.log = log
      self.nodes[#self.nodes + 1] = n
    end
    return n, err, code, log
  end)
end

function S:open(host, options)
  return assert(self:try(host, options))
end

-- Events of a name that a node noted.
function M.events(n, name)
  local out = {}
  for _, e in ipairs(n.log) do
    if e.event == name then out[#out + 1] = e end
  end
  return out
end

-- One hosts, the other joins, both are connected. Returns the two matches.
function S:pair(a, b)
  local ma = self:run(function() return assert(a:host()) end)
  local mb = self:run(function()
    local m = assert(b:join(ma.code))
    assert(m:wait_connected(20000))
    assert(ma:wait_connected(20000))
    return m
  end)
  return ma, mb
end

-- Datagrams that left a host's address (text, without port) since trace line `from`, as { to =, type = }.
function S:sent(ip, from)
  local out, trace = {}, self.world:trace()
  for i = from or 1, #trace do
    local src, dst, kind = trace[i]:match("^%d+ send (%S+) > (%S+) %d+ (%S+)")
    if src and src:gsub(":%d+$", "") == ip then out[#out + 1] = { to = dst, type = kind } end
  end
  return out
end

-- Closes every node and server; the world then throws at what was left open.
function S:close()
  for _, n in ipairs(self.nodes) do self:run(function() n:close() end) end
  for _, server in pairs(self.servers) do server:close() end
  self.world:close()
end

return M
