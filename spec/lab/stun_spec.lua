-- SPDX-License-Identifier: MIT
-- STUN with programs of others, through a NAT: coturn's client and libnice learn their address from our server, and our
-- client learns its own from coturn's. What is not installed is skipped, and said so.

if (os.getenv "SOAK" or "1") ~= "1" then return end -- once a soak

local json = require "dkjson"
local lab = require "bodkin.lab"
local shell = require "bodkin.lab.shell"
local support = require "spec.lab.support"

describe("STUN, through a NAT,", function()
  local net

  setup(function()
    net = assert(lab.up { a = "port_restricted", servers = 2, delay_ms = 5 })
    net.listening = json.decode((assert(net.server:start {
      support.binary, "serve", "--json", "--listen", net.server.addr .. ":3478", "--admin", net.dir .. "/server.admin",
    }:expect('"listening"', 10000))))
  end)

  teardown(function() net:down() end)

  local function need(command, what)
    if not shell.run(command) then pending(what .. " is not installed") end
  end

  it("tells coturn's client its address", function()
    need("command -v turnutils_stunclient", "coturn")
    local p = net.a:start { "turnutils_stunclient", "-p", "3478", net.server.addr }
    p:wait(10000)
    assert.matches("UDP reflexive addr: " .. net.a.public:gsub("%.", "%%.") .. ":%d+", p:stdout(), 1, p:stderr())
  end)

  it("tells libnice its address", function()
    need("pkg-config --exists nice && command -v gcc", "libnice-dev")
    local ok, text = shell.run(("gcc -o %s/nice bench/nice.c bench/signals.c $(pkg-config --cflags --libs nice)")
      :format(net.dir))
    assert(ok, text)
    local p = net.a:start { net.dir .. "/nice", "a", net.a.addr, net.server.addr, net.dir, "0", "0", "1500" }
    assert.equal(0, p:wait(10000), p:stderr())
    assert.matches("candidate a=candidate:[^\n]+ " .. net.a.public:gsub("%.", "%%.") .. " %d+ typ srflx",
      shell.read(net.dir .. "/a"))
  end)

  it("is spoken by a client to coturn's server, whose word counts as far as it can be proven", function()
    need("command -v turnserver", "coturn")
    local coturn = net.server2:start { "turnserver", "-n", "--stun-only", "-L", net.server2.addr, "-p", "3478",
      "--no-tcp", "--no-tls", "--no-dtls", "--no-cli", "--log-file", net.dir .. "/turn.log",
      "--pidfile", net.dir .. "/turn.pid" }
    local p = net.a:start { support.binary, "host", "--json", "--server", net.listening.url, "--address-server",
      "stun:" .. net.server2.addr }
    local registered = json.decode((assert(p:expect('"registered"', 10000))))
    assert.equal(1, #registered.public)
    assert.matches("^" .. net.a.public:gsub("%.", "%%.") .. ":%d+$", registered.public[1])
    p:kill "INT"
    assert.equal(130, p:wait(5000), p:stderr())
    coturn:kill "KILL"
    local counters = support.counters(net)
    assert.equal(1, counters.registered)
    assert.equal(0, counters.address_cookie_bad)
  end)
end)
