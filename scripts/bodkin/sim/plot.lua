-- SPDX-License-Identifier: MIT
-- A simulation's waits and connect times as a picture: SVG, written by hand, the same bytes for the same numbers.

local stats = require "bodkin.sim.stats"

local M = {}

local WIDTH, HEIGHT = 960, 430
local TOP, BOTTOM = 100, 360 -- of both panels
local LEFT_PANEL, RIGHT_PANEL = { 70, 460 }, { 555, 930 }
local BLUE, ORANGE, GREY = "#2b6cb0", "#dd6b20", "#555555"
local BINS = 30

local function escape(text)
  text = text:gsub("%c", "?")
  if not utf8.len(text) then text = text:gsub("[\x80-\xff]", "?") end
  return (text:gsub("[&<>\"]", { ["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;", ['"'] = "&quot;" }))
end

-- Coordinates with one digit after the point: a tenth of a pixel is enough.
local function px(x)
  return ("%.1f"):format(x)
end

local function text(x, y, anchor, size, colour, words, extra)
  return ('<text x="%s" y="%s" text-anchor="%s" font-size="%d" fill="%s"%s>%s</text>'):format(px(x), px(y), anchor,
    size, colour, extra or "", escape(words))
end

local function line(x1, y1, x2, y2, colour, extra)
  return ('<line x1="%s" y1="%s" x2="%s" y2="%s" stroke="%s"%s/>'):format(px(x1), px(y1), px(x2), px(y2), colour,
    extra or "")
end

-- A step of 1, 2 or 5 times a power of ten, so that there are at most `most` of them.
function M.step(range, most)
  local power = 10.0 ^ math.floor(math.log(range / most, 10))
  for _, times in ipairs { 1, 2, 5, 10 } do
    if range / (times * power) <= most then return times * power end
  end
end

local function label(value)
  return ("%g"):format(value)
end

-- Axes with grid and labels; returns fn(x) and fn(y), from values to pixels. x and y: { max =, step =, title = }.
local function axes(add, panel, x, y)
  local left, right = panel[1], panel[2]
  local function at_x(v) return left + (right - left) * v / x.max end
  local function at_y(v) return BOTTOM - (BOTTOM - TOP) * v / y.max end
  for i = 0, math.floor(y.max / y.step + 1e-6) do
    local v = i * y.step
    if i > 0 then add(line(left, at_y(v), right, at_y(v), "#e8e8e8")) end
    add(text(left - 8, at_y(v) + 4, "end", 11, GREY, label(v)))
  end
  for i = 0, math.floor(x.max / x.step + 1e-6) do
    local v = i * x.step
    add(line(at_x(v), BOTTOM, at_x(v), BOTTOM + 5, GREY))
    add(text(at_x(v), BOTTOM + 19, "middle", 11, GREY, label(v)))
  end
  add(line(left, BOTTOM, right, BOTTOM, GREY))
  add(text((left + right) / 2, BOTTOM + 40, "middle", 12, "#222222", x.title))
  local middle = (TOP + BOTTOM) / 2
  add(text(left - 46, middle, "middle", 12, "#222222", y.title,
    (' transform="rotate(-90 %s %s)"'):format(px(left - 46), px(middle))))
  return at_x, at_y
end

local function heading(add, panel, words)
  add(text(panel[1], TOP - 16, "start", 14, "#222222", words, ' font-weight="bold"'))
end

local function nothing(add, panel, words)
  add(text((panel[1] + panel[2]) / 2, (TOP + BOTTOM) / 2, "middle", 13, GREY, words))
end

-- The end of an axis: everything, unless the last hundredth would take more than half of the room.
local function end_of(sorted, scale)
  local most, p99 = sorted[#sorted], stats.percentile(sorted, 99)
  local last = most <= 2 * p99 and most or 1.25 * p99
  return math.max(last / scale, 1e-3)
end

local function beyond(add, panel, n, what)
  if n == 0 then return end
  add(text(panel[2], BOTTOM + 40, "end", 10, GREY, ("%d %s beyond"):format(n, what)))
end

-- Lines at percentiles, each with its label on a line of its own, so that near ones stay readable.
local function percentile_marks(add, panel, at_x, sorted, scale, unit)
  local labels = {}
  for i, p in ipairs { 50, 90, 99 } do
    local value = stats.percentile(sorted, p) / scale
    local x, y = at_x(value), TOP + 2 + 15 * i
    add(line(x, TOP, x, BOTTOM, ORANGE, ' stroke-dasharray="4 3"'))
    local flip = x > panel[2] - 90
    labels[i] = text(x + (flip and -5 or 5), y, flip and "end" or "start", 11, "#9c4221",
      ("p%d: %.3g %s"):format(p, value, unit), ' paint-order="stroke" stroke="#ffffff" stroke-width="4"')
  end
  for _, one in ipairs(labels) do add(one) end
end

-- How often each length of a wait occurred.
local function waits(add, report, sorted)
  local panel = LEFT_PANEL
  heading(add, panel, report.what == "ticket" and "Wait from ticket to matched" or "Wait from join to matched")
  if #sorted == 0 then return nothing(add, panel, "nobody was matched") end
  local scale, unit = 1000, "s"
  if end_of(sorted, 1) < 3000 then scale, unit = 1, "ms" end
  local last = end_of(sorted, scale)
  local step = M.step(last, 8)
  local x_max = math.ceil(last / step - 1e-9) * step
  local bins, out, most = {}, 0, 0
  for i = 1, BINS do bins[i] = 0 end
  for _, ms in ipairs(sorted) do
    local v = ms / scale
    if v > x_max then
      out = out + 1
    else
      local i = math.min(BINS, 1 + math.floor(v / x_max * BINS))
      bins[i] = bins[i] + 1
    end
  end
  for _, n in ipairs(bins) do most = math.max(most, n) end
  local y_step = math.max(1, M.step(most, 6))
  local at_x, at_y = axes(add, panel, { max = x_max, step = step, title = "wait, " .. unit },
    { max = math.ceil(most / y_step) * y_step, step = y_step, title = "clients" })
  for i, n in ipairs(bins) do
    if n > 0 then
      local x, y = at_x((i - 1) * x_max / BINS), at_y(n)
      add(('<rect x="%s" y="%s" width="%s" height="%s" fill="%s" fill-opacity="0.75"/>'):format(px(x + 0.5), px(y),
        px(at_x(x_max / BINS) - panel[1] - 1), px(BOTTOM - y), BLUE))
    end
  end
  percentile_marks(add, panel, at_x, sorted, scale, unit)
  beyond(add, panel, out, "clients")
end

local function curve(add, sorted, at_x, at_y, x_max, colour)
  local points = {}
  local function point(x, y) points[#points + 1] = px(x) .. "," .. px(y) end
  local last_x, y = at_x(0), at_y(0)
  point(last_x, y)
  for i, ms in ipairs(sorted) do
    if ms > x_max then break end
    local x = at_x(ms)
    if x >= last_x + 1 then -- what is nearer than a pixel is one step
      point(x, y)
      point(x, at_y(100 * i / #sorted))
      last_x = x
    end
    y = at_y(100 * i / #sorted)
  end
  point(at_x(x_max), y)
  add(('<polyline points="%s" fill="none" stroke="%s" stroke-width="2" stroke-linejoin="round"/>'):format(
    table.concat(points, " "), colour))
end

-- Which share was connected after how long.
local function connects(add, first, confirmed)
  local panel = RIGHT_PANEL
  heading(add, panel, "Connect time after matched")
  if #first == 0 then return nothing(add, panel, "nobody was connected") end
  local last = math.max(end_of(first, 1), #confirmed > 0 and end_of(confirmed, 1) or 0)
  local step = M.step(last, 7)
  local x_max = math.ceil(last / step - 1e-9) * step
  local at_x, at_y = axes(add, panel, { max = x_max, step = step, title = "time since matched, ms" },
    { max = 100, step = 20, title = "of the ends connected, %" })
  local late = 0
  for _, ms in ipairs(confirmed) do late = late + (ms > x_max and 1 or 0) end
  curve(add, first, at_x, at_y, x_max, BLUE)
  curve(add, confirmed, at_x, at_y, x_max, ORANGE)
  for i, one in ipairs { { "first heard", first, BLUE }, { "path confirmed", confirmed, ORANGE } } do
    local x, y = panel[2] - 225, BOTTOM - 62 + 20 * i
    local median = stats.percentile(one[2], 50)
    add(line(x, y - 4, x + 24, y - 4, one[3], ' stroke-width="3"'))
    add(text(x + 32, y, "start", 12, "#222222", ("%s%s"):format(one[1],
      median and (", median %.0f ms"):format(median) or "")))
  end
  beyond(add, panel, late, "confirmations")
end

-- y: below others, in their frame.
local function frame(add, title, y)
  add(('<svg xmlns="http://www.w3.org/2000/svg"%s width="%d" height="%d" viewBox="0 0 %d %d" '
    .. 'font-family="DejaVu Sans, Verdana, Helvetica, Arial, sans-serif">'):format(y and (' y="%d"'):format(y) or "",
    WIDTH, HEIGHT, WIDTH, HEIGHT))
  add(('<title>%s</title>'):format(escape(title)))
  add(('<rect width="%d" height="%d" fill="#ffffff"/>'):format(WIDTH, HEIGHT))
end

-- A record holds what clients said: any number.
local function finite(list)
  local out = {}
  for _, value in ipairs(list) do
    if value - value == 0 then out[#out + 1] = value end
  end
  return out
end

-- Which share of two lists, sorted, is not above a value. what: { heading, x = title of the axis, y =, unit =, none =
-- where both are empty }; names: of the two.
local function shares(add, panel, what, a, b, names)
  a, b = finite(a), finite(b)
  heading(add, panel, what.heading)
  if #a + #b == 0 then return nothing(add, panel, what.none) end
  local last = math.max(#a > 0 and end_of(a, 1) or 0, #b > 0 and end_of(b, 1) or 0)
  local step = M.step(last, 7)
  local x_max = math.ceil(last / step - 1e-9) * step
  local at_x, at_y = axes(add, panel, { max = x_max, step = step, title = what.x },
    { max = 100, step = 20, title = what.y })
  for i, one in ipairs { { names[1], a, BLUE }, { names[2], b, ORANGE } } do
    if #one[2] > 0 then curve(add, one[2], at_x, at_y, x_max, one[3]) end
    local x, y = panel[2] - 225, BOTTOM - 62 + 20 * i
    local median = stats.percentile(one[2], 50)
    add(line(x, y - 4, x + 24, y - 4, one[3], ' stroke-width="3"'))
    add(text(x + 32, y, "start", 12, "#222222", ("%s%s"):format(one[1]:sub(1, 16),
      median and (", median %.4g%s"):format(median, what.unit) or "")))
  end
end

-- Two sides, each with gaps and values as in against.lua. what: { title =, under = the line below, names = of the two,
-- gaps = of what one is, y = nil or as above }.
local function two(add, what, a, b)
  frame(add, what.title .. ": waits, and how far apart those in a match are", what.y)
  add(text(24, 32, "start", 18, "#222222", what.title, ' font-weight="bold"'))
  add(text(24, 53, "start", 12, GREY, what.under))
  shares(add, LEFT_PANEL, { heading = "Wait from ticket to matched", x = "wait, ms", unit = " ms",
    y = "of those matched, %", none = "nobody was matched" }, a.values.wait_ms, b.values.wait_ms, what.names)
  local name = a.gaps[1] and a.gaps[1].name or b.gaps[1] and b.gaps[1].name
  shares(add, RIGHT_PANEL, { heading = name and "Difference in " .. name .. " within a match" or "Differences",
    x = name or "", unit = "", y = ("of the %s, %%"):format(what.gaps), none = "no property is a number" },
    a.values.gaps[name] or {}, b.values.gaps[name] or {}, what.names)
  add "</svg>"
end

-- Two simulations against each other: what against.lua gave. Returns the text of an SVG file.
function M.against(report)
  local lines = {}
  local a, b = report.sides[1], report.sides[2]
  two(function(one) lines[#lines + 1] = one end, {
    title = ("%s against %s"):format(a.name, b.name), names = { a.name, b.name }, gaps = "pairs",
    under = ("%d clients, %g virtual seconds, seed %d: %d and %d matched"):format(a.clients, a.duration_s, report.seed,
      a.matched, b.matched),
  }, a, b)
  return table.concat(lines, "\n") .. "\n"
end

-- The queues of a record under another policy, one below the other: what policy/compare.lua gave. Returns the same.
function M.compared(rows, name)
  local lines = {}
  local function add(one) lines[#lines + 1] = one end
  add(('<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d">'):format(WIDTH, HEIGHT * #rows))
  for i, row in ipairs(rows) do
    local a, b = row.recorded, row.other
    two(add, {
      title = ("%s: as recorded against %s"):format(row.queue, name), names = { "as recorded", name }, gaps = "matches",
      under = ("%d tickets: %d and %d matched"):format(a.tickets, a.matched, b.matched), y = HEIGHT * (i - 1),
    }, a, b)
  end
  add "</svg>"
  return table.concat(lines, "\n") .. "\n"
end

-- report, values: what stats.report gave. Returns the text of an SVG file.
function M.svg(report, values)
  local lines = {}
  local function add(one) lines[#lines + 1] = one end
  frame(add, report.name .. ": waits and connect times")
  add(text(24, 32, "start", 18, "#222222", report.name, ' font-weight="bold"'))
  add(text(24, 53, "start", 12, GREY, ("%d clients, %g virtual seconds, seed %d: %d matched, %d of %d pairs connected")
    :format(report.clients, report.duration_s, report.seed, report.matched, report.connected, report.tried)))
  waits(add, report, values.wait_ms)
  connects(add, values.first_ms, values.confirmed_ms)
  add "</svg>"
  return table.concat(lines, "\n") .. "\n"
end

return M
