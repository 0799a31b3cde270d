-- SPDX-License-Identifier: MIT
-- Groups of three share a room, on home networks all over one continent; one in eight shares a NAT with another.
--   bodkin sim examples/scenario_rooms.lua --svg rooms.svg

local bodkin = require "bodkin"

return bodkin.scenario {
  clients = 150,
  arrive_per_s = 5,
  duration_s = 60,
  stay_s = 15, -- how long each talks before it leaves

  nats = {
    port_restricted = 6, address_restricted = 1, full_cone = 1, plain_linux = 1, firewall = 0.5, none = 0.5,
  },
  together = 0.125,

  delay_ms = { 8, 45 }, -- one way
  jitter_ms = 4,
  loss = 0.01,

  rooms = { size = 3 },
}
