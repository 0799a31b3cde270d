-- SPDX-License-Identifier: MIT
-- The kinds of NAT: the nftables rules that make one, and how it must then behave (in the words of RFC 4787).
-- The recipes were probed on Linux 6.18.

local M = {}

-- mapping: "none" (no NAT), "endpoint" (the same for every destination), "pool" (the same port, but another of the
--          NAT's public addresses for some destinations), "address" (one for each destination IP), "address_port" (one
--          for each destination)
-- ports: of the mapping: "preserve" (the inner one), "sequential" (the next one each time), "random" (any other)
-- filtering: who may send to a mapping: "open" (anybody), "address" (the addresses sent to), "address_port"
-- moves: whether an unsolicited packet makes the mapping toward its sender another one (the conntrack race); it can
--        be told only where there is one mapping for all
-- routers: how many the client brings along on the way to its edge
M.kinds = {
  none = { mapping = "none", filtering = "open", moves = false, routers = 0 },
  firewall = { mapping = "none", filtering = "address_port", moves = false, routers = 1 },
  full_cone = { mapping = "endpoint", filtering = "open", moves = false, routers = 1 },
  address_restricted = { mapping = "endpoint", filtering = "address", moves = false, routers = 1 },
  port_restricted = { mapping = "endpoint", filtering = "address_port", moves = false, routers = 1 },
  plain_linux = { mapping = "endpoint", filtering = "address_port", moves = true, routers = 1 },
  carrier = { mapping = "endpoint", filtering = "address_port", moves = false, routers = 2 },
  two_addresses = { mapping = "pool", filtering = "address_port", moves = false, routers = 1, addresses = 2 },
  symmetric_random = { mapping = "address_port", filtering = "address_port", ports = "random", routers = 1 },
  symmetric_sequential = { mapping = "address_port", filtering = "address_port", ports = "sequential", routers = 1 },
  address_dependent = { mapping = "address", filtering = "address_port", ports = "random", routers = 1 },
}
for _, kind in pairs(M.kinds) do
  kind.ports = kind.ports or "preserve"
  kind.hairpins = kind.routers > 0 and kind.mapping ~= "none" and kind.ports == "preserve" -- can, when it is asked to
end

-- The names, sorted, for messages.
function M.names()
  local names = {}
  for name in pairs(M.kinds) do names[#names + 1] = name end
  table.sort(names)
  return table.concat(names, ", ")
end

local function fill(text, nat)
  return (text:gsub("%$(%w+)", nat))
end

-- Which host of the LAN a port belongs to, learned from what it sends. Ports are kept as they are by masquerade, but
-- for one that another host has toward the same destination: to that one only who was sent to gets in.
local cone_map = [[
table ip cone {
  map owner { type inet_service : ipv4_addr; flags dynamic,timeout; timeout $timeouts; }
  chain record { type filter hook prerouting priority raw;
    iifname lan0 ip daddr != { $router, $wan } meta l4proto udp update @owner { udp sport : ip saddr }
  }
]]

local open_in = [[
  chain inward { type nat hook prerouting priority dstnat;
    iifname wan0 ip daddr $wan meta l4proto udp dnat ip to udp dport map @owner
  }
]]

local permit = [[
  set sent { type inet_service . ipv4_addr; flags dynamic,timeout; timeout $timeouts; }
  chain sends { type filter hook postrouting priority srcnat + 10;
    oifname wan0 meta l4proto udp update @sent { udp sport . ip daddr }
  }
  chain permit { type filter hook prerouting priority raw;
    iifname wan0 ip daddr $wan meta l4proto udp udp dport . ip saddr != @sent drop
  }
]]

local hairpin = [[
  chain back { type nat hook prerouting priority dstnat;
    iifname lan0 ip daddr $wan meta l4proto udp dnat ip to udp dport map @owner
  }
  chain backsource { type nat hook postrouting priority srcnat;
    iifname lan0 oifname lan0 ct status dnat snat to $wan
  }
]]

local masquerade = [[
table ip nat {
  chain outward { type nat hook postrouting priority srcnat; oifname wan0 masquerade; }
}
]]

local firewall = [[
table ip filter {
  chain forward { type filter hook forward priority filter; iifname wan0 ct state new drop; }
}
]]

-- What homes have for IPv6 in front of them (RFC 6092).
local firewall6 = [[
table ip6 filter {
  chain forward { type filter hook forward priority filter; iifname wan0 ct state new drop; }
}
]]

-- A network that lets no UDP out, nor in: what some companies, hotels and ships have.
M.block_udp = [[
table inet blocked {
  chain forward { type filter hook forward priority filter - 1; meta l4proto udp drop; }
}
]]
M.allow_udp = "delete table inet blocked\n"

-- A source NAT whose port is `expression` counted from 40000 on: the map is how nftables makes a port of a number.
local function numbered(expression, count)
  local ports = {}
  for i = 0, count - 1 do ports[#ports + 1] = ("%d : %d"):format(i, 40000 + i) end
  return ([[
table ip nat {
  chain outward { type nat hook postrouting priority srcnat;
    oifname wan0 meta l4proto udp snat to $wan : %s mod %d map { %s }
    oifname wan0 masquerade
  }
}
]]):format(expression, count, table.concat(ports, ", "))
end

local random = [[
table ip nat {
  chain outward { type nat hook postrouting priority srcnat; oifname wan0 masquerade random,fully-random; }
}
]]

local pool = [[
table ip nat {
  chain outward { type nat hook postrouting priority srcnat;
    oifname wan0 ip daddr $servers snat to $wan
    oifname wan0 snat to $wan2
  }
}
]]

-- Unknown input is dropped before conntrack confirms it. Without this rule it makes an entry, and our own packet
-- to its sender then gets another port: that is plain_linux.
local drop_unknown = [[
table ip filter {
  chain input { type filter hook input priority filter; iifname wan0 ct state new drop; }
}
]]

-- Two flows that get the same port toward one destination would lose one another: hence so many ports.
local TRANSLATION = {
  two_addresses = function() return pool end,
  symmetric_random = function() return random end,
  symmetric_sequential = function() return numbered("numgen inc", 4096) end,
  address_dependent = function() return numbered("jhash ip saddr . udp sport . ip daddr", 16384) end,
}

-- The rules of the router next to the client's hosts, or of a carrier's (`nat.hairpin` is for the former only).
-- nat: { wan, wan2, router (its LAN address), servers (a prefix), timeouts ("120s"), hairpin, ipv6 }
function M.rules(kind, nat)
  local cone = kind == "full_cone" or kind == "address_restricted"
  local six = nat.ipv6 and firewall6 or ""
  if kind == "firewall" then return firewall .. six end
  local text = TRANSLATION[kind] and TRANSLATION[kind]() or masquerade
  if cone or nat.hairpin then
    text = text .. cone_map .. (cone and open_in or "") .. (kind == "address_restricted" and permit or "") ..
      (nat.hairpin and hairpin or "") .. "}\n"
  end
  if kind ~= "plain_linux" then text = text .. drop_unknown end
  return fill(text, nat) .. six
end

return M
