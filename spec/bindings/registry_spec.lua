-- SPDX-License-Identifier: MIT
local core = require "bodkin.core"
local encode = core.wire.encode

local function id(n) return ("%016d"):format(n) end

describe("registry", function()
  local reg
  before_each(function() reg = core.registry { seed = ("s"):rep(16), max_entries = 100 } end)
  after_each(function() reg:close() end)

  local function entry(n, change)
    local e = { id = id(n), key = ("k"):rep(32), expires_us = 1000 * n, app = "chess/1", name = "n" .. n,
      props = encode { level = n % 3 }, addrs = "addrs" .. n }
    for k, v in pairs(change or {}) do e[k] = v end
    return e
  end

  local function refused(code, ...)
    local ok, text, got = ...
    assert.is_nil(ok)
    assert.equal("string", type(text))
    assert.equal(code, got)
  end

  it("puts, gets, replaces, removes", function()
    assert.is_true(reg:put(entry(1)))
    assert.same(entry(1), reg:get(id(1)))
    assert.is_nil(reg:get(id(2)))
    assert.is_true(reg:put(entry(1, { name = "other" })))
    assert.equal("other", reg:get(id(1)).name)
    assert.equal(1, reg:count())
    assert.is_true(reg:remove(id(1)))
    assert.is_false(reg:remove(id(1)))
    assert.equal(0, reg:count())
  end)

  it("takes entries without app, name, properties and addresses", function()
    assert.is_true(reg:put { id = id(1), key = ("k"):rep(32), expires_us = 5 })
    local e = reg:get(id(1))
    assert.same({ "", "", "" }, { e.app, e.name, e.addrs })
    assert.same({}, core.wire.decode(e.props))
  end)

  it("refuses what is out of bounds, and keeps what was there", function()
    reg:put(entry(1))
    refused("invalid", reg:put(entry(1, { props = encode { ("x"):rep(200) } })))
    refused("invalid", reg:put(entry(1, { props = encode { 1 } })))
    refused("invalid", reg:put(entry(1, { name = ("x"):rep(300) })))
    refused("invalid", reg:put(entry(1, { addrs = ("x"):rep(70000) })))
    assert.same(entry(1), reg:get(id(1)))
    for _, bad in ipairs { { id = "short" }, { key = "" }, { name = 5 }, { expires_us = "soon" },
      { expires_us = -1 } } do
      assert.has_error(function() reg:put(entry(1, bad)) end)
    end
    assert.has_error(function() reg:get "short" end)
  end)

  it("has a limit", function()
    for n = 1, 100 do assert.is_true(reg:put(entry(n))) end
    refused("limit", reg:put(entry(101)))
    assert.is_true(reg:put(entry(100)))
  end)

  it("is walked in pages: each entry once", function()
    for n = 1, 50 do reg:put(entry(n)) end
    local seen, after, rounds = {}, nil, 0
    while true do
      rounds = rounds + 1
      local e, last, rest = reg:after(after, nil, nil, 7)
      if e == nil then break end
      assert.is_table(e)
      assert.is_nil(seen[e.id])
      assert.equal(6, last)
      assert.is_nil(rest)
      seen[e.id], after = true, e.id
    end
    assert.equal(51, rounds)
  end)

  it("looks at no more than the budget, and says where to go on", function()
    for n = 1, 50 do reg:put(entry(n)) end
    local found, after, looks = 0, nil, 0
    local query = encode { level = 1 }
    while true do
      local e, a, b = reg:after(after, "chess/1", query, 3)
      looks = looks + 1
      if e == nil then
        assert.equal("integer", math.type(a))
        break
      elseif e then
        found, after = found + 1, e.id
        assert.is_true(a < 3)
        assert.same({ level = 1 }, core.wire.decode(e.props))
      else
        after = a
        assert.equal(16, #after)
        assert.equal(0, b)
      end
    end
    assert.equal(17, found)
    assert.is_true(looks >= 50 / 3)
    assert.is_nil(reg:after(nil, "other", nil, 1000))
    assert.same({ false, nil, 0 }, { reg:after(nil, nil, nil, 0) })
    assert.has_error(function() reg:after(nil, nil, "\xdd\x0f\xff\xff\xff", 10) end)
    assert.has_error(function() reg:after(nil, nil, nil, -1) end)
  end)

  it("expires by the time it is told", function()
    assert.is_nil(reg:deadline())
    for n = 3, 1, -1 do reg:put(entry(n)) end
    assert.equal(1000, reg:deadline())
    assert.is_nil(reg:expire(999))
    assert.equal(id(1), reg:expire(2000))
    assert.equal(id(2), reg:expire(2000))
    assert.is_nil(reg:expire(2000))
    assert.equal(1, reg:count())
  end)

  it("throws when closed, but for close and tostring", function()
    reg:close()
    reg:close()
    assert.equal("registry (closed)", tostring(reg))
    for _, method in ipairs { "put", "get", "remove", "count", "after", "expire", "deadline" } do
      assert.has_error(function() reg[method](reg, id(1)) end, "closed registry")
    end
    do
      local _ <close> = core.registry { seed = ("s"):rep(16) }
    end
    assert.has_error(function() core.registry {} end)
    assert.has_error(function() core.registry { seed = ("s"):rep(16), max_entries = 0 } end)
  end)
end)
