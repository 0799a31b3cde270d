-- SPDX-License-Identifier: MIT
-- What a client hears of a ticket that waits, in the simulated world: the unchanged server and client.
local client = dofile "spec/client/support.lua"
local policy = dofile "spec/policy/support.lua"
local task = require "bodkin.task"

local events = client.events

describe("a client is told why its ticket waits,", function()
  local s

  local function world(policies) s = policy.world(client, policies) end
  local function open(n) return s:open(s:host("h" .. n, "203.0.113." .. n)) end

  -- Begins to wait; .result is filled when that ends.
  local function wait(node, queue, props, timeout_ms)
    local w = {}
    task.spawn(function() w.result = table.pack(node:match(queue, props, { timeout_ms = timeout_ms })) end)
    return w
  end

  after_each(function() s:close() end)

  local SKILL = [[return bodkin.policy { size = 2, props = { mmr = "integer" }, compatible = function(a, b, now_ms)
    local gap = math.abs(a.props.mmr - b.props.mmr)
    return gap <= 150, ("mmr gap %d > window 150"):format(gap)
  end }]]

  it("when it has waited for some time, and where that is something new", function()
    world { duel = SKILL }
    local a, b = open(1), open(2)
    local wa = wait(a, "duel", { mmr = 1000 })
    s.world:run(2900)
    assert.equal(1, #events(a, "queued"))
    s.world:run(60000)
    local told = events(a, "queued")
    assert.equal(2, #told) -- asked at 3, 10 and 30 s
    assert.same({ "nobody else waits there", told[1].ticket, 1, 1 }, { told[2].reason, told[2].ticket,
      told[2].present, told[2].of })
    assert.is_true(told[2].waited_ms >= 2900 and told[2].waited_ms < 3100)
    wait(b, "duel", { mmr = 1210 })
    s.world:run(60000)
    assert.equal("mmr gap 210 > window 150 (1 of 1)", events(a, "queued")[3].reason)
    assert.equal("mmr gap 210 > window 150 (1 of 1)", events(b, "queued")[2].reason)
    assert.is_nil(wa.result)
  end)

  it("as its time is over, or the policy's", function()
    world { duel = SKILL, short = SKILL:gsub("size = 2", "size = 2, expire_ms = 5000") }
    for i, timeout_ms in ipairs { 400, 2000, 3100, 20000 } do
      local w = wait(open(i), "duel", { mmr = 10000 * i }, timeout_ms)
      s.world:run(timeout_ms + 1)
      assert.same({ n = 3, nil, ("no match in queue duel within %g s: nobody else waits there; wait longer?"):format(
        timeout_ms / 1000), "no_match" }, w.result)
    end
    local w = wait(open(5), "short", { mmr = 1 })
    s.world:run(6000)
    assert.same({ n = 3, nil, "no match came about in time: nobody else waits there; try again?", "no_match" },
      w.result)
  end)

  it("while its party is not whole", function()
    world { duel = "return bodkin.policy { size = 4, party = 2 }" }
    local a, result = open(1), nil
    task.spawn(function() result = table.pack(a:match("duel", {}, { timeout_ms = 5000,
      party = { id = "us", size = 2 } })) end)
    s.world:run(5100)
    assert.equal("no match in queue duel within 5 s: 1 of its party of 2 are there; wait longer?", result[2])
  end)

  it("not while a match is to be accepted", function()
    world { duel = "return bodkin.policy { size = 2, accept_ms = 20000 }" }
    local a, b = open(1), open(2)
    for _, node in ipairs { a, b } do
      task.spawn(function() node:match("duel", {}, { accept = "ask" }) end)
    end
    s.world:run(15000)
    assert.equal(1, #events(a, "proposed"))
    assert.equal(1, #events(a, "queued"))
  end)

  it("and goes on where the server has another answer, or none", function()
    world { duel = SKILL }
    local a, b = open(1), open(2)
    local wa = wait(a, "duel", { mmr = 1000 })
    s.world:run(2000)
    s:kill()
    s.world:run(5000)
    s.server = s:serve(s.hub)
    s.world:run(60000)
    local wb = wait(b, "duel", { mmr = 1000 })
    s.world:run(1000)
    assert.equal(wa.result[1].id, wb.result[1].id)
  end)
end)
