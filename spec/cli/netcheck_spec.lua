-- SPDX-License-Identifier: MIT
-- What netcheck says, behind each kind of NAT in the simulator, and as a user meets it on loopback.

package.path = "docs/?.lua;" .. package.path

local core = require "bodkin.core"
local dkjson = require "dkjson"
local made = require "netcheck"
local netcheck = require "bodkin.cli.netcheck"
local processes = require "spec.processes"
local reach = require "bodkin.client.reach"
local support = require "spec.client.support"
local tables = require "tables"
local theory = require "bodkin.sim.theory"

local binary = os.getenv "BODKIN" or "build/release/bodkin"

describe("netcheck", function()
  it("says what docs/NAT.md shows", function()
    local text = tables.read(tables.nat.file)
    assert.equal(tables.fill(text, tables.nat.sections), text, "run `make docs`")
  end)

  it("names whom one reaches as the theory has it, for each kind", function()
    for _, kind in ipairs(made.kinds) do
      local said = {}
      for _, line in ipairs(netcheck.lines("IPv4", made.found(kind))) do
        local title, names = line:match "^(%S[%a ']-) +with ([^:]*)"
        for name in (names or ""):gmatch "[^,]+" do said[name:match "^ ?(.*)$"] = title end
      end
      local titles = { yes = "direct", no = "relay needed", may = "timing" }
      for _, other in ipairs(reach.common) do
        assert.equal(titles[reach.verdict(theory.behaviour(kind), other)], said[other.name], kind .. " " .. other.name)
      end
    end
  end)

  it("does not pretend to know", function()
    local all = { EI = true, AD = true, APD = true }
    local text = table.concat(netcheck.lines("IPv4", { server = "s", asked = { "s" }, public = { "p" }, nat = true,
      mapping = all, filtering = { EI = true, AD = true }, ports = "unknown" }), "\n")
    assert.equal([[
server       s, over IPv4; asked at s
public       p, behind a NAT
mapping      can't tell: the server is at one address alone
filtering    can't tell: endpoint-independent or address-dependent, the server has too few addresses
ports        can't tell
hairpin      can't tell
direct       with no NAT, full cone, address-restricted
can't tell   with firewall, port-restricted, plain Linux, address-dependent, symmetric]], text)
  end)

  it("does not pretend to know whom a NAT reaches of which it is open whether what comes unasked spoils it", function()
    local function can(race, lets_in)
      local out = {}
      for _, line in ipairs(netcheck.lines("IPv4", { server = "s", asked = { "s" }, public = { "p" }, nat = true,
        mapping = { EI = true }, filtering = { [lets_in or "APD"] = true }, ports = "random", race = race })) do
        local title, names = line:match "^(%S[%a ']-) +(with [^:]*)"
        if title then out[title] = names end
      end
      return out
    end
    local spoilt, kept, open = can(true), can(false), can(nil)
    assert.is_string(spoilt.timing)
    assert.is_string(open["can't tell"])
    assert.is_nil(spoilt["can't tell"] or kept["can't tell"])
    assert.equal(spoilt.direct, open.direct)
    assert.equal(kept["relay needed"], open["relay needed"])
    for _, lets_in in ipairs { "EI", "AD" } do -- none of these can be spoilt
      assert.same(can(false, lets_in), can(nil, lets_in))
    end
  end)

  it("says how long a mapping lives", function()
    for text, lifetime in pairs { ["at least 130 s"] = { at_least_s = 130 }, ["under 15 s"] = { at_least_s = 0,
      below_s = 15 }, ["between 25 and 35 s"] = { at_least_s = 25, below_s = 35 } } do
      local lines = netcheck.lines("IPv4", { server = "s", asked = { "s" }, public = { "p" }, nat = true,
        mapping = { EI = true }, filtering = { EI = true }, ports = "random", hairpin = false, race = false,
        lifetime = lifetime })
      assert.equal("lifetime     of a mapping " .. text, lines[7])
    end
  end)

  it("finds how long a firewall lets answers in, where there is no NAT", function()
    for timeout_ms, text in pairs { [60000] = "between 50 and 70 s", [300000] = "at least 130 s" } do
      local s = support.new { ips = support.everywhere.ips, listen = support.everywhere.listen, trace = false }
      local host = s:host("h", "203.0.113.9", s:nat("fw", nil, { kind = "firewall", timeout_ms = timeout_ms }))
      local said = {}
      local out = { say = function() end, line = function(_, line) said[#said + 1] = line end }
      assert.is_true(s:run(function() return netcheck.ask(host.env, support.url, { lifetime = 1 }, out) end,
        200000).shown)
      local all = table.concat(said, "\n")
      assert.truthy(all:find("\nlifetime     of a way in that a packet out opens " .. text, 1, true), all)
      s:close()
    end
  end)

  it("asks over TCP, and has nothing open once that is answered", function()
    local s = support.new { tcp = true }
    local env, server = s:host("h", "203.0.113.1").env, core.addr.parse "198.51.100.10:4433"
    for _, port in ipairs { 444, 443 } do
      assert.equal(port == 443, s:run(function() return netcheck.answers_tcp(env, server, port) end))
    end
    s:close()
  end)

  describe("as a command", function()
    local all
    before_each(function() all = processes.new() end)
    after_each(function() all:close() end)

    local function run(words, command)
      command = command or "netcheck"
      local pipe = assert(io.popen(("timeout 20 %s %s %s 2>&1 </dev/null"):format(binary, command, words)))
      local text = pipe:read "a"
      local _, _, code = pipe:close()
      return code, text
    end

    local function serve(...)
      local own = ("%s/%d"):format(all.dir, #all.list) -- of several
      local words = { binary, "serve --json --admin", own .. ".admin", "--key-file", own .. ".key" }
      assert(os.execute(("%s keygen -q %s.key >/dev/null"):format(binary, own)))
      for _, at in ipairs { ... } do words[#words + 1] = "--listen " .. at end
      return processes.expect(all:start(table.concat(words, " ")), '"url":"([^"#]+)')
    end

    it("finds that there is no NAT, in text and JSON, by real servers", function()
      local url = serve("127.0.0.1:0", "127.0.0.1:0", "127.0.0.2:0")
      local code, text = run(url)
      assert.equal(0, code, text)
      assert.matches("public +127%.0%.0%.1:%d+, your own: no NAT between\n", text)
      assert.matches("filtering +endpoint%-independent: lets in anybody\n", text)
      assert.matches("IPv6 +can't tell: the server has no IPv6 address", text)
      local ping = assert(io.popen(("timeout 20 %s ping --bind 127.0.0.1:0 %s"):format(binary, url)))
      assert.matches("\nyour UDP port %d+ is reached by anybody\n$", ping:read "a")
      ping:close()
      code, text = run(url .. " --json")
      assert.equal(0, code, text)
      local found = assert(dkjson.decode(text))
      assert.same({ "netcheck", "IPv4", false, "none", "endpoint_independent", 3, 8, 0 }, { found.event, found.family,
        found.nat, found.mapping, found.filtering, #found.asked, #found.direct, #found.relay })
    end)

    it("asks the first of several servers", function()
      local url = serve("127.0.0.1:0", "127.0.0.1:0")
      local code, text = run(("--json --server '%s, bodkin://127.0.0.1:9'"):format(url))
      assert.equal(0, code, text)
      assert.equal(url:sub(10), dkjson.decode(text).server)
    end)

    it("and ping go on to the next server, also where the URL is an argument", function()
      local url = serve("127.0.0.1:0")
      local urls = ("'bodkin://127.0.0.1:9, %s'"):format(url)
      local code, text = run("--timeout 0.3 " .. urls)
      assert.equal(0, code, text)
      assert.matches("trying the next server: no answer from 127.0.0.1:9 after 0.3 s", text, 1, true)
      assert.matches("server       " .. url:sub(10), text, 1, true)
      for _, words in ipairs { urls, "--server " .. urls } do
        code, text = run(words .. " --timeout 1", "ping")
        assert.equal(0, code, text)
        assert.matches("answer from " .. url:sub(10), text, 1, true)
      end
      code, text = run("'bodkin://127.0.0.1:9, bodkin://127.0.0.2:8' --timeout 0.4", "ping")
      assert.equal(1, code)
      assert.matches("no answer from 127.0.0.1:9 or 127.0.0.2:8 after 0.4 s: is the server running, and UDP open "
        .. "there?", text, 1, true)
    end)

    it("says which family does not work, and ping tries the other", function()
      if not os.execute "grep -q '^0*1 ' /proc/net/if_inet6" then return pending "this machine has no IPv6" end
      for _, case in ipairs { { "[::1]:0", "IPv4", "IPv6", "127.0.0.1" },
        { "127.0.0.1:0", "IPv6", "IPv4", "[::1]" } } do
        local listen, silent, works, at = table.unpack(case)
        local port = serve(listen):match "%d+$"
        local code, text = run(("--timeout 0.3 bodkin://localhost:%s"):format(port))
        assert.equal(0, code, text)
        assert.matches((", over %s; asked at "):format(works), text, 1, true)
        assert.matches(("\n%s         no: no answer from %s:%s after 0.3 s"):format(silent, at, port), text, 1, true)
        assert.equal(works == "IPv6", text:find("\nIPv6         yes\n", 1, true) ~= nil)
        local of = {}
        for line in select(2, run(("--json --timeout 0.3 bodkin://localhost:%s"):format(port))):gmatch "[^\n]+" do
          local found = dkjson.decode(line)
          of[found.family] = found
        end
        assert.is_nil(of[works].error)
        assert.same({ event = "netcheck", family = silent, server = at .. ":" .. port,
          error = of[silent].error }, of[silent])
        assert.matches("no answer from " .. at, of[silent].error, 1, true)
        code, text = run(("--timeout 1 bodkin://localhost:%s"):format(port), "ping")
        assert.equal(0, code, text)
      end
    end)

    it("is at the same address on sockets of all addresses", function()
      local url = serve("0.0.0.0:0", "0.0.0.0:0")
      local code, text = run("--json " .. url:gsub("//[^:]+", "//127.0.0.1"))
      assert.equal(0, code, text)
      local found = dkjson.decode(text)
      assert.equal(2, #found.asked)
      assert.matches("^127%.0%.0%.1:", found.asked[2])
      assert.equal("unknown", found.filtering) -- two ports cannot tell
    end)

    it("says what went wrong", function()
      local code, text = run ""
      assert.equal(2, code)
      assert.matches("netcheck needs a URL", text)
      code, text = run "bodkin://127.0.0.1:9 --timeout 0.5"
      assert.equal(1, code)
      assert.matches("no answer from 127%.0%.0%.1:9 after 0%.5 s", text)
      code, text = run "bodkin://127.0.0.1:9 --address-server stun:"
      assert.equal(2, code)
      assert.matches("a STUN server such as stun:example.org:3478; no host in it", text)
    end)
  end)
end)
