-- SPDX-License-Identifier: MIT

local address = require "bodkin.client.address"
local core = require "bodkin.core"
local support = require "spec.client.support"

local function a(text) return assert(core.addr.parse(text)) end

local function manager(config)
  config = config or {}
  local sock4 = { addr = function() return a(config.bound or "0.0.0.0:5000") end }
  local sock6 = { addr = function() return a("[::]:6000") end }
  local interfaces = config.interfaces or {}
  for _, ip in ipairs(config.ips or {}) do
    interfaces[#interfaces + 1] = { name = "eth", addr = core.addr.parse(ip, 0), up = ip ~= config.down }
  end
  return address.new {
    env = { now = function() return 1 end, interfaces = function() return interfaces end }, requests = {},
    socks = { [4] = sock4, [6] = sock6 },
    servers = { [4] = a "198.51.100.10:4433" }, loopback = config.loopback, reveal = config.reveal,
    virtual = config.virtual,
  }
end

local function texts(candidates)
  local out = {}
  for i, c in ipairs(candidates) do out[i] = ("%s %s %d"):format(core.addr.format(c[1]), c[2], c[3]) end
  return out
end

local server, proof = a "198.51.100.10:4433", ("p"):rep(20)

describe("C1 address manager", function()
  -- Which of these interfaces, each with an address of its own, peers are told of.
  local function told_of(names, virtual)
    local list, by_text, out = {}, {}, {}
    for i, name in ipairs(names) do
      local ip = a("10.0.0." .. i .. ":0")
      list[i], by_text["10.0.0." .. i .. ":5000"] = { name = name, addr = ip, up = true }, name
    end
    local m = manager { virtual = virtual, interfaces = list }
    for i, text in ipairs(m:local_texts()) do out[i] = by_text[text] end
    return out
  end

  it("leaves out what leads into VPNs and containers, unless told otherwise", function()
    for _, name in ipairs { "docker0", "veth1a2b3c", "br-0a1b2c3d4e5f", "virbr0", "cni0", "flannel.1", "tun0", "tap3",
      "wg0", "tailscale0", "vboxnet0", "utun3" } do
      assert.same({ "eth0" }, told_of { name, "eth0" })
      assert.same({ name, "eth0" }, told_of({ name, "eth0" }, true))
    end
    for _, name in ipairs { "wlan0", "enp3s0", "eth1", "br0", "ppp0", "wwan0", "en0", "bond0", "tunnelling" } do
      assert.same({ name }, told_of { name })
    end
  end)

  it("sees that the host's addresses have changed, and not when a container's did", function()
    local list = { { name = "eth0", addr = a "10.0.0.1:0", up = true } }
    local m = manager { interfaces = list }
    assert.is_false(m:changed()) -- from nothing
    list[2] = { name = "veth77", addr = a "172.17.0.1:0", up = true }
    assert.is_false(m:changed())
    list[2] = { name = "wg0", addr = a "10.8.0.2:0", up = true }
    assert.is_true(m:changed())
    assert.is_false(m:changed())
    list[1] = { name = "wwan0", addr = a "10.0.0.1:0", up = true } -- the same address elsewhere
    assert.is_true(m:changed())
    list[1].up = false
    assert.is_true(m:changed())
  end)

  it("records the local address of the stack and the public one of the address server, with its proof", function()
    local s = support.new()
    local n = s:open(s:host("a", "192.168.1.2", s:nat("nat", "203.0.113.1")))
    assert.same({ "192.168.1.2:49152" }, n.addresses:local_texts())
    assert.equal(1, #n.addresses:public_texts())
    assert.matches("^203%.0%.113%.1:%d+$", n.addresses:public_texts()[1])
    assert.equal(20, #n.addresses.public[4].proof)
    assert.equal(n.addresses.public[4].addr .. n.addresses.public[4].proof, n.addresses:pubs()[1])
    s:close()
  end)

  it("asks a separate address server, whose proof the matching server believes", function()
    local s = support.new { roles = { "matching", "maintenance" }, key = ("k"):rep(32) }
    local other = s:host("address", "198.51.100.20")
    local server2 = s:serve(other, { "address" })
    local n = s:open(s:host("a", "192.168.1.2", s:nat("nat", "203.0.113.1")),
      { address_server = "bodkin://198.51.100.20:4433" })
    assert.equal(1, server2.counters:get("address_reported"))
    assert.equal(0, s.server.counters:get("address_reported"))
    assert.equal(1, s.server.counters:get("registered"))
    assert.matches("^203%.0%.113%.1:", n.addresses:public_texts()[1])
    s:close()
  end)

  it("says clearly that nobody answers", function()
    local s = support.new()
    local n, err, code = s:try(s:host("a", "203.0.113.7"), { server = "bodkin://198.51.100.99" })
    assert.is_nil(n)
    assert.equal("timeout", code)
    assert.equal("no answer from 198.51.100.99:4433 after 5 s: is UDP 4433 open there? try bodkin ping", err)
    s:close()
  end)

  it("tells private local addresses only, at most four, none that is down", function()
    local m = manager {
      ips = { "127.0.0.1", "8.8.8.8", "100.64.0.9", "169.254.1.1", "10.0.0.1", "10.0.0.2", "172.16.0.1", "fd00::1",
        "192.168.0.1" }, down = "10.0.0.2",
    }
    assert.same({ "10.0.0.1:5000", "172.16.0.1:5000", "[fd00::1]:6000", "192.168.0.1:5000" }, m:local_texts())
    local bound = manager { ips = { "10.0.0.1", "10.0.0.2" }, bound = "10.0.0.1:5000" }
    assert.same({ "10.0.0.1:5000" }, bound:local_texts())
    assert.same({}, manager({ ips = { "10.0.0.1" }, reveal = "never" }):local_texts())
  end)

  it("tells loopback only when the server is there", function()
    assert.same({ "127.0.0.1:5000", "10.0.0.1:5000" },
      manager({ ips = { "10.0.0.1", "127.0.0.1" }, loopback = true }):local_texts())
  end)

  it("makes candidates of the peer's addresses, none twice, none of its own", function()
    local m = manager { ips = { "10.0.0.1" } }
    m:note(server, a "203.0.113.1:5000", proof)
    local got = m:candidates({ a "203.0.113.1:5000", a "203.0.113.1:7000", a "203.0.113.1:7000", a "[2001:db8::2]:9" },
      { a "10.0.0.2:7000", a "10.0.0.1:5000", a "10.0.0.3:0" })
    assert.same({ "10.0.0.2:7000 host 1", "203.0.113.1:7000 srflx 1", "[2001:db8::2]:9 ipv6 2" }, texts(got))
  end)

  it("takes an address that is public and local for local", function()
    local m = manager { ips = { "127.0.0.1" }, loopback = true }
    m:note(server, a "127.0.0.1:5000", proof)
    assert.same({ "127.0.0.1:7000 host 1" }, texts(m:candidates({ a "127.0.0.1:7000" }, { a "127.0.0.1:7000" })))
  end)

  it("asks again when a server sees another address", function()
    local m = manager()
    m:note(server, a "203.0.113.1:5000", proof)
    assert.is_false(m.stale)
    m:see(server, a "203.0.113.1:5001")
    assert.is_true(m.stale)
  end)

  it("keeps a proof for each server, and the address server's for the rest", function()
    local m = manager()
    m:note(server, a "203.0.113.1:5000", proof)
    assert.equal(proof, m:proof(a "198.51.100.20:4433"))
    local other = ("q"):rep(20)
    m:note(a "198.51.100.20:4433", a "203.0.113.1:6000", other)
    assert.equal(other, m:proof(a "198.51.100.20:4433"))
    assert.equal(proof, m:proof(server))
    assert.same({ a "203.0.113.1:5000" .. proof }, m:pubs())
  end)
end)

describe("P1 test messages, where local addresses cannot apply,", function()
  it("go to no local address unless told so", function()
    local pubs, locals = { a "203.0.113.2:7000" }, { a "10.0.0.2:7000" }
    local public = { "203.0.113.2:7000 srflx 1" }
    local function tried(reveal, own)
      local m = manager { reveal = reveal }
      m:note(server, a(own), proof)
      return texts(m:candidates(pubs, locals))
    end
    assert.same(public, tried(nil, "203.0.113.1:5000"))
    assert.same({ "10.0.0.2:7000 host 1", public[1] }, tried(nil, "203.0.113.2:5000"))
    assert.same({ "10.0.0.2:7000 host 1", public[1] }, tried("always", "203.0.113.1:5000"))
    assert.same(public, tried("never", "203.0.113.2:5000"))
  end)
end)
