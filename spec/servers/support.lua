-- SPDX-License-Identifier: MIT
-- A server on an env of its own: virtual time, seeded bytes, sockets that only note what is sent.

local core = require "bodkin.core"
local message = require "bodkin.message"
local servers = require "bodkin.servers"

local M = {}

function M.addr(text) return assert(core.addr.parse(text)) end

-- A client's identity, made from a small number.
function M.who(n)
  local key = core.crypto.mac(("k"):rep(16), "key " .. n, 32)
  return { key = key, id = core.crypto.id(key), secret = core.crypto.mac(("s"):rep(16), "secret " .. n, 16) }
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
  return by_type[bytes:byte(2)]
end

-- A datagram as { name =, to =, at_us =, length =, and its fields by name }.
local function read(s, datagram)
  local schema = assert(schema_of(s, datagram.bytes))
  local out = { name_of = schema.name, to = datagram.to, at_us = datagram.at_us, length = #datagram.bytes,
    sock = datagram.sock }
  local values = table.pack(schema:decode(datagram.bytes))
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

-- Starts a server: options of servers.open, and seed, env.
function M.server(options)
  local env = options.env or env_new(options.seed or 1)
  options.listen = options.listen or { "203.0.113.1:4433" }
  local s = setmetatable({ env = env, tx = 0 }, S)
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
  for i, d in ipairs(self.env.sent) do list[i] = read(self, d) end
  self.env.sent = {}
  return list
end

-- One request by name; returns its datagrams and the length of the request.
function S:ask(from, name, ...)
  local bytes = assert(self.server.schemas[name]:encode(...))
  return self:feed(from, bytes), #bytes
end

-- The only answer.
function S:one(from, name, ...)
  local list = self:ask(from, name, ...)
  assert(#list == 1, ("%d answers to %s"):format(#list, name))
  return list[1]
end

function S:proof(from) return self.server.cookie:proof(from) end
function S:count(name) return self.server.counters:get(name) end

function S:advance(ms)
  self.env.sent = {}
  self.env.loop:advance(math.tointeger(ms * 1000))
  return self:drain()
end

-- Registers `who` from `from`; options: app, name, props (table), pubs, locals, secret, tx.
function S:register(who, from, options)
  options = options or {}
  return self:one(from, "register", options.tx or self:next_tx(), self:proof(from), who.key,
    options.secret or who.secret, options.pubs or {}, options.locals or {}, options.app or "test/1",
    options.name or "", core.wire.encode(options.props or {}))
end

-- Selects; options as above, and code or target, unsecret. Returns all that was sent.
function S:select(who, from, options)
  return (self:ask(from, "select", options.tx or self:next_tx(), self:proof(from), who.key,
    not options.unsecret and who.secret or nil, options.target, options.code, options.pubs or {},
    options.locals or {}, options.app or "test/1", options.name or "", core.wire.encode(options.props or {})))
end

function S:room(who, from, code, match)
  return self:one(from, "room_open", self:next_tx(), self:proof(from), who.id, who.secret, code, match)
end

-- Acknowledges each `matched` of a list.
function S:ack(list)
  for _, m in ipairs(list) do
    if m.name_of == "matched" then self:ask(m.to, "matched_ack", m.tx) end
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
