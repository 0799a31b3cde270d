-- SPDX-License-Identifier: MIT
-- That each kind of NAT is taken for what it is, by servers at one address, two ports, two IPs and both.
local behaviour = require "bodkin.client.behaviour"
local core = require "bodkin.core"
local nats = require "bodkin.sim.nat"
local servers = require "bodkin.servers"
local support = require "spec.client.support"
local theory = require "bodkin.sim.theory"

local addr = core.addr
local ALL = { EI = true, AD = true, APD = true }

local function set(...)
  local out = {}
  for _, name in ipairs { ... } do out[name] = true end
  return out
end

-- A world whose server is at these addresses; fn(s, at) with the first of them.
local function with(listen, options, fn)
  local s = support.new(options)
  local host = s.world:host { name = "probed", ip = { "198.51.100.20", "198.51.100.21" } }
  local server = assert(servers.open(host.env, { listen = listen, roles = { "address" }, keys = { support.key } }))
  fn(s, addr.parse(listen[1], 0), host)
  server:close()
  s:close()
end

local one, ports, ips = { "198.51.100.20:4433" }, { "198.51.100.20:4433", "198.51.100.20:4434" },
  { "198.51.100.20:4433", "198.51.100.21:4433" }
local both = { "198.51.100.20:4433", "198.51.100.20:4434", "198.51.100.21:4433", "198.51.100.21:4434" }

local function behind(s, kind, options)
  if kind == "none" then return s:host("client", "203.0.113.9") end
  if kind == "firewall" then return s:host("client", "203.0.113.9", s:nat("nat", nil, { kind = kind })) end
  local o = { kind = kind }
  for k, v in pairs(options or {}) do o[k] = v end
  return s:host("client", "192.168.1.2", s:nat("nat", "203.0.113.1", o))
end

local function discover(s, host, at, options)
  return s:run(function() return behaviour.discover(host.env, at, options) end, 30000)
end

describe("a client that looks at its NAT", function()
  for kind, b in pairs(nats.kinds) do
    local is = theory.behaviour(kind)
    local nat = b.mapping ~= nil

    it("takes " .. kind .. " for that, asking two IPs of two ports each", function()
      for seed = 1, 3 do
        with(both, { seed = seed, delay_ms = 10 + 20 * seed }, function(s, at)
          local found = assert(discover(s, behind(s, kind), at))
          assert.same(set(is.mapping), found.mapping)
          assert.same(set(is.filtering), found.filtering)
          assert.equal(nat, found.nat)
          if is.mapping == "EI" then assert.equal(is.race or false, found.race) end
          local expect = { random = "random", sequential = "sequential" }
          assert.equal(expect[b.ports] or "preserved", found.ports)
          assert.equal(4, #found.asked)
          if nat and is.mapping == "EI" then assert.is_false(found.hairpin) end
        end)
      end
    end)

    it("tells of " .. kind .. " what two ports of one IP can tell, and no more", function()
      with(ports, { delay_ms = 20 }, function(s, at)
        local found = assert(discover(s, behind(s, kind), at))
        assert.same(not nat and set "EI" or is.mapping == "APD" and set "APD" or set("EI", "AD"), found.mapping)
        assert.same(is.filtering == "APD" and set "APD" or set("EI", "AD"), found.filtering)
      end)
    end)

    it("tells of " .. kind .. " nearly nothing where the server has one address", function()
      with(one, { delay_ms = 20 }, function(s, at)
        local found = assert(discover(s, behind(s, kind), at))
        assert.same(nat and ALL or set "EI", found.mapping)
        assert.same(ALL, found.filtering)
        assert.equal(nat, found.nat)
      end)
    end)
  end

  it("learns the mapping from two IPs, and from a STUN server of somebody else's", function()
    for kind, expect in pairs { port_restricted = set "EI", symmetric_random = set("AD", "APD") } do
      with(ips, { delay_ms = 20 }, function(s, at)
        assert.same(expect, assert(discover(s, behind(s, kind), at)).mapping)
      end)
      with(one, { delay_ms = 20 }, function(s, at)
        local more = { { addr = addr.parse("198.51.100.10:4433", 0), stun = true } }
        local found = assert(discover(s, behind(s, kind), at, { more = more }))
        assert.same(expect, found.mapping)
        assert.same(ALL, found.filtering)
      end)
    end
  end)

  it("finds hairpinning", function()
    for _, kind in ipairs { "full_cone", "port_restricted" } do
      with(both, { delay_ms = 20 }, function(s, at)
        assert.is_true(assert(discover(s, behind(s, kind, { hairpin = true }), at)).hairpin)
      end)
    end
  end)

  it("is as sure under loss", function()
    for seed = 1, 10 do
      with(both, { seed = seed, delay_ms = 20, loss = 0.1 }, function(s, at)
        local found = assert(discover(s, behind(s, "address_restricted"), at))
        assert.same(set "EI", found.mapping)
        assert.same(set "AD", found.filtering)
      end)
    end
  end)

  it("does not take a server that stopped for a filter", function()
    with(both, { delay_ms = 20 }, function(s, at, host)
      local client = behind(s, "full_cone")
      local record, n = s.world.net.record, 0
      s.world.net.record = function(event, src, dst, bytes)
        record(event, src, dst, bytes)
        if event == "recv" and bytes:byte(2) == 41 and n == 0 then
          n = n + 1
          host:sleep()
          s.world.loop:timer(5000, function() host:wake() end)
        end
      end
      local found = assert(discover(s, client, at))
      assert.equal(1, n)
      assert.same(ALL, found.filtering)
      assert.same(set "EI", found.mapping)
    end)
  end)

  describe("and at how long a mapping lives", function()
    local function lifetime(s, host, at, options)
      return s:run(function() return behaviour.lifetime(host.env, at, options) end, 200000)
    end

    it("finds it between two silences", function()
      for timeout_ms, expect in pairs { [30000] = { at_least_s = 25, below_s = 35 },
        [60000] = { at_least_s = 50, below_s = 70 }, [300000] = { at_least_s = 130 },
        [5000] = { at_least_s = 0, below_s = 15 } } do
        with(one, { delay_ms = 20 }, function(s, at)
          local host = behind(s, "port_restricted", { timeout_ms = timeout_ms })
          local began = host.env.now()
          assert.same(expect, lifetime(s, host, at))
          assert.is_true(host.env.now() - began < 140e6)
        end)
      end
    end)

    it("takes a longer silence that was answered for more than a shorter one that was not", function()
      local outlives = behaviour.outlives
      finally(function() behaviour.outlives = outlives end)
      function behaviour.outlives(_, _, silence_s) return silence_s == 10 or silence_s == 30 end
      with(one, {}, function(s, at)
        local host = s:host("c", "203.0.113.9")
        assert.same({ at_least_s = 30, below_s = 40 }, lifetime(s, host, at, { steps_s = { 10, 20, 30, 40, 50 } }))
      end)
    end)

    it("tries one in which more was sent, as it is in use, where that is wanted", function()
      with(one, {}, function(s, at)
        local host = behind(s, "port_restricted", { timeout_ms = 60000 })
        for _, ripe in ipairs { false, true } do
          local began = host.env.now()
          assert.is_true(s:run(function() return behaviour.outlives(host.env, at, 4, { ripe = ripe }) end))
          assert.equal(ripe and 6 or 4, (host.env.now() - began) // 1000000)
        end
      end)
    end)

    it("says that the server stopped", function()
      with(one, {}, function(s)
        local found, err, code = lifetime(s, s:host("c", "203.0.113.9"), addr.parse("198.51.100.77:4433", 0))
        assert.is_nil(found)
        assert.equal("timeout", code)
        assert.equal("198.51.100.77:4433 stopped answering", err)
      end)
    end)
  end)

  -- A server of two ports that tells of these other addresses, and of where it sees a client what seen(from) says: the
  -- first of its own addresses, and what closes it.
  local function liar(s, others, seen)
    local env = s:host("liar", "198.51.100.30").env
    local router, message = core.router(), require "bodkin.message"
    router:reply_schemas(message.all)
    router:on(message.address_request, nil, function(reply, from, tx)
      reply("address_report", tx, addr.mask(seen(from), tx), ("p"):rep(20))
    end)
    router:on(message.probe_request, nil, function(reply, _, tx, _, via) reply("probe_report", tx, via, others) end)
    local socks = {}
    for i, port in ipairs { 4433, 4434 } do
      socks[i] = assert(env.udp(addr.parse("198.51.100.30", port)))
      socks[i]:router(router)
    end
    return socks[1]:addr(), function() for _, sock in ipairs(socks) do sock:close() end end
  end

  it("is sent nowhere by a server but to public addresses, and to few", function()
    local s = support.new { delay_ms = 5 }
    local at, close = liar(s, { addr.parse("192.168.1.1:53", 0), addr.parse("127.0.0.1:9", 0),
      addr.parse("192.0.2.77:53", 0), addr.parse("198.51.100.30:0", 0) }, function(from) return from end)
    local found = assert(discover(s, behind(s, "port_restricted"), at))
    assert.same({ "198.51.100.30:4433" }, found.asked)
    assert.same(set("AD", "APD"), found.filtering) -- what came from its first address let nobody in
    local to = {}
    for _, d in ipairs(s:sent "192.168.1.2") do to[d.to] = (to[d.to] or 0) + 1 end
    for text, n in pairs(to) do
      assert.is_true(text == "198.51.100.30:4433" or text:find "^203%.0%.113%.1:" or text == "192.0.2.77:53" and n <= 8,
        text .. " " .. n)
    end
    close()
    s:close()
  end)

  it("cannot tell hairpinning where another mapping was asked for than is used", function()
    for kind, expected in pairs { port_restricted = "no", address_dependent = "unknown" } do
      with(both, { delay_ms = 20 }, function(s, at)
        local hairpin = assert(discover(s, behind(s, kind), at)).hairpin
        assert.equal(expected, hairpin == nil and "unknown" or hairpin and "yes" or "no")
      end)
    end
  end)

  it("asks no more than three other addresses that a server names", function()
    local s, others = support.new { delay_ms = 5 }, {}
    for i = 1, 4 do others[i] = addr.parse("192.0.2." .. i, 53) end
    local at, close = liar(s, others, function(from) return from end)
    assert(discover(s, behind(s, "port_restricted"), at))
    local to = {}
    for _, d in ipairs(s:sent "192.168.1.2") do to[d.to] = true end
    for i = 1, 4 do assert.equal(i <= 3, to[("192.0.2.%d:53"):format(i)] or false) end
    close()
    s:close()
  end)

  it("tries no hairpinning where a public server claims to see it at an inside address", function()
    for _, text in ipairs { "192.168.1.1:53", "127.0.0.1:9", "100.64.0.1:53", "169.254.0.1:53" } do
      local s = support.new { delay_ms = 5 }
      local at, close = liar(s, { addr.parse("198.51.100.30:4434", 0) }, function() return addr.parse(text, 0) end)
      local found = assert(discover(s, behind(s, "port_restricted"), at))
      assert.is_nil(found.hairpin)
      for _, d in ipairs(s:sent "192.168.1.2") do assert.matches("^198%.51%.100%.30:", d.to) end
      close()
      s:close()
    end
  end)

  it("says that nobody answers", function()
    local s = support.new {}
    local found, err, code = discover(s, s:host("client", "203.0.113.9"), addr.parse("198.51.100.77:4433", 0))
    assert.is_nil(found)
    assert.equal("timeout", code)
    assert.equal("no answer from 198.51.100.77:4433 after 5 s: is the server running, and UDP 4433 open there?", err)
    s:close()
  end)
end)

describe("port choice", function()
  it("is preserved, counted or random, or there is too little to tell", function()
    assert.equal("preserved", behaviour.ports({ { 5, 5 }, { 6, 6 } }, { 900 }))
    assert.equal("sequential", behaviour.ports({ { 5, 1005 }, { 6, 1006 } }, { 1006, 1009 }))
    assert.equal("random", behaviour.ports({ { 5, 1005 }, { 6, 1006 } }, { 1004 }))
    assert.equal("random", behaviour.ports({ { 5, 1005 }, { 6, 9006 } }, { 9007 }))
    assert.equal("unknown", behaviour.ports({ { 5, 1005 }, { 6, 1006 } }, {}))
  end)
end)
