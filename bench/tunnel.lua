-- SPDX-License-Identifier: MIT
-- `make bench-tunnel`: what a datagram costs in bodkin tunnel. A program (echo.c) answers load.c, once straight and
-- once through a tunnel, all on loopback, taking turns; each end handles a datagram there and one back. Prints the
-- table of bench/README.md. Needs BODKIN (the binary) and BENCH (the directory where load and echo were built).
-- ROUNDS and ANSWERS (a round) make it shorter or longer.

local measure = require "bench.measure"
local shell = require "bodkin.lab.shell"

local bodkin = assert(os.getenv "BODKIN", "BODKIN must name the binary")
local bench = assert(os.getenv "BENCH", "BENCH must name the directory of the programs")
local ANSWERS, ROUNDS = tonumber(os.getenv "ANSWERS" or 50000), tonumber(os.getenv "ROUNDS" or 9)
local PROGRAM, TUNNEL = 24501, 24502 -- ports

return measure.run(function(place)
  local program = place:start("program", ("%s/echo 127.0.0.1 %d"):format(bench, PROGRAM), "ready")
  local _, url = place:start("server", ("%s serve --listen 127.0.0.1:0 --admin %s/admin"):format(bodkin, place.dir),
    "bodkin://%S+")
  local tunnel = ("%s tunnel --server '%s' "):format(bodkin, url)
  local to, code = place:start("to", ("%s --to udp:127.0.0.1:%d"):format(tunnel, PROGRAM), "bodkin tunnel (%S+)")
  local at = place:start("at", ("%s %s --at udp:127.0.0.1:%d"):format(tunnel, code, TUNNEL), "go to")
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
      for n, row in ipairs(rows) do before[n] = measure.cpu_s(row[2]) end
      local ok, text = shell.run(("%s/load echo 127.0.0.1 %d %d"):format(bench, port, ANSWERS))
      local answered, missed = text:match "^(%d+) (%d+)"
      assert(ok and answered, text)
      lost[i] = lost[i] + missed
      table.insert(rates[i], answered / (shell.uptime() - began_s))
      for n, row in ipairs(rows) do
        -- A datagram each way at an end of the tunnel; one answer of the program.
        local handled = (i == 1 and 1 or 2) * answered
        if row[3] == port then table.insert(row.costs, (measure.cpu_s(row[2]) - before[n]) / handled * 1e6) end
      end
    end
  end
  print "| process | CPU for a datagram handed on | a CPU second |"
  print "|---|---|---|"
  for _, row in ipairs(rows) do
    local cost = measure.median(row.costs)
    print(("| %s | %.1f µs | %.0f |"):format(row[1], cost, 1e6 / cost))
  end
  print(("\nMedians of %d rounds of %d answers. Answers a second on the clock: %.0f straight, %.0f through the tunnel; "
    .. "lost: %d and %d."):format(ROUNDS, ANSWERS, measure.median(rates[1]), measure.median(rates[2]), lost[1],
    lost[2]))
end)
