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

-- `config`: env, requests, router, addresses, ephemerals; server; app, name, props (encoded); token; timeout_ms; kind()
-- -> what is known of our NAT, or nil;
-- on_ticket(name, ticket, …): what the server says of one, unasked (see queues.lua);
-- on_room_host(match, host, code); on_changed(watch);
-- on_matched(m) with m = { match, key, peer, peer_key, peer_ephemeral, own, name, props, pubs, locals, of_n,
-- start_in_ms, age_ms, data, seat = { ticket, team, peer_team, host } where a queue made the match, relays, ticket,
-- again (how often it was told before), commit_us where the server's clock is ours, own_nat, peer_nat (what the server
-- knows of both NATs, see kind.lua) }.
function M.new(config)
  local self = setmetatable({
    env = config.env, requests = config.requests, addresses = config.addresses, server = config.server,
    ephemerals = config.ephemerals, app = config.app, name = config.name, props = config.props, token = config.token,
    timeout_ms = config.timeout_ms, kind = config.kind, on_matched = config.on_matched, seen = {}, order = {},
  }, Sharing)
  config.router:on(message.matched, nil, function(_, _, tx, ...) self:matched(tx, ...) end)
  for _, kind in ipairs { "proposed", "waiting", "ended" } do
    config.router:on(message[kind], nil, function(_, _, tx, ...)
      if self:first(tx) then config.on_ticket(kind, ...) end
    end)
  end
  config.router:on(message.changed, nil, function(_, _, tx, watch)
    if self:first(tx) then config.on_changed(watch) end
  end)
  config.router:on(message.room_host, nil, function(_, _, tx, ...)
    if self:first(tx) then config.on_room_host(...) end
  end)
  return self
end

local function decoded(bytes)
  local value = bytes and core.wire.decode(bytes)
  if value == core.wire.null then return nil end
  return value
end

local function shown(entry, name)
  if name == "name" or name == "id" then return entry[name] end
  return entry.props[name]
end

-- Numbers before texts before the rest, what is absent last, whichever way it is sorted.
local function rank(v)
  if type(v) == "number" then return 1 end
  return type(v) == "string" and 2 or v ~= nil and 3 or 4
end

local function sorted(list, by)
  local down, name = by:match "^(%-?)(.+)$"
  table.sort(list, function(a, b)
    local x, y = shown(a, name), shown(b, name)
    local m, n = rank(x), rank(y)
    if m ~= n then return m < n end
    if m > 2 or x == y then return a.id < b.id end
    if down == "-" then return x > y end
    return x < y
  end)
end

-- A query as { where = encoded, sort =, limit = }; or nil, message, code.
local function query_of(query)
  if type(query) ~= "table" then error("a query is a table", 4) end
  local where, sort, limit = query, nil, nil
  if type(query.where) == "table" or query.sort ~= nil or query.limit ~= nil then
    where, sort, limit = query.where or {}, query.sort, query.limit
    for field in pairs(query) do
      if field ~= "where" and field ~= "sort" and field ~= "limit" then
        return nil, ("a query has no field '%s': it is where, sort, limit"):format(tostring(field)), "invalid"
      end
    end
    if type(where) ~= "table" then return nil, "where is a table", "invalid" end
    if sort ~= nil and (type(sort) ~= "string" or sort:find "^%-?$") then
      return nil, "sort is a property's name, with a - before it for the greatest first", "invalid"
    end
    if limit ~= nil and (math.type(limit) ~= "integer" or limit < 1) then
      return nil, "limit is a number of entries", "invalid"
    end
  end
  local encoded, err, code = core.wire.encode(where)
  if not encoded then return nil, err, code end
  local terms, wrong, at = core.query(encoded)
  if not terms then return nil, ("where%s: %s"):format(at, wrong), "invalid" end
  if #encoded > 512 then return nil, "a query does not fit in 512 bytes; say less", "limit" end
  return { where = encoded, sort = sort, limit = limit }
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
-- { id =, name =, props =, pubs =, locals = }; addresses only where wanted and the server exposes them. The server
-- searches; sorting is done here.
function Sharing:list(query, want_addr)
  local q, err, code = query_of(query)
  if not q then return nil, err, code end
  local out, cursor = {}, nil
  local function done()
    if q.sort then sorted(out, q.sort) end
    for i = #out, (q.limit or #out) + 1, -1 do out[i] = nil end
    return out
  end
  for _ = 1, pages_max do
    local ok, entries, next_id = self.requests:call {
      to = self.server, sealed = true, expect = "page", timeout_ms = self.timeout_ms, slow = true,
      build = function(tx)
        return message.list:encode(tx, self.app, q.where, cursor, want_addr or false)
      end,
    }
    if not ok then return nil, entries, next_id end
    for _, e in ipairs(decoded(entries) or {}) do out[#out + 1] = entry_of(e) end
    if not next_id or next_id == cursor or not q.sort and q.limit and #out >= q.limit then break end
    cursor = next_id
  end
  return done()
end

-- What of a query the server looks for, encoded; or nil, message, code.
function Sharing.where_of(query)
  local q, err, code = query_of(query)
  if not q then return nil, err, code end
  return q.where
end

-- In a task: has the server say, with `changed` and this id (16 bytes), when what is found may have changed; or no
-- more.
function Sharing:watch(watch, where, on)
  local ok, err, code = self.requests:call {
    to = self.server, sealed = true, expect = "done", timeout_ms = self.timeout_ms, quiet = true, slow = true,
    build = function(tx) return message.watch:encode(tx, watch, self.app, where, on) end,
  }
  if not ok then return nil, err, code end
  return true
end

-- In a task: a client's addresses by separate request.
function Sharing:lookup(id)
  local ok, found, pubs, locals = self.requests:call {
    to = self.server, sealed = true, expect = "found", timeout_ms = self.timeout_ms,
    build = function(tx) return message.lookup:encode(tx, id) end,
  }
  if not ok then return nil, found, pubs end
  return { id = core.crypto.hex(found), pubs = texts(pubs), locals = texts(locals) }
end

-- In a task: opens a room, or again the one with this code and match id. Returns code, match id.
function Sharing:room_open(code, match)
  local ok, given, id = self.requests:call {
    to = self.server, sealed = true, expect = "room_opened", timeout_ms = self.timeout_ms,
    build = function(tx) return message.room_open:encode(tx, code, match) end,
  }
  if not ok then return nil, given, id end
  return given, id
end

-- In a task: selects a client by `target` (its id) or a room by `code`. Our addresses go with it, so we
-- need not be registered. Returns the match id and how many are in the match.
function Sharing:select(target, code)
  local addresses = self.addresses
  local ok, match, of_n = self.requests:call {
    to = self.server, sealed = true, expect = "selected", timeout_ms = self.timeout_ms,
    build = function(tx)
      return message.select:encode(tx, self.ephemerals:public(), target, code, addresses:pubs(), addresses:locals(),
        self.app, self.name, self.props, self.token, addresses:rtt_ms(self.server), self.kind())
    end,
  }
  if not ok then return nil, match, of_n end
  return match, of_n
end

-- In a task: waits in a queue with a ticket (16 bytes of ours) and its properties (encoded); party (16 bytes) and its
-- size, or nil. true once admitted or, in a party, once known.
function Sharing:enqueue(ticket, queue, props, party, party_size)
  local ok, given, code = self.requests:call {
    to = self.server, sealed = true, expect = "queued", timeout_ms = self.timeout_ms,
    build = function(tx) return message.enqueue:encode(tx, ticket, queue, props, party, party_size) end,
  }
  if not ok then return nil, given, code end
  return true
end

-- Takes a ticket back, in the background.
function Sharing:cancel(ticket)
  self.requests:post {
    to = self.server, sealed = true, expect = "done", timeout_ms = 2000, quiet = true,
    build = function(tx) return message.cancel:encode(tx, ticket) end,
  }
end

-- Asks why a ticket waits: done(waited_ms, present, of, said), or done(nil, message, code); in the background.
function Sharing:why(ticket, done)
  self.requests:post({
    to = self.server, sealed = true, expect = "waits", timeout_ms = self.timeout_ms, slow = true, quiet = true,
    build = function(tx) return message.why:encode(tx, ticket) end,
  }, function(ok, err, code, ...)
    if not ok then return done(nil, err, code) end
    local present, of, said = ...
    done(code, present, of, decoded(said))
  end)
end

-- Answers what a ticket's proposal asks, "accept" or "decline", in the background.
function Sharing:answer(how, ticket, match)
  self.requests:post {
    to = self.server, sealed = true, expect = "done", timeout_ms = self.timeout_ms, quiet = true,
    build = function(tx) return message[how]:encode(tx, ticket, match) end,
  }
end

-- In a task: asks for players for a running match; seats and props encoded. true, or nil, message, code.
function Sharing:backfill(match, seats, props)
  local ok, err, code = self.requests:call {
    to = self.server, sealed = true, expect = "done", timeout_ms = self.timeout_ms, slow = true,
    build = function(tx) return message.backfill:encode(tx, match, seats, props) end,
  }
  if not ok then return nil, err, code end
  return true
end

-- In a task: tells the server of a fresh port for the session with a peer (its id, 16 bytes), at a proven address. A
-- `matched` to both follows.
function Sharing:renew(match, peer, epoch, pubs)
  return self.requests:call {
    to = self.server, sealed = true, expect = "done", timeout_ms = self.timeout_ms, quiet = true,
    build = function(tx)
      return message.renew:encode(tx, match, peer, epoch, pubs, self.addresses:rtt_ms(self.server))
    end,
  }
end

-- Tells the server that we are out of a match, in the background.
function Sharing:leave(match)
  self.requests:post {
    to = self.server, sealed = true, expect = "done", timeout_ms = 1000, quiet = true,
    build = function(tx) return message.leave:encode(tx, match) end,
  }
end

function Sharing:remember(tx)
  self.seen[tx] = true
  self.order[#self.order + 1] = tx
  if #self.order > remembered_max then self.seen[table.remove(self.order, 1)] = nil end
end

-- Acknowledges what the server sends until that comes. Whether it came for the first time.
function Sharing:first(tx)
  self.requests:tell(message.matched_ack:encode(tx))
  if self.seen[tx] then return false end
  self:remember(tx)
  return true
end

function Sharing:matched(tx, match, key, peer_key, peer_ephemeral, own, name, props, pubs, locals, of_n, start_in_ms,
    age_ms, data, seat, relays, relay_ticket, again, commit_us, own_nat, peer_nat)
  if not self:first(tx) then return end
  self.on_matched {
    match = match, key = key, peer = core.crypto.id(peer_key), peer_key = peer_key, peer_ephemeral = peer_ephemeral,
    own = own, name = name, props = decoded(props), pubs = pubs, locals = locals, of_n = of_n,
    start_in_ms = start_in_ms, age_ms = age_ms, data = decoded(data), seat = seat_of(decoded(seat)),
    relays = relays, ticket = relay_ticket, again = again, commit_us = commit_us,
    own_nat = own_nat, peer_nat = peer_nat,
  }
end

return M
