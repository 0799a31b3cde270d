-- SPDX-License-Identifier: MIT
-- Messages for bench/flood.c: of every type, with a valid layout and random contents, and the bombs. Made through the
-- schemas, so they follow the protocol as it changes. A record: kind (1 byte), length (2), the bytes, and a mask that
-- is 0xff where any byte will do: there the sender puts other bytes each time, so that no two datagrams ask the same.

local core = require "bodkin.core"
local input = require "spec.hostile.input"

local wire = core.wire

local M = {}

local KINDS = { address_request = 0, open = 2 }
local PLAIN, BOMB = 1, 3
local VARIANTS = 48 -- of each message

local function between(choose, min, max) return min + choose.below(max - min + 1) end

-- choose: decides about lengths and numbers; contents(n) -> n bytes that may be any.
local make = {}
function make.bin(choose, contents, min, max) return contents(between(choose, min, max)) end
function make.str(choose, _, min, max) return ("abcdefgh"):rep(max // 8 + 1):sub(1, between(choose, min, max)) end
function make.uint(choose, _, min, max) return between(choose, min, math.min(max, 1 << 31)) end
function make.bool(choose) return choose.below(2) == 1 end
function make.addr(choose, contents) return contents(choose.below(2) == 1 and 18 or 6) end
function make.addrs(choose, contents, min, max)
  local list = {}
  for i = 1, between(choose, min, max) do list[i] = make.addr(choose, contents) end
  return list
end
function make.bins(choose, contents, min, max)
  local list = {}
  for i = 1, between(choose, min, max) do list[i] = make.addr(choose, contents) .. contents(20) end -- with a proof
  return list
end
function make.any(choose, contents, _, max)
  local kind = choose.below(3)
  if kind == 0 then return wire.encode {} end
  if kind == 1 then return wire.encode { map = "dust", level = choose.below(100) } end
  return wire.encode(wire.bin(contents(between(choose, 1, math.min(max - 3, 250)))))
end

local function encode(schema, seed, contents)
  local choose, values, n = input.stream(seed), {}, 0
  for _, field in ipairs(schema.fields) do
    local kind, optional = field[2]:match "^(%a+)(%??)$"
    if kind ~= "pad" then
      n = n + 1
      if optional == "" or choose.below(3) > 0 then
        values[n] = assert(make[kind], "no contents for a field of kind " .. kind)(choose, contents, field[3], field[4])
      end
    end
  end
  return schema:encode(table.unpack(values, 1, n))
end

-- The same message twice, where the second has every other bit in what may be any byte: that shows where it is.
local function record(kind, schema, seed)
  local bytes = encode(schema, seed, function(n) return ("\x55"):rep(n) end)
  if not bytes then return nil end -- too long
  local other = assert(encode(schema, seed, function(n) return ("\xaa"):rep(n) end))
  local mask = {}
  for i = 1, #bytes do mask[i] = string.char(bytes:byte(i) ~ 0xff == other:byte(i) and 0xff or 0) end
  return string.pack(">Bs2", kind, bytes) .. table.concat(mask)
end

-- The corpus, as one string.
function M.make()
  local parts = {}
  for type = 1, 127 do
    local schema, made = input.schemas[type], 0
    for i = 1, schema and VARIANTS or 0 do
      local r = record(KINDS[schema.name] or PLAIN, schema, schema.name .. i)
      made = made + (r and 1 or 0)
      parts[#parts + 1] = r
    end
    assert(not schema or made > VARIANTS / 2, schema and schema.name .. ": hardly one fits in a datagram")
  end
  for _, bomb in ipairs(input.bombs()) do parts[#parts + 1] = string.pack(">Bs2", BOMB, bomb) .. ("\0"):rep(#bomb) end
  return table.concat(parts)
end

return M
