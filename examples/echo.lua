-- SPDX-License-Identifier: MIT
-- An echo. One side sends back whatever it hears until the other leaves, which measures how long that takes:
--   bodkin run examples/echo.lua URL            prints a code
--   bodkin run examples/echo.lua URL CODE [N]   N echoes (default 5)

local bodkin = require "bodkin"
io.stdout:setvbuf("line")
local server, code, count = ...

local function echo(node)
  local match = assert(node:host())
  print(match.code)
  node:on("closed", function() match:leave() end)
  for m in match:messages() do match:send(m.data, m.peer) end
end

local function measure(node)
  local match = assert(node:join(code))
  assert(match:wait_connected(10000))
  local now, sent = bodkin.env().now, {}
  -- Datagrams may get lost, so nobody waits for an answer before the next is sent.
  bodkin.spawn(function()
    for i = 1, tonumber(count) or 5 do
      sent[i] = now()
      match:send(tostring(i))
      bodkin.sleep(100)
    end
    bodkin.sleep(500)
    match:leave()
  end)
  for m in match:messages() do
    local i = tonumber(m.data)
    print(("echo %d after %.1f ms"):format(i, (now() - sent[i]) / 1000))
  end
end

bodkin.run(function()
  local node <close> = assert(bodkin.open { server = server, app = "echo/1" })
  if code then measure(node) else echo(node) end
end)
