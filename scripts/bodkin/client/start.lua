-- SPDX-License-Identifier: MIT
-- How a node begins: its options, identity, sockets and managers, up to its first registration.

local core = require "bodkin.core"
local identity = require "bodkin.client.identity"
local locate = require "bodkin.client.locate"
local request = require "bodkin.client.request"

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

-- One that is kept has the same secret in each run: the server may still hold its registration.
local function find_identity(env, options)
  local me, made, code = identity.load(options, env.random)
  if not me then return nil, made, code end
  if made then env.log:info("made the identity %s: keep it, whoever reads it can be you", options.identity) end
  local err
  me.token, err, code = identity.token(options)
  if err then return nil, err, code end
  local kept = options.identity or options.identity_key
  me.secret = kept and core.crypto.mac(me.key_secret, "registration") or env.random(16)
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
  return true
end

local function build_managers(self, options, servers)
  self.requests = request.new {
    env = self.env, router = self.router,
    sock_for = function(to) return self.socks[core.addr.family(to)] end,
    proof_for = function(to) return self.addresses:proof(to) end,
    on_report = function(to, public, proof) self.addresses:note(to, public, proof) end,
  }
  self.addresses = require("bodkin.client.address").new {
    env = self.env, requests = self.requests, socks = self.socks, servers = servers.address,
    loopback = servers.loopback, reveal = options["local"],
  }
  local ok, err, code = self.addresses:learn(options.timeout_ms)
  if not ok then return nil, err, code end
  self.server, err, code = locate.choose(servers.matching, self.addresses.public, self.socks)
  if not self.server then return nil, err, code end
  local common = {
    env = self.env, requests = self.requests, router = self.router, addresses = self.addresses, server = self.server,
    identity = self.identity, id = self.identity.id, app = self.app, name = self.name, props = self.props,
    timeout_ms = options.timeout_ms, servers = { self.server },
    on_registered = function() self:registered() end,
    on_restart = function() self:restarted() end,
    on_error = function(text, why) self:emit("error", { code = why, message = text, hint = "trying again" }) end,
    on_matched = function(m) self:matched(m) end,
    on_boot = function(server, boot) self.registration:booted(server, boot) end,
  }
  local upkeep = servers.maintenance and locate.choose(servers.maintenance, self.addresses.public, self.socks)
  if upkeep and upkeep ~= self.server then common.servers[2] = upkeep end
  self.registration = require("bodkin.client.registration").new(common)
  self.sharing = require("bodkin.client.sharing").new(common)
  self.maintenance = require("bodkin.client.maintenance").new(common)
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
  local servers
  servers, err, code = locate.servers(self.env, options)
  if not servers then return nil, err, code end
  ok, err, code = open_sockets(self, options, servers.loopback)
  if not ok then return nil, err, code end
  ok, err, code = build_managers(self, options, servers)
  if not ok then return nil, err, code end
  if options.register == false then return true end
  return self:register()
end

return M
