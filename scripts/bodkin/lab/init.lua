-- SPDX-License-Identifier: MIT
-- Real processes behind real NATs: kernel NATs in network namespaces, joined by a core that delays and loses
-- packets as told. Linux, as root. It waits in real time and blocks: not for use inside a loop.
--
--   local lab = require "bodkin.lab"
--   local net <close> = assert(lab.up { a = "port_restricted", b = "carrier", delay_ms = 20 })
--   assert(net:probe())
--   local server = net.server:start { "bodkin", "serve" }
--   local line = assert(net.a:start { "bodkin", "host", "--json" }:expect("hosting", 5000))
--
-- plan.lua draws the picture, nat.lua lists the kinds. Nothing is left behind: a keeper process tears the lab down
-- when its pipe from here closes, also when this process is killed; what a killed keeper left, the next `up` sweeps.

local nat = require "bodkin.lab.nat"
local plan_of = require "bodkin.lab.plan"
local probe = require "bodkin.lab.probe"
local process = require "bodkin.lab.process"
local shell = require "bodkin.lab.shell"

local M = { kinds = nat.kinds }

local STATE = "/run/bodkin-lab-" -- and namespaces are called bodkin-lab-PID-NUMBER-…
local NETNS = "/run/netns/bodkin-lab-"

local Net = {}
Net.__index = Net
local Host = {}
Host.__index = Host

local last = 0 -- labs made by this process

local function serialize(value)
  if type(value) ~= "table" then return ("%q"):format(value) end
  local out = {}
  for k, v in pairs(value) do out[#out + 1] = ("[%q]=%s"):format(k, serialize(v)) end
  return "{" .. table.concat(out, ",") .. "}"
end

-- Ends what runs in these namespaces, and takes them and the directory away. As sh; whatever fails is passed over.
local function teardown(names, dir)
  local list, out = table.concat(names, " "), {}
  local function put(line) out[#out + 1] = line end
  put("for pass in 1 2 3; do")
  put("  pids=$(for n in " .. list .. "; do ip netns pids $n; done 2>/dev/null)")
  put("  [ -n \"$pids\" ] || break")
  put("  kill -9 $pids 2>/dev/null")
  put("done")
  put("wait") -- the keeper's copier, that is
  put("for n in " .. list .. "; do echo netns del $n; done | ip -force -batch - 2>/dev/null")
  put("for pass in 1 2 3 4 5; do rm -rf " .. dir .. " 2>/dev/null && break; sleep 0.05; done")
  return table.concat(out, "\n") .. "\n"
end

-- Takes away labs whose process is gone.
local function sweep()
  local _, listing = shell.run(("ls -d %s* %s* 2>/dev/null"):format(STATE, NETNS))
  local dead = {}
  for path in listing:gmatch "[^\n]+" do
    local pid, number, rest = path:match "bodkin%-lab%-(%d+)%-(%d+)(.*)$"
    if pid then
      local id = pid .. "-" .. number
      local owner = shell.read(STATE .. id .. "/owner")
      if not shell.alive(tonumber(pid), owner and owner:match " (%d+)\n") then
        dead[id] = dead[id] or {}
        if rest ~= "" then table.insert(dead[id], path:match "[^/]+$") end
      end
    end
  end
  for id, names in pairs(dead) do shell.run(teardown(names, STATE .. id)) end
end

-- How to run a Lua file with bodkin.core: a list of words, and environment. The binary, if one is named in BODKIN or
-- is what runs this; else this Lua with its module paths.
local function runner()
  local binary = os.getenv "BODKIN"
  local exe = shell.exe()
  if not binary and not exe:match "/lua[%d.]*$" then binary = exe end
  if binary then return { binary, "run" }, {} end
  return { exe }, { LUA_PATH = package.path, LUA_CPATH = package.cpath, LUA_PATH_5_4 = package.path,
    LUA_CPATH_5_4 = package.cpath }
end

local function unable(reason)
  return nil, ("lab: cannot make a network namespace: %s; run as root on Linux, with CAP_SYS_ADMIN and CAP_NET_ADMIN, "
    .. "iproute2, nftables and /dev/net/tun"):format(reason), "refused"
end

-- The one thing that is missing, or nil.
local function missing()
  local _, text = shell.run([[
    [ "$(id -u)" = 0 ] || { echo "not root (uid $(id -u))"; exit; }
    for c in ip nft nsenter setsid; do command -v $c >/dev/null || { echo "no command '$c'"; exit; }; done
    [ -c /dev/net/tun ] || echo "no /dev/net/tun"
  ]])
  text = text:match "[^\n]+"
  return text
end

local function boxes(plan)
  local names = {}
  for i, b in ipairs(plan.boxes) do names[i] = b.name end
  return names
end

local function keeper_script(net, plan, words, env)
  local exports = {}
  for name, value in pairs(env) do exports[#exports + 1] = ("export %s=%s\n"):format(name, shell.quote(value)) end
  local copier = table.move(words, 1, #words, 1, {})
  for _, word in ipairs { net.dir .. "/agent.lua", "copier", net.dir .. "/copier.lua", net.dir .. "/ready",
    net.dir .. "/attacks" } do
    copier[#copier + 1] = word
  end
  return table.concat(exports) .. ([[
trap '' HUP INT PIPE
down() {
%s}
trap 'down; exit 1' TERM
exec 5<&0
if sh %s/setup.sh; then
  { nsenter --net=/run/netns/%s %s <&5; : >%s/failed; } &
else
  : >%s/failed
fi
while read -r line; do :; done
down
]]):format(teardown(boxes(plan), net.dir), net.dir, plan.core, shell.join(copier), net.dir, net.dir)
end

local function copier_config(plan, options)
  local ports = {}
  for i, ns in ipairs(plan.ports) do ports[i] = { netns = "/run/netns/" .. ns, device = "core0" } end
  return { ports = ports, routes = plan.core_routes, rules = plan.rules, seed = options.seed or 1,
    attack = options.attack and { deeds = options.attack_deeds } }
end

-- Makes the directory whose name is the lab's, too.
local function claim_name()
  local pid, started = shell.self()
  for _ = 1, 100 do
    last = last + 1
    local id = pid .. "-" .. last
    if shell.run("mkdir -m 700 " .. STATE .. id) then
      shell.write(STATE .. id .. "/owner", ("%d %s\n"):format(pid, started))
      return STATE .. id, "bodkin-lab-" .. id .. "-"
    end
  end
  return nil, "lab: cannot make a directory " .. STATE .. pid .. "-N: is /run writable?", "refused"
end

-- Brings a lab up. options:
--   a, b, … z     the NAT in front of each client: one of M.kinds (a and b default to "none", the others to no client)
--   same_nat      true: b stands behind a's NAT, beside a
--   isolated      true: and the two do not reach each other there, as on a guest Wi-Fi
--   hairpin       true: the NATs send back what is meant for their own mappings
--   blocks_udp    { a = true }: the router next to these lets no UDP through; probe can then tell nothing of it
--   servers       1 (default) to 3
--   ipv6          true: every client has IPv6 beside IPv4, behind a firewall where it has a router; or { a = "dual",
--                 b = "only" }: these have, "only" without IPv4. Servers have both then, and the hosts names for them.
--   delay_ms      one-way, of each client's link: a number, or { a =, b =, server =, ["a>b"] = … }; a pair's delay is
--                 the sum of both links unless it is said
--   loss          0 … 1, in the same form, but a number is that of every pair; so are these:
--   jitter_ms     0 to so much more delay, for each packet anew
--   duplicate     0 … 1: how often a second copy comes, with a jitter of its own
--   reorder       0 … 1: how often a packet is held back, by 0 to reorder_ms (one number, 50)
--   attack        0 … 1, too: how often a man in the middle, who gets each UDP datagram in the core, does something
--                 other than to let it go on (see sim/attacker.lua); 0: never. What he did is in dir/attacks, a line
--                 each: deed, from, to, bytes.
--   attack_deeds  what he may do, a list of names (all)
--   udp_timeout_s of the NATs' mappings, unreplied and replied
--   seed          of losses, jitter, duplication, reordering and attacks
--   claim         { a = kind }: what probe takes a NAT for, where that is not what it was made as (to test probe)
-- Returns the net: fields a, b, …, server, server2, server3, dir (for files; goes with it) and the methods below; or
-- nil, message, code, with everything taken down again.
function M.up(options)
  local planned, message, code = plan_of.make("?", options) -- first what is asked, then what is possible
  if not planned then return nil, message, code end
  local lacking = missing()
  if lacking then return unable(lacking) end
  sweep()
  local dir, prefix, refused = claim_name()
  if not dir then return nil, prefix, refused end
  local plan = plan_of.make(prefix, options)
  local words, env = runner()
  local net = setmetatable({ dir = dir, plan = plan, options = options, words = words, env = env, count = 0,
    realtime = shell.run "chrt -f 1 true" }, Net)
  shell.write(dir .. "/setup.sh", plan_of.setup(plan))
  shell.write(dir .. "/copier.lua", "return " .. serialize(copier_config(plan, options)))
  if plan.ipv6 then
    net.hosts_file = dir .. "/hosts"
    shell.write(net.hosts_file, plan_of.hosts_file(plan))
  end
  shell.write(dir .. "/agent.lua", 'require("bodkin.lab.agent").main(...)')
  shell.write(dir .. "/keeper.sh", keeper_script(net, plan, words, env))
  local command = ("trap '' HUP INT QUIT; exec setsid sh %s/keeper.sh >%s/log 2>&1"):format(dir, dir)
  net.keeper = assert(io.popen(command, "w"))
  for name, host in pairs(plan.hosts) do
    host.net = net
    net[name] = setmetatable(host, Host)
  end
  local up = shell.await(10000, function() return shell.read(dir .. "/failed") or shell.read(dir .. "/ready") end)
  if up and not shell.read(dir .. "/failed") then return net end
  local log = (shell.read(dir .. "/log") or ""):match "[^\n]+" or "nothing was logged"
  net:down()
  return unable(up and log or "not up after 10 s: " .. log)
end

-- Starts a process on this host: see process.lua for the options and methods.
function Host:start(options)
  local net = self.net
  if net.is_down then error("start: this lab is down", 2) end
  net.count = net.count + 1
  return process.start(self.ns, ("%s/%d-%s"):format(net.dir, net.count, self.name), options, net.hosts_file)
end

-- Runs one of agent.lua's on this host; ahead of ordinary processes where that is allowed, as it measures.
function Host:agent(...)
  local net = self.net
  local options = table.move(net.words, 1, #net.words, 1, { env = net.env, realtime = net.realtime })
  options[#options + 1] = net.dir .. "/agent.lua"
  for _, word in ipairs { ... } do options[#options + 1] = tostring(word) end
  return self:start(options)
end

-- From now on the router next to this client lets no UDP through, or does again.
function Host:block_udp(blocks)
  local router = self.net.plan.routers[self.name]
  local rules = blocks and nat.block_udp or nat.allow_udp
  assert(shell.run(("nsenter --net=/run/netns/%s nft -f - <<'NFT'\n%sNFT"):format(router, rules)))
end

-- Whether the copier still runs; else nil and why it does not.
function Net:check()
  if self.is_down then return nil, "lab: it is down", "closed" end
  if not shell.read(self.dir .. "/failed") then return true end
  return nil, "lab: the copier died: " .. (shell.read(self.dir .. "/log"):match "[^\n]+" or "it said nothing"), "closed"
end

-- What there is to probe: for each client's families { client, its address, kind, address that is seen, observer's
-- number, whether it is for IPv6 }.
local function to_probe(net)
  local list = {}
  for client, made in pairs(net.plan.kinds) do
    local host, family = net[client], net.plan.families[client]
    local kind = net.options.claim and net.options.claim[client] or made
    if family ~= "only" then
      list[#list + 1] = { client = client, name = client, addr = host.addr, kind = kind, public = host.public, at = 1 }
    end
    if family then
      list[#list + 1] = { client = client, name = client .. "'s IPv6", addr = host.addr6, public = host.addr6, at = 2,
        kind = nat.kinds[made].routers > 0 and "firewall" or "none", routers = nat.kinds[made].routers }
    end
  end
  table.sort(list, function(a, b) return a.name < b.name end)
  return list
end

-- Checks that each NAT behaves as it is called. Returns what was found, a table for each client (see probe.read), that
-- of its IPv6 in the field ipv6, or nil, a message that says what differs, "invalid". options: silence_ms (also finds
-- out whether a mapping outlives that much silence: outlives_silence "true" or "false").
function Net:probe(options)
  local ok, why, closed = self:check()
  if not ok then return nil, why, closed end
  local lossy = self.options.loss and self.options.loss ~= 0
  local observed = { { self.server.addr, plan_of.witness }, { self.server.addr6, plan_of.witness6 } }
  local observers, found, wrong = {}, {}, {}
  for i = 1, self.plan.ipv6 and 2 or 1 do
    observers[i] = self.server:agent("observer", table.unpack(observed[i]))
    local ready, message, code = observers[i]:expect "^ready"
    if not ready then return nil, "lab: the observer did not start: " .. message, code end
  end
  local probes = to_probe(self)
  for _, one in ipairs(probes) do
    local at = observed[one.at]
    one.process = self[one.client]:agent("prober", one.addr, at[1], at[2], self:rtt_ms(one.client), lossy and 8 or 2,
      options and options.silence_ms)
  end
  for _, one in ipairs(probes) do
    local p = one.process
    local done = p:wait(30000 + (options and options.silence_ms or 0))
    if done ~= 0 or not p:stdout():find "done\n$" then
      wrong[#wrong + 1] = ("%s: the probe failed: %s"):format(one.name, p:stderr():match "[^\n]+" or "no answer")
    else
      local got = probe.read(p:lines())
      local want = { public = one.public, hairpin = self.options.hairpin, routers = one.routers }
      for _, text in ipairs(probe.differences(got, one.kind, want)) do
        wrong[#wrong + 1] = ("%s is not %s: %s"):format(one.name, one.kind, text)
      end
      found[one.client] = found[one.client] or {}
      if one.at == 1 then
        got.ipv6 = found[one.client].ipv6
        found[one.client] = got
      else
        found[one.client].ipv6 = got
      end
    end
  end
  for _, observer in ipairs(observers) do
    observer:kill "KILL"
    observer:wait(2000)
  end
  if #wrong == 0 then return found end
  return nil, "lab: " .. table.concat(wrong, "; "), "invalid"
end

-- A client's router forgets its mappings, as when it was started anew, and makes others: what the client sends by UDP
-- leaves from `port` from now on, and only there something comes in. For kinds that masquerade, with one client behind.
-- true, or nil, message, "refused".
function Net:rebind(client, port)
  -- In a zone of its own no entry is known yet.
  local ok, message = shell.run(("nsenter --net=/run/netns/%snat-%s nft -f - <<'NFT'\n%sNFT"):format(self.plan.prefix,
    client, ([[
table ip rebind {
  chain forget { type filter hook prerouting priority raw; meta l4proto udp ct zone set 1; }
  chain outward { type nat hook postrouting priority srcnat - 1; oifname wan0 meta l4proto udp masquerade to :%d; }
}
]]):format(port)))
  if not ok then return nil, "lab: cannot rebind: " .. message, "refused" end
  return true
end

-- The longest way there and back between a client and the server, as configured.
function Net:rtt_ms(client)
  local us, from, to = 0, self.plan.ends[client] or self.plan.ends.a, self.plan.ends.server
  for _, rule in ipairs(self.plan.rules) do
    if rule.from == from[1] and rule.to == to[1] or rule.from == to[1] and rule.to == from[1] then
      us = us + rule.delay_us + rule.jitter_us + (rule.reorder > 0 and rule.reorder_us or 0)
    end
  end
  return us // 1000 + 1
end

-- Takes it all down, processes first. Idempotent; also __close and __gc.
function Net:down()
  if self.is_down then return end
  self.is_down = true
  -- The end of its input tells the keeper; this waits until it is done. A closing Lua state may have done so already.
  if io.type(self.keeper) == "file" then self.keeper:close() end
  if shell.read(self.dir .. "/owner") then shell.run(teardown(boxes(self.plan), self.dir)) end -- somebody killed it
end

Net.__close = Net.down
Net.__gc = Net.down

return M
