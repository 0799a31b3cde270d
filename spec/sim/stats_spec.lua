-- SPDX-License-Identifier: MIT
-- What is counted, and that it is what happened.
local nats = require "bodkin.sim.nat"
local oracle = assert(loadfile("spec/model/oracle.lua", "t"))()
local run = require "bodkin.sim.run"
local scenarios = require "bodkin.scenario"
local stats = require "bodkin.sim.stats"
local theory = require "bodkin.sim.theory"

describe("theory", function()
  it("is what docs/NAT.md says, for each two kinds", function()
    for a in pairs(nats.kinds) do
      for b in pairs(nats.kinds) do
        local seen = {}
        for late_a = 0, 1 do -- who starts late may find the other's packets there already
          for late_b = 0, 1 - late_a do
            seen[oracle.verdict({ boxes = { { kind = a } }, start_ms = late_a * 100 },
              { boxes = { { kind = b } }, start_ms = late_b * 100 },
              { min_ms = { ab = 1, ba = 1 }, max_ms = { ab = 5, ba = 5 }, lossless = true })] = true
          end
        end
        local one = next(seen)
        assert.equal(next(seen, one) and "may" or one, theory.verdict(a, b), a .. " " .. b)
      end
    end
  end)

  it("is what docs/NAT.md says, for each two behaviours, and why", function()
    local long = { EI = "endpoint", AD = "address", APD = "address_port" }
    local function words(name)
      local mapping, filtering = name:match "^(%u+)/(%u+)$"
      return { mapping = long[mapping], filtering = long[filtering] }
    end
    local n = 0
    for a, row in pairs(oracle.theory.matrix) do
      for b, verdict in pairs(row) do
        local got, letter = theory.of(words(a), words(b))
        assert.same({ verdict, oracle.theory.reasons[a][b] }, { got, letter }, a .. " " .. b)
        n = n + 1
      end
    end
    assert.equal(81, n)
  end)

  it("says what holds for all that is not known", function()
    local unknown = { mapping = "unknown", filtering = "unknown" }
    assert.same({ "yes", "a" }, { theory.of({ mapping = "endpoint", filtering = "endpoint" }, unknown) })
    assert.same({ "may" }, { theory.of({ mapping = "endpoint", filtering = "address_port" }, unknown) })
    assert.same({ "may" }, { theory.of(unknown, unknown) })
    local random = { mapping = "address_port", filtering = "address_port" }
    assert.same({ "no" }, { theory.of(random, { mapping = "address_port", filtering = "unknown" }) })
    assert.same({ "no", "e" }, { theory.of(random, { mapping = "endpoint", filtering = "address_port" }) })
  end)
end)

describe("percentiles", function()
  it("are values that occurred, by nearest rank", function()
    local list = {}
    for i = 1, 200 do list[i] = i end
    assert.equal(100, stats.percentile(list, 50))
    assert.equal(198, stats.percentile(list, 99))
    assert.equal(200, stats.percentile(list, 100))
    assert.equal(7, stats.percentile({ 7 }, 1))
    assert.is_nil(stats.percentile({}, 50))
  end)
end)

local function client(kind, wait_ms)
  return { kind = kind, wait_ms = wait_ms }
end

-- As run.play leaves it.
local function noted(pairs_of)
  return {
    scenario = scenarios.scenario { clients = 4, match = { queue = "q" } },
    clients = { client("none", 30), client("none", 10), client("none"), client("none", 20) },
    pairs = pairs_of, failures = { timeout = 2, limit = 1 }, first_ms = { 3, 1, 2 }, confirmed_ms = { 9 },
    server_errors = {}, arrived = 4, registered = 4, asked = 4,
  }
end

describe("a report", function()
  it("counts pairs: connected is confirmed at both ends", function()
    local a, b = client "port_restricted", client "full_cone"
    local report = stats.report(noted {
      { a = a, b = b, confirmed = { true, true }, path = "direct" },
      { a = b, b = a, confirmed = { true, true }, path = "direct", over = "left" },
      { a = a, b = b, confirmed = { true }, path = "direct", over = "no_path" },
      { a = a, b = b, confirmed = { [2] = true }, path = "direct" },
      { a = a, b = a, confirmed = { true, true }, path = "lan", together = true },
    })
    assert.same({ lan = 1, direct = 2, relay = 0, none = 1 }, report.paths)
    assert.equal(3, report.connected)
    assert.equal(4, report.tried)
    assert.equal(1, report.under_way)
    assert.equal(2, #report.pairs)
    assert.same({ a = "full_cone", b = "port_restricted", same_nat = false, connected = 2, tried = 3, under_way = 1,
      theory = "yes" }, report.pairs[1])
    local text = table.concat(stats.text(report), "\n")
    assert.truthy(text:find("full_cone %- port_restricted +2 +3 +66.7 %%  yes  <%- not as in theory"), text)
    assert.truthy(text:find("port_restricted, both behind one +1 +1  100.0 %%  yes\n"), text)
    assert.truthy(text:find("1 more were under way at the end", 1, true), text)
  end)

  it("has percentiles of waits and connect times, and what failed", function()
    local report, values = stats.report(noted {})
    assert.same({ n = 3, p50 = 20, p90 = 30, p99 = 30, max = 30 }, report.wait_ms)
    assert.same({ n = 3, p50 = 2, p90 = 3, p99 = 3, max = 3 }, report.first_ms)
    assert.same({ 10, 20, 30 }, values.wait_ms)
    assert.same({ { code = "limit", n = 1 }, { code = "timeout", n = 2 } }, report.failed)
    assert.equal(3, report.matched)
    local text = table.concat(stats.text(report), "\n")
    assert.truthy(text:find("4 waited in the queue q, 3 of them matched, 1 not\n", 1, true), text)
  end)

  it("has dashes where nothing happened", function()
    local empty = noted {}
    empty.clients, empty.first_ms, empty.confirmed_ms = {}, {}, {}
    local text = table.concat(stats.text((stats.report(empty))), "\n")
    assert.truthy(text:find("ticket to matched +%- +%- +%- +%- +0\n"), text)
  end)
end)

describe("a scenario that is played", function()
  local function play(fields)
    local scenario = assert(scenarios.check(fields))
    return stats.report(assert(run.play(scenario)))
  end

  it("connects what theory says connects, and nothing else", function()
    local kinds = {}
    for kind in pairs(nats.kinds) do kinds[kind] = 1 end
    local report = play { clients = 300, duration_s = 40, arrive_per_s = 15, nats = kinds, match = {} }
    assert.is_true(#report.pairs > 35)
    assert.equal(150, report.tried)
    for _, row in ipairs(report.pairs) do
      local text = ("%s - %s: %d of %d"):format(row.a, row.b, row.connected, row.tried)
      if row.theory == "yes" then assert.equal(row.tried, row.connected, text) end
      if row.theory == "no" then assert.equal(0, row.connected, text) end
    end
  end)

  it("takes as long as its delays say", function()
    local report = play { clients = 40, duration_s = 30, nats = { port_restricted = 1 }, delay_ms = 25,
      rooms = { size = 2 } }
    assert.equal(20, report.connected)
    assert.equal(50, report.wait_ms.p50) -- to the server and back
    assert.equal(50, report.wait_ms.max)
    -- Both are told at once: one way till the first is heard, a round trip till it is confirmed.
    assert.is_true(math.abs(report.first_ms.p99 - 25) < 1, tostring(report.first_ms.p99))
    assert.is_true(math.abs(report.confirmed_ms.p99 - 50) < 1, tostring(report.confirmed_ms.p99))
  end)

  it("puts some behind one NAT, who then meet inside", function()
    local report = play { clients = 40, duration_s = 30, nats = { port_restricted = 1 }, together = 0.5,
      rooms = { size = 2 } }
    assert.equal(20, report.connected)
    assert.is_true(report.paths.lan > 3 and report.paths.direct > 3)
    for _, row in ipairs(report.pairs) do
      if row.same_nat then assert.equal(report.paths.lan, row.connected) end
    end
  end)

  it("puts no more than a hundred behind one NAT", function()
    local report = play { clients = 250, duration_s = 20, arrive_per_s = 50, nats = { full_cone = 1 }, together = 1,
      rooms = { size = 2 } }
    assert.equal(125, report.connected)
    assert.same({ lan = 125, direct = 0, relay = 0, none = 0 }, report.paths)
  end)

  it("connects everyone in a room of four with everyone", function()
    local report = play { clients = 22, duration_s = 30, nats = { port_restricted = 1 }, loss = 0.05,
      rooms = { size = 4 } }
    assert.equal(5 * 6 + 1, report.connected)
    assert.equal(report.tried, report.connected)
    assert.equal(22 - 6, report.asked)
  end)

  it("takes under ten seconds of this processor for a minute of a thousand clients and the skill policy", function()
    local scenario = assert(require("bodkin.sim.file").read "skill")
    assert.same({ 1000, 60 }, { scenario.clients, scenario.duration_s })
    local before = os.clock()
    local report = stats.report(assert(run.play(scenario)))
    local took_s = os.clock() - before
    assert.is_true(report.matched > 950)
    assert.is_true(took_s < 10, took_s .. " s")
  end)

  it("says what did not come to an end", function()
    local report = play { clients = 20, duration_s = 6, arrive_per_s = 5, nats = { symmetric_random = 1 }, match = {} }
    assert.equal(0, report.tried)
    assert.is_true(report.under_way > 3)
  end)

  it("ends well while things are under way", function()
    for seconds = 1, 5 do
      play { clients = 30, duration_s = seconds, arrive_per_s = 20, loss = 0.2, rooms = { size = 3 } }
    end
  end)
end)
