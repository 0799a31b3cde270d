-- SPDX-License-Identifier: MIT
-- JSON as text: dkjson, with the wire's null and arrays, and stable order of keys.

local core = require "bodkin.core"
local dkjson = require "dkjson"

local M = {}

local wire = core.wire

local function from_json(value)
  if value == dkjson.null then return wire.null end
  if type(value) ~= "table" then return value end
  local meta, out = getmetatable(value), {}
  for k, v in pairs(value) do out[k] = from_json(v) end
  return meta and meta.__jsontype == "array" and wire.array(out) or out
end

-- dkjson takes `{"a" 1}`, and a name in an array; such a table is neither. Nor may one be deeper than can be walked.
local DEPTH_MAX = 1000
local function well_formed(value, depth)
  if type(value) ~= "table" or value == dkjson.null then return true end
  if depth == 0 then return false end
  local is_array, count = getmetatable(value).__jsontype == "array", 0
  for k, v in pairs(value) do
    count = count + 1
    if (type(k) == "string") == is_array or not well_formed(v, depth - 1) then return false end
  end
  return not is_array or count == #value
end

-- The value, or nil and what is wrong.
function M.decode(text)
  local ok, value, at, err = pcall(dkjson.decode, text, 1, dkjson.null)
  if not ok then return nil, "nested too deeply" end -- it has run out of stack
  if err then return nil, (err:gsub(" at line 1, column", " at column")) end
  if text:find("%S", at) then return nil, "more than one value" end
  if not well_formed(value, DEPTH_MAX) then
    return nil, 'an object holds pairs "name": value and an array none, and it is nested at most 1000 deep'
  end
  return from_json(value)
end

local base64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

function M.base64(bytes)
  local out = {}
  for i = 1, #bytes, 3 do
    local a, b, c = bytes:byte(i, i + 2)
    local n = a << 16 | (b or 0) << 8 | (c or 0)
    for shift = 18, 0, -6 do
      local at = (n >> shift & 63) + 1
      out[#out + 1] = base64:sub(at, at)
    end
    if not b then out[#out - 1] = "=" end
    if not c then out[#out] = "=" end
  end
  return table.concat(out)
end

-- Keys in `order` first, the others sorted. Empty tables are objects unless they stand under one of `arrays`.
local function to_json(value, key, arrays)
  if value == wire.null then return dkjson.null end
  if type(value) == "string" then return utf8.len(value) and value or M.base64(value) end
  if type(value) ~= "table" then return value end
  local out = {}
  for k, v in pairs(value) do out[k] = to_json(v, k, arrays) end
  local is_array = #value > 0 or (next(value) == nil and arrays[key])
  return setmetatable(out, { __jsontype = is_array and "array" or "object" })
end

local array_keys = { public = true, ["local"] = true, peers = true, why = true, entries = true, counters = true,
  paths = true, peer_public = true, peer_local = true, matches = true, ends = true, members = true,
  roles = true, listening = true, urls = true, pairs = true, failed = true, errors = true,
  direct = true, relay = true, timing = true, unknown = true, asked = true }

local function escaped(char)
  local code = utf8.codepoint(char)
  if code < 0x10000 then return ("\\u%04x"):format(code) end
  code = code - 0x10000
  return ("\\u%04x\\u%04x"):format(0xd800 | code >> 10, 0xdc00 | code & 0x3ff)
end

-- One line. Strings that are not UTF-8 are given in base64; what is not to be seen on a terminal is escaped.
function M.encode(value, order)
  local text = dkjson.encode(to_json(value, nil, array_keys), { keyorder = order })
  -- What dkjson leaves of that: U+061C, U+200B, and the tags from U+E0000 on.
  text = text:gsub("\xd8\x9c", escaped):gsub("\xe2\x80\x8b", escaped)
  return (text:gsub("\xf3\xa0[\x80\x81][\x80-\xbf]", escaped))
end

return M
