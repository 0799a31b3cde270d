-- SPDX-License-Identifier: MIT
-- What docs/NAT.md says of two kinds of NAT (see client/reach.lua), by their names.

local nats = require "bodkin.sim.nat"
local reach = require "bodkin.client.reach"

local M = {}

local SHORT = { endpoint_independent = "EI", address_dependent = "AD", address_and_port_dependent = "APD" }

function M.behaviour(kind)
  local b = nats.kinds[kind]
  return { mapping = b.ports == "overload" and "EI" or SHORT[b.mapping] or "EI", filtering = SHORT[b.filtering] or "EI",
    race = b.race }
end

M.of = reach.of

function M.verdict(kind_a, kind_b) return reach.verdict(M.behaviour(kind_a), M.behaviour(kind_b)) end

return M
