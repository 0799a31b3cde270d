-- SPDX-License-Identifier: MIT
-- The relays of a client's sessions: asks each one that `matched` named to open its side of the pair, tells the mux
-- once it has, and asks again while the peer is not there, and when the relay knows the channel no more.

local core = require "bodkin.core"
local message = require "bodkin.message"

local M = {}
local Relays = {}
Relays.__index = Relays

local ANSWER_MS = 5000
local AGAIN_MS, AGAIN_MAX_MS = 250, 8000 -- while the peer is not there; doubles
local LATER_MS = 10000                   -- after no answer
-- One that never answered may be a stranger's address that a lying server names: with the tests of session.c it is sent
-- less than 10,000 bytes in the first 10 s, 1,000 each time later.
local STRANGER_ANSWER_MS = 500           -- two requests, after the first eleven
local STRANGER_MAX_MS = 300000           -- and doubling to that between them
local GAP_US = 500000                    -- between two requests because the channel is not known

-- `config`: env, requests, router, addresses, mux, server = its address, sock_for(to).
function M.new(config)
  local self = setmetatable({
    env = config.env, requests = config.requests, addresses = config.addresses, mux = config.mux,
    server = config.server,
    sock_for = config.sock_for, by_session = {},
  }, Relays)
  config.router:on(message.relay_opened, nil, function(reply, from, tx, ...)
    if self.requests.pending[tx] then return self.requests:answer("relay_opened", reply, from, tx, ...) end
    self:pushed(from, tx, ...)
  end)
  return self
end

-- The packed addresses of those that can be asked: 0.0.0.0:0 stands for the server itself. One at an IP, but for the
-- server's, which has answered.
function Relays:usable(list)
  local out, seen = {}, {}
  for _, a in ipairs(list or {}) do
    local at = core.addr.class(a) == "none" and self.server or a
    local ip = core.addr.with_port(at, 0)
    if not seen[ip] and core.addr.class(at) ~= "multicast" and core.addr.port(at) ~= 0 and self.sock_for(at) then
      seen[ip], out[#out + 1] = not core.addr.same_ip(at, self.server), at
    end
  end
  return out
end

-- The hello that its relays pass on from now on; it carries the epoch.
local function greet(self, session, all)
  local hello = self.mux:hello(session)
  for _, r in ipairs(all) do r.hello = hello end
end

-- Opens these (from usable) for a session.
function Relays:open(session, list, ticket)
  if #list == 0 or not ticket then return end
  local all = {}
  self.by_session[session] = all
  for i, at in ipairs(list) do all[i] = { session = session, at = at, ticket = ticket, wait_ms = AGAIN_MS } end
  greet(self, session, all)
  for _, r in ipairs(all) do self:ask(r) end
end

local function rest(r)
  if r.timer then r.timer:cancel() end
  r.timer = nil
end

local function again(self, r, ms)
  if r.closed then return end
  rest(r)
  r.timer = self.env.timer(ms, function()
    r.timer = nil
    self:ask(r)
  end)
end

local function opened(self, r, channel, hello)
  r.channel, r.heard = channel, hello ~= nil
  self.mux:relay(r.session, self.sock_for(r.at), r.at, channel, hello)
end

function Relays:ask(r)
  if r.closed or r.asking then return end
  rest(r)
  r.asking, r.again, r.asked_us = true, false, self.env.now()
  local function done(ok, channel, x)
    r.asking = false
    if r.closed then return end
    if not ok then
      r.error, r.code = channel, x
      r.later_ms = r.answered and LATER_MS or math.min(2 * (r.later_ms or LATER_MS / 2), STRANGER_MAX_MS)
      if x ~= "refused" then again(self, r, r.later_ms) end
      return
    end
    r.error, r.code, r.answered = nil, nil, true
    opened(self, r, channel, x)
    if r.again then return self:ask(r) end
    if r.heard or r.closed then return end
    again(self, r, r.wait_ms)
    r.wait_ms = math.min(2 * r.wait_ms, AGAIN_MAX_MS)
  end
  local posted, err, code = self.requests:post({
    to = r.at, expect = "relay_opened", quiet = true, foreign = r.at ~= self.server,
    timeout_ms = r.later_ms and not r.answered and STRANGER_ANSWER_MS or ANSWER_MS,
    build = function(tx, proof)
      r.tx = tx
      return message.relay_open:encode(tx, proof, r.ticket, r.session, r.hello)
    end,
  }, done)
  if not posted then done(nil, err, code) end
end

-- The peer has come, or come back.
function Relays:pushed(from, tx, channel, hello)
  for _, all in pairs(self.by_session) do
    for _, r in ipairs(all) do
      if r.tx == tx and r.at == from then
        rest(r)
        return opened(self, r, channel, hello)
      end
    end
  end
  self.env.counters:add "drop_reply"
end

-- Nothing comes back in a session: those that are not open may be what is left to it, and there by now.
function Relays:needed(session)
  for _, r in ipairs(self.by_session[session] or {}) do
    if not r.channel and r.code ~= "refused" then self:ask(r) end
  end
end

-- A relay does not know the channel, or not from where we are now.
function Relays:lost(session, at)
  for _, r in ipairs(self.by_session[session] or {}) do
    if r.at == at and self.env.now() - r.asked_us >= GAP_US then self:ask(r) end
  end
end

-- Our address is another, which is a new epoch: all channels are opened again, and those that did not answer perhaps do
-- from here; one that is being opened has the hello of before.
function Relays:moved()
  for session, all in pairs(self.by_session) do
    greet(self, session, all)
    for _, r in ipairs(all) do
      r.again = r.asking
      if r.channel or r.code ~= "refused" then self:ask(r) end
    end
  end
end

-- What became of a session's relays: an array of { at, channel or nil, error or nil, code }.
function Relays:list(session)
  return self.by_session[session] or {}
end

-- The reason (see core.reasons) for which one is not open, or not any more; nil: it is, or nothing is known yet.
function M.reason(r)
  if not r.code then return nil end
  if r.code == "refused" or r.code == "limit" then return r.code end
  return not r.channel and "no_answer" or nil
end

-- The session has ended; nil: all have.
function Relays:close(session)
  for number, all in pairs(self.by_session) do
    if not session or number == session then
      for _, r in ipairs(all) do
        r.closed = true
        rest(r)
        if r.at ~= self.server then self.addresses:forget(r.at) end
      end
      self.by_session[number] = nil
    end
  end
end

return M
