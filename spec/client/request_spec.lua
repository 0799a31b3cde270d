-- SPDX-License-Identifier: MIT

local core = require "bodkin.core"
local message = require "bodkin.message"
local request = require "bodkin.client.request"
local sim = require "bodkin.sim.world"
local task = require "bodkin.task"

local server, stranger = core.addr.parse("198.51.100.10:4433"), core.addr.parse("198.51.100.66:4433")
local noise = ("m"):rep(52)
local me = core.addr.parse("203.0.113.1:5000")

describe("request", function()
  local world, env, requests, router, sent, proofs, results, rtts, sock

  before_each(function()
    world = sim.new()
    env = world:host({ name = "client", ip = "203.0.113.1" }).env
    router, sent, proofs, results, rtts = core.router(env.counters), {}, {}, nil, {}
    local function send(_, to, bytes)
      sent[#sent + 1] = { at_ms = world:now() / 1000, to = to, bytes = bytes }
    end
    sock = { send = send }
    requests = request.new {
      env = env, router = router, proof_for = function(to) return proofs[to] end,
      on_report = function(to, public, proof)
        assert.equal(me, public)
        proofs[to] = proof
      end,
      on_rtt = function(to, us)
        assert.equal(server, to)
        rtts[#rtts + 1] = us
      end,
      rtt_for = function() return rtts.known end,
      sock_for = function() return sock end,
    }
  end)

  after_each(function()
    requests:close()
    world:close()
  end)

  -- Begins a handshake, as a task.
  local function ask(options)
    local spec = {
      to = server, expect = "opened",
      build = function(tx, proof) return message.open:encode(tx, proof, ("n"):rep(100)) end,
    }
    for k, v in pairs(options or {}) do spec[k] = v end
    task.spawn(function() results = table.pack(requests:call(spec)) end)
    return message.open:decode(sent[#sent].bytes)
  end

  local function answer(from, schema, ...)
    router:input({ send = function() error("a reply is not answered") end }, from, assert(schema:encode(...)))
  end

  it("is repeated after 200 ms, 400 ms and then each 500 ms, the same each time, for 5 s", function()
    ask()
    world:run(4999)
    assert.is_nil(results)
    local start, times = sent[1].at_ms, {}
    for i, s in ipairs(sent) do
      times[i] = s.at_ms - start
      assert.equal(sent[1].bytes, s.bytes)
      assert.equal(server, s.to)
    end
    assert.same({ 0, 200, 600, 1100, 1600, 2100, 2600, 3100, 3600, 4100, 4600 }, times)
    assert.equal(11, env.counters:get("request_sent"))
    world:run(1)
    assert.same({ n = 3, nil, "no answer from 198.51.100.10:4433 after 5 s: is UDP 4433 open there? try bodkin ping",
      "timeout" }, results)
    assert.equal(1, env.counters:get("request_timeout"))
    world:run(10000)
    assert.equal(11, #sent)
  end)

  it("is repeated after a little more than a round trip, once these are known to be less, 50 ms at least", function()
    for rtt_ms, gap_ms in pairs { [1] = 50, [44] = 55, [72] = 90, [300] = 200 } do
      rtts.known, sent = rtt_ms, {}
      local tx = ask()
      world:run(gap_ms)
      assert.equal(2, #sent)
      assert.equal(gap_ms, sent[2].at_ms - sent[1].at_ms)
      answer(server, message.opened, tx, noise)
      answer(server, message.opened, ask(), noise)
    end
    for _, slow in ipairs { { expect = "queued" }, { expect = "done", slow = true } } do -- wait for more than the way
      local tx, copies = ask(slow), 0
      world:run(199)
      for _, s in ipairs(sent) do copies = copies + (message.open:decode(s.bytes) == tx and 1 or 0) end
      assert.equal(1, copies)
    end
  end)

  it("is repeated twice so soon, then backed off; and not soon where nobody answered the one before", function()
    local function times()
      sent = {}
      ask()
      world:run(2000)
      local list = {}
      for i, s in ipairs(sent) do list[i] = s.at_ms - sent[1].at_ms end
      world:run(5000)
      assert.equal("timeout", results[3])
      return list
    end
    rtts.known = 40
    assert.same({ 0, 50, 100, 200, 400, 800, 1300, 1800 }, times())
    assert.same({ 0, 200, 600, 1100, 1600 }, times())
    requests:moved()
    local tx = ask()
    world:run(60)
    answer(server, message.opened, tx, noise) -- to which copy?
    tx = ask()
    sent = {}
    world:run(190)
    assert.same({}, sent)
    answer(server, message.opened, tx, noise)
    assert.same({ 0, 50, 100, 200, 400, 800, 1300, 1800 }, times())
  end)

  it("goes under a new id each time where it is to be timed, and ends with the answer to any", function()
    local function question(tx) return message.address_request:encode(tx) end
    for copy = 1, 3 do
      sent, results, rtts = {}, nil, {}
      task.spawn(function()
        results = table.pack(requests:call { to = server, expect = "address_report", anew = true, build = question })
      end)
      world:run(110) -- after 0, 50, 100 ms
      assert.equal(3, #sent)
      local txs = {}
      for i, s in ipairs(sent) do txs[i] = message.address_request:decode(s.bytes) end
      for i = 1, 2 do assert.not_equal(txs[i], txs[i + 1]) end
      answer(server, message.address_report, txs[copy], core.addr.mask(me, txs[copy]), ("p"):rep(20))
      assert.equal(true, results[1])
      assert.same({ ({ 110000, 60000, 10000 })[copy] }, rtts)
      for i = 1, 3 do -- of no request any more
        local before = env.counters:get "drop_reply"
        answer(server, message.address_report, txs[i], core.addr.mask(me, txs[i]), ("p"):rep(20))
        assert.equal(before + 1, env.counters:get "drop_reply")
      end
      world:run(10000)
      assert.equal(3, #sent)
    end
  end)

  it("times the answer to a first copy, and to no other", function()
    local tx = ask()
    world:run(42)
    answer(server, message.opened, tx, noise)
    assert.same({ 42000 }, rtts)
    tx = ask()
    world:run(250) -- a second copy went out: which is it that is answered?
    answer(server, message.opened, tx, noise)
    assert.same({ 42000 }, rtts)
  end)

  it("ends with its answer, given once", function()
    local tx = ask()
    answer(server, message.opened, tx, noise)
    assert.same({ n = 2, true, noise }, results)
    results = nil
    answer(server, message.opened, tx, noise)
    assert.is_nil(results)
    assert.equal(1, env.counters:get("drop_reply"))
    world:run(10000)
    assert.equal(1, #sent)
  end)

  it("takes no answer of a stranger, to another request, or of another kind", function()
    local tx = ask()
    answer(stranger, message.opened, tx, noise)
    answer(stranger, message.refused, tx, 1001, "go away")
    answer(stranger, message.address_report, tx, core.addr.mask(me, tx), ("p"):rep(20))
    answer(server, message.opened, ("x"):rep(12), noise)
    answer(server, message.key_report, tx, { ("k"):rep(32) })
    assert.is_nil(results)
    assert.is_nil(next(proofs))
    assert.equal(5, env.counters:get("drop_reply"))
    answer(server, message.opened, tx, noise)
    assert.is_true(results[1])
  end)

  it("goes again at once with the proof that an address report brought, and the same tx", function()
    local tx, none = ask()
    assert.is_nil(none)
    local proof = ("p"):rep(20)
    answer(server, message.address_report, tx, core.addr.mask(me, tx), proof)
    assert.equal(2, #sent)
    local again, given = message.open:decode(sent[2].bytes)
    assert.equal(tx, again)
    assert.equal(proof, given)
    -- A report to an earlier copy brings nothing new.
    answer(server, message.address_report, tx, core.addr.mask(me, tx), proof)
    assert.equal(2, #sent)
    answer(server, message.opened, tx, noise)
    assert.is_true(results[1])
  end)

  it("tells nothing of the address of a socket that is used no more, and is then asked by the one that is", function()
    local tx = ask()
    sock = { send = sock.send }
    local one, two = ("1"):rep(20), ("2"):rep(20)
    answer(server, message.address_report, tx, core.addr.mask(me, tx), one)
    assert.is_nil(proofs[server])
    answer(server, message.address_report, tx, core.addr.mask(me, tx), two)
    assert.equal(two, proofs[server])
    assert.equal(two, select(2, message.open:decode(sent[3].bytes)))
  end)

  it("does not go on forever with a server that reports ever new proofs", function()
    local tx = ask()
    for i = 1, 100 do
      answer(server, message.address_report, tx, core.addr.mask(me, tx), ("%020d"):format(i))
    end
    assert.equal(5, #sent)
  end)

  it("gives a refusal with its code and words, made printable", function()
    local tx = ask()
    answer(server, message.refused, tx, 1003, "bell \7")
    assert.same({ n = 3, nil, "bell ?", "no_path" }, results)
    tx = ask()
    answer(server, message.refused, tx, 1099, "")
    assert.same({ n = 3, nil, "the server refused without a reason", "refused" }, results)
  end)

  it("says what does not fit in it", function()
    task.spawn(function()
      results = table.pack(requests:call {
        to = server, expect = "opened", build = function(tx) return message.open:encode(tx, nil, 7) end,
      })
    end)
    assert.is_nil(results[1])
    assert.equal("string", type(results[2]))
    assert.equal("invalid", results[3])
    assert.equal(0, #sent)
  end)

  it("sent once is not repeated, and a quiet one fails without a word", function()
    ask { once = true, quiet = true, timeout_ms = 1000 }
    world:run(1000)
    assert.equal(1, #sent)
    assert.equal("timeout", results[3])
    assert.equal(0, env.counters:get("request_timeout"))
  end)

  it("ends with closed when the node closes, and is refused after", function()
    ask()
    requests:close()
    assert.same({ n = 3, nil, "the node is closed", "closed" }, results)
    assert.has_error(function() ask { to = stranger } assert(results[1]) end)
    assert.equal(1, #sent)
    world:run(10000)
    assert.equal(1, #sent)
  end)

  it("stops when its task is cancelled", function()
    local t = task.spawn(function()
      requests:call { to = server, expect = "key_report",
        build = function(tx) return message.key_request:encode(tx) end }
    end)
    assert.equal(1, #sent)
    t:cancel()
    world:run(10000)
    assert.equal(1, #sent)
  end)
end)
