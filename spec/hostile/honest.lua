-- SPDX-License-Identifier: MIT
-- Honest clients beside a flood: each a fresh node, from an address of its own, that opens, registers and goes again.
-- For each a line: when it began (core.now), how many ms it took, and "ok" or why it failed.
-- usage: bodkin run honest.lua SERVER-URL PREFIX AT-ONCE STOP-FILE
--   PREFIX: three bytes of addresses that are all this host's, "198.51.100."; it ends when STOP-FILE is there.

local url, prefix, at_once, stop_file = ...
local bodkin = require "bodkin"
local core = require "bodkin.core"
local task = require "bodkin.task"

local LIMIT_MS, PAUSE_MS = 5000, 100

local function exists(path)
  local file = io.open(path)
  return file and file:close() or false
end

bodkin.run(function()
  io.stdout:setvbuf "line"
  local env, turn, running = bodkin.env(), 0, tonumber(at_once)

  local function one()
    turn = turn + 1
    local began = core.now()
    local node, message, code = bodkin.open {
      server = url, app = "honest/1", bind = ("%s%d:0"):format(prefix, 1 + turn % 250), timeout_ms = LIMIT_MS,
    }
    local took_ms = (core.now() - began) / 1000
    local result = not node and (code or message) or took_ms > LIMIT_MS and "late" or "ok"
    print(("%d %.1f %s"):format(began, took_ms, result))
    if node then node:close() end
  end

  task.await(function(done)
    for _ = 1, running do
      task.spawn(function()
        while not exists(stop_file) do
          one()
          task.sleep(env, PAUSE_MS)
        end
        running = running - 1
        if running == 0 then env.timer(0, done) end
      end)
    end
  end)
end)
