-- SPDX-License-Identifier: MIT
-- What a node watches of the registry: the server says that something has changed, the list is read again, and what is
-- new in it told.

local task = require "bodkin.task"

local M = {}
local Watches = {}
Watches.__index = Watches

function M.new()
  return setmetatable({ by_raw = {} }, Watches)
end

local function same(a, b)
  if type(a) ~= "table" or type(b) ~= "table" then return a == b end
  for k, v in pairs(a) do
    if not same(v, b[k]) then return false end
  end
  for k in pairs(b) do
    if a[k] == nil then return false end
  end
  return true
end

-- { came =, gone =, changed =, entries = }, or nil where all is as it was.
local function difference(before, entries)
  local change, by_id = { came = {}, gone = {}, changed = {}, entries = entries }, {}
  for _, e in ipairs(entries) do
    local old = before[e.id]
    by_id[e.id] = e
    if not old then
      table.insert(change.came, e)
    elseif old.name ~= e.name or not same(old.props, e.props) then
      table.insert(change.changed, e)
    end
  end
  for id, e in pairs(before) do
    if not by_id[id] then table.insert(change.gone, e) end
  end
  table.sort(change.gone, function(a, b) return a.id < b.id end)
  return (change.came[1] or change.gone[1] or change.changed[1]) and change or nil, by_id
end

local function read(self, node, w)
  if w.reading then
    w.again = true
    return
  end
  w.reading = true
  task.spawn(function()
    repeat
      w.again = false
      local entries = node.sharing:list(w.query)
      if self.by_raw[w.raw] ~= w then return end
      w.missed = not entries
      if entries then
        local change
        change, w.by_id = difference(w.by_id, entries)
        if change then task.spawn(w.fn, change) end
      end
    until not w.again
    w.reading = false
  end)
end

-- In a task: fn(change) is called as a task with all that is there, then with each change. Returns a function that ends
-- it; or nil, message, code.
function Watches:add(node, query, fn)
  local where, err, code = node.sharing.where_of(query)
  if not where then return nil, err, code end
  local w = { raw = node.env.random(16), query = query, where = where, fn = fn, by_id = {} }
  self.by_raw[w.raw] = w
  local ok
  ok, err, code = node.sharing:watch(w.raw, where, true)
  if not ok then
    self.by_raw[w.raw] = nil
    return nil, err, code
  end
  return function()
    if self.by_raw[w.raw] ~= w then return end
    self.by_raw[w.raw] = nil
    if not node.closed then task.spawn(function() node.sharing:watch(w.raw, where, false) end) end
  end
end

-- The server says that something has changed.
function Watches:changed(node, raw)
  local w = self.by_raw[raw]
  if w then read(self, node, w) end
end

-- Registered again: the server may have forgotten what is watched, and then says at once that it may have changed. What
-- could not be read is read now.
function Watches:renew(node)
  local list = {}
  for _, w in pairs(self.by_raw) do list[#list + 1] = w end
  table.sort(list, function(a, b) return a.raw < b.raw end)
  task.spawn(function() -- one after the other: a server may have only so many asked at once
    for _, w in ipairs(list) do
      if self.by_raw[w.raw] == w then node.sharing:watch(w.raw, w.where, true) end
      if w.missed then read(self, node, w) end
    end
  end)
end

function Watches:close() self.by_raw = {} end

return M
