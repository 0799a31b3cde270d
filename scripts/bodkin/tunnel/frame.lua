-- SPDX-License-Identifier: MIT
-- What two ends of a tunnel say to each other in data frames: docs/PROTOCOL.md, section 7b. A datagram of the
-- programs' goes whole, or in two parts where it is longer than one frame of data.

local M = {}

M.VERSION = 1
M.WHOLE, M.FIRST, M.SECOND, M.HELLO = 0, 1, 2, 3

local DATA_MAX = require("bodkin.client.match").payload_max
local HEADER, PART_HEADER = ">BI2", ">BI2B"
local WHOLE_MAX = DATA_MAX - 3
M.PART_MAX = DATA_MAX - 4
M.DATAGRAM_MAX = 2 * M.PART_MAX

local pack, unpack = string.pack, string.unpack

-- A datagram of a flow as one frame, or as two; number is that of the datagram among those in two parts.
function M.split(flow, number, bytes)
  if #bytes <= WHOLE_MAX then return pack(HEADER, M.WHOLE, flow) .. bytes end
  local half = (#bytes + 1) // 2
  return pack(PART_HEADER, M.FIRST, flow, number) .. bytes:sub(1, half),
    pack(PART_HEADER, M.SECOND, flow, number) .. bytes:sub(half + 1)
end

-- side: "at" or "to", ours; ask: whether the peer is to say its own.
function M.hello(side, ask)
  return pack("BBB", M.HELLO, M.VERSION, (side == "to" and 1 or 0) | (ask and 2 or 0))
end

-- kind, flow, number (of parts alone), bytes; M.HELLO, version, side, ask; or nil for what is none of these.
function M.read(frame)
  local kind, len = frame:byte(1), #frame
  if kind == M.WHOLE and len >= 3 then return kind, unpack(">I2", frame, 2), nil, frame:sub(4) end
  if (kind == M.FIRST or kind == M.SECOND) and len >= 5 then
    local flow, number = unpack(">I2B", frame, 2)
    return kind, flow, number, frame:sub(5)
  end
  if kind ~= M.HELLO or len < 3 then return nil end
  local version, flags = frame:byte(2, 3)
  return kind, version, flags & 1 == 1 and "to" or "at", flags & 2 == 2
end

return M
