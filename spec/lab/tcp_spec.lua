-- SPDX-License-Identifier: MIT
-- Behind a router that drops all UDP (nftables, in forward): the server is reached over TCP, peers by its relay.

local lab = require "bodkin.lab"
local support = require "spec.lab.support"

describe("where UDP is blocked, in the lab,", function()
  local net
  after_each(function() net:down() end)

  local function up(options, port)
    options.delay_ms = 20
    net = assert(lab.up(options))
    support.serve(net, { "--listen-tcp", "0.0.0.0:" .. (port or 443) })
  end

  local function errors(p)
    local list = {}
    for _, e in ipairs(support.events(p, "error")) do list[#list + 1] = e.code end
    return list
  end

  -- One hosts, one joins; `blocked` is who hears that UDP is. Prints how soon data could flow from `matched` on.
  local function meet(host, from, blocked)
    local hosting, code = support.host(net, host)
    local joining = support.client(net, from, { "join", code, "--json" }, "--send", "from " .. from, "--expect", "1",
      "--timeout", "20")
    local out = {}
    for name, p in pairs { [host] = hosting, [from] = joining } do
      local status = p:wait(25000)
      local all = p:stdout() .. p:stderr()
      assert.equal(0, status, all)
      assert.equal(1, #support.events(p, "message"), all)
      local connected = assert(support.events(p, "connected")[1], all)
      assert.equal("relay", connected.path, all)
      assert.same(blocked[name] and { "blocked_udp" } or {}, errors(p), all)
      local registered = support.events(p, "registered")[1]
      if registered then assert.equal(blocked[name] and 0 or 1, #registered.public, all) end
      out[#out + 1] = connected.first_ms
    end
    print(("# matched to connected, %s to %s: %.1f and %.1f ms"):format(from, host, out[1], out[2]))
    for _, ms in ipairs(out) do assert.is_true(ms < 1000, ms) end
  end

  it("two find each other and talk, one of them or both blocked, whoever hosts", function()
    up { a = "port_restricted", b = "port_restricted", c = "symmetric_random", blocks_udp = { a = true, c = true } }
    meet("a", "b", { a = true })
    meet("b", "a", { a = true })
    meet("a", "c", { a = true, c = true })
    local counters = support.counters(net)
    assert.is_true(counters.tcp_opened >= 4)
    assert.equal(0, counters.tcp_broken)
  end)

  it("netcheck says so", function()
    up { a = "port_restricted", b = "port_restricted", blocks_udp = { a = true } }
    local p = net.a:start { support.binary, "netcheck", "--timeout", "2", table.unpack(net.urls) }
    assert.equal(5, p:wait(20000), p:stderr())
    assert.matches("UDP is blocked here, TCP 443 is not", p:stderr(), 1, true)
  end)

  it("the server's other port stands in its URL", function()
    up({ a = "port_restricted", b = "none", blocks_udp = { a = true } }, 8443)
    assert.matches("?tcp=8443#", net.urls[2], 1, true)
    meet("a", "b", { a = true })
  end)

  it("a match outlives that UDP is blocked", function()
    up { a = "port_restricted", b = "port_restricted" }
    local one = support.client(net, "a", { "host", stdin = "pipe" })
    local _, code = assert(one:expect_error("room (%S+):", 10000))
    local two = support.client(net, "b", { "join", code, stdin = "pipe" })
    assert(two:expect_error("connected", 10000))
    assert(one:expect_error("connected", 10000))
    -- What is sent into the silence is lost: datagrams.
    local function talk(what)
      for i = 1, 60 do
        one:write(what .. "\n")
        two:write(what .. "\n")
        if one:expect(what, 250) and two:expect(what, 250) then return (i - 1) / 4 end
      end
      error(("nothing of %q came\n%s\n%s"):format(what, one:stderr(), two:stderr()))
    end
    talk "by UDP"
    net.a:block_udp(true)
    print(("# silent for %.2f s once UDP was blocked"):format(talk "by TCP"))
    assert(one:expect_error("UDP is not answered, TCP 443 is", 1000))
    net.a:block_udp(false)
    talk "still"
    for _, p in ipairs { one, two } do p:kill "INT" end
    assert.equal(130, one:wait(5000), one:stderr())
  end)
end)
