-- SPDX-License-Identifier: MIT
-- A population that a policy serves, in a virtual network: one server, many clients behind NATs of given kinds, that
-- arrive, wait in a queue, are matched, connect and leave again. Same seed, same result, byte for byte.
--
--   local result = dofile("spec/policy/population.lua").run { policy = "skill", clients = 1000, seconds = 60 }
--   for _, c in ipairs(result.clients) do print(c.nat, c.waited_ms, c.path, c.first_ms) end

local instances = require "bodkin.policy.instance"
local node = require "bodkin.client.node"
local random = require "bodkin.sim.random"
local servers = require "bodkin.servers"
local sources = require "bodkin.policy.source"
local task = require "bodkin.task"
local worlds = require "bodkin.sim.world"

local M = {}

local SERVER = "198.51.100.10"
-- What home and mobile networks are, roughly; pairs of symmetric ones cannot connect without a relay.
M.NATS = { port_restricted = 55, full_cone = 15, address_restricted = 10, none = 8, symmetric_random = 12 }

-- 0 to 1.
local function unit(rng) return (rng:integer() >> 11 & 0xfffffffff) / 0xfffffffff end

-- About normal, within ±6.
local function bell(rng)
  local sum = -6
  for _ = 1, 12 do sum = sum + unit(rng) end
  return sum
end

local function sorted_names(t)
  local list = {}
  for name in pairs(t) do list[#list + 1] = name end
  table.sort(list)
  return list
end

local function pick(rng, weights)
  local sum = 0
  for _, name in ipairs(sorted_names(weights)) do sum = sum + weights[name] end
  local at = unit(rng) * sum
  for _, name in ipairs(sorted_names(weights)) do
    at = at - weights[name]
    if at <= 0 then return name end
  end
  return sorted_names(weights)[1]
end

-- Properties as the policy declares them: numbers around the middle of their range, one of each list.
local function props_from(source)
  local instance = assert(instances.new(source))
  local declared = instance:declared "props"
  instance:close()
  local names = sorted_names(declared)
  return function(rng)
    local props = {}
    for _, name in ipairs(names) do
      local spec = declared[name]
      local low, high = spec.min or 0, spec.max or 3000
      if spec.kind == "number" or spec.kind == "integer" then
        local n = math.max(low, math.min(high, (low + high) / 2 + bell(rng) * (high - low) / 10))
        props[name] = spec.kind == "integer" and math.floor(n) or n
      elseif spec.kind == "boolean" then
        props[name] = unit(rng) < 0.5
      elseif spec.kind == "among" then
        props[name] = spec.among[math.floor(unit(rng) * (#spec.among - 1e-9)) + 1]
      elseif spec.default == nil and not spec.optional then
        props[name] = ("%s%d"):format(name, math.floor(unit(rng) * 8))
      end
    end
    return props
  end
end

local function live(client, host, server_keys, options)
  local env = host.env
  task.sleep(env, client.arrives_ms)
  local function on_event(e)
    if e.event == "connected" and not client.first_ms then
      client.first_ms, client.path, client.via = e.first_ms, e.path, e.via
    elseif e.event == "closed" then
      client.reason = client.reason or e.reason
    end
  end
  local n, err, code = node.open {
    env = env, server = "bodkin://server", server_keys = server_keys, app = "sim/1", name = client.name,
    on_event = on_event, behaviour = false, adapt = false,
  }
  client.node = n
  if not n then
    client.error, client.code = err, code
    return
  end
  local from_us = env.now()
  local match
  match, err, code = n:match(options.queue, client.props, { timeout_ms = options.timeout_ms })
  if match then
    client.waited_ms, client.team, client.data, client.met = (env.now() - from_us) / 1000, match.team, match.data, {}
    match:wait_connected(options.connect_ms)
    for i, peer in ipairs(match:peers()) do client.met[i] = peer.name end
    task.sleep(env, options.play_ms)
  else
    client.error, client.code = err, code
  end
  n:close()
  client.node = nil
end

-- options: policy = a file, a name or a source; clients (100), seconds (60) of virtual time, the arrivals spread over
-- the first arrive_s (two thirds); nats = weights by kind; props(rng, n) -> a client's properties (else from the
-- policy's declaration); queue ("sim"), timeout_ms of a ticket, play_ms (2000), connect_ms (11000); seed (1); and of
-- the world delay_ms (20), jitter_ms, loss, trace (false).
-- Returns { clients = { { name, nat, props, arrives_ms, waited_ms, met = names, first_ms, path, via, reason, error,
-- code }, … }, matches, counters, log, trace }. What is not there did not happen.
function M.run(options)
  local source = options.policy
  if type(source) ~= "table" then source = assert(sources.read(source)) end
  local seed, count, seconds = options.seed or 1, options.clients or 100, options.seconds or 60
  local world = worlds.new {
    seed = seed, delay_ms = options.delay_ms or 20, jitter_ms = options.jitter_ms, loss = options.loss,
    trace = options.trace or false,
  }
  local hub = world:host { name = "server", ip = SERVER }
  local server = assert(servers.open(hub.env, {
    listen = { SERVER .. ":4433" }, queues = { ["*"] = { policy = source } },
  }))
  local rng, props = random.new(seed, "population"), options.props or props_from(source)
  local life = { queue = options.queue or "sim", timeout_ms = options.timeout_ms, play_ms = options.play_ms or 2000,
    connect_ms = options.connect_ms or 11000 }
  local clients, lives = {}, {}
  for i = 1, count do
    local client = { name = "c" .. i, nat = pick(rng, options.nats or M.NATS), props = props(rng, i),
      arrives_ms = unit(rng) * (options.arrive_s or seconds * 2 / 3) * 1000 }
    local nat = world:nat { name = "nat" .. i, ip = ("203.%d.%d.1"):format(i >> 8, i & 255), kind = client.nat }
    local host = world:host {
      name = client.name, behind = nat,
      ip = client.nat == "none" and ("100.0.%d.%d"):format(i >> 8, i & 255) or "192.168.1.2",
    }
    clients[i], lives[i] = client, task.spawn(live, client, host, server.public_keys, life)
  end
  world:run(seconds * 1000)
  -- Who still waits, or talks, is sent home.
  for i, client in ipairs(clients) do
    lives[i]:cancel()
    if client.node then task.spawn(client.node.close, client.node) end
  end
  world:run(2000)
  for _, client in ipairs(clients) do client.node = nil end
  local counters = {}
  for _, c in ipairs(server.counters:all()) do counters[c.name] = c.value end
  server:close()
  world:close()
  return { clients = clients, matches = counters.match_formed, counters = counters, log = hub.log,
    trace = world:trace() }
end

return M
