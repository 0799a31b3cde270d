-- SPDX-License-Identifier: MIT
-- What a client keeps of its matches, and what it tells its server, who tells it apart from lies.
local core = require "bodkin.core"
local message = require "bodkin.message"
local outcome = require "bodkin.outcome"
local support = require "spec.client.support"

local function natted(s, n, kind)
  return s:host("h" .. n, "192.168.1.2", s:nat("nat" .. n, ("203.0.113.%d"):format(n), kind and { kind = kind }))
end

local HOUR_MS = 3600000

describe("a client's history", function()
  local s
  after_each(function() s:close() end)

  local function server_why(asked)
    local answer = s.server:why(asked)
    assert.equal(1, answer.total)
    return answer.matches[1]
  end

  it("tells of a match while it lasts, and for an hour after", function()
    s = support.new { delay_ms = 20, roles = support.NO_RELAY }
    local a, b = s:open(natted(s, 1), { name = "ann" }), s:open(natted(s, 2), { name = "bob" })
    local ma = s:pair(a, b)
    s.world:run(1000)
    local r = a:why(ma.id)[1]
    assert.same({ a.id, "ann", b.id, "bob", "connected", true },
      { r.self, r.own_name, r.peer, r.name, r.state, r.connected })
    assert.same({ "203.0.113.1:49152" }, r.public)
    assert.same({ "203.0.113.2:49152" }, r.peer_public)
    assert.same({ "192.168.1.2:49152" }, r["local"])
    assert.same({}, r.peer_local)
    assert.equal(1, #r.paths)
    assert.same({ "203.0.113.2:49152", "srflx", "valid" }, { r.paths[1].remote, r.paths[1].via, r.paths[1].state })
    assert.is_true(r.confirmed_ms >= r.first_ms and r.rtt_ms >= 40)
    s:run(function() ma:leave() end)
    s.world:run(1000)
    for _, asked in ipairs { ma.id, ma.id:sub(1, 4), b.id, "bob" } do
      local after = a:why(asked)
      assert.equal(1, #after, asked)
      assert.same({ "closed", "closed", false }, { after[1].state, after[1].reason, after[1].connected })
      assert.equal("valid", after[1].paths[1].state) -- the session is gone, what became of its paths is not
      assert.equal(r.first_ms, after[1].first_ms)
    end
    assert.equal("left", b:why()[1].reason)
    assert.same({}, a:why "eve")
    s.world:run(HOUR_MS - 10000)
    assert.equal(1, #a:why())
    s.world:run(10000)
    assert.same({}, a:why())
  end)

  it("has a record of each time that the same two met, with its own times", function()
    s = support.new()
    local a = s:open(natted(s, 1))
    local match, peer = { id = ("1"):rep(32) }, { id = ("2"):rep(32), name = "" }
    for i = 1, 2 do
      a.history:matched(match, peer, { pubs = {}, locals = {} })
      assert.is_nil(peer.first_ms)
      peer.first_ms, peer.confirmed_ms = i, i
      s.world:run(1000 * i)
      a.history:over(match, peer, "left")
      a.history:over(match, peer, "closed") -- it is over already
    end
    local list = a:why()
    assert.equal(2, #list)
    for i, r in ipairs(list) do
      assert.same({ i, i, 1000.0 * i, "left" }, { r.first_ms, r.confirmed_ms, r.lasted_ms, r.reason })
    end
  end)

  it("keeps the latest 256 alone", function()
    s = support.new()
    local a = s:open(natted(s, 1))
    for i = 1, 300 do
      local peer = { id = ("%032x"):format(i), name = "" }
      local match = { id = ("%032x"):format(i) }
      a.history:matched(match, peer, { pubs = {}, locals = {} })
      a.history:over(match, peer, "left")
    end
    local list = a:why()
    assert.equal(256, #list)
    assert.equal(("%032x"):format(300), list[256].peer)
    assert.equal(64, a.history.under_way) -- and tells of so many at once
    s.world:run(5000)
    assert.equal(0, a.history.under_way)
  end)

  -- A match that comes too late.
  local function late(a, match)
    local key = core.crypto.keypair(("p"):rep(32))
    a:matched { match = match, key = ("k"):rep(32), peer = core.crypto.id(key), peer_key = key,
      peer_ephemeral = key, own = ("x"):rep(8), name = "", pubs = {}, locals = {}, of_n = 2, start_in_ms = 0 }
    local r = a:why()[1]
    assert.equal("the match came too late for its keys", r.note)
    return { r.state, r.reason }
  end

  it("tells of what never began, why", function()
    s = support.new()
    assert.same({ "closed", "no_path" }, late(s:open(natted(s, 1)), ("m"):rep(16)))
  end)

  it("tells the same of a match that was closed at once, since it is with another than was asked for", function()
    s = support.new()
    local a = s:open(natted(s, 1))
    a:match_of(("m"):rep(16)).wanted = ("0"):rep(32)
    assert.same({ "closed", "closed" }, late(a, ("m"):rep(16)))
    assert.is_nil(next(a.history.live))
  end)

  it("is told to the server while paths change without end, once a second", function()
    s = support.new { delay_ms = 20 }
    local a, b = s:open(natted(s, 1)), s:open(natted(s, 2))
    local ma = s:pair(a, b)
    s.world:run(3000)
    local before = s.server.counters:get "outcome_received"
    for i = 1, 20 do
      a.history:changed(ma, ma.order[1], i)
      s.world:run(500)
    end
    local told = s.server.counters:get "outcome_received" - before
    assert.is_true(told >= 6 and told <= 10, told)
  end)

  it("is told to the server by both ends: connected, what changed, and the end", function()
    s = support.new { delay_ms = 20 }
    local a, b = s:open(natted(s, 1), { name = "ann" }), s:open(natted(s, 2), { name = "bob" })
    local ma = s:pair(a, b)
    s.world:run(3000)
    local m = server_why "ann"
    assert.same({ ma.id, "room", "connected", 2 }, { m.match, m.how, m.verdict, #m.ends })
    for _, e in ipairs(m.ends) do
      local own = (e.self == a.id and a or b):why()[1]
      for _, name in ipairs { "match", "peer", "name", "own_name", "state", "path", "via", "first_ms", "confirmed_ms",
        "rtt_ms" } do
        assert.equal(own[name], e[name], name)
      end
      for _, p in ipairs(own.paths) do p.jitter_ms, p.loss, p.selected = nil, nil, nil end -- these are not told
      for _, name in ipairs { "public", "peer_public", "peer_local", "paths" } do
        assert.same(own[name], e[name], name)
      end
      assert.is_true(e.acknowledged)
    end
    s:run(function() ma:leave() end)
    s.world:run(1000)
    m = server_why(ma.id:sub(1, 8))
    local reasons = {}
    for _, e in ipairs(m.ends) do reasons[e.self] = e.reason end
    assert.same({ [a.id] = "closed", [b.id] = "left" }, reasons)
    assert.equal(4, s.server.counters:get "outcome_received")
    assert.equal(0, s.server.counters:get "outcome_refused")
  end)

  it("is told also by who closes its node, and of a match without a path", function()
    s = support.new { delay_ms = 20 }
    local a, b = s:open(natted(s, 1)), s:open(natted(s, 2, "symmetric_random"))
    local ma = s:run(function() return assert(a:host()) end)
    s:run(function()
      assert(b:join(ma.code))
      b:close()
    end)
    s.world:run(12000)
    local m = server_why(ma.id)
    assert.equal("failed", m.verdict)
    for _, e in ipairs(m.ends) do assert.equal(e.self == a.id and "no_path" or "closed", e.reason) end
  end)

  it("is told again where the first report was lost, and of the latest alone", function()
    s = support.new { delay_ms = 20, seed = 3, loss = 0.4 }
    local a, b = s:open(natted(s, 1)), s:open(natted(s, 2))
    local ma = s:pair(a, b)
    s:run(function() ma:leave() end)
    s.world:run(5000)
    local m = server_why(ma.id)
    for _, e in ipairs(m.ends) do
      if e.self == a.id then assert.equal("closed", e.reason) end
    end
  end)

  it("goes on being known to the server in a match of three hours, and an hour longer", function()
    s = support.new { delay_ms = 20, trace = false }
    local a, b = s:open(natted(s, 1)), s:open(natted(s, 2))
    local ma = s:pair(a, b)
    s.world:run(3 * HOUR_MS)
    assert.equal("connected", server_why(ma.id).verdict)
    s:run(function() ma:leave() end)
    s.world:run(HOUR_MS - 60000)
    assert.equal(2, #server_why(ma.id).ends)
    s.world:run(120000)
    assert.equal(0, s.server:why(ma.id).total)
    assert.equal(0, s.server:status().info.history)
  end)

  it("tells the server of behaviour where it is known", function()
    s = support.new { delay_ms = 20 }
    local a, b = s:open(natted(s, 1)), s:open(natted(s, 2))
    local words = { mapping = "endpoint", filtering = "address_port", ports = "preserving" }
    support.knows(a, words)
    b.nat:close()
    local ma = s:pair(a, b)
    s.world:run(2000)
    for _, e in ipairs(server_why(ma.id).ends) do assert.same(e.self == a.id and words or nil, e.behaviour) end
  end)
end)

describe("a report", function()
  local function sample(paths)
    return { state = "closed", reason = "no_path", first_ms = 20.04, lasted_ms = 1e12, paths = paths }
  end

  it("fits in a message of 400 bytes, however much there is to tell", function()
    local paths = {}
    for i = 1, 16 do
      paths[i] = { remote = ("[2001:db8::%x]:65535"):format(i), via = "prflx", state = "failed", reason = "no_answer",
        tests = 1e9, rtt_ms = 1e9 }
    end
    local bytes = outcome.pack(sample(paths), 0xffffffff)
    assert.is_true(#bytes <= outcome.REPORT_MAX, #bytes)
    local whole = message.outcome:encode(("t"):rep(12), ("m"):rep(16), ("p"):rep(16), bytes)
    assert.is_true(#whole <= 400, #whole)
    local r = outcome.unpack(bytes)
    assert.same({ 16, "no_path", 20.0, 3600000.0 }, { r.candidates, r.reason, r.first_ms, r.lasted_ms })
    assert.is_true(#r.paths >= 8 and #r.paths < 16)
    assert.equal(65535, r.paths[1].tests)
  end)

  it("has those first that the peer was heard on", function()
    local paths = {}
    for i = 1, 15 do
      paths[i] = { remote = ("[2001:db8::%x]:1"):format(i), via = "ipv6", state = "probing", tests = 1 }
    end
    paths[16] = { remote = "203.0.113.1:1", via = "prflx", state = "usable", reason = "none", tests = 1 }
    assert.equal("usable", outcome.unpack(outcome.pack(sample(paths), 1)).paths[1].state)
  end)

  it("has a number for every way, state and reason there is", function()
    local function has(list, word)
      for _, w in ipairs(list) do
        if w == word then return true end
      end
    end
    for _, r in ipairs(core.reasons) do assert.is_true(has(outcome.REASONS, r.name), r.name) end
    local header <close> = assert(io.open "runtime/core/path.c")
    local text = header:read "a"
    local function names(what)
      return text:match("bdk_" .. what .. "_name%(int %l+%) {\n[^{]+(%b{})"):gmatch '"(%w+)"'
    end
    local n = 0
    for name in names "via" do n = n + 1 assert.is_true(has(outcome.VIAS, name), name) end
    for name in names "path_state" do n = n + 1 assert.is_true(has(outcome.PATH_STATES, name), name) end
    assert.is_true(n >= 10)
  end)

  it("is refused where anything in it is not what it should be", function()
    local wire = core.wire
    local function good()
      return { 1, 3, 4, 0, 0, wire.null, wire.null, wire.null, 10, wire.null, 1,
        { { wire.bin "\1\2\3\4\0\5", 4, 2, 1, 3, wire.null } } }
    end
    assert.truthy(outcome.unpack(wire.encode(good())))
    local bad = { -1, 1.5, "1", wire.null, 1 << 40, { 1 }, true }
    for i = 1, 12 do
      for _, value in ipairs(bad) do
        local given = good()
        given[i] = value
        local optional = i >= 6 and i <= 10 and value == wire.null
        if not optional then assert.is_nil(outcome.unpack(wire.encode(given)), i .. " " .. tostring(value)) end
      end
    end
    for i = 1, 6 do
      for _, value in ipairs(bad) do
        local given = good()
        given[12][1][i] = value
        local optional = (i == 1 or i == 6) and value == wire.null
        if not optional then assert.is_nil(outcome.unpack(wire.encode(given)), i .. " " .. tostring(value)) end
      end
    end
    for _, bytes in ipairs { "", "\xc0", "\x90", "\x80", ("\xff"):rep(400), wire.encode(good()):sub(1, -2) } do
      assert.is_nil(outcome.unpack(bytes))
    end
  end)

  it("is unpacked from mutated bytes without an error, and what it says can be packed again", function()
    local seed = outcome.pack({ state = "closed", reason = "no_path", path = "direct", via = "prflx", first_ms = 20,
      confirmed_ms = 40, rtt_ms = 40, lasted_ms = 10000, behaviour = { mapping = "address", filtering = "endpoint" },
      paths = { { remote = "203.0.113.1:1", via = "srflx", state = "failed", reason = "no_answer", tests = 25 } } }, 7)
    local source = require("bodkin.sim.random").new(1, "mutations")
    local function random(low, high) return low + math.floor(source:float() * (high - low + 1)) end
    local told = 0
    for _ = 1, 20000 do
      local bytes = { seed:byte(1, -1) }
      for _ = 1, random(1, 3) do bytes[random(1, #bytes)] = random(0, 255) end
      local r = outcome.unpack(string.char(table.unpack(bytes)))
      if r then
        told = told + 1
        assert.truthy(outcome.unpack(outcome.pack(r, r.n)))
      end
    end
    assert.is_true(told > 100, told)
  end)
end)
