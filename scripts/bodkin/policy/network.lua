-- SPDX-License-Identifier: MIT
-- Classes of NATs, and how likely two of them let each other through: from the theory (docs/NAT.md), and from what came
-- of matches. A class is a small number, 0 where nothing is known of a NAT: mapping and filtering, either of which may
-- be unknown; where a NAT may be one of several behaviours, it counts as the one met most.

local reach = require "bodkin.client.reach"

local M = {}

M.CLASSES = 17
local UNKNOWN, RACE, MAPPING_ONLY, FILTERING_ONLY = 0, 10, 10, 13
local NAMES = { "EI", "AD", "APD" }

local PRIOR = 20    -- pairs that the theory is worth
local KEPT = 1000   -- pairs remembered of two classes: what comes after counts for more than what came before
-- The theory says what two can do; what else keeps them apart, and helps them, it does not know.
local CHANCE = { yes = 0.96, may = 0.7, no = 0.03 }
-- How many of a hundred are such, of homes and mobile networks roughly (spec/policy/population.lua); each of the others
-- counts as one.
local HOMES = { ["EI/EI"] = 23, ["EI/AD"] = 10, ["EI/APD"] = 45, race = 10, ["APD/APD"] = 12 }

local full = {} -- the classes of which all is known: class -> { mapping, filtering, race, weight }
for m, mapping in ipairs(NAMES) do
  for f, filtering in ipairs(NAMES) do
    local weight = HOMES[mapping .. "/" .. filtering] or 1
    full[3 * (m - 1) + f] = { mapping = mapping, filtering = filtering, weight = weight }
  end
end
full[RACE] = { mapping = "EI", filtering = "APD", race = true, weight = HOMES.race }

-- Bits 1, 2, 4 for EI, AD, APD -> 1, 2, 3; nil: not known. Of several the one met most: nobody maps AD, few filter so.
local function mapping_of(set)
  if set == 0 or set == 7 then return nil end
  return set & 1 ~= 0 and 1 or set & 4 ~= 0 and 3 or 2
end

local function filtering_of(set)
  if set == 0 or set == 7 then return nil end
  return set & 4 ~= 0 and 3 or set & 2 ~= 0 and 2 or 1
end

local function class_of(mapping, filtering, race)
  if mapping and filtering then
    if race and mapping == 1 and filtering == 3 then return RACE end
    return 3 * (mapping - 1) + filtering
  end
  return mapping and MAPPING_ONLY + mapping or filtering and FILTERING_ONLY + filtering or UNKNOWN
end

-- The class of a kind, the number of messages (bits 0 to 2 mapping, 3 to 5 filtering, 10 and 11 the race, 12 and 13
-- whether there is a NAT); nil: not known.
function M.of_kind(kind)
  if math.type(kind) ~= "integer" then return UNKNOWN end
  local mapping = mapping_of(kind & 7)
  if kind >> 12 & 3 == 1 then mapping = 1 end -- no NAT
  return class_of(mapping, filtering_of(kind >> 3 & 7), kind >> 10 & 3 == 2)
end

local WORDS = { endpoint = 1, address = 2, address_port = 4 }

local function set_of(words)
  local set = 0
  for word in tostring(words):gmatch "[%a_]+" do set = set | (WORDS[word] or 0) end
  return set
end

-- The class of a behaviour in words, as records have it (outcome.lua); nil: not known.
function M.of_words(b)
  if not b then return UNKNOWN end
  local mapping = mapping_of(set_of(b.mapping))
  if b.nat == false then mapping = 1 end
  return class_of(mapping, filtering_of(set_of(b.filtering)), b.race)
end

-- The class of a behaviour { mapping, filtering = "EI" | "AD" | "APD", race }, as client/reach.lua has it.
function M.of_behaviour(b)
  local number = { EI = 1, AD = 2, APD = 3 }
  return class_of(number[b.mapping], number[b.filtering], b.race)
end

-- The full classes that a class may stand for.
local function meant(class)
  if full[class] then return { full[class] } end
  local list = {}
  for c = 1, RACE do
    local b = full[c]
    local m = class > MAPPING_ONLY and class <= MAPPING_ONLY + 3 and NAMES[class - MAPPING_ONLY] or b.mapping
    local f = class > FILTERING_ONLY and NAMES[class - FILTERING_ONLY] or b.filtering
    if b.mapping == m and b.filtering == f then list[#list + 1] = b end
  end
  return list
end

local function prior(a, b)
  local sum, weights = 0, 0
  for _, one in ipairs(meant(a)) do
    for _, other in ipairs(meant(b)) do
      local weight = one.weight * other.weight
      sum, weights = sum + weight * CHANCE[reach.verdict(one, other)], weights + weight
    end
  end
  return sum / weights
end

-- Where a pair of classes stands in the table.
local function index(a, b)
  if a < b then a, b = b, a end
  return a * (a + 1) // 2 + b + 1
end

local priors = {}
for a = 0, M.CLASSES - 1 do
  for b = 0, a do priors[index(a, b)] = prior(a, b) end
end

local Table = {}
Table.__index = Table

function M.new() return setmetatable({ direct = {}, total = {} }, Table) end

-- What became of a pair: they reached each other directly, or did not. back = true: it is taken back.
function Table:count(a, b, is_direct, back)
  local i, by = index(a, b), back and -1 or 1
  local total, direct = (self.total[i] or 0) + by, (self.direct[i] or 0) + (is_direct and by or 0)
  if total > KEPT then total, direct = total / 2, direct / 2 end
  self.total[i], self.direct[i] = math.max(0, total), math.max(0, direct)
end

-- The mean of a beta distribution whose prior is the theory's.
local function chance(self, i)
  return (priors[i] * PRIOR + (self.direct[i] or 0)) / (PRIOR + (self.total[i] or 0))
end

function Table:chance(a, b) return chance(self, index(a, b)) end

-- As bytes, for sandboxes: see bindings/sandbox_net.h.
function Table:pack()
  local out = {}
  for i = 1, #priors do out[i] = string.char(math.floor(chance(self, i) * 255 + 0.5)) end
  return table.concat(out)
end

-- How much two tables differ at most, 0 to 1.
function M.difference(one, other)
  local most = 0
  for i = 1, #one do most = math.max(most, math.abs(one:byte(i) - other:byte(i))) end
  return most / 255
end

M.default = M.new():pack()

-- What a policy is told of a client, encoded; nil where nothing is known. coord: { x, y, z, height } in ms, or nil.
function M.pack(coord, class)
  if not coord and class == UNKNOWN then return nil end
  local parts = { "\x95" }
  for i = 1, 4 do parts[i + 1] = coord and "\xca" .. string.pack(">f", coord[i]) or "\xc0" end
  parts[6] = class == UNKNOWN and "\xc0" or string.char(class)
  return table.concat(parts)
end

return M
