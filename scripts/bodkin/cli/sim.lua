-- SPDX-License-Identifier: MIT
local output = require "bodkin.cli.output"
local write = require "bodkin.cli.write"

local function seed(text)
  local n = math.tointeger(tonumber(text))
  if n and n >= 0 then return n end
  return nil, "a whole number of at least 0"
end

local function failed(out, message)
  out:failure(message, "invalid")
  return 3
end

local order = { "event", "name", "seed", "clients", "duration_s", "arrived", "registered", "what", "queue", "asked",
  "matched", "failed", "errors", "connected", "tried", "under_way", "paths", "lan", "direct", "relay", "none",
  "wait_ms", "first_ms", "confirmed_ms", "code", "n", "p50", "p90", "p99", "max", "pairs", "a", "b", "same_nat",
  "theory", "at_s", "text" }
local order_of_two = { "event", "seed", "sides", "name", "clients", "duration_s", "asked", "matched", "connected",
  "tried", "errors", "wait_ms", "gaps", "n", "p50", "p90", "p99", "max" }

local function against(values, out, path)
  local files, against_of = require "bodkin.sim.file", require "bodkin.sim.against"
  local a, b = files.read_both(path, values.against)
  if not a then return failed(out, b) end
  local runs = {}
  for i, scenario in ipairs { a, b } do
    scenario.seed = values.seed or scenario.seed
    local err
    runs[i], err = require("bodkin.sim.run").play(scenario)
    if not runs[i] then return failed(out, err) end
  end
  local report = against_of.report(runs[1], runs[2])
  if values.svg then
    local ok, why, code = write(values.svg, { require("bodkin.sim.plot").against(report) }, "plot")
    if not ok then return nil, why, code end
  end
  if out.json then
    for _, side in ipairs(report.sides) do side.values = nil end
    report.event = "compared"
    out:object(report, order_of_two)
  else
    for _, line in ipairs(against_of.text(report)) do out:line(output.printable(line)) end
  end
  return (report.sides[1].errors[1] or report.sides[2].errors[1]) and 3 or 0
end


return {
  usage = "bodkin sim FILE [--against FILE] [--seed N] [--svg FILE] [--record FILE] [--json]",
  summary = "play a scenario, or a policy, on a virtual network",
  text = [[
Plays the scenario that FILE returns (bodkin.scenario) with the unchanged client and server on a virtual network in
virtual time, and prints which pairs of NATs connected, by which paths, and how long things took. FILE may also return
a policy, or be the name of one that ships, such as skill: it then serves 1,000 clients that fit it. The same file and
seed give the same output, byte for byte. With --against, a second one is played with the same clients, and both stand
side by side: who was matched, the waits, how far apart those in a match are; of two policies the second plays in the
first one's scenario. Exit code 3 when FILE is not right, or its policy failed meanwhile.]],
  options = {
    { "against", arg = "FILE", help = "another policy or scenario, beside it: the same clients, the same seed" },
    { "seed", arg = "N", kind = seed, help = "another course of things for another number (default: the scenario's)" },
    { "record", arg = "FILE", help = "write what the policies were told and made of it, for bodkin replay" },
    { "svg", arg = "FILE", help = "write a plot of waits and connect times" },
  },
  arguments = 1,
  run = function(values, rest)
    if not rest[1] then return nil, "sim needs a FILE", "usage" end
    local out = output.of(values)
    if values.against and values.record then return nil, "--record with one FILE alone", "usage" end
    if values.against then return against(values, out, rest[1]) end
    local scenario, err = require("bodkin.sim.file").read(rest[1])
    if not scenario then return failed(out, err) end
    scenario.seed = values.seed or scenario.seed
    local run
    local record = {}
    run, err = require("bodkin.sim.run").play(scenario, {
      on_record = values.record and function(text) record[#record + 1] = text end or nil,
    })
    if not run then return failed(out, err) end
    local stats = require "bodkin.sim.stats"
    local report, all = stats.report(run)
    if out.json then
      report.event = "simulated"
      out:object(report, order)
    else
      for _, line in ipairs(stats.text(report)) do out:line(output.printable(line)) end
    end
    if values.svg then
      local ok, why, code = write(values.svg, { require("bodkin.sim.plot").svg(report, all) }, "plot")
      if not ok then return nil, why, code end
    end
    if values.record then
      local ok, why, code = write(values.record, record, "record")
      if not ok then return nil, why, code end
    end
    return report.errors[1] and 3 or 0
  end,
}
