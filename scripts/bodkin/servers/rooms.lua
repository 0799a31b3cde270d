-- SPDX-License-Identifier: MIT
-- Rooms: matches that can be joined by a code, or by the id of one who opened it and is a member. A room lives
-- as long as a member does; its code and match id are kept a minute longer, for one who comes back.
--
-- A registered member stays until its registration ends or it leaves. A selector that is not registered
-- is a member for 60 s after its selection, and longer only if it registers meanwhile.

local M = {}
local Rooms = {}
Rooms.__index = Rooms

local EMPTY_MS = 60000
local GUEST_MS = 60000

-- 48 bits as three proquints (CVCVC, arXiv 0901.4016), which can be read out: "lusab-babad-gutih".
local CONSONANTS, VOWELS = "bdfghjklmnprstvz", "aiou"

local function quint(n)
  local function c(shift) local i = (n >> shift & 15) + 1 return CONSONANTS:sub(i, i) end
  local function v(shift) local i = (n >> shift & 3) + 1 return VOWELS:sub(i, i) end
  return c(12) .. v(10) .. c(6) .. v(4) .. c(0)
end

function M.code(random)
  local a, b, c = string.unpack(">I2I2I2", random(6))
  return quint(a) .. "-" .. quint(b) .. "-" .. quint(c)
end

-- The code as we write it, however it was typed; nil when it cannot be one.
function M.normal(text)
  local letters = text:lower():gsub("[%s%-_.]", "")
  if #letters ~= 15 then return nil end
  local quints = {}
  for part in letters:gmatch(".....") do
    if not part:match("^[bdfghjklmnprstvz][aiou][bdfghjklmnprstvz][aiou][bdfghjklmnprstvz]$") then return nil end
    quints[#quints + 1] = part
  end
  return table.concat(quints, "-")
end

-- registered(id) -> true while that client is registered; limits.rooms, limits.room_members; hosted(room): its host has
-- left, and another member is it now.
function M.new(env, registered, limits, hosted)
  return setmetatable({
    env = env, registered = registered, limits = limits, hosted = hosted, by_code = {}, by_match = {}, by_host = {},
    of = {}, count = 0,
  }, Rooms)
end

local function forget(self, room)
  self.by_code[room.code], self.by_match[room.match] = nil, nil
  self.count = self.count - 1
end

local function find(room, id)
  for i, member in ipairs(room.members) do
    if member.id == id then return member, i end
  end
end

-- The room that `host` opens, new or its own of before. An old code and match id are given again when they
-- are free: so a host finds its room again after a restart of the server. Another member, who knows both as
-- well, finds itself in it again: whoever comes later is then paired with all of them. nil: too many rooms.
function Rooms:open(host, app, code, match)
  local room = self.by_host[host]
  if room then return room end
  code = code and M.normal(code)
  room = code and self.by_code[code]
  local may_join = room and (#room.members < self.limits.room_members or find(room, host))
  if may_join and room.match == match and room.app == app then
    self:join(room, host)
    self.by_host[host] = room
    room.host = room.host or host
    return room
  end
  if self.count >= self.limits.rooms then return nil end
  if not code or not match or room or self.by_match[match] then
    repeat code = M.code(self.env.random) until not self.by_code[code]
    match = self.env.random(16)
  end
  room = { code = code, match = match, app = app, members = {}, host = host }
  self.by_code[code], self.by_match[match], self.by_host[host] = room, room, room
  self.count = self.count + 1
  self:join(room, host)
  return room
end

-- The room with this code in which somebody is, or nil.
function Rooms:find(code)
  code = M.normal(code)
  local room = code and self.by_code[code]
  return room and #room.members > 0 and room or nil
end

-- Makes a client a member (again). `guest`: its person, when it is not registered.
function Rooms:join(room, id, guest)
  local member = find(room, id)
  if not member then
    member = { id = id }
    room.members[#room.members + 1] = member
    self.of[id] = self.of[id] or {}
    self.of[id][room] = true
  end
  if room.timer then room.timer:cancel() end
  room.timer = nil
  if member.timer then member.timer:cancel() end
  member.guest, member.timer = guest, nil
  if guest then
    member.timer = self.env.timer(GUEST_MS, function()
      member.guest, member.timer = nil, nil
      if not self.registered(id) then self:leave(room, id) end
    end)
  end
end

function Rooms.member(_, room, id)
  return (find(room, id))
end

-- The host has left: the member that came first, is registered and has no other room of its own is the next. (Who
-- opened this one again after a restart has it.)
function Rooms:pass_on(room)
  room.host = nil
  for _, member in ipairs(room.members) do
    if self.registered(member.id) and (self.by_host[member.id] or room) == room then
      room.host, self.by_host[member.id] = member.id, room
      return self.hosted(room)
    end
  end
end

function Rooms:leave(room, id)
  local member, at = find(room, id)
  if not member then return end
  if member.timer then member.timer:cancel() end
  table.remove(room.members, at)
  self.of[id][room] = nil
  if not next(self.of[id]) then self.of[id] = nil end
  if self.by_host[id] == room then
    self.by_host[id] = nil
    if room.host == id then self:pass_on(room) end
  end
  if #room.members == 0 then
    room.timer = self.env.timer(EMPTY_MS, function() forget(self, room) end)
  end
end

-- A registration ended.
function Rooms:gone(id)
  while self.of[id] do self:leave(next(self.of[id]), id) end
end

function Rooms:close()
  for _, room in pairs(self.by_match) do
    if room.timer then room.timer:cancel() end
    for _, member in ipairs(room.members) do
      if member.timer then member.timer:cancel() end
    end
  end
  self.by_code, self.by_match, self.by_host, self.of, self.count = {}, {}, {}, {}, 0
end

return M
