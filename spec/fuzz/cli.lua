-- SPDX-License-Identifier: MIT
-- For fuzz_cli: what the command line parses. The first byte says what: arguments (one a line), a URL, JSON, a
-- config, a scenario, a trace, the name of a policy and what its file requires, files of keys and of known servers, a
-- token. Each has to give its value, or nil and a sentence.
local fail = ...
package.preload["bodkin.host"] = function()
  return { is_terminal = function() return false end, pid = function() return 1 end }
end

local core = require "bodkin.core"
local cli = require "bodkin.cli"
local config = require "bodkin.config"
local help = require "bodkin.cli.help"
local json = require "bodkin.json"
local keyfile = require "bodkin.keyfile"
local options = require "bodkin.cli.options"
local replay = require "bodkin.replay"
local scenario = require "bodkin.scenario"
local source = require "bodkin.policy.source"
local token = require "bodkin.token"
local trust = require "bodkin.client.trust"
local url = require "bodkin.url"
core.on_error(fail)

-- The commands are not run, what they say goes nowhere, and the files they read are the input's.
local file_text, given = "", nil
local silent = { write = function(self) return self end }
local env = {}
for _, name in ipairs(help.order) do
  local command = require("bodkin.cli." .. name)
  if name ~= "help" then
    command.run = function(values)
      given = values
      return 0
    end
  end
end
io.stderr, io.stdout, print = silent, silent, function() end -- luacheck: ignore
os.getenv = function(name) return env[name] end -- luacheck: ignore
io.open = function(path) -- luacheck: ignore
  if path:find "none" then return nil, path .. ": No such file or directory" end
  return { read = function() return not path:find "/$" and file_text or nil end, close = function() end }
end

-- Either a value, or nil and what is wrong.
local function judged(value, why)
  if value == nil and (type(why) ~= "string" or why == "") then error "refused without a reason" end
  return value
end

local function same(a, b)
  if type(a) ~= "table" or type(b) ~= "table" then return a == b or (a ~= a and b ~= b) end
  for k, v in pairs(a) do
    if not same(v, b[k]) then return false end
  end
  for k in pairs(b) do
    if a[k] == nil then return false end
  end
  return true
end

local function lines_of(text)
  local list = {}
  for line in (text .. "\n"):gmatch "(.-)\n" do list[#list + 1] = line end
  return list
end

-- The first line: what $BODKIN_SERVER is; then the command and its arguments.
local function arguments(text)
  local argv = lines_of(text)
  env.BODKIN_SERVER = table.remove(argv, 1)
  given = nil
  local status = cli.main(argv)
  if math.type(status) ~= "integer" or status < 0 or status > 130 then error "no exit code" end
  local values = given
  if not values or argv[1] == "run" then return end
  for _, key in ipairs { "server", "address_server", "maintenance_server" } do
    if values[key] and not url.parse(values[key]) then error(key .. " is no URL") end
  end
  for _, key in ipairs { "props", "query" } do
    if values[key] then judged(core.wire.encode(values[key])) end
  end
  for _, at in ipairs(values.listen or {}) do
    if not core.addr.parse(at:find "^:?%d+$" and "0.0.0.0:" .. at:match "%d+" or at, 4433) then error "listen" end
  end
end

local function one_url(text)
  local at = judged(url.parse(text))
  if not at then return end
  if not same(at, url.parse(url.format(at.host, at.port, at.keys))) then error "a URL is read otherwise again" end
end

local function one_json(text)
  local value = judged(json.decode(text))
  if value == nil or type(value) == "userdata" then return end
  local line = json.encode(value)
  if line:find "\n" then error "more than one line" end
  local bytes = core.wire.encode(value)
  if bytes and not same(core.wire.decode(bytes), value) then error "JSON is otherwise after the wire" end
end

local function checked(check)
  return function(text)
    local value = json.decode(text)
    local ok = judged(check(value))
    if ok and not same(ok, check(value)) then error "checked otherwise again" end
  end
end

local function one_trace(text)
  local done, why, number = replay.run(text:gmatch "[^\n]+")
  if done then return end
  if type(why) ~= "string" or math.type(number) ~= "integer" then error "refused without a reason or a line" end
end

local function one_source(text)
  local path
  path, file_text = text:match "^([^\n]*)\n?(.*)$"
  judged(source.read(path))
end

local function one_keyfile(text)
  local files = { read = function() return text end }
  local keys = judged(keyfile.read("key", nil, files))
  judged(keyfile.server("key", files))
  judged(keyfile.identity("key", files))
  if not keys then return end
  local again = keyfile.text(keys.secrets, keys.kind, keys.comments)
  local read = keyfile.read("key", nil, { read = function() return again end })
  if not same(keys.secrets, read and read.secrets) or read.kind ~= keys.kind then error "keys are read otherwise" end
end

-- The place of the first line is looked up in the rest.
local function known_servers(text)
  local place, rest = text:match "^([^\n]*)\n?(.*)$"
  local where = url.parse("bodkin://" .. place)
  if not where then return end
  local keys, why = trust.known({ known_servers = "known", files = { read = function() return rest end } }, where)
  if not keys and why ~= nil and type(why) ~= "string" then error "refused without a reason" end
end

local SEED = ("s"):rep(32)
local signer = core.crypto.sign_keypair(SEED)

-- As a text; and as claims that were signed.
local function one_token(text)
  local bytes = token.bytes(text)
  if bytes then judged(token.open(bytes, { signer }, 1, nil, "app")) end
  if #text <= token.max - 64 then
    local signed = text .. core.crypto.sign(SEED, "bodkin token 1\0" .. text)
    judged(token.open(signed, { signer }, 1, SEED:sub(1, 16), "app"))
  end
  local claims = json.decode(text)
  if type(claims) == "table" then judged(token.issue(SEED, claims)) end
end

local function suggestion(text)
  if not options.suggestion(text, help.order):find "^ ?%(?" then error "no text" end
end

local what = { arguments, one_url, one_json, checked(config.check), checked(scenario.check), one_trace, one_source,
  suggestion, one_keyfile, known_servers, one_token }

return function(bytes)
  if bytes == "" then return end
  what[bytes:byte() % #what + 1](bytes:sub(2))
end
