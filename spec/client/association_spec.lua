-- SPDX-License-Identifier: MIT

local core = require "bodkin.core"
local message = require "bodkin.message"
local support = require "spec.client.support"

describe("association", function()
  local s
  after_each(function() s:close() end)

  local function natted(n, options)
    local nat = s:nat("nat" .. n, "203.0.113." .. n, options)
    return s:host("host" .. n, "192.168.1.2", nat), nat
  end
  local function count(name) return s.server.counters:get(name) end

  it("opens in two round trips from nothing, with the first requests inside", function()
    s = support.new { delay_ms = 20 }
    local began = s.world:now()
    local a = s:open(natted(1))
    assert.equal(2 * 2 * 20, (s.world:now() - began) // 1000)
    assert.equal(1, count "associated")
    assert.equal(1, s.server.assocs:count())
    assert.equal(1, count "registered")
    assert.equal(1, #support.events(a, "registered"))
  end)

  it("brings a second client together in two round trips to the server and the punch", function()
    s = support.new { delay_ms = 20 }
    local a = s:open(natted(1))
    local room = s:run(function() return assert(a:host()) end)
    s.world:run(5000)
    local host, began = natted(2), s.world:now()
    s:run(function()
      local b = assert(require("bodkin.client.node").open {
        env = host.env, server = support.url, server_keys = support.keys, app = "spec/1", register = false,
      })
      local m = assert(b:join(room.code))
      assert(m:wait_connected(5000))
      s.nodes[#s.nodes + 1] = b
    end)
    -- to the server and back, and there with the selection; from there to both; and from peer to peer
    assert.equal(3 * 20 + 20 + 20, (s.world:now() - began) // 1000)
  end)

  it("carries a registration and a ticket in one handshake", function()
    local server = require "bodkin.servers"
    s = support.new { delay_ms = 20, roles = { "address" } }
    local hub = s:host("queues", "198.51.100.11")
    s.server = assert(server.open(hub.env, { listen = { "198.51.100.11:4433" }, keys = { support.key },
      queues = { ["*"] = { policy = "first_come" } } }))
    s.servers[hub] = s.server
    local took = {}
    local function match(n) return s:open(natted(n), { server = "bodkin://198.51.100.11", register = false }) end
    local a, b = match(1), match(2)
    local began = s.world:now()
    s:run(function()
      local task = require "bodkin.task"
      local other = task.spawn(function() return assert(a:match("duel", {})) end)
      assert(b:match("duel", {}))
      took.matched = (s.world:now() - began) // 1000
      other:join()
    end)
    assert.equal(2, count "associated")
    assert.equal(2, count "ticket_queued")
    -- each one round trip, and what a policy waits; the address was known
    assert.is_true(took.matched <= 40 + 1100, took.matched .. " ms")
  end)

  it("is opened again when the server was restarted, as soon as it is asked anything", function()
    s = support.new()
    local a = s:open(natted(1))
    s:kill()
    s.server = s:serve(s.hub)
    s.world:run(17000) -- the next maintenance
    assert.equal(1, count "association_lost")
    assert.equal(1, count "associated")
    assert.equal(1, s.server.registry:count())
    s:run(function() assert.equal(1, #a:list()) end)
  end)

  it("goes on through a NAT that gave another port: asked there, then followed, then registered", function()
    s = support.new { expose_addresses = true }
    local host, nat = natted(1)
    local a = s:open(host)
    local before = s:run(function() return assert(a:lookup(a.id)) end).pubs[1]
    nat:rebind()
    local began = s.world:now()
    local list = s:run(function() return assert(a:list()) end)
    assert.equal(1, #list)
    assert.equal(2 * 40, (s.world:now() - began) // 1000) -- one round trip more, for the challenge
    assert.equal(1, count "client_moved")
    assert.equal(1, count "associated")
    s.world:run(1000)
    local after = s:run(function() return assert(a:lookup(a.id)) end).pubs[1]
    assert.not_equal(before, after)
  end)

  it("hears what is pushed to it after a rebind, and not before it answered from there", function()
    s = support.new()
    local host, nat = natted(1)
    local a, b = s:open(host), s:open(natted(2))
    local room = s:run(function() return assert(a:host()) end)
    nat:rebind()
    s.world:run(16500) -- maintenance, and with it the challenge
    assert.equal(1, count "client_moved")
    s:run(function()
      local m = assert(b:join(room.code))
      assert(m:wait_connected(5000))
    end)
  end)

  it("is not ended by a `lost` that nobody who saw its frames can have sent", function()
    s = support.new()
    local a = s:open(natted(1))
    local sock = { send = function() error("it is not answered") end }
    for _, tx in ipairs { ("x"):rep(12), ("\0"):rep(12), ("\255"):rep(12) } do
      a.router:input(sock, a.server, message.lost:encode(tx))
    end
    s.world:run(1000)
    assert.equal(1, count "associated")
    assert.equal(3, a.env.counters:get("drop_reply"))
  end)

  it("is replaced once a second at most, by a `lost` that an eavesdropper sends, and loses nothing", function()
    s = support.new()
    local a = s:open(natted(1))
    local current = a.requests.association
    local sock, stop = { send = function() end }, false
    for i = 1, 50 do
      local frame = current.current and current.current:write("\xc0")
      if frame then a.router:input(sock, a.server, message.lost:encode(frame:sub(2, 13))) end
      s.world:run(100)
      if i % 10 == 0 then s:run(function() assert.equal(1, #assert(a:list())) end) end
    end
    assert.is_false(stop)
    assert.is_true(count "associated" <= 8, count "associated" .. " handshakes")
    assert.equal(1, s.server.registry:count())
  end)

  it("is replaced after ten minutes, and pushes to the one before are heard", function()
    s = support.new { trace = false }
    local a = s:open(natted(1))
    s.world:run(540000)
    assert.equal(1, count "associated")
    s.world:run(120000)
    assert.equal(2, count "associated")
    assert.equal(1, s.server.registry:count())
    s.world:run(160000)
    assert.equal(1, s.server.assocs:count()) -- the old one ran out
    assert.equal(0, #support.events(a, "error"))
  end)

  it("takes the second key of its URL where the server has not the first, and no third", function()
    s = support.new { keys = { ("n"):rep(32), support.key } }
    local other = core.crypto.keypair(("o"):rep(32))
    local a = s:open(natted(1), { server_keys = { other, support.keys[1] } })
    assert.equal(1, s.server.registry:count())
    assert.equal(1, count "association_refused")
    assert.is_true(a.registration.active)
    local n, err, code = s:try(natted(2), { server_keys = { other } })
    assert.is_nil(n)
    assert.equal("bad_key", code)
    assert.equal("this server has another key", err)
  end)

  it("takes nothing that is forged: a handshake's answer, a frame, a message outside of it", function()
    s = support.new()
    local a = s:open(natted(1))
    local sock = { send = function() error("it is not answered") end }
    local dropped = a.env.counters:get("drop_frame")
    a.router:input(sock, a.server, "\xc1" .. ("\0"):rep(60))
    assert.equal(dropped + 1, a.env.counters:get("drop_frame"))
    a.router:input(sock, a.server, message.registered:encode(("t"):rep(12), core.addr.parse("9.9.9.9:9"), 60,
      ("b"):rep(8)))
    assert.equal(1, a.env.counters:get("drop_unsealed"))
  end)

  it("answers a challenge for its client alone: another's answer from the new address moves nothing", function()
    s = support.new()
    local host, nat = natted(1)
    local a = s:open(host)
    local raw = a.requests.association.current
    -- The client's frame, seen on the way and sent on by somebody else, who cannot read what he is asked.
    local thief = s:host("thief", "203.0.113.66")
    local sock = assert(thief.env.udp(core.addr.parse("0.0.0.0:0"), {}))
    local asked
    sock:on_packet(function(_, bytes) asked = bytes end)
    sock:send(a.server, raw:write(message.maintain:encode(("t"):rep(12), a.identity.id)))
    s.world:run(200)
    assert.is_truthy(asked)
    local challenge = raw:write("12345678") -- sealed by the client, but no answer, nor of eight bytes that were asked
    sock:send(a.server, challenge)
    s.world:run(200)
    assert.equal(0, count "client_moved")
    sock:close()
    nat:rebind()
    s:run(function() assert.equal(1, #assert(a:list())) end)
    assert.equal(1, count "client_moved")
  end)

  it("is opened once by one first message: a copy is answered alike from there, and elsewhere or later not", function()
    s = support.new()
    local host = natted(1)
    local first
    local udp = host.env.udp
    host.env.udp = function(...)
      local sock = udp(...)
      local send = sock.send
      function sock.send(self, to, bytes, ...)
        if bytes:byte(2) == 24 then first = bytes end
        return send(self, to, bytes, ...)
      end
      return sock
    end
    local a = s:open(host)
    local from = core.addr.parse(a.addresses:public_texts()[1])
    local sent = {}
    local sock = { send = function(_, to, bytes) sent[#sent + 1] = { to, bytes } end }
    local router = s.server.routers[1]
    -- not used yet: the same bytes come back
    router:input(sock, from, first)
    assert.equal(1, #sent)
    local opened = sent[1][2]
    router:input(sock, from, first)
    assert.equal(opened, sent[2][2])
    -- with a proof of another address, from there
    local other = core.addr.parse("203.0.113.99:9")
    local tx, _, noise = message.open:decode(first)
    router:input(sock, other, message.open:encode(tx, s.server.cookie:proof(other), noise))
    assert.equal(2, #sent)
    -- and once its client has used it, not at all
    s:run(function() assert.equal(1, #assert(a:list())) end)
    router:input(sock, from, first)
    assert.equal(2, #sent)
    assert.equal(1, count "associated")
    assert.equal(2, count "association_refused")
  end)

  it("is forgotten by the server ten seconds after its client left, else after 150", function()
    s = support.new { trace = false }
    local a, b = s:open(natted(1)), s:open(natted(2))
    s.world:run(1000)
    s:run(function() a:close() end)
    s.world:run(5000)
    assert.equal(2, s.server.assocs:count())
    s.world:run(16000) -- a sweep takes ten seconds
    assert.equal(1, s.server.assocs:count())
    s:run(function() assert.equal(1, #assert(b:list())) end)
  end)

  it("has no trace written that would hold the secret of an identity that is kept", function()
    s = support.new()
    local host = natted(1)
    local n, err, code = s:try(host, { identity_key = ("i"):rep(32), trace = function() end })
    assert.is_nil(n)
    assert.equal("invalid", code)
    assert.matches("secret", err)
    assert.is_truthy(s:try(host, { identity_key = ("i"):rep(32) }))
  end)

  it("erases its ephemerals", function()
    s = support.new { trace = false }
    local a = s:open(natted(1))
    s.world:run(900000)
    assert.is_true(#a.ephemerals.list <= 6, #a.ephemerals.list .. " are kept")
  end)

  it("takes no answer in the clear to what it asked sealed", function()
    s = support.new { delay_ms = 50 }
    local a = s:open(natted(1))
    local sock = { send = function() error("it is not answered") end }
    local result = s:run(function()
      local task = require "bodkin.task"
      local asking = task.spawn(function() return table.pack(a:list()) end)
      task.sleep(a.env, 1)
      for _, r in ipairs(a.requests:sealed_pending()) do
        a.router:input(sock, a.server, message.refused:encode(r.tx, 1001, "go away"))
      end
      local _, list = asking:join()
      return list
    end)
    assert.equal(1, #assert(result[1]))
  end)

  it("is not opened by a forged answer, and is by the true one after it", function()
    s = support.new { delay_ms = 50 }
    local host = natted(1)
    local forged = 0
    local udp = host.env.udp
    host.env.udp = function(...)
      local sock = udp(...)
      local router = sock.router
      sock.router = function(self, r)
        return router(self, { input = function(_, by, from, bytes)
          if bytes:byte(2) == 25 and forged == 0 then
            forged = forged + 1
            r:input(by, from, bytes:sub(1, -2) .. string.char(bytes:byte(-1) ~ 1))
            return true
          end
          return r:input(by, from, bytes)
        end })
      end
      return sock
    end
    local a = s:open(host)
    assert.equal(1, forged)
    assert.is_true(a.registration.active)
  end)
end)
