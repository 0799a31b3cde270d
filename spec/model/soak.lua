-- SPDX-License-Identifier: MIT
-- Many seeds, on all cores, and what came of them in bench/results/WHAT.txt, with commit and machine; written anew as
-- they go, so that a run that is stopped tells how far it came.
--   lua5.4 spec/model/soak.lua seeds|life|tickets [COUNT]        (the environment as for the specs)

-- What they are; how many; how many a process runs; its command, given the first and their number.
local kinds = {
  seeds = { "Random NAT pairs against docs/NAT.md", 100000, 10000, "lua5.4 spec/model/seeds.lua %d %d" },
  life = { "What befalls a session, on seeds", 100000, 1000,
    "LIFE=%d:%d busted --lua=/usr/bin/lua5.4 -o TAP spec/model/life_spec.lua" },
  tickets = { "Random lives of tickets, 2,000 a seed", 500, 25,
    "SOAK=1 TICKETS=%d:%d busted --lua=/usr/bin/lua5.4 -o TAP spec/model/tickets_spec.lua" },
}

local kind = kinds[arg[1]]
local count = math.tointeger(tonumber(arg[2] or kind and kind[2]))
if not kind or not count or count < 1 then
  io.stderr:write "usage: soak.lua seeds|life|tickets [COUNT]\n"
  os.exit(2)
end
local about, _, most, command = table.unpack(kind)

local function output_of(text)
  local pipe <close> = assert(io.popen(text))
  return (pipe:read("a"):gsub("%s+$", ""))
end

local commit = output_of("git rev-parse --short HEAD; git diff --quiet HEAD -- runtime bindings scripts spec/model "
  .. "docs/NAT.md || echo and changes"):gsub("%s+", " ")
local machine = output_of "sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1"
local cores = math.tointeger(tonumber(output_of "nproc"))

local ran, failed, told, began = 0, 0, {}, os.time()

local function write()
  local report = ([[
# %s: make soak, or lua5.4 spec/model/soak.lua %s
commit: %s
machine: %s, %d cores
seeds: %d of %d, failed: %d, in %d s
]]):format(about, arg[1], commit, machine, cores, ran, count, failed, os.time() - began)
    .. table.concat(told, "\n") .. "\n"
  os.execute "mkdir -p bench/results"
  local file <close> = assert(io.open("bench/results/" .. arg[1] .. ".txt", "w"))
  file:write(report)
  return report
end

-- Starts the next ones, or nil when all are under way.
local first = 1
local function start()
  local n = math.min(most, math.ceil(count / cores), count - first + 1)
  if n <= 0 then return nil end
  local child = { first = first, n = n, pipe = assert(io.popen(command:format(first, n) .. " 2>&1")) }
  first = first + n
  return child
end

-- What a child says, but for the lines of a plan in which all is well.
local function finish(child)
  local seeds, bad
  for line in child.pipe:lines() do
    local n, wrong = line:match "(%d+) seeds", line:match "(%d+) failed"
    if n and wrong and not seeds then seeds, bad = tonumber(n), tonumber(wrong) end
    if not line:find "^ok %d" and not line:find "^1%.%." then
      told[#told + 1] = ("from %d: %s"):format(child.first, (line:gsub("^# ", "")))
    end
  end
  local closed = child.pipe:close()
  ran, failed = ran + (seeds or 0), failed + (bad or 0)
  if seeds ~= child.n or not closed and bad == 0 then
    failed = failed + 1
    told[#told + 1] = ("from %d: ended before it had run %d seeds"):format(child.first, child.n)
  end
end

local children = {}
for i = 1, cores do children[i] = start() end
while #children > 0 do
  finish(table.remove(children, 1))
  children[#children + 1] = start()
  write()
end
io.write(write())
os.exit(failed == 0 and ran == count and 0 or 1, true)
