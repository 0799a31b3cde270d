-- SPDX-License-Identifier: MIT
-- Some who wait in the simulator, and what the server says of it.

local support = require "spec.client.support"
local task = require "bodkin.task"
local waiting = require "bodkin.waiting"
local waits = require "bodkin.cli.waits"

local M = {}

M.policy = [[
local bodkin = require "bodkin"

local function window(t) return math.min(50 + t.waited_ms // 100, 400) end

return bodkin.policy {
  props = { mmr = "integer", mode = { "ranked", "casual" } },
  index = "mmr",
  shard = "mode",
  party = 2,
  compatible = function(a, b)
    local gap, most = math.abs(a.props.mmr - b.props.mmr), math.min(window(a), window(b))
    if gap <= most then return true end
    return false, ("mmr gap %d > window %d"):format(gap, most)
  end,
}
]]

-- A world whose queue "duel" has that policy, and who waits in it: { name, mmr, mode, ms or for ever } each; s.named
-- has their nodes.
function M.world(list, options)
  local s = support.new(options)
  s.server:close()
  s.server = assert(require("bodkin.servers").open(s.hub.env, { listen = { "198.51.100.10:4433" },
    keys = { support.key }, queues = { duel = { policy = require("bodkin.policy.source").text(M.policy) } },
    limits = options and options.limits }))
  s.servers[s.hub] = s.server
  s.named, s.ends = {}, {}
  for i, one in ipairs(list) do
    local node = s:open(s:host("h" .. i, "203.0.113." .. i), { name = one[1] })
    s.named[one[1]] = node
    local props = { mmr = one[2], mode = one[3] }
    task.spawn(function() s.ends[one[1]] = table.pack(node:match("duel", props, { timeout_ms = one[4] })) end)
  end
  return s
end

-- What is said of one who is asked for: the server's list.
function M.why(s, asked)
  local list
  s.server:why_waits(asked, function(l) list = l end)
  s.world:run_until(function() return list end, 3000)
  return list
end

local function crowd()
  local s = M.world { { "ann", 1500, "ranked" }, { "bob", 2400, "ranked", 9000 }, { "cem", 1710, "ranked" },
    { "dia", 1930, "ranked" }, { "eva", 1480, "casual" }, { "fay", 1900, "casual" } }
  s.world:run(12000)
  return s
end

-- The parts of docs/WHY.md: what bob reads, and what the operator does.
function M.player()
  local s = crowd()
  local lines = { "```", "$ bodkin match duel --props '{\"mmr\":2400,\"mode\":\"ranked\"}' --timeout 9" }
  for _, e in ipairs(support.events(s.named.bob, "queued")) do
    lines[#lines + 1] = e.waited_ms and waiting.sentence(e) or "waiting for a match"
  end
  lines[#lines + 1] = "bodkin: " .. s.ends.bob[2]
  s:close()
  lines[#lines + 1] = "```"
  return table.concat(lines, "\n")
end

function M.operator()
  local s = crowd()
  local lines = { "```" }
  for _, name in ipairs { "ann", "bob" } do
    lines[#lines + 1] = "$ bodkin why " .. name
    for _, t in ipairs(M.why(s, name)) do lines[#lines + 1] = waits.sentence(t) end
  end
  s:close()
  lines[#lines + 1] = "```"
  return table.concat(lines, "\n")
end

return M
