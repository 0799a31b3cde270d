-- SPDX-License-Identifier: MIT
-- `make bench-flood`: a real server under ten million bad and spoofed datagrams from a million sources, at half the
-- rate at which its receive queue overflows, beside honest clients. Prints what was measured and how it compares with
-- what must hold, and writes it to bench/results. As root: namespaces, see spec/hostile/flood.lua.
-- Needs BODKIN (the binary) and BENCH (the directory where flood was built). DATAGRAMS sends fewer or more, RATE
-- (datagrams a second) spares the search for the rate, HONEST is how many clients are under way at once.

local amplification = require "spec.servers.amplification"
local flood = require "spec.hostile.flood"
local shell = require "bodkin.lab.shell"

local DATAGRAMS = math.tointeger(tonumber(os.getenv "DATAGRAMS" or 10000000))
local HONEST = math.tointeger(tonumber(os.getenv "HONEST" or 8))
local SOURCES = 1000000
local GROWTH_KB, SUCCESS = 1024, 0.99

local function one(command) return select(2, shell.run(command)):match "[^\n]+" or "?" end

local lines, unmet = {}, 0
local function say(fmt, ...)
  lines[#lines + 1] = fmt:format(...)
  print(lines[#lines])
end

local function must(holds, fmt, ...)
  if not holds then unmet = unmet + 1 end
  say("%s: %s", holds and "holds" or "DOES NOT HOLD", fmt:format(...))
end

local function listed(counts)
  local names, out = {}, {}
  for name, n in pairs(counts) do
    if n ~= 0 then names[#names + 1] = name end
  end
  table.sort(names)
  for i, name in ipairs(names) do out[i] = ("%s %d"):format(name, counts[name]) end
  return table.concat(out, ", ")
end

local function measure(field)
  local rate = math.tointeger(tonumber(os.getenv "RATE"))
  if not rate then
    local overflow, unseen = field:overflow(print)
    rate = overflow // 2
    say("the receive queue overflows at %d datagrams a second%s", overflow, unseen
      and "; or above: more could not be sent" or "")
  end
  field:honest(HONEST)
  -- Buffers, tables of what was seen lately and Lua's heap get their size before what counts.
  field:send(rate, math.max(DATAGRAMS // 10, 2 * rate))
  local counters, usage, traffic = field:status(), field:usage(), field:traffic()
  local peak = usage
  local sent = field:send(rate, DATAGRAMS, function()
    local now = field:usage()
    if now.rss_kb > peak.rss_kb then peak = now end
  end)
  local usage_after, traffic_after, counters_after = field:usage(), field:traffic(), field:status()
  local honest = field:honest_end(sent.began_us, sent.ended_us)
  local grown = {}
  for name, value in pairs(counters_after) do grown[name] = value - counters[name] end

  say("sent %d datagrams, %d bytes, from %d sources in %.1f s: %.0f a second; %d lost at the queue", sent.sent,
    sent.bytes, math.min(SOURCES, sent.sent), sent.seconds, sent.rate, sent.lost)
  say("of them: %s", listed(sent.kinds))
  say("the server counted: %s", listed(grown))
  say("the server: %.0f %% of a processor, %.2f µs a datagram",
    100 * (usage_after.cpu_s - usage.cpu_s) / sent.seconds,
    (usage_after.cpu_s - usage.cpu_s) / (sent.sent - sent.lost) * 1e6)
  say("RSS before %d KB, after %d KB, at most %d KB; private dirty %d KB, %d KB", usage.rss_kb, usage_after.rss_kb,
    math.max(peak.rss_kb, usage_after.rss_kb), usage.dirty_kb, usage_after.dirty_kb)
  local bytes_in = traffic_after.bytes_in - traffic.bytes_in
  local bytes_out = traffic_after.bytes_out - traffic.bytes_out
  say("to the spoofed sources: %d bytes in %d datagrams, %.3f of the bytes from there", bytes_out,
    traffic_after.datagrams_out - traffic.datagrams_out, bytes_out / bytes_in)
  say("honest handshakes: %d of %d; median %.1f ms, slowest %.1f ms%s", honest.ok, honest.total, honest.median_ms,
    honest.slowest_ms, next(honest.failures) and "; failed: " .. listed(honest.failures) or "")
  local rss_grown = math.max(peak.rss_kb, usage_after.rss_kb) - usage.rss_kb
  must(rss_grown <= GROWTH_KB, "RSS grew by %d KB, of %d", rss_grown, GROWTH_KB)
  must(honest.total > 0 and honest.ok >= SUCCESS * honest.total, "%.2f %% of honest handshakes succeeded, of %d",
    100 * honest.ok / math.max(honest.total, 1), 100 * SUCCESS)
  must(bytes_out <= bytes_in, "overall amplification %.3f, of 1.0", bytes_out / bytes_in)
  must(grown.handler_error == 0 and not field.server:code(), "it lives, with %d errors in handlers",
    grown.handler_error)
end

local commit = one "git describe --always --dirty --abbrev=10"
say("commit %s, %s\n%s, %s cores, Linux %s, %s; load before %s\n", commit, os.date "!%Y-%m-%d",
  one "sed -n 's/^model name.*: //p' /proc/cpuinfo", one "nproc", one "uname -r",
  one "sed -n 's/^PRETTY_NAME=\"\\(.*\\)\"/\\1/p' /etc/os-release", one "cut -d' ' -f1-3 /proc/loadavg")

local field, why = flood.up {
  bodkin = assert(os.getenv "BODKIN", "BODKIN must name the binary"),
  bench = assert(os.getenv "BENCH", "BENCH must name the directory of the programs"),
}
if not field then
  io.stderr:write("bench: no namespaces: ", why, "\n")
  return 1
end
local ok, message = xpcall(measure, debug.traceback, field)
field:close()
if not ok then
  io.stderr:write("bench: ", tostring(message), "\n")
  return 1
end

local rows = amplification.measure()
say("\n%s\n", amplification.markdown(rows))
must(amplification.worst(rows) <= 1, "the worst ratio of any message and size but STUN is %.2f, of 1.0",
  amplification.worst(rows))
shell.run "mkdir -p bench/results"
shell.write(("bench/results/flood-%s.txt"):format(commit), table.concat(lines, "\n") .. "\n")
return unmet == 0 and 0 or 1
