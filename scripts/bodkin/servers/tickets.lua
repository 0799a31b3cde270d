-- SPDX-License-Identifier: MIT
-- Tickets for a relay: that the two ends of one pair may meet there, for so long. The matching server makes them, and
-- any relay that shares the deployment's key believes them: pair (16 bytes) ‖ role (1) ‖ expiry (4, seconds since
-- 1970) ‖ MAC (16).

local crypto = require("bodkin.core").crypto

local M = { LEN = 37 }
local Tickets = {}
Tickets.__index = Tickets

local MAC_LEN, BODY = 16, ">c16BI4"

-- key: 32 bytes shared by a deployment; time() -> seconds since 1970; lifetime_s of a ticket.
function M.new(options)
  return setmetatable({
    key = crypto.mac(options.key, "relay", 32), time = options.time, lifetime_s = options.lifetime_s,
  }, Tickets)
end

local function sign(self, body) return body .. crypto.mac(self.key, body, MAC_LEN) end

-- For the end of a pair with that role, 0 or 1; a later one for the same pair is as good at a relay, and longer.
function Tickets:one(pair, role)
  return sign(self, BODY:pack(pair, role, (self.time() + self.lifetime_s) & 0xffffffff))
end

-- One for each end of a pair.
function Tickets:make(pair) return self:one(pair, 0), self:one(pair, 1) end

-- pair, role, seconds left; nil when it is none of ours, or too old.
function Tickets:open(ticket)
  local body = ticket:sub(1, -MAC_LEN - 1)
  if #ticket ~= M.LEN or not crypto.equal(sign(self, body), ticket) then return nil end
  local pair, role, expires_s = BODY:unpack(body)
  local left_s = expires_s - self.time()
  if role > 1 or left_s <= 0 then return nil end
  return pair, role, left_s
end

return M
