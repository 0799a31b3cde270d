-- SPDX-License-Identifier: MIT
-- Random lives of tickets (see tickets.lua): no player is in two matches, no party is split, no ticket is lost or
-- counted twice. TICKETS=first:count says which seeds; each has 100 tickets, in the soak 2,000.
local tickets = dofile "spec/model/tickets.lua"

local first, count = (os.getenv "TICKETS" or "1:200"):match "^(%d+):(%d+)$"
first, count = math.tointeger(tonumber(first)), math.tointeger(tonumber(count))
local each = os.getenv "SOAK" and 2000 or 100

describe("tickets", function()
  it("end once each, as their clients are told, whatever happens to policies, parties and clients", function()
    local failures, made, formed, began = {}, 0, 0, os.clock()
    for seed = first, first + count - 1 do
      local ok, wrong, n, matches = xpcall(tickets.play, debug.traceback, seed, each)
      if not ok then
        failures[#failures + 1] = ("TICKETS=%d:1: %s"):format(seed, wrong)
      else
        made, formed = made + n, formed + matches
        if wrong[1] then
          failures[#failures + 1] = ("TICKETS=%d:1: %s"):format(seed,
            table.concat(wrong, "\n  ", 1, math.min(5, #wrong)))
        end
      end
    end
    print(("# tickets: %d seeds, %d tickets, %d matches, %.1f s, %d failed"):format(count, made, formed,
      os.clock() - began, #failures))
    assert(#failures == 0, "\n" .. table.concat(failures, "\n", 1, math.min(20, #failures)))
    assert.is_true(formed * 10 > made)
  end)
end)
