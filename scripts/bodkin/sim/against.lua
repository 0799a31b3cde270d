-- SPDX-License-Identifier: MIT
-- Two simulations of the same clients beside each other: who was matched, how long that took, and how far apart in each
-- property that is a number those are who were matched with each other.

local stats = require "bodkin.sim.stats"

local M = {}

local function gaps_of(run)
  local by_name = {}
  for _, pair in ipairs(run.pairs) do
    for name, a in pairs(pair.a.props or {}) do
      local b = pair.b.props[name]
      if type(a) == "number" and type(b) == "number" then
        by_name[name] = by_name[name] or {}
        table.insert(by_name[name], math.abs(a - b))
      end
    end
  end
  return by_name
end

local function side_of(run)
  local report, values = stats.report(run)
  local by_name, names = gaps_of(run), {}
  for name in pairs(by_name) do names[#names + 1] = name end
  table.sort(names)
  local side = {
    name = report.name, clients = report.clients, duration_s = report.duration_s, asked = report.asked,
    matched = report.matched, connected = report.connected, tried = report.tried, errors = report.errors,
    wait_ms = report.wait_ms, gaps = {}, values = { wait_ms = values.wait_ms, gaps = by_name },
  }
  for i, name in ipairs(names) do
    side.gaps[i] = stats.percentiles(by_name[name])
    side.gaps[i].name = name
  end
  return side
end

-- Of what sim/run.lua's play gave for each. Returns { seed, sides = { side, side } }, where a side is { name, clients,
-- duration_s, asked, matched, connected, tried, errors, wait_ms = { n, p50, p90, p99, max }, gaps = { { name, n, … },
-- … }, values = { wait_ms = sorted, gaps = sorted by name } }.
function M.report(run_a, run_b)
  return { seed = run_a.scenario.seed, sides = { side_of(run_a), side_of(run_b) } }
end

-- As lines of text.
function M.text(report)
  local cell = stats.cell
  local a, b = report.sides[1], report.sides[2]
  local width = math.max(10, #a.name, #b.name)
  local lines = { ("%d clients, %g virtual seconds, seed %d"):format(a.clients, a.duration_s, report.seed), "" }
  local function add(what, x, y)
    lines[#lines + 1] = ("%-28s  %" .. width .. "s  %" .. width .. "s"):format(what, x, y)
  end
  add("", a.name, b.name)
  add("waited in a queue", a.asked, b.asked)
  add("matched", a.matched, b.matched)
  add("not matched", a.asked - a.matched, b.asked - b.matched)
  add("pairs connected", a.connected, b.connected)
  add("pairs tried", a.tried, b.tried)
  for _, p in ipairs { "p50", "p90", "p99" } do
    add("ms ticket to matched, " .. p, cell(a.wait_ms[p]), cell(b.wait_ms[p]))
  end
  local names, seen = {}, {}
  for _, side in ipairs(report.sides) do
    for _, gap in ipairs(side.gaps) do
      if not seen[gap.name] then names[#names + 1] = gap.name end
      seen[gap.name] = true
    end
  end
  table.sort(names)
  for _, name in ipairs(names) do
    for _, p in ipairs { "p50", "p90", "p99" } do
      add(("%s apart, %s"):format(name, p), cell(stats.named(a.gaps, name)[p]), cell(stats.named(b.gaps, name)[p]))
    end
  end
  for _, side in ipairs(report.sides) do
    local first = side.errors[1]
    if first then
      lines[#lines + 1] = ("%s: the server, after %.1f s: %s"):format(side.name, first.at_s, first.text)
    end
  end
  return lines
end

return M
