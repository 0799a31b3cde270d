-- SPDX-License-Identifier: MIT
-- A server role: a name, the messages it handles, and which of their fields it wants. The four of Bodkin
-- itself are made with this, and so are yours.
--
--   return bodkin.role {
--     name = "greeter",
--     messages = {
--       { name = "greet", type = 64, request = true, fields = { { "tx", "bin", 12, 12 }, { "pad", "pad" } } },
--       { name = "greeted", type = 65, fields = { { "tx", "bin", 12, 12 } } },
--     },
--     wants = { greet = { "tx" } },                        -- optional; else all fields, in order
--     on = { greet = function(reply, from, tx) reply("greeted", tx) end },
--   }
--
-- `on` may be a function(server) that returns that table, for a role that needs server.env, .cookie,
-- .registry, .counters, .log, .boot or server:send(to, name, ...).

local wire = require("bodkin.core").wire

local M = {}
local Role = { __name = "bodkin.role" }

-- Types 1..31 and 40..63 are Bodkin's between client and server, 32..39 between peers.
local OWN_FIRST, OWN_LAST = 64, 127

local function own_message(role, given, level)
  if type(given) == "table" then
    local ok, schema = pcall(wire.schema, given)
    if not ok then
      error(("role %s: message %s: %s"):format(role, tostring(given.name), tostring(schema)), level + 1)
    end
    given = schema
  elseif type(given) ~= "userdata" then
    error(("role %s: messages must be a list of messages"):format(role), level + 1)
  end
  if given.type < OWN_FIRST or given.type > OWN_LAST then
    error(("role %s: message %s has type %d; types of your own are %d to %d"):format(role, given.name, given.type,
      OWN_FIRST, OWN_LAST), level + 1)
  end
  return given
end

-- Makes a role. Throws at the caller's level when the definition is not one.
function M.role(def)
  if type(def) ~= "table" then error("bodkin.role takes a table", 2) end
  if type(def.name) ~= "string" or not def.name:match("^%l[%l%d_-]*$") then
    error("a role needs a name: small letters, digits, _ and -", 2)
  end
  if type(def.on) ~= "table" and type(def.on) ~= "function" then
    error(("role %s needs on: its handlers by message, or a function(server) that returns them"):format(def.name), 2)
  end
  local messages = {}
  for _, given in ipairs(def.messages or {}) do
    local schema = own_message(def.name, given, 2)
    if messages[schema.name] then error(("role %s: message %s twice"):format(def.name, schema.name), 2) end
    messages[schema.name] = schema
  end
  return setmetatable({
    kind = "role", name = def.name, messages = messages, wants = def.wants or {}, on = def.on,
  }, Role)
end

function M.is(value)
  return getmetatable(value) == Role
end

-- Runs a file that returns a role. nil, message, code on failure.
function M.load(path)
  local chunk, why = loadfile(path, "t")
  if not chunk then return nil, ("cannot load the role file: %s"):format(why), "invalid" end
  local ok, value = pcall(chunk, path)
  if not ok then return nil, ("the role file failed: %s"):format(tostring(value)), "invalid" end
  if not M.is(value) then
    return nil, ("%s does not return a role: end it with return bodkin.role { … }"):format(path), "invalid"
  end
  return value
end

return M
