-- SPDX-License-Identifier: MIT
-- The server's schedule: two at different distances begin at the same time, so that their first tests cross on the way.

local fresh = require "bodkin.client.fresh"
local support = require "spec.client.support"

local NEAR_MS, FAR_MS, BETWEEN_MS = 5, 60, 50 -- one way: the server and either, and the two

local function delay(from, to)
  local ends = { [from] = true, [to] = true }
  if not ends.server then return BETWEEN_MS end
  return ends.nat1 and NEAR_MS or FAR_MS
end

-- Two behind plain Linux, or what `kind` says, the first one near the server.
local function world(options)
  options = options or {}
  options.delay_ms = delay
  local s, hosts = support.new(options), {}
  for n = 1, 2 do
    local nat = s:nat("nat" .. n, ("203.0.113.%d"):format(n), { kind = options.kind or "plain_linux" })
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
    assert.equal(2 + 2 * 2, before) -- one for each client, two for each one's fresh ports
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

  it("leaves the address for servers as it was", function()
    local a, b = spoilt()
    local public = table.concat(b.addresses:public_texts(), " ")
    s.world:run(3000)
    assert.is_truthy(support.events(a, "path")[1])
    assert.equal(public, table.concat(b.addresses:public_texts(), " "))
    assert.equal(1, #support.events(b, "registered"))
  end)
end)
