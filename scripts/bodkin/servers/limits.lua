-- SPDX-License-Identifier: MIT
-- The bounds of a server, their defaults, and the rate limit of guesses at room codes.

local recent = require "bodkin.servers.recent"

local M = {}

M.defaults = {
  registrations = 100000, -- entries in the registry
  rooms = 50000,          -- those kept for a minute after the last member left included
  room_members = 16,      -- in one room; `matched` itself carries up to 32
  pending = 32,           -- `matched` messages to one client that it has not acknowledged
  pending_all = 20000,    -- and to all clients
  tickets = 20000,        -- that wait, in all queues
  tickets_each = 4,       -- of one client
  queues = 64,            -- each has a state of its own for its policy
  page_budget = 1000,     -- registry entries looked at for one page
  associations = 200000,  -- with clients
  associations_each = 4096, -- from one source: a carrier's NAT has many behind it
  handshakes = 2000,      -- a second: each costs about a quarter of a millisecond …
  handshakes_each = 50,   -- … and from one source, ten times as many at once
  guess_burst = 10,       -- wrong room codes from one source at once …
  guess_every_s = 2,      -- … and one more in each so many seconds
  guess_sources = 8192,   -- sources remembered, at least for as long as it takes to fill a bucket
}

local highest = { room_members = 32, registrations = 1 << 31, associations = 1 << 20 }

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
    local top = highest[name] or 1 << 31
    if math.type(value) ~= "integer" or value < 1 or value > top then
      return nil, ("limits: %s must be an integer from 1 to %d"):format(name, top), "invalid"
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

local Gate = {}
Gate.__index = Gate

local HANDSHAKE_BURST = 10 -- seconds' worth of handshakes_each at once

-- Who may begin a handshake: so many a second from one source, and in all. The last quarter of all is kept for sources
-- that clients are served at already.
function M.gate(limits, now_us)
  local each_us = 1000000 // limits.handshakes_each
  return setmetatable({
    each_us = each_us, all_us = 1000000 / limits.handshakes, spent_us = now_us,
    full_us = recent.new { span_us = HANDSHAKE_BURST * 1000000, max = 65536, now_us = now_us },
  }, Gate)
end

-- Charges one; false when there is nothing left.
function Gate:may(now_us, source, known)
  local full = math.max(self.full_us:get(now_us, source) or 0, now_us) + self.each_us
  if full - now_us > HANDSHAKE_BURST * 1000000 then return false end
  local spent = math.max(self.spent_us, now_us) + self.all_us
  if spent - now_us > (known and 1000000 or 750000) then return false end
  self.spent_us = spent
  self.full_us:put(now_us, source, full)
  return true
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

return M
