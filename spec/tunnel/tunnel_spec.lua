-- SPDX-License-Identifier: MIT
-- Tunnels between hosts behind NATs, with programs at both ends that know nothing of them.

local addr = require("bodkin.core").addr
local frame = require "bodkin.tunnel.frame"
local support = require "spec.tunnel.support"
local tunnel = require "bodkin.tunnel"
local worlds = require "spec.client.support"

local program, game = support.program, support.game

describe("a tunnel", function()
  local s, hosts, open

  local function begin(options)
    s, hosts, open = worlds.new(options or { delay_ms = 20 }), {}, {}
    for i, name in ipairs { "a", "b", "c" } do
      local nat = s:nat("nat-" .. name, "203.0.113." .. i * 10)
      hosts[name] = s:host(name, ("192.168.%d.10"):format(i), nat)
      hosts[name].nat = nat
    end
  end

  local function start(name, side, address)
    local it = support.open(s, hosts[name], side, address)
    table.insert(open, it.tunnel)
    return it
  end

  -- The `--to` end on a, and an `--at` end on b, connected.
  local function pair(options)
    begin(options)
    local to, at = start("a", "to"), start("b", "at")
    at.join(to.host())
    s.world:run(500)
    return to, at
  end

  local function wait(fn, ms) assert.is_true(s.world:run_until(fn, ms or 1000)) end

  local function finish()
    if not s then return end
    for _, host in pairs(hosts) do
      for _, p in ipairs(host.programs or {}) do p.sock:close() end
    end
    for _, t in ipairs(open) do t:close() end
    s:close()
    s = nil
  end

  local function on(name, p)
    hosts[name].programs = hosts[name].programs or {}
    table.insert(hosts[name].programs, p)
    return p
  end

  -- Local datagrams that left a host's sockets since trace line `from`, by where they went.
  local function local_sends(from)
    local seen, trace = {}, s.world:trace()
    for i = from, #trace do
      local dst = trace[i]:match "^%d+ send %S+ > (127%.%S+)"
      if dst then seen[dst] = (seen[dst] or 0) + 1 end
    end
    return seen
  end

  after_each(finish)

  it("gives each program of each player an address of its own at the game's server, and the answers back", function()
    begin()
    local to, b, c = start("a", "to"), start("b", "at"), start("c", "at")
    local server = on("a", game(hosts.a, "re: "))
    local code = to.host()
    b.join(code)
    c.join(code)
    s.world:run(500)
    local players = { on("b", program(hosts.b)), on("b", program(hosts.b)), on("c", program(hosts.c)) }
    for round = 1, 3 do
      for i, p in ipairs(players) do p.send(("%d from %d"):format(round, i)) end
      wait(function() return #players[3].got == round and #players[2].got == round and #players[1].got == round end)
    end
    assert.equal(3, server.count)
    for at in pairs(server.players) do assert.equal("loopback", addr.class(at)) end
    for _, peer in pairs(to.tunnel.peers) do -- nor can anybody else reach these sockets
      for _, flow in pairs(peer.flows) do assert.equal("loopback", addr.class(flow.sock:addr())) end
    end
    for i, p in ipairs(players) do
      for round, m in ipairs(p.got) do
        assert.same({ from = support.GAME, bytes = ("re: %d from %d"):format(round, i) }, m)
      end
    end
    -- Both with --at: they know that they have nothing to say to each other.
    assert.equal(1, #b.misfits)
    assert.equal("invalid", b.misfits[1][3])
    assert.is_false(b.tunnel:useful(c.node.id))
    assert.is_true(b.tunnel:useful(to.node.id))
    assert.equal(0, #to.misfits)
  end)

  it("may be opened by the player", function()
    begin()
    local at, to = start("b", "at"), start("a", "to")
    on("a", game(hosts.a, "re: "))
    to.join(at.host())
    s.world:run(500)
    local p = on("b", program(hosts.b))
    p.send "x"
    wait(function() return p.got[1] end)
    assert.equal("re: x", p.got[1].bytes)
  end)

  it("may stand before a program on another host, or one that speaks IPv6", function()
    for at_ip, to_ip in pairs { ["127.0.0.1"] = "192.168.1.20", ["::1"] = "::1", ["192.168.2.10"] = "127.0.0.1" } do
      begin()
      hosts.far = s:host("far", "192.168.1.20", hosts.a.nat)
      local game_at, listen_at = addr.parse(to_ip, 8303), addr.parse(at_ip, 8303)
      local to, at = start("a", "to", game_at), start("b", "at", listen_at)
      at.join(to.host())
      s.world:run(500)
      local where = to_ip == "192.168.1.20" and "far" or "a"
      on(where, game(hosts[where], "re: ", to_ip))
      local p = on("b", program(hosts.b, 0, at_ip))
      p.send("x", listen_at)
      wait(function() return p.got[1] end)
      assert.same({ from = listen_at, bytes = "re: x" }, p.got[1])
      finish()
    end
  end)

  it("carries 0 to 2,232 bytes both ways, and says once that it drops more", function()
    local to, at = pair()
    on("a", game(hosts.a, ""))
    local p = on("b", program(hosts.b))
    for n, len in ipairs { 0, 1, 1117, 1118, 1400, 1472, 2231, 2232 } do
      local bytes = ("0123456789abc"):rep(200):sub(1, len)
      p.send(bytes)
      wait(function() return #p.got == n end)
      assert.equal(bytes, p.got[n].bytes)
    end
    local said = #at.said
    for _ = 1, 3 do p.send(("x"):rep(2233)) end
    s.world:run(11000)
    assert.equal(8, #p.got)
    assert.equal(said + 1, #at.said)
    assert.matches("longer than 2232 bytes", at.said[said + 1])
    assert.equal(3, at.tunnel.dropped.too_long)
    assert.matches("^8 datagrams sent to peers, 8 received; 3 dropped: longer", at.tunnel:summary())
    assert.equal("8 datagrams sent to peers, 8 received", to.tunnel:summary())
  end)

  it("delivers nothing but whole datagrams, once, where frames are lost, doubled and overtake each other", function()
    local to, at = pair { delay_ms = 20, jitter_ms = 10, loss = 0.05, duplicate = 0.1, reorder = 0.05,
      seed = 3 }
    on("a", game(hosts.a, ""))
    local p, sent = on("b", program(hosts.b)), {}
    for n = 1, 600 do
      local bytes = ("%d "):format(n):rep(700):sub(1, 1000 + n)
      sent[bytes] = 1
      p.send(bytes)
      s.world:run(3)
    end
    s.world:run(10000)
    for _, m in ipairs(p.got) do
      assert.equal(1, sent[m.bytes])
      sent[m.bytes] = 0
    end
    assert.is_true(#p.got > 300 and #p.got < 600, #p.got)
    assert.is_true(to.tunnel.dropped.part > 0 and at.tunnel.dropped.part > 0)
    for _, peer in pairs(to.tunnel.peers) do -- halves do not wait for ever
      for _, flow in pairs(peer.flows) do assert.same({}, flow.parts) end
    end
  end)

  it("finds the other end though the first words are lost", function()
    begin()
    local to, at = start("a", "to"), start("b", "at")
    on("a", game(hosts.a, "re: "))
    to.lose, at.lose = 3, 3
    at.join(to.host())
    s.world:run(5000)
    local p = on("b", program(hosts.b))
    p.send "x"
    wait(function() return p.got[1] end)
    local frames = { to.frames, at.frames }
    s.world:run(4000)
    assert.same(frames, { to.frames, at.frames }, "one still asks")
    assert.same({ 0, 0 }, { to.lose, at.lose })
  end)

  for _, side in ipairs { "at", "to" } do
    it("says at both ends that both have --" .. side, function()
      begin()
      local a, b = start("a", side), start("b", side)
      b.join(a.host())
      s.world:run(500)
      for _, it in ipairs { a, b } do
        assert.equal(1, #it.misfits)
        assert.equal("invalid", it.misfits[1][3])
        assert.matches(("has %%-%%-%s, as this side does: one of the two needs"):format(side), it.misfits[1][2])
      end
      local from = #s.world:trace() + 1
      b.match:send(frame.split(1, 0, "all the same"))
      s.world:run(500)
      assert.equal(1, a.tunnel.dropped.stray)
      assert.equal(0, a.tunnel.sockets)
      assert.same({}, local_sends(from))
    end)
  end

  it("says when the peer has no tunnel, or one of another version", function()
    for version, expected in pairs { [0] = { 11000, "app_mismatch" }, [9] = { 500, "too_old" } } do
      begin()
      local to = start("a", "to")
      local other = s:open(hosts.b)
      local code = to.host()
      s:run(function()
        local m = assert(other:join(code))
        assert(m:wait_connected(20000))
        if version > 0 then m:send(string.pack("BBB", frame.HELLO, version, 0)) end
      end)
      s.world:run(expected[1])
      assert.equal(1, #to.misfits)
      assert.equal(expected[2], to.misfits[1][3])
      s.world:run(2000)
      local frames = to.frames
      s.world:run(10000)
      assert.equal(frames, to.frames) -- it is asked no more
      finish()
    end
  end)

  it("says once when the program at --to does not answer", function()
    local to = pair()
    local p = on("b", program(hosts.b))
    for _ = 1, 20 do
      p.send "anybody?"
      s.world:run(1500)
    end
    local n = 0
    for _, text in ipairs(to.said) do n = n + (text:find "nothing came back from udp:127.0.0.1:8303" and 1 or 0) end
    assert.equal(1, n)
  end)

  it("does not say so of one that answers", function()
    local to = pair()
    on("a", game(hosts.a, "re: "))
    on("b", program(hosts.b)).send "x"
    s.world:run(20000)
    assert.is_nil(table.concat(to.said, "\n"):find "nothing came back")
  end)

  it("keeps a flow that goes one way alone, either one", function()
    local to, at = pair()
    local server, p = on("a", program(hosts.a, 8303)), on("b", program(hosts.b))
    local function says(from, other, where)
      for _ = 1, 3 do
        local n = #other.got
        from.send("x", where)
        wait(function() return #other.got == n + 1 end)
        s.world:run(100000)
      end
    end
    says(p, server)
    says(server, p, server.got[1].from)
    for _, m in ipairs(server.got) do assert.equal(server.got[1].from, m.from) end
    assert.same({ 1, 1 }, { to.tunnel.sockets, at.tunnel.sources })
  end)

  it("goes on to the next that has --to once the first is gone, and takes nothing of that one before", function()
    begin()
    hosts.d = s:host("d", "192.168.4.10", s:nat("nat-d", "203.0.113.40"))
    local at, to = start("b", "at"), {}
    local code, p = at.host(), on("b", program(hosts.b))
    for _, name in ipairs { "a", "c", "d" } do
      to[name] = start(name, "to")
      on(name, game(hosts[name], name .. ": "))
      to[name].join(code)
      s.world:run(500)
    end
    p.send "x"
    wait(function() return p.got[1] end)
    assert.equal("a: x", p.got[1].bytes)
    to.c.match:send(frame.split(at.tunnel.last_number, 0, "not asked for"), at.node.id)
    s.world:run(500)
    assert.same({ 1, 1 }, { #p.got, at.tunnel.dropped.stray })
    to.a.match:leave()
    s.world:run(500)
    p.send "y"
    wait(function() return p.got[2] end)
    assert.equal("c: y", p.got[2].bytes) -- the one that came first
  end)

  it("answers a program from the address that it sent to, where --at is all addresses of a host", function()
    begin()
    hosts.b = s:host("b2", { "192.168.2.20", "192.168.2.21" }, hosts.b.nat)
    hosts.near = s:host("near", "192.168.2.30", hosts.b.node.behind)
    local to, at = start("a", "to"), start("b", "at", addr.parse("0.0.0.0:8303", 0))
    at.join(to.host())
    s.world:run(500)
    on("a", game(hosts.a, "re: "))
    for i, ip in ipairs { "192.168.2.20", "192.168.2.21" } do
      local p, where = on("near", program(hosts.near, 0, "0.0.0.0")), addr.parse(ip, 8303)
      p.send("x" .. i, where)
      wait(function() return p.got[1] end)
      assert.same({ from = where, bytes = "re: x" .. i }, p.got[1])
    end
  end)

  it("forgets a flow after 120 s of silence, and a peer's when it left", function()
    local to, at = pair()
    local server = on("a", game(hosts.a, "re: "))
    local p = on("b", program(hosts.b))
    local function play(n)
      p.send "x"
      wait(function() return #p.got == n end)
    end
    play(1)
    s.world:run(100000)
    play(2)
    s.world:run(100000)
    play(3)
    assert.equal(1, server.count)
    assert.equal(1, to.tunnel.sockets)
    s.world:run(126000)
    assert.equal(0, to.tunnel.sockets)
    assert.equal(0, at.tunnel.sources)
    assert.same({}, at.tunnel.by_number)
    play(4)
    assert.equal(2, server.count)
    assert.equal(1, to.tunnel.sockets)
    at.match:leave()
    s.world:run(500)
    assert.equal(0, to.tunnel.sockets)
    assert.same({}, to.tunnel.peers)
    p.send "into the void"
    s.world:run(100)
    assert.equal(1, at.tunnel.dropped.early)
  end)

  it("gives a new program the place of one that is idle, never that of one in use", function()
    local to, at = pair()
    local server = on("a", game(hosts.a, "re: "))
    local programs = {}
    for i = 1, tunnel.FLOWS_MAX do
      programs[i] = on("b", program(hosts.b))
      programs[i].send "x"
    end
    s.world:run(1000)
    assert.equal(tunnel.FLOWS_MAX, server.count)
    local late = on("b", program(hosts.b))
    late.send "too many"
    s.world:run(1000)
    assert.equal(0, #late.got)
    assert.equal(1, at.tunnel.dropped.flows)
    assert.matches("more flows at once than 64 of a peer, 512 of all", at.said[#at.said])
    s.world:run(6000)
    for i = 2, #programs do programs[i].send "still here" end
    late.send "now"
    wait(function() return late.got[1] end)
    assert.equal(tunnel.FLOWS_MAX, to.tunnel.sockets)
    assert.equal(tunnel.FLOWS_MAX, at.tunnel.sources)
    programs[2].send "and still"
    wait(function() return #programs[2].got == 3 end)
    assert.equal(tunnel.FLOWS_MAX + 1, server.count)
  end)

  it("makes whole only what are two parts of one datagram, not long after each other", function()
    local to, at = pair()
    local server = on("a", game(hosts.a, "re: "))
    local first, second = frame.split(1, 7, ("x"):rep(2000))
    local function say(bytes, then_ms)
      at.match:send(bytes)
      s.world:run(then_ms or 100)
    end
    say(first)
    say(first)
    assert.equal(0, #server.got)
    assert.equal(1, to.tunnel.dropped.part)
    say(second)
    assert.same({ ("x"):rep(2000) }, { server.got[1].bytes })
    say(second)
    say(first)
    assert.equal(("x"):rep(2000), server.got[2].bytes)
    say(first, 1500)
    say(second)
    assert.equal(2, #server.got)
    assert.equal(2, to.tunnel.dropped.part)
  end)

  it("has a bound of sockets for all peers together", function()
    local most = tunnel.SOCKETS_MAX
    tunnel.SOCKETS_MAX = 3
    finally(function() tunnel.SOCKETS_MAX = most end)
    begin()
    local to, b, c = start("a", "to"), start("b", "at"), start("c", "at")
    local server, code = on("a", game(hosts.a, "re: ")), to.host()
    b.join(code)
    c.join(code)
    s.world:run(500)
    for _ = 1, 2 do
      for _, name in ipairs { "b", "c" } do on(name, program(hosts[name])).send "x" end
      s.world:run(100)
    end
    assert.equal(3, server.count)
    assert.equal(3, to.tunnel.sockets)
    assert.equal(1, to.tunnel.dropped.flows)
    b.match:leave()
    s.world:run(500)
    on("c", program(hosts.c)).send "x"
    s.world:run(100)
    assert.equal(4, server.count)
  end)

  it("lets no peer make it send elsewhere, nor keep more than its bounds", function()
    begin()
    local to = start("a", "to")
    local server = on("a", game(hosts.a, "re: "))
    on("a", program(hosts.a, 9999))
    local evil = s:open(hosts.b)
    local code, match = to.host(), nil
    s:run(function()
      match = assert(evil:join(code))
      assert(match:wait_connected(20000))
    end)
    local from, random = #s.world:trace() + 1, hosts.b.env.random
    match:send(frame.split(1, 0, "a word as others say it"))
    for i = 1, 3000 do
      local bytes = random(4)
      if i % 3 == 0 then bytes = string.pack(">BI2B", i % 4, i, i & 0xff) .. bytes:rep(100) end
      match:send(bytes)
      if i % 50 == 0 then s.world:run(5) end
    end
    s.world:run(1000)
    for dst in pairs(local_sends(from)) do
      assert.is_true(dst == "127.0.0.1:8303" or server.players[addr.parse(dst)] ~= nil, dst)
    end
    assert.is_true(server.count > 0)
    assert.is_true(to.tunnel.sockets <= tunnel.FLOWS_MAX)
    assert.is_true(to.tunnel.dropped.flows > 0 and to.tunnel.dropped.stray > 0)
    for _, peer in pairs(to.tunnel.peers) do
      for _, flow in pairs(peer.flows) do
        local n = 0
        for _ in pairs(flow.parts) do n = n + 1 end
        assert.is_true(n <= 8)
      end
    end
    s.world:run(130000)
    assert.equal(0, to.tunnel.sockets)
  end)

  it("answers no address that did not send to --at, and takes no local stranger for the program at --to", function()
    begin()
    local at, to = start("b", "at"), start("a", "to")
    local code = at.host()
    to.join(code)
    s.world:run(500)
    local server = on("a", game(hosts.a, "re: "))
    local p = on("b", program(hosts.b))
    p.send "x"
    wait(function() return p.got[1] end)
    local from = #s.world:trace() + 1
    for number = 0, 300 do -- the peer knows of one flow; all others are made up
      if not at.tunnel.by_number[number] then to.match:send(frame.split(number, 0, "made up")) end
    end
    s.world:run(500)
    assert.same({}, local_sends(from))
    assert.is_true(at.tunnel.dropped.stray >= 300)
    local stranger = on("a", program(hosts.a))
    stranger.send("from a stranger", next(server.players))
    s.world:run(500)
    assert.equal(1, #p.got)
    assert.equal(1, to.tunnel.dropped.stray)
  end)
end)
