-- SPDX-License-Identifier: MIT
-- What maintenance costs and what it keeps, at a fixed interval and adapted: the table of docs/NAT.md.
--   lua5.4 bench/maintenance.lua [SEEDS [LOSS]]      with bodkin.core and scripts on its path: `make bench-maintenance`

package.path = "./?.lua;" .. package.path
local pushes = require "spec.client.pushes"

local SEEDS, LOSS = tonumber(arg[1]) or 10, tonumber(arg[2])

local function sum(timeout_s, ports, options)
  local total, ends = {}, {}
  for seed = 1, SEEDS do
    local seen, at = pushes.hour(seed, timeout_s * 1000, ports, options)
    for k, v in pairs(seen) do total[k] = (total[k] or 0) + v end
    ends[at] = (ends[at] or 0) + 1
  end
  local list = {}
  for at, n in pairs(ends) do list[#list + 1] = at .. (n < SEEDS and (" (%d)"):format(n) or "") end
  table.sort(list)
  return total, table.concat(list, ", ")
end

print("| mappings live | ports | interval | pushes | late | lost | messages an hour | bytes | of spare sockets "
  .. "| in the end |")
print "|---|---|---|---|---|---|---|---|---|---|"
for _, timeout_s in ipairs { 8, 12, 20, 30, 60, 120 } do
  for _, ports in ipairs { "preserve", "random" } do
    for _, adapt in ipairs { false, true } do
      local t, ends = sum(timeout_s, ports, { adapt = adapt, loss = LOSS })
      print(("| %d s | %s | %s | %d | %d | %d | %.0f | %.0f | %.1f | %s |"):format(timeout_s, ports,
        adapt and "adaptive" or "15 s", t.pushes, t.late, t.lost, t.messages / SEEDS, t.bytes / SEEDS, t.spare / SEEDS,
        ends))
    end
  end
end
