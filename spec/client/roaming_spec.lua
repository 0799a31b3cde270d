-- SPDX-License-Identifier: MIT
-- A client whose host goes elsewhere, or whose NAT maps anew. What befalls a session with traffic, by seeds, is in
-- spec/model/life_spec.lua.

local core = require "bodkin.core"
local message = require "bodkin.message"
local support = require "spec.client.support"

describe("roaming", function()
  local s
  after_each(function() s:close() end)

  local function natted(n, kind)
    local nat = s:nat("nat" .. n, ("203.0.113.%d"):format(n), { kind = kind })
    return s:host("h" .. n, "192.168.1.2", nat), nat
  end

  -- A pair, and how long it takes until what each says is heard by the other: see `meet`.
  local function pair(kind, options)
    local hosts, nats, nodes = {}, {}, {}
    for i = 1, 2 do
      hosts[i], nats[i] = natted(i, kind)
      nodes[i] = s:open(hosts[i], options)
    end
    local ma, mb = s:pair(nodes[1], nodes[2])
    s.world:run(3000)
    return { hosts = hosts, nats = nats, nodes = nodes, matches = { ma, mb } }
  end

  local function elsewhere(n, kind)
    return s:nat("other" .. n, "203.0.113.10" .. n, { kind = kind })
  end

  -- Whether what both say now arrives, sent once.
  local function heard(p)
    local got = {}
    for i = 1, 2 do p.nodes[i]:on("message", function(e) got[i] = e.data end) end
    for i = 1, 2 do p.matches[i]:send("from " .. i) end
    s.world:run(500)
    return got[1] == "from 2" and got[2] == "from 1"
  end

  it("is noticed by the interfaces, and a session that says nothing goes on from there", function()
    s = support.new { roles = support.NO_RELAY }
    local p = pair "port_restricted"
    assert.is_true(heard(p))
    p.hosts[1]:move("192.168.7.3", elsewhere(1, "port_restricted"))
    s.world:run(2000) -- looked at each second; no datagram is sent meanwhile
    assert.is_true(heard(p))
    local said = support.events(p.nodes[1], "registered")
    assert.same({ "203.0.113.101" }, { said[#said].public[1]:match "^[^:]+" })
    assert.same({ "192.168.7.3" }, { said[#said]["local"][1]:match "^[^:]+" })
    assert.is_nil(p.nodes[1].maintenance.lapsed_us) -- no mapping lapsed: it was ours that moved
    for i = 1, 2 do assert.equal(0, #support.events(p.nodes[i], "closed")) end
  end)

  -- Two interfaces, and both stay: the default route goes to the other one.
  it("is noticed by the address that the kernel sends from, where no interface has changed", function()
    s = support.new { roles = support.NO_RELAY }
    local p = pair "port_restricted"
    local env, moved = p.hosts[1].env, {}
    local real = p.nodes[1].mux.moved
    p.nodes[1].mux.moved = function(mux, left)
      moved[#moved + 1] = left
      return real(mux, left)
    end
    local other, listed = core.addr.parse("192.168.7.3", 0), env.interfaces
    local own = p.hosts[1].node.ips[1]
    function env.interfaces()
      local list = listed()
      list[#list + 1] = { name = "eth1", addr = other, up = true, loopback = false }
      return list
    end
    s.world:run(2000) -- another interface alone takes nothing away
    assert.same({ { other } }, moved)
    env.source = function() return other end
    s.world:run(3000)
    assert.same({ { other }, { own } }, moved)
    env.source = function() end -- there is no route at all
    s.world:run(1500)
    assert.same({ { other }, { own }, {} }, moved)
    assert.is_true(heard(p))
  end)

  it("is followed where both go elsewhere in the same moment", function()
    s = support.new { roles = support.NO_RELAY }
    local p = pair "port_restricted"
    for i = 1, 2 do p.hosts[i]:move("192.168.7." .. 2 + i, elsewhere(i, "port_restricted")) end
    s.world:run(4000)
    assert.is_true(heard(p))
  end)

  -- Whether the server has no public address of a node but at this IP, and the node knows of no other.
  local function known_at(n, ip)
    local entry = s.server.registry:get(n.identity.id)
    local _, _, pubs = require("bodkin.servers.addresses").unpack(entry.addrs)
    for _, a in ipairs(pubs) do
      if not core.addr.same_ip(a, core.addr.parse(ip, 0)) then return false end
    end
    return #pubs > 0 and not n.addresses.stale
  end

  it("again, while it is being registered from elsewhere, is registered right after that", function()
    for ms = 0, 1000, 50 do
      s = support.new { roles = support.NO_RELAY, delay_ms = 100 }
      local p = pair "port_restricted"
      p.hosts[1]:move("192.168.7.3", elsewhere(1, "port_restricted"))
      s.world:run(1000 + ms)
      p.hosts[1]:move("192.168.8.3", elsewhere(2, "port_restricted"))
      assert.is_true(s.world:run_until(function() return known_at(p.nodes[1], "203.0.113.102") end, 1800), ms)
      s.world:run(2000)
      assert.is_nil(p.nodes[1].maintenance.lapsed_us, ms) -- what was asked from where it was tells nothing of here
      if ms < 1000 then s:close() end
    end
  end)

  it("is registered soon, and ever less soon, while the address server is silent", function()
    s = support.new { roles = { "matching", "maintenance" } }
    local far = s:host("address", "198.51.100.20")
    s:serve(far, { "address" })
    local p = pair("port_restricted", { address_server = "bodkin://198.51.100.20" })
    s:kill(far)
    p.hosts[1]:move("192.168.7.3", elsewhere(1, "port_restricted"))
    s.world:run(15000)
    s:serve(far, { "address" })
    assert.is_true(s.world:run_until(function() return known_at(p.nodes[1], "203.0.113.101") end, 12000))
    s:kill(far)
    p.hosts[1]:move("192.168.8.3", elsewhere(2, "port_restricted"))
    s.world:run(60000)
    local before = s.server.counters:get "registered"
    s.world:run(600000)
    local each = s.server.counters:get "registered" - before
    assert.is_true(each <= 20 + 2 * 20, each) -- of the other one, at half the lifetime; and twice each time
  end)

  it("opens the channels of its relays again, with a hello of the new epoch", function()
    s = support.new {}
    local hellos, record = {}, s.world.net.record
    s.world.net.record = function(event, src, dst, bytes)
      record(event, src, dst, bytes)
      local moved = core.addr.same_ip(src, core.addr.parse("192.168.7.3", 0))
      if event == "send" and moved and bytes:byte(2) == message.relay_open.type then
        hellos[#hellos + 1] = select(5, message.relay_open:decode(bytes))
      end
    end
    local p = pair "symmetric_random"
    local old = p.nodes[1].relays:list(next(p.nodes[1].sessions))[1].hello
    p.hosts[1]:move("192.168.7.3", elsewhere(1, "symmetric_random"))
    s.world:run(2000)
    assert.is_true(#hellos > 0)
    for _, hello in ipairs(hellos) do assert.not_equal(old, hello) end
    assert.is_true(heard(p))
    assert.equal("relay", p.matches[1]:peers()[1].path)
  end)

  it("of which no interface tells is found out by silence, and told to the peer", function()
    s = support.new { roles = support.NO_RELAY }
    local p = pair "port_restricted"
    p.nats[1].rebind()
    for _ = 1, 100 do
      for i = 1, 2 do p.matches[i]:send "x" end
      s.world:run(20)
    end
    assert.is_true(heard(p))
    assert.is_true(s.server.counters:get "whereabouts_told" >= 1)
  end)

  it("means nothing where there is no such session", function()
    s = support.new { roles = support.NO_RELAY }
    local p = pair "full_cone"
    local before = #p.nodes[1]:paths(next(p.nodes[1].sessions))
    local far, id = { core.addr.parse "203.0.113.77:7777" }, p.nodes[1].identity.id
    p.nodes[1].roaming:told(("x"):rep(16), id, far, {})
    p.nodes[1].roaming:told(p.matches[1].raw, ("y"):rep(16), far, {})
    assert.equal(before, #p.nodes[1]:paths(next(p.nodes[1].sessions)))
    p.nodes[1].roaming:told(p.matches[1].raw, p.nodes[2].identity.id, far, {})
    assert.equal(before + 1, #p.nodes[1]:paths(next(p.nodes[1].sessions)))
    -- Nobody answers there, and nothing comes of it.
    s.world:run(12000)
    assert.is_true(heard(p))
    -- The guest has left, the room is there still: its session is over.
    local raw, guest = p.matches[1].raw, p.nodes[2].identity.id
    s:run(function() p.matches[2]:leave() end)
    s.world:run(1000)
    p.nodes[1].roaming:told(raw, guest, far, {})
    assert.is_nil(next(p.nodes[1].sessions))
  end)

  it("is survived by nobody whose server is gone, too, and then the reason is said", function()
    s = support.new { roles = support.NO_RELAY }
    local p = pair "port_restricted"
    s:kill()
    for i = 1, 2 do p.hosts[i]:move("192.168.7." .. 2 + i, elsewhere(i, "port_restricted")) end
    s.world:run(100000)
    for i = 1, 2 do assert.equal("consent_lost", support.events(p.nodes[i], "closed")[1].reason) end
  end)
end)

describe("a path's quality", function()
  it("is told by match:peers: round trip, jitter, loss", function()
    local bad = false
    local s = support.new { roles = support.NO_RELAY, delay_ms = 20, jitter_ms = 10, loss = function(from, to)
      return bad and from ~= "server" and to ~= "server" and 0.3 or 0
    end }
    local a, b = s:open(s:host("a", "203.0.113.1")), s:open(s:host("b", "203.0.113.2"))
    local ma = s:pair(a, b)
    s.world:run(60000)
    local peer = ma:peers()[1]
    assert.is_true(peer.rtt_ms >= 40 and peer.rtt_ms <= 60, peer.rtt_ms)
    assert.is_true(peer.jitter_ms > 1 and peer.jitter_ms < 20, peer.jitter_ms)
    assert.equal(0, peer.loss)
    bad = true
    for _ = 1, 6000 do -- what is said makes the path be tested when nothing comes back
      ma:send "x"
      s.world:run(100)
    end
    local loss = ma:peers()[1].loss -- a question and its answer: 1 - 0.7 * 0.7
    assert.is_true(loss > 0.3 and loss < 0.65, loss)
    s:close()
  end)
end)
