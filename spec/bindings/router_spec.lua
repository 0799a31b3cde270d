-- SPDX-License-Identifier: MIT
local core = require "bodkin.core"
local message = require "bodkin.message"

local wire = core.wire
local TX = ("t"):rep(12)
local FROM = core.addr.parse "192.0.2.1:1000"

describe("router", function()
  local counters, router, sent, sock, errors, on_error

  before_each(function()
    counters = core.counters()
    router = core.router(counters)
    sent, errors = {}, {}
    sock = { send = function(_, to, bytes) sent[#sent + 1] = { to = to, bytes = bytes } end }
    on_error = core.on_error(function(text) errors[#errors + 1] = text end)
  end)
  after_each(function() core.on_error(on_error) end)

  local function input(bytes) return router:input(sock, FROM, bytes) end
  local function counted(name, n) assert.equal(n or 1, counters:get(name), name) end

  local request = wire.schema { name = "ask", type = 70, request = true, fields = {
    { "tx", "bin", 12, 12 }, { "n", "uint", 0, 9 }, { "list", "addrs", 0, 4 }, { "flag", "bool" },
    { "name", "str?", 0, 4 }, { "any", "any", 1, 9 }, { "pad", "pad" } } }
  local answer = wire.schema { name = "answer", type = 71, request = false, fields = { { "tx", "bin", 12, 12 },
    { "text", "str", 0, 200 } } }

  local function ask() return assert(request:encode(TX, 3, { FROM }, true, nil, wire.encode "v")) end

  it("passes fields in schema order when none are named, pad left out", function()
    local got
    router:on(request, nil, function(_, ...) got = table.pack(...) end)
    assert.is_true(input(ask()))
    assert.same({ FROM, TX, 3, { FROM }, true, nil, wire.encode "v", n = 7 }, got)
    assert.equal(0, #errors)
  end)

  it("passes the fields that are wanted, in the order wanted", function()
    local got
    router:on(request, { "flag", "name", "tx", "flag" }, function(_, from, ...) got = table.pack(from, ...) end)
    input(ask())
    assert.same({ FROM, true, nil, TX, true, n = 5 }, got)
  end)

  it("refuses a second handler for a type, and fields that are not there", function()
    router:on(request, {}, print)
    assert.has_error(function() router:on(request, {}, print) end)
    assert.has_error(function() router:on(answer, { "nonsense" }, print) end)
    assert.has_error(function() router:on(answer, {}, nil) end)
    assert.has_error(function() router:on(answer, "text", print) end)
    router:on(answer, { "text" }, print)
  end)

  it("counts what it drops by cause, and calls nobody", function()
    router:on(request, nil, function() error "called" end)
    local bytes = ask()
    local drops = { { "", "drop_short" }, { "\x91", "drop_short" }, { ("\0"):rep(20), "drop_stun" },
      { "\xc1" .. ("x"):rep(30), "drop_frame" }, { ("x"):rep(1201), "udp_rx_truncated" },
      { bytes .. "\xc0", "drop_msgpack" }, { "\xdd\x0f\xff\xff\xff", "drop_msgpack" },
        { wire.encode { 1, 1, TX }, "drop_unknown" },
      { wire.encode { 0, 1, 1 }, "drop_msgpack" }, { wire.encode { 70, 1, TX }, "drop_field" },
        { wire.encode { 70, 2, TX }, "drop_version" } }
    for i, d in ipairs(drops) do
      local before = counters:get(d[2])
      input(d[1])
      assert.equal(before + 1, counters:get(d[2]), i .. " " .. d[2])
    end
    assert.equal(0, #errors)
    assert.equal(0, #sent)
  end)

  it("gives STUN to who wants it", function()
    local asked = core.stun.request(TX)
    local told = core.stun.answer(asked, FROM)
    input(told)
    assert.equal(1, counters:get "drop_stun")
    local heard, wanted = {}, true
    router:stun(function(from)
      heard[#heard + 1] = from
      return wanted
    end)
    assert.is_true(input(asked))
    assert.equal(told, sent[1].bytes)
    assert.equal(FROM, sent[1].to)
    wanted = false
    input(asked)
    input(told)
    assert.same({ FROM, FROM }, heard)
    assert.equal(1, #sent)
    assert.equal(1, counters:get "stun_answered")
    assert.equal(2, counters:get "drop_stun")
    router:stun(nil, function(...) heard = table.pack(...) end)
    input(told)
    assert.same({ FROM, TX, FROM, nil, n = 4 }, heard)
    input(asked)
    input(told:sub(1, -2))
    input(("\0"):rep(1201))
    assert.equal(4, counters:get "drop_stun")
    assert.equal(1, counters:get "udp_rx_truncated")
    assert.equal(0, #errors)
    router:stun(function() error "thrown" end)
    input(asked)
    assert.equal(1, #errors)
    assert.equal(1, counters:get "handler_error")
    assert.has_error(function() router:stun "text" end)
  end)

  it("needs no counters", function()
    local r = core.router()
    assert.is_false(r:input(sock, FROM, "xxxx"))
  end)

  describe("reply", function()
    before_each(function() router:reply_schemas { answer, message.refused } end)

    local function on(fn) router:on(request, { "tx" }, fn) end

    it("goes to the sender by the socket that the request came from", function()
      on(function(reply, _, tx)
        assert.equal(128, reply:length())
        assert.is_true(reply("answer", tx, "hi"))
      end)
      input(ask())
      assert.equal(1, #sent)
      assert.equal(FROM, sent[1].to)
      assert.same({ TX, "hi" }, { answer:decode(sent[1].bytes) })
      assert.equal(0, #errors)
    end)

    it("is one, and no longer than the request, until the sender is proven", function()
      local results = {}
      on(function(reply, _, tx)
        results[1] = reply("answer", tx, ("x"):rep(150))
        results[2] = reply("answer", tx, "short")
        results[3] = reply("answer", tx, "again")
        reply:proven()
        results[4] = reply("answer", tx, ("x"):rep(150))
        results[5] = reply("answer", tx, "again")
      end)
      input(ask())
      assert.same({ false, true, false, true, true }, results)
      assert.equal(3, #sent)
      counted("refuse_reply", 2)
    end)

    it("is not given to a reply, but a request may follow one", function()
      local results = {}
      router:reply_schemas { message.matched_ack }
      router:on(answer, { "tx" }, function(reply, _, tx)
        results[1] = reply("answer", tx, "")
        results[2] = reply("matched_ack", tx)
      end)
      input(answer:encode(TX, "something"))
      assert.same({ false, true }, results)
      counted "refuse_reply"
    end)

    it("may be sent to another address", function()
      local other = core.addr.parse "192.0.2.2:2"
      on(function(reply, _, tx)
        assert.is_true(reply:send(other, "answer", tx, ("x"):rep(150)))
        assert.is_true(reply("answer", tx, ""))
      end)
      input(ask())
      assert.equal(other, sent[1].to)
      assert.equal(FROM, sent[2].to)
      assert.equal(0, #errors)
    end)

    it("is valid in its handler only", function()
      local kept
      on(function(reply) kept = reply end)
      input(ask())
      for _, f in ipairs { function() kept("answer", TX, "") end, function() kept:length() end,
        function() kept:proven() end, function() kept:send(FROM, "answer", TX, "") end } do
        assert.has_error(f)
      end
    end)

    it("throws at a name or a value that is wrong: the handler's fault", function()
      on(function(reply) reply("nonsense", TX, "") end)
      router:on(answer, nil, function(reply) reply("answer", "short", "") end)
      input(ask())
      input(answer:encode(TX, ""))
      assert.equal(2, #errors)
      assert.matches("nonsense", errors[1])
      assert.matches("field 'tx'", errors[2])
      counted("handler_error", 2)
    end)

    it("survives handlers that nest", function()
      local depth, results = 0, {}
      on(function(reply, _, tx)
        depth = depth + 1
        if depth < 3 then router:input({ send = function() end }, core.addr.parse "192.0.2.9:9", ask()) end
        results[#results + 1] = reply("answer", tx, "")
      end)
      input(ask())
      assert.same({ true, true, true }, results)
      assert.equal(1, #sent)
      assert.equal(FROM, sent[1].to)
    end)

    it("is not shared with a request that failed", function()
      local n = 0
      on(function(reply, _, tx)
        n = n + 1
        if n == 1 then
          reply:proven()
          error "first"
        end
        assert.is_true(reply("answer", tx, ""))
        assert.is_false(reply("answer", tx, ""))
      end)
      input(ask())
      input(ask())
      assert.equal(1, #errors)
    end)

    it("passes on what a socket throws, as the handler's error", function()
      sock.send = function() error "no route" end
      on(function(reply, _, tx) reply("answer", tx, "") end)
      input(ask())
      assert.matches("no route", errors[1])
      counted "handler_error"
    end)
  end)

  describe("an unknown version", function()
    local function of_version(schema_type, version)
      return wire.encode { schema_type, version, wire.bin(TX), ("x"):rep(60) }
    end

    before_each(function()
      router:refuse(message.refused)
      router:on(request, nil, function() error "called" end)
      router:on(answer, nil, function() error "called" end)
    end)

    it("of a request is told too_old, in version 1", function()
      assert.is_true(input(of_version(70, 2)))
      counted "drop_version"
      assert.equal(1, #sent)
      assert.equal(FROM, sent[1].to)
      assert.same({ TX, 1006, "version 1" }, { message.refused:decode(sent[1].bytes) })
      assert.is_true(#sent[1].bytes <= #of_version(70, 2))
    end)

    it("knows version 1 by its low byte: the rest are features", function()
      local got
      local r = core.router(counters)
      r:on(answer, { "text" }, function(_, _, text) got = text end)
      r:input(sock, FROM, wire.encode { 71, 0x301, wire.bin(TX), "featured" })
      assert.equal("featured", got)
    end)

    it("of refused is no hindrance: its layout is the same in all", function()
      local got
      router:on(message.refused, nil, function(_, _, tx, code, text) got = { tx, code, text } end)
      input(wire.encode { 18, 0x702, wire.bin(TX), 1006, "version 2" })
      assert.same({ TX, 1006, "version 2" }, got)
    end)

    it("of anything else, of a short request, or without a transaction id, is dropped", function()
      input(of_version(71, 2))
      input(wire.encode { 70, 2, wire.bin(TX) })
      input(wire.encode { 70, 2, ("x"):rep(60) })
      counted("drop_version", 3)
      assert.equal(0, #sent)
    end)

    it("is refused with the right schema only", function()
      assert.has_error(function() router:refuse(message.matched) end)
    end)
  end)

  describe("with associations", function()
    local SECRET = ("k"):rep(32)
    local own = table.concat { core.crypto.keypair(("o"):rep(32)) }
    local secret_ask = wire.schema { name = "secret_ask", type = 72, request = true, sealed = true, fields = {
      { "tx", "bin", 12, 12 }, { "n", "uint", 0, 2000 } } }
    local secret = wire.schema { name = "secret", type = 73, sealed = true, fields = { { "tx", "bin", 12, 12 },
      { "text", "str", 0, 1000 } } }
    local assocs, seen, opened

    before_each(function()
      assocs, seen = core.assocs { keys = { SECRET }, seed = ("s"):rep(32), counters = counters }, {}
      router:assocs(assocs, message.lost)
      router:reply_schemas { answer, secret, message.opened, message.refused }
      router:refuse(message.refused)
      router:on(request, { "tx" }, function(reply, _, tx)
        seen[#seen + 1] = { "plain", reply:sealed(), reply:who() }
        reply("answer", tx, "hi")
      end)
      router:on(secret_ask, nil, function(reply, _, tx, n)
        if n == 13 then error "thirteen" end
        seen[#seen + 1] = { n, reply:sealed(), reply:length(), reply:who() }
        seen.results = { reply("secret", tx, ("s"):rep(n // 2)), reply("secret", tx, ("t"):rep(n - n // 2)) }
      end)
      router:on(message.open, { "tx", "noise" }, function(reply, _, tx, noise)
        reply:proven()
        opened = table.pack(router:open(reply, noise))
        seen.outside = { reply:sealed(), reply:who() }
        if opened[1] then reply("opened", tx, opened[1]) end
      end)
    end)
    after_each(function() assocs:close() end)

    local function begin(messages, seed)
      local assoc, noise = core.assoc(own, (seed or "e"):rep(32), (core.crypto.keypair(SECRET)), 5, messages)
      return assoc, assert(message.open:encode(TX, nil, noise))
    end

    -- An association, and what the answer that opened it carried.
    local function join(messages, seed)
      local assoc, open = begin(messages or "", seed)
      input(open)
      local _, noise = message.opened:decode(sent[#sent].bytes)
      return assoc, assoc:answered(noise)
    end

    local function secret_of(n, text) return secret:encode(n, text) end
    local function asking(n, tx) return assert(secret_ask:encode(tx or TX, n)) end

    it("refuses plain what must be sealed, and says nothing", function()
      assert.is_true(input(asking(1)))
      assert.same({}, seen)
      assert.equal(0, #sent)
      counted "drop_unsealed"
    end)

    it("answers sealed, as often and as long as it takes, and says who asks", function()
      local assoc = join()
      sent = {}
      assert.is_true(input(assoc:write(asking(900))))
      local public = own:sub(1, 32)
      assert.same({ 900, true, #asking(900), core.crypto.id(public), public, opened[2] }, seen[1])
      assert.same({ true, true }, seen.results)
      assert.equal(2, #sent)
      for i, letter in ipairs { "s", "t" } do
        assert.equal(FROM, sent[i].to)
        assert.equal("\xc1", sent[i].bytes:sub(1, 1))
        assert.same({ "message", secret_of(TX, letter:rep(450)) }, { assoc:read(sent[i].bytes) })
      end
      counted("refuse_reply", 0)
      -- The next, plain, has nothing of it.
      input(ask())
      assert.same({ "plain", false }, seen[2])
      assert.equal("\x94", sent[3].bytes:sub(1, 1))
    end)

    it("takes what need not be sealed in an association, too", function()
      local assoc = join()
      sent = {}
      input(assoc:write(ask()))
      assert.is_true(seen[1][2])
      assert.same({ "message", (answer:encode(TX, "hi")) }, { assoc:read(sent[1].bytes) })
    end)

    it("puts the replies to a handshake's requests into its answer, in order", function()
      local other = ("u"):rep(12)
      local _, messages = join(asking(2) .. asking(4, other))
      assert.equal(secret_of(TX, "s") .. secret_of(TX, "t") .. secret_of(other, "ss") .. secret_of(other, "tt"),
        messages)
      assert.equal(1, #sent)
      assert.equal(2, #seen)
      assert.same({ false }, seen.outside)
      assert.equal(opened[2], seen[1][6])
    end)

    it("leaves out replies that do not fit there, and says so to their handler", function()
      local assoc, messages = join(asking(1998))
      assert.equal(secret_of(TX, ("s"):rep(999)), messages)
      assert.same({ true, false }, seen.results)
      assert.is_true(#sent[1].bytes <= 1200)
      input(assoc:write(asking(1998))) -- asked again it does
      assert.same({ true, true }, seen.results)
    end)

    it("acts on what follows a message that fails, but not on what follows no message", function()
      local assoc = join()
      input(assoc:write(asking(13) .. wire.encode { 99, 1, wire.bin(TX) } .. wire.encode "no message"
        .. wire.encode { 72, 1, wire.bin(TX), "x" } .. wire.encode { 72, 2, wire.bin(TX), 1 } .. asking(4)))
      assert.equal(1, #seen)
      assert.equal(4, seen[1][1])
      counted "handler_error"
      counted "drop_unknown"
      counted "drop_field"
      counted "drop_version"
      input(assoc:write(asking(6) .. "\xc1" .. asking(8)))
      assert.equal(2, #seen)
      counted("drop_msgpack", 2)
      errors = {}
    end)

    it("counts a frame that holds no message, but not a handshake that brings none", function()
      local assoc = join ""
      counted("drop_short", 0)
      input(assoc:write "")
      counted "drop_short"
    end)

    it("opens for the reply of its own handler only, while that runs", function()
      local _, noise = core.assoc(own, ("e"):rep(32), (core.crypto.keypair(SECRET)), 5, "")
      local kept
      local plain = core.router(counters)
      plain:on(message.open, { "noise" }, function(reply)
        kept = reply
        assert.has_error(function() router:open(reply, noise) end)
        assert.has_error(function() plain:open(reply, noise) end) -- which has no associations
      end)
      plain:input(sock, FROM, assert(message.open:encode(TX, nil, noise)))
      assert.has_error(function() plain:open(kept, noise) end)
      assert.equal(0, assocs:count())
      assert.same({}, errors)
    end)

    it("says what is lost, shorter than the frame, once for each", function()
      for _, length in ipairs { 29, 30, 37, 200, 1200 } do
        sent = {}
        local frame = "\xc1" .. core.crypto.random(length - 1)
        assert.is_true(input(frame))
        assert.equal(1, #sent)
        assert.is_true(#sent[1].bytes < length)
        assert.equal(frame:sub(2, 13), (message.lost:decode(sent[1].bytes)))
      end
      counted("association_lost", 5)
      sent = {}
      for _, length in ipairs { 1, 2, 13, 28, 1201 } do input("\xc1" .. ("x"):rep(length - 1)) end
      assert.equal(0, #sent)
    end)

    it("never says so of one that is there: not of a forgery, nor a copy, nor one that waits", function()
      local assoc, open = join()
      local frame = assoc:write(asking(2))
      local forged = frame:sub(1, -2) .. string.char(frame:byte(-1) ~ 1)
      sent = {}
      input(forged)
      assert.equal(0, #sent)
      input(frame)
      sent = {}
      input(frame)
      assert.equal(0, #sent)
      counted "drop_frame"
      counted "drop_replay"
      counted("association_lost", 0)
      input(open)
      assert.equal(0, #sent)
      local index = frame:sub(2, 5)
      input("\xc1" .. index .. ("x"):rep(40))
      assert.equal(0, #sent)
    end)

    it("survives handlers that open while another reply is out", function()
      local results = {}
      local nested = core.router(counters)
      nested:reply_schemas { secret, answer }
      nested:assocs(assocs, message.lost)
      nested:on(message.open, { "tx", "noise" }, function(reply, _, tx, noise)
        reply:proven()
        local ok = nested:open(reply, noise)
        table.insert(results, ok and reply("answer", tx, ("x"):rep(200)))
      end)
      nested:on(secret_ask, { "tx" }, function(reply, from, tx)
        if #seen == 0 then
          seen[1] = true
          nested:input(sock, from, select(2, begin(asking(2), "1")))
        end
        table.insert(results, reply("secret", tx, "s"))
      end)
      nested:input(sock, FROM, select(2, begin(asking(2), "2")))
      assert.same({ true, true, true, true }, results)
      assert.equal(2, assocs:count())
      assert.equal(2, #sent)
    end)

    it("is refused schemas and numbers that do not fit", function()
      assert.has_error(function() router:assocs(assocs, message.opened) end)
      assert.has_error(function() router:assocs(assocs, message.lost, -1) end)
      assert.has_error(function() router:assocs({}, message.lost) end)
      assert.has_error(function() router:assocs() end)
    end)
  end)

  describe("of a client", function()
    local secret = wire.schema { name = "secret", type = 73, sealed = true, fields = { { "tx", "bin", 12, 12 } } }

    it("takes from an association what is sealed, and cannot answer it there", function()
      local got, err = {}, nil
      router:reply_schemas { secret }
      router:on(secret, nil, function(reply, from, tx)
        got[#got + 1] = { from, tx, reply:sealed(), reply:who() }
        err = select(2, pcall(reply, "secret", tx))
      end)
      assert.is_true(input(secret:encode(TX)))
      counted "drop_unsealed"
      router:inner(FROM, secret:encode(TX) .. secret:encode(("u"):rep(12)) .. "\xc1")
      assert.same({ { FROM, TX, true }, { FROM, ("u"):rep(12), true } }, got)
      assert.matches("answered through it", err)
      counted "drop_msgpack"
      assert.equal(0, #sent)
    end)

    it("gives every frame to a function, and goes on when that fails", function()
      local got = {}
      router:frames(function(from, bytes)
        got[#got + 1] = { from, bytes }
        if #got == 1 then error "at first" end
      end)
      for _, bytes in ipairs { "\xc1", "\xc1" .. ("x"):rep(40), ask() } do input(bytes) end
      assert.same({ { FROM, "\xc1" }, { FROM, "\xc1" .. ("x"):rep(40) } }, got)
      counted "handler_error"
      counted "drop_unknown"
      assert.has_error(function() router:frames(5) end)
    end)
  end)

  it("traces a handler's error, counts it, and goes on", function()
    local n = 0
    router:on(request, {}, function()
      n = n + 1
      if n == 1 then error "oh" end
    end)
    input(ask())
    input(ask())
    assert.equal(2, n)
    assert.equal(1, #errors)
    assert.matches("oh\nstack traceback:", errors[1])
    counted "handler_error"
  end)

  it("works inside a coroutine, where a handler cannot yield", function()
    router:on(request, {}, function() coroutine.yield() end)
    local co = coroutine.create(function() return input(ask()) end)
    assert.same({ true, true }, { coroutine.resume(co) })
    assert.equal("dead", coroutine.status(co))
    assert.equal(1, #errors)
  end)

  it("keeps alive what it needs", function()
    local r = core.router(core.counters())
    r:reply_schemas { wire.schema { name = "answer", type = 71, fields = { { "tx", "bin", 12, 12 } } } }
    r:on(wire.schema { name = "ask", type = 70, request = true, fields = { { "tx", "bin", 12, 12 } } }, nil,
      function(reply, _, tx) reply("answer", tx) end)
    for _ = 1, 3 do
      collectgarbage()
      r:input(sock, FROM, wire.encode { 70, 1, wire.bin(TX) })
    end
    assert.equal(3, #sent)
    assert.equal(0, #errors)
  end)
end)
