-- SPDX-License-Identifier: MIT
-- Two and more clients in the virtual network: what tests and confirms must achieve, by row.

local core = require "bodkin.core"
local message = require "bodkin.message"
local support = require "spec.client.support"

local function natted(s, n, options)
  return s:host("h" .. n, "192.168.1.2", s:nat("nat" .. n, ("203.0.113.%d"):format(n), options))
end

local function open_host(s, n)
  return s:host("h" .. n, ("203.0.113.%d"):format(n))
end

-- Both ways, and the path of both.
local function talk(s, a, b, path)
  local ma, mb = s:pair(a, b)
  s:run(function()
    assert(ma:send("from a"))
    assert(mb:send("from b"))
    local at_b, at_a = mb:messages()(), ma:messages()()
    assert.same({ event = "message", match = ma.id, peer = a.id, channel = 0, data = "from a" }, at_b)
    assert.same({ event = "message", match = ma.id, peer = b.id, channel = 0, data = "from b" }, at_a)
  end)
  s.world:run(1000)
  for _, n in ipairs { a, b } do
    local paths = support.events(n, "path")
    assert.equal(path, paths[#paths].path)
    assert.equal("number", type(paths[#paths].confirmed_ms))
    assert.equal("number", type(paths[#paths].rtt_ms))
    assert.is_true(#paths[#paths].why >= 1)
    local first = support.events(n, "connected")[1]
    assert.equal("number", type(first.first_ms))
  end
  return ma, mb
end

local function sent_to(s, ip, kind)
  local to = {}
  for _, d in ipairs(s:sent(ip)) do
    if d.type == kind then to[d.to] = (to[d.to] or 0) + 1 end
  end
  return to
end

describe("match", function()
  local s
  after_each(function() s:close() end)

  it("T1 topology: both behind NATs that filter by address and port", function()
    s = support.new { delay_ms = 20 }
    local a, b = s:open(natted(s, 1)), s:open(natted(s, 2))
    talk(s, a, b, "direct")
    for _, n in ipairs { a, b } do
      local e = support.events(n, "connected")[1]
      assert.is_true(e.first_ms <= 25, e.first_ms)
      assert.is_true(support.events(n, "path")[1].confirmed_ms <= 45)
    end
  end)

  it("T2 topology: one behind a NAT, either one", function()
    s = support.new()
    local a, b = s:open(natted(s, 1)), s:open(open_host(s, 2))
    talk(s, a, b, "direct")
    talk(s, b, a, "direct")
  end)

  it("T3 topology: none behind a NAT", function()
    s = support.new()
    talk(s, s:open(open_host(s, 1)), s:open(open_host(s, 2)), "direct")
  end)

  it("T4 topology: both behind one NAT", function()
    s = support.new()
    local nat = s:nat("nat", "203.0.113.1", { delay_ms = 1 })
    talk(s, s:open(s:host("a", "192.168.1.2", nat)), s:open(s:host("b", "192.168.1.3", nat)), "lan")
  end)

  it("P1 test messages go to the public and the local address until a confirm comes", function()
    s = support.new()
    local nat = s:nat("nat", "203.0.113.1")
    local a, b = s:open(s:host("a", "192.168.1.2", nat)), s:open(s:host("b", "192.168.1.3", nat))
    s:pair(a, b)
    local public, near = b.addresses:public_texts()[1], b.addresses:local_texts()[1]
    s.world:run(3000)
    local tests = sent_to(s, "192.168.1.2", "test")
    assert.is_true((tests[public] or 0) >= 1)
    assert.is_true((tests[near] or 0) >= 1)
    local from = #s.world:trace() + 1
    s.world:run(20000)
    for _, d in ipairs(s:sent("192.168.1.2", from)) do
      assert.is_false(d.type == "test" and d.to == near, "still testing a confirmed pair")
    end
  end)

  it("P1 test messages go to no local address behind different NATs", function()
    s = support.new()
    s:pair(s:open(natted(s, 1)), s:open(natted(s, 2)))
    for to in pairs(sent_to(s, "192.168.1.2", "test")) do assert.matches("^203%.0%.113%.", to) end
  end)

  it("P2 confirm messages go to the origin of a test, from each side", function()
    s = support.new()
    local a, b = s:open(natted(s, 1)), s:open(open_host(s, 2))
    s:pair(a, b)
    s.world:run(1000)
    local public = a.addresses:public_texts()[1]
    assert.is_true(sent_to(s, "203.0.113.2", "confirm")[public] >= 1)
    assert.is_true(sent_to(s, "192.168.1.2", "confirm")["203.0.113.2:49152"] >= 1)
    for _, n in ipairs { a, b } do
      assert.is_true(n.env.counters:get("confirm_received") >= 1)
      assert.is_true(n.env.counters:get("test_received") >= 1)
    end
  end)

  it("N1: the NAT is sent nothing; all goes to servers and peers", function()
    s = support.new()
    local a, b = s:open(natted(s, 1)), s:open(natted(s, 2))
    talk(s, a, b, "direct")
    s.world:run(60000)
    local allowed = { ["198.51.100.10:4433"] = true, [b.addresses:public_texts()[1]] = true }
    local ours = a.addresses:public_texts()[1]
    local peers = 0
    for _, line in ipairs(s.world:trace()) do
      local src, dst = line:match("^%d+ send (%S+) > (%S+)")
      if src == "192.168.1.2:49152" then
        assert.is_true(allowed[dst] or dst == ours, dst) -- both hosts have this inner address
        peers = peers + 1
      end
    end
    assert.is_true(peers > 0)
  end)

  it("meshes four peers", function()
    s = support.new()
    local nodes, matches = {}, {}
    for n = 1, 4 do nodes[n] = s:open(natted(s, n)) end
    matches[1] = s:run(function() return assert(nodes[1]:host()) end)
    for n = 2, 4 do
      matches[n] = s:run(function() return assert(nodes[n]:join(matches[1].code)) end)
    end
    s.world:run(5000)
    for n = 1, 4 do
      assert.equal(3, #matches[n]:peers())
      for _, p in ipairs(matches[n]:peers()) do assert.is_true(p.connected) end
      s:run(function() assert(matches[n]:send("to all")) end)
    end
    s.world:run(1000)
    for n = 1, 4 do assert.equal(3, #support.events(nodes[n], "message")) end
    local told = support.events(nodes[1], "matched")
    assert.equal(3, #told)
    assert.same({ nodes[2].id, nodes[3].id, nodes[4].id }, told[3].peers)
    -- One goes: the others stay together.
    s:run(function() matches[4]:leave() end)
    s.world:run(1000)
    for n = 1, 3 do
      local gone = support.events(nodes[n], "closed")
      assert.same({ { event = "closed", match = matches[1].id, peer = nodes[4].id, reason = "left" } }, gone)
      assert.is_nil(matches[n].closed)
    end
  end)

  it("goes on while the server is dead, and after", function()
    s = support.new()
    local a, b = s:open(natted(s, 1)), s:open(natted(s, 2))
    local ma, mb = talk(s, a, b, "direct")
    s:kill()
    for i = 1, 60 do
      assert(ma:send("still here " .. i))
      s.world:run(1000)
    end
    assert.equal(61, #support.events(b, "message"))
    s.server = s:serve(s.hub)
    s.world:run(40000)
    assert.equal(2, s.server.registry:count())
    assert(mb:send("back"))
    s.world:run(100)
    assert.equal(2, #support.events(a, "message"))
    assert.equal(0, #support.events(a, "closed"))
  end)

  it("tells the peer when one side leaves, and ends its match", function()
    s = support.new()
    local a, b = s:open(natted(s, 1)), s:open(natted(s, 2))
    local ma, mb = s:pair(a, b)
    s:run(function()
      assert(ma:send("bye"))
      ma:leave()
      local heard = {}
      for m in mb:messages() do heard[#heard + 1] = m.data end
      assert.same({ "bye" }, heard)
    end, 2000)
    assert.equal("left", support.events(b, "closed")[1].reason)
    assert.equal("closed", support.events(a, "closed")[1].reason)
    assert.same({ nil, "the match is closed", "closed" }, { ma:send("x") })
    assert.same({ nil, "the match is closed", "closed" }, { mb:send("x") })
    assert.equal(0, a:stats().sessions)
  end)

  it("keeps a hosted match open for the next guest", function()
    s = support.new()
    local a = s:open(open_host(s, 1))
    local room = s:run(function() return assert(a:host()) end)
    for n = 2, 4 do
      local b = s:open(natted(s, n))
      s:run(function()
        local m = assert(b:join(room.code))
        assert(m:wait_connected(5000))
        b:close()
      end)
      s.world:run(500)
    end
    assert.equal(3, #support.events(a, "closed"))
    assert.is_nil(room.closed)
  end)

  it("sends nothing before connected, nothing too long, nothing to strangers", function()
    s = support.new()
    local a, b = s:open(natted(s, 1)), s:open(natted(s, 2))
    local room = s:run(function() return assert(a:host()) end)
    local function refused(...)
      local ok, err, code = room:send(...)
      assert.is_nil(ok)
      assert.equal("string", type(err))
      assert.equal("invalid", code)
    end
    refused("early")
    s:run(function()
      assert(assert(b:join(room.code)):wait_connected())
      assert(room:wait_connected())
    end)
    refused(("x"):rep(1121))
    refused("x", ("0"):rep(32))
    assert.is_true(room:send(("x"):rep(1120), b.id))
    assert.has_error(function() room:send({}) end)
    s.world:run(100)
    assert.equal(1120, #support.events(b, "message")[1].data)
  end)

  it("keeps the newest 1024 messages that nobody has fetched", function()
    s = support.new { trace = false }
    local a, b = s:open(natted(s, 1)), s:open(natted(s, 2))
    local ma, mb = s:pair(a, b)
    s.world:run(1000)
    for i = 1, 1100 do assert(ma:send(tostring(i))) end
    s.world:run(1000)
    assert.equal(1024, mb.backlog)
    ma:leave()
    s.world:run(1000)
    s:run(function()
      local got = {}
      for m in mb:messages() do got[#got + 1] = m.data end
      assert.equal(1024, #got)
      assert.equal("77", got[1])
      assert.equal("1100", got[1024])
    end)
  end)

  it("hands what comes to on_data at once, in place of queue and event", function()
    s = support.new { delay_ms = 20 }
    local a, b = s:open(open_host(s, 1)), s:open(open_host(s, 2))
    local ma, mb = s:pair(a, b)
    local got = {}
    mb:on_data(function(...) table.insert(got, { ... }) end)
    ma:send "one"
    ma:send "two"
    s.world:run(100)
    assert.same({ { a.id, "one" }, { a.id, "two" } }, got)
    assert.equal(0, #support.events(b, "message"))
    assert.equal(0, mb.backlog)
  end)

  it("says that no path worked, and which were tried", function()
    s = support.new { roles = support.NO_RELAY, loss = function(from, to)
      local function client(name) return name:find("^nat") and 1 or 0 end
      return client(from) * client(to)
    end }
    local a, b = s:open(natted(s, 1)), s:open(natted(s, 2))
    local room = s:run(function() return assert(a:host()) end)
    local ok, err, code = s:run(function() return assert(b:join(room.code)):wait_connected(30000) end)
    assert.is_nil(ok)
    assert.equal("no_path", code)
    assert.matches("^no path to peer " .. a.id, err)
    assert.equal("no_path", support.events(b, "closed")[1].reason)
    local told = support.events(b, "error")[1]
    assert.equal("no_path", told.code)
    assert.matches("203%.0%.113%.1", told.message)
  end)

  it("says that there was nothing to try, between IPv4 alone and IPv6 alone", function()
    s = support.new { roles = support.NO_RELAY }
    for host in pairs(s.servers) do s:kill(host) end
    local both = s:host("both", { "198.51.100.30", "2001:db8::30" })
    s.servers[both] = assert(require("bodkin.servers").open(both.env, {
      keys = { support.key }, roles = support.NO_RELAY, listen = { "198.51.100.30:4433", "[2001:db8::30]:4433" },
    }))
    local a = s:open(s:host("v4", "203.0.113.7"), { server = "bodkin://198.51.100.30:4433" })
    local b = s:open(s:host("v6", "2001:db8::7"), { server = "bodkin://[2001:db8::30]:4433" })
    local room = s:run(function() return assert(b:host()) end)
    local _, err, code = s:run(function() return assert(a:join(room.code)):wait_connected(30000) end)
    assert.equal("no_path", code)
    assert.matches("could be tried: it has no address", err, 1, true)
    local told, closed = support.events(a, "error")[1], support.events(a, "closed")[1]
    assert.matches("could be tried: it has no address that this host can try", told.message, 1, true)
    assert.matches("IPv4 or IPv6", told.hint, 1, true)
    local host, said = package.loaded["bodkin.host"], {}
    package.loaded["bodkin.host"] = { is_terminal = function() return false end }
    local out = require("bodkin.cli.output").of {}
    package.loaded["bodkin.host"] = host
    function out.say(_, format, ...) said[#said + 1] = format:format(...) end
    out:event("closed", closed)
    assert.matches("is gone: it has no address that this host can try", said[1], 1, true)
    -- The other one had a socket for the one address that it was told, and no way there.
    s.world:run(12000)
    local pair = require("spec.cli.story").pair(a:why()[1], b:why()[1])
    assert.matches("IPv4 or IPv6", require("bodkin.cli.diagnosis").of(pair).help[1], 1, true)
  end)

  it("begins anew when one joins again what one has left", function()
    s = support.new()
    local a, b = s:open(natted(s, 1)), s:open(natted(s, 2))
    local room, mine = s:pair(a, b)
    for _ = 1, 2 do
      s:run(function() mine:leave() end)
      s.world:run(1000)
      room.order[1].fresh = { [4] = 77 } -- as of a session that ended while a port was asked for
      mine = s:run(function()
        local m = assert(b:join(room.code))
        assert(m:wait_connected(5000))
        assert(m:send("again"))
        return m
      end)
      assert.equal("again", s:run(function() return room:messages()().data end))
      assert.is_nil(room.order[1].fresh)
    end
  end)

  it("tells a late one from one that never came", function()
    s = support.new()
    local a = s:open(natted(s, 1))
    local room = s:run(function() return assert(a:host()) end)
    assert.equal("no_match", select(3, s:run(function() return room:wait_connected(1000) end)))
    s:run(function() room:leave() end)
    assert.equal("closed", select(3, s:run(function() return room:wait_connected(1000) end)))
  end)

  it("answers why", function()
    s = support.new()
    local a, b = s:open(natted(s, 1)), s:open(natted(s, 2))
    local m = s:pair(a, b)
    s.world:run(1000)
    local why = a:why()
    assert.equal(1, #why)
    assert.equal(b.id, why[1].peer)
    assert.equal("valid", why[1].paths[1].state:lower())
    assert.same(why, a:why(m.id))
    assert.same(why, a:why(b.id))
    assert.same({}, a:why("nobody"))
    assert.equal(1, a:stats().sessions)
    assert.is_true(a:stats().counters.test_sent >= 1)
  end)

  it("connects 100 pairs where one packet in five is lost", function()
    for seed = 1, 100 do
      s = support.new { seed = seed, loss = 0.2, trace = false }
      s:pair(s:open(natted(s, 1)), s:open(natted(s, 2)))
      if seed < 100 then s:close() end
    end
  end)

  it("drops bad input to its router, counts it, and goes on", function()
    s = support.new()
    local a, b = s:open(natted(s, 1)), s:open(natted(s, 2))
    local sock = { send = function() error("nothing is to be answered") end }
    local random = a.env.random
    local samples = {
      message.registered:encode(random(12), a.server, 60, random(8)), message.refused:encode(random(12), 1001, "no"),
      message.address_report:encode(random(12), a.server, random(20)), message.page:encode(random(12), "\x90", nil),
      message.maintained:encode(random(12), random(8)), message.done:encode(random(12)),
      message.selected:encode(random(12), random(16), 2), message.room_opened:encode(random(12), "x", random(16)),
      message.found:encode(random(12), random(16), {}, {}),
      "\xdd\x0f\xff\xff\xff", ("\xdf"):rep(11) .. "\x0a", "", "\xc1", "\0\1\0\0",
    }
    for _, bytes in ipairs(samples) do
      a.router:input(sock, a.server, bytes)
      for cut = 0, #bytes - 1 do a.router:input(sock, a.server, bytes:sub(1, cut)) end
      for at = 1, #bytes do
        local other = string.char(bytes:byte(at) ~ (1 << at % 8))
        a.router:input(sock, a.server, bytes:sub(1, at - 1) .. other .. bytes:sub(at + 1))
      end
    end
    for _ = 1, 1000 do a.router:input(sock, a.server, random(1 + random(1):byte() * 4)) end
    for _, name in ipairs { "drop_short", "drop_msgpack", "drop_reply" } do
      assert.is_true(a.env.counters:get(name) > 0, name)
    end
    assert.equal(0, a.env.counters:get("handler_error"))
    talk(s, a, b, "direct")
  end)

  it("closes once, and throws after that", function()
    s = support.new()
    local a, b = s:open(natted(s, 1)), s:open(natted(s, 2))
    local m = s:pair(a, b)
    s:run(function()
      a:close()
      a:close()
      assert.has_error(function() a:host() end, "the node is closed")
      assert.has_error(function() a:join("x") end, "the node is closed")
      assert.has_error(function() a:list() end, "the node is closed")
    end)
    assert.is_true(m.closed)
    m:leave()
    assert.equal("closed", a:why()[1].reason)
    assert.equal("table", type(a:stats()))
    assert.has_error(function() a:on("nonsense", print) end)
    s.world:run(100)
    assert.equal("left", support.events(b, "closed")[1].reason)
  end)

  it("closes outside a task, and while one is cancelled", function()
    s = support.new()
    local task = require "bodkin.task"
    local a = s:open(natted(s, 1))
    a:close()
    local host = natted(s, 2)
    local t = task.spawn(function()
      local n <close> = assert(require("bodkin.client.node").open { env = host.env, server = support.url,
        server_keys = support.keys })
      task.sleep(host.env, 1e6)
      assert(n)
    end)
    s.world:run(1000)
    t:cancel()
    s.world:run(1000)
    assert.equal(2, s.server.counters:get("unregistered"))
  end)

  it("leaves nothing open when opening is cancelled at any time, or fails", function()
    s = support.new { delay_ms = 20 }
    local task = require "bodkin.task"
    for ms = 0, 200, 10 do
      local host = s:host("h" .. ms, ("203.0.113.%d"):format(ms + 1))
      local t = task.spawn(function()
        return require("bodkin.client.node").open { env = host.env, server = support.url, server_keys = support.keys }
      end)
      s.world:run(ms)
      if t:done() then
        local n = select(2, t:join())
        s:run(function() n:close() end)
      else
        t:cancel()
      end
      s.world:run(1000)
    end
    assert.is_nil(s:try(s:host("late", "203.0.113.250"), { server = "bodkin://198.51.100.99" }))
  end)

  it("goes over IPv6 alone, and prefers it where there are both", function()
    s = support.new { trace = false }
    local hub = s:host("hub6", { "2001:db8::10", "198.51.100.11" })
    s.servers[hub] = assert(require("bodkin.servers").open(hub.env,
      { listen = { "[2001:db8::10]:4433", "198.51.100.11:4433" }, keys = { support.key } }))
    local six = s:open(s:host("six", "2001:db8::1"), { server = "bodkin://hub6" })
    local both = s:open(s:host("both", { "203.0.113.1", "2001:db8::2" }), { server = "bodkin://hub6" })
    local other = s:open(s:host("other", { "203.0.113.2", "2001:db8::3" }), { server = "bodkin://hub6" })
    assert.equal(6, core.addr.family(six.server))
    assert.equal(4, core.addr.family(both.server))
    assert.equal(2, #both.addresses:pubs())
    for _, pair in ipairs { { six, both }, { both, other } } do
      talk(s, pair[1], pair[2], "direct")
      local paths = support.events(pair[2], "path")
      assert.equal("ipv6", paths[#paths].via)
    end
  end)

  it("shows no control characters of others", function()
    s = support.new()
    local a = s:open(natted(s, 1))
    local b = s:open(natted(s, 2), { name = "J\xc3\xbcrg\27[2J\xc2\x9b\127" })
    local ma = s:pair(a, b)
    assert.equal("J\xc3\xbcrg?[2J??", ma:peers()[1].name)
  end)

  it("takes a loopback server for what it is: everything on one machine", function()
    s = support.new()
    local server = require("bodkin.servers")
    local host = s:host("one", "203.0.113.50")
    s.servers[host] = assert(server.open(host.env, { listen = { "127.0.0.1:4433" }, keys = { support.key } }))
    local a = s:open(host, { server = "bodkin://127.0.0.1" })
    local b = s:open(host, { server = "bodkin://127.0.0.1" })
    talk(s, a, b, "lan")
    assert.equal(core.addr.class(a.server), "loopback")
  end)
end)

-- The object alone, its node made up.
describe("a match's object", function()
  local function made(mux)
    local match = require("bodkin.client.match").new({ mux = mux, events = {}, left = function() end,
      emit = function(self, name, fields) table.insert(self.events, { name, fields.code }) end }, ("m"):rep(16))
    return match, match.node.events
  end
  local function add(match, id)
    match.order[#match.order + 1] = { id = id, connected = true, session = id }
    match.by_id[id] = match.order[#match.order]
  end

  it("waits for all who come before it says that the one asked for is not among them", function()
    local match, told = made { leave = function() end }
    match.wanted, match.of_n = "w", 4
    for i, id in ipairs { "a", "b", "c" } do
      add(match, id)
      match:check_wanted()
      assert.equal(i == 3, match.closed == true)
    end
    assert.same({ { "error", "bad_key" } }, told)
  end)

  it("has sent what one of several peers is sent, whichever", function()
    for _, good in ipairs { "a", "b" } do
      local match = made { send = function(_, session) return session == good or nil, "no", "limit" end }
      for _, id in ipairs { "a", "b" } do add(match, id) end
      assert.is_true(match:send "x")
      assert.same({ nil, "no", "limit" }, { match:send("x", good == "a" and "b" or "a") })
    end
  end)
end)
