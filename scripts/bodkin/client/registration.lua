-- SPDX-License-Identifier: MIT
-- The registration manager (C2): registers both addresses with the matching server, refreshes at half the
-- lifetime, and registers again, untold, when the server was restarted or our address changed.

local message = require "bodkin.message"
local task = require "bodkin.task"

local M = {}
local Registration = {}
Registration.__index = Registration

-- Pauses between attempts while the server does not answer.
local first_pause_ms, longest_pause_ms = 1000, 8000
-- So often in a row, then it is silent, and another is looked for; and again.
local silent_after = 3

-- `config`: env, requests, addresses, ephemerals, association; server; app, name, props (encoded); token (bytes or
-- nil); timeout_ms; on_unanswered(); on_silent() (in a task) -> whether there is another server now, after several of
-- these; on_registered(), on_restart() (in a task, after registering again), on_error(text, code); kind() -> what is
-- known of our NAT (kind.lua), or nil.
function M.new(config)
  return setmetatable({
    env = config.env, requests = config.requests, addresses = config.addresses, server = config.server,
    ephemerals = config.ephemerals, association = config.association, app = config.app, name = config.name,
    props = config.props, token = config.token,
    timeout_ms = config.timeout_ms, on_registered = config.on_registered, on_restart = config.on_restart,
    on_error = config.on_error, on_unanswered = config.on_unanswered, on_silent = config.on_silent,
    kind = config.kind, pause_ms = first_pause_ms, silent = 0,
  }, Registration)
end

-- In a task: registers now. true, or nil, message, code.
function Registration:register()
  local addresses = self.addresses
  self.association:renew()
  local moves = addresses.moves
  local ok, public, lifetime_s, boot = self.requests:call {
    to = self.server, sealed = true, first = true, expect = "registered", timeout_ms = self.timeout_ms,
    build = function(tx)
      self.incomplete = false
      return message.register:encode(tx, self.ephemerals:public(), addresses:pubs(), addresses:locals(), self.app,
        self.name, self.props, self.token, addresses:rtt_ms(self.server), self.kind())
    end,
  }
  if not ok then return nil, public, lifetime_s end
  if addresses.moves == moves then addresses:see(self.server, public) end
  self.restarted = self.restarted or self.boot ~= nil and self.boot ~= boot
  self.boot, self.lifetime_s, self.active = boot, lifetime_s, true
  return true
end

-- In a task: registers, and from then on keeps it so until stop().
function Registration:start()
  local ok, err, code = self:register()
  if not ok then return nil, err, code end
  self:again_later()
  self.on_registered()
  return true
end

function Registration:again_in(ms)
  if self.timer then self.timer:cancel() end
  if self.stopped then return end
  self.timer = self.env.timer(ms, function()
    if not self.busy then task.spawn(self.refresh, self) end
  end)
end

-- At half the lifetime; at once when an address came to be known meanwhile; soon when the one told is not ours any
-- more, and ever less soon while it changes each time.
function Registration:again_later()
  local ms = self.lifetime_s * 500
  if self.incomplete or self.kicked then
    ms = 0
  elseif self.addresses.stale then
    ms = math.min(self.pause_ms, ms)
    self.pause_ms = ms * 2
  else
    self.pause_ms = first_pause_ms
  end
  self:again_in(ms)
end

-- In a task: registers; where the server saw another address than before, once more, with the proof of that.
function Registration:renew()
  local ok, err, code = self:register()
  if not ok or not self.addresses.stale then return ok, err, code end
  self.addresses:learn(self.timeout_ms)
  return self:register()
end

-- In a task: one attempt, and when the next one is due.
function Registration:refresh()
  local _ <close> = setmetatable({}, { __close = function() self.busy = false end })
  self.busy, self.kicked = true, false
  local ok, err, code = self:renew()
  self.silent = not ok and code == "timeout" and self.silent + 1 or 0
  if self.silent > 0 and not self.stopped then self.on_unanswered() end
  if self.silent > 0 and self.silent % silent_after == 0 and not self.stopped and self.on_silent() then
    ok, err, code = self:renew()
  end
  self.busy = false
  if self.stopped then return end
  if ok then
    self.failing, self.silent = false, 0
    self:again_later()
    if self.restarted then
      self.restarted = false
      self.on_restart()
    end
    self.on_registered()
    return
  end
  local pause_ms = math.min(self.pause_ms, longest_pause_ms)
  self:again_in(pause_ms)
  self.pause_ms = pause_ms * 2
  if not self.failing then self.on_error(err, code) end
  self.failing = true
end

-- Registers again soon: the server was restarted, or where we are has changed.
function Registration:kick()
  self.kicked = true
  if self.active and not self.busy then self:again_in(0) end
end

-- Another address of ours came to be known, which the server is to have, too.
function Registration:complete()
  self.incomplete = true
  self:kick()
end

-- A server's boot number, as a maintenance confirmation told it.
function Registration:booted(server, boot)
  if server == self.server and self.boot and boot ~= self.boot then self:kick() end
end

-- Ends the upkeep; gives the registration back, in the background: done() when that has ended, at the latest
-- after a second. False when there was nothing to give back.
function Registration:stop(done)
  self.stopped = true
  if self.timer then self.timer:cancel() end
  if not self.active then return false end
  self.active = false
  return self.requests:post({
    to = self.server, sealed = true, expect = "done", timeout_ms = 1000,
    build = function(tx) return message.unregister:encode(tx) end,
  }, done)
end

return M
