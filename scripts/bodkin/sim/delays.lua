-- SPDX-License-Identifier: MIT
-- One-way delays between the places of a scenario: drawn, or from a matrix of measured round-trip times.

local random = require "bodkin.sim.random"

local M = {}

M.SITES_MAX = 4096
local SAME_SITE_MS = 0.5 -- one way, where the matrix says nothing of a site and itself

-- A square of numbers with tabs between them, as an array of rows, or nil and what is wrong, where.
local function read_matrix(path)
  local file, why = io.open(path)
  if not file then return nil, ("cannot read the matrix of delays: %s"):format(why) end
  local rows = {}
  for line in file:lines() do
    if line:find "%S" then
      local row, n = {}, 0
      for cell in line:gmatch "[^\t\r]+" do
        n = n + 1
        local ms = tonumber(cell)
        if not ms or ms < 0 or ms > 20000 or ms ~= ms then
          file:close()
          return nil, ("%s:%d: '%s' is no round-trip time in ms"):format(path, #rows + 1, cell:sub(1, 20))
        end
        row[n] = ms
      end
      rows[#rows + 1] = row
      if #rows > M.SITES_MAX then
        file:close()
        return nil, ("%s has more than %d sites"):format(path, M.SITES_MAX)
      end
    end
  end
  file:close()
  for i, row in ipairs(rows) do
    if #row ~= #rows then
      return nil, ("%s:%d: %d columns, but there are %d rows: the matrix must be square"):format(path, i, #row, #rows)
    end
  end
  if #rows < 2 then return nil, path .. " has no two sites" end
  return rows
end

-- Both directions were measured, or one, or none (nil).
local function rtt(rows, i, j)
  local there, back = rows[i][j], rows[j][i]
  if there > 0 and back > 0 then return (there + back) / 2 end
  return there > 0 and there or back > 0 and back or nil
end

local function median_of(rows, i)
  local list = {}
  for j = 1, #rows do
    local ms = j ~= i and rtt(rows, i, j)
    if ms then list[#list + 1] = ms end
  end
  table.sort(list)
  return list[#list // 2 + 1], #list
end

-- The server's site: the one that is nearest to most, of those measured to at least half of the others.
local function center(rows)
  local best, least
  for i = 1, #rows do
    local median, measured = median_of(rows, i)
    if median and measured >= (#rows - 1) / 2 and (not least or median < least) then best, least = i, median end
  end
  return best
end

local function by_matrix(path, seed)
  local rows, why = read_matrix(path)
  if not rows then return nil, why end
  local hub = center(rows)
  if not hub then return nil, path .. ": no site was measured to half of the others" end
  local typical = median_of(rows, hub)
  local sites = {}
  local function site_of(place)
    local site = sites[place]
    if not site then
      site = place == 0 and hub or 1 + (random.new(seed, "site " .. place):integer() >> 1) % #rows
      sites[place] = site
    end
    return site
  end
  return function(a, b)
    local i, j = site_of(a), site_of(b)
    local ms = rtt(rows, i, j)
    if not ms then ms = i == j and 2 * SAME_SITE_MS or typical end
    return ms / 2
  end
end

-- delay: of a checked scenario. Returns fn(a, b) -> ms between two places, numbers from 0, which is the server's; the
-- same both ways and at all times. Or nil and a sentence.
function M.new(delay, seed)
  local draw, why
  if delay.matrix then
    draw, why = by_matrix(delay.matrix, seed)
    if not draw then return nil, why end
  elseif delay.low == delay.high then
    return function() return delay.low end
  else
    draw = function(a, b)
      return delay.low + (delay.high - delay.low) * random.new(seed, ("delay %d %d"):format(a, b)):float()
    end
  end
  local known = {}
  return function(a, b)
    if a > b then a, b = b, a end
    local row = known[a]
    if not row then
      row = {}
      known[a] = row
    end
    local ms = row[b]
    if not ms then
      ms = draw(a, b)
      row[b] = ms
    end
    return ms
  end
end

return M
