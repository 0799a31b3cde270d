-- SPDX-License-Identifier: MIT
-- Tokens at the door: which of them let a client register or select, and what is kept of what they say.
local core = require "bodkin.core"
local sources = require "bodkin.policy.source"
local support = dofile "spec/servers/support.lua"
local token = require "bodkin.token"

local SEED, OTHER = ("s"):rep(32), ("o"):rep(32)
local A, B = support.addr "198.51.100.1:1000", support.addr "198.51.100.2:2000"

local function public(seed) return (core.crypto.sign_keypair(seed)) end

describe("admission", function()
  local s, env, lines, shift_s

  local function server(options)
    env = support.env(1)
    lines, shift_s = {}, 0
    local time = env.time
    env.time = function() return time() + shift_s end
    local function log(_, format, ...) lines[#lines + 1] = format:format(...) end
    env.log = { info = log, warn = log, error = log, debug = log }
    options.env = env
    s = support.server(options)
  end

  -- A token as bytes; claims.exp is an hour from now where it is not given.
  local function issue(claims, seed)
    claims.exp = claims.exp or env.time() + 3600
    return assert(token.bytes(assert(token.issue(seed or SEED, claims))))
  end

  local function claims_of(n) return core.wire.decode(s.server.admission:of(support.who(n).id)) end

  -- What is answered to the registration of client 1: "registered", or the text of the refusal.
  local function answer(bytes, options)
    options = options or {}
    options.token = bytes
    local got = s:register(options.who or support.who(1), options.from or A, options)
    return got.name_of == "registered" and "registered" or got.text
  end

  after_each(function()
    s:close()
    for _, line in ipairs(lines) do
      assert.is_nil(line:find(SEED, 1, true))
      assert.is_nil(line:find("ann", 1, true))
    end
  end)

  describe("with token keys", function()
    before_each(function() server { token_keys = { public(SEED) } } end)

    it("takes a valid token, and keeps what it says while the client is registered", function()
      assert.equal("registered", answer(issue { sub = "ann", mmr = 1500 }))
      assert.same({ "ann", 1500 }, { claims_of(1).sub, claims_of(1).mmr })
      s:one(support.who(1), A, "unregister", s:next_tx())
      assert.same({}, claims_of(1))
      assert.equal("registered", answer(issue { sub = "ann" }))
      s:advance(61000)
      assert.equal(1, s:count "registration_expired")
      assert.same({}, claims_of(1))
    end)

    it("takes none, too, where none is required; then nothing is claimed", function()
      assert.equal("registered", answer(nil))
      assert.same({}, claims_of(1))
    end)

    it("replaces what was claimed when the client registers again", function()
      answer(issue { sub = "ann", mmr = 1 })
      answer(issue { sub = "ann", mmr = 2 })
      assert.equal(2, claims_of(1).mmr)
      answer(nil)
      assert.same({}, claims_of(1))
    end)

    it("refuses one that is not right, and says why; what was claimed before stays", function()
      answer(issue { mmr = 7 })
      local now_s = env.time()
      for text, bytes in pairs {
        ["the token has expired"] = issue { exp = now_s },
        ["the token is not valid yet"] = issue { nbf = now_s + 1 },
        ["the token is another client's"] = issue { id = core.crypto.hex(support.who(2).id) },
        ["the token is for another app"] = issue { app = "other/1" },
        ["no key known here signed the token"] = issue({}, OTHER),
        ["that is no token"] = ("x"):rep(64),
      } do
        assert.equal(text, answer(bytes))
      end
      local good = issue { sub = "ann" }
      for at = 1, #good, 7 do
        local bent = good:sub(1, at - 1) .. string.char(good:byte(at) ~ 1) .. good:sub(at + 1)
        assert.equal("no key known here signed the token", answer(bent))
      end
      assert.equal("no key known here signed the token", answer(good:sub(1, -2)))
      assert.equal("no key known here signed the token", answer(good .. "\0"))
      assert.equal(7, claims_of(1).mmr)
      assert.is_nil(claims_of(2).mmr)
    end)

    it("refuses one whose signed bytes are no claims", function()
      local body = core.wire.encode { sub = "ann" }
      local bytes = body .. core.crypto.sign(SEED, "bodkin token 1\0" .. body)
      assert.equal("the token's claims are not right", answer(bytes))
    end)

    it("takes one for this client and app", function()
      assert.equal("registered", answer(issue { id = core.crypto.hex(support.who(1).id), app = "test/1" }))
      assert.equal("the token is for another app",
        answer(issue { id = core.crypto.hex(support.who(1).id), app = "test/1" }, { app = "test/2" }))
    end)

    it("has no field for one that is too long: the message is dropped", function()
      local who = support.who(1)
      local bytes = s.server.schemas.register:encode(s:next_tx(), who.ephemeral, {}, {}, "test/1", "",
        core.wire.encode {}, ("x"):rep(512))
      local cut = #bytes - 517
      assert.equal("\xc5\x02\x00", bytes:sub(cut + 1, cut + 3))
      local frame = s:assoc(who, A).raw:write(bytes:sub(1, cut) .. "\xc5\x02\x01" .. ("x"):rep(513) .. "\xc0\xc0")
      assert.same({}, s:feed(A, frame))
      assert.equal(1, s:count "drop_field")
      assert.equal("no key known here signed the token", answer(("x"):rep(512)))
    end)

    it("goes by the clock on the wall: a jump ends tokens, and nothing else", function()
      local bytes = issue { exp = env.time() + 100 }
      assert.equal("registered", answer(bytes))
      shift_s = 1000
      s:advance(1000)
      assert.equal(1, s.server:status().info.registered)
      assert.equal("the token has expired", answer(bytes))
      assert.equal(1, s.server:status().info.registered)
      assert.equal("registered", answer(issue {}))
      shift_s = -1000
      assert.equal("registered", answer(bytes))
      s:advance(61000)
      assert.equal(0, s.server:status().info.registered)
    end)

    it("asks a selection the same", function()
      answer(nil, { who = support.who(2), from = B })
      local target = support.who(2).id
      local function select(bytes)
        return s:select(support.who(1), A, { target = target, token = bytes })
      end
      assert.equal("no key known here signed the token", select(issue({}, OTHER))[1].text)
      assert.equal(2, #support.only(select(issue {}), "matched"))
    end)
  end)

  it("takes tokens of either of two keys, while they are rotated", function()
    server { token_keys = { public(OTHER), public(SEED) } }
    assert.equal("registered", answer(issue({}, OTHER)))
    assert.equal("registered", answer(issue({}, SEED)))
    assert.equal("no key known here signed the token", answer(issue({}, ("x"):rep(32))))
  end)

  it("refuses whoever has none where one is required, at a selection, too", function()
    server { token_keys = { public(SEED) }, require_token = true }
    assert.equal("a token is needed here", answer(nil))
    assert.equal("registered", answer(issue {}, { who = support.who(2), from = B }))
    local target = support.who(2).id
    assert.equal("a token is needed here", s:select(support.who(1), A, { target = target })[1].text)
    local told = s:select(support.who(1), A, { target = target, token = issue {} })
    assert.equal(2, #support.only(told, "matched"))
    assert.equal(1, s:count "registered")
  end)

  it("believes nothing where no key is known", function()
    server {}
    assert.equal("registered", answer(issue { mmr = 1 }))
    assert.same({}, claims_of(1))
  end)

  describe("by a policy with on_register", function()
    local function policy(text)
      server { token_keys = { public(SEED) }, queues = {
        ["*"] = { policy = sources.text('local bodkin = require "bodkin"\nreturn bodkin.policy { ' .. text .. " }") },
      } }
    end

    it("admits and refuses with its text, and answers repeats the same", function()
      policy [[on_register = function(c)
        print(#c.id, c.app, c.name, c.props.n, c.claims.mmr)
        return c.claims.mmr == 5, "you are not five"
      end]]
      assert.equal("you are not five", answer(issue { mmr = 4 }, { tx = "tx-of-refuse", props = { n = 1 } }))
      assert.equal("you are not five", answer(issue { mmr = 4 }, { tx = "tx-of-refuse", props = { n = 1 } }))
      assert.equal(0, s.server:status().info.registered)
      assert.equal(1, #lines)
      assert.equal("registered", answer(issue { mmr = 5 }, { name = "x", props = { n = 2 } }))
      assert.equal("of a client: its policy says: 32 test/1 x 2 5", lines[2])
    end)

    it("is not asked at a refresh, but when anything said is another", function()
      policy [[on_register = function(c) print "asked" return c.name ~= "no", "no such name" end]]
      local bytes = issue { mmr = 5 }
      local function asked(options, with)
        lines = {}
        assert.equal("registered", answer(with or bytes, options))
        return #lines
      end
      assert.equal(1, asked())
      assert.equal(0, asked())
      assert.equal(1, asked { name = "other" })
      assert.equal(1, asked { name = "other", props = { a = 1 } })
      assert.equal(1, asked { name = "other", props = { a = 1 }, app = "test/2" })
      assert.equal(1, asked({ name = "other", props = { a = 1 }, app = "test/2" }, issue { mmr = 6 }))
      assert.equal(0, asked({ name = "other", props = { a = 1 }, app = "test/2" }, issue { mmr = 6 }))
      assert.equal("no such name", answer(bytes, { name = "no" }))
      assert.equal("other", s.server.registry:get(support.who(1).id).name)
      assert.equal(6, claims_of(1).mmr)
      s.server:reload()
      assert.equal(0, asked({ name = "other", props = { a = 1 }, app = "test/2" }, issue { mmr = 6 }))
    end)

    it("that fails for one client refuses that one, and serves the others", function()
      policy [[on_register = function(c)
        if c.props.loop then while true do end end
        if c.props.bad then error "oops" end
        if c.props.odd then return false, 7 end
        return true
      end]]
      for _, odd in ipairs { "loop", "bad", "odd" } do
        assert.equal("cannot decide now, try again", answer(nil, { props = { [odd] = true } }))
        assert.equal("registered", answer(nil, { who = support.who(2), from = B, name = odd }))
      end
      assert.equal(3, s:count "policy_failed")
      assert.matches("on_register failed: policy.lua:4: oops; the client is refused", lines[2], 1, true)
    end)

    it("cuts a long text between characters, and replaces one that is none", function()
      policy [[on_register = function(c)
        return false, c.name == "" and ("x"):rep(39) .. "ü" or "\xff"
      end]]
      assert.equal(("x"):rep(39), answer(nil))
      assert.equal("the server does not admit you", answer(nil, { name = "y" }))
    end)

    it("leaves selections to who is registered, as who it was admitted", function()
      policy [[on_register = function(c) return c.name ~= "king", "no kings" end]]
      answer(nil, { who = support.who(2), from = B })
      local target = support.who(2).id
      assert.equal("not registered: register first", s:select(support.who(1), A, { target = target })[1].text)
      assert.equal("registered", answer(nil, { name = "ann" }))
      local told = support.only(s:select(support.who(1), A, { target = target, name = "king" }), "matched")
      local names = {}
      for _, m in ipairs(told) do names[#names + 1] = m.name end
      table.sort(names)
      assert.same({ "", "ann" }, names)
    end)

    it("asks it also while a queue is served by another in its place, which asks nobody", function()
      policy [[index = function() error "no" end, on_register = function(c) return c.name ~= "king", "no kings" end]]
      assert.equal("registered", answer(nil))
      s:ask(support.who(1), A, "enqueue", s:next_tx(), ("t"):rep(16), "duel", core.wire.encode {})
      assert.matches("no; first_come serves", lines[1], 1, true)
      assert.equal("no kings", answer(nil, { name = "king", who = support.who(2), from = B }))
    end)

    it("counts for all queues only", function()
      server { queues = { duel = { policy = sources.text [[
        return require("bodkin").policy { on_register = function() return false end }]] } } }
      assert.equal("registered", answer(nil))
    end)
  end)

  -- The policy runs in another process: what that is sent, and what it answers when, is this spec's.
  describe("by a policy in a process of its own", function()
    local link, asked

    before_each(function()
      asked = {}
      server {
        queues = { ["*"] = { policy = sources.text [[
          return require("bodkin").policy { on_register = function() return true end }]] } },
        open_policy_link = function(on_message, on_end)
          link = { on_message = on_message, on_end = on_end, killed = 0 }
          function link.send(_, message)
            if message[1] == "ask" then asked[#asked + 1] = message end
            return true
          end
          function link.kill() link.killed = link.killed + 1 end
          function link.close() end
          return link
        end,
      }
    end)

    local function register(n, options)
      options = options or {}
      local who = support.who(n)
      return (s:ask(who, A, "register", options.tx or s:next_tx(), who.ephemeral, {}, {}, options.app or "test/1",
        options.name or "", core.wire.encode {}, nil))
    end

    local function tell(message)
      env.sent = {}
      link.on_message(message)
      return s:drain()
    end

    it("answers when the verdict is there, the newest repeat, once", function()
      assert.same({}, register(1, { tx = "transaction1" }))
      assert.same({}, register(1, { tx = "transaction1" }))
      assert.same({}, register(1, { tx = "transaction2" }))
      assert.equal(1, #asked)
      assert.equal(core.crypto.hex(support.who(1).id), asked[1][4])
      local told = tell { "answered", asked[1][3], true }
      assert.same({ 1, "registered", "transaction2" }, { #told, told[1].name_of, told[1].tx })
      assert.same({}, tell { "answered", asked[1][3], true })
      assert.equal("registered", register(1)[1].name_of)
      assert.equal(1, #asked)
    end)

    it("asks anew when the client says something else meanwhile", function()
      register(1, { name = "one" })
      register(1, { name = "two" })
      assert.same({}, tell { "answered", asked[1][3], true })
      assert.equal("two", asked[2][6])
      assert.equal("registered", tell({ "answered", asked[2][3], true })[1].name_of)
      assert.equal("two", s.server.registry:get(support.who(1).id).name)
    end)

    it("leaves unanswered what needs the registration, until that is decided", function()
      register(1)
      local who, ticket = support.who(1), ("t"):rep(16)
      local function enqueue() return (s:ask(who, A, "enqueue", s:next_tx(), ticket, "duel", core.wire.encode {})) end
      assert.same({}, enqueue())
      assert.same({}, (s:ask(who, A, "room_open", s:next_tx(), "room", nil)))
      assert.same({}, s:select(who, A, { code = "room" }))
      tell { "answered", asked[1][3], true }
      assert.equal("room_opened", s:room(who, A, "room").name_of)
      enqueue()
      assert.equal(1, s.server:status().info.tickets)
    end)

    it("refuses after two seconds of silence; the process is killed, and who is registered stays", function()
      register(1)
      tell { "answered", asked[1][3], true }
      register(2)
      register(3)
      assert.equal(2, #asked)
      assert.same({}, s:advance(1900))
      local told = s:advance(200)
      assert.same({ 2, "cannot decide now, try again", "cannot decide now, try again" },
        { #told, told[1].text, told[2].text })
      assert.equal(1, link.killed)
      assert.equal(1, s.server:status().info.registered)
      assert.equal("registered", register(1)[1].name_of)
      -- What comes too late changes nothing.
      assert.same({}, tell { "answered", asked[2][3], true })
      assert.equal(1, s.server:status().info.registered)
    end)

    it("refuses the one whose question killed the process, and asks the others of the next", function()
      register(1)
      register(2)
      env.sent = {}
      link.on_end()
      local told = s:drain()
      assert.same({ 1, "cannot decide now, try again" }, { #told, told[1].text })
      assert.equal(1, #asked)
      assert.same({}, s:advance(100))
      assert.equal(2, #asked)
      told = tell { "answered", asked[2][3], false, "not you" }
      assert.same({ 1, "not you" }, { #told, told[1].text })
    end)

    it("forgets the question of a client that is gone", function()
      register(1)
      s:one(support.who(1), A, "unregister", s:next_tx())
      assert.same({}, tell { "answered", asked[1][3], true })
      assert.equal(0, s.server:status().info.registered)
    end)

    it("bounds how many wait", function()
      for n = 1, 4096 do
        assert(s.server.registrar.policies:allow({ id = tostring(n), app = "", name = "", props = "\x80",
          claims = "\x80" }, function() end))
      end
      assert.equal("too many ask at once: try again", register(1)[1].text)
      s:advance(2100)
      register(1)
      tell { "answered", asked[1][3], true }
    end)
  end)
end)
