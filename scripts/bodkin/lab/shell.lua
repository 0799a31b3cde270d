-- SPDX-License-Identifier: MIT
-- What the lab needs of the operating system and stock Lua does not have, by way of sh and /proc.

local M = {}

-- Quotes a word for sh.
function M.quote(word)
  return "'" .. tostring(word):gsub("'", "'\\''") .. "'"
end

-- Quotes a list of words into one command.
function M.join(words)
  local out = {}
  for i, word in ipairs(words) do out[i] = M.quote(word) end
  return table.concat(out, " ")
end

-- Runs a script; returns true, or false, with all it printed. A Ctrl-C, which the terminal sends to it, too, is its
-- caller's matter: no script is left half done.
function M.run(script)
  local p = assert(io.popen("exec 2>&1; trap '' HUP INT QUIT; " .. script, "r"))
  local text = p:read("a")
  return p:close() == true, text
end

-- The program that runs this.
function M.exe()
  local _, path = M.run "readlink /proc/$PPID/exe"
  return (path:gsub("\n$", ""))
end

-- Contents of a file, or nil.
function M.read(path)
  local f = io.open(path, "rb")
  if not f then return nil end
  local text = f:read("a")
  f:close()
  return text
end

function M.write(path, text)
  local f = assert(io.open(path, "wb"))
  assert(f:write(text))
  assert(f:close())
end

-- Seconds on a clock that never jumps; it ticks in hundredths.
function M.uptime()
  return tonumber(M.read("/proc/uptime"):match("^[%d.]+"))
end

function M.sleep_ms(ms)
  io.popen(("exec sleep %.3f"):format(ms / 1000)):close() -- popen, unlike execute, keeps no pipe of ours open in it
end

-- Calls `ready` every few ms until it returns a true value, which is returned, or until the time is up: nil.
function M.await(timeout_ms, ready)
  local deadline = M.uptime() + timeout_ms / 1000
  while true do
    local value = ready()
    if value then return value end
    if M.uptime() >= deadline then return nil end
    M.sleep_ms(5)
  end
end

-- The number of this process, and the moment it started (in clock ticks since boot): together they never
-- come again, as a number alone does.
function M.self()
  local stat = M.read("/proc/self/stat")
  return tonumber(stat:match("^%d+")), M.started(stat)
end

-- The start time in a line of /proc/PID/stat; the name in parentheses may hold anything.
function M.started(stat)
  local fields = stat:match("^.*%)(.*)$")
  local n = 2
  for field in fields:gmatch("%S+") do
    n = n + 1
    if n == 22 then return field end
  end
end

-- True when the process with this number and start time (nil: any) is there.
function M.alive(pid, started)
  local stat = M.read(("/proc/%d/stat"):format(pid))
  return stat ~= nil and (not started or M.started(stat) == started)
end

return M
