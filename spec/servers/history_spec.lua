-- SPDX-License-Identifier: MIT
-- What a server keeps of the matches it made, whom it believes, and for how long.
local core = require "bodkin.core"
local kind = require "bodkin.kind"
local outcome = require "bodkin.outcome"
local support = require "spec.servers.support"

local who, only = support.who, support.only

local function at(n) return support.addr(("198.51.100.%d:40000"):format(n)) end

local function report(n, more)
  local r = { state = "closed", reason = "no_path", lasted_ms = 10000, paths = {} }
  for k, v in pairs(more or {}) do r[k] = v end
  return outcome.pack(r, n)
end

local HOUR_MS = 3600000

describe("a server's history", function()
  local s
  local function open(options)
    options = options or {}
    options.roles = { "matching" }
    s = support.server(options)
  end
  after_each(function() s:close() end)

  -- Registers both and matches them. Returns the match id.
  local function match(a, b, names)
    s:register(who(a), at(a), { name = names and names[1] })
    s:register(who(b), at(b), { name = names and names[2] })
    local sent = s:select(who(b), at(b), { target = who(a).id, name = names and names[2] })
    s:ack(sent)
    return only(sent, "selected")[1].match
  end

  local function tell(n, id, peer, bytes)
    local r = s:one(who(n), at(n), "outcome", s:next_tx(), id, peer, bytes)
    assert.equal("done", r.name_of) -- whether it is believed is not said
  end

  local function ends(id)
    local out = {}
    for _, e in ipairs(s.server:why(core.crypto.hex(id)).matches[1].ends) do out[e.self] = e end
    return out[core.crypto.hex(who(1).id)], out[core.crypto.hex(who(2).id)]
  end

  it("has who was put together, when, how, and where each is", function()
    open()
    local id = match(1, 2, { "ann", "bob\27[2J" })
    local answer = s.server:why "ann"
    assert.equal(1, answer.total)
    local m = answer.matches[1]
    assert.same({ core.crypto.hex(id), "selection", "test/1", "unknown", 0, 2 },
      { m.match, m.how, m.app, m.verdict, m.age_s, m.count })
    assert.is_true(math.abs(m.at - s.env.time()) <= 1)
    local one, two = ends(id)
    assert.same({ "ann", "bob?[2J", "unknown", true }, { one.own_name, one.name, one.state, one.acknowledged })
    assert.same({ { "198.51.100.1:40000" }, { "198.51.100.2:40000" } }, { one.public, one.peer_public })
    assert.same({ "bob?[2J", "ann" }, { two.own_name, two.name })
    assert.is_nil(core.wire.encode(answer):find(who(1).ephemeral, 1, true))
  end)

  it("has of an end what that was told: of the other's local addresses only who is behind the same NAT", function()
    open()
    local near = { support.addr "192.168.1.2:5000" }
    s:register(who(1), at(1), { locals = near })
    for n, from in pairs { [2] = at(2), [3] = support.addr "198.51.100.1:41000" } do
      local sent = s:select(who(n), from, { target = who(1).id })
      s:ack(sent)
      for _, e in ipairs(s.server:why(core.crypto.hex(only(sent, "selected")[1].match)).matches[1].ends) do
        if e.self == core.crypto.hex(who(n).id) then
          assert.same(n == 3 and { "192.168.1.2:5000" } or {}, e.peer_local)
        else
          assert.same({ "192.168.1.2:5000" }, e["local"])
        end
      end
    end
  end)

  it("has what both ends' NATs do from their registrations, until they say themselves", function()
    open()
    s:register(who(1), at(1), { nat = kind.pack { mapping = "endpoint", filtering = "address_port" } })
    local sent = s:select(who(2), at(2), {
      target = who(1).id, nat = kind.pack { mapping = "address or address_port" },
    })
    local id = only(sent, "selected")[1].match
    local one, two = ends(id)
    assert.same({ "endpoint", "address_port" }, { one.behaviour.mapping, one.behaviour.filtering })
    assert.same({ "address or address_port", "unknown" }, { two.behaviour.mapping, two.behaviour.filtering })
    assert.same({ two.behaviour, one.behaviour }, { one.peer_behaviour, two.peer_behaviour })
    tell(2, id, who(1).id, report(1, { behaviour = { mapping = "address", filtering = "address" } }))
    one, two = ends(id)
    assert.same({ "address", "address" }, { two.behaviour.mapping, two.behaviour.filtering })
    assert.equal("endpoint", one.behaviour.mapping)
  end)

  it("says of a room how it was made, and not its code", function()
    open()
    s:register(who(1), at(1))
    local room = s:room(who(1), at(1))
    s:register(who(2), at(2))
    s:select(who(2), at(2), { code = room.code })
    s:register(who(3), at(3))
    s:select(who(3), at(3), { code = room.code })
    local m = s.server:why(core.crypto.hex(room.match)).matches[1]
    assert.same({ "room", 3, 6 }, { m.how, m.count, #m.ends })
    for i = 1, 6, 2 do assert.equal(m.ends[i].self, m.ends[i + 1].peer) end
    assert.is_nil(require("bodkin.json").encode(m):find(room.code, 1, true))
  end)

  it("believes each about its own end", function()
    open()
    local id = match(1, 2)
    tell(1, id, who(2).id, report(1, { first_ms = 20 }))
    local one, two = ends(id)
    assert.same({ "closed", "no_path", 20.0 }, { one.state, one.reason, one.first_ms })
    assert.equal("unknown", two.state)
    assert.equal("failed", s.server:why().matches[1].verdict)
    assert.equal(1, s:count "outcome_received")
  end)

  it("takes the latest for what holds, whatever comes after it", function()
    open()
    local id = match(1, 2)
    tell(1, id, who(2).id, report(2))
    tell(1, id, who(2).id, report(1, { state = "connected", reason = "none" }))
    assert.equal("no_path", (ends(id)).reason)
    tell(1, id, who(2).id, report(3, { reason = "left" }))
    assert.equal("left", (ends(id)).reason)
  end)

  it("believes nobody about another's end, of a match it is not in, or one that was never made", function()
    open()
    local id = match(1, 2)
    s:register(who(3), at(3))
    tell(3, id, who(2).id, report(1))       -- not in it
    tell(3, id, who(3).id, report(1))
    tell(1, id, who(1).id, report(1))       -- with itself
    tell(1, id, who(3).id, report(1))       -- with one it was not paired with
    tell(1, ("x"):rep(16), who(2).id, report(1))
    tell(1, id, who(2).id, "\xc0")          -- no report
    tell(1, id, who(2).id, core.wire.encode { 1, 2, 3 })
    local one, two = ends(id)
    assert.same({ "unknown", "unknown" }, { one.state, two.state })
    assert.same({ 0, 7 }, { s:count "outcome_received", s:count "outcome_refused" })
  end)

  it("sees who never acknowledged that it was told", function()
    open()
    s:register(who(1), at(1))
    s:register(who(2), at(2))
    local sent = s:select(who(2), at(2), { target = who(1).id })
    s:ack { only(sent, "matched")[2] }
    local id = only(sent, "selected")[1].match
    local one, two = ends(id)
    assert.same({ false, true }, { one.acknowledged, two.acknowledged })
    s:advance(30000)
  end)

  it("is forgotten after an hour without news, also where nobody asks", function()
    open()
    local id = match(1, 2)
    s:advance(HOUR_MS - 1000)
    tell(1, id, who(2).id, report(1))
    s:advance(HOUR_MS - 1000)
    assert.equal(1, s.server:why().total)
    assert.equal(1, s.server:status().info.history)
    s:advance(60000)
    assert.equal(0, s.server:status().info.history) -- by the clock
    assert.equal(0, s.server:why().total)
    tell(1, id, who(2).id, report(2))
    assert.equal(0, s.server:why().total)
  end)

  it("keeps so many matches, and drops those that it heard of longest ago", function()
    open { limits = { history = 3, pending = 32 } }
    local ids = {}
    for i = 1, 3 do ids[i] = match(2 * i - 1, 2 * i) end
    tell(1, ids[1], who(2).id, report(1))
    ids[4] = match(7, 8)
    local left = {}
    for i, m in ipairs(s.server:why().matches) do left[i] = core.crypto.unhex(m.match) end
    assert.same({ ids[4], ids[1], ids[3] }, left)
  end)

  it("keeps four ends a match on the average, so that large rooms take no more room", function()
    open { limits = { history = 2 } }
    match(20, 21)
    s:register(who(1), at(1))
    local room = s:room(who(1), at(1))
    for i = 2, 4 do
      s:register(who(i), at(i))
      s:ack(s:select(who(i), at(i), { code = room.code }))
    end
    local left = s.server:why()
    assert.equal(1, left.total) -- 12 ends of it, more than 8: it stays alone
    assert.equal(core.crypto.hex(room.match), left.matches[1].match)
  end)

  it("finds by the beginning of an id, or a whole name, and lists where several fit", function()
    open()
    local first, second = match(1, 2, { "ann", "bob" }), match(1, 3, { "ann", "cat" })
    assert.equal(2, s.server:why("ann").total)
    assert.is_nil(s.server:why("ann").matches[1].ends)
    assert.equal(core.crypto.hex(second), s.server:why("ann").matches[1].match) -- the latest first
    for _, asked in ipairs { "bob", core.crypto.hex(who(2).id), core.crypto.hex(who(2).id):sub(1, 6),
      core.crypto.hex(first):sub(1, 8):upper() } do
      local answer = s.server:why(asked)
      assert.equal(1, answer.total, asked)
      assert.equal(core.crypto.hex(first), answer.matches[1].match)
    end
    for _, asked in ipairs { "bo", "an", core.crypto.hex(first):sub(1, 3), "zed", "" } do
      assert.equal(0, s.server:why(asked).total, asked)
    end
  end)

  it("answers in a line of less than 64 KB, whatever there is to tell", function()
    open { limits = { room_members = 16 } }
    s:register(who(1), at(1), { name = ("n"):rep(32) })
    local room = s:room(who(1), at(1))
    local paths = {}
    for i = 1, 16 do
      paths[i] = { remote = "203.0.113.200:50000", via = "prflx", state = "failed", reason = "unreachable",
        tests = 65535, rtt_ms = 123.4 }
    end
    local full = report(1, { path = "direct", via = "prflx", first_ms = 1.1, confirmed_ms = 1.1, rtt_ms = 1.1,
      paths = paths })
    for i = 2, 16 do
      s:register(who(i), at(i), { name = ("n"):rep(32) })
      s:ack(s:select(who(i), at(i), { code = room.code, name = ("n"):rep(32) }))
      for k = 1, i - 1 do
        tell(i, room.match, who(k).id, full)
        tell(k, room.match, who(i).id, full)
      end
    end
    local json = require "bodkin.json"
    local answer = s.server:why(core.crypto.hex(room.match))
    assert.same({ 24, 240 - 24 }, { #answer.matches[1].ends, answer.matches[1].more })
    local line = json.encode(answer)
    assert.is_true(#line < 65536, #line)
    for i = 20, 90 do match(i, 100 + i, { ("m"):rep(32), ("k"):rep(32) }) end
    line = json.encode(s.server:why())
    assert.is_true(#line < 65536, #line)
  end)
end)
