-- SPDX-License-Identifier: MIT
-- Where a server's admin socket is: one default for each port, tried in the same order by both sides.
-- A request is a line naming it; the answer is one line of JSON.

local M = {}

local ANSWER_MS = 3000

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

-- Opens the socket at `path`, else at the first default that lets itself be made. answer(line, reply): calls reply with
-- a line, now or later. Returns the listener and its path, or nil, message, code.
function M.listen(loop, path, port, answer)
  local function accept(stream)
    local is_open = true
    local function reply(text)
      if is_open then stream:write(text .. "\n") end
    end
    stream:on_line(function(line)
      if line then return answer(line, reply) end
      is_open = false
      stream:close()
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

local function answer(env, stream, line)
  return require("bodkin.task").await(function(resume)
    local timer = env.timer(ANSWER_MS, function() resume(nil, "it did not answer in 3 s") end)
    stream:on_line(function(text) resume(text, "it hung up") end)
    stream:write(line .. "\n")
    return function() timer:cancel() end
  end)
end

-- In a task: asks the server whose socket, or port, is `admin`, or whose port is the default one. Returns its answer,
-- which has a field of the name `expect`; or nil, message, code.
function M.ask(env, admin, line, expect)
  local port = math.tointeger(tonumber(admin))
  local stream, at = M.connect(env.loop, not port and admin or nil, port or 4433)
  if not stream then return nil, at, "closed" end
  local text, err = answer(env, stream, line)
  stream:close()
  if not text then return nil, ("%s: %s; is it a Bodkin server?"):format(at, err), "timeout" end
  local value, wrong = require("bodkin.json").decode(text)
  if type(value) ~= "table" or value[expect] == nil then
    wrong = wrong or type(value) == "table" and value.error or text:sub(1, 60)
    return nil, ("%s answered something else: %s"):format(at, tostring(wrong)), "invalid"
  end
  return value
end

return M
