-- SPDX-License-Identifier: MIT
-- A man in the middle of real traffic: he sits in the lab's core, between clients and server and between peers. Nothing
-- is delivered but what was sent, and that once; nothing crashes (the sanitizers look, where that binary was made); and
-- when he merely forwards, all is as ever. SOAK=n tries more seeds. ATTACK=first:count says which.

local attackers = require "bodkin.sim.attacker"
local core = require "bodkin.core"
local json = require "dkjson"
local lab = require "bodkin.lab"
local shell = require "bodkin.lab.shell"
local support = require "spec.lab.support"
local talker = require "spec.lab.talker"

local COUNT, EVERY_MS = 120, 20
local ASAN = (os.getenv "BUILD" or "build") .. "/asan/bodkin"
local binary = shell.read(ASAN) and ASAN or support.binary
local soak = tonumber(os.getenv "SOAK")
local first, seeds = (os.getenv "ATTACK" or ("%d:%d"):format(soak and 10 * soak or 1, soak and 10 or 2))
  :match "^(%d+):(%d+)$"

-- Where the two pairs stand, and how he treats them: { NATs, attack }; each seed takes the next one.
local PLACES = {
  { { a = "port_restricted", b = "port_restricted", c = "none", d = "full_cone" }, 0.2 },
  { { a = "none", b = "none", c = "port_restricted", d = "carrier" }, 0.4 },
  { { a = "full_cone", b = "address_restricted", c = "port_restricted", d = "none" },
    { a = 0.15, b = 0.15, c = 0.15, d = 0.15 } }, -- of two links: more between peers
}

-- Two pairs begin to talk in a lab of their own.
local function begin(options)
  local net = assert(lab.up(options))
  net.binary = options.attack == 0 and support.binary or binary
  net.serving = net.server:start { net.binary, "serve", "--json", "--admin", net.dir .. "/server.admin" }
  local line = assert(net.serving:expect('"listening"', 10000))
  net.talkers = {}
  for i, pair in ipairs { { "a", "b" }, { "c", "d" } } do
    for n, host in ipairs(pair) do
      if net[host] then
        net.talkers[host] = { app = "talk" .. i .. "/1", role = n == 1 and "a" or "b", peer = pair[3 - n],
          process = net[host]:start { net.binary, "run", "spec/lab/talker.lua", n == 1 and "a" or "b",
            json.decode(line).url, "talk" .. i .. "/1", tostring(COUNT), tostring(EVERY_MS) } }
      end
    end
  end
  return net
end

-- What one said: kind -> list.
local function said(process)
  local list = { sent = {}, got = {}, connected = {}, closed = {} }
  for _, line in ipairs(process:lines()) do
    local kind, x = line:match "^(%l+)\t?(.*)$"
    table.insert(assert(list[kind], line), x)
  end
  return list
end

-- How often this happened in the server.
local function counted(net, name)
  local status = net.server:start { support.binary, "status", "--json", "--admin", net.dir .. "/server.admin" }
  assert.equal(0, status:wait(10000), status:stdout() .. status:stderr())
  for _, line in ipairs(status:lines()) do
    for _, counter in ipairs(json.decode(line).counters or {}) do
      if counter.name == name then return counter.value end
    end
  end
  error("no counter " .. name)
end

-- Waits until they are done, and holds what each got against what the other sent. Returns how many there were of
-- each: sent, got, connected (sides), attacks (by deed).
local function finish(net)
  local total, what = { sent = 0, got = 0, connected = 0, attacks = {} }, {}
  for host, t in pairs(net.talkers) do
    local code = t.process:wait(45000)
    assert(code == 0 and t.process:stderr() == "", ("%s: exit code %s\n%s"):format(host, code, t.process:stderr()))
    what[host] = said(t.process)
  end
  for host, t in pairs(net.talkers) do
    local peer, sent, seen = net.talkers[t.peer], {}, {}
    for _, n in ipairs(what[t.peer].sent) do sent[tonumber(n)] = true end
    for _, hex in ipairs(what[host].got) do
      local n = talker.number(peer.app, peer.role, core.crypto.unhex(hex))
      assert(n and sent[n], ("%s got what %s never sent: %s"):format(host, t.peer, hex))
      assert(not seen[n], ("%s got message %d twice"):format(host, n))
      seen[n] = true
    end
    total.sent, total.got = total.sent + #what[t.peer].sent, total.got + #what[host].got
    total.connected = total.connected + (#what[host].connected > 0 and 1 or 0)
  end
  assert(net:check())
  assert.is_nil(net.serving:code(), "the server ended: " .. net.serving:stderr())
  assert.equal(0, counted(net, "handler_error"))
  assert.is_nil(net.serving:stderr():find "traceback", net.serving:stderr())
  for deed in (shell.read(net.dir .. "/attacks") or ""):gmatch "(%S+)[^\n]*\n" do
    total.attacks[deed] = (total.attacks[deed] or 0) + 1
  end
  return total
end

describe("a man in the middle", function()
  it("who merely forwards is not noticed", function()
    local net <close> = begin { a = "port_restricted", b = "carrier", delay_ms = 20, attack = 0 }
    local total = finish(net)
    assert.equal(2, total.connected)
    assert.equal(2 * COUNT, total.sent)
    assert.equal(2 * COUNT, total.got)
    assert.same({}, total.attacks)
    local found, message = net:probe() -- his checksums are right, and the NATs what they were
    assert(found, message)
  end)

  it("who does what he likes delivers nothing that was not sent, nor twice, and crashes nobody", function()
    local all, deeds, connected, talkers = {}, 0, 0, 0
    local last = tonumber(first) + tonumber(seeds) - 1
    for seed = tonumber(first), last, 2 do -- two labs at once
      local nets <close> = setmetatable({}, { __close = function(nets)
        for _, net in ipairs(nets) do net:down() end
      end })
      for s = seed, math.min(seed + 1, last) do
        local place = PLACES[1 + s % #PLACES]
        local options = { delay_ms = 10, attack = place[2], seed = s }
        for host, kind in pairs(place[1]) do options[host] = kind end
        nets[#nets + 1] = begin(options)
      end
      for i, net in ipairs(nets) do
        local ok, total = pcall(finish, net)
        if not ok then error(("ATTACK=%d:1: %s"):format(seed + i - 1, tostring(total)), 0) end
        for name, n in pairs(total.attacks) do
          all[name] = (all[name] or 0) + n
          deeds = deeds + n
        end
        connected, talkers = connected + total.connected, talkers + 4
        print(("# man in the middle, seed %d: %d of 4 sides connected, %d of %d messages delivered"):format(
          seed + i - 1, total.connected, total.got, total.sent))
        all.got = (all.got or 0) + total.got
      end
    end
    print(("# man in the middle: %d deeds"):format(deeds))
    for _, name in ipairs(attackers.names) do assert(all[name], "he never did " .. name) end
    assert(connected * 4 >= talkers and all.got > 100, "hardly anybody met, so nothing was tried")
  end)
end)
