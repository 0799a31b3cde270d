-- SPDX-License-Identifier: MIT
-- One who has an association with a server, made by hand: who can say anything in it.

local core = require "bodkin.core"
local input = require "spec.hostile.input"
local message = require "bodkin.message"

local M = {}
local Member = {}
Member.__index = Member

local function decode(bytes)
  for _, schema in ipairs(message.all) do
    local values = table.pack(schema:decode(bytes))
    if values[1] then return schema.name, values end
  end
end

-- A proof of the feeder's address, of a server that reports addresses to who asks, or to who opens something.
function M.proof(f, roles)
  local request = roles == "matching" and message.open:encode(("q"):rep(12), nil, ("n"):rep(100))
    or roles == "relay" and message.relay_open:encode(("q"):rep(12), nil, ("k"):rep(37), 70000, "hello")
    or message.address_request:encode(("q"):rep(12))
  return f:ask(request, function(reply) return select(3, message.address_report:decode(reply)) end)
end

-- The first message of a handshake with `server` in the name of `who`, with these messages in it: an association that
-- is not open yet, and the message.
function M.handshake(server, who, messages, seed)
  return core.assoc(who.key .. who.secret, core.crypto.mac(("e"):rep(16), seed or who.key, 32), server.key, 7,
    messages or "")
end

-- Opens one from a feeder of its own; .proof is that of its address.
function M.new(world, server, who)
  local self = setmetatable({ world = world, who = who, f = world:feeder(server.at), asked = 0 }, Member)
  self.proof = M.proof(self.f)
  local raw, noise = M.handshake(server, who)
  self.raw, self.opening = raw, message.open:encode(("o"):rep(12), self.proof, noise)
  self.answer = self.f:ask(self.opening, function(reply) return select(2, message.opened:decode(reply)) end)
  assert(raw:answered(self.answer))
  self.f.on_reply = function(bytes) self:reply(bytes) end
  return self
end

-- on_message(name, values) is called for all that comes in it.
function Member:reply(bytes)
  local kind, plain = self.raw:read(bytes)
  if kind == "challenge" then self.challenged = plain end
  if kind ~= "message" then return end
  local name, values = decode(plain)
  if self.on_message and name then self.on_message(name, values) end
end

function Member:seal(plain) return assert(self.raw:write(plain)) end

-- Asks by name, and returns the answer's name and its fields after tx.
function Member:ask(name, ...)
  self.asked = self.asked + 1
  local tx, answer, before = ("%012d"):format(self.asked), nil, self.on_message
  self.on_message = function(told, values)
    if values[1] == tx then
      answer = { told, table.unpack(values, 2, values.n) }
    elseif before then
      before(told, values)
    end
  end
  self.f:send(self:seal(assert(message[name]:encode(tx, ...))))
  self.world:wait("an answer to " .. name, 3000, function() return answer end)
  self.on_message = before
  return table.unpack(answer)
end

function Member:register(name)
  return self:ask("register", self.who.ephemeral, {}, {}, "app", name, core.wire.encode {}, nil)
end

function Member:close() self.f:close() end

-- The drop counters that messages in an association must be counted by, one for each: `handled` as in input.cause.
-- Second: these messages.
function M.causes(plain, handled)
  local list, pieces, at = {}, {}, 1
  if plain == "" then return { "drop_short" }, { "" } end
  while at <= #plain do
    local to = input.skip(plain, at)
    list[#list + 1] = to and input.cause(plain:sub(at, to - 1), handled, { sealed = true }) or "drop_msgpack"
    pieces[#list] = plain:sub(at, (to or 0) - 1)
    if not to then break end
    at = to
  end
  return list, pieces
end

return M
