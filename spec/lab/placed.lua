-- SPDX-License-Identifier: MIT
-- The ways two can be placed that the cases are about, and labs with two hosts for each of several, which meet at the
-- same time.

local support = require "spec.lab.support"

local M = {}

-- Name, NATs, the path that must be the last.
M.topologies = {
  { "T1 both behind port-restricted NATs", { a = "port_restricted", b = "port_restricted" }, "direct" },
  { "T2 one behind a NAT", { a = "port_restricted", b = "none" }, "direct" },
  { "T3 neither behind a NAT", { a = "none", b = "none" }, "direct" },
  { "T4 both behind one NAT", { a = "port_restricted", same_nat = true }, "lan" },
  { "both behind a home's and a carrier's NAT", { a = "carrier", b = "carrier" }, "direct" },
  { "a full cone and a port-restricted NAT", { a = "full_cone", b = "port_restricted" }, "direct" },
}

-- A lab with two hosts for each of `list`, as above; `more`: other options. The net, and for each its two hosts: a and
-- b for who are behind one NAT, else some others.
function M.net(list, more)
  local options, hosts, letter = { delay_ms = 20 }, {}, 98
  for k, v in pairs(more or {}) do options[k] = v end
  for i, t in ipairs(list) do
    local kinds, two = t[2], { "a", "b" }
    if not kinds.same_nat then
      two = { string.char(letter + 1), string.char(letter + 2) }
      letter = letter + 2
    end
    options[two[1]], options[two[2]] = kinds.a, kinds.b
    options.same_nat = options.same_nat or kinds.same_nat
    hosts[i] = two
  end
  return support.net(options), hosts
end

return M
