-- SPDX-License-Identifier: MIT
local core = require "bodkin.core"
local addr = core.addr

describe("addr", function()
  it("parses and prints both families", function()
    for _, text in ipairs { "1.2.3.4:5", "[::1]:5", "[2001:db8::1]:65535", "0.0.0.0:0" } do
      local a = assert(addr.parse(text))
      assert.equal(text, addr.format(a))
      assert.equal(text:sub(1, 1) == "[" and 18 or 6, #a)
      assert.equal(#a == 6 and 4 or 6, addr.family(a))
    end
  end)

  it("takes a default port, and none above 65535", function()
    assert.equal("1.2.3.4:4433", addr.format(addr.parse("1.2.3.4", 4433)))
    assert.equal("1.2.3.4:7", addr.format(addr.parse("1.2.3.4:7", 4433)))
    assert.has_error(function() addr.parse("1.2.3.4", 65536) end)
  end)

  it("is canonical: an IPv4-mapped address is IPv4", function()
    assert.equal(addr.parse "1.2.3.4:5", addr.parse "[::ffff:1.2.3.4]:5")
  end)

  it("says what it could not parse, with nothing in it that moves a cursor", function()
    for _, text in ipairs { "", "example.org", "1.2.3", "1.2.3.4:x", "\27[2J", ("x"):rep(100000), "1.2.3.4\0" } do
      local a, message, code = addr.parse(text)
      assert.is_nil(a)
      assert.equal("invalid", code)
      assert.is_nil(message:find "%c")
    end
  end)

  it("knows classes", function()
    local classes = { ["0.0.0.0:1"] = "none", ["127.0.0.1:1"] = "loopback", ["169.254.0.1:1"] = "link_local",
      ["10.0.0.1:1"] = "private", ["100.64.0.1:1"] = "shared", ["224.0.0.1:1"] = "multicast", ["8.8.8.8:1"] = "public",
      ["[::1]:1"] = "loopback", ["[fe80::1]:1"] = "link_local", ["[fd00::1]:1"] = "private" }
    for text, class in pairs(classes) do assert.equal(class, addr.class(addr.parse(text)), text) end
  end)

  it("compares IPs and changes ports", function()
    local a = addr.parse "1.2.3.4:5"
    assert.is_true(addr.same_ip(a, addr.parse "1.2.3.4:6"))
    assert.is_false(addr.same_ip(a, addr.parse "1.2.3.5:5"))
    assert.equal(5, addr.port(a))
    assert.equal("1.2.3.4:6", addr.format(addr.with_port(a, 6)))
    assert.has_error(function() addr.with_port(a, -1) end)
  end)

  it("masks with a transaction id, and back", function()
    for _, text in ipairs { "1.2.3.4:5", "[2001:db8::1]:5", "[::ffff:0:0]:1" } do
      local a, tx = addr.parse(text), ("t"):rep(12)
      local masked = addr.mask(a, tx)
      assert.equal(#a, #masked)
      assert.not_equal(a, masked)
      assert.equal(a, addr.mask(masked, tx))
    end
    assert.has_error(function() addr.mask("12345", ("t"):rep(12)) end)
    assert.has_error(function() addr.mask("123456", "t") end)
  end)

  it("throws on what is no packed address", function()
    for _, f in ipairs { "format", "class", "port", "family" } do
      assert.has_error(function() addr[f] "1.2.3.4:5" end)
      assert.has_error(function() addr[f](nil) end)
    end
  end)
end)
