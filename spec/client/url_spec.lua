-- SPDX-License-Identifier: MIT

local crypto = require("bodkin.core").crypto
local url = require "bodkin.url"

describe("url", function()
  it("takes host and port", function()
    assert.same({ host = "example.org", port = 4433 }, url.parse("bodkin://example.org"))
    assert.same({ host = "10.0.0.1", port = 5000 }, url.parse("bodkin://10.0.0.1:5000"))
    assert.same({ host = "::1", port = 5000 }, url.parse("bodkin://[::1]:5000"))
    assert.same({ host = "2001:db8::1", port = 4433 }, url.parse("bodkin://[2001:db8::1]/"))
  end)

  it("prints what it parses", function()
    for _, text in ipairs { "bodkin://example.org:4433", "bodkin://[::1]:1", "bodkin://10.0.0.1:65535" } do
      local where = assert(url.parse(text))
      assert.equal(text, url.format(where.host, where.port))
    end
  end)

  local one, two = ("\xff"):rep(32), ("k"):rep(32)

  it("carries one key or two", function()
    local a, b = crypto.base64url(one), crypto.base64url(two)
    assert.same({ host = "h", port = 4433, keys = { one } }, url.parse("bodkin://h#" .. a))
    assert.same({ host = "::1", port = 5, keys = { one, two } }, url.parse(("bodkin://[::1]:5/#%s,%s"):format(a, b)))
    assert.equal("bodkin://h:4433#" .. a, url.format("h", nil, { one }))
    assert.equal(("bodkin://[::1]:5#%s,%s"):format(b, a), url.format("::1", 5, { two, one }))
    assert.equal("bodkin://h:1", url.format("h", 1, {}))
    assert.equal(one, url.parse(url.format("h", 1, { one })).keys[1])
  end)

  it("says where TCP is, unless that is 443", function()
    local key = crypto.base64url(one)
    assert.same({ host = "h", port = 4433, tcp = 8443 }, url.parse "bodkin://h?tcp=8443")
    assert.same({ host = "::1", port = 5, tcp = 1, keys = { one } }, url.parse("bodkin://[::1]:5?tcp=1#" .. key))
    assert.equal("bodkin://h:4433?tcp=8443#" .. key, url.format("h", nil, { one }, 8443))
    assert.equal("bodkin://h:4433", url.format("h", nil, nil, 443))
    assert.equal(2, #url.list("bodkin://a?tcp=8443#" .. key .. "," .. key .. ",bodkin://b"))
    for _, text in ipairs { "h?", "h?tcp", "h?tcp=", "h?tcp=0", "h?tcp=65536", "h?udp=1", "h?tcp=1&tcp=2", "?tcp=1",
      "h?tcp=8443/", "h?tcp=-1", "h?tcp=1.5" } do
      local where, err, code = url.parse("bodkin://" .. text)
      assert.is_nil(where, text)
      assert.is_string(err)
      assert.equal("invalid", code)
    end
  end)

  it("says which key is wrong, and why", function()
    local key = crypto.base64url(one)
    for text, expect in pairs {
      [""] = "its first key has 0 characters, not 43",
      [key:sub(2)] = "its first key has 42 characters, not 43",
      [key .. "A"] = "its first key has 44 characters, not 43",
      [key .. ","] = "its second key has 0 characters, not 43",
      [key .. "," .. key:sub(3)] = "its second key has 41 characters, not 43",
      [key:sub(1, 41) .. "+8"] = "its first key has a character at 42 that is none of base64url's",
      [key .. "," .. key:sub(1, 42) .. "9"] = "its second key ends in a character that no key ends in",
      [key .. "," .. key .. "," .. key] = "more than two keys",
      [key .. "#" .. key] = "its first key has 87 characters",
    } do
      local where, err, code = url.parse("bodkin://h#" .. text)
      assert.is_nil(where)
      assert.matches(expect, err, 1, true)
      assert.equal("invalid", code)
    end
  end)

  it("takes any STUN server for an address server, and for no other", function()
    assert.same({ host = "example.org", port = 3478, stun = true }, url.parse_address "stun:example.org")
    assert.same({ host = "::1", port = 5, stun = true }, url.parse_address "stun:[::1]:5")
    assert.same({ host = "h", port = 4433 }, url.parse_address "bodkin://h")
    assert.is_nil(url.parse "stun:example.org")
    for _, text in ipairs { "stun:", "stun://h", "stun:h:", "stun:h:0", "stun:h:x", "stun:h#k", "stun:::1" } do
      local where, err, code = url.parse_address(text)
      assert.is_nil(where, text)
      assert.equal("invalid", code)
      assert.matches("give it as ", err)
    end
  end)

  it("says what is wrong with others", function()
    for _, text in ipairs {
      "", "example.org", "http://example.org", "bodkin://", "bodkin://:4433", "bodkin://a:0", "bodkin://a:65536",
      "bodkin://a:", "bodkin://a:x", "bodkin://::1", "bodkin://[::1", "bodkin://a b", "bodkin://a/b", "bodkin://a#key",
      "bodkin://[::1]x", "bodkin://[::1]:",
    } do
      local where, err, code = url.parse(text)
      assert.is_nil(where, text)
      assert.equal("invalid", code)
      assert.matches("give it as bodkin://HOST", err)
    end
    assert.equal("invalid", select(3, url.parse(nil)))
  end)
end)
