-- SPDX-License-Identifier: MIT
-- The texts of `bodkin help`: made from what each command declares, so that they cannot differ from it.

local options = require "bodkin.cli.options"

local M = {
  usage = "bodkin help [COMMAND]",
  summary = "what there is; with a command, all about it",
  options = {},
}

local order = { "serve", "host", "join", "match", "tunnel", "list", "ping", "netcheck", "status", "why", "check", "sim",
  "lab", "record", "replay", "run", "keygen", "version", "help" }

local function option_line(option)
  local left = (option.short and "-" .. option.short .. ", " or "    ") .. "--" .. option[1]
  if option.arg then left = left .. " " .. option.arg end
  local right = option.help .. (option.env and " (or $" .. option.env .. ")" or "") ..
    (option.many and "; repeatable" or "")
  return ("  %-33s %s"):format(left, right)
end

function M.overview()
  local lines = {
    "bodkin: programs behind NATs talk to each other directly",
    "",
    "usage: bodkin COMMAND [options]",
    "",
  }
  for _, name in ipairs(order) do
    lines[#lines + 1] = ("  %-9s %s"):format(name, require("bodkin.cli." .. name).summary)
  end
  lines[#lines + 1] = ""
  lines[#lines + 1] = "on a machine others reach:    bodkin serve"
  lines[#lines + 1] = "on one behind a NAT:          bodkin host --server bodkin://HOST:4433"
  lines[#lines + 1] = "on another:                   bodkin join CODE --server bodkin://HOST:4433"
  lines[#lines + 1] = ""
  lines[#lines + 1] = "exit codes: 0 well, 1 failed while running, 2 usage, 3 a check or --expect failed, 4 no match,"
  lines[#lines + 1] = "            5 no path, 6 refused, 130 interrupted"
  lines[#lines + 1] = "bodkin help COMMAND says all about a command"
  return table.concat(lines, "\n")
end

function M.command(name)
  local command = require("bodkin.cli." .. name)
  local lines = { "usage: " .. command.usage, "", command.text or command.summary }
  if #command.options > 0 then
    lines[#lines + 1] = "\noptions:"
    for _, option in ipairs(command.options) do lines[#lines + 1] = option_line(option) end
  end
  if not command.raw then
    lines[#lines + 1] = "\ncommon:"
    for _, option in ipairs(options.common) do lines[#lines + 1] = option_line(option) end
  end
  return table.concat(lines, "\n")
end

M.order = order

function M.run(_, rest)
  if not rest[1] then
    print(M.overview())
    return 0
  end
  for _, name in ipairs(order) do
    if name == rest[1] then
      print(M.command(name))
      return 0
    end
  end
  return nil, ("no command %s%s"):format(rest[1], options.suggestion(rest[1], order)), "invalid"
end

return M
