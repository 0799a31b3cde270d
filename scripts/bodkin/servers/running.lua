-- SPDX-License-Identifier: MIT
-- Matches of queues whose policy fills up what is running: who is in each, so that others may join it. One is known as
-- long as a member of it is registered and has not left, unless too many came after.

local M = {}
local Running = {}
Running.__index = Running

-- max: how many are kept. over(run): nobody is in it any more, or it is forgotten.
function M.new(max, over)
  return setmetatable({ max = max, over = over, by_match = {}, of = {}, order = {}, first = 1, last = 0, count = 0 },
    Running)
end

local function forget(self, run)
  if self.by_match[run.match] ~= run then return end
  self.by_match[run.match] = nil
  self.count = self.count - 1
  for id in pairs(run.members) do
    self.of[id][run.match] = nil
    if not next(self.of[id]) then self.of[id] = nil end
  end
  self.over(run)
end

-- members: { id =, ticket =, team = }, as they are told in `seat`.
function Running:enter(run, members)
  for _, m in ipairs(members) do
    run.members[m.id] = { id = m.id, ticket = m.ticket, team = m.team }
    self.of[m.id] = self.of[m.id] or {}
    self.of[m.id][run.match] = run
  end
end

-- run: { match =, queue = its name, app =, host = an id or nil, data = encoded, size =, teams = (see policy.lua) }.
function Running:begin(run, members)
  run.members = {}
  self.by_match[run.match] = run
  self.count = self.count + 1
  self.last = self.last + 1
  self.order[self.last] = run
  self:enter(run, members)
  while self.count > self.max or self.last - self.first >= 2 * self.max do
    local oldest = self.order[self.first]
    self.order[self.first], self.first = nil, self.first + 1
    forget(self, oldest)
  end
end

function Running:get(match) return self.by_match[match] end

-- How many are in it, and by team.
function Running.present(_, run)
  local n, by_team = 0, {}
  for _, m in pairs(run.members) do
    n, by_team[m.team] = n + 1, (by_team[m.team] or 0) + 1
  end
  return n, by_team
end

-- Its members, in an order that is always the same.
function Running.members(_, run)
  local list = {}
  for _, m in pairs(run.members) do list[#list + 1] = m end
  table.sort(list, function(a, b) return a.id < b.id end)
  return list
end

-- A client is out of a match. Returns that match, while others are in it.
function Running:left(id, match)
  local run = self.by_match[match]
  if not run or not run.members[id] then return nil end
  run.members[id] = nil
  self.of[id][match] = nil
  if not next(self.of[id]) then self.of[id] = nil end
  if next(run.members) then return run end
  forget(self, run)
end

-- A registration ended: the matches that go on without it.
function Running:gone(id)
  local matches, out = {}, {}
  for match in pairs(self.of[id] or {}) do matches[#matches + 1] = match end
  table.sort(matches)
  for _, match in ipairs(matches) do out[#out + 1] = self:left(id, match) end
  return out
end

return M
