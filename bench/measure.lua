-- SPDX-License-Identifier: MIT
-- What the benches share: processes in a directory of their own, the CPU time each used, medians.

local shell = require "bodkin.lab.shell"

local M = {}

-- A place for a bench's processes; :close() ends them and removes it.
local Place = {}
Place.__index = Place

function M.place()
  return setmetatable({ dir = select(2, shell.run "mktemp -d"):gsub("\n", ""), started = {} }, Place)
end

-- Starts a command, on one processor where `cpu` says which; with a pattern: what it captured of the output, awaited.
function Place:start(name, command, pattern, cpu)
  local out = ("%s/%s"):format(self.dir, name:gsub("%W+", "-"))
  local pin = cpu and M.pin(cpu) or ""
  local _, pid = shell.run(("{ exec %s%s >%s 2>&1 </dev/null; } & echo $!"):format(pin, command, out))
  local process = { name = name, pid = tonumber(pid:match "%d+"), out = out }
  table.insert(self.started, process)
  if not pattern then return process end
  local found = shell.await(5000, function() return (shell.read(out) or ""):match(pattern) end)
  return process, found or error(("%s: nothing like %q, but\n%s"):format(command, pattern, shell.read(out)), 0)
end

function Place:close()
  for _, process in ipairs(self.started) do shell.run(("kill %d"):format(process.pid)) end
  shell.run("rm -rf " .. self.dir)
end

-- The beginning of a command that is to stay on that processor; nothing where there is only one.
function M.pin(cpu)
  local _, cpus = shell.run "nproc"
  return tonumber(cpus) > 1 and ("taskset -c %d "):format(cpu) or ""
end

-- What the process used of the CPU so far, in user mode and in the kernel, in s.
function M.cpu_s(process)
  local stat = assert(shell.read(("/proc/%d/stat"):format(process.pid)), process.name .. " has ended")
  local user, system = stat:match("^.*%) %a" .. (" %S+"):rep(10) .. " (%d+) (%d+)") -- see proc(5)
  return (tonumber(user) + tonumber(system)) / 100
end

function M.median(list)
  local sorted = table.move(list, 1, #list, 1, {})
  table.sort(sorted)
  return (sorted[(#sorted + 1) // 2] + sorted[#sorted // 2 + 1]) / 2
end

-- Runs a bench's main(place), in a new place unless there is one; the exit code of its script.
function M.run(main, place)
  place = place or M.place()
  local ok, message = pcall(main, place)
  place:close()
  if ok then return 0 end
  io.stderr:write("bench: ", tostring(message), "\n")
  return 1
end

return M
