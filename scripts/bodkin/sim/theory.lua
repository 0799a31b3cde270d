-- SPDX-License-Identifier: MIT
-- What docs/NAT.md says of two kinds of NAT whose hosts were told of each other: "yes", they connect; "no"; or "may",
-- where it depends on whose packet comes first ("The race"). The reasons are there; spec/sim/stats_spec.lua holds the
-- two together.

local nats = require "bodkin.sim.nat"

local M = {}

local SHORT = { endpoint_independent = "EI", address_dependent = "AD", address_and_port_dependent = "APD" }

local function behaviour(kind)
  local b = nats.kinds[kind]
  return { mapping = b.ports == "overload" and "EI" or SHORT[b.mapping] or "EI", filtering = SHORT[b.filtering] or "EI",
    race = b.race }
end

-- Do the tests of x come in where y waits?
local function gets_in(x, y)
  if y.filtering == "EI" then return true end
  return y.mapping == "EI" and (y.filtering == "AD" or x.mapping == "EI")
end

-- Does x hear the answer to a test of its own?
local function comes_back(x, y)
  return y.mapping == "EI" or x.filtering ~= "APD"
end

local function connect(a, b)
  local works = gets_in(a, b) and comes_back(a, b) or gets_in(b, a) and comes_back(b, a)
  return works and (a.mapping ~= "APD" or b.mapping ~= "APD")
end

local raced = { mapping = "APD", filtering = "APD" }

function M.verdict(kind_a, kind_b)
  local a, b = behaviour(kind_a), behaviour(kind_b)
  local works = connect(a, b)
  if a.race and connect(raced, b) ~= works or b.race and connect(a, raced) ~= works then return "may" end
  return works and "yes" or "no"
end

return M
