-- SPDX-License-Identifier: MIT
-- Proofs that a client owns the address it sends from: epoch (4 bytes, big-endian) ‖ MAC over address
-- and epoch under the deployment's secret. Stateless; good on every server that shares the key and the hour.

local crypto = require("bodkin.core").crypto

local M = {}
local Cookie = {}
Cookie.__index = Cookie

local EPOCH_S = 600
local PROOF_LEN = 20

-- key: 32 bytes shared by a deployment, or nil for a secret of this process alone. over_tcp: for addresses seen so,
-- whose proofs are good for nothing else.
-- random(n) -> bytes, time() -> seconds since 1970 (of any origin when there is no key).
function M.new(options)
  local label = options.over_tcp and "cookie tcp" or "cookie"
  local secret = options.key and crypto.mac(options.key, label, 32) or options.random(32)
  return setmetatable({ secret = secret, time = options.time }, Cookie)
end

-- The proof for a packed address, good for 10 to 20 minutes. In one line: each address report needs it.
function Cookie:proof(addr)
  return crypto.proof(self.secret, addr, self.time() // EPOCH_S)
end

-- Whether `proof` is one of ours for this address and not too old. The epoch to come counts, too: the
-- clocks of two servers may differ a little.
function Cookie:valid(proof, addr)
  if not proof or #proof ~= PROOF_LEN then return false end
  local epoch = string.unpack(">I4", proof)
  local age = (self.time() // EPOCH_S - epoch) & 0xffffffff
  if age > 1 and age ~= 0xffffffff then return false end
  return crypto.equal(crypto.proof(self.secret, addr, epoch), proof)
end

-- Splits a proven address (address ‖ proof): the packed address, and whether the proof holds, nil where there is none;
-- nil when it is not of that shape.
function Cookie:open(bytes)
  if #bytes == 6 or #bytes == 18 then return bytes end
  if #bytes ~= 6 + PROOF_LEN and #bytes ~= 18 + PROOF_LEN then return nil end
  local addr, proof = bytes:sub(1, -PROOF_LEN - 1), bytes:sub(-PROOF_LEN)
  return addr, self:valid(proof, addr)
end

return M
