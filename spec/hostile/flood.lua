-- SPDX-License-Identifier: MIT
-- A real server under a flood from a million spoofed sources, beside honest clients. Three network namespaces: the
-- server's, the flood's and the honest clients'. What the server answers to spoofed sources goes back to the flood's,
-- which has none of their addresses and forwards nothing: it ends there. Linux, as root.
--
--   local field <close> = assert(flood.up { bodkin = binary, bench = directory })
--   local rate = field:overflow()
--   field:honest(8)
--   local sent = field:send(rate // 2, 10000000)

local core = require "bodkin.core"
local corpus = require "spec.hostile.corpus"
local json = require "bodkin.json"
local plan = require "bodkin.lab.plan"
local process = require "bodkin.lab.process"
local shell = require "bodkin.lab.shell"

local M = {}
local Field = {}
Field.__index = Field

local SERVER, PORT = "192.0.2.10", 4433
local SOURCES = "10.0.0.0" -- and the 999,999 after it
local HONEST = "198.51.100."
local HEADERS = 14 + 20 + 8 -- Ethernet, IPv4, UDP: what an interface counts beside the payload
-- At this share of lost datagrams the queue counts as overflowing: less may be a moment in which nothing ran.
local LOST = 0.001

-- Why there can be none here, or nil.
function M.unable()
  local _, text = shell.run([[
    [ "$(id -u)" = 0 ] || { echo "not root"; exit; }
    for c in ip nsenter setsid; do command -v $c >/dev/null || { echo "no command '$c'"; exit; }; done
    ip netns add bodkin-flood-try-$$ && ip netns del bodkin-flood-try-$$
  ]])
  return text:match "[^\n]+"
end

local function boxes(prefix)
  local function box(name, addrs, routes)
    return { name = prefix .. name, addrs = addrs, routes = routes, sysctl = {} }
  end
  local server = box("server", { { "flood0", SERVER .. "/24" }, { "honest0", "203.0.113.1/24" } },
    { SOURCES .. "/8 via 192.0.2.1", HONEST .. "0/24 via 203.0.113.2" })
  local bad = box("flood", { { "eth0", "192.0.2.1/24" } }, {})
  local good = box("honest", { { "eth0", "203.0.113.2/24" } },
    { "local " .. HONEST .. "0/24 dev lo", SERVER .. "/32 via 203.0.113.1" })
  for _, dev in ipairs { "flood0", "honest0" } do server.sysctl["net/ipv4/conf/" .. dev .. "/rp_filter"] = 0 end
  return {
    boxes = { server, bad, good },
    links = { { server.name, "flood0", bad.name, "eth0" }, { server.name, "honest0", good.name, "eth0" } },
  }
end

-- Takes all down when its input ends, which it does when we do, however we end.
local keeper = [[
trap '' HUP INT PIPE
down() {
  for n in %s; do kill -9 $(ip netns pids $n); done 2>/dev/null
  for n in %s; do ip netns del $n; done
  rm -rf %s
}
sh %s/setup.sh && : >%s/ready || : >%s/failed
while read -r line; do :; done
down
]]

-- options: bodkin (the binary), bench (the directory where flood was built). Returns the field: server (a process of
-- the lab's), url, and the methods below; or nil and why not.
function M.up(options)
  local why = M.unable()
  if why then return nil, why end
  local _, dir = shell.run "mktemp -d /tmp/bodkin-flood.XXXXXX"
  dir = dir:match "[^\n]+"
  local prefix = dir:match "[^/]+$" .. "-"
  local self = setmetatable({ dir = dir, prefix = prefix, bodkin = options.bodkin, bench = options.bench,
    runs = 0 }, Field)
  local layout, names = boxes(prefix), {}
  for i, b in ipairs(layout.boxes) do names[i] = b.name end
  local list = table.concat(names, " ")
  shell.write(dir .. "/setup.sh", plan.setup(layout))
  shell.write(dir .. "/keeper.sh", keeper:format(list, list, dir, dir, dir, dir))
  self.keeper = assert(io.popen(("exec setsid sh %s/keeper.sh >%s/log 2>&1"):format(dir, dir), "w"))
  if not shell.await(10000, function() return shell.read(dir .. "/ready") or shell.read(dir .. "/failed") end)
    or shell.read(dir .. "/failed") then
    why = shell.read(dir .. "/log")
    self:close()
    return nil, why
  end
  shell.write(dir .. "/corpus", corpus.make())
  local _, cpus = shell.run "nproc"
  self.pins = tonumber(cpus) > 1 and { server = "0", flood = "1", honest = "1" } or {}
  self:serve()
  return self
end

-- A process in the namespace `place`, the server on a processor of its own where there are two.
function Field:start(place, words, options)
  self.runs = self.runs + 1
  local all = options or {}
  if self.pins[place] then table.move({ "taskset", "-c", self.pins[place] }, 1, 3, 1, all) end
  table.move(words, 1, #words, #all + 1, all)
  return process.start(self.prefix .. place, ("%s/%d-%s"):format(self.dir, self.runs, place), all)
end

function Field:serve()
  self.admin = self.dir .. "/admin"
  self.server = self:start("server", { self.bodkin, "serve", "--json", "--listen", SERVER .. ":" .. PORT, "--admin",
    self.admin }, { env = { HOME = self.dir, ASAN_OPTIONS = "exitcode=99", UBSAN_OPTIONS = "exitcode=99" } })
  local _, url = assert(self.server:expect('"url":"([^"]+)"', 10000))
  self.url = url
end

function Field:proc(name) return assert(shell.read(("/proc/%d/%s"):format(self.server.pid, name)), "it has ended") end

-- How many datagrams the socket's queue had no room for.
function Field:lost()
  local at = (": 0A0200C0:%04X"):format(PORT)
  for _ = 1, 20 do -- while other sockets come and go, a row may be missing
    local drops = self:proc("net/udp"):match(at .. "[^\n]- (%d+)%s*\n")
    if drops then return tonumber(drops) end
  end
  error "the server's socket is gone"
end

-- Payload bytes that went in and out on the flood's side, and datagrams.
function Field:traffic()
  local rx, rx_n, tx, tx_n = self:proc("net/dev"):match("flood0:%s*(%d+)%s+(%d+)" .. ("%s+%d+"):rep(6)
    .. "%s+(%d+)%s+(%d+)")
  return { bytes_in = rx - rx_n * HEADERS, datagrams_in = tonumber(rx_n), bytes_out = tx - tx_n * HEADERS,
    datagrams_out = tonumber(tx_n) }
end

-- VmRSS and private dirty pages in KB, CPU in seconds.
function Field:usage()
  local dirty = 0
  for kb in self:proc("smaps_rollup"):gmatch "Private_Dirty:%s*(%d+)" do dirty = dirty + tonumber(kb) end
  local user, system = self:proc("stat"):match("^.*%) %a" .. (" %S+"):rep(10) .. " (%d+) (%d+)") -- see proc(5)
  return { rss_kb = tonumber(self:proc("status"):match "VmRSS:%s*(%d+)"), dirty_kb = dirty,
    cpu_s = (tonumber(user) + tonumber(system)) / 100 }
end

-- What `bodkin status` says: counters by name, and info.
function Field:status()
  local ok, text = shell.run(shell.join { self.bodkin, "status", "--json", "--admin", self.admin })
  local status = ok and json.decode(text) or error("no status: " .. text)
  local counters = {}
  for _, c in ipairs(status.counters) do counters[c.name] = c.value end
  return counters, status.info
end

-- Sends `count` datagrams at `rate` a second; `tick`, where given, is called about once a second meanwhile. Returns
-- { sent, bytes, seconds, rate (as it was), kinds (name = count), lost, began_us, ended_us }.
function Field:send(rate, count, tick)
  local out, lost = { kinds = {}, began_us = core.now() }, self:lost()
  local p = self:start("flood", { self.bench .. "/flood", SOURCES, SERVER, tostring(PORT), ("%d"):format(rate),
    ("%d"):format(count), self.dir .. "/corpus", tostring(self.runs) })
  local deadline_s, next_s = shell.uptime() + 30 + 10 * count / rate, shell.uptime() + 1
  while not p:code() and shell.uptime() < deadline_s do
    shell.sleep_ms(count / rate > 10 and 200 or 20)
    if tick and shell.uptime() >= next_s then
      tick()
      next_s = shell.uptime() + 1
    end
  end
  if p:code() ~= 0 then error(("flood: %s %s"):format(p:code() or "too slow", p:stderr()), 0) end
  out.ended_us = core.now()
  local sent, bytes, us = p:stdout():match "sent (%d+) bytes (%d+) us (%d+)"
  out.sent, out.bytes, out.seconds = tonumber(sent), tonumber(bytes), us / 1e6
  out.rate = out.sent / out.seconds
  for name, n in p:stdout():gmatch "kind (%a+) (%d+)" do out.kinds[name] = tonumber(n) end
  shell.await(1000, function() return self:proc("net/udp"):find ": 0A0200C0:%x+ %x+:%x+ %x+:00000000 " end)
  out.lost = self:lost() - lost
  return out
end

-- The rate, in datagrams a second, at which the receive queue overflows: each step is higher by a quarter and lasts a
-- second; of three tries each must lose too much, since one may be another program's doing. Second, when the sender
-- could not send that much: true.
function Field:overflow(say)
  local rate = 20000
  while true do
    local over, reached = 0, 0
    while over < 3 do
      local sent = self:send(rate, rate)
      reached = math.max(reached, sent.rate)
      if say then say(("%.0f datagrams a second: %d of %d lost"):format(sent.rate, sent.lost, sent.sent)) end
      if sent.lost <= LOST * sent.sent then break end
      over = over + 1
    end
    if over == 3 or reached < 0.8 * rate then return math.tointeger(reached // 1), over < 3 end
    rate = rate * 5 // 4
  end
end

-- Starts the honest clients, so many at once.
function Field:honest(at_once)
  self.clients = self:start("honest", { self.bodkin, "run", "spec/hostile/honest.lua", self.url, HONEST,
    tostring(at_once), self.dir .. "/stop" })
end

-- Ends them. Of those that began between the two moments: { total, ok, slowest_ms, median_ms, failures = { why = n } }.
function Field:honest_end(from_us, to_us)
  shell.write(self.dir .. "/stop", "")
  assert(self.clients:wait(15000))
  assert(self.clients:code() == 0, self.clients:stderr())
  local out, times = { total = 0, ok = 0, failures = {} }, {}
  for began, ms, result in self.clients:stdout():gmatch "(%d+) ([%d.]+) (%S+)\n" do
    if tonumber(began) >= from_us and tonumber(began) <= to_us then
      out.total, times[#times + 1] = out.total + 1, tonumber(ms)
      if result == "ok" then out.ok = out.ok + 1 else out.failures[result] = (out.failures[result] or 0) + 1 end
    end
  end
  table.sort(times)
  out.median_ms, out.slowest_ms = times[(#times + 1) // 2] or 0, times[#times] or 0
  return out
end

-- Ends all of it; nothing stays. Idempotent. A closing Lua state may have closed the pipe already.
function Field:close()
  if io.type(self.keeper) == "file" then self.keeper:close() end
end
Field.__close, Field.__gc = Field.close, Field.close

return M
