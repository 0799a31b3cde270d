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
    env = { now = function() return 1 end, interfaces = function() return interfaces end,
      source = function() return config.source end }, requests = {},
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

  -- A STUN server of somebody else on a host of its own: `answer(bytes, from)` -> bytes or nil.
  local function stranger(s, answer)
    local host = s:host("stranger", "198.51.100.30")
    local sock = assert(host.env.udp(a "198.51.100.30:3478"))
    sock:on_packet(function(from, bytes)
      local back = answer(bytes, from)
      if back then sock:send(from, back) end
    end)
    return sock, host
  end

  local stun = { address_server = "stun:198.51.100.30" }

  -- What the matching server tells others of a client.
  local function told(s, n)
    local other = s:open(s:host("other", "203.0.113.50"))
    return s:run(function() return assert(other:lookup(n.id)) end).pubs
  end

  it("asks any STUN server, and then the matching server proves what it said", function()
    local s = support.new { expose_addresses = true }
    local sock = stranger(s, core.stun.answer)
    local n = s:open(s:host("a", "192.168.1.2", s:nat("nat", "203.0.113.1")), stun)
    assert.equal(1, sock.counters:get "udp_tx")
    assert.equal(1, #n.addresses:public_texts())
    assert.equal(26, #n.addresses:pubs()[1])
    assert.same(n.addresses:public_texts(), told(s, n))
    assert.equal(0, s.server.counters:get "address_cookie_bad")
    sock:close()
    s:close()
  end)

  it("has what a STUN server saw counted where the IP is the observed one, as behind a symmetric NAT", function()
    local s = support.new { expose_addresses = true }
    local sock = stranger(s, core.stun.answer)
    local n = s:open(s:host("a", "192.168.1.2", s:nat("nat", "203.0.113.1", { kind = "symmetric_random" })), stun)
    local own = n.addresses:public_texts()
    assert.equal(2, #own)
    assert.equal(6, #n.addresses:pubs()[1])
    local pubs = told(s, n)
    table.sort(pubs)
    table.sort(own)
    assert.same(own, pubs)
    sock:close()
    s:close()
  end)

  it("is told nothing that counts by a STUN server that lies", function()
    local s = support.new { expose_addresses = true }
    local sock = stranger(s, function(bytes) return core.stun.answer(bytes, a "192.0.2.99:53") end)
    local n = s:open(s:host("a", "192.168.1.2", s:nat("nat", "203.0.113.1")), stun)
    local pubs = told(s, n)
    assert.equal(1, #pubs)
    assert.matches("^203%.0%.113%.1:", pubs[1])
    sock:close()
    s:close()
  end)

  it("survives a STUN server that answers anything, and takes the first that fits", function()
    local s = support.new()
    local n, elsewhere = 0, nil
    local sock, host = stranger(s, function(bytes, from)
      n = n + 1
      elsewhere:send(from, core.stun.answer(bytes, a "192.0.2.9:9"))
      local good = core.stun.answer(bytes, from)
      if n == 1 then return good:sub(1, -5) end                                  -- cut off
      if n == 2 then return good:sub(1, 8) .. ("x"):rep(12) .. good:sub(21) end  -- to nothing that was asked
      if n == 3 then return core.stun.answer(bytes, a "[2001:db8::1]:7") end     -- of another family
      if n == 4 then return core.stun.answer(bytes, a "192.0.2.1:0") end         -- nowhere
      return good
    end)
    elsewhere = assert(host.env.udp(a "198.51.100.30:3479"))
    local mine = s:host("a", "203.0.113.7")
    local node, err, code = s:try(mine, { address_server = "stun:198.51.100.30", timeout_ms = 20000 })
    assert(node, err, code)
    assert.equal(5, n)
    assert.equal(1, mine.env.counters:get "drop_stun")
    assert.equal(8, mine.env.counters:get "drop_reply")
    assert.same({ "203.0.113.7:49152" }, node.addresses:public_texts())
    sock:close()
    elsewhere:close()
    s:close()
  end)

  it("says what a STUN server answered, or that it did not", function()
    local s = support.new()
    local sock = stranger(s, function(bytes)
      return "\1\x11\0\8" .. bytes:sub(5, 20) .. "\0\9\0\4\0\0\3\0"
    end)
    local n, err, code = s:try(s:host("a", "203.0.113.7"), stun)
    assert.is_nil(n)
    assert.equal("refused", code)
    assert.equal("the STUN server 198.51.100.30:3478 answers with error 300: try another", err)
    local asked = sock.counters:get "udp_rx"
    sock:close()
    n, err, code = s:try(s:host("b", "203.0.113.8"), stun)
    assert.is_nil(n)
    assert.equal("timeout", code)
    assert.matches("^no answer from 198%.51%.100%.30:3478 after 5 s: ", err)
    assert.equal(1, asked)
    assert.equal(4, #s:sent("203.0.113.8")) -- at 0, 0.5, 1.5 and 3.5 s
    s:close()
  end)

  for _, first in ipairs { 4, 6 } do
    it("drops the address of a family over which a STUN server answers with an error from now on, be the "
      .. "other's answer " .. (first == 4 and "before" or "after") .. " that", function()
      local s, good = support.new { roles = support.NO_RELAY }, true
      local host, socks = s:host("dual", { "198.51.100.30", "2001:db8::30" }), {}
      for i, at in ipairs { "198.51.100.30:3478", "[2001:db8::30]:3478" } do
        socks[i] = assert(host.env.udp(a(at)))
        socks[i]:on_packet(function(from, bytes)
          local bad = not good and i == 2 and "\1\x11\0\8" .. bytes:sub(5, 20) .. "\0\9\0\4\0\0\5\0"
          host.env.timer((i == 1) == (first == 4) and 0 or 10, function()
            socks[i]:send(from, bad or core.stun.answer(bytes, from))
          end)
        end)
      end
      local n = s:open(s:host("a", { "203.0.113.7", "2001:db8::7" }), { address_server = "stun:dual" })
      s.world:run(1000)
      assert.equal(2, #n.addresses:pubs())
      good = false
      s:run(function() assert(n.addresses:learn(5000)) end)
      s.world:run(1000)
      assert.equal(1, #n.addresses:pubs())
      assert.equal(a "203.0.113.7:49152", n.addresses.public[4].addr)
      for _, sock in ipairs(socks) do sock:close() end
      s:close()
    end)
  end

  it("has a STUN server tell a fresh port's address, too", function()
    local s = support.new { roles = support.NO_RELAY, delay_ms = function(from, to)
      local both = from .. to
      return both:find "nat1" and both:find "nat2" and 50 or both:find "nat1" and 5 or 60
    end }
    local sock = stranger(s, core.stun.answer)
    local nodes = {}
    for i = 1, 2 do
      local nat = s:nat("nat" .. i, "203.0.113." .. i, { kind = "plain_linux" })
      nodes[i] = s:open(s:host("h" .. i, "192.168.1.2", nat), stun)
    end
    local public, room = nodes[1].addresses:public_texts(), s:run(function() return assert(nodes[1]:host()) end)
    nodes[2].addresses.rtt_ms = function() end -- so that the first tests come too early, and spoil the ports
    s:run(function() assert(nodes[2]:join(room.code)) end)
    s.world:run(500)
    nodes[2].addresses.rtt_ms = nil
    assert.is_nil(support.events(nodes[2], "path")[1])
    s.world:run(2500)
    for _, n in ipairs(nodes) do assert.is_truthy(support.events(n, "path")[1]) end
    assert.same(public, nodes[1].addresses:public_texts())
    sock:close()
    s:close()
  end)

  it("knows of no second router where nobody can be asked, and then sends no opener", function()
    local s = support.new()
    local sock = stranger(s, core.stun.answer)
    local far = { a "192.0.2.7:9" }
    for i, options in ipairs { {}, stun } do
      local n = s:open(s:host("h" .. i, "192.168.1.2", s:nat("nat" .. i, "203.0.113." .. i)), options)
      s.world:run(3000)
      assert.equal(i == 1 and 2 or 0, n.addresses:opener_ttl(far))
    end
    sock:close()
    s:close()
  end)

  it("says clearly that nobody answers", function()
    local s = support.new()
    local n, err, code = s:try(s:host("a", "203.0.113.7"), { server = "bodkin://198.51.100.99" })
    assert.is_nil(n)
    assert.equal("timeout", code)
    assert.equal("no answer from 198.51.100.99:4433 after 5 s: is UDP 4433 or TCP 443 open there? try bodkin ping", err)
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
    m:note(a "198.51.100.30:3478", a "203.0.113.1:5000") -- by who gives none
    assert.same({ a "203.0.113.1:5000" .. proof }, m:pubs())
  end)

  it("knows nothing by what was seen before, once the host is elsewhere or another address server is asked", function()
    local m, other = manager(), a "198.51.100.20:4433"
    for _, servers in ipairs { false, { [4] = other } } do
      m:note(server, a "203.0.113.1:5000", proof)
      m:note(other, a "203.0.113.1:6000", ("q"):rep(20))
      m:timed(server, 40000)
      m:moved(servers or nil)
      assert.same({ "203.0.113.1:5000" }, m:public_texts())
      assert.is_nil(m:rtt_ms(server))
      assert.is_true(m.stale)
      assert.equal(servers and proof or ("q"):rep(20), m:proof(other))
    end
  end)

  it("takes of a server that a match named its proof, until it is forgotten, and believes nothing else", function()
    local m, named, other = manager(), a "198.51.100.20:4433", ("q"):rep(20)
    m:note(server, a "203.0.113.1:5000", proof)
    m:note(named, a "203.0.113.1:5000", other, true)
    m:note(named, a "192.0.2.9:9", other, true)
    assert.same({ "203.0.113.1:5000" }, m:public_texts())
    assert.is_false(m.stale)
    assert.same({ other, proof }, { m:proof(named), m:proof(server) })
    m:forget(named)
    assert.equal(proof, m:proof(named))
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
