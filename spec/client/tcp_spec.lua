-- SPDX-License-Identifier: MIT
-- Where a network lets no UDP out: control and relay over TCP, in the simulated internet.
local core = require "bodkin.core"
local kind = require "bodkin.kind"
local support = require "spec.client.support"
local task = require "bodkin.task"

describe("a client whose network blocks UDP", function()
  local s
  after_each(function() s:close() end)

  local function behind(n, options)
    return s:host("h" .. n, "192.168.1.2", s:nat("nat" .. n, ("203.0.113.%d"):format(n), options))
  end

  local BLOCKED = { blocks = "udp" }

  -- Bytes both ways.
  local function talk(a, ma, b, mb)
    local got = {}
    a:on("message", function(e) got[#got + 1] = "a " .. e.data end)
    b:on("message", function(e) got[#got + 1] = "b " .. e.data end)
    assert(ma:send "to b")
    assert(mb:send "to a")
    s.world:run(500)
    table.sort(got)
    assert.same({ "a to a", "b to b" }, got)
  end

  local function last(n, name)
    local list = support.events(n, name)
    return list[#list]
  end

  local function blocked_events(n)
    local count = 0
    for _, e in ipairs(support.events(n, "error")) do
      if e.code == "blocked_udp" then count = count + 1 end
    end
    return count
  end

  it("reaches the server over TCP after a second, and says so", function()
    s = support.new { tcp = true, delay_ms = 20 }
    local host, began = behind(1, BLOCKED), s.world:now()
    local a = s:open(host)
    assert.is_true(s.world:now() - began < 1400000, "it took " .. (s.world:now() - began) / 1000 .. " ms")
    assert.is_true(a:stats().registered)
    assert.same({}, last(a, "registered").public)
    assert.equal(1, blocked_events(a))
    assert.matches("TCP 443", last(a, "error").message, 1, true)
    assert.matches("TCP 443", table.concat(host.log, "\n"), 1, true)
    s.world:run(300000)
    local count = s.server.counters:get "registered"
    assert.is_true(count <= 11, count)
    s.world:run(3300000)
    assert.is_true(a:stats().registered)
    assert.equal(1, blocked_events(a))
    assert.equal(1, #support.events(a, "error"))
    assert.equal(0, s.server.counters:get "registration_expired")
  end)

  it("meets another over UDP by the relay, whoever hosts", function()
    for seed = 1, 6 do
      s = support.new { tcp = true, seed = seed, jitter_ms = 10, loss = seed > 3 and 0.05 or 0 }
      local a, b = behind(1, BLOCKED), behind(2)
      if seed % 2 == 0 then a, b = b, a end
      a, b = s:open(a), s:open(b)
      local ma, mb = s:pair(a, b)
      for _, n in ipairs { a, b } do
        local e = last(n, "connected")
        assert.equal("relay", e.path)
      end
      s.world:run(1000)
      if seed <= 3 then talk(a, ma, b, mb) end
      local over = seed % 2 == 0 and b or a
      assert.equal("tcp", over:why()[1].over)
      assert.same({}, over:why()[1].public)
      assert.is_nil((over == a and b or a):why()[1].over)
      -- As long as they like.
      s.world:run(200000)
      assert.equal("relay", ma:peers()[1].path)
      assert.is_true(ma:peers()[1].connected and mb:peers()[1].connected)
      s:close()
    end
    s = support.new {}
  end)

  it("meets another such one", function()
    s = support.new { tcp = true }
    local a, b = s:open(behind(1, BLOCKED)), s:open(behind(2, BLOCKED))
    local ma, mb = s:pair(a, b)
    talk(a, ma, b, mb)
    assert.equal("relay", last(a, "connected").path)
    s.world:run(5000)
    assert.equal(0, s.server.counters:get "udp_rx")
    for _, n in ipairs { a, b } do assert.is_nil(n.last_number) end -- nor was a fresh port of UDP opened
  end)

  it("meets one on the same network directly", function()
    s = support.new { tcp = true }
    local nat = s:nat("nat", "203.0.113.1", BLOCKED)
    local a, b = s:open(s:host("a", "192.168.1.2", nat)), s:open(s:host("b", "192.168.1.3", nat))
    local ma, mb = s:pair(a, b)
    s.world:run(2000)
    assert.equal("lan", last(a, "path").path)
    talk(a, ma, b, mb)
  end)

  it("finds the port that the URL names, and a relay on another machine", function()
    s = support.new { tcp = 8443, roles = support.NO_RELAY, relays = { "198.51.100.20" } }
    s:serve(s:host("relay", "198.51.100.20"), { "relay" })
    local url = "bodkin://198.51.100.10:4433?tcp=8443"
    local a, b = s:open(behind(1, BLOCKED), { server = url }), s:open(behind(2), { server = url })
    local ma, mb = s:pair(a, b)
    talk(a, ma, b, mb)
    assert.equal("198.51.100.20:4433", last(a, "connected").remote)
  end)

  it("lets go of everything when it is closed while it looks by what it is answered", function()
    for ms = 100, 700, 200 do
      s = support.new { tcp = true }
      local a = s:open(behind(1))
      a.carriage.server = function() return core.addr.parse "198.51.100.99:4433" end -- where nobody is
      a.carriage:look(true)
      s.world:run(ms)
      s:run(function() a:close() end)
      s:close() -- which throws at what is left
    end
    s = support.new {}
  end)

  it("lets go of everything when it is cancelled, or closed, on its way", function()
    for ms = 900, 1300, 20 do
      s = support.new { tcp = ms % 40 == 0 }
      local host = behind(1, BLOCKED)
      local opened
      local t = task.spawn(function()
        opened = require("bodkin.client.node").open {
          env = host.env, server = support.url, server_keys = support.keys, app = "spec/1",
        }
      end)
      s.world:run(ms)
      t:cancel()
      if opened then s:run(function() opened:close() end) end
      s.world:run(10000)
      s:close()
    end
    s = support.new {}
  end)

  it("without TCP at the server fails as before, and says what was tried", function()
    s = support.new {}
    local n, err, code = s:try(behind(1, BLOCKED))
    assert.is_nil(n)
    assert.equal("timeout", code)
    assert.matches("UDP 4433 or TCP 443", err, 1, true)
  end)

  it("whose UDP is answered asks nothing over TCP, also where it is slow", function()
    s = support.new { tcp = true, delay_ms = 400 }
    local a, b = s:open(behind(1)), s:open(behind(2))
    s:pair(a, b)
    s.world:run(120000)
    assert.equal(0, s.server.counters:get "tcp_opened")
    assert.equal(0, blocked_events(a))
    -- Where it is looked at whether UDP is answered, TCP is asked beside it; what answers later is not gone over to.
    a.carriage:look(true)
    s.world:run(10000)
    assert.is_true(s.server.counters:get "tcp_opened" > 0)
    assert.is_false(a.carriage.over_tcp)
    assert.equal(0, blocked_events(a))
  end)

  it("connects from where --bind says", function()
    s = support.new { tcp = true }
    local host = s:host("h1", { "192.168.1.2", "192.168.1.3" }, s:nat("nat1", "203.0.113.1", BLOCKED))
    local a = s:open(host, { bind = "192.168.1.3:5000" })
    assert.is_true(a.carriage.over_tcp)
    assert.is_true(core.addr.same_ip(a.carriage.tcp[4]:addr(), core.addr.parse("192.168.1.3", 0)))
  end)

  it("goes back to UDP when that is answered again, in the middle of a match, too", function()
    s = support.new { tcp = true }
    local ha = behind(1, BLOCKED)
    local a, b = s:open(ha), s:open(behind(2))
    local ma, mb = s:pair(a, b)
    s.world:run(1000)
    assert.equal("relay", ma:peers()[1].path)
    ha.node.behind.blocks = nil
    s.world:run(90000)
    assert.equal("203.0.113.1", last(a, "registered").public[1]:match "^[^:]+")
    assert.equal("direct", ma:peers()[1].path)
    talk(a, ma, b, mb)
    assert.equal(0, #support.events(a, "closed"))
  end)

  it("looks no more whether UDP is answered once it begins anew by that", function()
    s = support.new { tcp = true }
    local ha = behind(1, BLOCKED)
    local a = s:open(ha)
    assert.is_true(a.carriage.over_tcp)
    ha.node.behind.blocks = nil
    s:run(function() return a.carriage:begin({ [4] = a.server }, function() return true end) end)
    local from = #s.world:trace()
    s.world:run(130000)
    for _, p in ipairs(s:sent("192.168.1.2", from)) do assert.not_equal("key_request", p.type) end
  end)

  it("goes back at once when UDP was answered late, and no sooner than it is needed", function()
    for late_ms = 1000, 5000, 250 do
      s = support.new { tcp = true }
      local ha = behind(1, BLOCKED)
      s.world.loop:timer(late_ms, function() ha.node.behind.blocks = nil end)
      local a, b = s:open(ha), s:open(behind(2))
      s.world:run(4000) -- until another copy of what is asked is answered
      if late_ms < 4500 then
        assert.is_false(a.carriage.over_tcp, late_ms)
        assert.equal("203.0.113.1", last(a, "registered").public[1]:match "^[^:]+")
      end
      local ma, mb = s:pair(a, b)
      s.world:run(2000)
      if late_ms < 4500 then assert.equal("direct", ma:peers()[1].path, late_ms) end
      talk(a, ma, b, mb)
      s:close()
    end
    s = support.new {}
  end)

  it("goes over to TCP when a network begins to block, and the match lives", function()
    for seed = 1, 4 do
      s = support.new { tcp = true, seed = seed }
      local ha = behind(1)
      local a, b = s:open(ha), s:open(behind(2))
      local ma, mb = s:pair(a, b)
      s.world:run(2000)
      assert.equal("direct", ma:peers()[1].path)
      ha.node.behind.blocks = "udp"
      local heard_us, ended = s.world:now(), false
      b:on("message", function() heard_us = s.world:now() end)
      task.spawn(function()
        while not ended do
          ma:send "x"
          mb:send "y"
          task.sleep(a.env, 50)
        end
      end)
      local cut_us = s.world:now()
      s.world:run_until(function() return heard_us > cut_us + 1000000 end, 30000)
      print(("# silent for %.1f s"):format((heard_us - cut_us) / 1e6))
      assert.is_true(heard_us - cut_us < 10000000)
      s.world:run(60000)
      ended = true
      s.world:run(100)
      assert.equal("relay", ma:peers()[1].path)
      assert.equal(1, blocked_events(a))
      talk(a, ma, b, mb)
      s:close()
    end
    s = support.new {}
  end)

  it("goes over to TCP while it waits in a room", function()
    s = support.new { tcp = true }
    local ha = behind(1)
    local a, b = s:open(ha), s:open(behind(2))
    local ma = s:run(function() return assert(a:host()) end)
    ha.node.behind.blocks = "udp"
    s.world:run(60000)
    assert.equal(1, blocked_events(a))
    assert.same({}, a.addresses:pubs()) -- that of UDP leads nowhere now
    local mb = s:run(function()
      local m = assert(b:join(ma.code))
      assert(m:wait_connected(10000))
      return m
    end)
    assert.same({}, b:why()[1].peer_public)
    s.world:run(1000)
    talk(a, ma, b, mb)
  end)

  it("looks at no NAT and adapts no maintenance over TCP, but as soon as it is back at UDP", function()
    s = support.new {
      tcp = true, delay_ms = 20, ips = support.everywhere.ips, listen = support.everywhere.listen, trace = false,
    }
    local c = s.server.counters
    local ha = behind(1, { blocks = "udp", timeout_ms = 60000 })
    local a = s:open(ha)
    -- What the client and the server know of its NAT, and how its maintenance stands.
    local function known()
      local told = select(6, require("bodkin.servers.addresses").unpack(s.server.registry:get(a.identity.id).addrs))
      return { a.nat.words and a.nat.words.mapping, told and kind.unpack(told).mapping, a.maintenance.long }
    end
    local NOTHING = { nil, nil, false }
    s.world:run(300000)
    assert.same(NOTHING, known())
    assert.is_nil(a.nat.timer or a.nat.task)
    assert.is_true(a.maintenance.task:done())
    assert.equal(15000, a.maintenance.interval)
    assert.is_true(c:get "maintained" >= 300 / 16.5)
    assert.equal(1, c:get "tcp_opened")
    assert.equal(0, c:get "udp_rx")
    ha.node.behind.blocks = nil
    s.world:run(70000)
    assert.same({ "endpoint", "endpoint", false }, known())
    s.world:run(240000)
    assert.same({ "endpoint", "endpoint", true }, known())
    ha.node.behind.blocks = "udp"
    s.world:run(90000)
    assert.is_true(a.carriage.over_tcp)
    assert.same(NOTHING, known())
    local maintained = c:get "maintained"
    s.world:run(300000)
    assert.same(NOTHING, known())
    assert.is_true(c:get "maintained" - maintained >= 300 / 16.5 - 1)
    assert.equal(2, c:get "tcp_opened")
    assert.is_true(a:stats().registered)
  end)

  it("has its look at the NAT, and its measuring of mappings, broken off by TCP", function()
    for _, ms in ipairs { 1500, 3000, 70000, 100000 } do
      s = support.new {
        tcp = true, delay_ms = 20, ips = support.everywhere.ips, listen = support.everywhere.listen, trace = false,
      }
      local ha = behind(1, { timeout_ms = 60000 })
      local a = s:open(ha)
      s.world:run(ms)
      ha.node.behind.blocks = "udp"
      s.world:run_until(function() return a.carriage.over_tcp end, 90000)
      assert.is_nil(a.nat.timer or a.nat.task or a.nat.words)
      assert.is_true(not a.maintenance.task or a.maintenance.task:done())
      s.world:run(200000)
      assert.is_nil(a.nat.words)
      assert.same({ 15000, false }, { a.maintenance.interval, a.maintenance.long })
      s:close()
    end
    s = support.new {}
  end)

  it("follows to a network that blocks, and to one that does not", function()
    s = support.new { tcp = true }
    local ha = behind(1)
    local a, b = s:open(ha), s:open(behind(2))
    local ma, mb = s:pair(a, b)
    s.world:run(3000)
    ha:move("192.168.7.7", s:nat("nat3", "203.0.113.3", BLOCKED))
    s.world:run(8000)
    assert.equal("relay", ma:peers()[1].path)
    talk(a, ma, b, mb)
    ha:move("192.168.8.8", s:nat("nat4", "203.0.113.4"))
    s.world:run(15000)
    talk(a, ma, b, mb)
    assert.equal("direct", ma:peers()[1].path)
  end)

  it("follows from one network that blocks to another at once", function()
    s = support.new { tcp = true }
    local host = behind(1, BLOCKED)
    local a = s:open(host)
    a:match_of(("m"):rep(16)) -- so that the interfaces are looked at each second
    host:move("192.168.7.7", s:nat("nat3", "203.0.113.3", BLOCKED))
    local before = s.server.counters:get "registered"
    assert.is_true(s.world:run_until(function() return s.server.counters:get "registered" > before end, 3000))
  end)

  it("comes back after the server, or the connection, was gone", function()
    s = support.new { tcp = true }
    local ha = behind(1, BLOCKED)
    local a, b = s:open(ha), s:open(behind(2))
    local ma, mb = s:pair(a, b)
    ha.node.behind.rebind()
    s.world:run(20000)
    talk(a, ma, b, mb)
    s:kill()
    s.server = s:serve(s.hub)
    s.world:run(60000)
    assert.is_true(a:stats().registered)
    talk(a, ma, b, mb)
  end)

  it("whose address was seen over TCP has that told to nobody", function()
    s = support.new { tcp = true, expose_addresses = true }
    local a, b = s:open(behind(1, BLOCKED), { name = "a" }), s:open(behind(2), { name = "b" })
    local list = s:run(function() return assert(b:list({}, true)) end)
    for _, e in ipairs(list) do
      if e.name == "a" then assert.same({}, e.pubs) else assert.equal(1, #e.pubs) end
    end
    assert.same({}, s:run(function() return assert(b:lookup(a.id)) end).pubs)
    s:pair(a, b)
    for _, r in ipairs(b:why()) do assert.same({}, r.peer_public) end
  end)

  it("takes no proof of UDP over TCP, nor the other way round", function()
    s = support.new { tcp = true }
    local from = ("x"):rep(4) .. "\1\2"
    assert.is_true(s.server.cookie:valid(s.server.cookie:proof(from), from))
    assert.is_false(s.server.cookie:valid(s.server.tcp_cookie:proof(from), from))
    assert.is_false(s.server.tcp_cookie:valid(s.server.cookie:proof(from), from))
  end)
end)
