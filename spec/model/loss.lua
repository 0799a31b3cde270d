-- SPDX-License-Identifier: MIT
-- Matches on a bad network: 30 % of the packets of each way are lost, 5 % come twice, 20 % are held back. How long from
-- the server's commit until both sides are connected? The whole system, one world a match, NATs that can meet.
--
--   lua5.4 spec/model/loss.lua [COUNT [FIRST]]        (1000, 1; the environment as for the specs)

local node = require "bodkin.client.node"
local oracle = dofile "spec/model/oracle.lua"
local random = require "bodkin.sim.random"
local servers = require "bodkin.servers"
local task = require "bodkin.task"
local worlds = require "bodkin.sim.world"

local M = {}

local LOSS, DUPLICATE, REORDER, DELAY_MAX_MS = 0.3, 0.05, 0.2, 60
local KINDS = { "none", "firewall", "full_cone", "address_restricted", "port_restricted", "plain_linux",
  "symmetric_random", "symmetric_sequential", "address_dependent" }
local SETUP_MS, WAIT_MS = 300000, 12000

local function draws(seed)
  local r = random.new(seed, "loss")
  local function int(low, high) return low + (r:integer() >> 1) % (high - low + 1) end
  local d = { delay_ms = {} }
  -- Whom the race of docs/NAT.md may spoil is left out: `matched` may be late by more than a crossing.
  repeat
    d.a, d.b = KINDS[int(1, #KINDS)], KINDS[int(1, #KINDS)]
    local side_a, side_b = { boxes = { { kind = d.a } }, start_ms = 1000 }, { boxes = { { kind = d.b } }, start_ms = 0 }
    local network = { min_ms = { ab = 1, ba = 1 }, max_ms = { ab = 110, ba = 110 }, lossless = false }
    local one = oracle.verdict(side_a, side_b, network)
    side_a.start_ms, side_b.start_ms = 0, 1000
  until one == "yes" and oracle.verdict(side_a, side_b, network) == "yes"
  for _, pair in ipairs { "a server", "server a", "b server", "server b", "a b", "b a" } do
    d.delay_ms[pair] = int(1, DELAY_MAX_MS)
  end
  return d
end

local function place(world, name, ip, kind)
  if kind == "none" then return world:host { name = name, ip = ip } end
  local box = world:nat { name = name .. " nat", kind = kind, ip = kind ~= "firewall" and ip or nil }
  return world:host { name = name .. " host", ip = kind == "firewall" and ip or "192.168.1.2", behind = box }
end

-- Retries in a task until fn gives something: before the commit, time does not count.
local function insist(env, fn)
  local value
  repeat
    value = fn()
    if not value then task.sleep(env, 100) end
  until value
  return value
end

-- One match. Returns { a =, b =: ms from the commit to connected, or nil; confirmed = { a =, b = }, kinds = "a b" }.
function M.one(seed)
  local d = draws(seed)
  local function delay(from, to) return d.delay_ms[from:match "^%a+" .. " " .. to:match "^%a+"] end
  local world = worlds.new { seed = seed, delay_ms = delay, loss = LOSS, duplicate = DUPLICATE, reorder = REORDER,
    trace = false }
  local hub = world:host { name = "server", ip = "198.51.100.10" }
  local server = assert(servers.open(hub.env, { listen = { "198.51.100.10:4433" } }))
  local result, nodes, code, commit_us = { kinds = d.a .. " " .. d.b, confirmed = {} }, {}, nil, nil
  local function open(name, env)
    nodes[name] = insist(env, function()
      return (node.open { env = env, server = "bodkin://198.51.100.10:4433", server_keys = server.public_keys,
        app = "x/1", name = name,
        on_event = function(e)
          local ms = commit_us and (env.now() - commit_us) / 1000
          if e.event == "connected" then result[name] = result[name] or ms end
          if e.event == "path" then result.confirmed[name] = result.confirmed[name] or ms end
        end })
    end)
    return nodes[name]
  end
  local env_a, env_b = place(world, "a", "203.0.113.1", d.a).env, place(world, "b", "203.0.113.2", d.b).env
  local tasks = {
    task.spawn(function()
      local me = open("a", env_a)
      code = insist(env_a, function() return me:host() end).code
    end),
    task.spawn(function()
      local me = open("b", env_b)
      while not code do task.sleep(env_b, 50) end
      if not me:join(code) and not commit_us then insist(env_b, function() return commit_us or me:join(code) end) end
    end),
  }
  assert(world:run_until(function() return server.counters:get "selected" > 0 end, SETUP_MS), "no match came about")
  commit_us = world:now()
  world:run_until(function() return result.confirmed.a and result.confirmed.b end, WAIT_MS)
  for _, t in ipairs(tasks) do t:cancel() end
  for _, n in pairs(nodes) do task.spawn(n.close, n) end
  world:run(2000)
  server:close()
  world:close()
  return result
end

local function percentile(sorted, p)
  return sorted[math.max(1, math.ceil(#sorted * p))] or math.huge
end

-- Returns { matches, failed = { text, ... }, and of the time until both are connected, and until both are confirmed:
-- connected, confirmed = { p50 =, p99 =, max = } in ms }.
function M.range(first, count)
  local lists, failed = { connected = {}, confirmed = {} }, {}
  for seed = first, first + count - 1 do
    local r = M.one(seed)
    if r.a and r.b then
      table.insert(lists.connected, math.max(r.a, r.b))
      table.insert(lists.confirmed, math.max(r.confirmed.a or math.huge, r.confirmed.b or math.huge))
    else
      table.insert(failed, ("seed %d: %s"):format(seed, r.kinds))
    end
  end
  local out = { matches = count, failed = failed }
  for name, list in pairs(lists) do
    table.sort(list)
    out[name] = { p50 = percentile(list, 0.5), p99 = percentile(list, 0.99), max = percentile(list, 1) }
  end
  return out
end

function M.report(r)
  local lines = { ("# %g %% loss each way, %g %% twice, %g %% held back: %d of %d matches connect"):format(100 * LOSS,
    100 * DUPLICATE, 100 * REORDER, r.matches - #r.failed, r.matches) }
  for _, name in ipairs { "connected", "confirmed" } do
    lines[#lines + 1] = ("# from commit until both are %s: p50 %.0f, p99 %.0f, max %.0f ms"):format(name, r[name].p50,
      r[name].p99, r[name].max)
  end
  for _, text in ipairs(r.failed) do lines[#lines + 1] = "# not connected: " .. text end
  return table.concat(lines, "\n")
end

if arg and arg[0] and arg[0]:find("spec/model/loss.lua", 1, true) then
  local began = os.clock()
  local r = M.range(math.tointeger(tonumber(arg[2] or 1)), math.tointeger(tonumber(arg[1] or 1000)))
  print(M.report(r))
  print(("# %.0f matches a second"):format(r.matches / (os.clock() - began)))
  os.exit(#r.failed == 0 and r.connected.p99 <= 3000 and 0 or 1)
end

return M
