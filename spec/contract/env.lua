-- SPDX-License-Identifier: MIT
-- What every env must do. Called with new() -> world, where
--   world.env, world.ip        an env, and the text of an address it has
--   world.name                 a name that resolves to that address
--   world.wait(fn, ms)         lets time pass until fn(); at most ms; returns whether it is true
--   world.lines()              the lines logged
--   world.close()

local core = require "bodkin.core"
local message = require "bodkin.message"
local people = require "spec.people"

local addr = core.addr
local TX = ("t"):rep(12)

return function(new)
  local world, env

  before_each(function()
    world = new()
    env = world.env
  end)
  after_each(function()
    env.close()
    world.close()
  end)

  local function wait(fn)
    assert(world.wait(fn, 2000), "did not happen in 2 s")
  end

  local function pass(ms)
    local over
    env.timer(ms, function() over = true end)
    wait(function() return over end)
  end

  local function open(ip)
    return assert(env.udp(addr.parse(ip or world.ip, 0)))
  end

  -- A socket that keeps what comes.
  local function listen(ip)
    local sock, got = open(ip), {}
    sock:on_packet(function(from, bytes, to) table.insert(got, { from = from, bytes = bytes, to = to }) end)
    return sock, got
  end

  describe("now", function()
    it("is an integer of µs that moves with the timers", function()
      local start = env.now()
      assert.equal("integer", math.type(start))
      pass(3)
      assert.is_true(env.now() >= start + 3000)
    end)
  end)

  describe("timer", function()
    it("fires once, without arguments, not early and not within the call", function()
      local calls, at = 0, nil
      local start = env.now()
      env.timer(5, function(...)
        calls, at = calls + 1, env.now()
        assert(select("#", ...) == 0)
      end)
      assert.equal(0, calls)
      wait(function() return calls > 0 end)
      pass(10)
      assert.equal(1, calls)
      assert.is_true(at >= start + 5000)
    end)

    it("fires in the order due, then in the order set", function()
      local seen = ""
      for _, t in ipairs { { 4, "d" }, { 1, "a" }, { 2, "b" }, { 2, "c" } } do
        env.timer(t[1], function() seen = seen .. t[2] end)
      end
      pass(8)
      assert.equal("abcd", seen)
    end)

    it("takes fractions of a ms", function()
      local start, at = env.now(), nil
      env.timer(0.25, function() at = env.now() end)
      wait(function() return at end)
      assert.is_true(at >= start + 250)
    end)

    it("does not fire once cancelled; cancelling is idempotent, also after it fired", function()
      local fired
      local timer = env.timer(1, function() fired = true end)
      timer:cancel()
      timer:cancel()
      pass(3)
      assert.is_nil(fired)
      local other = env.timer(0, function() fired = true end)
      wait(function() return fired end)
      other:cancel()
    end)

    it("is moved by again, before and after it fired or was cancelled", function()
      local calls = 0
      local timer = env.timer(1, function() calls = calls + 1 end)
      timer:again(6)
      pass(3)
      assert.equal(0, calls)
      wait(function() return calls == 1 end)
      timer:again(1)
      wait(function() return calls == 2 end)
      timer:again(1)
      timer:cancel()
      pass(3)
      assert.equal(2, calls)
      timer:again(1)
      wait(function() return calls == 3 end)
    end)

    it("may set itself again in its function", function()
      local calls, timer = 0, nil
      timer = env.timer(1, function()
        calls = calls + 1
        if calls < 3 then timer:again(1) end
      end)
      wait(function() return calls == 3 end)
      pass(4)
      assert.equal(3, calls)
    end)

    it("may be cancelled by one that fires together with it", function()
      local seen, second = "", nil
      env.timer(1, function()
        seen = seen .. "a"
        second:cancel()
      end)
      second = env.timer(1, function() seen = seen .. "b" end)
      pass(3)
      assert.equal("a", seen)
    end)
  end)

  it("random gives as many bytes as asked, other ones each time", function()
    assert.equal(7, #env.random(7))
    assert.equal(32, #env.random(32))
    assert.not_equal(env.random(16), env.random(16))
  end)

  it("log has its levels, and escapes what is not text", function()
    env.log:debug("not shown everywhere")
    env.log:info("port %d of %s", 7, "a\27b")
    env.log:warn("w")
    env.log:error("e")
    local text = table.concat(world.lines(), "\n")
    assert.matches("info port 7 of a\\x1bb", text, 1, true)
    assert.matches("warn w", text, 1, true)
    assert.matches("error e", text, 1, true)
  end)

  it("counters are a set of its own", function()
    env.counters:add("drop_reply")
    env.counters:add("drop_reply", 2)
    assert.equal(3, env.counters:get("drop_reply"))
  end)

  describe("udp", function()
    it("binds a free port and says which", function()
      local a, b = open(), open()
      assert.is_true(addr.port(a:addr()) > 0)
      assert.not_equal(a:addr(), b:addr())
      assert.is_true(addr.same_ip(a:addr(), addr.parse(world.ip, 0)))
    end)

    it("refuses an address in use, until it is free again", function()
      local a = open()
      local address = a:addr()
      local b, err, code = env.udp(address)
      assert.is_nil(b)
      assert.equal("invalid", code)
      assert.matches("in use", err)
      a:close()
      assert(env.udp(address))
    end)

    it("refuses an address that is not here", function()
      local sock, err, code = env.udp(addr.parse("192.0.2.77", 0))
      assert.is_nil(sock)
      assert.equal("invalid", code)
      assert.matches("assign", err)
    end)

    it("carries datagrams, with where they came from and went to, not within send", function()
      local a = open()
      local b, got = listen()
      assert.is_true(a:send(b:addr(), "one"))
      assert.is_true(a:send(b:addr(), "two"))
      assert.equal(0, #got)
      wait(function() return #got == 2 end)
      assert.same({ from = a:addr(), bytes = "one", to = b:addr() }, got[1])
      assert.equal("two", got[2].bytes)
    end)

    it("bound to any address, says which one a datagram came to, and sends from a real one", function()
      local a, got_a = listen("0.0.0.0")
      local b, got_b = listen("0.0.0.0")
      local here = addr.with_port(addr.parse(world.ip, 0), addr.port(b:addr()))
      assert(a:send(here, "x"))
      wait(function() return got_b[1] end)
      assert.equal(here, got_b[1].to)
      assert.is_true(addr.same_ip(here, got_b[1].from))
      assert(b:send(got_b[1].from, "y"))
      wait(function() return got_a[1] end)
      assert.equal("y", got_a[1].bytes)
      assert.equal("none", addr.class(b:addr()))
    end)

    it("carries 0 to 1200 bytes, and refuses more, and another family", function()
      local a = open()
      local b, got = listen()
      assert.is_true(a:send(b:addr(), ("x"):rep(1200)))
      assert.is_true(a:send(b:addr(), ""))
      local function refused(...)
        local ok, err, code = a:send(...)
        assert.is_nil(ok)
        assert.is_string(err)
        assert.equal("invalid", code)
      end
      refused(b:addr(), ("x"):rep(1201))
      refused(addr.parse("::1", 5000), "x")
      wait(function() return got[2] end)
      assert.equal(1200, #got[1].bytes)
      assert.equal("", got[2].bytes)
      assert.equal(2, #got)
    end)

    it("carries up to max_bytes where that is said, and drops what is longer than the receiver takes", function()
      local a = assert(env.udp(addr.parse(world.ip, 0), { max_bytes = 2232 }))
      local b, got = listen()
      local echo = {}
      a:on_packet(function(_, bytes) echo[1] = bytes end)
      local bytes = ("x"):rep(2232)
      assert.is_true(a:send(b:addr(), ("x"):rep(1201)))
      assert.is_true(a:send(a:addr(), bytes))
      assert.is_true(a:send(b:addr(), "short"))
      assert.same({ "invalid" }, { select(3, a:send(a:addr(), bytes .. "x")) })
      wait(function() return echo[1] and got[1] end)
      assert.equal(bytes, echo[1])
      assert.equal("short", got[1].bytes)
      assert.equal(1, env.counters:get "udp_rx_truncated")
    end)

    it("takes what the kernel then refuses, and counts it", function()
      local a, got = listen()
      assert.is_true(a:send(addr.with_port(a:addr(), 0), "to port 0"))
      wait(function() return env.counters:get("udp_tx_unreachable") == 1 end)
      assert.equal(0, env.counters:get("udp_tx"))
      assert(a:send(a:addr(), "works on"))
      wait(function() return got[1] end)
    end)

    it("counts what it carries", function()
      local a = open()
      local b, got = listen()
      assert(a:send(b:addr(), "four"))
      wait(function() return got[1] end)
      assert.equal(1, env.counters:get("udp_tx"))
      assert.equal(4, env.counters:get("udp_tx_bytes"))
      assert.equal(1, env.counters:get("udp_rx"))
      assert.equal(4, env.counters:get("udp_rx_bytes"))
    end)

    it("survives sending to where nobody listens", function()
      local a, got = listen()
      local gone = open()
      local nowhere = gone:addr()
      gone:close()
      for _ = 1, 3 do
        assert.is_true(a:send(nowhere, "x"))
        pass(2)
      end
      assert(a:send(a:addr(), "self"))
      wait(function() return got[1] end)
      assert.equal("self", got[1].bytes)
    end)

    it("hears nothing once closed, also by itself; then it throws", function()
      local a, calls = open(), 0
      local b = open()
      b:on_packet(function()
        calls = calls + 1
        b:close()
        b:close()
      end)
      local to = b:addr()
      assert(a:send(to, "x"))
      assert(a:send(to, "y"))
      wait(function() return calls > 0 end)
      pass(3)
      assert.equal(1, calls)
      assert.error_matches(function() b:send(to, "z") end, "closed")
      assert.error_matches(function() b:addr() end, "closed")
    end)

    it("offers datagrams to a router, and sends its replies", function()
      local server, client = open(), open()
      local router = core.router(env.counters)
      local from
      router:on(message.address_request, { "tx" }, function(reply, sender, tx)
        from = sender
        reply("address_report", tx, addr.mask(sender, tx), ("p"):rep(20))
      end)
      router:reply_schemas { message.address_report }
      server:router(router)
      local got
      client:on_packet(function(_, bytes) got = bytes end)
      assert(client:send(server:addr(), assert(message.address_request:encode(TX))))
      wait(function() return got end)
      local tx, xaddr = message.address_report:decode(got)
      assert.equal(TX, tx)
      assert.equal(client:addr(), addr.mask(xaddr, tx))
      assert.equal(client:addr(), from)
    end)

    it("hands what the router refuses to nobody, and counts it", function()
      local server, client = open(), open()
      server:router(core.router(env.counters))
      assert(client:send(server:addr(), "\1\2\3"))
      wait(function() return env.counters:get("udp_rx") == 1 end)
      local drops = 0
      for _, counter in ipairs(env.counters:all()) do
        if counter.name:find("^drop_") then drops = drops + counter.value end
      end
      assert.equal(1, drops)
    end)
  end)

  describe("tcp", function()
    local SERVER_PORT = 4433 -- as which it is known, whatever its TCP port

    local function server(options)
      local sock, got = assert(env.tcp(addr.parse(world.ip, 0), options)), {}
      sock:on_packet(function(from, bytes, to) got[#got + 1] = { from = from, bytes = bytes, to = to } end)
      return sock, got, addr.parse(world.ip, SERVER_PORT)
    end

    local function client(of, number)
      local sock, got = assert(env.tcp(addr.parse("0.0.0.0", 0), { port = addr.port(of:addr()), number = number })), {}
      sock:on_packet(function(from, bytes) got[#got + 1] = { from = from, bytes = bytes } end)
      return sock, got
    end

    it("carries datagrams to who listens, and back by the connection they came by", function()
      local s, got, at = server()
      local a, got_a = client(s)
      local b, got_b = client(s)
      assert.is_true(a:send(at, "one"))
      assert.is_true(a:send(at, "two"))
      assert.is_true(b:send(at, ("x"):rep(1200)))
      assert.equal(0, #got)
      wait(function() return #got == 3 end)
      local from = {}
      for _, p in ipairs(got) do
        assert.equal(s:addr(), p.to)
        assert.is_true(addr.same_ip(p.from, at))
        from[p.from] = (from[p.from] or "") .. p.bytes
      end
      local seen = {}
      for remote, bytes in pairs(from) do
        seen[#seen + 1] = bytes
        assert.is_true(s:send(remote, "re: " .. bytes:sub(1, 6)))
      end
      table.sort(seen)
      assert.same({ "onetwo", ("x"):rep(1200) }, seen)
      wait(function() return got_a[1] and got_b[1] end)
      assert.same({ { from = at, bytes = "re: onetwo" } }, got_a)
      assert.same({ { from = at, bytes = "re: xxxxxx" } }, got_b)
      assert.equal(5, env.counters:get "tcp_rx")
      assert.equal(5, env.counters:get "tcp_tx")
      assert.equal(6 + 1200 + 10 + 10, env.counters:get "tcp_rx_bytes")
      assert.equal(6 + 1200 + 10 + 10, env.counters:get "tcp_tx_bytes")
      assert.equal(0, env.counters:get "udp_rx")
    end)

    it("keeps their order", function()
      local s, got, at = server()
      local a = client(s)
      for i = 1, 50 do assert(a:send(at, tostring(i))) end
      wait(function() return #got == 50 end)
      for i, p in ipairs(got) do assert.equal(tostring(i), p.bytes) end
    end)

    it("refuses what it cannot carry", function()
      local s, _, at = server()
      local a = client(s)
      for _, case in ipairs { { at, "" }, { at, ("x"):rep(1201) }, { at, "x", 2 }, { addr.parse("::1", 5000), "x" } } do
        local ok, err, code = a:send(table.unpack(case))
        assert.is_nil(ok)
        assert.is_string(err)
        assert.equal("invalid", code)
      end
    end)

    it("drops what is for nobody, and counts it", function()
      local s, _, at = server()
      assert.is_true(s:send(at, "x"))
      assert.equal(1, env.counters:get "tcp_tx_dropped")
      local a = client(s)
      s:close()
      assert.is_true(a:send(at, "y"))
      wait(function() return env.counters:get "tcp_failed" == 1 end)
      assert.is_true(a:send(at, "z")) -- which does not try again
      assert.equal(1, env.counters:get "tcp_failed")
    end)

    it("drops what waits too long for a connection", function()
      local s, _, at = server()
      local a = client(s)
      local code
      for _ = 1, 100 do code = select(3, a:send(at, ("x"):rep(1200))) end
      assert.equal("limit", code)
      assert.is_true(env.counters:get "tcp_tx_dropped" > 40)
    end)

    it("bounds connections, in all and of one source", function()
      local s, got, at = server { max = 9, max_each = 2 }
      for _ = 1, 3 do assert(client(s):send(at, "x")) end
      wait(function() return env.counters:get "tcp_refused" == 1 and #got == 2 end)
    end)

    it("connects anew once a connection was closed by the other end", function()
      local s, got, at = server()
      local a = client(s)
      assert(a:send(at, "x"))
      wait(function() return got[1] end)
      local listening = s:addr()
      s:close()
      pass(50)
      local again, heard = assert(env.tcp(listening)), nil
      again:on_packet(function(_, bytes) heard = bytes end)
      wait(function()
        if not heard then a:send(at, "y") end
        return heard
      end)
      assert.equal("y", heard)
    end)

    it("refuses an address in use, or that is not here", function()
      local s = server()
      for _, at in ipairs { s:addr(), addr.parse("192.0.2.77", 0) } do
        local sock, err, code = env.tcp(at)
        assert.is_nil(sock)
        assert.is_string(err)
        assert.equal("invalid", code)
      end
    end)

    it("hears nothing once closed, also by itself; then it throws", function()
      local s, calls, at = server(), 0, addr.parse(world.ip, SERVER_PORT)
      local a = client(s)
      s:on_packet(function()
        calls = calls + 1
        s:close()
        s:close()
      end)
      assert(a:send(at, "x"))
      assert(a:send(at, "y"))
      wait(function() return calls > 0 end)
      pass(5)
      assert.equal(1, calls)
      assert.error_matches(function() s:send(at, "z") end, "closed")
    end)

    it("offers datagrams to a router, and sends its replies", function()
      local s, _, at = server()
      local a, got = client(s)
      local router = core.router(env.counters)
      router:on(message.address_request, { "tx" }, function(reply, sender, tx)
        reply("address_report", tx, addr.mask(sender, tx), ("p"):rep(20))
      end)
      router:reply_schemas { message.address_report }
      s:router(router)
      assert(a:send(at, assert(message.address_request:encode(TX))))
      wait(function() return got[1] end)
      assert.equal(TX, (message.address_report:decode(got[1].bytes)))
    end)
  end)

  describe("resolve", function()
    local function resolve(host, port)
      local done, list, err
      env.resolve(host, port, function(...)
        done = true
        list, err = ...
      end)
      assert.is_nil(done)
      wait(function() return done end)
      return list, err
    end

    it("answers each of many questions at once, be it that they are too many", function()
      local answers = 0
      for _ = 1, 200 do
        env.resolve("192.0.2.1", 1, function(list, err)
          answers = answers + 1
          assert.is_true(list ~= nil or type(err) == "string")
        end)
      end
      assert.equal(0, answers)
      wait(function() return answers == 200 end)
    end)

    it("answers for an address, later", function()
      assert.same({ addr.parse("192.0.2.1", 4433) }, resolve("192.0.2.1", 4433))
      assert.same({ addr.parse("2001:db8::1", 1) }, resolve("2001:db8::1", 1))
    end)

    it("answers for a name it knows", function()
      local want, found = addr.parse(world.ip, 4433), false
      for _, address in ipairs(assert(resolve(world.name, 4433))) do found = found or address == want end
      assert.is_true(found)
    end)
  end)

  it("interfaces lists this machine's addresses", function()
    local loopback, own
    for _, interface in ipairs(env.interfaces()) do
      assert.is_string(interface.name)
      assert.is_boolean(interface.up)
      loopback = loopback or interface.loopback
      own = own or addr.same_ip(interface.addr, addr.parse(world.ip, 0))
    end
    assert.is_true(loopback)
    assert.is_true(own)
  end)

  it("source is the address of ours that is seen where we send", function()
    for _, to in ipairs { world.ip, "127.0.0.1" } do
      local from = assert(env.source(addr.parse(to, 9)))
      assert.is_true(addr.same_ip(from, addr.parse(to, 0)))
      assert.equal(0, addr.port(from))
    end
  end)

  describe("mux", function()
    local function id(byte)
      return byte:rep(16)
    end

    -- Two muxes on a socket each, told of each other.
    local function pair()
      local ends = {}
      for i = 1, 2 do
        local e = { events = {}, sock = open() }
        e.mux = env.mux {
          seed = tostring(i):rep(32),
          on = function(kind, session, x)
            table.insert(e.events, kind)
            e[kind], e.session = x or true, session
            if e.react then e.react(kind, session, x) end
          end,
        }
        e.mux:attach(e.sock)
        ends[i] = e
      end
      return ends[1], ends[2]
    end

    local function add(e, self, peer, to)
      return assert(e.mux:add(people.keys({
        match = id "m", key = ("k"):rep(32), self = id(self), peer = id(peer), start_in_ms = 0,
        candidates = { { to:addr(), "host", e.number or 1 } },
      }, self, peer)))
    end

    local function connect(a, b)
      a.number, b.number = 1, 2
      a.session, b.session = add(a, "a", "b", b.sock), add(b, "b", "a", a.sock)
      wait(function() return a.path and b.path end)
    end

    it("connects two that were told of each other", function()
      local a, b = pair()
      connect(a, b)
      assert.equal("connected", a.events[1])
      assert.equal("connected", b.events[1])
      assert.equal(b.sock:addr(), a.path.remote)
      assert.is_string(a.path.path)
      assert.is_string(a.path.via)
      assert.is_number(a.path.ms)
      assert.is_number(a.path.rtt_ms)
      local paths = a.mux:paths(a.session)
      assert.equal(b.sock:addr(), paths[1].remote)
    end)

    it("carries messages both ways, an answer out of the event too", function()
      local a, b = pair()
      connect(a, b)
      b.react = function(kind, session, x)
        if kind == "message" then assert(b.mux:send(session, "re: " .. x)) end
      end
      assert.is_true(a.mux:send(a.session, "hello"))
      wait(function() return a.message end)
      assert.equal("hello", b.message)
      assert.equal("re: hello", a.message)
    end)

    it("refuses to send before it is connected, and to add nonsense", function()
      local a, b = pair()
      a.session = add(a, "a", "b", b.sock)
      local ok, err, code = a.mux:send(a.session, "early")
      assert.is_nil(ok)
      assert.is_string(err)
      assert.equal("invalid", code)
    end)

    it("tells both when one leaves, why", function()
      local a, b = pair()
      connect(a, b)
      a.mux:leave(a.session)
      wait(function() return a.closed and b.closed end)
      assert.equal("closed", a.closed)
      assert.equal("left", b.closed)
      local ok, _, code = a.mux:send(a.session, "late")
      assert.is_nil(ok)
      assert.equal("closed", code)
    end)

    it("tells no event inside another: what a verb does there follows", function()
      local a, b = pair()
      local inside, nested = false, false
      a.react = function(kind, session)
        nested = nested or inside
        inside = true
        if kind == "path" then
          assert(a.mux:send(session, "last words"))
          a.mux:leave(session)
        end
        inside = false
      end
      connect(a, b)
      wait(function() return a.closed and b.closed end)
      assert.is_false(nested)
      assert.equal("closed", a.events[#a.events])
      assert.equal("last words", b.message)
    end)

    it("leaves other datagrams of its socket to the router", function()
      local a, b = pair()
      connect(a, b)
      local router = core.router(env.counters)
      local got
      router:on(message.maintained, { "boot" }, function(_, _, boot) got = boot end)
      a.sock:router(router)
      assert(b.sock:send(a.sock:addr(), assert(message.maintained:encode(TX, ("b"):rep(8)))))
      wait(function() return got end)
      assert.equal(("b"):rep(8), got)
    end)

    it("is silent once closed, also in an event", function()
      local a, b = pair()
      a.react = function() a.mux:close() end
      a.number, b.number = 1, 2
      add(a, "a", "b", b.sock)
      add(b, "b", "a", a.sock)
      wait(function() return a.connected end)
      pass(50)
      assert.equal(1, #a.events)
      a.mux:close()
    end)
  end)

  it("close closes everything, and may be called again", function()
    local fired
    local sock = open()
    env.mux { seed = ("s"):rep(32), on = function() end }
    env.timer(0, function() fired = true end)
    env.close()
    assert.error_matches(function() sock:addr() end, "closed")
    assert.is_nil(fired)
    env.close()
  end)
end
