-- SPDX-License-Identifier: MIT
-- Writes the transcript and the plot of docs/SIM.md again:  bodkin run docs/sim.lua
-- It runs what the document tells its reader to type.

local M = {}

local function read(path)
  local file <close> = assert(io.open(path))
  return file:read "a"
end

local function write(path, text)
  local file <close> = assert(io.open(path, "w"))
  file:write(text)
end

-- The document in three: up to the command, the command, its output, and what follows.
function M.parts()
  local before, command, shown, after = read "docs/SIM.md":match "^(.-```\n%$ )(bodkin sim [^\n]*)\n(.-)(```\n.*)$"
  return assert(before), command, shown, after
end

-- The command's output; bodkin: where the binary is; svg: where the plot goes.
function M.output(bodkin, command, svg)
  command = command:gsub("^bodkin", bodkin):gsub("%-%-svg %S+", "--svg " .. svg)
  local pipe = assert(io.popen(command))
  local text = pipe:read "a"
  assert(pipe:close(), command)
  return text
end

function M.write(bodkin)
  local before, command, _, after = M.parts()
  local text = M.output(bodkin, command, "docs/sim.svg")
  write("docs/SIM.md", before .. command .. "\n" .. text .. after)
end

if arg and (arg[0] or ""):find "docs/sim%.lua$" then M.write(os.getenv "BODKIN" or "build/release/bodkin") end

return M
