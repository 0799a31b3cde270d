-- SPDX-License-Identifier: MIT
local core = require "bodkin.core"
local message = require "bodkin.message"
local support = require "spec.servers.support"
local rooms = require "bodkin.servers.rooms"

local addr, who, only = support.addr, support.who, support.only

local function at(n) return addr(("198.51.100.%d:40000"):format(n)) end

describe("C3 server side: selection", function()
  local s
  local function open(options)
    options = options or {}
    options.roles = { "matching" }
    s = support.server(options)
  end
  -- Registers 1..n; the first opens a room. Returns its code and match id.
  local function host(options)
    s:register(who(1), at(1), options)
    local r = s:room(who(1), at(1))
    assert.equal("room_opened", r.name_of)
    return r.code, r.match
  end
  local function join(n, code, options)
    options = options or {}
    options.code = code
    if not options.unregistered then s:register(who(n), at(n), options) end
    return s:select(who(n), at(n), options)
  end
  after_each(function() s:close() end)

  it("C3 passes a selection on: both are told in one instant, never the selector first", function()
    open()
    s:register(who(1), at(1), { name = "ann", props = { map = "dust" } })
    s:register(who(2), at(2), { name = "bob" })
    local sent = s:select(who(2), at(2), { target = who(1).id, name = "bob" })
    assert.equal(3, #sent)
    local to_ann, to_bob, selected = sent[1], sent[2], sent[3]
    assert.equal(at(1), to_ann.to)
    assert.equal(at(2), to_bob.to)
    assert.equal("selected", selected.name_of)
    assert.equal(sent[1].at_us, sent[3].at_us)
    assert.equal(selected.match, to_ann.match)
    assert.equal(selected.match, to_bob.match)
    assert.equal(32, #to_ann.key)
    assert.equal(to_ann.key, to_bob.key)
    assert.equal(who(2).key, to_ann.peer_key)
    assert.equal(who(2).ephemeral, to_ann.peer_ephemeral)
    assert.equal(who(1).ephemeral:sub(1, 8), to_ann.own)
    assert.equal(who(1).key, to_bob.peer_key)
    assert.equal("bob", to_ann.name)
    assert.equal("ann", to_bob.name)
    assert.same({ map = "dust" }, core.wire.decode(to_bob.props))
    assert.same({ at(2) }, to_ann.pubs)
    assert.same({ at(1) }, to_bob.pubs)
    for _, m in ipairs(sent) do assert.equal(2, m.of_n) end
    assert.equal(0, to_ann.start_in_ms)
    assert.equal(0, to_ann.age_ms)
  end)

  it("C3 needs no registration of the selector, and doubles as its address request", function()
    open()
    s:register(who(1), at(1))
    local inner = message.select:encode(s:next_tx(), who(2).ephemeral, who(1).id, nil, {}, {}, "test/1", "",
      core.wire.encode({}), nil)
    local raw, noise = core.assoc(who(2).key .. who(2).key_secret, ("e"):rep(32), s.server.public_keys[1], 77, inner)
    s.by_index[77] = { raw = raw, who = who(2) }
    local tx = s:next_tx()
    local r = s:one(at(2), "open", tx, nil, noise)
    assert.equal("address_report", r.name_of)
    s.env.sent = {}
    s.env.socks[1].to_router:input(s.env.socks[1], at(2), message.open:encode(tx, r.proof, noise))
    local to_one, opened, to_two = table.unpack(s.env.sent) -- what is pushed meanwhile follows the answer
    local answers = raw:answered(select(2, message.opened:decode(opened.bytes)))
    local _, match, of_n = message.selected:decode(answers)
    assert.equal(2, of_n)
    s.env.sent = { to_one, to_two }
    local sent = s:drain()
    assert.equal(match, sent[1].match)
    assert.same({ core.addr.mask(r.xaddr, tx) }, sent[1].pubs)
    assert.equal(at(2), sent[2].to)
    assert.equal(1, s.server.registry:count())
  end)

  it("C3 is idempotent: a repeated selection is answered again and matches nobody anew", function()
    open()
    s:register(who(1), at(1))
    local tx = s:next_tx()
    local one = s:select(who(2), at(2), { tx = tx, target = who(1).id })
    local again = s:select(who(2), at(2), { tx = tx, target = who(1).id })
    assert.equal(1, #again)
    assert.equal("selected", again[1].name_of)
    assert.equal(one[1].match, again[1].match)
    assert.equal(1, s:count("selected"))
    local other = s:select(who(3), at(3), { tx = tx, target = who(1).id })
    assert.not_equal(one[1].match, other[1].match)
  end)

  it("C3 resends matched at 0, 20, 60 ms, then backed off until acknowledged", function()
    open()
    s:register(who(1), at(1))
    local sent = s:select(who(2), at(2), { target = who(1).id })
    local start = sent[1].at_us
    s:ack { sent[2] }
    local times, tx = { 0 }, sent[1].tx
    for _ = 1, 12 do
      for _, m in ipairs(s:advance(1000)) do
        assert.equal(at(1), m.to)
        assert.equal(tx, m.tx)
        assert.equal(sent[1].key, m.key)
        times[#times + 1] = (m.at_us - start) // 1000
        assert.equal(times[#times], m.age_ms)
      end
    end
    assert.same({ 0, 20, 60, 140, 300, 620, 1260, 2540, 5100, 10220 }, times)
    s:advance(20000)
    assert.equal(1, s:count("matched_acked"))
    assert.equal(1, s:count("matched_lost"))
    assert.equal(11, s:count("matched_sent"))
    assert.equal(0, s.server:status().info.matched_pending)
    s:ack { sent[1] }
    assert.equal(1, s:count("drop_reply"))
  end)

  it("C3 tells both what their NATs do, as each said last", function()
    open()
    local function nats(sent)
      local out = {}
      for _, m in ipairs(only(sent, "matched")) do out[m.to] = { m.own_nat or 0, m.peer_nat or 0 } end
      return out
    end
    s:register(who(1), at(1), { nat = 33 })
    local told = nats(s:select(who(2), at(2), { target = who(1).id, nat = 16383 }))
    assert.same({ [at(1)] = { 33, 16383 }, [at(2)] = { 16383, 33 } }, told)
    s:register(who(1), at(1), {})
    told = nats(s:select(who(3), at(3), { target = who(1).id }))
    assert.same({ [at(1)] = { 0, 0 }, [at(3)] = { 0, 0 } }, told)
    -- A selection's word stands for a registration's.
    s:register(who(4), at(4), { nat = 5 })
    s:select(who(4), at(4), { target = who(1).id, nat = 6 })
    told = nats(s:select(who(5), at(5), { target = who(4).id }))
    assert.same({ 6, 0 }, told[at(4)])
  end)

  it("C3 tells the nearer of two to wait for the other, less in each repeat", function()
    open()
    s:register(who(1), at(1), { rtt_ms = 120 })
    local sent = s:select(who(2), at(2), { target = who(1).id, rtt_ms = 10 })
    assert.equal(sent[1].at_us, sent[2].at_us)
    assert.equal(0, sent[1].start_in_ms)
    assert.equal(55, sent[2].start_in_ms)
    local waits = {}
    for _, m in ipairs(s:advance(150)) do
      if m.to == at(2) then waits[#waits + 1] = m.start_in_ms end
    end
    assert.same({ 35, 0, 0 }, waits)
    -- Registered the other way round it is the other who waits; what is unknown makes nobody wait.
    sent = s:select(who(3), at(3), { target = who(1).id, rtt_ms = 321 })
    assert.equal(101, sent[1].start_in_ms)
    assert.equal(0, sent[2].start_in_ms)
    sent = s:select(who(4), at(4), { target = who(1).id })
    assert.equal(0, sent[1].start_in_ms)
    assert.equal(0, sent[2].start_in_ms)
  end)

  it("C3 lets no claim of a round-trip time delay a match by more than half a second", function()
    open()
    s:register(who(1), at(1), { rtt_ms = 0 })
    local sent = s:select(who(2), at(2), { target = who(1).id, rtt_ms = 10000 })
    assert.equal(500, sent[1].start_in_ms)
    assert.equal(0, sent[2].start_in_ms)
  end)

  it("C3 takes an acknowledgement by whom it told, once, and by nobody else", function()
    open()
    s:register(who(1), at(1))
    local sent = s:select(who(2), at(2), { target = who(1).id })
    s:ask(who(3), at(9), "matched_ack", sent[1].tx)
    assert.equal(1, s:count("drop_reply"))
    assert.equal(0, #(s:ask(who(1), at(9), "matched_ack", sent[1].tx)))
    s:ask(who(1), at(1), "matched_ack", sent[1].tx)
    s:ack { sent[2] }
    assert.equal(0, #s:advance(30000))
    assert.equal(2, s:count("matched_acked"))
    assert.equal(2, s:count("drop_reply"))
  end)

  it("C3 sends matched to where the client is now", function()
    open()
    s:register(who(1), at(1))
    s:register(who(2), at(2))
    local sent = s:select(who(2), at(22), { target = who(1).id })
    assert.equal(at(22), sent[2].to)
    assert.same({ at(22) }, sent[1].pubs)
    s:register(who(1), at(11))
    local again = s:advance(20)
    assert.equal(2, #again)
    assert.equal(at(11), again[1].to)
    assert.equal(at(22), again[2].to)
  end)

  it("C3 stops when the client has gone", function()
    open()
    s:register(who(1), at(1))
    local sent = s:select(who(2), at(2), { target = who(1).id })
    s:ack { sent[2] }
    s:ask(who(1), at(1), "unregister", s:next_tx())
    assert.equal(0, #s:advance(30000))
  end)

  it("C3 pairs each who joins a room with every member: one match, a key for each pair", function()
    open()
    local code, match = host()
    local keys = {}
    for n = 2, 5 do
      local sent = join(n, code)
      local matched = only(sent, "matched")
      assert.equal(2 * (n - 1), #matched)
      for i, m in ipairs(matched) do
        assert.equal(match, m.match)
        assert.equal(n, m.of_n)
        assert.equal(i > n - 1, m.to == at(n)) -- all others first
        keys[m.key] = (keys[m.key] or 0) + 1
      end
      assert.equal(n, only(sent, "selected")[1].of_n)
      s:ack(matched)
    end
    local pairs_made = 0
    for _, n in pairs(keys) do
      assert.equal(2, n)
      pairs_made = pairs_made + 1
    end
    assert.equal(10, pairs_made)
    assert.equal(1, s.server:status().info.rooms)
  end)

  it("C3 joins a host's room by the host's id, too", function()
    open()
    local code, match = host()
    s:ack(join(2, code))
    local sent = s:select(who(3), at(3), { target = who(1).id })
    assert.equal(4, #only(sent, "matched"))
    assert.equal(match, only(sent, "selected")[1].match)
  end)

  it("C3 pairs a member that selects again anew, and drops the repeats for its old key", function()
    open()
    local code = host()
    local first = join(2, code)
    local again = s:select(who(2), at(2), { code = code })
    assert.equal(2, #only(again, "matched"))
    assert.equal(2, only(again, "selected")[1].of_n)
    assert.not_equal(first[1].key, again[1].key)
    for _, m in ipairs(s:advance(1000)) do assert.equal(again[1].key, m.key) end
  end)

  it("C3 keeps an unregistered selector in the room for a minute, longer once it registers", function()
    open()
    local code = host()
    s:ack(join(2, code, { unregistered = true }))
    s:ack(join(3, code, { unregistered = true }))
    s:advance(40000)
    for n = 1, 2 do s:register(who(n), at(n)) end
    local sent = join(4, code)
    assert.equal(6, #only(sent, "matched"))
    s:ack(sent)
    s:advance(25000)
    sent = join(5, code)
    assert.equal(6, #only(sent, "matched")) -- 1, 2 and 4; not 3
  end)

  it("C3 refuses: no such id, oneself, nothing named, another application", function()
    open()
    local code = host()
    local function refused(options)
      local sent = s:select(who(2), at(2), options)
      assert.equal(1, #sent)
      assert.equal("refused", sent[1].name_of)
      return sent[1].code
    end
    assert.equal(1002, refused { target = who(7).id })
    assert.equal(1010, refused { target = who(2).id })
    assert.equal(1010, refused {})
    assert.equal(1007, refused { code = code, app = "other/1" })
    assert.equal(1007, refused { target = who(1).id, app = "other/1" })
    assert.equal(1010, refused { code = code, name = "\xff" })
    assert.equal(0, s:count("selected"))
    assert.equal(0, s:count("matched_sent"))
  end)

  it("C3 bounds a room, and what one client has not acknowledged", function()
    open { limits = { room_members = 3, pending = 4 } }
    local code = host()
    for n = 2, 3 do s:ack(join(n, code)) end
    assert.equal(1008, join(4, code)[1].code)
    local again = s:select(who(3), at(3), { code = code }) -- who is in it takes no more room
    assert.equal(3, only(again, "selected")[1].of_n)
    s:ack(again)
    s:register(who(5), at(5))
    for n = 11, 14 do assert.equal(3, #s:select(who(n), at(n), { target = who(5).id })) end
    assert.equal(1008, s:select(who(15), at(15), { target = who(5).id })[1].code)
    s:advance(30000)
    s:register(who(5), at(5))
    assert.equal(3, #s:select(who(15), at(15), { target = who(5).id }))
    -- Nor is one who selects told of more than that.
    s:close()
    open { limits = { pending = 4 } }
    code = host()
    s:ack(join(2, code))
    for n = 11, 13 do
      s:register(who(n), at(n))
      s:select(who(6), at(6), { target = who(n).id })
    end
    assert.equal(1008, only(s:select(who(6), at(6), { code = code }), "refused")[1].code)
  end)

  it("C3 bounds rooms, and what all clients have not acknowledged", function()
    open { limits = { rooms = 2, pending_all = 3 } }
    for n = 1, 3 do s:register(who(n), at(n)) end
    local code = s:room(who(1), at(1)).code
    s:one(who(1), at(1), "leave", s:next_tx(), s:room(who(1), at(1)).match)
    assert.equal("room_opened", s:room(who(2), at(2)).name_of)
    assert.equal(1008, s:room(who(3), at(3)).code)
    assert.equal(1008, s:room(who(1), at(1)).code) -- its old code is held for it, but it shows no match id
    s:advance(50000)
    for n = 1, 3 do s:register(who(n), at(n)) end
    s:advance(11000)
    assert.not_equal(code, s:room(who(1), at(1)).code)
    s:select(who(4), at(4), { target = who(3).id })
    assert.equal(1008, s:select(who(5), at(5), { target = who(2).id })[1].code)
  end)

  it("P1 gives local addresses to peers with the same public IP only, by default", function()
    local near, far = addr("198.51.100.1:50000"), at(3)
    local own = { addr("192.168.1.2:5000") }
    for rule, expect in pairs { ["same-public"] = { 1, 0 }, always = { 1, 1 }, never = { 0, 0 } } do
      if s then s:close() end
      open { local_addresses = rule }
      s:register(who(1), at(1), { locals = own })
      for i, where in ipairs { near, far } do
        local sent = s:select(who(i + 1), where, { target = who(1).id, locals = own })
        assert.equal(expect[i], #sent[1].locals, rule)
        assert.equal(expect[i], #sent[2].locals, rule)
        s:ack(sent)
      end
    end
  end)

  it("P1 knows one NAT with several public addresses by any of them", function()
    open()
    local other = addr("198.51.100.200:7000")
    s:register(who(1), at(1), { locals = { addr("192.168.1.2:5000") }, pubs = { other .. s:proof(other) } })
    local sent = s:select(who(2), addr("198.51.100.200:7777"), { target = who(1).id })
    assert.equal(1, #sent[2].locals)
  end)
end)

describe("rooms", function()
  local s
  before_each(function() s = support.server { roles = { "matching" } } end)
  after_each(function() s:close() end)

  it("have codes of 48 bits that can be read aloud", function()
    local seen = {}
    for _ = 1, 200 do
      local code = rooms.code(core.crypto.random)
      assert.matches("^%l%l%l%l%l%-%l%l%l%l%l%-%l%l%l%l%l$", code)
      assert.equal(code, rooms.normal(code))
      assert.equal(code, rooms.normal(" " .. code:upper():gsub("-", " ")))
      assert.is_nil(seen[code])
      seen[code] = true
    end
    -- the examples of the proquint paper: 127.0.0.1 is lusab-babad
    assert.equal("lusab-babad-zuzuz", rooms.code(function() return "\x7f\x00\x00\x01\xff\xff" end))
    for _, bad in ipairs { "", "babab", "babab-babab-babax", "babab-babab-babab-b", ("x"):rep(32) } do
      assert.is_nil(rooms.normal(bad))
    end
  end)

  it("are opened once a host, and only by one who is registered", function()
    assert.equal(1001, s:room(who(1), at(1)).code)
    s:register(who(1), at(1))
    local one, two = s:room(who(1), at(1)), s:room(who(1), at(1))
    assert.equal(one.code, two.code)
    assert.equal(one.match, two.match)
    assert.equal(1, s:count("room_opened"))
  end)

  it("never show their code in an entry of the list", function()
    s:register(who(1), at(1), { name = "ann" })
    local code = s:room(who(1), at(1)).code
    local page = s:one(at(2), "list", s:next_tx(), "test/1", core.wire.encode({}), nil, true)
    assert.equal(1, #core.wire.decode(page.entries))
    assert.is_nil(page.entries:find(code, 1, true))
  end)

  it("are found again by their host after a restart: the same code and match id, if they are free", function()
    s:register(who(1), at(1))
    local before = s:room(who(1), at(1))
    s:close()
    s = support.server { roles = { "matching" }, seed = 2 }
    assert.equal(1001, s:room(who(1), at(1), before.code, before.match).code)
    s:register(who(1), at(1))
    local again = s:room(who(1), at(1), before.code, before.match)
    assert.equal(before.code, again.code)
    assert.equal(before.match, again.match)
    s:register(who(2), at(2))
    for _, match in ipairs { ("m"):rep(16), false } do
      local other = s:room(who(2), at(2), before.code, match or nil)
      assert.equal("room_opened", other.name_of)
      assert.not_equal(before.code, other.code)
      assert.not_equal(before.match, other.match)
    end
  end)

  it("are found again by all their members after a restart, in any order, and nobody is paired anew", function()
    local code, match = "babab-babab-babab", ("m"):rep(16)
    for _, n in ipairs { 2, 1, 3 } do
      s:register(who(n), at(n))
      local again = s:room(who(n), at(n), code, match)
      assert.equal(code, again.code)
      assert.equal(match, again.match)
    end
    assert.equal(1, s.server:status().info.rooms)
    assert.equal(0, s:count("matched_sent"))
    local sent = s:select(who(4), at(4), { target = who(1).id })
    assert.equal(6, #only(sent, "matched"))
    assert.equal(match, sent[1].match)
    s:register(who(5), at(5), { app = "other/1" })
    assert.not_equal(code, s:room(who(5), at(5), code, match).code)
    -- They have a host again when theirs leaves.
    local told = only(s:ask(who(2), at(2), "leave", s:next_tx(), match), "room_host")
    assert.same({ 2, who(1).id, code }, { #told, told[1] and told[1].host, told[1] and told[1].code })
  end)

  it("live while anybody is in them, and a minute longer for their host", function()
    s:register(who(1), at(1))
    local room = s:room(who(1), at(1))
    s:register(who(2), at(2))
    s:ack(s:select(who(2), at(2), { code = room.code }))
    s:ask(who(1), at(1), "unregister", s:next_tx())
    s:ack(s:select(who(3), at(3), { code = room.code }))
    assert.equal("done", s:one(who(2), at(2), "leave", s:next_tx(), room.match).name_of)
    assert.equal(1, #only(s:select(who(4), at(4), { code = room.code }), "selected")) -- 3 is there still
    s:advance(61000)
    assert.equal(1002, s:select(who(5), at(5), { code = room.code })[1].code)
    assert.equal(1, s.server:status().info.rooms)
    s:register(who(1), at(1))
    assert.equal(room.code, s:room(who(1), at(1), room.code, room.match).code)
    s:advance(30000)
    s:register(who(1), at(1))
    s:advance(40000)
    assert.equal(1, s.server:status().info.rooms)
    s:advance(21000 + 60000)
    assert.equal(0, s.server:status().info.rooms)
  end)

  it("take no more than they have room for, also after a restart, and none the match id of another", function()
    s:close()
    s = support.server { roles = { "matching" }, limits = { room_members = 2 } }
    local code, match = "babab-babab-babab", ("m"):rep(16)
    for n = 1, 3 do
      s:register(who(n), at(n))
      assert.equal(n < 3, s:room(who(n), at(n), code, match).code == code)
    end
    s:register(who(4), at(4))
    assert.not_equal(match, s:room(who(4), at(4), "babab-babab-babad", match).match)
  end)

  it("pass to a member that is registered and has no room of its own", function()
    for n = 1, 4 do
      if n ~= 2 then s:register(who(n), at(n)) end
    end
    local room = s:room(who(1), at(1))
    s:room(who(3), at(3))
    for n = 2, 4 do s:ack(s:select(who(n), at(n), { code = room.code })) end
    local told = only(s:ask(who(1), at(1), "leave", s:next_tx(), room.match), "room_host")
    assert.equal(who(4).id, told[1] and told[1].host)
  end)

  it("keep who is not registered for a minute after it came the last time", function()
    s:register(who(1), at(1))
    local room = s:room(who(1), at(1))
    s:ack(s:select(who(2), at(2), { code = room.code }))
    s:ask(who(1), at(1), "unregister", s:next_tx())
    s:advance(40000)
    s:ack(s:select(who(2), at(2), { code = room.code }))
    s:advance(40000)
    assert.equal(1, #only(s:select(who(3), at(3), { code = room.code }), "selected"))
  end)

  it("are left by their members alone", function()
    s:register(who(1), at(1))
    local room = s:room(who(1), at(1))
    s:register(who(2), at(2))
    s:ack(s:select(who(2), at(2), { code = room.code }))
    assert.equal("done", s:one(who(7), at(2), "leave", s:next_tx(), room.match).name_of)
    assert.equal(4, #only(s:select(who(3), at(3), { code = room.code }), "matched"))
  end)

  it("limit guesses at their codes by source: ten at once, then one in two seconds", function()
    s:register(who(1), at(1))
    local code = s:room(who(1), at(1)).code
    local function guess(from) return s:select(who(9), from, { code = "babab-babab-babab" })[1].code end
    for _ = 1, 10 do assert.equal(1002, guess(at(2))) end
    assert.equal(1008, guess(at(2)))
    assert.equal(1008, s:select(who(9), at(2), { code = code })[1].code) -- nor is a right one looked at
    assert.equal(1002, guess(at(3)))
    s:advance(2000)
    assert.equal(1002, guess(at(2)))
    assert.equal(1008, guess(at(2)))
    s:advance(20000)
    s:register(who(1), at(1))
    for _ = 1, 10 do assert.equal(1002, guess(at(2))) end
    assert.equal(22, s:count("room_guess_wrong"))
    assert.equal(3, s:count("room_guess_limited"))
    for n = 1, 10 do guess(addr(("[2001:db8:0:1::%x]:5"):format(n))) end
    assert.equal(1008, guess(addr("[2001:db8:0:1:ffff::1]:6"))) -- one /64
    assert.equal(1002, guess(addr("[2001:db8:0:2::1]:6")))
  end)

  it("do not charge a right code as a guess, and remember a bounded number of sources", function()
    s:register(who(1), at(1))
    local code = s:room(who(1), at(1)).code
    for n = 1, 12 do
      local sent = s:select(who(10 + n), at(2), { code = code })
      assert.equal("selected", sent[#sent].name_of)
      s:ack(sent)
    end
    local recent = require("bodkin.servers.recent").new { span_us = 1000, max = 10 }
    for i = 1, 1000 do recent:put(i, i, true) end
    local kept = 0
    for i = 1, 1000 do kept = kept + (recent:get(1000, i) and 1 or 0) end
    assert.is_true(kept <= 20 and kept >= 10)
    assert.is_nil(recent:get(3000, 1000))
  end)
end)
