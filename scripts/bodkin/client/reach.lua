-- SPDX-License-Identifier: MIT
-- What docs/NAT.md says of two behaviours whose hosts were told of each other: "yes", they connect; "no"; or "may",
-- where it depends on whose packet comes first ("The race"). The reasons are there; spec/sim/stats_spec.lua holds the
-- two together. A behaviour: mapping and filtering, each "EI", "AD" or "APD" (RFC 4787), and race.

local M = {}

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

function M.verdict(a, b)
  local works = connect(a, b)
  if a.race and connect(raced, b) ~= works or b.race and connect(a, raced) ~= works then return "may" end
  return works and "yes" or "no"
end

-- The behaviours met most, by what people call them (the kinds of docs/NAT.md), in this order.
M.common = {
  { name = "no NAT", mapping = "EI", filtering = "EI" },
  { name = "firewall", mapping = "EI", filtering = "APD" },
  { name = "full cone", mapping = "EI", filtering = "EI" },
  { name = "address-restricted", mapping = "EI", filtering = "AD" },
  { name = "port-restricted", mapping = "EI", filtering = "APD" },
  { name = "plain Linux", mapping = "EI", filtering = "APD", race = true },
  { name = "address-dependent", mapping = "AD", filtering = "APD" },
  { name = "symmetric", mapping = "APD", filtering = "APD" },
}

return M
