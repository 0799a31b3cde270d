-- SPDX-License-Identifier: MIT
-- Who watches the registry is told in time, and costs the server no more than its share.
local core = require "bodkin.core"
local desks = require "bodkin.policy.desk"
local sources = require "bodkin.policy.source"
local support = require "spec.servers.support"
local watches = require "bodkin.servers.watches"

local function bytes(n) return ("%016d"):format(n) end

-- A query of so many comparisons, which finds who has n = `wanted`.
local function query(terms, wanted)
  local q = { "or", { "=", "n", wanted } }
  for i = 2, terms do q[i + 1] = { "=", "other", i } end
  return core.wire.encode(q)
end

local function entry(app, n) return { app = app, name = "", props = core.wire.encode { n = n } } end

describe("watches", function()
  local env, self, told, closers, looked
  local real = core.query

  local function open(limit)
    env, told, closers, looked = support.env(1), {}, {}, 0
    self = watches.new({ env = env, limits = { watches = limit or 1000 }, at_status = function() end,
      at_close = function(_, fn) closers[#closers + 1] = fn end }, { push = function(_, _, _, watch)
        told[watch] = (told[watch] or 0) + 1
      end })
  end

  -- The nth watch, four of each client; it is told at once, which is not counted.
  local function watch(n, app, q)
    local ok = self:set(bytes(n // 4), bytes(n), app, q)
    told[bytes(n)] = nil
    return ok
  end

  local function advance(ms) env.loop:advance(ms * 1000) end
  local function count(n) return told[bytes(n)] or 0 end

  before_each(function()
    core.query = function(q, props) -- luacheck: ignore 122
      local terms, matches = real(q, props)
      if props then looked = looked + terms end
      return terms, matches
    end
  end)
  after_each(function()
    core.query = real -- luacheck: ignore 122
    for _, fn in ipairs(closers) do fn() end
    assert.equal(0, env.timers)
  end)

  it("hear at once of what concerns them, where nothing changed of late, and then once a second", function()
    open()
    for n = 1, 100 do watch(n, "a", query(3, n)) end
    watch(101, "b", query(3, 7))
    advance(2000)
    self:changed(nil, entry("a", 7))
    assert.same({ [bytes(7)] = 1 }, told)
    self:changed(entry("a", 7), entry("a", 8))
    advance(50)
    assert.same({ [bytes(7)] = 1, [bytes(8)] = 1 }, told)
    advance(1000)
    assert.same({ [bytes(7)] = 2, [bytes(8)] = 1 }, told)
    self:gone(bytes(999), entry("b", 7))
    advance(50)
    assert.equal(1, count(101))
    self:gone(bytes(999), nil) -- of what is not known any more
    advance(1000)
    assert.same({ 1, 3, 2, 2 }, { count(1), count(7), count(8), count(101) })
  end)

  it("take little at a time, and lose nothing by it, also when some of them end meanwhile", function()
    open()
    for n = 1, 160 do watch(n, "a", query(40, n % 2)) end
    advance(2000)
    for i = 2, 20 do
      self:changed(entry("a", i - 1), entry("a", i))
      assert.is_true(looked <= 4100, looked)
    end
    for n = 1, 40 do self:clear(bytes(n // 4), bytes(n)) end
    for _ = 1, 120 do
      looked = 0
      advance(40)
      assert.is_true(looked <= 4100, looked)
    end
    for n = 101, 159, 2 do assert.equal(1, count(n), n) end -- those for n = 1
    for n = 102, 160, 2 do assert.equal(0, count(n), n) end
  end)

  it("of an app in which too much changes are all told, seldom, and those of another as ever", function()
    open()
    for n = 1, 100 do watch(n, "a", query(40, -n)) end
    watch(101, "b", query(40, 5))
    advance(2000)
    local most = 0
    for i = 1, 2000 do -- of 20 s
      looked = 0
      self:changed(entry("a", i), entry("a", i + 1))
      if i % 100 == 0 then self:changed(nil, entry("b", 5)) end
      advance(10)
      most = math.max(most, looked)
    end
    assert.is_true(most <= 8200, most)
    for n = 1, 100 do assert.is_true(count(n) >= 3 and count(n) <= 5, count(n)) end
    assert.is_true(count(101) >= 17 and count(101) <= 20, count(101))
    for i = 1, 100 do told[bytes(i)] = nil end
    self:changed(entry("a", 0), nil)
    advance(6000)
    assert.is_true(count(1) <= 1)
    self:changed(nil, entry("a", -3)) -- all is as it was
    advance(50)
    assert.is_true(count(3) >= 1 and count(4) <= 1)
  end)

  it("hear of what came while too much changed to be looked at, once that is over", function()
    open()
    watch(1, "a", query(40, 1))
    advance(2000)
    for i = 2, 200 do self:changed(nil, entry("a", i)) end
    advance(3000)
    local before = count(1)
    self:changed(nil, entry("a", 1)) -- the last change of all
    advance(6000)
    assert.same({ 1, 2 }, { before, count(1) })
  end)

  it("hear of another name", function()
    open()
    watch(1, "a", query(1, 1))
    advance(2000)
    local before, now = entry("a", 1), entry("a", 1)
    self:changed(before, now)
    advance(50)
    assert.equal(0, count(1))
    now.name = "ann"
    self:changed(before, now)
    advance(50)
    assert.equal(1, count(1))
  end)

  it("asked for again stay as they are, and with another query are of that one", function()
    open()
    watch(1, "a", query(1, 1))
    assert.is_true(self:set(bytes(0), bytes(1), "a", query(1, 1)))
    advance(2000)
    assert.equal(0, count(1))
    assert.is_true(watch(1, "a", query(1, 2)))
    advance(2000)
    self:changed(nil, entry("a", 1))
    advance(50)
    assert.equal(0, count(1))
    self:changed(nil, entry("a", 2))
    advance(50)
    assert.equal(1, count(1))
  end)

  it("are four of one client, and bounded by their comparisons", function()
    open()
    for n = 4, 7 do assert.is_true(watch(n, "a", query(1, 1))) end
    assert.is_nil(self:set(bytes(1), bytes(8), "a", query(1, 1)))
    self:clear(bytes(1), bytes(4))
    assert.is_true(self:set(bytes(1), bytes(8), "a", query(1, 1)))
    for n = 5, 8 do self:clear(bytes(1), bytes(n)) end
    open(12)
    assert.is_true(watch(4, "a", query(40, 1)))
    assert.is_true(watch(8, "a", query(40, 1)))
    assert.is_nil(watch(12, "a", query(1, 1)))
    self:clear(bytes(1), bytes(4))
    for n = 12, 17 do assert.is_true(watch(n, "a", query(7, 1))) end
    assert.is_nil(watch(20, "a", query(1, 1)))
  end)
end)

describe("what is watched", function()
  it("stays so while the policy cannot be asked whether it may", function()
    local held, desk = {}, nil
    local policy = sources.text('local bodkin = require "bodkin"\n'
      .. "return bodkin.policy { on_search = function(c, q) return q.no == nil, 'no' end }")
    local s = support.server { roles = { "matching" }, queues = { ["*"] = { policy = policy } },
      open_policy_link = function(on_message)
        desk = desks.new(on_message)
        return { send = function(_, message) held[#held + 1] = message end, kill = function() end,
          close = function() desk:close() end }
      end }
    local function flow()
      while held[1] do desk:input(table.remove(held, 1)) end
      return s:drain()
    end
    local who, at = support.who(1), support.addr "203.0.113.1:4000"
    local function ask(q, on)
      return s:ask(who, at, "watch", s:next_tx(), bytes(1), "test/1", core.wire.encode(q), on)
    end
    local function count() return s.server:status().info.watches end
    local function last(list) return list[#list] and list[#list].name_of end
    s:register(who, at)
    assert.same({}, ask({}, true))
    assert.equal(0, count())
    assert.equal("done", last(flow()))
    assert.equal(1, count())
    ask({}, false)
    ask({}, true)
    for _ = 1, 5000 do -- more than may wait
      if last(s:ask(who, at, "list", s:next_tx(), "test/1", core.wire.encode {}, nil, false)) then break end
    end
    assert.equal("refused", last(ask({}, true)))
    flow()
    assert.equal(1, count())
    for _ = 1, 5000 do flow() if not held[1] then break end end
    -- What is taken back before it is decided is not watched, nor what the policy refuses.
    ask({ x = 1 }, true)
    assert.equal("done", last(ask({}, false)))
    assert.equal("done", last(flow()))
    assert.equal(0, count())
    ask({}, true)
    flow()
    ask({ no = 1 }, true)
    assert.equal(1, count())
    assert.equal("refused", last(flow()))
    assert.equal(0, count())
    -- Nor is anything of who is not registered any more.
    ask({}, true)
    s:ask(who, at, "unregister", s:next_tx())
    flow()
    assert.equal(0, count())
    s:close()
  end)
end)
