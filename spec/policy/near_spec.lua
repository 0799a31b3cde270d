-- SPDX-License-Identifier: MIT
-- The policies that ask where players are and what their NATs do: latency_first and host_and_clients.
local check = require "bodkin.policy.check"
local instances = require "bodkin.policy.instance"
local netsim = dofile "spec/policy/netsim.lua"
local network = require "bodkin.policy.network"
local population = dofile "spec/policy/population.lua"
local random = require "bodkin.sim.random"

-- A ticket at x ms on a line, with this kind of NAT.
local function at(x, kind) return network.pack(x and { x, 0, 0, 2 }, kind and netsim.class(kind) or 0) end

describe("the policy", function()
  local instance, no, props
  local function open(name, players)
    instance, no, props = assert(instances.new { name = name }), 0, { players = players }
  end
  local function add(net, since_ms, wanted)
    no = no + 1
    assert.is_true(instance:add({ no = no, app = "a", since_ms = since_ms or 0,
      members = { { { players = wanted or props.players }, nil, net } } }, false, since_ms or 0))
    return no
  end
  -- What one pass makes: lists of players, in order of their numbers, and the first match's host and data.
  local function tick(now_ms)
    local out, matches = {}, assert(instance:tick(now_ms))
    for i, m in ipairs(matches) do
      out[i] = m[1][1]
      table.sort(out[i])
    end
    return out, matches[1] and matches[1][2], matches[1] and matches[1][3]
  end
  after_each(function() instance:close() end)

  describe("latency_first", function()
    it("pairs the near ones, whoever came first", function()
      open("latency_first", 2)
      for _, x in ipairs { 0, 200, 10, 190 } do add(at(x, "port_restricted")) end
      local matches, _, data = tick(0)
      assert.same({ { 1, 3 }, { 2, 4 } }, matches)
      assert.same({ rtt_ms = 14 }, data)
    end)

    it("takes farther ones the longer both have waited", function()
      open("latency_first", 2)
      add(at(0, "port_restricted"))
      add(at(100, "port_restricted"), 3000)
      assert.same({}, tick(3000))
      assert.same({}, tick(5000)) -- the second one has not waited for that
      assert.same({ { 1, 2 } }, tick(7000))
    end)

    it("takes one that is not placed in time, too, and one whose NAT is not known as the average", function()
      open("latency_first", 2)
      add(at(nil, nil))
      add(at(0, "none"))
      assert.same({}, tick(0))
      assert.same({ { 1, 2 } }, tick(6000))
    end)

    it("would rather have a farther one that is reached", function()
      open("latency_first", 2)
      add(at(0, "symmetric_random"))
      add(at(2, "port_restricted"))
      add(at(30, "full_cone"))
      assert.same({ { 1, 3 } }, tick(0))
      add(at(0, "symmetric_random"))
      assert.same({}, tick(1000))
      assert.same({ { 2, 4 } }, tick(9000)) -- but not for ever
    end)

    it("makes groups in which every two are near, as large as its members want them", function()
      open("latency_first", 3)
      add(at(0, "none"), 0, 2)
      for _, x in ipairs { 0, -32, 35, 5 } do add(at(x, "none")) end
      local matches, host = tick(0)
      assert.same({ { 2, 4, 5 } }, matches) -- -32 and 5 are not near to one another
      assert.equal(5, host)
    end)
  end)

  describe("host_and_clients", function()
    it("makes the one in the middle the host", function()
      open("host_and_clients", 3)
      for _, x in ipairs { -30, 30, 0 } do add(at(x, "port_restricted")) end
      local matches, host, data = tick(0)
      assert.same({ { 1, 2, 3 } }, matches)
      assert.equal(3, host)
      assert.equal(34, data.rtt_ms)
    end)

    it("takes those with the shortest ways", function()
      open("host_and_clients", 3)
      for _, x in ipairs { 0, 60, 10, 12 } do add(at(x, "port_restricted")) end
      assert.same({ { 1, 3, 4 } }, tick(0))
    end)

    it("needs one that all others reach; the others need not reach each other", function()
      open("host_and_clients", 3)
      add(at(0, "symmetric_random"))
      add(at(1, "symmetric_random"))
      add(at(2, "port_restricted"))
      assert.same({}, tick(0))
      add(at(40, "full_cone"))
      local matches, host = tick(0)
      assert.equal(1, #matches)
      assert.equal(4, host)
    end)

    it("does not wait for ever for a host", function()
      open("host_and_clients", 2)
      add(at(0, "symmetric_random"))
      add(at(1, "symmetric_random"))
      assert.same({}, tick(10000))
      assert.same({ { 1, 2 } }, tick(21000))
    end)

    it("does not take the far ones at once", function()
      open("host_and_clients", 2)
      add(at(0, "none"))
      add(at(120, "none"))
      assert.same({}, tick(1000))
      assert.same({ { 1, 2 } }, tick(8000))
    end)
  end)
end)

describe("evaluation of policies that know the network", function()
  local N = 200
  -- Hosts in a few regions of a made-up world, each behind an access link.
  local function world(seed)
    local rng, where = random.new(seed, "world"), { [0] = { 60, 40, 0, 0 } }
    local regions = { { 0, 0, 0 }, { 90, 10, 0 }, { 40, 110, 20 }, { 130, 90, 60 } }
    for n = 1, N do
      local region, p = regions[(rng:integer() >> 1) % #regions + 1], {}
      for i = 1, 3 do p[i] = region[i] + 40 * rng:float() - 20 end
      p[4] = 1 + 10 * rng:float()
      where[n] = p
    end
    return function(a, b)
      local p, q, sum = where[a], where[b], 0
      for i = 1, 3 do sum = sum + (p[i] - q[i]) ^ 2 end
      return math.sqrt(sum) + p[4] + q[4]
    end
  end

  local rtt, clients = world(1), {}
  do
    local _, place = netsim.learn(N, rtt, 12, 1)
    local rng, kinds, at_ms = random.new(1, "clients"), {}, 0
    for kind, weight in pairs(population.NATS) do
      for _ = 1, weight do kinds[#kinds + 1] = kind end
    end
    table.sort(kinds)
    for n = 1, N do
      local kind = kinds[(rng:integer() >> 1) % #kinds + 1]
      at_ms = at_ms + 200 * rng:float()
      clients[n] = { arrives_ms = at_ms, kind = kind, net = network.pack(place(n), netsim.class(kind)) }
    end
  end

  -- The median way and the share of ways that fail between a host and the others, and the median wait.
  local function play(policy, props)
    for _, c in ipairs(clients) do c.props = props end
    local ms, failed = {}, 0
    local run = netsim.run { source = { name = policy }, clients = clients, until_ms = 90000 }
    for _, m in ipairs(run.matches) do
      local host = m.host or m.players[1]
      for _, n in ipairs(m.players) do
        if n ~= host then
          ms[#ms + 1], failed = rtt(n, host), failed + netsim.fails(clients[n].kind, clients[host].kind)
        end
      end
    end
    local r = { ms = netsim.median(ms), failed = failed / #ms, wait_ms = netsim.median(run.waits),
      matched = #run.waits }
    print(("# %s: ways of %.0f ms, %.1f %% of them fail, waits of %.2f s"):format(policy, r.ms, 100 * r.failed,
      r.wait_ms / 1000))
    return r
  end

  it("latency_first: less than half the way, and of the failures of first_come", function()
    local plain, r = play "first_come", play "latency_first"
    assert.is_true(r.ms <= 0.5 * plain.ms)
    assert.is_true(r.failed <= 0.5 * plain.failed)
    assert.is_true(r.matched >= N - 2 and r.wait_ms <= 2000)
  end)

  it("host_and_clients: hosts that are near and are reached", function()
    local plain, r = play "first_come", play("host_and_clients", { players = 4 })
    assert.is_true(r.ms <= 0.6 * plain.ms)
    assert.is_true(r.failed <= 0.2 * plain.failed)
    assert.is_true(r.matched >= N - 8 and r.wait_ms <= 3000)
  end)

  it("latency_first: of three thousand at once each finds one of the nearest, by the index", function()
    local rng, list, where = random.new(2, "crowd"), {}, {}
    for n = 1, 3000 do
      where[n] = { 300 * rng:float(), 300 * rng:float(), 100 * rng:float(), 2 }
      list[n] = { arrives_ms = 0, net = network.pack(where[n], netsim.class "none") }
    end
    local run, ms = netsim.run { source = { name = "latency_first" }, clients = list, until_ms = 1000 }, {}
    for _, m in ipairs(run.matches) do
      local p, q, sum = where[m.players[1]], where[m.players[2]], 0
      for i = 1, 3 do sum = sum + (p[i] - q[i]) ^ 2 end
      ms[#ms + 1] = math.sqrt(sum) + 4
    end
    print(("# of 3,000 at once %d are matched in a second, their ways are %.0f ms"):format(#run.waits,
      netsim.median(ms)))
    assert.is_true(#run.waits > 2500)
    assert.is_true(netsim.median(ms) < 30)
  end)

  it("are fit for bodkin check", function()
    for _, name in ipairs { "latency_first", "host_and_clients" } do
      local report = assert(check.run({ name = name }, {}))
      assert.is_true(report.matches > 10, name)
      assert.is_true(report.most < 5000000, report.most)
    end
  end)
end)
