-- SPDX-License-Identifier: MIT
-- A bad network (see loss.lua): every match connects, 99 of 100 within 3 s from the server's commit. SOAK=1: 1,000.
local loss = assert(loadfile("spec/model/loss.lua", "t"))()

describe("with 30 % loss each way, 5 % duplicates and 20 % reordering", function()
  it("every match connects, and 99 of 100 in 3 s from the commit", function()
    local result = loss.range(1, os.getenv "SOAK" and 1000 or 100)
    print(loss.report(result))
    assert.same({}, result.failed)
    assert(result.connected.p99 <= 3000, result.connected.p99)
    assert(result.connected.p50 >= 50, "faster than a crossing: what is measured?")
  end)
end)
