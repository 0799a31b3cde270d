-- SPDX-License-Identifier: MIT
-- Two policies with the same clients.
local bodkin = os.getenv "BODKIN" or "build/release/bodkin"
local against = require "bodkin.sim.against"
local files = require "bodkin.sim.file"
local plot = require "bodkin.sim.plot"
local run = require "bodkin.sim.run"

local WIDE = 'local bodkin = require "bodkin"\n'
  .. 'return bodkin.policy { size = 2, props = { mmr = "number" }, index = "mmr" }'
local STRICT = ([[
local bodkin = require "bodkin"
return bodkin.policy { size = 2, props = { mmr = "number" }, index = "mmr",
  compatible = function(a, b) return math.abs(a.props.mmr - b.props.mmr) < 20 end }]])
local FEW = [[
local bodkin = require "bodkin"
return bodkin.scenario { clients = 60, duration_s = 20, seed = 4,
  match = { props = { mmr = { normal = { 1500, 300 } } }, policy = "%s" } }]]

describe("a simulation against another", function()
  local paths, dir

  setup(function()
    dir = assert(io.popen "mktemp -d"):read "l"
    paths = {}
    for name, text in pairs { wide = WIDE, strict = STRICT, few = FEW:format(dir .. "/wide.lua"),
      rooms = 'local bodkin = require "bodkin"\nreturn bodkin.scenario { rooms = {} }' } do
      paths[name] = ("%s/%s.lua"):format(dir, name)
      local file <close> = assert(io.open(paths[name], "w"))
      file:write(text)
    end
  end)
  teardown(function() os.execute("rm -r " .. dir) end)

  local function play(a, b)
    local first, second = files.read_both(a, b)
    assert(first, second)
    return against.report(assert(run.play(first)), assert(run.play(second)))
  end

  it("has the same clients, and shows what a stricter policy costs and brings", function()
    local report = play(paths.few, paths.strict)
    local wide, strict = report.sides[1], report.sides[2]
    assert.same({ "few", "strict", 60, 60 }, { wide.name, strict.name, wide.asked, strict.asked })
    assert.is_true(wide.matched >= strict.matched and strict.matched > 0)
    assert.is_true(strict.gaps[1].max < 20 and wide.gaps[1].max > 20)
    local text = table.concat(against.text(report), "\n")
    assert.matches("^60 clients, 20 virtual seconds, seed 4\n\n +few +strict\n", text)
    assert.matches("\nmmr apart, p99 +[%d.]+ +1?%d%.%d", text)
    local svg = plot.against(report)
    assert.equal(svg, plot.against(play(paths.few, paths.strict)))
    assert.matches("few against strict", svg, 1, true)
    assert.matches("Difference in mmr within a match", svg, 1, true)
    assert.equal(2 + 2, select(2, svg:gsub("<polyline", "")))
  end)

  it("has the same result twice with the same policy, and takes a policy on either side", function()
    local report = play(paths.few, paths.wide)
    local a, b = report.sides[1], report.sides[2]
    a.name, b.name = nil, nil
    assert.same(a, b)
    report = play(paths.strict, paths.few)
    assert.is_true(report.sides[1].gaps[1].max < 20 and report.sides[2].gaps[1].max > 20)
    assert.equal(60, report.sides[1].clients)
    local first, second = files.read_both(paths.wide, paths.strict)
    assert.same({ 1000, 1000 }, { first.clients, second.clients })
    assert.not_same(first.match.policy, second.match.policy)
    for _, pair in ipairs { { paths.rooms, paths.wide }, { paths.wide, paths.rooms } } do
      local none, why, code = files.read_both(pair[1], pair[2])
      assert.same({ nil, "invalid" }, { none, code })
      assert.matches("rooms.lua has no queue for a policy", why, 1, true)
    end
  end)

  it("is a table, or JSON, and a plot", function()
    local function output(words)
      local pipe = assert(io.popen(("%s sim %s --against %s %s 2>&1"):format(bodkin, paths.few, paths.strict, words)))
      return pipe:read "a", select(3, pipe:close())
    end
    local text, code = output("--svg " .. dir .. "/plot.svg")
    assert.equal(0, code)
    assert.matches("^60 clients", text)
    local file <close> = assert(io.open(dir .. "/plot.svg"))
    assert.matches("^<svg", file:read "a")
    text = output "--json --seed 9"
    assert.matches('^{"event":"compared","seed":9,"sides":%[{"name":"few"', text)
  end)
end)
