-- SPDX-License-Identifier: MIT
-- What a policy may do to the tables that it is given, and to what ours around it relies on: it spoils its own run at
-- worst. The sanitizers say whether memory was left.
local instances = require "bodkin.policy.instance"
local support = dofile "spec/policy/support.lua"

local TICKETS = 60

-- What each has at hand: check(near) fails unless it is a list of different tickets, at most 32.
local HEAD = [[
local saved = {}
local function check(near)
  local seen, n = {}, 0
  for i = 1, 64 do
    local t = near[i]
    if t == nil then break end
    assert(not seen[t.id], "the same ticket twice")
    seen[t.id], n = true, n + 1
  end
  assert(n <= 32 and #near == n, "more than there are")
  return n
end
]]

-- An instance in which all tickets wait.
local function filled(text, limits, running)
  local instance = assert(instances.new(support.source(HEAD .. text), limits))
  for no = 1, TICKETS do
    assert(instance:add({ no = no, app = "a", since_ms = 0, members = { { { mmr = no } } } }, false, 0))
  end
  for no = TICKETS + 1, TICKETS + (running or 0) do
    instance:add({ no = no, app = "a", since_ms = 0, members = { { {} } }, seats = { 1 } }, false, 0)
  end
  return instance
end

-- Three passes and all else that it may be asked. Returns the matches of the first, or nil, message.
local function run(text, limits, running)
  local instance = filled(text, limits, running)
  local first, err = instance:tick(100)
  if first then err = nil end
  for i = 1, first and 2 or 0 do
    instance:explain(i, 150)
    instance:event("on_match", { teams = { { 1, 2 } } })
    local matches, why = instance:tick(100 + i * 100)
    err = err or not matches and why or nil
    for no = i, TICKETS, 7 do instance:drop(no) end
    for no = 100 * i, 100 * i + 9 do
      instance:add({ no = no, app = "a", since_ms = 0, members = { { { mmr = no } } } }, false, 0)
    end
  end
  instance:close()
  return first, err
end

describe("a policy", function()
  it("finds in near who is there, whatever it wrote into it", function()
    for _, text in ipairs {
      "form = function(a, near) for i = 2, 40 do near[i] = a end local _ = near[41] assert(near[32].id ~= a.id) end",
      "form = function(a, near) for i = 40, 2, -1 do rawset(near, i, a) end assert(near[1].id ~= a.id) "
        .. "local _ = near[50], #near end",
      "form = function(a, near) near[1 << 40], near[-1], near.x = a, a, a local _ = near[1 << 41], near[-2] "
        .. "assert(#near == 32) end",
      "form = function(a, near) near[1] = nil local _ = near[33] local n = #near end",
      "form = function(a, near) for _ = 1, 50 do table.insert(near, 1, a) end local _ = near[100] end",
      "form = function(a, near) while #near > 0 do table.remove(near) end local _ = near[1], near[40] end",
      "form = function(a, near) table.move({ a, a, a }, 1, 3, 31, near) local _ = near[40] table.sort(near, "
        .. "function(x, y) return x.id < y.id end) end",
      "form = function(a, near) for k in pairs(near) do near[k] = nil near[k + 40] = a end local _ = near[99] end",
      "form = function(a, near) near[2] = { id = 7 } near[3] = 7 near[4] = { id = 1 << 40 } near[5] = {} "
        .. "return near[9] and { teams = { { a, near[9] } } } end",
    } do
      local matches, err = run("return bodkin.policy { size = 2, " .. text .. " }")
      assert.is_truthy(matches, text .. ": " .. tostring(err))
    end
  end)

  it("finds no more than there are where compatible reads near while it is filled", function()
    local matches, err = run [[
      return bodkin.policy { size = 2,
        compatible = function()
          if saved.near then for i = 1, 40 do local _ = saved.near[i] end end
          return true
        end,
        form = function(a, near)
          saved.near = near
          check(near)
          saved.near = nil
          return { teams = { { a, near[1] } } }
        end }]]
    assert.is_truthy(matches, err)
    assert.equal(TICKETS // 2, #matches)
  end)

  it("reads no more of a near that was of another anchor, another run or a running match", function()
    for _, text in ipairs {
      -- while the next anchor's own is not there yet
      [[size = 3, compatible = function()
          for _, near in ipairs(saved) do local _ = near[#saved * 3 + 5] end
          return true
        end, form = function(a, near) saved[#saved + 1] = near local _ = near[2] end]],
      [[size = 2, compatible = function() local _ = saved.near and (saved.near[30] or #saved.near) return true end,
        form = function(a, near) saved.near = near return { teams = { { a, near[1] } } } end,
        on_match = function() for i = 1, 40 do local _ = saved.near[i] end end]],
      [[size = { 2, 4 }, compatible = function() local _ = saved.near and saved.near[20] return true end,
        on_backfill = function(m, near) saved.near = near return { teams = { { near[1] } } } end,
        on_match = function() check(saved.near) end]],
      [[size = { 2, 4 }, on_backfill = function(m, near)
          for _, other in ipairs(saved) do local _ = other[40], #other end
          saved[#saved + 1] = near
          return { teams = setmetatable({}, {
            __index = function(_, i) return i == 1 and { near[3], near[1] } or nil end,
            __len = function() local _ = near[33] return 1 end }) }
        end]],
    } do
      run("return bodkin.policy { " .. text .. " }", nil, 3)
    end
  end)

  it("goes on after an error that it caught while near was filled", function()
    local matches, err = run [[
      local n = 0
      return bodkin.policy { size = 2,
        compatible = function(a, b) n = n + 1 if n % 2 == 0 and saved.forms then error "x" end return true end,
        form = function(a, near)
          saved.forms = true
          for i = 1, 40 do pcall(function() return near[i] end) end
          for i = 1, 40 do pcall(function() return #near end) end
          assert(check(near) > 20)
          saved.forms = false
          return nil
        end }]]
    assert.is_nil(err)
    assert.same({}, matches)
  end)

  it("may hand near to whatever it likes", function()
    for _, text in ipairs {
      "local _ = bodkin.pack(near, { 2, 2 }), bodkin.split(near, { 16, 16 }, 'mmr'), bodkin.best_host(near)",
      "pcall(bodkin.split, near, { 16, 16 }, function(m) for i = 1, 40 do near[i] = nil end return 1 end)",
      "pcall(bodkin.pack, near, near) pcall(bodkin.near, near) pcall(bodkin.near, a, near)",
      "pcall(setmetatable, near, {}) assert(getmetatable(near) == false)",
      "local t = setmetatable({}, { __index = near, __newindex = near }) local _ = t[33] t[40] = a check(near)",
      "local t = setmetatable({}, { __index = function(_, i) return near[i + 1] end }) "
        .. "for i = 1, 40 do local _ = t[i] end",
      "local co = coroutine.wrap(function() for i = 1, 40 do coroutine.yield(near[i]) end end) "
        .. "for i = 1, 20 do co() end saved.co = co",
      "if saved.co then pcall(saved.co) end saved.co = coroutine.wrap(function() while true do local _ = near[3] "
        .. "coroutine.yield(near[33]) end end) saved.co()",
      "for _, t in ipairs(near) do rawset(t, 'waited_ms', nil) rawset(t, 'id', near[1].id) end",
      "return { teams = { setmetatable({}, { __len = function() local _ = near[40] return 2 end, "
        .. "__index = function(_, i) near[i] = nil return near[i + 5] end }) } }",
      "return { teams = setmetatable({ { a, near[1] } }, { __len = function() return 1 end }), host = near[40], "
        .. "data = near[2] and #near }",
    } do
      run("return bodkin.policy { size = 2, compatible = function() return true end, index = 'mmr', "
        .. "props = { mmr = 'number' }, form = function(a, near) " .. text .. " end }")
    end
  end)

  it("spoils but its own run where it changes what ours uses", function()
    local changes = {
      "ipairs = function(t) if type(t[1]) == 'table' and t[1].number then t[1].number = 1 << 20 end return was(t) end",
      "ipairs = function(t) if type(t[1]) == 'table' and t[1].number then t[1].number = -1 end return was(t) end",
      "ipairs = function(t) if t[1] and t[1].key then for i = #t, 1, -1 do t[i] = nil end end return was(t) end",
      "local unpack = table.unpack table.unpack = function(t) if #t == 6 then return 7, 'a', 0, false, 0, false end "
        .. "return unpack(t) end",
      "local unpack = table.unpack table.unpack = function() return 5 end",
      "local unpack = table.unpack table.unpack = function() return { { 5 } } end",
      "local unpack = table.unpack table.unpack = function() return { { { 'x' } }, false } end",
      "local unpack = table.unpack table.unpack = function() return { {}, false, 1, 'x' } end",
      "local set = setmetatable setmetatable = function(t, mt) if t.id then mt.__newindex = function() "
        .. "local near = saved.near if near then local _ = near[40] end end end return set(t, mt) end",
      "local pack = table.pack table.pack = function() return { n = 0 } end",
      "local remove = table.remove table.remove = function(t) saved.list = t return remove(t) end",
      "package, type, next, tostring, rawset = nil, function() return 'number' end, nil, nil, nil",
      "require('bodkin.policy').is = function() return true end saved.raw = { size = { 0, 32 }, party = -3, "
        .. "teams = { -1, 1 << 40 }, compatible = function() return true end }",
      "require('bodkin.policy').is = function() return true end saved.raw = { size = { 0, 32 }, party = 1, "
        .. "teams = {} }",
    }
    for _, text in ipairs(changes) do
      local ok, instance = pcall(filled, "local was = ipairs " .. text .. [[
        return saved.raw or bodkin.policy { size = { 2, 4 },
          compatible = function() local _ = saved.near and saved.near[40] return true end,
          form = function(a, near)
            saved.near = near
            for _, t in was(near) do rawset(t, "waited_ms", nil) end
            return { teams = { { a, near[1] } } }
          end,
          on_backfill = function(m, near) saved.near = near return { teams = { { near[2] } } } end }]], nil, 2)
      for i = 1, ok and 3 or 0 do
        instance:tick(100 * i)
        instance:explain(40, 200)
        pcall(instance.add, instance, { no = 200 + i, app = "b", since_ms = 0, members = { { {} } } }, false, 0)
      end
      if ok then instance:close() end
    end
  end)
end)

describe("what a pass tells", function()
  it("is a match, or the pass failed", function()
    for _, result in ipairs { "5", "{ 5 }", "{ { 5 } }", "{ { { 'x' } }, false }", "{ {}, false, 1, 'x' }" } do
      local matches, err = run("return bodkin.policy { size = 2, form = function() table.unpack = function() return "
        .. result .. " end end }")
      assert.is_nil(matches)
      assert.matches("no match$", err)
    end
  end)
end)

describe("the garbage of a policy", function()
  it("is collected while form runs, where it makes more of it than there is room", function()
    local matches, err = run([[
      return bodkin.policy { size = 2, form = function(a, near)
        local t
        for i = 1, 30000 do t = { i, i, i } end
        return { teams = { { a, near[1] } } }
      end }]], { memory = 1 << 20, instructions = 100000000 })
    assert.is_truthy(matches, err)
    assert.equal(TICKETS // 2, #matches)
  end)

  it("is collected again after a pass that ended with an error", function()
    local instance = filled([[
      return bodkin.policy { size = 2, form = function() error "x" end,
        on_match = function() for i = 1, 30000 do local _ = { i, i, i } end end }]],
      { memory = 1 << 20, instructions = 10000000 })
    assert.is_nil(instance:tick(100))
    assert.is_true(instance:event("on_match", { teams = { { 1, 2 } } }))
    instance:close()
  end)
end)
