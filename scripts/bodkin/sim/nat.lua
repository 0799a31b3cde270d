-- SPDX-License-Identifier: MIT
-- Models of the box between a private network and the rest, in the words of RFC 4787. A model decides what
-- becomes of a packet's addresses; it knows no links, and time only as it is told:
--
--   outbound(now_us, src, dst) -> src, dst [, true: it turns back inside] | nil, why     from inside
--   inbound(now_us, src, dst) -> src, dst | nil, why                                     from outside
--   reboot()    forgets everything: mappings and what they let in
--   rebind()    the same, and no mapping gets the address it had before
--
-- where why is one word, for the trace. A model without `ips` is transparent: what is inside keeps its address. What
-- translates IPv4 is so for IPv6, as a home's router is: a firewall, unless told otherwise.
-- What pairs of these can do is in docs/NAT.md.

local addr = require("bodkin.core").addr

local M = {}

local EI, AD, APD = "endpoint_independent", "address_dependent", "address_and_port_dependent"

-- The part of a remote address that a mapping, or a filter, depends on (RFC 4787 sections 4.1 and 5).
local DEPENDENCE = {
  [EI] = function() return "" end,
  [AD] = function(remote) return remote:sub(1, -3) end,
  [APD] = function(remote) return remote end,
}

-- kind -> behaviour, the options below that define it. `none` is a router, `firewall` translates nothing.
M.kinds = {
  none = {},
  firewall = { filtering = APD },
  full_cone = { mapping = EI, filtering = EI },
  address_restricted = { mapping = EI, filtering = AD },
  port_restricted = { mapping = EI, filtering = APD },
  -- Linux masquerade, from its effect: a port may serve many remotes, a flow with each; unknown input that is
  -- accepted makes a flow, too, and an inner packet to that remote must then take another port.
  plain_linux = { mapping = APD, filtering = APD, ports = "overload", race = true, refresh_inbound = true,
    unreplied_ms = 30000 },
  symmetric_random = { mapping = APD, filtering = APD, ports = "random" },
  symmetric_sequential = { mapping = APD, filtering = APD, ports = "sequential" },
  address_dependent = { mapping = AD, filtering = APD, ports = "random" },
}

local FIRST_PORT, LAST_PORT = 1024, 65535
local PORTS = LAST_PORT - FIRST_PORT + 1

local function to_us(ms)
  return math.tointeger(ms * 1000 // 1)
end

-- --- transparent: a router, a firewall

local Router = {}
Router.__index = Router

function Router.outbound(_, _, src, dst) return src, dst end
Router.inbound = Router.outbound
function Router.reboot() end
function Router.rebind() end

local Closed = setmetatable({}, { __index = Router })
Closed.__index = Closed

function Closed.outbound() return nil, "closed" end
Closed.inbound = Closed.outbound

local Firewall = {}
Firewall.__index = Firewall

function Firewall:outbound(now_us, src, dst)
  self.permitted[src .. self.filter_key(dst)] = now_us + self.timeout_us
  return src, dst
end

function Firewall:inbound(now_us, src, dst)
  local key = dst .. self.filter_key(src)
  if now_us >= (self.permitted[key] or 0) then return nil, "filtered" end
  if self.refresh_inbound then self.permitted[key] = now_us + self.timeout_us end
  return src, dst
end

function Firewall:reboot() self.permitted = {} end
Firewall.rebind = Firewall.reboot

-- --- translators

local Nat = {}
Nat.__index = Nat

-- Every mapping has one outer address; with overloaded ports an outer address has several mappings, newest first.
-- A mapping without `inside` belongs to the NAT itself: a flow from `remote` that it accepted, or, without
-- `remote`, an address it never gives out again.

local function permits(nat, mapping, now_us, remote)
  if now_us >= mapping.expires_us then return false end
  if not mapping.inside then return not mapping.remote or mapping.remote == remote end
  return now_us < (mapping.permitted[nat.filter_key(remote)] or 0)
end

local function find(nat, now_us, outside, remote)
  local mapping = nat.by_outside[outside]
  while mapping and not permits(nat, mapping, now_us, remote) do mapping = mapping.next end
  return mapping
end

local function is_free(nat, now_us, outside, src, dst)
  local mapping = nat.by_outside[outside]
  while mapping do
    if now_us < mapping.expires_us then
      if not nat.overload then return false end
      if mapping.inside ~= src and permits(nat, mapping, now_us, dst) then return false end
    end
    mapping = mapping.next
  end
  return true
end

-- Port choice: the first port to look at; those after it are looked at in turn.
local CHOICE = {
  preserve = function(_, src) return addr.port(src) end,
  overload = function(nat, src) return addr.port(src) + nat.rebinds end,
  random = function(nat) return FIRST_PORT + nat.random:integer() % PORTS end,
  sequential = function(nat)
    nat.next_port = nat.next_port and nat.next_port + 1 or FIRST_PORT + nat.random:integer() % PORTS
    return nat.next_port
  end,
}

local function choose_ip(nat, src)
  local ips = nat.ips
  if #ips == 1 then return ips[1] end
  if nat.pooling == "arbitrary" then return ips[1 + nat.random:integer() % #ips] end
  local inner = src:sub(1, -3)
  if not nat.paired[inner] then
    nat.pairs = nat.pairs + 1
    nat.paired[inner] = ips[1 + nat.pairs % #ips]
  end
  return nat.paired[inner]
end

local function choose_outside(nat, now_us, src, dst)
  local ip, port = choose_ip(nat, src), nat.choice(nat, src)
  for i = 1, PORTS do
    port = FIRST_PORT + (math.max(port, FIRST_PORT) - FIRST_PORT) % PORTS
    local outside = addr.with_port(ip, port)
    if is_free(nat, now_us, outside, src, dst) then
      nat.next_port = port
      return outside
    end
    port = i == 1 and nat.overload and CHOICE.random(nat) or port + 1
  end
end

-- Puts it before the others of its outer address, those that expired left out.
local function add(nat, now_us, mapping)
  local last, old = mapping, nat.by_outside[mapping.outside]
  while old do
    if now_us < old.expires_us then
      last.next, last = old, old
    elseif nat.by_inside[old.key] == old then
      nat.by_inside[old.key] = nil
    end
    old = old.next
  end
  last.next = nil
  nat.by_outside[mapping.outside] = mapping
  return mapping
end

local function map(nat, now_us, src, dst, key)
  local outside = choose_outside(nat, now_us, src, dst)
  if not outside then return nil end
  nat.by_inside[key] = add(nat, now_us, { inside = src, outside = outside, key = key, permitted = {}, expires_us = 0 })
  return nat.by_inside[key]
end

local function refresh(nat, now_us, mapping, remote)
  mapping.expires_us = now_us + (mapping.replied and nat.timeout_us or nat.unreplied_us)
  mapping.permitted[nat.filter_key(remote)] = mapping.expires_us
end

function Nat:outbound(now_us, src, dst)
  local own = self.is_own[dst:sub(1, -3)]
  if own and not self.hairpin then return nil, "hairpin" end
  local key = src .. self.mapping_key(dst)
  local mapping = self.by_inside[key]
  if not mapping or now_us >= mapping.expires_us then mapping = map(self, now_us, src, dst, key) end
  if not mapping then return nil, "full" end
  refresh(self, now_us, mapping, dst)
  if not own then return mapping.outside, dst end
  local from, inside = self:inbound(now_us, mapping.outside, dst)
  if not from then return nil, inside end
  return from, inside, true -- RFC 4787 REQ-9a: with the outer source
end

-- What was not asked for is accepted by the NAT itself, which makes a flow of it.
local function accept(nat, now_us, src, dst)
  add(nat, now_us, { outside = dst, remote = src, key = "", expires_us = now_us + nat.unreplied_us })
  return nil, "accepted"
end

function Nat:inbound(now_us, src, dst)
  local mapping = find(self, now_us, dst, src)
  if not mapping then
    if self.race then return accept(self, now_us, src, dst) end
    mapping = self.by_outside[dst]
    return nil, mapping and now_us < mapping.expires_us and "filtered" or "unmapped"
  end
  if not mapping.inside then
    if mapping.remote then mapping.expires_us = now_us + self.unreplied_us end
    return nil, mapping.remote and "accepted" or "unmapped"
  end
  if not mapping.replied then mapping.replied = true end
  if self.refresh_inbound then refresh(self, now_us, mapping, src) end
  return src, mapping.inside
end

function Nat:reboot()
  self.by_inside, self.by_outside, self.paired, self.pairs, self.next_port = {}, {}, {}, 0, nil
end

function Nat:rebind()
  local before = self.by_outside
  self.rebinds = self.rebinds + 1009
  self.by_inside, self.by_outside = {}, {}
  for outside in pairs(before) do
    self.by_outside[outside] = { outside = outside, key = "", expires_us = math.maxinteger }
  end
end

-- --- one box, a model for each family

local Both = {}
Both.__index = Both

local function of(both, address)
  return #address == 6 and both.ipv4 or both.ipv6
end

function Both:outbound(now_us, src, dst) return of(self, src):outbound(now_us, src, dst) end
function Both:inbound(now_us, src, dst) return of(self, src):inbound(now_us, src, dst) end

function Both:reboot()
  self.ipv4:reboot()
  self.ipv6:reboot()
end

function Both:rebind()
  self.ipv4:rebind()
  self.ipv6:rebind()
end

-- options: `kind`, or in its place or besides it
--   mapping, filtering  "endpoint_independent", "address_dependent" or "address_and_port_dependent"; without
--                       mapping nothing is translated, without filtering nothing is kept out
--   ports               "preserve" (default: the inner port, else the next free one), "sequential", "random",
--                       "overload" (the inner port, shared wherever remotes tell the mappings apart, else random)
--   ip, or ips          packed, any port: its outer addresses; pooling = "paired" (default: RFC 4787 REQ-2) or
--                       "arbitrary": how a mapping gets one of several
--   timeout_ms          of a mapping and of what it lets in (120000, RFC 4787 REQ-5); unreplied_ms: before
--                       anything came in by it (the same)
--   refresh_inbound     inbound packets refresh, too, not only outbound ones (REQ-6)
--   hairpin             what is inside reaches what is inside by outer addresses (REQ-9)
--   race                unknown input makes a flow of its own (see plain_linux)
--   random              a generator (sim/random.lua), for random and sequential ports and arbitrary pooling
--   ipv6                what it is for IPv6, none of which is translated: "firewall" (default of what translates),
--                       "none" (default of a router), or "closed": nothing passes, and nobody is told
function M.new(options)
  local kind = M.kinds[options.kind or "none"]
  if not kind then error(("no NAT is of kind %q"):format(tostring(options.kind)), 2) end
  local function option(name, default)
    local value = options[name]
    if value == nil then value = kind[name] end
    if value == nil then return default end
    return value
  end
  local mapping, filtering = option("mapping"), option("filtering")
  local timeout_us = to_us(option("timeout_ms", 120000))
  local refresh_inbound = option("refresh_inbound", false)
  local function transparent(filter)
    local class = filter == "closed" and Closed or filter and filter ~= EI and Firewall or Router
    return setmetatable({ timeout_us = timeout_us, refresh_inbound = refresh_inbound, permitted = {},
      filter_key = DEPENDENCE[filter] }, class)
  end
  local function both(ipv4)
    local ipv6 = options.ipv6 or "firewall"
    if ipv6 ~= "firewall" and ipv6 ~= "none" and ipv6 ~= "closed" then
      error(("for IPv6 a box is firewall, none or closed, not %q"):format(tostring(ipv6)), 3)
    end
    local filter = ipv6 == "firewall" and APD or ipv6 == "closed" and ipv6 or EI
    return setmetatable({ ipv4 = ipv4, ipv6 = transparent(filter), ips = ipv4.ips }, Both)
  end
  if not mapping then
    local model = transparent(filtering)
    return options.ipv6 and both(model) or model
  end
  local self = setmetatable({ timeout_us = timeout_us, refresh_inbound = refresh_inbound,
    filter_key = DEPENDENCE[filtering or EI] }, Nat)
  self.ips = options.ips or { options.ip }
  self.is_own = {}
  for _, ip in ipairs(self.ips) do self.is_own[ip:sub(1, -3)] = true end
  self.pooling, self.ports = option("pooling", "paired"), option("ports", "preserve")
  self.choice, self.overload = CHOICE[self.ports], self.ports == "overload"
  self.random = options.random
  local unreplied_ms = option("unreplied_ms")
  self.unreplied_us = unreplied_ms and math.min(timeout_us, to_us(unreplied_ms)) or timeout_us
  self.hairpin, self.race = option("hairpin", false), option("race", false)
  self.mapping_key = DEPENDENCE[mapping]
  self.rebinds = 0 -- how far a rebind moved the port that overloading starts from
  self:reboot()
  if not self.choice or not self.mapping_key or not self.filter_key then
    error("no NAT maps, filters or chooses ports like that", 2)
  end
  return both(self)
end

return M
