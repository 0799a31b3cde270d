-- SPDX-License-Identifier: MIT
-- In the middle of a session, with datagrams both ways: whatever happens (see life.lua), they flow again at most two
-- seconds after a path exists, none is delivered twice, and every invariant holds. LIFE=first:count says which seeds.

local life = dofile "spec/model/life.lua"

local first, count = (os.getenv "LIFE" or "1:48"):match "^(%d+):(%d+)$"
first, count = math.tointeger(tonumber(first)), math.tointeger(tonumber(count))

describe("a session", function()
  it("lives on whatever happens to NATs, hosts, servers and relays", function()
    local worst, failures, began = {}, {}, os.clock()
    collectgarbage("incremental", 400) -- more garbage at once makes a tenth more seeds a second
    for seed = first, first + count - 1 do
      local ok, text, result, wrong = xpcall(life.play, debug.traceback, seed)
      if not ok then
        failures[#failures + 1] = ("LIFE=%d:1: %s"):format(seed, text)
      else
        if wrong then failures[#failures + 1] = ("LIFE=%d:1: %s: %s"):format(seed, text, wrong) end
        local name = life.draw(seed)
        worst[name] = math.max(worst[name] or 0, table.unpack(result.gap_ms))
      end
    end
    local list = {}
    for _, name in ipairs(life.names) do
      if worst[name] then list[#list + 1] = ("%s %.0f"):format(name, worst[name]) end
    end
    print(("# life of a path: %d seeds, %.1f a second, %d failed; the longest gaps, ms: %s"):format(count,
      count / (os.clock() - began), #failures, table.concat(list, ", ")))
    assert(#failures == 0, "\n" .. table.concat(failures, "\n", 1, math.min(20, #failures)))
  end)

  it("is seen to be silent where nothing comes", function()
    local one = life.new(1, { relay = true, kinds = {} })
    one.dead = true
    local result = one:recover()
    one:close()
    for i = 1, 2 do assert.is_true(result.gap_ms[i] >= 2 * life.LIMIT_MS, result.gap_ms[i]) end
  end)
end)
