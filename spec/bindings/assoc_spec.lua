-- SPDX-License-Identifier: MIT
-- Associations by hand: core.assocs behind a router, as a server has them, and core.assoc, as a client does.
local core = require "bodkin.core"
local message = require "bodkin.message"

local keypair, addr = core.crypto.keypair, core.addr
local TX = ("t"):rep(12)
local HOME, THERE, THIRD = addr.parse "192.0.2.1:1000", addr.parse "192.0.2.2:2000", addr.parse "192.0.2.2:2001"
local SECRET, SECOND = ("k"):rep(32), ("K"):rep(32)

describe("associations", function()
  local counters, assocs, router, sent, asked, errors, on_error, drawn

  local function table_of(options)
    local o = { keys = { SECRET, SECOND }, seed = ("s"):rep(32), now_us = 1000000, counters = counters }
    for k, v in pairs(options or {}) do o[k] = v end
    return core.assocs(o)
  end

  before_each(function()
    counters, sent, asked, errors, drawn = core.counters(), {}, {}, {}, 0
    on_error = core.on_error(function(text) errors[#errors + 1] = text end)
    assocs = table_of()
    router = core.router(counters)
    router:reply_schemas(message.all)
    router:assocs(assocs, message.lost, 1)
    router:on(message.open, nil, function(reply, _, tx, _, noise)
      reply:proven()
      local answer, text, code = router:open(reply, noise)
      asked.opened = { answer, text, code }
      if answer then reply("opened", tx, answer) end
    end)
    router:on(message.unregister, nil, function(reply, from, tx)
      table.insert(asked, { from, tx, reply:who() })
      reply("done", tx)
    end)
  end)
  after_each(function()
    core.on_error(on_error)
    assocs:close()
    assert.same({}, errors)
  end)

  -- What the server answers to a datagram.
  local function give(from, bytes)
    sent = {}
    local sock = { send = function(_, to, out) table.insert(sent, { to, out }) end }
    router:input(sock, from, bytes)
    return sent[1] and sent[1][2], sent[1] and sent[1][1]
  end

  local function counted(name, n) assert.equal(n or 1, counters:get(name), name) end

  local function own(n)
    local public, secret = keypair(n:rep(32))
    return public .. secret
  end

  -- A client and its first message.
  local function begin(n, key, messages)
    drawn = drawn + 1
    local assoc, noise = core.assoc(own(n), string.pack("<I4", drawn):rep(8), key or (keypair(SECRET)), 77,
      messages or message.unregister:encode(TX))
    return assoc, assert(message.open:encode(TX, nil, noise)), noise
  end

  local function join(n, from)
    local assoc, open = begin(n)
    local _, noise = message.opened:decode(give(from or HOME, open))
    assert.equal(message.done:encode(TX), assoc:answered(noise))
    return assoc, open
  end

  local function tx_of(n) return ("%012d"):format(n) end

  local function ask(assoc, from, n)
    return give(from, assoc:write(message.unregister:encode(tx_of(n))))
  end

  it("open with requests in the first message, whose answers are in the second", function()
    local assoc, open = begin "a"
    local got, to = give(HOME, open)
    assert.equal(HOME, to)
    local tx, noise = message.opened:decode(got)
    assert.equal(TX, tx)
    assert.equal(message.done:encode(TX), assoc:answered(noise))
    local public = own("a"):sub(1, 32)
    local index = asked.opened[2]
    assert.same({ { HOME, TX, core.crypto.id(public), public, index } }, { asked[1] })
    assert.is_true(asked.opened[3])
    assert.equal(1, assocs:count())
    counted "associated"
  end)

  it("carry messages both ways, several in one frame too", function()
    local assoc = join "a"
    for n = 1, 5 do
      local frame, to = ask(assoc, HOME, n)
      assert.equal(HOME, to)
      assert.same({ "message", message.done:encode(tx_of(n)) }, { assoc:read(frame) })
      assert.is_nil(assoc:read(frame))
    end
    local both = message.unregister:encode(tx_of(6)) .. message.unregister:encode(tx_of(7))
    give(HOME, assoc:write(both))
    assert.equal(2, #sent)
    assert.equal(tx_of(7), asked[8][2])
    -- And of its own accord.
    local frame, to, number, at = assocs:write(asked.opened[2], message.done:encode(TX))
    assert.same({ HOME, 1 }, { to, number })
    assert.is_nil(at)
    assert.same({ "message", message.done:encode(TX) }, { assoc:read(frame) })
    assert.is_nil((assocs:write(asked.opened[2] + 1, "x")))
    assert.is_nil((assocs:write(-1, "x")))
    assert.is_nil((assocs:write(1 << 40, "x")))
    assert.is_nil((assocs:write(asked.opened[2], ("x"):rep(1200))))
    assert.is_nil(assoc:write(("x"):rep(1200)))
  end)

  it("answer a repeat with the same bytes, and act on it once", function()
    local assoc, open = begin "a"
    local first = give(HOME, open)
    for _ = 1, 3 do assert.equal(first, (give(HOME, open))) end
    assert.is_false(asked.opened[3])
    assert.equal(1, #asked)
    counted "associated"
    local _, noise = message.opened:decode(first)
    assoc:answered(noise)
    ask(assoc, HOME, 1)
    assert.is_nil(give(HOME, open)) -- it was used: this is a copy
    assert.same({ nil, "closed" }, { asked.opened[1], asked.opened[3] })
    assert.equal(2, #asked)
    assert.is_nil(give(THERE, open))
    assert.equal(1, assocs:count())
    counted("association_refused", 2)
  end)

  it("refuse a copy from elsewhere, before it is used", function()
    local _, open = begin "a"
    give(HOME, open)
    assert.is_nil(give(THERE, open))
    assert.equal("closed", asked.opened[3])
  end)

  it("take either of the server's keys, and no other", function()
    for i, secret in ipairs { SECRET, SECOND } do
      local assoc, open = begin("a", (keypair(secret)))
      local _, noise = message.opened:decode(give(HOME, open))
      assert.is_string(assoc:answered(noise))
      assert.equal(i, assocs:count())
    end
    local _, open = begin("a", (keypair(("x"):rep(32))))
    assert.is_nil(give(HOME, open))
    assert.same({ nil, "bad_key" }, { asked.opened[1], asked.opened[3] })
    assert.equal(2, assocs:count())
    counted "association_refused"
    local assoc, text, code = core.assoc(own "a", ("e"):rep(32), ("\0"):rep(32), 1, "")
    assert.is_nil(assoc)
    assert.is_string(text)
    assert.equal("bad_key", code)
  end)

  it("are not opened by what is cut or forged, nor closed by it", function()
    local assoc, _, noise = begin "a"
    for i = 1, #noise, 5 do
      local changed = noise:sub(1, i - 1) .. string.char(noise:byte(i) ~ 8) .. noise:sub(i + 1)
      assert.is_nil(give(HOME, message.open:encode(TX, nil, changed)))
      assert.equal("bad_key", asked.opened[3])
      if i > 100 then
        give(HOME, message.open:encode(TX, nil, noise:sub(1, i - 1)))
        assert.equal("bad_key", asked.opened[3])
      end
    end
    assert.equal(0, assocs:count())
    assert.equal(0, #asked)
    local _, answer = message.opened:decode(give(HOME, message.open:encode(TX, nil, noise)))
    for i = 1, #answer do
      for _, bad in ipairs { answer:sub(1, i - 1), answer:sub(1, i - 1) .. string.char(answer:byte(i) ~ 8) ..
        answer:sub(i + 1) } do
        assert.is_nil((assoc:answered(bad)))
      end
    end
    assert.is_nil(assoc:write "early")
    assert.is_string(assoc:answered(answer))
    assert.is_nil((assoc:answered(answer)))
    assert.is_true(#assoc:write "now" > 0)
  end)

  it("drop frames that are forged, cut, or come twice", function()
    local assoc = join "a"
    local frame = assoc:write(message.unregister:encode(TX))
    for i = 1, #frame do
      assert.is_nil(give(HOME, frame:sub(1, i - 1)))
      local changed = frame:sub(1, i - 1) .. string.char(frame:byte(i) ~ 1) .. frame:sub(i + 1)
      if i == 1 or i > 5 then assert.is_nil(give(HOME, changed)) end
    end
    assert.equal(1, #asked)
    assert.is_string(give(HOME, frame))
    assert.is_nil(give(HOME, frame))
    counted "drop_replay"
    assert.equal(2, #asked)
  end)

  it("take frames that are late by less than 64", function()
    local assoc = join "a"
    local frames = {}
    for n = 1, 70 do frames[n] = assoc:write(message.unregister:encode(tx_of(n))) end
    assert.is_string(give(HOME, frames[70]))
    for n = 69, 7, -1 do assert.is_string(give(HOME, frames[n]), n) end
    for n = 6, 1, -1 do assert.is_nil(give(HOME, frames[n]), n) end
    counted("drop_replay", 6)
  end)

  describe("of a client that moves", function()
    -- Asks from there, and is asked.
    local function challenged(assoc, from, n)
      local challenge, to = ask(assoc, from, n)
      assert.equal(from, to)
      local kind, answer = assoc:read(challenge)
      assert.equal("challenge", kind)
      return answer
    end

    it("switch when the question is answered from there, not before", function()
      local assoc = join "a"
      local answer = challenged(assoc, THERE, 1)
      assert.equal(1, #asked)
      local _, to = assocs:write(asked.opened[2], "x")
      assert.equal(HOME, to)
      assert.is_nil(give(THERE, answer))
      counted "client_moved"
      _, to = assocs:write(asked.opened[2], "x")
      assert.equal(THERE, to)
      local frame
      frame, to = ask(assoc, THERE, 2)
      assert.equal("message", (assoc:read(frame)))
      assert.equal(THERE, to)
    end)

    it("do not switch when it comes from elsewhere, or was heard where it was", function()
      local assoc = join "a"
      give(THIRD, challenged(assoc, THERE, 1))
      local late = challenged(assoc, THERE, 2)
      assert.is_string(ask(assoc, HOME, 3))
      give(THERE, late)
      counted("client_moved", 0)
      local _, to = assocs:write(asked.opened[2], "x")
      assert.equal(HOME, to)
    end)

    it("ask nothing of an older frame from elsewhere", function()
      local assoc = join "a"
      local older = assoc:write(message.unregister:encode(TX))
      ask(assoc, HOME, 1)
      assert.is_nil(give(THERE, older))
      counted "drop_state"
      assert.equal(2, #asked)
    end)
  end)

  it("that are not known are said to be lost, in fewer bytes, to who sent the frame", function()
    local assoc = join "a"
    local other = table_of { seed = ("z"):rep(32) }
    router = core.router(counters)
    router:assocs(other, message.lost, 1)
    local frame = assoc:write ""
    local lost, to = give(HOME, frame)
    assert.equal(HOME, to)
    assert.is_true(#lost < #frame)
    local tx = message.lost:decode(lost)
    assert.equal(frame:sub(2, 13), tx)
    assert.is_true(assoc:sent(tx))
    counted "association_lost"
    -- Of what was never sent, nobody is believed.
    assert.is_false(assoc:sent(string.pack(">I4", 1) .. tx:sub(5)))
    assert.is_false(assoc:sent(tx:sub(1, 11) .. "\xff"))
    assert.is_false(assoc:sent(tx .. "x"))
    assert.is_nil(give(HOME, frame:sub(1, 28)))
    counted("association_lost", 1)
    other:close()
  end)

  it("have a limit", function()
    router = core.router(counters)
    local small <close> = table_of { max = 1 }
    router:reply_schemas(message.all)
    router:assocs(small, message.lost, 1)
    local codes = {}
    router:on(message.open, { "noise" }, function(reply, _, noise)
      reply:proven()
      table.insert(codes, (select(3, router:open(reply, noise))))
    end)
    for _, n in ipairs { "a", "b" } do give(HOME, select(2, begin(n))) end
    assert.same({ true, "limit" }, codes)
    assert.equal(1, small:count())
  end)

  it("end 60 s after they were opened and not used, else 150 s after they were", function()
    local assoc = join("a", HOME)
    ask(assoc, HOME, 1)
    join("b", THERE)
    assert.same({}, assocs:sweep(60999999))
    assert.same({ THERE }, assocs:sweep(61000000))
    assert.same({}, assocs:sweep(150999999))
    assert.is_string(ask(assoc, HOME, 2))
    assert.same({}, assocs:sweep(300999998))
    assert.same({}, assocs:sweep(5)) -- time does not go back
    assert.same({ HOME }, assocs:sweep(300999999))
    assert.equal(0, assocs:count())
    assert.is_true(#ask(assoc, HOME, 3) < 29) -- lost
  end)

  it("are all looked at in as many sweeps as that is asked for", function()
    for n = 1, 100 do join(string.char(n)) end
    local ended = 0
    for n = 1, 10 do
      local list = assocs:sweep(62000000, 10)
      assert.is_true(#list < 30, n) -- of 128 places
      ended = ended + #list
    end
    assert.equal(100, ended)
    assert.equal(0, assocs:count())
    for _, passes in ipairs { 0, -1, 1001, "x" } do
      assert.has_error(function() assocs:sweep(62000000, passes) end)
    end
  end)

  it("cannot be used once closed", function()
    local assoc, open = begin "a"
    local _, noise = message.opened:decode(give(HOME, open))
    local other = join "b"
    assocs:close()
    assocs:close()
    for _, method in ipairs { "write", "sweep", "count" } do
      assert.has_error(function() assocs[method](assocs, 1, 1) end, "closed associations")
    end
    assert.is_nil(give(HOME, assert(other:write "x"))) -- a frame like any other
    assert.has_error(function() core.router():assocs(assocs, message.lost, 1) end)
    assoc:close()
    assoc:close()
    assert.same({ nil, "invalid" }, { (assoc:answered(noise)), (select(3, assoc:answered(noise))) })
    other:close()
    assert.is_nil(other:write "x")
    assert.is_nil(other:read(("\xc1"):rep(60)))
    assert.is_false(other:sent(TX))
  end)

  it("are made of what makes sense", function()
    for _, bad in ipairs {
      { keys = false }, { keys = {} }, { keys = { "short" } }, { keys = { SECRET, SECRET, SECRET } },
      { seed = "short" }, { max = -1 }, { max = (1 << 20) + 1 }, { now_us = -1 }, { counters = 5 },
    } do
      assert.has_error(function() table_of(bad) end)
    end
    local key = (keypair(SECRET))
    local good = { own "a", ("e"):rep(32), key, 1, "" }
    for i, bad in ipairs { "short", "short", "short", 0, false } do
      local arguments = table.move(good, 1, 5, 1, {})
      arguments[i] = bad
      assert.has_error(function() core.assoc(table.unpack(arguments)) end)
    end
    for _, index in ipairs { -1, 65536, 1.5 } do
      assert.has_error(function() core.assoc(good[1], good[2], key, index, "") end)
    end
    assert.is_userdata(core.assoc(table.unpack(good)))
    local none, text, code = core.assoc(good[1], good[2], key, 65535, ("x"):rep(1101))
    assert.same({ nil, "string", "invalid" }, { none, type(text), code })
    assert.has_error(function() router:assocs(assocs, message.done, 70000) end)
    assert.has_error(function() router:assocs(assocs, message.address_report) end)
  end)
end)
