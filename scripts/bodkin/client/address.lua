-- SPDX-License-Identifier: MIT
-- The address manager (C1): the local addresses come from the network stack, the public one of each family from the
-- address server, with the proof that it is ours, or from any STUN server, without one. Both are recorded here, and
-- candidates made.

local core = require "bodkin.core"
local kind_of = require("bodkin.client.interfaces").kind
local locate = require "bodkin.client.locate"
local message = require "bodkin.message"
local task = require "bodkin.task"

local addr = core.addr

local M = {}
local Addresses = {}
Addresses.__index = Addresses

local locals_max = 4
-- Interfaces are listed again after this long: a list costs some tenths of a millisecond, which would be lost between
-- `matched` and the first test.
local listed_us = 1000000
-- Of so many round trips to a server the shortest counts: the others waited somewhere.
local rtts_max = 8
local rtt_longest_ms = 10000 -- what a message can say
-- An opener passes this many routers but the last, which drops it: the first is taken for our NAT.
local opener_ttl = 2
local nearby = { copies = 2, timeout_ms = 1000, grace_us = 20000 }
-- How long the other family is waited for once one has answered: as long again as that one took, within these. A family
-- that is dead, as IPv6 is behind many a router, costs no more; one that is late is told of when it answers.
local grace_min_ms, grace_max_ms = 50, 300

local always_udp = { over_tcp = false }

-- `config`: env; requests; carriage (see carriage.lua; none: UDP); socks = { [4] =, [6] = }; servers = the address
-- server's address by family, stun = it is a STUN server; loopback = the servers are on this machine; reveal =
-- "same-public" (default), "always" or "never"; virtual = also addresses of VPNs and containers; on_late() once a
-- family answered that learn() no longer waited for; on_lapse() when a server sees us elsewhere than before, and
-- nothing is known to have changed here.
function M.new(config)
  return setmetatable({
    env = config.env, requests = config.requests, socks = config.socks, servers = config.servers,
    carriage = config.carriage or always_udp, loopback = config.loopback, reveal = config.reveal or "same-public",
    on_late = config.on_late, on_lapse = config.on_lapse or function() end, virtual = config.virtual,
    public = {}, -- by family: { addr =, proof = or nil }
    proofs = {}, -- by server
    seen = {},   -- our public address as each server saw it last
    rtts = {},   -- the latest round-trip times to each, in µs
    beyond = nil, -- whether a second router is on the way to the address server, nil: not known
    stale = false, -- a server saw another address than before: ask the address server again
    moves = 0,     -- how often we were elsewhere: what was asked before tells where we were
  }, Addresses)
end

-- Our address in a server's eyes. Over TCP it is one of a connection, and tells nothing of datagrams.
function Addresses:see(server, public)
  if self.carriage.over_tcp then return end
  if self.seen[server] and self.seen[server] ~= public then
    self.stale = true
    self.rtts = {} -- of another way
    self.on_lapse()
  end
  self.seen[server] = public
end

-- A round trip to a server and back took that long.
function Addresses:timed(server, us)
  local list = self.rtts[server] or {}
  self.rtts[server] = list
  list[#list + 1] = us
  if #list > rtts_max then table.remove(list, 1) end
end

-- The round-trip time to a server in whole ms, nil while unknown.
function Addresses:rtt_ms(server)
  local list = self.rtts[server]
  if not list then return nil end
  local ms = (math.min(table.unpack(list)) + 500) // 1000
  return ms <= rtt_longest_ms and ms or nil
end

-- The same, with a proof that it will take; a STUN server gives none, and takes none of what is known. `foreign`: of
-- one that a match named: its proof is for itself, and what else it says of us nobody need believe.
function Addresses:note(server, public, proof, foreign)
  local family = addr.family(public)
  self.proofs[server] = proof
  if foreign or self.carriage.over_tcp then return end
  self:see(server, public)
  local known = self.public[family]
  if self.servers[family] == server or (known and known.addr == public) then
    local same = known and known.addr == public
    self.public[family] = { addr = public, proof = proof or same and known.proof or nil }
  end
end

-- That server is not asked any more.
function Addresses:forget(server)
  if self.servers[addr.family(server)] ~= server then self.proofs[server] = nil end
end

-- The host is elsewhere, or other servers are asked from now on (by family; nil: the same ones): what was seen so far
-- tells nothing, and the public addresses are to be asked for again.
function Addresses:moved(servers)
  if servers then self.servers, self.proofs = servers, {} end
  self.seen, self.rtts, self.stale, self.moves = {}, {}, not self.carriage.over_tcp, self.moves + 1
end

-- UDP took over from TCP, or the other way round: proofs are each of one, and over TCP we have no public address.
function Addresses:changed_carriage()
  self.proofs, self.stale = {}, not self.carriage.over_tcp
  if self.carriage.over_tcp then self.public = {} end
end

-- The proof to send to a server: its own, else the address server's (a deployment shares its secret).
function Addresses:proof(server)
  local public = self.public[addr.family(server)]
  return self.proofs[server] or (public and public.proof)
end

local function interfaces(self)
  local now = self.env.now()
  if not self.listed or now - self.listed.at_us >= listed_us then
    self.listed = { at_us = now, list = self.env.interfaces() }
  end
  return self.listed.list
end

-- Finds out whether the address server is more than one router away: what may pass no more is then not answered, though
-- the same that may is.
local function seek_router(self)
  local server, left = self.servers[4], nearby.copies
  self.beyond = false -- where nobody can be asked, nothing shows it
  if not server or self.servers.stun or not self.socks[4] or self.loopback then return end
  self.beyond = nil
  for _ = 1, nearby.copies do
    self.requests:post({
      to = server, expect = "address_report", timeout_ms = nearby.timeout_ms, quiet = true, ttl = opener_ttl,
      pin = self.socks[4],
      build = function(tx) return message.address_request:encode(tx) end,
    }, function(ok)
      left = left - 1
      if ok then self.beyond = false end
      if left == 0 and self.beyond == nil then self.beyond = self.public[4] ~= nil end
    end)
  end
end

-- The TTL of openers to a peer at these public addresses, 0: none are to be sent. They must pass our NAT and no other:
-- see "Openers" in docs/NAT.md.
function Addresses:opener_ttl(pubs)
  local public = self.public[4]
  if not public or self.beyond == false then return 0 end
  -- Not answered yet, while the copy that may pass was, some time ago, will do.
  local answered_us = self.learned_us or math.maxinteger
  if self.beyond == nil and self.env.now() - nearby.grace_us < answered_us then return 0 end
  for _, i in ipairs(interfaces(self)) do
    if addr.same_ip(i.addr, public.addr) then return 0 end
  end
  for _, a in ipairs(pubs) do
    if addr.family(a) == 4 and a:sub(1, 3) == public.addr:sub(1, 3) then return 0 end
  end
  return opener_ttl
end

-- What to ask the address server, as a request: answered by the public address, and a proof where it is none of STUN.
-- sock: as for a request.
function Addresses:question(server, timeout_ms, sock)
  local r = self.servers.stun and self.requests.stun(server) or {
    to = server, expect = "address_report", anew = not sock, -- the first that is asked: it tells the distance
    build = function(tx) return message.address_request:encode(tx) end,
  }
  r.timeout_ms, r.sock, r.pin, r.quiet = timeout_ms, sock, self.socks[addr.family(server)], sock ~= nil
  return r
end

-- In a task: asks the address server over each family, by UDP. True when one answered.
function Addresses:learn(timeout_ms)
  local asked = {}
  for _, family in ipairs { 4, 6 } do
    if self.servers[family] and self.socks[family] then asked[#asked + 1] = self.servers[family] end
  end
  if #asked == 0 then return locate.unreachable(self.servers) end
  self.stale, self.learned_us = false, nil
  seek_router(self)
  return task.await(function(resume)
    local open, learned, over, cancelled, timer, lost = #asked, false, false, false, nil, {}
    local began_us = self.env.now()
    local function finish(...)
      if over then return end
      over = true
      if timer then timer:cancel() end
      resume(...)
    end
    local function answered(server, ok, ...)
      open = open - 1
      local family = addr.family(server)
      local gone = not ok and self.public[family] ~= nil and self.servers[family] == server
      if over then
        if cancelled then return end
        if gone then self.public[family] = nil end -- while the other one answers
        if ok or gone then self.on_late() end
        return
      end
      if gone then lost[family] = true end
      if ok then learned = true end
      for f in pairs(learned and lost or {}) do self.public[f] = nil end
      if ok and server == self.servers[4] then self.learned_us = self.env.now() end
      if open == 0 then
        self.stale = not learned and not self.carriage.over_tcp
        if learned then finish(true) else finish(nil, ...) end
      elseif ok then
        local took_ms = (self.env.now() - began_us) / 1000
        timer = timer or self.env.timer(math.min(math.max(took_ms, grace_min_ms), grace_max_ms), function()
          finish(true)
        end)
      end
    end
    for _, server in ipairs(asked) do
      local posted, err, code = self.requests:post(self:question(server, timeout_ms), function(...)
        answered(server, ...)
      end)
      if not posted then answered(server, nil, err, code) end
    end
    return function() over, cancelled = true, true; if timer then timer:cancel() end end
  end)
end

-- Public addresses, as the matching server wants them: address ‖ proof, or the address alone.
function Addresses:pubs()
  local out = {}
  for _, family in ipairs { 4, 6 } do
    local p = self.public[family]
    if p then out[#out + 1] = p.addr .. (p.proof or "") end
  end
  return out
end

local function bound_to(sock, ip)
  local bound = sock:addr()
  return addr.class(bound) == "none" or addr.same_ip(bound, ip)
end

-- Whether the host has other addresses than when this was asked last, or sends to its servers from another one: of a
-- route no interface tells. Containers come and go without meaning; a VPN may take all traffic.
function Addresses:changed()
  self.listed = nil
  local list = {}
  for _, i in ipairs(interfaces(self)) do
    if i.up and not i.loopback and kind_of(i.name) ~= "container" then list[#list + 1] = i.name .. i.addr end
  end
  table.sort(list)
  for _, family in ipairs { 4, 6 } do
    local server = self.socks[family] and self.servers[family]
    list[#list + 1] = server and self.env.source(server) or "none"
  end
  local now, before = table.concat(list, "\n"), self.before
  self.before = now
  return before ~= nil and now ~= before
end

-- Those of this host's addresses that are of another interface than the one by which it sends now: from them nothing
-- leaves by their own, and NATs and peers know them there alone. (A peer that is beside them is still reached from
-- there: the kernel takes the address that leads to it.)
function Addresses:left()
  local out = {}
  for _, family in ipairs { 4, 6 } do
    local server, by = self.socks[family] and self.servers[family], nil
    local source = server and self.env.source(server)
    for _, i in ipairs(source and interfaces(self) or {}) do
      if addr.same_ip(i.addr, source) then by = i.name end
    end
    for _, i in ipairs(by and interfaces(self) or {}) do
      local peers_know = not i.loopback and kind_of(i.name) ~= "container" and addr.class(i.addr) ~= "link_local"
      if i.name ~= by and peers_know and addr.family(i.addr) == family then out[#out + 1] = i.addr end
    end
  end
  return out
end

-- Addresses of this host that a peer behind the same NAT may reach: private ones only, at most four.
-- Loopback counts when the servers are there too, so that everything can run on one machine.
function Addresses:locals()
  local out = {}
  if self.reveal == "never" then return out end
  local function collect(class)
    for _, i in ipairs(interfaces(self)) do
      local sock = self.socks[addr.family(i.addr)]
      if #out < locals_max and i.up and sock and addr.class(i.addr) == class and bound_to(sock, i.addr)
        and (self.virtual or not kind_of(i.name)) then
        out[#out + 1] = addr.with_port(i.addr, addr.port(sock:addr()))
      end
    end
  end
  if self.loopback then collect("loopback") end
  collect("private")
  return out
end

local function texts(addrs)
  local out = {}
  for i, a in ipairs(addrs) do out[i] = addr.format(a) end
  return out
end

function Addresses:local_texts()
  return texts(self:locals())
end

-- Every public address of ours that is known: asked for, or seen by another server.
function Addresses:publics()
  local out, have = {}, {}
  local function add(a)
    if a and not have[a] then out[#out + 1], have[a] = a, true end
  end
  for _, family in ipairs { 4, 6 } do add(self.public[family] and self.public[family].addr) end
  local seen = {}
  for _, a in pairs(self.seen) do seen[#seen + 1] = a end
  table.sort(seen)
  for _, a in ipairs(seen) do add(a) end
  return out
end

function Addresses:public_texts()
  return texts(self:publics())
end

local function same_public(ours, theirs)
  for _, a in ipairs(ours) do
    for _, b in ipairs(theirs) do
      if addr.same_ip(a, b) then return true end
    end
  end
  return false
end

-- The peer's addresses as candidates for the mux, the preferred way first; none twice, none of our own.
-- Local ones only where they can apply (P1): behind the same public address, unless told otherwise; of a peer whose
-- public address no datagram reaches (it is over TCP) the server alone knows.
function Addresses:candidates(pubs, locals)
  local out, have, ours = {}, {}, self:publics()
  for _, a in ipairs(ours) do have[a] = true end
  for _, a in ipairs(self:locals()) do have[a] = true end
  local function add(a, via)
    local family = addr.family(a)
    if have[a] or not self.socks[family] or addr.port(a) == 0 then return end
    have[a] = true
    out[#out + 1] = { a, via, family == 4 and 1 or 2 }
  end
  if self.reveal == "always" or self.reveal == "same-public" and (#pubs == 0 or same_public(ours, pubs)) then
    for _, a in ipairs(locals) do add(a, "host") end
  end
  for _, a in ipairs(pubs) do add(a, addr.family(a) == 6 and "ipv6" or "srflx") end
  return out
end

return M
