-- SPDX-License-Identifier: MIT
-- Who watches the registry: clients that want to hear when what a query finds may have changed, and then list it again.
-- So what is pushed is the same however much changed, and comes at most once in GAP_MS to each.

local core = require "bodkin.core"

local M = {}
local Watches = {}
Watches.__index = Watches

local GAP_MS = 1000
local EACH = 4 -- of one client

function M.new(server, notices)
  local self = setmetatable({ server = server, notices = notices, of = {}, list = {}, count = 0, last = 0 },
    Watches)
  server:at_close(function()
    for _, w in pairs(self.list) do
      if w.timer then w.timer:cancel() end
    end
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

local function drop(self, w)
  if w.timer then w.timer:cancel() end
  self.list[w.key], self.of[w.id][w.watch] = nil, nil
  if not next(self.of[w.id]) then self.of[w.id] = nil end
  self.count = self.count - 1
end

-- A registered client watches what a query finds (app and query as in list, checked); what is new is told of at once.
-- nil: too many.
function Watches:set(id, watch, app, query)
  local key = id .. watch
  local w = self.list[key]
  if w and w.app == app and w.query == query then return true end
  if w then drop(self, w) end
  local n = 0
  for _ in pairs(self.of[id] or {}) do n = n + 1 end
  if n >= EACH or self.count >= self.server.limits.watches then return nil end
  self.last = self.last + 1
  w = { no = self.last, key = key, id = id, watch = watch, app = app, query = query }
  self.list[key], self.count = w, self.count + 1
  self.of[id] = self.of[id] or {}
  self.of[id][watch] = w
  tell(self, w)
  return true
end

function Watches:clear(id, watch)
  local w = self.list[id .. watch]
  if w then drop(self, w) end
end

local function concerns(w, entry)
  return entry ~= nil and entry.app == w.app and select(2, core.query(w.query, entry.props)) == true
end

-- Has those hear of it whom it concerns, in the order in which they began to watch.
local function touch_all(self, filter)
  local list = {}
  for _, w in pairs(self.list) do
    if filter(w) then list[#list + 1] = w end
  end
  table.sort(list, function(a, b) return a.no < b.no end)
  for _, w in ipairs(list) do touch(self, w) end
end

-- An entry of the registry was one thing and is another now; nil for none.
function Watches:changed(before, after)
  if before and after and before.app == after.app and before.name == after.name and before.props == after.props then
    return
  end
  touch_all(self, function(w) return concerns(w, before) or concerns(w, after) end)
end

-- A registration ended, and who had it watches no more; entry: what it was, where that is known.
function Watches:gone(id, entry)
  local mine = {}
  for _, w in pairs(self.of[id] or {}) do mine[#mine + 1] = w end
  for _, w in ipairs(mine) do drop(self, w) end
  touch_all(self, function(w) return not entry or concerns(w, entry) end)
end

return M
