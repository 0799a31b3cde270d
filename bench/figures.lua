-- SPDX-License-Identifier: MIT
-- The figures of README.md, measured: `make bench` prints them as the table that stands there.
-- Needs root, for the lab, and BODKIN, the binary.

local lab = require "bodkin.lab"
local core = require "bodkin.core"

local bodkin = assert(os.getenv "BODKIN", "BODKIN must name the binary")
local RUNS, MEETINGS = 20, 10

local function output_of(command)
  local pipe <close> = assert(io.popen(command))
  return pipe:read "a"
end

local function median(list)
  table.sort(list)
  return (list[(#list + 1) // 2] + list[#list // 2 + 1]) / 2
end

local rows = {}
local function row(what, fmt, ...)
  rows[#rows + 1] = ("| %s | %s |"):format(what, fmt:format(...))
end

-- From the shell's start of the process to its end.
local function start_time()
  local times = {}
  for i = 1, RUNS do
    local before = core.now()
    assert(os.execute(bodkin .. " version >/dev/null"))
    times[i] = (core.now() - before) / 1000
  end
  row("`bodkin version`, from start to exit, a shell's fork included", "%.1f ms (median of %d)", median(times), RUNS)
end

local function size()
  local stripped = output_of("f=$(mktemp); strip -o $f " .. bodkin .. "; stat -c %s $f; rm $f")
  row("binary, stripped", "%.0f KB", tonumber(stripped) / 1024)
end

local function idle_memory()
  local script = bodkin .. [[ serve --listen 127.0.0.1:0 --admin "$dir/admin" >/dev/null 2>&1 & pid=$!
    sleep 1; grep -E 'VmRSS|RssAnon' /proc/$pid/status; kill $pid; wait $pid]]
  local status = output_of("dir=$(mktemp -d); " .. script .. "; rm -r $dir")
  row("idle server, resident (of it, its own)", "%.1f MB (%.1f MB)", status:match "VmRSS:%s+(%d+)" / 1024,
    status:match "RssAnon:%s+(%d+)" / 1024)
end

local function connect_time()
  local net <close> = assert(lab.up { a = "port_restricted", b = "port_restricted", delay_ms = { a = 20, b = 20 } })
  local line = assert(net.server:start { bodkin, "serve", "--json" }:expect("listening", 5000))
  local url = ("bodkin://%s#%s"):format(net.server.addr, line:match "#([%w_,-]+)")
  local first, confirmed = {}, {}
  for _ = 1, MEETINGS do
    local function client(host, ...)
      local words = { bodkin, ... }
      local rest = "--server " .. url .. " --json --send hello --expect 1 --timeout 20"
      for word in rest:gmatch "%S+" do
        words[#words + 1] = word
      end
      return host:start(words)
    end
    local one = client(net.a, "host")
    local code = assert(one:expect("hosting", 5000)):match '"code":"([^"]+)"'
    local two = client(net.b, "join", code)
    for _, p in ipairs { one, two } do
      assert(p:wait(20000) == 0, p:stderr())
      first[#first + 1] = tonumber(p:stdout():match '"first_ms":([%d.]+)')
      confirmed[#confirmed + 1] = tonumber(p:stdout():match '"confirmed_ms":([%d.]+)')
    end
  end
  row("two NATs, 40 ms apart (one way): first data", "%.1f ms after `matched` (median of %d; the least possible is 40)",
    median(first), #first)
  row("both directions confirmed", "%.1f ms (the least possible is 80)", median(confirmed))
end

start_time()
size()
idle_memory()
connect_time()
print(table.concat(rows, "\n"))
