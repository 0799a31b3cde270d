-- SPDX-License-Identifier: MIT
-- What `bodkin sim` simulates: a population, its networks and what it does, declared and checked here at once.
-- docs/SIM.md explains each field.
--
--   return bodkin.scenario {
--     clients = 300, arrive_per_s = 10, duration_s = 60,
--     nats = { port_restricted = 6, full_cone = 2, symmetric_random = 1 },
--     delay_ms = { 5, 60 }, loss = 0.01,
--     match = { queue = "duel", policy = "skill", props = { mmr = { normal = { 1500, 300 }, min = 0 } } },
--   }

local nats = require "bodkin.sim.nat"

local M = {}
local Scenario = { __name = "bodkin.scenario" }

M.CLIENTS_MAX, M.DURATION_MAX_S, M.ROOM_MAX = 10000, 3600, 16
local PROPS_MAX = 16

local function names(set)
  local list = {}
  for name in pairs(set) do list[#list + 1] = tostring(name) end
  table.sort(list)
  return table.concat(list, ", ")
end

local function is_number(v)
  return type(v) == "number" and v == v and v > -math.huge and v < math.huge
end

local function number(low, high)
  return function(v)
    if is_number(v) and v >= low and v <= high then return v end
    return nil, ("must be a number from %g to %g, not %s"):format(low, high, tostring(v))
  end
end

local function whole(low, high)
  return function(v)
    v = type(v) == "number" and math.tointeger(v) or v
    if math.type(v) == "integer" and v >= low and v <= high then return v end
    return nil, ("must be a whole number from %d to %d, not %s"):format(low, high, tostring(v))
  end
end

-- { low, high } of two numbers, else nil.
local function range(v, least)
  if type(v) ~= "table" or #v ~= 2 or not is_number(v[1]) or not is_number(v[2]) then return nil end
  return v[1] >= least and v[2] >= v[1] and { v[1], v[2] } or nil
end

-- { name = weight } as a list { name, weight }, in order of names, so that the same seed draws the same.
local function weights(v, known, what)
  if type(v) ~= "table" or next(v) == nil then return nil, ("must be { %s = weight, ... }"):format(what) end
  local list, sum = {}, 0
  for name, weight in pairs(v) do
    if known and not known[name] then
      return nil, ("there is no %s '%s': it is one of %s"):format(what, tostring(name), names(known))
    end
    if type(name) ~= "string" then return nil, ("must be { %s = weight, ... }"):format(what) end
    if not is_number(weight) or weight < 0 then
      return nil, ("the weight of %s must be a number of at least 0"):format(name)
    end
    sum = sum + weight
    list[#list + 1] = { name, weight }
  end
  if sum <= 0 then return nil, "one weight must be more than 0" end
  table.sort(list, function(a, b) return a[1] < b[1] end)
  return list
end

local function delay(v)
  if is_number(v) and v >= 0 and v <= 10000 then return { low = v, high = v } end
  if type(v) == "table" and type(v.matrix) == "string" and next(v, next(v)) == nil then return { matrix = v.matrix } end
  local r = range(v, 0)
  if r and r[2] <= 10000 then return { low = r[1], high = r[2] } end
  return nil, 'must be a number of ms, { LEAST, MOST } or { matrix = "FILE.tsv" }'
end

local shapes = { uniform = true, normal = true, weights = true, chance = true }
local shape_options = { min = true, max = true, whole = true }

local function numeric_shape(v, shape)
  local given = v[shape]
  local is_pair = type(given) == "table" and #given == 2 and is_number(given[1]) and is_number(given[2])
  if shape == "uniform" and not range(given, -math.huge) then return nil, "uniform must be { LEAST, MOST }" end
  if shape == "normal" and not (is_pair and given[2] >= 0) then return nil, "normal must be { MEAN, DEVIATION }" end
  for _, bound in ipairs { "min", "max" } do
    if v[bound] ~= nil and not is_number(v[bound]) then return nil, bound .. " must be a number" end
  end
  if v.min and v.max and v.min > v.max then return nil, "min is more than max" end
  if v.whole ~= nil and type(v.whole) ~= "boolean" then return nil, "whole is true or false" end
  return { shape = shape, a = given[1], b = given[2], min = v.min, max = v.max, whole = v.whole }
end

-- How a property is drawn: a value is itself.
local function distribution(v)
  if type(v) ~= "table" then
    if type(v) == "string" or type(v) == "boolean" or is_number(v) then return { shape = "constant", value = v } end
    return nil, "must be a text, a number, true or false, or a distribution"
  end
  local shape
  for name in pairs(v) do
    if shapes[name] then
      if shape then return nil, "has two distributions; one is enough" end
      shape = name
    elseif not shape_options[name] then
      return nil, ("has no '%s': a distribution is uniform, normal, weights or chance; with min, max, whole"):format(
        tostring(name))
    end
  end
  if not shape then return nil, "must be a value, or have uniform, normal, weights or chance" end
  if shape == "chance" then -- of being true
    local p = is_number(v.chance) and v.chance >= 0 and v.chance <= 1 and v.chance
    if not p then return nil, "chance must be a number from 0 to 1" end
    return { shape = "chance", a = p }
  end
  if shape ~= "weights" then return numeric_shape(v, shape) end
  local list, why = weights(v.weights, nil, "value")
  if not list then return nil, "weights " .. why end
  return { shape = "weights", list = list }
end

local function properties(v)
  if type(v) ~= "table" then return nil, "must be a table of names and values or distributions" end
  local list = {}
  for name, given in pairs(v) do
    if type(name) ~= "string" or #name > 32 then return nil, "a property's name is a text of at most 32 bytes" end
    local drawn, why = distribution(given)
    if not drawn then return nil, ("%s %s"):format(name, why) end
    drawn.name = name
    list[#list + 1] = drawn
  end
  if #list > PROPS_MAX then return nil, ("has more than %d properties"):format(PROPS_MAX) end
  table.sort(list, function(a, b) return a.name < b.name end)
  return list
end

local function fields_of(v, known, what)
  if type(v) ~= "table" then return nil, ("must be a table with %s"):format(names(known)) end
  for name in pairs(v) do
    if not known[name] then
      return nil, ("has no field '%s': %s has %s"):format(tostring(name), what, names(known))
    end
  end
  return true
end

local function match(v)
  local ok, why = fields_of(v, { queue = true, policy = true, props = true, claims = true }, "match")
  if not ok then return nil, why end
  local queue = v.queue or "queue"
  if type(queue) ~= "string" or #queue < 1 or #queue > 32 or queue == "*" then
    return nil, "queue must be a name of at most 32 bytes"
  end
  if v.policy ~= nil and type(v.policy) ~= "string" then
    return nil, "policy must be a file, or the name of one that ships, such as skill"
  end
  local props
  props, why = properties(v.props or {})
  if not props then return nil, "props " .. why end
  local claims
  claims, why = properties(v.claims or {})
  if not claims then return nil, "claims " .. why end
  return { queue = queue, policy = v.policy, props = props, claims = claims }
end

local function rooms(v)
  local ok, why = fields_of(v, { size = true }, "rooms")
  if not ok then return nil, why end
  local size
  size, why = whole(2, M.ROOM_MAX)(v.size or 2)
  if not size then return nil, "size " .. why end
  return { size = size }
end

local fields = {
  name = function(v)
    if type(v) == "string" and #v <= 64 then return v end
    return nil, "must be a text of at most 64 bytes"
  end,
  clients = whole(2, M.CLIENTS_MAX),
  arrive_per_s = number(0.01, 100000),
  duration_s = number(1, M.DURATION_MAX_S),
  stay_s = number(0, M.DURATION_MAX_S),
  seed = whole(0, math.maxinteger),
  nats = function(v) return weights(v, nats.kinds, "kind") end,
  together = number(0, 1),
  delay_ms = delay,
  jitter_ms = number(0, 10000),
  loss = number(0, 0.9),
  match = match,
  rooms = rooms,
}

-- Roughly what is met at homes: most port restricted, plain Linux routers, few others.
local HOMES = { port_restricted = 50, plain_linux = 12, address_restricted = 8, full_cone = 8, symmetric_random = 8,
  symmetric_sequential = 4, address_dependent = 2, firewall = 4, none = 4 }

local defaults = { name = "scenario", clients = 100, duration_s = 60, stay_s = 10, seed = 1, nats = HOMES,
  together = 0, delay_ms = { 5, 60 }, jitter_ms = 0, loss = 0 }

-- Checked data, or nil and a sentence. Touches no file.
function M.check(data)
  local ok, why = fields_of(data, fields, "a scenario")
  if not ok then return nil, "scenario: " .. why end
  local out, given = {}, {}
  for name in pairs(fields) do given[#given + 1] = name end
  table.sort(given)
  for _, name in ipairs(given) do
    local value = data[name]
    if value == nil then value = defaults[name] end
    if value ~= nil then
      out[name], why = fields[name](value)
      if out[name] == nil then return nil, ("scenario: %s %s"):format(name, why) end
    end
  end
  if (out.match == nil) == (out.rooms == nil) then
    return nil, "scenario: what do they do? give either match = { queue = ... } or rooms = { size = ... }"
  end
  -- By default all have come when half the time is over.
  out.arrive_per_s = out.arrive_per_s or 2 * out.clients / out.duration_s
  return setmetatable(out, Scenario)
end

-- bodkin.scenario: the same, but throws at the caller's level, which is a line of the scenario's file.
function M.scenario(data)
  local scenario, why = M.check(data)
  if not scenario then error(why, 2) end
  return scenario
end

function M.is(value)
  return getmetatable(value) == Scenario
end

return M
