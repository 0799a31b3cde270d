-- SPDX-License-Identifier: MIT
local core = require "bodkin.core"
local identity = require "bodkin.client.identity"
local keyfile = require "bodkin.keyfile"
local support = require "spec.client.support"
local token = require "bodkin.token"

local crypto = core.crypto

describe("identity", function()
  local dir, path
  before_each(function()
    dir = assert(io.popen("mktemp -d")):read("l")
    path = dir .. "/me"
  end)
  after_each(function() os.execute("rm -r " .. dir) end)

  local function random(n) return ("r"):rep(n) end

  local function refused(expect, options)
    local me, why, code = identity.load(options, random)
    assert.is_nil(me)
    assert.matches(expect, why, 1, true)
    assert.equal("invalid", code)
  end

  it("is of one run without an option, of a key where one is given", function()
    local me = assert(identity.load({}, random))
    assert.equal((crypto.keypair(("r"):rep(32))), me.key)
    assert.equal(("r"):rep(32), me.key_secret)
    assert.equal(crypto.id(me.key), me.id)
    assert.equal((crypto.keypair(("k"):rep(32))), identity.load({ identity_key = ("k"):rep(32) }, random).key)
    refused("a secret of 32 bytes", { identity_key = "k" })
    refused("not both", { identity_key = ("k"):rep(32), identity = path })
    refused("the name of a file", { identity = true })
  end)

  it("is made in a file at the first use, and the same at the next", function()
    local first, made = assert(identity.load({ identity = path }, crypto.random))
    assert.is_true(made)
    assert.equal("600", io.popen("stat -c %a " .. path):read("l"))
    local second, made_again = assert(identity.load({ identity = path }, crypto.random))
    assert.same(first, second)
    assert.is_falsy(made_again)
    assert.equal(first.key, keyfile.server(path).publics[1])
  end)

  it("is never made in place of a file that is not right", function()
    local file = assert(io.open(path, "w"))
    file:write("mine"):close()
    refused("chmod 600 " .. path, { identity = path })
    os.execute("chmod 600 " .. path)
    refused("line 1 is neither", { identity = path })
    refused("Not a directory", { identity = path .. "/below" })
    assert.equal("mine", io.open(path):read("a"))
  end)

  it("stays a node's over its runs", function()
    local s = support.new()
    local host = s:host("a", "203.0.113.5")
    local first = s:open(host, { identity = path })
    local id = first.id
    s:run(function() first:close() end)
    assert.equal(id, s:open(host, { identity = path }).id)
    -- Also where it was cut off, and the server has its registration still.
    local other = s:host("b", "203.0.113.6")
    local cut = s:open(other, { identity_key = ("k"):rep(32) })
    s.nodes[#s.nodes] = nil
    other:kill()
    assert.equal(cut.id, s:open(s:host("c", "203.0.113.7"), { identity_key = ("k"):rep(32) }).id)
    local none, why, code = s:try(host, { identity_key = "short" })
    assert.is_nil(none)
    assert.matches("32 bytes", why, 1, true)
    assert.matches("token_text holds no token", select(2, s:try(host, { token_text = "x" })), 1, true)
    assert.equal("invalid", code)
    s:close()
  end)

  it("shows a token of a file or a text, and says where there is none", function()
    local _, seed = crypto.sign_keypair()
    local text = assert(token.issue(seed, { exp = 1 }))
    assert.same({ n = 1 }, table.pack(identity.token {}))
    assert.equal(token.bytes(text), identity.token { token_text = text })
    assert(core.file.write(path, text .. "\n"))
    assert.equal(token.bytes(text), identity.token { token = path })
    local function none(expect, options)
      local bytes, why, code = identity.token(options)
      assert.is_nil(bytes)
      assert.matches(expect, why, 1, true)
      assert.equal("invalid", code)
      assert.is_nil(why:find(text:sub(1, 20), 1, true))
    end
    none("not both", { token = path, token_text = text })
    none("token_text holds no token", { token_text = text .. "=" })
    none("token is the name of a file", { token = 7 })
    none("No such file", { token = dir .. "/none" })
    os.execute("chmod 644 " .. path)
    none("chmod 600 " .. path, { token = path })
    assert(core.file.write(path, "not one", true))
    none(path .. " holds no token", { token = path })
  end)
end)
