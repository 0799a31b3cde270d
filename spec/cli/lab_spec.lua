-- SPDX-License-Identifier: MIT
-- How bodkin lab is called; what it does is in spec/lab/lab_command_spec.lua.

local nat = require "bodkin.lab.nat"

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

  it("has a help text that lists every kind of NAT", function()
    local code, text = run "help lab"
    assert.equal(0, code)
    for kind in pairs(nat.kinds) do assert.truthy(text:find(kind, 1, true), kind) end
  end)
end)
