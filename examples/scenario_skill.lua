-- SPDX-License-Identifier: MIT
-- A thousand players look for somebody of their own strength, in two modes, with the policy that ships.
--   bodkin sim examples/scenario_skill.lua --svg skill.svg

local bodkin = require "bodkin"

return bodkin.scenario {
  clients = 1000,
  arrive_per_s = 25,
  duration_s = 60,

  nats = {
    port_restricted = 50, plain_linux = 15, address_restricted = 8, full_cone = 7, symmetric_random = 8,
    symmetric_sequential = 4, address_dependent = 2, firewall = 3, none = 3,
  },

  delay_ms = { 5, 60 },
  jitter_ms = 3,
  loss = 0.005,

  match = {
    queue = "duel",
    policy = "skill",
    props = {
      mmr = { normal = { 1500, 350 }, min = 0, max = 5000, whole = true },
      mode = { weights = { ranked = 3, casual = 1 } },
    },
  },
}
