-- SPDX-License-Identifier: MIT
-- Which key a server is known by where its URL names none: those that were trusted at first use, a line for each server
-- in a text file, "HOST:PORT KEY[,KEY]". Comments and lines that are not understood stay as they are.
-- Options: known_servers (the file); files stands for core.file in specs. `where` is what bodkin.url.parse returned.

local core = require "bodkin.core"
local url = require "bodkin.url"

local M = {}

local WRITABLE_BY_OTHERS = 18 -- 022

local function set(name)
  local value = os.getenv(name)
  return value and value:sub(1, 1) == "/" and value or nil
end

-- The file, or nil where there is no home for it.
function M.path(options)
  if options.known_servers then return options.known_servers end
  local base = set "XDG_CONFIG_HOME" or set "HOME" and set "HOME" .. "/.config"
  return base and base .. "/bodkin/known_servers"
end

-- One text for each server, however its address is written.
local function place_of(where)
  local place = url.place(where.host:lower(), where.port)
  local addr = core.addr.parse(place)
  return addr and core.addr.format(addr) or place
end

-- The lines of the file, none where it is not there; or nil, message, code.
local function lines_of(options, path)
  local text, message, code, word = (options.files or core.file).read(path, WRITABLE_BY_OTHERS)
  if word == "absent" then return {} end
  if word == "exposed" then
    return nil, ("%s can be written by others than its owner, so anybody says whom you trust: look it over, then "
      .. "chmod 600 %s"):format(path, path), "invalid"
  end
  if not text then return nil, ("cannot read the known servers, %s: %s"):format(path, message), code end
  local lines = {}
  for line in text:gmatch "[^\n]+" do lines[#lines + 1] = line end
  return lines
end

-- { keys =, number = of its line, path =, lines = }, keys and number nil where the server is not in it; or nil,
-- message, code. A line that names the server and no keys is an error: nobody may be trusted in its place.
local function find(options, where)
  local path, place = M.path(options), place_of(where)
  if not path then return { lines = {} } end
  local lines, message, code = lines_of(options, path)
  if not lines then return nil, message, code end
  for number, line in ipairs(lines) do
    local name, rest = line:match "^%s*([^%s#]+)%s*(.-)%s*$"
    if name and name:lower() == place then
      local keys, why = url.keys(rest)
      if not keys then
        return nil, ("line %d of %s is not right (%s): mend it, or remove it to trust anew"):format(number, path, why),
          "invalid"
      end
      return { keys = keys, number = number, path = path, lines = lines }
    end
  end
  return { path = path, lines = lines }
end

-- The server's keys, { 32 bytes, … }, as remembered; nil where it is not known; or nil, message, code.
function M.known(options, where)
  local found, message, code = find(options, where)
  if not found then return nil, message, code end
  return found.keys
end

local function has(keys, key)
  for _, one in ipairs(keys) do
    if one == key then return true end
  end
  return false
end

local function changed(found, where)
  return ("the key of %s is not the one that line %d of %s remembers: does somebody pose as this server, who would "
    .. "read and decide whom you meet, or did its owner change the key? Ask the owner. If it was changed, use the URL "
    .. "that bodkin serve prints there, or remove that line and trust again"):format(place_of(where), found.number,
    found.path), "bad_key"
end

-- What to say where a server answered with none of the keys remembered: message, "bad_key". nil where it is not known.
function M.changed(options, where)
  local found = find(options, where)
  if found and found.keys then return changed(found, where) end
end

-- Notes the keys of a server: true, or nil, message, code. One that is known keeps its keys, whatever is said now,
-- unless `by` is given: the key, one of those remembered, under which the new ones were told.
function M.remember(options, where, keys, by)
  local found, message, code = find(options, where)
  if not found then return nil, message, code end
  if not found.path then return nil, "cannot remember the server: $HOME is not set; give known_servers", "invalid" end
  local lines, line = found.lines, ("%s %s"):format(place_of(where), url.key_text(keys))
  if found.keys and url.key_text(found.keys) == url.key_text(keys) then return true end
  if found.keys and not (by and has(found.keys, by)) then return nil, changed(found, where) end
  lines[found.number or #lines + 1] = line
  local files = options.files or core.file
  local ok, why, why_code = files.make_parents(found.path)
  if ok then ok, why, why_code = files.write(found.path, table.concat(lines, "\n") .. "\n", true) end
  if not ok then return nil, ("cannot write the known servers, %s: %s"):format(found.path, why), why_code end
  return true
end

-- What a client says of a URL without a key, of a server it does not know: message, "bad_key".
function M.refusal(where)
  return ("who is it that answers at %s? The URL has no key, so anybody on the way could pose as this server, and then "
    .. "read and decide whom you meet. Give the URL with its #KEY, as bodkin serve prints it there; or "
    .. "--trust-first-use (trust_first_use): then the first key that answers is taken for the server's, and remembered")
    :format(place_of(where)), "bad_key"
end

return M
