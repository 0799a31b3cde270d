-- SPDX-License-Identifier: MIT
-- What matchmaking was told and told, recorded by a server in the simulator, and walked again.
local core = require "bodkin.core"
local compare = require "bodkin.policy.compare"
local links = require "bodkin.policy.link"
local recordings = require "bodkin.servers.recording"
local replay = require "bodkin.policy.replay"
local run = require "bodkin.sim.run"
local scenarios = require "bodkin.scenario"
local support = dofile "spec/policy/support.lua"

local function lines_of(text) return text:gmatch "[^\n]+" end

-- The record of a population in one queue, all of it.
local function play(policy, options)
  local scenario = assert(scenarios.check { clients = options.clients or 60, duration_s = options.duration_s or 30,
    seed = options.seed, match = { queue = "q", props = { mmr = { normal = { 1500, 300 }, min = 0 } },
      claims = { rank = { uniform = { 1, 9 } } } } })
  scenario.match.policy = support.source(policy)
  local parts = {}
  assert(run.play(scenario, {
    limits = options.recording and { recording = options.recording },
    on_record = function(text) parts[#parts + 1] = text end,
  }))
  return table.concat(parts)
end

-- Remembers, prints, draws lots and fails at times: all that could go another way.
local LIVELY = [[
  state.made = state.made or {}
  return bodkin.policy { size = { 2, 4 }, props = { mmr = "number" }, index = "mmr",
    admit = function(t)
      if t.props.mmr > 2000 then return false, "too good" end
      if t.props.mmr % 16 < 1 then error "what a number" end
      return true
    end,
    on_register = function(c)
      state.asked = (state.asked or 0) + 1
      return true
    end,
    compatible = function(a, b)
      return math.abs(a.props.mmr - b.props.mmr) < 50 + math.min(a.waited_ms, b.waited_ms) / 20
    end,
    form = function(anchor, near)
      local n = (state.n or 0) + 1
      state.n = n
      if n % 7 == 0 then print("match", n) end
      if n % 23 == 0 then error "at times" end
      local team = { anchor, near[math.random(#near)] }
      state.made[tostring(n % 50)] = anchor.props.mmr
      return { teams = { team }, data = { n = n, lot = math.random(100) } }
    end }]]

describe("a record of matchmaking", function()
  local record
  setup(function() record = play(LIVELY, { clients = 200, recording = 65536, seed = 3 }) end)

  it("is the same for the same seed, and gives the same bytes when it is walked again", function()
    assert.equal(record, (play(LIVELY, { clients = 200, recording = 65536, seed = 3 })))
    for _ = 1, 3 do
      local result, why, number = replay.run(lines_of(record))
      assert(result, number and ("%d: %s"):format(number, why))
      assert.is_true(result.chunks > 2 and result.inputs > 500 and result.outputs > 300, result.chunks)
      assert.equal(0, result.unheard)
    end
    local seen = {}
    assert(replay.each(lines_of(record), function(mark, message) if mark == ">" then seen[message[1]] = true end end))
    for _, what in ipairs { "match", "verdict", "stumbled", "said", "failed", "answered", "kept", "renewed" } do
      assert.is_true(seen[what], what)
    end
  end)

  it("can begin with any chunk", function()
    local chunks = {}
    for at in record:gmatch "()bodkin%-desk 1" do chunks[#chunks + 1] = at end
    for i, at in ipairs(chunks) do
      local result, why = replay.run(lines_of(record:sub(at)))
      assert(result, why)
      assert.equal(#chunks - i + 1, result.chunks)
    end
  end)

  it("says which line is another one", function()
    local number, packed = 0, nil
    for line in lines_of(record) do
      number = number + 1
      local message = line:sub(1, 1) == ">" and links.unpack(line:sub(2))
      if message and message[1] == "match" then
        packed = line
        break
      end
    end
    local at = record:find(packed, 1, true)
    local message = links.unpack(packed:sub(2))
    message[4] = { { 1, 9 } }
    local result, why, where = replay.run(lines_of(record:sub(1, at) .. links.pack(message)
      .. record:sub(at + #packed)))
    assert.is_nil(result)
    assert.equal(number, where)
    assert.matches('recorded: match "q" %d+ {{ 1, 9 }}', why:gsub("{ { 1, 9 } }", "{{ 1, 9 }}"))
    assert.matches("\nreplayed: match ", why, 1, true)
    local text, line
    result, text, line = replay.run(lines_of(record .. "what\n"))
    assert.is_nil(result)
    assert.matches("not a line of a record: what", text, 1, true)
    assert.equal(select(2, record:gsub("\n", "")) + 1, line)
    assert.matches("format 2", select(2, replay.run(lines_of "bodkin-desk 2 0 0\n")), 1, true)
    assert.matches("no record", select(2, replay.run(lines_of "<x\n")), 1, true)
    assert.matches("empty", select(2, replay.run(lines_of "")), 1, true)
  end)

  it("may begin at any renewal: a desk that was renewed says what a new one does", function()
    local function told(is_renewed)
      local d, out = support.desk [[return bodkin.policy { size = 2,
        admit = function(t) assert(not t.props.bad) return true end,
        compatible = function()
          local n = 0
          while true do
            n = n + 1
            if n % 100000 == 0 then print(n) end
          end
        end }]], {}
      if is_renewed then
        for _ = 1, 2 do assert.truthy(d:add {}) end
        assert.is_nil(d:tick(1))
        d:tell { "renew", 1 }
      else
        for no = 1, 2 do d:tell { "wait", "q", no, "a", 0, { { {}, core.wire.encode {} } }, false } end
        d.no = 2
      end
      for i, message in ipairs { { "tick", "q", 1, 1, 2 }, { "tick", "q", 1, 2, 3 }, { "tick", "q", 1, 3, 4 } } do
        out[i] = d:tell(message)
      end
      d:add { bad = true }
      out[#out + 1] = d.told
      return out
    end
    assert.same(told(false), told(true))
    assert.equal("failed", told(true)[4][1][1])
  end)

  it("goes on where a server was killed in the middle of a line, and says which is left out", function()
    local ends = {}
    for at in record:sub(1, #record // 2):gmatch "()\n" do ends[#ends + 1] = at end
    for _, cut in ipairs { ends[10] + 1, ends[10] + 7, ends[#ends] - 2, record:find "\nbodkin%-desk 1 1 " + 9 } do
      for _, again in ipairs { "", record } do
        local left_out, part = nil, record:sub(1, cut) .. "\n"
        local result, why, number = replay.run(lines_of(part .. again), nil, function(n) left_out = n end)
        assert(result, ("%s: %s"):format(number, why))
        assert.equal(select(2, part:gsub("\n", "")), left_out)
        assert(compare.run(lines_of(part .. again), support.source "return bodkin.policy {}"))
      end
    end
    -- What is no part of a line is none anywhere.
    local result, why, number = replay.run(lines_of(record:sub(1, ends[10]) .. ">\xff\n" .. record:sub(ends[10] + 1)))
    assert.same({ nil, "not a line of a record: >?", 11 }, { result, why, number })
  end)

  describe("under another policy", function()
    local function text(...)
      local rows = assert(compare.run(...))
      return rows[1], #rows
    end

    it("is what it was under the same one", function()
      local simple = play([[return bodkin.policy { size = 2, props = { mmr = "number" }, index = "mmr", window_ms = 200,
        compatible = function(a, b) return math.abs(a.props.mmr - b.props.mmr) < 60 end }]], { clients = 150, seed = 5,
        recording = 65536 })
      local source = support.source [[return bodkin.policy { size = 2, props = { mmr = "number" }, index = "mmr",
        window_ms = 200, compatible = function(a, b) return math.abs(a.props.mmr - b.props.mmr) < 60 end }]]
      local row, n = text(lines_of(simple), source)
      assert.equal(1, n)
      assert.equal("q", row.queue)
      assert.is_true(row.recorded.matches > 20 and row.recorded.tickets > 100)
      assert.same(row.recorded.tickets, row.other.tickets)
      -- Other instants of the passes: about the same.
      assert.is_true(math.abs(row.recorded.matches - row.other.matches) <= 8)
      assert.is_true(row.other.gaps[1].p99 < 60 and row.recorded.gaps[1].p99 < 60)
      assert.equal("mmr", row.other.gaps[1].name)
      for _, side in ipairs { row.recorded, row.other } do
        assert.equal(side.tickets, side.matched + side.left + side.waiting + side.refused)
        assert.equal(side.matched, 2 * side.matches)
      end
      assert.same(row, (text(lines_of(simple), source)))
    end)

    it("counts as refused whom the version that served did not take, not whom a stand-in did not", function()
      local function sides(ticks)
        local r = recordings.new { max_bytes = 1 << 18, time = function() return 7 end }
        local function told(...) r:told({ ... }, (links.pack { ... })) end
        r:begin()
        told("add", "q", 1, 5, "a", 0, { { { mmr = 1 }, core.wire.encode {} } }, false, 0, false)
        r:heard({ "verdict", "q", 5, true }, (links.pack { "verdict", "q", 5, true }))
        told("tick", "q", 2, 1, 100)
        r:heard({ "unfit", "q", 2, 5, "no" }, (links.pack { "unfit", "q", 2, 5, "no" }))
        for i, version in ipairs(ticks) do told("tick", "q", version, i + 1, 100 + i) end
        told("drop", "q", 5)
        return (text(lines_of(table.concat(r:texts())), support.source "return bodkin.policy { size = 2 }"))
      end
      local row = sides {}
      assert.same({ 1, 1, 0 }, { row.recorded.tickets, row.recorded.refused, row.recorded.left })
      assert.same({ 1, 0 }, { row.other.left, row.other.waiting })
      row = sides { 1 }
      assert.same({ 1, 0, 1 }, { row.recorded.tickets, row.recorded.refused, row.recorded.left })
    end)

    it("shows what a stricter one, one that refuses and one that fails would have done", function()
      local strict = text(lines_of(record), support.source [[return bodkin.policy { size = 2,
        props = { mmr = "number" }, index = "mmr",
        compatible = function(a, b) return math.abs(a.props.mmr - b.props.mmr) < 3 end }]])
      assert.is_true(strict.other.gaps[1].p99 < 3 and strict.other.matches < strict.recorded.matches)
      assert.is_true(strict.recorded.failed > 0 and strict.other.failed == 0)
      assert.is_true(strict.recorded.refused > 0)
      assert.equal(strict.recorded.tickets, strict.recorded.matched + strict.recorded.left + strict.recorded.waiting
        + strict.recorded.refused)
      local closed = text(lines_of(record), support.source [[return bodkin.policy {
        admit = function() return false end }]])
      assert.equal(closed.other.tickets, closed.other.refused)
      local failing = text(lines_of(record), support.source [[return bodkin.policy {
        form = function() error "here" end }]])
      assert.is_true(failing.other.failed > 0)
      assert.matches("policy.lua:3: here", failing.other.why, 1, true)
      local rows, why, number = compare.run(lines_of(record), support.source "return bodkin.policy { size = 99 }")
      assert.same({ nil, nil }, { rows, number })
      assert.matches("size must be", why, 1, true)
    end)
  end)

  it("keeps a state until all of the next one is there, also where the process ends in between", function()
    local r = recordings.new { max_bytes = 1 << 18, time = function() return 7 end }
    local function heard(...)
      local message = { ... }
      r:heard(message, (links.pack(message)))
    end
    local function pieces()
      local out = {}
      for i, message in ipairs(r:kept()[1] or {}) do out[i] = message[5] end
      return table.concat(out, " ")
    end
    r:begin()
    heard("kept", "q", 1, 2, "a")
    assert.equal("", pieces())
    heard("kept", "q", 2, 2, "b")
    assert.equal("a b", pieces())
    heard("kept", "q", 1, 3, "c")
    heard("kept", "q", 2, 3, "d")
    assert.equal("a b", pieces())
    r:begin()
    heard("kept", "q", 3, 3, "of the one that ended")
    assert.equal("a b", pieces())
    heard("kept", "q", 1, 1, "e")
    assert.equal("e", pieces())
  end)

  it("begins a chunk without who was refused as it was due", function()
    local r = recordings.new { max_bytes = 1 << 18, time = function() return 7 end }
    local function told(message) r:told(message, assert(links.pack(message)), {}) end
    local function heard(message) r:heard(message, (links.pack(message))) end
    r:begin()
    for no = 1, 2 do told { "add", "q", 1, no, "a", no, { { {} } }, false, no, false } end
    heard { "verdict", "q", 1, true }
    told { "renew", 1 }
    heard { "verdict", "q", 2, false, "no" }
    heard { "renewed", 1 }
    local _, known = table.concat(r:texts()):gsub("\n=[^\n]*add", "")
    assert.equal(1, known)
  end)

  it("is bounded, and what is left can be walked", function()
    local r = recordings.new { max_bytes = 1 << 18, time = function() return 7 end }
    local serial, most = 0, 0
    local desk
    local function send(message, versions)
      local packed = assert(links.pack(message))
      r:told(message, packed, versions)
      desk:input(message)
    end
    desk = require("bodkin.policy.desk").new(function(message) r:heard(message, (links.pack(message))) end)
    r:begin()
    send { "load", 1, "first_come" }
    for no = 1, 20000 do
      send { "add", "q", 1, no, "a", no, { { { mmr = no } } }, false, no, false }
      if no % 7 == 0 then send { "tick", "q", 1, no, no } end
      if no > 2 then send { "drop", "q", no - 2 } end
      if r:is_full() then
        serial = serial + 1
        send({ "renew", serial }, { { "load", 1, "first_come" } })
      end
      most = math.max(most, r.bytes)
    end
    desk:close()
    assert.is_true(most < (1 << 18) + 70000 and most > 1 << 17, most)
    local text = table.concat(r:texts())
    assert.is_true(#text == r.bytes)
    local result, why = replay.run(lines_of(text))
    assert(result, why)
    assert.is_true(result.chunks > 1 and result.inputs > 1000)
    assert.is_true(serial > 5)
  end)
end)
