-- SPDX-License-Identifier: MIT
-- Why a ticket waits, and how it ended.
local story = require "spec.policy.wait_story"
local task = require "bodkin.task"
local waiting = require "bodkin.waiting"
local waits = require "bodkin.cli.waits"

local function text(said, more)
  local t = { ticket = ("ab"):rep(16), id = ("12"):rep(16), name = "ann", queue = "duel", waited_ms = 12000,
    state = "waiting", said = said }
  for key, value in pairs(more or {}) do t[key] = value end
  return waits.sentence(t)
end

describe("why a ticket", function()
  local s
  after_each(function()
    if s then s:close() end
    s = nil
  end)

  it("waits is in the policy's words", function()
    s = story.world { { "ann", 1500, "ranked" }, { "cem", 1710, "ranked" }, { "dia", 1930, "ranked" },
      { "eva", 1480, "casual" } }
    s.world:run(5000)
    local list = story.why(s, "ann")
    assert.equal(1, #list)
    assert.equal("waiting", list[1].state)
    assert.is_true(list[1].waited_ms >= 5000 and list[1].waited_ms < 7000)
    local said = list[1].said
    assert.same({ 3, 1, 0, 2 }, { said.others, said.elsewhere, said.fit, #said.reasons })
    assert.matches("^mmr gap 210 > window %d+$", said.reasons[1][1])
    local id = list[1].ticket
    assert.same(id, story.why(s, id:sub(1, 8))[1].ticket)
    assert.same(id, story.why(s, list[1].id)[1].ticket)
    assert.same({}, story.why(s, "nobody"))
    assert.matches("ann: waits in duel for %d.%d s: mmr gap 210 > window %d+ %(2 of 2%); 1 wait apart",
      waits.sentence(list[1]))
  end)

  it("ended is known for an hour: matched, cancelled, given up, gone, refused", function()
    s = story.world { { "ann", 1500, "ranked" }, { "bob", 1510, "ranked" }, { "cem", 2500, "ranked", 3000 },
      { "dia", 4000, "ranked" }, { "eva", "x", "ranked" } }
    s.world:run(2500)
    local matched = story.why(s, "ann")[1]
    assert.equal("matched", matched.how)
    assert.equal(story.why(s, "bob")[1].match, matched.match)
    assert.equal(1, s.server:why(matched.match).total)
    assert.is_nil(matched.said)
    assert.matches("mmr must be an integer", story.why(s, "eva")[1].how, 1, true)
    s.world:run(1500)
    local cancelled = story.why(s, "cem")[1]
    assert.same({ "ended", "taken back by its client" }, { cancelled.state, cancelled.how })
    assert.equal(1, cancelled.said.others)
    assert.matches("mmr gap 1500", cancelled.said.reasons[1][1], 1, true)
    task.spawn(s.named.dia.close, s.named.dia)
    s.world:run(500)
    local gone = story.why(s, "dia")[1]
    assert.is_true(gone.state == "ended" and gone.said.others == 0)
    s.world:run(3600000)
    assert.same({}, story.why(s, "cem"))
  end)

  it("is bounded in what is kept, and in what policies are asked", function()
    local list = {}
    for i = 1, 40 do list[i] = { "n" .. i, 1000 * i, "ranked" } end
    s = story.world(list, { limits = { waits = 30 } })
    s.world:run(3000)
    for i = 1, 40 do task.spawn(s.named["n" .. i].close, s.named["n" .. i]) end
    s.world:run(500)
    local kept, explained = 0, 0
    for i = 1, 40 do
      local t = story.why(s, "n" .. i)[1]
      kept = kept + (t and 1 or 0)
      explained = explained + (t and t.said and 1 or 0)
    end
    assert.equal(30, kept)
    assert.is_true(explained <= 20 and explained >= 10, explained)
  end)

  it("of a party says how much of it is there", function()
    s = story.world {}
    local node = s:open(s:host("h9", "203.0.113.9"), { name = "pat" })
    task.spawn(function()
      node:match("duel", { mmr = 1, mode = "ranked" }, { party = { id = "us", size = 2 } })
    end)
    s.world:run(1000)
    assert.matches("1 of its party of 2 are there", waits.sentence(story.why(s, "pat")[1]), 1, true)
  end)

  it("stands in docs/WHY.md as it comes out", function()
    local file <close> = assert(io.open "docs/WHY.md")
    assert.truthy(file:read("a"):find(story.operator(), 1, true))
  end)

  it("is put into words", function()
    assert.equal("abababab  ann: waits in duel for 12 s: nobody else waits there", text { others = 0 })
    assert.equal("abababab  ann: waits in duel for 12 s: mmr gap 210 > window 150 (2 of 5); other mode (2 of 5); "
      .. "1 of 5 would fit, it takes more; 3 wait apart, in another shard", text { others = 8, elsewhere = 3, fit = 1,
      reasons = { { "mmr gap 210 > window 150", 1 }, { "other mode", 2 }, { "mmr gap 220 > window 150", 1 } } })
    assert.equal("abababab  ann: waited 0.5 s in duel; taken back by its client, 7 s ago",
      text(nil, { state = "ended", how = "taken back by its client", ago_s = 7, waited_ms = 500 }))
    assert.equal("abababab  ann: waits in duel for 12 s", text(nil))
    assert.equal("abababab  ann: waits in duel for 12 s: asked to accept a match", text(nil, { state = "asked" }))
    assert.is_nil(text({ others = 1, reasons = { { "\27[2J\n", 1 } } }, { name = "\27x" }):find "%c")
    assert.is_string(waits.sentence {})
    assert.is_string(waiting.said { reasons = { {}, 5, "x" }, others = 2 })
  end)
end)
