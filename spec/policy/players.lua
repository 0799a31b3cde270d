-- SPDX-License-Identifier: MIT
-- bodkin run spec/policy/players.lua URL SECONDS QUEUE...: two players in each queue, who are matched, part, and wait
-- again. Prints for each queue how many matches they had, and the longest wait in ms.
local bodkin = require "bodkin"

local url, seconds = arg[1], tonumber(arg[2])

bodkin.run(function()
  local env = bodkin.env()
  local until_us = env.now() + seconds * 1000000
  local left, counts = 0, {}
  for i = 3, #arg do
    local queue = arg[i]
    counts[queue] = { matches = 0, longest_ms = 0 }
    for _ = 1, 2 do
      left = left + 1
      bodkin.spawn(function()
        local node = assert(bodkin.open { server = url, app = "hostile/1" })
        while env.now() < until_us do
          local from_us = env.now()
          local match = node:match(queue, {}, { timeout_ms = 5000 })
          local count = counts[queue]
          if match then -- else the other one has left already
            count.longest_ms = math.max(count.longest_ms, (env.now() - from_us) // 1000)
            count.matches = count.matches + 0.5
            match:leave()
          end
          bodkin.sleep(20)
        end
        node:close()
        left = left - 1
      end)
    end
  end
  while left > 0 do bodkin.sleep(50) end
  for i = 3, #arg do print(arg[i], math.floor(counts[arg[i]].matches), counts[arg[i]].longest_ms) end
end)
