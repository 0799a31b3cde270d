-- SPDX-License-Identifier: MIT
-- How bodkin lab is called; what it does is in spec/lab/lab_command_spec.lua.

local nat = require "bodkin.lab.nat"
local plan = require "bodkin.lab.plan"

local bodkin = os.getenv "BODKIN" or "build/release/bodkin"

local function run(arguments)
  local pipe = assert(io.popen(("timeout 20 %s %s 2>&1 </dev/null"):format(bodkin, arguments)))
  local text = pipe:read "a"
  local _, _, code = pipe:close()
  return code, text
end

describe("bodkin lab", function()
  it("says what is wrong with a call, and exits with 2 before anything is made", function()
    for _, case in ipairs {
      { "", "needs a command to run, after the NATs and  --" },
      { "none none", "needs a command to run, after the NATs and  --" },
      { "none none true", "needs a command to run, after the NATs and  --" },
      { "none none --", "needs a command to run, after the NATs and  --" },
      { "none -- true", "needs two NATs, not 1; there are address_dependent, " },
      { "none none none -- true", "needs two NATs, not 3; there are " },
      { "none port_restrict -- true", "no NAT kind 'port_restrict'; there are " .. nat.names() },
      { "none none --delay-ms -1 -- true", "--delay-ms -1: expected milliseconds, such as 20" },
      { "none none --delay-ms soon -- true", "--delay-ms soon: expected milliseconds" },
      { "none none --loss 5 -- true", "--loss 5: expected a share such as 0.05, or 5%" },
      { "none none --loss 101% -- true", "--loss 101%: expected a share" },
      { "none none --loss nan -- true", "--loss nan: expected a share" },
      { "none none --seed x -- true", "--seed x: expected a whole number" },
      { "none none --los 1% -- true", "unknown option --los (did you mean --loss?)" },
      { "none none --same-nat -- true", "--same-nat wants a NAT for a, not 'none'" },
      { "carrier full_cone --same-nat -- true", "with --same-nat, b is behind a's NAT" },
    } do
      local code, text = run("lab " .. case[1])
      assert.equal(2, code, case[1])
      assert.truthy(text:find(case[2], 1, true), text)
    end
  end)

  it("reads a loss as a share or in per cent", function()
    local options = require("bodkin.cli.lab").options
    local share
    for _, option in ipairs(options) do share = option[1] == "loss" and option.kind or share end
    assert.equal(0.05, share "0.05")
    assert.equal(0.05, share "5%")
    assert.equal(0.0, share "0")
    assert.equal(1.0, share "100%")
  end)

  it("delays each host's link and loses between any two, in each direction as it is told, and by family", function()
    local function between(options)
      options.a, options.b = "port_restricted", "none"
      local rules = assert(plan.make("x", options)).rules
      local ends = { a = "198.18.1.0/24", b = "198.18.2.0/24", server = "192.0.2.10", a6 = "2001:db8:1::/48",
        b6 = "2001:db8:2::/48" }
      return function(from, to)
        for _, r in ipairs(rules) do
          if r.from == ends[from] and r.to == ends[to] then return r.delay_us, r.loss end
        end
      end
    end
    local rule = between { delay_ms = 20, loss = 0.1, ipv6 = true }
    assert.same({ 40000, 0.1 }, { rule("a", "b") })
    assert.same({ 20000, 0.1 }, { rule("a", "server") })
    assert.same({ 20000, 0.1 }, { rule("server", "b") })
    assert.same({ 40000, 0.1 }, { rule("a6", "b6") })
    assert.is_nil(rule("a", "b6"))
    rule = between { delay_ms = { a = 5, server = 1, ["b>a"] = 7.5 }, loss = { a = 0.5, b = 0.5 } }
    assert.same({ 5000, 0.75 }, { rule("a", "b") })
    assert.same({ 7500, 0.75 }, { rule("b", "a") })
    assert.same({ 6000, 0.5 }, { rule("server", "a") })
    assert.is_nil(rule("a6", "b6"))
  end)

  it("wants no NAT to do what it cannot", function()
    for said, options in pairs {
      ["no NAT kind 'x'"] = { a = "x" }, ["with same_nat, b is behind a's NAT"] = { a = "carrier", b = "full_cone",
        same_nat = true },
      ["same_nat wants a NAT for a, not 'none'"] = { same_nat = true },
      ["there is no hairpinning for"] = { a = "firewall", hairpin = true },
      ["b has no router that could block UDP"] = { blocks_udp = { b = true } },
      ["ipv6 is dual or only, not 'both'"] = { ipv6 = { a = "both" } },
      ["the man in the middle knows no IPv6"] = { ipv6 = true, attack = 1 },
    } do
      local made, err, code = plan.make("x", options)
      assert.is_nil(made, said)
      assert.truthy(err:find("lab: " .. said, 1, true), err)
      assert.equal("invalid", code)
    end
  end)

  it("has a help text that lists every kind of NAT", function()
    local code, text = run "help lab"
    assert.equal(0, code)
    for kind in pairs(nat.kinds) do assert.truthy(text:find(kind, 1, true), kind) end
  end)
end)
