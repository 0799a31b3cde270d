-- SPDX-License-Identifier: MIT
-- Two programs behind two real NATs find each other and talk: the binary, real sockets, kernel NATs, the server in
-- the net. `make soak` runs this twenty times. The slow cases begin first and are looked at last.

local plan = require "bodkin.lab.plan"
local shell = require "bodkin.lab.shell"
local support = require "spec.lab.support"

local function median(list)
  table.sort(list)
  return (list[(#list + 1) // 2] + list[#list // 2 + 1]) / 2
end

-- The ways two can be placed, each tried also with separate servers, and after a long wait behind NATs that forget
-- soon: what it is called, the NATs, and the path that must be the last.
local topologies = {
  { "T1 both behind port-restricted NATs", { a = "port_restricted", b = "port_restricted" }, "direct" },
  { "T2 one behind a NAT", { a = "port_restricted", b = "none" }, "direct" },
  { "T3 neither behind a NAT", { a = "none", b = "none" }, "direct" },
  { "T4 both behind one NAT", { a = "port_restricted", same_nat = true }, "lan" },
  { "both behind a home's and a carrier's NAT", { a = "carrier", b = "carrier" }, "direct" },
  { "a full cone and a port-restricted NAT", { a = "full_cone", b = "port_restricted" }, "direct" },
}

local function extended(options, more)
  local out = { delay_ms = 20 }
  for _, t in ipairs { options, more or {} } do
    for k, v in pairs(t) do out[k] = v end
  end
  return out
end

describe("in the lab", function()
  local slow, broken = {}, {} -- labs that stand while the other cases run; what went wrong on their way

  -- fn(net) begins a case in a lab of its own.
  local function begin(name, options, fn)
    local ok, message = pcall(function()
      slow[name] = support.net(options)
      support.serve(slow[name], { "--maintenance-mode", options.mode or "confirm" })
      fn(slow[name])
    end)
    if not ok then broken[name] = tostring(message) end
  end

  -- The lab begun, or the error there was.
  local function begun(name)
    assert(not broken[name], broken[name])
    return slow[name]
  end

  -- A process that asks with a command, at the server, until what it says passes the test; prints how many s that took.
  local function watch(net, most_s, test, ...)
    return net.server:start { "sh", "-c", ([[
      start=$(cut -d. -f1 /proc/uptime)
      while now=$(cut -d. -f1 /proc/uptime); [ $((now - start)) -lt %d ]; do
        "$@" | { %s; } && { echo $((now - start)); exit 0; }
        sleep 0.5
      done
      exit 1]]):format(most_s, test), "watch", support.binary, ... }
  end

  -- Two that talk, whose server is then killed and started again while they go on; and a watch that says when the
  -- server knows both again.
  local function outlive(net)
    net.one = support.client(net, "a", { "host", stdin = "pipe" })
    local _, code = assert(net.one:expect_error("room (%S+):", 5000))
    net.two = support.client(net, "b", { "join", code, stdin = "pipe" })
    assert(net.two:expect_error("connected", 5000))
    assert(net.one:expect_error("connected", 5000))
    net.serving:kill "KILL"
    assert(net.serving:wait(2000))
    net.one:write "with no server, from a\n"
    net.two:write "with no server, from b\n"
    assert(net.one:expect("with no server, from b", 2000))
    assert(net.two:expect("with no server, from a", 2000))
    support.serve(net, { "--maintenance-mode", net.options.mode or "confirm" })
    net.watch = watch(net, 65, [=[[ "$(grep -c '"entry"')" = 2 ]]=], "list", "--json", table.unpack(net.urls))
  end

  -- Two that talk, when the NAT of the one that hosts forgets all and makes other mappings.
  local function rebound(net)
    net.one = support.client(net, "a", { "host", stdin = "pipe" })
    local _, code = assert(net.one:expect_error("room (%S+):", 5000))
    net.two = support.client(net, "b", { "join", code, stdin = "pipe" })
    assert(net.two:expect_error("connected", 5000))
    assert(net.one:expect_error("connected", 5000))
    net.code, net.before = code, support.counters(net)
    assert(net:rebind("a", 41000))
    net.watch = watch(net, 20, "grep -q 'client_moved.,.value.:1'", "status", "--json", "--admin",
      net.dir .. "/server.admin")
  end

  setup(function()
    for i, t in ipairs(topologies) do
      begin("idle" .. i, extended(t[2], { udp_timeout_s = 20 }), function(net)
        net.hosting, net.code = support.host(net, "a")
        net.since = shell.uptime()
      end)
    end
    begin("confirm", extended(topologies[1][2], { mode = "confirm" }), outlive)
    begin("silent", extended(topologies[1][2], { mode = "silent" }), outlive)
    begin("rebind", extended({ a = "port_restricted", b = "address_restricted", c = "port_restricted" }), rebound)
  end)

  teardown(function()
    for _, net in pairs(slow) do net:down() end
  end)

  local function connects(options, path, check)
    local net <close> = support.net(options)
    support.serve(net, { apart = options.servers == 3 })
    local a, b = support.meet(net)
    assert.equal(path, a.path)
    assert.equal(path, b.path)
    if check then check(net, a, b) end
  end

  local function ip(address) return address:match "^(.*):" end

  it("T1 connects two behind port-restricted NATs, straight through", function()
    connects({ a = "port_restricted", b = "port_restricted", delay_ms = 20 }, "direct", function(net, a, b)
      assert.equal(net.b.public, ip(a.remote))
      assert.equal(net.a.public, ip(b.remote))
    end)
  end)

  it("T2 connects when only the one who waits is behind a NAT", function()
    connects({ a = "port_restricted", b = "none", delay_ms = 20 }, "direct")
  end)

  it("T2 connects when only the one who joins is behind a NAT", function()
    connects({ a = "none", b = "port_restricted", delay_ms = 20 }, "direct")
  end)

  it("T3 connects when neither is behind a NAT", function()
    connects({ a = "none", b = "none", delay_ms = 20 }, "direct")
  end)

  it("T4 connects two behind one NAT, on their own network", function()
    connects({ a = "port_restricted", same_nat = true, delay_ms = 20 }, "lan", function(net, a, b)
      assert.equal(net.b.addr, ip(a.remote))
      assert.equal(net.a.addr, ip(b.remote))
    end)
  end)

  for _, t in ipairs(topologies) do
    it("S4 connects with three separate server processes: " .. t[1], function()
      connects(extended(t[2], { servers = 3 }), t[3])
    end)
  end

  it("connects two that are each behind a home's and a carrier's NAT", function()
    connects({ a = "carrier", b = "carrier", delay_ms = 20 }, "direct")
  end)

  it("connects a full cone with a port-restricted NAT", function()
    connects({ a = "full_cone", b = "port_restricted", delay_ms = 20 }, "direct")
  end)

  it("connects through an address-restricted NAT", function()
    connects({ a = "address_restricted", b = "port_restricted", delay_ms = 20 }, "direct")
  end)

  it("connects through the second address of a server that listens on any", function()
    local net <close> = support.net { a = "port_restricted", b = "port_restricted", delay_ms = 20 }
    support.serve(net)
    net.urls[2] = net.urls[2]:gsub("//[%d.]+", "//" .. plan.witness)
    assert.equal("direct", support.meet(net).path)
  end)

  it("connects two plain Linux NATs, since both are told at once", function()
    connects({ a = "plain_linux", b = "plain_linux", delay_ms = 20 }, "direct")
  end)

  it("P2 answers where a test came from, behind a NAT that shows the peer another address than the server", function()
    for _, b in ipairs { "none", "full_cone" } do
      connects({ a = "two_addresses", b = b, delay_ms = 20 }, "direct", function(net, _, at_b)
        assert.equal("198.18.1.11", ip(at_b.remote))
        assert.not_equal(net.a.public, ip(at_b.remote))
      end)
    end
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

  for _, mode in ipairs { "confirm", "silent" } do
    local limit = mode == "confirm" and 30 or 60
    it(("S3 goes on without the server, and is known to it %d s after its return (%s)"):format(limit, mode), function()
      local net = begun(mode)
      assert.equal(0, net.watch:wait(66000), "not registered again")
      local after = tonumber(net.watch:lines()[1])
      print(("# %s: both registered again %d s after the server's restart"):format(mode, after))
      assert.is_true(after <= limit, tostring(after))
      net.one:write "at last, from a\n"
      net.two:write "at last, from b\n"
      assert(net.one:expect("at last, from b", 2000))
      assert(net.two:expect("at last, from a", 2000))
    end)
  end

  it("a client whose NAT makes other mappings is followed by the server, once it has answered, and stays reachable",
    function()
      local net = begun "rebind"
      assert.equal(0, net.watch:wait(21000), "not followed")
      local after_s = tonumber(net.watch:lines()[1])
      assert.is_true(shell.await(3000, function() return support.counters(net).registered > net.before.registered end))
      local moved = support.counters(net)
      assert.equal(1, moved.client_moved)
      assert.equal(net.before.associated, moved.associated)
      local three = support.client(net, "c", { "join", net.code, stdin = "pipe" })
      assert(three:expect_error("connected", 5000))
      assert(net.one:expect_error("connected to .*" .. net.c.public:gsub("%.", "%%."), 5000))
      print(("# a NAT's other mapping: known to the server after %d s, another peer met there"):format(after_s))
      for said, p in pairs { ["from a, at b"] = net.two, ["from a, at c"] = three } do
        net.one:write(said .. "\n")
        assert(p:expect(said, 2000))
      end
      three:write "from c\n"
      net.two:write "from b\n"
      assert(net.one:expect("from c", 2000))
      assert(net.one:expect("from b", 2000))
    end)

  for i, t in ipairs(topologies) do
    it("N1 connects though NATs forget after 20 s and 60 s were waited: " .. t[1], function()
      local net = begun("idle" .. i)
      shell.await(61000, function() return shell.uptime() - net.since >= 60 end)
      local a, b = support.join(net, net.hosting, net.code, "b")
      assert.equal(t[3], a.path)
      assert.equal(t[3], b.path)
    end)
  end

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
