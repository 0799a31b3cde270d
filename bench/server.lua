-- SPDX-License-Identifier: MIT
-- `make bench-server`: CPU time for an answer, of the address server, of coturn, and of the least there can be, echo.c.
-- All three run at once and take turns under the same load, load.c; what counts is the time that the server process
-- spent, in user mode and in the kernel. Prints the table of bench/README.md.
-- Needs BODKIN (the binary) and BENCH (the directory where load and echo were built); turnserver is coturn's. BEFORE
-- names another binary, to compare with. ROUNDS and ANSWERS (a round) make it shorter or longer.

local measure = require "bench.measure"
local shell = require "bodkin.lab.shell"

local bodkin = assert(os.getenv "BODKIN", "BODKIN must name the binary")
local bench = assert(os.getenv "BENCH", "BENCH must name the directory of the programs")
local ANSWERS = tonumber(os.getenv "ANSWERS" or 300000)
local ROUNDS = tonumber(os.getenv "ROUNDS" or 9)
local PORT = 24433

local place = measure.place()
local dir = place.dir

local servers = {
  { name = "coturn, STUN binding", kind = "stun", command = "turnserver -n --stun-only -L 127.0.0.1 -p %d --no-tcp "
    .. "--no-tls --no-dtls --no-cli --no-rfc5780 --no-software-attribute --no-stun-backward-compatibility -m 1 "
    .. "--log-file " .. dir .. "/turn.log --pidfile " .. dir .. "/turn.pid" },
  { name = "echo.c", kind = "echo", command = bench .. "/echo 127.0.0.1 %d" },
  { name = "bodkin, address report", kind = "report",
    command = bodkin .. " serve --listen 127.0.0.1:%d --admin " .. dir .. "/admin" },
}

if os.getenv "BEFORE" then
  servers[4] = { name = "the same, before", kind = "report",
    command = os.getenv "BEFORE" .. " serve --listen 127.0.0.1:%d --admin " .. dir .. "/admin-before" }
end

local function start(server, port)
  server.port = port
  server.process = place:start(tostring(port), server.command:format(port), nil, 0)
end

-- CPU time for an answer, in µs.
local function cost(server, answers)
  local before = measure.cpu_s(server.process)
  local ok, text = shell.run(("%s%s/load %s 127.0.0.1 %d %d"):format(measure.pin(1), bench, server.kind, server.port,
    answers))
  local answered, lost = text:match "^(%d+) (%d+)"
  if not ok or not answered then error(server.name .. ": " .. text, 0) end
  server.lost = (server.lost or 0) + tonumber(lost)
  return (measure.cpu_s(server.process) - before) / tonumber(answered) * 1e6
end

return measure.run(function()
  for i, server in ipairs(servers) do start(server, PORT + i) end
  shell.sleep_ms(1500)
  for _, server in ipairs(servers) do cost(server, ANSWERS / 10) end -- warm
  for _, server in ipairs(servers) do server.costs, server.to = {}, {} end
  for _ = 1, ROUNDS do
    for _, server in ipairs(servers) do table.insert(server.costs, cost(server, ANSWERS)) end
    for _, server in ipairs(servers) do
      for i = 1, 2 do
        server.to[i] = server.to[i] or {}
        table.insert(server.to[i], server.costs[#server.costs] / servers[i].costs[#servers[i].costs])
      end
    end
  end
  print "| server | CPU for an answer | answers a CPU second | to coturn | to echo.c |"
  print "|---|---|---|---|---|"
  for _, server in ipairs(servers) do
    local each = measure.median(server.costs)
    print(("| %s | %.2f µs | %.0f | %.2f | %.2f |"):format(server.name, each, 1e6 / each, measure.median(server.to[1]),
      measure.median(server.to[2])))
  end
  local lost = {}
  for _, server in ipairs(servers) do lost[#lost + 1] = ("%s %d"):format(server.name, server.lost) end
  print(("\nMedians of %d rounds of %d answers; ratios are medians of the rounds' ratios. Lost: %s."):format(ROUNDS,
    ANSWERS, table.concat(lost, ", ")))
end, place)
