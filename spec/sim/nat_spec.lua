-- SPDX-License-Identifier: MIT
local core = require "bodkin.core"
local nats = require "bodkin.sim.nat"
local worlds = require "bodkin.sim.world"

local addr = core.addr

local function at(text)
  return assert(addr.parse(text, 0))
end

describe("sim NAT", function()
  describe("port restricted", function()
    local a, b = at "10.0.0.2:5000", at "10.0.0.3:5000"
    local x, x2, y = at "192.0.2.1:1", at "192.0.2.1:2", at "192.0.2.2:1"
    local nat

    before_each(function() nat = nats.new { kind = "port_restricted", ip = at "203.0.113.1", timeout_ms = 60000 } end)

    it("maps independently of the endpoint, and preserves the port where it is free", function()
      local first = nat:outbound(0, a, x)
      assert.equal(at "203.0.113.1:5000", first)
      assert.equal(first, (nat:outbound(0, a, y)))
      assert.equal(at "203.0.113.1:5001", (nat:outbound(0, b, x)))
      assert.equal(at "203.0.113.1:1024", (nat:outbound(0, at "10.0.0.2:53", x)))
      assert.equal(at "203.0.113.1:65535", (nat:outbound(0, at "10.0.0.2:65535", x)))
      assert.equal(at "203.0.113.1:1025", (nat:outbound(0, at "10.0.0.3:65535", x)))
    end)

    it("filters by address and port", function()
      local outer = nat:outbound(0, a, x)
      assert.same({ x, a }, { nat:inbound(1, x, outer) })
      assert.same({ nil, "filtered" }, { nat:inbound(1, x2, outer) })
      assert.same({ nil, "filtered" }, { nat:inbound(1, y, outer) })
      nat:outbound(2, a, y)
      assert.same({ y, a }, { nat:inbound(3, y, outer) })
    end)

    it("knows no mapping that nobody asked for", function()
      assert.same({ nil, "unmapped" }, { nat:inbound(0, x, at "203.0.113.1:5000") })
    end)

    it("forgets a mapping that was not used outward in its time", function()
      local outer = nat:outbound(0, a, x)
      assert.equal(x, (nat:inbound(59999999, x, outer)))
      assert.same({ nil, "unmapped" }, { nat:inbound(60000000, x, outer) }) -- what came in did not refresh it
      assert.equal(outer, (nat:outbound(60000000, b, x))) -- so another may have its port
      assert.equal(at "203.0.113.1:5001", (nat:outbound(60000000, a, x)))
    end)

    it("keeps a mapping that is refreshed, but not what it let in before", function()
      local outer = nat:outbound(0, a, x)
      nat:outbound(50000000, a, y)
      assert.equal(y, (nat:inbound(100000000, y, outer)))
      assert.same({ nil, "filtered" }, { nat:inbound(100000000, x, outer) })
    end)

    it("does no hairpinning", function()
      local outer = nat:outbound(0, a, x)
      assert.same({ nil, "hairpin" }, { nat:outbound(0, b, outer) })
    end)
  end)

  it("of kind none changes nothing", function()
    local nat = nats.new { kind = "none" }
    local a, x = at "198.51.100.2:5000", at "192.0.2.1:1"
    assert.same({ a, x }, { nat:outbound(0, a, x) })
    assert.same({ x, a }, { nat:inbound(0, x, a) })
  end)

  it("of no known kind is refused", function()
    assert.error_matches(function() nats.new { kind = "conical" } end, "conical")
  end)

  describe("in a world", function()
    local world

    before_each(function() world = worlds.new { delay_ms = 10 } end)
    after_each(function() world:close() end)

    local function host(name, ip, behind)
      local h = world:host { name = name, ip = ip, behind = behind }
      h.got = {}
      h.sock = assert(h.env.udp(at(ip .. ":5000")))
      h.sock:on_packet(function(from, bytes)
        table.insert(h.got, { addr.format(from), bytes })
        if bytes == "ping" then h.sock:send(from, "pong") end
      end)
      return h
    end

    local function finish(...)
      for _, h in ipairs { ... } do h.sock:close() end
    end

    it("rewrites the source outward and the destination inward", function()
      local nat = world:nat { name = "nat", ip = "203.0.113.1", kind = "port_restricted" }
      local a, s = host("a", "192.168.1.2", nat), host("s", "198.51.100.1")
      a.sock:send(at "198.51.100.1:5000", "ping")
      s.sock:send(at "203.0.113.1:5001", "stray")
      world:run(100)
      assert.same({ { "203.0.113.1:5000", "ping" } }, s.got)
      assert.same({ { "198.51.100.1:5000", "pong" } }, a.got)
      assert.matches("drop:unmapped 198.51.100.1:5000 > 203.0.113.1:5001", table.concat(world:trace(), "\n"), 1, true)
      finish(a, s)
    end)

    it("lets two on the inside talk directly", function()
      local nat = world:nat { name = "nat", ip = "203.0.113.1", kind = "port_restricted" }
      local a, b = host("a", "192.168.1.2", nat), host("b", "192.168.1.3", nat)
      a.sock:send(at "192.168.1.3:5000", "ping")
      a.sock:send(at "203.0.113.1:5000", "hairpin")
      world:run(1)
      assert.same({ { "192.168.1.2:5000", "ping" } }, b.got)
      assert.same({ { "192.168.1.3:5000", "pong" } }, a.got)
      finish(a, b)
    end)

    it("works behind another one, and private addresses repeat", function()
      local carrier = world:nat { name = "carrier", ip = "203.0.113.1", kind = "port_restricted" }
      local home1 = world:nat { name = "home1", ip = "100.64.0.1", kind = "port_restricted", behind = carrier }
      local home2 = world:nat { name = "home2", ip = "100.64.0.2", kind = "port_restricted", behind = carrier }
      local a, b = host("a", "192.168.1.2", home1), host("b", "192.168.1.2", home2)
      local s = host("s", "198.51.100.1")
      a.sock:send(at "198.51.100.1:5000", "ping")
      b.sock:send(at "198.51.100.1:5000", "ping")
      world:run(100)
      assert.same({ { "203.0.113.1:5000", "ping" }, { "203.0.113.1:5001", "ping" } }, s.got)
      assert.same({ { "198.51.100.1:5000", "pong" } }, a.got)
      assert.same({ { "198.51.100.1:5000", "pong" } }, b.got)
      finish(a, b, s)
    end)

    it("is punched from both sides", function()
      local nat_a = world:nat { name = "nat-a", ip = "203.0.113.1", kind = "port_restricted" }
      local nat_b = world:nat { name = "nat-b", ip = "203.0.113.2", kind = "port_restricted" }
      local a, b = host("a", "192.168.1.2", nat_a), host("b", "192.168.1.2", nat_b)
      a.sock:send(at "203.0.113.2:5000", "first")
      world:run(15)
      assert.same({}, b.got) -- filtered: b never sent there
      b.sock:send(at "203.0.113.1:5000", "ping")
      world:run(25)
      assert.same({ { "203.0.113.2:5000", "ping" } }, a.got)
      assert.same({ { "203.0.113.1:5000", "pong" } }, b.got)
      finish(a, b)
    end)

    it("of kind none is a router: what is inside is reached at its own address", function()
      local carrier = world:nat { name = "transit", kind = "none" }
      local router = world:nat { name = "router", kind = "none", behind = carrier }
      local a, s = host("a", "198.51.100.9", router), host("s", "198.51.100.1")
      s.sock:send(at "198.51.100.9:5000", "ping")
      world:run(100)
      assert.same({ { "198.51.100.1:5000", "ping" } }, a.got)
      assert.same({ { "198.51.100.9:5000", "pong" } }, s.got)
      finish(a, s)
    end)

    it("counts as a router for the TTL", function()
      local nat = world:nat { name = "nat", ip = "203.0.113.1", kind = "port_restricted" }
      local a, s = host("a", "192.168.1.2", nat), host("s", "198.51.100.1")
      local to = at "198.51.100.1:5000"
      a.sock:send(to, "dies at the NAT", 1)
      a.sock:send(to, "dies before the server", 4)
      a.sock:send(to, "arrives", 5)
      world:run(100)
      assert.same({ { "203.0.113.1:5000", "arrives" } }, s.got)
      finish(a, s)
    end)
  end)

  describe("and IPv6", function()
    local a, x, y = at "[2001:db8:1::2]:5000", at "[2001:db8:2::2]:1", at "[2001:db8:2::2]:2"

    local function box(options)
      options.ip = options.ip or at "203.0.113.1"
      return nats.new(options)
    end

    it("is a firewall beside a NAT of each kind, and translates nothing", function()
      for kind, behaviour in pairs(nats.kinds) do
        if behaviour.mapping then
          local nat = box { kind = kind, timeout_ms = 1000, refresh_inbound = false,
            random = { integer = function() return 7 end } }
          assert.same({ nil, "filtered" }, { nat:inbound(0, x, a) })
          assert.same({ a, x }, { nat:outbound(0, a, x) })
          assert.same({ x, a }, { nat:inbound(999999, x, a) })
          assert.same({ nil, "filtered" }, { nat:inbound(0, y, a) })
          assert.same({ nil, "filtered" }, { nat:inbound(1000000, x, a) })
          nat:outbound(1000000, a, x)
          nat:reboot()
          assert.same({ nil, "filtered" }, { nat:inbound(1000000, x, a) })
          assert.not_equal(at "10.0.0.2:5000", (nat:outbound(0, at "10.0.0.2:5000", at "192.0.2.1:1")))
        end
      end
    end)

    it("is open or closed, where that is said", function()
      for _, kind in ipairs { "none", "firewall", "port_restricted" } do
        local open, closed = box { kind = kind, ipv6 = "none" }, box { kind = kind, ipv6 = "closed" }
        assert.same({ x, a }, { open:inbound(0, x, a) })
        assert.same({ a, x }, { open:outbound(0, a, x) })
        assert.same({ nil, "closed" }, { closed:inbound(0, x, a) })
        assert.same({ nil, "closed" }, { closed:outbound(0, a, x) })
        closed:rebind()
        assert.truthy((closed:outbound(0, at "10.0.0.2:5000", at "192.0.2.1:1")))
      end
      assert.same({ x, a }, { nats.new({ kind = "none" }):inbound(0, x, a) })
      assert.same({ nil, "filtered" }, { nats.new({ kind = "firewall" }):inbound(0, x, a) })
      assert.error_matches(function() box { kind = "full_cone", ipv6 = "nat66" } end, "firewall, none or closed")
    end)
  end)
end)
