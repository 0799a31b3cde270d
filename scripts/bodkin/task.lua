-- SPDX-License-Identifier: MIT
-- Flows that read from top to bottom: coroutines that wait in one place, task.await.
--
-- A task never runs inside another: what wakes or spawns one while a task is running only queues it, and it
-- runs once that one waits or ends. Otherwise it runs at once. So between two awaits nothing else happens.

local M = {}

local Task = {}
Task.__index = Task
Task.__name = "bodkin.task"

local by_thread = setmetatable({}, { __mode = "k" })
local ready, first, last = {}, 1, 0
local draining = false
local on_error -- nil: the runtime's
local scope, spawned -- see M.within

-- Where errors of tasks go: fn(text), a message with its traceback. nil: to what core.on_error set.
function M.on_error(fn)
  on_error = fn
end

local function report(thread, err)
  local ok, text = pcall(tostring, err)
  local trace = debug.traceback(thread, ok and text or "error object that has no text")
  if on_error and pcall(on_error, trace) then return end
  local core = require "bodkin.core"
  local runtimes = core.on_error()
  core.on_error(runtimes)
  if runtimes and pcall(runtimes, trace) then return end
  local log = core.logger {}
  for line in trace:gmatch("[^\n]+") do log:error((line:gsub("^\t", "  "))) end
end

local function finish(self, ...)
  self.state, self.result = "done", table.pack(...)
  local joiners = self.joiners
  self.joiners = nil
  for _, resume in ipairs(joiners) do resume() end
end

-- Runs what is still to be closed in it. No await works there any more.
local function close(self)
  self.state = "closing"
  local ok, err = coroutine.close(self.thread)
  if not ok then report(self.thread, err) end
  finish(self, false, "cancelled")
end

local function after(self, ok, ...)
  if not ok then
    local err = ...
    report(self.thread, err) -- before close, which unwinds the stack that the traceback shows
    self.state = "closing"
    local _, again = coroutine.close(self.thread)
    if again ~= err then report(self.thread, again) end
    finish(self, false, err)
  elseif coroutine.status(self.thread) == "dead" then
    finish(self, true, ...)
  elseif self.cancelled then
    close(self)
  elseif not self.wait then
    report(self.thread, "a task yielded outside task.await; use task.await to wait")
    close(self)
  end
end

local function step(self)
  local values = self.values
  self.values, self.state = nil, "running"
  after(self, coroutine.resume(self.thread, table.unpack(values, 1, values.n)))
end

local function drain()
  while first <= last do
    local task = ready[first]
    ready[first] = nil
    first = first + 1
    if task.state == "ready" then step(task) end
  end
  first, last = 1, 0
end

local function schedule(self, values)
  self.values, self.state = values, "ready"
  last = last + 1
  ready[last] = self
  if draining then return end
  draining = true
  local ok, err = pcall(drain)
  draining = false
  if not ok then error(err, 0) end -- only on_error itself, or memory
end

-- Starts fn(...) as a task of its own; returns it. An error in it goes to on_error.
function M.spawn(fn, ...)
  local self = setmetatable({ joiners = {} }, Task)
  self.thread = coroutine.create(fn)
  by_thread[self.thread] = self
  if scope then
    spawned = spawned + 1
    scope[self] = spawned
  end
  schedule(self, table.pack(...))
  return self
end

-- From now on tasks are of one scope, until the function returned is called: it cancels those that still wait, the
-- oldest first, since a younger one's end may be what an older one waits for.
function M.within()
  local outer, own = scope, setmetatable({}, { __mode = "k" })
  scope, spawned = own, spawned or 0
  return function()
    scope = outer
    local list = {}
    for task in pairs(own) do list[#list + 1] = task end
    table.sort(list, function(a, b) return own[a] < own[b] end)
    for _, task in ipairs(list) do task:cancel() end
  end
end

local function current(what)
  local self = by_thread[(coroutine.running())]
  if not self then error(what .. " was called outside a task; wrap the caller in task.spawn", 3) end
  if self.state == "closing" then error(what .. " was called while its task is being closed", 3) end
  if not coroutine.isyieldable() then
    error(what .. " was called where no task can wait: inside a finalizer, or a function that C calls", 3)
  end
  return self
end

-- Calls start(resume) and waits until resume(...) is called, in start or later; returns its values.
-- The first call counts; resume tells whether it did. start may return a function, which is called if the
-- task is cancelled before await returned (also when resume was called but the task did not run yet).
function M.await(start)
  local self = current("task.await")
  if self.cancelled then coroutine.yield() end -- does not return
  local wait = {}
  local function resume(...)
    if wait.over then return false end
    wait.over = true
    if self.wait == wait then
      schedule(self, table.pack(...))
    else
      wait.values = table.pack(...)
    end
    return true
  end
  local cancel = start(resume)
  if cancel ~= nil and type(cancel) ~= "function" then
    error("the start function of task.await must return a cancel function or nothing", 2)
  end
  if wait.over then return table.unpack(wait.values, 1, wait.values.n) end
  wait.cancel, self.wait, self.state = cancel, wait, "waiting"
  local values = table.pack(coroutine.yield())
  self.wait = nil
  return table.unpack(values, 1, values.n)
end

-- Waits; env is the driver contract's.
function M.sleep(env, ms)
  M.await(function(resume)
    local timer = env.timer(ms, function() resume() end)
    return function() timer:cancel() end
  end)
end

-- Ends the task where it waits: its await's cancel function is called, its <close> variables are closed.
-- Idempotent. A task that cancels itself ends there.
function Task:cancel()
  if self.state == "done" or self.state == "closing" or self.cancelled then return end
  self.cancelled = true
  if self.state == "running" then
    if coroutine.running() == self.thread and coroutine.isyieldable() then coroutine.yield() end
    return -- it ends at its next await
  end
  local wait = self.wait
  if wait then
    wait.over = true
    if wait.cancel then
      local ok, err = pcall(wait.cancel)
      if not ok then report(self.thread, err) end
    end
  end
  close(self)
end

-- Waits for its end: true and what fn returned, or false and the error, which is "cancelled" if it was.
function Task:join()
  if by_thread[(coroutine.running())] == self then error("a task cannot join itself", 2) end
  if self.state ~= "done" then
    current("task:join")
    M.await(function(resume) self.joiners[#self.joiners + 1] = resume end)
  end
  return table.unpack(self.result, 1, self.result.n)
end

-- Whether it has ended, in whatever way.
function Task:done()
  return self.state == "done"
end

local Queue = {}
Queue.__index = Queue
Queue.__name = "bodkin.queue"

-- A queue between callbacks and tasks, or between tasks: first in, first out.
function M.queue()
  return setmetatable({ head = 1, tail = 0, waiting = {} }, Queue)
end

local function wake(self)
  local resume = table.remove(self.waiting, 1)
  if resume then resume() end
end

-- False once closed.
function Queue:push(value)
  if value == nil then error("a queue holds no nil", 2) end
  if self.closed then return false end
  self.tail = self.tail + 1
  self[self.tail] = value
  wake(self)
  return true
end

-- The oldest value; waits for one. nil when the queue is closed and empty. `for v in q.pop, q do` works.
function Queue:pop()
  while self.head > self.tail do
    if self.closed then return nil end
    M.await(function(resume)
      table.insert(self.waiting, resume)
      return function()
        for i, other in ipairs(self.waiting) do
          if other == resume then return table.remove(self.waiting, i) end
        end
        if self.head <= self.tail then wake(self) end -- woken, but it will not take the value
      end
    end)
  end
  local value = self[self.head]
  self[self.head] = nil
  self.head = self.head + 1
  if self.head > self.tail then self.head, self.tail = 1, 0 end
  return value
end

-- Those who wait get nil; what was pushed before can still be popped. Idempotent.
function Queue:close()
  self.closed = true
  while self.waiting[1] do wake(self) end
end

return M
