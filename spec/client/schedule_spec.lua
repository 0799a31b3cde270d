-- SPDX-License-Identifier: MIT
-- The server's schedule: two at different distances begin at the same time, so that their first tests cross on the way.

local core = require "bodkin.core"
local fresh = require "bodkin.client.fresh"
local support = require "spec.client.support"

local NEAR_MS, FAR_MS, BETWEEN_MS = 5, 60, 50 -- one way: the server and either, and the two

local OUTSIDE = { "203.0.113.1", "192.0.2.1" }

local function delays(far_ms)
  return function(from, to)
    local ends = { [from] = true, [to] = true }
    if not ends.server then return BETWEEN_MS end
    return ends.nat1 and NEAR_MS or far_ms()
  end
end

-- Two behind plain Linux, or what `kind` says, the first one near the server. Without a relay unless that is said.
local function world(options)
  options = options or {}
  options.roles = not options.relay and support.NO_RELAY or nil
  options.delay_ms = delays(options.far_ms or function() return FAR_MS end)
  local s, hosts = support.new(options), {}
  for n = 1, 2 do
    local nat = s:nat("nat" .. n, OUTSIDE[n], { kind = options.kind or "plain_linux" })
    hosts[n] = s:host("h" .. n, ("192.168.%d.2"):format(n), nat)
  end
  return s, hosts[1], hosts[2]
end

-- When each host sent its first test, in µs.
local function first_tests(s)
  local at = {}
  for _, line in ipairs(s.world:trace()) do
    local us, n = line:match "^(%d+) send 192%.168%.(%d)%.2:%d+ > %S+ %d+ test"
    if us then at[tonumber(n)] = at[tonumber(n)] or tonumber(us) end
  end
  return at
end

describe("the server's schedule", function()
  local s, near, far
  after_each(function() s:close() end)

  it("knows the round-trip time of who came just now, and of who is registered", function()
    s, near, far = world()
    local a, b = s:open(near, { register = false }), s:open(far)
    assert.equal(2 * NEAR_MS, a.addresses:rtt_ms(a.server))
    assert.equal(2 * FAR_MS, b.addresses:rtt_ms(b.server))
    local entry = s.server.registry:get(b.identity.id)
    assert.equal(2 * FAR_MS, (select(5, require("bodkin.servers.addresses").unpack(entry.addrs))))
  end)

  it("takes no round trip for one when a packet was lost and repeated", function()
    local lost = 1
    s, near = world { loss = function() return lost end }
    near.env.timer(100, function() lost = 0 end)
    local a = s:open(near)
    assert.equal(2 * NEAR_MS, a.addresses:rtt_ms(a.server)) -- of what came after
    local sent = s.server.counters:get "address_reported"
    assert.equal(1, sent)
  end)

  for _, selector in ipairs { "near", "far" } do
    it("lets both begin at once: the " .. selector .. " one selects", function()
      s, near, far = world()
      local a, b = s:open(near), s:open(far)
      a.addresses.opener_ttl = function() return 0 end -- that would be its first test
      if selector == "near" then a, b = b, a end
      s:pair(a, b)
      local at = first_tests(s)
      assert.is_true(math.abs(at[1] - at[2]) <= 1000, at[1] - at[2])
    end)
  end

  it("has both connected after the longer way from the server and the way between, confirmed after another", function()
    for _, selector in ipairs { "near", "far" } do
      if s then s:close() end
      s, near, far = world { shared_clock = true }
      local a, b = s:open(near), s:open(far)
      if selector == "near" then a, b = b, a end
      s:pair(a, b)
      s.world:run(100)
      for _, node in ipairs { a, b } do
        local connected, path = support.events(node, "connected")[1], support.events(node, "path")[1]
        assert.is_true(connected.commit_ms <= FAR_MS + BETWEEN_MS + 1, connected.commit_ms)
        assert.is_true(path.commit_ms <= FAR_MS + 2 * BETWEEN_MS + 1, path.commit_ms)
        assert.is_true(connected.commit_ms >= connected.first_ms)
      end
    end
  end)

  it("tells when a match was committed only where the clocks are one", function()
    s, near, far = world()
    local a, b = s:open(near), s:open(far)
    s:pair(a, b)
    s.world:run(100)
    assert.is_nil(support.events(a, "connected")[1].commit_ms)
    assert.is_nil(support.events(a, "path")[1].commit_ms)
  end)

  it("makes two meet whose NATs a test that comes too early spoils, also from nothing", function()
    s, near, far = world()
    local a = s:open(near)
    local ma = s:run(function() return assert(a:host()) end)
    local b = s:open(far, { register = false })
    s:run(function() assert(assert(b:join(ma.code)):wait_connected(5000)) end)
    assert.is_true(support.events(b, "connected")[1].first_ms <= BETWEEN_MS + 3)
    -- The control: it is not known how far away the other is, and the skew is as long as the way between them.
    s:close()
    s, near, far = world()
    a, b = s:open(near), s:open(far)
    b.addresses.rtt_ms = function() end
    ma = s:run(function() return assert(a:host()) end)
    s:run(function() assert(b:join(ma.code)) end)
    s.world:run(500)
    assert.is_nil(support.events(b, "connected")[1])
    b.addresses.rtt_ms = nil
    -- A fresh port each, after a silent second, and told anew at the same time.
    s.world:run(1500)
    assert.is_truthy(support.events(b, "path")[1])
    assert.is_truthy(support.events(a, "path")[1])
  end)

  -- Tests of a host that died of their TTL on the way.
  local function openers(n)
    local count = 0
    for _, line in ipairs(s.world:trace()) do
      if line:find("drop:ttl " .. OUTSIDE[n] .. ":", 1, true) and line:find(" test", 1, true) then count = count + 1 end
    end
    return count
  end

  -- The far one has come nearer since it was asked: the near one waits too long. Whether both are connected.
  local function waited_too_long(without_opener)
    local far_ms = FAR_MS
    s, near, far = world { far_ms = function() return far_ms end }
    local a, b = s:open(near), s:open(far)
    if without_opener then a.addresses.opener_ttl = function() return 0 end end
    s.world:run(1500)
    far_ms = NEAR_MS
    b.addresses.rtt_ms = function() return 2 * FAR_MS end
    local ma = s:run(function() return assert(a:host()) end)
    s:run(function() assert(b:join(ma.code)) end)
    s.world:run(500)
    return support.events(a, "path")[1] and support.events(b, "path")[1]
  end

  it("opens a fresh port, too, where a relay is all that was heard", function()
    s, near, far = world { relay = true }
    local a, b = s:open(near), s:open(far)
    b.addresses.rtt_ms = function() end
    local ma = s:run(function() return assert(a:host()) end)
    s:run(function() assert(b:join(ma.code)) end)
    s.world:run(500)
    for _, n in ipairs { a, b } do assert.equal("relay", support.events(n, "connected")[1].path) end
    b.addresses.rtt_ms = nil
    s.world:run(1500)
    for _, n in ipairs { a, b } do
      local paths = support.events(n, "path")
      assert.equal("direct", paths[#paths].path)
    end
  end)

  it("opens the waiting one's mapping before its time comes, by what dies right behind its NAT", function()
    assert.is_truthy(waited_too_long(false))
    assert.equal(1, openers(1))
    assert.equal(0, openers(2))
    s:close()
    assert.is_nil(waited_too_long(true)) -- the control
    assert.equal(0, openers(1))
  end)

  it("makes all meet under loss and jitter, by seeds", function()
    for seed = 1, 25 do
      if s then s:close() end
      s, near, far = world { seed = seed, loss = 0.05, jitter_ms = 10 }
      local a, b = s:open(near), s:open(far)
      if seed % 2 == 0 then a, b = b, a end
      local ma = s:run(function() return assert(a:host()) end)
      s:run(function() assert(b:join(ma.code)) end)
      local met = s.world:run_until(function()
        return support.events(a, "path")[1] and support.events(b, "path")[1]
      end, 10000)
      assert.is_true(met, "seed " .. seed)
    end
  end)

  it("sends no opener from behind no NAT, nor where a second router is not known of, nor to a neighbour", function()
    s, near, far = world()
    local a = s:open(near)
    local b = s:open(s:host("open", "203.0.113.77"))
    local elsewhere = { core.addr.parse "198.51.100.99:9" }
    s.world:run(1500)
    assert.equal(2, a.addresses:opener_ttl(elsewhere))
    assert.equal(0, b.addresses:opener_ttl(elsewhere))
    assert.equal(0, a.addresses:opener_ttl { core.addr.parse "203.0.113.200:9" })
    s:close()
    s, near = world { hops = 0 } -- the server is right behind the NAT
    a = s:open(near)
    assert.equal(0, a.addresses:opener_ttl(elsewhere))
    s.world:run(1500)
    assert.equal(0, a.addresses:opener_ttl(elsewhere))
  end)

  it("knows of a second router soon after its first answer, and not before", function()
    s, near, far = world()
    local a = s:open(far, { register = false })
    local elsewhere = { core.addr.parse "198.51.100.99:9" }
    assert.equal(0, a.addresses:opener_ttl(elsewhere))
    s.world:run(21)
    assert.equal(2, a.addresses:opener_ttl(elsewhere))
  end)

  -- Two that told at once spoil each other's port: of unknown distances.
  local function spoilt()
    s, near, far = world()
    local a, b = s:open(near), s:open(far)
    b.addresses.rtt_ms = function() end
    local ma = s:run(function() return assert(a:host()) end)
    s:run(function() assert(b:join(ma.code)) end)
    b.addresses.rtt_ms = nil
    return a, b, ma
  end

  it("goes on by a fresh port of one side, when the other opens none", function()
    local a, b, ma = spoilt()
    local open = fresh.open
    fresh.open = function(node, ...) return node == b and open(node, ...) end
    s.world:run(2500)
    fresh.open = open
    assert.is_truthy(support.events(b, "path")[1])
    assert.is_truthy(support.events(a, "path")[1])
    assert.same({ 1, 0 }, { ma.order[1].again, ma.order[1].epoch })
  end)

  it("opens two fresh ports where nothing helps, and lets go of them", function()
    s, near, far = world { kind = "symmetric_random" }
    local a, b = s:open(near), s:open(far)
    local ma = s:run(function() return assert(a:host()) end)
    s:run(function() assert(b:join(ma.code)) end)
    s.world:run(9000)
    local before = s.server.counters:get "address_reported"
    assert.equal(4 + 2 * 2, before) -- one for each client, two more as one is far; two for each one's fresh ports
    s.world:run(3000)
    assert.equal("no_path", support.events(b, "closed")[1].reason)
    assert.is_nil(next(a.fresh_sockets))
    assert.is_nil(next(b.fresh_sockets))
  end)

  it("closes a fresh port's socket that is still asking when the node is closed", function()
    local _, b = spoilt()
    s.world:run_until(function() return next(b.fresh_sockets) end, 3000)
    assert.is_truthy(next(b.fresh_sockets))
    s:run(function() b:close() end)
    s.world:run(100)
    assert.is_nil(next(b.fresh_sockets))
  end)

  it("says nothing of a fresh port whose match is over before its address is known", function()
    local _, b, ma = spoilt()
    local renewed = 0
    b.sharing.renew = function() renewed = renewed + 1 end
    s.world:run_until(function() return next(b.fresh_sockets) end, 3000)
    assert.is_truthy(next(b.fresh_sockets))
    s:run(function() b.matches[ma.raw]:leave() end)
    assert.is_truthy(next(b.fresh_sockets)) -- it is asked from still
    s.world:run(5000)
    assert.is_nil(next(b.fresh_sockets))
    assert.equal(0, renewed)
  end)

  it("is followed once, and not where a newer one is known", function()
    local a, _, ma = spoilt()
    local told, matched, candidates, followed = {}, ma.matched, fresh.candidates, {}
    function ma:matched(m)
      told[#told + 1] = m
      return matched(self, m)
    end
    s.world:run(2500)
    assert.is_truthy(support.events(a, "path")[1])
    local m = told[#told]
    assert.equal(1, m.again)
    finally(function() fresh.candidates = candidates end)
    fresh.candidates = function(...)
      followed[#followed + 1] = m.again
      return candidates(...)
    end
    for _, again in ipairs { 1, 3, 2, 3 } do
      m.again = again
      matched(ma, m)
    end
    assert.same({ 3 }, followed)
  end)

  it("leaves the address for servers as it was", function()
    local a, b = spoilt()
    local public = table.concat(b.addresses:public_texts(), " ")
    s.world:run(3000)
    assert.is_truthy(support.events(a, "path")[1])
    assert.equal(public, table.concat(b.addresses:public_texts(), " "))
    assert.equal(1, #support.events(b, "registered"))
  end)
end)
