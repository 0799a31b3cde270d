-- SPDX-License-Identifier: MIT
-- IPv6: behind firewalls, beside IPv4 and alone; and what a family that is there but dead costs. Homes are
-- 2001:db8:N::/64 and 192.168.1.0/24 behind 203.0.113.N.

local core = require "bodkin.core"
local servers = require "bodkin.servers"
local support = require "spec.client.support"

local HUB = { "198.51.100.30", "2001:db8::30" }
local URL = "bodkin://hub"

describe("IPv6", function()
  local s
  after_each(function() s:close() end)

  -- A world whose server, by the name of hub, is at these addresses; options as of support.new, and roles.
  local function begin(options, at)
    s = support.new(options)
    s:kill()
    local hub, listen = s:host("hub", at or HUB), {}
    for i, a in ipairs(hub.node.ips) do listen[i] = core.addr.format(core.addr.with_port(a, 4433)) end
    s.server = assert(servers.open(hub.env, { listen = listen, keys = { support.key }, roles = s.options.roles,
      expose_addresses = s.options.expose_addresses }))
    s.servers[hub] = s.server
    return hub
  end

  -- Home number n: a NAT for IPv4 that is for IPv6 what `ipv6` says, a firewall unless it says otherwise.
  local function home(n, ipv6)
    return s:nat("home" .. n, "203.0.113." .. n, { ipv6 = ipv6 })
  end

  local function four(n) return "192.168.1." .. n + 1 end
  local function six(n) return ("2001:db8:%d::2"):format(n) end

  local function open(n, ips, box, options)
    local o = { server = URL }
    for k, v in pairs(options or {}) do o[k] = v end
    return s:open(s:host("h" .. n, ips, box or home(n)), o)
  end

  local function last_path(n)
    local list = support.events(n, "path")
    return list[#list]
  end

  -- Both are connected, the last path of both is such a one, and both say something that is heard.
  local function connect(a, b, path, via)
    local ma, mb = s:pair(a, b)
    s.world:run(500)
    for i, n in ipairs { a, b } do
      assert.equal(path, last_path(n).path, "side " .. i)
      assert.equal(via, last_path(n).via, "side " .. i)
    end
    for _, pair in ipairs { { ma, b, "from a" }, { mb, a, "from b" } } do
      assert.is_true(pair[1]:send(pair[3]))
      s.world:run(200)
      local heard = support.events(pair[2], "message")
      assert.equal(pair[3], heard[#heard].data)
    end
    return ma, mb
  end

  -- How long a node took from nothing to its registration; and the node.
  local function cold(...)
    local began_us = s.world:now()
    local node = open(...)
    return (s.world:now() - began_us) / 1000, node
  end

  it("goes straight through the firewalls of both sides", function()
    begin { delay_ms = function(from, to) return (from .. to):find "home2" and (from .. to):find "hub" and 60 or 5 end }
    local a, b = open(1, six(1)), open(2, six(2))
    assert.equal(6, core.addr.family(a.server))
    b.addresses.rtt_ms = function() end -- nobody is told to wait
    connect(a, b, "direct", "ipv6")
    assert.matches("^%[2001:db8:2::2%]:", last_path(a).remote)
    local filtered = false -- the nearer one's first tests met a closed firewall: there is one
    for _, line in ipairs(s.world:trace()) do filtered = filtered or line:find "drop:filtered .*2001:db8" end
    assert.truthy(filtered)
  end)

  it("comes before IPv4 through NATs, where both sides have both", function()
    begin()
    local a, b = open(1, { four(1), six(1) }), open(2, { four(2), six(2) })
    assert.equal(4, core.addr.family(a.server))
    connect(a, b, "direct", "ipv6")
    for _, n in ipairs { a, b } do assert.equal(2, #n.addresses:pubs()) end
  end)

  it("helps two whose NATs would need a relay", function()
    begin()
    local boxes = {}
    for n = 1, 2 do boxes[n] = s:nat("home" .. n, "203.0.113." .. n, { kind = "symmetric_random" }) end
    connect(open(1, { four(1), six(1) }, boxes[1]), open(2, { four(2), six(2) }, boxes[2]), "direct", "ipv6")
  end)

  it("gives way to the local network for two in one home", function()
    begin()
    local box = home(1)
    local a, b = open(1, { four(1), six(1) }, box), open(2, { four(2), "2001:db8:1::3" }, box)
    connect(a, b, "lan", "host")
  end)

  it("reaches a neighbour in the same home by itself, where there is no IPv4", function()
    begin()
    local box = home(1)
    connect(open(1, six(1), box), open(2, "2001:db8:1::3", box), "direct", "ipv6")
  end)

  it("is not missed where only one side has it", function()
    begin()
    connect(open(1, { four(1), six(1) }), open(2, four(2)), "direct", "srflx")
  end)

  it("reaches IPv4 by the relay of a server that has both", function()
    begin()
    connect(open(1, six(1)), open(2, { four(2) }), "relay", "relay")
  end)

  it("that is there but dead leaves IPv4 as it is, and costs a start no more than 50 ms, or what IPv4 took", function()
    for _, delay_ms in ipairs { 5, 40, 100 } do
      begin { delay_ms = delay_ms }
      local alive_ms = cold(3, four(3))
      local took_ms, a = cold(1, { four(1), six(1) }, home(1, "closed"))
      local b = open(2, { four(2), six(2) })
      assert.is_true(took_ms <= alive_ms + math.max(50, 2 * delay_ms) + 1, took_ms .. " after " .. alive_ms)
      assert.equal(1, #a.addresses:pubs())
      connect(a, b, "direct", "srflx")
      for _, n in ipairs { a, b } do
        local first = support.events(n, "connected")[1]
        assert.is_true(first.first_ms <= 2 * delay_ms + 5, first.first_ms)
      end
      if delay_ms < 100 then s:close() end
    end
  end)

  it("is used alone where IPv4 is dead", function()
    begin()
    s.world.names.half = { core.addr.parse("198.51.100.99", 0), core.addr.parse(HUB[2], 0) }
    local took_ms, a = cold(1, { four(1), six(1) }, nil, { server = "bodkin://half" })
    local b = open(2, { four(2), six(2) })
    assert.equal(6, core.addr.family(a.server))
    assert.is_true(took_ms <= 171, took_ms)
    connect(a, b, "direct", "ipv6")
  end)

  it("that answers late is made known when it does", function()
    begin()
    local box, lost = home(1), 0
    local ipv6 = box.model.ipv6
    local outbound = ipv6.outbound
    function ipv6:outbound(...)
      if lost == 2 then return outbound(self, ...) end
      lost = lost + 1
      return nil, "closed"
    end
    local a = open(1, { four(1), six(1) }, box)
    assert.equal(1, #a.addresses:pubs())
    s.world:run(1500)
    assert.equal(2, lost)
    assert.equal(2, #a.addresses:pubs())
    assert.equal(2, #support.events(a, "registered"))
    local b = open(2, { four(2), six(2) })
    local list = s:run(function() return b:list() end)
    assert.equal(2, #list)
    connect(a, b, "direct", "ipv6")
  end)

  it("that is gone once the host is elsewhere is told to nobody any more", function()
    begin { expose_addresses = true }
    local host = s:host("h1", { four(1), six(1) }, home(1))
    local a, b = s:open(host, { server = URL }), open(2, four(2))
    assert.equal(2, #a.addresses:pubs())
    host:move("192.168.7.3", home(3))
    s.world:run(20000)
    assert.same({ "203.0.113.3:49152" }, a.addresses:public_texts())
    assert.same(a.addresses:public_texts(), s:run(function() return assert(b:lookup(a.id)) end).pubs)
  end)

  it("is asked for over the families that the server has, and no other", function()
    for _, at in ipairs { HUB[1], HUB[2] } do
      begin({}, at)
      local took_ms, a = cold(1, { four(1), six(1) })
      local b = open(2, { four(2), six(2) })
      assert.is_true(took_ms <= 161, took_ms)
      assert.equal(1, #a.addresses:pubs())
      if at == HUB[1] then
        connect(a, b, "direct", "srflx")
        s:close()
      else
        connect(a, b, "direct", "ipv6")
      end
    end
  end)

  it("says whose family is missing", function()
    begin({}, HUB[2])
    local n, err, code = s:try(s:host("h1", four(1), home(1)), { server = URL })
    assert.is_nil(n)
    assert.equal("invalid", code)
    assert.equal("no socket of this host can reach [2001:db8::30]:4433: has this host IPv6, and is --bind of its "
      .. "family?", err)
    n, err = s:try(s:host("h2", { four(2), six(2) }, home(2)), { server = URL, bind = "0.0.0.0" })
    assert.is_nil(n)
    assert.matches("is %-%-bind of its family", err)
  end)

  it("says that what --bind names is in use", function()
    begin()
    local bind = ("[%s]:7777"):format(six(1))
    local a = open(1, { four(1), six(1) }, nil, { bind = bind })
    local n, err = s:try(s.world.hosts[#s.world.hosts], { server = URL, bind = bind })
    assert.is_nil(n)
    assert.matches("cannot use " .. bind, err, 1, true)
    assert.is_truthy(a.socks[6])
  end)

  it("is bound alone by --bind", function()
    begin()
    local a = open(1, { four(1), six(1) }, nil, { bind = "[::]:0" })
    local b = open(2, { four(2), six(2) }, nil, { bind = ("[%s]:7777"):format(six(2)) })
    assert.is_nil(a.socks[4])
    connect(a, b, "direct", "ipv6")
    assert.equal(("[%s]:7777"):format(six(2)), last_path(a).remote)
    s:close()
    s = support.new()
    local host = s:host("one", { "203.0.113.50", "2001:db8::50" })
    s.servers[host] = assert(servers.open(host.env, { listen = { "[::1]:4433" }, keys = { support.key } }))
    local c = s:open(host, { server = "bodkin://[::1]", bind = "[::1]:0" })
    local d = s:open(host, { server = "bodkin://[::1]", bind = "[::1]:0" })
    connect(c, d, "lan", "host")
  end)

  it("tells of several addresses the one that is seen, and private ones; never a link's own", function()
    begin()
    -- A temporary address (RFC 8981), which is preferred; the one it hides; one of the site (RFC 4193); the link's.
    local a = open(1, { "2001:db8:1::a1b2", six(1), "fd00:1::2", "fe80::2" })
    local b = open(2, six(2))
    connect(a, b, "direct", "ipv6")
    local port = core.addr.port(a.socks[6]:addr())
    assert.same({ "[2001:db8:1::a1b2]:" .. port }, a.addresses:public_texts())
    assert.same({ "[fd00:1::2]:" .. port }, a.addresses:local_texts())
    assert.equal("[2001:db8:1::a1b2]:" .. port, last_path(b).remote)
    -- A host that has the link's address alone has no IPv6.
    local c = open(3, { four(3), "fe80::3" })
    assert.is_nil(c.socks[6])
  end)

  it("loses nothing when another address comes to be preferred", function()
    begin()
    local host = s:host("h1", { "2001:db8:1::a1b2", six(1) }, home(1))
    local a, b = s:open(host, { server = URL }), open(2, six(2))
    local ma, mb = connect(a, b, "direct", "ipv6")
    host:move({ "2001:db8:1::c3d4", "2001:db8:1::a1b2", six(1) }, host.node.behind)
    for i = 1, 100 do
      assert.is_true(ma:send("m" .. i))
      assert.is_true(mb:send("m" .. i))
      s.world:run(100)
    end
    for _, n in ipairs { a, b } do
      assert.equal("direct", last_path(n).path)
      assert.equal(101, #support.events(n, "message"))
    end
  end)
end)
