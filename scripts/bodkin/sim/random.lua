-- SPDX-License-Identifier: MIT
-- Random numbers that are the same again for the same seed (SplitMix64, Steele et al. 2014). Each host and
-- the network draw from a generator of their own, so that one more draw by one shifts no other's.
-- For simulations only: production takes core.crypto.random.

local M = {}

local Random = {}
Random.__index = Random

-- seed: an integer; label: text that tells generators of one seed apart.
function M.new(seed, label)
  local state = seed
  for i = 1, #label do -- FNV-1a
    state = (state ~ label:byte(i)) * 0x100000001b3
  end
  return setmetatable({ state = state }, Random)
end

-- Any 64-bit integer.
function Random:integer()
  self.state = self.state + 0x9e3779b97f4a7c15
  local z = self.state
  z = (z ~ (z >> 30)) * 0xbf58476d1ce4e5b9
  z = (z ~ (z >> 27)) * 0x94d049bb133111eb
  return z ~ (z >> 31)
end

-- A float in [0, 1).
function Random:float()
  return (self:integer() >> 11) * 0x1p-53
end

function Random:bytes(n)
  local parts = {}
  for i = 1, (n + 7) // 8 do parts[i] = string.pack("<i8", self:integer()) end
  return table.concat(parts):sub(1, n)
end

return M
