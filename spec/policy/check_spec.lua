-- SPDX-License-Identifier: MIT
local check = require "bodkin.policy.check"
local globals = require "bodkin.policy.globals"
local instances = require "bodkin.policy.instance"
local sources = require "bodkin.policy.source"
local support = dofile "spec/policy/support.lua"

local bodkin = os.getenv "BODKIN" or "build/release/bodkin"

describe("the globals of a text", function()
  it("are found with their lines, in every function, and only they", function()
    local found = assert(globals.of([[
local a, b = print, 1
local function f(x)
  y = x + b
  return function() return math.floor(x), z, a end
end
local _ENV = { q = 1 }
q = 2
f(q)
]], "@x"))
    local list = {}
    for i, use in ipairs(found) do list[i] = ("%d %s%s"):format(use.line, use.name, use.set and " =" or "") end
    -- What a table of one's own, called _ENV, holds is no global; it is a local, so not found.
    assert.same({ "1 print", "3 y =", "4 math", "4 z" }, list)
  end)

  it("are found far down a long text", function()
    local lines = {}
    for i = 1, 400 do
      lines[i] = ("local function f%d() return %d, 'text %d' end f%d()"):format(i % 100, i, i, i % 100)
    end
    table.insert(lines, 200, "do local x = oops end")
    local found = assert(globals.of("do " .. table.concat(lines, " end do\n") .. " end", "@x"))
    assert.same({ { line = 200, name = "oops", set = false } }, found)
  end)

  it("are not found where the text does not compile", function()
    local found, err = globals.of("local = 1", "@x.lua")
    assert.is_nil(found)
    assert.matches("x.lua:1: ", err, 1, true)
  end)
end)

describe("check", function()
  local function run(text, options)
    return check.run(support.source(text), options or {})
  end

  it("passes those that ship", function()
    for name in pairs(sources.BUILTIN) do
      local report = assert(check.run({ name = name }, {}))
      assert.equal(200, report.tickets)
      assert.is_true(report.matches > 10, name)
      assert.is_true(report.most < 500000, name)
      assert.same(report, check.run({ name = name }, { seed = 1 }))
    end
  end)

  it("counts the players of a party, not its ticket", function()
    local report = assert(check.run({ name = "teams" }, {}))
    assert.equal(10 * report.matches, report.players)
    assert.is_true(report.matches > 10)
  end)

  it("makes up places and NATs, known and unknown ones", function()
    local ok, err = run [[return bodkin.policy { size = 2, compatible = function(a, b)
      return bodkin.rtt_ms(a, b) < 100 end }]]
    assert.is_nil(ok)
    assert.matches("policy.lua:3: attempt to compare nil with number", err, 1, true)
    local report = assert(run [[return bodkin.policy { size = 2, compatible = function(a, b)
      return (bodkin.rtt_ms(a, b) or 50) < 100 and bodkin.reach(a, b) > 0.5 end }]])
    assert.is_true(report.matches > 10)
  end)

  it("finds what fails, with file and line", function()
    local _, alone = instances.new(sources.text "return bodkin.policy { size = 2 }")
    assert.equal("policy.lua:1: attempt to index a nil value (global 'bodkin'): begin the file with local bodkin = "
      .. 'require "bodkin"', alone)
    for text, expect in pairs {
      ["return bodkin.policy { compatible = function(a) return mat.abs(a) end }"] =
        "policy.lua:2: there is no global 'mat' in a policy",
      ["total = 0\nreturn bodkin.policy {}"] = "policy.lua:2: 'total' is assigned to as a global; is a local missing?",
      ["return os.time()"] = "policy.lua:2: there is no global 'os' in a policy",
      ["return bodkin.policy {"] = "policy.lua:2: unexpected symbol near <eof>",
      ["\nreturn bodkin.policy { size = 0 }"] = "policy.lua:3: policy: size must be",
      ["return bodkin.policy { props = { mmr = 'number?' },\ncompatible = function(a, b)\nreturn a.props.mmr < "
        .. "b.props.mmr end }"] = "policy.lua:4: attempt to compare",
      ["return bodkin.policy { admit = function(t)\nwhile t do end end }"] = "policy.lua:3: over its budget",
      ["return bodkin.policy { form = function(a, near)\nreturn { teams = { { a, a } } } end }"] =
        "policy.lua:2: form returned ticket 1 twice",
    } do
      local report, err = run(text)
      assert.is_nil(report, text)
      assert.matches(expect, err, 1, true)
    end
  end)

  it("tells other kinds of file apart", function()
    assert.same({ false, "config" }, { run "return bodkin.config {}" })
    assert.same({ false, "scenario" }, { run "return bodkin.scenario {}" })
    assert.same({ false, "nothing" }, { run "" })
  end)

  it("is a command that exits with 3 and names the line", function()
    local path = os.tmpname()
    local function command(text, arguments)
      local file <close> = assert(io.open(path, "w"))
      file:write(text)
      file:close()
      local pipe = assert(io.popen(("%s check %s %s 2>&1"):format(bodkin, path, arguments or "")))
      local out = pipe:read "a"
      return select(3, pipe:close()), out
    end
    local code, out = command 'return require("bodkin").policy { size = 4 }'
    assert.equal(0, code)
    assert.matches("200 tickets made up, 200 admitted, ", out, 1, true)
    code, out = command('return require("bodkin").policy { size = 4 }', "--json --tickets 9")
    assert.equal(0, code)
    assert.matches('^{"event":"checked","file":"[^"]+","tickets":9,"admitted":9,', out)
    code, out = command 'local x = 1\nreturn require("bodkin").policy { form = function() return y end }'
    assert.equal(3, code)
    assert.matches(path .. ":2: there is no global 'y' in a policy", out, 1, true)
    code, out = command 'return require("bodkin").config { roles = { "address" } }'
    assert.equal(0, code)
    assert.matches("a configuration, and right", out, 1, true)
    code, out = command '\nreturn require("bodkin").config { roles = { "nothing" } }'
    assert.equal(3, code)
    assert.matches("roles: must be one of", out, 1, true)
    code, out = command "return 1"
    assert.equal(3, code)
    assert.matches("returns a number, not a policy", out, 1, true)
    local beside = os.tmpname()
    local function part(text)
      local file <close> = assert(io.open(beside, "w"))
      file:write(text)
    end
    local function config(fields)
      return command(('return require("bodkin").config { %s }'):format(fields:gsub("FILE", beside)))
    end
    for _, one in ipairs {
      { "queues = { q = { policy = 'FILE' } }", 'return require("bodkin").policy {}', "\nreturn nothing.at_all",
        beside .. ":2: attempt to index a nil value" },
      { "queues = { q = { policy = 'FILE.no' } }", nil, nil, "No such file" },
      { "role_files = 'FILE'", nil, "return 1", beside .. " does not return a role" },
      { "key_file = 'FILE'", nil, "no key", beside },
      { "webhook = { url = 'http://x', key_file = 'FILE' }", "0123456789abcdef", "0123456789", "at least 16 bytes" },
      { "webhook = { url = 'http://x', key_file = 'FILE.no' }", nil, nil, "cannot read the webhook's key" },
    } do
      if one[2] then
        part(one[2])
        code, out = config(one[1])
        assert.equal(0, code, out)
      end
      part(one[3] or "")
      code, out = config(one[1])
      assert.equal(3, code, one[1])
      assert.matches(one[4], out, 1, true)
    end
    os.remove(beside)
    os.remove(path)
    assert.equal(3, select(3, os.execute(bodkin .. " check /nowhere/policy.lua 2>/dev/null")))
  end)
end)
