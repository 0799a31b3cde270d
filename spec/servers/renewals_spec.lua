-- SPDX-License-Identifier: MIT
-- A pair that met silence: fresh ports are told to the server, and it tells both again, in one instant.
local support = require "spec.servers.support"

local addr, who, only = support.addr, support.who, support.only

local function at(n) return addr(("198.51.100.%d:40000"):format(n)) end
local function fresh(n, k) return addr(("198.51.100.%d:%d"):format(n, 50000 + (k or 0))) end

describe("a fresh port after a silent second, server side", function()
  local s, match
  before_each(function()
    s = support.server { roles = { "matching" } }
    s:register(who(1), at(1), { rtt_ms = 100, name = "ann" })
    local sent = s:select(who(2), at(2), { target = who(1).id, rtt_ms = 20 })
    match = sent[1]
    s:ack(sent)
    s:advance(1000)
  end)
  after_each(function() s:close() end)

  local function renew(n, options)
    options = options or {}
    local a = options.pub or fresh(n)
    return s:ask(who(n), at(n), "renew", s:next_tx(), options.match or match.match, who(options.peer or 3 - n).id,
      options.epoch or 1, { a .. (options.proof or s:proof(a)) }, options.rtt_ms)
  end

  it("tells both again once both have one, with the same key, each the other's address and when to begin", function()
    local first = renew(1)
    assert.equal(1, #first)
    assert.equal("done", first[1].name_of)
    s:advance(40)
    local sent = renew(2)
    local told = only(sent, "matched")
    assert.equal(2, #told)
    assert.equal(told[1].at_us, told[2].at_us)
    for _, m in ipairs(told) do
      local n = m.to == at(1) and 1 or 2
      assert.equal(1, m.again)
      assert.equal(match.key, m.key)
      assert.equal(match.match, m.match)
      assert.equal(0, m.age_ms)
      assert.same({ fresh(3 - n) }, m.pubs)
      assert.equal(n == 1 and 0 or 40, m.start_in_ms)
      assert.not_equal(match.tx, m.tx)
    end
    s:ack(told)
    assert.same({}, s:advance(20000))
  end)

  it("waits half a second for the other, then tells both what there is", function()
    renew(1)
    assert.same({}, s:advance(499))
    local told = only(s:advance(1), "matched")
    assert.equal(2, #told)
    for _, m in ipairs(told) do assert.same(m.to == at(1) and { at(2) } or { fresh(1) }, m.pubs) end
    s:ack(told)
    -- The other comes late: both are told at once, a second time.
    told = only(renew(2), "matched")
    assert.equal(2, #told)
    for _, m in ipairs(told) do assert.equal(2, m.again) end
    s:ack(told)
  end)

  it("answers a repeat, and tells nobody for it", function()
    renew(1)
    s:ack(renew(2))
    for _ = 1, 3 do
      local again = renew(1)
      assert.equal(1, #again)
      assert.equal("done", again[1].name_of)
    end
    assert.same({}, s:advance(20000))
  end)

  it("takes the round-trip time that is known by now", function()
    renew(1, { rtt_ms = 300 })
    local told = only(renew(2, { rtt_ms = 60 }), "matched")
    for _, m in ipairs(told) do assert.equal(m.to == at(1) and 0 or 120, m.start_in_ms) end
    s:ack(told)
  end)

  it("goes so far twice, and no further", function()
    for epoch = 1, 2 do
      renew(1, { epoch = epoch, pub = fresh(1, epoch) })
      local told = only(renew(2, { epoch = epoch, pub = fresh(2, epoch) }), "matched")
      assert.equal(2, #told)
      s:ack(told)
    end
    local r = renew(1, { epoch = 3, pub = fresh(1, 3) })
    assert.equal("refused", r[1].name_of)
    assert.equal(1008, r[1].code)
    assert.equal("refused", renew(1, { epoch = 255 })[1].name_of)
    assert.same({}, s:advance(20000))
  end)

  it("tells nobody more than may be on its way to one", function()
    s.server.limits.pending = 1
    s:register(who(1), at(1))
    s:select(who(3), at(3), { target = who(1).id }) -- of which neither acknowledges anything
    renew(1)
    local told = only(renew(2), "matched")
    assert.same({ 1, at(2) }, { #told, told[1].to })
  end)

  it("refuses an address without a proof, a pair that is none, and one of long ago", function()
    local elsewhere = addr "192.0.2.66:6"
    assert.equal(1010, renew(1, { pub = elsewhere, proof = s:proof(at(1)) })[1].code)
    assert.equal(1002, renew(1, { peer = 3 })[1].code)
    assert.equal(1002, renew(3, { peer = 1 })[1].code)
    assert.equal(1002, renew(1, { match = ("m"):rep(16) })[1].code)
    s:advance(40000)
    assert.equal(1002, renew(1)[1].code)
    assert.same({}, s:advance(1000))
  end)

  it("leaves nothing behind when it stops meanwhile", function() renew(1) end) -- close() counts timers
end)
