-- SPDX-License-Identifier: MIT
local core = require "bodkin.core"
local json = require "bodkin.json"

describe("json", function()
  it("is one line with the keys in order", function()
    assert.equal('{"event":"closed","peer":"p","reason":"left","x":1}',
      json.encode({ x = 1, reason = "left", peer = "p", event = "closed" }, { "event", "peer", "reason" }))
    assert.equal('{"data":"a\\nb"}', json.encode { data = "a\nb" })
  end)

  it("tells empty arrays from empty objects by their key", function()
    assert.equal('{"public":[]}', json.encode { public = {} })
    assert.equal('{"props":{}}', json.encode { props = {} })
  end)

  it("gives bytes that are no text in base64", function()
    for text, expected in pairs { ["\255"] = "/w==", ["\255\254"] = "//4=", ["\255\254\253"] = "//79" } do
      assert.equal(expected, json.base64(text))
    end
    assert.equal("", json.base64 "")
  end)

  it("keeps null and empty arrays apart for the wire", function()
    local value = assert(json.decode '{"a":null,"b":[],"c":{}}')
    assert.equal(core.wire.null, value.a)
    local again = assert(core.wire.decode(assert(core.wire.encode(value))))
    assert.equal(core.wire.null, again.a)
  end)

  it("says what is wrong", function()
    assert.is_nil((json.decode '{"a"'))
    assert.equal("more than one value", select(2, json.decode '{} 1'))
    for _, text in ipairs { '{"a" 1}', '{1:2}', '["a":1]', '[1,"a":2]', '[0,29:9]', '{"x":{"a":1,"b"}}', '{[1]:2}' } do
      local value, why = json.decode(text)
      assert.is_nil(value, text)
      assert.matches("pairs", why)
    end
    for _, depth in ipairs { 2000, 100000, 500000 } do
      assert.is_nil((json.decode(("["):rep(depth) .. ("]"):rep(depth))))
      assert.is_nil((json.decode(('{"a":'):rep(depth) .. "1" .. ("}"):rep(depth))))
    end
  end)
end)
