-- SPDX-License-Identifier: MIT
local addr = require("bodkin.core").addr
local limits = require "bodkin.servers.limits"

local SECOND = 1000000

local function at(text) return assert(addr.parse(text, 4433)) end

-- How many of n requests may pass at that time; from: text, or fn(i) -> text.
local function pass(buckets, now_us, n, from, cost, known)
  local count, why = 0, nil
  for i = 1, n do
    local ok, bound = buckets:may(now_us, at(type(from) == "string" and from or from(i)), cost, known)
    if ok then count = count + 1 else why = bound end
  end
  return count, why
end

local function address(i) return ("10.%d.%d.%d"):format(i >> 16 & 255, i >> 8 & 255, i & 255) end

describe("limits.buckets", function()
  it("gives a source its burst at once, then its rate, and never more than the burst", function()
    local b = limits.buckets { rate = 5, burst = 20, sources = 100 }
    assert.same({ 20, "source" }, { pass(b, 0, 50, "192.0.2.1") })
    assert.equal(0, (pass(b, SECOND // 5 - 1, 50, "192.0.2.1")))
    assert.equal(1, (pass(b, SECOND // 5, 50, "192.0.2.1")))
    assert.equal(5, (pass(b, SECOND // 5 + SECOND, 50, "192.0.2.1")))
    assert.equal(20, (pass(b, 100 * SECOND, 50, "192.0.2.1")))
    assert.equal(20, (pass(b, 100 * SECOND, 50, "192.0.2.2")))
    -- Over a minute of asking all the time: the burst, and the rate times the time.
    local sum = 0
    for ms = 0, 60000, 10 do sum = sum + pass(b, 200 * SECOND + ms * 1000, 3, "192.0.2.3") end
    assert.equal(20 + 5 * 60, sum)
  end)

  it("charges what a request costs, and nothing for what is refused", function()
    local b = limits.buckets { rate = 1, burst = 10, sources = 100 }
    assert.equal(3, (pass(b, 0, 10, "192.0.2.1", 3)))
    assert.equal(1, (pass(b, 0, 10, "192.0.2.1", 1)))
    assert.equal(0, (pass(b, 0, 10, "192.0.2.1", 0.5)))
    assert.equal(0, (pass(b, 1000 * SECOND, 10, "192.0.2.1", 11)))
    assert.equal(10, (pass(b, 1000 * SECOND, 20, "192.0.2.1")))
  end)

  it("takes a /64 for one source, and an IPv4 address whatever its port", function()
    local b = limits.buckets { rate = 1, burst = 4, sources = 100 }
    assert.equal(4, (pass(b, 0, 100, function(i) return ("[2001:db8:1:2:%x::1]:%d"):format(i, i) end)))
    assert.equal(4, (pass(b, 0, 100, "[2001:db8:1:3::1]:9")))
    assert.equal(4, (pass(b, 0, 100, function(i) return "192.0.2.1:" .. i end)))
  end)

  it("bounds what all together get, and lets no stranger have the last quarter", function()
    local b = limits.buckets { rate = 100, burst = 100, sources = 1000, all_rate = 1000, all_burst = 400 }
    assert.same({ 300, "all" }, { pass(b, 0, 5000, address) })
    assert.same({ 100, "all" }, { pass(b, 0, 5000, address, 1, true) })
    -- A second of a flood from strangers, with known ones among them that ask for 200 a second.
    local strangers, known = 0, 0
    for ms = 1, 1000 do
      strangers = strangers + pass(b, ms * 1000, 20, function(i) return address(ms * 20 + i) end)
      if ms % 5 == 0 then known = known + pass(b, ms * 1000, 1, "192.0.2." .. ms // 5 % 200, 1, true) end
    end
    assert.is_true(strangers <= 750, strangers)
    assert.is_true(strangers >= 700, strangers)
    assert.equal(200, known)
  end)

  it("leaves strangers what the known do not use, and these all of it", function()
    local b = limits.buckets { rate = 1000, burst = 1000, sources = 1000, all_rate = 1000, all_burst = 400 }
    assert.equal(400, (pass(b, 0, 1000, address, 1, true)))
    assert.equal(0, (pass(b, 0, 1000, address)))
    assert.equal(100, (pass(b, 100000, 1000, address)))
    assert.equal(300, (pass(b, 400000, 1000, address, 1, true)))
  end)

  it("holds no more sources than told, and the bound in all holds when they are more", function()
    local b = limits.buckets { rate = 1, burst = 2, sources = 50 }
    pass(b, 0, 5000, address)
    local held = 0
    for _, map in ipairs { b.full_us.young, b.full_us.old } do
      for _ in pairs(map) do held = held + 1 end
    end
    assert.is_true(held >= 50 and held <= 100, held)
    b = limits.buckets { rate = 1, burst = 2, sources = 50, all_rate = 10, all_burst = 40 }
    local sum = 0
    for ms = 0, 10000 do sum = sum + pass(b, ms * 1000, 20, function(i) return address(ms * 20 + i) end) end
    assert.is_true(sum == 30 + 75 or sum == 30 + 74, sum) -- the last is due on the very end
  end)

  it("throws at what is no limit", function()
    for name, options in pairs { rate = { rate = 0, burst = 1, sources = 1 }, sources = { rate = 1, burst = 1 } } do
      assert.has_error(function() limits.buckets(options) end, name .. " must be a number above 0")
    end
  end)
end)
