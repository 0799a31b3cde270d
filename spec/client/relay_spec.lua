-- SPDX-License-Identifier: MIT
-- Through a relay, in the simulated internet: how soon, what becomes of datagrams when paths come and go, and who may.

local core = require "bodkin.core"
local message = require "bodkin.message"
local support = require "spec.client.support"
local task = require "bodkin.task"

describe("relay", function()
  local s
  after_each(function() s:close() end)

  local function natted(n, kind)
    return s:host("h" .. n, "192.168.1.2", s:nat("nat" .. n, ("203.0.113.%d"):format(n), { kind = kind }))
  end

  -- One-way delays by the names of the two, in either order ("nat1 server"); any other: 20.
  local function delays(t)
    return function(from, to) return t[from .. " " .. to] or t[to .. " " .. from] or 20 end
  end

  local function last_path(n)
    local list = support.events(n, "path")
    return list[#list]
  end

  -- Both say something each `every_ms` from now on, for `ms`. Returns, once that is over and what is under way has
  -- come: for each side { sent =, got = { [text] = how often }, gap_ms = the longest silence between two arrivals }.
  local function stream(a, ma, b, mb, every_ms, ms)
    local sides, world = {}, s.world
    local ends_us = world:now() + ms * 1000
    for i, side in ipairs { { a, ma }, { b, mb } } do
      local r = { sent = 0, got = {}, gap_ms = 0, last_us = world:now() }
      sides[i] = r
      task.spawn(function()
        while world:now() < ends_us do
          if side[2]:send(tostring(r.sent + 1)) then r.sent = r.sent + 1 end
          task.sleep(side[1].env, every_ms)
        end
      end)
      side[1]:on("message", function(e)
        if world:now() > ends_us + 1000000 then return end
        r.got[e.data] = (r.got[e.data] or 0) + 1
        r.gap_ms = math.max(r.gap_ms, (world:now() - r.last_us) / 1000)
        r.last_us = world:now()
      end)
    end
    return sides
  end

  -- Asserts that nothing came twice, and returns how many of the other side's datagrams were lost, for both.
  local function lost(sides)
    local out = {}
    for i, r in ipairs(sides) do
      local came = 0
      for text, times in pairs(r.got) do
        assert.equal(1, times, text .. " came twice")
        came = came + 1
      end
      out[i] = sides[3 - i].sent - came
    end
    print("# gaps", sides[1].gap_ms, sides[2].gap_ms, "sent", sides[1].sent, sides[2].sent, "lost", out[1], out[2])
    return out[1], out[2]
  end

  -- a, b: one-way delays to the matching server; p, q: round trips to the relay.
  for i, t in ipairs {
    { a = 20, b = 20, p = 40, q = 40 }, { a = 5, b = 60, p = 10, q = 30 }, { a = 60, b = 5, p = 120, q = 10 },
    { a = 10, b = 10, p = 200, q = 20 },
  } do
    it(("connects two symmetric NATs by the bound of three messages and a half, setting %d"):format(i), function()
      s = support.new { roles = support.NO_RELAY, relays = { "198.51.100.20" }, seed = i, delay_ms = delays {
        ["nat1 server"] = t.a, ["nat2 server"] = t.b, ["nat1 relay"] = t.p / 2, ["nat2 relay"] = t.q / 2,
      } }
      local relay = s:serve(s:host("relay", "198.51.100.20"), { "relay" })
      local commit_us
      local a, b = s:open(natted(1, "symmetric_random")), s:open(natted(2, "symmetric_sequential"))
      local push = getmetatable(s.server).__index.push
      s.server.push = function(server, assoc, name, ...)
        if name == "matched" then commit_us = commit_us or s.world:now() end
        return push(server, assoc, name, ...)
      end
      local at = {}
      for k, n in ipairs { a, b } do
        n:on("connected", function(e) at[k] = at[k] or { s.world:now(), e.path, e.via } end)
      end
      local ma, mb = s:pair(a, b)
      s.world:run(1000)
      local bound_ms = math.max(t.a + 1.5 * t.p, t.b + 1.5 * t.q) + math.max(t.p, t.q) / 2 + 5
      for k = 1, 2 do
        assert.equal("relay", at[k][2])
        assert.equal("relay", at[k][3])
        local ms = (at[k][1] - commit_us) / 1000
        assert.is_true(ms <= bound_ms, ("%g ms, at most %g"):format(ms, bound_ms))
      end
      assert.equal(198, core.addr.parse(last_path(a).remote):byte())
      assert.equal("198.51.100.20:4433", last_path(b).remote)
      local sides = stream(a, ma, b, mb, 10, 1000)
      s.world:run(3000)
      assert.same({ 0, 0 }, { lost(sides) })
      assert.equal(1, relay:status().info.relayed)
      assert.is_nil(s.server:status().info.relayed)
    end)
  end

  it("is left for a direct path when one comes, without a datagram lost or doubled", function()
    -- The relay is near, the way between the two is long: it is there first.
    s = support.new { delay_ms = delays { ["nat1 server"] = 5, ["nat2 server"] = 5, ["nat1 nat2"] = 150 } }
    local a, b = s:open(natted(1)), s:open(natted(2))
    local ma, mb = s:pair(a, b)
    assert.equal("relay", support.events(a, "connected")[1].path)
    assert.is_true(support.events(a, "connected")[1].first_ms <= 25)
    local sides = stream(a, ma, b, mb, 5, 2000)
    s.world:run(3500)
    for _, n in ipairs { a, b } do assert.equal("direct", last_path(n).path) end
    assert.same({ 0, 0 }, { lost(sides) })
    assert.is_true(sides[1].sent >= 390)
  end)

  it("takes over within two seconds when the direct path dies, and gives way again when that is back", function()
    local cut = false
    s = support.new { delay_ms = 20, loss = function(from, to)
      return cut and from:find "^nat" and to:find "^nat" and 1 or 0
    end }
    local a, b = s:open(natted(1)), s:open(natted(2))
    local ma, mb = s:pair(a, b)
    s.world:run(500)
    for _, n in ipairs { a, b } do assert.equal("direct", last_path(n).path) end
    local sides = stream(a, ma, b, mb, 20, 20000)
    s.world:run(1000)
    cut = true
    s.world:run(5000)
    for _, n in ipairs { a, b } do assert.equal("relay", last_path(n).path) end
    cut = false
    s.world:run(16000)
    for _, n in ipairs { a, b } do assert.equal("direct", last_path(n).path) end
    lost(sides)
    for _, r in ipairs(sides) do
      assert.is_true(r.gap_ms <= 2000, r.gap_ms)
      assert.is_true(r.gap_ms > 500, "the path was not cut")
    end
  end)

  it("in use has a direct path sought ever more seldom, and never no more", function()
    s = support.new { delay_ms = 20 }
    local at, record = {}, s.world.net.record
    s.world.net.record = function(event, src, dst, bytes)
      record(event, src, dst, bytes)
      if event ~= "send" or core.addr.class(src) ~= "private" then return end
      if core.addr.format(dst):find "^203.0.113.2:" then at[#at + 1] = s.world:now() / 1e6 end
    end
    s:pair(s:open(natted(1, "symmetric_random")), s:open(natted(2, "symmetric_random")))
    local began_s = s.world:now() / 1e6
    s.world:run(1800000)
    local function sent(from_s, to_s)
      local n = 0
      for _, at_s in ipairs(at) do n = n + (at_s >= began_s + from_s and at_s < began_s + to_s and 1 or 0) end
      return n
    end
    print("# sent directly:", sent(0, 60), sent(60, 600), sent(600, 1200), sent(1200, 1800))
    assert.is_true(sent(60, 600) > 0 and sent(60, 600) <= 100, sent(60, 600))
    for from_s = 600, 1200, 600 do
      local n = sent(from_s, from_s + 600)
      assert.is_true(n > 0 and n <= 50, n)
    end
  end)

  it("is followed to another one when it dies, and asked again when it has come back", function()
    s = support.new { delay_ms = 20, roles = support.NO_RELAY, relays = { "198.51.100.20", "198.51.100.21" } }
    local hosts = { s:host("relay", "198.51.100.20"), s:host("relay2", "198.51.100.21") }
    for _, host in ipairs(hosts) do s:serve(host, { "relay" }) end
    local a, b = s:open(natted(1, "symmetric_random")), s:open(natted(2, "symmetric_random"))
    local ma, mb = s:pair(a, b)
    s.world:run(500)
    local used = last_path(a).remote
    assert.equal(used, last_path(b).remote)
    local first, other = hosts[1], hosts[2]
    if used == "198.51.100.21:4433" then first, other = other, first end
    local sides = stream(a, ma, b, mb, 20, 60000)
    s.world:run(1000)
    s:kill(first)
    s.world:run(5000)
    for _, n in ipairs { a, b } do assert.not_equal(used, last_path(n).remote) end
    s:serve(first, { "relay" })
    s.world:run(35000)
    s:kill(other)
    s.world:run(5000)
    for _, n in ipairs { a, b } do assert.equal(used, last_path(n).remote) end
    s.world:run(16000)
    lost(sides)
    for _, r in ipairs(sides) do assert.is_true(r.gap_ms <= 2000, r.gap_ms) end
    s.servers[other] = nil
  end)

  it("is asked again at most twice a second because it knows the channel no more", function()
    s = support.new { delay_ms = 5 }
    local a = s:open(natted(1, "symmetric_random"))
    s:pair(a, s:open(natted(2, "symmetric_random")))
    s.world:run(1000)
    local session, opened, ask = next(a.sessions), 0, a.relays.ask
    local r = a.relays:list(session)[1]
    a.relays.ask = function(...)
      opened = opened + 1
      return ask(...)
    end
    for _ = 1, 40 do
      a.relays:lost(session, r.at)
      s.world:run(50)
    end
    assert.is_true(opened >= 3 and opened <= 5, opened)
  end)

  it("that starts again is opened anew as soon as something goes through it", function()
    s = support.new { delay_ms = 20, roles = support.NO_RELAY, relays = { "198.51.100.20" } }
    local host = s:host("relay", "198.51.100.20")
    s:serve(host, { "relay" })
    local a, b = s:open(natted(1, "symmetric_random")), s:open(natted(2, "symmetric_random"))
    local ma, mb = s:pair(a, b)
    local sides = stream(a, ma, b, mb, 20, 12000)
    s.world:run(1000)
    s:kill(host)
    s.world:run(3000)
    s:serve(host, { "relay" })
    s.world:run(10000)
    lost(sides)
    for _, r in ipairs(sides) do
      assert.is_true(r.gap_ms >= 3000 and r.gap_ms <= 5000, r.gap_ms)
    end
  end)

  -- The relay comes long after the match, when those that did not answer are asked seldom; then the direct path dies.
  for _, case in ipairs { "", ", by one who moved", ", with another ticket where that one has ended" } do
    it("that was not there when the match began is asked when it is needed" .. case,
      function()
        local cut, move, ended = false, case:find "moved", case:find "ended"
        s = support.new { roles = support.NO_RELAY, relays = { "198.51.100.20" }, delay_ms = 20,
          limits = ended and { relay_s = 100 },
          loss = function(from, to)
            return cut and from ~= "relay" and to ~= "relay" and (from .. to):find "^nat%dnat" and 1 or 0
          end }
        local host, behind = s:host("relay", "198.51.100.20"), s:nat("nat1", "203.0.113.1")
        local moving = s:host("h1", "192.168.1.2", behind)
        local a, b = s:open(moving), s:open(natted(2))
        local ma, mb = s:pair(a, b)
        s.world:run(165000)
        s:serve(host, { "relay" })
        s.world:run(1000)
        cut = true
        if move then moving:move("192.168.7.3", s:nat("nat3", "203.0.113.3")) end
        local sides = stream(a, ma, b, mb, 20, 10000)
        s.world:run(12000)
        lost(sides)
        for i, n in ipairs { a, b } do
          assert.equal("relay", last_path(n).path)
          assert.is_true(sides[i].gap_ms <= 2000, sides[i].gap_ms)
        end
      end)
  end

  it("that comes after the ticket has ended is opened with another one, before it is needed", function()
    local at = "198.51.100.20"
    s = support.new { roles = support.NO_RELAY, relays = { at }, delay_ms = 20, limits = { relay_s = 100 } }
    local host, a, b = s:host("relay", at), s:open(natted(1)), s:open(natted(2))
    s:pair(a, b)
    s.world:run(165000)
    s:serve(host, { "relay" })
    s.world:run(300000)
    for _, n in ipairs { a, b } do assert.is_truthy(n.relays:list(next(n.sessions))[1].channel) end
  end)

  -- A match that has only the relay, whose tickets last 100 s. away: between which seconds none reaches the server.
  local function long(away, limits, ms)
    local from_s, to_s
    s = support.new { roles = support.NO_RELAY, relays = { "198.51.100.20" }, delay_ms = 20,
      limits = limits or { relay_s = 100 }, loss = function(from, to)
        local at_s = s and s.world:now() / 1e6
        return from_s and at_s >= from_s and at_s < to_s and (from == "server" or to == "server") and 1 or 0
      end }
    local relay = s:serve(s:host("relay", "198.51.100.20"), { "relay" })
    local a, b = s:open(natted(1, "symmetric_random")), s:open(natted(2, "symmetric_random"))
    local ma, mb = s:pair(a, b)
    if away then from_s, to_s = s.world:now() / 1e6 + away[1], s.world:now() / 1e6 + away[2] end
    local sides = stream(a, ma, b, mb, 20, ms)
    s.world:run(ms + 2000)
    return sides, relay, a, b
  end

  it("goes on without a gap when the ticket ends, since both have another one by then", function()
    local sides, relay = long(nil, nil, 250000)
    assert.same({ 0, 0 }, { lost(sides) })
    for _, r in ipairs(sides) do assert.is_true(r.gap_ms <= 100, r.gap_ms) end
    assert.equal(0, relay.counters:get "relay_refused")
    assert.equal(2, relay.counters:get "relay_opened")
  end)

  it("goes on soon after the ticket has ended where none reached the server in time", function()
    local sides, relay = long({ 80, 105 }, nil, 130000)
    lost(sides)
    for _, r in ipairs(sides) do assert.is_true(r.gap_ms > 5000 and r.gap_ms <= 12000, r.gap_ms) end
    assert.equal(2, relay.counters:get "relay_refused")
  end)

  it("that lets the two send no more is not asked on and on, and why tells", function()
    local sides, relay, a, b = long(nil, { relay_bytes = 20000 }, 120000)
    lost(sides)
    assert.is_true(relay.counters:get "relay_refused" <= 2 * 8, relay.counters:get "relay_refused")
    for _, n in ipairs { a, b } do
      local record = n:why()[1]
      assert.equal("consent_lost", record.reason)
      for _, p in ipairs(record.paths) do
        if p.via == "relay" then assert.same({ "failed", "limit" }, { p.state, p.reason }) end
      end
      local told = require("spec.cli.story").pair(record)
      local d = require("bodkin.cli.diagnosis").of(told)
      assert.matches("The relay 198.51.100.20:4433 did not serve", d.findings[#d.findings].text, 1, true)
      assert.matches("relay_bytes", d.help[1], 1, true)
    end
  end)

  it("follows a client whose NAT makes another mapping", function()
    s = support.new { delay_ms = 20 }
    local nat = s:nat("nat1", "203.0.113.1", { kind = "symmetric_random" })
    local a, b = s:open(s:host("h1", "192.168.1.2", nat)), s:open(natted(2, "symmetric_random"))
    local ma, mb = s:pair(a, b)
    local sides = stream(a, ma, b, mb, 20, 6000)
    s.world:run(1000)
    nat.rebind()
    s.world:run(8000)
    lost(sides)
    for _, r in ipairs(sides) do assert.is_true(r.gap_ms <= 2000, r.gap_ms) end
    for _, n in ipairs { a, b } do assert.equal("relay", last_path(n).path) end
  end)

  it("has a client that moves while it opens a channel open it again, as what it is now", function()
    s = support.new { delay_ms = 100 }
    local told, record = nil, s.world.net.record
    s.world.net.record = function(event, src, dst, bytes)
      record(event, src, dst, bytes)
      local ours = event == "send" and core.addr.same_ip(src, core.addr.parse("192.168.1.2", 0))
      if ours and bytes:byte(2) == message.relay_open.type then told = select(5, message.relay_open:decode(bytes)) end
    end
    local a, b = s:open(natted(1, "symmetric_random")), s:open(s:host("h2", "203.0.113.9"))
    local ma = s:run(function() return assert(a:host()) end)
    task.spawn(function() b:join(ma.code) end)
    assert.is_true(s.world:run_until(function() return told end, 5000))
    a.roaming:moved()
    local now = a.relays:list(next(a.sessions))[1].hello
    assert.not_equal(told, now)
    s.world:run(1500)
    assert.equal(now, told)
  end)

  -- What a relay answers to a request as it is encoded here: the name of it and its fields.
  local function ask(host, relay_addr, ticket, proofs, at)
    local answer
    local sock = at or assert(host.env.udp(core.addr.parse("0.0.0.0", 0)))
    sock:on_packet(function(_, bytes)
      for _, schema in ipairs { message.address_report, message.relay_opened, message.refused } do
        if bytes:byte(2) == schema.type then answer = { schema.name, schema:decode(bytes) } end
      end
    end)
    for _ = 1, proofs and 2 or 1 do
      local proof = answer and answer[1] == "address_report" and answer[4] or nil
      sock:send(relay_addr, assert(message.relay_open:encode(("t"):rep(12), proof, ticket, 70000, "hello")))
      s.world:run(100)
    end
    return answer, sock
  end

  it("asks for a proof of the address, and for a ticket of its deployment that has not expired", function()
    s = support.new { delay_ms = 20, limits = { relay_s = 100 } }
    local tickets, host, at = s.server.tickets, s:host("h", "203.0.113.1"), core.addr.parse("198.51.100.10:4433", 0)
    local one, two = tickets:make(("p"):rep(16))
    local socks = {}
    local function try(...)
      local answer, sock = ask(host, at, ...)
      socks[#socks + 1] = sock
      return answer
    end
    assert.equal("address_report", try(one)[1])
    local opened = try(one, true)
    assert.equal("relay_opened", opened[1])
    assert.is_nil(opened[4])
    assert.equal("hello", try(two, true)[4])
    -- Each byte of it counts: pair, role, expiry and MAC.
    for i = 1, #one do
      local bad = one:sub(1, i - 1) .. string.char(one:byte(i) ~ 1) .. one:sub(i + 1)
      assert.equal("refused", try(bad, true)[1])
    end
    local other = require("bodkin.servers.tickets").new { key = ("x"):rep(32), time = s.hub.env.time, lifetime_s = 100 }
    assert.equal("refused", try(other:make(("p"):rep(16)), true)[1])
    s.world:run(101000)
    assert.equal("refused", try(two, true)[1])
    assert.equal(#one + 2, s.server.counters:get "relay_refused")
    for _, sock in ipairs(socks) do sock:close() end
  end)

  it("goes on for its two ends when somebody who overheard a ticket opens one of them", function()
    s = support.new { delay_ms = 20 }
    local at, ticket, record = core.addr.parse("198.51.100.10:4433", 0), nil, s.world.net.record
    s.world.net.record = function(event, src, dst, bytes)
      record(event, src, dst, bytes)
      if event == "send" and dst == at and not ticket and bytes:byte(2) == message.relay_open.type then
        ticket = select(3, message.relay_open:decode(bytes))
      end
    end
    local a, b = s:open(natted(1, "symmetric_random")), s:open(natted(2, "symmetric_random"))
    local ma, mb = s:pair(a, b)
    local sides, thief = stream(a, ma, b, mb, 20, 6000), s:host("thief", "203.0.113.66")
    s.world:run(1000)
    local answer, sock = ask(thief, at, ticket, true)
    assert.equal("relay_opened", answer[1])
    s.world:run(8000)
    sock:close()
    local one, other = lost(sides)
    assert.is_true(one > 0 and other > 0, "it was not opened")
    assert.is_true(one <= 10 and other <= 10, one .. " and " .. other)
    for _, n in ipairs { a, b } do assert.equal("relay", last_path(n).path) end
  end)

  it("that refuses, or is not there, leaves the direct path as it is", function()
    s = support.new { delay_ms = 20, roles = support.NO_RELAY, relays = { "198.51.100.20", "198.51.100.21" } }
    local relay = s:serve(s:host("relay", "198.51.100.20"), { "relay" }, { ("x"):rep(32) }) -- of another deployment
    local a, b = s:open(natted(1)), s:open(natted(2))
    local ma, mb = s:pair(a, b)
    local sides = stream(a, ma, b, mb, 20, 30000)
    s.world:run(32000)
    assert.same({ 0, 0 }, { lost(sides) })
    assert.equal(2, relay.counters:get "relay_refused") -- each asked once
    for _, n in ipairs { a, b } do
      assert.equal("direct", last_path(n).path)
      local session = next(n.sessions)
      assert.equal("refused", n.relays:list(session)[1].code)
      assert.equal("timeout", n.relays:list(session)[2].code)
      n.relays:needed(session)
    end
    s.world:run(1000)
    assert.equal(2, relay.counters:get "relay_refused") -- nor again where it is needed
  end)

  it("is believed nothing of one's own address, and its proof forgotten with the match", function()
    s = support.new { delay_ms = 20, roles = support.NO_RELAY, relays = { "198.51.100.20" } }
    local at, asked = core.addr.parse "198.51.100.20:4433", 0
    local sock = assert(s:host("relay", "198.51.100.20").env.udp(at))
    sock:on_packet(function(from, bytes)
      if bytes:byte(2) ~= message.relay_open.type then return end
      local tx = message.relay_open:decode(bytes)
      asked = asked + 1
      sock:send(from, message.address_report:encode(tx, core.addr.mask(core.addr.parse("192.0.2." .. asked, 9), tx),
        ("%020d"):format(asked)))
    end)
    local a, b = s:open(natted(1)), s:open(natted(2))
    local before = a.addresses:public_texts()
    local ma = s:pair(a, b)
    s.world:run(10000)
    assert.is_true(asked > 2)
    assert.same(before, a.addresses:public_texts())
    assert.is_false(a.addresses.stale)
    assert.is_string(a.addresses.proofs[at])
    s:run(function() ma:leave() end)
    assert.is_nil(a.addresses.proofs[at])
    assert.equal(1, #support.events(a, "registered"))
    sock:close()
  end)

  it("that a lying server names and that never answers is sent little, and ever more seldom", function()
    s = support.new { delay_ms = 20, roles = support.NO_RELAY, relays = { "192.0.2.66:1", "192.0.2.67:1" } }
    table.insert(s.server.relays, core.addr.parse("192.0.2.66", 2))
    local heard, record = {}, s.world.net.record
    s.world.net.record = function(event, src, dst, bytes)
      record(event, src, dst, bytes)
      local to = core.addr.format(dst)
      if event == "send" and to:find "^192.0.2.6[67]:" and core.addr.format(src):find "^203.0.113.1:" then
        heard[#heard + 1] = { at_us = s.world:now(), to = to, bytes = #bytes }
      end
    end
    local a, b = s:open(s:host("a", "203.0.113.1")), s:open(natted(2))
    s:pair(a, b)
    local mark_us = s.world:now() -- a moment after the first request
    s.world:run(3600000)
    local function sent(ip, from_s, to_s)
      local n, bytes = 0, 0
      for _, d in ipairs(heard) do
        local at_s = (d.at_us - mark_us) / 1e6
        if d.to:find(ip, 1, true) and at_s >= from_s and at_s < to_s then n, bytes = n + 1, bytes + d.bytes end
      end
      return n, bytes
    end
    for _, ip in ipairs { "192.0.2.66", "192.0.2.67" } do
      local n, bytes = sent(ip, -10, 10)
      print("# to " .. ip .. ", first 10 s:", n, bytes)
      assert.is_true(n > 5)
      -- Beside a hundred tests of 60 bytes: within 10,000.
      assert.is_true(bytes <= 10000 - 100 * 60, bytes)
      for from_s = 10, 3590, 10 do
        n, bytes = sent(ip, from_s, from_s + 10)
        assert.is_true(n <= 2 and bytes <= 1000 - 10 * 60, ("%d: %d, %d"):format(from_s, n, bytes))
      end
      assert.is_true(sent(ip, 10, 3600) <= 2 * 17)
      assert.is_true(sent(ip, 1800, 3600) >= 2 * 5, "it is not asked again")
    end
    assert.equal(0, sent("192.0.2.66:2", -10, 3600))
  end)

  it("is sent nothing where a public server names one inside a network, and where a private one does, is", function()
    s = support.new { roles = support.NO_RELAY, delay_ms = 20 }
    local a = s:open(natted(1))
    local function usable(server, ...)
      local list, out = {}, {}
      for i, text in ipairs { ... } do list[i] = core.addr.parse(text) end
      a.relays.server = core.addr.parse(server)
      for i, at in ipairs(a.relays:usable(list)) do out[i] = core.addr.format(at) end
      return out
    end
    local public, home, ours = "198.51.100.20:1", "192.168.1.1:53", "127.0.0.1:53"
    assert.same({ public }, usable("198.51.100.10:4433", home, public, ours))
    assert.same({}, usable("198.51.100.10:4433", "100.64.0.1:1", "169.254.1.1:1", "224.0.0.1:1"))
    assert.same({ "198.51.100.10:4433" }, usable("198.51.100.10:4433", home, "0.0.0.0:0"))
    assert.same({ public }, usable("198.51.100.10:4433", "198.51.100.20:0", public))
    assert.same({ home, public }, usable("10.0.0.2:4433", home, public, ours))
    assert.same({ ours, "127.0.0.1:4433" }, usable("127.0.0.1:4433", home, ours, "0.0.0.0:0"))
    a.relays.server = a.server
  end)

  it("is all that there is between a client with IPv4 and one with IPv6", function()
    s = support.new { delay_ms = 20, roles = support.NO_RELAY }
    for host in pairs(s.servers) do s:kill(host) end
    local both = s:host("both", { "198.51.100.30", "2001:db8::30" })
    local server = assert(require("bodkin.servers").open(both.env, { keys = { support.key },
      listen = { "198.51.100.30:4433", "[2001:db8::30]:4433" } }))
    local a = s:open(s:host("v4", "203.0.113.7"), { server = "bodkin://198.51.100.30:4433" })
    local b = s:open(s:host("v6", "2001:db8::7"), { server = "bodkin://[2001:db8::30]:4433" })
    local ma, mb = s:pair(a, b)
    local sides = stream(a, ma, b, mb, 20, 2000)
    s.world:run(4000)
    assert.same({ 0, 0 }, { lost(sides) })
    for _, n in ipairs { a, b } do assert.equal("relay", last_path(n).path) end
    s.servers[both] = server
  end)
end)
