-- SPDX-License-Identifier: MIT
-- Real processes on loopback: starting them, feeding them no faster than they read, asking for their counters.

local core = require "bodkin.core"
local json = require "bodkin.json"

local addr = core.addr

local M = {}

M.build = os.getenv "BUILD" or "build"
M.asan = M.build .. "/asan/bodkin"
M.release = M.build .. "/release/bodkin"

local function read_file(path)
  local file = io.open(path, "rb")
  if not file then return nil end
  local text = file:read("a")
  file:close()
  return text
end
M.read_file = read_file

function M.write_file(path, text)
  local file = assert(io.open(path, "wb"))
  assert(file:write(text))
  file:close()
end

M.self = read_file("/proc/self/stat"):match "^%d+"

local function quote(word) return "'" .. tostring(word):gsub("'", "'\\''") .. "'" end

local function command_of(words)
  local out = {}
  for i, word in ipairs(words) do out[i] = quote(word) end
  return table.concat(out, " ")
end

-- Runs a command to its end; what it printed, and whether it succeeded.
function M.run(words)
  local pipe = assert(io.popen("exec 2>&1; " .. command_of(words)))
  local text = pipe:read("a")
  return text, pipe:close() == true
end

local World = {}
World.__index = World

-- A real env, a directory of its own, and the processes started in it.
function M.world()
  local pipe <close> = assert(io.popen("mktemp -d /tmp/bodkin-hostile.XXXXXX"))
  return setmetatable({
    env = require("bodkin.env").new(), dir = assert(pipe:read("l")), processes = {},
  }, World)
end

-- One turn of the loop, or `ms` of it.
function World:turn(ms)
  self.env.timer(ms or 0, self.env.stop)
  self.env.run()
end

-- Turns until fn() is true, which is returned; world.idle, where set, is called in between.
function World:wait(what, ms, fn)
  local start, idle = core.now(), self.idle
  while true do
    if idle then
      self.idle = nil -- it may wait, too
      idle()
      self.idle = idle
    end
    local value = fn()
    if value then return value end
    if core.now() - start > ms * 1000 then error(("%s: not in %d ms"):format(what, ms), 2) end
    self:turn(1)
  end
end

local Process = {}
Process.__index = Process

-- Starts a program. Its output goes to files; after a sanitizer's report it ends with 99.
function World:start(words)
  local base = ("%s/%d"):format(self.dir, #self.processes + 1)
  local p = setmetatable({ world = self, base = base, words = words }, Process)
  -- A shell keeps its exit code; another ends it should this process be killed.
  local script = [[( ASAN_OPTIONS=exitcode=99 LSAN_OPTIONS=exitcode=99 \
    UBSAN_OPTIONS=exitcode=99:print_stacktrace=1 WORDS \
    </dev/null >BASE.out 2>BASE.err & pid=$!; echo $pid >BASE.new; mv BASE.new BASE.pid
    { while kill -0 $pid; do kill -0 SELF || kill -KILL $pid; sleep 2; done; } &
    wait $pid; echo $? >BASE.new; mv BASE.new BASE.code ) </dev/null >/dev/null 2>&1 &]]
  os.execute((script:gsub("%u%u%u%u%u?", { WORDS = command_of(words), BASE = base, SELF = M.self })))
  self.processes[#self.processes + 1] = p
  p.pid = self:wait("the start of " .. words[1], 5000, function()
    return math.tointeger(tonumber(read_file(base .. ".pid") or ""))
  end)
  return p
end

function Process:stdout() return read_file(self.base .. ".out") or "" end
function Process:stderr() return read_file(self.base .. ".err") or "" end

-- Its exit code, or nil while it lives.
function Process:code()
  return math.tointeger(tonumber(read_file(self.base .. ".code") or ""))
end

-- Waits for a line of its output in which `pattern` is; what that captured.
function Process:expect(pattern, ms)
  return self.world:wait(("%s: '%s'"):format(table.concat(self.words, " "), pattern), ms or 10000, function()
    local text = self:stdout()
    local found = text:match(pattern)
    if not found and self:code() then
      error(("%s ended with %d:\n%s%s"):format(table.concat(self.words, " "), self:code(), text, self:stderr()))
    end
    return found
  end)
end

function Process:rss_kb()
  return tonumber((read_file(("/proc/%d/status"):format(self.pid)) or ""):match("VmRSS:%s*(%d+)"))
end

function Process:wait(ms)
  return self.world:wait("the end of " .. table.concat(self.words, " "), ms or 5000, function() return self:code() end)
end

function Process:stop()
  if not self:code() then os.execute("kill -TERM " .. self.pid) end
  return self:wait()
end

-- The lives of all processes end here; whatever is left is killed.
function World:close()
  for _, p in ipairs(self.processes) do
    if not p:code() then os.execute("kill -KILL " .. p.pid) end
  end
  for _, p in ipairs(self.processes) do pcall(p.wait, p) end
  self.env.close()
  os.execute("rm -r " .. quote(self.dir))
end

-- A server. Gives .at (packed), .url, .key, .admin, and where it listens on TCP .tcp_port.
function World:serve(binary, roles, config, listen_tcp)
  local admin = ("%s/admin-%d"):format(self.dir, #self.processes + 1)
  local words = { binary, "serve", "--json", "--listen", "127.0.0.1:0", "--roles", roles, "--admin", admin }
  if roles == "relay" then -- it needs the key of a matching server, be there one or not
    local key = admin .. ".key"
    assert(require("bodkin.keyfile").make(key))
    table.move({ "--key-file", key }, 1, 2, #words + 1, words)
  end
  if config then table.move({ "--config", config }, 1, 2, #words + 1, words) end
  if listen_tcp then table.move({ "--listen-tcp", listen_tcp }, 1, 2, #words + 1, words) end
  local p = self:start(words)
  p.at = assert(addr.parse(p:expect '"addr":"([^"]+)"'))
  p.url, p.admin = p:expect '"url":"([^"]+)"', admin
  p.tcp_port = require("bodkin.url").parse(p.url).tcp
  p.key = (require("bodkin.url").parse(p.url).keys or {})[1]
  return p
end

-- What `bodkin status` says: counters by name, and info. Asked twice: the answer to the first question may come
-- within the very turn in which the last datagram was read, before its replies left.
function M.status(p)
  local text, ok
  for _ = 1, 2 do text, ok = M.run { M.release, "status", "--json", "--admin", p.admin } end
  assert(ok, "no status: " .. text)
  local status = assert(json.decode(text))
  local counters = {}
  for _, c in ipairs(status.counters) do counters[c.name] = c.value end
  return counters, status.info
end

-- Bytes (with the kernel's overhead) that wait in the socket bound to `at`, and how many it dropped. While other
-- sockets come and go the kernel's table may be read with a row missing: so it is read again.
function M.backlog(at)
  local row = (": 0100007F:%04X"):format(addr.port(at)) .. " %x+:%x+ %x+ %x+:(%x+) [^\n]- (%d+)%s*\n"
  for _ = 1, 20 do
    local queue, drops = assert(read_file "/proc/net/udp"):match(row)
    if queue then return tonumber(queue, 16), tonumber(drops) end
  end
  error("no socket is bound to " .. addr.format(at), 2)
end

local Feeder = {}
Feeder.__index = Feeder

-- 64 datagrams of 1200 bytes need 147,456 bytes; the smallest default receive buffer (rmem_max 212,992, doubled)
-- holds them beside these.
local BACKLOG_MAX = 128 << 10

-- Sends to `to` from a socket of its own. on_reply(bytes, from) is called for all that comes back.
function World:feeder(to, on_reply)
  local f = setmetatable({ world = self, to = to, sent = 0, bytes = 0, got = 0, got_bytes = 0, queued = 0 }, Feeder)
  f.sock = assert(self.env.udp(addr.parse("127.0.0.1", 0)))
  f.sock:on_packet(function(from, bytes)
    f.got, f.got_bytes = f.got + 1, f.got_bytes + #bytes
    if f.on_reply then f.on_reply(bytes, from) end
  end)
  f.on_reply = on_reply
  f.from = f.sock:addr()
  return f
end

-- What the receiver has yet to read; when it is gone, why.
function Feeder:backlog()
  local ok, bytes = pcall(M.backlog, self.to)
  if ok then return bytes end
  self.world:turn(200)
  for _, p in ipairs(self.world.processes) do
    if p:code() and p:code() ~= 0 then
      error(("%s\n%s ended with %d:\n%s"):format(bytes, table.concat(p.words, " "), p:code(), p:stderr()), 2)
    end
  end
  error(bytes, 2)
end

function Feeder:send(bytes)
  assert(self.sock:send(self.to, bytes))
  self.sent, self.bytes, self.queued = self.sent + 1, self.bytes + #bytes, self.queued + 1
  if self.queued < 64 then return end
  self.queued = 0
  repeat self.world:turn() until self:backlog() < BACKLOG_MAX
end

-- Until all was read.
function Feeder:finish()
  self.queued = 0
  self.world:wait("the receiver's queue to be empty", 20000, function() return self:backlog() == 0 end)
  self:drain()
end

-- Until what came back was read, too. All of it is here once the sender has answered a question after.
function Feeder:drain()
  repeat self.world:turn() until M.backlog(self.from) == 0
  self.world:turn()
end

-- Sends once and waits for the answer that fits(bytes) accepts.
function Feeder:ask(bytes, fits)
  local before, answer = self.on_reply, nil
  self.on_reply = function(reply) answer = answer or fits(reply) end
  self:send(bytes)
  self.world:wait("an answer", 3000, function() return answer end)
  self.on_reply = before
  return answer
end

function Feeder:close() self.sock:close() end

-- By how much each counter grew.
function M.growth(before, after)
  local out = {}
  for name, value in pairs(after) do out[name] = value - before[name] end
  return out
end

-- "name n, name n" of what is not zero, sorted.
function M.listed(counts, pattern)
  local names, out = {}, {}
  for name, n in pairs(counts) do
    if n ~= 0 and (not pattern or name:find(pattern)) then names[#names + 1] = name end
  end
  table.sort(names)
  for i, name in ipairs(names) do out[i] = ("%s %d"):format(name, counts[name]) end
  return table.concat(out, ", ")
end

-- What was measured, as a comment of TAP.
function M.say(format, ...) print("# " .. format:format(...)) end

return M
