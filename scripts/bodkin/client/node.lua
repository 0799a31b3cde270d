-- SPDX-License-Identifier: MIT
-- A node: one client, with its identity, its sockets (one a family, for servers and peers alike), its matches, and
-- the managers that keep it in touch with the servers: addresses, registration, sharing, maintenance, and relays,
-- roaming, fallback.

local core = require "bodkin.core"
local history = require "bodkin.client.history"
local task = require "bodkin.task"
local match = require "bodkin.client.match"
local queues = require "bodkin.client.queues"
local relays = require "bodkin.client.relays"
local start = require "bodkin.client.start"
local watches = require "bodkin.client.watches"

local M = {}
local Node = {}
Node.__index = Node
Node.__name = "bodkin.node"

-- Matches left lately: a `matched` for one of them comes too late.
local gone_max = 256

local events = {}
for name in ("listening registered hosting host queued proposed matched connected path message closed error")
  :gmatch("%a+") do
  events[name] = true
end

-- The names of what open() may be told; files, a stand-in for the file system, is of specs alone.
M.options = {}
for name in ("server address_server maintenance_server server_keys app name props bind timeout_ms local virtual "
  .. "behaviour adapt register accept on_event trace identity identity_key token token_text trust_first_use "
  .. "known_servers files env"):gmatch("%S+") do
  table.insert(M.options, name)
end

-- In a task: a client of the servers given. options: server, address_server, maintenance_server (URLs; the latter two
-- default to server, which may be several: the first that answers is used, and another where that stays silent; the
-- second may be stun:HOST[:PORT]), app, name, props, bind ("ADDR:PORT"), timeout_ms a request, local ("same-public",
-- "always", "never": when local addresses are told and tried), virtual = true (those of VPNs and containers, too),
-- behaviour = false (do not look at what the NAT does), adapt = false (nor at how long it keeps mappings: maintenance
-- each 15 s), register = "together" (with the first thing asked of the server, which saves a round trip) or false (not
-- before host or match is called), on_event = fn(event, match) for all events from the beginning, trace = fn(line) for
-- all that goes into and comes out of the sessions' machines (it tells their keys), identity, token, trust_first_use,
-- known_servers (see identity.lua, trust.lua), env.
-- Returns the node, or nil, message, code.
function M.open(options)
  local self = setmetatable({
    env = options.env, handlers = {}, on_event = options.on_event, matches = {}, sessions = {}, gone = {},
    joins = 0, early = {}, -- how many are under way, and what came for matches that were left
    queues = queues.new(), watches = watches.new(), fresh_sockets = {}, accepts = options.accept,
  }, Node)
  self.history = history.new(self)
  -- Also when the task is cancelled meanwhile, nothing stays open.
  local _ <close> = setmetatable({}, { __close = function() if not self.ready then self:close() end end })
  local ok, err, code = start.start(self, options)
  self.ready = ok
  if ok then return self end
  return nil, err, code
end

function Node:register()
  local ok, err, code = self.registration:start()
  if ok then self.maintenance:start() end
  return ok, err, code
end

-- In a task: what ask() returns. Where there is no registration yet it is not waited for, but travels together with
-- what is asked; of its failure failed(message, code) is told, and it is what the caller hears then.
function Node:registering(ask, failed)
  local err, code
  if not self.registration.active then
    self.held = self.held or {}
    task.spawn(function()
      local ok
      ok, err, code = self:register()
      self:release()
      if not ok and failed then failed(err, code) end
    end)
  end
  local result = table.pack(ask())
  if not result[1] and err then return nil, err, code end
  return table.unpack(result, 1, result.n)
end

-- While both are asked for together, what comes of the registration is told before what the other question led to.
local second = { queued = true, hosting = true }
local apart = { registered = true, error = true }

function Node:release()
  local held = self.held or {}
  self.held = nil
  for _, e in ipairs(held) do self:emit(table.unpack(e, 1, 3)) end
end

function Node:emit(name, fields, of)
  if self.held and second[name] then
    table.insert(self.held, { name, fields, of })
    return
  end
  if self.held and not apart[name] then self:release() end
  fields.event = name
  if self.on_event then task.spawn(self.on_event, fields, of) end
  for _, fn in ipairs(self.handlers[name] or {}) do task.spawn(fn, fields, of) end
end

-- fn(event, match) for each event of that name, as a task of its own: it may wait.
function Node:on(name, fn)
  if not events[name] then error(("there is no event %q"):format(tostring(name)), 2) end
  self.handlers[name] = self.handlers[name] or {}
  table.insert(self.handlers[name], fn)
end

function Node:registered()
  self.watches:renew(self)
  if self.nat then self.nat:registered() end
  local now = table.concat(self.addresses:public_texts(), " ") .. tostring(self.registration.boot)
  if now == self.told then return end -- a mere refresh
  self.told = now
  self:emit("registered", {
    id = self.id, public = self.addresses:public_texts(), ["local"] = self.addresses:local_texts(),
  })
end

-- The host of a room has left, another member is it now: us, perhaps, and then the room is ours to open again.
function Node:room_host(raw, host, code)
  local m = self.matches[raw]
  if not m then return end
  m.host = core.crypto.hex(host)
  if m.host == self.id then
    m.code = code
    self:emit("hosting", { code = code }, m)
  end
  self:emit("host", { match = m.id, host = m.host }, m)
end

-- The server forgot everything: our rooms are opened again, each with its code and match id.
function Node:restarted()
  for _, m in ipairs(self:ordered()) do
    if m.code then
      local code, raw, why = self.sharing:room_open(m.code, m.raw)
      if code and raw ~= m.raw then raw, why = "somebody else has its code now", "refused" end
      if why then self:emit("error", { code = why, message = raw, hint = "the room could not be opened again" }, m) end
    end
  end
  self.queues:restarted(self)
end

function Node:ordered()
  local out = {}
  for _, m in pairs(self.matches) do out[#out + 1] = m end
  table.sort(out, function(a, b) return a.raw < b.raw end)
  return out
end

function Node:match_of(raw)
  local m = self.matches[raw]
  if not m then
    m = match.new(self, raw)
    self.matches[raw] = m
    self.roaming:start()
  end
  return m
end

function Node:matched(m)
  if self.closed then return end
  if m.seat then
    -- Taken back meanwhile, or left: with another ticket one may be put into the same match again.
    if not self.queues:expects(m.seat.ticket) then return end
  elseif self.gone[m.match] then -- too late; or joined again, and the answer that says so is still to come
    if self.joins > 0 then table.insert(self.early, m) end
    return
  end
  local of = self:match_of(m.match)
  of:matched(m)
  if m.seat then self.queues:matched(m.seat.ticket, of) end
  if self.nat then self.nat:hold() end
end

function Node:on_session(kind, session, x)
  local s = self.sessions[session]
  if not s then return end
  if kind == "doubt" then
    self.relays:needed(session)
    return self.roaming:ask(session)
  end
  if kind == "relay_lost" then return self.relays:lost(session, x) end
  if kind == "closed" then self.sessions[session] = nil end
  s.match:on_session(kind, s.peer, x)
  if kind == "closed" then self.relays:close(session) end -- not before what became of them is noted
end

-- A match of ours was closed.
function Node:left(m)
  self.matches[m.raw] = nil
  self.gone[m.raw] = true
  table.insert(self.gone, m.raw)
  if #self.gone > gone_max then self.gone[table.remove(self.gone, 1)] = nil end
  self.queues:left(m)
  self.sharing:leave(m.raw)
  self:upkeep()
end

-- The server that says what this client's NAT does, and the socket that reaches it; over a family, or IPv4 before IPv6,
-- since that is where NATs are. A STUN server says less than the matching server may. None where no UDP comes through.
function Node:address_server(over)
  if self.carriage.over_tcp then return nil end
  local servers = self.addresses.servers
  local of = not servers.stun and servers or { [core.addr.family(self.server)] = self.server }
  for _, family in ipairs { 4, 6 } do
    if of[family] and self.socks[family] and (not over or family == over) then return of[family], self.socks[family] end
  end
end

-- The servers are spoken to over TCP from now on, or over UDP again. To them we are elsewhere.
function Node:carried()
  if self.closed then return end
  if self.carriage.over_tcp then
    self:emit("error", {
      code = "blocked_udp", message = ("UDP is not answered, TCP %d is: going on over that"):format(self.carriage.port),
      hint = "peers are reached by a relay; try another network, or ask its administrator for UDP",
    })
  end
  if self.addresses then self.addresses:changed_carriage() end
  if self.nat then self.nat:forget() end
  if self.registration then self.roaming:moved() end
end

-- Mapping maintenance lasts as long as a push is awaited.
function Node:upkeep()
  if self.registration.active or next(self.matches) then self.maintenance:start() else self.maintenance:stop() end
end

local function check_open(self)
  if self.closed then error("the node is closed", 3) end
end

-- In a task: opens a room; others join with match.code. options: code, to have a certain one.
function Node:host(options)
  check_open(self)
  local code, raw, why = self:registering(function() return self.sharing:room_open(options and options.code) end)
  if not code then return nil, raw, why end
  local m = self:match_of(raw)
  m.code, m.hosted = code, true
  self:emit("hosting", { code = code }, m)
  return m
end

-- In a task: into the room of a code, or to the client with an id, from list or known otherwise. Returns the match
-- once the server agreed; `connected` follows, see match:wait_connected. A match that an id leads to and in which that
-- client is not is left: whoever the server put in its place has another key.
function Node:join(where)
  check_open(self)
  if type(where) ~= "string" then error("join takes a code or an id", 2) end
  local target = #where == 32 and where:find("^%x+$") and core.crypto.unhex(where) or nil
  self.maintenance:start()
  local function select() return self.sharing:select(target, not target and where or nil) end
  local raw, of_n, why
  local early = self.early
  self.joins = self.joins + 1
  if self.together then raw, of_n, why = self:registering(select) else raw, of_n, why = select() end
  self.joins = self.joins - 1
  if self.joins == 0 then self.early = {} end
  if not raw then
    self:upkeep()
    return nil, of_n, why
  end
  self.gone[raw] = nil
  local m = self:match_of(raw)
  m.of_n = math.max(m.of_n, of_n)
  m.wanted = target and core.crypto.hex(target)
  for _, one in ipairs(early) do
    if one.match == raw then self:matched(one) end
  end
  m:check_wanted()
  return m
end

local function check_party(party)
  local ok = type(party) == "table" and type(party.id) == "string" and party.id ~= ""
    and math.type(party.size) == "integer" and party.size >= 1 and party.size <= 32
  if not ok then error("party is { id = a text that its players share, size = 1 to 32 }", 3) end
  return party.size > 1 and party or nil -- one alone is none
end

-- What match() may be told, thrown at its caller where it is something else.
local function check_options(options)
  if type(options) ~= "table" then error("options is a table", 3) end
  for name in pairs(options) do
    if name ~= "timeout_ms" and name ~= "party" and name ~= "accept" then
      error(("there is no option %q: it is timeout_ms, party, accept"):format(tostring(name)), 3)
    end
  end
  local timeout_ms, accept = options.timeout_ms, options.accept
  if timeout_ms ~= nil and not (type(timeout_ms) == "number" and timeout_ms > 0 and timeout_ms < 1e12) then
    error("timeout_ms is a number of milliseconds above 0", 3)
  end
  if accept ~= nil and accept ~= "auto" and accept ~= "ask" then error('accept is "auto" or "ask"', 3) end
  return options
end

-- In a task: waits in a queue until its policy makes a match, and returns it; `connected` follows. props are the
-- ticket's own, not the registration's. options: timeout_ms, after which it is nil, message, "no_match"; party = { id =
-- a text that only its players know, size = how many they are }, who are matched together, all or none; accept = "ask"
-- (else what the node was opened with): where its policy has players accept a match, accept() and decline() answer the
-- event proposed, else it is accepted at once. Who waits in several queues is matched in the first that has a match:
-- the other calls end with "closed".
function Node:match(queue, props, options)
  check_open(self)
  if type(queue) ~= "string" or #queue < 1 or #queue > 32 then error("a queue is a name of at most 32 bytes", 2) end
  if props ~= nil and type(props) ~= "table" then error("props is a table of properties", 2) end
  options = check_options(options or {})
  local given = { timeout_ms = options.timeout_ms, accept = options.accept or self.accepts }
  given.party = options.party ~= nil and check_party(options.party) or nil
  return self:registering(function()
    return self.queues:wait(self, queue, props or {}, given)
  end, function(...) self.queues:abandon(...) end)
end

-- Takes a ticket back, as the event queued named it: whoever waits gets nil, message, "closed". Whether it was waiting.
function Node:cancel(ticket)
  check_open(self)
  return self.queues:cancel(self, ticket)
end

-- Answers the event proposed of a ticket; with decline, whoever waits gets nil, message, "closed". Whether there was
-- something to answer.
function Node:accept(ticket)
  check_open(self)
  return self.queues:answer(self, "accept", ticket)
end

function Node:decline(ticket)
  check_open(self)
  return self.queues:answer(self, "decline", ticket)
end

-- In a task: who is there that fits the query: a table of properties that they have; or { where =, sort =, limit = }
-- with such a table, or an expression such as { "and", { ">=", "mmr", 1000 }, { "in", "mode", { "a", "b" } } } (there
-- are also or, not, =, !=, <, <=, >, range: docs/PROTOCOL.md), sort = a property, "name" or "id", with a - before it
-- for the greatest first. As { { id =, name =, props =, pubs =, locals = }, … }; all pages. Addresses come with
-- want_addr, where the server exposes them.
function Node:list(query, want_addr)
  check_open(self)
  return self.sharing:list(query or {}, want_addr)
end

-- In a task: watches what a query finds (as for list): fn{ came =, gone =, changed =, entries = } is called, as a task,
-- with all that is there, and then at most once a second when something has changed. Returns a function that ends it.
function Node:watch(query, fn)
  check_open(self)
  if type(fn) ~= "function" then error("watch takes a query and a function", 2) end
  return self:registering(function() return self.watches:add(self, query or {}, fn) end)
end

-- In a task: the addresses of one of them, where the server exposes them: { id =, pubs =, locals = }.
function Node:lookup(id)
  check_open(self)
  local raw = type(id) == "string" and #id == 32 and core.crypto.unhex(id)
  if not raw then return nil, "an id is 32 hexadecimal digits, as list shows them", "invalid" end
  return self.sharing:lookup(raw)
end

-- Candidates tried by a session, and what became of each. rtt_ms is smoothed, jitter_ms how much it varies (RFC 3550),
-- loss the share of questions, sent since the path was confirmed, that had no answer: both ways together. Relays that
-- did not open are among them.
function Node:paths(session)
  local out = {}
  for i, p in ipairs(session and self.mux:paths(session) or {}) do
    out[i] = {
      remote = core.addr.format(p.remote), via = p.via, state = p.state, reason = p.reason, tests = p.tests,
      rtt_ms = p.rtt_ms, jitter_ms = p.jitter_ms, loss = p.loss, selected = p.selected,
    }
  end
  for _, r in ipairs(session and self.relays:list(session) or {}) do relays.tell(out, r) end
  return out
end

-- Why things are as they are, for every peer, or for those of a match id or peer id (hex, or its first four digits and
-- more) or of a name; of matches that are over for an hour, the latest 256 of them. An array of
-- { match =, self =, peer =, name =, at = (seconds since 1970), over = "tcp" where UDP is blocked, public =, local =,
-- peer_public =, peer_local = (texts), behaviour =, peer_behaviour = (what both sides' NATs do, where it is known, in
-- the words of kind.lua), state = "seeking" | "connected" | "closed", connected =,
-- reason = (see core.reasons), note =, path =, via =, remote =, first_ms =, confirmed_ms =, rtt_ms =, lasted_ms =,
-- paths = { { remote =, via =, state =, reason =, tests =, rtt_ms = }, … } }. Also of a node that is closed.
function Node:why(id) return self.history:why(id) end

-- Every counter by name, and how many matches and sessions there are.
function Node:stats()
  local out = { matches = #self:ordered(), sessions = 0, registered = self.registration.active or false, counters = {} }
  for _ in pairs(self.sessions) do out.sessions = out.sessions + 1 end
  for _, c in ipairs(self.env.counters:all()) do out.counters[c.name] = c.value end
  return out
end

local function release(self)
  self.history:close()
  if self.nat then self.nat:close() end
  if self.roaming then self.roaming:close() end
  if self.relays then self.relays:close() end
  if self.carriage then self.carriage:close() end
  if self.requests then self.requests:close() end
  if self.mux then self.mux:close() end
  for _, list in ipairs { self.socks or {}, self.fresh_sockets } do
    for _, sock in pairs(list) do sock:close() end
  end
end

-- Leaves all matches, gives the registration back (in a task it waits for that, at most a second; else one
-- datagram has to do) and lets go of everything. Idempotent.
function Node:close()
  if self.closed then return end
  self.closed = true
  local left = self:ordered()
  for _, m in ipairs(left) do m:leave() end
  self.watches:close()
  self.queues:close()
  if self.maintenance then self.maintenance:stop() end
  if not self.registration then return release(self) end
  local wake
  local posted = self.registration:stop(function()
    if wake then wake() end
  end)
  -- While a task is being cancelled, and outside of one, there is no waiting.
  if posted then
    pcall(task.await, function(resume) wake = resume end)
  elseif left[1] then
    pcall(task.sleep, self.env, 0) -- what the mux has to say is said
  end
  release(self)
end

-- Closes it where the script is over: what that does to its matches is told to none of its functions.
function Node:abandon()
  self.handlers, self.on_event = {}, nil
  self:close()
end

Node.__close = Node.close
Node.__gc = Node.close

return M
