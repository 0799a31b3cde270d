-- SPDX-License-Identifier: MIT
-- A server on an env of its own: virtual time, seeded bytes, sockets that only note what is sent.

local core = require "bodkin.core"
local message = require "bodkin.message"
local servers = require "bodkin.servers"

local M = {}

function M.addr(text) return assert(core.addr.parse(text)) end

-- A client's identity, made from a small number; `ephemeral` is what it sends for its matches.
function M.who(n)
  local key, key_secret = core.crypto.keypair(core.crypto.mac(("k"):rep(16), "key " .. n, 32))
  return {
    key = key, key_secret = key_secret, id = core.crypto.id(key),
    ephemeral = core.crypto.mac(("e"):rep(16), "ephemeral " .. n, 32),
  }
end

local function env_new(seed)
  local env = { socks = {}, timers = 0, counters = core.counters() }
  env.loop = core.loop { virtual = true, now_us = 1000000 }
  local drawn, wall_s = 0, 1800000000
  env.now = function() return env.loop:now() end
  env.time = function() return wall_s + env.loop:now() // 1000000 end
  env.random = function(n)
    local parts, len = {}, 0
    while len < n do
      drawn = drawn + 1
      parts[#parts + 1] = core.crypto.mac(("r"):rep(16), seed .. ":" .. drawn, 64)
      len = len + 64
    end
    return table.concat(parts):sub(1, n)
  end
  env.timer = function(ms, fn)
    local open = true
    env.timers = env.timers + 1
    local function over()
      if open then env.timers = env.timers - 1 end
      open = false
    end
    local raw = env.loop:timer(ms, function()
      over()
      fn()
    end)
    return { cancel = function()
      over()
      raw:cancel()
    end }
  end
  env.udp = function(at)
    if env.refuse_bind then
      return nil, ("cannot bind %s: Address already in use"):format(core.addr.format(at)), "invalid"
    end
    local sock = { sent = {} }
    function sock.addr() return at end
    function sock.router(_, r) sock.to_router = r end
    function sock.send(_, to, bytes)
      sock.sent[#sock.sent + 1] = { to = to, bytes = bytes, at_us = env.loop:now(), sock = sock }
      env.sent[#env.sent + 1] = sock.sent[#sock.sent]
      return true
    end
    function sock.close() sock.closed = true end
    env.socks[#env.socks + 1] = sock
    return sock
  end
  env.sent = {}
  return env
end

M.env = env_new

local by_type
local function schema_of(s, bytes)
  by_type = by_type or {}
  for _, schema in ipairs(s.server and s.server.replies or message.all) do by_type[schema.type] = schema end
  return by_type[bytes:byte(bytes:byte() == 0xdc and 4 or 2)] -- an array of more than 15 has a longer head
end

-- A message as { name_of =, to =, at_us =, length =, who = (where it came in an association), and its fields by name }.
local function read(s, datagram, bytes, who)
  local schema = assert(schema_of(s, bytes))
  local out = { name_of = schema.name, to = datagram.to, at_us = datagram.at_us, length = #datagram.bytes,
    sock = datagram.sock, who = who }
  assert(schema.sealed == false or who, "a plain " .. schema.name)
  local values = table.pack(schema:decode(bytes))
  assert(values[1] ~= nil, values[2])
  local i = 0
  for _, field in ipairs(schema.fields) do
    if field[2] ~= "pad" then
      i = i + 1
      out[field[1]] = values[i]
    end
  end
  return out
end

local S = {}
S.__index = S

-- Of a frame, the message in it.
local function unsealed(s, datagram)
  local bytes = datagram.bytes
  if bytes:byte() ~= 0xc1 then return read(s, datagram, bytes) end
  local a = assert(s.by_index[string.unpack(">I4", bytes, 2)], "a frame to nobody")
  local kind, x = a.raw:read(bytes)
  assert(kind == "message", "a frame that does not open")
  return read(s, datagram, x, a.who)
end

-- Starts a server: options of servers.open, and seed, env.
function M.server(options)
  local env = options.env or env_new(options.seed or 1)
  options.listen = options.listen or { "203.0.113.1:4433" }
  local s = setmetatable({ env = env, tx = 0, assocs = {}, by_index = {} }, S)
  s.server = assert(servers.open(env, options))
  return s
end

function S:next_tx()
  self.tx = self.tx + 1
  return ("tx%010d"):format(self.tx)
end

-- Feeds bytes; returns what is sent in answer, as a list.
function S:feed(from, bytes, sock)
  self.env.sent = {}
  sock = sock or self.env.socks[1]
  sock.to_router:input(sock, from, bytes)
  return self:drain()
end

-- What was sent since.
function S:drain()
  local list = {}
  for i, d in ipairs(self.env.sent) do list[i] = unsealed(self, d) end
  self.env.sent = {}
  return list
end

-- The association of `who` from an address, opened when it is first asked for.
function S:assoc(who, from, sock)
  local a = self.assocs[who.id .. from]
  if a then return a end
  a = { who = who, from = from, index = #self.by_index + 1 }
  local noise
  local secret = core.crypto.mac(("e"):rep(16), "assoc " .. a.index, 32)
  a.raw, noise = core.assoc(who.key .. who.key_secret, secret, self.server.public_keys[1], a.index, "")
  local opened = self:feed(from, message.open:encode(self:next_tx(), self:proof(from), noise), sock)
  assert(#opened == 1 and opened[1].name_of == "opened", opened[1] and opened[1].text)
  assert(a.raw:answered(opened[1].noise))
  self.assocs[who.id .. from], self.by_index[a.index] = a, a
  return a
end

-- One request by name; sealed ones go in the association of `who` (one of nobody in particular where it is an
-- address and what follows is the name). Returns its datagrams and the length of the request.
function S:ask(who, ...)
  if type(who) == "string" then return self:ask(M.who(999), who, ...) end
  return self:ask_as(who, ...)
end

function S:ask_as(who, from, name, ...)
  local schema = self.server.schemas[name]
  local bytes = assert(schema:encode(...))
  if not schema.sealed then return self:feed(from, bytes), #bytes end
  local frame = self:assoc(who, from).raw:write(bytes)
  local answers = self:feed(from, frame)
  if not answers[1] or answers[1].name_of ~= "lost" then return answers, #frame end
  self.assocs[who.id .. from] = nil -- the server has forgotten it: a client opens another
  frame = self:assoc(who, from).raw:write(bytes)
  return self:feed(from, frame), #frame
end

-- The only answer.
function S:one(...)
  local list = self:ask(...)
  assert(#list == 1, ("%d answers to %s"):format(#list, select(type((...)) == "string" and 2 or 3, ...)))
  return list[1]
end

function S:proof(from) return self.server.cookie:proof(from) end
function S:count(name) return self.server.counters:get(name) end

function S:advance(ms)
  self.env.sent = {}
  self.env.loop:advance(math.tointeger(ms * 1000))
  return self:drain()
end

-- Registers `who` from `from`; options: app, name, props (table), pubs, locals, token, rtt_ms, nat, tx.
function S:register(who, from, options)
  options = options or {}
  return self:one(who, from, "register", options.tx or self:next_tx(), who.ephemeral, options.pubs or {},
    options.locals or {}, options.app or "test/1", options.name or "", core.wire.encode(options.props or {}),
    options.token, options.rtt_ms, options.nat)
end

-- Selects; options as above, and code or target. Returns all that was sent.
function S:select(who, from, options)
  return (self:ask(who, from, "select", options.tx or self:next_tx(), who.ephemeral, options.target, options.code,
    options.pubs or {}, options.locals or {}, options.app or "test/1", options.name or "",
    core.wire.encode(options.props or {}), options.token, options.rtt_ms, options.nat))
end

function S:room(who, from, code, match)
  return self:one(who, from, "room_open", self:next_tx(), code, match)
end

-- Acknowledges each `matched` of a list.
function S:ack(list)
  for _, m in ipairs(list) do
    if m.name_of == "matched" then self:ask(m.who, m.to, "matched_ack", m.tx) end
  end
end

function S:close()
  self.server:close()
  assert(self.env.timers == 0, self.env.timers .. " timers left")
  for _, sock in ipairs(self.env.socks) do assert(sock.closed, "a socket left open") end
end

function M.only(list, name)
  local out = {}
  for _, m in ipairs(list) do
    if m.name_of == name then out[#out + 1] = m end
  end
  return out
end

return M
