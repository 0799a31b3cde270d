-- SPDX-License-Identifier: MIT
-- Who watches the registry: clients that want to hear when what a query finds may have changed, and then list it again.
-- So what is pushed is the same however much changed, and comes at most once in GAP_MS to each.
--
-- Whom a change concerns is found out in slices, the first at once where none was of late: however much changes and
-- however many watch, that takes the server's thread one part in twenty. An app of which more changes than can be
-- looked at so has all who watch it told, unseen, and then rests: what changes meanwhile is told when that is over.

local core = require "bodkin.core"
local limits = require "bodkin.servers.limits"

local M = {}
local Watches = {}
Watches.__index = Watches

local GAP_MS = 1000
local EACH = 4 -- of one client
local SLICE_MS, SLICE_TERMS = 40, 4000 -- comparisons at once, about 2 ms, and how long until the next
local WAITING_MAX, REST_MS = 64, 5000  -- changes of an app that are not looked at yet

function M.new(server, notices)
  local self = setmetatable({ server = server, notices = notices, of = {}, list = {}, count = 0, cost = 0, last = 0,
    apps = {}, jobs = {}, first = 1, last_job = 0, sliced_us = server.env.now() - SLICE_MS * 1000 }, Watches)
  server:at_close(function()
    for _, w in pairs(self.list) do
      if w.timer then w.timer:cancel() end
    end
    for _, app in pairs(self.apps) do
      if app.rest then app.rest:cancel() end
    end
    if self.timer then self.timer:cancel() end
  end)
  server:at_status(function(info) info.watches = self.count end)
  return self
end

local function tell(self, w)
  w.told_us = self.server.env.now()
  self.notices:push(w.id, "changed", w.watch, function() end)
end

local function touch(self, w)
  if w.timer then return end
  local wait_ms = GAP_MS - (self.server.env.now() - w.told_us) // 1000
  if wait_ms <= 0 then return tell(self, w) end
  w.timer = self.server.env.timer(wait_ms, function()
    w.timer = nil
    tell(self, w)
  end)
end

-- Where the watches of an app, in the order in which they began, go on after that number.
local function after(list, no)
  local low, high = 1, #list + 1
  while low < high do
    local mid = (low + high) // 2
    if list[mid].no > no then high = mid else low = mid + 1 end
  end
  return low
end

local function drop(self, w)
  if w.timer then w.timer:cancel() end
  self.list[w.key], self.of[w.id][w.watch] = nil, nil
  if not next(self.of[w.id]) then self.of[w.id] = nil end
  self.count, self.cost = self.count - 1, self.cost - w.cost
  local app = self.apps[w.app]
  table.remove(app.list, after(app.list, w.no - 1))
  if app.list[1] then return end
  if app.rest then app.rest:cancel() end
  self.apps[w.app] = nil
end

-- A registered client watches what a query finds (app and query as in list, checked); what is new is told of at once.
-- nil: too many.
function Watches:set(id, watch, app, query)
  local key = id .. watch
  local w = self.list[key]
  if w and w.app == app and w.query == query then return true end
  if w then drop(self, w) end
  local n, terms = 0, (core.query(query))
  for _ in pairs(self.of[id] or {}) do n = n + 1 end
  local cost = limits.weight(terms)
  if n >= EACH or self.cost + cost > self.server.limits.watches then return nil end
  self.last = self.last + 1
  w = { no = self.last, key = key, id = id, watch = watch, app = app, query = query, terms = terms, cost = cost }
  self.list[key], self.count, self.cost = w, self.count + 1, self.cost + cost
  self.of[id] = self.of[id] or {}
  self.of[id][watch] = w
  self.apps[app] = self.apps[app] or { list = {}, waiting = 0, waits = {} }
  table.insert(self.apps[app].list, w)
  tell(self, w)
  return true
end

function Watches:clear(id, watch)
  local w = self.list[id .. watch]
  if w then drop(self, w) end
end

-- --- changes: { app, props (whom a query for these concerns), at = the number of the last watch looked at }
-- Who watches an app is told that it may have changed.
local function tell_unseen(self, app)
  app.waiting, app.waits, app.dropped, app.is_missed = 0, {}, self.last_job, false
  for _, w in ipairs(app.list) do touch(self, w) end
  app.rest = self.server.env.timer(REST_MS, function()
    app.rest = nil
    if app.is_missed then tell_unseen(self, app) end
  end)
end

-- Something of it has changed, and what is not looked at.
local function missed(self, app)
  if not app.rest then return tell_unseen(self, app) end
  app.is_missed = true
end

local function note(self, entry)
  local app = entry and self.apps[entry.app]
  if not app or app.waits[entry.props] then return end
  if app.rest or app.waiting >= WAITING_MAX then
    missed(self, app)
  else
    self.last_job = self.last_job + 1
    self.jobs[self.last_job] = { app = app, props = entry.props, at = 0 }
    app.waiting, app.waits[entry.props] = app.waiting + 1, true
  end
end

-- Looks on whom a change concerns. Returns how many comparisons that took, of so many; and whether that was all.
local function look(self, job, left)
  local list, spent = job.app.list, 0
  job.app.waits[job.props] = nil
  for i = after(list, job.at), #list do
    if spent >= left then return spent, false end
    local w = list[i]
    job.at = w.no
    if not w.timer then
      spent = spent + 1 + w.terms
      if select(2, core.query(w.query, job.props)) then touch(self, w) end
    end
  end
  return spent, true
end

local function slice(self)
  local left = SLICE_TERMS
  while self.first <= self.last_job and left > 0 do
    local job = self.jobs[self.first]
    local spent, is_done = 0, true
    if self.first > (job.app.dropped or 0) then
      spent, is_done = look(self, job, left)
      if is_done then job.app.waiting = job.app.waiting - 1 end
    end
    left = left - spent
    if is_done then self.jobs[self.first], self.first = nil, self.first + 1 end
  end
  self.sliced_us = self.server.env.now()
end

local function run(self)
  if self.timer or self.first > self.last_job then return end
  local wait_ms = SLICE_MS - (self.server.env.now() - self.sliced_us) // 1000
  if wait_ms <= 0 then
    slice(self)
    return run(self)
  end
  self.timer = self.server.env.timer(wait_ms, function()
    self.timer = nil
    slice(self)
    run(self)
  end)
end

-- An entry of the registry was one thing and is another now; nil for none.
function Watches:changed(before, now)
  if before and now and before.app == now.app and before.name == now.name and before.props == now.props then return end
  note(self, before)
  note(self, now)
  run(self)
end

-- A registration ended, and who had it watches no more; entry: what it was, where that is known.
function Watches:gone(id, entry)
  local mine = {}
  for _, w in pairs(self.of[id] or {}) do mine[#mine + 1] = w end
  for _, w in ipairs(mine) do drop(self, w) end
  if entry then return self:changed(entry, nil) end
  local names = {}
  for name in pairs(self.apps) do names[#names + 1] = name end
  table.sort(names)
  for _, name in ipairs(names) do missed(self, self.apps[name]) end
end

return M
