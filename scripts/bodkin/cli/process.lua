-- SPDX-License-Identifier: MIT
-- What every command that waits has in common: the real world, one main task, and signals.

local host = require "bodkin.host"
local output = require "bodkin.cli.output"
local task = require "bodkin.task"

local M = {}

-- Runs fn(process) as a task on a loop of its own and returns what it returns; 1 after an error in it, which
-- has been reported. process.env is its world; SIGINT, SIGTERM and SIGHUP call process.on_stop(name), which may
-- wait and may return an exit code (130 otherwise), and end it; with process.on_reload, SIGHUP calls that instead.
function M.run(options, fn)
  local level = options.quiet and "error" or (options.verbose or 0) >= 2 and "debug" or "info"
  local env = require("bodkin.env").new { log_level = level }
  local process, result = { env = env }, nil
  local out = output.of(options)
  out:attach(env)
  local function finish(...)
    if result then return end
    result = table.pack(...)
    env.stop()
  end
  local main
  local signals = env.loop:fd(assert(host.signals()))
  signals:on_line(function(name)
    if not name or process.stopping then return end
    if name == "HUP" and process.on_reload then return task.spawn(process.on_reload) end
    process.stopping = name
    task.spawn(function()
      local code = process.on_stop and process.on_stop(name)
      if main then main:cancel() end
      finish(code or 130)
    end)
  end)
  task.spawn(function()
    main = task.spawn(fn, process)
    local ended = table.pack(main:join())
    if process.stopping then return end
    if ended[1] then finish(table.unpack(ended, 2, ended.n)) else finish(1) end
  end)
  if not result then env.run() end
  signals:close()
  out:settle(not process.stopping)
  env.close()
  return table.unpack(result, 1, result.n)
end

return M
