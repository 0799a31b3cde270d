-- SPDX-License-Identifier: MIT
-- A chat of two (or more: a room takes whoever has its code). End it with Ctrl-D.
--   bodkin run examples/chat.lua URL ann          prints a code
--   bodkin run examples/chat.lua URL bob CODE

local bodkin = require "bodkin"
io.stdout:setvbuf("line")
local server, name, code = ...

bodkin.run(function()
  local node <close> = assert(bodkin.open { server = server, app = "chat/1", name = name })
  local match
  if code then
    match = assert(node:join(code))
  else
    match = assert(node:host())
    print("code: " .. match.code)
  end

  local function name_of(id)
    for _, peer in ipairs(match:peers()) do
      if peer.id == id then return peer.name end
    end
  end
  node:on("closed", function(e) print(("* %s is gone (%s)"):format(name_of(e.peer), e.reason)) end)
  assert(match:wait_connected())
  print(("* %s is here"):format(match:peers()[1].name))

  bodkin.env().loop:stdin():on_line(function(line)
    if not line then return match:leave() end
    local ok, err = match:send(line)
    if not ok then print("* not sent: " .. err) end
  end)
  for m in match:messages() do print(("%s: %s"):format(name_of(m.peer), m.data)) end
end)
