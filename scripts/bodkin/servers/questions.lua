-- SPDX-License-Identifier: MIT
-- What a policy is asked about clients before they are registered: one question at a time, so that no pass waits
-- behind more than one of them, and each is answered in PATIENCE_MS at the latest: with a refusal where the policy was
-- not able to, since nobody is let in unasked.

local M = {}
local Questions = {}
Questions.__index = Questions

local PATIENCE_MS = 2000 -- the client's own ends after 5 s
local MAX = 4096
M.UNDECIDED = "cannot decide now, try again"

-- env; ask(serial, client) -> "asked", "later" (resume() follows), or "free": nothing is asked any more; kill(): what
-- was asked is not answered.
function M.new(options)
  return setmetatable({ env = options.env, ask = options.ask, kill = options.kill, serial = 0, count = 0,
    waiting = {}, first = 1, last = 0 }, Questions)
end

local function over(self, q)
  if q.over then return false end
  q.over = true
  q.timer:cancel()
  self.count = self.count - 1
  return true
end

local function finish(self, q, ok, text)
  if over(self, q) then q.done(ok, text) end
end

-- The next one that somebody still waits for.
local function next_of(self)
  while self.first <= self.last do
    local q = self.waiting[self.first]
    if not q.over then return q end
    self.waiting[self.first], self.first = nil, self.first + 1
  end
  self.first, self.last = 1, 0
end

local function watch(self, q)
  q.watch = self.env.timer(PATIENCE_MS, function()
    q.watch = nil
    self.kill()
  end)
end

function Questions:resume()
  while not self.asked do
    local q = next_of(self)
    if not q then return end
    self.asked = q
    local how = self.ask(q.serial, q.client)
    if how == "later" then
      self.asked = nil
      return
    end
    if how == "free" then
      self.asked = nil
      finish(self, q, true)
    elseif self.asked == q then -- else it is answered
      self.waiting[self.first], self.first = nil, self.first + 1
      watch(self, q)
    end
  end
end

-- done(true, what was asked for, if anything) or done(false, text), at once or later. Returns the question, or nil when
-- too many wait.
function Questions:put(client, done)
  if self.count >= MAX then return nil end
  self.serial, self.count, self.last = self.serial + 1, self.count + 1, self.last + 1
  local q = { serial = self.serial, client = client, done = done }
  q.timer = self.env.timer(PATIENCE_MS, function() finish(self, q, false, M.UNDECIDED) end)
  self.waiting[self.last] = q
  self:resume()
  return q
end

-- Nobody waits for the answer any more.
function Questions:cancel(q) over(self, q) end

local function answered(self, ok, text)
  local q = self.asked
  self.asked = nil
  if q.watch then q.watch:cancel() end
  finish(self, q, ok, text)
  self:resume()
end

-- What the policy said; text nil: it was not able to say anything. (Nobody reads what stands beside true but who asked
-- for something.)
function Questions:answered(serial, ok, text)
  if self.asked and self.asked.serial == serial then answered(self, ok, text or M.UNDECIDED) end
end

-- The process died: the question under way may be why.
function Questions:lost()
  if self.asked then answered(self, false, M.UNDECIDED) end
end

function Questions:close()
  local q = self.asked
  if q and q.watch then q.watch:cancel() end
  if q then over(self, q) end
  for i = self.first, self.last do over(self, self.waiting[i]) end
end

return M
