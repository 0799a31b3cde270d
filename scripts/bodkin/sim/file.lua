-- SPDX-License-Identifier: MIT
-- What `bodkin sim FILE` is given: a scenario, or a policy, which plays in a scenario made for it.

local instances = require "bodkin.policy.instance"
local scenarios = require "bodkin.scenario"
local sources = require "bodkin.policy.source"

local M = {}

M.CLIENTS, M.ARRIVE_PER_S, M.DURATION_S = 1000, 25, 60 -- of a policy's own scenario
local TEXTS = 8 -- how many different texts a property has that may be any

local function name_of(path)
  return (path:match "([^/]*)$":gsub("%.lua$", ""))
end

-- How a property that a policy declares is drawn; nil: it is left out, since it has a default or may be absent. A
-- number with bounds that may be absent is drawn: it is the skill that else a token has to claim.
local function drawn(spec)
  if spec.default ~= nil or spec.optional and not (spec.min and spec.max) then return nil end
  local weights = {}
  if spec.kind == "boolean" then return { chance = 0.5 } end
  if spec.kind == "among" then
    for _, text in ipairs(spec.among) do weights[text] = 1 end
    return { weights = weights }
  elseif spec.kind == "string" then
    for i = 1, TEXTS do weights["text" .. i] = 1 end
    return { weights = weights }
  end
  -- Most are in the middle, as skill is.
  local low = spec.min or (spec.max and spec.max - 3000) or 0
  local high = spec.max or low + 3000
  return { normal = { (low + high) / 2, (high - low) / 10 }, min = low, max = high, whole = spec.kind == "integer" }
end

local function all_drawn(declared)
  local list = {}
  for name, spec in pairs(declared or {}) do list[name] = drawn(spec) end
  return list
end

-- The scenario in which a policy plays; props and claims: as instance:declared() gives them.
function M.for_policy(source, props, claims)
  local scenario = assert(scenarios.check {
    name = name_of(source.name), clients = M.CLIENTS, arrive_per_s = M.ARRIVE_PER_S, duration_s = M.DURATION_S,
    match = { props = all_drawn(props), claims = all_drawn(claims) },
  })
  scenario.match.policy = source
  return scenario
end

-- `return bodkin.scenario { … }` is a tail call, so an error in it knows no line; but it names a field.
local function with_line(path, text, message)
  if message:find ":%d+:" then return message end
  local field = message:match "^scenario: has no field '([%w_]+)'" or message:match "^scenario: ([%w_]+)"
  local at = field and text:find("%f[%w_]" .. field .. "%s*=") or text:find("%.scenario%f[^%w_]") or 1
  local _, before = text:sub(1, at - 1):gsub("\n", "")
  return ("%s:%d: %s"):format(path, before + 1, message)
end

-- Files that it names are beside it.
local function beside(path, file)
  if not file or file:sub(1, 1) == "/" or sources.BUILTIN[file] then return file end
  return (path:match "^(.*/)" or "") .. file
end

local function run_scenario(path, text)
  local chunk, why = load(text, "@" .. path, "t")
  if not chunk then return nil, why, "invalid" end
  local ok, scenario = pcall(chunk)
  if not ok then return nil, with_line(path, text, tostring(scenario)), "invalid" end
  if not scenarios.is(scenario) then return nil, path .. " returns a scenario only at times", "invalid" end
  if scenario.name == "scenario" then scenario.name = name_of(path) end
  if scenario.match then scenario.match.policy = beside(path, scenario.match.policy) end
  scenario.delay_ms.matrix = beside(path, scenario.delay_ms.matrix)
  return scenario
end

-- A checked scenario from a file, or of a policy that ships (skill, …), and the policy's source where it is one. nil,
-- message, code. What the file is, is found out in the sandbox of policies: it may be one.
function M.read(path)
  local source, why, code = sources.read(path)
  if not source then return nil, (why:gsub("^cannot read the policy", "cannot read the file")), code end
  local instance
  instance, why, code = instances.new(source)
  if not instance then return nil, why, code end
  local kind, props, claims = instance.about.kind, nil, nil
  if kind == "policy" then props, claims = instance:declared "props", instance:declared "claims" end
  instance:close()
  if kind == "policy" then return M.for_policy(source, props, claims), source end
  if kind == "scenario" then return run_scenario(path, source.files[1].text) end
  return nil, ("%s returns %s, neither a scenario nor a policy: end it with return bodkin.scenario { … }"):format(path,
    kind), "invalid"
end

local function with_policy(scenario, source)
  local copy = setmetatable({}, getmetatable(scenario))
  for key, value in pairs(scenario) do copy[key] = value end
  copy.match = {}
  for key, value in pairs(scenario.match) do copy.match[key] = value end
  copy.match.policy = source
  return copy
end

-- Two scenarios of two files, to be played against each other with the same seed; a policy plays in the other's
-- scenario, of two policies the second in the first one's. nil, message, code.
function M.read_both(path_a, path_b)
  local a, of_a, code = M.read(path_a)
  if not a then return nil, of_a, code end
  local b, of_b
  b, of_b, code = M.read(path_b)
  if not b then return nil, of_b, code end
  if of_b and not a.match or of_a and not of_b and not b.match then
    return nil, ("the scenario %s has no queue for a policy"):format(of_b and path_a or path_b), "invalid"
  end
  if of_b then
    b = with_policy(a, of_b)
  elseif of_a then
    a = with_policy(b, of_a)
  end
  b.seed, a.name, b.name = a.seed, name_of(path_a), name_of(path_b)
  return a, b
end

return M
