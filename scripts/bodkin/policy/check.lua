-- SPDX-License-Identifier: MIT
-- Looks a policy over before a server does: its text, its definition, and how it takes tickets made up at random from
-- the properties and claims it declares, at places and behind NATs that are known, or not. What it finds names a file
-- and a line.

local wire = require("bodkin.core").wire
local globals = require "bodkin.policy.globals"
local instances = require "bodkin.policy.instance"
local network = require "bodkin.policy.network"
local random = require "bodkin.sim.random"

local M = {}

local known = {}
for name in ([[_G _VERSION assert bodkin coroutine error getmetatable ipairs load math next pairs pcall print rawequal
  rawget rawlen rawset require select setmetatable state string table
  tonumber tostring type utf8 xpcall]]):gmatch "%S+" do
  known[name] = true
end

local function short(chunkname) return chunkname:gsub("^@", "") end

-- Syntax, and globals that are none: most are misspelt, and a local forgotten is kept from run to run.
local function lint(source)
  for _, file in ipairs(source.files or {}) do
    local found, err = globals.of(file.text, file.chunkname)
    if not found then return nil, err end
    for _, use in ipairs(found) do
      if use.set then
        return nil, ("%s:%d: '%s' is assigned to as a global; is a local missing?"):format(short(file.chunkname),
          use.line, use.name)
      elseif not known[use.name] then
        return nil, ("%s:%d: there is no global '%s' in a policy"):format(short(file.chunkname), use.line, use.name)
      end
    end
  end
  return true
end

local function number_within(rng, spec)
  local low, high = spec.min or -1000, spec.max or math.max(spec.min or 0, 0) + 3000
  local roll = rng:integer() & 15
  if roll == 0 then return low end
  if roll == 1 then return high end
  local n = low + (high - low) * ((rng:integer() >> 11 & 0xfffff) / 0xfffff)
  return spec.kind == "integer" and math.floor(n) or n + 0.0
end

local texts = { "", "a", "eu-west", "ünïcode", ("x"):rep(64) }

-- A value that a property may have; nil where it may be absent.
local function value_of(rng, spec)
  if (spec.optional or spec.default ~= nil) and rng:integer() & 3 == 0 then return nil end
  if spec.kind == "boolean" then return rng:integer() & 1 == 0 end
  local list = spec.kind == "among" and spec.among or spec.kind == "string" and texts
  if list then return list[(rng:integer() >> 1) % #list + 1] end
  return number_within(rng, spec)
end

local function props_of(rng, declared)
  local names, props = {}, {}
  for name in pairs(declared) do names[#names + 1] = name end
  table.sort(names)
  for _, name in ipairs(names) do props[name] = value_of(rng, declared[name]) end
  return props
end

-- What a server might know of the network around a member: where it is and what its NAT does, one of these, or nothing.
local function net_of(rng)
  local function ms(most) return (rng:integer() >> 1) % most + 0.5 end
  local coord = rng:integer() & 7 > 1 and { ms(200), ms(200), ms(100), ms(20) } or nil
  return network.pack(coord, rng:integer() & 3 > 0 and (rng:integer() >> 1) % network.CLASSES or 0)
end

local CLIENTS = 50

-- Clients of any name come to be registered. true, or nil, message.
local function register(instance, rng, claims, report, spent)
  for no = 1, CLIENTS do
    local bytes = wire.encode(props_of(rng, claims))
    local ok, err = spent(instance:register { id = ("%032x"):format(no), app = "check/1", claims = bytes,
      name = texts[no % 4 + 1], props = no % 2 == 0 and wire.encode {} or wire.encode { n = no } })
    if ok == nil then return nil, err end
    report.clients = report.clients + 1
    if not ok then report.turned_away = report.turned_away + 1 end
  end
  return true
end

-- Tickets come and go for two minutes. Returns a report, or nil, message.
local function exercise(instance, options)
  local rng, net_rng = random.new(options.seed, "check"), random.new(options.seed, "network")
  local declared, claims = instance:declared "props", instance:declared "claims"
  local report = { tickets = options.tickets, admitted = 0, refused = 0, matches = 0, players = 0, most = 0,
    clients = 0, turned_away = 0 }
  local window_ms, no, sizes = instance.about.window_ms, 0, {}
  local function spent(...)
    report.most = math.max(report.most, (instance.sandbox:spent()))
    return ...
  end
  if instance.about.on_register then
    local ok, err = register(instance, rng, claims, report, spent)
    if not ok then return nil, err end
  end
  for now_ms = 0, 120000, math.max(window_ms, 500) do
    for _ = 1, now_ms < 60000 and math.ceil(options.tickets / (60000 / math.max(window_ms, 500))) or 0 do
      if no == options.tickets then break end
      no = no + 1
      local members = {}
      for i = 1, (rng:integer() >> 1) % instance.about.party + 1 do
        members[i] = {
          props_of(rng, declared), next(claims) and wire.encode(props_of(rng, claims)) or nil, net_of(net_rng),
        }
      end
      sizes[no] = #members
      local ticket = { no = no, app = "check/1", since_ms = now_ms, members = members }
      local ok, err = spent(instance:add(ticket, false, now_ms))
      if ok == nil then return nil, err end
      local key = ok and "admitted" or "refused"
      report[key], report.why = report[key] + 1, report.why or err
      if rng:integer() & 15 == 0 then instance:drop((rng:integer() >> 1) % no + 1) end
    end
    local matches, err = spent(instance:tick(now_ms))
    if not matches then return nil, err end
    report.matches = report.matches + #matches
    for _, match in ipairs(matches) do
      for _, team in ipairs(match[1]) do
        for _, ticket in ipairs(team) do report.players = report.players + sizes[ticket] end
      end
    end
  end
  return report
end

-- source: see source.lua; options: tickets (200), seed (1), limits. Returns a report { tickets, admitted, refused, why
-- the first, matches, players, clients (that on_register was asked about), turned_away, most = instructions of one
-- run }; or nil, message; or false, kind: it is no policy.
function M.run(source, options)
  local limits = options.limits or instances.limits
  local ok, err = lint(source)
  if not ok then return nil, err end
  local instance
  instance, err = instances.new(source, limits)
  if not instance then return nil, err end
  if instance.about.kind ~= "policy" then
    instance:close()
    return false, instance.about.kind
  end
  local report
  report, err = exercise(instance, { tickets = options.tickets or 200, seed = options.seed or 1 })
  instance:close()
  return report, err
end

return M
