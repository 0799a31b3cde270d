-- SPDX-License-Identifier: MIT
-- The mapping maintenance manager (C4): keeps the NAT's mapping alive towards every server whose push is
-- awaited, and towards a separate maintenance server, for as long as somebody communicates or tries to.
-- A silent server answers nothing, and that is fine.

local message = require "bodkin.message"

-- The shortest mapping time-outs met in the wild are about 30 s (docs: Hätönen 2010); REQ-5 of RFC 4787
-- asks for 2 min. ±10 %, so that clients do not fall into step.
local M = { interval_ms = 15000 }
local NOBODY = ("\0"):rep(16) -- who it is, nobody need read on the way
local Maintenance = {}
Maintenance.__index = Maintenance

-- `config`: env, requests, id, server (the matching server, in whose association it goes), servers (array of
-- addresses, that one included), on_boot(server, boot) for each confirmation, on_unanswered() when the matching server,
-- which confirmed before, did not.
function M.new(config)
  return setmetatable({
    env = config.env, requests = config.requests, id = config.id, server = config.server, servers = config.servers,
    on_boot = config.on_boot, on_unanswered = config.on_unanswered,
  }, Maintenance)
end

function Maintenance:send()
  for _, server in ipairs(self.servers) do
    self.requests:post({
      to = server, sealed = server == self.server, expect = "maintained", once = true, quiet = true,
      timeout_ms = M.interval_ms,
      build = function(tx) return message.maintain:encode(tx, server == self.server and self.id or NOBODY) end,
    }, function(ok, boot, code)
      if ok then
        self.confirms = server
        self.on_boot(server, boot)
      elseif code == "timeout" and server == self.confirms and server == self.server and self.timer then
        self.on_unanswered()
      end
    end)
  end
end

function Maintenance:next()
  local jitter = self.env.random(1):byte() / 255
  self.timer = self.env.timer(M.interval_ms * (0.9 + 0.2 * jitter), function()
    self:send()
    self:next()
  end)
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
  if self.timer then return end
  self:send()
  self:next()
end

-- At once, whenever the next was due: the mappings are others.
function Maintenance:now()
  if self.timer then self:send() end
end

-- The mappings may lapse from now on. Idempotent.
function Maintenance:stop()
  if self.timer then self.timer:cancel() end
  self.timer = nil
end

return M
