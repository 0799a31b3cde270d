-- SPDX-License-Identifier: MIT
-- Address reports of a real server on loopback while ten hostile policies run beside it, next to the same load without
-- them: `make bench-policy`. Needs BODKIN, the binary.

local hostile = dofile "spec/policy/hostile.lua"
local latency = dofile "spec/policy/latency.lua"

local bodkin = assert(os.getenv "BODKIN", "BODKIN must name the binary")
local ROUNDS, SECONDS = 5, 3

local queues, policies = {}, {}
local dir = assert(io.popen "mktemp -d"):read "l"
for i = 1, 10 do
  queues[i] = "q" .. i
  policies[queues[i]] = ("%s/hostile%d.lua"):format(dir, i)
  local file <close> = assert(io.open(policies[queues[i]], "w"))
  file:write(hostile[i][2])
end

local function median(list)
  table.sort(list)
  return list[(#list + 1) // 2]
end

local rows = { { "ten queues, first_come", {} }, { "ten queues, ten hostile policies", policies } }
local columns = {}
for _ = 1, ROUNDS do
  for i, row in ipairs(rows) do
    local result = latency.measure(bodkin, queues, row[2], SECONDS)
    columns[i] = columns[i] or { p50 = {}, p99 = {}, matches = 0, lost = 0 }
    table.insert(columns[i].p50, result.p50)
    table.insert(columns[i].p99, result.p99)
    columns[i].lost = columns[i].lost + result.lost
    for _, n in pairs(result.matches) do columns[i].matches = columns[i].matches + n end
  end
end
os.execute("rm -r " .. dir)

print "| server | p50 | p99 | least p99 | unanswered | matches |"
print "|---|---|---|---|---|---|"
for i, row in ipairs(rows) do
  local c = columns[i]
  print(("| %s | %.3f ms | %.3f ms | %.3f ms | %d | %d |"):format(row[1], median(c.p50), median(c.p99), math.min(
    table.unpack(c.p99)), c.lost, c.matches))
end
print(("medians of %d rounds of %d s"):format(ROUNDS, SECONDS))
dofile("bench/crowded.lua")(ROUNDS)
