-- SPDX-License-Identifier: MIT
-- How a node begins: its options, identity, sockets and managers, up to its first registration.

local association = require "bodkin.client.association"
local carriage = require "bodkin.client.carriage"
local core = require "bodkin.core"
local ephemerals = require "bodkin.client.ephemerals"
local fallback = require "bodkin.client.fallback"
local identity = require "bodkin.client.identity"
local locate = require "bodkin.client.locate"
local request = require "bodkin.client.request"
local trust = require "bodkin.client.trust"
local message = require "bodkin.message"
local url = require "bodkin.url"

local M = {}

local function text_option(options, name, max)
  local value = options[name] or ""
  if type(value) ~= "string" or #value > max then
    return nil, ("%s is a text of at most %d bytes"):format(name, max), "invalid"
  end
  return value
end

local reveals = { ["same-public"] = true, always = true, never = true }

local function configure(self, options)
  local err, code
  local reveal = options["local"] or "same-public"
  if not reveals[reveal] then
    return nil, ("local is same-public, always or never, not %s"):format(tostring(reveal)), "invalid"
  end
  if options.trace and (options.identity or options.identity_key) then
    return nil, "a trace holds the client's secret: trace one without an identity that is kept", "invalid"
  end
  if options.accept ~= nil and options.accept ~= "auto" and options.accept ~= "ask" then
    return nil, ("accept is auto or ask, not %s"):format(tostring(options.accept)), "invalid"
  end
  if options.props and type(options.props) ~= "table" then return nil, "props is a table of properties", "invalid" end
  self.app, err, code = text_option(options, "app", 64)
  if not self.app then return nil, err, code end
  self.name, err, code = text_option(options, "name", 32)
  if not self.name then return nil, err, code end
  self.props, err, code = core.wire.encode(options.props or {})
  if not self.props then return nil, err, code end
  if #self.props > 128 then return nil, "props do not fit in 128 bytes; say less", "limit" end
  return true
end

-- { key =, key_secret =, id =, token = bytes or nil }, or nil, message, code.
local function find_identity(env, options)
  local me, made, code = identity.load(options, env.random)
  if not me then return nil, made, code end
  if made then env.log:info("made the identity %s: keep it, whoever reads it can be you", options.identity) end
  local err
  me.token, err, code = identity.token(options)
  if err then return nil, err, code end
  return me
end

local function open_sockets(self, options, loopback)
  local counters = self.env.counters
  self.router, self.socks = core.router(counters), {}
  self.mux = self.env.mux {
    seed = self.env.random(32), on = function(kind, session, x) self:on_session(kind, session, x) end,
    trace = options.trace,
  }
  local wanted, err, code = locate.binds(self.env, options.bind, loopback)
  if not wanted then return nil, err, code end
  for number = 1, 2 do
    local at, sock = wanted[number], nil
    if at then sock, err, code = self.env.udp(at, { number = number }) end
    if sock then
      sock:router(self.router)
      self.mux:attach(sock)
      self.socks[core.addr.family(at)] = sock
    elseif at and (options.bind or number == 1) then
      return nil, ("cannot use %s: %s; is it this host's, and free?"):format(core.addr.format(at), err), code
    end
  end
  self.carriage = carriage.new {
    env = self.env, router = self.router, mux = self.mux, udp = self.socks, server = function() return self.server end,
    on_change = function() self:carried() end,
  }
  self.requests = request.new {
    env = self.env, router = self.router,
    sock_for = function(to) return self.carriage:sock_for(to) end,
    where = function(to) return self.carriage:where(to) end,
    proof_for = function(to) return self.addresses:proof(to) end,
    on_report = function(...) self.addresses:note(...) end,
    on_rtt = function(to, us) self.addresses:timed(to, us) end,
    rtt_for = function(to) return self.addresses:rtt_ms(to) end,
  }
  self.carriage.requests = self.requests
  return true
end

-- In a task: the public keys of the matching server, and whether they are remembered rather than given; or nil,
-- message, code.
local function server_keys(self, options)
  local where = url.parse(options.server)
  local given = options.server_keys or where.keys
  if given then return given, false end
  local keys, err, code = trust.known(options, where)
  if keys or err then return keys, err or true, code end
  if not options.trust_first_use then return nil, trust.refusal(where) end
  local ok
  ok, keys, code = self.requests:call {
    to = self.server, expect = "key_report", timeout_ms = options.timeout_ms,
    build = function(tx) return message.key_request:encode(tx) end,
  }
  if not ok then return nil, keys, code end
  return keys, true
end

-- An association is open under one of the keys: they are the server's, and it tells which it has now.
local function remember(self, options, keys, key)
  local where = url.parse(options.server)
  local function note(list, by)
    local ok, err, code = trust.remember(options, where, list, by)
    if not ok then self:emit("error", { code = code, message = err, hint = "the server's key is not remembered" }) end
    return ok
  end
  if not note(keys, key) then return end
  self.requests:post({
    to = self.server, sealed = true, expect = "key_report", timeout_ms = options.timeout_ms, quiet = true,
    build = function(tx) return message.key_request:encode(tx) end,
  }, function(ok, list)
    if ok then note(list, key) end
  end)
end

-- The options as if this were the only server.
local function with(options, server) return setmetatable({ server = server }, { __index = options }) end

-- One of a server's addresses: of the family that was answered.
local function choose(self, server)
  local known = self.carriage.over_tcp and { [self.carriage.family] = true } or self.addresses.public
  return locate.choose(server, known, self.socks)
end

-- In a task: the sockets, and the first server that answers: the options with it alone, and where its servers are; or
-- nil, message, code.
local function find_server(self, options)
  local list, err, code = url.list(options.server)
  if not list then return nil, err, code end
  for number, one in ipairs(list) do
    local servers, ok
    servers, err, code = locate.servers(self.env, with(options, one))
    if servers and not self.requests then
      ok, err, code = open_sockets(self, options, servers.loopback)
      if not ok then return nil, err, code end
    end
    if servers then
      self.addresses = require("bodkin.client.address").new {
        env = self.env, requests = self.requests, socks = self.socks, servers = servers.address,
        carriage = self.carriage, loopback = servers.loopback, reveal = options["local"],
        virtual = options.virtual,
        on_late = function() if self.registration then self.registration:complete() end end,
        on_lapse = function() if self.maintenance then self.maintenance:lapsed() end end,
      }
      self.carriage:aim(url.parse(one).tcp)
      ok, err, code = self.carriage:begin(servers.matching, function()
        return self.addresses:learn(options.timeout_ms)
      end, options.timeout_ms)
    end
    if ok and #list > 1 and options.address_server then -- which answers for all of them
      local at
      at, err, code = choose(self, servers.matching)
      ok = at ~= nil
      if ok then ok, err, code = fallback.answers(self.requests, at) end
    end
    if ok then
      self.urls, self.url = list, number
      return with(options, one), servers
    end
  end
  if #list > 1 then err = ("none of the %d servers can be used; the last: %s"):format(#list, err) end
  return nil, err, code
end

-- From now on another matching server is asked, and its address server unless that is one apart.
local function use_server(self, server, located, keys, options)
  self.server = server
  for _, manager in ipairs { self.registration, self.sharing, self.relays, self.roaming } do manager.server = server end
  self.addresses:moved(located.address)
  local where = url.parse(options.server)
  local is_given = options.server_keys or where.keys
  self.requests.association:move(server, keys, not is_given and function() return trust.changed(options, where) end)
  self.maintenance:move(server)
end

local function build_managers(self, options, servers)
  local err, code
  self.server, err, code = choose(self, servers.matching)
  if not self.server then return nil, err, code end
  local keys, remembered
  keys, err, code = server_keys(self, options)
  if not keys then return nil, err, code end
  remembered = err
  self.ephemerals = ephemerals.new(self.env)
  local link = association.new {
    env = self.env, router = self.router, requests = self.requests, server = self.server, keys = keys,
    identity = self.identity, timeout_ms = options.timeout_ms,
    send = function(bytes)
      local sock = self.carriage:sock_for(self.server)
      if bytes and sock then sock:send(self.server, bytes) end
    end,
    on_opened = remembered and function(key) remember(self, options, keys, key) end,
    explain = remembered and function() return trust.changed(options, url.parse(options.server)) end,
    on_moved = function() self.registration:kick() end,
    on_lost = function() self.registration:kick() end,
  }
  self.requests.association = link
  self.relays = require("bodkin.client.relays").new {
    env = self.env, requests = self.requests, router = self.router, addresses = self.addresses, mux = self.mux,
    server = self.server, sock_for = function(to) return self.carriage:sock_for(to) end,
    renew = function(session) self.roaming:ask(session) end,
  }
  self.roaming = require("bodkin.client.roaming").new {
    env = self.env, requests = self.requests, router = self.router, addresses = self.addresses, mux = self.mux,
    node = self, server = self.server,
  }
  local common = {
    ephemerals = self.ephemerals, association = link, token = self.identity.token,
    env = self.env, requests = self.requests, router = self.router, addresses = self.addresses, server = self.server,
    id = self.identity.id, app = self.app, name = self.name, props = self.props,
    timeout_ms = options.timeout_ms, servers = { self.server },
    on_registered = function() self:registered() end,
    on_restart = function() self:restarted() end,
    on_error = function(text, why) self:emit("error", { code = why, message = text, hint = "trying again" }) end,
    on_matched = function(m) self:matched(m) end,
    on_changed = function(raw) self.watches:changed(self, raw) end,
    on_room_host = function(...) self:room_host(...) end,
    on_ticket = function(...) self.queues:told(self, ...) end,
    on_boot = function(server, boot) self.registration:booted(server, boot) end,
    on_silent = function() return self.fallback:look() end,
    on_unanswered = function() self.carriage:look() end,
    adapt = options.adapt,
    asked = function()
      if not self.addresses.loopback then return self:address_server(core.addr.family(self.server)) end
    end,
    refresh_ms = function() return self.registration.active and self.registration.lifetime_s * 500 end,
    kind = function() return self.nat and self.nat.kind > 0 and self.nat.kind or nil end,
  }
  local upkeep = servers.maintenance and choose(self, servers.maintenance)
  if upkeep and upkeep ~= self.server then common.servers[2] = upkeep end
  self.registration = require("bodkin.client.registration").new(common)
  self.sharing = require("bodkin.client.sharing").new(common)
  self.maintenance = require("bodkin.client.maintenance").new(common)
  if options.behaviour ~= false then
    local bind = options.bind and core.addr.parse(options.bind, 0)
    self.nat = require("bodkin.client.nat").new {
      env = self.env, node = self, bound = bind and core.addr.port(bind) > 0 or false,
      on_found = function(much) if much then self.registration:kick() end end,
    }
  end
  self.fallback = fallback.new {
    node = self, urls = self.urls, number = self.url, options_of = function(one) return with(options, one) end,
    keys_of = function(one)
      local where = url.parse(one.server)
      return options.server_keys or where.keys or trust.known(one, where)
    end,
    use = function(...) use_server(self, ...) end,
  }
  return true
end

-- In a task: makes `self`, a node with its env, ready and registered. true, or nil, message, code; what was
-- acquired until then is the node's to close.
function M.start(self, options)
  local ok, err, code
  self.identity, err, code = find_identity(self.env, options)
  if not self.identity then return nil, err, code end
  self.id = core.crypto.hex(self.identity.id)
  ok, err, code = configure(self, options)
  if not ok then return nil, err, code end
  local found, servers
  found, servers, code = find_server(self, options)
  if not found then return nil, servers, code end
  ok, err, code = build_managers(self, found, servers)
  if not ok then return nil, err, code end
  self.roaming:start()
  self.together = options.register == "together"
  if options.register == false or self.together then return true end
  return self:register()
end

return M
