-- SPDX-License-Identifier: MIT
local output = require "bodkin.cli.output"
local stats = require "bodkin.sim.stats"

local function shorten(word) return #word > 40 and word:sub(1, 16) .. "…(" .. #word // 2 .. " bytes)" or word end

-- What changed among a session's paths since it was last looked at.
local function path_changes(mux, session, seen)
  local out = {}
  for _, p in ipairs(mux:paths(session) or {}) do
    local at = require("bodkin.core").addr.format(p.remote)
    local key, now = session .. " " .. at, p.state .. (p.reason ~= "none" and "(" .. p.reason .. ")" or "")
      .. (p.selected and ", selected" or "")
    if seen[key] ~= now then
      out[#out + 1] = ("path %s: %s"):format(at, now)
      seen[key] = now
    end
  end
  return out
end

local M = {
  usage = "bodkin replay FILE [--policy FILE [--svg FILE]] [--json]",
  summary = "walk a recorded session or matchmaking again",
  text = [[
Reads what --trace FILE of a client wrote, feeds the same inputs to the same machines, and checks that they put out
the same, byte for byte. With -v every step is shown, and with it what became of each path. Exit code 3 when a line
differs: it says which.

FILE may also be a record of matchmaking (bodkin record, bodkin serve --record): its policies are told the same, and
must make the same of it. With --policy, what another policy would have made of the same tickets stands beside what
was: they come, and go unmatched, when they did; who was matched then waits on until this policy matches them. These
ship: first_come, skill, teams, rooms, lobby, latency_first, host_and_clients.]],
  options = {
    { "policy", arg = "FILE", help = "another policy: a file, or the name of one that ships" },
    { "svg", arg = "FILE", help = "write a plot of both: waits, and how far apart those in a match were" },
  },
  arguments = 1,
}

local function differs(path, message, number)
  io.stderr:write(("%s:%d: "):format(output.printable(path), number))
  for line in message:gmatch "[^\n]+" do io.stderr:write(output.printable(line), "\n") end
  return 3
end

local function session(values, file, path)
  local first_us, sessions, seen = nil, {}, {}
  local function each(line, mux, words)
    if not values.verbose then return end
    first_us = first_us or tonumber(words[1])
    local one = words[1] == ">" and math.tointeger(words[2])
    if one then sessions[one] = true end
    for i, word in ipairs(words) do words[i] = output.printable(shorten(word)) end
    if words[1] == ">" then
      print("                " .. table.concat(words, " "))
    elseif tonumber(line:match "^%d+") then
      words[1] = ("%12.3f ms"):format((tonumber(line:match "^%d+") - first_us) / 1000)
      print(table.concat(words, " "))
    end
    for id in pairs(sessions) do
      for _, change in ipairs(path_changes(mux, id, seen)) do print("                  " .. change) end
    end
  end
  local result, message, number = require("bodkin.replay").run(file:lines(), each)
  if not result then return differs(path, message, number) end
  print(("%d inputs, %d outputs: all as recorded"):format(result.inputs, result.outputs))
  return 0
end

-- Says that a line of a record was left out.
local function cut_off(path)
  return function(number)
    io.stderr:write(("%s:%d: this line is incomplete and left out: the server ended there\n"):format(
      output.printable(path), number))
  end
end

local function matchmaking(values, file, path)
  local replay = require "bodkin.policy.replay"
  local function each(mark, message)
    if not values.verbose then return end
    print(output.printable(message and mark .. " " .. replay.text(message) or "# a desk begins"))
  end
  local result, message, number = replay.run(file:lines(), each, cut_off(path))
  if not result then return differs(path, message, number) end
  print(("%d inputs, %d outputs%s: all as recorded"):format(result.inputs, result.outputs, result.unheard > 0
    and (", and %d that nobody heard"):format(result.unheard) or ""))
  return 0
end

-- --- under another policy
local order = { "event", "queue", "recorded", "other", "tickets", "refused", "matches", "matched", "left", "waiting",
  "failed", "why", "wait_ms", "gaps", "name", "n", "p50", "p90", "p99" }

-- Lines of two sides, beside each other.
local function table_of(row, heading)
  local lines, width, cell = {}, math.max(#heading, 12), stats.cell
  local function add(what, a, b)
    lines[#lines + 1] = ("%-28s  %12s  %" .. width .. "s"):format(what, a, b)
  end
  local was, other = row.recorded, row.other
  add(row.queue, "as recorded", heading)
  for _, one in ipairs {
    { "tickets", "tickets" }, { "refused", "refused" }, { "matches", "matches" }, { "tickets matched", "matched" },
    { "left unmatched", "left" }, { "waiting at the end", "waiting" },
  } do
    add(one[1], was[one[2]], other[one[2]])
  end
  for _, p in ipairs { "p50", "p90", "p99" } do
    add("ms to a match, " .. p, cell(was.wait_ms[p]), cell(other.wait_ms[p]))
  end
  local names, seen = {}, {}
  for _, side in ipairs { was, other } do
    for _, gap in ipairs(side.gaps) do
      if not seen[gap.name] then names[#names + 1] = gap.name end
      seen[gap.name] = true
    end
  end
  table.sort(names)
  for _, name in ipairs(names) do
    local a, b = stats.named(was.gaps, name), stats.named(other.gaps, name)
    for _, p in ipairs { "p50", "p90", "p99" } do
      add(("%s apart in a match, %s"):format(name, p), cell(a[p]), cell(b[p]))
    end
  end
  if was.failed + other.failed > 0 then add("runs that failed", was.failed, other.failed) end
  return lines
end

local function under(values, file, path)
  local source, why, code = require("bodkin.policy.source").read(values.policy)
  if not source then return nil, why, code end
  local rows, number
  rows, why, number = require("bodkin.policy.compare").run(file:lines(), source, nil, cut_off(path))
  if not rows and number then return differs(path, why, number) end
  if not rows then return nil, "the policy does not load: " .. why, "invalid" end
  local out, is_failed = output.of(values), false
  local heading = values.policy:match "([^/]*)$":gsub("%.lua$", "")
  if values.svg and rows[1] then
    local ok
    local svg = require("bodkin.sim.plot").compared(rows, heading)
    ok, why, code = require "bodkin.cli.write"(values.svg, { svg }, "plot")
    if not ok then return nil, why, code end
  end
  for i, row in ipairs(rows) do
    row.recorded.values, row.other.values = nil, nil
    is_failed = is_failed or row.other.failed > 0
    if out.json then
      row.event = "compared"
      out:object(row, order)
    else
      if i > 1 then out:line "" end
      for _, line in ipairs(table_of(row, heading)) do out:line(output.printable(line)) end
      if row.other.why then out:say("the policy failed, first with: %s", row.other.why) end
    end
  end
  if not rows[1] then out:say "no ticket was in a queue" end
  return is_failed and 3 or 0
end

function M.run(values, rest)
  if not rest[1] then return nil, "which file?", "usage" end
  if values.svg and not values.policy then return nil, "--svg needs --policy: it shows both", "usage" end
  local file, err = io.open(rest[1])
  if not file then return nil, err, "invalid" end
  local is_matchmaking = (file:read "l" or ""):find "^bodkin%-desk "
  file:seek "set"
  if values.policy and not is_matchmaking then
    file:close()
    return nil, rest[1] .. " is no record of matchmaking, as --policy needs: see bodkin help record", "invalid"
  end
  local run = values.policy and under or is_matchmaking and matchmaking or session
  local status, message, code = run(values, file, rest[1])
  file:close()
  return status, message, code
end

return M
