-- SPDX-License-Identifier: MIT
-- `make bench-server`: CPU time for an answer, of the address server, of coturn, and of the least there can be, echo.c.
-- All three run at once and take turns under the same load, load.c; what counts is the time that the server process
-- spent, in user mode and in the kernel. Prints the table of bench/README.md.
-- Needs BODKIN (the binary) and BENCH (the directory where load and echo were built); turnserver is coturn's. BEFORE
-- names another binary, to compare with. ROUNDS and ANSWERS (a round) make it shorter or longer.

local shell = require "bodkin.lab.shell"

local bodkin = assert(os.getenv "BODKIN", "BODKIN must name the binary")
local bench = assert(os.getenv "BENCH", "BENCH must name the directory of the programs")
local ANSWERS = tonumber(os.getenv "ANSWERS" or 300000)
local ROUNDS = tonumber(os.getenv "ROUNDS" or 9)
local PORT = 24433

local dir = select(2, shell.run "mktemp -d"):gsub("\n", "")
local _, cpus = shell.run "nproc"
-- The load and the servers each on a processor of its own, where there are two.
local two = tonumber(cpus) > 1
local pin = { server = two and "taskset -c 0 " or "", load = two and "taskset -c 1 " or "" }

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
  local _, pid = shell.run(("{ exec %s%s >%s/%d.out 2>&1 </dev/null; } & echo $!"):format(pin.server,
    server.command:format(port), dir, port))
  server.pid = tonumber(pid:match "%d+")
end

-- What the process used of the CPU so far, in seconds.
local function cpu_s(pid)
  local stat = assert(shell.read(("/proc/%d/stat"):format(pid)), "a server has ended; see " .. dir)
  local user, system = stat:match("^.*%) %a" .. (" %S+"):rep(10) .. " (%d+) (%d+)") -- see proc(5)
  return (tonumber(user) + tonumber(system)) / 100
end

-- CPU time for an answer, in µs.
local function measure(server, answers)
  local before = cpu_s(server.pid)
  local ok, text = shell.run(("%s%s/load %s 127.0.0.1 %d %d"):format(pin.load, bench, server.kind, server.port,
    answers))
  local answered, lost = text:match "^(%d+) (%d+)"
  if not ok or not answered then error(server.name .. ": " .. text, 0) end
  server.lost = (server.lost or 0) + tonumber(lost)
  return (cpu_s(server.pid) - before) / tonumber(answered) * 1e6
end

local function median(list)
  table.sort(list)
  return (list[(#list + 1) // 2] + list[#list // 2 + 1]) / 2
end

local function main()
  for i, server in ipairs(servers) do start(server, PORT + i) end
  shell.sleep_ms(1500)
  for _, server in ipairs(servers) do measure(server, ANSWERS / 10) end -- warm
  for _, server in ipairs(servers) do server.costs, server.to = {}, {} end
  for _ = 1, ROUNDS do
    for _, server in ipairs(servers) do table.insert(server.costs, measure(server, ANSWERS)) end
    for _, server in ipairs(servers) do
      for i = 1, 2 do
        server.to[i] = server.to[i] or {}
        table.insert(server.to[i], server.costs[#server.costs] / servers[i].costs[#servers[i].costs])
      end
    end
  end
  local function sorted(list) return median({ table.unpack(list) }) end
  print "| server | CPU for an answer | answers a CPU second | to coturn | to echo.c |"
  print "|---|---|---|---|---|"
  for _, server in ipairs(servers) do
    local cost = sorted(server.costs)
    print(("| %s | %.2f µs | %.0f | %.2f | %.2f |"):format(server.name, cost, 1e6 / cost, sorted(server.to[1]),
      sorted(server.to[2])))
  end
  local lost = {}
  for _, server in ipairs(servers) do lost[#lost + 1] = ("%s %d"):format(server.name, server.lost) end
  print(("\nMedians of %d rounds of %d answers; ratios are medians of the rounds' ratios. Lost: %s."):format(ROUNDS,
    ANSWERS, table.concat(lost, ", ")))
end

local ok, message = pcall(main)
for _, server in ipairs(servers) do
  if server.pid then shell.run(("kill %d"):format(server.pid)) end
end
shell.run("rm -rf " .. dir)
if not ok then
  io.stderr:write("bench: ", tostring(message), "\n")
  return 1
end
return 0
