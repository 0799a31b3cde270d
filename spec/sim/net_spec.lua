-- SPDX-License-Identifier: MIT
local core = require "bodkin.core"
local nets = require "bodkin.sim.net"

local addr = core.addr

local function at(text)
  return assert(addr.parse(text, 0))
end

describe("sim net", function()
  local loop, events

  before_each(function()
    loop = core.loop { virtual = true, now_us = 0 }
    events = {}
  end)
  after_each(function() loop:close() end)

  local function network(options)
    options.loop, options.seed = loop, options.seed or 1
    options.record = function(event) table.insert(events, event) end
    return nets.new(options)
  end

  -- A host with one socket on port 5000, and what that got: { from, bytes, time in µs }.
  local function host(net, name, ip, behind)
    local h = { got = {}, at = at(ip .. ":5000") }
    h.node = net:host(name, { at(ip) }, behind)
    h.sock = assert(net:bind(h.node, h.at, function(from, bytes)
      table.insert(h.got, { from, bytes, loop:now() })
    end))
    return h
  end

  local function flush()
    while loop:step() do end
  end

  it("delivers after the delay, in order", function()
    local net = network { delay_ms = 20 }
    local a, b = host(net, "a", "192.0.2.1"), host(net, "b", "192.0.2.2")
    a.sock:send(b.at, "one")
    a.sock:send(b.at, "two")
    flush()
    assert.same({ { a.at, "one", 20000 }, { a.at, "two", 20000 } }, b.got)
    assert.same({ "send", "send", "recv", "recv" }, events)
  end)

  it("has a delay for each direction, by table or by function", function()
    local delays = { a = { b = 5 }, default = 30 }
    for _, delay_ms in ipairs { delays, function(from, to) return (delays[from] or {})[to] or 30 end } do
      local net = network { delay_ms = delay_ms }
      local a, b = host(net, "a", "192.0.2.1"), host(net, "b", "192.0.2.2")
      local start = loop:now()
      a.sock:send(b.at, "x")
      b.sock:send(a.at, "y")
      flush()
      assert.equal(start + 5000, b.got[1][3])
      assert.equal(start + 30000, a.got[1][3])
    end
  end)

  it("adds jitter, so that packets overtake each other", function()
    local net = network { delay_ms = 10, jitter_ms = 5 }
    local a, b = host(net, "a", "192.0.2.1"), host(net, "b", "192.0.2.2")
    for i = 1, 200 do a.sock:send(b.at, tostring(i)) end
    flush()
    assert.equal(200, #b.got)
    local overtaken = false
    for i, got in ipairs(b.got) do
      assert(got[3] >= 10000 and got[3] <= 15000)
      overtaken = overtaken or tonumber(got[2]) ~= i
    end
    assert.is_true(overtaken)
    assert.is_true(b.got[200][3] - b.got[1][3] > 4000)
  end)

  it("loses about as many as it is told to, not the same ones for another seed", function()
    local lost = {}
    for seed = 1, 2 do
      local net = network { loss = 0.2, seed = seed }
      local a, b = host(net, "a", "192.0.2.1"), host(net, "b", "192.0.2.2")
      for i = 1, 5000 do a.sock:send(b.at, tostring(i)) end
      flush()
      -- binomial: mean 1000, standard deviation 28
      assert.near(4000, #b.got, 120)
      local seen = {}
      for i, got in ipairs(b.got) do seen[i] = got[2] end
      lost[seed] = table.concat(seen, " ")
    end
    assert.not_equal(lost[1], lost[2])
  end)

  it("lets what is for nobody vanish", function()
    local net = network {}
    local a, b = host(net, "a", "192.0.2.1"), host(net, "b", "192.0.2.2")
    assert.is_true(a.sock:send(at "192.0.2.9:1", "x"))
    assert.is_true(a.sock:send(at "192.0.2.2:1", "x"))
    flush()
    assert.same({ "send", "drop:nowhere", "send", "drop:noport" }, events)
    assert.same({}, b.got)
  end)

  it("refuses more than 1200 bytes and other families", function()
    local net = network {}
    local a, b = host(net, "a", "192.0.2.1"), host(net, "b", "192.0.2.2")
    assert.is_nil(a.sock:send(b.at, ("x"):rep(1201)))
    assert.is_nil(a.sock:send(at "[2001:db8::1]:1", "x"))
    assert.is_true(a.sock:send(b.at, ("x"):rep(1200)))
    assert.same({ "send" }, events)
  end)

  it("carries IPv6, and picks the source of the family", function()
    local net = network {}
    local node = net:host("a", { at "192.0.2.1", at "2001:db8::1" })
    local got
    assert(net:bind(node, at "[::]:7", function(from) got = from end))
    local sock = assert(net:bind(node, at "[::]:8", function() end))
    assert.is_true(sock:send(at "[2001:db8::1]:7", "x"))
    flush()
    assert.equal(at "[2001:db8::1]:8", got)
    local v4only = net:host("b", { at "192.0.2.2" })
    assert.is_false(assert(net:bind(v4only, at "[::]:8", function() end)):send(at "[2001:db8::1]:7", "x"))
  end)

  it("gives no two nodes of a realm one address", function()
    local net = network {}
    host(net, "a", "192.0.2.1")
    assert.error_matches(function() net:host("b", { at "192.0.2.1" }) end, "a and b cannot both have")
  end)

  it("ends a packet whose TTL is used up on the way", function()
    local net = network { hops = 3 }
    local a, b = host(net, "a", "192.0.2.1"), host(net, "b", "192.0.2.2")
    a.sock:send(b.at, "dies at the third router", 3)
    a.sock:send(b.at, "lives", 4)
    flush()
    assert.equal(1, #b.got)
    assert.equal("lives", b.got[1][2])
    assert.same({ "send", "drop:ttl", "send", "recv" }, events)
  end)

  it("hears nothing at a socket closed while a packet is on its way", function()
    local net = network { delay_ms = 10 }
    local a, b = host(net, "a", "192.0.2.1"), host(net, "b", "192.0.2.2")
    a.sock:send(b.at, "x")
    b.sock:close()
    flush()
    assert.same({}, b.got)
    assert.same({ "send", "drop:noport" }, events)
  end)
end)
