-- SPDX-License-Identifier: MIT
-- Many clients, their tickets, and the queues of a server, on virtual time: they come alone and in parties, wait in
-- several queues, accept, decline and say nothing, take tickets back and lose their registrations, while policies are
-- reloaded, fail, and have their process killed, and answers are lost. A seed says when. What must hold is checked as
-- it happens and, once all is quiet, of everything that was ever queued.

local core = require "bodkin.core"
local addresses = require "bodkin.servers.addresses"
local desks = require "bodkin.policy.desk"
local limits = require "bodkin.servers.limits"
local links = require "bodkin.policy.link"
local policies = require "bodkin.servers.policies"
local queues = require "bodkin.servers.queues"
local random = require "bodkin.sim.random"
local sources = require "bodkin.policy.source"
local support = require "spec.servers.support"

local M = {}
local Model = {}
Model.__index = Model

local HEAD = 'local bodkin = require "bodkin"\n'
-- By path, the versions that a reload draws from; the first is good and the one of the end.
local TEXTS = {
  duel = {
    "return bodkin.policy { size = 2, party = 2 }",
    "return bodkin.policy { size = 2, party = 2, window_ms = 50, compatible = function(a, b) return true end }",
    "return bodkin.policy { size = 2, props = { text = 'string?', n = 'integer?' } }", -- none that are deep
    "return bodkin.policy { size = 2, admit = function(t) return t.id % 7 ~= 0, 'no' end }",
    "local n = 0 return bodkin.policy { size = 2, compatible = function() n = n + 1 if n > 20 then error 'x' end "
      .. "return true end }",
    "return bodkin.policy { size = ",
  },
  team = {
    "return bodkin.policy { teams = { 2, 2 }, party = 2, accept_ms = 1000 }",
    "return bodkin.policy { teams = { 2, 2 }, party = 2, accept_ms = 2000, expire_ms = 6000, "
      .. "on_accept = function() end, on_decline = function(t) assert(t.id) end, on_expire = function(t) end, "
      .. "on_match = function(m) assert(#m.teams == 2) end }",
    "return bodkin.policy { teams = { 2, 2 }, party = 2 }",
    "return bodkin.policy { teams = { 2, 2 }, party = 2, on_match = function(m) error 'told' end }",
    -- data that is there, at times deeper than can be told
    "local n = 0 return bodkin.policy { teams = { 2, 2 }, party = 2, form = function(a, near) "
      .. "local list = { a, table.unpack(near, 1, #near) } local teams = bodkin.pack(list, { 2, 2 }) "
      .. "if not teams then return nil end n = n + 1 local data = { n } "
      .. "for _ = 1, n % 3 == 2 and 7 or n % 6 do data = { data } end return { teams = teams, data = data } end, "
      .. "on_match = function(m) assert(m.data) end }",
  },
  arena = {
    "return bodkin.policy { size = { 2, 4 }, party = 2, on_backfill = function(m, near) "
      .. "for _, t in ipairs(near) do if t.size <= m.seats[1] then return { teams = { { t } } } end end end }",
    "return bodkin.policy { size = { 2, 4 }, party = 2, accept_ms = 1500, on_backfill = function(m, near) "
      .. "for _, t in ipairs(near) do if t.size <= m.seats[1] then return { teams = { { t } } } end end end }",
  },
}
local QUEUES = { "duel", "team", "arena" }
local SIZE = { duel = 2, team = 4, arena = 4 }
local CLIENTS = 24

-- What tickets say, encoded: nothing, so much that a party is more than a datagram, and deep; and deeper than can be
-- told of.
local function nested(n) return n == 0 and 1 or { nested(n - 1) } end
local PROPS = { "\x80", core.wire.encode { text = ("x"):rep(110), n = 1 }, core.wire.encode { deep = nested(4) } }
local UNTELLABLE = core.wire.encode { deep = nested(6) }
local CLAIMS = { "\x80", core.wire.encode { a = ("c"):rep(490) } }

local function chance(self, p) return self.rng:float() < p end
local function pick(self, list) return list[1 + (self.rng:integer() >> 1) % #list] end
local function between(self, low, high) return low + (self.rng:integer() >> 1) % (high - low + 1) end

local function wrong(self, format, ...)
  self.failures[#self.failures + 1] = ("at %d ms: "):format(self.env.now() // 1000) .. format:format(...)
end

-- --- the policy's process, with a delay each way; what is under way is lost with it
local function open_link(self, on_message, on_end)
  local link = { alive = true }
  local function copied(message)
    local packed, why = links.pack(message)
    if not packed then return wrong(self, "%s cannot be told: %s", message[1], why) end
    return links.unpack(packed)
  end
  local function soon(fn)
    self.env.timer(self.slow and 40 or 3, function() if link.alive then fn() end end)
  end
  local desk = desks.new(function(message)
    local copy = copied(message)
    soon(function() if copy then on_message(copy) end end)
  end)
  function link.send(_, message)
    local copy = copied(message)
    soon(function() if copy then desk:input(copy) end end)
    return true
  end
  function link.kill()
    if not link.alive then return end
    link.alive = false
    desk:close()
    self.env.timer(1, on_end)
  end
  function link.close()
    link.alive = false
    desk:close()
  end
  self.link = link
  return link
end

-- --- the server around the queues
local function ended(self, ticket, how)
  local t = self.tickets[ticket]
  if not t then return wrong(self, "a ticket that never was is %s", how) end
  if t.state == "matched" then return wrong(self, "a matched ticket is %s", how) end
  t.state = how
end

-- Whether a ticket ended at its client, which asks for it yet, or takes it back once it has an answer.
local function is_late(self, ticket, t)
  if t.state ~= "closed" and t.state ~= "cancelled" then return false end
  for _, asked in pairs(self.asked) do
    if asked.ticket == ticket then return true end
  end
  return t.is_late
end

-- What `matched` would tell.
local function announce(self, m)
  if chance(self, self.quiet and 0 or 0.03) then
    return false, pick(self, { false, m.members[1], m.members[#m.members], m.present[1] }) or nil
  end
  local seen, parties, run = {}, {}, self.matches[m.match]
  if (run ~= nil) ~= (#m.present > 0) then wrong(self, "a match joined that is not running, or made twice") end
  local players = run and run.players or {}
  for _, one in ipairs(m.present) do
    if not players[one.id] then wrong(self, "one is told of who is not in the match") end
    players[one.id] = false -- seen
  end
  for id, unseen in pairs(players) do
    if unseen then wrong(self, "one is in the match and not told") end
    players[id] = true
  end
  for _, one in ipairs(m.members) do
    local t = self.tickets[one.ticket]
    if not t or t.state ~= "open" and not is_late(self, one.ticket, t) then
      wrong(self, "a ticket is matched that is %s", t and t.state or "unknown")
    elseif t.client.id ~= one.id or t.queue ~= m.queue then
      wrong(self, "a ticket is matched as another's")
    elseif seen[one.id] or players[one.id] then
      wrong(self, "a client is twice in a match")
    elseif t.state == "open" then
      t.state, t.matched = "matched", m.match
      if t.asked and t.answer ~= "accept" then wrong(self, "a match is made that one did not accept") end
    end
    seen[one.id] = true
    if t and t.party then
      local p = parties[t.party] or { n = 0, team = one.team }
      parties[t.party], p.n = p, p.n + 1
      if p.team ~= one.team then wrong(self, "a party is in two teams") end
    end
    if t then self.turn[#self.turn + 1] = t.client end
  end
  for party, p in pairs(parties) do
    if p.n ~= party.size then wrong(self, "a party is split: %d of %d", p.n, party.size) end
  end
  run = run or { match = m.match, players = {}, queue = m.queue }
  self.matches[m.match] = run
  local n = 0
  for id in pairs(seen) do run.players[id] = true end
  for _ in pairs(run.players) do n = n + 1 end
  if n > SIZE[m.queue] then wrong(self, "%d players in a match of %d", n, SIZE[m.queue]) end
  self.formed = self.formed + 1
  if chance(self, 0.4) then self.running[#self.running + 1] = run end
  return true
end

-- A client hears of a ticket, after a while. What is newer may overtake.
local function told(self, id, name, ticket, fields)
  local t = self.tickets[ticket]
  if not t then return wrong(self, "%s of a ticket that never was", name) end
  if t.client.id ~= id then return wrong(self, "%s of another's ticket", name) end
  if t.state == "matched" then return wrong(self, "%s of a matched ticket", name) end
  if name == "ended" then return ended(self, ticket, "ended") end
  t.asked = false
  if name ~= "proposed" then return end
  local match = fields(0)
  t.asked, t.answer = match, nil
  local how = chance(self, self.quiet and 0 or 0.15) and "decline" or "accept"
  if not self.quiet and chance(self, 0.1) then return end -- says nothing
  self.env.timer(between(self, 1, 400), function()
    if t.state ~= "open" then return end
    if t.asked == match then t.answer = how end -- else it comes too late, and changes nothing
    self:ask(t.client, how, ticket, match)
  end)
end

local function new_server(self)
  local env = self.env
  local server = {
    env = env, counters = core.counters(), limits = assert(limits.check { tickets_each = 3, tickets = 100000 }),
    closers = {}, log = setmetatable({}, { __index = function() return function() end end }),
    registrar = { deciding = function() return false end },
    admission = { of = function(_, id) return CLAIMS[1 + tonumber(id) % 2] end },
    network = { of = function() end },
    open_policy_link = self.process and function(...) return open_link(self, ...) end or nil,
  }
  function server.refuse(_, reply, tx, code) return reply("refused", tx, code) end
  function server.push(_, _, name, tx) self:answered(tx, name, true) end
  function server.at_close(_, fn) table.insert(server.closers, fn) end
  function server.at_status() end
  server.registry = { get = function(_, id)
    local client = self.by_id[id]
    return client and client.registered and { id = id, key = "", app = "a", name = "", props = "\x80",
      addrs = client.addrs } or nil
  end }
  local slots = {}
  for _, name in ipairs(QUEUES) do slots[name] = { policy = name } end
  server.policy_slots = assert(policies.read(slots))
  self.server = server
  self.queues = queues.install(server, self.on, {
    announce = function(_, m) return announce(self, m) end, behind = function() return false end,
    notices = { push = function(_, ...) told(self, ...) end, gone = function() end },
  })
end

-- --- clients
-- What is not answered is asked again, by the same tx.
local function request(self, tx, asked)
  local client = asked.client
  local reply = setmetatable({ who = function() return client.id, client.id, 1 end },
    { __call = function(_, answer) self:answered(tx, answer) end })
  self.on[asked.name](reply, "", tx, table.unpack(asked.arguments, 1, asked.arguments.n))
  if not self.asked[tx] then return end
  self.env.timer(between(self, 200, 500), function()
    self:end_turn()
    if self.asked[tx] then request(self, tx, asked) end
  end)
end

-- Of who is in a match, nothing else waits.
function Model:end_turn()
  for _, one in ipairs(self.turn) do self:taken(one) end
  self.turn = {}
end

function Model:ask(client, name, ...)
  self.tx = self.tx + 1
  local tx = ("tx%010d"):format(self.tx)
  local asked = { client = client, name = name, ticket = ..., arguments = table.pack(...) }
  self.asked[tx] = asked
  request(self, tx, asked)
  if name == "enqueue" and chance(self, 0.1) then request(self, tx, asked) end -- a copy
  self:end_turn()
  return tx
end

-- pushed: it comes later than the request, when it is decided, and stays so.
function Model:answered(tx, name, pushed)
  local asked = self.asked[tx]
  if not asked then return end
  if asked.was_refused and name ~= "refused" then wrong(self, "%s was refused, and is %s", asked.name, name) end
  if chance(self, self.quiet and 0 or 0.1) then
    asked.was_refused = asked.was_refused or pushed and name == "refused"
    return
  end
  self.asked[tx] = nil
  if asked.name ~= "enqueue" then return end
  if name == "refused" then return ended(self, asked.ticket, "refused") end
  local t = self.tickets[asked.ticket]
  if t.state == "open" or t.state == "matched" then return end
  t.is_late = true
  self.env.timer(1, function() self:ask(t.client, "cancel", t.ticket) end) -- it ended meanwhile
end

function Model:taken(client)
  for ticket, t in pairs(self.tickets) do
    if t.client == client and t.state == "open" then
      if self.queues.by_ticket[ticket] then
        wrong(self, "a client is in a match, and ticket %s waits", core.crypto.hex(ticket):sub(1, 4))
      end
      t.state = "closed" -- as it knows by itself, whatever it has not heard of it
    end
  end
end

local act = {}

local function enqueue(self, client, queue, party)
  if self.made >= self.most then return end
  self.made = self.made + 1
  for _, t in pairs(self.tickets) do -- another takes its place
    if t.client == client and t.queue == queue and t.state == "open" then t.replaced = true end
  end
  local ticket, props = ("%016d"):format(self.made), chance(self, 0.03) and UNTELLABLE or pick(self, PROPS)
  self.tickets[ticket] = { client = client, queue = queue, state = "open", party = party, ticket = ticket }
  self:ask(client, "enqueue", ticket, queue, props, party and party.id, party and party.size)
end

function act.enqueue(self)
  local client = pick(self, self.clients)
  if client.registered then enqueue(self, client, pick(self, QUEUES)) end
end

-- Some parties lack one.
function act.party(self)
  local queue = pick(self, QUEUES)
  self.parties = self.parties + 1
  local id = ("%016d"):format(self.parties % 6)
  local party = self.party_of[queue .. id] or { id = id, size = 2 } -- one by that id is there at a time
  self.party_of[queue .. id] = party
  for _ = 1, chance(self, 0.8) and 2 or 1 do
    local client = pick(self, self.clients)
    if client.registered then enqueue(self, client, queue, party) end
  end
end

local function open_of(self, client)
  local list = {}
  for _, t in pairs(self.tickets) do
    if t.client == client and t.state == "open" then list[#list + 1] = t end
  end
  table.sort(list, function(a, b) return a.ticket < b.ticket end)
  return list
end

function act.cancel(self)
  local client = pick(self, self.clients)
  local t = open_of(self, client)[1]
  if not t then return end
  self:ask(client, "cancel", t.ticket)
  if t.state == "open" then t.state = "cancelled" end
end

function act.lose(self)
  local client = pick(self, self.clients)
  if not client.registered then
    client.registered = true
    return
  end
  client.registered = false
  for tx, asked in pairs(self.asked) do
    if asked.client == client then self.asked[tx] = nil end
  end
  local list = open_of(self, client)
  for _, run in pairs(self.matches) do run.players[client.id] = nil end
  self.queues:gone(client.id)
  for _, t in ipairs(list) do
    if t.state == "open" then t.state = "gone" end
  end
end

function act.leave(self)
  local run = table.remove(self.running, 1)
  if not run then return end
  local ids = {}
  for id in pairs(run.players) do ids[#ids + 1] = id end
  table.sort(ids)
  if not ids[1] then return end
  run.players[ids[1]] = nil
  self.queues:left(ids[1], run.match)
  if not ids[2] then return end
  self:ask(self.by_id[ids[2]], "backfill", run.match, core.wire.encode { between(self, 0, 3) }, "\x80")
  if chance(self, 0.5) then self.running[#self.running + 1] = run end
end

function act.reload(self)
  for _, name in ipairs(QUEUES) do self.text[name] = pick(self, TEXTS[name]) end
  self.server.reload_policies()
end

function act.kill(self)
  if self.link then self.link:kill() end
end

local OFTEN = { { "enqueue", 40 }, { "party", 14 }, { "cancel", 8 }, { "lose", 3 }, { "leave", 8 }, { "reload", 1 },
  { "kill", 1 } }

local function some_act(self)
  local n = between(self, 1, 75)
  for _, a in ipairs(OFTEN) do
    n = n - a[2]
    if n <= 0 then return act[a[1]](self) end
  end
end

local function advance(self, ms)
  self.env.loop:advance(ms * 1000)
  self:end_turn()
end

-- --- in the end
local function check_quiet(self)
  local waiting, q = 0, self.queues
  for ticket, t in pairs(self.tickets) do
    if (t.state == "open") ~= (q.by_ticket[ticket] ~= nil) then
      wrong(self, "ticket %s is %s to its client, and %s to the server", ticket, t.state,
        q.by_ticket[ticket] and "waits" or "is over")
    end
    if t.state == "open" then waiting = waiting + 1 end
  end
  for _, asked in pairs(self.asked) do wrong(self, "%s is never answered", asked.name) end
  if q.total ~= waiting then wrong(self, "%d tickets wait, the server counts %d", waiting, q.total) end
  if q.proposals.count ~= 0 then wrong(self, "%d proposals are left", q.proposals.count) end
  for name, queue in pairs(q.queues) do
    local whole, n = { [1] = 0, [2] = 0 }, 0
    for _, p in pairs(queue.parties) do
      n = n + 1
      local complete = not p.seats and #p.tickets == p.size
      if p.listed ~= (complete or p.seats ~= nil) then wrong(self, "%s: a party is whole and not listed", name) end
      if complete and not p.admitted then wrong(self, "%s: a party is not answered", name) end
      if complete then whole[p.size] = whole[p.size] + 1 end
    end
    if n ~= queue.count then wrong(self, "%s: %d parties, %d counted", name, n, queue.count) end
    local one, two = whole[1], whole[2]
    -- Without form, a policy takes those who fit in the order they came: of singles and pairs it may miss the way to
    -- seat all.
    local more = name == "team" and (one == 0 and two >= 2 or two == 0 and one >= 4)
      or name ~= "team" and (two >= 1 or one >= 2)
    if more then wrong(self, "%s: %d single ones and %d parties wait for nothing", name, one, two) end
  end
end

-- Plays a seed; tickets: how many. Returns what went wrong (a list), how many tickets there were, and how many matches.
function M.play(seed, tickets)
  local env = support.env(seed)
  local self = setmetatable({
    env = env, rng = random.new(seed, "tickets"), failures = {}, tickets = {}, made = 0, most = tickets, tx = 0,
    asked = {}, clients = {}, by_id = {}, matches = {}, running = {}, formed = 0, turn = {}, on = {}, parties = 0,
    party_of = {}, text = {}, process = seed % 3 ~= 0, slow = seed % 4 == 1,
  }, Model)
  local read = sources.read
  sources.read = function(path) return sources.text(HEAD .. self.text[path]) end
  for _, name in ipairs(QUEUES) do self.text[name] = TEXTS[name][1] end
  local addr = core.addr.parse "203.0.113.1:1000"
  for i = 1, CLIENTS do
    local client = { id = ("%016d"):format(i), registered = true,
      addrs = addresses.pack(1, ("e"):rep(32), nil, nil, { addr }, {}) }
    self.clients[i], self.by_id[client.id] = client, client
  end
  new_server(self)
  while self.made < self.most do
    for _ = 1, between(self, 1, 6) do some_act(self) end
    advance(self, between(self, 1, 300))
  end
  for _, name in ipairs(QUEUES) do self.text[name] = TEXTS[name][1] end
  self.quiet = true
  advance(self, 3000)
  self.server.reload_policies()
  advance(self, 15000)
  check_quiet(self)
  for _, fn in ipairs(self.server.closers) do fn() end
  if self.link then self.link.close() end
  sources.read = read
  return self.failures, self.made, self.formed
end

return M
