-- SPDX-License-Identifier: MIT
-- The tickets of a record (servers/recording.lua) under another policy: they come, and go unmatched, when they did; who
-- was matched then waits on until this policy matches them. Beside it, what was.

local desks = require "bodkin.policy.desk"
local replay = require "bodkin.policy.replay"
local stats = require "bodkin.sim.stats"

local M = {}

local PIECE = 1000 -- bytes of a file in one message

local function new_side()
  return {
    tickets = 0, refused = 0, matches = 0, matched = 0, left = 0, waiting = 0, failed = 0, waits = {}, gaps = {},
  }
end

-- How far apart those in a match are, in each property that is a number for all of them.
local function note_match(side, tickets, at_ms)
  side.matches = side.matches + 1
  for _, t in ipairs(tickets) do
    side.matched = side.matched + 1
    table.insert(side.waits, at_ms - t.since_ms)
  end
  for name, value in pairs(tickets[1].props) do
    local low, high = value, value
    for _, t in ipairs(tickets) do
      local v = t.props[name]
      if type(v) ~= "number" then
        low = nil
        break
      end
      low, high = math.min(low, v), math.max(high, v)
    end
    if low and type(value) == "number" and #tickets > 1 then
      side.gaps[name] = side.gaps[name] or {}
      table.insert(side.gaps[name], high - low)
    end
  end
end

-- --- what was: tickets with when they came and went, of each queue and run of the server
local Reader = {}
Reader.__index = Reader

local function queue_of(self, name)
  local q = self.by_name[name]
  if not q then
    q = { name = name, events = {}, tickets = {}, list = {}, matches = {}, side = new_side() }
    self.by_name[name], self.queues[#self.queues + 1] = q, q
  end
  return q
end

local function came(self, message)
  local _, queue, version, no, app, since_ms, members, _, now_ms, seats = table.unpack(message, 1, 10)
  local q = queue_of(self, queue)
  q.version = version
  self.now_ms = math.max(self.now_ms or 0, now_ms)
  local t = q.tickets[no]
  if t then
    if t.match then t.match.is_void = true end -- it did not come about: they wait on
    if t.gone and not t.match and not t.refused then
      q.side.left = q.side.left - (t.seats and 0 or 1)
      table.insert(q.events, { at_ms = self.now_ms, add = t })
    end
    t.match, t.gone, t.unfit = nil, nil, nil
    return
  end
  local props = {}
  for name, value in pairs(members[1][1]) do props[name] = value end
  t = { no = no, app = app, since_ms = since_ms, members = members, seats = seats or false, props = props }
  q.tickets[no], q.list[#q.list + 1] = t, t
  table.insert(q.events, { at_ms = self.now_ms, add = t })
end

local function matched(self, message)
  local q, tickets = queue_of(self, message[2]), {}
  local match = { at_ms = self.ticks[message[3]] or self.now_ms, tickets = tickets, gone = 0 }
  q.matches[#q.matches + 1] = match
  for _, team in ipairs(message[4]) do
    for _, no in ipairs(team) do
      local t = q.tickets[no]
      if t and not t.gone then tickets[#tickets + 1], t.match = t, match end
    end
  end
end

local function went(self, message)
  local q = queue_of(self, message[2])
  local t = q.tickets[message[3]]
  if not t or t.gone then return end
  t.gone = true
  if t.match then
    t.match.gone = t.match.gone + 1
  elseif not t.refused then
    table.insert(q.events, { at_ms = self.now_ms, drop = t })
    -- Its end came of the version that serves, or it left.
    local how = t.unfit and t.unfit == q.version and "refused" or "left"
    t.refused = how == "refused"
    if not t.seats then q.side[how] = q.side[how] + 1 end
  end
end

local function refused(self, queue, no)
  local q = queue_of(self, queue)
  local t = q.tickets[no]
  if not t then return end
  t.refused = true
  q.side.refused = q.side.refused + (t.seats and 0 or 1)
end

function Reader:line(mark, message)
  if mark == "#" then return end
  local kind = message[1]
  if kind == "add" then
    came(self, message)
  elseif mark == "=" then
    return
  elseif kind == "drop" then
    went(self, message)
  elseif kind == "tick" then
    self.now_ms = math.max(self.now_ms or 0, message[5])
    self.ticks[message[4]] = message[5]
    queue_of(self, message[2]).version = message[3]
  elseif kind == "match" then
    matched(self, message)
  elseif kind == "failed" then
    local side = queue_of(self, message[2]).side
    side.failed = side.failed + 1
  elseif kind == "verdict" and not message[4] then
    refused(self, message[2], message[3])
  elseif kind == "stumbled" then
    local side = queue_of(self, message[2]).side
    side.failed = side.failed + 1
    refused(self, message[2], message[4])
  elseif kind == "unfit" then
    local t = queue_of(self, message[2]).tickets[message[4]]
    if t then t.unfit = message[3] end
  end
end

local function new_reader()
  return setmetatable({ by_name = {}, queues = {}, ticks = {} }, Reader)
end

-- The runs of a server that a record tells of: readers; or nil, message, number of the line.
local function read(lines, cut_off)
  local list, chunk_no = {}, -1
  local function numbered() -- the number of a chunk stands in its first line, which `each` does not give
    return function()
      local line = lines()
      local no = line and line:match "^bodkin%-desk %S+ (%d+)"
      chunk_no = no and math.tointeger(no) or chunk_no
      return line
    end
  end
  local ok, why, number = replay.each(numbered(), function(mark, message)
    if mark == "#" and (chunk_no == 0 or not list[1]) then list[#list + 1] = new_reader() end
    list[#list]:line(mark, message)
  end, cut_off)
  if not ok then return nil, why, number end
  return list
end

-- --- what would have been
local function load_policy(source, limits)
  local run = { told = {} }
  run.desk = desks.new(function(message) table.insert(run.told, message) end, limits)
  for _, file in ipairs(source.files or {}) do
    for at = 1, math.max(#file.text, 1), PIECE do
      run.desk:input { "file", 1, file.name, file.chunkname, file.text:sub(at, at + PIECE - 1) }
    end
  end
  run.desk:input { "load", 1, not source.files and source.name or false }
  local told = run.told[1]
  if told[1] == "refused" then return nil, told[3] end
  run.about = told[3]
  return run
end

local function tell(run, message)
  run.told = {}
  run.desk:input(message)
  return run.told
end

local function drop(run, name, t)
  t.there = nil
  run.count = run.count - 1
  run.told = {}
  run.desk:input { "drop", name, t.no }
end

local function tick(run, q, side, now_ms)
  run.serial = run.serial + 1
  for _, m in ipairs(tell(run, { "tick", q.name, 1, run.serial, now_ms })) do
    if m[1] == "failed" then
      side.failed, side.why = side.failed + 1, side.why or m[4]
    elseif m[1] == "match" then
      local tickets, joined = {}, m[7] and q.tickets[m[7]]
      for _, team in ipairs(m[4]) do
        for _, no in ipairs(team) do tickets[#tickets + 1] = q.tickets[no] end
      end
      note_match(side, tickets, now_ms)
      if joined then tickets[#tickets + 1] = joined end
      for _, t in ipairs(tickets) do
        if t.there then drop(run, q.name, t) end
      end
    end
  end
end

local function arrive(run, q, side, e)
  local t = e.add
  t.there = true
  run.count = run.count + 1
  for _, m in ipairs(tell(run, { "add", q.name, 1, t.no, t.app, t.since_ms, t.members, false, e.at_ms, t.seats })) do
    local kind = m[1]
    if kind == "failed" or kind == "stumbled" then
      side.failed, side.why = side.failed + 1, side.why or (kind == "failed" and m[4] or m[5])
    end
    if kind == "failed" or kind == "stumbled" or kind == "verdict" and not m[4] then
      if not t.seats then side.refused = side.refused + 1 end
      drop(run, q.name, t)
      return
    end
  end
end

-- One queue of one run of the server.
local function play(source, limits, q, end_ms, side)
  local run, why = load_policy(source, limits)
  if not run then return nil, why end
  run.count, run.serial = 0, 0
  local window_ms = run.about.window_ms
  local next_ms
  local function until_ms(ms)
    while run.count > 0 and next_ms <= ms do
      tick(run, q, side, next_ms)
      next_ms = next_ms + window_ms
    end
    if run.count == 0 then next_ms = ms + window_ms end
  end
  for _, e in ipairs(q.events) do
    until_ms(e.at_ms)
    if e.add then
      arrive(run, q, side, e)
    elseif e.drop.there then
      if not e.drop.seats then side.left = side.left + 1 end
      drop(run, q.name, e.drop)
    end
  end
  until_ms(end_ms)
  for _, t in ipairs(q.list) do
    if t.there and not t.seats then side.waiting = side.waiting + 1 end
    if not t.seats then side.tickets = side.tickets + 1 end
  end
  run.desk:close()
  return true
end

local function percentiles(list)
  table.sort(list)
  return { n = #list, p50 = stats.percentile(list, 50), p90 = stats.percentile(list, 90),
    p99 = stats.percentile(list, 99) }
end

local function finished(side)
  side.values = { wait_ms = side.waits, gaps = side.gaps }
  side.wait_ms, side.waits = percentiles(side.waits), nil
  local names, gaps = {}, {}
  for name in pairs(side.gaps) do names[#names + 1] = name end
  table.sort(names)
  for i, name in ipairs(names) do
    gaps[i] = percentiles(side.gaps[name])
    gaps[i].name = name
  end
  side.gaps = gaps
  return side
end

local function add_up(into, side)
  for key, value in pairs(side) do
    if type(value) == "number" then into[key] = into[key] + value end
  end
  table.move(side.waits, 1, #side.waits, #into.waits + 1, into.waits)
  for name, list in pairs(side.gaps) do
    into.gaps[name] = into.gaps[name] or {}
    table.move(list, 1, #list, #into.gaps[name] + 1, into.gaps[name])
  end
end

-- lines: an iterator of a record's; source: see source.lua; cut_off: see M.each in replay.lua. Returns { { queue =,
-- recorded = side, other = side }, … } by queue, where a side is { tickets, refused, matches, matched, left =
-- unmatched, waiting = at the end, failed = runs of the policy, why = the first did, wait_ms = { n, p50, p90, p99 },
-- gaps = { { name = of a property, n, p50, p90, p99 }, … } within a match, values = { wait_ms = sorted, gaps = sorted
-- by name } }; or nil, message, number of a line or nothing.
function M.run(lines, source, limits, cut_off)
  local readers, why, number = read(lines, cut_off)
  if not readers then return nil, why, number end
  local by_name, out = {}, {}
  for _, reader in ipairs(readers) do
    for _, q in ipairs(reader.queues) do
      local row = by_name[q.name]
      if not row then
        row = { queue = q.name, recorded = new_side(), other = new_side() }
        by_name[q.name], out[#out + 1] = row, row
      end
      for _, t in ipairs(q.list) do
        if not t.seats then
          q.side.tickets = q.side.tickets + 1
          q.side.waiting = q.side.waiting + (t.gone and 0 or 1)
        end
      end
      for _, m in ipairs(q.matches) do
        if #m.tickets > 0 and m.gone == #m.tickets and not m.is_void then note_match(q.side, m.tickets, m.at_ms) end
      end
      add_up(row.recorded, q.side)
      local ok
      ok, why = play(source, limits, q, reader.now_ms, row.other)
      if not ok then return nil, why end
    end
  end
  table.sort(out, function(a, b) return a.queue < b.queue end)
  for _, row in ipairs(out) do
    finished(row.recorded)
    finished(row.other)
  end
  return out
end

return M
