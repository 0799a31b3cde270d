-- SPDX-License-Identifier: MIT
-- That a client finds out what its NAT does, in the background, and tells the server and with it its peers.
local kind = require "bodkin.kind"
local nats = require "bodkin.sim.nat"
local support = require "spec.client.support"
local task = require "bodkin.task"
local theory = require "bodkin.sim.theory"

local LONG = { EI = "endpoint", AD = "address", APD = "address_port" }

describe("a client's look at its NAT", function()
  local s
  after_each(function() s:close() end)

  local function everywhere(more)
    local o = { delay_ms = 20, ips = support.everywhere.ips, listen = support.everywhere.listen }
    for k, v in pairs(more or {}) do o[k] = v end
    s = support.new(o)
  end

  local function behind(n, name)
    local public = "203.0.113." .. n
    if name == "none" then return s:host("h" .. n, public) end
    if name == "firewall" then
      return s:host("h" .. n, public, s.world:nat { name = "nat" .. n, kind = name })
    end
    return s:host("h" .. n, "192.168.1.2", s:nat("nat" .. n, public, { kind = name }))
  end

  -- What the server has of a client.
  local function told(node)
    local entry = s.server.registry:get(node.identity.id)
    local nat = select(6, require("bodkin.servers.addresses").unpack(entry.addrs))
    return kind.unpack(nat)
  end

  for name, b in pairs(nats.kinds) do
    it("tells the server of " .. name, function()
      everywhere()
      local n = s:open(behind(1, name))
      assert.is_nil(told(n))
      s.world:run(8000)
      local is, words = theory.behaviour(name), told(n)
      assert.same(n.nat.words, words)
      assert.same({ LONG[is.mapping], LONG[is.filtering], b.mapping ~= nil },
        { words.mapping, words.filtering, words.nat })
      assert.equal(2, s.server.counters:get "registered") -- at once, and not with the next refresh
    end)
  end

  it("leaves open what a server of one address cannot tell, and says the rest with the next refresh", function()
    s = support.new { delay_ms = 20 }
    local n = s:open(behind(1, "port_restricted"))
    s.world:run(20000)
    assert.same({ mapping = "unknown", filtering = "unknown", ports = "preserving", nat = true }, n.nat.words)
    assert.is_nil(told(n))
    assert.equal(1, s.server.counters:get "registered")
    s.world:run(20000)
    assert.same(n.nat.words, told(n))
    -- A handful of datagrams, once.
    assert.is_true(s.server.counters:get "address_reported" <= 7)
  end)

  it("begins half a second after the registration at the earliest, and two at the latest", function()
    everywhere()
    local n = s:open(behind(1, "port_restricted"))
    local probed = s.server.counters:get "address_reported"
    s.world:run(450)
    assert.equal(probed, s.server.counters:get "address_reported")
    s.world:run(1700)
    assert.is_true(s.server.counters:get "address_reported" > probed)
    assert.truthy(n.nat)
  end)

  it("is not done where it is not wanted, nor by who is not registered", function()
    everywhere()
    local n = s:open(behind(1, "port_restricted"), { behaviour = false })
    s:open(behind(2, "port_restricted"), { register = false })
    local before = s.server.counters:get "address_reported"
    s.world:run(20000)
    assert.equal(before, s.server.counters:get "address_reported")
    assert.is_nil(told(n))
  end)

  it("waits while a peer is looked for, and stops for one", function()
    everywhere { roles = support.NO_RELAY }
    local a, b = s:open(behind(1, "port_restricted")), s:open(behind(2, "symmetric_random"))
    local room = s:run(function() return assert(a:host()) end)
    s.world:run_until(function() return a.nat.task ~= nil end, 3000)
    s.world:run(50)
    assert.is_false(a.nat.task:done())
    s:run(function() return assert(b:join(room.code)) end)
    s.world:run(500)
    assert.is_true(a.nat.task:done())
    local before = s.server.counters:get "probed"
    s.world:run(8000)
    assert.equal(before, s.server.counters:get "probed")
    assert.is_nil(a.nat.words)
    s.world:run(12000) -- there is no path
    assert.equal("endpoint", a.nat.words.mapping)
    assert.equal("address_port", b.nat.words.mapping)
  end)

  it("is done again elsewhere, and what was known is not told any more", function()
    everywhere()
    local n = s:open(behind(1, "port_restricted"))
    s.world:run(8000)
    assert.equal("endpoint", told(n).mapping)
    local registered = s.server.counters:get "registered"
    local elsewhere = false
    n.addresses.public_texts = function() return { elsewhere and "203.0.113.77:1" or "203.0.113.1:49152" } end
    n:registered()
    assert.truthy(n.nat.words)
    elsewhere = true
    n:registered()
    assert.is_nil(n.nat.words)
    assert.equal(0, n.nat.kind)
    s.world:run(8000)
    assert.equal("endpoint", told(n).mapping)
    assert.is_true(s.server.counters:get "registered" > registered)
  end)

  it("does not say what a port that was given lets in: it may be forwarded", function()
    everywhere()
    local n = s:open(behind(1, "port_restricted"), { bind = "192.168.1.2:5000" })
    s.world:run(8000)
    assert.same({ "endpoint", "unknown" }, { n.nat.words.mapping, n.nat.words.filtering })
  end)

  it("asks the address server, where that is another", function()
    s = support.new { delay_ms = 20, roles = { "matching" }, ips = support.everywhere.ips }
    local host = s.world:host { name = "address", ip = { "198.51.100.20", "198.51.100.21" } }
    local server = assert(require("bodkin.servers").open(host.env, {
      listen = { "198.51.100.20:4433", "198.51.100.20:4434", "198.51.100.21:4433" }, roles = { "address" },
      keys = { support.key },
    }))
    local n = s:open(behind(1, "address_restricted"), { address_server = "bodkin://198.51.100.20" })
    s.world:run(8000)
    assert.same({ "endpoint", "address" }, { told(n).mapping, told(n).filtering })
    s:run(function() n:close() end)
    server:close()
  end)

  it("leaves nothing open when the node closes meanwhile", function()
    everywhere()
    local n = s:open(behind(1, "port_restricted"))
    s.world:run_until(function() return n.nat.task ~= nil end, 3000)
    s:run(function() n:close() end)
    assert.is_true(n.nat.task == nil or n.nat.task:done())
  end)

  it("reaches the peer, and why, with the match", function()
    everywhere { roles = support.NO_RELAY }
    local a, b = s:open(behind(1, "port_restricted")), s:open(behind(2, "symmetric_random"))
    s.world:run(8000)
    local room = s:run(function() return assert(a:host()) end)
    s:run(function()
      local m = assert(b:join(room.code))
      task.sleep(b.env, 1000)
      assert.is_false(m:peers()[1].connected)
    end)
    local ra, rb = a:why()[1], b:why()[1]
    assert.same({ "endpoint", "address_port" }, { ra.behaviour.mapping, ra.peer_behaviour.mapping })
    assert.same({ "address_port", "endpoint" }, { rb.behaviour.mapping, rb.peer_behaviour.mapping })
    -- The server tells of both before either end has told of the match.
    for _, e in ipairs(s.server:why(room.id).matches[1].ends) do
      local mine = e.self == a.id and ra or rb
      assert.equal("unknown", e.state)
      assert.same(mine.behaviour, e.behaviour)
      assert.same(mine.peer_behaviour, e.peer_behaviour)
    end
  end)
end)
