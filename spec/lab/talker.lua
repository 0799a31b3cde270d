-- SPDX-License-Identifier: MIT
-- Two clients that talk, whoever is in between: each sends numbered messages and says what it gets. The same script
-- in the lab, where it is a program (talker.lua ROLE URL APP COUNT EVERY-MS), and in the simulator.

local core = require "bodkin.core"
local node = require "bodkin.client.node"
local task = require "bodkin.task"

local M = {}

M.PATIENCE_MS = 9000 -- that long it tries to meet
local LINGER_MS = 1500

-- Message number n of a side: its number, and bytes that anybody can work out from it.
function M.message(app, role, n)
  local head = ("%s %s %d "):format(app, role, n)
  return head .. core.crypto.mac(("checksum"):rep(4), head, 16) .. ("."):rep(n * 37 % 1000)
end

-- The number that this message has, if it is one of those, whole; else nil.
function M.number(app, role, bytes)
  local n = math.tointeger(tonumber(bytes:match "^%S+ %S+ (%d+) "))
  return n and M.message(app, role, n) == bytes and n or nil
end

local function until_done(env, deadline_us, fn)
  local result
  repeat
    result = fn()
    if not result then task.sleep(env, 50) end
  until result or env.now() > deadline_us
  return result
end

-- In a task. config: env, role ("a" waits to be found, "b" finds it in the same app), url, server_keys (where the URL
-- has none), app, count and every_ms of the messages,
-- on(kind, x): "sent" n, "got" bytes, "connected", "closed" reason. Servers and peers may fail it.
function M.talk(config)
  local env, on = config.env, config.on
  local deadline_us = env.now() + M.PATIENCE_MS * 1000
  local met
  local function on_event(event, match)
    if event.event == "connected" then met = match end
    if event.event == "message" then on("got", event.data) end
    if event.event == "connected" or event.event == "closed" then on(event.event, event.reason) end
  end
  local function open()
    return (node.open { env = env, server = config.url, server_keys = config.server_keys, app = config.app,
      name = config.role, on_event = on_event, timeout_ms = 1500 })
  end
  local me <close> = until_done(env, deadline_us, open)
  if not me then return end
  local asked_us = -math.huge
  until_done(env, deadline_us, function()
    if met or config.role == "a" or env.now() - asked_us < 2000000 then return met end
    for _, entry in ipairs(me:list() or {}) do
      if entry.name == "a" and me:join(entry.id) then asked_us = env.now() end
    end
    return met
  end)
  for n = 1, met and config.count or 0 do
    if met:send(M.message(config.app, config.role, n)) then on("sent", n) end
    task.sleep(env, config.every_ms)
  end
  if met then task.sleep(env, LINGER_MS) end
end

local function main(role, url, app, count, every_ms)
  require("bodkin").run(function()
    M.talk {
      env = require("bodkin").env(), role = role, url = url, app = app, count = math.tointeger(count),
      every_ms = math.tointeger(every_ms),
      on = function(kind, x)
        print(kind, kind == "got" and core.crypto.hex(x) or x)
        io.stdout:flush()
      end,
    }
  end)
end

if arg and arg[0] and arg[0]:find "talker%.lua$" then return main(...) end
return M
