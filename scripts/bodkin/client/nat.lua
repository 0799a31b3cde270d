-- SPDX-License-Identifier: MIT
-- Looks in the background at what the NAT in front of this client does (behaviour.lua), for the server, for peers and
-- for who asks why. It begins some time after the registration, with sockets of its own; not while a peer is being
-- looked for; and again only where our addresses have changed. Where there are two families it is IPv4's NAT. While
-- the servers are spoken to over TCP nothing is known: what the NAT does to datagrams cannot be seen, and matters to
-- nobody.

local core = require "bodkin.core"
local kind = require "bodkin.kind"
local task = require "bodkin.task"

local addr = core.addr

local M = {}
local Nat = {}
Nat.__index = Nat

local FIRST_MS, SPREAD_MS = 500, 1500 -- after the registration, so that what is short pays nothing
local AGAIN_MS = 2000                 -- where a peer was being looked for
local TIMEOUT_MS = 2000               -- for the server's first answer

-- `config`: env, node; bound: the node's port was given, and may be forwarded; on_found(much) once a kind is known:
-- much where that is more than whether there is a NAT. kind: the number, 0 while nothing is known; words: the same as a
-- record has it, or nil.
function M.new(config)
  return setmetatable({
    env = config.env, node = config.node, bound = config.bound, on_found = config.on_found, kind = 0,
  }, Nat)
end

-- Whether a peer is being looked for.
local function is_busy(self)
  local node = self.node
  if node.joins > 0 then return true end
  for _, s in pairs(node.sessions) do
    if not s.peer.connected then return true end
  end
  return false
end

local function run_in(self, ms)
  if self.timer then self.timer:cancel() end
  self.timer = self.env.timer(ms, function()
    self.timer = nil
    if is_busy(self) then return run_in(self, AGAIN_MS) end
    self.task = task.spawn(self.look, self)
  end)
end

-- In a task. One that does not answer is asked again where our addresses changed, and not before.
function Nat:look()
  local servers = self.node.addresses.servers
  local server, sock = self.node:address_server()
  if not server then return end
  local foreign = servers.stun and servers[addr.family(server)]
  local found = require("bodkin.client.behaviour").discover(self.env, server, {
    bind = addr.with_port(sock:addr(), 0), timeout_ms = TIMEOUT_MS,
    more = foreign and { { addr = foreign, stun = true } } or nil,
  })
  if not found then return end
  self.kind = kind.of(found, self.bound)
  self.words = kind.unpack(self.kind)
  self.on_found(self.words.mapping ~= "unknown" or self.words.filtering ~= "unknown")
end

-- Registered, perhaps once more: is it where it was? Toward a server on this machine there is no NAT to look at.
function Nat:registered()
  if self.node.addresses.loopback or self.node.carriage.over_tcp then return end
  local addresses, set, ips = self.node.addresses, {}, {}
  for _, text in ipairs(addresses:public_texts()) do set[text:match "^(.*):%d+$"] = true end
  for ip in pairs(set) do ips[#ips + 1] = ip end
  table.sort(ips)
  local key = table.concat(ips, " ") .. " " .. table.concat(addresses:local_texts(), " ")
  if key == self.key then return end
  self:moved()
  self.key = key
end

-- Nothing is known any more, and looked for once registered again.
function Nat:forget()
  self:close()
  self.kind, self.words, self.key = 0, nil, nil
end

-- Elsewhere: what was known is of another NAT.
function Nat:moved()
  self:forget()
  run_in(self, FIRST_MS + SPREAD_MS * self.env.random(1):byte() // 255)
end

-- A peer is to be looked for: what is under way is put off.
function Nat:hold()
  if not self.task or self.task:done() then return end
  self.task:cancel()
  run_in(self, AGAIN_MS)
end

-- Idempotent.
function Nat:close()
  if self.timer then self.timer:cancel() end
  if self.task then self.task:cancel() end
  self.timer, self.task = nil, nil
end

return M
