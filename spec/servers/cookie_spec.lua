-- SPDX-License-Identifier: MIT
local core = require "bodkin.core"
local cookies = require "bodkin.servers.cookie"

local a, b = core.addr.parse("198.51.100.7:40000"), core.addr.parse("198.51.100.7:40001")

describe("cookie", function()
  local now_s, cookie
  local function new(key)
    return cookies.new { key = key, random = core.crypto.random, time = function() return now_s end }
  end
  before_each(function()
    now_s = 1800000000
    cookie = new()
  end)

  it("proves one address and port, and no other", function()
    local proof = cookie:proof(a)
    assert.equal(20, #proof)
    assert.is_true(cookie:valid(proof, a))
    assert.is_false(cookie:valid(proof, b))
    assert.is_false(cookie:valid(nil, a))
    assert.is_false(cookie:valid(proof:sub(1, 19), a))
    for i = 1, 20 do
      local changed = proof:sub(1, i - 1) .. string.char(proof:byte(i) ~ 1) .. proof:sub(i + 1)
      assert.is_false(cookie:valid(changed, a))
    end
  end)

  it("holds in its epoch and the next, whichever way two clocks differ", function()
    local proof = cookie:proof(a)
    now_s = now_s + 600
    assert.is_true(cookie:valid(proof, a))
    now_s = now_s + 600
    assert.is_false(cookie:valid(proof, a))
    now_s = now_s - 1800
    assert.is_true(cookie:valid(proof, a))
    now_s = now_s - 600
    assert.is_false(cookie:valid(proof, a))
  end)

  it("is shared by servers with one key, and by no others", function()
    local key = core.crypto.random(32)
    assert.is_true(new(key):valid(new(key):proof(a), a))
    assert.is_false(new():valid(new():proof(a), a))
    assert.is_false(new(key):valid(new(core.crypto.random(32)):proof(a), a))
  end)

  it("opens a proven address", function()
    local addr, proven = cookie:open(a .. cookie:proof(a))
    assert.equal(a, addr)
    assert.is_true(proven)
    addr, proven = cookie:open(b .. cookie:proof(a))
    assert.equal(b, addr)
    assert.is_false(proven)
    addr, proven = cookie:open(b)
    assert.equal(b, addr)
    assert.is_nil(proven)
    for n = 0, 64 do
      if n ~= 6 and n ~= 18 and n ~= 26 and n ~= 38 then assert.is_nil(cookie:open(("x"):rep(n))) end
    end
  end)
end)
