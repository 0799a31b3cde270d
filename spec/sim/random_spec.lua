-- SPDX-License-Identifier: MIT
local random = require "bodkin.sim.random"

describe("sim random", function()
  it("is SplitMix64", function()
    -- the first outputs for seed 1234567 that the reference code gives (prng.di.unimi.it/splitmix64.c)
    local r = random.new(1234567, "")
    local got = {}
    for i = 1, 4 do got[i] = ("%016x"):format(r:integer()) end
    assert.same({ "599ed017fb08fc85", "2c73f08458540fa5", "883ebce5a3f27c77", "3fbef740e9177b3f" }, got)
  end)

  it("differs by seed and by label, and repeats itself", function()
    local function first(seed, label) return random.new(seed, label):integer() end
    assert.equal(first(1, "a"), first(1, "a"))
    assert.not_equal(first(1, "a"), first(2, "a"))
    assert.not_equal(first(1, "a"), first(1, "b"))
  end)

  it("spreads floats over [0, 1)", function()
    local r, sum = random.new(3, "floats"), 0
    for _ = 1, 10000 do
      local x = r:float()
      assert(x >= 0 and x < 1)
      sum = sum + x
    end
    assert.near(0.5, sum / 10000, 0.02)
  end)

  it("gives bytes of any length", function()
    local r = random.new(3, "bytes")
    for _, n in ipairs { 0, 1, 8, 9, 32 } do assert.equal(n, #r:bytes(n)) end
  end)
end)
