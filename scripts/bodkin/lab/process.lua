-- SPDX-License-Identifier: MIT
-- A process inside one of the lab's namespaces, with its output in files. What it starts goes with the lab.

local shell = require "bodkin.lab.shell"

local M = {}
local Process = {}
Process.__index = Process

-- Starts options[1..] in namespace `ns`; files go to `base`.out and so on. options: stdin (path; "pipe": see write;
-- default /dev/null), stdout, stderr (paths), env (name = value), realtime (a scheduling priority, for measuring).
-- `hosts`: a file that it finds as /etc/hosts. Misuse throws; a command that is not there ends with 127 and says so on
-- stderr.
function M.start(ns, base, options, hosts)
  assert(options[1], "start: a command expected")
  local self = setmetatable({
    out = options.stdout or base .. ".out", err = options.stderr or base .. ".err",
    pid_file = base .. ".pid", code_file = base .. ".code", words = options,
  }, Process)
  local words = { "env" }
  if hosts then
    words = { "unshare", "--mount", "sh", "-c", 'mount -n --bind "$0" /etc/hosts && exec "$@"', hosts, "env" }
  end
  for name, value in pairs(options.env or {}) do words[#words + 1] = name .. "=" .. value end
  if options.realtime then table.move({ "chrt", "-f", "1" }, 1, 3, #words + 1, words) end
  table.move(options, 1, #options, #words + 1, words)
  local piped = options.stdin == "pipe"
  -- nsenter and both execs keep the number that the inner shell writes down. The outer one waits for it in the
  -- background, so as not to write "Killed" into its output.
  local command = ([[%s( nsenter --net=/run/netns/%s setsid -w sh -c 'echo $$ >"$0"; exec "$@"' %s %s %s >%s 2>%s &
    wait $!; code=$?; [ ! -d %s ] || echo $code >%s ) >/dev/null 2>&1 &]]):format(
    piped and "exec 4<&0; " or "", ns, shell.quote(self.pid_file), shell.join(words),
    piped and "<&4" or "<" .. shell.quote(options.stdin or "/dev/null"), shell.quote(self.out), shell.quote(self.err),
    shell.quote(base:match "^(.*)/"), shell.quote(self.code_file))
  local pipe = assert(io.popen(command, piped and "w" or "r"))
  if piped then
    pipe:setvbuf "line"
    self.stdin = pipe
  else
    pipe:close()
  end
  self.pid = shell.await(5000, function() return tonumber((shell.read(self.pid_file) or ""):match "^(%d+)\n") end)
  if not self.pid then error("start: no shell in namespace " .. ns .. ": " .. (shell.read(self.err) or ""), 2) end
  return self
end

-- Its exit code (128 + n after signal n), or nil while it runs.
function Process:code()
  return tonumber((shell.read(self.code_file) or ""):match "^(%d+)\n")
end

-- Waits for its end: the exit code, or nil, message, "timeout".
function Process:wait(timeout_ms)
  local code = shell.await(timeout_ms or 10000, function() return self:code() end)
  if code then return code end
  return nil, ("%s still runs after %d ms"):format(self.words[1], timeout_ms or 10000), "timeout"
end

-- Sends a signal ("KILL", "INT", …; default TERM) to it alone.
function Process:kill(signal)
  if not self:code() then shell.run(("kill -%s %d"):format(signal or "TERM", self.pid)) end
end

-- The same to it and all that it started, but for what has made itself a group of its own; or to what it left behind.
function Process:kill_group(signal)
  shell.run(("kill -s %s -- -%d"):format(signal or "TERM", self.pid))
end

-- What it wrote so far.
function Process:stdout() return shell.read(self.out) or "" end
function Process:stderr() return shell.read(self.err) or "" end

-- The complete lines of its standard output so far.
function Process:lines()
  local lines = {}
  for line in self:stdout():gmatch "([^\n]*)\n" do lines[#lines + 1] = line end
  return lines
end

-- Waits for a line of `read()` in which `pattern` is found; see the two below.
local function expect(self, read, pattern, timeout_ms)
  local found
  shell.await(timeout_ms or 5000, function()
    local ended = self:code()
    for line in read(self):gmatch "([^\n]*)\n" do
      if line:find(pattern) then
        found = table.pack(line, line:match(pattern))
        return true
      end
    end
    return ended
  end)
  if found then return table.unpack(found, 1, found.n) end
  return nil, ("%s said nothing like '%s' in %d ms (exit code %s)\n%s%s"):format(table.concat(self.words, " "), pattern,
    timeout_ms or 5000, self:code() or "none yet", self:stdout(), self:stderr()), "timeout"
end

-- Waits for a line of its standard output in which `pattern` is found (default 5000 ms): the line and what the
-- pattern captured; or nil, message, "timeout" (also when it ended without).
function Process:expect(pattern, timeout_ms)
  return expect(self, self.stdout, pattern, timeout_ms)
end

-- The same of its standard error.
function Process:expect_error(pattern, timeout_ms)
  return expect(self, self.stderr, pattern, timeout_ms)
end

-- With stdin = "pipe": writes to its standard input; finish ends it.
function Process:write(text)
  self.stdin:write(text)
  self.stdin:flush()
end

function Process:finish()
  if self.stdin then self.stdin:close() end
  self.stdin = nil
end

return M
