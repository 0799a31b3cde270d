-- SPDX-License-Identifier: MIT
-- `make bench-match`: what a pass through a queue costs. Needs BODKIN's own modules and BENCH, the directory where
-- sweep was built. CPU time, medians of ROUNDS (5) rounds in one run; MILLION=1 adds a pass through a million tickets.

local core = require "bodkin.core"
local instances = require "bodkin.policy.instance"
local measure = require "bench.measure"
local random = require "bodkin.sim.random"
local sources = require "bodkin.policy.source"

local bench = assert(os.getenv "BENCH", "BENCH must name the directory of the programs")
local ROUNDS = tonumber(os.getenv "ROUNDS" or 5)
local LIMITS = { memory = 64 << 20, instructions = 1 << 40 } -- a whole pass in one run

local function draw(rng, low, high) return low + (rng:integer() >> 1) % (high - low + 1) end

-- A queue of `n` tickets; ticket(rng, i) -> props of each member. Returns the instance, bytes a ticket beside its
-- properties, and µs that adding one took.
local function filled(source, n, ticket)
  local instance = assert(instances.new(source, LIMITS))
  local rng, props_bytes, empty = random.new(7, "match"), 0, instance.sandbox:collect()
  local list = {}
  for i = 1, n do list[i] = ticket(rng, i) end
  local began = os.clock()
  for i = 1, n do
    assert(instance:add({ no = i, app = "a", since_ms = 0, members = list[i] }, true, 0))
  end
  local took = os.clock() - began
  -- What one more copy of each ticket's properties takes, as Lua's tables.
  for i = 1, math.min(n, 1000) do
    for _, m in ipairs(list[i]) do
      local fields = 0
      for _ in pairs(m[1]) do fields = fields + 1 end
      local nodes = 1
      while nodes < fields do nodes = nodes * 2 end
      props_bytes = props_bytes + 56 + 24 * nodes
    end
  end
  local bytes = (instance.sandbox:collect() - empty) / n - props_bytes / math.min(n, 1000)
  return instance, bytes, took / n * 1e6
end

-- ms of one pass, players matched.
local function pass(instance, now_ms)
  collectgarbage()
  local began = os.clock()
  local matches = assert(instance:tick(now_ms))
  local took_ms = (os.clock() - began) * 1000
  local players = 0
  for _, m in ipairs(matches) do
    for _, team in ipairs(m[1]) do players = players + #team end
  end
  return took_ms, #matches, players
end

local function median_pass(source, n, ticket)
  local times = {}
  local matches, tickets, bytes, add_us
  for i = 1, ROUNDS do
    local instance
    instance, bytes, add_us = filled(source, n, ticket)
    times[i], matches, tickets = pass(instance, 1000)
    instance:close()
  end
  return measure.median(times), matches, tickets, bytes, add_us
end

local function skill(rng) return { { { mmr = draw(rng, 0, 3000) + 0.0, mode = "" } } } end

-- The same numbers, sorted and swept in C.
local function sweep_ms(n)
  local rng, list = random.new(7, "match"), {}
  for i = 1, n do list[i] = draw(rng, 0, 3000) end
  local path = os.tmpname()
  local file = assert(io.open(path, "w"))
  file:write(table.concat(list, "\n"), "\n")
  file:close()
  local out = assert(io.popen(("%s/sweep %d %d <%s"):format(bench, n, ROUNDS, path)))
  local ms = out:read "n"
  out:close()
  os.remove(path)
  return assert(ms, "sweep said nothing")
end

print "| pass | tickets | ms | matches | bytes a ticket | µs to add | to C's sort and sweep |"
print "|---|---|---|---|---|---|---|"
local took = {}
local sizes = { 10000, 100000 }
if os.getenv "MILLION" then sizes[3] = 1000000 end
for _, n in ipairs(sizes) do
  local base = sweep_ms(n)
  local ms, matches, _, bytes, add_us = median_pass({ name = "skill" }, n, skill)
  took[n] = ms
  print(("| one against one, skill | %d | %.1f | %d | %.0f | %.1f | %.1f |"):format(n, ms, matches, bytes, add_us,
    ms / base))
end
print(("\nt(100,000) / t(10,000): %.1f\n"):format(took[100000] / took[10000]))

-- Five against five, parties of one to five.
local function parties(rng)
  local members, n = {}, ({ 1, 1, 1, 1, 2, 2, 3, 5 })[draw(rng, 1, 8)]
  for i = 1, n do members[i] = { { mmr = draw(rng, 0, 3000) + 0.0 } } end
  return members
end
for _, n in ipairs { 10000, 100000 } do
  local ms, matches, tickets, bytes = median_pass({ name = "teams" }, n, parties)
  print(("five against five, parties, balanced: %d tickets, %.0f ms, %d matches of %d tickets, %.0f bytes a ticket")
    :format(n, ms, matches, tickets, bytes))
end

-- --- what a pair costs, where every one is asked about and none fits. The same sweep in plain Lua, without a sandbox:
-- each ticket, the oldest first, is compared with those nearest to it, outwards, and with as many more of the oldest.
local PAIRS_N, LOOK = 20000, 64
local compatible_text = [[
return function(a, b)
  local gap = a.props.mmr - b.props.mmr
  return gap > 4000 or gap < -4000
end]]
local function plain_ns()
  local compatible, rng, list = load(compatible_text)(), random.new(7, "match"), {}
  for i = 1, PAIRS_N do
    list[i] = { id = i, props = { mmr = draw(rng, 0, 3000) + 0.0, mode = "" }, waited_ms = 0 }
  end
  local sorted = table.move(list, 1, #list, 1, {})
  table.sort(sorted, function(a, b)
    if a.props.mmr == b.props.mmr then return a.id < b.id end
    return a.props.mmr < b.props.mmr
  end)
  local at = {}
  for i, t in ipairs(sorted) do at[t.id] = i end
  local asked, near = 0, 0
  local began = os.clock()
  for id, anchor in ipairs(list) do
    local value = anchor.props.mmr
    local lo, hi = at[id] - 1, at[id] + 1
    for _ = 1, LOOK do
      local a, b = sorted[lo], sorted[hi]
      local other
      if a and (not b or value - a.props.mmr <= b.props.mmr - value) then
        other, lo = a, lo - 1
      else
        other, hi = b, hi + 1
      end
      asked = asked + 1
      if compatible(anchor, other, 0) then near = near + 1 end
    end
    for k = LOOK // 2 + 1, LOOK do
      asked = asked + 1
      if compatible(anchor, list[k], 0) then near = near + 1 end
    end
  end
  assert(near == 0)
  return (os.clock() - began) / asked * 1e9
end
local function policy_ns()
  local source = sources.text(([[local bodkin = require "bodkin"
    local compatible = (function() %s end)()
    return bodkin.policy { size = 2, index = "mmr", props = { mmr = "number", mode = "string" },
      compatible = compatible }]]):format(compatible_text))
  local instance = filled(source, PAIRS_N, skill)
  local ms = pass(instance, 1000)
  local asked = PAIRS_N * (LOOK + LOOK // 2) -- by the index, then the others of a turn
  instance:close()
  return ms * 1e6 / asked
end
local ours, plain = {}, {}
for i = 1, ROUNDS do ours[i], plain[i] = policy_ns(), plain_ns() end
local a, b = measure.median(ours), measure.median(plain)
print(("\na pair asked about by a policy's compatible: %.0f ns; the same sweep in plain Lua: %.0f ns; ratio %.2f")
  :format(a, b, a / b))
print(("\nMedians of %d rounds, CPU time. Bodkin %s."):format(ROUNDS, core.version))
