-- SPDX-License-Identifier: MIT
-- What docs/NAT.md says of two sides, read from its tables. Knows nothing of the simulator or of core: it is the
-- other opinion.
--
-- A side: { boxes = { box, ... } from the host outward, start_ms = }. A box: { kind = a kind of the document } or
-- { mapping = "EI|AD|APD", filtering = "EI|AD|APD", overload = bool, race = bool }, and ips (1), pooling ("paired"),
-- timeout_ms.

local M = {}

local function section(text, name)
  return assert(text:match("<!%-%- " .. name .. " %-%->\n(.-)<!%-%- /" .. name .. " %-%->"), "no table " .. name)
end

-- The cells of a table's rows, without its header.
local function rows_of(text)
  local rows, n = {}, 0
  for line in text:gmatch("[^\n]+") do
    local cells = {}
    for cell in line:sub(2):gmatch("%s*(.-)%s*|") do cells[#cells + 1] = cell end
    n = n + 1
    if n ~= 2 then rows[#rows + 1] = cells end
  end
  return rows
end

local function read()
  local file <close> = assert(io.open("docs/NAT.md"))
  local text = file:read "a"
  local theory = { kinds = {}, matrix = {}, reasons = {}, rows = {}, together = {}, events = {} }
  for i, row in ipairs(rows_of(section(text, "kinds"))) do
    local mapping, filtering, race = row[2]:match("^(%u+)/(%u+)(.*)$")
    if i > 1 then
      theory.kinds[row[1]] = { mapping = mapping, filtering = filtering, race = race == " race",
        overload = race == " race", translates = row[1] ~= "none" and row[1] ~= "firewall" }
    end
  end
  local matrix = rows_of(section(text, "matrix"))
  for i = 2, #matrix do
    local name = matrix[i][1]
    theory.rows[i - 1], theory.matrix[name], theory.reasons[name] = name, {}, {}
    for k = 2, #matrix[i] do
      local verdict, reason = matrix[i][k]:match("^(%a+) (%a)$")
      theory.matrix[name][matrix[1][k]], theory.reasons[name][matrix[1][k]] = verdict, reason
    end
  end
  for _, row in ipairs(rows_of(section(text, "together"))) do table.insert(theory.together, row) end
  local events = rows_of(section(text, "events"))
  for i = 2, #events do theory.events[events[i][1]] = { EI = events[i][2], AD = events[i][3], APD = events[i][4] } end
  return theory
end

M.theory = read()

local WIDTH = { EI = 1, AD = 2, APD = 3 }

local function narrower(a, b)
  return WIDTH[a] > WIDTH[b] and a or b
end

local function behaviour(box)
  local b = box.kind and assert(M.theory.kinds[box.kind], box.kind) or box
  local mapping = b.overload and "EI" or b.mapping
  return { mapping = mapping, filtering = b.filtering, race = b.race, overload = b.overload,
    translates = b.translates ~= false, pool = (box.ips or 1) > 1 and box.pooling == "arbitrary" }
end

-- The behaviour of a side's boxes taken as one ("Chains"), or nil where the theory says nothing.
function M.side(side)
  local all = { mapping = "EI", filtering = "EI", race = false, wanders = false, overload = false, translates = false }
  local shielded = false
  for i = #side.boxes, 1, -1 do
    local b = behaviour(side.boxes[i])
    all.race = all.race or b.race and not shielded
    shielded = shielded or b.filtering ~= "EI" and not b.race
  end
  for _, box in ipairs(side.boxes) do
    local b = behaviour(box)
    if b.mapping ~= "EI" and not (all.mapping == "EI" and all.filtering == "EI") then return nil end
    if b.overload and b.pool then return nil end
    if b.mapping ~= "EI" then all.mapping = b.mapping end
    all.filtering = narrower(all.filtering, b.filtering)
    all.wanders = all.wanders or b.pool
    all.overload, all.translates = all.overload or b.overload, all.translates or b.translates
  end
  all.pool, all.wanders = all.wanders, all.wanders and all.mapping ~= "EI"
  return all
end

local function name_of(side)
  return side.mapping .. "/" .. side.filtering
end

local function either(one, other)
  return one == other and one or "may"
end

local function cell(a, b)
  return M.theory.matrix[name_of(a)][name_of(b)]
end

-- How a side counts whose peer's tests may come from any of several IPs ("Pools").
local function seen_by_wanderer(side)
  return { mapping = side.mapping == "AD" and "APD" or side.mapping,
    filtering = side.filtering == "AD" and "APD" or side.filtering }
end

local function by_pools(a, b)
  local strict_a = b.wanders and seen_by_wanderer(a) or a
  local strict_b = a.wanders and seen_by_wanderer(b) or b
  return either(cell(a, b), cell(strict_a, strict_b))
end

local RACED = { mapping = "APD", filtering = "APD" }

-- "yes", "no" or "may": do they connect? network: min_ms and max_ms, { ab =, ba = }: least and greatest one-way
-- delays; lossless (nothing is lost or doubled); together = { at = "home|carrier", isolated =, hairpin = } or nil.
function M.verdict(side_a, side_b, network)
  local a, b, together = assert(M.side(side_a)), assert(M.side(side_b)), network.together
  if together then
    local inside = together.isolated and "no" or "yes"
    for _, row in ipairs(M.theory.together) do
      if row[1] == together.at and (row[2] == inside or row[2] == "any")
        and (row[3] == (together.hairpin and "yes" or "no") or row[3] == "any") then
        if row[4] ~= "matrix" then return row[4] end
        if a.race or b.race or a.overload or b.overload then return "may" end
        return by_pools(a, b)
      end
    end
    error("no such row behind the same NAT")
  end
  local verdict = by_pools(a, b)
  -- "The race": with what arrives first.
  local function raced(side, other, start, other_start, min_ms, max_ms)
    if not side.race or start < other_start + min_ms then return verdict end
    local then_ = by_pools(RACED, other)
    if network.lossless and start > other_start + max_ms then return then_ end
    return either(verdict, then_)
  end
  local of_a = raced(a, b, side_a.start_ms, side_b.start_ms, network.min_ms.ba, network.max_ms.ba)
  local of_b = raced(b, a, side_b.start_ms, side_a.start_ms, network.min_ms.ab, network.max_ms.ab)
  if of_a == verdict then return of_b end
  if of_b == verdict then return of_a end
  return either(of_a, of_b)
end

local SLACK_MS, CONSENT_MS = 7000, 30000

-- The same of a session that was connected when `event` = { what =, ms = (asleep) } happened to side x.
function M.after(event, side_x, side_y)
  local x, y = assert(M.side(side_x)), assert(M.side(side_y))
  if event.what == "sleep" then
    local least = CONSENT_MS
    for _, box in ipairs(side_x.boxes) do least = math.min(least, box.timeout_ms or least) end
    return event.ms < least - SLACK_MS and M.theory.events.sleep[y.filtering] or "may"
  end
  if event.what ~= "roam" and not x.translates then return "yes" end
  local verdict = M.theory.events[event.what][y.filtering]
  if event.what ~= "roam" and (x.wanders or y.wanders) then return "may" end
  return x.pool and either(verdict, M.theory.events.roam[y.filtering]) or verdict -- as well from another IP
end

-- The rule of "The theory" as a formula, to hold the table against: a slip of the pen would be in one of the two.
function M.formula(a, b)
  local function gets_in(x, y) -- x's tests at y
    if y.filtering == "EI" then return true end
    return y.mapping == "EI" and (y.filtering == "AD" or x.mapping == "EI")
  end
  local function comes_back(x, y) -- y's answer at x
    return y.mapping == "EI" or x.filtering ~= "APD"
  end
  local settles = a.mapping ~= "APD" or b.mapping ~= "APD"
  local works = gets_in(a, b) and comes_back(a, b) or gets_in(b, a) and comes_back(b, a)
  return works and settles and "yes" or "no"
end

return M
