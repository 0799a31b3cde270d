-- SPDX-License-Identifier: MIT
-- `make bench-connect`: how long two take to be connected, from the moment both begin, by Bodkin and by libnice
-- (nice.c), in the lab, behind the same NATs and with the same delays, taking turns. Prints the table of
-- bench/README.md. Needs root, BODKIN (the binary) and BENCH (the directory where nice was built).

local core = require "bodkin.core"
local lab = require "bodkin.lab"

local bodkin = assert(os.getenv "BODKIN", "BODKIN must name the binary")
local bench = assert(os.getenv "BENCH", "BENCH must name the directory of the programs")
local ROUNDS = tonumber(os.getenv "ROUNDS" or 5)
local DELAY_MS = 20 -- one way, between any two hosts
local START_MS = 400 -- both programs are up by then
local RUN_MS = { bodkin = 1000, nice = 3500 }

local cases = {
  { "none", "none" }, { "full_cone", "port_restricted" }, { "port_restricted", "port_restricted" },
  { "plain_linux", "plain_linux" }, { "carrier", "carrier" }, { "port_restricted", same_nat = true },
}

local function serve(net)
  local serving = net.server:start { bodkin, "serve", "--json", "--policy", "bench/pair.lua", "--admin",
    net.dir .. "/admin" }
  local line = assert(serving:expect("listening", 5000))
  net.url = ("bodkin://%s#%s"):format(net.server.addr, line:match "#([%w_,-]+)")
  net.server:start { "turnserver", "-n", "--stun-only", "-L", net.server.addr, "-p", "3478", "--no-tcp", "--no-tls",
    "--no-dtls", "--no-cli", "--log-file", net.dir .. "/turn.log", "--pidfile", net.dir .. "/turn.pid" }
end

local function start(net, kind, role, round, go_us)
  local host = net[role]
  if kind == "bodkin" then
    return host:start { bodkin, "run", "bench/meet.lua", role, net.url, "round" .. round,
      tostring(go_us), tostring(RUN_MS.bodkin), realtime = net.realtime }
  end
  return host:start { bench .. "/nice", role, host.addr, net.server.addr, net.dir .. "/round" .. round,
    tostring(2 * DELAY_MS), tostring(go_us), tostring(RUN_MS.nice), realtime = net.realtime }
end

-- The last, or the first, time of an event on one side, and what was said with it.
local function time_of(process, name, first)
  local found, text
  for _, line in ipairs(process:lines()) do
    local what, ms, rest = line:match "^(%S+) ([%d.]+) ?(.*)$"
    if what == name and not (first and found) then found, text = tonumber(ms), rest end
  end
  return found, text
end

local EVENTS = {
  bodkin = { told = "matched", connected = "connected", agreed = "path" },
  nice = { told = "candidate", connected = "connected", agreed = "ready" },
}

-- { connected, after (since the peer's last address was told), agreed }, each of the later side; what never
-- happened on one of them is missing.
local function round_of(net, kind, round)
  assert(os.execute(("mkdir -p %s/round%d"):format(net.dir, round)))
  local go_us = core.now() + START_MS * 1000
  local sides = { start(net, kind, "a", round, go_us), start(net, kind, "b", round, go_us) }
  local names, out, missing = EVENTS[kind], {}, {}
  for _, process in ipairs(sides) do
    local code = process:wait(10000)
    assert(code == 0, process:stdout() .. process:stderr())
    local told, connected = time_of(process, names.told), time_of(process, names.connected, true)
    local values = { connected = connected, agreed = time_of(process, names.agreed),
      after = connected and told and connected - told }
    for _, what in ipairs { "connected", "after", "agreed" } do
      if not values[what] then missing[what] = true end
      out[what] = values[what] and math.max(out[what] or values[what], values[what])
    end
  end
  for what in pairs(missing) do out[what] = nil end
  return out
end

local function median(list)
  table.sort(list)
  return #list > 0 and (list[(#list + 1) // 2] + list[#list // 2 + 1]) / 2 or nil
end

-- The median of what happened in all rounds but a minority, as text; and as a number.
local function summary(rounds, what)
  local list = {}
  for _, r in ipairs(rounds) do list[#list + 1] = r[what] end
  local value = #list > ROUNDS / 2 and median(list) or nil
  local text = value and ("%.0f"):format(value) or "–"
  if value and #list < ROUNDS then text = ("%s (%d of %d)"):format(text, #list, ROUNDS) end
  return text, value
end

local function row(case)
  local half = DELAY_MS / 2
  local net <close> = assert(lab.up { a = case[1], b = case[2], same_nat = case.same_nat,
    delay_ms = { a = half, b = half, server = half } })
  assert(net:probe())
  serve(net)
  local rounds = { bodkin = {}, nice = {} }
  for i = 1, ROUNDS do
    for _, kind in ipairs { "bodkin", "nice" } do rounds[kind][i] = round_of(net, kind, i) end
  end
  local cells = { case.same_nat and "both behind one " .. case[1] or case[1] .. "–" .. case[2] }
  for _, what in ipairs { "after", "connected", "agreed" } do
    local ours, our_ms = summary(rounds.bodkin, what)
    local theirs, their_ms = summary(rounds.nice, what)
    local ratio = our_ms and their_ms and their_ms > 0 and (" (%.2f)"):format(our_ms / their_ms) or ""
    cells[#cells + 1] = ("%s / %s%s"):format(ours, theirs, ratio)
  end
  print("| " .. table.concat(cells, " | ") .. " |")
end

print("| pair | connected, after the peer's last address was told | connected, from start "
  .. "| agreed on the final path, from start |")
print "|---|---|---|---|"
for _, case in ipairs(cases) do row(case) end
print(("\nBodkin / libnice in ms (and the ratio), of the later side, medians of %d; %d ms one way between two hosts.")
  :format(ROUNDS, DELAY_MS))
return 0
