-- SPDX-License-Identifier: MIT
-- Processes that a spec starts on loopback, read line by line, and a directory of their own; all of it is
-- gone after close().

local M = {}
local Processes = {}
Processes.__index = Processes

function M.new()
  local dir = assert(io.popen("mktemp -d")):read("l")
  return setmetatable({ list = {}, dir = dir }, Processes)
end

-- Starts a command, for 20 s at the most. `input`: with a pipe to its stdin, p.input.
function Processes:start(command, input)
  local p, fifo = {}, self.dir .. "/in" .. #self.list
  if input then assert(os.execute("mkfifo " .. fifo)) end
  p.out = assert(io.popen(("echo $$; exec timeout 20 %s 2>&1 <%s"):format(command, input and fifo or "/dev/null")))
  p.pid = p.out:read("l")
  if input then
    p.input = assert(io.open(fifo, "w"))
    p.input:setvbuf("line")
  end
  self.list[#self.list + 1] = p
  return p
end

-- Reads lines until one matches; what it captured.
function M.expect(p, pattern)
  local seen = {}
  for line in p.out:lines() do
    seen[#seen + 1] = line
    local found = line:match(pattern)
    if found then return found end
  end
  error(("no line like %q, but:\n%s"):format(pattern, table.concat(seen, "\n")), 2)
end

function Processes:close()
  for _, p in ipairs(self.list) do
    if p.input then p.input:close() end
    if io.type(p.out) == "file" then
      os.execute("kill " .. p.pid .. " 2>/dev/null")
      p.out:close()
    end
  end
  os.execute("rm -r " .. self.dir)
end

return M
