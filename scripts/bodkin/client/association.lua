-- SPDX-License-Identifier: MIT
-- The association with the matching server: requests go sealed in it, the first ones inside the handshake that opens
-- it. It is opened anew when the server says that it knows it no more, when a request found no answer, and when it has
-- grown old; what the server sends in the one before is heard a while longer.

local core = require "bodkin.core"
local message = require "bodkin.message"

local M = {}
local Association = {}
Association.__index = Association

local CARRIED_MAX = 1020           -- bytes of requests inside the handshake, which is a datagram
local HELD_MAX = 8                 -- frames that overtook the answer to the handshake
local RENEW_US = 600000000         -- older keys are replaced at the next refresh
local GAP_US = 1000000             -- between two handshakes, unless the first one failed

-- `config`: env, router, requests, server (address), keys = the server's public keys (one or two, any of them will
-- do), identity = { key, key_secret }, send(bytes), on_opened(key) the first time, explain() -> message, code where it
-- has none of the keys, on_moved() when the server sees us elsewhere, on_lost() when it knows us no more, timeout_ms.
function M.new(config)
  local self = setmetatable({
    env = config.env, router = config.router, requests = config.requests, server = config.server, keys = config.keys,
    own = config.identity.key .. config.identity.key_secret, send = config.send, on_moved = config.on_moved,
    on_lost = config.on_lost, on_opened = config.on_opened, explain = config.explain,
    timeout_ms = config.timeout_ms, key = 1,
  }, Association)
  config.router:frames(function(from, bytes) self:frame(from, bytes) end)
  config.router:on(message.lost, nil, function(_, from, tx) self:lost(from, tx) end)
  return self
end

-- Sends a request, now or with the handshake. Its owner repeats it.
function Association:transmit(r)
  if self.current then
    r.sent_in, r.sent, r.sent_us = self.current, r.sent + 1, self.env.now()
    return self.send(self.current:write(r.bytes))
  end
  if self.opening or self.timer then return end
  -- At the end of this turn, so that what is asked together travels together.
  local wait_us = self.opened_us and math.max(0, self.opened_us + GAP_US - self.env.now()) or 0
  self.timer = self.env.timer(wait_us / 1000, function()
    self.timer = nil
    self:begin()
  end)
end

-- As many of the requests that wait as fit: their bytes, and they themselves.
local function carried(requests)
  local parts, list, size = {}, {}, 0
  for _, r in ipairs(requests) do
    if size + #r.bytes <= CARRIED_MAX then
      parts[#parts + 1], list[#list + 1], size = r.bytes, r, size + #r.bytes
    end
  end
  return table.concat(parts), list
end

function Association:begin()
  if self.closed or self.opening or self.current then return end
  local waiting = self.requests:sealed_pending()
  if #waiting == 0 then return end
  local index = 1 + string.unpack("<I2", self.env.random(2)) % 65535
  local bytes, list = carried(waiting)
  local raw, noise = core.assoc(self.own, self.env.random(32), self.keys[self.key], index, bytes)
  if not raw then return self.requests:fail_sealed("the server's key is not valid: " .. noise, "bad_key") end
  for _, r in ipairs(list) do r.sent_in, r.sent = raw, r.sent + 1 end
  local opening = { raw = raw, held = {} }
  self.opening = opening
  local posted, err, code = self.requests:post({
    to = self.server, expect = "opened", timeout_ms = self.timeout_ms,
    build = function(tx, proof) return message.open:encode(tx, proof, noise) end,
    accept = function(answer) -- a forged one must not end what the true one may still answer
      opening.messages = raw:answered(answer)
      return opening.messages
    end,
  }, function(ok, ...) self:answered(opening, ok, ...) end)
  if not posted then self:answered(opening, nil, err, code) end
end

local function settle(self, opening)
  self.opened_us, self.opening = self.env.now(), nil
  if self.previous then self.previous:close() end
  self.previous, self.current, self.retired = self.retired, opening.raw, nil
  for _, bytes in ipairs(opening.held) do self:frame(self.server, bytes) end
  -- What the server pushed right after it comes first: a `matched` is waited for by two.
  self.later = self.env.timer(0, function()
    self.later = nil
    self.router:inner(self.server, opening.messages)
    self:flush()
    local told = self.on_opened
    self.on_opened = nil
    if told then told(self.keys[self.key]) end
  end)
end

function Association:answered(opening, ok, answer, code)
  if self.opening ~= opening then return end
  if ok then return settle(self, opening) end
  self.opening = nil
  if self.closed then return end
  opening.raw:close()
  if code == "bad_key" and self.keys[self.key + 1] then
    self.key = self.key + 1
    return self:begin()
  end
  self.key = 1
  if code == "bad_key" and self.explain then
    local text, why = self.explain()
    answer, code = text or answer, why or code
  end
  if code == "timeout" then -- perhaps the one before is still good
    self.current, self.retired = self.retired, nil
    return
  end
  self.requests:fail_sealed(answer, code)
end

-- What waits goes, unless it went in this association; `again`: in any case.
function Association:flush(again)
  for _, r in ipairs(self.requests:sealed_pending()) do
    if again or not self.current or r.sent_in ~= self.current then self:transmit(r) end
  end
end

local function read(self, bytes)
  for _, raw in ipairs { self.current or false, self.retired or false, self.previous or false } do
    if raw then
      local kind, x = raw:read(bytes)
      if kind then return kind, x end
    end
  end
end

function Association:frame(from, bytes)
  local kind, x
  if from == self.server then kind, x = read(self, bytes) end
  if kind == "message" then return self.router:inner(from, x) end
  if kind == "challenge" then
    self.send(x)
    self:flush(true)
    return self.on_moved()
  end
  local held = from == self.server and self.opening and self.opening.held
  if held and #held < HELD_MAX then
    held[#held + 1] = bytes
  else
    self.env.counters:add "drop_frame"
  end
end

-- Not used for what is asked from now on.
local function retire(self)
  if not self.current then return end
  if self.retired then self.retired:close() end
  self.retired, self.current = self.current, nil
end

-- Only who saw our frame can say so, and all that it buys is a handshake.
function Association:lost(from, tx)
  if from ~= self.server or not self.current or not self.current:sent(tx) then
    return self.env.counters:add "drop_reply"
  end
  retire(self)
  self.on_lost()
  self:flush()
end

-- A request found no answer.
function Association:doubt()
  retire(self)
end

-- Before a refresh: replaces old keys.
function Association:renew()
  if self.current and self.env.now() - self.opened_us >= RENEW_US then retire(self) end
end

local function let_go(self)
  if self.timer then self.timer:cancel() end
  if self.later then self.later:cancel() end
  for _, raw in ipairs { self.current or false, self.retired or false, self.previous or false } do
    if raw then raw:close() end
  end
  if self.opening then self.opening.raw:close() end
  self.current, self.retired, self.previous, self.opening, self.timer, self.later = nil, nil, nil, nil, nil, nil
end

-- Another server, and what it is known by. What waits is asked there.
function Association:move(server, keys, explain)
  let_go(self)
  self.server, self.keys, self.key, self.explain = server, keys, 1, explain
  for _, r in ipairs(self.requests:sealed_pending()) do r.to = server end
  self:flush()
end

-- Idempotent.
function Association:close()
  self.closed = true
  let_go(self)
end

return M
