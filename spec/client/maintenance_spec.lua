-- SPDX-License-Identifier: MIT

local support = require "spec.client.support"

local function count(s, ip, kind, to)
  local n = 0
  for _, d in ipairs(s:sent(ip)) do
    if d.type == kind and (not to or d.to == to) then n = n + 1 end
  end
  return n
end

describe("C4 mapping maintenance manager", function()
  local s
  after_each(function() s:close() end)

  local function nat_host(timeout_ms)
    return s:host("a", "192.168.1.2", s:nat("nat", "203.0.113.1", { timeout_ms = timeout_ms }))
  end

  it("sends every 15 s, a tenth more or less, to the matching server", function()
    s = support.new()
    s:open(nat_host())
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
  end)

  it("sends to a separate maintenance server as well", function()
    s = support.new { roles = { "address", "matching" } }
    local other = s:host("upkeep", "198.51.100.30")
    local upkeep = s:serve(other, { "maintenance" })
    s:open(nat_host(), { maintenance_server = "bodkin://198.51.100.30" })
    s.world:run(60000)
    assert.is_true(upkeep.counters:get("maintained_confirmed") >= 4)
    assert.equal(upkeep.counters:get("maintained"), s.server.counters:get("maintained"))
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
