-- SPDX-License-Identifier: MIT
-- The matching server's other half (C3's server side): rooms, selections, and the `matched` that go to both
-- sides of each new pair in one instant, never to the selector first (why: the race in docs/NAT.md).

local core = require "bodkin.core"
local addresses = require "bodkin.servers.addresses"
local delivery = require "bodkin.servers.delivery"
local history = require "bodkin.servers.history"
local limits = require "bodkin.servers.limits"
local notices = require "bodkin.servers.notices"
local people = require "bodkin.servers.people"
local renewals = require "bodkin.servers.renewals"
local recent = require "bodkin.servers.recent"
local rooms = require "bodkin.servers.rooms"
local whereabouts = require "bodkin.servers.whereabouts"

local M = {}

local REPEAT_US, REPEATS_MAX = 30000000, 65536 -- how long a repeated selection is known again, and how many
local NO_DATA = "\xc0"

local Matches = {}
Matches.__index = Matches

-- What two who are put together share: a match key, and where there are relays a name in tickets, and a ticket each.
local function new_pair(server)
  local key = server.env.random(32)
  if #server.relays == 0 then return { key = key, tickets = {} } end
  local name = server.env.random(16)
  return { key = key, name = name, tickets = { server.tickets:make(name) } }
end

-- Tells every one of `others` about `person` and the other way round, in one instant: all of the others
-- first. Each pair has a key of its own.
local function pair_up(self, match, how, of_n, person, others)
  local told, pairs_of, rule = {}, {}, self.server.local_rule
  local function tell(to, peer, pair, ticket)
    return self.delivery:push {
      to = to, peer = peer, match = match, key = pair.key, of_n = of_n, data = NO_DATA,
      locals = addresses.visible(rule, peer.locals, peer.pubs, to.pubs), ticket = ticket,
    }
  end
  for i, other in ipairs(others) do
    pairs_of[i] = new_pair(self.server)
    self.history:paired(match, how, person, other, pairs_of[i].name)
    told[i] = tell(other, person, pairs_of[i], pairs_of[i].tickets[2])
  end
  for i, other in ipairs(others) do
    self.renewals:note(told[i], tell(person, other, pairs_of[i], pairs_of[i].tickets[1]))
  end
end

-- The people in a room but `id`, as they are known now.
local function others_in(self, room, id)
  local list = {}
  for _, member in ipairs(room.members) do
    if member.id ~= id then
      local person = people.registered(self.server.registry, member.id) or member.guest
      if person then list[#list + 1] = person end
    end
  end
  return list
end

-- Who is selected: a room, or a person; or nil, code, text.
local function target_of(self, from, id, target, code)
  local server, now = self.server, self.server.env.now()
  if code then
    if not self.guesses:may(now, from) then
      server.counters:add("room_guess_limited")
      return nil, "limit", "too many wrong codes: wait a little"
    end
    local room = self.rooms:find(code)
    if room then return room end
    self.guesses:wrong(now, from)
    server.counters:add("room_guess_wrong")
    return nil, "no_match", "no room has this code"
  end
  if not target then return nil, "invalid", "a code or an id must be given" end
  if target == id then return nil, "invalid", "a client cannot select itself" end
  local room = self.rooms.by_host[target]
  if room then return room end
  local person = people.registered(server.registry, target)
  if person then return nil, nil, nil, person end
  return nil, "no_match", "nobody has this id"
end

-- Joins a room, or makes a match of two. Returns match, of_n; or nil, code, text.
local function commit(self, person, registered, room, selected)
  local server = self.server
  local others = room and others_in(self, room, person.id) or { selected }
  if (room or selected).app ~= person.app then return nil, "app_mismatch", "it runs another application" end
  if room and #room.members >= server.limits.room_members and not self.rooms:member(room, person.id) then
    return nil, "limit", "the room is full"
  end
  for _, other in ipairs(others) do
    if not self.delivery:fits(other.id, 1) then return nil, "limit", "the other does not answer" end
  end
  if not self.delivery:room_for(2 * #others) then return nil, "limit", "too much is unacknowledged here" end
  if not self.delivery:fits(person.id, #others) then return nil, "limit", "too much is unacknowledged" end
  local match
  if room then
    match = room.match
    self.rooms:join(room, person.id, not registered and person or nil)
  else
    match = server.env.random(16)
  end
  local of_n = #others + 1
  pair_up(self, match, room and "room" or "selection", of_n, person, others)
  return match, of_n
end

-- The selector as a person, and whether it is registered; or nil, code, text.
local function selector(self, reply, from, ephemeral, pubs, locals, app, name, props, token, rtt_ms, nat)
  local server = self.server
  local id, key, assoc = reply:who()
  local known = server.registry:get(id)
  local is_asked = server.registrar:active()
  if is_asked and not known then return nil, "refused", "not registered: register first" end
  local claims, why, text = server.admission:check(id, app, name, props, token)
  if not claims then return nil, why, text end
  local own, near = addresses.collect(server, from, pubs, locals)
  if known then -- a selection carries addresses fresher than the registration's
    known.addrs = addresses.pack(assoc, ephemeral, rtt_ms, nat, own, near)
    server.registry:put(known)
  end
  if is_asked then app, name, props = known.app, known.name, known.props end -- what was admitted, and no other
  return {
    id = id, key = key, ephemeral = ephemeral, assoc = assoc, app = app, name = name, props = people.map(props),
    pubs = own, locals = near, rtt_ms = rtt_ms, nat = nat,
  }, known ~= nil
end

local function handlers(self, on)
  local server = self.server
  local counters, registry, env = server.counters, server.registry, server.env

  function on.select(reply, from, tx, ephemeral, target, code, pubs, locals, app, name, props, token, rtt_ms,
      nat)
    local id = reply:who()
    local before = self.repeats:get(env.now(), id .. tx)
    if before then return reply("selected", tx, before.match, before.of_n) end
    if server.registrar:deciding(id) and not registry:get(id) then return end
    local person, registered, text = selector(self, reply, from, ephemeral, pubs, locals, app, name, props,
      token, rtt_ms, nat)
    if not person then return server:refuse(reply, tx, registered, text) end
    local room, selected, why
    room, why, text, selected = target_of(self, from, id, target, code)
    if not room and not selected then return server:refuse(reply, tx, why, text) end
    local match, of_n
    match, of_n, text = commit(self, person, registered, room, selected)
    if not match then return server:refuse(reply, tx, of_n, text) end
    self.repeats:put(env.now(), id .. tx, { match = match, of_n = of_n })
    counters:add("selected")
    reply("selected", tx, match, of_n)
  end

  function on.room_open(reply, _, tx, code, match)
    local id = reply:who()
    local known = registry:get(id)
    if not known and server.registrar:deciding(id) then return end
    if not known then return server:refuse(reply, tx, "refused", "not registered: register first") end
    local count = self.rooms.count
    local room = self.rooms:open(id, known.app, code, match)
    if not room then return server:refuse(reply, tx, "limit", "too many rooms here") end
    if self.rooms.count > count then counters:add("room_opened") end
    reply("room_opened", tx, room.code, room.match)
  end

  function on.matched_ack(reply, _, tx)
    local id = reply:who()
    if self.notices:ack(id, tx) then return end
    counters:add(self.delivery:ack(id, tx) and "matched_acked" or "drop_reply")
  end

  -- Whether it is believed is not said.
  function on.outcome(reply, _, tx, match, peer, report)
    local id = reply:who()
    local believed, news = self.history:report(id, match, peer, report)
    if news then server.network:report(id, match, peer, news) end
    counters:add(believed and "outcome_received" or "outcome_refused")
    reply("done", tx)
  end

  function on.leave(reply, _, tx, match)
    local room, id = self.rooms.by_match[match], (reply:who())
    if room and self.rooms:member(room, id) then self.rooms:leave(room, id) end
    self.history:left(id, match)
    if self.on_left then self.on_left(id, match) end
    reply("done", tx)
  end
end

-- A match that a queue made, or more players for one: all new pairs are told in one instant. m: match (its id), members
-- and present (who is in it already), each { person, ticket, team }, host (an id or nil), data (encoded), queue (its
-- name). False, and nobody is told, while too much is on its way to one of them; and to which, where that has left it
-- unacknowledged for long.
function Matches:announce(m)
  local rule, n, old = self.server.local_rule, #m.members, #m.present
  if not self.delivery:room_for(n * (n - 1 + 2 * old)) then return false end
  local late, fit = nil, true
  local function look(list, more)
    for _, one in ipairs(list) do
      fit = fit and self.delivery:fits(one.person.id, more)
      late = late or self.delivery:behind(one.person.id, more) and one
    end
  end
  look(m.members, n - 1 + old)
  look(m.present, n)
  if not fit then return false, late end
  local function tell(to, peer, pair, ticket)
    return self.delivery:push {
      to = to.person, peer = peer.person, match = m.match, key = pair.key, ticket = ticket, of_n = n + old,
      data = m.data, locals = addresses.visible(rule, peer.person.locals, peer.person.pubs, to.person.pubs),
      seat = core.wire.encode { core.wire.bin(to.ticket), to.team, peer.team, m.host and core.wire.bin(m.host) },
    }
  end
  local function pair_of(a, b)
    local pair = new_pair(self.server)
    self.history:paired(m.match, "queue " .. m.queue, a.person, b.person, pair.name)
    self.renewals:note(tell(a, b, pair, pair.tickets[1]), tell(b, a, pair, pair.tickets[2]))
  end
  for i = 1, n do
    for _, one in ipairs(m.present) do pair_of(one, m.members[i]) end
    for k = 1, i - 1 do pair_of(m.members[k], m.members[i]) end
  end
  return true
end

-- Whether a client leaves so much unacknowledged that it cannot be told of `more` peers.
function Matches:behind(id, more) return self.delivery:behind(id, more) end

-- A registration ended.
function Matches:gone(id)
  self.rooms:gone(id)
  self.delivery:gone(id)
end

-- Adds its handlers to `on`; returns the object to tell when a registration ends.
function M.install(server, on)
  local env, registry, counters = server.env, server.registry, server.counters
  local function locate(person)
    local entry = registry:get(person.id)
    return entry and addresses.unpack(entry.addrs) or person.assoc
  end
  local self
  self = setmetatable({
    server = server,
    history = history.new(server),
    delivery = delivery.new(server, locate, function(d) self.history:acknowledged(d.match, d.to.id, d.peer.id) end),
    rooms = rooms.new(env, function(id) return registry:get(id) ~= nil end, server.limits, function(room)
      if #room.members < 2 then return end -- it is alone, and its match over
      counters:add "room_passed_on"
      for _, member in ipairs(room.members) do
        self.notices:push(member.id, "room_host", room.match, function() return room.host, room.code end)
      end
    end),
    notices = notices.new(server, function(id)
      local entry = registry:get(id)
      return entry and (addresses.unpack(entry.addrs))
    end),
    guesses = limits.guesses(server.limits, env.now()),
    repeats = recent.new { span_us = REPEAT_US, max = REPEATS_MAX, now_us = env.now() },
  }, Matches)
  self.renewals = renewals.new(server, function(d)
    if self.delivery:fits(d.to.id, 1) and self.delivery:room_for(1) then self.delivery:push(d) end
  end)
  handlers(self, on)
  whereabouts.install(server, on, self.history)
  function server.why(_, asked) return self.history:why(asked) end
  self.renewals:install(on)
  server:at_close(function()
    self.history:close()
    self.renewals:close()
    self.delivery:close()
    self.notices:close()
    self.rooms:close()
  end)
  server:at_status(function(info)
    info.rooms, info.matched_pending, info.history = self.rooms.count, self.delivery.total, self.history.count
  end)
  return self
end

return M
