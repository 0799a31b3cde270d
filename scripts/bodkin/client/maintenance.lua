-- SPDX-License-Identifier: MIT
-- The mapping maintenance manager (C4): keeps the NAT's mapping alive towards every server whose push is
-- awaited, and towards a separate maintenance server, for as long as somebody communicates or tries to.
-- A silent server answers nothing, and that is fine.
--
-- How often: each 15 s, until something is known of how long this NAT keeps a mapping. Less often only where a spare
-- socket has shown that one outlives twice as much, so that a message may be lost; more often where a spare socket, or
-- our address in a server's eyes, shows that they lapse in between. Over TCP, where neither shows anything, it is each
-- 15 s, which keeps the connection open, too.

local core = require "bodkin.core"
local message = require "bodkin.message"
local task = require "bodkin.task"

-- The shortest mapping time-outs met in the wild are about 30 s (docs: Hätönen 2010); REQ-5 of RFC 4787
-- asks for 2 min. ±10 %, so that clients do not fall into step.
local M = { interval_ms = 15000 }
local SHORTEST_MS = 5000
-- Where a mapping has outlived LONG_S, which is twice LONG_MS and its spread. The matching server hears a registration
-- each 30 s, repeated until it is answered, and that will do: REFRESHED_MS is more, and counts from it.
local LONG_S, LONG_MS, REFRESHED_MS = 55, 25000, 35000
local USUAL_S, HALF_S, CONTROL_S = 17, 9, 4 -- of silence: more than the interval, than half of it, than nothing
local MEASURE_MS, MEASURE_SPREAD_MS = 60000, 60000 -- after the beginning: what is short pays nothing
local TRIES = 3
local LAPSES_US = 600000000 -- two in this time are no accident
local NOBODY = ("\0"):rep(16) -- who it is, nobody need read on the way
local Maintenance = {}
Maintenance.__index = Maintenance

-- `config`: env, requests, id, server (the matching server, in whose association it goes), servers (array of
-- addresses, that one included), on_boot(server, boot) for each confirmation, on_unanswered() when the matching server,
-- which confirmed before, did not; asked() -> the server by which to measure and the socket to stand beside, or nil;
-- refresh_ms() -> how often the registration is refreshed, or nil: not at all; adapt = false: always each 15 s.
function M.new(config)
  return setmetatable({
    env = config.env, requests = config.requests, id = config.id, server = config.server, servers = config.servers,
    on_boot = config.on_boot, on_unanswered = config.on_unanswered, asked = config.asked,
    adapt = config.adapt ~= false, timers = {},
    refresh_ms = config.refresh_ms, interval = M.interval_ms, long = false, tries = 0, confirms = {},
  }, Maintenance)
end

-- Longer only over the family that was measured, and where answers come: Linux keeps a mapping for a quarter of the
-- time where none do.
function Maintenance:interval_ms(server)
  local refresh_ms = server == self.server and self.refresh_ms()
  if not self.long or core.addr.family(server) ~= self.family then return self.interval end
  if refresh_ms and refresh_ms < REFRESHED_MS then return REFRESHED_MS end
  return self.confirms[server] and LONG_MS or self.interval
end

function Maintenance:send_to(server)
  self.requests:post({
    to = server, sealed = server == self.server, expect = "maintained", once = true, quiet = true,
    timeout_ms = self.interval,
    build = function(tx) return message.maintain:encode(tx, server == self.server and self.id or NOBODY) end,
  }, function(ok, boot, code)
    if ok then
      self.confirms[server] = true
      self.on_boot(server, boot)
    elseif code == "timeout" and self.confirms[server] and server == self.server and self.timers[1] then
      self.on_unanswered()
    end
  end)
end

function Maintenance:send()
  for _, server in ipairs(self.servers) do self:send_to(server) end
end

-- Arms the timer of a server; where mappings live long, whatever went there counts.
local function next_to(self, i)
  local jitter = self.env.random(1):byte() / 255
  local function arm(wait_ms)
    self.timers[i] = self.env.timer(wait_ms, function()
      local server = self.servers[i]
      local since_ms = (self.env.now() - (self.requests.sent_us[server] or 0)) / 1000
      local left_ms = self:interval_ms(server) > self.interval and self:interval_ms(server) * 0.9 - since_ms or 0
      if left_ms > 0 then return arm(left_ms) end
      self:send_to(server)
      next_to(self, i)
    end)
  end
  arm(self:interval_ms(self.servers[i]) * (0.9 + 0.2 * jitter))
end

local function rearm(self)
  for i, timer in pairs(self.timers) do
    timer:cancel()
    next_to(self, i)
  end
end

local measure_later

-- In a task: with sockets of its own, one after the other. What tells nothing is tried again some time later; where
-- there is nothing to measure by, as over TCP, once this host has moved.
local function measure(self)
  local server, sock = self.asked()
  if not server then return end
  local options = { bind = core.addr.with_port(sock:addr(), 0), ripe = true }
  local outlive = require("bodkin.client.behaviour").outlives
  local function outlives(s) return outlive(self.env, server, s, options) end
  if outlives(USUAL_S) then
    self.known = true
    if not outlives(LONG_S) or self.lapsed_us then return end
    self.long, self.family = true, core.addr.family(server)
  elseif outlives(CONTROL_S) and outlives(USUAL_S) == false then -- it was the silence, and no accident
    self.known = true
    self.interval = math.min(self.interval, outlives(HALF_S) and M.interval_ms // 2 or SHORTEST_MS)
    self:send()
  else
    self.task, self.tries = nil, self.tries + 1
    return self.tries < TRIES and measure_later(self)
  end
  rearm(self)
end

function measure_later(self)
  if self.task then self.task:cancel() end
  if self.measuring then self.measuring:cancel() end
  self.task = nil
  if not self.adapt or self.known then return end
  local spread = self.env.random(1):byte() / 255
  self.measuring = self.env.timer(MEASURE_MS + MEASURE_SPREAD_MS * spread, function()
    self.measuring = nil
    self.task = task.spawn(measure, self)
  end)
end

-- A server sees us at another address though nothing has changed here: a mapping lapsed, once (its NAT may have
-- restarted) or again.
function Maintenance:lapsed()
  if not self.adapt then return end
  local now = self.env.now()
  local again = self.lapsed_us and now - self.lapsed_us < LAPSES_US
  self.lapsed_us = now
  if again then self.interval = math.max(SHORTEST_MS, self.interval // 2) end
  self.long = false
  rearm(self)
end

-- Another matching server in place of the one there was.
function Maintenance:move(server)
  for i, known in ipairs(self.servers) do
    if known == self.server then self.servers[i] = server end
  end
  self.server = server
  self:now()
end

-- Idempotent.
function Maintenance:start()
  if self.timers[1] then return end
  self:send()
  for i in ipairs(self.servers) do next_to(self, i) end
  measure_later(self)
end

-- At once, whenever the next was due: the mappings are others.
function Maintenance:now()
  if self.timers[1] then self:send() end
end

-- This host is elsewhere: what was known of its NAT is of another.
function Maintenance:moved()
  self.interval, self.long, self.lapsed_us, self.tries, self.known = M.interval_ms, false, nil, 0, nil
  self:now()
  rearm(self)
  if self.timers[1] then measure_later(self) end
end

-- The mappings may lapse from now on. Idempotent.
function Maintenance:stop()
  for _, timer in pairs(self.timers) do timer:cancel() end
  if self.measuring then self.measuring:cancel() end
  if self.task then self.task:cancel() end
  self.timers, self.measuring, self.task = {}, nil, nil
end

return M
