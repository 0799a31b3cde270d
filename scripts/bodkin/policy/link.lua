-- SPDX-License-Identifier: MIT
-- Messages between a server and its policy process, each one line on a stream: msgpack with "\n" and "\\" escaped. One
-- may be longer than a datagram: a party has up to 32 members.
-- What is on its way unread is bounded, since a stream drops what is too much: after each piece a sync is awaited.

local wire = require("bodkin.core").wire

local M = {}
local Link = {}
Link.__index = Link

local PIECE, AHEAD = 65536, 262144 -- bytes between two syncs, and bytes not yet acknowledged; the stream takes 1 MB
local TEXT_MAX, LINE_MAX = 1280, 65000 -- bytes of a text, as in a sandbox; and of a line: the stream takes 65536

local function is_list(value)
  local n = 0
  for _ in pairs(value) do n = n + 1 end
  return n == #value
end

-- A list of any length, put together from its parts; nil where one of them is too long, and no list.
local function joined(list)
  local out = { (">BI2"):pack(0xdc, #list) }
  for i = 1, #list do
    local part = list[i]
    local bytes = wire.encode(part)
    if not bytes and type(part) == "string" and #part <= TEXT_MAX then bytes = (">Bs2"):pack(0xc5, part) end
    if not bytes and type(part) == "table" and is_list(part) then bytes = joined(part) end
    if not bytes then return nil end
    out[i + 1] = bytes
  end
  return table.concat(out)
end

-- A message as a line, without its end; nil, message, code when it cannot be told.
function M.pack(message)
  local bytes, err, code = wire.encode(wire.array(message))
  if not bytes then
    bytes = joined(message)
    if not bytes or not wire.decode(bytes) then return nil, err, code end -- each part may be less deep than all of it
  end
  local packed = bytes:gsub("[\n\\]", { ["\n"] = "\\n", ["\\"] = "\\\\" })
  if #packed > LINE_MAX then return nil, "longer than a line", "limit" end
  return packed
end

-- The message of a line, or nil.
function M.unpack(line)
  local message = wire.decode((line:gsub("\\(.)", { n = "\n", ["\\"] = "\\" })))
  return type(message) == "table" and message or nil
end

local function pump(self)
  while self.first <= self.last and self.ahead < AHEAD do
    local line = self.waiting[self.first]
    self.waiting[self.first] = nil
    self.first = self.first + 1
    self.stream:write(line)
    self.ahead, self.piece = self.ahead + #line, self.piece + #line
    if self.piece >= PIECE then
      self.stream:write(("s%d\n"):format(self.piece))
      self.piece = 0
    end
  end
  if self.first > self.last then self.first, self.last = 1, 0 end
end

-- Takes the stream. on_message(array, line that it was packed in); on_end() when the other side is gone.
function M.new(stream, on_message, on_end)
  local self = setmetatable({ stream = stream, waiting = {}, first = 1, last = 0, ahead = 0, piece = 0 }, Link)
  stream:on_line(function(line)
    if self.closed then return end
    if not line then
      self.closed = true
      stream:close()
      return on_end()
    end
    local kind = line:sub(1, 1)
    if kind == "s" then
      stream:write("a" .. line:sub(2) .. "\n")
    elseif kind == "a" then
      self.ahead = self.ahead - (tonumber(line:sub(2)) or 0)
      pump(self)
    elseif kind == "m" then
      local packed = line:sub(2)
      local message = M.unpack(packed)
      if message then on_message(message, packed) end
    end
  end)
  return self
end

-- Never blocks. packed: the same by M.pack, where that is at hand. true, or nil, message, code when the message cannot
-- be told.
function Link:send(message, packed)
  if self.closed then return nil, "closed", "closed" end
  local err, code
  if not packed then packed, err, code = M.pack(message) end
  if not packed then return nil, err, code end
  self.last = self.last + 1
  self.waiting[self.last] = "m" .. packed .. "\n"
  pump(self)
  return true
end

function Link:close()
  if self.closed then return end
  self.closed = true
  self.stream:close()
end

return M
