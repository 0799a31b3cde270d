-- SPDX-License-Identifier: MIT
-- The unchanged server and client, many of them.
local crowd = assert(loadfile("spec/sim/crowd.lua", "t"))()

describe("the whole system in the simulator", function()
  it("connects every client behind its NAT, and leaves nothing open", function()
    local _, connected = crowd(3, 200)
    assert.equal(200, connected)
  end)

  it("does the same for the same seed, in this process and in another", function()
    local one, two, other = crowd(1, 20), crowd(1, 20), crowd(2, 20)
    local code = "io.write((dofile('spec/sim/crowd.lua')(1, 20)))"
    local pipe <close> = assert(io.popen('exec /usr/bin/lua5.4 -e "' .. code .. '"', "r"))
    local elsewhere = pipe:read "a"
    assert.is_true(#one > 50000)
    assert.is_true(one == two)
    assert.is_true(one == elsewhere)
    assert.is_true(one ~= other)
  end)
end)
