-- SPDX-License-Identifier: MIT

local support = require "spec.client.support"

local function nat_host(s)
  return s:host("a", "192.168.1.2", s:nat("nat", "203.0.113.1"))
end

describe("C2 registration manager", function()
  local s
  after_each(function() s:close() end)

  it("registers both addresses, and says so", function()
    s = support.new { expose_addresses = true }
    local n = s:open(nat_host(s))
    local told = support.events(n, "registered")
    assert.equal(1, #told)
    assert.equal(n.id, told[1].id)
    assert.same(n.addresses:public_texts(), told[1].public)
    assert.same({ "192.168.1.2:49152" }, told[1]["local"])
    assert.equal(1, s.server.registry:count())
    local found = s:run(function() return assert(n:lookup(n.id)) end)
    assert.same({ id = n.id, pubs = told[1].public, locals = told[1]["local"] }, found)
  end)

  it("takes no answer to what was asked from elsewhere for where this host is", function()
    s = support.new { delay_ms = 20 }
    local n = s:open(nat_host(s))
    s:run(function()
      n.env.timer(10, function() n.addresses:moved() end)
      assert(n.registration:register())
    end)
    assert.is_nil(n.addresses.seen[n.server])
    s:run(function() assert(n.registration:register()) end)
    assert.is_string(n.addresses.seen[n.server])
  end)

  it("refreshes at half the lifetime, without a word", function()
    s = support.new()
    local n = s:open(nat_host(s))
    s.world:run(305000)
    assert.equal(1 + 10, s.server.counters:get("registered"))
    assert.equal(0, s.server.counters:get("registration_expired"))
    assert.equal(1, #support.events(n, "registered"))
  end)

  it("gives the registration back when the node closes", function()
    s = support.new()
    local n = s:open(nat_host(s))
    s:run(function() n:close() end, 1000)
    assert.equal(1, s.server.counters:get("unregistered"))
    assert.equal(0, s.server.registry:count())
  end)

  for mode, within_ms in pairs { confirm = 30000, silent = 60000 } do
    it(("registers again, untold, after a restart of the server (%s)"):format(mode), function()
      s = support.new { maintenance_mode = mode }
      local n = s:open(nat_host(s))
      s.world:run(7000)
      s:kill()
      s.world:run(3000)
      s.server = s:serve(s.hub)
      s.world:run(within_ms)
      assert.equal(1, s.server.registry:count())
      assert.equal(2, #support.events(n, "registered"))
    end)

    it(("and after the server was away for two minutes (%s)"):format(mode), function()
      s = support.new { maintenance_mode = mode }
      local n = s:open(nat_host(s))
      s:kill()
      s.world:run(120000)
      assert.equal(1, #support.events(n, "error"))
      assert.equal("timeout", support.events(n, "error")[1].code)
      s.server = s:serve(s.hub)
      s.world:run(within_ms)
      assert.equal(1, s.server.registry:count())
    end)
  end

  it("proves its address again when the proof is refused", function()
    s = support.new {}
    local n = s:open(nat_host(s))
    local before = n.addresses.public[4].proof
    s:kill()
    s.server = s:serve(s.hub, nil, { ("l"):rep(32), support.key }) -- proofs are made with the first
    s.world:run(31000)
    assert.equal(1, s.server.registry:count())
    assert.not_equal(before, n.addresses.public[4].proof)
  end)

  it("learns from a maintenance confirmation that the server was restarted", function()
    s = support.new()
    s:open(nat_host(s))
    s.world:run(31000) -- the next refresh comes at 60 s
    s:kill()
    s.server = s:serve(s.hub)
    s.world:run(17000)
    assert.equal(1, s.server.registry:count())
  end)

  it("registers the new address when its public address changed", function()
    s = support.new { roles = { "matching" }, key = ("k"):rep(32), expose_addresses = true }
    s:serve(s:host("address", "198.51.100.20"), { "address" })
    local where = { address_server = "bodkin://198.51.100.20", behaviour = false, adapt = false }
    local host = s:host("a", "192.168.1.2", s:nat("nat", "203.0.113.1", { timeout_ms = 5000 }))
    local n = s:open(host, where)
    assert.same({ "203.0.113.1:49152" }, n.addresses:public_texts())
    -- Somebody else takes the port once the mapping has lapsed.
    s.world:run(12000)
    local m = s:open(s:host("b", "192.168.1.3", host.node.realm.box), where)
    assert.same({ "203.0.113.1:49152" }, m.addresses:public_texts())
    s.world:run(30000)
    local now = n.addresses:public_texts()
    assert.not_equal("203.0.113.1:49152", now[1])
    assert.equal(1, #now)
    assert.equal(2, #support.events(n, "registered"))
    assert.same(now, s:run(function() return assert(m:lookup(n.id)) end).pubs)
  end)

  it("refreshes, and tries again soon, however long its address server has been away", function()
    s = support.new { roles = { "matching" } }
    local apart = s:host("address", "198.51.100.20")
    s:serve(apart, { "address" })
    local host = nat_host(s)
    local n = s:open(host, { address_server = "bodkin://198.51.100.20", behaviour = false })
    s:kill(apart)
    host.node.behind.rebind()
    s.world:run(3600000)
    assert.is_true(n.addresses.stale)
    assert.equal(0, s.server.counters:get "registration_expired")
    local count = 0
    n.registration.register = function(...)
      count = count + 1
      return getmetatable(n.registration).register(...)
    end
    s:kill()
    s.world:run(120000)
    assert.is_true(count >= 8, count)
  end)

  it("goes on when it is due again after an error that was thrown in it", function()
    s = support.new()
    local n = s:open(nat_host(s))
    n.registration.register = function() error "thrown" end
    assert.has_error(function() s.world:run(31000) end)
    n.registration.register = nil
    n.registration:kick()
    s.world:run(1000)
    assert.equal(2, s.server.counters:get "registered")
  end)

  it("repeats what the server refused to take, as an error with its code", function()
    s = support.new()
    local n, err, code = s:try(nat_host(s), { name = "\xff" })
    assert.is_nil(n)
    assert.equal("name is not UTF-8", err)
    assert.equal("invalid", code)
  end)
end)
