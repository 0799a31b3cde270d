-- SPDX-License-Identifier: MIT
-- Sends far more, for a second, than its socket's small buffer and a slow device take; prints what came of it as JSON.
-- usage: bodkin run narrow.lua

local addr = require("bodkin.core").addr
local env = require("bodkin.env").new()

local FLOOD_MS, EACH_MS, AT_ONCE = 1000, 5, 20

local a = assert(env.udp(addr.parse "127.0.0.1:0"))
local b = assert(env.udp(addr.parse "127.0.0.1:0"))
local began_us, began_cpu, heard, heard_last = env.now(), os.clock(), 0, nil
local result = {}

b:on_packet(function(_, bytes)
  heard = heard + 1
  if bytes ~= "last" or heard_last then return end
  heard_last = env.now()
  result.last_ms = (heard_last - result.flooded_us) / 1000
  env.stop()
end)

-- Small things get through as soon as there is room.
local function ask()
  a:send(b:addr(), "last")
  env.timer(20, ask)
end

local function flood()
  if env.now() - began_us > FLOOD_MS * 1000 then
    result.cpu = os.clock() - began_cpu
    result.flooded_us, result.heard = env.now(), heard
    return ask()
  end
  for _ = 1, AT_ONCE do a:send(b:addr(), ("x"):rep(1000)) end
  env.timer(EACH_MS, flood)
end

env.timer(0, flood)
env.run()
for _, c in ipairs(env.counters:all()) do result[c.name] = c.value end
result.flooded_us = nil
print(require("bodkin.json").encode(result))
env.close()
