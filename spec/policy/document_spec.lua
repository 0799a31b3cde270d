-- SPDX-License-Identifier: MIT
-- Every policy that a document or an example shows is one, and makes matches.
local check = require "bodkin.policy.check"
local policies = require "bodkin.policy"
local sources = require "bodkin.policy.source"

local function read(path)
  local file <close> = assert(io.open(path))
  return file:read "a"
end

describe("policies that are shown", function()
  it("in docs/POLICY.md pass the check", function()
    local count = 0
    for block in read("docs/POLICY.md"):gmatch "```lua\n(.-)```" do
      count = count + 1
      local report, err = check.run(sources.text(block, "@block " .. count), {})
      assert.is_table(report, err)
      assert.is_true(report.matches > 0)
    end
    assert.equal(8, count)
  end)

  it("in examples pass the check, and are short", function()
    local list = io.popen "ls examples/policy_*.lua"
    local count = 0
    for path in list:lines() do
      count = count + 1
      assert.is_true(select(2, read(path):gsub("\n", "")) < 60, path)
      local report, err = check.run(assert(sources.read(path)), {})
      assert.is_table(report, err)
      assert.is_true(report.matches > 0, path)
    end
    list:close()
    assert.equal(2, count)
  end)

  it("are explained field by field, in the document and for editors", function()
    local document, library = read "docs/POLICY.md", read "scripts/library/policy.lua"
    local _, err = pcall(function()
      local policy = policies.policy { nothing = 1 }
      return policy
    end)
    local fields = err:match "one of (.*)$"
    for field in fields:gmatch "[%w_]+" do
      assert.truthy(document:find("\n| `" .. field .. "[`(]"), field)
      assert.truthy(library:find("\n---@field " .. field .. "? ", 1, true), field)
    end
  end)

  it("and the facade's functions stand in the library for editors", function()
    local library = read "scripts/library/bodkin.lua"
    for _, name in ipairs { "open", "run", "spawn", "sleep", "env", "role", "config" } do
      assert.is_function(require("bodkin")[name])
      assert.truthy(library:find("\nfunction bodkin." .. name .. "(", 1, true), name)
    end
    for _, name in ipairs { "host", "join", "match", "cancel", "list", "on", "why", "stats", "close" } do
      assert.truthy(library:find("\nfunction Node:" .. name .. "(", 1, true), name)
    end
  end)
end)
