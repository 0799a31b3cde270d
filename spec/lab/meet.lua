-- SPDX-License-Identifier: MIT
-- Two clients that meet again and again, each time with new nodes, and thus new mappings: the same script in the lab
-- and in the simulator. In the lab it is a program: meet.lua ROLE URL APP TIMES.

local node = require "bodkin.client.node"
local task = require "bodkin.task"

local M = {}

local KEEP_MS = 400 -- how long one keeps the connection: the other's path may need a few more tests

-- Waits until `meeting` is over: closed by the other or without a path, or connected for long enough.
local function finish(env, meeting, keep_ms)
  while not meeting.closed and not (meeting.path and env.now() - meeting.path_us > keep_ms * 1000) do
    task.sleep(env, 10)
  end
end

-- The lab's NATs that number ports lose a flow whose port another one has: from another port it is tried again.
local function open(options)
  for _ = 1, 3 do
    local me, err, code = node.open(options)
    if me or code ~= "timeout" then return assert(me, err) end
  end
  error("no node could be opened", 2)
end

-- In a task: meets `times` times; role "a" waits to be found, "b" finds it in the same app. on_end(i, meeting) is
-- called after each with { first_ms, confirmed_ms, path, first, last } or { closed = reason }; what did not happen is
-- nil. path is the first that was confirmed, first the one it began with, last the one at the end. It is kept for
-- keep_ms (KEEP_MS).
function M.meet(env, role, url, app, times, on_end, keep_ms)
  keep_ms = keep_ms or KEEP_MS
  for i = 1, times do
    local meeting = {}
    local me <close> = open {
      env = env, server = url, app = app, name = role .. i,
      on_event = function(event)
        if event.event == "connected" then
          meeting.first_ms, meeting.first = meeting.first_ms or event.first_ms, meeting.first or event.path
        end
        if event.event == "path" then meeting.last = event.path end
        if event.event == "path" and not meeting.path then
          meeting.path, meeting.confirmed_ms, meeting.path_us = event.path, event.confirmed_ms, env.now()
        end
        if event.event == "closed" then meeting.closed = event.reason end
      end,
    }
    while role == "b" and not meeting.joined do
      for _, entry in ipairs(me:list() or {}) do
        if entry.name == "a" .. i then meeting.joined = me:join(entry.id) end
      end
      task.sleep(env, 20)
    end
    finish(env, meeting, role == "b" and keep_ms or keep_ms + 800)
    on_end(i, meeting)
  end
end

local function main(role, url, app, times)
  require("bodkin").run(function()
    local env = require("bodkin").env()
    M.meet(env, role, url, app, math.tointeger(times), function(i, meeting)
      print(("%d %s %s %s"):format(i, meeting.path or meeting.closed, meeting.first_ms or "-",
        meeting.confirmed_ms or "-"))
      io.stdout:flush()
    end)
  end)
end

if arg and arg[0] and arg[0]:find "meet%.lua$" then return main(...) end
return M
