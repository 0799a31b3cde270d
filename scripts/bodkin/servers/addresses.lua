-- SPDX-License-Identifier: MIT
-- The addresses of a client: which of those it sends count, how an entry of the registry holds them, and
-- to whom its local ones may be shown.

local addr = require("bodkin.core").addr

local M = {}

M.LOCAL_RULES = { ["same-public"] = true, always = true, never = true }

local LOCALS_MAX, PUBS_MAX = 4, 3

-- Local candidates are private-range only. A carrier's range (RFC 6598) is one, too: two phones of one
-- carrier meet there. Loopback counts where the client is on this very machine, for trying things out.
local function local_ok(a, from)
  local class = addr.class(a)
  return addr.port(a) ~= 0 and (class == "private" or class == "shared"
    or (class == "loopback" and addr.class(from) == "loopback"))
end

local function insert_once(list, a)
  for _, b in ipairs(list) do
    if a == b then return end
  end
  list[#list + 1] = a
end

-- The public addresses, after those of `list`, that a cookie proves, or whose IP is the observed one (an address from
-- a foreign STUN server counts only then). What does not count is left out.
function M.proven(server, from, pubs, list)
  for _, bytes in ipairs(pubs) do
    local a, proven = server.cookie:open(bytes)
    if a and proven == false then server.counters:add("address_cookie_bad") end
    if a and addr.port(a) ~= 0 and (proven or addr.same_ip(a, from)) and #list < PUBS_MAX then insert_once(list, a) end
  end
  return list
end

-- The observed source first, then the proven ones; and the local ones. A source seen over TCP is no address to send
-- datagrams to: of it the IP is kept, with port 0, and told to nobody.
function M.collect(server, from, pubs, locals)
  local seen = server:over_tcp() and addr.with_port(from, 0) or from
  local own, near = M.proven(server, from, pubs, { seen }), {}
  for _, a in ipairs(locals) do
    if #near < LOCALS_MAX and local_ok(a, from) then insert_once(near, a) end
  end
  return own, near
end

-- One entry's bytes: its association, ephemeral and round-trip time (nil: unknown), then both lists.
function M.pack(assoc, ephemeral, rtt_ms, pubs, locals)
  local parts = { string.pack(">I4c32i2B", assoc, ephemeral, rtt_ms or -1, #pubs) }
  for _, a in ipairs(pubs) do parts[#parts + 1] = string.pack("s1", a) end
  for _, a in ipairs(locals) do parts[#parts + 1] = string.pack("s1", a) end
  return table.concat(parts)
end

-- Returns assoc, ephemeral, pubs, locals, rtt_ms.
function M.unpack(bytes)
  local assoc, ephemeral, rtt_ms, count, at = string.unpack(">I4c32i2B", bytes)
  local pubs, locals = {}, {}
  while at <= #bytes do
    local a
    a, at = string.unpack("s1", bytes, at)
    local list = #pubs < count and pubs or locals
    list[#list + 1] = a
  end
  return assoc, ephemeral, pubs, locals, rtt_ms >= 0 and rtt_ms or nil
end

-- Those that others may be told.
function M.told(pubs)
  if pubs[1] and addr.port(pubs[1]) ~= 0 then return pubs end
  return table.move(pubs, 2, #pubs, 1, {})
end

-- What one with these public addresses may see of `locals`: under "same-public", all when they share a
-- public IP. A NAT may have several public addresses; it is enough that one of them is the same.
function M.visible(rule, locals, pubs, other_pubs)
  if rule == "always" then return locals end
  if rule == "same-public" then
    for _, a in ipairs(pubs) do
      for _, b in ipairs(other_pubs) do
        if addr.same_ip(a, b) then return locals end
      end
    end
  end
  return {}
end

return M
