-- SPDX-License-Identifier: MIT
-- A server's config file: Lua that returns bodkin.config { … }. Its names are those of the flags of
-- `bodkin serve`, with underscores. Checked at once, so that an error names the file, the line and the way out.
--
--   return bodkin.config { listen = { "0.0.0.0:4433" }, roles = { "address", "matching" }, key_file = "key" }

local core = require "bodkin.core"
local addresses = require "bodkin.servers.addresses"
local limits = require "bodkin.servers.limits"
local servers = require "bodkin.servers"

local addr = core.addr

local M = {}
local Config = { __name = "bodkin.config" }

local function kind(want)
  return function(v)
    if type(v) ~= want then return nil, ("must be a %s, not a %s"):format(want, type(v)) end
    return v
  end
end

local function one_of(set)
  local names = {}
  for name in pairs(set) do names[#names + 1] = name end
  table.sort(names)
  return function(v)
    if not set[v] then return nil, ("must be one of %s, not %s"):format(table.concat(names, ", "), tostring(v)) end
    return v
  end
end

-- A list, or one text with commas, of elements that each pass `check`.
local function list_of(check)
  return function(v)
    local list = v
    if type(v) == "string" then
      list = {}
      for part in v:gmatch("[^,%s]+") do list[#list + 1] = part end
    end
    if type(list) ~= "table" or #list == 0 then return nil, "must be a list, or a text with commas" end
    for _, one in ipairs(list) do
      local ok, why = check(one)
      if not ok then return nil, why end
    end
    return list
  end
end

local function listen_addr(v)
  if type(v) == "string" and addr.parse(v, 4433) then return v end -- the port may be missing
  return nil, ("%s is not a numeric address and port, such as 0.0.0.0:4433 or [::]:4433"):format(tostring(v))
end

-- Where clients are sent; serve takes no more of them.
local function relay_addr(v)
  local a = type(v) == "string" and addr.parse(v, 4433)
  if not a then return nil, ("%s is not a numeric address and port, such as 192.0.2.1:4433"):format(tostring(v)) end
  local class = addr.class(a)
  if addr.port(a) > 0 and class ~= "none" and class ~= "multicast" then return v end
  return nil, ("%s is no address and port that a client can send to"):format(v)
end

local relay_addrs = list_of(relay_addr)
local function relays(v)
  local list, why = relay_addrs(v)
  if not list then return nil, why end
  if #list >= servers.RELAYS_MAX then return nil, ("must be at most %d"):format(servers.RELAYS_MAX - 1) end
  return list
end

-- { name = { policy = file } }, "*" for every queue that is not named.
local function queues(v)
  if type(v) ~= "table" then return nil, 'must be a table: { duel = { policy = "duel.lua" } }' end
  for name, queue in pairs(v) do
    if type(name) ~= "string" or #name < 1 or #name > 32 then return nil, "a queue is a name of at most 32 bytes" end
    local is_table = type(queue) == "table"
    if is_table and queue.props ~= nil then
      return nil, ("%s has no props of its own: its policy declares them, bodkin.policy { props = … }"):format(name)
    end
    for field in pairs(is_table and queue or {}) do
      if field ~= "policy" then return nil, ("%s: there is no '%s': it is policy"):format(name, tostring(field)) end
    end
    if not is_table or type(queue.policy) ~= "string" then
      return nil, ('%s must be { policy = "FILE" }'):format(name)
    end
  end
  return v
end

-- The public keys that may sign tokens, as bodkin keygen --token-key prints them: comes out as 32 bytes each.
local texts = list_of(kind "string")
local function token_keys(v)
  local list, why = texts(v)
  if not list then return nil, why end
  if #list > 2 then return nil, "must be one key, or two while they are rotated" end
  local keys = {}
  for i, text in ipairs(list) do
    keys[i] = core.crypto.unbase64url(text)
    if not keys[i] or #keys[i] ~= 32 then
      return nil, ("number %d is no public key: 43 characters, as bodkin keygen --token-key printed it"):format(i)
    end
  end
  return keys
end

-- { url =, secret = | key_file = }
local function webhook(v)
  if type(v) ~= "table" then return nil, 'must be a table: { url = "https://…", key_file = FILE }' end
  for name, value in pairs(v) do
    if name ~= "url" and name ~= "secret" and name ~= "key_file" or type(value) ~= "string" then
      return nil, "has url, and secret or key_file, each a text"
    end
  end
  if not v.url or not v.url:find "^https?://[^%s%c]+$" or #v.url > 500 then
    return nil, "url must be one of http or https"
  end
  if (v.secret == nil) == (v.key_file == nil) then return nil, "needs a secret, or a key_file that holds it" end
  if v.secret and #v.secret < 16 then return nil, "secret must have at least 16 bytes" end
  return v
end

-- The path of a Unix socket: its mode says who may ask. There is no admin over TCP, which would need a token.
function M.admin_path(v)
  if type(v) ~= "string" or v == "" then return nil, "must be the path of a Unix socket" end
  if not v:find "/" and (v:find "^:?%d+$" or v:find ":%d+$") or v:find "^%a+://" then
    return nil, ("%s is a network address: the admin socket is a Unix socket, give its path"):format(v)
  end
  return v
end

local roles = {}
for _, name in ipairs(servers.ROLES) do roles[name] = true end

local fields = {
  listen = list_of(listen_addr),
  listen_tcp = list_of(listen_addr),
  roles = list_of(one_of(roles)),
  role_files = list_of(kind "string"),
  maintenance_mode = one_of(servers.MODES),
  local_addresses = one_of(addresses.LOCAL_RULES),
  expose_addresses = kind "boolean",
  shared_clock = kind "boolean",
  key_file = kind "string",
  token_keys = token_keys,
  require_token = kind "boolean",
  admin = M.admin_path,
  record = kind "string",
  watch = kind "boolean",
  webhook = webhook,
  stun = kind "boolean",
  limits = limits.check,
  queues = queues,
  relays = relays,
}

-- Checked data, or nil, message, code. Does not touch the file system.
function M.check(data)
  if type(data) ~= "table" then return nil, "config: it must be a table", "invalid" end
  local out, names = {}, {}
  for name in pairs(data) do names[#names + 1] = tostring(name) end
  table.sort(names)
  for _, name in ipairs(names) do
    local check = fields[name]
    if not check then
      local known = {}
      for k in pairs(fields) do known[#known + 1] = k end
      table.sort(known)
      return nil, ("config: there is no '%s': it is one of %s"):format(name, table.concat(known, ", ")), "invalid"
    end
    local value, why = check(data[name])
    if value == nil then return nil, ("config: %s: %s"):format(name, why), "invalid" end
    out[name] = value
  end
  if out.require_token and not out.token_keys then
    return nil, "config: require_token needs token_keys: the public keys of who signs tokens", "invalid"
  end
  return setmetatable(out, Config)
end

-- bodkin.config: the same, but throws at the caller's level, which is a line of the config file.
function M.config(data)
  local config, msg = M.check(data)
  if not config then error(msg, 2) end
  return config
end

function M.is(value)
  return getmetatable(value) == Config
end

-- Runs a config file. nil, message, code on failure.
function M.load(path)
  local chunk, why = loadfile(path, "t")
  if not chunk then return nil, ("cannot load the config file: %s"):format(why), "invalid" end
  local ok, value = pcall(chunk)
  if not ok then return nil, ("the config file is not right: %s"):format(tostring(value)), "invalid" end
  if not M.is(value) then
    return nil, ("%s does not return a config: end it with return bodkin.config { … }"):format(path), "invalid"
  end
  return value
end

return M
