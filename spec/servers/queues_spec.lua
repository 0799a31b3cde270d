-- SPDX-License-Identifier: MIT
-- Queues, message by message: what is answered, and again where the answer was lost.
local core = require "bodkin.core"
local desks = require "bodkin.policy.desk"
local sources = require "bodkin.policy.source"
local support = require "spec.servers.support"

local only, who, wire = support.only, support.who, core.wire

local function at(n) return support.addr("203.0.113." .. n .. ":4000") end

describe("a server's queues", function()
  local s, flow

  -- queues: { name = policy }; flow() has their process read what it was told since.
  local function open(queues, limits, is_apart)
    local slots, held, desk = {}, {}, nil
    for name, text in pairs(queues) do
      slots[name] = { policy = sources.text('local bodkin = require "bodkin"\n' .. text) }
    end
    local function link(on_message)
      desk = desks.new(on_message)
      local none = function() end
      return { send = function(_, message) held[#held + 1] = message end, kill = none,
        close = function() desk:close() end }
    end
    function flow()
      while held[1] do desk:input(table.remove(held, 1)) end
      return s:drain()
    end
    s = support.server { queues = slots, limits = limits, open_policy_link = is_apart and link or nil,
      roles = { "matching" } }
  end

  local function enqueue(n, queue, ticket, props, tx)
    return s:ask(who(n), at(n), "enqueue", tx or s:next_tx(), ticket or ("%016d"):format(s.tx), queue,
      wire.encode(props or {}))
  end

  after_each(function() s:close() end)

  it("refuse again what they refused", function()
    open { q = "return bodkin.policy { size = 2, expire_ms = 1000, admit = function(t) return t.props.ok, 'no' end }" }
    s:register(who(1), at(1))
    local tx, ticket = s:next_tx(), ("t"):rep(16)
    for _ = 1, 3 do
      local answers = enqueue(1, "q", ticket, { ok = false }, tx)
      assert.same({ 1, "refused", "no" }, { #answers, answers[1].name_of, answers[1].text })
      s:advance(500)
    end
    assert.equal(1, s:count "ticket_refused")
    -- Also what ended since: its client may not have heard of that, either.
    local late = ("l"):rep(16)
    assert.equal("queued", enqueue(1, "q", late, { ok = true })[1].name_of)
    s:advance(2000)
    local again = enqueue(1, "q", late, { ok = true })[1]
    assert.same({ "refused", "no match came about in time" }, { again.name_of, again.text })
    -- But not what its client ended by itself.
    local mine = ("m"):rep(16)
    enqueue(1, "q", mine, { ok = true })
    s:ask(who(1), at(1), "cancel", s:next_tx(), mine)
    assert.equal("queued", enqueue(1, "q", mine, { ok = true })[1].name_of)
  end)

  local function why(n, ticket, tx) return s:ask(who(n), at(n), "why", tx or s:next_tx(), ticket) end

  it("say why a ticket waits, to its client alone, and not at any rate", function()
    local policy = [[return bodkin.policy { size = 2, party = 2, compatible = function(a, b)
      return false, ("x"):rep(90) .. b.id end }]]
    open({ q = policy }, { explains = 20 }, true)
    for n = 1, 30 do s:register(who(n), at(n)) end
    local tickets = {}
    for n = 1, 20 do tickets[n] = ("%016d"):format(n) end
    for n = 1, 20 do enqueue(n, "q", tickets[n]) end
    s:advance(100)
    flow()
    -- The policy is asked: the answer comes later, once, to all copies of the question, and is the same to those after.
    local tx = s:next_tx()
    assert.same({}, why(1, tickets[1], tx))
    assert.same({}, why(1, tickets[1], tx))
    s:advance(100)
    local told = flow()
    assert.same({ 1, "waits", tickets[1], 100, 1, 1 }, { #told, told[1].name_of, told[1].ticket, told[1].waited_ms,
      told[1].present, told[1].of })
    local said = wire.decode(told[1].said)
    assert.same({ 19, 0 }, { said.others, said.fit })
    assert.is_true(#told[1].said <= 1000)
    assert.equal(8, #said.reasons)
    assert.same(told[1].said, why(1, tickets[1], tx)[1].said)
    -- Others are one too many, another's, or about none.
    local function refused(n, ticket, text)
      local answers = why(n, ticket)
      assert.same({ 1, "refused", text }, { #answers, answers[1].name_of, answers[1].text })
    end
    for _ = 2, 4 do assert.same({}, why(1, tickets[1])) end
    flow()
    refused(1, tickets[1], "you asked a moment ago")
    s:ask(who(1), at(1), "cancel", s:next_tx(), tickets[1])
    tickets[1] = ("z"):rep(16)
    enqueue(1, "q", tickets[1])
    flow()
    refused(1, tickets[1], "you asked a moment ago")
    refused(2, tickets[1], "this ticket is another's")
    refused(1, ("n"):rep(16), "there is no such ticket")
    -- So many a second of all clients.
    s:advance(2000)
    for n = 1, 20 do assert.same({}, why(n, tickets[n])) end
    enqueue(21, "q", ("l"):rep(16))
    flow()
    refused(21, ("l"):rep(16), "many ask why: ask later")
    s:advance(1000)
    assert.same({}, why(21, ("l"):rep(16)))
    -- One that is over meanwhile is none that waits.
    s:ask(who(21), at(21), "cancel", s:next_tx(), ("l"):rep(16))
    assert.same({}, only(flow(), "waits"))
    -- A party that is not whole is no policy's matter.
    s:ask(who(22), at(22), "enqueue", s:next_tx(), ("p"):rep(16), "q", wire.encode {}, ("P"):rep(16), 2)
    s:advance(2000)
    local alone = only(why(22, ("p"):rep(16)), "waits")[1]
    assert.same({ 1, 2 }, { alone.present, alone.of })
    assert.is_nil(alone.said)
  end)

  it("say to nobody why it waits, where they are told not to", function()
    open({ q = "return bodkin.policy { size = 2, party = 2 }" }, { explains = 0 })
    s:register(who(1), at(1))
    enqueue(1, "q", ("t"):rep(16))
    assert.same({ "refused", "many ask why: ask later" }, { why(1, ("t"):rep(16))[1].name_of,
      why(1, ("t"):rep(16))[1].text })
  end)

  it("say that a ticket waits where the policy says nothing, in time", function()
    open({ q = "return bodkin.policy { size = 2 }" }, nil, true)
    s:register(who(1), at(1))
    enqueue(1, "q", ("t"):rep(16))
    flow()
    why(1, ("t"):rep(16))
    assert.same({}, only(s:advance(1400), "waits"))
    local told = only(s:advance(200), "waits")
    assert.same({ 1, ("t"):rep(16) }, { #told, told[1].ticket })
    assert.is_nil(told[1].said)
  end)

  it("know why a ticket waited whose time was over", function()
    open { q = "return bodkin.policy { size = 2, expire_ms = 2000 }" }
    s:register(who(1), at(1), { name = "ann" })
    enqueue(1, "q")
    s:advance(2200)
    local said
    s.server:why_waits("ann", function(list) said = list[1].said end)
    assert.equal(0, said and said.others)
  end)

  it("of many names lock nobody out of those with a policy, and those that are empty make room", function()
    open({ duel = "return bodkin.policy { size = 2 }", ["*"] = "return bodkin.policy { size = 4 }" }, { queues = 3 })
    for n = 1, 3 do s:register(who(n), at(n)) end
    for i = 1, 10 do
      local ticket = ("%016d"):format(i)
      assert.equal("queued", enqueue(1, "name" .. i, ticket)[1].name_of)
      s:ask(who(1), at(1), "cancel", s:next_tx(), ticket)
    end
    assert.equal(3, s.server:status().info.queues)
    for i = 8, 10 do assert.equal("queued", enqueue(1, "name" .. i)[1].name_of) end
    local refused = enqueue(2, "free")[1]
    assert.same({ "refused", "too many queues here" }, { refused.name_of, refused.text })
    for n = 2, 3 do assert.equal("queued", enqueue(n, "duel")[1].name_of) end
    s:advance(200)
    assert.equal(1, s:count "match_formed")
    s:advance(130000)
    assert.equal(0, s.server:status().info.queues) -- nobody registered again
  end)

  -- Has two `matched` sent to this client, who has not acknowledged them for long enough to be behind.
  local function burden(n)
    local list = {}
    for k = 21, 22 do
      for _, m in ipairs(only(s:select(who(k), at(k), { target = who(n).id }), "matched")) do
        if m.who.id == who(n).id then list[#list + 1] = m else s:ack { m } end
      end
    end
    assert(#list == 2)
    s:advance(650)
    return list
  end

  it("end the ticket of who leaves too much unacknowledged, and match the others", function()
    open({ duel = "return bodkin.policy { size = 2, party = 2 }" }, { pending = 2 })
    for n = 1, 5 do s:register(who(n), at(n)) end
    enqueue(1, "duel", ("x"):rep(16))
    local owed = burden(1)
    enqueue(2, "duel")
    local ended = only(s:advance(150), "ended")[1]
    assert.same({ ("x"):rep(16), -core.errors.limit.value, "too much is unacknowledged" },
      { ended.ticket, ended.code, ended.text })
    local again = enqueue(1, "duel")[1]
    assert.same({ "refused", "too much is unacknowledged" }, { again.name_of, again.text })
    enqueue(3, "duel")
    s:advance(150)
    assert.equal(1, s:count "match_formed")
    s:ack(owed)
    s:advance(10)
    assert.equal("queued", enqueue(1, "duel")[1].name_of)
  end)

  it("end nobody's ticket for what is merely on its way", function()
    open({ duel = "return bodkin.policy { size = 2 }" }, { pending = 2 })
    for n = 1, 2 do s:register(who(n), at(n)) end
    enqueue(1, "duel", ("x"):rep(16))
    local owed = {}
    for k = 21, 22 do
      for _, m in ipairs(only(s:select(who(k), at(k), { target = who(1).id }), "matched")) do
        if m.who.id == who(1).id then owed[#owed + 1] = m else s:ack { m } end
      end
    end
    enqueue(2, "duel")
    local told = s:advance(150) -- more is not told before that is acknowledged
    assert.same({}, only(told, "ended"))
    assert.equal(0, s:count "match_formed")
    s:ack(owed)
    s:advance(300)
    assert.equal(1, s:count "match_formed")
  end)

  it("take the party of who leaves too much unacknowledged from the policy until it is whole again", function()
    open({ duel = "return bodkin.policy { size = 4, party = 2 }" }, { pending = 3 })
    local function member(n)
      local tx = s:next_tx()
      return s:ask(who(n), at(n), "enqueue", tx, tx .. "abcd", "duel", wire.encode {}, ("p"):rep(16), 2)
    end
    for n = 1, 6 do s:register(who(n), at(n)) end
    for n = 1, 2 do member(n) end
    burden(1)
    for n = 3, 4 do enqueue(n, "duel") end
    local told = s:advance(150)
    assert.truthy(only(told, "ended")[1])
    assert.equal("one of the party does not answer", only(told, "waiting")[#only(told, "waiting")].text)
    for n = 5, 6 do enqueue(n, "duel") end
    s:advance(150)
    assert.equal(1, s:count "match_formed")
    assert.equal(1, s.server:status().info.tickets)
  end)

  -- Two of a policy with these fields are asked about a match: their tickets, and the match.
  local function asked_two(fields)
    open { q = ("return bodkin.policy { size = 2, %s }"):format(fields) }
    local tickets = {}
    for n = 1, 2 do
      s:register(who(n), at(n))
      tickets[n] = enqueue(n, "q")[1].ticket
    end
    return tickets, only(s:advance(150), "proposed")[1].match
  end

  it("let nobody touch another's ticket", function()
    local tickets, match = asked_two "accept_ms = 5000"
    s:register(who(3), at(3))
    local function refused(list)
      assert.same({ 1, "refused", -core.errors.bad_key.value, "this ticket is another's" },
        { #list, list[1] and list[1].name_of, list[1] and list[1].code, list[1] and list[1].text })
    end
    refused(enqueue(3, "q", tickets[1]))
    refused(s:ask(who(3), at(3), "cancel", s:next_tx(), tickets[1]))
    for n = 1, 2 do
      for _, answer in ipairs { "decline", "accept" } do
        refused(s:ask(who(3), at(3), answer, s:next_tx(), tickets[n], match))
      end
    end
    assert.same({ 2, 1, 0 }, { s.server:status().info.tickets, s.server:status().info.proposals,
      s:count "match_formed" })
  end)

  it("end who was asked about a match when its time was over, once that comes to nothing", function()
    local tickets, match = asked_two "accept_ms = 2000, expire_ms = 1000"
    s:ask(who(1), at(1), "accept", s:next_tx(), tickets[1], match)
    local ended = {}
    for _, m in ipairs(only(s:advance(2500), "ended")) do ended[m.ticket] = m.text end
    assert.same({ [tickets[1]] = "no match came about in time", [tickets[2]] = "you did not accept in time" }, ended)
  end)

  it("end whose time is over however many came and went before", function()
    open { q = "return bodkin.policy { size = 3, expire_ms = 5000 }" }
    for n = 1, 2 do s:register(who(n), at(n)) end
    enqueue(1, "q")
    for i = 1, 70 do
      enqueue(2, "q", ("%016d"):format(1000 + i))
      s:ask(who(2), at(2), "cancel", s:next_tx(), ("%016d"):format(1000 + i))
    end
    enqueue(2, "q")
    s:advance(200)
    assert.equal(2, s.server:status().info.tickets)
    s:advance(5000)
    assert.same({ 0, 2 }, { s.server:status().info.tickets, s:count "ticket_expired" })
  end)

  it("are of so many tickets in all", function()
    open({}, { tickets = 1 })
    for n = 1, 2 do s:register(who(n), at(n)) end
    assert.equal("queued", enqueue(1, "q")[1].name_of)
    assert.equal("too many wait here", enqueue(2, "q")[1].text)
  end)

  it("answer the last request of who asks again before the policy has said something", function()
    open({ q = "return bodkin.policy { size = 2 }" }, nil, true)
    s:register(who(1), at(1))
    local ticket, again = ("t"):rep(16), s:next_tx()
    assert.same({}, enqueue(1, "q", ticket))
    assert.same({}, enqueue(1, "q", ticket, nil, again))
    local answers = flow()
    assert.same({ 1, "queued", again }, { #answers, answers[1].name_of, answers[1].tx })
  end)

  describe("of parties", function()
    local function member(n, props)
      local tx = s:next_tx()
      return s:ask(who(n), at(n), "enqueue", tx, tx .. "abcd", "q", wire.encode(props or {}), ("p"):rep(16), 2)
    end
    local function cancel(n, answers) s:ask(who(n), at(n), "cancel", s:next_tx(), answers[1].ticket) end

    it("ask the policy about one in which another is", function()
      open { q = [[return bodkin.policy { size = 4, party = 2, admit = function(t)
        for _, m in ipairs(t.members) do if m.props.bad then return false, "no" end end
        return true
      end }]] }
      for n = 1, 3 do s:register(who(n), at(n)) end
      member(1)
      local second = member(2)
      assert.equal("queued", second[1].name_of)
      cancel(2, second)
      local told = only(member(3, { bad = true }), "ended")
      assert.same({ 2, "no" }, { #told, told[1] and told[1].text })
      assert.equal(0, s.server:status().info.tickets)
    end)

    it("begin anew with an id after that party is over", function()
      open { q = "return bodkin.policy { size = 2, party = 2 }" }
      for n = 1, 2 do s:register(who(n), at(n)) end
      cancel(1, member(1))
      for n = 1, 2 do member(n) end
      s:advance(150)
      assert.equal(1, s:count "match_formed")
    end)
  end)

  -- Whatever runs in the process of a policy: the server believes none of it.
  describe("with a desk that lies", function()
    local hear, stop, tick, explain, added
    local function none() end

    local function lying(policy)
      local env = support.env(1)
      explain, added = {}, {}
      env.log = { info = none, warn = none, error = none, debug = none }
      local slots = { q = { policy = sources.text('local bodkin = require "bodkin"\n' .. policy) } }
      local function link(on_message, on_end)
        hear, stop = on_message, on_end
        return { kill = none, close = none, send = function(_, m)
          if m[1] == "tick" then tick = m end
          if m[1] == "explain" then explain[#explain + 1] = m[3] end
          if m[1] ~= "add" then return end
          added[#added + 1] = { m[4], m[8] }
          if not m[8] then hear { "verdict", "q", m[4], true } end
        end }
      end
      s = support.server { env = env, queues = slots, roles = { "matching" }, open_policy_link = link }
    end
    -- Four clients, the last of another app, whose tickets have these numbers.
    local function four()
      for n = 1, 4 do
        s:register(who(n), at(n), { app = n == 4 and "other/1" or nil })
        enqueue(n, "q")
      end
      s:drain()
    end
    -- What the desk says of the next pass.
    local function say(teams, joins)
      s:advance(110)
      hear { "match", "q", tick[4], teams, false, wire.null, joins }
      return s:drain()
    end

    it("make no match of what cannot be one", function()
      for _, teams in ipairs { { { 1, 1 } }, { { 1 }, { 1 } }, { { 1, 4 } }, { { 1, 5 } }, { { 0, 1 } }, { { 1.5, 2 } },
        { { 1 } }, { 1, 2 }, 7 } do
        lying "return bodkin.policy { size = { 2, 3 } }"
        four()
        say(teams)
        assert.same({ 1, 0, 4 },
          { s:count "policy_failed", s:count "match_formed", s.server:status().info.tickets })
        s:close()
      end
      lying "return bodkin.policy { size = { 2, 3 } }"
      four()
      say { { 1, 2 } }
      assert.same({ 0, 1 }, { s:count "policy_failed", s:count "match_formed" })
    end)

    it("end nobody's ticket that is admitted already, or is asked about a match", function()
      lying "return bodkin.policy { size = 2, accept_ms = 5000 }"
      four()
      hear { "verdict", "q", 1, false, "no" }
      say { { 1, 2 } }
      for no = 1, 2 do
        hear { "verdict", "q", no, false, "no" }
        hear { "unfit", "q", tick[3], no, "no" }
      end
      assert.same({ 4, 1 }, { s.server:status().info.tickets, s.server:status().info.proposals })
      hear { "unfit", "q", tick[3], 3, "no" }
      assert.equal(3, s.server:status().info.tickets)
    end)

    it("tell another of all who wait once it ends, as admitted", function()
      lying "return bodkin.policy { size = 3 }"
      four()
      stop()
      s:advance(200)
      assert.same({ { 1, true }, { 2, true }, { 3, true }, { 4, true } }, { table.unpack(added, 5) })
    end)

    it("ask once more why a ticket waits: its policy may just be made anew", function()
      lying "return bodkin.policy { size = 2 }"
      s:register(who(1), at(1))
      enqueue(1, "q", ("t"):rep(16))
      assert.same({}, why(1, ("t"):rep(16)))
      hear { "explained", "q", explain[1], false }
      assert.same({}, only(s:advance(400), "waits"))
      hear { "explained", "q", explain[2], { others = 7 } }
      local told = s:drain()
      assert.equal(7, told[1] and core.wire.decode(told[1].said).others)
    end)

    it("fill a match up with nobody for whom it has no seat", function()
      local function told(teams, joins)
        lying "return bodkin.policy { size = { 2, 4 }, on_backfill = function() end }"
        four()
        for n = 5, 6 do
          s:register(who(n), at(n))
          enqueue(n, "q")
        end
        local match = only(say { { 1, 2 } }, "matched")[1].match
        s:ask(who(1), at(1), "backfill", s:next_tx(), match, wire.encode { 1 }, wire.encode {}) -- it is number 7
        say(teams, joins)
        local failed, joined = s:count "policy_failed", s:count "match_joined"
        s:close()
        return { failed, joined }
      end
      assert.same({ 0, 1 }, told({ { 3 } }, 7))
      assert.same({ 0, 0 }, told({ { 3, 5 } }, 7)) -- some of them may have been taken meanwhile
      assert.same({ 0, 0 }, told({ {}, { 3 } }, 7))
      assert.same({ 1, 0 }, told({ { 4 } }, 7))
      assert.same({ 1, 0 }, told({ { 3 } }, 5))
      assert.same({ 1, 0 }, told({ { 3 } }, 8))
      assert.same({ 1, 0 }, told({ { 3, 5, 7 } }, nil))
      lying "return bodkin.policy { size = 2 }"
    end)
  end)

  describe("with a match to fill up", function()
    local policy = [[return bodkin.policy { size = { 2, 4 }, props = { mode = "string?" },
        on_backfill = function(m, near) return near[1] and { teams = { { near[1] } } } end }]]

    -- Accepts whatever is proposed; what is told then, too.
    local function consent(list)
      local out = {}
      for _, m in ipairs(list) do
        local told = m.name_of == "proposed" and s:ask(m.who, m.to, "accept", s:next_tx(), m.ticket, m.match) or { m }
        table.move(told, 1, #told, #out + 1, out)
      end
      return out
    end
    local function run(text, pending)
      open({ q = text or policy }, { pending = pending or 2 }, true)
      for n = 1, 2 do
        s:register(who(n), at(n))
        enqueue(n, "q")
      end
      flow()
      s:advance(150)
      local told = only(consent(flow()), "matched")
      assert.equal(2, #told)
      s:ack(told)
      return told[1].match
    end
    local function ask(n, match, seats, tx, props)
      return s:ask(who(n), at(n), "backfill", tx or s:next_tx(), match, wire.encode(seats), wire.encode(props or {}))
    end
    local function backfill(...) return ask(1, ...) end
    -- So many that come new, from this one on, and how many were let into the match.
    local function join(first, most)
      for n = first, first + most - 1 do
        if n > 2 then s:register(who(n), at(n)) end
        enqueue(n, "q")
      end
      for _ = 1, 3 do
        flow()
        s:advance(110)
        s:ack(consent(flow()))
      end
      return s:count "match_joined"
    end

    it("look on for whom it wants when another than who asked is gone, not when that one is", function()
      for _, how in ipairs { "leave", "unregister" } do
        for gone, joined in pairs { 0, 1 } do
          local match = run()
          backfill(match, { 2 })
          s:ask(who(gone), at(gone), how, s:next_tx(), table.unpack(how == "leave" and { match } or {}))
          assert.equal(joined, join(3, 1), how)
          s:close()
        end
      end
      run()
    end)

    it("are asked for more by its members alone, and its host where it has one", function()
      local match = run()
      s:register(who(3), at(3))
      assert.equal("no such match can be joined", ask(3, match, { 1 })[1].text)
      s:close()
      match = run [[return bodkin.policy { size = { 2, 4 }, on_backfill = function() end,
        form = function(a, near) return { teams = { { a, near[1] } }, host = a } end }]]
      assert.equal("only the host of a match may ask", ask(2, match, { 1 })[1].text)
      s:ask(who(1), at(1), "leave", s:next_tx(), match)
      assert.same({}, ask(2, match, { 1 }))
      assert.equal("done", flow()[1].name_of)
    end)

    it("give it no more players than it may have", function()
      local match = run()
      assert.equal("more seats than a match has", backfill(match, { 3 })[1].text)
      s:close()
      match = run "return bodkin.policy { teams = { 1, 1 }, on_backfill = function() end }"
      s:ask(who(2), at(2), "leave", s:next_tx(), match)
      assert.equal("more seats than a match has", backfill(match, { 1, 0 })[1].text)
      assert.same({}, backfill(match, { 0, 1 }))
      assert.equal("done", flow()[1].name_of)
    end)

    it("show it no more once it is full, or where nothing is open", function()
      local match = run [[return bodkin.policy { size = { 2, 4 }, on_backfill = function(m, near)
        if m.seats[1] == 0 then error "nothing is open" end
        return near[1] and { teams = { { near[1] } } }
      end }]]
      backfill(match, { 1 })
      assert.equal(1, join(3, 1))
      assert.equal(1, join(4, 1))
      assert.equal("done", backfill(match, { 0 })[1].name_of)
      assert.equal(1, join(5, 1))
      assert.equal(0, s:count "policy_failed")
    end)

    it("do not let into it who is in it already", function()
      local match = run()
      backfill(match, { 2 })
      local ticket = ("x"):rep(16)
      enqueue(2, "q", ticket)
      flow()
      s:advance(110)
      local ended = only(flow(), "ended")
      assert.same({ 1, ticket, "you are in that match already" },
        { #ended, ended[1] and ended[1].ticket, ended[1] and ended[1].text })
      assert.equal(1, join(3, 1))
    end)

    it("may be taken back while a member of it does not answer", function()
      local match = run()
      backfill(match, { 2 })
      flow()
      burden(2)
      assert.equal(0, join(3, 1))
      assert.equal("done", backfill(match, {})[1].name_of)
    end)

    local asking = policy:gsub("size", "accept_ms = 5000, size", 1)

    it("look on for the rest once one has accepted", function()
      local match = run(asking, 3)
      backfill(match, { 2 })
      assert.equal(1, join(3, 1))
      assert.equal(2, join(4, 1))
    end)

    it("let nobody in who accepts after that was taken back", function()
      local match = run(asking)
      backfill(match, { 2 })
      s:register(who(3), at(3))
      enqueue(3, "q")
      flow()
      s:advance(110)
      local proposed = only(flow(), "proposed")
      assert.equal(1, #proposed)
      backfill(match, {})
      local told = only(consent(proposed), "waiting")
      assert.equal("the match could not be made", told[1] and told[1].text)
      assert.same({ 0, 1 }, { s:count "match_joined", s.server:status().info.tickets })
    end)

    it("refuse again what the policy refused", function()
      local match, tx = run(), s:next_tx()
      assert.same({}, backfill(match, { 1 }, tx, { mode = 1 }))
      assert.same({}, backfill(match, { 1 }, tx, { mode = 1 }))
      local refused = flow()
      assert.same({ 1, "refused" }, { #refused, refused[1] and refused[1].name_of })
      local again = backfill(match, { 1 }, tx, { mode = 1 })
      assert.same({ 1, "refused", refused[1].text }, { #again, again[1].name_of, again[1].text })
    end)

    it("answer what was replaced before it was decided, and that again", function()
      local match, tx, other = run(), s:next_tx(), s:next_tx()
      assert.same({}, backfill(match, { 1 }, tx))
      local replaced = backfill(match, { 2 }, other)
      assert.same({ 1, "refused", tx, -core.errors.closed.value },
        { #replaced, replaced[1].name_of, replaced[1].tx, replaced[1].code })
      assert.equal("refused", backfill(match, { 1 }, tx)[1].name_of)
      local done = flow()
      assert.same({ 1, "done", other }, { #done, done[1].name_of, done[1].tx })
      -- Taken back: what was done stays so.
      assert.equal("done", backfill(match, {})[1].name_of)
      assert.equal("done", backfill(match, { 2 }, other)[1].name_of)
    end)

    it("send no member of it more than may be on its way to one", function()
      local match, owed = run(), {}
      backfill(match, { 1 })
      flow()
      for k = 21, 22 do
        for _, m in ipairs(only(s:select(who(k), at(k), { target = who(2).id }), "matched")) do
          if m.who.id == who(2).id then owed[#owed + 1] = m else s:ack { m } end
        end
      end
      s:register(who(3), at(3))
      enqueue(3, "q")
      flow()
      s:advance(110)
      flow()
      assert.equal(0, s:count "match_joined")
      s:ack(owed)
      for _ = 1, 12 do
        s:advance(110)
        flow()
      end
      assert.equal(1, s:count "match_joined")
    end)

    it("keep nobody waiting for a member of it that does not answer", function()
      local match = run()
      backfill(match, { 2 })
      flow()
      local owed = burden(2)
      for n = 3, 4 do
        s:register(who(n), at(n))
        enqueue(n, "q")
        flow()
      end
      for _ = 1, 5 do
        s:advance(110)
        flow()
      end
      assert.same({ 2, 0 }, { s:count "match_formed", s:count "match_joined" })
      s:ack(owed)
      s:register(who(5), at(5))
      enqueue(5, "q")
      for _ = 1, 12 do
        s:advance(110)
        flow()
      end
      assert.same({ 2, 1 }, { s:count "match_formed", s:count "match_joined" })
    end)
  end)
end)
