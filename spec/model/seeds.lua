-- SPDX-License-Identifier: MIT
-- Runs seeds: each a random pair of NATs, network and mishap, two muxes on it, every invariant watched, the outcome
-- held against docs/NAT.md. A failing one is printed with how to run it again.
--
--   lua5.4 spec/model/seeds.lua FIRST COUNT [trace | twice] [FIELD=VALUE ...]
--
-- Fields are those of scenario.draw's wish, as a=port_restricted, attack=true, loss=0.1. `twice` runs every one
-- again and compares.
local scenarios = dofile "spec/model/scenario.lua"
local runs = dofile "spec/model/run.lua"

local M = {}

local function command(seed, text)
  return ("LUA_PATH='scripts/?.lua;scripts/?/init.lua;;' LUA_CPATH='build/release/lua/?.so;;' lua5.4 "
    .. "spec/model/seeds.lua %d 1 trace%s"):format(seed, text or "")
end

-- One seed: its run, and nil or text that says what failed.
function M.one(seed, wish, options)
  local s = scenarios.draw(seed, wish)
  local ok, run = xpcall(runs.run, debug.traceback, s, options)
  if not ok then return nil, ("seed %d: %s\n  %s"):format(seed, run, scenarios.describe(s)) end
  if #run.violations == 0 then return run end
  return run, ("seed %d: %s\n  %s; theory: %s\n  again: %s"):format(seed, table.concat(run.violations, "\n  "),
    scenarios.describe(s), run.verdict, command(seed, options and options.text))
end

-- seeds first..first+count-1. Returns { seeds, failures = { text, ... }, table = "verdict outcome" -> n, digest,
-- packets, cpu_s }. At most `stop` (10) failures. A digest is of all that both muxes sent, and when.
function M.range(first, count, wish, options)
  options = options or {}
  local result = { seeds = 0, failures = {}, table = {}, digest = 0, packets = 0 }
  local start = os.clock()
  for seed = first, first + count - 1 do
    local run, failure = M.one(seed, wish, options)
    result.seeds = result.seeds + 1
    if run then
      local key = run.verdict .. " " .. run.outcome
      result.table[key] = (result.table[key] or 0) + 1
      result.packets = result.packets + run.packets
      result.digest = (result.digest ~ run.digest) * 0x100000001b3
      if options.twice and M.one(seed, wish).digest ~= run.digest then
        failure = ("seed %d: not the same when run again"):format(seed)
      end
    end
    if failure then table.insert(result.failures, failure) end
    if #result.failures >= (options.stop or 10) then break end
  end
  result.cpu_s = os.clock() - start
  return result
end

-- "verdict outcome: n", in order.
function M.summary(result)
  local lines = {}
  for key, n in pairs(result.table) do lines[#lines + 1] = ("%s: %d"):format(key, n) end
  table.sort(lines)
  return table.concat(lines, ", ")
end

local function read_arguments(list)
  local wish, options, text = {}, {}, {}
  for i = 3, #list do
    local name, value = list[i]:match("^([%w_]+)=(.*)$")
    if not name then
      options[list[i]] = true
    else
      text[#text + 1] = " " .. list[i]
      if value == "true" or value == "false" then value = value == "true" end
      wish[name] = tonumber(value) or value
    end
  end
  options.text = table.concat(text)
  return wish, options
end

local function main(list)
  local first, count = math.tointeger(tonumber(list[1])), math.tointeger(tonumber(list[2]))
  local wish, options = read_arguments(list)
  if options.trace then
    for seed = first, first + count - 1 do
      local run, failure = M.one(seed, wish, options)
      print(scenarios.describe(scenarios.draw(seed, wish)))
      print(table.concat(run and run.lines or {}, "\n"))
      for name, lines in pairs(run and run.machines or {}) do
        local path = ("%s/seed-%d-%s.trace"):format(os.getenv "BUILD" or "build", seed, name)
        local file <close> = assert(io.open(path, "w"))
        file:write(table.concat(lines, "\n"), "\n")
        print("bodkin replay -v " .. path)
      end
      if failure then print(failure) end
    end
    return
  end
  local result = M.range(first, count, wish, options)
  for _, failure in ipairs(result.failures) do print(failure) end
  print(("%d seeds, %d failed, %.0f a second, %.0f packets each; %s; digest %016x"):format(result.seeds,
    #result.failures, result.seeds / result.cpu_s, result.packets / result.seeds, M.summary(result), result.digest))
  os.exit(#result.failures == 0 and 0 or 1)
end

if arg and arg[0] and arg[0]:find("spec/model/seeds.lua", 1, true) then main(arg) end

return M
