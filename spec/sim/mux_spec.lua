-- SPDX-License-Identifier: MIT
-- Two muxes that were told of each other, on the topologies of 2002 (T1 to T4): times are exact here.
local core = require "bodkin.core"
local people = require "spec.people"
local worlds = require "bodkin.sim.world"

local addr = core.addr

describe("muxes in the simulator", function()
  local world, delays

  before_each(function()
    delays = { default = 40 }
    world = worlds.new { delay_ms = delays }
  end)
  after_each(function() world:close() end)

  -- A host with a socket on port 5000 and a mux.
  local function peer(name, ip, behind)
    local p = { name = name, at = addr.parse(ip, 5000), events = {}, messages = {} }
    p.host = world:host { name = name, ip = ip, behind = behind }
    p.env = p.host.env
    p.sock = assert(p.env.udp(addr.parse(ip, 5000)))
    p.mux = p.env.mux {
      seed = p.env.random(32),
      on = function(kind, _, x)
        if kind == "message" then table.insert(p.messages, x) else table.insert(p.events, kind) end
        p[kind] = p[kind] or x
        p.last = x
      end,
    }
    p.mux:attach(p.sock)
    return p
  end

  local function add(p, other, candidates, start_in_ms)
    local list = {}
    for i, c in ipairs(candidates) do list[i] = { addr.parse(c[1], 5000), c[2], p.sock:number() } end
    p.session = assert(p.mux:add(people.keys({
      match = ("m"):rep(16), key = ("k"):rep(32), self = p.name:rep(16), peer = other.name:rep(16),
      start_in_ms = start_in_ms or 0, candidates = list,
    }, p.name, other.name)))
  end

  local function finish(...)
    for _, p in ipairs { ... } do
      p.mux:close()
      p.sock:close()
    end
  end

  local function confirmed(a, b, ms)
    assert(world:run_until(function() return a.path and b.path end, ms or 1000), "no path was confirmed")
  end

  local function talk(a, b)
    assert.is_true(a.mux:send(a.session, "from a"))
    assert.is_true(b.mux:send(b.session, "from b"))
    assert(world:run_until(function() return a.messages[1] and b.messages[1] end, 1000))
    assert.same({ "from b" }, a.messages)
    assert.same({ "from a" }, b.messages)
  end

  it("T1, both behind NATs: data flows after d, confirmed after 2d", function()
    local nat_a = world:nat { name = "A", ip = "203.0.113.1", kind = "port_restricted" }
    local nat_b = world:nat { name = "B", ip = "203.0.113.2", kind = "port_restricted" }
    local a, b = peer("a", "192.168.1.2", nat_a), peer("b", "192.168.1.2", nat_b)
    add(a, b, { { "203.0.113.2", "srflx" }, { "192.168.1.2", "host" } })
    add(b, a, { { "203.0.113.1", "srflx" }, { "192.168.1.2", "host" } })
    confirmed(a, b)
    for _, p in ipairs { a, b } do
      assert.near(40, p.connected.ms, 1)
      assert.near(80, p.path.ms, 1)
      assert.near(80, p.path.rtt_ms, 1)
      assert.equal("direct", p.path.path)
      assert.equal("srflx", p.path.via)
    end
    talk(a, b)
    finish(a, b)
  end)

  it("T1 with uneven delays: not later than the slower one allows", function()
    delays.A, delays.B = { B = 70 }, { A = 10 }
    local nat_a = world:nat { name = "A", ip = "203.0.113.1", kind = "port_restricted" }
    local nat_b = world:nat { name = "B", ip = "203.0.113.2", kind = "port_restricted" }
    local a, b = peer("a", "192.168.1.2", nat_a), peer("b", "192.168.1.3", nat_b)
    add(a, b, { { "203.0.113.2", "srflx" } })
    add(b, a, { { "203.0.113.1", "srflx" } })
    confirmed(a, b)
    assert.near(10, a.connected.ms, 1)
    assert.near(70, b.connected.ms, 1)
    assert.near(80, a.path.ms, 1)
    assert.near(80, b.path.ms, 1)
    finish(a, b)
  end)

  it("T1 when one is told later: the first tests are filtered, the repeats are not", function()
    local nat_a = world:nat { name = "A", ip = "203.0.113.1", kind = "port_restricted" }
    local nat_b = world:nat { name = "B", ip = "203.0.113.2", kind = "port_restricted" }
    local a, b = peer("a", "192.168.1.2", nat_a), peer("b", "192.168.1.3", nat_b)
    add(a, b, { { "203.0.113.2", "srflx" } })
    world:run(200)
    add(b, a, { { "203.0.113.1", "srflx" } })
    confirmed(a, b)
    assert.near(240, a.connected.ms, 1)
    assert.matches("drop:unmapped", table.concat(world:trace(), "\n"))
    talk(a, b)
    finish(a, b)
  end)

  it("T2, one behind a NAT: the other learns the address from its test", function()
    local nat = world:nat { name = "A", ip = "203.0.113.1", kind = "port_restricted" }
    local a, b = peer("a", "192.168.1.2", nat), peer("b", "198.51.100.1")
    add(a, b, { { "198.51.100.1", "srflx" } })
    add(b, a, { { "192.168.1.2", "host" } })
    confirmed(a, b)
    assert.equal("203.0.113.1:5000", addr.format(b.path.remote))
    assert.equal("prflx", b.path.via)
    talk(a, b)
    finish(a, b)
  end)

  it("T3, no NAT", function()
    local a, b = peer("a", "198.51.100.1"), peer("b", "198.51.100.2")
    add(a, b, { { "198.51.100.2", "srflx" } })
    add(b, a, { { "198.51.100.1", "srflx" } })
    confirmed(a, b)
    talk(a, b)
    finish(a, b)
  end)

  it("T4, both behind one NAT: the path is lan, the public one is no way (hairpin)", function()
    local nat = world:nat { name = "A", ip = "203.0.113.1", kind = "port_restricted", delay_ms = 0.5 }
    local a, b = peer("a", "192.168.1.2", nat), peer("b", "192.168.1.3", nat)
    add(a, b, { { "203.0.113.1", "srflx" }, { "192.168.1.3", "host" } })
    add(b, a, { { "203.0.113.1", "srflx" }, { "192.168.1.2", "host" } })
    confirmed(a, b)
    assert.equal("lan", a.path.path)
    assert.equal("192.168.1.3:5000", addr.format(a.path.remote))
    assert.is_true(a.connected.ms < 2)
    talk(a, b)
    finish(a, b)
  end)

  it("a peer that is not there: closed, no_path, after 10 s", function()
    local a = peer("a", "198.51.100.1")
    add(a, { name = "b" }, { { "198.51.100.9", "srflx" } })
    world:run(999)
    assert.same({}, a.events)
    world:run(8001)
    assert.same({ "silent" }, a.events)
    world:run(2000)
    assert.same({ "silent", "closed" }, a.events)
    assert.equal("no_path", a.closed)
    finish(a)
  end)

  it("loss of a third delays, but does not prevent", function()
    for seed = 1, 20 do
      local lossy = worlds.new { seed = seed, delay_ms = 20, loss = 0.33 }
      world:close()
      world = lossy
      local a, b = peer("a", "198.51.100.1"), peer("b", "198.51.100.2")
      add(a, b, { { "198.51.100.2", "srflx" } })
      add(b, a, { { "198.51.100.1", "srflx" } })
      confirmed(a, b, 10000)
      finish(a, b)
    end
  end)

  it("a NAT that forgets the mapping: the peer follows to the new one", function()
    local nat = world:nat { name = "A", ip = "203.0.113.1", kind = "port_restricted" }
    local a, b = peer("a", "192.168.1.2", nat), peer("b", "198.51.100.1")
    add(a, b, { { "198.51.100.1", "srflx" } })
    add(b, a, { { "203.0.113.1", "srflx" } })
    confirmed(a, b)
    nat:rebind()
    assert.is_true(a.mux:send(a.session, "after the rebind"))
    assert(world:run_until(function() return b.last.remote == addr.parse("203.0.113.1:5001", 0) end, 5000))
    assert.same({ "after the rebind" }, b.messages)
    assert.is_true(b.mux:send(b.session, "heard"))
    assert(world:run_until(function() return a.messages[1] end, 1000))
    finish(a, b)
  end)

  it("does the same for the same seed", function()
    local function run(seed)
      local w = worlds.new { seed = seed, delay_ms = 20, jitter_ms = 10, loss = 0.2 }
      world:close()
      world = w
      local a, b = peer("a", "198.51.100.1"), peer("b", "198.51.100.2")
      add(a, b, { { "198.51.100.2", "srflx" } })
      add(b, a, { { "198.51.100.1", "srflx" } })
      world:run(20000)
      finish(a, b)
      return table.concat(world:trace(), "\n")
    end
    local one, two, other = run(1), run(1), run(2)
    assert.is_true(one == two)
    assert.is_true(one ~= other)
  end)
end)
