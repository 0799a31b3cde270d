-- SPDX-License-Identifier: MIT
-- How soon a real server on loopback reports addresses while policies run: the 99th percentile of many requests, with
-- two players in each queue all the while. Shared by the spec and `make bench-policy`.

local core = require "bodkin.core"
local envs = require "bodkin.env"
local message = require "bodkin.message"

local M = {}

local EVERY_MS = 2

local function percentile(list, p)
  table.sort(list)
  return list[math.max(1, math.ceil(#list * p / 100))]
end

-- Round trips of address requests to `server` (an address) for so many seconds, in ms.
function M.probe(server, seconds)
  local env = envs.new { log_level = "error" }
  local sock = assert(env.udp(core.addr.parse("127.0.0.1", 0)))
  local sent, times, lost, no = {}, {}, 0, 0
  local router = core.router(env.counters)
  router:on(message.address_report, { "tx" }, function(_, _, tx)
    if sent[tx] then times[#times + 1] = (core.now() - sent[tx]) / 1000 end
    sent[tx] = nil
  end)
  sock:router(router)
  local function ask()
    no = no + 1
    local tx = ("%012d"):format(no)
    sent[tx] = core.now()
    sock:send(server, assert(message.address_request:encode(tx)))
    env.timer(EVERY_MS, ask)
  end
  ask()
  env.timer(seconds * 1000, env.stop)
  env.run()
  env.close()
  for _ in pairs(sent) do lost = lost + 1 end
  return { p50 = percentile(times, 50), p99 = percentile(times, 99), count = #times, lost = lost }
end

-- Starts a server with --policy QUEUE=FILE for each of `policies` (file by queue; a queue without is first come), lets
-- players play in every queue, and measures. Returns the probe's result, with matches and longest_ms by queue, and the
-- server's log.
function M.measure(bodkin, queues, policies, seconds)
  local dir = assert(io.popen "mktemp -d"):read "l"
  local words = { bodkin, "serve --listen 127.0.0.1:0 --admin", dir .. "/admin" }
  for queue, file in pairs(policies) do words[#words + 1] = ("--policy %s=%s"):format(queue, file) end
  local serve = assert(io.popen(("echo $$; exec timeout %d %s 2>&1"):format(seconds + 30, table.concat(words, " "))))
  local pid, url, log = serve:read "l", nil, {}
  for line in serve:lines() do
    log[#log + 1] = line
    url = line:match "bodkin://127%.0%.0%.1:%d+#[%w_,-]+"
    if url then break end
  end
  assert(url, table.concat(log, "\n"))
  local players = assert(io.popen(("%s run spec/policy/players.lua '%s' %g %s"):format(bodkin, url, seconds,
    table.concat(queues, " "))))
  local result = M.probe(assert(core.addr.parse(url:match "//([^#]+)")), seconds)
  result.matches, result.longest_ms = {}, {}
  for line in players:lines() do
    local queue, matches, longest = line:match "^(%S+)%s+(%d+)%s+(%d+)$"
    if queue then result.matches[queue], result.longest_ms[queue] = tonumber(matches), tonumber(longest) end
  end
  result.played = players:close()
  os.execute("kill -INT " .. pid)
  for line in serve:lines() do log[#log + 1] = line end
  serve:close()
  result.log = table.concat(log, "\n")
  os.execute("rm -r " .. dir)
  return result
end

return M
