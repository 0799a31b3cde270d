-- SPDX-License-Identifier: MIT
-- Where policies run: in a process beside the server, or in the server's own (the simulator, the library). It is told
-- of tickets and when to look at them, and tells what the policies made of it. It decides nothing, and keeps nothing
-- that its owner could not send again: so it may be killed at any time.
--
-- Told:  { "file", version, name, chunkname, piece }     the text of a source's files, piece by piece
--        { "load", version, builtin | false }            does it load?
--        { "discard", version }
--        { "network", version, bytes }                   how likely NATs let each other through: see network.lua
--        { "add", queue, version, no, app, since_ms, members, asked, now_ms, seats | false }
--                                                members: { { props, claims (encoded), … }, … }, see instance.lua
--        { "wait", queue, no, app, since_ms, members, seats | false }   one that was admitted before; nothing is run
--        { "drop", queue, no }                           { "forget", queue }
--        { "tick", queue, version, serial, now_ms }
--        { "event", queue, version, name, what }         see pass.lua
--        { "explain", queue, serial, no, now_ms }        why does it wait?
--        { "ask", version, serial, id, app, name, props, claims }   may this client be registered?
--                                                claims, and there props, are encoded
--        { "search", version, serial, id, app, name, props, claims, query }   may it list that? query: encoded
--        { "state", queue | "*", i, of, piece }          what a policy's `state` was, for its next instance
--        { "renew", serial }                             from here on all is done by new instances, as after the same
--                                                messages "file", "load", "network", "state" and "wait" to another desk
-- Tells: { "loaded", version, about } | { "refused", version, message }
--        { "verdict", queue, no, true } | { "verdict", queue, no, false, text }
--        { "stumbled", queue, version, no, message }     admitting that ticket went wrong, where others went well
--        { "unfit", queue, version, no, text }           one admitted before is none that this version takes: it is not
--                                                seen, but kept for another version until it is dropped
--        { "match", queue, serial, teams, host | false, data, number of the running match that they join | nothing }
--        { "ticked", queue, serial, work, whole }        after the matches of that pass; whole: it got through all who
--                                                wait, with those before it
--        { "failed", queue, version, message, serial | false, no | nothing }     a run went wrong, of a pass or of the
--                                                admission of that ticket: the instance is closed
--        { "explained", queue, serial, said | false }
--        { "answered", serial, true, query where it is of a search } | { "answered", serial, false, text }
--        { "unanswered", serial, message }               asking went wrong: the instance is closed
--        { "said", queue | "*", line }                   printed by the policy, "*": when it was asked of a client
--        { "kept", queue | "*", i, of, piece }           its `state`, as it is now
--        { "unkept", queue | "*", version, message }     it cannot be kept
--        { "renewed", serial }

local instances = require "bodkin.policy.instance"

local M = {}
local Desk = {}
Desk.__index = Desk

local PIECE = 1000     -- bytes of a state in one message
local KEEP_MS = 10000  -- how often it is told, where it changed
local EMPTY = "\x80"   -- a state without anything in it
local WHY_MAX = 1000   -- bytes of an error, so that it can be told
-- A version that failed is tried with so much of the instructions of a run, until it got through all who wait; with
-- all from its fourth failure on, since one anchor may need them. So one that uses up what it is given keeps others
-- waiting for less.
local TRIALS = { 1 / 8, 1 / 4, 1 / 2 }

-- tell(message): the owner's ear; limits: see instance.lua.
function M.new(tell, limits)
  return setmetatable({
    tell = tell, limits = limits, sources = {}, queues = {}, registrar = { name = "*", tickets = {} },
    searcher = { tickets = {}, around = "bodkin.policy.search" }, -- without a state
  }, Desk)
end

local function cut(why)
  return #why <= WHY_MAX and why or why:sub(1, utf8.offset(why, 0, WHY_MAX + 1) - 1) .. " …"
end

local function source_of(self, version)
  local source = self.sources[version]
  if not source then
    source = { name = tostring(version), by_name = {} }
    self.sources[version] = source
  end
  return source
end

local on = {}

function on:file(version, name, chunkname, piece)
  local source = source_of(self, version)
  if name == "policy" then source.name = chunkname:gsub("^@", "") end
  local file = source.by_name[name]
  if not file then
    file = { name = name, chunkname = chunkname, pieces = {} }
    source.by_name[name] = file
    source.files = source.files or {}
    table.insert(source.files, file)
  end
  table.insert(file.pieces, piece)
end

function on:load(version, builtin)
  local source = source_of(self, version)
  if builtin then source.name = builtin end
  for _, file in ipairs(source.files or {}) do
    file.text, file.pieces = table.concat(file.pieces), nil
  end
  local about, err = instances.about(source, self.limits)
  if not about then return self.tell { "refused", version, cut(err) } end
  if about.kind == "policy" then
    self.tell { "loaded", version, about }
  else
    self.tell { "refused", version, instances.not_policy(source, about.kind) }
  end
end

local function close(q)
  if q.instance then q.instance:close() end
  q.instance, q.version = nil, nil
end

-- Takes the state of the instance at work, and tells it where it is another than before.
local function keep(self, q)
  local bytes, why = q.instance:state()
  if not bytes then
    if q.unkept ~= why then self.tell { "unkept", q.name, q.version, cut(why) } end
    q.unkept = why
    return
  end
  q.unkept = nil
  if bytes == (q.state or EMPTY) then return end
  q.state = bytes
  local of = (#bytes + PIECE - 1) // PIECE
  for i = 1, of do self.tell { "kept", q.name, i, of, bytes:sub((i - 1) * PIECE + 1, i * PIECE) } end
end

function on:discard(version)
  self.sources[version] = nil
  for _, q in pairs(self.queues) do q.failures[version], q.admits[version] = nil, nil end
  if self.searcher.version == version then close(self.searcher) end
  if self.registrar.version ~= version then return end
  keep(self, self.registrar)
  close(self.registrar)
end

local function said(self, name, q)
  for _, line in ipairs(q.instance and q.instance:said() or {}) do self.tell { "said", name, line } end
end

local function failed(self, name, q, version, err, serial, no)
  said(self, name, q)
  close(q)
  q.failures[version] = (q.failures[version] or 0) + 1
  self.tell { "failed", name, version, cut(err), serial or false, no }
end

-- An instance of a source, with that state, told what is known of NATs; or nil, message. around: see instance.lua.
local function instance_from(self, source, state, around)
  if not source then return nil, "there is no such version" end
  local instance, err = instances.new(source, self.limits, state, around)
  if instance and self.network then instance:network(self.network) end
  return instance, err
end

-- Its version is for whoever reads a recording: what counts is the order of messages.
function on:network(_, bytes)
  self.network = bytes
  for _, q in pairs(self.queues) do
    if q.instance then q.instance:network(bytes) end
  end
  for _, asked in ipairs { self.registrar, self.searcher } do
    if asked.instance then asked.instance:network(bytes) end
  end
end

-- The queue's tickets by number, in order.
local function in_order(q)
  local list = {}
  for _, ticket in pairs(q.tickets) do list[#list + 1] = ticket end
  table.sort(list, function(a, b) return a.no < b.no end)
  return list
end

-- The instance of this version with every ticket in it; nil, message when it fails.
local function instance_of(self, q, version, now_ms)
  if q.version == version then return q.instance end
  if q.instance and not q.around then keep(self, q) end
  close(q)
  local instance, err = instance_from(self, self.sources[version], q.state, q.around)
  if not instance then return nil, err end
  q.instance, q.version, q.kept_ms = instance, version, now_ms
  local part = q.failures and TRIALS[q.failures[version]]
  if part then instance.sandbox:share(part) end
  for _, ticket in ipairs(in_order(q)) do
    local ok, why = instance:add(ticket, true, now_ms)
    if ok == nil then return nil, why end
    if not ok then self.tell { "unfit", q.name, version, ticket.no, why } end
  end
  return instance
end

local function queue_of(self, name)
  local q = self.queues[name]
  if not q then
    -- By version: how often it failed since it got through all who wait; whether it let anybody in.
    q = { name = name, tickets = {}, failures = {}, admits = {} }
    self.queues[name] = q
  end
  return q
end

function on:add(name, version, no, app, since_ms, members, asked, now_ms, seats)
  local q = queue_of(self, name)
  local ticket = { no = no, app = app, since_ms = since_ms, members = members, seats = seats }
  local instance, err = instance_of(self, q, version, now_ms)
  local ok, code = nil, nil
  if instance then ok, err, code = instance:add(ticket, asked, now_ms) end
  if ok or asked then q.tickets[no] = ticket end -- one that was admitted waits, whatever fails
  -- One client whose properties it does not bear is not to close a queue that others get into.
  local alone = ok == nil and not asked and code == "invalid" and q.admits[version]
  if ok == nil and not alone then return failed(self, name, q, version, err, nil, no) end
  said(self, name, q)
  if alone then return self.tell { "stumbled", name, version, no, cut(err) } end
  if ok and not asked and not seats then q.admits[version] = true end
  if not asked then
    self.tell { "verdict", name, no, ok, err }
  elseif not ok then
    self.tell { "unfit", name, version, no, err }
  end
end

function on:wait(name, no, app, since_ms, members, seats)
  queue_of(self, name).tickets[no] = { no = no, app = app, since_ms = since_ms, members = members, seats = seats }
end

function on:drop(name, no)
  local q = self.queues[name]
  if not q or not q.tickets[no] then return end
  q.tickets[no] = nil
  if q.instance and not q.instance:drop(no) then close(q) end
end

function on:forget(name)
  if self.queues[name] then close(self.queues[name]) end
  self.queues[name] = nil
end

function on:tick(name, version, serial, now_ms)
  local q = queue_of(self, name)
  local instance, err = instance_of(self, q, version, now_ms)
  local matches, whole
  if instance then
    matches, whole = instance:tick(now_ms)
    err = whole
  end
  if not matches then return failed(self, name, q, version, err, serial) end
  if whole and q.failures[version] then
    q.failures[version] = nil
    instance.sandbox:share(1)
  end
  local work = instance.sandbox:spent() -- before anything that these lead to is told in return
  said(self, name, q)
  for _, match in ipairs(matches) do self.tell { "match", name, serial, table.unpack(match, 1, 4) } end
  self.tell { "ticked", name, serial, work, whole }
  if not q.instance or now_ms - q.kept_ms < KEEP_MS then return end
  q.kept_ms = now_ms
  keep(self, q)
end

-- Only the version at work hears of it: what another one remembers is not its concern.
function on:event(name, version, event, what)
  local q = self.queues[name]
  if not q or not q.instance or q.version ~= version then return end
  local ok, err = q.instance:event(event, what)
  if not ok then return failed(self, name, q, version, err) end
  said(self, name, q)
end

function on:explain(name, serial, no, now_ms)
  local q = self.queues[name]
  local told, err
  if q and q.instance then told, err = q.instance:explain(no, now_ms) end
  if err then close(q) end -- it is made anew with the next pass, which will show what is wrong
  self.tell { "explained", name, serial, told or false }
end

-- Clients are asked about in an instance of its own: what goes wrong there is no queue's concern. asked: where it is
-- kept; ask(instance) -> as register and search of instance.lua.
local function put(self, asked, version, serial, ask)
  local instance, err = instance_of(self, asked, version, 0)
  if not instance then return self.tell { "unanswered", serial, cut(err) } end
  local ok, what = ask(instance)
  said(self, "*", asked)
  if ok ~= nil then return self.tell { "answered", serial, ok, what } end
  close(asked)
  self.tell { "unanswered", serial, cut(what) }
end

function on:ask(version, serial, id, app, name, props, claims)
  put(self, self.registrar, version, serial, function(instance)
    return instance:register { id = id, app = app, name = name, props = props, claims = claims }
  end)
end

function on:search(version, serial, id, app, name, props, claims, query)
  put(self, self.searcher, version, serial, function(instance)
    return instance:search({ id = id, app = app, name = name, props = props, claims = claims }, query)
  end)
end

function on:state(name, i, of, piece)
  local q = name == "*" and self.registrar or queue_of(self, name)
  if i == 1 then q.pieces = {} end
  q.pieces[i] = piece
  if i == of then q.state, q.pieces = table.concat(q.pieces), nil end
end

-- Nothing that an instance remembers goes on, but its state: so a record of all messages can begin here.
function on:renew(serial)
  local names = {}
  for name in pairs(self.queues) do names[#names + 1] = name end
  table.sort(names)
  for _, name in ipairs(names) do
    local q = self.queues[name]
    if q.instance then keep(self, q) end
    close(q)
    q.unkept, q.failures, q.admits = nil, {}, {}
  end
  if self.registrar.instance then keep(self, self.registrar) end
  close(self.registrar)
  self.registrar.unkept = nil
  close(self.searcher)
  self.tell { "renewed", serial }
end

function Desk:input(message)
  local handler = on[message[1]]
  if handler then handler(self, table.unpack(message, 2, 10)) end
end

function Desk:close()
  for _, q in pairs(self.queues) do close(q) end
  close(self.registrar)
  close(self.searcher)
  self.queues = {}
end

return M
