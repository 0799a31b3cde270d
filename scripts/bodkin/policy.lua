-- SPDX-License-Identifier: MIT
-- What a matchmaking policy is: a table whose fields are checked here, once, with errors that name a line of the
-- policy's file. Runs inside the sandbox, so it requires next to nothing. How policies are written: docs/POLICY.md.
--
--   return bodkin.policy {
--     size = 2,
--     props = { mmr = "number", mode = { "ranked", "casual" }, region = "string?" },
--     compatible = function(a, b) return math.abs(a.props.mmr - b.props.mmr) < 100 end,
--   }

local M = {}
local Policy = { __name = "bodkin.policy" }

M.PLAYERS_MAX = 32
M.DATA_MAX = 512
local STRING_MAX, PROPS_MAX, WINDOW_MS, WINDOW_MAX_MS = 64, 16, 100, 60000

-- What is told, not asked: their results count for nothing.
M.HOOKS = { "on_match", "on_accept", "on_decline", "on_expire" }
local functions = { "admit", "compatible", "form", "on_register", "on_search", "on_backfill",
  table.unpack(M.HOOKS) }
local known = { "props", "claims", "size", "teams", "party", "window_ms", "accept_ms", "expire_ms", "index", "shard",
  table.unpack(functions) }
local kinds = { number = true, integer = true, boolean = true, string = true }

local function names(list)
  local out = {}
  for i, name in ipairs(list) do out[i] = tostring(name) end
  return table.concat(out, ", ")
end

local function whole(v, min, max)
  return math.type(v) == "integer" and v >= min and v <= max
end

-- A property's declaration as { kind =, optional =, min =, max =, default =, among = }; nil and why.
local function property(given)
  if type(given) == "string" then
    local kind, optional = given:match "^(%a+)(%??)$"
    if not kind or not kinds[kind] then
      return nil, ("there is no type '%s': it is number, integer, boolean, string, or a list of texts"):format(given)
    end
    return { kind = kind, optional = optional == "?" or nil }
  end
  if type(given) ~= "table" then return nil, ("must be a type or a list of texts, not a %s"):format(type(given)) end
  if given.type == nil then
    local among = {}
    for i, text in ipairs(given) do
      if type(text) ~= "string" or #text > STRING_MAX then
        return nil, ("must list texts of at most %d bytes"):format(STRING_MAX)
      end
      among[i] = text
    end
    if #among == 0 then return nil, "must list what it may be, or have a type" end
    return { kind = "among", among = among, default = given.default, optional = given.optional and true or nil }
  end
  local out, why = property(given.type)
  if not out then return nil, why end
  for field, value in pairs(given) do
    if field == "min" or field == "max" then
      if type(value) ~= "number" or out.kind ~= "number" and out.kind ~= "integer" then
        return nil, field .. " is a number, and for numbers"
      end
    elseif field ~= "type" and field ~= "default" and field ~= "optional" then
      return nil, ("has no field '%s': it is one of type, min, max, default, optional"):format(tostring(field))
    end
    if field ~= "type" then out[field] = value end
  end
  return out
end

-- Why a value is not of a declared property, or nil.
local function wrong_value(spec, value)
  local kind = spec.kind
  if kind == "among" then
    for _, text in ipairs(spec.among) do
      if value == text then return nil end
    end
    return "one of " .. names(spec.among)
  end
  local is = type(value)
  if kind == "integer" then
    if math.type(value) ~= "integer" then return "an integer" end
  elseif is ~= kind then
    return "a " .. kind
  elseif kind == "number" and value ~= value then
    return "a number"
  elseif kind == "string" and #value > STRING_MAX then
    return ("at most %d bytes"):format(STRING_MAX)
  end
  if spec.min and value < spec.min then return ("at least %s"):format(spec.min) end
  if spec.max and value > spec.max then return ("at most %s"):format(spec.max) end
  return nil
end

-- props or claims, as `field` says.
local function read_declared(props, field)
  if props == nil then return nil end
  if type(props) ~= "table" then return nil, field .. " must be a table of names and types" end
  local out, count = {}, 0
  for name, given in pairs(props) do
    if type(name) ~= "string" or not name:match "^[%a_][%w_]*$" or #name > 32 then
      return nil, ("%s: '%s' is no name of letters, digits and _"):format(field, tostring(name))
    end
    local spec, why = property(given)
    if not spec then return nil, ("%s.%s: %s"):format(field, name, why) end
    if spec.min and spec.max and spec.min > spec.max then
      return nil, ("%s.%s: min is %s, above max, %s: nothing is both"):format(field, name, spec.min, spec.max)
    end
    if spec.default ~= nil then
      local wrong = wrong_value(spec, spec.default)
      if wrong then return nil, ("%s.%s: its default must be %s"):format(field, name, wrong) end
    end
    out[name], count = spec, count + 1
  end
  if count > PROPS_MAX then return nil, ("%s: %d are too many; at most %d"):format(field, count, PROPS_MAX) end
  return out
end

local function read_size(def)
  local size, teams = def.size, def.teams
  if teams ~= nil then
    if size ~= nil then return nil, "give either size or teams" end
    if type(teams) ~= "table" or #teams < 1 then return nil, "teams must list the size of each, such as { 5, 5 }" end
    local sum, list = 0, {}
    for i, n in ipairs(teams) do
      if not whole(n, 1, M.PLAYERS_MAX) then return nil, "teams must list the size of each, such as { 5, 5 }" end
      sum, list[i] = sum + n, n
    end
    if sum < 2 or sum > M.PLAYERS_MAX then
      return nil, ("teams: a match has 2 to %d players, not %d"):format(M.PLAYERS_MAX, sum)
    end
    return { sum, sum }, list
  end
  if size == nil then size = 2 end
  local min, max = size, size
  if type(size) == "table" then min, max = size[1], size[2] end
  if not whole(min, 2, M.PLAYERS_MAX) or not whole(max, min, M.PLAYERS_MAX) then
    return nil, ("size must be a number of players from 2 to %d, or { least, most }"):format(M.PLAYERS_MAX)
  end
  return { min, max }
end

local function read(def)
  if type(def) ~= "table" then return nil, "takes a table" end
  for field in pairs(def) do
    local found = false
    for _, name in ipairs(known) do found = found or name == field end
    if not found then
      field = tostring(field)
      local meant = require "bodkin.suggestion"(field, known)
      return nil, ("has no field '%s'%s: it is one of %s"):format(field, meant, names(known))
    end
  end
  local out = { kind = "policy" }
  for _, name in ipairs(functions) do
    if def[name] ~= nil and type(def[name]) ~= "function" then
      return nil, ("%s must be a function, not a %s"):format(name, type(def[name]))
    end
    out[name] = def[name]
  end
  local why
  out.props, why = read_declared(def.props, "props")
  if why then return nil, why end
  out.claims, why = read_declared(def.claims, "claims")
  if why then return nil, why end
  out.size, out.teams = read_size(def)
  if not out.size then return nil, out.teams end
  out.window_ms = def.window_ms or WINDOW_MS
  if not whole(out.window_ms, 10, WINDOW_MAX_MS) then
    return nil, ("window_ms must be a whole number of ms from 10 to %d"):format(WINDOW_MAX_MS)
  end
  for field, most in pairs { accept_ms = 120000, expire_ms = 86400000 } do
    if def[field] ~= nil and not whole(def[field], 1000, most) then
      return nil, ("%s must be a whole number of ms from 1000 to %d"):format(field, most)
    end
    out[field] = def[field]
  end
  out.party = def.party or 1
  if not whole(out.party, 1, out.size[2]) then
    return nil, ("party must be the most players of one ticket, from 1 to %d"):format(out.size[2])
  end
  local largest = out.teams and math.max(table.unpack(out.teams)) or out.size[2]
  if out.party > largest then
    return nil, ("party: no team has room for %d, which stay together; the largest has %d"):format(out.party, largest)
  end
  local index, shard = def.index, def.shard
  if index ~= nil and type(index) ~= "function" then
    local spec = out.props and out.props[index]
    if not spec or spec.optional and spec.default == nil or spec.kind ~= "number" and spec.kind ~= "integer" then
      return nil, "index must name a property that is a number and always there, or be a function that gives one"
    end
  end
  if shard ~= nil and not (out.props and out.props[shard]) then return nil, "shard must name one of props" end
  out.index, out.shard = index, shard
  return out
end

-- bodkin.policy: the policy; throws at the caller's level, a line of the policy's file, when it is none.
function M.policy(def)
  local policy, why = read(def)
  if not policy then error("policy: " .. why, 2) end
  return setmetatable(policy, Policy)
end

function M.is(value)
  return getmetatable(value) == Policy
end

-- What is given for each of those declared, put into `out`, defaults filled in; or nil and why. what: "claim", say.
local function fill(declared, given, out, what)
  for name, spec in pairs(declared) do
    local value = given[name]
    if value == nil then value = spec.default end
    if value == nil and not spec.optional then return nil, ("the %s %s is missing"):format(what, name) end
    if value ~= nil then
      if spec.kind == "number" and type(value) == "number" then value = value + 0.0 end
      local wrong = wrong_value(spec, value)
      if wrong then return nil, ("%s must be %s"):format(name, wrong) end
      out[name] = value
    end
  end
  return out
end

-- The properties of a ticket as its policy declares them, defaults filled in; nil and why.
function M.props(policy, given)
  if not policy.props then return given end
  for name in pairs(given) do
    if not policy.props[name] then return nil, ("there is no property %s"):format(tostring(name)) end
  end
  return fill(policy.props, given, {}, "property")
end

-- The claims of a ticket likewise; those that are not declared stay, since who signed them says more to others.
function M.signed(policy, given)
  if not policy.claims then return given end
  local out = {}
  for name, value in pairs(given) do out[name] = value end
  return fill(policy.claims, given, out, "claim")
end

return M
