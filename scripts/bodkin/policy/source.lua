-- SPDX-License-Identifier: MIT
-- The text of a policy and of the files beside it that it requires, read at one moment: what is loaded later, also
-- again after a failure, is what was read then, whatever became of the files.
--
--   { name = "skill" }                                                     one that ships
--   { name = path, files = { { name = "policy", chunkname =, text = }, { name = "lib", … }, … } }   the policy first

local suggestion = require "bodkin.suggestion"

local M = {}

M.BUILTIN = {
  first_come = true, skill = true, rooms = true, teams = true, lobby = true, latency_first = true,
  host_and_clients = true,
}

local shipped = {}
for name in pairs(M.BUILTIN) do shipped[#shipped + 1] = name end
table.sort(shipped)

local FILES_MAX, BYTES_MAX = 64, 1 << 20

local function read_file(path)
  local file, why = io.open(path, "rb")
  if not file then return nil, why end
  local text, err = file:read(BYTES_MAX + 1)
  file:close()
  if not text and err then return nil, path .. ": " .. err end -- a directory
  text = text or "" -- at its end at once
  if #text > BYTES_MAX then return nil, path .. ": longer than a megabyte" end
  return text
end

-- The names that a text requires, literally. What is required by a name made up at run time is not found.
local function required(text)
  local list = {}
  for _, name in text:gmatch [[%f[%w_]require%s*%(?%s*(["'])([%w_][%w_.%-]*)%1]] do list[#list + 1] = name end
  return list
end

-- The source in a file, or the one that ships under this name. nil, message, code on failure.
function M.read(path)
  if M.BUILTIN[path] then return { name = path } end
  local text, why = read_file(path)
  if not text then return nil, ("cannot read the policy: %s%s"):format(why, suggestion(path, shipped)), "invalid" end
  local dir = path:match "^(.*/)" or ""
  local files, seen = { { name = "policy", chunkname = "@" .. path, text = text } }, { policy = true, bodkin = true }
  local i = 1
  while files[i] do
    for _, name in ipairs(required(files[i].text)) do
      if not seen[name] then
        seen[name] = true
        local at = dir .. name:gsub("%.", "/") .. ".lua"
        local beside = read_file(at) -- where there is none, its require says so, with file and line
        if beside then files[#files + 1] = { name = name, chunkname = "@" .. at, text = beside } end
        if #files > FILES_MAX then
          return nil, ("%s requires more than %d files"):format(path, FILES_MAX), "invalid"
        end
      end
    end
    i = i + 1
  end
  return { name = path, files = files }
end

-- A source of text alone, for specs and whoever has a policy at hand.
function M.text(text, chunkname, beside)
  local files = { { name = "policy", chunkname = chunkname or "@policy.lua", text = text } }
  for name, other in pairs(beside or {}) do
    files[#files + 1] = { name = name, chunkname = "@" .. name .. ".lua", text = other }
  end
  return { name = files[1].chunkname:sub(2), files = files }
end

return M
