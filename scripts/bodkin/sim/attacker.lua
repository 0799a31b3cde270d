-- SPDX-License-Identifier: MIT
-- A man in the middle: sees every datagram of the links he sits on, and by seed lets it go on or does one of his
-- deeds to it. The simulated network (sim/net.lua) and the lab's core (lab/agent.lua) ask the same one.
--
--   local attacker = attackers.new { random = random.new(seed, "attacker") }
--   attacker:see(0.2, src, dst, bytes, emit)
--
-- emit(delay_ms, src, dst, bytes) is called for each datagram that shall go on, so much later, with whatever source
-- (addresses are packed). What he sends himself he should not be shown again.

local M = {}

local MEMORY = 512 -- datagrams he can come back to
local SHORT_MS, LONG_MS = 80, 20000
local LENGTH_MAX = 1200 -- what he makes; longer ones no network here carries
local FRAME, PROBES = 0xc1, { [0x98] = true, [0x99] = true } -- the little that the aware deeds know
local HEAD = 13 -- of a frame: 0xC1, index, kind, counter

local Attacker = {}
Attacker.__index = Attacker

local function int(self, low, high)
  return low + (self.random:integer() >> 1) % (high - low + 1)
end

local function chance(self, p)
  return self.random:float() < p
end

-- One he remembers; with `unlike`, of another flow than that. nil when there is none (or luck would have it).
local function recall(self, unlike)
  if self.count == 0 then return nil end
  for _ = 1, 4 do
    local one = self.memory[int(self, 1, math.min(self.count, MEMORY))]
    if not unlike or one.src ~= unlike.src or one.dst ~= unlike.dst then return one end
  end
end

-- In place of what was sent, or beside it.
local function forge(self, d, bytes, emit)
  if chance(self, 0.5) then emit(0, d.src, d.dst, d.bytes) end
  emit(0, d.src, d.dst, bytes:sub(1, LENGTH_MAX))
end

local function flipped(self, bytes, first, last)
  local i = int(self, first, last)
  return bytes:sub(1, i - 1) .. string.char(bytes:byte(i) ~ (1 << int(self, 0, 7))) .. bytes:sub(i + 1)
end

local function other_port(self, address)
  return address:sub(1, -3) .. string.pack(">I2", int(self, 1024, 65535))
end

-- name -> fn(self, d, emit): d = { src, dst, bytes }. nil: not with this one, which just goes on.
local deeds = {}

function deeds.flip(self, d, emit)
  local bytes = d.bytes
  if #bytes == 0 then return nil end
  for _ = 1, int(self, 1, 4) do bytes = flipped(self, bytes, 1, #bytes) end
  forge(self, d, bytes, emit)
  return true
end

function deeds.truncate(self, d, emit)
  if #d.bytes == 0 then return nil end
  local n = int(self, 1, #d.bytes)
  forge(self, d, chance(self, 0.7) and d.bytes:sub(1, -1 - n) or d.bytes:sub(1 + n), emit)
  return true
end

function deeds.extend(self, d, emit)
  forge(self, d, d.bytes .. self.random:bytes(int(self, 1, 64)), emit)
  return true
end

function deeds.splice(self, d, emit)
  local other = recall(self)
  if not other then return nil end
  forge(self, d, d.bytes:sub(1, int(self, 0, #d.bytes)) .. other.bytes:sub(int(self, 1, #other.bytes + 1)), emit)
  return true
end

-- Old ones, soon or long after; now and then to another port, or to somebody else.
function deeds.replay(self, d, emit)
  emit(0, d.src, d.dst, d.bytes)
  for _ = 1, int(self, 1, 3) do
    local old, other = recall(self) or d, recall(self) or d
    local dst = old.dst
    if chance(self, 0.15) then dst = other_port(self, dst) elseif chance(self, 0.15) then dst = other.dst end
    emit(int(self, 0, chance(self, 0.5) and SHORT_MS or LONG_MS), old.src, dst, old.bytes)
  end
  return true
end

function deeds.reorder(self, d, emit)
  emit(int(self, 1, 3 * SHORT_MS), d.src, d.dst, d.bytes)
  return true
end

function deeds.duplicate(self, d, emit)
  for _ = 1, int(self, 2, 4) do emit(int(self, 0, SHORT_MS), d.src, d.dst, d.bytes) end
  return true
end

function deeds.reflect(self, d, emit)
  if chance(self, 0.5) then emit(0, d.src, d.dst, d.bytes) end
  emit(0, d.dst, d.src, d.bytes)
  return true
end

-- The payloads of two flows change places.
function deeds.swap(self, d, emit)
  local other = recall(self, d)
  if not other then return nil end
  emit(0, d.src, d.dst, other.bytes)
  emit(0, other.src, other.dst, d.bytes)
  return true
end

function deeds.drop()
  return true
end

-- The aware ones. A probe that comes from elsewhere, too: from another's address, or another port.
function deeds.elsewhere(self, d, emit)
  if not PROBES[d.bytes:byte()] then return nil end
  emit(0, d.src, d.dst, d.bytes)
  local other = chance(self, 0.5) and recall(self, d)
  emit(int(self, 0, SHORT_MS), other and other.src or other_port(self, d.src), d.dst, d.bytes)
  return true
end

-- A frame under another's index.
function deeds.index(self, d, emit)
  local other = recall(self)
  if d.bytes:byte() ~= FRAME or not other or other.bytes:byte() ~= FRAME then return nil end
  forge(self, d, d.bytes:sub(1, 1) .. other.bytes:sub(2, 5) .. d.bytes:sub(6), emit)
  return true
end

-- A frame of another kind, or number.
function deeds.head(self, d, emit)
  if d.bytes:byte() ~= FRAME or #d.bytes < HEAD then return nil end
  forge(self, d, flipped(self, d.bytes, 6, HEAD), emit)
  return true
end

-- The next ones of this kind do not come through on this flow.
function deeds.mute(self, d)
  self.muted[d.src .. d.dst .. d.bytes:sub(1, 2)] = int(self, 1, 8)
  return true
end

-- What is meant for few datagrams is preferred on those, or it would hardly ever happen.
local MEANT = { elsewhere = PROBES, index = { [FRAME] = true }, head = { [FRAME] = true } }
local PREFERRED = 0.3

M.names = {}
for name in pairs(deeds) do M.names[#M.names + 1] = name end
table.sort(M.names)

-- options: random (see sim/random.lua); deeds = a list of names (all); on_deed = fn(name, src, dst, bytes) or nil.
-- Throws on a deed there is not.
function M.new(options)
  local names = options.deeds or M.names
  for _, name in ipairs(names) do
    if not deeds[name] then error(("no deed '%s'; there are %s"):format(name, table.concat(M.names, ", ")), 2) end
  end
  local meant = {}
  for _, name in ipairs(names) do
    for first in pairs(MEANT[name] or {}) do
      meant[first] = meant[first] or {}
      table.insert(meant[first], name)
    end
  end
  return setmetatable({ random = options.random, names = names, meant = meant, memory = {}, count = 0, muted = {},
    on_deed = options.on_deed or function() end }, Attacker)
end

-- A datagram, and how likely (0 … 1) something is done to it; 0: he has no eyes for it either.
function Attacker:see(p, src, dst, bytes, emit)
  if p <= 0 then return emit(0, src, dst, bytes) end
  local d = { src = src, dst = dst, bytes = bytes }
  local flow = src .. dst .. bytes:sub(1, 2)
  local muted = self.muted[flow]
  if muted then
    self.muted[flow] = muted > 1 and muted - 1 or nil
  elseif chance(self, p) then
    local meant = self.meant[bytes:byte()]
    local names = meant and chance(self, PREFERRED) and meant or self.names
    local name = names[int(self, 1, #names)]
    if deeds[name](self, d, emit) then
      self.on_deed(name, src, dst, bytes)
    else
      emit(0, src, dst, bytes)
    end
  else
    emit(0, src, dst, bytes)
  end
  self.memory[1 + self.count % MEMORY] = d
  self.count = self.count + 1
end

return M
