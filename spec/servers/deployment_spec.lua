-- SPDX-License-Identifier: MIT
local core = require "bodkin.core"
local message = require "bodkin.message"
local role = require "bodkin.servers.role"
local servers = require "bodkin.servers"
local support = require "spec.servers.support"

local addr, who = support.addr, support.who
local from, other = addr("198.51.100.7:40000"), addr("198.51.100.8:40000")
local tx_field = { "tx", "bin", 12, 12 }

local function greeter(options)
  options = options or {}
  return role.role {
    name = options.name or "greeter",
    messages = {
      {
        name = "greet", type = options.type or 64, request = true,
        fields = { tx_field, { "to", "str", 0, 8 }, { "pad", "pad" } },
      },
      { name = "greeted", type = (options.type or 64) + 1, fields = { tx_field, { "text", "str", 0, 20 } } },
    },
    wants = { greet = { "to", "tx" } },
    on = options.on or { greet = function(reply, _, to, tx) reply("greeted", tx, "hello " .. to) end },
  }
end

describe("S4 deployment", function()
  it("S4 runs the roles in one process, sharing its socket", function()
    local s = support.server {}
    assert.same({ "address", "matching", "maintenance", "relay" }, s.server:status().info.roles)
    assert.equal("address_report", s:one(from, "address_request", s:next_tx()).name_of)
    assert.equal("registered", s:register(who(1), from).name_of)
    assert.equal("maintained", s:one(from, "maintain", s:next_tx(), who(1).id).name_of)
    assert.equal(1, #s.env.socks)
    s:close()
  end)

  it("S4 runs them in several, on several machines, that share a key: a proof from one counts on the other", function()
    local key = ("k"):rep(32)
    local address = support.server { roles = { "address" }, keys = { key }, seed = 1 }
    local matching = support.server { roles = { "matching" }, keys = { key }, seed = 2, expose_addresses = true }
    local tx = address:next_tx()
    local report = address:one(other, "address_request", tx)
    local public = core.addr.mask(report.xaddr, tx)
    assert.equal("registered", matching:register(who(1), from, { pubs = { public .. report.proof } }).name_of)
    local f = matching:one(from, "lookup", tx, who(1).id)
    assert.same({ from, other }, f.pubs)
    local stranger = support.server { roles = { "address" }, seed = 3 }
    report = stranger:one(other, "address_request", tx)
    matching:register(who(1), from, { pubs = { other .. report.proof } })
    f = matching:one(from, "lookup", tx, who(1).id)
    assert.same({ from }, f.pubs)
    address:close()
    matching:close()
    stranger:close()
  end)

  it("S4 makes its cookies from the first of its keys", function()
    local one, two = ("k"):rep(32), ("l"):rep(32)
    local old = support.server { keys = { one }, seed = 1 }
    local new = support.server { keys = { one, two }, seed = 2 }
    local rotated = support.server { keys = { two, one }, seed = 3 }
    assert.equal(old:proof(from), new:proof(from))
    assert.not_equal(old:proof(from), rotated:proof(from))
    for _, s in ipairs { old, new, rotated } do s:close() end
  end)

  it("S4 answers and later sends by the socket that a client uses", function()
    local listen = { "203.0.113.1:4433", "203.0.113.1:4434", "[2001:db8::1]:4433" }
    local s = support.server { roles = { "matching" }, listen = listen }
    assert.same({ addr(listen[1]), addr(listen[2]), addr(listen[3]) }, s.server:addresses())
    local six = addr("[2001:db8::7]:40000")
    local function ask(w, where, via, bytes)
      return s:feed(where, s:assoc(w, where, s.env.socks[via]).raw:write(bytes), s.env.socks[via])
    end
    local function register(n, where, via)
      local bytes = message.register:encode(s:next_tx(), who(n).ephemeral, {}, {}, "", "", "\x80", nil)
      assert.equal(s.env.socks[via], ask(who(n), where, via, bytes)[1].sock)
    end
    register(1, from, 2)
    register(2, six, 3)
    local function select(target)
      return ask(who(3), other, 1, message.select:encode(s:next_tx(), who(3).ephemeral, target, nil, {}, {}, "", "",
        "\x80", nil))
    end
    local sent = select(who(1).id)
    assert.equal(s.env.socks[2], sent[1].sock)
    assert.equal(s.env.socks[1], sent[2].sock)
    sent = select(who(2).id)
    assert.equal(s.env.socks[3], sent[1].sock)
    assert.is_true(s.server:send(six, "maintained", s:next_tx(), s.server.boot))
    assert.equal(s.env.socks[3], s:drain()[1].sock)
    s:close()
  end)

  it("tells by its boot number that it started anew, and knows nobody then", function()
    local one = support.server { seed = 1 }
    local before = one:register(who(1), from)
    one:close()
    local two = support.server { seed = 2 }
    assert.not_equal(before.boot, two:one(from, "maintain", two:next_tx(), who(1).id).boot)
    assert.equal(0, two.server:status().info.registered)
    local r = two:one(from, "open", two:next_tx(), one:proof(from), ("n"):rep(100))
    assert.equal("address_report", r.name_of) -- the cookies of the old process are void without a key
    assert.equal("registered", two:register(who(1), from).name_of)
    two:close()
  end)

  it("says what it counts, each with its sentence, and how it stands", function()
    local s = support.server { listen = { "203.0.113.1:4433", "[2001:db8::1]:4433" } }
    s:register(who(1), from)
    s:advance(5000)
    local status = s.server:status()
    assert.equal(5, status.info.uptime_s)
    assert.equal(1, status.info.registered)
    assert.equal(0, status.info.rooms)
    assert.same({ "203.0.113.1:4433", "[2001:db8::1]:4433" }, status.info.listen)
    local by_name = {}
    for _, c in ipairs(status.counters) do by_name[c.name] = c end
    assert.equal(1, by_name.registered.value)
    assert.equal("registrations accepted", by_name.registered.text)
    s:close()
  end)

  it("is closed twice without harm, and leaves nothing open", function()
    local s = support.server {}
    s:register(who(1), from)
    s:room(who(1), from)
    s:select(who(2), other, { target = who(1).id })
    assert.is_true(s.env.timers > 0)
    s:close()
    s:close()
  end)
end)

describe("a server's start", function()
  local function refused(options, expect)
    local env = options.env or support.env(1)
    options.listen = options.listen or { "203.0.113.1:4433" }
    local server, msg, code = servers.open(env, options)
    assert.is_nil(server)
    assert.matches(expect, msg, 1, true)
    assert.equal("invalid", code)
    assert.equal(0, env.timers)
    for _, sock in ipairs(env.socks) do assert.is_true(sock.closed) end
  end

  it("refuses an unknown role, and names those there are", function()
    refused({ roles = { "adress" } }, "there is no role 'adress': it is one of address, matching, maintenance")
    refused({ roles = {} }, "at least one role")
    refused({ roles = { "address", "address" } }, "role 'address' is there twice")
  end)

  it("refuses two roles that handle one message, naming both", function()
    local mine = role.role { name = "mine", on = { address_request = function() end } }
    refused({ roles = { "address" }, role_files = { mine } },
      "roles 'address' and 'mine' both handle address_request (type 1)")
    refused({ role_files = { greeter(), greeter { name = "other" } } },
      "roles 'greeter' and 'other' both claim message type 64")
    refused({ role_files = { role.role { name = "mine", on = { lits = print } } } },
      "role 'mine' handles 'lits', which nobody declares")
    refused({ role_files = { role.role { name = "mine", on = { list = 7 } } } },
      "role 'mine' handles list with a number")
    refused({ role_files = { role.role { name = "mine", wants = { list = { "tx", "pad" } }, on = { list = print } } } },
      "role 'mine' wants 'pad' of list, which has no such field")
  end)

  it("refuses what it cannot do, and says what to do", function()
    refused({ maintenance_mode = "loud" }, "there is no maintenance mode 'loud': it is confirm or silent")
    refused({ local_addresses = "maybe" }, "same-public, always or never")
    refused({ limits = { page_budget = 0 } }, "page_budget must be an integer from 1")
    refused({ keys = { "short" } }, "keys are secrets of 32 bytes each")
    refused({ listen = { "localhost:1" } }, "cannot listen on localhost:1: it is not a numeric address")
    local env = support.env(1)
    env.refuse_bind = true
    refused({ env = env }, "cannot listen: cannot bind 203.0.113.1:4433: Address already in use; is another server")
  end)
end)

describe("a role of one's own", function()
  it("declares its messages, gets the fields it wants, and answers", function()
    local s = support.server { roles = { "address" }, role_files = { greeter() } }
    assert.equal("hello ann", s:one(from, "greet", s:next_tx(), "ann").text)
    assert.equal("address_report", s:one(from, "address_request", s:next_tx()).name_of)
    s:close()
  end)

  it("has the server at hand: env, cookie, counters, boot, log, send", function()
    local seen
    local s = support.server { roles = { "matching" }, role_files = { greeter { on = function(server)
      seen = server
      return { greet = function(reply, at, to, tx)
        server.env.timer(10, function() server:send(at, "greeted", tx, "later " .. to) end)
        reply("greeted", tx, "now")
      end }
    end } } }
    for _, name in ipairs { "env", "cookie", "counters", "boot", "registry", "limits" } do assert.truthy(seen[name]) end
    assert.equal("now", s:one(from, "greet", s:next_tx(), "ann").text)
    assert.equal("later ann", s:advance(10)[1].text)
    s:close()
  end)

  it("may be a file", function()
    local path = os.tmpname()
    local function write(text)
      local f <close> = assert(io.open(path, "w"))
      f:write(text)
    end
    write [[
      return require("bodkin.servers.role").role { name = "silent", on = { maintain = function() end } }
    ]]
    local s = support.server { role_files = { path } }
    assert.same({ "silent" }, s.server:status().info.roles)
    s:close()
    for text, expect in pairs {
      ["return {}"] = "does not return a role", ["error('boom')"] = "boom", ["x"] = "syntax",
    } do
      write(text)
      local server, msg, code = servers.open(support.env(1), { role_files = { path } })
      assert.is_nil(server)
      assert.matches(expect, msg, 1, true)
      assert.equal("invalid", code)
    end
    os.remove(path)
  end)

  it("is checked where it is made", function()
    local function fails(def, expect)
      local ok, msg = pcall(role.role, def)
      assert.is_false(ok)
      assert.matches(expect, msg, 1, true)
    end
    fails(7, "takes a table")
    fails({ on = {} }, "needs a name")
    fails({ name = "My Role", on = {} }, "needs a name")
    fails({ name = "x" }, "needs on")
    fails({ name = "x", on = {}, messages = { { name = "m", type = 1, fields = {} } } }, "own are 64 to 127")
    local sting = { name = "m", type = 64, fields = { { "a", "sting" } } }
    fails({ name = "x", on = {}, messages = { sting } }, "message m: ")
  end)
end)
