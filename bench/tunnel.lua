-- SPDX-License-Identifier: MIT
-- `make bench-tunnel`: what a datagram costs in bodkin tunnel. A program (echo.c) answers load.c, once straight and
-- once through a tunnel, all on loopback, taking turns; each end handles a datagram there and one back. Prints the
-- table of bench/README.md. Needs BODKIN (the binary) and BENCH (the directory where load and echo were built).
-- ROUNDS and ANSWERS (a round) make it shorter or longer.

local shell = require "bodkin.lab.shell"

local bodkin = assert(os.getenv "BODKIN", "BODKIN must name the binary")
local bench = assert(os.getenv "BENCH", "BENCH must name the directory of the programs")
local ANSWERS, ROUNDS = tonumber(os.getenv "ANSWERS" or 50000), tonumber(os.getenv "ROUNDS" or 9)
local PROGRAM, TUNNEL = 24501, 24502 -- ports

local dir = select(2, shell.run "mktemp -d"):gsub("\n", "")
local started = {}

-- Starts a command; it, once what it says matches, and what that captured.
local function start(name, command, pattern)
  local out = ("%s/%s"):format(dir, name)
  local _, pid = shell.run(("{ exec %s >%s 2>&1 </dev/null; } & echo $!"):format(command, out))
  local process = { name = name, pid = tonumber(pid:match "%d+") }
  table.insert(started, process)
  local found = shell.await(5000, function() return (shell.read(out) or ""):match(pattern) end)
  return process, found or error(("%s: nothing like %q, but\n%s"):format(command, pattern, shell.read(out)), 0)
end

-- What the process used of the CPU so far, in s.
local function cpu_s(process)
  local stat = assert(shell.read(("/proc/%d/stat"):format(process.pid)), process.name .. " has ended")
  local user, system = stat:match("^.*%) %a" .. (" %S+"):rep(10) .. " (%d+) (%d+)") -- see proc(5)
  return (tonumber(user) + tonumber(system)) / 100
end

local function median(list)
  table.sort(list)
  return (list[(#list + 1) // 2] + list[#list // 2 + 1]) / 2
end

local function main()
  local program = start("program", ("%s/echo 127.0.0.1 %d"):format(bench, PROGRAM), "ready")
  local _, url = start("server", ("%s serve --listen 127.0.0.1:0 --admin %s/admin"):format(bodkin, dir), "bodkin://%S+")
  local tunnel = ("%s tunnel --server '%s' "):format(bodkin, url)
  local to, code = start("to", ("%s --to udp:127.0.0.1:%d"):format(tunnel, PROGRAM), "bodkin tunnel (%S+)")
  local at = start("at", ("%s %s --at udp:127.0.0.1:%d"):format(tunnel, code, TUNNEL), "go to")
  local rows = {
    { "echo.c, asked straight", program, PROGRAM },
    { "the end with --at", at, TUNNEL },
    { "the end with --to", to, TUNNEL },
  }
  local lost, rates = { 0, 0, 0 }, { {}, {}, {} }
  for _, row in ipairs(rows) do row.costs = {} end
  for _ = 1, ROUNDS do
    for i, port in ipairs { PROGRAM, TUNNEL } do
      local before, began_s = {}, shell.uptime()
      for n, row in ipairs(rows) do before[n] = cpu_s(row[2]) end
      local ok, text = shell.run(("%s/load echo 127.0.0.1 %d %d"):format(bench, port, ANSWERS))
      local answered, missed = text:match "^(%d+) (%d+)"
      assert(ok and answered, text)
      lost[i] = lost[i] + missed
      table.insert(rates[i], answered / (shell.uptime() - began_s))
      for n, row in ipairs(rows) do
        -- A datagram each way at an end of the tunnel; one answer of the program.
        local handled = (i == 1 and 1 or 2) * answered
        if row[3] == port then table.insert(row.costs, (cpu_s(row[2]) - before[n]) / handled * 1e6) end
      end
    end
  end
  print "| process | CPU for a datagram handed on | a CPU second |"
  print "|---|---|---|"
  for _, row in ipairs(rows) do
    local cost = median(row.costs)
    print(("| %s | %.1f µs | %.0f |"):format(row[1], cost, 1e6 / cost))
  end
  print(("\nMedians of %d rounds of %d answers. Answers a second on the clock: %.0f straight, %.0f through the tunnel; "
    .. "lost: %d and %d."):format(ROUNDS, ANSWERS, median(rates[1]), median(rates[2]), lost[1], lost[2]))
end

local ok, message = pcall(main)
for _, process in ipairs(started) do shell.run(("kill %d"):format(process.pid)) end
shell.run("rm -rf " .. dir)
if not ok then
  io.stderr:write("bench: ", tostring(message), "\n")
  return 1
end
return 0
