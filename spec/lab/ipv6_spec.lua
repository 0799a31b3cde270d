-- SPDX-License-Identifier: MIT
-- IPv6 with the kernel's own firewalls and NATs: the binary, real sockets, a server that has both families.

local support = require "spec.lab.support"

-- Hosts find the server by name in a file of their own, mounted over /etc/hosts: not inside a chroot, whose root is no
-- mount.
if not require("bodkin.lab.shell").run "unshare --mount true" then
  describe("in the lab, IPv6", function()
    it("is passed as IPv4 is", function() pending "this machine gives no process mounts of its own" end)
  end)
  return
end

describe("in the lab, IPv6", function()
  local net

  setup(function()
    net = support.net { a = "port_restricted", b = "carrier", c = "symmetric_random", d = "port_restricted",
      e = "port_restricted", delay_ms = 10, ipv6 = { a = "only", b = "only", c = "dual", d = "dual" } }
    support.serve(net)
    net.urls[2] = net.urls[2]:gsub("//[%d.]+", "//server")
  end)

  teardown(function()
    if net then net:down() end
  end)

  local function meet(x, y)
    local hosting, code = support.host(net, x)
    return support.finish(support.join(net, hosting, code, y, x))
  end

  local function ip(address) return address:match "^%[?(.-)%]?:%d+$" end

  it("goes straight through the firewalls of two that have nothing else", function()
    local a, b = meet("a", "b")
    for _, last in ipairs { a, b } do
      assert.equal("direct", last.path)
      assert.equal("ipv6", last.via)
    end
    assert.equal(net.b.addr6, ip(a.remote))
    assert.equal(net.a.addr6, ip(b.remote))
  end)

  it("is taken before IPv4 where both have both, and helps where a NAT would not let them", function()
    local c, d = meet("c", "d")
    for _, last in ipairs { c, d } do assert.equal("ipv6", last.via) end
    assert.equal(net.d.addr6, ip(c.remote))
  end)

  it("reaches IPv4 through the relay", function()
    local a, e = meet("a", "e")
    for _, last in ipairs { a, e } do assert.equal("relay", last.path) end
    assert.equal(net.server.addr6, ip(a.remote))
    assert.equal(net.server.addr, ip(e.remote))
  end)

  it("is what bodkin ping uses, and tells of", function()
    local url = net.urls[2]:gsub("//server", "//[" .. net.server.addr6 .. "]")
    for host, words in pairs { a = { net.urls[2] }, c = { net.urls[2], "--bind", "[::]:0" }, d = { url } } do
      local p = net[host]:start { support.binary, "ping", table.unpack(words) }
      assert.equal(0, p:wait(5000), p:stderr())
      assert.truthy(p:stdout():find(("answer from [%s]:4433"):format(net.server.addr6), 1, true), p:stdout())
      assert.truthy(p:stdout():find(("your public address is [%s]:"):format(net[host].addr6), 1, true), p:stdout())
      assert.truthy(p:stdout():find("no NAT between", 1, true), p:stdout())
    end
    local p = net.e:start { support.binary, "ping", url, "--timeout", "1" }
    assert.not_equal(0, p:wait(5000))
    assert.truthy(p:stderr():find("knows no way to [2001:db8:ff::10]:4433: has it IPv6?", 1, true), p:stderr())
  end)

  it("stands beside IPv4 in what bodkin serve prints", function()
    local p = net.server:start { support.binary, "serve", "--listen", "0.0.0.0:5544", "--listen", "[::]:5544",
      "--admin", net.dir .. "/other.admin", env = { XDG_STATE_HOME = net.dir } }
    local line, four, six = assert(p:expect_error("%-%-server (%S+)  or .-(%S+2001:db8:ff::10%S+)", 5000))
    p:kill "INT"
    p:wait(2000)
    assert.truthy(four:find("bodkin://192.0.2.10:5544#", 1, true), line)
    assert.truthy(six:find("bodkin://[2001:db8:ff::10]:5544#", 1, true), line)
  end)
end)
