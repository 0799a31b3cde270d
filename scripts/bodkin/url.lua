-- SPDX-License-Identifier: MIT
-- Where a server is and by which key it is known, as text: bodkin://HOST[:PORT][?tcp=PORT][#KEY[,KEY]]. IPv6 addresses
-- stand in brackets; a key is 32 bytes in base64url, the one in use first. Without a key nobody knows who answers. ?tcp
-- says where it listens on TCP, for who gets no UDP out, unless that is 443.
-- A STUN server is stun:HOST[:PORT] (RFC 7064).

local crypto = require("bodkin.core").crypto

local M = { default_port = 4433, stun_port = 3478, tcp_port = 443 }

local shape = "give it as bodkin://HOST[:PORT][?tcp=PORT][#KEY[,KEY]]"
local KEYS_MAX = 2
local KEY_TEXT = 43
local SERVERS_MAX = 8

local function fail(text, why)
  return nil, ("%q is not a server's URL (%s): %s"):format(text, why, shape), "invalid"
end

-- The key, or nil and what is wrong with its text.
local function key_of(text)
  if #text ~= KEY_TEXT then return nil, ("has %d characters, not %d"):format(#text, KEY_TEXT) end
  local odd = text:find "[^%w_-]"
  if odd then return nil, ("has a character at %d that is none of base64url's"):format(odd) end
  local key = crypto.unbase64url(text)
  if not key then return nil, "ends in a character that no key ends in; one was lost or changed" end
  return key
end

-- KEY[,KEY] -> { 32 bytes, … }, or nil and which one is wrong, and why.
function M.keys(text)
  local keys = {}
  for part in (text .. ","):gmatch "([^,]*)," do
    local key, why = key_of(part)
    if #keys == KEYS_MAX then return nil, "more than two keys" end
    if not key then return nil, ("its %s key %s"):format(#keys == 0 and "first" or "second", why) end
    keys[#keys + 1] = key
  end
  return keys
end

function M.key_text(keys)
  local texts = {}
  for i, key in ipairs(keys) do texts[i] = crypto.base64url(key) end
  return table.concat(texts, ",")
end

-- HOST[:PORT] -> host, port, or nil and what is wrong with it.
local function place_of(text, default_port)
  local host, port = text:match("^%[([%x:.]+)%]:?(%d*)$")
  if not host then host, port = text:match("^([%w._-]+):?(%d*)$") end
  if not host then return nil, "no host in it, or something after the port" end
  if text:find(":$") then return nil, "no port after the colon" end
  port = port == "" and default_port or math.tointeger(tonumber(port))
  if not port or port < 1 or port > 65535 then return nil, "a port is 1 to 65535" end
  return host, port
end

-- ?tcp=PORT after a place: the place, and the port or nil; or nil and what is wrong.
local function tcp_of(text)
  local place, query = text:match "^([^?]*)%?(.*)$"
  if not place then return text end
  local port = math.tointeger(tonumber(query:match "^tcp=(%d+)$"))
  if not port or port < 1 or port > 65535 then return nil, "after ? stands tcp=PORT, 1 to 65535" end
  return place, port
end

-- Returns { host =, port =, tcp = port or nil, keys = { 32 bytes, … } or nil }, or nil, message, "invalid".
function M.parse(text)
  if type(text) ~= "string" then return nil, "no server given: " .. shape, "invalid" end
  local rest = text:match("^bodkin://(.*)$")
  if not rest then return fail(text, "it does not begin with bodkin://") end
  local before, after = rest:match "^([^#]*)#(.*)$"
  local keys, why
  if after then
    keys, why = M.keys(after)
    if not keys then return fail(text, why) end
    rest = before
  end
  local place, tcp = tcp_of(rest)
  if not place then return fail(text, tcp) end
  local host, port = place_of(place:gsub("/$", ""), M.default_port)
  if not host then return fail(text, port) end
  return { host = host, port = port, tcp = tcp, keys = keys }
end

-- The same of an address server, which may be any STUN server: then with stun = true.
function M.parse_address(text)
  local rest = type(text) == "string" and text:match "^stun:(.*)$"
  if not rest then return M.parse(text) end
  local host, port = place_of(rest, M.stun_port)
  if host then return { host = host, port = port, stun = true } end
  return nil, ("%q is no STUN server's URL (%s): give it as stun:HOST[:PORT]"):format(text, port), "invalid"
end

-- One or several, as an array or as one text with commas before each further one (keys have commas, too): an array of
-- texts, each of which parse takes; or nil, message, "invalid".
function M.list(urls)
  local list = {}
  if type(urls) == "table" then
    table.move(urls, 1, #urls, 1, list)
  elseif type(urls) == "string" then
    for one in (urls:gsub(",%s*bodkin://", "\0bodkin://") .. "\0"):gmatch "([^\0]*)\0" do list[#list + 1] = one end
  end
  for i = 1, math.max(1, #list) do
    local ok, err, code = M.parse(list[i])
    if not ok then return nil, err, code end
  end
  if #list > SERVERS_MAX then return nil, ("more than %d servers"):format(SERVERS_MAX), "invalid" end
  return list
end

-- HOST:PORT, IPv6 in brackets.
function M.place(host, port)
  if host:find(":", 1, true) then host = "[" .. host .. "]" end
  return ("%s:%d"):format(host, port or M.default_port)
end

-- tcp: the port of TCP, nil where there is none to be told.
function M.format(host, port, keys, tcp)
  return "bodkin://" .. M.place(host, port) .. (tcp and tcp ~= M.tcp_port and ("?tcp=%d"):format(tcp) or "")
    .. (keys and keys[1] and "#" .. M.key_text(keys) or "")
end

return M
