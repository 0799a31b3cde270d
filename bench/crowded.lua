-- SPDX-License-Identifier: MIT
-- How long a good queue's passes take in a real policy process with 10,000 tickets in three queues, while hostile
-- policies have the other two, next to the same with good ones there: the last part of `make bench-policy`. As a
-- server does, a policy that failed is set aside for a second, doubled each time, and never tried again with another.

local envs = require "bodkin.env"
local hostile = dofile "spec/policy/hostile.lua"
local random = require "bodkin.sim.random"
local sources = require "bodkin.policy.source"

local TICKETS, SECONDS, WINDOW_MS = 3333, 4, 100
local APART_US = 250000 -- between two that are tried again

local good = [[local bodkin = require "bodkin"
return bodkin.policy { size = 2, index = "mmr", props = { mmr = "number" },
  compatible = function(a, b) return a.props.mmr == b.props.mmr end }]]

local function percentile(list, p)
  table.sort(list)
  return list[math.max(1, math.ceil(#list * p / 100))]
end

-- ms of each pass of the good queue; texts: of the policies of the other two.
local function measure(texts)
  local env = envs.new { log_level = "error" }
  local times, asked_us, pause_ms, aside = {}, {}, {}, {}
  local serial, begun, tick = 0, 0, nil
  local link = assert(require("bodkin.cli.desk").opener(env)(function(m)
    local kind, queue = m[1], m[2]
    if begun < 3 then -- each has all its tickets once it has ended a pass, well or not
      if kind == "ticked" or kind == "failed" and m[5] then begun, asked_us[queue] = begun + 1, nil end
      if begun < 3 then return end
      for i = 1, 3 do tick(i) end
      env.timer(SECONDS * 1000, env.stop)
    elseif kind == "ticked" then
      if queue == "good" then times[#times + 1] = (env.now() - asked_us[queue]) / 1000 end
      asked_us[queue] = nil
    elseif kind == "failed" then
      pause_ms[queue] = math.min((pause_ms[queue] or 500) * 2, 60000)
      local other = queue == "one" and aside.two or queue == "two" and aside.one or 0
      aside[queue], asked_us[queue] = env.now() + pause_ms[queue] * 1000, nil
      if math.abs(other - aside[queue]) < APART_US then aside[queue] = other + APART_US end
    end
  end, env.stop))
  local rng = random.new(3, "crowded")
  local function load(version, text)
    for _, file in ipairs(sources.text(text).files) do
      for at = 1, #file.text, 1000 do
        link:send { "file", version, file.name, file.chunkname, file.text:sub(at, at + 999) }
      end
    end
    link:send { "load", version, false }
  end
  local queues = { "good", "one", "two" }
  for i, text in ipairs { good, texts[1], texts[2] } do load(i, text) end
  for i, queue in ipairs(queues) do
    for n = 1, TICKETS do
      local props = { mmr = n * 10000 + (rng:integer() >> 1) % 1000 + 0.0 } -- nobody fits, and all stay
      link:send { "add", queue, i, n + i * 100000, "a", 0, { { props } }, true, 0, false }
    end
  end
  local function ask(i)
    serial = serial + 1
    asked_us[queues[i]] = env.now()
    link:send { "tick", queues[i], i, serial, serial }
  end
  function tick(i)
    env.timer(WINDOW_MS, function() tick(i) end)
    if not asked_us[queues[i]] and (aside[queues[i]] or 0) <= env.now() then ask(i) end
  end
  for i = 1, 3 do ask(i) end
  env.run()
  link:close()
  env.close()
  return times
end

return function(rounds)
  local base, beside = {}, {}
  for round = 1, rounds do
    table.move(measure { good, good }, 1, 1000, #base + 1, base)
    local pair = { hostile[(2 * round - 2) % 10 + 1][2], hostile[(2 * round - 1) % 10 + 1][2] }
    table.move(measure(pair), 1, 1000, #beside + 1, beside)
  end
  local a, b = percentile(base, 99), percentile(beside, 99)
  print(("\n10,000 tickets in three queues: a pass of the good one, p50 and p99: %.1f and %.1f ms; beside two hostile "
    .. "policies %.1f and %.1f ms; ratio of p99 %.2f, %d and %d passes"):format(percentile(base, 50), a,
    percentile(beside, 50), b, b / a, #base, #beside))
end
