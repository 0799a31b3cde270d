-- SPDX-License-Identifier: MIT
-- Puts roles together: finds them, claims each message type for one of them, and gives every socket a router.

local core = require "bodkin.core"
local message = require "bodkin.message"
local roles = require "bodkin.servers.role"

local M = {}

M.ROLES = { "address", "matching", "maintenance", "relay" }

local function builtin(name)
  for _, known in ipairs(M.ROLES) do
    if name == known then return require("bodkin.servers." .. name) end
  end
end

-- The role objects asked for: the built-in ones by name, then those of role_files (paths, or roles).
function M.gather(options)
  local list, seen = {}, {}
  local function add(role)
    if seen[role.name] then return nil, ("role '%s' is there twice"):format(role.name), "invalid" end
    seen[role.name], list[#list + 1] = true, role
    return true
  end
  for _, name in ipairs(options.roles or (options.role_files and {} or M.ROLES)) do
    local role = builtin(name)
    if not role then
      return nil, ("there is no role '%s': it is one of %s"):format(tostring(name),
        table.concat(M.ROLES, ", ")), "invalid"
    end
    local ok, msg, code = add(role)
    if not ok then return nil, msg, code end
  end
  for _, file in ipairs(options.role_files or {}) do
    local role, msg, code = file, nil, nil
    if not roles.is(file) then role, msg, code = roles.load(file) end
    if not role then return nil, msg, code end
    local ok
    ok, msg, code = add(role)
    if not ok then return nil, msg, code end
  end
  if #list == 0 then return nil, "a server needs at least one role", "invalid" end
  return list, seen
end

-- Why a handler cannot be installed as its role says, or nil.
local function wrong_handler(role, name, schema, fn)
  if type(schema) ~= "userdata" then return ("handles '%s', which nobody declares"):format(tostring(name)) end
  if type(fn) ~= "function" then return ("handles %s with a %s, not a function"):format(name, type(fn)) end
  local fields = {}
  for _, field in ipairs(schema.fields) do fields[field[1]] = field[2] ~= "pad" end
  for _, want in ipairs(role.wants[name] or {}) do
    if not fields[want] then return ("wants '%s' of %s, which has no such field"):format(tostring(want), name) end
  end
end

-- In order of name, so that the same mistake gives the same message.
local function sorted(t)
  local names, i = {}, 0
  for name in pairs(t) do names[#names + 1] = name end
  table.sort(names, function(a, b) return tostring(a) < tostring(b) end)
  return function()
    i = i + 1
    return names[i], t[names[i]]
  end
end

-- Collects { schema, wants, fn } of every role; an error when two want one message type.
function M.claim(server, list)
  local owner, handlers = {}, {}
  for _, role in ipairs(list) do
    for name, schema in sorted(role.messages) do
      local other = owner[schema.type]
      if other then
        return nil, ("roles '%s' and '%s' both claim message type %d"):format(other, role.name, schema.type), "invalid"
      end
      owner[schema.type] = role.name
      server.schemas[name] = schema
      server.replies[#server.replies + 1] = schema
    end
  end
  for _, role in ipairs(list) do
    local on = type(role.on) == "function" and role.on(server) or role.on
    for name, fn in sorted(on) do
      local schema = role.messages[name] or message[name]
      local wrong = wrong_handler(role, name, schema, fn)
      if wrong then return nil, ("role '%s' %s"):format(role.name, wrong), "invalid" end
      local other = owner[schema.type]
      if other and other ~= role.name then
        return nil, ("roles '%s' and '%s' both handle %s (type %d)"):format(other, role.name, name,
          schema.type), "invalid"
      end
      owner[schema.type] = role.name
      handlers[#handlers + 1] = { schema = schema, wants = role.wants[name], fn = fn }
    end
  end
  return handlers
end

-- Every socket has a router of its own with the same handlers: so a handler's `server.via` tells which
-- socket a message came in on, and what is sent later leaves by that one. A client's NAT expects it.
function M.attach(server, handlers)
  local single = #server.socks == 1
  server.via = 1
  for via, sock in ipairs(server.socks) do
    local router = core.router(server.counters)
    router:reply_schemas(server.replies)
    router:refuse(message.refused)
    if server.answers_stun and not server.tcp[via] then router:stun(server.answers_stun) end
    if server.assocs then router:assocs(server.assocs, message.lost, via) end
    if server.relay then
      router:relay(server.relay, via)
      server.relay:attach(via, sock)
    end
    for _, h in ipairs(handlers) do
      local fn = h.fn
      router:on(h.schema, h.wants, single and fn or function(...)
        server.via = via
        return fn(...)
      end)
    end
    sock:router(router)
    server.routers[via] = router
  end
end

return M
