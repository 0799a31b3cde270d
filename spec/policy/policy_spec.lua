-- SPDX-License-Identifier: MIT
local policies = require "bodkin.policy"
local support = dofile "spec/policy/support.lua"
local instances = require "bodkin.policy.instance"

describe("bodkin.policy", function()
  it("checks each field where the policy is made", function()
    local many = {}
    for i = 1, 17 do many["p" .. i] = "number" end
    for expect, def in pairs {
      ["policy: takes a table"] = 3,
      ["has no field 'sise' (did you mean size?): it is one of props, claims, size, teams"] = { sise = 2 },
      ["has no field 'nothing': it is one of props"] = { nothing = 2 },
      ["has no field '7': it is one of props"] = { [7] = 2 },
      ["on_match must be a function, not a boolean"] = { on_match = true },
      ["accept_ms must be a whole number of ms from 1000 to 120000"] = { accept_ms = 10 },
      ["party must be the most players of one ticket, from 1 to 4"] = { size = 4, party = 5 },
      ["party: no team has room for 3, which stay together; the largest has 2"] = { teams = { 2, 1 }, party = 3 },
      ["size must be a number of players from 2 to 32"] = { size = 1 },
      ["size must be a number of players from 2 to 32, or { least, most }"] = { size = { 4, 3 } },
      ["give either size or teams"] = { size = 2, teams = { 1, 1 } },
      ["teams must list the size of each, such as { 5, 5 }"] = { teams = { 0, 1 } },
      ["teams: a match has 2 to 32 players, not 40"] = { teams = { 20, 20 } },
      ["window_ms must be a whole number of ms from 10 to 60000"] = { window_ms = 1.5 },
      ["form must be a function, not a table"] = { form = {} },
      ["props must be a table"] = { props = "mmr" },
      ["props.mmr: there is no type 'nummer': it is number, integer, boolean, string, or a list"] =
        { props = { mmr = "nummer" } },
      ["props.mode: must list what it may be"] = { props = { mode = {} } },
      ["props.mode: its default must be one of a, b"] = { props = { mode = { "a", "b", default = "c" } } },
      ["props.n: has no field 'minimum'"] = { props = { n = { type = "integer", minimum = 1 } } },
      ["props.s: min is a number, and for numbers"] = { props = { s = { type = "string", min = 1 } } },
      ["props.n: min is 10, above max, 0: nothing is both"] =
        { props = { n = { type = "number", min = 10, max = 0, optional = true } } },
      ["props: 'my prop' is no name"] = { props = { ["my prop"] = "string" } },
      ["index must name a property that is a number and always there"] = { props = { mmr = "number?" }, index = "mmr" },
      ["shard must name one of props"] = { shard = "mode" },
      ["props: 17 are too many; at most 16"] = { props = many },
    } do
      local ok, err = pcall(function()
        local policy = policies.policy(def)
        return policy
      end)
      assert.is_false(ok, expect)
      assert.matches(expect, err, 1, true)
      assert.matches("policy_spec.lua:%d+: policy: ", err)
    end
  end)

  it("knows file and line though `return bodkin.policy` is a tail call", function()
    for text, line in pairs {
      ["return bodkin.policy {\n  window_ms = 50,\n  size = 99,\n}"] = 4,
      ["return bodkin.policy {\n  props = {\n    mmr = 'nummer' },\n}"] = 4,
      ["return bodkin.policy {\n  admit = 3 }"] = 3,
      ["local x =\n  {}\nreturn bodkin.policy(7)"] = 4,
    } do
      local instance, err = instances.new(support.source(text))
      assert.is_nil(instance)
      assert.matches(("^policy.lua:%d: policy: "):format(line), err)
    end
  end)

  it("is the facade's, too, and tells its own kind", function()
    local policy = require("bodkin").policy { size = 4 }
    assert.is_true(policies.is(policy))
    assert.equal("policy", policy.kind)
    assert.same({ 4, 4 }, policy.size)
    assert.is_false(policies.is { kind = "policy" })
  end)

  it("takes the properties it declares, and says what is wrong with others", function()
    local policy = policies.policy { props = {
      mmr = "number", level = { type = "integer", min = 1, max = 50, default = 1 }, mode = { "ranked", "casual" },
      region = "string?", solo = { type = "boolean", optional = true },
    } }
    assert.same({ mmr = 1500.0, level = 1, mode = "casual" }, policies.props(policy, { mmr = 1500, mode = "casual" }))
    assert.equal("float", math.type(policies.props(policy, { mmr = 1500, mode = "casual" }).mmr))
    assert.same({ mmr = 1.5, level = 7, mode = "ranked", region = "eu", solo = true },
      policies.props(policy, { mmr = 1.5, mode = "ranked", level = 7, region = "eu", solo = true }))
    for expect, props in pairs {
      ["the property mmr is missing"] = { mode = "casual" },
      ["mmr must be a number"] = { mmr = "high", mode = "casual" },
      ["level must be an integer"] = { mmr = 1, mode = "casual", level = 1.5 },
      ["level must be at least 1"] = { mmr = 1, mode = "casual", level = 0 },
      ["level must be at most 50"] = { mmr = 1, mode = "casual", level = 51 },
      ["mode must be one of ranked, casual"] = { mmr = 1, mode = "fun" },
      ["region must be at most 64 bytes"] = { mmr = 1, mode = "casual", region = ("x"):rep(65) },
      ["solo must be a boolean"] = { mmr = 1, mode = "casual", solo = 1 },
      ["there is no property map"] = { mmr = 1, mode = "casual", map = "dust" },
    } do
      local got, why = policies.props(policy, props)
      assert.is_nil(got)
      assert.equal(expect, why)
    end
    local nan = policies.props(policy, { mmr = 0 / 0, mode = "casual" })
    assert.is_nil(nan)
    assert.same({ anything = 1 }, policies.props(policies.policy {}, { anything = 1 }))
  end)
end)

describe("a pass", function()
  it("puts the oldest first, and asks compatible and form", function()
    local d = support.desk [[
      return bodkin.policy { size = 2, props = { n = "integer" },
        compatible = function(a, b) return (a.props.n + b.props.n) % 2 == 0 end,
        form = function(anchor, near, now_ms)
          return { teams = { { anchor, near[#near].id } }, host = near[#near],
            data = { near = #near, waited = anchor.waited_ms, now = now_ms } }
        end }]]
    for n = 1, 6 do d:add({ n = n }, { since_ms = n * 100 }) end
    assert.same({
      { { { 1, 5 } }, 5, { near = 2, waited = 900, now = 1000 } },
      { { { 2, 6 } }, 6, { near = 2, waited = 800, now = 1000 } },
    }, d:tick(1000))
    assert.same({}, d:tick(1100))
    d:tell { "drop", "q", 3 }
    d:add({ n = 9 }, { since_ms = 1200 })
    assert.same({}, d:tick(1300))
    d:add({ n = 11 }, { since_ms = 1250 })
    assert.same({ { { { 7, 8 } }, 8, { near = 1, waited = 100, now = 1300 } } }, d:tick(1300))
  end)

  it("offers the nearest by index first, and keeps shards and apps apart", function()
    local d = support.desk [[
      return bodkin.policy { size = 2, props = { mmr = "number", mode = { "a", "b" } }, index = "mmr", shard = "mode",
        form = function(anchor, near)
          local list = {}
          for i, t in ipairs(near) do list[i] = t.id end
          return { teams = { { anchor, near[1] } }, data = list }
        end }]]
    for _, mmr in ipairs { 100, 300, 90, 150, 95, 1000 } do d:add { mmr = mmr, mode = "a" } end
    d:add { mmr = 100, mode = "b" }
    d:add({ mmr = 100, mode = "a" }, { app = "other" })
    assert.same({
      { { { 1, 5 } }, false, { 5, 3, 4, 2, 6 } }, { { { 2, 4 } }, false, { 4, 3, 6 } }, { { { 3, 6 } }, false, { 6 } },
    }, d:tick(0))
  end)

  it("fills a match by itself where there is no form: mutually compatible, oldest first", function()
    local d = support.desk [[
      return bodkin.policy { teams = { 2, 1 }, props = { n = "integer" },
        compatible = function(a, b) return math.abs(a.props.n - b.props.n) <= 2 end }]]
    for _, n in ipairs { 5, 3, 7, 4, 9 } do d:add { n = n } end
    -- 5 takes 3, not 7 (4 away from 3), then 4.
    assert.same({ { { { 1, 2 }, { 4 } }, false } }, d:tick(0))
  end)

  it("fills a match with parties that come out even, and with those that fit each other, where the first do not",
    function()
      local d = support.desk "return bodkin.policy { size = 4, party = 3 }"
      for _, size in ipairs { 2, 1, 2, 3 } do
        local members = {}
        for i = 1, size do members[i] = {} end
        d:add({}, { members = members })
      end
      assert.same({ { { { 1, 3 } }, false }, { { { 2, 4 } }, false } }, d:tick(0))
      d = support.desk [[
        return bodkin.policy { size = 3, props = { n = "integer" },
          compatible = function(a, b) return math.abs(a.props.n - b.props.n) <= 2 end }]]
      for _, n in ipairs { 5, 3, 6, 7 } do d:add { n = n } end
      -- 3 is the first to fit 5, and nobody else fits both.
      assert.same({ { { { 1, 3, 4 } }, false } }, d:tick(0))
    end)

  describe("does not stop where the oldest cannot do without others:", function()
    local function pairs_and_singles(policy, seats)
      local d = support.desk("return bodkin.policy { party = 2, " .. policy .. " }")
      for i = 1, 120 do d:add({}, { members = i <= 40 and { {}, {} } or nil }) end
      if seats then d:add({}, { seats = seats }) end
      local matches = 0
      for pass = 1, 40 do matches = matches + #d:tick(100 * pass) end
      return matches
    end

    it("whole parties, none of which fills a team", function()
      assert.equal(26, pairs_and_singles "teams = { 3, 3 }") -- of 160 players, 80 of them alone
    end)

    it("and where a form packs them", function()
      assert.equal(26, pairs_and_singles [[teams = { 3, 3 }, form = function(anchor, near)
        local list = table.move(near, 1, #near, 2, { anchor })
        local teams = bodkin.pack(list, { 3, 3 })
        return teams and { teams = teams }
      end]])
    end)

    it("players of one role", function()
      for _, index in ipairs { "", 'index = "mmr", ' } do
        local d = support.desk("return bodkin.policy { size = 2, " .. index .. [[
          props = { role = "string", mmr = { type = "number", default = 5 } }, form = function(anchor, near)
            for _, other in ipairs(near) do
              if other.props.role ~= anchor.props.role then return { teams = { { anchor, other } } } end
            end
          end }]])
        for i = 1, 140 do d:add { role = i <= 70 and "tank" or "healer" } end
        local matches = 0
        for pass = 1, 40 do matches = matches + #d:tick(100 * pass) end
        assert.equal(70, matches)
      end
    end)

    it("a running match with a seat for one", function()
      local fills = [[size = { 2, 4 }, form = function() end, on_backfill = function(match, near)
        for _, one in ipairs(near) do
          if one.size <= match.seats[1] then return { teams = { { one } } } end
        end
      end]]
      assert.equal(1, pairs_and_singles(fills, { 1 }))
    end)
  end)

  it("refuses what form must not return, with file and line", function()
    local function tick(body, fields)
      local d = support.desk("return bodkin.policy { " .. (fields or "size = 2,") .. "\nform = function(a, near)\n"
        .. body .. "\nend }")
      for _ = 1, 4 do d:add {} end
      return d:tick(0)
    end
    for body, expect in pairs {
      ["return 7"] = "form returned a number, not { teams",
      ["return {}"] = "form returned a table, not { teams",
      ["return { teams = {} }"] = "form returned 0 teams",
      ["return { teams = { a, near[1] } }"] =
        "form returned a ticket in place of a team: { teams = { { ticket, … } } }",
      ["return { teams = { {}, {} } }"] = "form returned 0 players; a match has 2 to 2",
      ["return { teams = { 1 } }"] = "form returned a team that is a number",
      ["return { teams = { { a } } }"] = "form returned 1 players; a match has 2 to 2",
      ["return { teams = { { a, a } } }"] = "form returned ticket 1 twice",
      ["return { teams = { { a, 99 } } }"] = "form returned what is no waiting ticket (a number)",
      ["return { teams = { { a, 'x' } } }"] = "form returned what is no waiting ticket (a string)",
      ["return { teams = { { a, near[1], near[2] } } }"] = "form returned 3 players; at most 2",
      ["return { teams = { { a, near[1] } }, host = near[2] }"] = "a host that is not in the match",
      ["return { teams = { { a, near[1] } }, data = ('x'):rep(600) }"] = "not told: 603 bytes; at most 512",
      ["return { teams = { { a, near[1] } }, data = {{{{{{{}}}}}}} }"] = "data that is not told: nested deeper than 6",
      ["return { teams = { { a, near[1] } }, data = {{{{{{{{}}}}}}}} }"] = "not told: nested deeper than 6",
      ["return { teams = { { a, near[1] } }, data = print }"] = "data that is not told: only nil, booleans",
    } do
      local matches, err = tick(body)
      assert.is_nil(matches, body)
      assert.matches(expect, err, 1, true)
      assert.matches("^policy.lua:3: ", err)
    end
    local _, err = tick("return { teams = { { a, near[1] }, { near[2] } } }", "teams = { 1, 2 },")
    assert.matches("form returned a team of 2 in place of 1", err, 1, true)
    assert.same({}, tick "return nil")
  end)

  it("refuses what on_backfill must not return, with file and line", function()
    for body, expect in pairs {
      ["return 7"] = "on_backfill returned a number, not { teams",
      ["return { teams = { { near[1] }, { near[2] } } }"] = "on_backfill returned a table, not { teams",
      ["return { teams = { { near[1], near[1] } } }"] = "on_backfill returned ticket 1 twice",
      ["return { teams = { { near[1], near[2], near[3] } } }"] = "on_backfill returned more than the 2 seats of team 1",
      ["return { teams = { { 99 } } }"] = "on_backfill returned what is no waiting ticket",
      ["error('waits for ' .. m.waited_ms)"] = "waits for 700",
    } do
      local d = support.desk("return bodkin.policy { size = { 2, 4 }, form = function() end,\non_backfill = "
        .. "function(m, near) " .. body .. " end }")
      for _ = 1, 3 do d:add {} end
      d:add({}, { seats = { 2 } })
      local matches, err = d:tick(700)
      assert.is_nil(matches, body)
      assert.matches("policy.lua:3: " .. expect, err, 1, true)
    end
  end)

  it("keeps a running match in its shard, also while nobody else waits there", function()
    local d = support.desk [[return bodkin.policy { size = { 2, 4 }, props = { map = "string" }, shard = "map",
      form = function() end, on_backfill = function(_, near) return near[1] and { teams = { { near[1] } } } end }]]
    d:add({ map = "dust" }, { seats = { 1 } })
    d:tick(100)
    d:add { map = "ice" }
    assert.same({}, d:tick(200))
    d:add { map = "dust" }
    assert.same({ { 3 } }, d:tick(300)[1][1])
  end)

  it("says why a ticket waits as compatible is asked about it", function()
    local d = support.desk [[return bodkin.policy { size = 2, props = { n = "integer" },
      compatible = function(a, b) return false, a.props.n .. " before " .. b.props.n end }]]
    for n = 1, 2 do d:add { n = n } end
    d:tick(0)
    assert.same({ { "1 before 2", 1 } }, d:tell({ "explain", "q", 1, 1, 0 })[1][4].reasons)
  end)

  it("keeps who was admitted for another version where it fails to take it in", function()
    local d = support.desk "return bodkin.policy { size = 2, index = function() error 'no' end }"
    for no = 1, 2 do
      assert.equal("failed", d:tell({ "add", "q", 1, no, "a", 0, { { {} } }, true, 0, false })[1][1])
    end
    d:load(2, "first_come")
    assert.same({ { { { 1, 2 } }, false } }, d:tick(0, 2))
  end)

  it("tells its state each ten seconds where it changed", function()
    local d = support.desk [[return bodkin.policy { size = 2, compatible = function(a)
      state.n = a.waited_ms < 15000 and 1 or 2
      return false
    end }]]
    for _ = 1, 2 do d:add {} end
    local kept = {}
    for i = 0, 40 do
      for _, m in ipairs(d:tell { "tick", "q", 1, i, 1000 * i }) do
        if m[1] == "kept" then kept[#kept + 1] = i end
      end
    end
    assert.same({ 10, 20 }, kept)
  end)

  it("goes on with its state in on_register, also after the version before is discarded", function()
    local text = [[state.n = (state.n or 0)
      return bodkin.policy { on_register = function() state.n = state.n + 1 return false, tostring(state.n) end }]]
    local d = support.desk(text)
    local function ask(version)
      return d:tell({ "ask", version, 1, ("0"):rep(32), "a", "", "\x80", "\x80" })[1][4]
    end
    assert.equal("1", ask(1))
    d:load(2, text)
    assert.equal("kept", (d:tell { "discard", 1 }[1] or {})[1])
    assert.equal("2", ask(2))
  end)

  it("puts nobody of another app or shard into a match, whatever bytes are in their names", function()
    local d = support.desk "return bodkin.policy { size = 2, props = { s = 'string' }, shard = 's' }"
    d:add({ s = "c" }, { app = "a\0b" })
    d:add({ s = "b\0c" }, { app = "a" })
    d:add({ s = "b:c" }, { app = "1:a" })
    d:add({ s = "1:ab" }, { app = "" })
    d:add({ s = "" }, { app = "1:ab" })
    assert.same({}, d:tick(0))
    d:add({ s = "b\0c" }, { app = "a" })
    assert.same({ { { { 2, 6 } }, false } }, d:tick(0))
  end)

  it("asks admit once, and says why not", function()
    local d = support.desk [[
      return bodkin.policy { size = 2, props = { age = "integer" },
        admit = function(t)
          if t.props.age < 18 then return false, "too young" end
          if t.props.age > 99 then return false end
          if t.props.age == 50 then return nil, {} end
          return true
        end }]]
    assert.equal(1, d:add { age = 20 })
    assert.same({ nil, "too young" }, { d:add { age = 17 } })
    assert.same({ nil, "the queue does not admit you" }, { d:add { age = 100 } })
    assert.same({ nil, "age must be an integer" }, { d:add { age = "x" } })
    local no, why = d:add { age = 50 }
    assert.is_nil(no)
    assert.matches("policy.lua:3: admit returned false and a table", why, 1, true)
  end)

  it("goes on with another version, all tickets in it", function()
    local d = support.desk "return bodkin.policy { size = 2, compatible = function() error 'never' end }"
    d:add {}
    d:add {}
    local matches, err = d:tick(0)
    assert.is_nil(matches)
    assert.matches("policy.lua:2: never", err, 1, true)
    assert.equal("loaded", d:load(2, "first_come"))
    assert.same({ { { { 1, 2 } }, false } }, d:tick(0, 2))
    assert.same({ "refused", "policy.lua returns a number, not a policy: end it with return bodkin.policy { … }" },
      { d:load(3, "return 7") })
  end)

  it("is linear in the number of tickets", function()
    local function work(n)
      local d = support.desk("return bodkin.policy { size = 2, compatible = function() return false end }",
        { memory = 64 << 20, instructions = 1 << 40 })
      for _ = 1, n do d:add {} end
      d:tick(0)
      return d.told[#d.told][4]
    end
    local one, four = work(500), work(2000)
    assert.is_true(four < 4.5 * one, ("%d, %d"):format(one, four))
  end)

  it("too long for its budget is gone through in several, from the oldest on", function()
    local d = support.desk([[return bodkin.policy { size = 2, window_ms = 50, props = { n = "integer" },
      compatible = function(a, b)
        for _ = 1, 1000 do end
        return a.props.n == b.props.n
      end }]], { memory = 32 << 20, instructions = 400000 })
    for i = 1, 600 do d:add { n = i // 2 } end -- 2 and 3, 4 and 5, …: neighbours only
    local seen, passes = 0, 0
    repeat
      local matches, err = d:tick(0)
      assert.is_nil(err)
      seen, passes = seen + #matches, passes + 1
    until seen == 299 or passes > 50
    assert.equal(299, seen)
    assert.is_true(passes > 2, passes)
  end)

  it("brings any two together in the end, whatever crowd stands between them", function()
    for _, index in ipairs { "", "index = 'n'," } do
      local d = support.desk(([[return bodkin.policy { size = 2, props = { n = "integer", kind = "string" }, %s
        compatible = function(a, b) return a.props.kind == "rare" and b.props.kind == "rare" end }]]):format(index))
      for i = 1, 500 do d:add { n = i, kind = (i == 150 or i == 470) and "rare" or "other" } end
      local passes, matches = 0, {}
      while #matches == 0 and passes < 20 do
        matches = d:tick(passes)
        passes = passes + 1
      end
      local two = matches[1][1][1]
      table.sort(two)
      assert.same({ 150, 470 }, two)
    end
  end)

  -- A new directory, and what writes files into it.
  local function directory()
    local dir = assert(io.popen "mktemp -d"):read "l"
    return dir, function(name, text)
      local f <close> = assert(io.open(dir .. "/" .. name, "w"))
      f:write(text)
    end
  end

  it("finds text files beside the policy, and keeps them as they were", function()
    local source = require "bodkin.policy.source"
    local dir, write = directory()
    write("p.lua", 'local bodkin, lib = require "bodkin", require("sub.lib")\n'
      .. "return bodkin.policy { size = lib.size }")
    assert(os.execute("mkdir " .. dir .. "/sub"))
    write("sub/lib.lua", "return { size = require 'sub.more' }")
    write("sub/more.lua", "return 5")
    local read = assert(source.read(dir .. "/p.lua"))
    write("sub/more.lua", "syntax error")
    assert.same({ 5, 5 }, assert(instances.new(read)).about.size)
    local instance, err = instances.new(assert(source.read(dir .. "/p.lua")))
    assert.is_nil(instance)
    assert.matches("sub/more.lua:1: syntax error", err, 1, true)
    write("p.lua", 'require "nothing"')
    instance, err = instances.new(assert(source.read(dir .. "/p.lua")))
    assert.is_nil(instance)
    assert.matches("p.lua:1: module 'nothing' not found: a policy may require text files beside it", err, 1, true)
    assert.matches("Is a directory", select(2, source.read(dir .. "/sub")), 1, true)
    os.execute("rm -r " .. dir)
    assert.matches("No such file", select(2, source.read(dir .. "/p.lua")), 1, true)
  end)

  it("guesses which of those that ship was meant", function()
    local source = require "bodkin.policy.source"
    local _, err = source.read "skil"
    assert.equal("cannot read the policy: skil: No such file or directory (did you mean skill?)", err)
    assert.matches("directory$", select(2, source.read "duel.lua"))
    _, err = instances.new(support.source "return bodkin.policy { compatable = print }")
    assert.matches("^policy.lua:2: policy: has no field 'compatable' %(did you mean compatible%?%): it is one of", err)
  end)

  it("takes a file that is empty for a text, not for one that is absent", function()
    local source = require "bodkin.policy.source"
    local dir, write = directory()
    write("lib.lua", "")
    write("p.lua", 'require "lib" return require("bodkin").policy {}')
    assert(instances.new(assert(source.read(dir .. "/p.lua")))):close()
    write("p.lua", "")
    local slots, err = require("bodkin.servers.policies").read { ["*"] = { policy = dir .. "/p.lua" } }
    os.execute("rm -r " .. dir)
    assert.is_nil(slots)
    assert.equal(dir .. "/p.lua returns nothing, not a policy: end it with return bodkin.policy { … }", err)
  end)
end)

describe("policy", function()
  it("first_come puts two together in order of arrival", function()
    local d = support.desk "first_come"
    for i = 1, 5 do d:add { any = i } end
    assert.same({ { { { 1, 2 } }, false }, { { { 3, 4 } }, false } }, d:tick(0))
    d:add {}
    assert.same({ { { { 5, 6 } }, false } }, d:tick(100))
  end)

  it("skill widens its window with time, for both", function()
    local d = support.desk "skill"
    d:add { mmr = 1000 }
    d:add { mmr = 1200 }
    assert.same({}, d:tick(0))
    assert.same({}, d:tick(14000))
    d:add({ mmr = 1100 }, { since_ms = 14000 }) -- new: takes nobody 100 away
    assert.same({}, d:tick(14500))
    assert.same({ { { { 1 }, { 2 } }, false } }, d:tick(15000))
    d:add({ mmr = 1100, mode = "ranked" }, { since_ms = 15000 })
    assert.same({}, d:tick(90000))
    assert.equal("mmr is missing, and no token claims it", select(2, d:add {}))
  end)

  it("skill takes what the backend claims over what the client says", function()
    local d = support.desk "skill"
    d:add({ mmr = 1000 }, { claims = { mmr = 3000 } })
    d:add { mmr = 1000 }
    d:add { mmr = 2990 }
    assert.same({ { { { 1 }, { 3 } }, false } }, d:tick(0))
  end)

  it("teams makes two even teams of five, parties whole, with one tank and one healer each", function()
    local d = support.desk "teams"
    local roles = { "tank", "tank", "tank", "healer", "any", "damage", "damage", "damage", "any", "damage", "healer" }
    d:add(nil, { members = { { mmr = 1600, role = "tank" }, { mmr = 1400, role = "healer" } } })
    for i, role in ipairs(roles) do d:add { mmr = 1450 + 10 * i, role = role } end
    local matches = d:tick(0)
    assert.equal(1, #matches)
    local players, at = {}, {}
    for k, team in ipairs(matches[1][1]) do
      players[k] = { n = 0, tank = 0, healer = 0, damage = 0, any = 0 }
      for _, no in ipairs(team) do
        at[no] = k
        for _, role in ipairs(no == 1 and { "tank", "healer" } or { roles[no - 1] }) do
          players[k][role], players[k].n = players[k][role] + 1, players[k].n + 1
        end
      end
      assert.equal(5, players[k].n)
      assert.is_true(players[k].tank <= 1 and players[k].healer <= 1 and players[k].damage <= 3)
    end
    assert.truthy(at[1])
    assert.is_true(matches[1][3].gap <= 10, matches[1][3].gap)
    assert.equal("at most 5 in a party here", select(2, d:add(nil, { members = { {}, {}, {}, {}, {}, {} } })))
  end)

  it("teams keeps to its roles however even a team without them were", function()
    for seed = 1, 20 do
      local d = support.desk "teams"
      local roles = { "tank", "tank", "healer", "healer" }
      for i = 1, 10 do d:add { mmr = 1500 + i * i * seed % 97, role = roles[i] or "damage" } end
      for _, team in ipairs(d:tick(0)[1][1]) do
        local seen = {}
        for _, no in ipairs(team) do
          local role = roles[no]
          assert.is_nil(role and seen[role], seed)
          if role then seen[role] = true end
        end
      end
    end
  end)

  it("lobby begins when it is full, or after a while, and lets others in later", function()
    local d = support.desk "lobby"
    for i = 1, 3 do d:add({ map = "dust" }, { since_ms = i }) end
    assert.same({}, d:tick(9000))
    assert.same({ { { { 1, 2, 3 } }, 1, { map = "dust" } } }, d:tick(10001))
    local running = d:add({ map = "dust" }, { since_ms = 20000, seats = { 3 } })
    d:add({ map = "ice" }, { since_ms = 20000 })
    d:add(nil, { since_ms = 20000, members = { { map = "dust" }, { map = "dust" } } })
    d:add({ map = "dust" }, { since_ms = 20001 })
    d:add({ map = "dust" }, { since_ms = 20002 })
    local told = d:tell { "tick", "q", 1, 99, 20100 }
    assert.same({ "match", "q", 99, { { 6, 7 } }, false }, { table.unpack(told[1], 1, 5) })
    assert.equal(running, told[1][7])
    assert.same({}, d:tick(20200)) -- it is full, as far as is known
    for i = 1, 7 do d:add({ map = "dust" }, { since_ms = 20200 + i }) end
    assert.equal(8, #d:tick(20300)[1][1][1])
  end)

  it("rooms fills a room by its name", function()
    local d = support.desk "rooms"
    for _, room in ipairs { "red", "blue", "red", "red" } do d:add { room = room, players = 3 } end
    assert.same({ { { { 1, 3, 4 } }, 1, { room = "red" } } }, d:tick(0))
    assert.equal("a room needs a name", select(2, d:add { room = "" }))
    assert.equal("players must be at most 16", select(2, d:add { room = "x", players = 17 }))
  end)
end)
