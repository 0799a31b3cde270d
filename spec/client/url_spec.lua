-- SPDX-License-Identifier: MIT

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
