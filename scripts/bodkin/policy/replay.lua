-- SPDX-License-Identifier: MIT
-- Walks a record of a policy desk (servers/recording.lua) again: a new desk is told the same and must tell the same,
-- byte for byte.

local desks = require "bodkin.policy.desk"
local links = require "bodkin.policy.link"

local M = {}

M.HEAD = "^bodkin%-desk (%S+)"
local FORMAT = "1"

local function value_text(v)
  if type(v) == "string" then
    return utf8.len(v) and not v:find "%c" and ("%q"):format(v) or (v:gsub(".", function(c)
      return ("%02x"):format(c:byte())
    end))
  end
  if type(v) ~= "table" then return type(v) == "userdata" and "null" or tostring(v) end
  local out, keys = {}, {}
  for key in pairs(v) do keys[#keys + 1] = key end
  table.sort(keys, function(a, b) return tostring(a) < tostring(b) end)
  if #v == #keys then
    for i, one in ipairs(v) do out[i] = value_text(one) end
  else
    for i, key in ipairs(keys) do out[i] = ("%s = %s"):format(tostring(key), value_text(v[key])) end
  end
  return "{ " .. table.concat(out, ", ") .. " }"
end

-- A message for people; files are shown by their length.
function M.text(message)
  local words = {}
  for i, word in ipairs(message) do
    words[i] = i == 1 and tostring(word) or value_text(word)
    if #words[i] > 400 then words[i] = words[i]:sub(1, 60) .. ("… (%d bytes)"):format(#words[i]) end
  end
  return table.concat(words, " ")
end

local function shown(packed)
  local message = packed and links.unpack(packed)
  return message and M.text(message) or "nothing"
end

-- Each line of a record as fn(mark, message, packed, number); mark "#": a chunk begins. true, or nil, message, number.
function M.each(lines, fn)
  local number = 0
  for line in lines do
    number = number + 1
    local version = line:match(M.HEAD)
    if version and version ~= FORMAT then
      return nil, ("a record of format %s; this version reads %s"):format(version, FORMAT), number
    end
    if number == 1 and not version then return nil, "this is no record of policies", 1 end
    local mark, packed = line:sub(1, 1), line:sub(2)
    local message = not version and (mark == "=" or mark == "<" or mark == ">") and links.unpack(packed)
    if not version and not message then
      return nil, "not a line of a record: " .. line:sub(1, 40):gsub("[^\32-\126]", "?"), number
    end
    local ok, why = fn(version and "#" or mark, message, packed, number)
    if ok == false then return nil, why, number end
  end
  if number == 0 then return nil, "the file is empty", 0 end
  return true
end

-- What a desk knew as a chunk began.
local function begin(desk, message)
  if message[1] == "add" then -- as it was told of a ticket that has been admitted since
    local _, queue, _, no, app, since_ms, members, _, _, seats = table.unpack(message, 1, 10)
    return desk:input { "wait", queue, no, app, since_ms, members, seats or false }
  end
  desk:input(message)
end

-- lines: an iterator; each(mark, message): sees every line after it was checked. Returns { chunks =, inputs =,
-- outputs =, unheard = outputs that were never heard of: the desk's process ended, or the record }; or nil, message,
-- number of the line that differs or is none.
function M.run(lines, each)
  local result = { chunks = 0, inputs = 0, outputs = 0, unheard = 0 }
  local desk, told, first, count, muted, last
  -- A desk that was told to renew was heard to the end.
  local function complete(is_end)
    local left = count - first + 1
    if last == "renew" and left > 0 and not is_end then
      return false, "recorded: nothing more\nreplayed: " .. shown(told[first])
    end
    result.unheard = result.unheard + left
    desk:close()
    return true
  end
  local handlers = {}
  handlers["#"] = function()
    if desk then
      local ok, why = complete()
      if not ok then return ok, why end
    end
    told, first, count, last = {}, 1, 0, nil
    desk = desks.new(function(message)
      local packed = not muted and links.pack(message)
      if not packed then return end -- the process could not tell it either
      count = count + 1
      told[count] = packed
    end)
    result.chunks = result.chunks + 1
  end
  handlers["="] = function(message)
    muted = true
    begin(desk, message)
    muted = false
  end
  handlers["<"] = function(message)
    desk:input(message)
    result.inputs, last = result.inputs + 1, message[1]
  end
  handlers[">"] = function(_, packed)
    if told[first] ~= packed then
      return false, ("recorded: %s\nreplayed: %s"):format(shown(packed), shown(told[first]))
    end
    told[first], first = nil, first + 1
    result.outputs = result.outputs + 1
  end
  local ok, why, number = M.each(lines, function(mark, message, packed)
    local good, wrong = handlers[mark](message, packed)
    if good ~= false and each then each(mark, message) end
    return good, wrong
  end)
  if desk then complete(true) end
  if not ok then return nil, why, number end
  return result
end

return M
