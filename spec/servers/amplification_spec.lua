-- SPDX-License-Identifier: MIT
-- That nobody who proved nothing gets more than they gave, of any message in any size; and that it would be noticed.

package.path = "docs/?.lua;" .. package.path

local amplification = require "spec.servers.amplification"
local core = require "bodkin.core"
local support = require "spec.servers.support"
local tables = require "tables"

-- More than 1.0, and why: an address that a peer tests from gets three times what it sent (path.h).
local bounds = { ["peer test, overheard"] = 3 }

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

  it("is noticed where a server answers more than once", function()
    local real = support.server
    finally(function() support.server = real end)
    support.server = function(options)
      local s = real(options)
      function s.server:report(reply, from, tx)
        reply:proven()
        for _ = 1, 3 do reply("address_report", tx, core.addr.mask(from, tx), self.cookie:proof(from)) end
      end
      return s
    end
    local rows = {}
    amplification.at_server(rows)
    assert.is_true(amplification.worst(rows) > 1)
  end)
end)
