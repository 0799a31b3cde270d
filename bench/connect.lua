-- SPDX-License-Identifier: MIT
-- `make bench-connect`: how long two take to be connected, from the moment both begin, by Bodkin and by libnice
-- (nice.c), in the lab, behind the same NATs and with the same delays, taking turns; and by libjuice (juice.c), where
-- JUICE names the directory that has it. Prints the table of bench/README.md. With LOSS=0.05 so much is lost between
-- any two hosts, both ways; then what counts is how long the slowest in twenty take, so there are more rounds, of
-- several pairs at a time, and none among the NATs that no loss would let through is left out. Needs root, BODKIN (the
-- binary) and BENCH (the directory where nice was built).

local core = require "bodkin.core"
local lab = require "bodkin.lab"

local bodkin = assert(os.getenv "BODKIN", "BODKIN must name the binary")
local bench = assert(os.getenv "BENCH", "BENCH must name the directory of the programs")
local LOSS = tonumber(os.getenv "LOSS" or 0)
local ROUNDS = tonumber(os.getenv "ROUNDS" or LOSS > 0 and 10 or 5)
local LANES = LOSS > 0 and 4 or 1 -- pairs that connect at the same time
local DELAY_MS = 20 -- one way, between any two hosts
local START_MS = 400 -- both programs are up by then
local RUN_MS = LOSS > 0 and { bodkin = 2500, other = 4500 } or { bodkin = 1000, other = 3500 }
local OTHERS = (os.getenv "JUICE" or "") ~= "" and { "nice", "juice" } or { "nice" }

local cases = {
  { "none", "none" }, { "full_cone", "port_restricted" }, { "port_restricted", "port_restricted" },
  { "plain_linux", "plain_linux" }, { "carrier", "carrier" },
}
if LOSS > 0 then
  cases[#cases + 1] = { "port_restricted", "symmetric_random" }
  cases[#cases + 1] = { "symmetric_random", "symmetric_random" }
else
  cases[#cases + 1] = { "port_restricted", same_nat = true }
end

local function hosts_of(lane) return string.char(95 + 2 * lane), string.char(96 + 2 * lane) end

local function serve(net)
  local serving = net.server:start { bodkin, "serve", "--json", "--policy", "bench/pair.lua", "--admin",
    net.dir .. "/admin" }
  local line = assert(serving:expect("listening", 5000))
  net.url = ("bodkin://%s#%s"):format(net.server.addr, line:match "#([%w_,-]+)")
  net.server:start { "turnserver", "-n", "--stun-only", "-L", net.server.addr, "-p", "3478", "--no-tcp", "--no-tls",
    "--no-dtls", "--no-cli", "--log-file", net.dir .. "/turn.log", "--pidfile", net.dir .. "/turn.pid" }
end

local function start(net, kind, role, host, round, go_us)
  if kind == "bodkin" then
    return host:start { bodkin, "run", "bench/meet.lua", role, net.url, round,
      tostring(go_us), tostring(RUN_MS.bodkin), realtime = net.realtime }
  end
  return host:start { bench .. "/" .. kind, role, host.addr, net.server.addr, net.dir .. "/" .. round,
    tostring(2 * DELAY_MS), tostring(go_us), tostring(RUN_MS.other), realtime = net.realtime }
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
  juice = { told = "candidate", connected = "connected", agreed = "completed" },
}

-- { connected, after (since the peer's last address was told), agreed }, each of the later side; what never
-- happened on one of them is missing.
local function outcome(kind, sides)
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

-- Adds to `rounds` what comes of one for each lane.
local function add_round(rounds, net, kind, n)
  local go_us, running = core.now() + START_MS * 1000 * (LANES > 1 and 2 or 1), {}
  for lane = 1, LANES do
    local round, a, b = ("%s%d-%d"):format(kind, n, lane), hosts_of(lane)
    assert(os.execute(("mkdir -p %s/%s"):format(net.dir, round)))
    running[lane] = { start(net, kind, "a", net[a], round, go_us), start(net, kind, "b", net[b], round, go_us) }
  end
  for _, sides in ipairs(running) do rounds[#rounds + 1] = outcome(kind, sides) end
end

local function median(list)
  table.sort(list)
  return #list > 0 and (list[(#list + 1) // 2] + list[#list // 2 + 1]) / 2 or nil
end

-- The median of what happened in all rounds but a minority, as text; and as a number.
local function summary(rounds, what)
  local list = {}
  for _, r in ipairs(rounds) do list[#list + 1] = r[what] end
  local value = #list > #rounds / 2 and median(list) or nil
  local text = value and ("%.0f"):format(value) or "–"
  if value and #list < #rounds then text = ("%s (%d of %d)"):format(text, #list, #rounds) end
  return text, value
end

-- Median, and what 95 % do not exceed, nil where more than the others never were; and how many were not.
local function spread(rounds, what)
  local list = {}
  for _, r in ipairs(rounds) do list[#list + 1] = r[what] or math.huge end
  table.sort(list)
  local never = 0
  for _, ms in ipairs(list) do never = never + (ms == math.huge and 1 or 0) end
  local function at(part)
    local ms = list[math.ceil(#list * part)]
    return ms < math.huge and ms or nil
  end
  return at(0.5), at(0.95), never
end

local function net_of(case)
  local half = DELAY_MS / 2
  local options = { same_nat = case.same_nat, loss = LOSS > 0 and LOSS or nil, delay_ms = { server = half } }
  for lane = 1, LANES do
    local a, b = hosts_of(lane)
    options[a], options[b] = case[1], case[2]
    options.delay_ms[a], options.delay_ms[b] = half, half
  end
  local net = assert(lab.up(options))
  if LOSS == 0 then assert(net:probe()) end
  serve(net)
  return net
end

local function cell(text, our_ms, their_ms)
  return text .. (our_ms and their_ms and their_ms > 0 and (" (%.2f)"):format(our_ms / their_ms) or "")
end

-- What Bodkin's rounds came to beside another's.
local function print_row(name, ours, theirs)
  local cells = { name }
  local function ms(value) return value and ("%.0f"):format(value) or "–" end
  for _, what in ipairs(LOSS > 0 and { "connected", "agreed" } or { "after", "connected", "agreed" }) do
    if LOSS > 0 then
      local our_half, our_most, our_never = spread(ours, what)
      local half, most, never = spread(theirs, what)
      cells[#cells + 1] = ("%s / %s"):format(ms(our_half), ms(half))
      cells[#cells + 1] = cell(("%s / %s"):format(ms(our_most), ms(most)), our_most, most)
      if what == "connected" then cells[#cells + 1] = ("%d / %d"):format(our_never, never) end
    else
      local our_text, our_ms = summary(ours, what)
      local text, their_ms = summary(theirs, what)
      cells[#cells + 1] = cell(("%s / %s"):format(our_text, text), our_ms, their_ms)
    end
  end
  print("| " .. table.concat(cells, " | ") .. " |")
  io.stdout:flush()
end

local function row(case)
  local net <close> = net_of(case)
  local rounds = { bodkin = {} }
  for i = 1, ROUNDS do
    add_round(rounds.bodkin, net, "bodkin", i)
    for _, kind in ipairs(OTHERS) do
      rounds[kind] = rounds[kind] or {}
      add_round(rounds[kind], net, kind, i)
    end
  end
  local pair = case.same_nat and "both behind one " .. case[1] or case[1] .. "–" .. case[2]
  for _, kind in ipairs(OTHERS) do
    print_row(OTHERS[2] and pair .. ", lib" .. kind or pair, rounds.bodkin, rounds[kind])
  end
end

if LOSS > 0 then
  print("| pair | connected, from start: half | 95 % | never | agreed on the final path: half | 95 % |")
  print "|---|---|---|---|---|---|"
  for _, case in ipairs(cases) do row(case) end
  print(("\nBodkin / the other in ms (and the ratio), of the later side, %d meetings each; %d ms one way, "
    .. "loss %g each way."):format(ROUNDS * LANES, DELAY_MS, LOSS))
  return 0
end
print("| pair | connected, after the peer's last address was told | connected, from start "
  .. "| agreed on the final path, from start |")
print "|---|---|---|---|"
for _, case in ipairs(cases) do row(case) end
print(("\nBodkin / the other in ms (and the ratio), of the later side, medians of %d; %d ms one way between two hosts.")
  :format(ROUNDS, DELAY_MS))
return 0
