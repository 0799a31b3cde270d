-- SPDX-License-Identifier: MIT
-- Four peers, each connected with each other one. They are four nodes of one program here, so that one
-- command shows them all; four programs would do the same.
--   bodkin run examples/mesh.lua URL

local bodkin = require "bodkin"
local server = ...
local peers = 4

local function peer(number, match)
  local heard, count = {}, 0
  -- Peers come one after the other, and datagrams may get lost: greet until everybody has been heard.
  local greeting = bodkin.spawn(function()
    while true do
      match:send("greetings from " .. number)
      bodkin.sleep(50)
    end
  end)
  for m in match:messages() do
    if not heard[m.peer] then
      heard[m.peer], count = true, count + 1
      print(("peer %d hears: %s"):format(number, m.data))
    end
    if count == peers - 1 then return greeting end
  end
end

bodkin.run(function()
  local nodes, tasks, code = {}, {}, nil
  for number = 1, peers do
    local node = assert(bodkin.open { server = server, app = "mesh/1", name = "peer " .. number })
    local match = assert(code and node:join(code) or node:host())
    code = code or match.code
    nodes[number] = node
    tasks[number] = bodkin.spawn(peer, number, match)
  end
  local greetings = {}
  for number, task in ipairs(tasks) do greetings[number] = assert(select(2, task:join())) end
  for _, greeting in ipairs(greetings) do greeting:cancel() end
  for _, node in ipairs(nodes) do node:close() end
  print("all " .. peers .. " have heard each other")
end)
