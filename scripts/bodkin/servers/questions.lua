-- SPDX-License-Identifier: MIT
-- What a policy is asked about clients: before they are registered and, after all of these, before they list. One
-- question at a time, so that no pass waits behind more than one of them, and each is answered in PATIENCE_MS at the
-- latest: with a refusal where the policy was not able to, since nobody is let in unasked.

local M = {}
local Questions = {}
Questions.__index = Questions

local PATIENCE_MS = 2000 -- the client's own ends after 5 s
local MAX = 4096         -- that wait, of each kind
local SEARCHES_EACH = 8  -- of one client, which may watch four things and read each anew
M.UNDECIDED = "cannot decide now, try again"

local function new_line() return { count = 0, first = 1, last = 0 } end

-- env; ask(serial, client) -> "asked", "later" (resume() follows), "free": nothing is asked any more, or "refused": it
-- cannot be; kill(): what was asked is not answered.
function M.new(options)
  return setmetatable({ env = options.env, ask = options.ask, kill = options.kill, serial = 0,
    registrations = new_line(), searches = new_line(), searching = {} }, Questions)
end

local function over(self, q)
  if q.over then return false end
  q.over = true
  q.timer:cancel()
  q.line.count = q.line.count - 1
  if q.line == self.searches then
    local n = self.searching[q.client.id] - 1
    self.searching[q.client.id] = n > 0 and n or nil
  end
  return true
end

local function finish(self, q, ok, text)
  if over(self, q) then q.done(ok, text) end
end

local function shift(line) line[line.first], line.first = nil, line.first + 1 end

-- The next one of a line that somebody still waits for.
local function next_in(line)
  while line.first <= line.last do
    local q = line[line.first]
    if not q.over then return q end
    shift(line)
  end
  line.first, line.last = 1, 0
end

local function watch(self, q)
  q.watch = self.env.timer(PATIENCE_MS, function()
    q.watch = nil
    self.kill()
  end)
end

function Questions:resume()
  while not self.asked do
    local registration, search = next_in(self.registrations), next_in(self.searches)
    local q = registration or search
    if not q then return end
    self.asked = q
    local how = self.ask(q.serial, q.client)
    if how == "later" then
      self.asked = nil
      return
    end
    if how == "free" or how == "refused" then
      self.asked = nil
      finish(self, q, how == "free", M.UNDECIDED)
    elseif self.asked == q then -- else it is answered
      watch(self, q)
    end
  end
end

-- done(true, what was asked for, if anything) or done(false, text), at once or later. Returns the question, or nil when
-- too many wait.
function Questions:put(client, done)
  local line = client.query and self.searches or self.registrations
  local searching = client.query and (self.searching[client.id] or 0) + 1
  if line.count >= MAX or searching and searching > SEARCHES_EACH then return nil end
  next_in(line) -- those that nobody waits for any more make room
  if searching then self.searching[client.id] = searching end
  self.serial, line.count, line.last = self.serial + 1, line.count + 1, line.last + 1
  local q = { serial = self.serial, client = client, done = done, line = line }
  q.timer = self.env.timer(PATIENCE_MS, function() finish(self, q, false, M.UNDECIDED) end)
  line[line.last] = q
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
  for _, line in ipairs { self.registrations, self.searches } do
    for i = line.first, line.last do over(self, line[i]) end
  end
end

return M
