-- SPDX-License-Identifier: MIT
local output = require "bodkin.cli.output"

local function duration(s)
  if s < 120 then return ("%d s"):format(s) end
  if s < 7200 then return ("%d min"):format(s // 60) end
  return ("%d h %d min"):format(s // 3600, s % 3600 // 60)
end

local function show(out, status)
  local info = status.info
  local function line(text) out:line(output.printable(text)) end
  line(("bodkin %s, process %d, up %s, %s"):format(status.version, status.pid, duration(info.uptime_s),
    table.concat(info.listen, " ")))
  if info.listen_tcp then line("over TCP: " .. table.concat(info.listen_tcp, " ")) end
  line(("roles: %s (maintenance: %s)"):format(table.concat(info.roles, ", "), info.maintenance_mode))
  local keys = {}
  for key, value in pairs(info) do
    if type(value) == "number" and key ~= "uptime_s" then keys[#keys + 1] = key end
  end
  table.sort(keys)
  for _, key in ipairs(keys) do line(("%s: %d"):format(key, info[key])) end
  line("")
  for _, c in ipairs(status.counters) do line(("%-22s %12d  %s"):format(c.name, c.value, c.text)) end
end

return {
  usage = "bodkin status [--admin PATH|PORT] [--json]",
  summary = "the counters of a server on this machine",
  text = "Asks a server on this machine, over its admin socket, for its state and every counter.",
  options = {
    { "admin", arg = "PATH", help = "its Unix socket, or its port (default: the socket of port 4433)" },
  },
  run = function(values)
    local out = output.of(values)
    return require("bodkin.cli.process").run(values, function(p)
      local status, err, code = require("bodkin.cli.admin").ask(p.env, values.admin, "status", "info")
      if not status then return nil, err, code end
      if out.json then out:object(status, { "version", "pid", "info", "counters", "name", "value", "text" })
      else show(out, status) end
      return 0
    end)
  end,
}
