-- SPDX-License-Identifier: MIT
-- The relays of a client's sessions: asks each one that `matched` named to open its side of the pair, tells the mux
-- once it has, and asks again while the peer is not there, when the relay knows the channel no more, and before their
-- ticket ends, with another one.

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
local RENEW_MIN_MS = 1000                -- a fresh ticket is asked for in the last tenth of the old one's time
local STALE_US = 60000000                -- one that was had so long ago may have been refused for its age

-- `config`: env, requests, router, addresses, mux, server = its address, sock_for(to), renew(session), which asks for a
-- fresh ticket that comes by renewed().
function M.new(config)
  local self = setmetatable({
    env = config.env, requests = config.requests, addresses = config.addresses, mux = config.mux,
    server = config.server,
    sock_for = config.sock_for, renew = config.renew, by_session = {},
  }, Relays)
  config.router:on(message.relay_opened, nil, function(reply, from, tx, ...)
    if self.requests.pending[tx] then return self.requests:answer("relay_opened", reply, from, tx, ...) end
    self:pushed(from, tx, ...)
  end)
  return self
end

-- The packed addresses of those that can be asked: 0.0.0.0:0 stands for the server itself. One at an IP, but for the
-- server's, which has answered. Public ones, or of the server's own class: no server points us at the inside of a
-- network that it is not in.
function Relays:usable(list)
  local out, seen, own = {}, {}, core.addr.class(self.server)
  for _, a in ipairs(list or {}) do
    local at = core.addr.class(a) == "none" and self.server or a
    local ip, class = core.addr.with_port(at, 0), core.addr.class(at)
    if not seen[ip] and (class == "public" or class == own) and core.addr.port(at) ~= 0 and self.sock_for(at) then
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
  local all = { ticket = ticket, got_us = self.env.now() }
  self.by_session[session] = all
  for i, at in ipairs(list) do all[i] = { session = session, at = at, of = all, wait_ms = AGAIN_MS } end
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

-- Asks for a fresh ticket long before this one ends; and ever sooner again, while none comes.
local function renew_later(self, session, all)
  if all.timer then all.timer:cancel() end
  local left_ms = (all.ends_us - self.env.now()) / 1000
  if left_ms <= 0 then
    all.timer = nil
    return
  end
  all.timer = self.env.timer(math.max(left_ms * 9 // 10, RENEW_MIN_MS), function()
    all.due = true
    self.renew(session)
    renew_later(self, session, all)
  end)
end

-- A fresh ticket: the relays that are open are opened with it where the old one is about to end, and those that refused
-- that one for its age.
function Relays:renewed(session, ticket)
  local all = self.by_session[session]
  if not all then return end
  local due = all.due
  all.ticket, all.got_us, all.due = ticket, self.env.now(), false
  for _, r in ipairs(all) do
    if due and r.channel or r.stale then
      r.again, r.stale = r.asking, false
      self:ask(r)
    end
  end
end

local function opened(self, r, channel, hello)
  r.channel, r.heard = channel, hello ~= nil
  self.mux:relay(r.session, self.sock_for(r.at), r.at, channel, hello)
end

function Relays:ask(r)
  if r.closed or r.asking then return end
  rest(r)
  r.asking, r.again, r.asked_us = true, false, self.env.now()
  local function done(ok, channel, x, lasts_s)
    r.asking = false
    if r.closed then return end
    if not ok then
      r.error, r.code = channel, x
      local is_known = r.answered and x ~= "limit"
      r.later_ms = is_known and LATER_MS or math.min(2 * (r.later_ms or LATER_MS / 2), STRANGER_MAX_MS)
      if x ~= "refused" then return again(self, r, r.later_ms) end
      r.stale = self.env.now() - r.of.got_us >= STALE_US
      if r.stale then self.renew(r.session) end
      return
    end
    r.error, r.code, r.answered = nil, nil, true
    opened(self, r, channel, x)
    if lasts_s and not r.closed then
      r.of.ends_us = self.env.now() + lasts_s * 1000000
      renew_later(self, r.session, r.of)
    end
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
      return message.relay_open:encode(tx, proof, r.of.ticket, r.session, r.hello)
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

-- A relay does not know the channel, or not from where we are now; or it lets the two send no more, and has said so.
function Relays:lost(session, at)
  for _, r in ipairs(self.by_session[session] or {}) do
    local is_final = r.code == "refused" or r.code == "limit"
    if r.at == at and not is_final and self.env.now() - r.asked_us >= GAP_US then self:ask(r) end
  end
end

-- Our address is another, which is a new epoch: all channels are opened again, and those that did not answer perhaps do
-- from here; one that is being opened has the hello of before.
function Relays:moved()
  for session, all in pairs(self.by_session) do
    greet(self, session, all)
    for _, r in ipairs(all) do
      r.again = r.asking
      if r.code ~= "refused" then self:ask(r) end
    end
  end
end

-- What became of a session's relays: an array of { at, channel or nil, error or nil, code }.
function Relays:list(session)
  return self.by_session[session] or {}
end

-- Adds one to what node:paths tells; where it was open and is not any more, with the reason for that.
function M.tell(paths, r)
  local reason = (r.code == "refused" or r.code == "limit") and r.code
  if not r.channel then
    paths[#paths + 1] = {
      remote = core.addr.format(r.at), via = "relay", state = r.code and "failed" or "probing",
      reason = reason or r.code and "no_answer" or "none", tests = 0, selected = false,
    }
  elseif reason then
    for _, p in ipairs(paths) do
      if p.via == "relay" and p.remote == core.addr.format(r.at) and p.state ~= "valid" then
        p.state, p.reason = "failed", reason
      end
    end
  end
end

-- The session has ended; nil: all have.
function Relays:close(session)
  for number, all in pairs(self.by_session) do
    if not session or number == session then
      if all.timer then all.timer:cancel() end
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
