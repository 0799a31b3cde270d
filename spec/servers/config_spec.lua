-- SPDX-License-Identifier: MIT
local config = require "bodkin.config"

describe("config file", function()
  it("takes the flags' names with underscores; lists also as text with commas", function()
    local c = assert(config.check {
      listen = "0.0.0.0:4433, [::]:4433", roles = { "address", "matching" }, maintenance_mode = "silent",
      expose_addresses = true, key_file = "key", admin = "/run/b.sock", limits = { room_members = 4 },
      local_addresses = "never", role_files = { "a.lua" },
    })
    assert.is_true(config.is(c))
    assert.same({ "0.0.0.0:4433", "[::]:4433" }, c.listen)
    assert.equal(4, c.limits.room_members)
    assert.equal(32, c.limits.pending)
  end)

  it("says which field is wrong and what it may be", function()
    for expect, data in pairs {
      ["config: it must be a table"] = 7,
      ["config: there is no 'listn': it is one of admin, expose_addresses, key_file, limits, listen,"] = { listn = 1 },
      ["config: listen: localhost is not a numeric address and port"] = { listen = { "localhost" } },
      ["config: listen: must be a list"] = { listen = {} },
      ["config: roles: must be one of address, maintenance, matching, not relay"] = { roles = { "relay" } },
      ["config: maintenance_mode: must be one of confirm, silent, not loud"] = { maintenance_mode = "loud" },
      ["config: expose_addresses: must be a boolean, not a string"] = { expose_addresses = "yes" },
      ["config: limits: limits: there is no 'room'"] = { limits = { room = 1 } },
      ["config: limits: limits: room_members must be an integer from 1 to 32"] = { limits = { room_members = 99 } },
      ["config: there is no '1'"] = { "x" },
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
