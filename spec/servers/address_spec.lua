-- SPDX-License-Identifier: MIT
local core = require "bodkin.core"
local support = require "spec.servers.support"
local message = require "bodkin.message"

local from = support.addr("198.51.100.7:40000")
local from6 = support.addr("[2001:db8::7]:40000")

describe("S1 address server", function()
  local s
  before_each(function() s = support.server { roles = { "address" } } end)
  after_each(function() s:close() end)

  it("reports the sender's address from the packet's header, masked by the transaction", function()
    for _, a in ipairs { from, from6 } do
      local tx = s:next_tx()
      local report = s:one(a, "address_request", tx)
      assert.equal("address_report", report.name_of)
      assert.equal(tx, report.tx)
      assert.equal(a, report.to)
      assert.not_equal(a, report.xaddr)
      assert.equal(a, core.addr.mask(report.xaddr, tx))
      assert.is_true(s.server.cookie:valid(report.proof, a))
      assert.is_true(report.length <= 72)
    end
    assert.equal(2, s:count("address_reported"))
  end)

  it("is never longer in its answer than the request", function()
    local bytes = message.address_request:encode(s:next_tx())
    assert.equal(128, #bytes)
    -- the same with an empty pad, from an address of 18 bytes
    local head = "\x93\x01\x01\xc4\x0c" .. s:next_tx()
    for _, short in ipairs { head .. "\xc4\x00", head .. "\xc0" } do
      s:feed(from6, short)
      assert.equal(0, #s.env.sent)
    end
    assert.equal(0, s:count("address_reported"))
  end)

  it("keeps nothing: the same request gets the same answer, at any time", function()
    local tx = s:next_tx()
    local one = s:one(from, "address_request", tx)
    for i = 1, 100 do s:ask(support.addr("198.51.100.8:" .. i), "address_request", s:next_tx()) end
    local two = s:one(from, "address_request", tx)
    assert.equal(one.xaddr, two.xaddr)
    assert.equal(one.proof, two.proof)
    assert.equal(0, s.env.timers)
  end)

  describe("asked by a STUN client", function()
    local function request(tx) return core.stun.request(tx or s:next_tx()) end

    -- What the answer says, read as PROTOCOL.md's masked address: type, length of the rest, cookie, tx, attribute.
    local function mapped(bytes, tx)
      local kind, len, cookie, id, attribute, size, family, port, ip = string.unpack(
        ">I2I2I4c12I2I2I2c2c" .. #bytes - 28, bytes)
      assert.same({ 0x0101, #bytes - 20, 0x2112a442, tx, 0x0020, #bytes - 24, #ip == 4 and 1 or 2 },
        { kind, len, cookie, id, attribute, size, family })
      return core.addr.mask(ip .. port, tx)
    end

    local function ask(a, bytes)
      s.env.sent = {}
      s.env.socks[1].to_router:input(s.env.socks[1], a, bytes)
      local sent = s.env.sent
      s.env.sent = {}
      assert.is_true(#sent <= 1)
      if sent[1] then assert.equal(a, sent[1].to) end
      return sent[1] and sent[1].bytes
    end

    it("tells the address in 32 or 44 bytes, to where the request came from", function()
      for a, length in pairs { [from] = 32, [from6] = 44 } do
        local tx = s:next_tx()
        local bytes = ask(a, request(tx))
        assert.equal(length, #bytes)
        assert.equal(a, mapped(bytes, tx))
      end
      assert.equal(2, s:count("stun_answered"))
      assert.equal(0, s:count("drop_stun"))
    end)

    it("names what it does not understand, and drops what is no request", function()
      local head = "\0\1\0\4\x21\x12\xa4\x42" .. ("t"):rep(12)
      assert.equal("\1\x11\0\x10\x21\x12\xa4\x42" .. ("t"):rep(12) .. "\0\9\0\4\0\0\4\20\0\10\0\2\0\3\0\0",
        ask(from, head .. "\0\3\0\0"))
      assert.is_nil(ask(from, head))                               -- cut off
      assert.is_nil(ask(from, "\0\x11" .. request():sub(3)))       -- an indication
      assert.is_nil(ask(from, core.stun.answer(request(), from)))  -- an answer
      local many = "\0\1\0\28\x21\x12\xa4\x42" .. ("t"):rep(12)
      for i = 1, 7 do many = many .. string.char(0x40, i, 0, 0) end
      assert.is_nil(ask(from, many))
      assert.equal(1, s:count("stun_answered"))
      assert.equal(4, s:count("drop_stun"))
    end)

    it("answers each network so many a second, and ten times as many at once", function()
      local function answered(n, text)
        local count = 0
        for i = 1, n do
          if ask(support.addr(text:format(i % 90 + 1)), request()) then count = count + 1 end
        end
        return count
      end
      assert.equal(500, answered(1000, "198.51.100.%d:7"))
      assert.equal(500, s:count("stun_limited"))
      assert.equal(0, answered(1, "198.51.100.200:9"))
      assert.equal(1, answered(1, "198.51.101.1:7"))
      s.env.loop:advance(1000000)
      assert.equal(50, answered(1000, "198.51.100.%d:7"))
      assert.equal(500, answered(1000, "[2001:db8:0:%d::1]:7"))
      assert.equal(0, answered(1, "[2001:db8:0:ff::1]:7"))
      assert.equal(1, answered(1, "[2001:db8:0:100::1]:7"))
    end)

    it("is silent where it is told to be, and where there is no address role", function()
      for _, options in ipairs { { roles = { "address" }, stun = false }, { roles = { "maintenance" } } } do
        s:close()
        s = support.server(options)
        assert.is_nil(ask(from, request()))
        assert.equal(1, s:count("drop_stun"))
      end
    end)
  end)

  describe("asked by a client that looks at its NAT", function()
    local here, port = support.addr "203.0.113.1:4433", support.addr "203.0.113.1:4434"
    local ip = support.addr "203.0.113.2:4433"

    before_each(function()
      s:close()
      s = support.server { roles = { "address" }, listen = { here, port, "[2001:db8::1]:4433", ip } }
    end)

    local function ask(a, proof, via, sock)
      return s:feed(a, message.probe_request:encode(s:next_tx(), proof, via, 0), sock)
    end

    it("says at which other addresses it is, of that family", function()
      local answer = ask(from, s:proof(from), 0)[1]
      assert.equal("probe_report", answer.name_of)
      assert.same({ port, ip }, answer.others)
      assert.equal(s.env.socks[1], answer.sock)
      assert.same({ here, port }, ask(from, s:proof(from), 0, s.env.socks[4])[1].others)
      assert.same({}, ask(from6, s:proof(from6), 0, s.env.socks[3])[1].others)
      assert.same({ port, ip }, ask(from, s:proof(from), 3)[1].others) -- there is no third
    end)

    it("answers once, from the address it was told to, to where the request came from, and in fewer bytes", function()
      for via, sock in ipairs { s.env.socks[2], s.env.socks[4] } do
        local answers = ask(from, s:proof(from), via)
        assert.equal(1, #answers)
        assert.equal(from, answers[1].to)
        assert.equal(sock, answers[1].sock)
        assert.equal(via, answers[1].via)
        assert.same({}, answers[1].others)
        assert.is_true(answers[1].length <= 128)
      end
      assert.equal(2, s:count "probed")
    end)

    it("does it for none who has not proven where they are", function()
      for _, proof in ipairs { false, s:proof(from6), ("p"):rep(20) } do
        local answers = ask(from, proof or nil, 1)
        assert.equal(1, #answers)
        assert.equal("address_report", answers[1].name_of)
        assert.equal(s.env.socks[1], answers[1].sock)
      end
      assert.equal(2, s:count "address_cookie_bad")
      assert.equal(0, s:count "probed")
    end)

    it("answers after a silence, where it is told to, once, and only so many", function()
      local function late(a, tx, after_s)
        return s:feed(a, message.probe_request:encode(tx, s:proof(a), 0, after_s), s.env.socks[2])
      end
      local tx = s:next_tx()
      assert.equal(0, #late(from, tx, 30))
      assert.equal(0, #s:advance(20000))
      assert.equal(0, #late(from, tx, 30)) -- a copy: from now on
      assert.equal(0, #s:advance(29000))
      local answers = s:advance(2000)
      assert.equal(1, #answers)
      assert.same({ "probe_report", tx, from, 0, s.env.socks[2] }, { answers[1].name_of, answers[1].tx, answers[1].to,
        answers[1].via, answers[1].sock })
      assert.equal(0, #s:advance(60000))
      for _ = 1, 40 do late(from, s:next_tx(), 5) end
      assert.equal(8, s:count "probe_limited")
      assert.equal(32, #s:advance(6000))
      assert.equal(0, #late(from, s:next_tx(), 180)) -- that the server forgets it when it closes, after_each sees
    end)

    it("answers at once what was asked in an association, whose answer goes by that", function()
      s:close()
      s = support.server { roles = { "address", "matching" }, listen = { here } }
      local bytes = message.probe_request:encode(s:next_tx(), s:proof(from), 0, 30)
      local answers = s:feed(from, s:assoc(support.who(1), from).raw:write(bytes))
      assert.same({ 1, "probe_report", support.who(1) }, { #answers, answers[1].name_of, answers[1].who })
    end)

    it("never says more than it was asked with", function()
      s:close()
      local listen = {}
      for i = 1, 6 do listen[i] = "203.0.113.1:" .. 4432 + i end
      s = support.server { roles = { "address" }, listen = listen }
      assert.equal(4, #ask(from, s:proof(from), 0)[1].others)
      local function short(via) -- the same without its pad
        return message.probe_request:encode(s:next_tx(), s:proof(from), via, 0):sub(1, 41) .. "\xc4\0"
      end
      assert.equal(0, #s:feed(from, short(0)))
      assert.equal(1, s:count "refuse_reply")
      assert.is_true(s:feed(from, short(1))[1].length <= #short(1))
    end)
  end)

  it("answers nothing that it does not handle", function()
    assert.equal(0, #(s:ask(from, "maintain", s:next_tx(), ("i"):rep(16))))
    assert.equal(1, s:count("drop_unknown"))
  end)
end)
