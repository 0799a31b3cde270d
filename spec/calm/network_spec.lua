-- SPDX-License-Identifier: MIT
-- A kernel that for a while takes no datagram, or hands none over: nobody is disconnected, nobody spins, and within
-- a second after it datagrams flow again.

local support = require "spec.calm.support"

local OUTAGE_MS = 300

describe("a kernel that fails", function()
  local world, server, host, join, three

  setup(function()
    world = support.world()
    server = world:server()
    host, join = world:pair(server)
    three = { server, host, join }
  end)
  teardown(function() world:close() end)

  -- Does it to all three while the host talks, and asks the server; what was measured, as a comment.
  local function outage(what, set, error)
    for _, p in ipairs(three) do set(p.page, error) end
    local failed = {}
    for i, p in ipairs(three) do failed[i] = table.pack(p.page:failures()) end
    for n = 1, 5 do host.input:write("in vain ", n, "\n") end
    local sock = assert(world.env.udp(require("bodkin.core").addr.parse("127.0.0.1", 0)))
    sock:send(server.at, require("bodkin.message").address_request:encode(("t"):rep(12)))
    local load = world:load(three, OUTAGE_MS)
    sock:close()
    local tries = 0
    for i, p in ipairs(three) do
      local now = table.pack(p.page:failures())
      tries = math.max(tries, now[1] - failed[i][1], now[2] - failed[i][2])
      set(p.page)
    end
    local there, back = world:recovers(host, join, 1000), world:recovers(join, host, 1000)
    local answer = world:answers(server, 1000)
    support.say("%s %s: %.1f %% of a core, %d tries in %d ms; after it %.0f, %.0f and %.0f ms", what, error, 100 * load,
      tries, OUTAGE_MS, there, back, answer)
    assert.is_true(tries > 0)
    assert.is_true(load < 0.05, load)
    assert.is_true(tries < 1500, tries)
  end

  for _, error in ipairs { "ENOBUFS", "ENOMEM", "EAGAIN", "EINTR", "EPERM", "ENETUNREACH", "ECONNREFUSED" } do
    it("takes nothing: " .. error, function()
      outage("send:", getmetatable(server.page).sends_fail, error)
    end)
  end

  for _, error in ipairs { "ENOMEM", "EINTR", "ECONNREFUSED" } do
    it("hands nothing over: " .. error, function()
      outage("receive:", getmetatable(server.page).receives_fail, error)
    end)
  end

  it("leaves its traces in the counters, and nobody was disconnected", function()
    local counters = support.status(server)
    for _, name in ipairs { "udp_rx_failed", "udp_icmp" } do assert.is_true(counters[name] > 0, name) end
    for _, p in ipairs { host, join } do
      assert.is_nil(p:code())
      local _, times = p:stderr():gsub("connected to", "")
      assert.equal(1, times)
      assert.is_nil(p:stderr():find "is gone", p:stderr())
    end
  end)
end)

describe("a small send buffer before a slow device", function()
  local world
  local function namespace() return "bodkin-" .. world.dir:match "[^.]*$" end
  before_each(function() world = support.world() end)
  after_each(function()
    os.execute(("ip netns del %s 2>/dev/null"):format(namespace()))
    world:close()
  end)

  it("is full for as long as it is, without a spin; then what is sent arrives", function()
    local name = namespace()
    if not os.execute(("{ ip netns add %s && ip -n %s link set lo up && ip netns exec %s tc qdisc add dev lo root tbf "
      .. "rate 2mbit burst 5kb limit 1mb; } 2>/dev/null"):format(name, name, name)) then
      return pending "only root may make a slow device"
    end
    local program = world:wrap { sndbuf = 2304 }
    local text, ok = support.run { "ip", "netns", "exec", name, program, "run", "spec/calm/narrow.lua" }
    assert(ok, text)
    local r = assert(require("bodkin.json").decode(text))
    support.say("4 MB in a second to 250 KB/s: %d heard, %d times put off, %d dropped, %.1f %% of a core; after it a "
      .. "datagram takes %.0f ms", r.heard, r.udp_tx_again, r.udp_tx_dropped, 100 * r.cpu, r.last_ms)
    assert.is_true(r.udp_tx_again > 0 and r.udp_tx_dropped > 1000)
    assert.is_true(r.heard > 100 and r.heard < 1000)
    assert.is_true(r.cpu < 0.2)
    assert.is_true(r.last_ms < 1000)
  end)
end)
