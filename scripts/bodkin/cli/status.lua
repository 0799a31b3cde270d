-- SPDX-License-Identifier: MIT
local output = require "bodkin.cli.output"

local answer_ms = 3000

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

local function ask(env, stream)
  return require("bodkin.task").await(function(resume)
    local timer = env.timer(answer_ms, function() resume(nil, "it did not answer in 3 s") end)
    stream:on_line(function(line) resume(line, "it hung up") end)
    stream:write("status\n")
    return function() timer:cancel() end
  end)
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
      local port = math.tointeger(tonumber(values.admin))
      local stream, at = require("bodkin.cli.admin").connect(p.env.loop, not port and values.admin or nil, port or 4433)
      if not stream then return nil, at, "closed" end
      local line, err = ask(p.env, stream)
      stream:close()
      if not line then return nil, ("%s: %s; is it a Bodkin server?"):format(at, err), "timeout" end
      local status, wrong = require("bodkin.cli.json").decode(line)
      if not status or not status.info then
        return nil, ("%s answered something else: %s"):format(at, wrong or line:sub(1, 60)), "invalid"
      end
      if out.json then out:object(status, { "version", "pid", "info", "counters", "name", "value", "text" })
      else show(out, status) end
      return 0
    end)
  end,
}
