-- SPDX-License-Identifier: MIT
-- What docs/NAT.md says of two behaviours whose hosts were told of each other: "yes", they connect; "no"; or "may",
-- where it depends on whose packet comes first ("The race"), or on what is not known. The reasons are there;
-- spec/sim/stats_spec.lua holds the two together. A behaviour: mapping and filtering, each "EI", "AD" or "APD" (RFC
-- 4787), and race.

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

-- The letter of the document for why they do, or do not.
local function reason(a, b)
  local in_b, in_a = gets_in(a, b), gets_in(b, a)
  if connect(a, b) then
    if a.mapping == "EI" and a.filtering ~= "APD" or b.mapping == "EI" and b.filtering ~= "APD" then return "a" end
    return a.mapping == "EI" and b.mapping == "EI" and "b" or "c"
  end
  if not in_a and not in_b then return "e" end
  if in_b and comes_back(a, b) or in_a and comes_back(b, a) then return "g" end
  local waits = in_b and a or b -- whose tests get in, and who hears no answer
  return waits.mapping == "EI" and "d" or "f"
end

local LONG = { endpoint = "EI", address = "AD", address_port = "APD" }

local function each_of(words)
  local out = {}
  for word in (words or ""):gmatch "[%a_]+" do out[#out + 1] = LONG[word] end
  return out[1] and out or { "EI", "AD", "APD" }
end

-- The behaviours that one told in words can be.
local function meant(b)
  local out = {}
  for _, mapping in ipairs(each_of(b.mapping)) do
    for _, filtering in ipairs(each_of(b.filtering)) do
      local race = b.race and mapping == "EI" and filtering == "APD"
      out[#out + 1] = { mapping = mapping, filtering = filtering, race = race }
    end
  end
  return out
end

-- The same of two behaviours in the words of kind.lua, and the letter of the reason where there is but one.
function M.of(given_a, given_b)
  local verdict, letter
  for _, a in ipairs(meant(given_a)) do
    for _, b in ipairs(meant(given_b)) do
      local v, r = M.verdict(a, b), reason(a, b)
      if verdict and verdict ~= v then return "may" end
      letter = (not verdict or letter == r) and r or nil
      verdict = v
    end
  end
  return verdict, verdict ~= "may" and letter or nil
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
