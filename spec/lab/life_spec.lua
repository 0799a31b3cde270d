-- SPDX-License-Identifier: MIT
-- In the middle of a session, with datagrams both ways, on kernel NATs: whatever happens, they flow again at most two
-- seconds after a path exists, none is delivered twice, and the match is not closed. All of it at the same time, in one
-- lab. `make soak` draws the NATs, too, cuts lines for 30 s, and lets one sleep for 60 s. The same in the simulator:
-- spec/model/life.lua.

local core = require "bodkin.core"
local lab = require "bodkin.lab"
local random = require "bodkin.sim.random"
local shell = require "bodkin.lab.shell"
local support = require "spec.lab.support"

local SOAK = tonumber(os.getenv "SOAK")
local LINK_MS = 48 -- a round trip of 192 ms to the peer, to the server, and by a relay, which is next to the core
local BEFORE_MS, AFTER_MS, LIMIT_MS = 1500, 4000, 2000
-- Of NATs, that `make soak` draws from: any; those of which lab.rebind may say the ports; those that need a relay.
local ALL = { "none", "firewall", "full_cone", "address_restricted", "port_restricted", "plain_linux",
  "symmetric_random", "address_dependent", "carrier" }
local NATS = table.move(ALL, 3, #ALL, 1, {})
local MASQUERADES = { "port_restricted", "plain_linux", "carrier" }
local SYMMETRIC = { "symmetric_random", "symmetric_sequential", "address_dependent" }

local AWAY_MS = 500
local function reboot(ports)
  return function(t)
    assert(t.net:reboot(t.a, ports, AWAY_MS))
    t.since = t.since + AWAY_MS * 1000
  end
end

-- Name, kinds of NAT, fn(trial, wait), which returns when a path exists again: that is at t.since, when it began unless
-- it says otherwise (t.mark()); wait(ms) lets the other trials go on. `before`: what is done before they talk. `third`:
-- another network, of that kind. `relay`: the path is one until then. `own`: servers of its own, which it may kill.
-- `of`: the kinds that may be drawn for each side.
local trials = {
  { "a NAT is started anew", "port_restricted", "port_restricted", reboot "41000-41099", of = { MASQUERADES, ALL } },
  { "a NAT is started anew, and no way but a relay", "symmetric_random", "symmetric_random", reboot(nil), relay = true,
    of = { { "symmetric_random" }, SYMMETRIC } },
  { "both NATs map anew", "port_restricted", "carrier", function(t)
    assert(t.net:rebind(t.a, "42000-42099"))
    assert(t.net:rebind(t.b, "42000-42099"))
  end, of = { MASQUERADES, MASQUERADES } },
  { "a NAT maps anew", "port_restricted", "full_cone", function(t) assert(t.net:rebind(t.a, "43000-43099")) end,
    of = { MASQUERADES, ALL } },
  { "a host gets another address", "port_restricted", "port_restricted",
    function(t) assert(t.net:readdress(t.a, 77)) end, of = { NATS, ALL } },
  { "a host goes from Wi-Fi to mobile", "port_restricted", "address_restricted", function(t)
    assert(t.net:attach(t.a, t.other))
    assert(t.net:switch(t.a, true))
  end, third = "carrier", of = { NATS, ALL } },
  { "a host's default route goes to an interface that was there", "port_restricted", "port_restricted",
    function(t) assert(t.net:switch(t.a)) end, third = "port_restricted",
    before = function(t) assert(t.net:attach(t.a, t.other)) end, of = { NATS, ALL } },
  { "the relay is killed, another is there", "symmetric_random", "symmetric_random", function(t)
    local ip = t.sides[1].remote:match "^(.*):"
    assert(t.servers[ip], "no relay at " .. ip):kill "KILL"
  end, relay = true, own = true, of = { SYMMETRIC, SYMMETRIC } },
  { "the server is killed", "port_restricted", "port_restricted", function(t)
    t.servers[t.net.server.addr]:kill "KILL"
  end, own = true, of = { ALL, ALL } },
}
if SOAK then
  trials[#trials + 1] = { "for 30 s nothing got through", "port_restricted", "port_restricted", function(t, wait)
    assert(t.net:cut(t.a))
    wait(30000)
    t.mark()
    assert(t.net:mend(t.a))
  end, of = { ALL, ALL } }
  trials[#trials + 1] = { "one slept for 60 s", "port_restricted", "port_restricted", function(t, wait)
    t.sides[1].process:kill "STOP"
    wait(60000)
    t.mark()
    t.sides[1].process:kill "CONT"
  end, of = { ALL, ALL } }
end

-- Servers on all three hosts, at this port: the first one matches, the others relay. The URL, and the processes by IP.
local function serve(net, port)
  local servers, url = {}, nil
  for i, host in ipairs { net.server, net.server2, net.server3 } do
    local config = ("%s/config-%d-%d.lua"):format(net.dir, port, i)
    shell.write(config, ("return require('bodkin').config { key_file = %q, relays = %s }"):format(net.dir .. "/key",
      i == 1 and ("{ '%s:%d', '%s:%d' }"):format(net.server2.addr, port, net.server3.addr, port) or "nil"))
    local p = host:start { support.binary, "serve", "--json", "--listen", ("%s:%d"):format(host.addr, port),
      "--roles", i == 1 and "address,matching,maintenance" or "relay", "--config", config,
      "--admin", ("%s/admin-%d-%d"):format(net.dir, port, i) }
    servers[host.addr] = p
    local line = assert(p:expect('"listening"', 5000))
    url = url or line:match '"url":"([^"]+)"'
  end
  return url, servers
end

-- What a side has said, since the last time.
local function listen(side)
  local lines = side.process:lines()
  for i = side.seen + 1, #lines do
    local what, x, y, z = lines[i]:match "^(%S+)\t(%S*)\t?(%S*)\t?(%S*)"
    if what == "got" then
      local n = math.tointeger(x)
      side.count[n] = (side.count[n] or 0) + 1
      table.insert(side.got, { sent = tonumber(y), came = tonumber(z) })
    elseif what == "connected" or what == "path" then
      side.via, side.remote = x, y
    elseif what == "closed" then
      side.ended = lines[i] -- an error may be the server's end
    end
  end
  side.seen = #lines
  return side
end

local function start(t, url)
  t.sides = {}
  for i, role in ipairs { "a", "b" } do
    local process = t.net[t[role]]:start { support.binary, "run", "spec/lab/life.lua", role, url, t.app }
    t.sides[i] = { process = process, name = role, seen = 0, got = {}, count = {} }
  end
end

-- What is wrong before anything happens, or nil.
local function unready(t)
  for _, side in ipairs(t.sides) do
    listen(side)
    if side.ended or not side.got[20] then
      return ("%s: %s heard %d: %s%s"):format(t[1], side.name, #side.got, side.ended or "", side.process:stderr())
    end
    local relayed = side.via == "relay"
    if t.relay and not relayed then return ("%s: %s has path %s"):format(t[1], side.name, side.via) end
  end
end

-- The longest silence at a side, and when the first one came that was sent since; ms.
local function silence(side, since, ends)
  local last, gap, fresh = since, 0, nil
  for _, g in ipairs(side.got) do
    if g.came > since then
      if not fresh and g.sent >= since then fresh = g.came end
      gap, last = math.max(gap, g.came - last), g.came
    end
  end
  return math.max(gap, ends - last) / 1000, ((fresh or ends) - since) / 1000
end

local function result(t)
  local wrong, text = {}, {}
  for i, side in ipairs(t.sides) do
    listen(side)
    local gap, fresh = silence(side, t.since, t.since + AFTER_MS * 1000)
    text[i] = ("%.0f (first %.0f)"):format(gap, fresh)
    if math.max(gap, fresh) > LIMIT_MS then wrong[#wrong + 1] = side.name .. " heard nothing for too long" end
    for n, times in pairs(side.count) do
      if times > 1 then wrong[#wrong + 1] = ("%s got %d %d times"):format(side.name, n, times) end
    end
    if side.ended then wrong[#wrong + 1] = side.name .. " " .. side.ended end
    if side.process:code() then wrong[#wrong + 1] = side.name .. " ended: " .. side.process:stderr() end
  end
  print(("# %s (%s, %s; %s): longest silence since, a %s, b %s ms"):format(t[1], t.kinds[1], t.kinds[2],
    t.sides[1].via, text[1], text[2]))
  return wrong[1] and table.concat(wrong, ", ") or nil
end

-- Lets each trial do its own at its own time, and returns when all have been heard for AFTER_MS since.
local function let_happen()
  local running = {}
  for i, t in ipairs(trials) do
    running[i] = coroutine.wrap(function()
      function t.mark() t.since = core.now() end
      t.mark()
      t[4](t, function(ms)
        local until_us = core.now() + ms * 1000
        while core.now() < until_us do coroutine.yield() end
      end)
      return true
    end)
  end
  local left
  repeat
    left = false
    for i, t in ipairs(trials) do
      if running[i] and running[i]() then running[i] = nil end
      left = left or running[i] ~= nil or core.now() < t.since + AFTER_MS * 1000
    end
    shell.sleep_ms(20)
  until not left
end

describe("a session", function()
  local net

  setup(function()
    local letter, options = 96, { servers = 3, delay_ms = { server = LINK_MS, server2 = 0, server3 = 0 } }
    local rng = random.new(SOAK or 1, "life")
    local function kind(given, of) return SOAK and of[1 + rng:integer() % #of] or given end
    local function host(behind)
      letter = letter + 1
      local name = string.char(letter)
      options[name], options.delay_ms[name] = behind, LINK_MS
      return name
    end
    for i, t in ipairs(trials) do
      t.app = "life/" .. i
      t.kinds = { kind(t[2], t.of[1]), kind(t[3], t.of[2]) }
      t.a, t.b, t.other = host(t.kinds[1]), host(t.kinds[2]), t.third and host(kind(t.third, NATS))
    end
    net = assert(lab.up(options))
    assert(require("bodkin.keyfile").make(net.dir .. "/key"))
    local url = serve(net, 4433)
    for i, t in ipairs(trials) do
      t.net = net
      if t.before then t.before(t) end
      local own
      if t.own then own, t.servers = serve(net, 4433 + i) end
      start(t, own or url)
    end
    local wrong
    shell.await(15000, function()
      wrong = nil
      for _, t in ipairs(trials) do wrong = wrong or unready(t) end
      return not wrong
    end)
    assert(not wrong, wrong)
    shell.sleep_ms(BEFORE_MS)
    for _, t in ipairs(trials) do unready(t) end
    let_happen()
  end)
  teardown(function() if net then net:down() end end)

  for _, t in ipairs(trials) do
    it("goes on when " .. t[1], function()
      local wrong = result(t)
      assert(not wrong, wrong)
    end)
  end
end)
