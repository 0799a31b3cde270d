-- SPDX-License-Identifier: MIT
-- What a seed stands for: two sides behind random boxes, a random network, and what is done to them. Plain data.
local random = require "bodkin.sim.random"

local M = {}

local NAMED = {
  "none", "firewall", "full_cone", "address_restricted", "port_restricted", "plain_linux", "symmetric_random",
  "symmetric_sequential", "address_dependent",
}
local DEPENDENCE = { "EI", "AD", "APD" }
local PORTS = { "preserve", "sequential", "random", "overload" }
local CARRIERS = { "full_cone", "address_restricted", "port_restricted" }
local EVENTS = { "rebind", "reboot", "roam", "sleep" }

local function draws(seed)
  local r = random.new(seed, "scenario")
  local d = {}
  function d.chance(p) return r:float() < p end
  function d.int(low, high) return low + (r:integer() >> 1) % (high - low + 1) end
  function d.one(list) return list[d.int(1, #list)] end
  return d
end

local function draw_box(d, kind)
  local mapping, filtering, ports = (kind or ""):match("^(%u+)/(%u+)/(%l+)$")
  local box = { kind = not mapping and kind or nil }
  if mapping then
    box.mapping, box.filtering, box.ports, box.overload = mapping, filtering, ports, ports == "overload"
  elseif not kind then
    box.mapping, box.filtering, box.ports = d.one(DEPENDENCE), d.one(DEPENDENCE), d.one(PORTS)
    box.overload = box.ports == "overload"
  end
  box.timeout_ms = d.int(10, 300) * 1000
  box.refresh_inbound = d.chance(0.5)
  box.hairpin = d.chance(0.5)
  if kind ~= "none" and kind ~= "firewall" and d.chance(0.2) then
    local overload = box.overload or kind == "plain_linux"
    box.ips, box.pooling = 2, (overload or d.chance(0.5)) and "paired" or "arbitrary"
  end
  return box
end

local function draw_side(d, only)
  local boxes
  if only then
    boxes = { draw_box(d, only) }
  else
    boxes = { draw_box(d, d.chance(0.6) and d.one(NAMED) or nil) }
    if d.chance(0.15) then boxes[2] = draw_box(d, d.one(CARRIERS)) end
  end
  if boxes[1].kind == "none" then table.remove(boxes, 1) end
  return { boxes = boxes, port = d.int(0, 2) == 0 and 5000 or d.int(1024, 65535), start_ms = 0 }
end

local function draw_together(d, s, wish)
  local at = wish.at or d.chance(0.5) and "home" or "carrier"
  local shared = draw_box(d, wish.shared or at == "carrier" and d.one(CARRIERS) or nil)
  shared.ips, shared.pooling = nil, nil
  if wish.shared then shared.hairpin = true end
  s.together = { at = at, hairpin = shared.hairpin, isolated = at == "home" and not wish.shared and d.chance(0.6) }
  for _, side in ipairs { s.a, s.b } do
    side.boxes = { shared }
    if at == "carrier" then
      local kind
      repeat kind = d.one(NAMED) until kind ~= "none" and kind ~= "firewall"
      side.boxes = { draw_box(d, kind), shared }
    end
  end
  s.same_host_ip = d.chance(0.5) and at == "carrier"
end

-- wish: { a =, b = one box each (a kind, or "MAPPING/FILTERING/PORTS"), together = bool or { at =, shared = its box,
-- with hairpin, not isolated }, event, attack, bogus, loss, reorder, ... }: fields to be so.
function M.draw(seed, wish)
  wish = wish or {}
  local d = draws(seed)
  local s = {
    seed = seed,
    a = draw_side(d, wish.a),
    b = draw_side(d, wish.b),
    delay_ab = d.int(1, 120),
    jitter_ms = d.chance(0.5) and d.int(1, 30) or 0,
    loss = d.chance(0.6) and d.int(1, 10) / 100 or 0,
    duplicate = d.chance(0.3) and d.int(1, 10) / 100 or 0,
    reorder = d.chance(0.3) and d.int(1, 10) / 100 or 0,
    reorder_ms = 50,
    a_controls = d.chance(0.5),
    early_data = d.chance(0.15), -- send at once when connected, more than is allowed
    attack = d.chance(0.15), -- somebody on the way forges and repeats
    leaver = d.chance(0.5) and "a" or "b",
  }
  s.delay_ba = d.chance(0.7) and s.delay_ab or d.int(1, 120)
  -- One side starts later: seldom by more than a delay.
  local late = d.chance(0.5) and s.a or s.b
  late.start_ms = d.chance(0.2) and d.int(0, 400) or d.int(0, math.max(1, math.min(s.delay_ab, s.delay_ba) - 1))
  if wish.together or wish.together == nil and not (wish.a or wish.b) and d.chance(0.1) then
    draw_together(d, s, type(wish.together) == "table" and wish.together or {})
  end
  if d.chance(0.1) then s.bogus = { n = d.int(1, 15), one_ip = d.chance(0.5) } end -- addresses of nobody
  if not s.together and d.chance(0.1) then
    s.event = { what = d.one(EVENTS), side = d.chance(0.5) and "a" or "b" }
    if s.event.what == "sleep" then s.event.ms = d.int(1000, 40000) end
  end
  if s.attack and d.chance(0.6) then s.mitm = d.int(5, 25) / 100 end -- or is the way: how often he does something
  for name, value in pairs(wish) do
    if name ~= "a" and name ~= "b" and name ~= "together" then s[name] = value end
  end
  return s
end

-- The same in a line, for who must find out why a seed fails.
function M.describe(s)
  local function boxes(side)
    local names = {}
    for i, box in ipairs(side.boxes) do
      names[i] = (box.kind or box.mapping .. "/" .. box.filtering .. "/" .. box.ports)
        .. (box.ips and "*" .. box.pooling or "") .. ":" .. box.timeout_ms // 1000 .. "s" .. (box.hairpin and "h" or "")
    end
    return #names > 0 and table.concat(names, "<") or "none"
  end
  local t = s.together
  return ("%s | %s%s; delays %d %d ms, jitter %d, loss %g, duplicate %g, reorder %g, starts %d %d%s%s%s%s"):format(
    boxes(s.a), boxes(s.b), t and (" together at %s%s"):format(t.at, t.isolated and " isolated" or "") or "",
    s.delay_ab, s.delay_ba, s.jitter_ms, s.loss, s.duplicate, s.reorder, s.a.start_ms, s.b.start_ms,
    s.event and (", %s of %s%s"):format(s.event.what, s.event.side, s.event.ms and " " .. s.event.ms or "") or "",
    s.mitm and (", man in the middle %g"):format(s.mitm) or s.attack and ", attacked" or "",
    s.early_data and ", early data" or "", s.bogus and ", bogus candidates" or "")
end

return M
