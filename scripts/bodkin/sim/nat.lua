-- SPDX-License-Identifier: MIT
-- Models of the box between a private network and the rest, in the words of RFC 4787. A model decides what
-- becomes of a packet's addresses and knows neither links nor time:
--
--   outbound(now_us, src, dst) -> src, dst | nil, why        from inside
--   inbound(now_us, src, dst) -> src, dst | nil, why         from outside
--
-- where why is one word, for the trace. A model without `ip` is transparent: what is inside keeps its address.

local addr = require("bodkin.core").addr

local M = {}

-- Which part of a remote address a mapping, or a filter, depends on (RFC 4787 sections 4.1 and 5).
local DEPENDENCE = {
  endpoint_independent = function() return "" end,
  address_and_port_dependent = function(remote) return remote end,
}

-- kind -> behaviour; new kinds are rows.
M.kinds = {
  none = {},
  port_restricted = { mapping = "endpoint_independent", filtering = "address_and_port_dependent" },
}

local TRANSPARENT = {}
TRANSPARENT.__index = TRANSPARENT

function TRANSPARENT.outbound(_, _, src, dst) return src, dst end

TRANSPARENT.inbound = TRANSPARENT.outbound

local Nat = {}
Nat.__index = Nat

-- options: kind, ip (packed, any port; not for "none"), timeout_ms (of a mapping; 120000, RFC 4787 REQ-5).
-- Port preservation where the port is free, else the next free one. Outbound packets refresh a mapping and
-- what it lets in, inbound ones do not (REQ-6). No hairpinning: REQ-9 is not met, as with many.
function M.new(options)
  local kind = M.kinds[options.kind]
  if not kind then error(("no NAT is of kind %q"):format(tostring(options.kind)), 2) end
  if not kind.mapping then return setmetatable({}, TRANSPARENT) end
  return setmetatable({
    ip = options.ip,
    timeout_us = math.tointeger((options.timeout_ms or 120000) * 1000 // 1),
    mapping_key = DEPENDENCE[kind.mapping],
    filter_key = DEPENDENCE[kind.filtering],
    by_inside = {}, -- inner address ‖ mapping key -> mapping
    by_port = {}, -- outer port -> mapping
  }, Nat)
end

local function alive(mapping, now_us)
  return mapping ~= nil and now_us < mapping.expires_us
end

local function free_port(self, now_us, wanted)
  for i = 0, 65535 - 1024 do
    local port = wanted + i
    if port > 65535 then port = port - 65535 + 1023 end
    if not alive(self.by_port[port], now_us) then return port end
  end
end

local function map(self, now_us, src, key)
  local port = free_port(self, now_us, math.max(addr.port(src), 1024))
  if not port then return nil end
  local old = self.by_port[port]
  if old and self.by_inside[old.key] == old then self.by_inside[old.key] = nil end
  local mapping = { inside = src, outside = addr.with_port(self.ip, port), key = key, permitted = {} }
  self.by_inside[key], self.by_port[port] = mapping, mapping
  return mapping
end

function Nat:outbound(now_us, src, dst)
  if addr.same_ip(dst, self.ip) then return nil, "hairpin" end
  local key = src .. self.mapping_key(dst)
  local mapping = self.by_inside[key]
  if not alive(mapping, now_us) then mapping = map(self, now_us, src, key) end
  if not mapping then return nil, "full" end
  mapping.expires_us = now_us + self.timeout_us
  mapping.permitted[self.filter_key(dst)] = mapping.expires_us
  return mapping.outside, dst
end

function Nat:inbound(now_us, src, dst)
  local mapping = self.by_port[addr.port(dst)]
  if not alive(mapping, now_us) then return nil, "unmapped" end
  if now_us >= (mapping.permitted[self.filter_key(src)] or 0) then return nil, "filtered" end
  return src, mapping.inside
end

return M
