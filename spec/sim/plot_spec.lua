-- SPDX-License-Identifier: MIT
-- The picture is an SVG file that holds what the report does, whatever that is.
local plot = require "bodkin.sim.plot"

local function report(fields)
  local r = { name = "a <b> & \"c\"", seed = 1, clients = 10, duration_s = 60, matched = 10, connected = 4, tried = 5,
    what = "ticket" }
  for name, value in pairs(fields or {}) do r[name] = value end
  return r
end

local function values(wait_ms, first_ms, confirmed_ms)
  return { wait_ms = wait_ms, first_ms = first_ms, confirmed_ms = confirmed_ms }
end

-- Each element closed, each coordinate a number inside the picture; returns the texts.
local function read(svg)
  local open, texts = {}, {}
  for close, name, attributes, alone, after in svg:gmatch "<(/?)(%a+)([^>]-)(/?)>([^<]*)" do
    if close == "/" then
      assert.equal(name, table.remove(open))
    else
      for _, number in attributes:gmatch ' ([xy][12]?)="([^"]*)"' do
        local n = assert(tonumber(number), number)
        assert.is_true(n >= 0 and n <= 960, attributes)
      end
      for x, y in (attributes:match 'points="([^"]*)"' or ""):gmatch "(%S+),(%S+)" do
        assert.is_true(tonumber(x) >= 0 and tonumber(x) <= 960 and tonumber(y) >= 0 and tonumber(y) <= 430)
      end
      if alone == "" then open[#open + 1] = name end
      if name == "text" then texts[#texts + 1] = after end
    end
  end
  assert.same({}, open)
  assert.is_nil(svg:find "nan" or svg:find "inf[^o]")
  return texts
end

local function spread(n, most)
  local list = {}
  for i = 1, n do list[i] = most * i / n end
  return list
end

describe("a plot", function()
  it("has labelled axes, percentiles and medians", function()
    local texts = read(plot.svg(report(), values(spread(500, 9000), spread(90, 80), spread(90, 150))))
    local all = table.concat(texts, "\n")
    for _, expected in ipairs { "a &lt;b&gt; &amp; &quot;c&quot;", "Wait from ticket to matched", "wait, s", "clients",
      "p50: 4.5 s", "p90: 8.1 s", "p99: 8.91 s", "time since matched, ms", "of the ends connected, %",
      "first heard, median 40 ms", "path confirmed, median 75 ms" } do
      assert.truthy(all:find(expected, 1, true), expected)
    end
  end)

  it("has a bar for each bin, which together are everybody", function()
    local svg = plot.svg(report { what = "join" }, values(spread(300, 600), spread(3, 9), spread(3, 9)))
    local sum = 0
    for height in svg:gmatch '<rect x=[^>]*height="([%d.]+)" fill="#2b6cb0"' do sum = sum + tonumber(height) end
    local top = 0 -- of the axis, as labelled: 260 px
    for label in svg:gmatch '<text x="62.0"[^>]*>(%d+)<' do top = math.max(top, tonumber(label)) end
    assert.is_true(math.abs(sum / 260 * top - 300) < 3, sum / 260 * top)
  end)

  it("says how many are beyond, when a few take much longer than all others", function()
    local list = spread(400, 100)
    list[#list + 1], list[#list + 2] = 5000, 9000
    local texts = read(plot.svg(report(), values(list, list, list)))
    local all = table.concat(texts, "\n")
    assert.truthy(all:find("2 clients beyond", 1, true), all)
    assert.truthy(all:find("2 confirmations beyond", 1, true), all)
  end)

  it("is one of nothing, of one, of zeros, of the same, too", function()
    for _, list in ipairs { {}, { 0 }, { 0, 0, 0 }, { 5 }, { 5, 5, 5 }, { 0.001 }, { 1e6 }, spread(3, 3000) } do
      read(plot.svg(report(), values(list, list, list)))
      read(plot.svg(report(), values(list, list, {})))
    end
    assert.truthy(plot.svg(report(), values({}, {}, {})):find("nobody was matched", 1, true))
  end)

  it("has steps of 1, 2 and 5", function()
    assert.equal(2, plot.step(14, 8))
    assert.equal(50, plot.step(187, 7))
    assert.is_true(math.abs(plot.step(0.7, 8) - 0.1) < 1e-9)
  end)

  it("shows the queues of a record one below the other, whatever clients said", function()
    local function side(waits, gaps)
      return { tickets = 9, matched = #waits, gaps = { { name = "m\0\xff" } },
        values = { wait_ms = waits, gaps = { ["m\0\xff"] = gaps } } }
    end
    local svg = plot.compared({
      { queue = "<duel>", recorded = side({ 1, 20, 300 }, { 0.5, 7, math.huge }), other = side({ 5 }, { math.huge }) },
      { queue = "team", recorded = side({}, {}), other = side({}, {}) },
    }, "strict")
    local texts = table.concat(read(svg), "\n")
    for _, expect in ipairs { "&lt;duel&gt;: as recorded against strict", "9 tickets: 3 and 1 matched",
      "of the matches, %", "Difference in m?? within a match", "as recorded, median 20 ms",
      "team: as recorded against strict", "nobody was matched" } do
      assert.truthy(texts:find(expect, 1, true), expect)
    end
    assert.matches('^<svg [^>]*height="860">', svg)
    assert.matches('<svg [^>]*y="430"', svg)
    assert.equal(2 + 1, select(2, svg:gsub("<polyline", "")))
  end)
end)
