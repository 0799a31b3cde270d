-- SPDX-License-Identifier: MIT
-- Connections on the simulated network, beyond what the contract of env asks (spec/contract/env.lua).
local core = require "bodkin.core"
local worlds = require "bodkin.sim.world"

local addr = core.addr
local SERVER = addr.parse "198.51.100.9:443"

describe("tcp in the simulator", function()
  local world
  after_each(function() world:close() end)

  -- A server that answers, and a client behind a NAT of that kind.
  local function new(options, nat)
    world = worlds.new(options)
    local box
    if nat then
      nat.name, nat.ip = "nat", "203.0.113.1"
      box = world:nat(nat)
    end
    local server = world:host { name = "server", ip = "198.51.100.9" }
    local host = world:host { name = "host", ip = "192.168.1.2", behind = box }
    local listens, got, back, froms = assert(server.env.tcp(SERVER)), {}, {}, {}
    listens:on_packet(function(from, bytes)
      got[#got + 1], froms[#froms + 1] = bytes, from
      listens:send(from, bytes .. "!")
    end)
    local sock = assert(host.env.tcp(addr.parse "0.0.0.0:0", { port = 443 }))
    sock:on_packet(function(_, bytes) back[#back + 1] = bytes end)
    local function close()
      listens:close()
      sock:close()
    end
    return { server = server, host = host, box = box, sock = sock, got = got, back = back, froms = froms,
      close = close }
  end

  it("takes a round trip to connect", function()
    local w = new { delay_ms = 20 }
    w.sock:send(SERVER, "x")
    world:run(59)
    assert.same({}, w.got)
    world:run(2)
    assert.same({ "x" }, w.got)
    world:run(20)
    assert.same({ "x!" }, w.back)
    w.close()
  end)

  it("loses nothing and keeps the order where packets are lost, late and doubled", function()
    for seed = 1, 20 do
      local w = new { seed = seed, delay_ms = 20, jitter_ms = 30, loss = 0.3, duplicate = 0.2, reorder = 0.3 }
      local want, want_back = {}, {}
      for i = 1, 100 do
        want[i], want_back[i] = tostring(i), i .. "!"
        world.loop:timer(i * 10, function() w.sock:send(SERVER, want[i]) end)
      end
      world:run(40000)
      assert.same(want, w.got)
      assert.same(want_back, w.back)
      w.close()
      world:close()
    end
  end)

  it("passes NATs of every kind, also one that blocks UDP", function()
    for _, kind in ipairs { "full_cone", "port_restricted", "plain_linux", "symmetric_random", "firewall" } do
      local w = new({}, { kind = kind, blocks = "udp" })
      local udp, heard = assert(w.host.env.udp(addr.parse "0.0.0.0:0")), nil
      local at_server = assert(w.server.env.udp(SERVER))
      at_server:on_packet(function() heard = true end)
      udp:send(SERVER, "x")
      w.sock:send(SERVER, "x")
      world:run(100000) -- a NAT's patience with silence does not count
      assert.is_nil(heard)
      assert.same({ "x!" }, w.back)
      assert.matches("drop:blocked", table.concat(world:trace(), "\n"), 1, true)
      udp:close()
      at_server:close()
      w.close()
      world:close()
    end
  end)

  it("a host that blocks UDP hears and sends none, and has TCP", function()
    local w = new({})
    local other = world:host { name = "other", ip = "192.0.2.1", blocks = "udp" }
    local heard
    local udp, at_server = assert(other.env.udp(addr.parse "0.0.0.0:5000")), assert(w.server.env.udp(SERVER))
    udp:on_packet(function() heard = true end)
    at_server:on_packet(function() heard = true end)
    udp:send(SERVER, "x")
    at_server:send(addr.parse "192.0.2.1:5000", "x")
    world:run(100)
    assert.is_nil(heard)
    udp:close()
    at_server:close()
    w.close()
  end)

  it("connects anew where the NAT has forgotten the connection", function()
    local w = new({}, { kind = "symmetric_random" })
    w.sock:send(SERVER, "one")
    world:run(200)
    w.box.rebind()
    w.sock:send(SERVER, "lost") -- the server knows no such connection
    world:run(1000)
    w.sock:send(SERVER, "two")
    world:run(1000)
    assert.same({ "one", "two" }, w.got)
    assert.not_equal(w.froms[1], w.froms[2])
    w.close()
  end)

  it("closes what says nothing in a minute", function()
    local w = new({})
    w.sock:send(SERVER, "x")
    world:run(61000)
    local before = #world:trace()
    w.sock:send(SERVER, "y")
    world:run(1000)
    assert.same({ "x", "y" }, w.got)
    assert.is_true(#world:trace() - before > 6) -- a connection, too
    w.close()
  end)
end)
