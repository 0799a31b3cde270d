-- SPDX-License-Identifier: MIT
-- The process in which a server's policies run: `bodkin policy-desk`, which only the server starts, and how it does.

local host = require "bodkin.host"

local M = { name = "policy-desk" }

local FD = 3

-- The process itself: serves its descriptor 3 until that closes.
function M.run()
  local env = require("bodkin.env").new { log_level = "error" }
  host.background()
  local link
  local desk = require("bodkin.policy.desk").new(function(message)
    local ok, err = link:send(message)
    -- What cannot be told is the policy's doing: a message of its own that is too long.
    if not ok then io.stderr:write("bodkin policy-desk: ", tostring(err), "\n") end
  end)
  local stream, err = env.loop:fd(FD)
  if not stream then
    io.stderr:write("bodkin policy-desk is started by bodkin serve alone (", tostring(err), ")\n")
    return 2
  end
  link = require("bodkin.policy.link").new(stream, function(message) desk:input(message) end, env.stop)
  env.run()
  desk:close()
  env.close()
  return 0
end

-- What servers.open takes as open_policy_link; name: of another process than this one.
function M.opener(env, name)
  return function(on_message, on_end)
    local pid, fd, code = host.child(name or M.name)
    if not pid then return nil, fd, code end
    local stream, err
    stream, err, code = env.loop:fd(fd)
    if not stream then
      host.end_child(pid)
      return nil, err, code
    end
    local link = require("bodkin.policy.link").new(stream, on_message, function()
      host.end_child(pid)
      on_end()
    end)
    local close = link.close
    -- Its end is then read from the stream.
    function link.kill() host.end_child(pid) end
    function link:close()
      if self.closed then return end
      close(self)
      host.end_child(pid)
    end
    return link
  end
end

return M
