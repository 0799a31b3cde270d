-- SPDX-License-Identifier: MIT
-- Key pairs that serve for the matches of half a minute, and are then erased: what was said under them nobody can
-- read later, whoever gets hold of the static key. A registration or selection carries the public half; `matched`
-- says by its first bytes which one the server used.

local core = require "bodkin.core"

local M = {}
local Ephemerals = {}
Ephemerals.__index = Ephemerals

local FRESH_US = 25000000  -- a registration is refreshed each 30 s
local KEPT_US = 120000000  -- a registration's 60 s, the 10 s in which `matched` is repeated, and as much again
local PREFIX = 8

function M.new(env)
  return setmetatable({ env = env, list = {} }, Ephemerals)
end

-- The public key to send now.
function Ephemerals:public()
  local now, newest = self.env.now(), self.list[#self.list]
  while self.list[1] and now - self.list[1].made_us > KEPT_US do table.remove(self.list, 1) end
  if not newest or now - newest.made_us > FRESH_US then
    local public, secret = core.crypto.keypair(self.env.random(32))
    newest = { public = public, secret = secret, made_us = now }
    self.list[#self.list + 1] = newest
  end
  return newest.public
end

-- The pair whose public key begins so, as public .. secret; nil when it is there no more.
function Ephemerals:pair(prefix)
  for _, e in ipairs(self.list) do
    if e.public:sub(1, PREFIX) == prefix and self.env.now() - e.made_us <= KEPT_US then return e.public .. e.secret end
  end
end

return M
