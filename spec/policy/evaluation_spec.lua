-- SPDX-License-Identifier: MIT
-- What the policies that ship do for a population, in the virtual network.
local core = require "bodkin.core"
local population = dofile "spec/policy/population.lua"

local function percentile(list, p)
  table.sort(list)
  return list[math.max(1, math.ceil(#list * p / 100))]
end

local function column(result, name)
  local out = {}
  for _, c in ipairs(result.clients) do out[#out + 1] = c[name] end
  return out
end

local function digest(result)
  local lines = {}
  for i, c in ipairs(result.clients) do
    lines[i] = table.concat({ c.name, c.nat, ("%.3f"):format(c.waited_ms or -1), table.concat(c.met or {}, ","),
      c.path or "", ("%.3f"):format(c.first_ms or -1), c.reason or "" }, " ")
  end
  lines[#lines + 1] = table.concat(result.trace, "\n")
  return core.crypto.hex(core.crypto.mac(("k"):rep(16), table.concat(lines, "\n"), 32))
end

-- About normal around 1500, of standard deviation 300.
local function mmr(rng)
  local sum = -6
  for _ = 1, 12 do sum = sum + (rng:integer() >> 11 & 0xfffffff) / 0xfffffff end
  return { mmr = math.max(0, 1500 + sum * 300) }
end

-- No pair of these fails for its NATs.
local open_nats = { port_restricted = 3, full_cone = 1, none = 1 }

describe("evaluation of the policy", function()
  it("skill: 1,000 clients in 60 s of virtual time, in under 10 s, the same each time", function()
    local limit, took, one = 10 * (tonumber(os.getenv "SLOW") or 1), math.huge, nil
    for _ = 1, 3 do -- the machine has other work, too
      local from = os.clock()
      one = population.run { policy = "skill", clients = 1000, seconds = 60, props = mmr, trace = true }
      took = math.min(took, os.clock() - from)
      if took < limit then break end
    end
    print(("# 1,000 clients in 60 s of virtual time: %.1f s of CPU"):format(took))
    assert.is_true(took < limit, took .. " s of CPU")
    assert.is_true(one.matches >= 480, one.matches)
    assert.equal(0, one.counters.policy_failed)
    assert.is_true(#one.trace > 20000)
    local gaps, waits, named = {}, column(one, "waited_ms"), {}
    for _, c in ipairs(one.clients) do named[c.name] = c end
    for _, c in ipairs(one.clients) do
      local other = c.met and named[c.met[1]]
      local gap = other and math.abs(c.props.mmr - other.props.mmr)
      gaps[#gaps + 1] = gap
      assert.is_true(not gap or gap <= 400)
    end
    assert.is_true(#gaps > 900, #gaps)
    assert.is_true(percentile(gaps, 50) <= 50, percentile(gaps, 50))
    assert.is_true(percentile(waits, 50) <= 1000, percentile(waits, 50))
    assert.is_true(percentile(waits, 95) <= 10000, percentile(waits, 95))
    -- Everyone matched is told apart: connected, or of two NATs that cannot be.
    for _, c in ipairs(one.clients) do
      local ended = c.waited_ms and c.arrives_ms + c.waited_ms > 45000 and "closed" or "no_path"
      if c.waited_ms and not c.path and c.reason ~= ended then assert.equal("no_path", c.reason, c.name) end
    end
    local first = digest(one)
    one = nil -- luacheck: ignore 311
    assert.equal(first, digest(population.run { policy = "skill", clients = 1000, seconds = 60, props = mmr,
      trace = true }))
  end)

  it("first_come: nobody waits longer than until the next one comes", function()
    local result = population.run { policy = "first_come", clients = 200, seconds = 30, nats = open_nats }
    assert.equal(100, result.matches)
    assert.equal(200, #column(result, "path"))
    assert.is_true(percentile(column(result, "waited_ms"), 95) <= 1000)
  end)

  it("rooms: every room that is wanted by enough fills, with nobody else in it", function()
    local result = population.run {
      policy = "rooms", clients = 120, seconds = 40, nats = open_nats, arrive_s = 10,
      props = function(_, n) return { room = "room" .. n % 30, players = 4 } end,
    }
    assert.equal(30, result.matches)
    for i, c in ipairs(result.clients) do
      assert.equal(3, #c.met)
      assert.equal("room" .. i % 30, c.data.room)
      for _, name in ipairs(c.met) do assert.equal(i % 30, tonumber(name:sub(2)) % 30) end
    end
    assert.equal(120, #column(result, "path"))
  end)

  it("of one's own: properties come from its declaration", function()
    local result = population.run {
      clients = 40, seconds = 20, seed = 5, nats = open_nats,
      policy = dofile("spec/policy/support.lua").source [[
        return bodkin.policy { size = 2, shard = "mode", props = { mode = { "a", "b" }, level = "integer",
          on = "boolean", region = "string", name = "string?" } }]],
    }
    assert.is_true(result.matches >= 18)
    assert.equal(0, result.counters.ticket_refused)
  end)
end)
