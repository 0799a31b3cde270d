-- SPDX-License-Identifier: MIT
-- The wall clock jumps by a year, forward and back. Nothing but a proof's epoch, and the stamps of a log, may be read
-- from it: whoever is connected or registered stays so, and what needs a new proof gets one.

local client_support = require "spec.client.support"
local core = require "bodkin.core"
local support = require "spec.calm.support"

local YEAR_S = support.YEAR_S

describe("a wall clock that jumps, in a virtual world,", function()
  local s
  before_each(function() s = client_support.new { expose_addresses = true, key = ("k"):rep(32) } end)
  after_each(function() s:close() end)

  -- The time of a host's clock from now on, in seconds since 1970.
  local function stand(host, offset_s)
    host.env.time = function() return 1800000000 + offset_s + s.world:now() // 1000000 end
  end

  local function registered() return s.server.registry and s.server.counters:get "registration_expired" == 0 end

  for _, where in ipairs { "server", "clients", "both" } do
    it("at " .. where .. ": sessions and registrations live, and a proof of the old epoch is replaced", function()
      local ha, hb, hc = s:host("a", "203.0.113.1"), s:host("b", "203.0.113.2"), s:host("c", "203.0.113.3")
      local function jump(offset_s)
        if where ~= "clients" then stand(s.hub, offset_s) end
        if where ~= "server" then for _, h in ipairs { ha, hb, hc } do stand(h, offset_s) end end
      end
      jump(0)
      local a, b, c = s:open(ha), s:open(hb), s:open(hc)
      local ma, mb = s:pair(a, b)
      local heard = {}
      b:on("message", function(e) heard[#heard + 1] = e.data end)
      for n, offset_s in ipairs { YEAR_S, -YEAR_S, 0 } do
        jump(offset_s)
        local before = s.server.counters:get "address_cookie_bad"
        assert(ma:send("after " .. n))
        assert.is_true(s.world:run_until(function() return #heard == n end, 1000))
        -- A new handshake needs a proof that holds: c's is of another epoch now, unless its clock alone jumped.
        c.requests.association:doubt()
        local began = s.world:now()
        local code = s:run(function()
          local m = assert(c:host())
          m:leave()
          return m.code
        end, 2000)
        assert.is_string(code)
        assert.is_true(s.world:now() - began <= 1000000)
        if where ~= "clients" then assert.is_true(s.server.counters:get "address_cookie_bad" > before) end
        s.world:run(70000) -- longer than a registration lasts
        assert.is_true(registered())
        assert.equal(3, #s:run(function() return assert(a:list({})) end))
      end
      for _, m in ipairs { ma, mb } do
        assert.equal(1, #m:peers())
        assert.is_nil(m:peers()[1].reason)
      end
      for _, node in ipairs { a, b, c } do
        assert.equal(0, #client_support.events(node, "error"))
        assert.equal(0, #client_support.events(node, "closed"))
      end
    end)
  end
end)

describe("a wall clock that jumps, at real processes,", function()
  local world
  before_each(function() world = support.world() end)
  after_each(function() world:close() end)

  it("is what a process sees with the shim", function()
    local program, page = world:wrap()
    support.write_file(world.dir .. "/time.lua", "print(os.time())")
    page:jump(-YEAR_S)
    local text, ok = support.run { program, "run", world.dir .. "/time.lua" }
    assert(ok, text)
    assert.is_true(math.abs(os.time() - YEAR_S - math.tointeger(tonumber(text))) <= 1)
  end)

  it("disconnects nobody, is recovered from at once, and leaves no spin behind", function()
    local server = world:server()
    local host, join = world:pair(server)
    local all = { server, host, join }
    local idle = world:load(all, 500)
    for _, offset_s in ipairs { YEAR_S, -YEAR_S, 0 } do
      for _, p in ipairs(all) do p.page:jump(offset_s) end
      local there, back = world:talk(host, join, 1000), world:talk(join, host, 1000)
      local answer = world:answers(server, 1000)
      local code = host:stderr():match "bodkin join (%S+)"
      local began = core.now()
      local third = world:bodkin { "join", code, "--server", server.url, "--bind", "127.0.0.1:0", "--send", "x" }
      world:heard(third, "connected to", 1000)
      local new_ms = (core.now() - began) / 1000
      assert.equal(0, third:stop() - 130)
      local load = world:load(all, 1000)
      support.say("clock %+d s: heard after %.1f and %.1f ms, the server after %.1f ms, a new client connected after "
        .. "%.0f ms; then %.2f %% of a core (before: %.2f %%)", offset_s, there, back, answer, new_ms, 100 * load,
        100 * idle)
      assert.is_true(load < 0.02)
    end
    for _, p in ipairs { host, join } do
      assert.is_nil(p:code())
      assert.equal(1, select(2, p:stderr():gsub("registered as", "")))
    end
    assert.equal("", server:stderr())
  end)
end)
