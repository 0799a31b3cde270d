-- SPDX-License-Identifier: MIT
-- The answers of players who are asked about a match (servers/proposals.lua).

local proposals = require "bodkin.servers.proposals"

describe("a proposal", function()
  local asked, made, one, two

  local function open()
    asked:open("match", { one, two }, 5000, 2, function(blamed) made[#made + 1] = blamed == nil end)
  end

  before_each(function()
    local env = { timer = function() return { cancel = function() end } end }
    asked = proposals.new(env, { push = function() end }, function() end)
    made, one, two = {}, { id = "1" }, { id = "2" }
    open()
  end)

  it("is made once all have accepted", function()
    asked:accept(one, "tx1", "match")
    asked:accept(one, "tx2", "match")
    assert.same({}, made)
    asked:accept(two, "tx3", "match")
    assert.same({ true }, made)
  end)

  -- A running match proposes itself again, to others, under the same id.
  it("takes no repeat of what was said of the one before", function()
    asked:accept(one, "tx1", "match")
    asked:decline(two, "tx2", "match")
    open()
    asked:decline(two, "tx2", "match")
    asked:accept(one, "tx1", "match")
    assert.same({ false }, made)
    asked:accept(two, "tx3", "match")
    assert.same({ false }, made)
    asked:accept(one, "tx4", "match")
    assert.same({ false, true }, made)
  end)
end)
