-- SPDX-License-Identifier: MIT
local support = require "spec.servers.support"

local from = support.addr("198.51.100.7:40000")
local id = ("i"):rep(16)

describe("S3 mapping maintenance server", function()
  it("confirms, with its boot number, in confirm mode", function()
    local s = support.server { roles = { "maintenance" } }
    local tx = s:next_tx()
    local list, asked = s:ask(from, "maintain", tx, id)
    assert.equal(1, #list)
    assert.equal("maintained", list[1].name_of)
    assert.equal(tx, list[1].tx)
    assert.equal(from, list[1].to)
    assert.equal(s.server.boot, list[1].boot)
    assert.is_true(list[1].length <= asked)
    assert.equal(1, s:count("maintained"))
    assert.equal(1, s:count("maintained_confirmed"))
    s:close()
  end)

  it("only counts in silent mode", function()
    local s = support.server { roles = { "maintenance" }, maintenance_mode = "silent" }
    assert.equal(0, #(s:ask(from, "maintain", s:next_tx(), id)))
    assert.equal(1, s:count("maintained"))
    assert.equal(0, s:count("maintained_confirmed"))
    s:close()
  end)

  it("stands inside a matching server, in either mode; without it that one is silent", function()
    for _, case in ipairs {
      { { "matching", "maintenance" }, "confirm", 1 }, { { "matching", "maintenance" }, "silent", 0 },
      { { "matching" }, "confirm", 0 }, { { "address", "maintenance" }, "confirm", 1 },
    } do
      local s = support.server { roles = case[1], maintenance_mode = case[2] }
      assert.equal(case[3], #(s:ask(from, "maintain", s:next_tx(), id)))
      assert.equal(1, s:count("maintained"))
      s:close()
    end
  end)

  it("has another boot number after a restart", function()
    local one, two = support.server { seed = 1 }, support.server { seed = 2 }
    local a = one:one(from, "maintain", one:next_tx(), id)
    local b = two:one(from, "maintain", two:next_tx(), id)
    assert.not_equal(a.boot, b.boot)
    one:close()
    two:close()
  end)
end)
