-- SPDX-License-Identifier: MIT
-- The unchanged servers and clients, on hosts of a simulated world.

local support = require "spec.client.support"
local servers = require "bodkin.servers"

local key = ("k"):rep(32)

describe("servers in the simulated world", function()
  local w
  after_each(function() w:close() end)

  -- Two clients behind NATs of their own.
  local function clients(options)
    local a = w:open(w:host("a", "192.168.1.2", w:nat("na", "203.0.113.1")), options)
    local b = w:open(w:host("b", "192.168.1.3", w:nat("nb", "203.0.113.2")), options)
    return a, b
  end

  it("S4 the three roles on three machines match two clients behind NATs", function()
    w = support.new { roles = { "matching" }, key = key }
    local address = w.world:host { name = "address", ip = "198.51.100.20" }
    local maintenance = w.world:host { name = "maintenance", ip = "198.51.100.30" }
    local one, two = w:serve(address, { "address" }), w:serve(maintenance, { "maintenance" })
    local a, b = clients {
      address_server = "bodkin://198.51.100.20:4433", maintenance_server = "bodkin://198.51.100.30:4433",
    }
    w:pair(a, b)
    w.world:run(40000)
    assert.is_true(one.counters:get("address_reported") >= 2)
    assert.equal(0, w.server.counters:get("address_cookie_bad")) -- proofs of the one count on the other
    assert.is_true(two.counters:get("maintained_confirmed") >= 4)
    assert.is_true(w.server.counters:get("maintained") >= 4)
    assert.equal(0, w.server.counters:get("maintained_confirmed"))
    assert.equal(2, w.server:status().info.registered)
  end)

  it("C3 both matched leave the server in one instant, the selector's last", function()
    w = support.new {}
    local a, b = clients()
    w:pair(a, b)
    local times = {} -- that instant alone has frames to both
    for _, line in ipairs(w.world:trace()) do
      local time, to = line:match("^(%d+) send 198%.51%.100%.10:4433 > (%S+):%d+ %d+ frame ")
      if time then times[time] = (times[time] or "") .. to .. " " end
    end
    local found
    for _, to in pairs(times) do
      if to:find("203.0.113.1", 1, true) and to:find("203.0.113.2", 1, true) then found = to break end
    end
    assert.equal("203.0.113.1 203.0.113.2 203.0.113.2 ", found) -- matched, matched, selected
  end)

  it("C3 matched gets through loss", function()
    w = support.new { seed = 7, loss = 0.3 }
    local a, b = clients()
    w:pair(a, b)
    w.world:run(12000)
    local counters = w.server.counters
    assert.equal(2, counters:get("matched_acked"))
    assert.equal(0, counters:get("matched_lost"))
    assert.equal(0, w.server:status().info.matched_pending)
  end)

  it("S3 after a restart everyone is registered again within two maintenance periods, untold", function()
    w = support.new {}
    local a, b = clients()
    local match = w:pair(a, b)
    w.world:run(20000)
    w:kill()
    w.server = w:serve(w.hub)
    w.world:run(33000)
    assert.equal(2, w.server:status().info.registered)
    assert.equal(1, w.server:status().info.rooms)
    local c = w:open(w:host("c", "203.0.113.9"))
    local joined = w:run(function() return assert(c:join(match.code)) end)
    w:run(function() return assert(joined:wait_connected(20000)) end)
  end)

  it("S4 refuses a start on an address that is taken, and leaves nothing open", function()
    w = support.new {}
    local server, msg = servers.open(w.hub.env, { listen = { "198.51.100.10:4434", "198.51.100.10:4433" } })
    assert.is_nil(server)
    assert.matches("cannot bind 198.51.100.10:4433", msg, 1, true)
  end)
end)
