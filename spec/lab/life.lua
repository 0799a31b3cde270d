-- SPDX-License-Identifier: MIT
-- One of two who talk without end, and what it sees: life.lua ROLE URL APP. A line for each datagram, "got N SENT CAME"
-- (µs), and for each change: "connected VIA REMOTE", "path VIA REMOTE", "closed REASON".

local bodkin = require "bodkin"
local core = require "bodkin.core"

local EVERY_MS = 50
local role, url, app = ...

local function say(...)
  print(...)
  io.stdout:flush()
end

bodkin.run(function()
  local met
  local node <close> = assert(bodkin.open {
    server = url, app = app, name = role,
    on_event = function(event, match)
      if event.event == "message" then
        say("got", event.data, core.now())
      elseif event.event == "connected" or event.event == "path" then
        met = met or match
        say(event.event, event.path, event.remote)
      elseif event.event == "closed" or event.event == "error" then
        say(event.event, event.reason or event.message)
      end
    end,
  })
  local asked
  while role == "b" and not asked do
    for _, entry in ipairs(node:list() or {}) do
      if entry.name == "a" then asked = node:join(entry.id) end
    end
    bodkin.sleep(50)
  end
  while not met do bodkin.sleep(10) end
  local n = 0
  while true do
    n = n + 1
    met:send(("%d\t%d"):format(n, core.now()))
    bodkin.sleep(EVERY_MS)
  end
end)
