-- SPDX-License-Identifier: MIT
-- Which version of which policy serves a queue, and the desk where it runs: in this process, or behind a link in
-- another, which may die at any time and is then told everything again.
--
-- A version that fails (an error, a budget, a result that is not one) is set aside for a while, twice as long each
-- time; the last good version before it, else first_come, serves meanwhile, beginning with the next pass. But where it
-- says who may wait, first_come does not say so in its place. One ticket that it fails to admit, where it let another
-- in before, is refused, and that is all.

local desks = require "bodkin.policy.desk"
local instances = require "bodkin.policy.instance"
local links = require "bodkin.policy.link"
local questions = require "bodkin.servers.questions"
local recordings = require "bodkin.servers.recording"
local sources = require "bodkin.policy.source"

local M = {}
local Policies = {}
Policies.__index = Policies

local TEXT_MAX = 40                      -- of a refusal
local UNTELLABLE = "its properties nest too deep"
local FAILED = "the policy failed: try again in a while"
local PIECE = 1000                       -- bytes of a file in one message
local PAUSE_MS, PAUSE_MAX_MS = 1000, 60000
local APART_MS = 250                     -- between two that are tried again
local LINES_MAX = 5                      -- a second, about clients that a policy failed at
local PATIENCE_MS = 2000                 -- for a pass in the other process; its budget takes a tenth of that …
local PATIENCE_EACH_MS = 0.25            -- … and for each ticket that a new instance may have to be told of first
local AGAIN_MS, AGAIN_MAX_MS = 50, 5000  -- between two starts of that process …
local WATCH_MS = 1000
local UNSTARTED_MS = 250                 -- … and two attempts when none could be started

-- Reads and tries what options.queues names: { [queue or "*"] = { policy = path or source } }. Returns
-- { [queue or "*"] = { path =, source =, about = } }, or nil, message, code.
function M.read(queues)
  local slots = {}
  for key, given in pairs(queues or {}) do
    local source, msg, code = given.policy, nil, nil
    if type(source) ~= "table" then source, msg, code = sources.read(source) end
    if not source then return nil, msg, code end
    local about
    about, msg, code = instances.about(source)
    if not about then return nil, "the policy does not load: " .. msg, code end
    if about.kind ~= "policy" then
      return nil, instances.not_policy(source, about.kind), "invalid"
    end
    slots[key] = { key = key, path = type(given.policy) == "string" and given.policy, source = source, about = about }
  end
  return slots
end

-- What a policy gave as its reason, cut between characters, or `otherwise` where that is no text.
function M.reason(text, otherwise)
  text = tostring(text)
  if text == "" or not utf8.len(text) then return otherwise end
  return #text <= TEXT_MAX and text or text:sub(1, utf8.offset(text, 0, TEXT_MAX + 1) - 1)
end

local function ms(self) return self.server.env.now() // 1000 end

-- --- the desk
-- What tells of a version, added to a list.
local function version_messages(v, list)
  for _, file in ipairs(v.source.files or {}) do
    for at = 1, math.max(#file.text, 1), PIECE do
      list[#list + 1] = { "file", v.n, file.name, file.chunkname, file.text:sub(at, at + PIECE - 1) }
    end
  end
  list[#list + 1] = { "load", v.n, not v.source.files and v.source.name or false }
  return list
end

-- And what is known of NATs.
local function all_versions(self)
  local versions, list = {}, {}
  for _, v in pairs(self.versions) do versions[#versions + 1] = v end
  table.sort(versions, function(a, b) return a.n < b.n end)
  for _, v in ipairs(versions) do version_messages(v, list) end
  list[#list + 1] = self.of_network
  return list
end

-- True, or nil where nobody is there to be told, or message, code: why it cannot be.
local function send(self, message, versions)
  if not self.desk and not self.link then return nil end
  local packed, err, code = links.pack(message)
  if not packed then return nil, err, code end
  self.recording:told(message, packed, versions)
  self.depth = self.depth + 1
  if self.desk then self.desk:input(message) else self.link:send(message, packed) end
  self.depth = self.depth - 1
  -- Not from within what the desk in this process is about to do.
  if self.depth > 0 or not self.recording:is_full() then return true end
  self.renewals = self.renewals + 1
  send(self, { "renew", self.renewals }, all_versions(self))
  return true
end

local function tell(self, list)
  for _, message in ipairs(list) do send(self, message) end
end

local function tell_version(self, v) tell(self, version_messages(v, {})) end

local function new_version(self, slot, source)
  self.count = self.count + 1
  local v = { n = self.count, slot = slot, source = source, until_ms = 0, pause_ms = 0 }
  self.versions[v.n] = v
  return v
end

-- When a version is tried again: at a time of its own, so that nobody waits for two that fail.
local function trial_ms(self, v)
  local at, moved = ms(self) + v.pause_ms, true
  while moved do
    moved = false
    for _, other in pairs(self.versions) do
      if other ~= v and math.abs(other.until_ms - at) < APART_MS then at, moved = other.until_ms + APART_MS, true end
    end
  end
  return at
end

-- Sets a version aside.
local function blame(self, v, why)
  if v == self.first_come then return end
  self.server.counters:add "policy_failed"
  v.pause_ms = math.min(math.max(v.pause_ms * 2, PAUSE_MS), PAUSE_MAX_MS)
  v.until_ms = trial_ms(self, v)
  local instead = self:serving(v.slot)
  self.server.log:error("policy %s failed: %s; %s serves, it is tried again in %d s", v.source.name, why,
    instead == self.first_come and "first_come" or "the version before it", (v.until_ms - ms(self)) // 1000)
end

function Policies:blame(n, why)
  local v = self.versions[n]
  if v then blame(self, v, why) end
end

local on = {}

function on.loaded(self, n, about)
  local v = self.versions[n]
  if not v then return end
  v.about = about
  local slot = v.slot
  if not slot or slot.loading ~= v then return end
  slot.loading, slot.current = nil, v
  for other_n, other in pairs(self.versions) do
    if other.slot == slot and other ~= v and other ~= slot.good then
      self.versions[other_n] = nil
      send(self, { "discard", other_n })
    end
  end
  self.server.log:info("policy %s: loaded, it serves %s", v.source.name,
    slot.key == "*" and "every queue without its own" or "the queue " .. slot.key)
end

function on.refused(self, n, why)
  local v = self.versions[n]
  if not v then return end
  local slot = v.slot
  if slot and slot.loading == v then
    slot.loading, self.versions[n] = nil, nil
    self.server.counters:add "policy_failed"
    local at = why:find(v.source.name .. ":", 1, true) == 1 and "" or v.source.name .. ": "
    self.server.log:error("policy %s%s; the version before it stays", at, why)
  else
    blame(self, v, why)
  end
end

function on.verdict(self, queue, no, ok, text) self.on.verdict(queue, no, ok, text) end

-- Any client can bring about as many of these lines as it likes.
local function may_say(self)
  local second = ms(self) // 1000
  if second ~= self.lines.second then self.lines = { second = second, count = 0 } end
  self.lines.count = self.lines.count + 1
  return self.lines.count <= LINES_MAX
end

function on.stumbled(self, queue, n, no, why)
  local v = self.versions[n]
  self.server.counters:add "policy_failed"
  if may_say(self) then
    local name = v and v.source.name or "?"
    self.server.log:error("queue %s: policy %s failed: %s; that ticket is refused", queue, name, why)
  end
  self.on.verdict(queue, no, false, FAILED)
end

-- What the version does not take that is to serve, it will never take. One that serves in its place does not count.
function on.unfit(self, queue, n, no, text)
  local v = self.versions[n]
  if v and v.slot and v.slot.current == v then self.on.unfit(queue, no, text) end
end

function on.match(self, queue, serial, teams, host, data, joins)
  local pass = self.passes[queue]
  if pass and pass.serial == serial then self.on.match(queue, pass.version, teams, host or nil, data, joins) end
end

local function end_pass(self, queue)
  local pass = self.passes[queue]
  self.passes[queue] = nil
  if pass and pass.timer then pass.timer:cancel() end
  return pass
end

function on.ticked(self, queue, serial, _, whole)
  local pass = self.passes[queue]
  if not pass or pass.serial ~= serial then return end
  end_pass(self, queue)
  local v = pass.version
  if v.until_ms > ms(self) then return end -- it was blamed for what it told
  if not whole then return end -- what it fails at may be yet to come
  v.pause_ms = 0
  if v.slot and v.slot.current == v then v.slot.good = v end
end

function on.failed(self, queue, n, why, serial)
  if serial then end_pass(self, queue) end
  local v = self.versions[n]
  if v and v.until_ms <= ms(self) then blame(self, v, why) end
  if not serial then self.on.ask_again(queue) end
end

function on.unkept(self, queue, n, why)
  local v = self.versions[n]
  self.server.log:warn("policy %s: %s%s; what was kept before stays", v and v.source.name or "?", why,
    queue == "*" and "" or " (queue " .. queue .. ")")
end

function on.explained(self, _, serial, said)
  local done = self.explaining[serial]
  self.explaining[serial] = nil
  if done then done(said or nil) end
end

function on.said(self, queue, line)
  local of = queue == "*" and "of a client" or "queue " .. queue
  self.server.log:info("%s: its policy says: %s", of, line)
end

function on.answered(self, serial, ok, text)
  self.questions:answered(serial, ok, ok and text or M.reason(text, "the server does not admit you"))
end

-- Who asked is refused, and nobody else is the worse for it: the version is not set aside, or one client whose
-- properties it does not bear could keep all others out.
function on.unanswered(self, serial, why)
  self.server.counters:add "policy_failed"
  local asked = self.questions.asked
  local name = asked and asked.serial == serial and asked.client.query and "on_search" or "on_register"
  if may_say(self) then self.server.log:error("%s failed: %s; the client is refused", name, why) end
  self.questions:answered(serial, false)
end

-- --- the process
local start

local function start_in(self, ms_to_go)
  self.timer = self.server.env.timer(ms_to_go, function()
    self.timer = nil
    start(self)
  end)
end

local function ended(self)
  if self.closed then return end
  self.link = nil
  self.questions:lost()
  local explaining = self.explaining
  self.explaining = {}
  for _, done in pairs(explaining) do done(nil) end
  self.server.counters:add "policy_restarted"
  local again_ms = self.again_ms
  self.again_ms = math.min(again_ms * 2, AGAIN_MAX_MS)
  self.server.log:warn("the policy process ended; it is started again in %d ms, no ticket is lost", again_ms)
  local late = {}
  for queue, pass in pairs(self.passes) do late[#late + 1] = { queue = queue, pass = pass } end
  for _, l in ipairs(late) do
    end_pass(self, l.queue)
    -- Who was looking at a queue when the process died may be why.
    if l.pass.version.until_ms <= ms(self) then blame(self, l.pass.version, "its process ended in a pass") end
  end
  start_in(self, again_ms)
end

local function tell_all(self)
  self.recording:begin()
  tell(self, all_versions(self))
  for _, pieces in ipairs(self.recording:kept()) do tell(self, pieces) end
end

local function heard(self, message, packed)
  self.recording:heard(message, packed or links.pack(message))
  local handler = on[message[1]]
  if handler then handler(self, table.unpack(message, 2, 8)) end
end

function start(self)
  local link, err = self.open_link(function(...) heard(self, ...) end, function() ended(self) end)
  if not link then
    if self.unstarted ~= err then self.server.log:error("no policy process: %s; it is tried again", err) end
    self.unstarted = err
    return start_in(self, UNSTARTED_MS)
  end
  if self.unstarted then self.server.log:info "there is a policy process again" end
  self.link, self.unstarted = link, nil
  tell_all(self)
  self.on.resend()
  self.questions:resume()
end

-- Tells the question; see questions.lua for what is returned.
local function ask(self, serial, client)
  local v = client.query and self:searcher() or not client.query and self:registrar()
  if not v then return "free" end
  if not self.desk and not self.link then return "later" end
  local message = { client.query and "search" or "ask", v.n, serial, client.id, client.app, client.name, client.props,
    client.claims, client.query }
  return send(self, message) and "asked" or "refused"
end

-- --- files that change
-- Loads what sources.read gave; what does not load changes nothing.
local function take(self, slot, source, err)
  if not source then
    self.server.counters:add "policy_failed"
    self.server.log:error("%s; the version before it stays", err)
  else
    slot.loading = new_version(self, slot, source)
    tell_version(self, slot.loading)
  end
end

-- All of a source's text, or why there is none.
local function content(source, err)
  local parts = {}
  for _, file in ipairs(source and source.files or {}) do
    parts[#parts + 1] = ("%s %d\n%s"):format(file.chunkname, #file.text, file.text)
  end
  return source and table.concat(parts) or "! " .. err
end

-- Reads all files each second, and loads what is another than what was loaded or tried last: once it has been so for
-- a second, since who writes a file may not be done.
local function watch(self)
  self.watching = self.server.env.timer(WATCH_MS, function()
    self.watching = nil
    for _, slot in pairs(self.slots) do
      if slot.path then
        local source, err = sources.read(slot.path)
        local now = content(source, err)
        if now ~= slot.content and now == slot.before then
          slot.content = now
          take(self, slot, source, err)
        end
        slot.before = now
      end
    end
    watch(self)
  end)
end

-- server; slots: what read gave; on = { verdict(queue, no, ok, text), unfit(queue, no, text): one that was admitted is
-- not taken any more, match(queue, version, teams, host, data, joins), resend() all tickets again, ask_again(queue):
-- verdicts that are still awaited }; on_record(text, begins): all that is recorded, as it comes, see recording.lua;
-- watch = true: files that change are read again; open_link(on_message, on_end) -> link with send, kill, close: for a
-- process beside this one.
function M.new(options)
  local self = setmetatable({
    server = options.server, on = options.on, open_link = options.open_link, slots = options.slots, versions = {},
    count = 0, passes = {}, lines = {}, serial = 0, again_ms = AGAIN_MS, renewals = 0, depth = 0,
    explaining = {}, explains = 0,
  }, Policies)
  local env = self.server.env
  self.recording = recordings.new {
    max_bytes = self.server.limits.recording, on_text = options.on_record,
    time = function() return env.time and env.time() or env.now() // 1000000 end,
  }
  self.questions = questions.new {
    env = self.server.env, ask = function(...) return ask(self, ...) end,
    kill = function()
      if not self.link then return self.questions:lost() end -- in this process it could not tell what it has to
      self.server.log:warn("the policy process does not answer: it is killed")
      self.link:kill()
    end,
  }
  self.first_come = new_version(self, nil, { name = "first_come" })
  self.first_come.about = { kind = "policy", size = { 2, 2 }, window_ms = 100 }
  local keys = {}
  for key in pairs(self.slots) do keys[#keys + 1] = key end
  table.sort(keys)
  for _, key in ipairs(keys) do
    local slot = self.slots[key]
    slot.current = new_version(self, slot, slot.source)
    slot.current.about, slot.content = slot.about, content(slot.source)
  end
  if self.open_link then
    if next(keys) then start(self) end -- else with the first ticket
  else
    self.desk = desks.new(function(message)
      local packed = links.pack(message)
      if packed then heard(self, message, packed) end -- as a process could not tell it either
    end)
    tell_all(self)
  end
  if options.watch then watch(self) end
  return self
end

-- The version whose turn it is.
function Policies:serving(slot)
  local now = ms(self)
  local v = slot and slot.current
  if v and v.until_ms <= now then return v end
  v = slot and slot.good
  if v and v.until_ms <= now then return v end
  return self.first_come
end

local function version_for(self, queue)
  return self:serving(self.slots[queue] or self.slots["*"])
end

function Policies:window_ms(queue) return version_for(self, queue).about.window_ms end

-- What the policy of a queue declares, also while another version serves.
function Policies:about(queue)
  local slot = self.slots[queue] or self.slots["*"]
  return (slot and slot.current or self.first_come).about
end

-- Why no party of this size can wait in a queue, or nil: its first ones need not wait for the last to hear that.
function Policies:too_large(queue, size)
  local most = self:about(queue).party or 1
  if size <= most then return nil end
  return most == 1 and "no parties here" or ("at most %d in a party here"):format(most)
end

-- Tells a hook of the version given, or of the one whose turn it is; what: see pass.lua.
function Policies:event(queue, name, what, version)
  version = version or version_for(self, queue)
  local hooks = version.about.hooks
  if hooks and hooks[name] then send(self, { "event", queue, version.n, name, what }) end
end

-- Tells of a ticket { no, app, since_ms, members, admitted, seats }: members and seats as in instance.lua.
function Policies:add(queue, t)
  if not self.desk and not self.link and not self.timer then return start(self) end
  local version = version_for(self, queue)
  local is_new = not t.admitted and not t.seats
  if is_new and version == self.first_come and self:about(queue).gated then
    return self.on.verdict(queue, t.no, false, FAILED)
  end
  local ok, err = send(self, { "add", queue, version.n, t.no, t.app, t.since_ms, t.members, t.admitted or false,
    ms(self), t.seats or false })
  if ok or not err then return end
  self.server.log:warn("queue %s: a ticket is refused, its policy cannot be told of it: %s", queue, err)
  self.on.verdict(queue, t.no, false, UNTELLABLE)
end

function Policies:drop(queue, no) send(self, { "drop", queue, no }) end

function Policies:forget(queue)
  self.recording:forget(queue)
  send(self, { "forget", queue })
end

-- Asks why a ticket waits. done(said): see instance.lua; nil where that is not known now.
function Policies:explain(queue, no, done)
  if not self.desk and not self.link then return done(nil) end
  self.explains = self.explains + 1
  self.explaining[self.explains] = done
  send(self, { "explain", queue, self.explains, no, ms(self) })
end

-- How likely NATs let each other through, as bytes: see policy/network.lua.
function Policies:network(version, bytes)
  self.of_network = { "network", version, bytes }
  send(self, self.of_network)
end

-- Asks for a pass, unless one is under way.
function Policies:tick(queue)
  if self.passes[queue] or not self.desk and not self.link then return end
  self.serial = self.serial + 1
  local pass = { serial = self.serial, version = version_for(self, queue) }
  self.passes[queue] = pass
  if self.link then
    local patience_ms = PATIENCE_MS + math.floor(self.recording.tickets * PATIENCE_EACH_MS)
    pass.timer = self.server.env.timer(patience_ms, function()
      pass.timer = nil
      self.server.log:warn("the policy process does not answer: it is killed")
      self.link:kill()
    end)
  end
  send(self, { "tick", queue, pass.version.n, pass.serial, ms(self) })
  if not self.passes[queue] then self.again_ms = AGAIN_MS end
end

-- The version that is asked about clients, or nil: the newest that loaded for every queue without its own. None
-- before it, which may be laxer, takes its place.
function Policies:registrar()
  local slot = self.slots["*"]
  return slot and slot.current.about.on_register and slot.current or nil
end

-- The version that is asked what clients may list, or nil, likewise.
function Policies:searcher()
  local slot = self.slots["*"]
  return slot and slot.current.about.on_search and slot.current or nil
end

-- May a client { id, app, name, props, claims } be registered or, with query (encoded), list that? Then done gets the
-- query in its place. See Questions:put.
function Policies:allow(client, done) return self.questions:put(client, done) end
function Policies:disregard(question) self.questions:cancel(question) end

-- Reads every file again.
function Policies:reload()
  for _, slot in pairs(self.slots) do
    if slot.path then take(self, slot, sources.read(slot.path)) end
  end
end

function Policies:close()
  self.closed = true
  for queue in pairs(self.passes) do
    local pass = self.passes[queue]
    if pass.timer then pass.timer:cancel() end
  end
  self.questions:close()
  if self.timer then self.timer:cancel() end
  if self.watching then self.watching:cancel() end
  if self.link then self.link:close() end
  if self.desk then self.desk:close() end
end

return M
