-- SPDX-License-Identifier: MIT
-- What a server learns of the network between its clients, and hands to its policies.
local client = require "spec.client.support"
local core = require "bodkin.core"
local network = require "bodkin.policy.network"
local outcome = require "bodkin.outcome"
local random = require "bodkin.sim.random"
local sources = require "bodkin.policy.source"
local support = require "spec.servers.support"

local who, only, wire = support.who, support.only, core.wire
local HOUR_MS = 3600000
local restricted = { mapping = "endpoint", filtering = "address_port" }
local symmetric = { mapping = "address_port", filtering = "address_port" }

local function at(n) return support.addr(("198.51.%d.%d:40000"):format(n // 200, n % 200 + 1)) end

local function connected(rtt_ms, more)
  local r = { state = "connected", path = "direct", via = "srflx", confirmed_ms = 20, rtt_ms = rtt_ms,
    lasted_ms = 1000 }
  for k, v in pairs(more or {}) do r[k] = v end
  return r
end

local function failed(behaviour)
  return { state = "closed", reason = "no_path", lasted_ms = 10000, behaviour = behaviour }
end

describe("what a server knows of the network", function()
  local s, no
  local function open(options)
    options = options or {}
    options.roles = { "matching" }
    s, no = support.server(options), 0
  end
  after_each(function() s:close() end)

  local function register(n, rtt_ms) s:register(who(n), at(n), { rtt_ms = rtt_ms }) end

  -- Matches two who are registered; returns the match.
  local function match(a, b)
    local sent = s:select(who(b), at(b), { target = who(a).id })
    s:ack(sent)
    return only(sent, "selected")[1].match
  end

  -- n says of a match with peer what is in r.
  local function tell(n, id, peer, r)
    no = no + 1
    s:one(who(n), at(n), "outcome", s:next_tx(), id, who(peer).id, outcome.pack(r, no))
  end

  local function of(n)
    local bytes = s.server.network:of(who(n).id)
    return bytes and wire.decode(bytes)
  end

  it("nothing at first; then the way to the server, which is a bound for all others", function()
    open()
    assert.is_nil(of(1))
    register(1)
    assert.is_nil(of(1))
    register(1, 40)
    assert.same({ 0, 0, 0, 40, wire.null }, of(1))
    register(1, 0)
    assert.same({ 0, 0, 0, 1, wire.null }, of(1))
  end)

  it("a place, once it has measured four peers", function()
    open()
    for n = 1, 5 do register(n, 30) end
    for n = 2, 5 do
      assert.same({ 0, 0, 0, 30, wire.null }, of(1))
      tell(1, match(1, n), n, connected(50))
    end
    local placed = of(1)
    assert.is_true(math.abs(placed[1]) + math.abs(placed[2]) + math.abs(placed[3]) > 1)
    assert.same({ 0, 0, 0, 30, wire.null }, of(2)) -- it has said nothing itself
  end)

  it("who is where, after a dozen matches each of which both tell", function()
    open()
    local rng, N, where = random.new(1, "places"), 40, {}
    local function unit() return rng:float() end
    local function rtt(a, b)
      local sum = 0
      for i = 1, 3 do sum = sum + (where[a][i] - where[b][i]) ^ 2 end
      return math.sqrt(sum) + where[a][4] + where[b][4]
    end
    where[0] = { 0, 0, 0, 0 }
    for n = 1, N do
      where[n] = { 160 * unit() - 80, 160 * unit() - 80, 160 * unit() - 80, 5 * unit() }
      register(n, math.floor(rtt(0, n) + 0.5))
    end
    for _ = 1, 6 do
      for n = 1, N do
        local peer = (n + (rng:integer() >> 1) % (N - 1)) % N + 1
        local id = match(n, peer)
        tell(n, id, peer, connected(rtt(n, peer)))
        tell(peer, id, n, connected(rtt(n, peer)))
      end
    end
    local off = {}
    for a = 1, N do
      for b = 1, a - 1 do
        local p, q = of(a), of(b)
        local function packed(c) return core.coord.pack(c[1], c[2], c[3], c[4], 0) end
        off[#off + 1] = math.abs(core.coord.distance(packed(p), packed(q)) - rtt(a, b)) / rtt(a, b)
      end
    end
    table.sort(off)
    print(("# after a dozen matches each: off by %.1f %%"):format(100 * off[#off // 2]))
    assert.is_true(off[#off // 2] < 0.2)
  end)

  it("only of who speaks: what another says moves nobody else", function()
    open()
    for n = 1, 6 do register(n, 30) end
    for n = 2, 6 do tell(n, match(1, n), 1, connected(1)) end
    assert.same({ 0, 0, 0, 30, wire.null }, of(1))
  end)

  it("nothing of who was away for two hours, and of no more clients than it may", function()
    open()
    register(1, 30)
    s:advance(HOUR_MS - 60000)
    assert.same({ 0, 0, 0, 30, wire.null }, of(1)) -- its registration is long gone
    s:advance(HOUR_MS + 60000)
    assert.is_nil(of(1))
    s:close()
    open { limits = { places = 4 } }
    for n = 1, 40 do register(n, 30) end
    local known = 0
    for n = 1, 40 do known = known + (of(n) and 1 or 0) end
    assert.is_true(known >= 4 and known <= 8, known)
  end)

  describe("of NATs", function()
    local function chance(a, b)
      return s.server.network.table:chance(network.of_words(a), network.of_words(b))
    end

    it("counts what became of pairs, each once, whoever tells", function()
      open()
      local before = chance(restricted, symmetric)
      register(1)
      register(2)
      local id = match(1, 2)
      tell(1, id, 2, { state = "seeking", lasted_ms = 1000, behaviour = restricted })
      assert.equal(before, chance(restricted, symmetric))
      tell(2, id, 1, connected(50, { behaviour = symmetric }))
      local after = chance(restricted, symmetric)
      assert.is_true(after > before)
      tell(1, id, 2, connected(50))
      tell(2, id, 1, connected(50))
      tell(1, id, 2, failed(restricted))
      assert.equal(after, chance(restricted, symmetric))
      assert.equal(network.of_words(symmetric), of(2)[5])
    end)

    it("takes back that a pair goes by a relay, once it does not", function()
      open()
      register(1)
      register(2)
      local id, before = match(1, 2), chance(restricted, restricted)
      tell(1, id, 2, { state = "seeking", behaviour = restricted })
      tell(2, id, 1, { state = "connected", path = "relay", via = "relay", confirmed_ms = 50, lasted_ms = 2000,
        behaviour = restricted })
      assert.equal(before, chance(restricted, restricted))
      tell(2, id, 1, { state = "connected", path = "relay", via = "relay", confirmed_ms = 50, lasted_ms = 9000 })
      assert.is_true(chance(restricted, restricted) < before)
      tell(2, id, 1, connected(40, { lasted_ms = 20000 }))
      assert.is_true(chance(restricted, restricted) > before)
    end)

    it("does not count who is behind one NAT, nor a client that tells of a hundred", function()
      open { limits = { pending = 1000 } }
      local here, there = support.addr "198.51.100.1:1000", support.addr "198.51.100.1:2000"
      s:register(who(1), here)
      s:register(who(2), there)
      local sent = s:select(who(2), there, { target = who(1).id })
      local before = chance(nil, nil)
      s:one(who(2), there, "outcome", s:next_tx(), only(sent, "selected")[1].match, who(1).id,
        outcome.pack(failed(), 1))
      assert.equal(before, chance(nil, nil))
      for n = 11, 110 do
        register(n)
        tell(n, match(11, n > 11 and n or 12), n > 11 and 11 or 12, { state = "seeking" })
      end
      register(10)
      for n = 11, 110 do tell(10, match(n, 10), n, failed(symmetric)) end
      local told = s.server.network.table.total
      local sum = 0
      for _, count in pairs(told) do sum = sum + count end
      assert.equal(32, sum)
      s:advance(60000)
      register(10)
      register(11)
      tell(10, match(11, 10), 11, failed(symmetric))
      sum = 0
      for _, count in pairs(told) do sum = sum + count end
      assert.equal(33, sum)
    end)
  end)

  it("in the policies: where a ticket is when it comes, and what was learned of NATs meanwhile", function()
    open { queues = { ["*"] = { policy = sources.text [[
      local bodkin = require "bodkin"
      return bodkin.policy { size = 3, admit = function(t)
        if t.id == 1 then return true end
        return false, ("%g %.2f"):format(bodkin.rtt_ms(t, 1) or -1, bodkin.reach(t, 1))
      end }]] } } }
    local function queued(n)
      local tx = s:next_tx()
      return s:ask(who(n), at(n), "enqueue", tx, tx .. "abcd", "q", wire.encode {})[1]
    end
    register(1, 20)
    register(2, 30)
    register(3)
    assert.equal("queued", queued(1).name_of)
    local average = ("%.2f"):format(network.new():chance(0, 0))
    assert.equal("50 " .. average, queued(2).text)
    assert.equal("-1 " .. average, queued(3).text)
    for n = 4, 24 do
      register(n)
      tell(n, match(n - 1, n), n - 1, failed())
    end
    assert.equal("50 " .. average, queued(2).text) -- told each ten seconds at most
    s:advance(10000)
    tell(24, match(5, 24), 5, failed())
    assert.equal(1, s.server.network.version)
    assert.equal(("50 %.2f"):format(s.server.network.table:chance(0, 0)), queued(2).text)
    assert.is_true(s.server.network.table:chance(0, 0) < 0.5)
  end)
end)

describe("a server of clients that meet", function()
  it("knows from their own reports how far they are from each other, also those who never met", function()
    local where, rng = { server = { 0, 0 } }, random.new(4, "where")
    local function one_way_ms(from, to)
      local a, b = where[from], where[to]
      return 2 + math.sqrt((a[1] - b[1]) ^ 2 + (a[2] - b[2]) ^ 2)
    end
    local s = client.new { delay_ms = one_way_ms, roles = client.NO_RELAY }
    local nodes, N = {}, 12
    for n = 1, N do
      where["h" .. n] = { 60 * rng:float() - 30, 60 * rng:float() - 30 }
      nodes[n] = s:open(s:host("h" .. n, "203.0.113." .. n))
    end
    -- Two rooms at a time, of others each time; the two hosts never meet.
    for round = 1, 3 do
      local matches = {}
      for room = 1, 2 do
        local host = nodes[room]
        local m = s:run(function() return assert(host:host()) end)
        for n = 3, N do
          if (n * round + n // 3) % 2 == room - 1 then
            matches[#matches + 1] = s:run(function() return assert(nodes[n]:join(m.code)) end)
          end
        end
        matches[#matches + 1] = m
      end
      s.world:run(4000)
      for _, m in ipairs(matches) do s:run(function() m:leave() end) end
      s.world:run(1000)
    end
    local off = {}
    for a = 1, N do
      for b = 1, a - 1 do
        local p = wire.decode(s.server.network:of(core.crypto.unhex(nodes[a].id)))
        local q = wire.decode(s.server.network:of(core.crypto.unhex(nodes[b].id)))
        local guess = core.coord.distance(core.coord.pack(p[1], p[2], p[3], p[4], 0),
          core.coord.pack(q[1], q[2], q[3], q[4], 0))
        local truth = 2 * one_way_ms("h" .. a, "h" .. b)
        off[#off + 1] = math.abs(guess - truth) / truth
      end
    end
    table.sort(off)
    print(("# after three rooms each: off by %.1f %%"):format(100 * off[#off // 2]))
    assert.is_true(off[#off // 2] < 0.2)
    s:close()
  end)
end)
