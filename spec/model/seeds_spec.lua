-- SPDX-License-Identifier: MIT
-- Random pairs of NATs against the theory. SEEDS=first:count (1:1000) says which.
local seeds = assert(loadfile("spec/model/seeds.lua", "t"))()
local clocks = dofile "spec/model/clock.lua"

local first, count = (os.getenv "SEEDS" or "1:1000"):match("^(%d+):(%d+)$")
first, count = math.tointeger(tonumber(first)), math.tointeger(tonumber(count))

describe("seeds", function()
  it("each keep every invariant, connect where theory says so and nowhere else", function()
    local result = seeds.range(first, count)
    assert(#result.failures == 0, "\n" .. table.concat(result.failures, "\n"))
    assert.equal(count, result.seeds)
    if count < 1000 then return end
    -- that the draw has some of all
    for _, outcome in ipairs { "yes connected", "no none", "may connected", "may none" } do
      assert((result.table[outcome] or 0) * 100 >= count, outcome .. " in less than 1 % of the seeds")
    end
    assert.is_nil(result.table["yes none"])
    assert.is_nil(result.table["no connected"])
  end)

  it("are the same when run again, byte for byte, in this process and in another", function()
    local function trace(from, n)
      local lines = {}
      for seed = from, from + n - 1 do
        local run = seeds.one(seed, nil, { trace = true })
        table.insert(lines, table.concat(run.lines, "\n"))
      end
      return table.concat(lines, "\n")
    end
    local one = trace(first, 20)
    assert.is_true(#one > 50000)
    assert.is_true(one == trace(first, 20))
    assert.is_true(one ~= trace(first + 1, 20))
    local code = ("local s = dofile 'spec/model/seeds.lua' for seed = %d, %d do print(table.concat(s.one(seed, nil, "
      .. "{ trace = true }).lines, '\\n')) end"):format(first, first + 19)
    local pipe <close> = assert(io.popen('exec /usr/bin/lua5.4 -e "' .. code .. '"', "r"))
    assert.is_true(one .. "\n" == pipe:read "a")
  end)

  it("have traces that replay byte for byte, like a user's", function()
    local replay = require "bodkin.replay"
    for seed = first, first + 19 do
      for name, lines in pairs(seeds.one(seed, nil, { trace = true }).machines) do
        local i = 0
        local result, err, at = replay.run(function()
          i = i + 1
          return lines[i]
        end)
        assert(result, ("seed %d, %s, line %s: %s"):format(seed, name, at, err))
        assert.equal(#lines - 1, result.inputs + result.outputs)
        assert.is_true(result.outputs > 0)
      end
    end
  end)

  it("say how to run a failing one again", function()
    local run, text = seeds.one(1, { a = "symmetric_random", b = "none", delay_ab = 20000, delay_ba = 20000, loss = 0 })
    assert.equal("none", run.outcome)
    assert.matches("does not connect, though it can", text)
    assert.matches("lua5.4 spec/model/seeds.lua 1 1 trace", text, 1, true)
  end)
end)

-- Whatever a man in the middle does (see sim/attacker.lua), only what was sent is delivered, and once; and where he
-- does it to one datagram in five, most still meet.
describe("seeds with a man in the middle", function()
  local function attacked(n, wish)
    wish.attack = true
    local result = seeds.range(first, n, wish)
    assert(#result.failures == 0, "\n" .. table.concat(result.failures, "\n"))
    print(("# man in the middle %g: %d seeds, %.0f a second; %s"):format(wish.mitm, result.seeds,
      result.seeds / result.cpu_s, seeds.summary(result)))
    return (result.table["may connected"] or 0) / n
  end

  it("keep every invariant between NATs that can meet, and meet", function()
    local share = attacked(math.max(100, count // 5), { a = "port_restricted", b = "address_restricted", mitm = 0.2 })
    assert(share > 0.97, share)
  end)

  it("keep every invariant between any, and when he does something to most", function()
    attacked(math.max(100, count // 5), { mitm = 0.15 })
    assert(attacked(math.max(100, count // 5), { a = "none", b = "full_cone", mitm = 0.7, early_data = true }) > 0.5)
  end)
end)

describe("the clock of the seeds", function()
  it("fires in the order of due time, then of setting", function()
    local clock, fired = clocks.new(0), {}
    local due = {}
    for i = 1, 200 do
      due[i] = i * 7919 % 23
      clock:at(due[i], function() table.insert(fired, i) end)
    end
    while clock:step(100) do end
    assert.equal(200, #fired)
    for k = 2, 200 do
      local a, b = fired[k - 1], fired[k]
      assert(due[a] < due[b] or due[a] == due[b] and a < b)
    end
    assert.equal(100, clock:now())
  end)
end)
