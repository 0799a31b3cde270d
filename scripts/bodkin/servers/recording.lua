-- SPDX-License-Identifier: MIT
-- All that a policy desk was told and told, of late: the complete input and output of matchmaking, as text that
-- `bodkin replay` walks again (policy/replay.lua). It is kept in chunks, each of which begins with what a new desk has
-- to know to go on from there; the oldest goes when there are too many bytes.
--
--   bodkin-desk 1 NUMBER SECONDS     a chunk begins: how many were before it, and when (since 1970)
--   =message                         what the desk knew then: versions, states, tickets that wait
--   <message                         it was told …
--   >message                         … and told; this may lag behind, but keeps its order
--
-- A message is msgpack with "\n" and "\\" escaped, as in policy/link.lua. A desk goes on from the beginning of a chunk
-- as a new one would, because it is told to renew (desk.lua) there, or is a new one.

local links = require "bodkin.policy.link"

local M = {}
local Recording = {}
Recording.__index = Recording

M.FORMAT = "bodkin-desk 1"
local CHUNKS = 4       -- of those bytes, about …
local CHUNK_MIN = 16384 -- … and no shorter than this, nor than four times what they begin with
local MANY = 5000      -- tickets: telling a new instance of so many takes a while, so it is done half as often
local PIECE = 65536    -- bytes that are joined to one text, as long as they come in small ones

-- max_bytes; time() -> s since 1970; on_text(text, begins): all of it as it comes, `begins` with each chunk, or nil.
function M.new(options)
  return setmetatable({
    max_bytes = options.max_bytes, time = options.time, on_text = options.on_text, chunks = {}, bytes = 0, count = 0,
    waiting = {}, asked = {}, states = {}, coming = {}, of_snapshot = 0, tickets = 0,
  }, Recording)
end

local function join(chunk)
  chunk[#chunk + 1] = table.concat(chunk.small)
  chunk.small, chunk.small_bytes = {}, 0
end

local function put(self, mark, packed)
  local chunk = self.chunk
  local line = mark .. packed .. "\n"
  chunk.small[#chunk.small + 1] = line
  chunk.small_bytes, chunk.bytes = chunk.small_bytes + #line, chunk.bytes + #line
  self.bytes = self.bytes + #line
  if chunk.small_bytes >= PIECE then join(chunk) end
  if self.on_text then self.on_text(line, false) end
end

-- Begins a chunk; the ones before it are complete.
local function open(self)
  if self.chunk then
    join(self.chunk)
    local all = table.concat(self.chunk)
    self.chunks[#self.chunks] = { all, bytes = self.chunk.bytes }
  end
  while self.chunks[1] and self.bytes > self.max_bytes * (CHUNKS - 1) // CHUNKS do
    self.bytes = self.bytes - table.remove(self.chunks, 1).bytes
  end
  local head = ("%s %d %d\n"):format(M.FORMAT, self.count, self.time())
  self.count = self.count + 1
  self.chunk = { small = { head }, small_bytes = #head, bytes = #head }
  self.chunks[#self.chunks + 1], self.bytes = self.chunk, self.bytes + #head
  if self.on_text then self.on_text(head, true) end
end

local function snapshot(self, versions, states, queues, refused)
  for _, message in ipairs(versions) do put(self, "=", links.pack(message)) end
  for _, pieces in ipairs(states) do
    for _, message in ipairs(pieces) do put(self, "=", links.pack(message)) end
  end
  for _, q in ipairs(queues) do
    for _, packed in pairs(q.list) do
      if not refused[packed] then put(self, "=", packed) end
    end
  end
  self.of_snapshot = self.chunk.bytes
end

-- A new desk, which knows nothing.
function Recording:begin()
  self.pending, self.waiting, self.asked, self.coming, self.tickets = nil, {}, {}, {}, 0
  open(self)
  self.of_snapshot = 0
end

-- What a new desk is to be told of states: messages.
function Recording:kept()
  local names, out = {}, {}
  for name in pairs(self.states) do names[#names + 1] = name end
  table.sort(names)
  for i, name in ipairs(names) do out[i] = self.states[name] end
  return out
end

-- Whether a new chunk is due: it begins with told { "renew", serial }, versions.
function Recording:is_full()
  if self.pending or not self.chunk then return false end
  local part = self.max_bytes // (self.tickets > MANY and CHUNKS // 2 or CHUNKS)
  return self.chunk.bytes >= math.max(CHUNK_MIN, part, 4 * self.of_snapshot)
end

-- A queue is no more.
function Recording:forget(queue) self.states[queue], self.coming[queue] = nil, nil end

-- --- told: by first words
local told = {}

-- Tickets that wait, by number, each as the message that told of it. Those not admitted before may yet be refused.
function told:add(message, packed)
  local queue, no = message[2], message[4]
  local list = self.waiting[queue]
  if not list then
    list = {}
    self.waiting[queue] = list
  end
  if not list[no] then self.tickets = self.tickets + 1 end
  list[no] = packed
  if message[8] then return end
  local key = queue .. " " .. no
  self.asked[key] = self.asked[key] or {}
  table.insert(self.asked[key], packed)
end

local function remove(self, queue, no, packed)
  local list = self.waiting[queue]
  if not list or not list[no] or packed and list[no] ~= packed then return end
  list[no], self.tickets = nil, self.tickets - 1
end

function told:drop(message) remove(self, message[2], message[3]) end

function told:forget(message)
  for no in pairs(self.waiting[message[2]] or {}) do remove(self, message[2], no) end
  self.waiting[message[2]] = nil
  self:forget(message[2])
end

-- The desk as it is when it comes to this message is known once it has answered.
function told:renew(message, _, versions)
  local names, queues = {}, {}
  for name in pairs(self.waiting) do names[#names + 1] = name end
  table.sort(names)
  for i, name in ipairs(names) do
    local list = {}
    for no, packed in pairs(self.waiting[name]) do list[no] = packed end
    queues[i] = { list = list }
  end
  self.pending = { serial = message[2], versions = versions, queues = queues, refused = {}, told = {} }
end

-- message: as an array, and packed (link.lua); versions: with "renew", the messages that tell of all that are in use.
function Recording:told(message, packed, versions)
  local handler = told[message[1]]
  if self.pending then
    table.insert(self.pending.told, packed)
  else
    put(self, "<", packed)
  end
  if handler then handler(self, message, packed, versions) end
end

-- --- heard
local heard = {}

local function decided(self, queue, no, ok)
  local key = queue .. " " .. no
  local asked = self.asked[key]
  local packed = asked and table.remove(asked, 1)
  if asked and not asked[1] then self.asked[key] = nil end
  if ok or not packed then return end
  remove(self, queue, no, packed)
  if self.pending then self.pending.refused[packed] = true end
end

function heard:verdict(message) decided(self, message[2], message[3], message[4]) end

function heard:stumbled(message) decided(self, message[2], message[4], false) end

function heard:failed(message)
  if message[6] then decided(self, message[2], message[6], false) end
end

-- Until all of a state is there, the one before it counts: the process may end in between.
function heard:kept(message)
  local name, i, of = message[2], message[3], message[4]
  if i == 1 then self.coming[name] = {} end
  local pieces = self.coming[name]
  if not pieces then return end
  pieces[i] = { "state", table.unpack(message, 2, 5) }
  if i == of then self.states[name], self.coming[name] = pieces, nil end
end

function heard:renewed(message)
  local p = self.pending
  if not p or p.serial ~= message[2] then return end
  self.pending = nil
  open(self)
  snapshot(self, p.versions, self:kept(), p.queues, p.refused)
  for _, packed in ipairs(p.told) do put(self, "<", packed) end
end

function Recording:heard(message, packed)
  put(self, ">", packed)
  local handler = heard[message[1]]
  if handler then handler(self, message) end
end

-- All that is kept, as a list of texts: whole chunks, the oldest first.
function Recording:texts()
  local out = {}
  if self.chunk then join(self.chunk) end
  for _, chunk in ipairs(self.chunks) do table.move(chunk, 1, #chunk, #out + 1, out) end
  return out
end

return M
