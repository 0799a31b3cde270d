-- SPDX-License-Identifier: MIT
-- The lab itself: that its NATs are what they are called, that its delays and losses are as told, and that it leaves
-- nothing behind. Needs root and network namespaces; without them every case fails and says so. Of the runs of a
-- soak, which is about the cases, only the first has these.

if (os.getenv "SOAK" or "1") ~= "1" then return end

local lab = require "bodkin.lab"
local plan = require "bodkin.lab.plan"
local shell = require "bodkin.lab.shell"
local support = require "spec.lab.support"

local left, nothing_left = support.left, support.nothing_left
local pid = shell.self()

local function up(options)
  return assert(lab.up(options))
end

local function percentile(sorted, p)
  return sorted[math.max(1, math.ceil(#sorted * p))]
end

-- What arrives of `count` stamps from one host at another, in that order: { number, one-way delay in µs }.
local function arrivals(net, from, to, count, interval_ms, ttl)
  local receiver = net[to]:agent("receiver", net[to].addr, 40000)
  assert(receiver:expect "^ready")
  local sender = net[from]:agent("sender", net[from].addr, net[to].addr, 40000, count, interval_ms,
    ttl or "")
  assert.equal(0, sender:wait(20000))
  shell.sleep_ms(200)
  receiver:kill "KILL"
  local list = {}
  for _, line in ipairs(receiver:lines()) do
    local n, us = line:match "^(%d+) (%d+)$"
    if n then list[#list + 1] = { tonumber(n), tonumber(us) } end
  end
  return list
end

-- Their delays, sorted.
local function delays(...)
  local list = arrivals(...)
  for i, arrival in ipairs(list) do list[i] = arrival[2] end
  table.sort(list)
  return list
end

describe("the lab", function()
  after_each(function() nothing_left(pid) end)

  local kinds = {}
  for kind in pairs(lab.kinds) do kinds[#kinds + 1] = kind end
  table.sort(kinds)
  for first = 1, #kinds, 4 do
    it("makes NATs that are " .. table.concat(kinds, ", ", first, math.min(first + 3, #kinds)), function()
      local net <close> = up { a = kinds[first], b = kinds[first + 1], c = kinds[first + 2], d = kinds[first + 3],
        delay_ms = { a = 5, b = 2, c = 1, d = 0 } }
      assert(net:probe())
    end)
  end

  it("puts two hosts behind one NAT, which need not send their packets back", function()
    local net <close> = up { a = "port_restricted", same_nat = true }
    local found = assert(net:probe())
    assert.equal(found.a.public, found.b.public)
    assert.equal("no", found.b.hairpin)
    assert.equal(5, #delays(net, "a", "b", 5, 1))
  end)

  it("puts two hosts behind one firewall", function()
    local net <close> = up { a = "firewall", same_nat = true }
    assert(net:probe())
    assert.equal(5, #delays(net, "a", "b", 5, 1))
  end)

  it("makes NATs that hairpin, on request, and stay what they are called", function()
    for _, kind in ipairs { "full_cone", "port_restricted" } do
      local net <close> = up { a = kind, same_nat = true, hairpin = true }
      assert(net:probe())
    end
  end)

  it("makes mappings that lapse when it is told to", function()
    local net <close> = up { a = "port_restricted", b = "carrier", udp_timeout_s = 2 }
    local found = assert(net:probe { silence_ms = 3500 })
    assert.equal("false", found.a.outlives_silence)
    assert.equal("false", found.b.outlives_silence)
    net:down()
    local longer <close> = up { a = "port_restricted", b = "carrier", udp_timeout_s = 20 }
    found = assert(longer:probe { silence_ms = 3500 })
    assert.equal("true", found.a.outlives_silence)
    assert.equal("true", found.b.outlives_silence)
  end)

  it("notices a NAT that is not what it is called", function()
    local net <close> = up { a = "full_cone", b = "plain_linux",
      claim = { a = "port_restricted", b = "port_restricted" } }
    local found, message = net:probe()
    assert.is_nil(found)
    assert.matches("a is not port_restricted: the filtering is open, not address_port", message, 1, true)
    assert.matches("b is not port_restricted: that unsolicited input moves the mapping is true", message, 1, true)
    net:down()
    local other <close> = up { a = "port_restricted", b = "two_addresses", c = "symmetric_random",
      d = "address_dependent", claim = { a = "carrier", b = "port_restricted", c = "symmetric_sequential",
        d = "symmetric_random" } }
    found, message = other:probe()
    assert.is_nil(found)
    assert.matches("c is not symmetric_sequential: the choice of ports is random, not sequential", message, 1, true)
    assert.matches("d is not symmetric_random: the mapping is address, not address_port", message, 1, true)
    assert.matches("a is not carrier: the least TTL to the server is 4, not 5", message, 1, true)
    assert.matches("b is not port_restricted: the mapping is pool, not endpoint", message, 1, true)
  end)

  it("has four clients and three servers when asked", function()
    local net <close> = up { a = "full_cone", b = "carrier", c = "none", d = "port_restricted", servers = 3 }
    assert(net:probe())
    for _, server in ipairs { "server", "server2", "server3" } do
      assert.equal(5, #delays(net, "d", server, 5, 1))
    end
  end)

  it("has at least three routers between two NATs", function()
    -- Two hosts stand here where the NATs would; the third router, an edge, is where a TTL of 3 ends.
    local net <close> = up { a = "none", b = "none" }
    assert.equal(0, #delays(net, "a", "b", 5, 1, 3))
    assert.equal(5, #delays(net, "a", "b", 5, 1, 4))
  end)

  it("delays to the fraction of a millisecond", function()
    local net <close> = up { a = "none", b = "none", delay_ms = { a = 20, b = 20, server = 0, ["b>a"] = 7.5 } }
    -- What is late because the machine was busy with something else is not the copier's: the best of eight counts.
    local function check(from, to, want_us)
      local median, p99
      for _ = 1, 8 do
        local list = delays(net, from, to, 300, 3)
        median, p99 = percentile(list, 0.5), percentile(list, 0.99)
        print(("# delay %s to %s: %d of 300, least %d, median %d, p99 %d, most %d us"):format(from, to, #list, list[1],
          median, p99, list[#list]))
        assert.equal(300, #list)
        assert.is_true(list[1] >= want_us, "early: " .. list[1])
        if median - want_us <= 1000 and p99 - median <= 1000 then return end
      end
      error(("late: median %d, p99 %d"):format(median, p99))
    end
    check("a", "server", 20000)
    check("a", "b", 40000)
    check("b", "a", 7500)
  end)

  it("loses as much as it is told, the same with the same seed", function()
    local function received(seed)
      local net <close> = up { a = "none", b = "none", loss = { ["a>b"] = 0.3 }, seed = seed }
      assert.equal(400, #delays(net, "b", "a", 400, 1))
      return #delays(net, "a", "b", 400, 1)
    end
    local first = received(7)
    print(("# loss 0.3: %d of 400 received"):format(first))
    assert.is_true(first > 230 and first < 330, tostring(first))
    assert.equal(first, received(7))
  end)

  it("jitters, doubles and reorders as it is told, the same with the same seed", function()
    local function numbers(list)
      local out = {}
      for i, arrival in ipairs(list) do out[i] = arrival[1] end
      return out
    end
    local function seen(seed)
      local net <close> = up { a = "none", b = "none", seed = seed, jitter_ms = { ["a>b"] = 20 },
        duplicate = { ["b>a"] = 0.25 }, reorder = { ["a>server"] = 0.25 }, reorder_ms = 30 }
      return delays(net, "a", "b", 300, 1), numbers(arrivals(net, "b", "a", 300, 1)),
        arrivals(net, "a", "server", 300, 1)
    end
    local jittered, doubled, reordered = seen(3)
    assert.equal(300, #jittered)
    local median = percentile(jittered, 0.5)
    assert.is_true(median > 8000 and median < 12500, "median: " .. median)
    local last = percentile(jittered, 0.98) -- the latest few may have waited for the machine
    assert.is_true(jittered[1] < 2000 and jittered[300] > 18000 and last < 22000)
    local copies = #doubled - 300
    assert.is_true(copies > 50 and copies < 100, "copies: " .. copies)
    local held = 0
    for _, arrival in ipairs(reordered) do held = held + (arrival[2] > 1500 and 1 or 0) end
    assert.equal(300, #reordered)
    assert.is_true(held > 45 and held < 100, "held back: " .. held)
    print(("# jitter 20 ms: %.1f to %.1f, median %.1f; %d of 300 doubled; %d of 300 held back"):format(
      jittered[1] / 1000, jittered[300] / 1000, median / 1000, copies, held))
    assert.same(doubled, select(2, seen(3)))
    assert.not_same(doubled, select(2, seen(4)))
  end)

  it("probes in spite of loss, jitter, copies and reordering", function()
    local net <close> = up { a = "port_restricted", b = "full_cone", loss = 0.2, jitter_ms = 10, duplicate = 0.2,
      reorder = 0.2 }
    assert(net:probe())
  end)

  it("stands beside another lab", function()
    local one <close> = up { a = "full_cone", b = "none", delay_ms = 5 }
    local two <close> = up { a = "plain_linux", b = "none", delay_ms = 50 }
    assert(one:probe())
    assert(two:probe())
    one:down()
    assert(two:probe())
  end)

  it("is taken down after an error inside, twice without harm, and starts nothing then", function()
    local kept
    local ok, message = pcall(function()
      local net <close> = up { a = "port_restricted" }
      kept = net
      net.a:start { "sleep", "600" }
      error("on purpose")
    end)
    assert.is_false(ok)
    assert.matches("on purpose", message)
    nothing_left(pid)
    kept:down()
    assert.equal("closed", select(3, kept:probe()))
    assert.has_error(function() kept.a:start { "true" } end, "start: this lab is down")
  end)

  it("gives codes, output and input of what runs in it", function()
    local net <close> = up {}
    local p = net.a:start { "sh", "-c", "echo one; read line; echo got $line; exit 3", stdin = "pipe" }
    assert.equal("one", p:expect "one")
    assert.equal("timeout", select(3, p:wait(50)))
    p:write "two\n"
    assert.equal(3, p:wait(2000))
    assert.same({ "one", "got two" }, p:lines())
    local killed = net.b:start { "sleep", "600" }
    killed:kill "KILL"
    assert.equal(137, killed:wait(2000))
    assert.equal(127, net.a:start({ "no-such-command" }):wait(2000))
  end)

  -- Another process that brings a lab up and waits; its number once the lab stands.
  local function owner()
    local base = os.tmpname()
    shell.write(base, ([[
      package.path, package.cpath = %q, %q
      local net = assert(require("bodkin.lab").up { a = "port_restricted" })
      net.a:start { "sleep", "600" }
      print(require("bodkin.lab.shell").self(), "")
      io.stdout:flush()
      io.read()
    ]]):format(package.path, package.cpath))
    local pipe = io.popen("exec lua5.4 " .. base, "r")
    local of = pipe:read "n"
    os.remove(base)
    return of, pipe
  end

  it("goes with its process, also when that is killed", function()
    local of, pipe = owner()
    assert.matches("nat%-a", left(of))
    shell.run("kill -9 " .. of)
    nothing_left(of)
    pipe:close()
  end)

  it("sweeps what a killed lab left", function()
    local of, pipe = owner()
    local _, keepers = shell.run(("pgrep -f 'bodkin-lab-%d-.*keeper.sh'"):format(of))
    shell.run("kill -9 " .. keepers:gsub("\n", " ") .. of)
    pipe:close()
    assert.matches("nat%-a", left(of))
    local net <close> = up {}
    assert(net:check())
    nothing_left(of)
  end)

  it("says in one sentence why there can be none", function()
    local script = ("package.path = %q; io.write(select(2, require('bodkin.lab').up {}))"):format(package.path)
    local _, text = shell.run("setpriv --reuid 65534 --regid 65534 --clear-groups lua5.4 -e " .. shell.quote(script))
    assert.matches("^lab: cannot make a network namespace: not root %(uid 65534%); run as root [^\n]*$", text)
  end)

  it("takes the lab down when its setup fails, and names what failed", function()
    local broken = plan.setup
    plan.setup = function(p) return broken(p) .. "nft list table ip no_such_table\n" end
    local net, message, code = lab.up {}
    plan.setup = broken
    assert.is_nil(net)
    assert.equal("refused", code)
    assert.matches("No such file or directory", message)
  end)

  it("refuses what it does not know", function()
    assert.equal("invalid", select(3, lab.up { a = "symetric" }))
    assert.equal("invalid", select(3, lab.up { a = "none", same_nat = true }))
    assert.equal("invalid", select(3, lab.up { a = "carrier", b = "none", same_nat = true }))
    assert.equal("invalid", select(3, lab.up { a = "symmetric_random", hairpin = true }))
  end)
end)
