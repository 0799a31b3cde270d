-- SPDX-License-Identifier: MIT
local core = require "bodkin.core"
local support = require "spec.servers.support"
local message = require "bodkin.message"

local from = support.addr("198.51.100.7:40000")
local from6 = support.addr("[2001:db8::7]:40000")

describe("S1 address server", function()
  local s
  before_each(function() s = support.server { roles = { "address" } } end)
  after_each(function() s:close() end)

  it("reports the sender's address from the packet's header, masked by the transaction", function()
    for _, a in ipairs { from, from6 } do
      local tx = s:next_tx()
      local report = s:one(a, "address_request", tx)
      assert.equal("address_report", report.name_of)
      assert.equal(tx, report.tx)
      assert.equal(a, report.to)
      assert.not_equal(a, report.xaddr)
      assert.equal(a, core.addr.mask(report.xaddr, tx))
      assert.is_true(s.server.cookie:valid(report.proof, a))
      assert.is_true(report.length <= 72)
    end
    assert.equal(2, s:count("address_reported"))
  end)

  it("is never longer in its answer than the request", function()
    local bytes = message.address_request:encode(s:next_tx())
    assert.equal(128, #bytes)
    -- the same with an empty pad, from an address of 18 bytes
    local head = "\x93\x01\x01\xc4\x0c" .. s:next_tx()
    for _, short in ipairs { head .. "\xc4\x00", head .. "\xc0" } do
      s:feed(from6, short)
      assert.equal(0, #s.env.sent)
    end
    assert.equal(0, s:count("address_reported"))
  end)

  it("keeps nothing: the same request gets the same answer, at any time", function()
    local tx = s:next_tx()
    local one = s:one(from, "address_request", tx)
    for i = 1, 100 do s:ask(support.addr("198.51.100.8:" .. i), "address_request", s:next_tx()) end
    local two = s:one(from, "address_request", tx)
    assert.equal(one.xaddr, two.xaddr)
    assert.equal(one.proof, two.proof)
    assert.equal(0, s.env.timers)
  end)

  it("answers nothing that it does not handle", function()
    assert.equal(0, #(s:ask(from, "maintain", s:next_tx(), ("i"):rep(16))))
    assert.equal(1, s:count("drop_unknown"))
  end)
end)
