-- SPDX-License-Identifier: MIT
-- The text of a trace: one line a datagram and event.
--
--   TIME-IN-µs EVENT SOURCE > DESTINATION LENGTH TYPE FIRST-8-BYTES-IN-HEX

local core = require "bodkin.core"
local message = require "bodkin.message"

local M = {}

local type_names = { [0xc1] = "frame" }
local schema_names = {}
for _, schema in ipairs(message.all) do schema_names[schema.type] = schema.name end
for _, schema in pairs(core.wire.peer_schemas) do schema_names[schema.type] = schema.name end

local function type_name(bytes)
  local first, second = bytes:byte(1, 2)
  if first and first & 0xf0 == 0x90 then return schema_names[second] or "array" end
  return type_names[first] or "bytes"
end

function M.line(now_us, event, src, dst, bytes)
  return ("%d %s %s > %s %d %s %s"):format(now_us, event, core.addr.format(src), core.addr.format(dst), #bytes,
    type_name(bytes), core.crypto.hex(bytes:sub(1, 8)))
end

-- For sim/net.lua's `record`: appends to `lines`.
function M.recorder(loop, lines)
  return function(event, src, dst, bytes)
    lines[#lines + 1] = M.line(loop:now(), event, src, dst, bytes)
  end
end

return M
