-- SPDX-License-Identifier: MIT
-- What policies may know of the network between tickets: rtt_ms, reach, best_host; and the classes of NATs.
local core = require "bodkin.core"
local instances = require "bodkin.policy.instance"
local kinds = require "bodkin.sim.nat"
local network = require "bodkin.policy.network"
local random = require "bodkin.sim.random"
local sources = require "bodkin.policy.source"
local theory = require "bodkin.sim.theory"

local wire = core.wire
local NOTHING = "\x95\xc0\xc0\xc0\xc0\xc0"

-- Runs `text`, the body of a function of the tickets by number, in a sandbox with the helpers; what it returned, or nil
-- and why. where: number -> { x, y, z, height, class } of each of its members.
local function asked(where, text, network_table)
  local sandbox <close> = core.sandbox { memory = 8 << 20, instructions = 1000000 }
  sandbox:net_table(network_table or network.default)
  for no, members in pairs(where) do
    for i, m in ipairs(members) do
      assert.is_true(sandbox:net_set(no, i, network.pack(m[1] and m, m[5]) or NOTHING))
    end
  end
  local ok, err = sandbox:load("local net = require 'bodkin.net'\nlocal function t(no) return { id = no } end\n"
    .. "return { f = function()\n" .. text .. "\nend }", "@policy.lua")
  if not ok then return nil, err end
  local results = table.pack(sandbox:call "f")
  if results[1] == nil then return nil, results[2] end
  for i = 1, results.n do results[i] = wire.decode(results[i]) end
  return table.unpack(results, 1, results.n)
end

local here = { 0, 0, 0, 5, 3 }
local function at(x, class) return { x, 0, 0, 5, class or 3 } end

describe("what a policy knows of the network", function()
  it("rtt_ms: the way between two points and up and down both heights", function()
    assert.equal(40, asked({ [1] = { here }, [2] = { { 18, 24, 0, 5, 3 } } }, "return net.rtt_ms(t(1), t(2))"))
    assert.equal(40, asked({ [1] = { here }, [2] = { { 18, 24, 0, 5, 3 } } }, "return net.rtt_ms(2, t(1))"))
    assert.equal(0, asked({ [1] = { here } }, "return net.rtt_ms(1, 1)"))
  end)

  it("rtt_ms: nil where a place is not known, and for who is not there", function()
    assert.equal(wire.null, asked({ [1] = { here }, [2] = { { nil, nil, nil, nil, 3 } } }, "return net.rtt_ms(1, 2)"))
    assert.equal(wire.null, asked({ [1] = { here } }, "return net.rtt_ms(1, 7)"))
    assert.equal(wire.null, asked({}, "return net.rtt_ms(1, 7)"))
  end)

  it("of parties it is the worst between their members", function()
    local where = { [1] = { here, at(10) }, [2] = { at(20), at(30, 9) } }
    local ms, reach = asked(where, "return net.rtt_ms(1, 2), net.reach(1, 2)")
    assert.equal(40, ms)
    assert.is_true(reach < 0.1) -- a port-restricted one and a symmetric one
    where[1][2] = { nil, nil, nil, nil, 3 }
    assert.equal(wire.null, asked(where, "return net.rtt_ms(1, 2)"))
  end)

  it("reach: by the classes of both, the average where one is not known", function()
    local where = { [1] = { at(0, 9) }, [2] = { at(0, 1) }, [3] = { at(0, 0) } }
    local open, none, unknown, nobody = asked(where,
      "return net.reach(1, 2), net.reach(1, 1), net.reach(1, 3), net.reach(1, 99)")
    assert.is_true(open > 0.9 and none == 1, open)
    assert.is_true(unknown > 0.1 and unknown < 0.9)
    assert.equal(unknown, nobody)
    local learned = network.new()
    for _ = 1, 500 do learned:count(9, 1, false) end
    assert.is_true(asked(where, "return net.reach(1, 2)", learned:pack()) < 0.1)
  end)

  it("best_host: the shortest way to the farthest, among those who are reached", function()
    local where = { [1] = { at(0) }, [2] = { at(40) }, [3] = { at(100) } }
    local ask = "local host, why = net.best_host { t(1), t(2), t(3) } return host.id, why.rtt_ms, why.reach"
    local id, ms, reach = asked(where, ask)
    assert.equal(2, id)
    assert.equal(70, ms)
    assert.is_true(reach > 0.9)
    where[2][1][5] = 9 -- it would be the best, and its NAT lets nobody in
    assert.equal(1, (asked({ [1] = { at(0, 1) }, [2] = where[2], [3] = where[3] }, ask)))
    where[2] = { { nil, nil, nil, nil, 3 } } -- nobody knows where it is: no worst of any
    id, ms = asked(where, ask)
    assert.equal(1, id)
    assert.equal(wire.null, ms)
    assert.equal(7, asked(where, "return (net.best_host { 7 })"))
  end)

  it("place: near ones are near, for an index", function()
    local where = { [1] = { at(0) }, [2] = { at(1) }, [3] = { at(200) }, [4] = { { nil, nil, nil, nil, 3 } } }
    local a, b, c, d = asked(where, "return net.place(1), net.place(t(2)), net.place(3), net.place(4)")
    assert.is_true(math.abs(a - b) < math.abs(a - c) and a ~= b)
    assert.equal(-1, d)
  end)

  it("what is no ticket is an error that says so", function()
    for text, why in pairs {
      ["return net.rtt_ms(1)"] = "a ticket expected",
      ["return net.reach('1', 2)"] = "a ticket expected",
      ["return net.reach({ id = 1.5 }, 2)"] = "a ticket expected",
      ["return (net.best_host {})"] = "a list of 1 to 64 tickets",
      ["return (net.best_host { {} })"] = "a ticket expected",
    } do
      local ok, err = asked({}, text)
      assert.is_nil(ok)
      assert.matches(why, err, 1, true)
    end
  end)

  it("is charged for", function()
    local ok, err = asked({ [1] = { here } }, "for _ = 1, 1e9 do net.rtt_ms(1, 1) end")
    assert.is_nil(ok)
    assert.matches("budget", err)
  end)

  it("takes nothing that is out of bounds", function()
    local sandbox <close> = core.sandbox { memory = 1 << 20, instructions = 100000 }
    assert.is_false(sandbox:net_set(0, 1, network.pack(here, 3)))
    assert.is_false(sandbox:net_set(1, 33, network.pack(here, 3)))
    assert.is_false(sandbox:net_set(1, 1, network.pack(here, 17)))
    assert.is_false(sandbox:net_set(1, 1, network.pack({ 1e9, 0, 0, 0 }, 3)))
    assert.is_false(sandbox:net_set(1, 1, network.pack({ 0 / 0, 0, 0, 0 }, 3)))
    for _, bytes in ipairs { "", "\x95", "\xc0", wire.encode { 1, 2, 3 }, wire.encode { "a", 0, 0, 0, 1 },
      network.pack(here, 3) .. "\0" } do
      assert.is_false(sandbox:net_set(1, 1, bytes))
    end
    assert.is_true(sandbox:net_set(1, 1, wire.encode { 1, -2, 3, 4, wire.null }))
    sandbox:net_drop(5)
    local n = 0
    while sandbox:net_set(n + 1, 1, network.pack(here, 3)) do n = n + 1 end -- until its memory is used up
    assert.is_true(n > 8000 and n < 40000, n)
  end)

  it("keeps tickets apart as a plain table would", function()
    local rng, model = random.new(3, "net"), {}
    local sandbox <close> = core.sandbox { memory = 8 << 20, instructions = 10000000 }
    assert(sandbox:load [[local net = require 'bodkin.net'
      return { x = function(no) local ms = net.rtt_ms(no, 1000000) return ms and math.floor(ms) end } ]])
    sandbox:net_set(1000000, 1, network.pack({ 0, 0, 0, 0 }, 0))
    for _ = 1, 4000 do
      local no = (rng:integer() >> 1) % 300 + 1
      if rng:integer() & 3 == 0 then
        sandbox:net_drop(no)
        model[no] = nil
      else
        local x, members = (rng:integer() >> 1) % 1000, (rng:integer() >> 1) % 3 + 1
        for i = 1, members do sandbox:net_set(no, i, network.pack({ i == members and x or 0, 0, 0, 0 }, 0)) end
        model[no] = model[no] or {}
        for i = 1, members do model[no][i] = i == members and x or 0 end
      end
      no = (rng:integer() >> 1) % 300 + 1
      assert.equal(model[no] and math.max(table.unpack(model[no])) or wire.null,
        wire.decode(sandbox:call("x", wire.encode(no))))
    end
  end)

  it("is there while a policy admits, and gone with the ticket", function()
    local source = sources.text [[
      local bodkin = require "bodkin"
      return bodkin.policy { size = 2,
        admit = function(t) return bodkin.rtt_ms(t, 1) ~= nil, "far" end,
        compatible = function(a, b) return bodkin.rtt_ms(a, b) < 30 and bodkin.reach(a, b) > 0.5 end,
        form = function(a, near)
          local host, why = bodkin.best_host { a, near[1] }
          return { teams = { { a, near[1] } }, host = host, data = why }
        end }]]
    local instance = assert(instances.new(source))
    local function add(no, net)
      return instance:add({ no = no, app = "a", since_ms = 0, members = { { {}, nil, net } } }, false, 0)
    end
    assert.is_true(add(1, network.pack(at(0), 3)))
    assert.is_true(add(2, network.pack(at(100), 3)))
    assert.same({ false, "far" }, { add(3, nil) })
    assert.same({}, instance:tick(0))
    assert.is_true(add(4, network.pack(at(10), 3)))
    local matches = instance:tick(100)
    assert.same({ { 1, 4 } }, matches[1][1])
    assert.equal(20, matches[1][3].rtt_ms)
    assert.is_false((add(5, network.pack(at(10), 3)))) -- ticket 1, which the policy asks about, is gone
    instance:close()
  end)
end)

describe("classes of NATs", function()
  it("come from words, from kinds and from behaviours alike", function()
    for _, case in ipairs {
      { { mapping = "endpoint", filtering = "address_port" }, 1 | 4 << 3, 3 },
      { { mapping = "endpoint", filtering = "address_port", race = true }, 1 | 4 << 3 | 2 << 10, 10 },
      { { mapping = "address_port", filtering = "unknown" }, 4 | 7 << 3, 13 },
      { { mapping = "address or address_port", filtering = "address or address_port" }, 6 | 6 << 3, 9 },
      { { mapping = "endpoint or address", filtering = "unknown" }, 3, 11 },
      { { mapping = "unknown", filtering = "endpoint" }, 7 | 1 << 3, 14 },
      { { mapping = "unknown", filtering = "unknown" }, 0, 0 },
      { { nat = false, mapping = "unknown", filtering = "endpoint" }, 1 << 3 | 1 << 12, 1 },
    } do
      assert.equal(case[3], network.of_words(case[1]))
      assert.equal(case[3], network.of_kind(case[2]))
    end
    assert.equal(0, network.of_words(nil))
    assert.equal(0, network.of_kind(nil))
  end)

  it("reach each other as the theory says", function()
    local t = network.new()
    for a in pairs(kinds.kinds) do
      for b in pairs(kinds.kinds) do
        local chance = t:chance(network.of_behaviour(theory.behaviour(a)), network.of_behaviour(theory.behaviour(b)))
        local verdict = theory.verdict(a, b)
        assert.is_true(verdict == "may" and chance > 0.4 and chance < 0.9
          or (verdict == "yes") == (chance > 0.9) and (verdict == "no") == (chance < 0.1), a .. " " .. b)
      end
    end
  end)

  it("learn, soon where the theory errs, and forget what was long ago", function()
    local t = network.new()
    for _ = 1, 20 do t:count(3, 9, true) end
    assert.is_true(t:chance(9, 3) > 0.5)
    for _ = 1, 10000 do t:count(3, 9, true) end
    for _ = 1, 2000 do t:count(9, 3, false) end
    assert.is_true(t:chance(3, 9) < 0.2)
    t = network.new()
    t:count(3, 3, false)
    assert.is_true(network.difference(network.default, t:pack()) > 0.02)
    for _ = 1, 2 do -- what was half forgotten may be taken back more often than it counts
      t:count(3, 3, false, true)
      assert.equal(network.default, t:pack())
    end
  end)
end)
