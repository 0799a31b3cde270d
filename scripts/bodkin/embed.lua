-- SPDX-License-Identifier: MIT
-- The Lua half of bodkin.h: commands come in from C once an update, events go out to its queue. The node is
-- opened by the first update and, where that failed, once more by the next command that needs it.

local core = require "bodkin.core"
local task = require "bodkin.task"
local node = require "bodkin.client.node"
local outcome = require "bodkin.outcome"
local url = require "bodkin.url"

local M = {}
local Embed = {}
Embed.__index = Embed

local function check(options)
  for _, name in ipairs { "server", "address_server", "maintenance_server" } do
    if name == "server" or options[name] then
      local parse = name == "address_server" and url.parse_address or name == "server" and url.list or url.parse
      local ok, err = parse(options[name])
      if not ok then error(name .. ": " .. err, 0) end
    end
  end
  if options.bind and not core.addr.parse(options.bind, 0) then
    error(("bind: %q is no address; give ADDR:PORT in numbers"):format(options.bind), 0)
  end
end

local function props_of(text)
  if not text then return nil end
  local value, _, err = require("dkjson").decode(text)
  if type(value) ~= "table" or (#value > 0) then
    error(("props: %s is no JSON object%s"):format(text, err and ": " .. err or ""), 0)
  end
  return value
end

-- `host`: emit(event), log(line), random(n) or nil. Throws a sentence where the options are not valid.
function M.new(options, host)
  check(options)
  options.props = props_of(options.props)
  local self = setmetatable({ options = options, host = host, waiting = {} }, Embed)
  self.loop = core.loop {}
  options.env = require("bodkin.env").new {
    loop = self.loop, log = core.logger { level = options.log_level, sink = host.log }, random = host.random,
  }
  options.on_event = function(e, match) self:on_event(e, match) end
  return self
end

function Embed:on_event(e, match)
  -- Messages go to C's queue alone. One stands in the match's, so this does not wait.
  if e.event == "message" then match:messages()() end
  if match and not e.match then e.match = match.id end
  if e.event == "matched" and e.data ~= nil and type(e.data) ~= "string" then e.data = core.wire.encode(e.data) end
  if e.event == "error" then
    local known = core.errors[e.code]
    e.error = known and known.value or core.errors.invalid.value
  end
  self.host.emit(e)
end

function Embed:fail(message, code, hint)
  self:on_event { event = "error", code = code or "invalid", message = message, hint = hint }
end

function Embed:open()
  self.opening = true
  local opened, err, code = node.open(self.options)
  self.opening = false
  local waiting = self.waiting
  self.waiting = {}
  if self.closed then
    if opened then opened:close() end
  elseif opened then
    self.node = opened
    for _, fn in ipairs(waiting) do task.spawn(fn, opened) end
  else
    self:fail(err, code, "the next bdk_host, bdk_join or bdk_match tries again")
  end
end

-- Runs fn(node), a task, as soon as there is one.
function Embed:with_node(fn)
  if self.node then return task.spawn(fn, self.node) end
  table.insert(self.waiting, fn)
  if not self.opening then task.spawn(self.open, self) end
end

function Embed:begin(verb, ...)
  local arguments = table.pack(...)
  self:with_node(function(opened)
    local ok, err, code = opened[verb](opened, table.unpack(arguments, 1, arguments.n))
    if not ok and not self.closed then self:fail(err, code) end
  end)
end

local function match_of(self, id)
  return self.node and self.node.matches[core.crypto.unhex(id)]
end

local commands = {}

function commands.open(self) self:with_node(function() end) end

function commands.host(self, code) self:begin("host", { code = code }) end

function commands.join(self, where) self:begin("join", where) end

-- party: its size, a byte, and its name; or nil.
function commands.match(self, queue, props, party)
  local ok, value = pcall(props_of, props)
  if not ok then return self:fail(value) end
  local options = {}
  if party then options.party = { id = party:sub(2), size = party:byte() } end
  self:begin("match", queue, value or {}, options)
end

-- What there is to answer, or to take back, may be over by now.
for _, verb in ipairs { "cancel", "accept", "decline" } do
  commands[verb] = function(self, ticket)
    if self.node then self.node[verb](self.node, ticket) end
  end
end

-- A peer may be gone by now: then this is one more datagram lost.
function commands.send(self, id, peer, data)
  local match = match_of(self, id)
  if match then match:send(data, peer) end
end

function commands.leave(self, id)
  local match = match_of(self, id)
  if match then task.spawn(match.leave, match) end
end

function Embed:run(command, ...)
  commands[command](self, ...)
end

-- matches, sessions, registered, and the counters that bodkin.h shows.
function Embed:stats()
  local stats = self.node and self.node:stats() or { matches = 0, sessions = 0, registered = false }
  local counters, dropped = self.options.env.counters, 0
  for _, c in ipairs(counters:all()) do
    if c.name:find("^drop_") then dropped = dropped + c.value end
  end
  local function carried(name) return counters:get("udp_" .. name) + counters:get("tcp_" .. name) end
  return stats.matches, stats.sessions, stats.registered and 1 or 0, carried "rx", carried "tx", carried "rx_bytes",
    carried "tx_bytes", dropped
end

-- What became of matches, as `bodkin why --json` prints it: a line for each peer, or for those that id means (see
-- Node:why); nil: all. Text.
function Embed:why(id)
  local lines = {}
  for i, r in ipairs(self.node and self.node:why(id) or {}) do lines[i] = outcome.line(r) end
  return table.concat(lines)
end

-- Outside of a task: what the peers and the server are told leaves at once, and nobody waits for an answer.
function Embed:close()
  self.closed = true
  if self.node then self.node:close() end
  self.options.env.close()
  self.loop:close()
end

return M
