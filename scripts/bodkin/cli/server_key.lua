-- SPDX-License-Identifier: MIT
-- The keys that `bodkin serve` runs with: those of its key file, else those it made at its first start, else of this
-- run alone.

local keyfile = require "bodkin.keyfile"

local M = {}

local function set(name)
  local value = os.getenv(name)
  return value and value:sub(1, 1) == "/" and value or nil -- also XDG's: a relative path is to be ignored
end

-- Where a server keeps its key when nobody says where; nil where it has no home.
function M.default_path()
  local state = set "STATE_DIRECTORY" -- systemd's; of several the first
  if state then return state:match "^[^:]+" .. "/server.key" end
  local base = set "XDG_STATE_HOME"
  if not base and set "HOME" then base = set "HOME" .. "/.local/state" end
  return base and base .. "/bodkin/server.key"
end

local function of_this_run(out, why)
  out:say("no place for the server's key (%s), so this run has one of its own: after the next start clients need its "
    .. "new URL; give a file with --key-file", why)
  local secret = require("bodkin.core").crypto.random(32)
  return { secrets = { secret }, publics = { keyfile.public(secret) } }
end

-- { secrets = { 32 bytes, … }, publics = { 32 bytes, … } }, or nil, message, code. `path`: the one given, or nil.
function M.find(path, out)
  if path then
    local keys, err, code, word = keyfile.server(path)
    if word == "absent" then err = ("%s; bodkin keygen %s makes it"):format(err, path) end
    return keys, err, code
  end
  path = M.default_path()
  if not path then return of_this_run(out, "$HOME is not set") end
  local keys, err, code, word = keyfile.ensure(path, keyfile.server, { what = "the server's key" })
  if keys then
    if err then out:say("made the server's key, %s: keep it, clients know the server by it", path) end
    out:detail("the server's key: %s", path)
    return keys
  end
  if word == "unwritable" then return of_this_run(out, err) end
  return nil, err, code
end

return M
