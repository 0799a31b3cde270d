-- SPDX-License-Identifier: MIT
-- What is known of a NAT, its *kind*: a number in messages (docs/PROTOCOL.md section 4), and a table of words in
-- records: { nat = whether there is one, mapping =, filtering = "endpoint", "address" or "address_port", two of them
-- ("address or address_port") where it is one of these, "unknown"; ports = "preserving", "sequential", "random" or
-- "unknown"; hairpin =, race = bool }, where nil is not known.

local M = {}

M.MAX = (1 << 14) - 1

-- What may be, a bit each: so the widths and places of both fields.
local MAPS = { "endpoint", "address", "address_port" }
local SHORT = { EI = 1, AD = 2, APD = 3 }
local ALL = 7
-- Others by their place in a list, 0 where they are not known.
local PORTS = { "preserving", "sequential", "random" }
local FILTERING, PORT, HAIRPIN, RACE, NAT = 3, 6, 8, 10, 12 -- the first bit of each; mapping's is 0

local function bits(set)
  local out = 0
  for name in pairs(set) do out = out | 1 << SHORT[name] - 1 end
  return out
end

local function truth(value)
  if value == nil then return 0 end
  return value and 2 or 1
end

-- What behaviour.discover found, as a number. without_filter: what it says of filtering does not count.
function M.of(found, without_filter)
  local ports = found.ports == "preserved" and "preserving" or found.ports
  local n = bits(found.mapping) | (without_filter and ALL or bits(found.filtering)) << FILTERING
  for i, word in ipairs(PORTS) do
    if word == ports then n = n | i << PORT end
  end
  return n | truth(found.hairpin) << HAIRPIN | truth(found.race) << RACE | truth(found.nat) << NAT
end

local function set_of(words)
  local out, any = 0, false
  for word in tostring(words):gmatch "[%a_]+" do
    for i, known in ipairs(MAPS) do
      if known == word then out, any = out | 1 << i - 1, true end
    end
  end
  return any and out or ALL
end

-- Words as a number; 0 for nil.
function M.pack(words)
  if not words then return 0 end
  local n = set_of(words.mapping) | set_of(words.filtering) << FILTERING
  for i, word in ipairs(PORTS) do
    if word == words.ports then n = n | i << PORT end
  end
  return n | truth(words.hairpin) << HAIRPIN | truth(words.race) << RACE | truth(words.nat) << NAT
end

local function words_of(set)
  local out = {}
  for i, word in ipairs(MAPS) do
    if set & 1 << i - 1 ~= 0 then out[#out + 1] = word end
  end
  return #out > 0 and #out < #MAPS and table.concat(out, " or ") or "unknown"
end

local function bool(n)
  if n == 0 or n == 3 then return nil end
  return n == 2
end

-- A number as words; nil where nothing is known, or it is none.
function M.unpack(n)
  if math.type(n) ~= "integer" or n < 1 or n > M.MAX then return nil end
  return {
    mapping = words_of(n & ALL), filtering = words_of(n >> FILTERING & ALL), ports = PORTS[n >> PORT & 3] or "unknown",
    hairpin = bool(n >> HAIRPIN & 3), race = bool(n >> RACE & 3), nat = bool(n >> NAT & 3),
  }
end

-- Whether a NAT of these words uses another port for another destination: true, false, or nil where that is not known.
function M.is_by_destination(words)
  local set = words and set_of(words.mapping) or ALL
  if set == 1 then return false end
  return set & 1 == 0 or nil
end

return M
