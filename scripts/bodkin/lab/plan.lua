-- SPDX-License-Identifier: MIT
-- From what a lab should be to the namespaces, links, rules and delays that make it. Pure: nothing is touched.
--
--   host ── [NAT] ── [carrier's NAT] ── edge ──┐
--   host ── [NAT] ── [carrier's NAT] ── edge ──┼── core ── server, server2, server3
--                                       …    ──┘
--
-- Each box is a network namespace, but the core, which is the TUN copier (io/tun.h). Edges and core are routers: a
-- packet between two clients passes edge, core, edge, three hops, and one more for each NAT on its way.
--
-- Client number i has 198.18.i.0/24 in public (.1 the edge, .10 and .11 its NAT, or itself without one),
-- 100.64.i.0/24 behind a carrier (.1, .10) and 192.168.i.0/24 at home (.1 the NAT, .10 the host; .11 the second
-- host of a NAT that two share). Behind a firewall, hosts are at 198.18.i.130 and .131 (.129 the firewall). Servers
-- are 192.0.2.10, .20, .30; 192.0.2.99 is the first one's second address.
--
-- With IPv6, client number i has 2001:db8:i::/48: 2001:db8:i::/64 in public, 2001:db8:i:2::/64 behind a carrier and
-- 2001:db8:i:1::/64 at home, with the same last numbers as above; every home's router is a firewall, whatever it does
-- to IPv4. Servers are 2001:db8:ff::10, ::20, ::30, with ::99. Hosts know servers by name, too: server, server2, ….

local nat = require "bodkin.lab.nat"

local M = {}

local CLIENTS = {}
for letter in ("abcdefghijklmnopqrstuvwxyz"):gmatch "." do CLIENTS[#CLIENTS + 1] = letter end
local SERVERS = "192.0.2.0/26" -- the servers, without the witness
M.witness, M.witness6 = "192.0.2.99", "2001:db8:ff::99"

local function fail(fmt, ...)
  return nil, "lab: " .. fmt:format(...), "invalid"
end

-- A namespace under construction.
local function box(plan, suffix)
  local b = { name = plan.prefix .. suffix, addrs = {}, routes = {}, sysctl = {}, rules = nil, bridge = nil }
  plan.boxes[#plan.boxes + 1] = b
  return b
end

local function forward(plan, b)
  b.sysctl["net/ipv4/ip_forward"] = 1
  if plan.ipv6 then b.sysctl["net/ipv6/conf/all/forwarding"] = 1 end
  return b
end

local function link(plan, left, left_dev, right, right_dev)
  plan.links[#plan.links + 1] = { left.name, left_dev, right.name, right_dev }
end

local function is_ipv6(text)
  return text:find(":", 1, true) ~= nil
end

-- Nobody else has it: an IPv6 address need not be tried out for a second before it is used.
local function addr(b, dev, text)
  b.addrs[#b.addrs + 1] = { dev, is_ipv6(text) and text .. " nodad" or text }
end

local function route(b, text)
  b.routes[#b.routes + 1] = text
end

-- A device that the copier joins to the core.
local function join_core(plan, b, ip)
  b.tun = "core0"
  addr(b, "core0", ip .. "/32")
  route(b, "default dev core0")
  if plan.ipv6 then route(b, "::/0 dev core0") end
  plan.ports[#plan.ports + 1] = b.name
  return #plan.ports
end

local function reachable(plan, prefix, port)
  plan.core_routes[#plan.core_routes + 1] = { to = prefix, port = port }
end

local function router(plan, suffix, kind, numbers)
  local b = forward(plan, box(plan, suffix))
  b.rules = nat.rules(kind, numbers)
  b.conntrack = true
  return b
end

-- Host number `n` of a LAN.
local function host(plan, client, lan, n)
  local b, ip, ip6 = box(plan, "host-" .. client), lan.hosts[n], nil
  if plan.families[client] ~= "only" then
    addr(b, "eth0", ip .. lan.bits)
    route(b, "default via " .. lan.router)
  end
  if plan.families[client] then
    ip6 = lan.net6 .. ({ "10", "11" })[n]
    addr(b, "eth0", ip6 .. "/64")
    route(b, ("::/0 via %s1"):format(lan.net6))
  end
  if plan.families[client] == "only" then ip, lan.public = ip6, nil end
  plan.hosts[client] = { name = client, ns = b.name, addr = ip, public = lan.public or ip, addr6 = ip6 }
  return b
end

-- One client's part, from its edge inwards; `second` is the client that shares its NAT.
local function site(plan, i, client, kind, options, second)
  local known = nat.kinds[kind]
  local public = ("198.18.%d."):format(i)
  local timeouts = ("%ds"):format(options.udp_timeout_s or 120)
  local edge = forward(plan, box(plan, "edge-" .. client))
  addr(edge, "cust0", public .. "1/24")
  local tun = ("192.0.2.%d"):format(100 + i)
  local port = join_core(plan, edge, tun)
  reachable(plan, public .. "0/24", port)
  reachable(plan, tun, port)
  plan.ends[client] = { public .. "0/24", tun }
  local net6 = ("2001:db8:%d"):format(i)
  if plan.ipv6 then
    addr(edge, "cust0", net6 .. "::1/64")
    reachable(plan, net6 .. "::/48", port)
    plan.ends[client][3] = net6 .. "::/48"
  end
  if known.routers == 0 then
    local lan = { router = public .. "1", hosts = { public .. "10" }, bits = "/24", net6 = net6 .. "::" }
    return link(plan, edge, "cust0", host(plan, client, lan, 1), "eth0")
  end
  local outside, gateway = public .. "10", public .. "1"
  local outside6 = net6 .. "::"
  local upstream, upstream_dev = edge, "cust0"
  if kind == "carrier" then
    local shared = ("100.64.%d."):format(i)
    local carrier = router(plan, "carrier-" .. client, kind,
      { wan = outside, router = shared .. "1", servers = SERVERS, timeouts = timeouts })
    link(plan, edge, "cust0", carrier, "wan0")
    addr(carrier, "wan0", outside .. "/24")
    addr(carrier, "lan0", shared .. "1/24")
    route(carrier, "default via " .. gateway)
    if plan.ipv6 then
      addr(carrier, "wan0", outside6 .. "10/64")
      addr(carrier, "lan0", net6 .. ":2::1/64")
      route(carrier, ("::/0 via %s1"):format(outside6))
      route(carrier, ("%s:1::/64 via %s:2::10"):format(net6, net6))
      route(edge, ("%s:1::/64 via %s10"):format(net6, outside6))
      route(edge, ("%s:2::/64 via %s10"):format(net6, outside6))
      outside6 = net6 .. ":2::"
    end
    outside, gateway, upstream, upstream_dev = shared .. "10", shared .. "1", carrier, "lan0"
  end
  local home = ("192.168.%d."):format(i)
  local lan = { router = home .. "1", hosts = { home .. "10", home .. "11" }, bits = "/24", public = public .. "10" }
  local home6 = net6 .. ":1::"
  if known.mapping == "none" then
    lan = { router = public .. "129", hosts = { public .. "130", public .. "131" }, bits = "/25" }
    route(edge, public .. "128/25 via " .. outside)
  end
  lan.net6 = home6
  local box_nat = router(plan, "nat-" .. client, kind, { wan = outside, wan2 = public .. "11", router = lan.router,
    servers = SERVERS, timeouts = timeouts, hairpin = options.hairpin, ipv6 = plan.ipv6 })
  if options.blocks_udp and options.blocks_udp[client] then box_nat.rules = box_nat.rules .. nat.block_udp end
  plan.routers[client] = box_nat.name
  if second then plan.routers[second] = box_nat.name end
  link(plan, upstream, upstream_dev, box_nat, "wan0")
  addr(box_nat, "wan0", outside .. "/24")
  if known.addresses == 2 then addr(box_nat, "wan0", public .. "11/24") end
  addr(box_nat, "lan0", lan.router .. lan.bits)
  route(box_nat, "default via " .. gateway)
  if plan.ipv6 then
    addr(box_nat, "wan0", outside6 .. "10/64")
    addr(box_nat, "lan0", home6 .. "1/64")
    route(box_nat, ("::/0 via %s1"):format(outside6))
    if kind ~= "carrier" then route(edge, ("%s/64 via %s10"):format(home6, outside6)) end
  end
  local first = host(plan, client, lan, 1)
  if not second then return link(plan, box_nat, "lan0", first, "eth0") end
  box_nat.bridge, box_nat.isolated = { "port0", "port1" }, options.isolated
  link(plan, box_nat, "port0", first, "eth0")
  link(plan, box_nat, "port1", host(plan, second, lan, 2), "eth0")
end

-- The value for x toward y: said for the pair, else made of both links' by `combine`.
local function between(t, x, y, combine)
  if t[x .. ">" .. y] then return t[x .. ">" .. y] end
  local function of(end_) return t[end_] or (end_:match "^server" and t.server) or 0 end
  return combine(of(x), of(y))
end

local function sum(x, y) return x + y end
local function either(x, y) return 1 - (1 - x) * (1 - y) end

-- What an option says for each pair: a function of two names. A number is that of every pair, or, with `of_links`, of
-- each client's link.
local function pairwise(option, combine, of_links)
  if type(option) ~= "number" then return function(x, y) return between(option or {}, x, y, combine) end end
  if not of_links then return function() return option end end
  local function of(end_) return #end_ == 1 and option or 0 end
  return function(x, y) return combine(of(x), of(y)) end
end

local function us(ms) return math.floor(ms * 1000 + 0.5) end

local function rules(plan, options)
  local delay, jitter = pairwise(options.delay_ms, sum, true), pairwise(options.jitter_ms, sum)
  local loss, duplicate = pairwise(options.loss, either), pairwise(options.duplicate, either)
  local reorder = pairwise(options.reorder, either)
  local attack = options.attack and pairwise(options.attack, either)
  local names = {}
  for name in pairs(plan.ends) do names[#names + 1] = name end
  table.sort(names)
  for _, x in ipairs(names) do
    for _, y in ipairs(names) do
      for _, from in ipairs(plan.ends[x]) do
        for _, to in ipairs(plan.ends[y]) do
          plan.rules[#plan.rules + 1] = is_ipv6(from) == is_ipv6(to) and { from = from, to = to,
            delay_us = us(delay(x, y)), jitter_us = us(jitter(x, y)), loss = loss(x, y), duplicate = duplicate(x, y),
            reorder = reorder(x, y), reorder_us = us(options.reorder_ms or 50), hooked = attack ~= nil,
            attack = attack and attack(x, y) } or nil
        end
      end
    end
  end
end

-- Which families a client has, by name: "dual" or "only" (IPv6); others have IPv4 alone. Or nil, message, code.
local function families(option)
  local out = {}
  if option == true then
    for _, client in ipairs(CLIENTS) do out[client] = "dual" end
  end
  for client, which in pairs(type(option) == "table" and option or {}) do
    if which ~= "dual" and which ~= "only" then return fail("ipv6 is dual or only, not '%s'", tostring(which)) end
    out[client] = which
  end
  return out
end

-- options: see lab.up. Returns the plan, or nil, message, "invalid".
function M.make(prefix, options)
  local plan = { prefix = prefix, boxes = {}, links = {}, ports = {}, core_routes = {}, rules = {}, ends = {},
    hosts = {}, kinds = {}, routers = {}, udp_timeout_s = options.udp_timeout_s, ipv6 = options.ipv6 and true or false }
  local message, code
  plan.families, message, code = families(options.ipv6)
  if not plan.families then return nil, message, code end
  if plan.ipv6 and options.attack then return fail "the man in the middle knows no IPv6: leave ipv6 or attack out" end
  for i, client in ipairs(CLIENTS) do
    local kind = options[client] or (i <= 2 and "none") or nil
    local shares = client == "b" and options.same_nat
    if kind and not nat.kinds[kind] then return fail("no NAT kind '%s'; there are %s", kind, nat.names()) end
    if shares then
      if options.b and options.b ~= options.a then return fail("with same_nat, b is behind a's NAT: leave b out") end
      plan.kinds.b = plan.kinds.a
    elseif kind then
      local second = client == "a" and options.same_nat and "b" or nil
      if second and nat.kinds[kind].routers == 0 then return fail("same_nat wants a NAT for a, not '%s'", kind) end
      if options.hairpin and not nat.kinds[kind].hairpins and nat.kinds[kind].routers > 0 then
        return fail("there is no hairpinning for '%s'", kind)
      end
      if options.blocks_udp and options.blocks_udp[client] and nat.kinds[kind].routers == 0 then
        return fail("%s has no router that could block UDP: give it a NAT or a firewall", client)
      end
      plan.kinds[client] = kind
      site(plan, i, client, kind, options, second)
    end
  end
  for i = 1, options.servers or 1 do
    local b = box(plan, "server" .. i)
    local ip = ("192.0.2.%d"):format(i * 10)
    local name = i == 1 and "server" or "server" .. i
    local port = join_core(plan, b, ip)
    reachable(plan, ip, port)
    plan.ends[name] = { ip }
    plan.hosts[name] = { name = name, ns = b.name, addr = ip, public = ip }
    if i == 1 then
      addr(b, "core0", M.witness .. "/32")
      reachable(plan, M.witness, port)
      plan.ends[name][2] = M.witness
    end
    if plan.ipv6 then
      local all = { ("2001:db8:ff::%d"):format(i * 10), i == 1 and M.witness6 or nil }
      for _, ip6 in ipairs(all) do
        addr(b, "core0", ip6 .. "/128")
        reachable(plan, ip6, port)
        table.insert(plan.ends[name], ip6)
      end
      plan.hosts[name].addr6 = all[1]
    end
  end
  plan.core = box(plan, "core").name -- nothing but a place for the copier
  rules(plan, options)
  return plan
end

local function setup_box(plan, b, out)
  local function put(fmt, ...) out[#out + 1] = select("#", ...) > 0 and fmt:format(...) or fmt end
  put("nsenter --net=/run/netns/%s sh -e <<'BOX'", b.name)
  put "set_if() { [ ! -e /proc/sys/$1 ] || echo $2 >/proc/sys/$1; }"
  for _, dev in ipairs { "all", "default" } do
    put("echo 0 >/proc/sys/net/ipv4/conf/%s/rp_filter", dev)
    put("set_if net/ipv6/conf/%s/disable_ipv6 %d", dev, plan.ipv6 and 0 or 1)
  end
  if plan.ipv6 then put "for dad in /proc/sys/net/ipv6/conf/*/accept_dad; do echo 0 >$dad; done" end
  for key, value in pairs(b.sysctl) do put("echo %s >/proc/sys/%s", value, key) end
  put "ip -batch - <<'IP'"
  if b.bridge then
    put "link add lan0 type bridge"
    for _, dev in ipairs(b.bridge) do
      put("link set %s master lan0", dev)
      if b.isolated then put("link set %s type bridge_slave isolated on", dev) end
      put("link set %s up", dev)
    end
  end
  if b.tun then put("tuntap add %s mode tun", b.tun) end
  put "link set lo up"
  for _, a in ipairs(b.addrs) do put("addr add %s dev %s", a[2], a[1]) end
  local up = {}
  for _, a in ipairs(b.addrs) do
    if not up[a[1]] then put("link set %s up", a[1]) end
    up[a[1]] = true
  end
  for _, r in ipairs(b.routes) do put("route add %s", r) end
  put "IP"
  if b.bridge then put "set_if net/bridge/bridge-nf-call-iptables 0" end
  if b.rules then put("nft -f - <<'NFT'\n%sNFT", b.rules) end
  if b.conntrack and plan.udp_timeout_s then
    for _, key in ipairs { "udp_timeout", "udp_timeout_stream" } do
      put("echo %d >/proc/sys/net/netfilter/nf_conntrack_%s", plan.udp_timeout_s, key)
    end
  end
  put "BOX"
end

-- What a host's file of names says.
function M.hosts_file(plan)
  local out = { "127.0.0.1 localhost", "::1 localhost" }
  for name, one in pairs(plan.hosts) do
    if name:find "^server" then
      out[#out + 1] = one.addr .. " " .. name
      out[#out + 1] = one.addr6 .. " " .. name
    end
  end
  return table.concat(out, "\n") .. "\n"
end

-- The script that builds it all; it stops at the first thing that fails.
function M.setup(plan)
  local out = { "set -e", "ip -batch - <<'IP'" }
  for _, b in ipairs(plan.boxes) do out[#out + 1] = "netns add " .. b.name end
  for _, l in ipairs(plan.links) do
    out[#out + 1] = ("link add %s netns %s type veth peer name %s netns %s"):format(l[2], l[1], l[4], l[3])
  end
  out[#out + 1] = "IP"
  for _, b in ipairs(plan.boxes) do setup_box(plan, b, out) end
  if plan.ipv6 then -- IPv6 takes to a link only once the kernel has seen it up, which it looks after each second
    for _, b in ipairs(plan.boxes) do
      out[#out + 1] = ("for n in $(seq 60); do ip -n %s -br link show type veth | grep -q DOWN || break; "
        .. "sleep 0.05; done"):format(b.name)
    end
  end
  return table.concat(out, "\n") .. "\n"
end

return M
