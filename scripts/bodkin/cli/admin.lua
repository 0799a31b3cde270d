-- SPDX-License-Identifier: MIT
-- Where a server's admin socket is: one default for each port, tried in the same order by both sides.
-- A request is a line naming it; the answer is one line of JSON.

local M = {}

-- Below /tmp only in a directory that nobody else can put anything into.
local function candidates(port, make)
  local name = ("bodkin-%d.sock"):format(port)
  local list = { "/run/" .. name }
  local runtime = os.getenv "XDG_RUNTIME_DIR"
  if runtime and runtime ~= "" then list[#list + 1] = runtime .. "/" .. name end
  local private = require("bodkin.host").private_dir(make)
  if private then list[#list + 1] = private .. "/" .. name end
  return list
end

-- Opens the socket at `path`, else at the first default that lets itself be made.
-- Returns the listener and its path, or nil, message, code.
function M.listen(loop, path, port, answer)
  local function accept(stream)
    stream:on_line(function(line)
      if line then stream:write(answer(line) .. "\n") else stream:close() end
    end)
  end
  local err, code
  for _, at in ipairs(path and { path } or candidates(port, true)) do
    local listener
    listener, err, code = loop:listen(at, accept)
    if listener then return listener, at end
  end
  return nil, err, code
end

-- Connects to `path`, else to the first default that somebody answers on.
function M.connect(loop, path, port)
  local list = path and { path } or candidates(port, false)
  local err
  for _, at in ipairs(list) do
    local stream
    stream, err = loop:connect(at)
    if stream then return stream, at end
  end
  return nil, ("no server answers on %s (%s): is one running here? give its socket with --admin"):format(
    table.concat(list, " or "), tostring(err)), "refused"
end

return M
