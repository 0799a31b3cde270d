-- SPDX-License-Identifier: MIT
-- The behaviours of RFC 4787 that sim/nat.lua models, each by itself; and what happens in mid-session.
local core = require "bodkin.core"
local nats = require "bodkin.sim.nat"
local random = require "bodkin.sim.random"
local worlds = require "bodkin.sim.world"

local addr = core.addr

local function at(text)
  return assert(addr.parse(text, 0))
end

local a, a2, b = at "10.0.0.2:5000", at "10.0.0.2:6000", at "10.0.0.3:5000"
local x, x2, y = at "192.0.2.1:1", at "192.0.2.1:2", at "192.0.2.2:1"

local function nat_of(options)
  options.ip = not options.ips and at "203.0.113.1" or nil
  options.random = random.new(options.seed or 1, "nat")
  return nats.new(options)
end

local EI, AD, APD = "endpoint_independent", "address_dependent", "address_and_port_dependent"

describe("sim NAT of RFC 4787", function()
  it("maps one inner address once, once a remote IP, or once a remote address and port", function()
    for mapping, different in pairs { [EI] = { false, false }, [AD] = { false, true }, [APD] = { true, true } } do
      local nat = nat_of { mapping = mapping, filtering = APD }
      local first = nat:outbound(0, a, x)
      assert.equal(different[1], nat:outbound(0, a, x2) ~= first, mapping)
      assert.equal(different[2], nat:outbound(0, a, y) ~= first, mapping)
      assert.equal(first, (nat:outbound(0, a, x)))
    end
  end)

  it("lets in anybody, any port of an IP, or one address only", function()
    for filtering, why in pairs { [EI] = {}, [AD] = { [y] = "filtered" },
      [APD] = { [x2] = "filtered", [y] = "filtered" } } do
      local nat = nat_of { mapping = EI, filtering = filtering }
      local outside = nat:outbound(0, a, x)
      assert.equal(a, select(2, nat:inbound(1, x, outside)))
      for _, remote in ipairs { x2, y } do
        local expected = why[remote] and { nil, why[remote] } or { remote, a }
        assert.same(expected, { nat:inbound(1, remote, outside) })
      end
    end
  end)

  it("filters by mapping: what one destination's mapping lets in, another's does not", function()
    local nat = nat_of { mapping = APD, filtering = AD }
    local to_x = nat:outbound(0, a, x)
    nat:outbound(0, a, y)
    assert.same({ nil, "filtered" }, { nat:inbound(1, y, to_x) })
    assert.equal(x2, (nat:inbound(1, x2, to_x)))
  end)

  it("chooses ports in sequence, at random, or one for all", function()
    local nat = nat_of { mapping = APD, filtering = APD, ports = "sequential" }
    local port = addr.port((nat:outbound(0, a, x)))
    for i, remote in ipairs { x2, y } do assert.equal(port + i, addr.port((nat:outbound(0, a, remote)))) end

    local seen, n = {}, 0
    nat = nat_of { mapping = APD, filtering = APD, ports = "random" }
    for i = 1, 200 do
      local outside = nat:outbound(0, a, addr.with_port(x, i))
      assert.is_nil(seen[outside])
      seen[outside] = true
      if addr.port(outside) > 32768 then n = n + 1 end
    end
    assert(n > 60 and n < 140, n)

    nat = nat_of { mapping = APD, filtering = APD, ports = "overload" }
    for _, remote in ipairs { x, x2, y } do assert.equal(5000, addr.port((nat:outbound(0, a, remote)))) end
    local other = nat:outbound(0, b, x)
    assert.not_equal(5000, addr.port(other)) -- x alone could not tell them apart
    assert.equal(5000, addr.port((nat:outbound(0, b, at "192.0.2.9:1"))))
    assert.equal(a, select(2, nat:inbound(0, x, at "203.0.113.1:5000")))
    assert.equal(b, select(2, nat:inbound(0, at "192.0.2.9:1", at "203.0.113.1:5000")))
    assert.equal(b, select(2, nat:inbound(0, x, other)))
  end)

  it("is refreshed by what comes in only where it is told to be", function()
    for refresh, why in pairs { [true] = false, [false] = "unmapped" } do
      local nat = nat_of { kind = "port_restricted", timeout_ms = 10000, refresh_inbound = refresh }
      local outside = nat:outbound(0, a, x)
      assert.equal(x, (nat:inbound(9000000, x, outside)))
      local from, to = nat:inbound(18000000, x, outside)
      assert.equal(refresh, from == x)
      assert.equal(why or a, to)
    end
  end)

  it("hairpins with the outer source, if it does, by its own filter", function()
    local nat = nat_of { kind = "port_restricted", hairpin = true }
    local outer_a, outer_b = nat:outbound(0, a, x), nat:outbound(0, b, x)
    assert.same({ nil, "filtered" }, { nat:outbound(1, a, outer_b) })
    assert.same({ outer_b, a, true }, { nat:outbound(2, b, outer_a) })
    assert.same({ outer_a, b, true }, { nat:outbound(3, a, outer_b) })
  end)

  it("gives one inner host one of its addresses, or each mapping any", function()
    local ips = { at "203.0.113.1", at "203.0.113.2" }
    for pooling, most in pairs { paired = 1, arbitrary = 2 } do
      local nat = nat_of { mapping = APD, filtering = APD, ips = ips, pooling = pooling }
      local seen, n = {}, 0
      for i = 1, 20 do seen[nat:outbound(0, i % 2 == 0 and a or a2, addr.with_port(x, i)):sub(1, 4)] = true end
      for _ in pairs(seen) do n = n + 1 end
      assert.equal(most, n, pooling)
    end
    local nat = nat_of { kind = "port_restricted", ips = ips }
    assert.not_equal(nat:outbound(0, a, x):sub(1, 4), nat:outbound(0, b, x):sub(1, 4))
  end)

  it("forgets in a reboot, and has other addresses after a rebind", function()
    local nat = nat_of { kind = "port_restricted" }
    local before = nat:outbound(0, a, x)
    nat:reboot()
    assert.same({ nil, "unmapped" }, { nat:inbound(0, x, before) })
    assert.equal(before, (nat:outbound(0, a, x)))
    nat:rebind()
    assert.not_equal(before, (nat:outbound(0, a, x)))
    assert.same({ nil, "unmapped" }, { nat:inbound(0, x, before) })
    for kind in pairs(nats.kinds) do nat_of({ kind = kind }):rebind() end
  end)

  it("a firewall translates nothing and lets in only answers", function()
    local fw = nats.new { kind = "firewall", timeout_ms = 30000 }
    local host = at "198.51.100.7:5000"
    assert.same({ nil, "filtered" }, { fw:inbound(0, x, host) })
    assert.same({ host, x }, { fw:outbound(0, host, x) })
    assert.same({ x, host }, { fw:inbound(29999999, x, host) })
    assert.same({ nil, "filtered" }, { fw:inbound(1, x2, host) })
    assert.same({ nil, "filtered" }, { fw:inbound(30000000, x, host) })
  end)

  describe("of plain Linux", function()
    local nat, mine
    before_each(function()
      nat = nat_of { kind = "plain_linux" }
      mine = nat:outbound(0, a, x) -- to a server: the address that is announced
      assert.equal(5000, addr.port(mine))
    end)

    it("keeps the port for a peer that is sent to first", function()
      assert.equal(mine, (nat:outbound(1, a, y)))
      assert.same({ y, a }, { nat:inbound(2, y, mine) })
    end)

    it("takes another for one that came first, and drops what that sends, as long as it goes on", function()
      assert.same({ nil, "accepted" }, { nat:inbound(1, y, mine) })
      local other = nat:outbound(2, a, y)
      assert.not_equal(mine, other)
      assert.same({ nil, "accepted" }, { nat:inbound(29000000, y, mine) })
      assert.same({ nil, "accepted" }, { nat:inbound(58000000, y, mine) })
      assert.same({ y, a }, { nat:inbound(3, y, other) })
      assert.equal(mine, (nat:outbound(60000000, a, at "192.0.2.3:1"))) -- only towards that one
    end)

    it("forgets a flow unanswered after 30 s, an answered one after its time-out", function()
      assert.equal(a, select(2, nat:inbound(29999999, x, mine)))
      assert.equal(a, select(2, nat:inbound(29999999 + 119000000, x, mine)))
      nat = nat_of { kind = "plain_linux" }
      nat:outbound(0, a, x)
      assert.same({ nil, "accepted" }, { nat:inbound(30000000, x, mine) })
    end)
  end)
end)

describe("in mid-session", function()
  local world
  before_each(function() world = worlds.new { delay_ms = 10 } end)
  after_each(function() world:close() end)

  local function host(name, ip, behind)
    local h = world:host { name = name, ip = ip, behind = behind }
    h.got = {}
    h.sock = assert(h.env.udp(at "0.0.0.0:5000"))
    h.sock:on_packet(function(from, bytes) table.insert(h.got, addr.format(from) .. " " .. bytes) end)
    return h
  end

  it("a host roams: its sockets stay, its packets come from elsewhere", function()
    local nat = world:nat { name = "nat", ip = "203.0.113.1", kind = "full_cone" }
    local h, s = host("h", "192.168.1.2", nat), host("s", "198.51.100.1")
    h.sock:send(at "198.51.100.1:5000", "one")
    world:run(50)
    h:move "192.0.2.7"
    h.sock:send(at "198.51.100.1:5000", "two")
    s.sock:send(at "192.0.2.7:5000", "to the new")
    s.sock:send(at "203.0.113.1:5000", "to the old")
    world:run(50)
    assert.same({ "203.0.113.1:5000 one", "192.0.2.7:5000 two" }, s.got)
    assert.same({ "198.51.100.1:5000 to the new" }, h.got)
    h.sock:close()
    s.sock:close()
  end)

  it("a host sleeps: it hears nothing, its timers wait and fire in order when it wakes", function()
    local h, s = host("h", "192.0.2.7"), host("s", "198.51.100.1")
    local fired = {}
    h.env.timer(20, function() table.insert(fired, "second") end)
    h.env.timer(10, function() table.insert(fired, "first") end)
    local cancelled = h.env.timer(10, function() table.insert(fired, "cancelled") end)
    h:sleep()
    s.sock:send(at "192.0.2.7:5000", "lost")
    world:run(100)
    assert.same({}, fired)
    cancelled:cancel()
    h:wake()
    assert.same({ "first", "second" }, fired)
    s.sock:send(at "192.0.2.7:5000", "heard")
    world:run(100)
    assert.same({ "198.51.100.1:5000 heard" }, h.got)
    assert.matches("drop:asleep", table.concat(world:trace(), "\n"))
    h.sock:close()
    s.sock:close()
  end)

  it("a NAT reboots", function()
    local nat = world:nat { name = "nat", ip = "203.0.113.1", kind = "full_cone" }
    local h, s = host("h", "192.168.1.2", nat), host("s", "198.51.100.1")
    h.sock:send(at "198.51.100.1:5000", "one")
    world:run(50)
    nat:reboot()
    s.sock:send(at "203.0.113.1:5000", "lost")
    world:run(50)
    assert.same({}, h.got)
    h.sock:close()
    s.sock:close()
  end)

  it("hosts of an isolated network reach each other only by the NAT's hairpin", function()
    local nat = world:nat { name = "nat", ip = "203.0.113.1", kind = "full_cone", isolated = true, hairpin = true }
    local h, i, s = host("h", "192.168.1.2", nat), host("i", "192.168.1.3", nat), host("s", "198.51.100.1")
    h.sock:send(at "198.51.100.1:5000", "open")
    i.sock:send(at "192.168.1.2:5000", "inside")
    i.sock:send(at "203.0.113.1:5000", "by way of the NAT")
    world:run(50)
    assert.same({ "203.0.113.1:5001 by way of the NAT" }, h.got)
    for _, each in ipairs { h, i, s } do each.sock:close() end
  end)

  it("packets are doubled and held back as often as they are told to be", function()
    local odd = worlds.new { delay_ms = 10, duplicate = 0.1, reorder = 0.1, reorder_ms = 40 }
    world:close()
    world = odd
    local h, s = host("h", "192.0.2.7"), host("s", "198.51.100.1")
    for n = 1, 2000 do h.sock:send(at "198.51.100.1:5000", tostring(n)) end
    world:run(10)
    assert.near(2000 * 1.1 * 0.9, #s.got, 90)
    world:run(100)
    assert.near(2200, #s.got, 60)
    h.sock:close()
    s.sock:close()
  end)
end)
