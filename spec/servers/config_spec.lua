-- SPDX-License-Identifier: MIT
local config = require "bodkin.config"
local core = require "bodkin.core"

describe("config file", function()
  it("takes the flags' names with underscores; lists also as text with commas", function()
    local c = assert(config.check {
      listen = "0.0.0.0:4433, [::]:4433", listen_tcp = "0.0.0.0:443", roles = { "address", "matching" },
      maintenance_mode = "silent",
      expose_addresses = true, key_file = "key", admin = "/run/b.sock", limits = { room_members = 4 },
      local_addresses = "never", stun = false, role_files = { "a.lua" },
    })
    assert.is_true(config.is(c))
    assert.is_false(c.stun)
    assert.same({ "0.0.0.0:4433", "[::]:4433" }, c.listen)
    assert.same({ "0.0.0.0:443" }, c.listen_tcp)
    assert.equal(4, c.limits.room_members)
    assert.equal(32, c.limits.pending)
  end)

  it("takes the keys that sign tokens, one or two, as bytes", function()
    local one, two = ("\xff"):rep(32), ("k"):rep(32)
    local a, b = core.crypto.base64url(one), core.crypto.base64url(two)
    assert.same({ one }, assert(config.check { token_keys = a, require_token = true }).token_keys)
    assert.same({ one, two }, assert(config.check { token_keys = { a, b } }).token_keys)
    assert.is_true(config.check({ token_keys = { a }, require_token = true }).require_token)
    assert(config.check { require_token = false })
    for expect, data in pairs {
      ["config: token_keys: number 2 is no public key"] = { token_keys = { a, b:sub(2) } },
      ["config: token_keys: number 1 is no public key"] = { token_keys = core.crypto.hex(one) },
      ["config: token_keys: must be one key, or two"] = { token_keys = { a, b, a } },
      ["config: token_keys: must be a list"] = { token_keys = {} },
      ["config: token_keys: must be a string"] = { token_keys = { 1 } },
      ["config: require_token needs token_keys"] = { require_token = true },
      ["config: require_token: must be a boolean"] = { require_token = "yes", token_keys = a },
    } do
      local c, msg, code = config.check(data)
      assert.is_nil(c)
      assert.matches(expect, msg, 1, true)
      assert.equal("invalid", code)
    end
  end)

  it("says which field is wrong and what it may be", function()
    for expect, data in pairs {
      ["config: it must be a table"] = 7,
      ["config: there is no 'listn': it is one of admin, expose_addresses, key_file, limits, listen,"] = { listn = 1 },
      ["config: listen: localhost is not a numeric address and port"] = { listen = { "localhost" } },
      ["config: listen: must be a list"] = { listen = {} },
      ["config: listen_tcp: 443x is not a numeric address"] = { listen_tcp = { "443x" } },
      ["config: roles: must be one of address, maintenance, matching, relay, not relais"] = { roles = { "relais" } },
      ["config: relays: localhost is not a numeric address and port"] = { relays = { "localhost" } },
      ["config: maintenance_mode: must be one of confirm, silent, not loud"] = { maintenance_mode = "loud" },
      ["config: stun: must be a boolean, not a string"] = { stun = "off" },
      ["config: expose_addresses: must be a boolean, not a string"] = { expose_addresses = "yes" },
      ["config: limits: limits: there is no 'room'"] = { limits = { room = 1 } },
      ["config: limits: limits: room_members must be an integer from 1 to 32"] = { limits = { room_members = 99 } },
      ["config: there is no '1'"] = { "x" },
      ['config: queues: duel must be { policy = "FILE" }'] = { queues = { duel = {} } },
      ["config: queues: duel: there is no 'polcy': it is policy"] = { queues = { duel = { polcy = "a.lua" } } },
      ["config: queues: duel: there is no '1': it is policy"] = { queues = { duel = { "x", policy = "a.lua" } } },
      ["config: queues: duel has no props of its own: its policy declares them, bodkin.policy { props = … }"] = {
        queues = { duel = { policy = "a.lua", props = { n = "number" } } },
      },
      ["config: relays: 192.0.2.1:0 is no address and port that a client can send to"] = { relays = "192.0.2.1:0" },
      ["config: relays: 0.0.0.0:4434 is no address and port"] = { relays = { "192.0.2.1:4434", "0.0.0.0:4434" } },
      ["config: relays: [::]:4434 is no address and port"] = { relays = "[::]:4434" },
      ["config: relays: 224.0.0.1:4434 is no address and port"] = { relays = "224.0.0.1:4434" },
      ["config: relays: 255.255.255.255 is no address and port"] = { relays = "255.255.255.255" },
      ["config: relays: must be at most 2"] = { relays = "192.0.2.1, 192.0.2.2, 192.0.2.3" },
      ["config: there is no 'metrics'"] = { metrics = "0.0.0.0:9100" },
      ["config: admin: 0.0.0.0:9000 is a network address: the admin socket is a Unix socket, give its path"] = {
        admin = "0.0.0.0:9000",
      },
      ["config: admin: 127.0.0.1:9000 is a network address"] = { admin = "127.0.0.1:9000" },
      ["config: admin: localhost:9000 is a network address"] = { admin = "localhost:9000" },
      ["config: admin: [::]:9000 is a network address"] = { admin = "[::]:9000" },
      ["config: admin: 9000 is a network address"] = { admin = "9000" },
      ["config: admin: tcp://0.0.0.0:9000 is a network address"] = { admin = "tcp://0.0.0.0:9000" },
    } do
      local c, msg, code = config.check(data)
      assert.is_nil(c)
      assert.matches(expect, msg, 1, true)
      assert.equal("invalid", code)
    end
  end)

  it("is loaded from a file; an error names the file and line", function()
    local path = os.tmpname()
    local function load(text)
      local f <close> = assert(io.open(path, "w"))
      f:write(text)
      f:close()
      return config.load(path)
    end
    local c = assert(load("return require('bodkin.config').config { roles = 'matching' }"))
    assert.same({ "matching" }, c.roles)
    for text, expect in pairs {
      ["\nrequire('bodkin.config').config { roles = 7 }"] = ":2: config: roles: must be a list",
      ["return {"] = "cannot load the config file: ", ["return {}"] = "does not return a config",
      ["error('boom')"] = ":1: boom",
    } do
      local none, msg, code = load(text)
      assert.is_nil(none)
      assert.matches(expect, msg, 1, true)
      assert.matches(path, msg, 1, true)
      assert.equal("invalid", code)
    end
    os.remove(path)
    assert.matches("No such file", select(2, config.load(path)))
  end)
end)
