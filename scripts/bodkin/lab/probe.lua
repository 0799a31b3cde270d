-- SPDX-License-Identifier: MIT
-- Asks real sockets whether the lab's NATs are what they are called. Two addresses in the net (the observer) and
-- one socket behind the NAT (the prober) are all it takes: see agent.lua for what they say to each other.

local nat = require "bodkin.lab.nat"

local M = {}

local function ip(address) return address and address:match "^%[?(.-)%]?:%d+$" end
local function port(address) return address and address:match ":(%d+)$" end

-- What a prober's lines mean, in the words of nat.lua.
function M.read(lines)
  local said = {}
  for _, line in ipairs(lines) do
    local name, value = line:match "^(%S+) (%S+)$"
    if name then said[name] = value end
  end
  local found = { public = ip(said.seen1), hops = tonumber(said.hops), hairpin = said.hairpin,
    outlives_silence = said.outlives_silence }
  if said.seen1 == said["local"] then found.mapping = "none"
  elseif said.seen1 == said.seen2 and said.seen1 == said.seen3 then found.mapping = "endpoint"
  elseif said.seen1 == said.seen2 and port(said.seen1) == port(said.seen3) then found.mapping = "pool"
  elseif said.seen1 == said.seen2 then found.mapping = "address"
  else found.mapping = "address_port" end
  local first, second, third = tonumber(port(said.seen1)), tonumber(port(said.seen2)), tonumber(port(said.seen3))
  local function next_of(x, y) return x and y and y > x and y <= x + 8 end -- others behind the NAT may come between
  if port(said.seen1) == port(said["local"]) then found.ports = "preserve"
  elseif next_of(first, second) and next_of(second, third) then found.ports = "sequential"
  else found.ports = "random" end
  if said.open_address == "true" then found.filtering = "open"
  else found.filtering = said.open_port == "true" and "address" or "address_port" end
  found.moves = port(said.before) ~= port(said.after)
  return found
end

-- What is not as it should be: a list of sentences.
function M.differences(found, kind, want)
  local known, list = nat.kinds[kind], {}
  local function check(what, is, should)
    if is ~= should then list[#list + 1] = ("%s is %s, not %s"):format(what, tostring(is), tostring(should)) end
  end
  check("the mapping", found.mapping, known.mapping)
  check("the filtering", found.filtering, known.filtering)
  check("the choice of ports", found.ports, known.ports)
  if known.moves ~= nil then check("that unsolicited input moves the mapping", found.moves, known.moves) end
  -- Also edge, core, and the server itself.
  check("the least TTL to the server", found.hops, (want.routers or known.routers) + 3)
  check("the public address", found.public, want.public)
  if known.routers > 0 and known.mapping ~= "none" then
    check("hairpinning", found.hairpin, want.hairpin and "yes" or "no")
  end
  return list
end

return M
