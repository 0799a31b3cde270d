-- SPDX-License-Identifier: MIT
-- The facade: everything a script needs of Bodkin. What is not used is not loaded.
--
--   local bodkin = require "bodkin"
--   bodkin.run(function()
--     local node <close> = assert(bodkin.open { server = "bodkin://example.org", app = "pong/1" })
--     local match = assert(node:host())
--     ...
--   end)

local M = {}

-- The environment of the bodkin.run under way, and the nodes opened in it.
local running
local nodes = setmetatable({}, { __mode = "k" })

-- Set by the program alone: fn(env, cancel), as a run begins; what it returns is called when that is over.
M.on_run = nil

-- In a task: a node, or nil, message, code. Options: see bodkin.client.node; `env` stands for the
-- environment of bodkin.run, in the simulator.
function M.open(options)
  if type(options) ~= "table" then error("bodkin.open takes a table of options", 2) end
  local env = options.env or running
  if not env then error("bodkin.open works inside bodkin.run, or with an env", 2) end
  local node = require "bodkin.client.node"
  local given, known = { env = env }, {}
  for _, name in ipairs(node.options) do known[name] = true end
  for name, value in pairs(options) do
    if not known[name] then
      local suggestion = require "bodkin.suggestion"
      error(("bodkin.open has no option %s%s"):format(tostring(name), suggestion(tostring(name), node.options)), 2)
    end
    given[name] = value
  end
  local opened, err, code = node.open(given)
  if opened and env == running then nodes[opened] = true end
  return opened, err, code
end

-- Runs fn(...) as a task on an event loop of its own until it returns; returns true and what it returned.
-- An error in it is thrown here, with the task's traceback. Tasks end with it, and nodes are closed.
function M.run(fn, ...)
  if running then error("bodkin.run is running already; use bodkin.spawn", 2) end
  local task = require "bodkin.task"
  local env = require("bodkin.env").new()
  running = env
  local result
  local finish = task.within()
  local arguments = table.pack(...)
  local main = task.spawn(function()
    result = table.pack(xpcall(fn, function(err)
      return type(err) == "string" and debug.traceback(err, 2) or err
    end, table.unpack(arguments, 1, arguments.n)))
    env.stop()
  end)
  local over = M.on_run and M.on_run(env, function()
    main:cancel()
    env.stop()
  end)
  local ok, err = pcall(function() if not result then env.run() end end)
  running = nil
  finish()
  for node in pairs(nodes) do node:abandon() end -- of tasks that ended, or did not hold it in a <close>
  nodes = setmetatable({}, getmetatable(nodes))
  env.close()
  if over then over() end
  if not ok then error(err, 0) end
  if not result then return false end -- stopped from outside
  if not result[1] then error(result[2], 0) end
  return table.unpack(result, 1, result.n)
end

-- Starts fn(...) as a task beside the one that calls.
function M.spawn(fn, ...)
  return require("bodkin.task").spawn(fn, ...)
end

-- In a task of bodkin.run: waits.
function M.sleep(ms)
  if not running then error("bodkin.sleep works inside bodkin.run", 2) end
  return require("bodkin.task").sleep(running, ms)
end

-- The environment of the bodkin.run under way (sockets, timers, clock), nil outside; see bodkin.env.
function M.env()
  return running
end

local lazy = {
  version = function() return require("bodkin.core").version end,
  protocol_version = function() return require("bodkin.core").protocol_version end,
  message = function() return require "bodkin.message" end,
  role = function() return require("bodkin.servers.role").role end,
  config = function() return require("bodkin.config").config end,
  policy = function() return require("bodkin.policy").policy end,
  token = function() return require "bodkin.token" end,
  scenario = function() return require("bodkin.scenario").scenario end,
}

return setmetatable(M, {
  __index = function(self, key)
    local make = lazy[key]
    if not make then return nil end
    local value = make()
    self[key] = value
    return value
  end,
})
