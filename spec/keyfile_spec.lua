-- SPDX-License-Identifier: MIT
local core = require "bodkin.core"
local keyfile = require "bodkin.keyfile"

local crypto, file = core.crypto, core.file

describe("key file", function()
  local dir, path
  local a, b, c = ("a"):rep(32), ("b"):rep(32), ("c"):rep(32)
  before_each(function()
    dir = assert(io.popen("mktemp -d")):read("l")
    path = dir .. "/key"
  end)
  after_each(function() os.execute("rm -r " .. dir) end)

  local function write(text) assert(file.write(path, text, true)) end

  it("holds one key or two, in hex, with comments; or 32 raw bytes", function()
    for text, secrets in pairs {
      [crypto.hex(a)] = { a }, [crypto.hex(a) .. "\n"] = { a }, [a] = { a },
      ["\n " .. crypto.hex(a) .. " \r\n\n"] = { a },
      ["# mine\n" .. crypto.hex(a) .. "\n# old\n" .. crypto.hex(b):upper() .. " # of May\n"] = { a, b },
    } do
      write(text)
      local keys = assert(keyfile.server(path))
      assert.same(secrets, keys.secrets)
      assert.equal(#secrets, #keys.publics)
      for i, secret in ipairs(secrets) do assert.equal((crypto.keypair(secret)), keys.publics[i]) end
    end
  end)

  it("says what is wrong with another, and never what stands in it", function()
    local hex = crypto.hex(crypto.random(32))
    for text, expect in pairs {
      [""] = "no key stands in it", ["# none\n"] = "no key stands in it", [hex:sub(2)] = "line 1 is neither",
      [hex .. "0"] = "line 1 is neither", [hex .. "\nx" .. hex:sub(2)] = "line 2 is neither",
      [hex .. "\n" .. hex] = "both of its keys are the same", [hex .. " " .. hex] = "line 1 is neither",
      [table.concat({ hex, crypto.hex(a), crypto.hex(b) }, "\n")] = "more than two keys",
      [("\0"):rep(33)] = "line 1 is neither",
    } do
      write(text)
      local keys, msg, code = keyfile.server(path)
      assert.is_nil(keys)
      assert.matches(expect, msg, 1, true)
      assert.matches(path, msg, 1, true)
      assert.is_nil(msg:find(hex:sub(8, 40), 1, true))
      assert.equal("invalid", code)
    end
    os.remove(path)
    local _, msg, code, word = keyfile.server(path)
    assert.matches("No such file", msg, 1, true)
    assert.same({ "invalid", "absent" }, { code, word })
  end)

  it("is refused where others may read or write it, with the way out", function()
    write(crypto.hex(a))
    for _, mode in ipairs { "640", "604", "620", "602", "610" } do
      assert(os.execute(("chmod %s %s"):format(mode, path)))
      local keys, msg, code = keyfile.server(path)
      assert.is_nil(keys)
      assert.matches("chmod 600 " .. path, msg, 1, true)
      assert.equal("invalid", code)
    end
    assert(os.execute("chmod 400 " .. path))
    assert(keyfile.server(path))
  end)

  it("is made once, and never over another", function()
    local keys = assert(keyfile.make(path))
    assert.same(keys.publics, keyfile.server(path).publics)
    local none, msg, code = keyfile.make(path)
    assert.is_nil(none)
    assert.matches("is there already", msg, 1, true)
    assert.equal("invalid", code)
    assert.same(keys.publics, keyfile.server(path).publics)
    assert.matches("cannot write the key file", select(2, keyfile.make(dir .. "/no/such")), 1, true)
  end)

  it("rotates: the new key comes first, the former first second, comments stay", function()
    write("# ours\n" .. crypto.hex(a) .. "\n" .. crypto.hex(b) .. "\n")
    local keys = assert(keyfile.rotate(path, { random = function() return c end }))
    assert.same({ c, a }, keys.secrets)
    local again = assert(keyfile.server(path))
    assert.same({ c, a }, again.secrets)
    assert.same(keys.publics, again.publics)
    assert.equal("# ours\n", again.comments)
    assert.equal("600", io.popen("stat -c %a " .. path):read("l"))
    write(a) -- the raw form becomes the other
    assert(keyfile.rotate(path))
    assert.equal(a, keyfile.server(path).secrets[2])
    assert.matches("No such file", select(2, keyfile.rotate(dir .. "/none")), 1, true)
  end)

  it("of a token key says so, and serves nothing else", function()
    local keys = assert(keyfile.make(path, { kind = "token" }))
    assert.equal((crypto.sign_keypair(keys.secrets[1])), keys.publics[1])
    assert.same(keys.publics, keyfile.read(path).publics)
    assert.matches("holds a key that signs tokens", select(2, keyfile.server(path)), 1, true)
    assert.matches("holds a key that signs tokens", select(2, keyfile.identity(path)), 1, true)
    assert(keyfile.rotate(path))
    assert.equal("token", keyfile.read(path).kind)
    assert.equal(keys.secrets[1], keyfile.read(path).secrets[2])
  end)

  it("of an identity has one key", function()
    write(crypto.hex(a))
    assert.equal(a, keyfile.identity(path))
    write(crypto.hex(a) .. "\n" .. crypto.hex(b))
    assert.matches("has two keys", select(2, keyfile.identity(path)), 1, true)
  end)

  it("is made at the first need with its directory, and found at the next", function()
    local at = dir .. "/x/y/key"
    local keys, made = assert(keyfile.ensure(at, keyfile.server, {}))
    assert.is_true(made)
    local again, made_again = assert(keyfile.ensure(at, keyfile.server, {}))
    assert.same(keys.secrets, again.secrets)
    assert.is_falsy(made_again)
    local none, _, _, word = keyfile.ensure(at .. "/below/it", keyfile.server, {})
    assert.is_nil(none)
    assert.equal("unwritable", word)
    assert(os.execute("chmod 644 " .. at))
    assert.matches("chmod 600", select(2, keyfile.ensure(at, keyfile.server, {})), 1, true)
  end)

  it("that another makes in the same moment is the one that is taken", function()
    local reads = 0
    local files = {
      read = function(...)
        reads = reads + 1
        if reads == 1 then
          local word = table.pack(file.read(...))
          write(crypto.hex(a))
          return table.unpack(word, 1, word.n)
        end
        return file.read(...)
      end, write = file.write, make_parents = file.make_parents,
    }
    local keys, made = assert(keyfile.ensure(path, keyfile.server, { files = files }))
    assert.same({ a }, keys.secrets)
    assert.is_false(made)
  end)

  it("that cannot be written is told apart", function()
    local files = {
      read = file.read, make_parents = file.make_parents,
      write = function() return nil, "Read-only file system", "invalid" end,
    }
    assert.equal("unwritable", select(4, keyfile.ensure(path, keyfile.server, { files = files })))
    files.make_parents = files.write
    assert.equal("unwritable", select(4, keyfile.ensure(path, keyfile.server, { files = files })))
  end)
end)
