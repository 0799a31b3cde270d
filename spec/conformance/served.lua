-- SPDX-License-Identifier: MIT
-- A server with more than one key, for drive.py: `bodkin run served.lua SECRET [SECRET]`, in hex.

local bodkin = require "bodkin"
local core = require "bodkin.core"
local json = require "bodkin.cli.json"
local servers = require "bodkin.servers"
io.stdout:setvbuf "line"

local keys = {}
for i, text in ipairs { ... } do
  keys[i] = text:gsub("..", function(h) return string.char(tonumber(h, 16)) end)
end

bodkin.run(function()
  local env = bodkin.env()
  local server = assert(servers.open(env, {
    listen = { "127.0.0.1:0" }, roles = { "address", "matching" }, keys = keys,
  }))
  print(json.encode({ event = "listening", addr = core.addr.format(server:addresses()[1]) }, {}))
  require("bodkin.task").await(function() end) -- until it is killed
end)
