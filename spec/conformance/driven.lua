-- SPDX-License-Identifier: MIT
-- A client for drive.py to drive: `bodkin run driven.lua URL host|join [CODE]`. Prints a line an event; takes the lines
-- "send TEXT" and "leave".

local json = require "bodkin.json"
local bodkin = require "bodkin"
local url, command, code = ...
io.stdout:setvbuf "line"

local function say(event, fields)
  fields.event = event
  print(json.encode(fields, {}))
end

local function failed(message, why) say("failed", { code = why, message = message }) end

bodkin.run(function()
  local node <close>, message, why = bodkin.open {
    server = url, app = "conform/1", bind = "127.0.0.1:0", register = command == "host",
    on_event = function(e) say(e.event, { path = e.path, remote = e.remote, reason = e.reason, data = e.data }) end,
  }
  if not node then return failed(message, why) end
  local match
  if command == "host" then
    match, message, why = node:host()
  else
    match, message, why = node:join(code)
  end
  if not match then return failed(message, why) end
  if command == "host" then say("code", { code = match.code }) end
  bodkin.env().loop:stdin():on_line(function(line)
    if not line or line == "leave" then return match:leave() end
    local ok, _, refused = match:send(line:match "^send (.*)$")
    if not ok then say("unsent", { code = refused }) end
  end)
  for _ in match:messages() do end
end)
say("ended", {})
