-- SPDX-License-Identifier: MIT
-- The man in the middle: that each deed is done, to what it is meant for, and all of it again by the same seed.
local attackers = require "bodkin.sim.attacker"
local core = require "bodkin.core"
local nets = require "bodkin.sim.net"
local random = require "bodkin.sim.random"

local function at(text) return assert(core.addr.parse(text)) end

local A, B, C = at "192.0.2.1:1000", at "192.0.2.2:2000", at "192.0.2.3:3000"

local function sent(i, first) return ("%s%d abcdefghijklmn %d."):format(first or "", i % 2, i) end

-- What becomes of n datagrams of two flows, all of which he does this deed to: list of { ms, src, dst, bytes }.
local function done(deed, n, first, seed)
  local attacker = attackers.new { random = random.new(seed or 1, "x"), deeds = { deed } }
  local out = {}
  for i = 1, n do
    local src, dst = i % 2 == 0 and A or C, B
    attacker:see(1, src, dst, sent(i, first), function(...) out[#out + 1] = { ... } end)
  end
  return out
end

-- Of what comes: how many are whole, how many not, and how many of those whole come where they did not go.
local function counted(list, n, first)
  local whole, other, astray, src_of = 0, 0, 0, {}
  for i = 1, n do src_of[sent(i, first)] = i % 2 == 0 and A or C end
  for _, d in ipairs(list) do
    if not src_of[d[4]] then other = other + 1
    else
      whole = whole + 1
      if src_of[d[4]] ~= d[2] or d[3] ~= B then astray = astray + 1 end
    end
  end
  return whole, other, astray
end

describe("the man in the middle", function()
  it("forwards when he does nothing", function()
    local attacker = attackers.new { random = random.new(1, "x") }
    local out
    for _ = 1, 100 do
      attacker:see(0, A, B, "x", function(...) out = { ... } end)
      assert.same({ 0, A, B, "x" }, out)
    end
  end)

  it("changes bytes, and not always keeps the original back", function()
    for _, deed in ipairs { "flip", "truncate", "extend", "splice" } do
      local whole, other = counted(done(deed, 200), 200)
      assert(whole > 60 and whole < 150 and other > 150, ("%s: %d %d"):format(deed, whole, other))
    end
    for _, deed in ipairs { "index", "head" } do
      local whole, other = counted(done(deed, 200, "\xc1"), 200, "\xc1")
      assert(other > 90 and whole > 60, ("%s: %d %d"):format(deed, whole, other))
      assert.equal(200, (counted(done(deed, 200), 200))) -- what is no frame goes on
    end
  end)

  it("repeats, soon and long after, delays, sends back, exchanges and drops", function()
    local list = done("replay", 200)
    local whole, other, astray = counted(list, 200)
    assert(whole > 500 and other == 0 and astray > 50, ("%d %d %d"):format(whole, other, astray))
    local long = 0
    for _, d in ipairs(list) do long = long + (d[1] > 5000 and 1 or 0) end
    assert(long > 50, long)
    assert(counted(done("duplicate", 200), 200) > 500)
    whole, other, astray = counted(done("reflect", 200), 200)
    assert(whole > 250 and other == 0 and astray == 200)
    whole, other, astray = counted(done("swap", 200), 200)
    assert(whole > 370 and other == 0 and astray > 300, ("%d %d"):format(whole, astray))
    assert.equal(0, #done("drop", 200))
    for _, d in ipairs(done("reorder", 200)) do assert(d[1] > 0) end
    assert.equal(200, #done("elsewhere", 200)) -- no probes
    whole, other, astray = counted(done("elsewhere", 200, "\x98"), 200, "\x98")
    assert(whole == 400 and other == 0 and astray > 150, ("%d %d"):format(whole, astray))
    assert(#done("mute", 200) == 0)
  end)

  it("does the same by the same seed, and refuses a deed there is not", function()
    assert.same(done("splice", 50), done("splice", 50))
    assert.not_same(done("splice", 50), done("splice", 50, nil, 2))
    assert.has_error(function() attackers.new { random = random.new(1, "x"), deeds = { "bribe" } } end)
  end)

  it("sits on the links of a network that he is put on", function()
    local loop = core.loop { virtual = true, now_us = 1 }
    local names, heard = {}, { B = 0, C = 0, A = 0 }
    local net = nets.new { loop = loop, seed = 1, delay_ms = 1, attack_deeds = { "reflect" },
      attack = { A = { B = 1 }, default = 0 }, on_deed = function(name) names[name] = (names[name] or 0) + 1 end }
    local socks = {}
    for name, address in pairs { A = A, B = B, C = C } do
      local host = net:host(name, { address:sub(1, -3) .. "\0\0" })
      socks[name] = assert(net:bind(host, address, function() heard[name] = heard[name] + 1 end))
    end
    for _ = 1, 100 do
      socks.A:send(B, "one")
      socks.A:send(C, "two")
      socks.B:send(A, "three")
    end
    loop:advance(10000000)
    assert.same({ reflect = 100 }, names)
    assert.equal(100, heard.C)
    assert.equal(200, heard.A) -- from B, and its own
    assert(heard.B > 30 and heard.B < 70)
  end)
end)
