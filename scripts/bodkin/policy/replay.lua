-- SPDX-License-Identifier: MIT
-- Walks a record of a policy desk (servers/recording.lua) again: a new desk is told the same and must tell the same,
-- byte for byte.

local desks = require "bodkin.policy.desk"
local links = require "bodkin.policy.link"

local M = {}

M.HEAD = "^bodkin%-desk (%S+) ?(%d*)"
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

-- Whether it may be the first part of a line.
local function is_part(line)
  return line:find "^[=<>]" ~= nil or ("bodkin-desk " .. FORMAT):sub(1, #line) == line
end

-- Each line of a record as fn(mark, message, packed, number). Mark "#": a chunk begins; message is true there where a
-- server before it ended, false where the same one goes on. A line that such an end cut off is left out: cut_off(its
-- number). true, or nil, message, number.
function M.each(lines, fn, cut_off)
  local number, cut = 0, nil -- cut: of the line before, where it is none
  for line in lines do
    number = number + 1
    local version, of_server = line:match(M.HEAD)
    if version and version ~= FORMAT then
      return nil, ("a record of format %s; this version reads %s"):format(version, FORMAT), number
    end
    if number == 1 and not version then return nil, "this is no record of policies", 1 end
    if cut and not version then return nil, cut, number - 1 end
    if cut and cut_off then cut_off(number - 1) end
    local mark, packed, message = version and "#" or line:sub(1, 1), line:sub(2), nil
    if version then message = cut ~= nil or of_server == "0" end
    if mark:find "[=<>]" then message = links.unpack(packed) end
    cut = nil
    if message == nil then
      cut = "not a line of a record: " .. line:sub(1, 40):gsub("[^\32-\126]", "?")
      if not is_part(line) then return nil, cut, number end
    else
      local ok, why = fn(mark, message, packed, number)
      if ok == false then return nil, why, number end
    end
  end
  if number == 0 then return nil, "the file is empty", 0 end
  if cut and cut_off then cut_off(number) end
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

-- lines: an iterator; each(mark, message): sees every line after it was checked; cut_off: see M.each. Returns
-- { chunks =, inputs =, outputs =, unheard = outputs that were never heard of: the desk's process ended, or the
-- record }; or nil, message, number of the line that differs or is none.
function M.run(lines, each, cut_off)
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
  handlers["#"] = function(is_end)
    if desk then
      local ok, why = complete(is_end)
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
    if good ~= false and each then each(mark, mark ~= "#" and message or nil) end
    return good, wrong
  end, cut_off)
  if desk then complete(true) end
  if not ok then return nil, why, number end
  return result
end

return M
