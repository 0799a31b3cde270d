-- SPDX-License-Identifier: MIT
-- A queue of one policy on virtual time, and nothing else: clients of whom is known what a server would know come, wait
-- and are matched. For what policies make of the network, without the network.

local instances = require "bodkin.policy.instance"
local network = require "bodkin.policy.network"
local random = require "bodkin.sim.random"
local servers_network = require "bodkin.servers.network"
local theory = require "bodkin.sim.theory"

local M = {}

-- A server's knowledge of `count` clients, numbers from 1, whose round-trip times are rtt(a, b), 0 being the server,
-- after so many matches of each with others at random. rtt may be nil: not measured. Returns what servers/network.lua
-- has, and fn(n) -> { x, y, z, height } or nil.
function M.learn(count, rtt, matches, seed)
  local now_us, rng = 1, random.new(seed or 1, "learn")
  local server = { env = { now = function() return now_us end }, limits = { places = 100000, history = 100000 },
    registry = { get = function() end } }
  local net = servers_network.new(server, function() end)
  local function id(n) return ("%016d"):format(n * 7919) end
  for n = 1, count do net:seen { id = id(n), rtt_ms = rtt(0, n) and math.floor(rtt(0, n) + 0.5) } end
  local list = {}
  for n = 1, count do list[n] = n end
  for _ = 1, matches do
    for n = count, 2, -1 do
      local k = (rng:integer() >> 1) % n + 1
      list[n], list[k] = list[k], list[n]
    end
    for i = 1, count - 1, 2 do
      local a, b = list[i], list[i + 1]
      if rtt(a, b) then
        net:report(id(a), "", id(b), { path = "direct", rtt_ms = rtt(a, b) })
        net:report(id(b), "", id(a), { path = "direct", rtt_ms = rtt(a, b) })
      end
    end
    now_us = now_us + 60000000
  end
  return net, function(n)
    local bytes = net:of(id(n))
    local v = bytes and require("bodkin.core").wire.decode(bytes)
    return v and type(v[1]) == "number" and v or nil
  end
end

-- The class of the NAT of a kind, as a client finds it out.
function M.class(kind) return network.of_behaviour(theory.behaviour(kind)) end

-- Whether a pair of kinds fails, without a relay: "may" counts as half.
function M.fails(kind_a, kind_b)
  local verdict = theory.verdict(kind_a, kind_b)
  return verdict == "no" and 1 or verdict == "may" and 0.5 or 0
end

function M.median(list)
  table.sort(list)
  return list[(#list + 1) // 2]
end

-- options: source (see policy/source.lua), clients = { { arrives_ms, net (encoded) or nil, props or nil }, … } in order
-- of arrival, until_ms. Returns { matches = { { players = indices, host = index, data }, … }, waits = ms of each who
-- was matched }.
function M.run(options)
  local instance = assert(instances.new(options.source))
  local clients, at, out = options.clients, 1, { matches = {}, waits = {} }
  for now_ms = 0, options.until_ms, instance.about.window_ms do
    while clients[at] and clients[at].arrives_ms <= now_ms do
      local c = clients[at]
      assert(instance:add({ no = at, app = "a", since_ms = c.arrives_ms // 1 | 0,
        members = { { c.props or {}, nil, c.net } } }, false, now_ms))
      at = at + 1
    end
    for _, match in ipairs(assert(instance:tick(now_ms))) do
      local players = {}
      for _, team in ipairs(match[1]) do
        for _, no in ipairs(team) do
          players[#players + 1] = no
          out.waits[#out.waits + 1] = now_ms - clients[no].arrives_ms
        end
      end
      out.matches[#out.matches + 1] = { players = players, host = match[2], data = match[3] }
    end
  end
  instance:close()
  return out
end

return M
