-- SPDX-License-Identifier: MIT
-- A server: some roles that share one process, its sockets and one table of messages.
-- Everything comes from `env` (clock, sockets, timers, random), so it runs unchanged in the simulator.

local core = require "bodkin.core"
local addresses = require "bodkin.servers.addresses"
local compose = require "bodkin.servers.compose"
local cookie = require "bodkin.servers.cookie"
local limits = require "bodkin.servers.limits"
local message = require "bodkin.message"
local policies = require "bodkin.servers.policies"
local tickets = require "bodkin.servers.tickets"

local M = {}
local Server = {}
Server.__index = Server

M.ROLES = compose.ROLES
M.MODES = { confirm = true, silent = true }
M.DEFAULT_LISTEN = "0.0.0.0:4433"
M.TCP_PORT = 443

M.RELAYS_MAX = 3                 -- that a client is told of, this server among them
local HERE = ("\0"):rep(6)       -- 0.0.0.0:0, as a relay: this server, by whichever of its addresses a client knows it

local function hint_of(msg)
  if msg:find "[Aa]ssign" then return "is that an address of this machine?" end
  if msg:find "[Pp]ermi" then return "ports below 1024 need CAP_NET_BIND_SERVICE (systemd: AmbientCapabilities=);" end
  return "is another server running there?"
end

-- make(at, number) -> socket or nil, message, code
local function bind(server, listen, port, flag, make)
  for _, where in ipairs(listen) do
    local at = where
    if #where ~= 6 and #where ~= 18 or core.addr.parse(where) then at = core.addr.parse(where, port) end
    if not at then
      return nil, ("cannot listen on %s: it is not a numeric address and port"):format(where), "invalid"
    end
    local number = #server.socks + 1
    local sock, msg, code = make(at, number)
    if not sock then return nil, ("cannot listen: %s; %s try another %s"):format(msg, hint_of(msg), flag), code end
    server.socks[number] = sock
  end
  return true
end

-- Those of UDP come first, so that theirs are the numbers of `listen`.
local function bind_all(server, options)
  local env, counters, bounds = server.env, server.counters, server.limits
  local ok, msg, code = bind(server, options.listen or { M.DEFAULT_LISTEN }, 4433, "--listen", function(at, number)
    local err, why
    server.udp[number], err, why = env.udp(at, { number = number, counters = counters })
    return server.udp[number], err, why
  end)
  if not ok then return nil, msg, code end
  return bind(server, options.listen_tcp or {}, M.TCP_PORT, "--listen-tcp", function(at, number)
    server.tcp[number] = true
    return env.tcp(at, {
      number = number, counters = counters, max = bounds.tcp_connections, max_each = bounds.tcp_connections_each,
    })
  end)
end

-- Without any, a key of this run alone.
local function deployment_keys(env, options)
  local keys = options.keys or { env.random(32) }
  local ok = type(keys) == "table" and (#keys == 1 or #keys == 2)
  for _, key in ipairs(ok and keys or {}) do ok = ok and type(key) == "string" and #key == 32 end
  if not ok then return nil, "keys are secrets of 32 bytes each, one or two", "invalid" end
  return keys
end

local function public_keys(keys)
  local list = {}
  for i, secret in ipairs(keys) do list[i] = core.crypto.keypair(secret) end
  return list
end

-- The relays that clients are told of, packed.
local function relay_list(relays)
  local list = {}
  if relays and #relays >= M.RELAYS_MAX then
    return nil, ("at most %d relays beside this server"):format(M.RELAYS_MAX - 1), "invalid"
  end
  for i, where in ipairs(relays or {}) do
    list[i] = core.addr.parse(where, 4433)
    if not list[i] then return nil, ("the relay %s is not a numeric address and port"):format(where), "invalid" end
  end
  return list
end

local function setup(env, options)
  local bounds, msg, code = limits.check(options.limits)
  if not bounds then return nil, msg, code end
  local mode, rule = options.maintenance_mode or "confirm", options.local_addresses or "same-public"
  if not M.MODES[mode] then
    return nil, ("there is no maintenance mode '%s': it is confirm or silent"):format(tostring(mode)), "invalid"
  end
  if not addresses.LOCAL_RULES[rule] then
    return nil, ("there is no rule '%s' for local addresses: it is same-public, always or never"):format(
      tostring(rule)), "invalid"
  end
  local keys
  keys, msg, code = deployment_keys(env, options)
  if not keys then return nil, msg, code end
  local slots
  slots, msg, code = policies.read(options.queues)
  if not slots then return nil, msg, code end
  local relays
  relays, msg, code = relay_list(options.relays)
  if not relays then return nil, msg, code end
  local counters = env.counters or core.counters()
  local function time() return env.time and env.time() or env.now() // 1000000 end
  return setmetatable({
    env = env, counters = counters, log = env.log, limits = bounds, boot = env.random(8),
    maintenance_mode = mode, local_rule = rule, expose_addresses = options.expose_addresses or false,
    shared_clock = options.shared_clock or false,
    stun = options.stun ~= false,
    keys = keys, public_keys = public_keys(keys), token_keys = options.token_keys,
    require_token = options.require_token,
    cookie = cookie.new { key = keys[1], random = env.random, time = time },
    tcp_cookie = cookie.new { key = keys[1], random = env.random, time = time, over_tcp = true },
    tickets = tickets.new { key = keys[1], time = time, lifetime_s = bounds.relay_s }, relays = relays,
    policy_slots = slots, open_policy_link = options.open_policy_link,
    on_record = options.on_record, watch = options.watch, webhook = options.webhook,
    started_us = env.now(), roles = {}, routers = {},
    socks = {}, udp = {}, tcp = {}, -- by number: all, those of UDP, whether one is of TCP
    schemas = setmetatable({}, { __index = message }),
    replies = table.move(message.all, 1, #message.all, 1, {}), closers = {}, reporters = {},
  }, Server)
end

-- Starts a server. options: listen, listen_tcp = { packed or "ADDR:PORT", … }, roles = { names, … }, role_files =
-- { paths or roles, … }, maintenance_mode = "confirm"|"silent", keys = { 32 bytes, 32 bytes or nil }: the
-- deployment's secrets, the one in use first (see bodkin.keyfile; else one of this run alone), token_keys = { 32 bytes,
-- … }, require_token (see admission.lua), expose_addresses,
-- shared_clock (clients are told when a match was committed, on the server's clock, which is theirs, too),
-- local_addresses = "same-public"|"always"|"never", stun = false (STUN Binding requests are dropped), limits,
-- queues = { [name or "*"] = { policy = path or source } }, relays = { "ADDR:PORT", … }: on other machines that share
-- the keys; open_policy_link, on_record, watch (see policies.lua);
-- webhook (see webhook.lua). nil, message, code on failure.
function M.open(env, options)
  local list, seen, code = compose.gather(options)
  if not list then return nil, seen, code end
  local server, msg
  server, msg, code = setup(env, options)
  if not server then return nil, msg, code end
  for _, role in ipairs(list) do
    server.roles[#server.roles + 1] = role.name
  end
  server.has_role = seen
  if seen.relay then table.insert(server.relays, 1, HERE) end
  if seen.matching then
    server.registry = core.registry {
      seed = env.random(16), max_entries = server.limits.registrations, counters = server.counters,
    }
  end
  local handlers, ok
  handlers, msg, code = compose.claim(server, list)
  if not handlers then return nil, msg, code end
  ok, msg, code = bind_all(server, options)
  if not ok then
    server:close()
    return nil, msg, code
  end
  compose.attach(server, handlers)
  return server
end

-- The packed addresses it listens on, in order of `listen`.
function Server:addresses()
  local list = {}
  for i, sock in ipairs(self.udp) do list[i] = sock:addr() end
  return list
end

-- The same of `listen_tcp`.
function Server:tcp_addresses()
  local list = {}
  for number, sock in ipairs(self.socks) do
    if self.tcp[number] then list[#list + 1] = sock:addr() end
  end
  return list
end

-- Whether the message that is being handled came over TCP: its sender's address is then a connection's.
function Server:over_tcp() return self.tcp[self.via] or false end

-- Sends a message to the client of an association.
function Server:push(assoc, name, ...)
  local bytes, msg, code = self.schemas[name]:encode(...)
  if not bytes then return nil, msg, code end
  return self:push_bytes(assoc, bytes)
end

function Server:push_bytes(assoc, bytes)
  local frame, to, number, at = self.assocs:write(assoc, bytes)
  if frame then return self.socks[number]:send(to, frame, nil, at) end
  if not self.held then return nil, "no such association", "closed" end
  self.held[#self.held + 1] = { assoc = assoc, bytes = bytes } -- perhaps the one that is being opened
  return true
end

-- Sends a message to an address by the first UDP socket of its family. An address that did not prove itself is never
-- sent to: that is the caller's part.
function Server:send(to, name, ...)
  for _, sock in ipairs(self.udp) do
    if #sock:addr() == #to then
      local bytes, msg, code = self.schemas[name]:encode(...)
      if not bytes then return nil, msg, code end
      return sock:send(to, bytes)
    end
  end
  return nil, "no socket of that address family", "invalid"
end

-- Answers with an address report; so does every request whose sender has not proved its address.
function Server:report(reply, from, tx)
  local cookies = self:over_tcp() and self.tcp_cookie or self.cookie
  if reply("address_report", tx, core.addr.mask(from, tx), cookies:proof(from)) ~= false then
    self.counters:add("address_reported")
  end
end

-- True when `proof` holds for the sender; else reports its address, and false.
function Server:believes(reply, from, tx, proof)
  local cookies = self:over_tcp() and self.tcp_cookie or self.cookie
  if cookies:valid(proof, from) then return true end
  if proof then self.counters:add("address_cookie_bad") end
  self:report(reply, from, tx)
  return false
end

-- The same, which lifts the reply rule.
function Server:prove(reply, from, tx, proof)
  if not self:believes(reply, from, tx, proof) then return false end
  reply:proven()
  return true
end

-- Refuses a request: `code` is a name of the error table, `text` at most 40 bytes.
function Server:refuse(reply, tx, code, text) -- luacheck: ignore 212/self
  return reply("refused", tx, math.abs(core.errors[code].value), text)
end

-- A role's clean-up, and its part of status(): fn(info) adds to the table.
function Server:at_close(fn) self.closers[#self.closers + 1] = fn end
function Server:at_status(fn) self.reporters[#self.reporters + 1] = fn end

-- { counters = { { name=, value=, text= }, … }, info = { … } }, fit for JSON.
function Server:status()
  local info = {
    roles = self.roles, maintenance_mode = self.maintenance_mode, boot = core.crypto.hex(self.boot), listen = {},
    uptime_s = (self.env.now() - self.started_us) // 1000000,
  }
  for i, at in ipairs(self:addresses()) do info.listen[i] = core.addr.format(at) end
  for i, at in ipairs(self:tcp_addresses()) do
    info.listen_tcp = info.listen_tcp or {}
    info.listen_tcp[i] = core.addr.format(at)
  end
  for _, fn in ipairs(self.reporters) do fn(info) end
  return { counters = self.counters:all(), info = info }
end

-- Reads the policies' files again.
function Server:reload()
  if self.reload_policies then self.reload_policies() end
end

function Server:close()
  for _, fn in ipairs(self.closers) do fn() end
  for _, sock in ipairs(self.socks) do sock:close() end
  if self.assocs then self.assocs:close() end
  self.closers, self.reporters, self.socks, self.udp, self.tcp, self.routers = {}, {}, {}, {}, {}, {}
end

return M
