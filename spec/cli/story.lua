-- SPDX-License-Identifier: MIT
-- Two in the simulator who look for each other, and what each end keeps of it.

local support = require "spec.client.support"
local stories = require "bodkin.cli.story"

local M = {}

-- a, b: options of each one's NAT (false: none; the same for both: `shared`); more: shared, delay_ms, seed, ms (how
-- long; 12 s), relay = there is one (or { where they are }), tcp = the server listens on it, meanwhile = fn(s, node of
-- a, node of b), prepare, killed = b is, meanwhile; known: both have found out what their NATs do.
-- Returns both ends' records, and the server's answer.
function M.play(a, b, more)
  more = more or {}
  local s = support.new { delay_ms = more.delay_ms or 20, seed = more.seed, trace = false, tcp = more.tcp,
    roles = more.relay ~= true and support.NO_RELAY or nil, relays = more.relay ~= true and more.relay or nil,
    ips = more.known and support.everywhere.ips, listen = more.known and support.everywhere.listen }
  local shared = more.shared and s:nat("nat", "203.0.113.1", more.shared)
  local function open(n, nat, name)
    local public = "203.0.113." .. n
    local translates = nat and nat.kind ~= "firewall"
    local ip = shared and "192.168.1." .. n + 1 or translates and "192.168.1.2" or public
    local box = shared or translates and s:nat("nat" .. n, public, nat)
    if nat and not box then box = s.world:nat { name = "nat" .. n, kind = nat.kind } end
    return s:open(s:host("h" .. n, ip, box or nil), { name = name })
  end
  local na, nb = open(1, a, "ann"), open(2, b, "bob")
  if more.known then s.world:run(8000) end
  if more.prepare then more.prepare(s, na, nb) end
  local match = s:run(function()
    local m = assert(na:host())
    assert(nb:join(m.code))
    return m
  end)
  if more.meanwhile then more.meanwhile(s, na, nb) end
  s.world:run(more.ms or 12000)
  local records = { na:why()[1], not more.killed and nb:why()[1] or nil }
  local answer = s.server:why(match.id)
  s:close()
  return records, answer.matches[1]
end

-- Records as a pair.
function M.pair(...)
  local list = {}
  for _, r in ipairs { ... } do list[#list + 1] = stories.record(r) end
  local pairs_of = stories.pairs_of(list)
  assert(#pairs_of == 1, "not one pair")
  return pairs_of[1]
end

-- The transcript of docs/WHY.md: a pair without a path, both ends side by side, by way of the files they write.
function M.transcript()
  local why = require "bodkin.cli.why"
  local records = M.play({ kind = "port_restricted" }, { kind = "symmetric_random" }, { known = true })
  local paths = {}
  for i, r in ipairs(records) do
    paths[i] = os.tmpname()
    assert(assert(why.writer(paths[i])) { r })
  end
  local read = {}
  for _, path in ipairs(paths) do
    read[#read + 1] = assert(why.read(path))[1]
    os.remove(path)
  end
  local lines = stories.text(M.pair(table.unpack(read)))
  return "```\n$ bodkin why ann.txt bob.txt\n" .. table.concat(lines, "\n") .. "\n```"
end

return M
