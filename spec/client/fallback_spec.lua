-- SPDX-License-Identifier: MIT
-- Several servers, and names that lead elsewhere after a while.

local core = require "bodkin.core"
local support = require "spec.client.support"
local url = require "bodkin.url"

local ONE, TWO = "bodkin://198.51.100.10:4433", "bodkin://198.51.100.20:4433"

describe("a list of servers", function()
  local s
  after_each(function() if s then s:close() end s = nil end)

  local function second(keys)
    local host = s:host("second", "198.51.100.20")
    return s:serve(host, support.NO_RELAY, keys), host
  end

  it("is an array or one text, whose keys have commas, too", function()
    local k1, k2 = url.key_text { ("a"):rep(32) }, url.key_text { ("b"):rep(32), ("c"):rep(32) }
    local text = ("bodkin://a#%s,bodkin://b:1#%s, bodkin://[::1]"):format(k1, k2)
    assert.same({ "bodkin://a#" .. k1, "bodkin://b:1#" .. k2, "bodkin://[::1]" }, url.list(text))
    assert.same({ ONE, TWO }, url.list { ONE, TWO })
    assert.same({ ONE }, url.list(ONE))
    for _, bad in ipairs { "", "x", ONE .. ",", ONE .. ",x", ONE .. "," .. TWO .. ":x", {}, { ONE, 7 }, 7 } do
      local list, err, code = url.list(bad)
      assert.is_nil(list)
      assert.is_string(err)
      assert.equal("invalid", code)
    end
    assert.matches("more than 8", select(2, url.list((ONE .. ","):rep(8) .. ONE)))
  end)

  it("is tried in order until one answers", function()
    s = support.new { roles = support.NO_RELAY }
    local other = second()
    local list = { "bodkin://198.51.100.99", "bodkin://nowhere", TWO, ONE }
    local n = s:open(s:host("a", "203.0.113.7"), { server = list })
    assert.equal(1, other.counters:get "registered")
    assert.equal(0, s.server.counters:get "registered")
    assert.equal(TWO:sub(10), core.addr.format(n.server))
  end)

  it("of which none can be used says so", function()
    s = support.new {}
    local n, err, code = s:try(s:host("a", "203.0.113.7"), { server = "bodkin://nowhere,bodkin://198.51.100.99" })
    assert.is_nil(n)
    assert.matches("none of the 2 servers can be used; the last: no answer from 198.51.100.99:4433", err)
    assert.equal("timeout", code)
  end)

  it("is tried in order until a matching one answers, also where the address server is one apart", function()
    s = support.new { roles = { "matching", "maintenance" } }
    s:serve(s:host("address", "198.51.100.30"), { "address" })
    local sock = assert(s:host("stun", "198.51.100.40").env.udp(core.addr.parse "198.51.100.40:3478"))
    sock:on_packet(function(from, bytes) sock:send(from, core.stun.answer(bytes, from)) end)
    local dead = "bodkin://198.51.100.99"
    for i, at in ipairs { "bodkin://198.51.100.30", "stun:198.51.100.40" } do
      local host = s:host("a" .. i, "203.0.113." .. i)
      local n = s:open(host, { server = { dead, ONE }, address_server = at })
      assert.equal(ONE:sub(10), core.addr.format(n.server))
      local _, err, code = s:try(host, { server = { dead, dead }, address_server = at })
      assert.matches("none of the 2 servers can be used; the last: no answer from 198.51.100.99:4433", err)
      assert.equal("timeout", code)
    end
    sock:close()
  end)

  it("serves when the one in use stays silent: matches go on, and rooms are opened there", function()
    s = support.new { roles = support.NO_RELAY }
    local other = second()
    local both = ONE .. "," .. TWO
    local a = s:open(s:host("a", "192.168.1.2", s:nat("nat1", "203.0.113.1")), { server = both })
    local b = s:open(s:host("b", "192.168.1.2", s:nat("nat2", "203.0.113.2")), { server = both })
    local ma, mb = s:pair(a, b)
    assert.equal(0, other.counters:get "registered")
    s:kill()
    s.world:run(60000)
    for _, n in ipairs { a, b } do
      assert.equal(TWO:sub(10), core.addr.format(n.server))
      assert.equal(0, #support.events(n, "closed"))
    end
    assert.is_true(ma:send "still here")
    s.world:run(200)
    local messages = support.events(b, "message")
    assert.equal("still here", messages[#messages].data)
    local c = s:open(s:host("c", "203.0.113.3"), { server = both })
    local mc = s:run(function()
      local m = assert(c:join(ma.code))
      assert(m:wait_connected(10000))
      return m
    end)
    assert.equal(a.id, mc:peers()[1].id)
    assert.is_true(mb:send "me too")
    -- Whatever is asked is answered there, and taken as an answer.
    local dropped, confirmed = a:stats().counters.drop_reply, other.counters:get "maintained_confirmed"
    assert.equal(3, #s:run(function() return assert(a:list()) end))
    for session in pairs(a.sessions) do a.roaming:ask(session) end
    s.world:run(60000)
    assert.is_true(other.counters:get "maintained_confirmed" - confirmed >= 3 * 3)
    assert.equal(dropped, a:stats().counters.drop_reply)
    assert.same({ a.server }, a.relays:usable { core.addr.parse "0.0.0.0:0" }) -- the server itself
  end)

  it("of two deployments is told soon what the second one proves, and what the first one saw counts no more", function()
    s = support.new { roles = support.NO_RELAY }
    local key = ("q"):rep(32)
    local other = second { key }
    local nat = s:nat("nat", "203.0.113.1", { kind = "symmetric_random" })
    local n = s:open(s:host("a", "192.168.1.2", nat), { server = { ONE, TWO },
      server_keys = { support.keys[1], (core.crypto.keypair(key)) } })
    local before = n.addresses:public_texts()
    s:kill()
    assert.is_true(s.world:run_until(function() return other.counters:get "registered" > 0 end, 60000))
    s.world:run(1000)
    assert.is_false(n.addresses.stale)
    local now = n.addresses:public_texts()
    assert.same({ 1, 1 }, { #before, #now })
    assert.not_equal(before[1], now[1])
    local bad = other.counters:get "address_cookie_bad"
    s.world:run(60000)
    assert.equal(bad, other.counters:get "address_cookie_bad")
  end)

  it("is gone through from the one in use on: where its own name leads now first, then the next", function()
    s = support.new { roles = support.NO_RELAY }
    local names, at, hosts, counts = s.world.names, {}, {}, {}
    for i, name in ipairs { "two", "three", "new" } do
      at[name] = "198.51.100." .. 10 * (i + 1)
      hosts[name] = s:host(name, at[name])
      counts[name] = s:serve(hosts[name], support.NO_RELAY).counters
      names[name] = { core.addr.parse(at[name], 0) }
    end
    local n = s:open(s:host("a", "203.0.113.7"), { server = { ONE, "bodkin://two", "bodkin://three" } })
    local function goes_on_with(ip)
      assert.is_true(s.world:run_until(function() return core.addr.format(n.server) == ip .. ":4433" end, 60000))
      s.world:run(5000)
    end
    s:kill()
    goes_on_with(at.two)
    s:serve(s.hub, support.NO_RELAY)
    names.two = { core.addr.parse(at.new, 0) }
    s:kill(hosts.two)
    goes_on_with(at.new)
    assert.equal(0, counts.three:get "registered")
    s:kill(hosts.new)
    goes_on_with(at.three)
  end)

  it("has a TCP port of each, which nobody else is asked at", function()
    s = support.new { roles = support.NO_RELAY, tcp = true }
    local nat = s:nat("nat", "203.0.113.1", { blocks = "udp" })
    s.options.tcp = 8443
    local other, host = second()
    local n = s:open(s:host("a", "192.168.1.2", nat), { server = { ONE, TWO .. "?tcp=8443" } })
    s:kill()
    assert.is_true(s.world:run_until(function() return other.counters:get "registered" > 0 end, 120000))
    assert.is_true(n.carriage.over_tcp)
    s:kill(host)
    s.world:run(120000)
    assert.equal(8443, n.carriage.port) -- none answered, so that one is still in use
  end)

  it("of one name leads elsewhere when the name does", function()
    s = support.new { roles = support.NO_RELAY }
    local other, host = second()
    s.world.names["game.example"] = { core.addr.parse("198.51.100.10", 0) }
    local n = s:open(s:host("a", "203.0.113.7"), { server = "bodkin://game.example" })
    s.world.names["game.example"] = { core.addr.parse("198.51.100.20", 0) }
    s.world:run(60000)
    assert.equal(0, other.counters:get "registered") -- while the first one answers, nobody asks
    s.world.names["game.example"] = { core.addr.parse("198.51.100.10", 0) }
    assert.is_false(s:run(function() return n.fallback:look() end)) -- it is no other one
    s.world.names["game.example"] = { core.addr.parse("198.51.100.20", 0) }
    s:kill()
    s.world:run(60000)
    assert.is_true(other.counters:get "registered" >= 1)
    -- Back again, the same way.
    s:serve(s.hub, support.NO_RELAY)
    s.world.names["game.example"] = { core.addr.parse("198.51.100.10", 0) }
    s:kill(host)
    s.world:run(60000)
    assert.equal(ONE:sub(10), core.addr.format(n.server))
    assert.is_true(n:stats().registered)
  end)

  it("is gone on with over TCP by the family that works", function()
    s = support.new { tcp = true, ips = "2001:db8:1::1", listen = { "[2001:db8:1::1]:4433" } }
    local other = s:serve(s:host("second", "2001:db8:2::1"))
    local names = s.world.names
    names.one = { core.addr.parse("198.51.100.98", 0), core.addr.parse("2001:db8:1::1", 0) }
    names.two = { core.addr.parse("198.51.100.99", 0), core.addr.parse("2001:db8:2::1", 0) }
    local box = s:nat("nat", "203.0.113.1", { blocks = "udp" })
    local n = s:open(s:host("a", { "192.168.1.2", "2001:db8:3::1" }, box), { server = "bodkin://one,bodkin://two" })
    assert.is_true(n.carriage.over_tcp)
    s:kill()
    s.world:run(120000)
    assert.is_true(other.counters:get "registered" >= 1)
    assert.is_true(n:stats().registered)
  end)

  it("is asked in bounds while nobody answers", function()
    s = support.new { roles = support.NO_RELAY }
    local n = s:open(s:host("a", "203.0.113.7"), { server = ONE .. "," .. TWO })
    s:kill()
    s.world:run(60000)
    local before = n:stats().counters.request_sent
    s.world:run(600000)
    local per_minute = (n:stats().counters.request_sent - before) / 10
    assert.is_true(per_minute <= 125, per_minute)
    assert.is_true(per_minute >= 10, per_minute)
  end)
end)
