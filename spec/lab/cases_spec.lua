-- SPDX-License-Identifier: MIT
-- Two programs behind two real NATs find each other and talk: the binary, real sockets, kernel NATs, the server in
-- the net. `make soak` runs this twenty times. What takes a while by its nature is in waits_spec.lua.

local placed = require "spec.lab.placed"
local plan = require "bodkin.lab.plan"
local shell = require "bodkin.lab.shell"
local support = require "spec.lab.support"

local function median(list)
  table.sort(list)
  return (list[(#list + 1) // 2] + list[#list // 2 + 1]) / 2
end

local function ip(address) return address:match "^(.*):" end

-- By the address that another one than the server sees.
local function other_address(net, hosts, _, at_b)
  local n = hosts[1]:byte() - 96
  assert.equal(("198.18.%d.11"):format(n), ip(at_b.remote))
  assert.not_equal(net[hosts[1]].public, ip(at_b.remote))
end

local function as_announced(net, hosts, a, b)
  assert.equal(net[hosts[2]].public, ip(a.remote))
  assert.equal(net[hosts[1]].public, ip(b.remote))
end

-- Name, NATs, the path that must be the last, and what else.
local together = {
  { "T1 connects two behind port-restricted NATs, straight through", { a = "port_restricted", b = "port_restricted" },
    "direct", as_announced },
  { "T2 connects when only the one who waits is behind a NAT", { a = "port_restricted", b = "none" }, "direct" },
  { "T2 connects when only the one who joins is behind a NAT", { a = "none", b = "port_restricted" }, "direct" },
  { "T3 connects when neither is behind a NAT", { a = "none", b = "none" }, "direct" },
  { "T4 connects two behind one NAT, on their own network", { a = "port_restricted", same_nat = true }, "lan",
    function(net, hosts, a, b)
      assert.equal(net[hosts[2]].addr, ip(a.remote))
      assert.equal(net[hosts[1]].addr, ip(b.remote))
    end },
  { "connects two that are each behind a home's and a carrier's NAT", { a = "carrier", b = "carrier" }, "direct" },
  { "connects a full cone with a port-restricted NAT", { a = "full_cone", b = "port_restricted" }, "direct" },
  { "connects through an address-restricted NAT", { a = "address_restricted", b = "port_restricted" }, "direct" },
  { "connects two plain Linux NATs, since both are told at once", { a = "plain_linux", b = "plain_linux" }, "direct" },
  { "P2 answers where a test came from, where a NAT shows the peer another address than the server",
    { a = "two_addresses", b = "none" }, "direct", other_address },
  { "P2 does so toward a full cone", { a = "two_addresses", b = "full_cone" }, "direct", other_address },
}

describe("in the lab", function()
  -- What comes of the meetings of a list, which are all under way at once; `options`: the lab's, `serve`: the server's.
  local function meet_together(list, options, serve)
    local net, hosts, meetings
    setup(function()
      net, hosts = placed.net(list, options)
      support.serve(net, serve)
      meetings = support.join_all(net, support.host_all(net, hosts))
    end)
    teardown(function() if net then net:down() end end)
    for i, t in ipairs(list) do
      it(t[1], function()
        local a, b = support.finish(meetings[i])
        assert.equal(t[3], a.path)
        assert.equal(t[3], b.path)
        if t[4] then t[4](net, hosts[i], a, b) end
      end)
    end
  end

  describe("one server", function() meet_together(together) end)

  describe("S4 three separate server processes:", function()
    meet_together(placed.topologies, { servers = 3 }, { apart = true })
  end)

  it("connects through the second address of a server that listens on any", function()
    local net <close> = support.net { a = "port_restricted", b = "port_restricted", delay_ms = 20 }
    support.serve(net)
    net.urls[2] = net.urls[2]:gsub("//[%d.]+", "//" .. plan.witness)
    assert.equal("direct", support.meet(net).path)
  end)

  it("connects in spite of loss", function()
    local net <close> = support.net { a = "port_restricted", b = "port_restricted", delay_ms = 20, loss = 0.1 }
    support.serve(net)
    local one = support.client(net, "a", { "host", stdin = "pipe" })
    local _, code = assert(one:expect_error("room (%S+):", 10000))
    local two = support.client(net, "b", { "join", code, stdin = "pipe" })
    assert(two:expect_error("connected", 15000))
    assert(one:expect_error("connected", 15000))
    -- Each line is one datagram that may be lost: it is said until it was heard.
    for _, pair in ipairs { { one, two }, { two, one } } do
      assert.is_true(shell.await(10000, function()
        pair[1]:write "hello\n"
        return pair[2]:expect("hello", 200) ~= nil
      end))
    end
  end)

  it("connects in the time of two crossings: d + 5 ms first heard, 2d + 5 ms confirmed", function()
    local net <close> = support.net { a = "port_restricted", b = "port_restricted", delay_ms = { a = 20, b = 20 } }
    support.serve(net)
    support.in_time(function()
      local first, confirmed = {}, {}
      for _ = 1, 5 do
        local a, b = support.meet(net)
        -- Each counts from its own `matched`: what one gains by a late one, the other loses.
        assert.is_true(math.max(a.first_ms, b.first_ms) >= 40)
        for _, last in ipairs { a, b } do
          first[#first + 1] = last.first_ms
          confirmed[#confirmed + 1] = last.first_confirmed_ms
        end
      end
      print(("# T1, d = 40 ms, medians of 10: first %.1f ms (%.1f to %.1f), confirmed %.1f ms (%.1f to %.1f)"):format(
        median(first), first[1], first[10], median(confirmed), confirmed[1], confirmed[10]))
      assert.is_true(confirmed[1] >= 80)
      if median(first) > 45 then return "first " .. median(first) end
      if median(confirmed) > 85 then return "confirmed " .. median(confirmed) end
    end)
  end)

  it("connects from a cold start in two round trips to the server and one crossing", function()
    local net <close> = support.net { a = "port_restricted", b = "port_restricted", delay_ms = { a = 20, b = 20 } }
    support.serve(net)
    support.in_time(function()
      local hosting = support.client(net, "a", { "host", "--json", stdin = "pipe" }, "--send", "hello")
      local _, code = assert(hosting:expect('"code":"([^"]+)"', 5000))
      local p = net.b:start { support.binary, "run", "spec/lab/cold.lua", support.binary, net.urls[2], code, "10",
        realtime = net.realtime }
      assert(p:wait(60000) == 0, p:stdout() .. p:stderr())
      local connected, heard = {}, {}
      for i, line in ipairs(p:lines()) do
        local first, second = line:match "^(%S+) (%S+)$"
        connected[i], heard[i] = tonumber(first), tonumber(second)
      end
      print(("# cold start of bodkin join, d = 40 ms: medians of %d: connected after %.1f ms (%.1f to %.1f), the "
        .. "peer's first message after %.1f ms (%.1f to %.1f)"):format(#heard, median(connected), connected[1],
        connected[10], median(heard), heard[1], heard[10]))
      -- Its start; two round trips of 40 ms to the server; 40 ms to the peer, who sends once it has heard this one.
      assert.is_true(connected[1] >= 120 and heard[1] >= 160)
      if median(connected) > 120 + 30 then return "connected " .. median(connected) end
      if median(heard) > 160 + 30 then return "heard " .. median(heard) end
    end)
  end)
end)
