-- SPDX-License-Identifier: MIT
-- What policies make of what the server knows of the network: `make bench-match`. The round-trip times of 490 real
-- hosts come from MATRIX, a file of ms with tabs between them (PlanetLab's, from github.com/uofa-rzhu3/NetLatency-Data,
-- is looked for beside the repository); without it nothing is measured, and that is said. The server is at the host
-- nearest to most; NATs are drawn as spec/policy/population.lua draws them.

local core = require "bodkin.core"
local network = require "bodkin.policy.network"
local netsim = dofile "spec/policy/netsim.lua"
local population = dofile "spec/policy/population.lua"
local random = require "bodkin.sim.random"
local sources = require "bodkin.policy.source"

local path = os.getenv "MATRIX" or "../shared/data/planetlab-rtt-ms.tsv"

local function read(name)
  local file = io.open(name)
  if not file then return nil end
  local rows = {}
  for line in file:lines() do
    local row = {}
    for cell in line:gmatch "%S+" do row[#row + 1] = tonumber(cell) end
    rows[#rows + 1] = row
  end
  file:close()
  return rows
end

local rows = read(path)
if not rows then
  print(("SKIPPED: there is no matrix of round-trip times at %s; name one with MATRIX=FILE"):format(path))
  return
end

local function between(i, j)
  local there, back = rows[i][j], rows[j][i]
  if there > 0 and back > 0 then return (there + back) / 2 end
  return there > 0 and there or back > 0 and back or nil
end

local function hub()
  local best, least
  for i = 1, #rows do
    local list = {}
    for j = 1, #rows do
      if i ~= j and between(i, j) then list[#list + 1] = between(i, j) end
    end
    local median = #list > #rows / 2 and netsim.median(list)
    if median and (not least or median < least) then best, least = i, median end
  end
  return best
end

local server = hub()
local hosts = {}
for i = 1, #rows do
  if i ~= server and between(server, i) then hosts[#hosts + 1] = i end
end
local function rtt(a, b) return between(a == 0 and server or hosts[a], b == 0 and server or hosts[b]) end

local function percentile(list, p)
  table.sort(list)
  return list[math.max(1, math.ceil(#list * p))]
end

local function estimate(p, q)
  return core.coord.distance(core.coord.pack(p[1], p[2], p[3], p[4], 0), core.coord.pack(q[1], q[2], q[3], q[4], 0))
end

local function errors(place)
  local list = {}
  for a = 1, #hosts do
    for b = 1, a - 1 do
      local ms, p, q = rtt(a, b), place(a), place(b)
      if ms and p and q then list[#list + 1] = math.abs(estimate(p, q) - ms) / ms end
    end
  end
  return percentile(list, 0.5), percentile(list, 0.9)
end

-- A client at each host; they come one by one in random order, `per_s` of them a second.
local function arrivals(per_s, place, seed, nats)
  local rng, at_ms, list, order = random.new(seed, "arrivals"), 0, {}, {}
  for i = 1, #hosts do
    local k = (rng:integer() >> 1) % i + 1
    order[i], order[k] = order[k], i
  end
  local kinds, sum = {}, 0
  for kind, weight in pairs(nats or { none = 1 }) do kinds[#kinds + 1], sum = { kind, weight }, sum + weight end
  table.sort(kinds, function(a, b) return a[1] < b[1] end)
  for i, n in ipairs(order) do
    at_ms = at_ms - 1000 * math.log(1 - rng:float()) / per_s
    local left, kind = rng:float() * sum, nil
    for _, k in ipairs(kinds) do
      kind = k[1]
      left = left - k[2]
      if left < 0 then break end
    end
    local p = place(n)
    list[i] = { arrives_ms = at_ms, host = n, kind = kind, net = network.pack(p, nats and netsim.class(kind) or 0) }
  end
  return list
end

-- Adds to what runs came to: of pairs, or of the ways between a host and the others of its match.
local function judge(into, clients, run)
  for _, m in ipairs(run.matches) do
    local host = clients[m.host or m.players[1]]
    for _, no in ipairs(m.players) do
      local c = clients[no]
      local ms = c ~= host and rtt(c.host, host.host)
      if ms then -- a few were never measured
        table.insert(into.ms, ms)
        into.failed = into.failed + netsim.fails(c.kind, host.kind)
      end
    end
  end
  table.move(run.waits, 1, #run.waits, #into.waits + 1, into.waits)
end

-- A policy, by its name or source, for several populations.
local function play(policy, populations, props)
  local all = { ms = {}, waits = {}, failed = 0 }
  local source = type(policy) == "string" and { name = policy } or policy
  for _, clients in ipairs(populations) do
    for _, c in ipairs(clients) do c.props = props end
    judge(all, clients, netsim.run { source = source, clients = clients,
      until_ms = clients[#clients].arrives_ms // 1 + 60000 })
  end
  return { ms = percentile(all.ms, 0.5), p90 = percentile(all.ms, 0.9), failed = all.failed / #all.ms,
    wait_ms = percentile(all.waits, 0.5), wait_p95 = percentile(all.waits, 0.95) }
end

local function any_two()
  local list = {}
  for a = 1, #hosts do
    for b = 1, a - 1 do list[#list + 1] = rtt(a, b) end
  end
  return netsim.median(list)
end

local random_ms = any_two()
print(("%d hosts, the server at number %d; the median round-trip time of any two is %.1f ms"):format(#hosts, server,
  random_ms))
local SEEDS = 5

local function populations(per_s, place, nats)
  local list = {}
  for seed = 1, SEEDS do list[seed] = arrivals(per_s, place, seed, nats) end
  return list
end

print "\n| matches of each before | error, median | 90 % | arrivals | RTT of pairs, median | 90 % | to any two's | \z
  wait, median | 95 % |"
print "|---|---|---|---|---|---|---|---|---|"
for _, matches in ipairs { 0, 4, 12, 32 } do
  local _, place = netsim.learn(#hosts, rtt, matches, 1)
  local p50, p90 = errors(place)
  for _, per_s in ipairs { 5, 25 } do
    local r = play("latency_first", populations(per_s, place))
    print(("| %d | %.0f %% | %.0f %% | %d/s | %.1f ms | %.0f ms | %.2f | %.2f s | %.1f s |"):format(matches, 100 * p50,
      100 * p90, per_s, r.ms, r.p90, r.ms / random_ms, r.wait_ms / 1000, r.wait_p95 / 1000))
  end
end

-- The text of a policy that ships, with a reach that says the same of all.
local function blind(name)
  local file <close> = assert(io.open("scripts/bodkin/policies/" .. name .. ".lua"))
  local text = file:read "a":gsub('local bodkin = require "bodkin"\n', [[
local real = require "bodkin"
local function sure() return 1 end
local bodkin = { policy = real.policy, rtt_ms = real.rtt_ms, reach = sure }
function bodkin.best_host(list)
  local best, worst
  for _, a in ipairs(list) do
    local ms = 0
    for _, b in ipairs(list) do ms = math.max(ms, a == b and 0 or real.rtt_ms(a, b) or 1000) end
    if not worst or ms < worst then best, worst = a, ms end
  end
  return best, { reach = 1, rtt_ms = worst }
end
]], 1)
  return sources.text(text, "@blind.lua")
end

local by_four = sources.text [[
local bodkin = require "bodkin"
return bodkin.policy { size = 4, props = { players = "integer?" } }]]

print "\n| arrivals | policy | NATs | punch failures | RTT, median | 90 % | wait, median | 95 % |"
print "|---|---|---|---|---|---|---|---|"
local _, place = netsim.learn(#hosts, rtt, 12, 1)
for _, per_s in ipairs { 5, 25 } do
  local clients = populations(per_s, place, population.NATS)
  local function row(policy, what, nats, props)
    local r = play(policy, clients, props)
    print(("| %d/s | %s | %s | %.1f %% | %.1f ms | %.0f ms | %.2f s | %.1f s |"):format(per_s, what, nats,
      100 * r.failed, r.ms, r.p90, r.wait_ms / 1000, r.wait_p95 / 1000))
    return r
  end
  local function compare(name, props)
    local without, with = row(blind(name), name, "not asked about", props), row(name, name, "asked about", props)
    print(("| | | ratio | %.2f | %.2f | | %.2f | |"):format(with.failed / without.failed, with.ms / without.ms,
      with.wait_ms / without.wait_ms))
  end
  row("first_come", "first_come, pairs", "–")
  compare "latency_first"
  row(by_four, "first_come, stars of 4", "–", { players = 4 })
  compare("host_and_clients", { players = 4 })
end
