-- SPDX-License-Identifier: MIT
-- The race of docs/NAT.md on kernel NATs, and how long it takes from the server's commit until two are connected. `make
-- soak` counts fifty meetings by each policy of race.lua, and prints the tables.

local lab = require "bodkin.lab"
local race = require "spec.lab.race"
local support = require "spec.lab.support"

local SOAK = os.getenv "SOAK"
if (SOAK or "1") ~= "1" then return end -- once a soak

-- One way, in ms: the links of the server, the near one and the far one; a = 5, b = 60, d = 57.
local LINKS = { server = 4, a = 1, b = 56 }
local LONG_MS = 11000 -- until a meeting has come to its end, whatever became of it

local function met(found)
  local n = 0
  for _, m in ipairs(found) do n = n + (m.path and 1 or 0) end
  return n
end

local function at(list, part)
  table.sort(list)
  return list[math.max(1, math.ceil(#list * part))]
end

describe("the race on plain Linux NATs, with jitter and loss,", function()
  local net
  setup(function()
    -- Not probed: that takes its time under loss, and nat_spec.lua does it.
    net = assert(lab.up { a = "plain_linux", b = "plain_linux", delay_ms = LINKS, jitter_ms = 10, loss = 0.05 })
  end)
  teardown(function() net:down() end)

  it("is won by an opener, where one waits for too long", function()
    local count = SOAK and 50 or 8
    support.in_time(function()
      local n = met(race.run(net, support.binary, "late_opener", count, { gap_ms = 50, last_ms = 1000 }))
      if n < count then return ("%d of %d met"):format(n, count) end
    end)
    local lucky = met(race.run(net, support.binary, "late", count, { gap_ms = 50, last_ms = 1000 }))
    assert.is_true(lucky <= count // 8, lucky .. " met without it")
  end)

  if not SOAK then
    it("is not lost by our schedule, and is where the selector is told first", function()
      support.in_time(function()
        local n = met(race.run(net, support.binary, "all", 8, { gap_ms = 50, last_ms = 3500 }))
        return n < 8 and n .. " of 8 met" or nil
      end)
      local lucky = met(race.run(net, support.binary, "control", 8, { gap_ms = 50, last_ms = 1000 }))
      assert.is_true(lucky <= 4, lucky .. " of 8 met all the same")
    end)
    return
  end

  local counted = {}
  for _, name in ipairs { "control", "opener", "at_once", "scheduled", "fresh", "all" } do
    it("counts " .. name, function()
      counted[name] = met(race.run(net, support.binary, name, 50, { gap_ms = 60, last_ms = LONG_MS }))
      print(("# of 50 meetings by %s: %d"):format(name, counted[name]))
    end)
  end

  it("is won always, and hardly ever without any of it", function()
    assert.equal(50, counted.all)
    assert.is_true(counted.control <= 8, counted.control)
  end)
end)

-- ms beyond the least that is possible: of both connected, of both confirmed.
local function beyond(found, a, b, d)
  local connected, confirmed = {}, {}
  for i, m in ipairs(found) do
    connected[i] = (m.connected or math.huge) - math.max(a, b) - d
    confirmed[i] = (m.path or math.huge) - math.max(a, b) - 2 * d
  end
  return connected, confirmed
end

-- Runs meetings over links of the server's, a's and b's; asserts that `part` of them are at most late_ms late.
local function in_time(links, loss, count, part, late_ms)
  local net <close> = assert(lab.up { a = "port_restricted", b = "port_restricted", loss = loss,
    delay_ms = { server = links[1], a = links[2], b = links[3] } })
  local a, b, d = links[1] + links[2], links[1] + links[3], links[2] + links[3]
  support.in_time(function()
    local found = race.run(net, support.binary, "all", count, { gap_ms = 60, last_ms = loss > 0 and 4000 or 600 })
    local connected, confirmed = beyond(found, a, b, d)
    local text = ("a %d, b %d, d %d ms, loss %g: beyond the least possible: connected %.1f (half), %.1f (95 %%), "
      .. "confirmed %.1f, %.1f ms"):format(a, b, d, loss, at(connected, 0.5), at(connected, 0.95), at(confirmed, 0.5),
      at(confirmed, 0.95))
    print("# " .. text)
    return math.max(at(connected, part), at(confirmed, part)) > late_ms and text or nil
  end)
end

describe("from the server's commit", function()
  local settings = { { 10, 10, 30 } }
  if SOAK then settings = { { 10, 10, 30 }, { 4, 1, 56 }, { 5, 15, 15 }, { 20, 30, 10 }, { 0, 1, 1 } } end
  for _, links in ipairs(settings) do
    local name = ("with links of %d, %d and %d ms"):format(table.unpack(links))
    it("both are connected, and confirmed, within 5 ms of the least possible " .. name, function()
      in_time(links, 0, SOAK and 41 or 9, 0.5, 5)
    end)
    if SOAK then
      it("and within 45 ms in 95 % under loss " .. name, function() in_time(links, 0.05, 100, 0.95, 45) end)
    end
  end
end)
