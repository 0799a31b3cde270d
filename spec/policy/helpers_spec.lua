-- SPDX-License-Identifier: MIT
-- What policies may have done for them: near, pack, split.

local support = require "spec.policy.support"

-- The players' indices by team, of what a policy's form made with the helpers.
local function played(text, tickets)
  local d = support.desk(text)
  for _, t in ipairs(tickets) do
    if type(t) == "table" and t.members then d:add(nil, t) else d:add(t) end
  end
  local matches, err = d:tick(0)
  return matches and matches[1] and matches[1][1], err, matches
end

describe("pack", function()
  local text = [[return bodkin.policy { teams = { 3, 3 }, party = 3,
    form = function(anchor, near)
      local list = { anchor }
      for _, t in ipairs(near) do list[#list + 1] = t end
      local teams = bodkin.pack(list, { 3, 3 })
      return teams and { teams = teams }
    end }]]
  local function party(n)
    local members = {}
    for i = 1, n do members[i] = {} end
    return { members = members }
  end

  it("fills teams with whole parties, the first ticket and then the earlier ones first", function()
    assert.same({ { 1, 2 }, { 3 } }, (played(text, { party(2), party(1), party(3) })))
    assert.same({ { 1, 3 }, { 2, 4 } }, (played(text, { party(2), party(2), party(1), party(1), party(1) })))
    -- The two that came second and third do not go with the first.
    assert.same({ { 1 }, { 2, 4 } }, (played(text, { party(3), party(2), party(2), party(1) })))
  end)

  it("keeps to what a team may have of a property's values", function()
    local d = support.desk [[
      local LIMITS = { role = { tank = 1, healer = 1 } }
      return bodkin.policy { teams = { 2, 2 }, props = { role = "string" }, form = function(anchor, near)
        local list = { anchor }
        for _, t in ipairs(near) do list[#list + 1] = t end
        local teams = bodkin.pack(list, { 2, 2 }, LIMITS)
        return teams and { teams = teams, host = teams[1][1] } end }]]
    for _, role in ipairs { "tank", "tank", "tank", "healer", "any" } do d:add { role = role } end
    assert.same({ { { 1, 4 }, { 2, 5 } }, 1 }, d:tick(0)[1])
    for _, role in ipairs { "tank", "tank", "tank" } do d:add { role = role } end -- with the one that waits: four
    assert.same({}, d:tick(0))
  end)

  it("has the first ticket in, or nobody", function()
    assert.is_nil((played(text, { party(2), party(2), party(2) })))
    local teams = played(text, { party(2), party(3), party(3), party(1) })
    assert.same({ { 1, 4 }, { 2 } }, teams)
  end)

  it("agrees with trying all, by seeds", function()
    local random = require "bodkin.sim.random"
    local code = [[
      local sizes = {}
      return bodkin.policy { teams = { 4, 3 }, party = 4, form = function(anchor, near)
        local list = { anchor }
        for _, t in ipairs(near) do list[#list + 1] = t end
        local teams = bodkin.pack(list, { 4, 3 })
        return teams and { teams = teams } end }]]
    for seed = 1, 40 do
      local rng = random.new(seed, "pack")
      local sizes, tickets = {}, {}
      for i = 1, 6 do
        sizes[i] = (rng:integer() >> 1) % 4 + 1
        tickets[i] = party(sizes[i])
      end
      local function possible(i, a, b)
        if a == 0 and b == 0 then return true end
        if i > 6 or a < 0 or b < 0 then return false end
        return possible(i + 1, a - sizes[i], b) or possible(i + 1, a, b - sizes[i]) or i > 1 and possible(i + 1, a, b)
      end
      local _, err, matches = played(code, tickets)
      assert.is_nil(err)
      local with_first = false
      for _, m in ipairs(matches) do
        for _, team in ipairs(m[1]) do
          for _, no in ipairs(team) do with_first = with_first or no == 1 end
        end
      end
      assert.equal(possible(1, 4, 3), with_first, seed)
    end
  end)
end)

describe("split", function()
  local text = [[return bodkin.policy { size = { 4, 10 }, party = 3, props = { mmr = "number" },
    form = function(anchor, near)
      local list, players = { anchor }, anchor.size
      for _, t in ipairs(near) do list[#list + 1], players = t, players + t.size end
      if players < 4 then return nil end
      local teams, gap = bodkin.split(list, { players // 2, players // 2 }, "mmr")
      return teams and { teams = teams, data = { gap = gap } }
    end }]]

  it("balances teams by a property, as well as can be", function()
    local teams, _, matches = played(text, { { mmr = 10 }, { mmr = 20 }, { mmr = 30 }, { mmr = 40 } })
    local of = {}
    for k, team in ipairs(teams) do
      for _, no in ipairs(team) do of[no] = k end
    end
    assert.equal(of[1], of[4])
    assert.equal(of[2], of[3])
    assert.same({ gap = 0.0 }, matches[1][3])
  end)

  it("keeps to what a team may have of a property's values, too", function()
    local d = support.desk [[return bodkin.policy { size = 4, props = { mmr = "number", role = "string" },
      form = function(anchor, near)
        local list = { anchor, near[1], near[2], near[3] }
        local teams, gap = bodkin.split(list, { 2, 2 }, function(m) return m.props.mmr end, { role = { tank = 1 } })
        return { teams = teams, data = gap } end }]]
    for i, mmr in ipairs { 10, 40, 20, 30 } do d:add { mmr = mmr, role = i <= 2 and "tank" or "any" } end
    local made = d:tick(0)[1]
    local of = {}
    for k, team in ipairs(made[1]) do
      for _, no in ipairs(team) do of[no] = k end
    end
    assert.not_equal(of[1], of[2])
    assert.equal(10.0, made[3]) -- 40 + 20 against 30 + 10
  end)

  it("keeps parties whole", function()
    local two = { members = { { mmr = 90 }, { mmr = 80 } } }
    local teams, _, matches = played(text, { two, { mmr = 10 }, { mmr = 20 } })
    assert.equal(1, #teams[1] == 1 and #teams[1] or #teams[2])
    assert.same({ gap = 70.0 }, matches[1][3])
  end)

  it("is as good as the best of all ways, by seeds", function()
    local random = require "bodkin.sim.random"
    for seed = 1, 30 do
      local rng = random.new(seed, "split")
      local values, tickets, sum = {}, {}, 0
      for i = 1, 8 do
        values[i] = (rng:integer() >> 1) % 1000
        tickets[i], sum = { mmr = values[i] }, sum + values[i]
      end
      local best = math.huge
      for mask = 0, 255 do
        local n, part = 0, 0
        for i = 1, 8 do
          if mask >> (i - 1) & 1 == 1 then n, part = n + 1, part + values[i] end
        end
        if n == 4 then best = math.min(best, math.abs(part - (sum - part)) / 4) end
      end
      local _, _, matches = played(text, tickets)
      assert.near(best, matches[1][3].gap, 1e-6)
    end
  end)

  it("says what it was given in place of tickets and sizes", function()
    local function failure(call)
      local d = support.desk(([[return bodkin.policy { size = 2, props = { mmr = "number?" },
        form = function(anchor, near) return %s end }]]):format(call))
      d:add {}
      d:add {}
      return select(2, d:tick(0))
    end
    assert.matches("a list of tickets expected, but place 1 holds a number", failure "bodkin.pack({ 1 }, { 1 })")
    assert.matches("the size of each team expected", failure "bodkin.pack({ anchor }, { 0 })")
    assert.matches("split by what is a nil, not a number", failure "bodkin.split({ anchor, near[1] }, { 1, 1 }, 'mmr')")
    assert.matches("near needs a policy with an index", failure "bodkin.near(anchor)")
  end)
end)

describe("near", function()
  it("gives who waits nearest by the index, within bounds", function()
    local d = support.desk [[return bodkin.policy { size = 2, index = "mmr", props = { mmr = "number" },
      form = function(anchor, near)
        local list = bodkin.near(anchor, { within = 25, max = 3 })
        local said = {}
        for i, t in ipairs(list) do said[i] = t.id end
        return anchor.id == 1 and { teams = { { anchor, near[1] } }, data = said } or nil
      end }]]
    for _, mmr in ipairs { 100, 110, 95, 130, 120, 60 } do d:add { mmr = mmr } end
    local matches = d:tick(0)
    assert.same({ 3, 2, 5 }, matches[1][3])
  end)

  it("the list that form is given is a table like others, however it is read", function()
    for _, read in ipairs {
      "n = #near", "n = select('#', table.unpack(near))", "for _ in pairs(near) do n = n + 1 end",
      "for _ in ipairs(near) do n = n + 1 end", "table.insert(near, near[1]) n = #near - 1",
      "table.sort(near, function(a, b) return a.id > b.id end) n = near[1].id - near[#near].id + 1",
      "local k repeat k = next(near, k) n = n + (k and 1 or 0) until not k",
      "n = #table.move(near, 1, 4, 1, {})", "n = #table.pack(table.remove(near), #near) + 2",
      "bodkin.best_host(near) n = rawlen(near)",
    } do
      local d = support.desk(([[return bodkin.policy { size = 2, form = function(anchor, near)
        local n, first = 0, near[1]
        %s
        return { teams = { { anchor, first } }, data = n } end }]]):format(read))
      for _ = 1, 5 do d:add {} end
      local matches, err = d:tick(0)
      assert.is_nil(err)
      assert.equal(4, matches[1][3], read)
    end
  end)

  it("kept after its run holds what was read of it", function()
    local d = support.desk [[
      local kept
      return bodkin.policy { size = 2, form = function(anchor, near)
        if kept then return { teams = { { anchor, near[1] } }, data = { #kept, kept[5] == nil } } end
        kept = near
      end }]]
    for _ = 1, 5 do d:add {} end
    assert.same({ 1, true }, d:tick(0)[1][3])
  end)
end)
