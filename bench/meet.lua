-- SPDX-License-Identifier: MIT
-- One side of a connection by Bodkin, for bench/connect.lua: both wait in one queue, which is each one's first word to
-- the server. usage: meet.lua a|b URL NAME GO-US RUN-MS, with lines as bench/nice.c prints them

local bodkin = require "bodkin"
local core = require "bodkin.core"
require "bodkin.client.start" -- loaded by then, as libnice is

local _, url, name, go_us, run_ms = table.unpack(arg)
go_us = math.tointeger(go_us)

bodkin.run(function()
  bodkin.sleep((go_us - core.now()) / 1000)
  local function say(what, text)
    print(("%s %.1f %s"):format(what, (core.now() - go_us) / 1000, text or ""))
    io.stdout:flush()
  end
  local node <close> = assert(bodkin.open {
    server = url, app = "bench/" .. name, register = false,
    on_event = function(event)
      if event.event == "matched" or event.event == "connected" or event.event == "path" then
        say(event.event, event.remote)
      end
    end,
  })
  assert(node:match("pair"))
  bodkin.sleep((go_us - core.now()) / 1000 + run_ms)
end)
