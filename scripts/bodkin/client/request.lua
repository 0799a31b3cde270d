-- SPDX-License-Identifier: MIT
-- Requests to servers. Each has a 96-bit transaction id and is repeated until it is answered or timed out.
-- An address report in place of the answer means: prove your address first; the same request then goes
-- again with the proof it brought. Those to the matching server go sealed in the association with it, and only what
-- comes in that answers them.

local core = require "bodkin.core"
local message = require "bodkin.message"
local task = require "bodkin.task"

local M = { timeout_ms = 5000 }

local Requests = {}
Requests.__index = Requests

local first_gap_ms, longest_gap_ms = 200, 500
-- Where it is known how long an answer takes, a little longer than that, if it is less; and for what goes under a new
-- id each time, so that an answer that was slow, not lost, tells how long it took all the same. Twice, since of twenty
-- who meet at 5 % loss one loses the second, too; and not where the one before went unanswered, or was answered after a
-- second copy: the way may have become longer. To wait longer costs whoever lost one; to ask once too often costs a
-- small datagram.
local soon_gap_ms, margin_ms = 50, 10
-- Of strangers' STUN servers no more is asked than RFC 8489 section 6.2.1 has it.
local stun_gap_ms, stun_longest_ms = 500, 8000
-- A server that answers one request with ever new proofs is broken; so many are taken.
local proofs_max = 4
local replies = { "address_report", "registered", "page", "found", "room_opened", "selected", "maintained", "done",
  "queued", "opened", "key_report", "waits" } -- and relay_opened, which relays.lua gives here
local masked = { address_report = true, registered = true }
-- Answered as soon as they come, whatever a policy has to say: what they take is the way there and back.
local prompt = { address_report = true, opened = true, maintained = true, done = true, page = true, key_report = true }

-- These, too, unless a policy is asked.
local soon = { registered = true, room_opened = true, selected = true, found = true, whereabouts = true,
  relay_opened = true }
for kind in pairs(prompt) do soon[kind] = true end

local code_names = {}
for name, e in pairs(core.errors) do code_names[-e.value] = name end

-- The name of an error by its number on the wire.
function M.code_of(number) return code_names[number] or "refused" end

-- Text from the network without the control characters (C0, DEL, C1) that a terminal would obey.
function M.printable(text)
  return (text:gsub("\xc2[\x80-\x9f]", "?"):gsub("%c", "?"))
end

local function udp_port(to) return "UDP " .. core.addr.port(to) end

-- `config`: env, router (answers come in there), sock_for(to), where(to) as a person would say it, proof_for(to),
-- on_report(to, public, proof), on_rtt(to, us), rtt_for(to) -> ms or nil. Set .association before anything sealed is
-- asked.
function M.new(config)
  local self = setmetatable({
    env = config.env, sock_for = config.sock_for, proof_for = config.proof_for, on_report = config.on_report,
    on_rtt = config.on_rtt, rtt_for = config.rtt_for, pending = {}, count = 0,
    sent_us = {}, -- when something was sent to each, last
    unsure = {}, -- by address: what was asked last found no answer, or perhaps one to its first copy, which was slow
  }, Requests)
  self.where = config.where or udp_port
  for _, kind in ipairs(replies) do
    config.router:on(message[kind], nil, function(reply, from, tx, ...) self:answer(kind, reply, from, tx, ...) end)
  end
  config.router:stun(nil, function(...) self:stunned(...) end)
  config.router:on(message.refused, nil, function(...) self:refused(...) end)
  return self
end

function Requests:take(reply, from, tx)
  local r = self.pending[tx]
  if r and r.to == from and (r.sealed or false) == reply:sealed() then
    self.unsure[from] = r.is_soon and not r.anew and r.sent > 1 or nil
    return r
  end
  self.env.counters:add("drop_reply")
end

function Requests:answer(kind, reply, from, tx, ...)
  local r = self:take(reply, from, tx)
  if not r then return end
  -- Which copy an answer is to, only a first one tells (Karn).
  if prompt[kind] and not r.slow and r.sent == 1 and r.sent_us then self.on_rtt(r.to, self.env.now() - r.sent_us) end
  if masked[kind] then
    return self:believe(r, kind, core.addr.mask((...), tx), select(2, ...))
  end
  return self:believe(r, kind, ...)
end

-- Our address, of the socket that was asked from: no news where others are used by now (UDP after TCP, or the other way
-- round).
function Requests:report(r, public, proof)
  if not r.sock and r.via == self.sock_for(r.to) then self.on_report(r.to, public, proof, r.foreign) end
end

function Requests:believe(r, kind, ...)
  if kind == "address_report" then
    local public, proof = ...
    self:report(r, public, proof)
  end
  if kind == r.expect and (not r.accept or r.accept(...)) then return self:finish(r, true, ...) end
  if kind ~= "address_report" then return self.env.counters:add("drop_reply") end
  local _, proof = ...
  -- The report may be the answer to an earlier copy, sent before the proof was there.
  if proof == r.proof or r.proofs >= proofs_max then return end
  r.proofs = r.proofs + 1
  if self:encode(r) then self:transmit(r) end
end

function Requests:refused(reply, from, tx, number, text)
  local r = self:take(reply, from, tx)
  if not r then return end
  text = M.printable(text)
  if text == "" then text = "the server refused without a reason" end
  self:finish(r, nil, text, M.code_of(number))
end

-- A Binding request to a STUN server, which answers with our address or an error.
function Requests.stun(server)
  return { to = server, expect = "stun", build = core.stun.request, gap_ms = stun_gap_ms, longest_ms = stun_longest_ms }
end

function Requests:stunned(from, tx, mapped, number)
  local r = self.pending[tx]
  if not r or r.to ~= from or r.expect ~= "stun" then return self.env.counters:add("drop_reply") end
  if not mapped then
    return self:finish(r, nil, ("the STUN server %s answers with error %d: try another"):format(core.addr.format(from),
      number), "refused")
  end
  if #mapped ~= #from or core.addr.port(mapped) == 0 then return self.env.counters:add("drop_reply") end
  self:report(r, mapped)
  self:finish(r, true, mapped)
end

function Requests:finish(r, ...)
  r = r.original or r
  if self.pending[r.tx] ~= r then return end
  self.pending[r.tx] = nil
  for _, copy in ipairs(r.copies) do self.pending[copy.tx] = nil end
  if r.timer then r.timer:cancel() end
  if r.done then r.done(...) end
end

function Requests:encode(r)
  r.proof = self.proof_for(r.to)
  local bytes, err, code = r.build(r.tx, r.proof)
  if not bytes then return nil, err, code end
  r.bytes = bytes
  return true
end

-- The same request once more, under an id of its own.
local function copy_of(self, r)
  local copy = setmetatable({ original = r, tx = self.env.random(12), sent = 0, proofs = 0 }, { __index = r })
  if not self:encode(copy) then return r end
  r.copies[#r.copies + 1], self.pending[copy.tx] = copy, copy
  return copy
end

function Requests:transmit(r)
  if r.anew and r.sent > 0 then r = copy_of(self, r) end
  local sock = r.sock or r.pin or self.sock_for(r.to)
  if not sock then return end
  r.via = sock
  self.env.counters:add("request_sent")
  if not r.sock then self.sent_us[r.to] = self.env.now() end
  if r.sealed then return self.association:transmit(r) end
  r.sent, r.sent_us = r.sent + 1, self.env.now()
  sock:send(r.to, r.bytes, r.ttl)
end

function Requests:timed_out(r)
  if not r.quiet then self.env.counters:add("request_timeout") end
  if r.sealed and not r.quiet then self.association:doubt() end
  if not r.quiet then self.unsure[r.to] = true end
  local s = ("%g s"):format(r.timeout_ms / 1000)
  local where = core.addr.format(r.to)
  self:finish(r, nil, ("no answer from %s after %s: is %s open there? try bodkin ping"):format(where, s,
    self.where(r.to)), "timeout")
end

function Requests:repeat_later(r, gap_ms)
  local now = self.env.now()
  local left_ms = (r.end_us - now) / 1000
  local wait_ms = r.once and left_ms or math.min(gap_ms, left_ms)
  r.timer = self.env.timer(math.max(wait_ms, 0), function()
    if self.env.now() >= r.end_us then return self:timed_out(r) end
    self:transmit(r)
    if r.twice then
      r.twice = nil
    else
      gap_ms = math.min(gap_ms * 2, r.longest_ms)
    end
    self:repeat_later(r, gap_ms)
  end)
end

local function first_gap(self, spec)
  if self.unsure[spec.to] then return first_gap_ms end
  if spec.anew then return soon_gap_ms end
  local rtt_ms = soon[spec.expect] and not spec.slow and self.rtt_for(spec.to)
  if not rtt_ms then return first_gap_ms end
  return math.min(math.max(rtt_ms + math.max(rtt_ms / 4, margin_ms), soon_gap_ms), first_gap_ms)
end

-- `spec`: to; expect = name of the message that answers it; build(tx, proof) -> bytes | nil, message, code
-- (called again for each new proof); sealed; accept(…) -> whether an answer with these fields is one; first = before
-- others that wait; sock = another socket than that of sock_for, whose address it reports; pin = that of sock_for now,
-- whatever that is later; ttl; timeout_ms; once = never repeated; anew = each copy has a tx of its own; quiet = silence
-- is no failure; slow = its answer may wait for a policy.
function Requests:prepare(spec)
  if self.closed then return nil, "the node is closed", "closed" end
  local r = {
    to = spec.to, expect = spec.expect, build = spec.build, once = spec.once, quiet = spec.quiet, sealed = spec.sealed,
    first = spec.first, accept = spec.accept, sock = spec.sock, pin = spec.pin, ttl = spec.ttl,
    foreign = spec.foreign, slow = spec.slow, anew = spec.anew, copies = {},
    gap_ms = spec.gap_ms or first_gap(self, spec),
    longest_ms = spec.longest_ms or longest_gap_ms,
    timeout_ms = spec.timeout_ms or M.timeout_ms, tx = self.env.random(12), proofs = 0, sent = 0,
  }
  r.is_soon = r.gap_ms < first_gap_ms
  r.twice = r.is_soon
  local ok, err, code = self:encode(r)
  if not ok then return nil, err, code or "invalid" end
  return r
end

function Requests:go(r)
  self.count = self.count + 1
  self.pending[r.tx], r.number = r, self.count
  r.end_us = self.env.now() + math.floor(r.timeout_ms * 1000)
  self:transmit(r)
  self:repeat_later(r, r.gap_ms)
end

-- In a task: returns true and the answer's fields after tx, or nil, message, code.
function Requests:call(spec)
  local r, err, code = self:prepare(spec)
  if not r then return nil, err, code end
  return task.await(function(resume)
    r.done = resume
    self:go(r)
    return function() r.done = nil; self:finish(r) end
  end)
end

-- A message that nobody answers, through the association; nothing while there is none.
function Requests:tell(bytes)
  local current = self.association.current
  if current then self.association.send(current:write(bytes)) end
end

-- Outside of one, or where nobody waits: done(true, …) or done(nil, message, code), later.
function Requests:post(spec, done)
  local r, err, code = self:prepare(spec)
  if not r then return nil, err, code end
  r.done = done
  self:go(r)
  return true
end

local function in_order(pending, filter)
  local list = {}
  for _, r in pairs(pending) do
    if not filter or filter(r) then list[#list + 1] = r end
  end
  table.sort(list, function(a, b)
    if (a.first or false) ~= (b.first or false) then return a.first end
    return a.number < b.number
  end)
  return list
end

-- Those that go through the association, the oldest first.
function Requests:sealed_pending()
  return in_order(self.pending, function(r) return r.sealed end)
end

-- There is no association to be had.
function Requests:fail_sealed(text, code)
  for _, r in ipairs(self:sealed_pending()) do self:finish(r, nil, text, code) end
end

-- What was known of ways to servers is so no more: this host is elsewhere.
function Requests:moved() self.unsure = {} end

-- Every request under way ends with "closed".
function Requests:close()
  self.closed = true
  for _, r in ipairs(in_order(self.pending)) do self:finish(r, nil, "the node is closed", "closed") end
  if self.association then self.association:close() end
end

return M
