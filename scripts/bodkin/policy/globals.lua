-- SPDX-License-Identifier: MIT
-- Which globals a text of Lua 5.4 uses, and where: read from its compiled form, so that scopes are Lua's own. Nothing
-- of the text runs. The form: ldump.c and lopcodes.h of Lua 5.4.

local M = {}

local GETTABUP, SETTABUP = 11, 15
local ABSOLUTE = -128 -- in the list of line steps: the line stands in the other list

local Reader = {}
Reader.__index = Reader

function Reader:byte()
  self.at = self.at + 1
  return self.bytes:byte(self.at - 1)
end

function Reader:number()
  local n = 0
  repeat
    local b = self:byte()
    n = n << 7 | b & 0x7f
  until b & 0x80 ~= 0
  return n
end

function Reader:text()
  local size = self:number()
  if size == 0 then return nil end
  self.at = self.at + size - 1
  return self.bytes:sub(self.at - size + 1, self.at - 1)
end

local function constants(r)
  local list = {}
  for i = 0, r:number() - 1 do
    local kind = r:byte()
    if kind == 0x03 or kind == 0x13 then
      r.at = r.at + 8
    elseif kind == 0x04 or kind == 0x14 then
      list[i] = r:text()
    end
  end
  return list
end

-- The line of each instruction.
local function lines(r, first)
  local steps = {}
  for i = 1, r:number() do
    local b = r:byte()
    steps[i] = b < 128 and b or b - 256
  end
  local absolute = {}
  for _ = 1, r:number() do
    local pc = r:number()
    absolute[pc] = r:number()
  end
  local line = first
  for i, step in ipairs(steps) do
    line = step == ABSOLUTE and absolute[i - 1] or line + step
    steps[i] = line
  end
  return steps
end

local function read_function(r, found)
  r:text() -- source
  local first = r:number()
  r:number() -- last line
  r.at = r.at + 3
  local code = {}
  for i = 1, r:number() do
    code[i] = string.unpack("<I4", r.bytes, r.at)
    r.at = r.at + 4
  end
  local names = constants(r)
  local upvalue_count = r:number()
  r.at = r.at + 3 * upvalue_count
  for _ = 1, r:number() do read_function(r, found) end
  local line_of = lines(r, first)
  for _ = 1, r:number() do -- local variables
    r:text()
    r:number()
    r:number()
  end
  local upvalues = {}
  for i = 0, r:number() - 1 do upvalues[i] = r:text() end
  for i, word in ipairs(code) do
    local op, a, b, c = word & 0x7f, word >> 7 & 0xff, word >> 16 & 0xff, word >> 24 & 0xff
    if op == GETTABUP and upvalues[b] == "_ENV" then
      found[#found + 1] = { line = line_of[i], name = names[c] or "?", set = false }
    elseif op == SETTABUP and upvalues[a] == "_ENV" then
      found[#found + 1] = { line = line_of[i], name = names[b] or "?", set = true }
    end
  end
end

-- An array of { line =, name =, set = assigned to }, by line; nil and the syntax error.
function M.of(text, chunkname)
  local chunk, err = load(text, chunkname, "t")
  if not chunk then return nil, err end
  local bytes = string.dump(chunk)
  if bytes:byte(5) ~= 0x54 then return nil, "globals are only found by Lua 5.4" end
  local found = {}
  -- Signature, version, format, check data, three sizes, an integer, a float; then the number of upvalues.
  read_function(setmetatable({ bytes = bytes, at = 4 + 2 + 6 + 3 + 8 + 8 + 1 + 1 }, Reader), found)
  table.sort(found, function(x, y)
    if x.line == y.line then return x.name < y.name end
    return x.line < y.line
  end)
  return found
end

return M
