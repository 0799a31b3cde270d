-- SPDX-License-Identifier: MIT
-- How long after its start `bodkin join` prints that it is connected, and the first message: in the lab, on the host of
-- the one who joins. usage: cold.lua BODKIN URL CODE TIMES; a line for each time, both in ms.

local core = require "bodkin.core"

local bodkin, url, code, times = ...

for _ = 1, math.tointeger(times) do
  local at, start = {}, core.now()
  local pipe = assert(io.popen(("exec %s join %s --server '%s' --json --expect 1 --timeout 20"):format(bodkin, code,
    url)))
  for line in pipe:lines() do
    local event = line:match '^{"event":"(%l+)"'
    at[event] = at[event] or (core.now() - start) / 1000
  end
  assert(pipe:close())
  print(("%.1f %.1f"):format(at.connected, at.message))
  io.stdout:flush()
end
