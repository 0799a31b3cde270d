-- SPDX-License-Identifier: MIT
-- In the middle of a match, who is told where the other is, and who is not.
local core = require "bodkin.core"
local outcome = require "bodkin.outcome"
local support = require "spec.servers.support"

local who, only = support.who, support.only

local function at(n) return support.addr(("198.51.100.%d:40000"):format(n)) end

local function texts(list)
  local out = {}
  for i, a in ipairs(list) do out[i] = core.addr.format(a) end
  return out
end

describe("where a peer is", function()
  local s
  before_each(function() s = support.server { roles = { "matching" } } end)
  after_each(function() s:close() end)

  -- 1 and 2 are matched; 2 selects, and is registered or not. Returns the match id.
  local function match(unregistered)
    s:register(who(1), at(1))
    if not unregistered then s:register(who(2), at(2)) end
    local sent = s:select(who(2), at(2), { target = who(1).id })
    s:ack(sent)
    s.told = only(sent, "matched")
    return only(sent, "selected")[1].match
  end

  local function ask(n, from, id, peer, options)
    options = options or {}
    return (s:ask(who(n), from, "where", s:next_tx(), id, who(peer).id, options.pubs or {}, options.locals or {}))
  end

  it("is told to who asks, and that one's own to the peer, from wherever it asks", function()
    local id = match()
    local sent = ask(1, at(7), id, 2)
    assert.equal(2, #sent)
    local push, answer = sent[1], sent[2]
    assert.same({ "whereabouts", "whereabouts" }, { push.name_of, answer.name_of })
    assert.same({ at(2), at(7) }, { push.to, answer.to })
    assert.same({ id, who(1).id }, { push.match, push.peer })
    assert.same({ "198.51.100.7:40000" }, texts(push.pubs))
    assert.same({ id, who(2).id }, { answer.match, answer.peer })
    assert.same({ "198.51.100.2:40000" }, texts(answer.pubs))
    assert.equal(1, s:count "whereabouts_told")
    -- The other moves, too: each is told at the place where it is now.
    sent = ask(2, at(8), id, 1)
    assert.same({ at(7), at(8) }, { sent[1].to, sent[2].to })
    assert.same({ "198.51.100.8:40000" }, texts(sent[1].pubs))
    assert.same({ "198.51.100.7:40000" }, texts(sent[2].pubs))
  end)

  it("is known of one who is not registered, too", function()
    local id = match(true)
    local sent = ask(2, at(9), id, 1)
    assert.same({ "198.51.100.9:40000" }, texts(only(sent, "whereabouts")[1].pubs))
    sent = ask(1, at(1), id, 2)
    assert.same({ at(9), at(1) }, { sent[1].to, sent[2].to })
    assert.same({ "198.51.100.9:40000" }, texts(sent[2].pubs))
  end)

  it("amends the registration, so that who is matched next looks in the right place", function()
    local id = match()
    ask(1, at(7), id, 2)
    s:register(who(3), at(3))
    local sent = s:select(who(3), at(3), { target = who(1).id })
    s:ack(sent)
    local told = only(sent, "matched")
    assert.same({ at(7), at(3) }, { told[1].to, told[2].to })
    assert.same({ "198.51.100.7:40000" }, texts(told[2].pubs))
  end)

  it("has public addresses only that are proven, and local ones only for who is behind the same", function()
    local id = match()
    local locals = { support.addr "192.168.1.2:5000" }
    local forged, proven = support.addr "203.0.113.9:99", support.addr "203.0.113.8:99"
    local pubs = { forged .. ("\0"):rep(20), proven .. s:proof(proven) }
    local push = ask(1, at(1), id, 2, { pubs = pubs, locals = locals })[1]
    assert.same({ "198.51.100.1:40000", "203.0.113.8:99" }, texts(push.pubs))
    assert.same({}, push.locals)
    local near = support.addr "198.51.100.2:41000" -- behind the NAT of 2
    s.env.loop:advance(400000)
    push = ask(1, near, id, 2, { locals = locals })[1]
    assert.same({ "192.168.1.2:5000" }, texts(push.locals))
    -- The same of the peer's, in the answer to who asks.
    local function answer(from)
      local sent = ask(2, from, id, 1)
      return texts(sent[#sent].locals)
    end
    assert.same({ "192.168.1.2:5000" }, answer(at(2)))
    assert.same({}, answer(at(9)))
  end)

  it("is pushed at most each 400 ms, and answered each time", function()
    local id = match()
    assert.equal(2, #ask(1, at(1), id, 2))
    s.env.loop:advance(399999)
    local sent = ask(1, at(7), id, 2)
    assert.same({ "whereabouts", at(7) }, { sent[1].name_of, sent[1].to })
    assert.equal(1, #sent)
    assert.equal(2, #ask(2, at(2), id, 1)) -- the other's own
    s.env.loop:advance(1)
    sent = ask(1, at(8), id, 2)
    assert.same({ "198.51.100.8:40000" }, texts(sent[1].pubs))
    assert.equal(3, s:count "whereabouts_told")
  end)

  it("is pushed to each of a room that is asked after", function()
    for i = 1, 3 do s:register(who(i), at(i)) end
    local room = s:room(who(1), at(1))
    for i = 2, 3 do s:ack(s:select(who(i), at(i), { code = room.code })) end
    for i = 2, 3 do
      local sent = ask(1, at(7), room.match, i)
      assert.same({ at(i), at(7) }, { sent[1].to, sent[2].to })
    end
    assert.equal(2, s:count "whereabouts_told")
  end)

  it("is told to those who stay in a room when another has left", function()
    for i = 1, 3 do s:register(who(i), at(i)) end
    local room = s:room(who(1), at(1))
    for i = 2, 3 do s:ack(s:select(who(i), at(i), { code = room.code })) end
    s:one(who(3), at(3), "leave", s:next_tx(), room.match)
    assert.equal(2, #ask(1, at(7), room.match, 2))
    assert.equal("refused", ask(1, at(7), room.match, 3)[1].name_of)
  end)

  it("comes with a fresh ticket of the pair, to the one that asks, where there are relays", function()
    assert.is_nil(ask(1, at(7), match(), 2)[2].ticket)
    s:close()
    s = support.server { roles = { "matching" }, relays = { "198.51.100.77:4433" } }
    local id, old = match(), {}
    for _, m in ipairs(s.told) do old[m.to] = m.ticket end
    s.env.loop:advance(30000000)
    for i = 1, 2 do
      local push, answer = table.unpack(ask(i, at(i), id, 3 - i))
      assert.is_nil(push.ticket)
      local pair, role, left_s = s.server.tickets:open(answer.ticket)
      local old_pair, old_role, old_left_s = s.server.tickets:open(old[at(i)])
      assert.same({ old_pair, old_role, old_left_s + 30 }, { pair, role, left_s })
    end
  end)

  it("is told no more once one of them has left, whatever was reported", function()
    local id = match()
    s:one(who(2), at(2), "leave", s:next_tx(), id)
    for me = 1, 2 do
      local sent = ask(me, at(me), id, 3 - me)
      assert.same({ "refused", 1002 }, { sent[1].name_of, sent[1].code })
    end
  end)

  it("tells nobody but the two of a match that lasts", function()
    local id = match()
    s:register(who(3), at(3))
    local function refused(n, of, peer)
      local sent = ask(n, at(n), of, peer)
      assert.equal(1, #sent)
      assert.same({ "refused", 1002 }, { sent[1].name_of, sent[1].code })
    end
    refused(3, id, 1) -- not in it
    refused(1, id, 3) -- that one is not
    refused(1, id, 1)
    refused(1, ("x"):rep(16), 2)
    assert.equal(2, #ask(1, at(1), id, 2))
    -- Either says that it is over: from then on neither learns where the other is.
    local report = outcome.pack({ state = "closed", reason = "left", lasted_ms = 1, paths = {} }, 1)
    s:one(who(2), at(2), "outcome", s:next_tx(), id, who(1).id, report)
    refused(1, id, 2)
    refused(2, id, 1)
    assert.equal(1, s:count "whereabouts_told")
  end)
end)
