-- SPDX-License-Identifier: MIT
-- The bounds of a server, their defaults, and its rate limits: of guesses at room codes, and of whatever is dear.

local recent = require "bodkin.servers.recent"

local M = {}

-- What a query of so many comparisons counts, as one of few counts 1.
function M.weight(terms) return 1 + terms // 8 end

M.defaults = {
  registrations = 100000, -- entries in the registry
  rooms = 50000,          -- those kept for a minute after the last member left included
  room_members = 16,      -- in one room; `matched` itself carries up to 32
  pending = 32,           -- `matched` messages to one client that it has not acknowledged
  pending_all = 20000,    -- and to all clients
  tickets = 20000,        -- that wait, in all queues
  tickets_each = 4,       -- of one client
  running = 20000,        -- matches that may be filled up, remembered as long as somebody is in them
  watches = 1000,         -- of the registry, by clients; one of 8 comparisons counts twice, of 16 three times …
  queues = 64,            -- without a policy of their own: clients name them; each has a state for the policy of all
  waits = 4096,           -- tickets that ended, remembered for bodkin why, an hour long
  explains = 100,         -- times a second that clients are told why their tickets wait; 0: nobody is
  recording = 8 << 20,    -- bytes, about, of what policies were told and told, for bodkin record
  page_budget = 1000,     -- registry entries looked at for one page
  associations = 200000,  -- with clients
  associations_each = 4096, -- from one source: a carrier's NAT has many behind it
  handshakes = 2000,      -- a second: each costs about a quarter of a millisecond …
  handshakes_each = 50,   -- … and from one source; ten times as many at once
  history = 4096,         -- matches remembered for bodkin why and for where, an hour long
  places = 50000,         -- clients whose place in the network is remembered, an hour long
  relay_pairs = 10000,    -- of peers that a relay forwards between …
  relay_rate = 262144,    -- … bytes a second from each end …
  relay_bytes = 1 << 30,  -- … and from both in all …
  relay_s = 21600,        -- … with a ticket that is good for so many seconds
  late_probes = 2000,     -- answers that clients asked for after a silence, in all …
  late_probes_each = 32,  -- … and from one source
  tcp_connections = 4096, -- over TCP, at each address listened on …
  tcp_connections_each = 256, -- … and from one source: those behind a company's firewall have one
  stun_each = 50,         -- STUN answers a second to one network (/24, /56); ten times as many at once
  gather_us = 300,        -- that a datagram may wait for others, where more than 4,000 a second come one by one
  guess_burst = 10,       -- wrong room codes from one source at once …
  guess_every_s = 2,      -- … and one more in each so many seconds
  guess_sources = 8192,   -- sources remembered, at least for as long as it takes to fill a bucket
}

local STRANGERS = 3 / 4 -- of a bound in all, for sources that are not known yet

local highest = {
  room_members = 32, gather_us = 10000, relay_pairs = 1 << 18, relay_s = 1 << 22, registrations = 1 << 31,
  associations = 1 << 20,
}

local lowest = { explains = 0 }

-- The defaults with `given` over them, or nil, message, code.
function M.check(given)
  local limits = {}
  for name, value in pairs(M.defaults) do limits[name] = value end
  if given == nil then return limits end
  if type(given) ~= "table" then return nil, "limits must be a table", "invalid" end
  for name, value in pairs(given) do
    if M.defaults[name] == nil then
      local known = {}
      for k in pairs(M.defaults) do known[#known + 1] = k end
      table.sort(known)
      return nil, ("limits: there is no '%s': it is one of %s"):format(tostring(name),
        table.concat(known, ", ")), "invalid"
    end
    local least, top = lowest[name] or 1, highest[name] or 1 << 31
    if math.type(value) ~= "integer" or value < least or value > top then
      return nil, ("limits: %s must be an integer from %d to %d"):format(name, least, top), "invalid"
    end
    limits[name] = value
  end
  return limits
end

-- Where an address belongs to: an IPv4 address, or the /64 of an IPv6 one, since whoever has one address of a /64 has
-- them all.
function M.source(from)
  return #from == 6 and from:sub(1, 4) or from:sub(1, 8)
end

-- The network it is in, for what an unproven sender gets: who forges sources aims at a network as well as at a host.
function M.network(from)
  return #from == 6 and from:sub(1, 3) or from:sub(1, 7)
end

local Guesses = {}
Guesses.__index = Guesses

-- Token buckets by source. A bucket that is full again is the same as none, so only recent ones are kept.
function M.guesses(limits, now_us)
  local every_us = limits.guess_every_s * 1000000
  local span_us = limits.guess_burst * every_us
  return setmetatable({
    burst = limits.guess_burst, every_us = every_us,
    full_us = recent.new { span_us = span_us, max = limits.guess_sources, now_us = now_us },
  }, Guesses)
end

-- A bucket is one number: the time at which it is full again.
local function full_at(self, now_us, key)
  return math.max(self.full_us:get(now_us, key) or 0, now_us)
end

-- Whether one more wrong guess from there could be paid for. Looking costs nothing.
function Guesses:may(now_us, from)
  return full_at(self, now_us, M.source(from)) - now_us <= (self.burst - 1) * self.every_us
end

-- Charges a wrong guess.
function Guesses:wrong(now_us, from)
  local key = M.source(from)
  self.full_us:put(now_us, key, full_at(self, now_us, key) + self.every_us)
end

-- One bucket, for everybody.
local function bucket(rate, burst)
  return { per_us = 1000000 / rate, span_us = burst * 1000000 / rate, full_us = 0 }
end

local function has(b, now_us, cost)
  return math.max(b.full_us, now_us) - now_us + cost * b.per_us <= b.span_us
end

local function charge(b, now_us, cost) b.full_us = math.max(b.full_us, now_us) + cost * b.per_us end

local Buckets = {}
Buckets.__index = Buckets

-- Rate limits for requests that cost much, by source (as for guesses) and in all. options: rate (tokens a second) and
-- burst (tokens) of one source; source: what that is of an address (M.source); sources: how many are remembered;
-- all_rate, all_burst: of everybody together (none: no bound); now_us. Every number is greater than 0.
--
-- Of the bound in all, sources that are not known yet get three quarters at most, both of its rate and of its burst:
-- however many of them ask, a quarter is left for those that are served already, who may use all of it.
function M.buckets(options)
  for _, name in ipairs { "rate", "burst", "sources" } do
    if math.type(options[name]) == nil or options[name] <= 0 then error(name .. " must be a number above 0", 2) end
  end
  local self = setmetatable({
    source = options.source or M.source,
    each = bucket(options.rate, options.burst),
    full_us = recent.new {
      span_us = options.burst * 1000000 / options.rate, max = options.sources, now_us = options.now_us,
    },
  }, Buckets)
  if options.all_rate then
    self.all = bucket(options.all_rate, options.all_burst)
    self.strangers = bucket(options.all_rate * STRANGERS, options.all_burst * STRANGERS)
  end
  return self
end

-- Whether a request from there that costs so many tokens (1) may be served, and then charges for it; known: its source
-- is served already. False, "source" or false, "all": which bound is in the way. What is refused costs nothing.
function Buckets:may(now_us, from, cost, known)
  cost = cost or 1
  local key, each, strangers = self.source(from), self.each, not known and self.strangers
  each.full_us = self.full_us:get(now_us, key) or 0
  if not has(each, now_us, cost) then return false, "source" end
  if self.all and not (has(self.all, now_us, cost) and (not strangers or has(strangers, now_us, cost))) then
    return false, "all"
  end
  charge(each, now_us, cost)
  self.full_us:put(now_us, key, each.full_us)
  if self.all then charge(self.all, now_us, cost) end
  if strangers then charge(strangers, now_us, cost) end
  return true
end

return M
