-- SPDX-License-Identifier: MIT
-- What takes a while by its nature: NATs that forget, and servers that come back. All of it begins first and is looked
-- at last; meanwhile there is nothing to do, and suites.lua lets the other specs of the lab run beside it.

local placed = require "spec.lab.placed"
local shell = require "bodkin.lab.shell"
local support = require "spec.lab.support"

local function two_of(mode) return { a = "port_restricted", b = "port_restricted", delay_ms = 20, mode = mode } end

describe("in the lab, in time,", function()
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
    net.one = support.client(net, "a", { "host", "--verbose", stdin = "pipe" })
    local _, code = assert(net.one:expect_error("room (%S+):", 5000))
    net.two = support.client(net, "b", { "join", code, stdin = "pipe" })
    assert(net.two:expect_error("connected", 5000))
    assert(net.one:expect_error("connected", 5000))
    net.code, net.before = code, support.counters(net)
    assert(net:rebind("a", 41000))
    net.watch = watch(net, 20, "grep -q 'client_moved.,.value.:1'", "status", "--json", "--admin",
      net.dir .. "/server.admin")
  end

  local idle -- those who wait behind NATs that forget soon: what support.host_all says, then their meetings

  setup(function()
    local ok, message = pcall(function()
      local net, hosts = placed.net(placed.topologies, { udp_timeout_s = 20 })
      slow.idle = net
      support.serve(net)
      idle = support.host_all(net, hosts)
      net.since = shell.uptime()
    end)
    if not ok then broken.idle = tostring(message) end
    begin("confirm", two_of "confirm", outlive)
    begin("silent", two_of "silent", outlive)
    begin("rebind", { a = "port_restricted", b = "address_restricted", c = "port_restricted", delay_ms = 20 }, rebound)
  end)

  teardown(function()
    for _, net in pairs(slow) do net:down() end
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
      assert(net.one:expect_error("srflx " .. net.c.public:gsub("%.", "%%."), 5000)) -- perhaps by a relay first
      print(("# a NAT's other mapping: known to the server after %d s, another peer met there"):format(after_s))
      for said, p in pairs { ["from a, at b"] = net.two, ["from a, at c"] = three } do
        net.one:write(said .. "\n")
        assert(p:expect(said, 2000))
      end
      three:write "from c\n"
      assert(net.one:expect("from c", 2000))
      -- What b sends before it has tried the address that it hears from now is lost.
      assert(shell.await(2000, function()
        net.two:write "from b\n"
        return net.one:expect("from b", 300)
      end))
    end)

  for i, t in ipairs(placed.topologies) do
    it("N1 connects though NATs forget after 20 s and 60 s were waited: " .. t[1], function()
      local net = begun "idle"
      if i == 1 then
        shell.await(61000, function() return shell.uptime() - net.since >= 60 end)
        idle = support.join_all(net, idle)
      end
      local a, b = support.finish(idle[i])
      assert.equal(t[3], a.path)
      assert.equal(t[3], b.path)
    end)
  end
end)
