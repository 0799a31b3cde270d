-- SPDX-License-Identifier: MIT
package.path = "docs/?.lua;" .. package.path

describe("docs/PROTOCOL.md", function()
  local tables = require "tables"
  local message = require "bodkin.message"
  local core = require "bodkin.core"

  it("has the tables and vectors of the code", function()
    local text = tables.read()
    assert.equal(tables.fill(text), text, "run `make docs`")
  end)

  it("names its numbers in the text as they are in the code", function()
    assert.same({}, require("numbers").unsaid(tables.read()))
  end)

  it("gives each message number once, within its range", function()
    local seen = {}
    for _, s in ipairs(message.all) do
      assert.is_true(s.type >= 1 and s.type <= 31 or s.type >= 40 and s.type <= 63, s.name)
      assert.is_nil(seen[s.type], s.name)
      seen[s.type] = s.name
    end
    for _, s in pairs(core.wire.peer_schemas) do
      assert.is_true(s.type >= 32 and s.type <= 39, s.name)
      assert.is_nil(seen[s.type], s.name)
      seen[s.type] = s.name
    end
  end)

  it("has a test for each defence that docs/SECURITY.md names", function()
    local f <close> = assert(io.open "docs/SECURITY.md")
    local rows = 0
    for row in f:read("a"):match("<!%-%- attacks %-%->(.-)<!%-%- /attacks %-%->"):gmatch "[^\n]+" do
      local file, name = row:match "`([%w_/]+%.%w+): ([^`]+)` |$"
      if file then
        local found = io.popen("cat $(find spec -path '*/" .. file .. "')"):read "a"
        assert(found:find(name, 1, true), ("%s has no test named %s"):format(file, name))
        rows = rows + 1
      elseif not row:find "^|%-" and not row:find "^| attacker" then
        error("no test in: " .. row)
      end
    end
    assert.is_true(rows >= 20)
  end)

  it("keeps every message within a datagram, and every request no shorter than its replies may be", function()
    for _, s in ipairs(message.all) do
      local bytes = tables.vector(s)
      assert.is_true(#bytes <= 1200, s.name)
      assert.equal("tx", s.fields[1][1], s.name)
      assert.equal("bin", s.fields[1][2], s.name)
    end
  end)
end)
