-- SPDX-License-Identifier: MIT
local core = require "bodkin.core"
local keyfile = require "bodkin.keyfile"
local token = require "bodkin.token"

local crypto, wire = core.crypto, core.wire

describe("token", function()
  local now = 1800000000
  local public, seed = crypto.sign_keypair(("s"):rep(32))
  local id = ("\xab"):rep(16)

  local function signed(packed, by) return packed .. crypto.sign(by or seed, "bodkin token 1\0" .. packed) end

  local function open(bytes, publics, at, who, app)
    local claims, why, code = token.open(bytes, publics or { public }, at or now, who, app)
    if claims then return claims end
    assert.equal("refused", code)
    assert.is_true(#why <= 40, why) -- what a refusal has room for
    return nil, why
  end

  local function issued(claims)
    return assert(token.bytes(assert(token.issue(seed, claims))))
  end

  it("says what was signed", function()
    local claims = { exp = now + 1, nbf = now, sub = "ann", mmr = 1500, tags = { "a", "b" }, ratio = 0.5 }
    assert.same(claims, open(issued(claims)))
  end)

  it("is claims, then a signature over the name of the format and the claims, as text", function()
    local packed = assert(wire.encode { exp = now + 1 })
    assert.equal(crypto.base64url(signed(packed)), token.issue(seed, { exp = now + 1 }))
  end)

  it("is what docs/PROTOCOL.md shows", function()
    local file <close> = assert(io.open "docs/PROTOCOL.md")
    local doc = file:read "a"
    local counted = {}
    for i = 0, 31 do counted[#counted + 1] = string.char(i) end
    local of_doc, key = crypto.sign_keypair(table.concat(counted))
    local text = assert(token.issue(key, { exp = 2000000000, sub = "ann" }))
    assert.truthy(doc:find("`" .. text .. "`", 1, true))
    assert.truthy(doc:find("`" .. crypto.base64url(of_doc) .. "`", 1, true))
    local hex = doc:match "\n    (82 a3 657870.-)\n\nand as text":gsub("   +%l+, sub", ""):gsub("   +signature", "")
    assert.equal(token.bytes(text), crypto.unhex((hex:gsub("%s", ""))))
    assert.same({ exp = 2000000000, sub = "ann" }, open(token.bytes(text), { of_doc }))
  end)

  it("holds from nbf until before exp", function()
    local bytes = issued { exp = now + 10, nbf = now }
    assert.is_table(open(bytes, nil, now + 9))
    assert.equal("the token has expired", select(2, open(bytes, nil, now + 10)))
    assert.equal("the token is not valid yet", select(2, open(bytes, nil, now - 1)))
  end)

  it("may be one client's, and one application's", function()
    local bytes = issued { exp = now + 1, id = crypto.hex(id), app = "pong/1" }
    assert.is_table(open(bytes, nil, now, id, "pong/1"))
    assert.equal("the token is another client's", select(2, open(bytes, nil, now, ("\xaa"):rep(16), "pong/1")))
    assert.equal("the token is another client's", select(2, open(bytes, nil, now, nil, "pong/1")))
    assert.equal("the token is for another app", select(2, open(bytes, nil, now, id, "pong/2")))
    assert.equal("the token is for another app", select(2, open(bytes, nil, now, id)))
  end)

  it("counts with either of two keys, and no other", function()
    local bytes = issued { exp = now + 1 }
    local other = crypto.sign_keypair()
    assert.is_table(open(bytes, { other, public }))
    assert.is_table(open(bytes, { public, other }))
    assert.equal("no key known here signed the token", select(2, open(bytes, { other })))
    assert.equal("no key known here signed the token", select(2, open(bytes, {})))
  end)

  it("is nothing once a bit of it changed", function()
    local bytes = issued { exp = now + 1, sub = "ann" }
    for i = 1, #bytes do
      for bit = 0, 7 do
        assert.is_nil((open(bytes:sub(1, i - 1) .. string.char(bytes:byte(i) ~ 1 << bit) .. bytes:sub(i + 1))))
      end
    end
    for i = 0, #bytes - 1 do assert.is_nil((open(bytes:sub(1, i)))) end
    assert.is_nil((open(bytes .. "\0")))
    -- Signed for something else than a token.
    local packed = assert(wire.encode { exp = now + 1 })
    assert.is_nil((open(packed .. crypto.sign(seed, packed))))
  end)

  it("with a good signature over bad claims is refused, too", function()
    for packed, why in pairs {
      ["\x80"] = "exp missing", ["\x90"] = "array", ["\x91\x01"] = "array of numbers", ["\xa3exp"] = "text",
      ["\xc0"] = "nil", ["\x81\xa3exp\xc0"] = "exp nil", ["\x81\xa3exp"] = "short",
      ["\x81\xa3exp\xcb\x41\xda\xd2\x74\x80\x00\x00\x00"] = "exp a float", ["\x81\xa3exp\xd0\xff"] = "exp negative",
      ["\x81\xa3exp\xcf\xff\xff\xff\xff\xff\xff\xff\xff"] = "exp huge",
      ["\x82\xa3exp\xce\x7f\xff\xff\xff\xa3exp\xce\x7f\xff\xff\xff"] = "exp twice",
      ["\x82\xa3exp\xce\x7f\xff\xff\xff\x01\x02"] = "a key that is no text",
      ["\x82\xa3exp\xce\x7f\xff\xff\xff\xa3nbf\xa1x"] = "nbf a text",
      ["\x82\xa3exp\xce\x7f\xff\xff\xff\xa2id\xa1x"] = "id too short",
      ["\x82\xa3exp\xce\x7f\xff\xff\xff\xa3sub\x01"] = "sub a number",
      ["\x82\xa3exp\xce\x7f\xff\xff\xff\xa3app\xa0"] = "app empty",
      ["\x81\xa3exp\xce\x7f\xff\xff\xff\x00"] = "more behind it",
    } do
      assert.is_nil((open(signed(packed))), why)
    end
  end)

  it("has at most 512 bytes", function()
    local fits = 512 - 64 - #assert(wire.encode { exp = now + 1, x = ("x"):rep(256) }) + 256
    assert.is_table(open(issued { exp = now + 1, x = ("x"):rep(fits) }))
    local text, why, code = token.issue(seed, { exp = now + 1, x = ("x"):rep(fits + 1) })
    assert.is_nil(text)
    assert.matches("have 449 bytes and may have 448", why, 1, true)
    assert.equal("limit", code)
    local packed = assert(wire.encode { exp = now + 1, x = ("x"):rep(fits + 1) })
    assert.equal("that is no token", select(2, open(signed(packed))))
    assert.is_nil(token.bytes(crypto.base64url(signed(packed))))
  end)

  it("is not issued with claims that nobody would take", function()
    for expect, claims in pairs {
      ["exp is missing"] = {}, ["exp is not whole seconds"] = { exp = 1.5 },
      ["sub is not a text"] = { exp = 1, sub = 1 },
      ["id is not 32 hexadecimal digits"] = { exp = 1, id = id }, ["the claims are no map"] = { exp = 1, [1] = 1 },
      ["app is not 1 to 64 bytes"] = { exp = 1, app = ("a"):rep(65) }, ["only nil, booleans"] = { exp = 1, f = print },
    } do
      local text, why, code = token.issue(seed, claims)
      assert.is_nil(text)
      assert.matches(expect, why, 1, true)
      assert.equal("invalid", code)
    end
  end)

  it("as text may have white space around it, and nothing else", function()
    local text = assert(token.issue(seed, { exp = now + 1 }))
    assert.equal(token.bytes(text), token.bytes("\n " .. text .. "\r\n"))
    for _, bad in ipairs { "", " ", text .. "=", text .. " " .. text, "!" .. text, text:sub(1, 80), ("A"):rep(1025) } do
      assert.is_nil(token.bytes(bad))
    end
  end)

  it("is issued by twenty lines of Python", function()
    local lines = 0
    for line in io.lines "examples/issue_token.py" do
      if line:find "%S" and not line:find "^#" then lines = lines + 1 end
    end
    assert.is_true(lines <= 20)
    local path = os.tmpname()
    os.remove(path)
    local keys = assert(keyfile.make(path, { kind = "token" }))
    assert(keyfile.rotate(path)) -- the first of two is the one that signs
    local pipe = assert(io.popen(("/usr/bin/python3 -B examples/issue_token.py %s ann"):format(path)))
    local bytes = assert(token.bytes(pipe:read "a"))
    assert.is_true(pipe:close())
    local signer = { keyfile.read(path).publics[1] }
    os.remove(path)
    local claims = assert(token.open(bytes, signer, os.time()))
    assert.equal("ann", claims.sub)
    assert.equal(1500, claims.mmr)
    assert.equal("refused", select(3, token.open(bytes, keys.publics, os.time())))
    assert.equal("the token has expired", select(2, token.open(bytes, signer, os.time() + 3600)))
  end)
end)
