-- SPDX-License-Identifier: MIT
-- The sharing manager (C3): searches the registry table or receives it page by page, gets a client's
-- addresses, selects a client or a room, and takes the `matched` that follows on both sides.

local core = require "bodkin.core"
local message = require "bodkin.message"
local printable = require("bodkin.client.request").printable

local M = {}
local Sharing = {}
Sharing.__index = Sharing

local pages_max = 10000
-- Matched messages answered lately: a repeat is acknowledged again, and nothing else.
local remembered_max = 256

-- `config`: env, requests, router, addresses; server; identity; app, name, props (encoded); timeout_ms;
-- on_matched(m) with m = { match, key, peer, name, props, pubs, locals, of_n, start_in_ms, age_ms, data, seat =
-- { ticket, team, peer_team, host } where a queue made the match }.
function M.new(config)
  local self = setmetatable({
    env = config.env, requests = config.requests, addresses = config.addresses, server = config.server,
    identity = config.identity, app = config.app, name = config.name, props = config.props,
    timeout_ms = config.timeout_ms, on_matched = config.on_matched, seen = {}, order = {},
  }, Sharing)
  config.router:on(message.matched, nil, function(reply, from, tx, ...) self:matched(reply, from, tx, ...) end)
  config.router:reply_schemas { message.matched_ack }
  return self
end

local function decoded(bytes)
  local value = bytes and core.wire.decode(bytes)
  if value == core.wire.null then return nil end
  return value
end

local function encoded_query(query)
  if type(query) ~= "table" then error("a query is a table of properties", 4) end
  return core.wire.encode(query)
end

local function texts(addrs)
  if type(addrs) ~= "table" then return nil end
  local out = {}
  for i, a in ipairs(addrs) do
    out[i] = (#a == 6 or #a == 18) and core.addr.format(a) or nil
  end
  return out
end

local function seat_of(s)
  if type(s) ~= "table" or type(s[1]) ~= "string" or #s[1] ~= 16 then return nil end
  local host = type(s[4]) == "string" and #s[4] == 16 and s[4] or nil
  return { ticket = s[1], team = math.tointeger(s[2]), peer_team = math.tointeger(s[3]), host = host }
end

-- [id, name, props] and, with addresses, pubs, locals.
local function entry_of(e)
  if type(e) ~= "table" or type(e[1]) ~= "string" or #e[1] ~= 16 or type(e[2]) ~= "string" then return nil end
  return {
    id = core.crypto.hex(e[1]), name = printable(e[2]), props = type(e[3]) == "table" and e[3] or {},
    pubs = texts(e[4]), locals = texts(e[5]),
  }
end

-- In a task: every entry of the registry table that fits the query ({}: all), as an array of
-- { id =, name =, props =, pubs =, locals = }; addresses only where wanted and the server exposes them.
function Sharing:list(query, want_addr)
  local wanted, err, code = encoded_query(query)
  if not wanted then return nil, err, code end
  local out, cursor = {}, nil
  for _ = 1, pages_max do
    local ok, entries, next_id = self.requests:call {
      to = self.server, expect = "page", timeout_ms = self.timeout_ms,
      build = function(tx, proof)
        return message.list:encode(tx, proof, self.app, wanted, cursor, want_addr or false)
      end,
    }
    if not ok then return nil, entries, next_id end
    for _, e in ipairs(decoded(entries) or {}) do out[#out + 1] = entry_of(e) end
    if not next_id or next_id == cursor then return out end
    cursor = next_id
  end
  return out
end

-- In a task: a client's addresses by separate request.
function Sharing:lookup(id)
  local ok, found, pubs, locals = self.requests:call {
    to = self.server, expect = "found", timeout_ms = self.timeout_ms,
    build = function(tx, proof) return message.lookup:encode(tx, proof, id) end,
  }
  if not ok then return nil, found, pubs end
  return { id = core.crypto.hex(found), pubs = texts(pubs), locals = texts(locals) }
end

-- In a task: opens a room, or again the one with this code and match id. Returns code, match id.
function Sharing:room_open(code, match)
  local me = self.identity
  local ok, given, id = self.requests:call {
    to = self.server, expect = "room_opened", timeout_ms = self.timeout_ms,
    build = function(tx, proof) return message.room_open:encode(tx, proof, me.id, me.secret, code, match) end,
  }
  if not ok then return nil, given, id end
  return given, id
end

-- In a task: selects a client by `target` (its id) or a room by `code`. Our addresses go with it, so we
-- need not be registered. Returns the match id and how many are in the match.
function Sharing:select(target, code)
  local me, addresses = self.identity, self.addresses
  local ok, match, of_n = self.requests:call {
    to = self.server, expect = "selected", timeout_ms = self.timeout_ms,
    build = function(tx, proof)
      return message.select:encode(tx, proof, me.key, me.secret, target, code, addresses:pubs(),
        addresses:locals(), self.app, self.name, self.props)
    end,
  }
  if not ok then return nil, match, of_n end
  return match, of_n
end

-- In a task: waits in a queue with a ticket (16 bytes of ours) and its properties (encoded). true once admitted.
function Sharing:enqueue(ticket, queue, props, timeout_ms)
  local me = self.identity
  local ok, given, code = self.requests:call {
    to = self.server, expect = "queued", timeout_ms = timeout_ms or self.timeout_ms,
    build = function(tx, proof) return message.enqueue:encode(tx, proof, me.id, me.secret, ticket, queue, props) end,
  }
  if not ok then return nil, given, code end
  return true
end

-- Takes a ticket back, in the background.
function Sharing:cancel(ticket)
  local me = self.identity
  self.requests:post {
    to = self.server, expect = "done", timeout_ms = 2000, quiet = true,
    build = function(tx) return message.cancel:encode(tx, me.id, me.secret, ticket) end,
  }
end

-- Tells the server that we are out of a match, in the background.
function Sharing:leave(match)
  local me = self.identity
  self.requests:post {
    to = self.server, expect = "done", timeout_ms = 1000, quiet = true,
    build = function(tx) return message.leave:encode(tx, me.id, me.secret, match) end,
  }
end

function Sharing:remember(tx)
  self.seen[tx] = true
  self.order[#self.order + 1] = tx
  if #self.order > remembered_max then self.seen[table.remove(self.order, 1)] = nil end
end

function Sharing:matched(reply, from, tx, match, key, peer, name, props, pubs, locals, of_n, start_in_ms, age_ms, data,
    seat)
  if from ~= self.server then return self.env.counters:add("drop_reply") end
  reply("matched_ack", tx)
  if self.seen[tx] then return end
  self:remember(tx)
  self.on_matched {
    match = match, key = key, peer = peer, name = name, props = decoded(props), pubs = pubs, locals = locals,
    of_n = of_n, start_in_ms = start_in_ms, age_ms = age_ms, data = decoded(data), seat = seat_of(decoded(seat)),
  }
end

return M
