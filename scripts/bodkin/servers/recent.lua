-- SPDX-License-Identifier: MIT
-- A map that forgets: what is put stays for at least `span_us` and at most twice that, unless more than
-- `max` keys are put within one span, when the oldest half goes early. So it never holds more than 2 × max.

local M = {}
local Recent = {}
Recent.__index = Recent

function M.new(options)
  return setmetatable({
    span_us = options.span_us, max = options.max, young = {}, old = {}, count = 0, turned_us = options.now_us or 0,
  }, Recent)
end

local function turn(self, now_us)
  local age = now_us - self.turned_us
  if age < self.span_us and self.count < self.max then return end
  self.old = age < 2 * self.span_us and self.young or {}
  self.young, self.count, self.turned_us = {}, 0, now_us
end

function Recent:get(now_us, key)
  turn(self, now_us)
  local value = self.young[key]
  if value == nil then value = self.old[key] end
  return value
end

function Recent:put(now_us, key, value)
  turn(self, now_us)
  if self.young[key] == nil then self.count = self.count + 1 end
  self.young[key] = value
end

return M
