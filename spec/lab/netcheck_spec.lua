-- SPDX-License-Identifier: MIT
-- `bodkin netcheck` behind four kernel NATs at once, with a server at two IPs of two ports each. SOAK: all kinds.

local json = require "dkjson"
local lab = require "bodkin.lab"
local plan = require "bodkin.lab.plan"
local support = require "spec.lab.support"

if (os.getenv "SOAK" or "1") ~= "1" then return end -- once a soak

local NAMES = { none = "none", endpoint = "endpoint_independent", address = "address_dependent",
  address_port = "address_and_port_dependent", open = "endpoint_independent" }
local HOSTS = { "a", "b", "c", "d" }

local BY = { none = "anybody", open = "anybody", address = "asked_ips", address_port = "asked_addresses" }
local sets = { { "full_cone", "plain_linux", "symmetric_sequential", "address_restricted" } }
if os.getenv "SOAK" then
  sets[2] = { "none", "firewall", "port_restricted", "carrier" }
  sets[3] = { "symmetric_random", "address_dependent", "port_restricted", "none" }
end

describe("netcheck", function()
  for _, kinds in ipairs(sets) do
    it("takes " .. table.concat(kinds, ", ") .. " for what they are", function()
      local net <close> = assert(lab.up { a = kinds[1], b = kinds[2], c = kinds[3], d = kinds[4], delay_ms = 5 })
      local serve = { support.binary, "serve", "--json", "--admin", net.dir .. "/server.admin" }
      for _, ip in ipairs { net.server.addr, plan.witness } do
        for port = 4433, 4434 do
          serve[#serve + 1] = "--listen"
          serve[#serve + 1] = ("%s:%d"):format(ip, port)
        end
      end
      assert(net.server:start(serve):expect('"listening"', 10000))
      local checks = {}
      for i, host in ipairs(HOSTS) do
        checks[i] = net[host]:start { support.binary, "netcheck", "--json", "bodkin://" .. net.server.addr }
      end
      for i, kind in ipairs(kinds) do
        local p, is = checks[i], lab.kinds[kind]
        assert.equal(0, p:wait(15000), p:stderr())
        local found = assert(json.decode(p:stdout()))
        assert.equal(NAMES[is.mapping], found.mapping, kind)
        assert.equal(NAMES[is.filtering], found.filtering, kind)
        assert.equal(is.mapping ~= "none", found.nat)
        assert.equal(is.ports == "preserve" and "preserved" or is.ports, found.ports, kind)
        if is.mapping == "endpoint" then assert.equal(is.moves and "yes" or "no", found.race, kind) end
        if is.mapping == "endpoint" then assert.equal("no", found.hairpin, kind) end
        assert.equal(4, #found.asked)
        local direct = table.concat(found.direct, " ")
        assert.matches("full cone", direct)
        local open = is.mapping ~= "address_port" and is.filtering ~= "address_port"
        assert.equal(open, direct:find "symmetric" ~= nil, kind)
        checks[i] = net[HOSTS[i]]:start { support.binary, "ping", "--json", "bodkin://" .. net.server.addr }
      end
      for i, kind in ipairs(kinds) do
        assert.equal(0, checks[i]:wait(10000), checks[i]:stderr())
        local by = checks[i]:stdout():match '"event":"reachable","port":%d+,"by":"([%a_]+)"'
        assert.equal(BY[lab.kinds[kind].filtering], by, kind)
      end
    end)
  end

  if not os.getenv "SOAK" then return end

  it("measures how long mappings live", function()
    local net <close> = assert(lab.up { a = "port_restricted", delay_ms = 5, udp_timeout_s = 30 })
    assert(support.serve(net) == nil)
    local p = net.a:start { support.binary, "netcheck", "--json", "--lifetime", net.urls[2] }
    assert.equal(0, p:wait(160000), p:stderr())
    assert.same({ 25, 35 }, json.decode(p:stdout()).lifetime_s)
  end)
end)
