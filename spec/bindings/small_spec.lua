-- SPDX-License-Identifier: MIT
-- The module itself, counters, crypto, the logger, on_error.
local core = require "bodkin.core"

describe("core", function()
  it("says its versions, errors and reasons", function()
    assert.matches("^%d+%.%d+%.%d+", core.version)
    assert.equal(1, core.protocol_version)
    assert.equal(-1006, core.errors.too_old.value)
    assert.equal(2, core.errors.invalid.exit)
    assert.equal("string", type(core.errors.timeout.text))
    assert.equal("none", core.reasons[1].name)
    assert.is_true(#core.reasons[2].text > 0)
  end)

  it("leaves no global behind", function()
    local seen = {}
    for name in pairs(_G) do seen[name] = true end
    package.loaded["bodkin.core"] = nil
    require "bodkin.core"
    package.loaded["bodkin.core"] = core
    for name in pairs(_G) do assert.is_true(seen[name], name) end
  end)

  it("has a clock that goes forward", function()
    local before = core.now()
    assert.equal("integer", math.type(before))
    assert.is_true(core.now() >= before)
  end)

  it("tells from where something would be sent", function()
    local to = core.addr.parse("127.0.0.1", 9)
    assert.equal(core.addr.with_port(to, 0), core.source(to))
    assert.is_nil(core.source(core.addr.parse("255.255.255.255", 9)))
    assert.has_error(function() core.source "nowhere" end)
  end)

  it("lists the interfaces", function()
    local loopback
    for _, i in ipairs(assert(core.interfaces())) do
      assert.equal("string", type(i.name))
      assert.equal(0, core.addr.port(i.addr))
      loopback = loopback or i.loopback
    end
    assert.is_true(loopback)
  end)
end)

describe("counters", function()
  it("count, by names that exist", function()
    local c = core.counters()
    c:add "drop_short"
    c:add("drop_short", 4)
    assert.equal(5, c:get "drop_short")
    assert.equal(0, core.counters():get "drop_short")
    assert.has_error(function() c:add "nonsense" end)
    assert.has_error(function() c:get "nonsense" end)
    assert.has_error(function() c:add("drop_short", -1) end)
    assert.has_error(function() c.add({}, "drop_short") end)
  end)

  it("list all in one order, each with its sentence", function()
    local c = core.counters()
    c:add("udp_rx", 3)
    local all = c:all()
    assert.same({ name = "udp_rx", value = 3, text = "datagrams received" }, all[1])
    for _, e in ipairs(all) do assert.equal(e.value, c:get(e.name)) end
  end)
end)

describe("crypto", function()
  local crypto = core.crypto

  it("makes X25519 keys, Bob's of RFC 7748 section 6.1", function()
    local secret = crypto.unhex "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb"
    local public, same = crypto.keypair(secret)
    assert.equal(secret, same)
    assert.equal("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f", crypto.hex(public))
    local p1, s1 = crypto.keypair()
    assert.equal(32, #p1)
    assert.equal(p1, (crypto.keypair(s1)))
    assert.not_equal(p1, (crypto.keypair()))
    assert.has_error(function() crypto.keypair "short" end)
  end)

  it("derives ids and macs, compares them", function()
    local id = crypto.id(("k"):rep(32))
    assert.equal(16, #id)
    assert.equal(id, crypto.id(("k"):rep(32)))
    local key = ("k"):rep(32)
    assert.equal(16, #crypto.mac(key, "m"))
    assert.equal(32, #crypto.mac(key, "m", 32))
    assert.not_equal(crypto.mac(key, "m"), crypto.mac(key, "n"))
    assert.is_true(crypto.equal("ab", "ab"))
    assert.is_false(crypto.equal("ab", "ac"))
    assert.is_false(crypto.equal("ab", "abc"))
    assert.is_true(crypto.equal("", ""))
    assert.has_error(function() crypto.mac("short", "m") end)
    assert.has_error(function() crypto.mac(key, "m", 65) end)
  end)

  it("proves addresses with epoch and mac, as docs/PROTOCOL.md says", function()
    local key, address = ("k"):rep(32), "\1\2\3\4\5\6"
    local epoch = string.pack(">I4", 0x01020304)
    assert.equal(epoch .. crypto.mac(key, address .. epoch), crypto.proof(key, address, 0x01020304))
    assert.equal(20, #crypto.proof(key, ("a"):rep(18), 0))
    assert.has_error(function() crypto.proof("short", address, 0) end)
    assert.has_error(function() crypto.proof(key, ("a"):rep(19), 0) end)
  end)

  it("signs and verifies, as RFC 8032 has it", function()
    -- Section 7.1, TEST 3.
    local seed = crypto.unhex "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7"
    local public, same = crypto.sign_keypair(seed)
    assert.equal("fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025", crypto.hex(public))
    assert.equal(seed, same)
    local sig = crypto.sign(seed, "\xaf\x82")
    assert.equal("6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac"
      .. "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a", crypto.hex(sig))
    assert.is_true(crypto.verify(public, "\xaf\x82", sig))
    assert.is_false(crypto.verify(public, "\xaf\x83", sig))
    assert.is_false(crypto.verify((crypto.sign_keypair()), "\xaf\x82", sig))
    for i = 1, 64 do
      local changed = sig:sub(1, i - 1) .. string.char(sig:byte(i) ~ 1) .. sig:sub(i + 1)
      assert.is_false(crypto.verify(public, "\xaf\x82", changed))
    end
    -- The neutral point as a key would verify anything.
    assert.is_false(crypto.verify("\1" .. ("\0"):rep(31), "x", "\1" .. ("\0"):rep(63)))
    assert.not_equal((crypto.sign_keypair()), (crypto.sign_keypair()))
    assert.has_error(function() crypto.sign_keypair "short" end)
    assert.has_error(function() crypto.sign("short", "m") end)
    assert.has_error(function() crypto.verify(public, "m", "short") end)
  end)

  it("reads base64url as it writes it, and nothing else", function()
    assert.equal("", crypto.base64url "")
    assert.equal("", crypto.unbase64url "")
    for text, bytes in pairs {
      ["_w"] = "\xff", ["__4"] = "\xff\xfe", ["__79"] = "\xff\xfe\xfd", ["-_8A"] = "\xfb\xff\0",
    } do
      assert.equal(text, crypto.base64url(bytes))
      assert.equal(bytes, crypto.unbase64url(text))
    end
    for n = 0, 100 do
      local bytes = crypto.random(n)
      assert.equal(bytes, crypto.unbase64url(crypto.base64url(bytes)))
    end
    -- Padding, the other alphabet, white space, a length that none has, bits that nobody wrote.
    for _, text in ipairs { "_w==", "/w", "+A", " _w", "_w\n", "_w\0", "_", "_wAAA", "_x", "__5", "AB" } do
      assert.is_nil(crypto.unbase64url(text), text)
    end
    local canonical = 0 -- of the 64 last characters of 32 bytes in base64url, 16
    for i = 0, 63 do
      local last = crypto.base64url(string.char(i << 2)):sub(1, 1)
      if crypto.unbase64url(("A"):rep(42) .. last) then canonical = canonical + 1 end
    end
    assert.equal(16, canonical)
  end)

  it("gives random bytes", function()
    assert.equal("", crypto.random(0))
    assert.equal(65536, #crypto.random(65536))
    assert.not_equal(crypto.random(16), crypto.random(16))
    assert.has_error(function() crypto.random(-1) end)
  end)

  it("reads and writes hexadecimal", function()
    assert.equal("00ff7a", crypto.hex "\0\xffz")
    assert.equal("\0\xffz", crypto.unhex "00FF7a")
    for _, text in ipairs { "0", "0g", "zz", " 0" } do
      local v, message, code = crypto.unhex(text)
      assert.is_nil(v)
      assert.equal("string", type(message))
      assert.equal("invalid", code)
    end
  end)
end)

describe("logger", function()
  local lines, log
  before_each(function()
    lines = {}
    log = core.logger { level = "info", sink = function(line) lines[#lines + 1] = line end }
  end)

  it("formats, with time and level", function()
    log:info("%s has %d", "x", 3)
    assert.matches("^%d%d%d%d%-%d%d%-%d%dT%d%d:%d%d:%d%dZ info x has 3$", lines[1])
    log:warn "100%"
    assert.matches(" warn 100%%$", lines[2])
    log:error("%5.1f|%q", 1.25, "a")
    assert.matches(" error   1.2|\"a\"$", lines[3])
  end)

  it("keeps silent below its level", function()
    log:debug("%d", "this is not even formatted")
    assert.equal(0, #lines)
    core.logger({ level = "error", sink = error }):warn "x"
    assert.has_error(function() core.logger { level = "loud" } end)
  end)

  it("escapes control characters and what is not UTF-8", function()
    log:info("%s", "a\n\27[2J\0\127\xff\xc3\xa4\xc2\x9b\xed\xa0\x80\xc0\x80\xf4\x90\x80\x80\xe2\x82")
    assert.matches("info a\\x0a\\x1b%[2J\\x00\\x7f\\xff\xc3\xa4\\xc2\\x9b\\xed\\xa0\\x80\\xc0\\x80"
      .. "\\xf4\\x90\\x80\\x80\\xe2\\x82$", lines[1])
  end)

  it("escapes what turns the direction of text or ends a line elsewhere", function()
    log:info("%s", "a\u{202e}b\u{2066}c\u{2028}d\u{61c}e\u{feff}f\u{e0041}g\u{200b}h")
    assert.matches("info a\\xe2\\x80\\xaeb\\xe2\\x81\\xa6c\\xe2\\x80\\xa8d\\xd8\\x9ce\\xef\\xbb\\xbff"
      .. "\\xf3\\xa0\\x81\\x81g\\xe2\\x80\\x8bh$", lines[1])
    log:info("%s", "\u{5d0}\u{200d}\u{1f600}")
    assert.matches("info \u{5d0}\u{200d}\u{1f600}$", lines[2])
    assert.equal("\\x1b[2J \\xe2\\x80\\xae \\xff", core.printable "\27[2J \u{202e} \xff")
  end)

  it("cuts long lines, and takes many arguments", function()
    for _, text in ipairs { ("x"):rep(100000), ("\27"):rep(100000) } do
      log:info("%s", text)
      assert.is_true(#lines[#lines] > 1900 and #lines[#lines] < 2048)
      assert.matches(" ... %(100000 bytes%)$", lines[#lines])
    end
    log:info(("x"):rep(1900))
    assert.matches("x$", lines[3])
    local many = {}
    for i = 1, 200 do many[i] = i end
    log:info(("%d "):rep(200), table.unpack(many))
    assert.matches("199 200 $", lines[4])
  end)

  it("throws at a format that does not fit", function()
    assert.has_error(function() log:info("%d", "x") end)
    assert.has_error(function() log:info(nil) end)
  end)
end)

describe("on_error", function()
  local before
  before_each(function() before = core.on_error(nil) end)
  after_each(function() core.on_error(before) end)

  it("gets the text and the traceback of an error in a callback", function()
    local got = {}
    core.on_error(function(text) got[#got + 1] = text end)
    local loop <close> = core.loop { virtual = true }
    loop:timer(1, function() error "first" end)
    loop:timer(2, function() error(setmetatable({}, { __tostring = function() return "second" end })) end)
    loop:timer(3, function() error {} end)
    loop:timer(4, function() error(nil) end)
    loop:run()
    assert.equal(4, #got)
    assert.matches("small_spec.lua:%d+: first\nstack traceback:", got[1])
    assert.matches("^second\n", got[2])
    assert.matches("^%(error object is a table value%)", got[3])
    assert.matches("nil", got[4])
  end)

  it("may fail itself", function()
    -- What goes to stderr then is looked at from a second process.
    local script = [[local core = require "bodkin.core"
      core.on_error(function() error "worse" end)
      local loop = core.loop { virtual = true }
      loop:timer(1, function() error "bad\27" end)
      loop:run() print "alive"]]
    local path = os.tmpname()
    local file = assert(io.open(path, "w"))
    file:write(script)
    file:close()
    local pipe = assert(io.popen("lua5.4 " .. path .. " 2>&1"))
    local text = pipe:read "a"
    pipe:close()
    os.remove(path)
    assert.matches("worse", text)
    assert.matches("bad\\x1b", text)
    assert.matches("alive", text)
  end)

  it("returns the function set before", function()
    local function f() end
    assert.is_nil(core.on_error(f))
    assert.equal(f, core.on_error(nil))
    assert.has_error(function() core.on_error "x" end)
  end)
end)
