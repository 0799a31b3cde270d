-- SPDX-License-Identifier: MIT
-- Many seeds, on all cores, and what came of them in bench/results/seeds.txt, with commit and machine.
--   lua5.4 spec/model/soak.lua [COUNT]        (100000; the environment as for the specs)
local count = math.tointeger(tonumber(arg[1] or "100000"))

local function output_of(command)
  local pipe <close> = assert(io.popen(command))
  return (pipe:read("a"):gsub("%s+$", ""))
end

local commit = output_of("git rev-parse --short HEAD; git diff --quiet HEAD -- runtime/core scripts/bodkin/sim "
  .. "spec/model docs/NAT.md || echo and changes"):gsub("%s+", " ")
local cores = math.tointeger(tonumber(output_of "nproc"))
local share = (count + cores - 1) // cores

local children = {}
for i = 1, cores do
  local first = 1 + (i - 1) * share
  local n = math.min(share, count - first + 1)
  if n > 0 then
    children[i] = { first = first, n = n,
      pipe = assert(io.popen(("lua5.4 spec/model/seeds.lua %d %d 2>&1"):format(first, n))) }
  end
end

local lines, failed, ran, rates = {}, 0, 0, {}
for _, child in ipairs(children) do
  for line in child.pipe:lines() do
    local seeds, bad, rate = line:match("^(%d+) seeds, (%d+) failed, (%d+) a second")
    if seeds then
      ran, failed, rates[#rates + 1] = ran + seeds, failed + bad, rate
      line = ("from %d: %s"):format(child.first, line)
    end
    lines[#lines + 1] = line
  end
  if not child.pipe:close() and failed == 0 then failed = 1 end
end
if ran ~= count and failed == 0 then failed = 1 end

local report = ([[
# Random NAT pairs against docs/NAT.md: make soak, or lua5.4 spec/model/soak.lua
commit: %s
machine: %s, %d cores
seeds: %d of %d, failed: %d
a second and core: %s
]]):format(commit,
  output_of "sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1", cores, ran, count, failed,
  table.concat(rates, ", ")) .. table.concat(lines, "\n") .. "\n"
io.write(report)
os.execute "mkdir -p bench/results"
local file <close> = assert(io.open("bench/results/seeds.txt", "w"))
file:write(report)
os.exit(failed == 0 and 0 or 1, true)
