-- SPDX-License-Identifier: MIT

local addr = require("bodkin.core").addr
local pushes = require "spec.client.pushes"
local support = require "spec.client.support"

describe("C4 mapping maintenance manager", function()
  local s
  after_each(function() s:close() end)

  local function nat_host(timeout_ms)
    return s:host("a", "192.168.1.2", s:nat("nat", "203.0.113.1", { timeout_ms = timeout_ms }))
  end

  it("sends every 15 s, a tenth more or less, to the matching server", function()
    s = support.new()
    s:open(nat_host(), { adapt = false })
    s.world:run(300000)
    local sent = s.server.counters:get("maintained")
    assert.is_true(sent >= 300 / 16.5 and sent <= 300 / 13.5 + 1, sent .. " sent")
    assert.equal(sent, s.server.counters:get("maintained_confirmed"))
  end)

  it("asks nothing of a silent server", function()
    s = support.new { maintenance_mode = "silent" }
    local n = s:open(nat_host())
    s.world:run(60000)
    assert.is_true(s.server.counters:get("maintained") >= 4)
    assert.equal(0, s.server.counters:get("maintained_confirmed"))
    assert.equal(0, n.env.counters:get("request_timeout"))
    assert.is_nil(n.carriage.looked_us) -- nor looks whether TCP is answered, since that is how it is
  end)

  it("sends to a separate maintenance server as well", function()
    s = support.new { roles = { "address", "matching" } }
    local other = s:host("upkeep", "198.51.100.30")
    local upkeep = s:serve(other, { "maintenance" })
    local record, at, named = s.world.net.record, addr.parse "198.51.100.30:4433", {}
    local n = s:open(nat_host(), { maintenance_server = "bodkin://198.51.100.30" })
    s.world.net.record = function(event, src, dst, bytes)
      record(event, src, dst, bytes)
      if dst == at then named[#named + 1] = bytes:find(n.identity.id, 1, true) end
    end
    s.world:run(60000)
    assert.same({}, named) -- who it is, nobody on the way reads
    assert.is_true(upkeep.counters:get("maintained_confirmed") >= 4)
    assert.is_true(s.server.counters:get("maintained") >= 4)
  end)

  it("sends once to a maintenance server that is the matching server", function()
    s = support.new()
    s:open(nat_host(), { adapt = false, maintenance_server = support.url })
    s.world:run(300000)
    local sent = s.server.counters:get "maintained"
    assert.is_true(sent <= 300 / 13.5 + 1, sent .. " sent")
  end)

  it("stops when the node is done, so that the mapping may lapse", function()
    s = support.new()
    local n = s:open(nat_host())
    s:run(function() n:close() end)
    local before = #s.world:trace()
    s.world:run(120000)
    assert.same({}, s:sent("192.168.1.2", before + 1))
  end)

  it("does not begin for a node that awaits nothing", function()
    s = support.new()
    s:open(nat_host(), { register = false })
    s.world:run(60000)
    assert.equal(0, s.server.counters:get("maintained"))
  end)

  it("goes on for an unregistered node only as long as its match", function()
    s = support.new()
    local a = s:open(s:host("b", "203.0.113.2"))
    local b = s:open(nat_host(), { register = false })
    local _, match = s:pair(a, b)
    local function asked() return b.env.counters:get("request_sent") end
    local sent = asked()
    s.world:run(60000)
    assert.is_true(asked() >= sent + 3)
    s:run(function() match:leave() end)
    s.world:run(1000)
    sent = asked()
    s.world:run(60000)
    assert.equal(sent, asked())
    local room = s:run(function() return assert(a:host()) end)
    match = s:run(function() return assert(b:join(room.code)) end)
    s.world:run(60000)
    assert.is_true(asked() >= sent + 3)
    s:run(function() match:leave() end)
    -- Nor after an attempt that failed.
    assert.is_nil(s:run(function() return b:join("lusab-babad-gutih") end))
    s.world:run(1000)
    sent = asked()
    s.world:run(60000)
    assert.equal(sent, asked())
  end)

  it("is the reason for no late push, however long mappings live, once it has adapted", function()
    s = support.new {}
    for _, timeout_s in ipairs { 12, 20, 30, 60, 120 } do
      for seed = 1, 2 do
        local fixed = pushes.hour(seed, timeout_s * 1000, "random", { adapt = false })
        local adapted, at = pushes.hour(seed, timeout_s * 1000, "random", {})
        assert.equal(0, adapted.lost)
        assert.is_true(adapted.late <= (timeout_s < 16 and 1 or 0), adapted.late .. " late")
        assert.equal(timeout_s < 16 and "7.5 s" or timeout_s < 55 and "15.0 s" or "long", at)
        assert.is_true(adapted.messages + adapted.spare <= fixed.messages + 10)
        if timeout_s > 55 then assert.is_true(adapted.messages + adapted.spare < fixed.messages / 2) end
      end
    end
  end)

  describe("adapts", function()
    local function ended(n) return n.maintenance.interval, n.maintenance.long end

    -- Maintenance messages and registrations in so long.
    local function counted(ms)
      local c = s.server.counters
      local maintained, registered = c:get "maintained", c:get "registered"
      s.world:run(ms)
      return c:get "maintained" - maintained, c:get "registered" - registered
    end

    it("and leaves it to the registration's refresh where a spare mapping outlived 55 s", function()
      s = support.new { delay_ms = 20 }
      local a = s:open(nat_host(60000))
      assert.same({ 15000, false }, { ended(a) })
      s.world:run(240000)
      assert.same({ 15000, true }, { ended(a) })
      local maintained, registered = counted(600000)
      assert.equal(0, maintained)
      assert.is_true(registered >= 19 and registered <= 21)
      local match = s:run(function() return assert(a:host()) end)
      s.world:run(29000)
      local b = s:open(s:host("b", "203.0.113.2"))
      s:run(function()
        local joined = assert(b:join(match.code))
        assert(joined:wait_connected(200))
      end)
    end)

    it("and sends each 25 s to a server that hears nothing else", function()
      s = support.new { delay_ms = 20 }
      local upkeep = s:serve(s:host("upkeep", "198.51.100.30"), { "maintenance" })
      local a = s:open(nat_host(60000), { maintenance_server = "bodkin://198.51.100.30" })
      s.world:run(240000)
      assert.same({ 15000, true }, { ended(a) })
      local before = upkeep.counters:get "maintained"
      s.world:run(600000)
      local sent = upkeep.counters:get "maintained" - before
      assert.is_true(sent >= 600 / 27.5 - 1 and sent <= 600 / 22.5 + 1, sent .. " sent")
    end)

    it("but not to a silent one, nor to the matching server while it is not registered there", function()
      s = support.new { delay_ms = 20, maintenance_mode = "silent" }
      local upkeep = s:serve(s:host("upkeep", "198.51.100.30"), { "maintenance" })
      local a = s:open(nat_host(60000), { maintenance_server = "bodkin://198.51.100.30" })
      s.world:run(240000)
      assert.is_true(a.maintenance.long)
      local before = upkeep.counters:get "maintained"
      s.world:run(300000)
      assert.is_true(upkeep.counters:get "maintained" - before >= 300 / 16.5 - 1)
      s:close()
      s = support.new { delay_ms = 20 }
      a = s:open(s:host("b", "203.0.113.2"))
      local b = s:open(nat_host(60000), { register = false })
      s:pair(a, b)
      s.world:run(300000)
      assert.is_true(b.maintenance.long)
      assert.equal(25000, b.maintenance:interval_ms(b.server))
      assert.equal(35000, a.maintenance:interval_ms(a.server))
    end)

    it("not where they live less, nor where the server does not say", function()
      for _, timeout_ms in ipairs { 20000, 30000, 50000 } do
        s = support.new { delay_ms = 20 }
        local a = s:open(nat_host(timeout_ms))
        s.world:run(300000)
        assert.same({ 15000, false }, { ended(a) }, timeout_ms)
        s:close()
      end
      s = support.new { delay_ms = 20, roles = { "matching", "maintenance" } }
      local host = s:host("address", "198.51.100.20")
      s:serve(host, { "address" })
      local a = s:open(nat_host(8000), { address_server = "bodkin://198.51.100.20" })
      host:sleep()
      s.world:run(300000)
      assert.same({ 15000, false }, { ended(a) })
    end)

    it("and sends sooner where they lapse in between, as a spare mapping shows", function()
      for timeout_ms, interval in pairs { [8000] = 5000, [12000] = 7500 } do
        s = support.new { delay_ms = 20 }
        local a = s:open(nat_host(timeout_ms))
        s.world:run(300000)
        assert.equal(interval, (ended(a)))
        local maintained = counted(300000)
        assert.is_true(maintained >= 300000 / interval / 1.1 - 1, maintained .. " sent")
        if timeout_ms == 8000 then s:close() end
      end
    end)

    it("and sends sooner where the server sees another address again and again", function()
      s = support.new { delay_ms = 20 }
      local nat = s:nat("nat", "203.0.113.1", { timeout_ms = 12000, ports = "random" })
      local a = s:open(s:host("a", "192.168.1.2", nat))
      a.maintenance.asked = function() end -- nobody who could say
      s.world:run(60000)
      assert.is_true((ended(a)) <= 7500)
      local before = s.server.counters:get "client_moved"
      s.world:run(600000)
      assert.equal(before, s.server.counters:get "client_moved")
    end)

    it("and trusts no measurement once an address changed, until the host is elsewhere", function()
      s = support.new { delay_ms = 20 }
      local nat = s:nat("nat", "203.0.113.1", { timeout_ms = 120000, ports = "random" })
      local a = s:open(s:host("a", "192.168.1.2", nat))
      s.world:run(240000)
      assert.same({ 15000, true }, { ended(a) })
      nat:rebind()
      s.world:run(60000)
      assert.same({ 15000, false }, { ended(a) })
      s.world:run(600000)
      assert.same({ 15000, false }, { ended(a) })
      a.maintenance:moved()
      s.world:run(240000)
      assert.same({ 15000, true }, { ended(a) })
      s:close()
      -- Nor where it changed before there was one.
      s = support.new { delay_ms = 20 }
      nat = s:nat("nat", "203.0.113.1", { timeout_ms = 120000, ports = "random" })
      a = s:open(s:host("a", "192.168.1.2", nat))
      nat:rebind()
      s.world:run(600000)
      assert.same({ 15000, false }, { ended(a) })
    end)

    it("but takes two addresses in eleven minutes for no habit of the NAT's", function()
      s = support.new()
      local m = s:open(nat_host()).maintenance
      for _ = 1, 2 do
        m:lapsed()
        s.world:run(660000)
      end
      assert.equal(15000, m.interval)
      m:lapsed()
      m:lapsed()
      assert.equal(7500, m.interval)
    end)

    it("and sends no more seldom over a family that was not measured", function()
      s = support.new()
      local m = s:open(nat_host()).maintenance
      local four, six = addr.parse("198.51.100.30:1"), addr.parse("[2001:db8::30]:1")
      m.long, m.family, m.confirms = true, 4, { [four] = true, [six] = true }
      assert.same({ 25000, 15000 }, { m:interval_ms(four), m:interval_ms(six) })
    end)

    it("not where it is told not to, and opens no socket then", function()
      s = support.new { delay_ms = 20 }
      local a = s:open(nat_host(120000), { adapt = false, behaviour = false })
      local before = s.server.counters:get "address_reported"
      s.world:run(300000)
      assert.same({ 15000, false }, { ended(a) })
      assert.equal(before, s.server.counters:get "address_reported")
    end)

    it("and asks again, three times at most, where the answers tell nothing", function()
      s = support.new { delay_ms = 20 }
      local a = s:open(nat_host(60000))
      local outlives, asked = require("bodkin.client.behaviour").outlives, {}
      require("bodkin.client.behaviour").outlives = function(_, _, silence_s)
        asked[#asked + 1] = silence_s
        return false
      end
      s.world:run(600000)
      require("bodkin.client.behaviour").outlives = outlives
      assert.same({ 17, 4, 17, 4, 17, 4 }, asked)
      assert.same({ 15000, false }, { ended(a) })
    end)

    it("and leaves nothing open that measures when the node closes", function()
      s = support.new { delay_ms = 20 }
      local a = s:open(nat_host(120000))
      s.world:run_until(function() return a.maintenance.task ~= nil end, 130000)
      s.world:run(5000)
      assert.is_false(a.maintenance.task:done())
      s:run(function() a:close() end)
    end)
  end)

  it("keeps a mapping of 20 s alive for a selection after 60 s", function()
    s = support.new()
    local a = s:open(nat_host(20000))
    local b = s:open(s:host("b", "192.168.1.2", s:nat("nat2", "203.0.113.2", { timeout_ms = 20000 })))
    local match = s:run(function() return assert(a:host()) end)
    s.world:run(60000)
    s:run(function()
      local joined = assert(b:join(match.code))
      assert(joined:wait_connected(5000))
    end)
  end)
end)
