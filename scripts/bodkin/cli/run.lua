-- SPDX-License-Identifier: MIT
-- Arguments after FILE are the script's own, so this command reads its own argv.

local M = {
  usage = "bodkin run FILE [ARG]...",
  summary = "run a Lua script with the runtime",
  text = [[
Runs FILE with the arguments in `arg`. It can require "bodkin", "bodkin.core" and whatever Lua finds.
The exit code is the integer it returns, else 0; 1 when it fails. SIGINT, SIGTERM and SIGHUP cancel what bodkin.run
runs, so that its <close> variables are closed, and end the script there, with 130.]],
  options = {},
  raw = true,
}

-- A node that nobody closes stays at its server, and is matched, for a minute.
local function on_run(env, cancel)
  local host = require "bodkin.host"
  local ok, fd = pcall(host.signals, true)
  if not ok or not fd then return nil end -- the script takes them itself
  local signals, interrupted = env.loop:fd(fd), false
  signals:on_line(function(name)
    if not name or interrupted then return end
    interrupted = true
    cancel()
  end)
  return function()
    host.end_signals()
    if interrupted then os.exit(130, true) end
  end
end

function M.run(argv)
  local file = argv[2]
  if not file then
    io.stderr:write("bodkin: run needs a FILE\nusage: ", M.usage, "\n")
    return 2
  end
  if file == "--help" or file == "-h" then
    print(require("bodkin.cli.help").command("run"))
    return 0
  end
  local chunk, err = loadfile(file, "t")
  if not chunk then
    io.stderr:write("bodkin: ", err, "\n")
    return 2
  end
  local arguments = {}
  for i = 0, #argv do arguments[i - 2] = argv[i] end
  _G.arg = arguments
  require("bodkin").on_run = on_run
  return math.tointeger((chunk(table.unpack(arguments)))) or 0
end

return M
