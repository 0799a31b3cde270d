-- SPDX-License-Identifier: MIT
-- What befalls a net that is up (see init.lua, whose methods these are): NATs that forget, hosts that are elsewhere,
-- lines that are cut. Each returns true, or nil, message, "refused".

local shell = require "bodkin.lab.shell"

local M = {}

local function inside(box, script)
  local ok, message = shell.run(("nsenter --net=/run/netns/%s sh -e <<'BOX'\n%sBOX"):format(box, script))
  if ok then return true end
  return nil, "lab: it cannot be done: " .. message, "refused"
end

local function box_of(net, client, part)
  local name = net.plan.prefix .. part .. client
  for _, b in ipairs(net.plan.boxes) do
    if b.name == name then return name end
  end
  error(("client %s has no %s"):format(client, part == "nat-" and "NAT" or "edge"), 3)
end

-- In a zone of its own no entry is known yet.
local function forget(net, ports)
  net.zones = (net.zones or 0) + 1
  local outward = ports and ("chain outward { type nat hook postrouting priority srcnat - 1;\n"
    .. "    oifname wan0 meta l4proto udp masquerade to :%s; }"):format(ports) or ""
  return ([[
nft -f - <<'NFT'
table ip rebind
delete table ip rebind
table ip rebind {
  chain forget { type filter hook prerouting priority raw - 1; meta l4proto udp ct zone set %d; }
  %s
}
NFT
]]):format(net.zones, outward)
end

-- A client's router forgets its mappings, and makes others: what the client sends by UDP leaves from `ports` (a number,
-- or "FIRST-LAST": one of these for each socket) from now on, and only there something comes in; nil: from those that
-- its kind gives. With `ports`, for kinds that masquerade, with one client behind.
function M.rebind(net, client, ports)
  return inside(box_of(net, client, "nat-"), forget(net, ports))
end

local DARK = "nft 'table ip dark { chain nothing { type filter hook prerouting priority raw - 2; drop; }; }'\n"
local LIGHT = "nft delete table ip dark\n"

-- The same as when it was started anew, which takes it away_ms (500): meanwhile nothing passes.
function M.reboot(net, client, ports, away_ms)
  return inside(box_of(net, client, "nat-"), ("%ssleep %.3f\n%s%s"):format(DARK, (away_ms or 500) / 1000,
    forget(net, ports), LIGHT))
end

-- Nothing passes the client's edge, until it is mended.
function M.cut(net, client) return inside(box_of(net, client, "edge-"), DARK) end
function M.mend(net, client) return inside(box_of(net, client, "edge-"), LIGHT) end

-- The client's host has another address on its network, `last` being its last number.
function M.readdress(net, client, last)
  local host = net[client]
  local net24 = host.addr:match "^(%d+%.%d+%.%d+%.)%d+$"
  local was = host.addr
  host.addr = net24 .. last
  if host.public == was then host.public = host.addr end
  return inside(host.ns, ([[
eval $(ip -4 route show default | sed 's/.*via \([^ ]*\).*/via=\1/')
bits=$(ip -4 -o addr show dev eth0 | sed 's|.*inet [^/]*/\([0-9]*\).*|\1|')
ip -4 addr flush dev eth0
ip addr add %s/$bits dev eth0
ip route add default via $via
]]):format(host.addr))
end

-- The client's host has a second interface, eth1, too, in the network where the host of `other` was, which has none
-- from now on. Its default route stays.
function M.attach(net, client, other)
  local from = net[other]
  local ok, message, code = inside(from.ns, ([[
bits=$(ip -4 -o addr show dev eth0 | sed 's|.*inet [^/]*/\([0-9]*\).*|\1|')
ip link set eth0 netns /run/netns/%s name eth1
nsenter --net=/run/netns/%s sh -ec "ip addr add %s/$bits dev eth1; ip link set eth1 up"
]]):format(net[client].ns, net[client].ns, from.addr))
  if ok then net[client].second = from end
  return ok, message, code
end

-- Everything that its host sends goes by eth1 (see attach) from now on; `gone`: and eth0 is down.
function M.switch(net, client, gone)
  local host = net[client]
  local gateway = host.second.addr:match "^(%d+%.%d+%.%d+%.)%d+$" .. "1"
  return inside(host.ns, ("%sip route replace default via %s dev eth1\n"):format(
    gone and "ip link set eth0 down\n" or "", gateway))
end

return M
