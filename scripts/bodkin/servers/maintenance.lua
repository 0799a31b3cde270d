-- SPDX-License-Identifier: MIT
-- The mapping maintenance server (S3): its clients' periodic messages keep their NATs' mappings alive.
-- It confirms each, which earns a longer time-out on many NATs and tells of a restart (`boot`), or is silent.

local role = require("bodkin.servers.role").role

return role {
  name = "maintenance",
  wants = { maintain = { "tx" } },
  on = function(server)
    local counters, boot = server.counters, server.boot
    local function silent() counters:add("maintained") end
    local function confirm(reply, _, tx)
      counters:add("maintained")
      if reply("maintained", tx, boot) ~= false then counters:add("maintained_confirmed") end
    end
    return { maintain = server.maintenance_mode == "silent" and silent or confirm }
  end,
}
