-- SPDX-License-Identifier: MIT
-- What must hold at every event of a run, seen from outside: from the bytes that go in and out of a mux and the events
-- it tells. One watch a side.
local M = {}

local TEST, CONFIRM, FRAME = 0x98, 0x99, 0xc1
local BURST, TOKEN_US, BURST_US = 60, 10000, 600000 -- docs/PROTOCOL.md section 8: 60 tests, refilled at 100 a second
local LISTED_FRAMES, UNLISTED_TIMES, SILENT_TESTS, ROUND_US = 16, 3, 100, 10000000
local DEADLINE_MAX_US = 61000000 -- the longest wait there is: 60 s of seeking again
local SAME_INSTANT_TICKS = 8

local Watch = {}
Watch.__index = Watch

-- report(text): something is violated. listed: set of addresses that came with `matched`.
function M.new(report, listed, start_us)
  return setmetatable({
    report = report,
    listed = listed,
    start_us = start_us,
    last_counter = -1,
    nonces = {}, -- of tests sent -> where to
    confirmed = {}, -- addresses a confirm of a test sent there came from
    answered = {}, -- IPs anything genuine came from
    silent = {}, -- ip -> tests sent there while it had not answered, in the first round
    frames = {}, -- listed address -> frames sent before it confirmed
    sent = {}, -- other address -> bytes sent before it confirmed
    received = {}, -- address -> genuine bytes
    spent_us = 0,
    heard = {},
    messages = {},
    ticked_us = 0,
    ticks = 0,
  }, Watch)
end

local function bounded(self, to, bytes, is_frame)
  if self.confirmed[to] then return end
  if self.listed[to] then
    if not is_frame then return end
    local n = (self.frames[to] or 0) + 1
    self.frames[to] = n
    if n > LISTED_FRAMES then self.report("more than 16 frames to a listed address that never confirmed") end
  else
    local n = (self.sent[to] or 0) + #bytes
    self.sent[to] = n
    if n > UNLISTED_TIMES * (self.received[to] or 0) then
      self.report(("%d bytes to an address nobody listed, that sent %d"):format(n, self.received[to] or 0))
    end
  end
end

local function test_sent(self, now_us, to, bytes)
  local nonce = bytes:sub(31, 38)
  if self.nonces[nonce] then self.report("a test's nonce used twice") end
  self.nonces[nonce] = to
  self.spent_us = math.max(self.spent_us, now_us) + TOKEN_US
  if self.spent_us > now_us + BURST_US then self.report("more tests than the bucket has: burst of " .. BURST) end
  local ip = to:sub(1, -3)
  if self.answered[ip] or now_us > self.start_us + ROUND_US then return end
  local n = (self.silent[ip] or 0) + 1
  self.silent[ip] = n
  if n > SILENT_TESTS then self.report("more than 100 tests to an IP that never answered") end
end

function Watch:send(now_us, to, bytes)
  if self.closed then self.report("sent after closed") end
  local first = bytes:byte(1)
  if first == FRAME then
    local counter = string.unpack(">I7", bytes, 7)
    -- The same bytes by another path are no second use: the peer takes whichever come first.
    local again = bytes == self.last_frame and to ~= self.last_to
    if counter <= self.last_counter and not again then self.report("a frame's counter used twice") end
    self.last_counter, self.last_frame, self.last_to = counter, bytes, to
  elseif first == TEST then
    test_sent(self, now_us, to, bytes)
  elseif first ~= CONFIRM then
    self.report("sent what is no test, confirm or frame")
  end
  bounded(self, to, bytes, first == FRAME)
end

-- genuine: the peer made these bytes for us. Wherever they come from: who repeats them may be a stranger.
function Watch:input(from, bytes, genuine)
  if not genuine then return end
  self.genuine = true
  self.answered[from:sub(1, -3)] = true
  self.received[from] = (self.received[from] or 0) + #bytes
  self.heard[from] = true
  local first = bytes:byte(1)
  if first == CONFIRM and self.nonces[bytes:sub(31, 38)] == from then self.confirmed[from] = true end
end

-- peers_messages: set of what the peer sent.
function Watch:event(kind, x, peers_messages)
  if self.closed then self.report(kind .. " after closed") end
  if kind == "closed" then
    self.closed = x
    if type(x) ~= "string" or x == "none" then self.report("closed without a reason") end
    return
  end
  if kind == "silent" then
    if self.connected then self.report "silent, though connected" end
    return
  end
  if not self.genuine then self.report(kind .. " before anything authentic came") end
  if kind == "message" then
    if not self.connected then self.report("a message before connected") end
    if not peers_messages[x] then self.report("a message the peer never sent") end
    if self.messages[x] then self.report("a message delivered twice") end
    self.messages[x] = true
    return
  end
  if kind == "doubt" then
    if not self.connected then self.report("doubt before connected") end
    return
  end
  if not self.heard[x.remote] then self.report(kind .. " by an address nothing authentic came from") end
  if kind == "path" and not self.confirmed[x.remote] then
    self.report("path by an address that confirmed no test of ours sent there")
  end
  if kind == "connected" then
    if self.connected then self.report("connected twice") end
    self.connected = true
  end
end

-- After each verb: the mux's deadline.
function Watch:deadline(now_us, due_us)
  if self.closed then
    if due_us then self.report("a deadline after closed") end
  elseif not due_us then
    self.report("no deadline, though not closed")
  elseif due_us > now_us + DEADLINE_MAX_US then
    self.report("a deadline out of sight")
  end
end

function Watch:tick(now_us)
  self.ticks = self.ticked_us == now_us and self.ticks + 1 or 1
  self.ticked_us = now_us
  if self.ticks == SAME_INSTANT_TICKS then self.report("a timer that fires without end") end
end

return M
