-- SPDX-License-Identifier: MIT
-- What a Teeworlds 0.7 client says to a server before it plays: it asks for a token, then for the server's name,
-- connects, and asks for the map. teeworlds.lua ADDR:PORT prints the names of server and map, and one full datagram's
-- part of the map, in hex; it exits with 0 once it has these. Datagrams that the server compressed are passed over.
-- The numbers are those of the game's protocol, which its server alone has the last word on.

local core = require "bodkin.core"
local env = require("bodkin.env").new()

local CONTROL, COMPRESSED, CONNLESS = 1, 4, 8 -- flags of a datagram
local CONNECT, ACCEPT, CLOSE, TOKEN = 1, 2, 4, 5 -- what CONTROL says
local INFO, MAP_CHANGE, MAP_DATA, REQUEST_MAP_DATA = 1, 2, 3, 23 -- messages in chunks
local VITAL = 1 -- a chunk that is sent again until it arrived
local NET_VERSION, CLIENT_VERSION = "0.7 802f1be60a05665f", 0x0705
local FULL = 1300 -- bytes of a part of the map, the last of which is shorter
local MY_TOKEN, NO_TOKEN = 0x0b0d4114, 0xffffffff

local server = assert(core.addr.parse(arg[1]))
local sock = assert(env.udp(core.addr.parse("0.0.0.0", 0), { max_bytes = 2232 }))
local token, ack, sequence, asked = NO_TOKEN, 0, 0, false
local last -- what was said, said again until there is an answer

local function say(bytes)
  last = bytes
  sock:send(server, bytes)
end

-- The game's integers: a bit for more to follow, a sign, 6 bits; then 7 bits a byte.
local function int(n)
  local bytes, rest = { n & 0x3f }, n >> 6
  while rest > 0 do
    bytes[#bytes] = bytes[#bytes] | 0x80
    bytes[#bytes + 1], rest = rest & 0x7f, rest >> 7
  end
  return string.char(table.unpack(bytes))
end

local function datagram(flags, count, body) return string.pack(">I2BI4", flags << 10 | ack, count, token) .. body end

-- Long, so that nobody's server answers with more than it was sent.
local function control(what) return datagram(CONTROL, 0, string.pack(">BI4", what, MY_TOKEN) .. ("\0"):rep(507)) end

local function message(id, body)
  sequence = sequence + 1
  body = int(id << 1 | 1) .. body
  return datagram(0, 1, string.pack("BBB", VITAL << 6 | #body >> 6, #body & 0x3f, sequence) .. body)
end

local function finish(code)
  sock:send(server, datagram(CONTROL, 0, string.char(CLOSE)))
  sock:close()
  os.exit(code, true)
end

local function heard(id, body)
  if id == MAP_CHANGE and not asked then
    asked = true
    print("map " .. body:match "^[^\0]*")
    say(message(REQUEST_MAP_DATA, ""))
  elseif id == MAP_DATA and #body >= FULL then
    print("part " .. core.crypto.hex(body))
    finish(0)
  end
end

local function chunks(count, body)
  local at = 1
  for _ = 1, count do
    local high, low, number = body:byte(at, at + 2)
    local len, vital = (high & 0x3f) << 6 | low & 0x3f, high >> 6 & VITAL == VITAL
    at = at + (vital and 3 or 2)
    if vital and ((low & 0xc0) << 2 | number) == ack + 1 then ack = ack + 1 end
    local id = body:byte(at)
    if id & 1 == 1 then heard(id >> 1, body:sub(at + 1, at + len - 1)) end
    at = at + len
  end
end

local function controlled(what, body)
  if what == TOKEN and token == NO_TOKEN then
    token = string.unpack(">I4", body)
    say(string.pack(">BI4I4", CONNLESS << 2 | 1, token, MY_TOKEN) .. "\xff\xff\xff\xffgie3" .. int(7))
  elseif what == ACCEPT and sequence == 0 then
    say(message(INFO, NET_VERSION .. "\0\0" .. int(CLIENT_VERSION)))
  elseif what == CLOSE then
    print("closed: " .. body)
    finish(1)
  end
end

local named
sock:on_packet(function(_, bytes)
  local flags = bytes:byte(1) >> 2
  if flags & CONNLESS ~= 0 then
    local name = bytes:match "^.........\xff\xff\xff\xffinf3.[^\0]*\0([^\0]*)"
    if named or not name then return end
    named = true
    print("server " .. name)
    return say(control(CONNECT))
  end
  if flags & CONTROL ~= 0 then return controlled(bytes:byte(8), bytes:sub(9)) end
  if flags & COMPRESSED == 0 then chunks(bytes:byte(3), bytes:sub(8)) end
end)

say(control(TOKEN))
local timer
timer = env.timer(300, function()
  sock:send(server, last)
  timer:again(300)
end)
env.timer(8000, function() finish(3) end)
env.run()
