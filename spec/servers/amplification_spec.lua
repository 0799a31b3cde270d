-- SPDX-License-Identifier: MIT
-- That nobody who proved nothing gets more than they gave, of any message in any size; and that it would be noticed.

package.path = "docs/?.lua;" .. package.path

local amplification = require "spec.servers.amplification"
local support = require "spec.servers.support"
local tables = require "tables"

-- More than 1.0, and why. A plain `matched` is believed from the server's address, whoever forged that: what keeps it
-- small are the client's own bounds. An address that its peer tests from gets three times what it sent (path.h).
local bounds = { ["client matched"] = 12, ["peer test, overheard"] = 3 }

describe("amplification", function()
  it("is at most 1.0 for each message and size, and as docs/SECURITY.md says", function()
    local rows = amplification.measure()
    for _, row in ipairs(rows) do
      local name = row.place .. " " .. row.name
      local bound = bounds[name] or 1
      assert(row.exempt or row.ratio <= bound, ("%s: %.2f"):format(name, row.ratio))
      assert(bound == 1 or row.ratio > 1, name .. " needs no exception any more")
      assert(row.fed > 0, name)
    end
    local text = tables.read(tables.security.file)
    local made = tables.fill(text, { amplification = function() return amplification.markdown(rows) end })
    assert.equal(made, text, "run `make docs`")
  end)

  it("is noticed where a server takes any proof", function()
    local real = support.server
    finally(function() support.server = real end)
    support.server = function(options)
      local s = real(options)
      function s.server:prove(reply) -- luacheck: ignore 212/self
        reply:proven()
        return true
      end
      return s
    end
    local rows = {}
    amplification.at_server(rows)
    assert.is_true(amplification.worst(rows) > 1)
  end)
end)
