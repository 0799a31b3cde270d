-- SPDX-License-Identifier: MIT
local task = require "bodkin.task"

-- An env with nothing but a clock moved by hand.
local function clock()
  local env = { at = 0, timers = {} }
  function env.timer(ms, fn)
    local timer = { due = env.at + ms, fn = fn }
    function timer:cancel()
      self.fn = nil
    end
    table.insert(env.timers, timer)
    return timer
  end
  function env.advance(ms)
    env.at = env.at + ms
    for _, timer in ipairs(env.timers) do
      local fn = timer.due <= env.at and timer.fn
      if fn then
        timer.fn = nil
        fn()
      end
    end
  end
  function env.pending()
    local n = 0
    for _, timer in ipairs(env.timers) do
      if timer.fn then n = n + 1 end
    end
    return n
  end
  return env
end

describe("task", function()
  local errors
  before_each(function()
    errors = {}
    task.on_error(function(text) table.insert(errors, text) end)
  end)
  after_each(function() task.on_error(nil) end)

  local function no_errors()
    assert.same({}, errors)
  end

  describe("await", function()
    it("returns the values given to resume later, nils included", function()
      local resume, got
      task.spawn(function()
        got = table.pack(task.await(function(r) resume = r end))
      end)
      assert.is_nil(got)
      assert.is_true(resume(1, nil, 3, nil))
      assert.same({ 1, nil, 3, nil, n = 4 }, got)
      no_errors()
    end)

    it("returns at once when resumed within start, and leaves the cancel function alone", function()
      local got, cancelled
      local t = task.spawn(function()
        got = table.pack(task.await(function(resume)
          resume("now")
          return function() cancelled = true end
        end))
        task.await(function() end)
      end)
      assert.same({ "now", n = 1 }, got)
      t:cancel()
      assert.is_nil(cancelled)
      no_errors()
    end)

    it("takes the first resume only, and says so", function()
      local resume
      local got = {}
      task.spawn(function()
        table.insert(got, task.await(function(r) resume = r end))
        table.insert(got, (task.await(function() end)))
      end)
      assert.is_true(resume("first"))
      assert.is_false(resume("second"))
      assert.same({ "first" }, got)
      no_errors()
    end)

    it("throws outside a task", function()
      local ok, err = pcall(task.await, function() end)
      assert.is_false(ok)
      assert.matches("outside a task", err)
      assert.matches("task%.spawn", err)
    end)

    it("throws in a coroutine that is no task, even inside one", function()
      local ok, err
      task.spawn(function()
        ok, err = coroutine.resume(coroutine.create(function() task.await(function() end) end))
      end)
      assert.is_false(ok)
      assert.matches("outside a task", err)
      no_errors()
    end)

    it("throws where no task can wait, and harms nothing", function()
      local ok, err, resume, got
      task.spawn(function()
        ok, err = pcall(string.gsub, "x", ".", function() task.await(function(r) resume = r end) end)
        got = task.await(function(r) resume = r end)
      end)
      assert.is_false(ok)
      assert.matches("where no task can wait", err)
      assert.is_true(resume("fine"))
      assert.equal("fine", got)
      no_errors()
    end)

    it("passes on an error of start, and works again after it", function()
      local ok, err, after
      local stale
      task.spawn(function()
        ok, err = pcall(task.await, function(resume)
          stale = resume
          error("no socket", 0)
        end)
        after = task.await(function(resume) resume(5) end)
        task.await(function() end)
        after = "woken by the stale resume"
      end)
      assert.is_false(ok)
      assert.equal("no socket", err)
      stale()
      assert.equal(5, after)
      no_errors()
    end)

    it("refuses what is no cancel function", function()
      task.spawn(function()
        task.await(function() return 7 end)
      end)
      assert.equal(1, #errors)
      assert.matches("cancel function", errors[1])
    end)
  end)

  describe("order", function()
    it("runs a task at once until it waits", function()
      local seen = {}
      task.spawn(function(a, b)
        table.insert(seen, a + b)
        task.await(function() end)
        table.insert(seen, "never")
      end, 1, 2)
      assert.same({ 3 }, seen)
    end)

    it("never runs a task inside another", function()
      local seen = {}
      local resume
      task.spawn(function()
        task.await(function(r) resume = r end)
        table.insert(seen, "woken")
      end)
      task.spawn(function()
        task.spawn(function() table.insert(seen, "spawned") end)
        resume()
        table.insert(seen, "first")
      end)
      assert.same({ "first", "spawned", "woken" }, seen)
      no_errors()
    end)

    it("survives a chain of wake-ups longer than the C stack allows", function()
      local n, left = 2000, 2000
      local q = {}
      for i = 1, n + 1 do q[i] = task.queue() end
      for i = 1, n do
        task.spawn(function()
          q[i + 1]:push(q[i]:pop())
          left = left - 1
        end)
      end
      q[1]:push("token")
      assert.equal(0, left)
      no_errors()
    end)
  end)

  describe("errors", function()
    it("go to on_error with a traceback of the task", function()
      local function deep() error("boom") end
      local t = task.spawn(function()
        task.await(function(resume) resume() end)
        deep()
      end)
      assert.equal(1, #errors)
      assert.matches("boom", errors[1])
      assert.matches("stack traceback", errors[1])
      assert.matches("deep", errors[1])
      assert.is_true(t:done())
    end)

    it("that are tables are reported as text", function()
      task.spawn(function() error(setmetatable({}, { __tostring = function() return "odd" end })) end)
      task.spawn(function() error(setmetatable({}, { __tostring = function() error("worse") end })) end)
      assert.matches("odd", errors[1])
      assert.matches("no text", errors[2])
    end)

    it("run the close variables, and hold nobody else up", function()
      local closed, other
      task.spawn(function()
        task.spawn(function() other = true end)
        local _ <close> = setmetatable({}, { __close = function(_, err) closed = err end })
        error("out", 0)
      end)
      assert.equal("out", closed)
      assert.is_true(other)
      assert.equal(1, #errors)
    end)

    it("in a close variable are reported, too", function()
      task.spawn(function()
        local _ <close> = setmetatable({}, { __close = function() error("second", 0) end })
        error("first", 0)
      end)
      assert.equal(2, #errors)
      assert.matches("^first", errors[1])
      assert.matches("^second", errors[2])
    end)

    it("include a yield that is no await", function()
      local closed
      task.spawn(function()
        local _ <close> = setmetatable({}, { __close = function() closed = true end })
        coroutine.yield()
      end)
      assert.matches("outside task%.await", errors[1])
      assert.is_true(closed)
    end)
  end)

  describe("sleep", function()
    it("waits on the env's timer", function()
      local env, woken = clock(), nil
      task.spawn(function()
        task.sleep(env, 30)
        woken = env.at
      end)
      env.advance(29)
      assert.is_nil(woken)
      env.advance(1)
      assert.equal(30, woken)
      no_errors()
    end)

    it("takes its timer along when cancelled", function()
      local env = clock()
      local t = task.spawn(function() task.sleep(env, 30) end)
      assert.equal(1, env.pending())
      t:cancel()
      assert.equal(0, env.pending())
      no_errors()
    end)
  end)

  describe("cancel", function()
    it("calls the await's cancel function, runs close variables and is idempotent", function()
      local seen = {}
      local late
      local t = task.spawn(function()
        local _ <close> = setmetatable({}, { __close = function() table.insert(seen, "closed") end })
        task.await(function(resume)
          late = resume
          return function() table.insert(seen, "cancelled") end
        end)
        table.insert(seen, "never")
      end)
      t:cancel()
      t:cancel()
      assert.same({ "cancelled", "closed" }, seen)
      assert.is_false(late())
      assert.is_true(t:done())
      no_errors()
    end)

    it("stops a task that was woken but did not run yet", function()
      local resume, ran, cleaned
      local t = task.spawn(function()
        task.await(function(r)
          resume = r
          return function() cleaned = true end
        end)
        ran = true
      end)
      task.spawn(function()
        resume()
        t:cancel()
      end)
      assert.is_nil(ran)
      assert.is_true(cleaned)
      no_errors()
    end)

    it("stops a task that never began", function()
      local ran
      task.spawn(function()
        local t = task.spawn(function() ran = true end)
        t:cancel()
        assert.is_true(t:done())
      end)
      assert.is_nil(ran)
      no_errors()
    end)

    it("of itself ends a task there, also from a coroutine inside it", function()
      local seen = {}
      for _, inside in ipairs { false, true } do
        local me, resume
        me = task.spawn(function()
          task.await(function(r) resume = r end)
          local _ <close> = setmetatable({}, { __close = function() table.insert(seen, "closed") end })
          if inside then coroutine.wrap(function() me:cancel() end)() else me:cancel() end
          task.await(function(r) r() end)
          table.insert(seen, "never")
        end)
        resume()
        assert.is_true(me:done())
      end
      assert.same({ "closed", "closed" }, seen)
      no_errors()
    end)

    it("of itself where it cannot wait ends it at its next await", function()
      local seen, me, resume = {}, nil, nil
      me = task.spawn(function()
        task.await(function(r) resume = r end)
        string.gsub("x", ".", function() me:cancel() end)
        table.insert(seen, "on")
        task.await(function(r) r() end)
        table.insert(seen, "never")
      end)
      resume()
      assert.same({ "on" }, seen)
      assert.is_true(me:done())
      no_errors()
    end)

    it("allows no await while it closes", function()
      local t = task.spawn(function()
        local _ <close> = setmetatable({}, { __close = function() task.await(function() end) end })
        task.await(function() end)
      end)
      t:cancel()
      assert.equal(1, #errors)
      assert.matches("while its task is being closed", errors[1])
    end)

    it("reports an error of the cancel function and closes all the same", function()
      local t = task.spawn(function()
        task.await(function() return function() error("stuck") end end)
      end)
      t:cancel()
      assert.matches("stuck", errors[1])
      assert.is_true(t:done())
    end)
  end)

  describe("join", function()
    local function joined(t)
      local got
      task.spawn(function() got = table.pack(t:join()) end)
      return function() return got end
    end

    it("returns what the task returned, before and after its end", function()
      local resume
      local t = task.spawn(function() return task.await(function(r) resume = r end) end)
      local one, two = joined(t), joined(t)
      assert.is_nil(one())
      resume("a", nil)
      local want = { true, "a", nil, n = 3 }
      assert.same(want, one())
      assert.same(want, two())
      assert.same(want, joined(t)())
      assert.same(want, table.pack(t:join())) -- needs no task once there is nothing to wait for
      no_errors()
    end)

    it("returns false and the error of one that failed", function()
      local t = task.spawn(function() error("gone", 0) end)
      assert.same({ false, "gone", n = 2 }, joined(t)())
    end)

    it("returns false and 'cancelled' of one that was", function()
      local t = task.spawn(function() task.await(function() end) end)
      local got = joined(t)
      t:cancel()
      assert.same({ false, "cancelled", n = 2 }, got())
    end)

    it("of itself throws", function()
      local resume
      local me
      me = task.spawn(function()
        task.await(function(r) resume = r end)
        me:join()
      end)
      resume()
      assert.matches("cannot join itself", errors[1])
    end)
  end)

  describe("queue", function()
    it("hands values on in order, waiting or not", function()
      local q, got = task.queue(), {}
      q:push(1)
      q:push(2)
      task.spawn(function()
        for v in q.pop, q do table.insert(got, v) end
        table.insert(got, "end")
      end)
      q:push(false)
      q:push(4)
      q:close()
      assert.same({ 1, 2, false, 4, "end" }, got)
      no_errors()
    end)

    it("gives what was pushed before it was closed, then nil, to all who wait", function()
      local q, got = task.queue(), {}
      q:push("left")
      q:close()
      q:close()
      assert.is_false(q:push("late"))
      for i = 1, 3 do task.spawn(function() got[i] = tostring(q:pop()) end) end
      assert.same({ "left", "nil", "nil" }, got)
    end)

    it("wakes those who wait when closed", function()
      local q, ended = task.queue(), 0
      for _ = 1, 3 do
        task.spawn(function()
          assert(q:pop() == nil)
          ended = ended + 1
        end)
      end
      q:close()
      assert.equal(3, ended)
      no_errors()
    end)

    it("loses no value to a task that was cancelled, woken or not", function()
      local q, got = task.queue(), {}
      local a = task.spawn(function() table.insert(got, q:pop()) end)
      local b = task.spawn(function() table.insert(got, q:pop()) end)
      task.spawn(function() table.insert(got, q:pop()) end)
      a:cancel()
      task.spawn(function()
        q:push("x")
        b:cancel()
      end)
      assert.same({ "x" }, got)
      no_errors()
    end)

    it("holds no nil", function()
      assert.has_error(function() task.queue():push(nil) end, "a queue holds no nil")
    end)
  end)

  it("leaves no thread behind", function()
    local seen = setmetatable({}, { __mode = "k" })
    for _ = 1, 10 do
      local t = task.spawn(function() task.await(function() end) end)
      seen[t] = true
    end
    collectgarbage()
    collectgarbage()
    assert.is_nil(next(seen))
  end)
end)
