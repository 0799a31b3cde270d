-- SPDX-License-Identifier: MIT
-- The command line. A command is a module here: { usage, summary, text, options, run(options, arguments, argv, cut) },
-- where `cut` is how many arguments came before a "--", if one did. run returns an exit code, or nil, message, code (a
-- name of the error table). Commands are loaded on demand.

local M = {}

local commands = { serve = true, host = true, join = true, list = true, ping = true, netcheck = true, run = true,
  status = true, why = true, match = true, check = true, sim = true, replay = true, record = true, lab = true,
  tunnel = true,
  keygen = true, version = true, help = true }
local aliases = { ["--version"] = "version", ["-V"] = "version", ["--help"] = "help", ["-h"] = "help" }
-- Named in the surface, built later.
local later = { repl = true, top = true }

local function usage_error(message, next_step)
  io.stderr:write("bodkin: ", message, "\n", next_step, "\n")
  return 2
end

local function exit_code(code)
  local known = require("bodkin.core").errors[code]
  return known and known.exit or 1
end

local function merged(...)
  local all = {}
  for _, list in ipairs { ... } do table.move(list, 1, #list, #all + 1, all) end
  return all
end

function M.main(argv)
  local name = aliases[argv[1]] or argv[1]
  if not name then
    io.stderr:write(require("bodkin.cli.help").overview(), "\n")
    return 2
  end
  if name == "policy-desk" then return require("bodkin.cli.desk").run() end -- started by serve alone
  if name == "webhook-desk" then return require("bodkin.cli.webhook").run() end
  if not commands[name] then
    if later[name] then return usage_error(name .. " is not in this version yet", "bodkin help lists what is") end
    local help, options = require "bodkin.cli.help", require "bodkin.cli.options"
    local what = name:find "^%-" and "options come after a command, not " or "no command "
    return usage_error(what .. name .. options.suggestion(name, help.order), "bodkin help lists them")
  end
  local command = require("bodkin.cli." .. name)
  if command.raw then return command.run(argv) end
  local options = require "bodkin.cli.options"
  local values, rest, cut = options.parse(merged(command.options, options.common), argv, 2)
  if not values then return usage_error(rest, "bodkin help " .. name .. " says more") end
  if values.help then
    print(require("bodkin.cli.help").command(name))
    return 0
  end
  local most = command.arguments or 0
  if name ~= "help" and #rest > most then
    return usage_error(("unexpected argument %s"):format(rest[most + 1]), "usage: " .. command.usage)
  end
  local status, message, code = command.run(values, rest, argv, cut)
  if status then return status end
  if code == "usage" then return usage_error(message, "usage: " .. command.usage) end
  require("bodkin.cli.output").of(values):failure(message, code)
  return exit_code(code)
end

return M
