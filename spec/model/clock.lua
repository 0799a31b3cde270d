-- SPDX-License-Identifier: MIT
-- The least of a virtual loop that sim/net.lua and a model run need, without a userdata a timer: a heap ordered by
-- (due, sequence), as core's wheel is.
local M = {}

local Clock = {}
Clock.__index = Clock

function M.new(now_us)
  return setmetatable({ us = now_us, n = 0, seq = 0, due = {}, order = {}, fns = {} }, Clock)
end

function Clock:now()
  return self.us
end

function Clock:at(due_us, fn)
  local due, order, fns = self.due, self.order, self.fns
  local i = self.n + 1
  self.n, self.seq = i, self.seq + 1
  while i > 1 do
    local up = i >> 1
    if due[up] <= due_us then break end
    due[i], order[i], fns[i] = due[up], order[up], fns[up]
    i = up
  end
  due[i], order[i], fns[i] = due_us, self.seq, fn
end

function Clock:timer(ms, fn)
  self:at(self.us + math.tointeger(ms * 1000 // 1), fn)
end

local function sink(self, last_due, last_order, last_fn)
  local due, order, fns, n = self.due, self.order, self.fns, self.n
  local i = 1
  while true do
    local down = i << 1
    if down > n then break end
    local right = down + 1
    if right <= n and (due[right] < due[down] or due[right] == due[down] and order[right] < order[down]) then
      down = right
    end
    if due[down] > last_due or due[down] == last_due and order[down] > last_order then break end
    due[i], order[i], fns[i] = due[down], order[down], fns[down]
    i = down
  end
  due[i], order[i], fns[i] = last_due, last_order, last_fn
end

-- Fires what is due next, if that is not after limit_us; else time is limit_us, and false.
function Clock:step(limit_us)
  local n = self.n
  if n == 0 or self.due[1] > limit_us then
    self.us = limit_us
    return false
  end
  local fn, due, order, fns = self.fns[1], self.due, self.order, self.fns
  self.us = due[1]
  local last_due, last_order, last_fn = due[n], order[n], fns[n]
  due[n], order[n], fns[n] = nil, nil, nil
  self.n = n - 1
  if n > 1 then sink(self, last_due, last_order, last_fn) end
  fn()
  return true
end

return M
