-- SPDX-License-Identifier: MIT
-- Tells a game's backend of matches that were made: a signed POST each, from a process of its own, tried again for a
-- while. Nothing here waits for it; what it does not take in time is counted and logged.

local core = require "bodkin.core"

local M = {}
local Webhook = {}
Webhook.__index = Webhook

local WAITING_MAX = 1000                 -- matches that it has not been told of yet
local UNDER_WAY_MAX = 16                 -- requests at once
local ATTEMPTS = 8
local AGAIN_MS, AGAIN_MAX_MS = 1000, 60000 -- between two attempts, doubled each time
local TIMEOUT_MS = 5000                  -- of one
local PIECE = 1000                       -- bytes of a body in one message
local RESTART_MS = 1000

-- server; options: url, secret (bytes), open_link(on_message, on_end) -> link with send, close; see cli/webhook.lua.
function M.new(server, options)
  return setmetatable({
    server = server, env = server.env, url = options.url, secret = options.secret, open_link = options.open_link,
    ready = {}, first = 1, last = 0, under_way = {}, busy = 0, waiting = 0, serial = 0, timers = {},
  }, Webhook)
end

-- What says that a body is the server's, made at time t (s since 1970).
function M.signature(secret, t, body)
  return ("t=%d,v1=%s"):format(t, core.crypto.hex(core.crypto.hmac_sha256(secret, ("%d."):format(t) .. body)))
end

-- --- what is told
local UNFIT = {}

-- A value of a policy's as JSON has it; UNFIT where it has bytes that are no text.
local function plain(v, null)
  if v == core.wire.null then return null end
  if type(v) == "string" then return utf8.len(v) and v or UNFIT end
  if type(v) ~= "table" then return v end
  local out = {}
  for key, value in pairs(v) do
    out[key] = plain(value, null)
    if out[key] == UNFIT then return UNFIT end -- a key is text
  end
  return out
end

local order = { "match", "queue", "app", "at", "joined", "teams", "id", "name", "ticket", "host", "data", "data_b64" }

-- m: match, queue, app, players = { { id, name, ticket, team }, … }, host = id or nil, data, encoded = the same as
-- msgpack, joined = true: they join a match that was told of before.
function M.body(m, at)
  local json = require "dkjson" -- not every server has it
  local teams = {}
  for _, p in ipairs(m.players) do
    for i = #teams + 1, p.team do teams[i] = setmetatable({}, { __jsontype = "array" }) end
    table.insert(teams[p.team], { id = core.crypto.hex(p.id), name = utf8.len(p.name) and p.name or nil,
      ticket = core.crypto.hex(p.ticket) })
  end
  local out = { match = core.crypto.hex(m.match), queue = m.queue, app = m.app, at = at, teams = teams,
    joined = m.joined, host = m.host and core.crypto.hex(m.host) }
  local data = plain(m.data, json.null)
  if data == UNFIT then out.data_b64 = core.crypto.base64url(m.encoded) else out.data = data end
  return json.encode(out, { keyorder = order })
end

-- --- the process that posts
local pump

local function after(self, ms, fn)
  local timer
  timer = self.env.timer(ms, function()
    self.timers[timer] = nil
    fn()
  end)
  self.timers[timer] = true
end

local function push(self, job)
  self.last = self.last + 1
  self.ready[self.last] = job
end

-- What did not come about is tried again, or given up.
local function again(self, job, why)
  if job.attempts < ATTEMPTS then
    self.server.counters:add "webhook_again"
    return after(self, math.min(AGAIN_MS << job.attempts - 1, AGAIN_MAX_MS), function()
      push(self, job)
      pump(self)
    end)
  end
  self.waiting = self.waiting - 1
  self.server.counters:add "webhook_failed"
  self.server.log:error("the backend was not told of match %s: %s; given up after %d attempts", job.match, why,
    job.attempts)
end

local function ended(self, id, status, why)
  local job = self.under_way[id]
  if not job then return end
  self.under_way[id], self.busy = nil, self.busy - 1
  if status and status >= 200 and status < 300 then
    self.waiting = self.waiting - 1
    self.server.counters:add "webhook_posted"
  else
    why = status and ("it answered %d"):format(status) or why
    if job.attempts == 1 then self.server.log:warn("the backend was not told of match %s: %s", job.match, why) end
    again(self, job, why)
  end
  pump(self)
end

local function start(self)
  local link, err = self.open_link(function(message)
    if message[1] == "ended" then ended(self, table.unpack(message, 2, 4)) end
  end, function()
    if self.closed then return end
    self.link = nil
    local list = {}
    for _, job in pairs(self.under_way) do list[#list + 1] = job end
    table.sort(list, function(a, b) return a.n < b.n end)
    self.under_way, self.busy, self.paused = {}, 0, true
    for _, job in ipairs(list) do again(self, job, "the process that posts ended") end
    after(self, RESTART_MS, function()
      self.paused = false
      pump(self)
    end)
  end)
  self.link = link
  if link then return true end
  self.server.log:error("no process to tell the backend of matches: %s; it is tried again", err)
  self.paused = true
  after(self, RESTART_MS, function()
    self.paused = false
    pump(self)
  end)
  return false
end

function pump(self)
  while not self.paused and self.first <= self.last and self.busy < UNDER_WAY_MAX do
    if not self.link and not start(self) then return end
    local job = self.ready[self.first]
    self.ready[self.first] = nil
    self.first = self.first + 1
    job.attempts = job.attempts + 1
    self.serial = self.serial + 1
    self.under_way[self.serial], self.busy, job.n = job, self.busy + 1, self.serial
    for i = 1, #job.body, PIECE do self.link:send { "piece", self.serial, job.body:sub(i, i + PIECE - 1) } end
    local t = self.env.time and self.env.time() or self.env.now() // 1000000
    self.link:send { "post", self.serial, self.url, M.signature(self.secret, t, job.body), TIMEOUT_MS }
  end
end

-- A match was made; m: as in body.
function Webhook:matched(m)
  if self.waiting >= WAITING_MAX then
    self.server.counters:add "webhook_failed"
    if not self.is_full then self.server.log:error "too many matches wait for the backend; it is not told of more" end
    self.is_full = true
    return
  end
  self.is_full, self.waiting = false, self.waiting + 1
  local at = self.env.time and self.env.time() or self.env.now() // 1000000
  push(self, { match = core.crypto.hex(m.match), body = M.body(m, at), attempts = 0 })
  pump(self)
end

function Webhook:close()
  self.closed = true
  for timer in pairs(self.timers) do timer:cancel() end
  if self.link then self.link:close() end
  if self.waiting == 0 then return end
  self.server.counters:add("webhook_failed", self.waiting)
  self.server.log:error("the backend did not confirm %d matches: the server stops", self.waiting)
end

return M
