-- SPDX-License-Identifier: MIT
-- The reply rule, seen from outside at every event: until an address has shown the proof that was sent to it, a server
-- sends it at most one datagram a request, none longer than the request.
local core = require "bodkin.core"
local node = require "bodkin.client.node"
local servers = require "bodkin.servers"
local task = require "bodkin.task"
local worlds = require "bodkin.sim.world"

local addr = core.addr
local SERVER = addr.parse("198.51.100.10:4433", 0)
local ADDRESS_REPORT, PROOF_BYTES = 2, 20
local CLIENTS = 12 -- a page of them is longer than what asks for it

-- Returns fn(event, src, dst, bytes), to be called for each, and the list of what was violated.
local function watch()
  local waiting, proofs, proven, violations, seen = {}, {}, {}, {}, { requests = 0, replies = 0, proven = 0 }
  local function answered(dst, n)
    for i, length in ipairs(waiting[dst] or {}) do
      if length >= n then return table.remove(waiting[dst], i) end
    end
  end
  return function(event, src, dst, bytes)
    if event == "recv" and dst == SERVER then
      for _, proof in ipairs(proofs[src] or {}) do
        if not proven[src] and bytes:find(proof, 1, true) then
          proven[src], seen.proven = true, seen.proven + 1
        end
      end
      if proven[src] then return end
      waiting[src] = waiting[src] or {}
      table.insert(waiting[src], #bytes)
      seen.requests = seen.requests + 1
    elseif event == "send" and src == SERVER then
      if bytes:byte(2) == ADDRESS_REPORT then
        proofs[dst] = proofs[dst] or {}
        table.insert(proofs[dst], bytes:sub(-PROOF_BYTES))
      end
      if proven[dst] then return end
      seen.replies = seen.replies + 1
      if not answered(dst, #bytes) then
        table.insert(violations, ("%d bytes to %s, which asked for none so long"):format(#bytes, addr.format(dst)))
      end
    end
  end, violations, seen
end

describe("the reply rule", function()
  it("holds while clients come and go and a stranger repeats what they sent", function()
    local world = worlds.new { seed = 5, delay_ms = 20, jitter_ms = 5, loss = 0.05, duplicate = 0.05 }
    local see, violations, seen = watch()
    local stranger = world:host { name = "stranger", ip = "192.0.2.66" }
    local record, copies = world.net.record, 0
    world.net.record = function(event, src, dst, bytes)
      record(event, src, dst, bytes)
      see(event, src, dst, bytes)
      if event ~= "recv" or dst ~= SERVER or copies > 3000 or addr.same_ip(src, stranger.node.ips[1]) then return end
      for i = 0, 2 do -- whole, shorter by a byte, and from the address of one who never spoke
        copies = copies + 1
        local from = addr.with_port(i < 2 and stranger.node.ips[1] or addr.parse("192.0.2.99", 0), 1 + copies % 7)
        world.net:inject(stranger.node, from, SERVER, i == 1 and bytes:sub(1, -2) or bytes)
      end
    end
    local server = assert(servers.open(world:host({ name = "server", ip = "198.51.100.10" }).env, {
      listen = { "198.51.100.10:4433" },
    }))
    local nodes = {}
    for i = 1, CLIENTS do
      local nat = world:nat { name = "nat" .. i, ip = "203.0.113." .. i, kind = "port_restricted" }
      local host = world:host { name = "client" .. i, ip = "192.168.1.2", behind = nat }
      task.spawn(function()
        nodes[i] = assert(node.open {
          env = host.env, server = "bodkin://server", server_keys = server.public_keys, app = "x/1", name = "n" .. i,
        })
        task.sleep(host.env, 2000)
        if i % 2 == 0 then assert(nodes[i]:join(nodes[i - 1].id)) end
        nodes[i]:list {}
      end)
    end
    world:run(20000)
    for i = 1, CLIENTS do task.spawn(function() nodes[i]:close() end) end
    world:run(5000)
    server:close()
    world:close()
    assert.same({}, violations)
    assert(seen.requests > 300 and seen.replies > 50 and seen.proven >= CLIENTS,
      ("%d %d %d"):format(seen.requests, seen.replies, seen.proven))
  end)

  it("is noticed when broken", function()
    local see, violations = watch()
    local x = addr.parse("192.0.2.1:1", 0)
    see("recv", x, SERVER, ("x"):rep(50))
    see("send", SERVER, x, ("y"):rep(50))
    assert.same({}, violations)
    see("send", SERVER, x, "y")
    assert.equal(1, #violations)
    see("recv", x, SERVER, ("x"):rep(50))
    see("send", SERVER, x, ("y"):rep(51))
    assert.equal(2, #violations)
    local report = "\x95\x02" .. ("p"):rep(PROOF_BYTES)
    see("recv", x, SERVER, ("x"):rep(50))
    see("send", SERVER, x, report)
    see("recv", x, SERVER, "proof: " .. ("p"):rep(PROOF_BYTES))
    see("send", SERVER, x, ("y"):rep(500))
    see("send", SERVER, x, ("y"):rep(500))
    assert.equal(2, #violations)
  end)
end)
