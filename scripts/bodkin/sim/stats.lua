-- SPDX-License-Identifier: MIT
-- What a simulation (sim/run.lua) says in numbers: a report as plain data, and as text.

local theory = require "bodkin.sim.theory"

local M = {}

local ERRORS_SHOWN = 3

-- Nearest rank: the least value that at least p per cent are not above. nil of none.
function M.percentile(sorted, p)
  if #sorted == 0 then return nil end
  return sorted[math.max(1, math.ceil(#sorted * p / 100))]
end

local function rounded(ms)
  return ms and math.floor(ms * 1000 + 0.5) / 1000
end

-- { n, p50, p90, p99, max }, of a list that it sorts.
function M.percentiles(list)
  table.sort(list)
  return { n = #list, p50 = rounded(M.percentile(list, 50)), p90 = rounded(M.percentile(list, 90)),
    p99 = rounded(M.percentile(list, 99)), max = rounded(list[#list]) }
end

-- A number as a table shows it; "-" for nil.
function M.cell(value)
  if not value then return "-" end
  return math.type(value) == "integer" and tostring(value) or ("%.1f"):format(value)
end

-- Of a list of such, each with a name: that of one, or an empty table.
function M.named(list, name)
  for _, one in ipairs(list) do
    if one.name == name then return one end
  end
  return {}
end

local function row_of(rows, by_key, pair)
  local a, b = pair.a.kind, pair.b.kind
  if a > b then a, b = b, a end
  local key = ("%s %s %s"):format(pair.together and "1" or "0", a, b)
  local row = by_key[key]
  if not row then
    row = { key = key, a = a, b = b, same_nat = pair.together or false, connected = 0, tried = 0, under_way = 0,
      theory = pair.together and "yes" or theory.verdict(a, b) }
    by_key[key] = row
    rows[#rows + 1] = row
  end
  return row
end

local function count_pairs(report, run)
  local by_key = {}
  for _, pair in ipairs(run.pairs) do
    local row = row_of(report.pairs, by_key, pair)
    if pair.confirmed[1] and pair.confirmed[2] then
      row.connected, row.tried = row.connected + 1, row.tried + 1
      report.paths[pair.path] = report.paths[pair.path] + 1
    elseif pair.over then
      row.tried = row.tried + 1
      report.paths.none = report.paths.none + 1
    else
      row.under_way = row.under_way + 1
    end
  end
  table.sort(report.pairs, function(x, y) return x.key < y.key end)
  for _, row in ipairs(report.pairs) do
    row.key = nil
    for _, what in ipairs { "connected", "tried", "under_way" } do report[what] = report[what] + row[what] end
  end
end

-- run: what sim/run.lua's play gave.
function M.report(run)
  local scenario, waits = run.scenario, {}
  for _, client in ipairs(run.clients) do
    if client.wait_ms then waits[#waits + 1] = client.wait_ms end
  end
  local failed = {}
  for code, n in pairs(run.failures) do failed[#failed + 1] = { code = code, n = n } end
  table.sort(failed, function(a, b) return a.code < b.code end)
  local report = {
    name = scenario.name, seed = scenario.seed, clients = scenario.clients, duration_s = scenario.duration_s,
    arrived = run.arrived, registered = run.registered, asked = run.asked, matched = #waits, failed = failed,
    what = scenario.match and "ticket" or "join", queue = scenario.match and scenario.match.queue,
    connected = 0, tried = 0, under_way = 0, pairs = {}, paths = { lan = 0, direct = 0, relay = 0, none = 0 },
    wait_ms = M.percentiles(waits), first_ms = M.percentiles(run.first_ms),
    confirmed_ms = M.percentiles(run.confirmed_ms),
    errors = run.server_errors,
  }
  count_pairs(report, run)
  -- For the plot: every value, sorted.
  return report, { wait_ms = waits, first_ms = run.first_ms, confirmed_ms = run.confirmed_ms }
end

-- --- as text
local function share(n, of)
  return of > 0 and ("%5.1f %%"):format(100 * n / of) or "      -"
end

local function pair_lines(add, report)
  local width = #"NAT pair"
  local function label(row)
    return row.same_nat and row.a .. ", both behind one" or row.a .. " - " .. row.b
  end
  for _, row in ipairs(report.pairs) do width = math.max(width, #label(row)) end
  local line = "%-" .. width .. "s  %9s  %7s  %7s  %s"
  add(line:format("NAT pair", "connected", "tried", "", "theory"))
  for _, row in ipairs(report.pairs) do
    local against = row.theory == "no" and row.connected > 0 or row.theory == "yes" and row.connected < row.tried
    add(line:format(label(row), row.connected, row.tried, share(row.connected, row.tried),
      row.theory .. (against and "  <- not as in theory" or "")))
  end
  add((line:format("all", report.connected, report.tried, share(report.connected, report.tried), ""):gsub("%s+$", "")))
  if report.under_way > 0 then add(("%d more were under way at the end"):format(report.under_way)) end
end

local function ms_cell(ms)
  return ms and ("%.1f"):format(ms) or "-"
end

local function percentile_lines(add, report)
  local line = "%-28s  %9s  %9s  %9s  %9s  %7s"
  add(line:format("ms", "p50", "p90", "p99", "most", "of"))
  for _, row in ipairs {
    { report.what .. " to matched", report.wait_ms },
    { "matched to first heard", report.first_ms },
    { "matched to path confirmed", report.confirmed_ms },
  } do
    local p = row[2]
    add(line:format(row[1], ms_cell(p.p50), ms_cell(p.p90), ms_cell(p.p99), ms_cell(p.max), p.n))
  end
end

-- The report as lines of text.
function M.text(report)
  local lines = {}
  local function add(text) lines[#lines + 1] = text end
  add(("%s: %d clients, %g virtual seconds, seed %d"):format(report.name, report.clients, report.duration_s,
    report.seed))
  local waiting = report.asked - report.matched
  add(("%d came, %d registered, %d %s, %d of them matched%s"):format(report.arrived, report.registered, report.asked,
    report.what == "ticket" and "waited in the queue " .. report.queue or "joined a room", report.matched,
    waiting > 0 and (", %d not"):format(waiting) or ""))
  for _, f in ipairs(report.failed) do add(("failed with %s: %d"):format(f.code, f.n)) end
  for i, e in ipairs(report.errors) do
    if i > ERRORS_SHOWN then
      add(("and %d more such errors"):format(#report.errors - ERRORS_SHOWN))
      break
    end
    add(("the server, after %.1f s: %s"):format(e.at_s, e.text))
  end
  add ""
  pair_lines(add, report)
  add ""
  local paths, all = report.paths, report.tried
  local mix = {}
  for i, kind in ipairs { "direct", "lan", "none" } do
    mix[i] = ("%s %d (%s)"):format(kind, paths[kind], (share(paths[kind], all):gsub("^ +", "")))
  end
  add("paths: " .. table.concat(mix, ", "))
  add ""
  percentile_lines(add, report)
  return lines
end

return M
