-- SPDX-License-Identifier: MIT
-- What `host`, `join`, `match` and `tunnel` share: a node whose events are printed, lines from stdin to the peers, and
-- when to leave with which exit code. A carrier takes the place of the lines: it has the methods matched(match),
-- connected(peer), message(peer, data), closed(peer), useful(peer) (false: nothing can be done with it) and close().

local output = require "bodkin.cli.output"
local process = require "bodkin.cli.process"
local task = require "bodkin.task"

local M = {}
local Talk = {}
Talk.__index = Talk

-- Lines typed before anybody was connected.
local waiting_max = 256
-- After the last message expected, so that the peer hears ours.
local linger_ms = 1000
local payload_max = 1120

function M.open_options(options, env, on_event)
  local timeout_ms = options.timeout and math.min(options.timeout * 1000, 5000) or nil
  return {
    env = env, register = "together", server = options.server, address_server = options.address_server,
    maintenance_server = options.maintenance_server, app = options.app, name = options.name, props = options.props,
    bind = options.bind, virtual = options.virtual ~= nil, timeout_ms = timeout_ms, on_event = on_event,
    trace = options.tracer, identity = options.identity, token = options.token,
    trust_first_use = options.trust_first_use ~= nil,
    accept = (options.decline or options.accept == "ask") and "ask" or nil,
  }
end

-- --trace: a function that writes a line, or nil, message, code. Nobody else may read the keys in it. What comes after
-- a line that could not be written is of no use to replay.
local function tracer(path, out)
  -- A file that is there may be open to others, so another takes its place. A device or a pipe stays.
  local command = "umask 077; { [ -e '%s' ] && [ ! -f '%s' ]; } || { rm -f -- '%s'; set -C; : >'%s'; } 2>/dev/null"
  os.execute((command:gsub("%%s", { ["%s"] = path:gsub("'", [['\'']]) })))
  local file, err = io.open(path, "a")
  if not file then return nil, ("cannot write the trace: %s; is the directory there?"):format(err), "invalid" end
  return function(line)
    if not file then return end
    local ok, why = file:write(line, "\n")
    if ok then ok, why = file:flush() end
    if ok then return end
    file:close()
    file = nil
    out:say("the trace ends here: %s", why)
  end
end

-- Ends the command; the first call counts.
function Talk:finish(...)
  if self.result then return end
  self.result = table.pack(...)
  if self.wake then self.wake() end
end

function Talk:send(text, peer)
  local ok, err, code = self.match:send(text, peer)
  if not ok then self.out:detail("not sent (%s): %s", tostring(code), tostring(err)) end
end

-- Whether somebody is there, or still to come, with whom there is something to do.
function Talk:alive()
  local carrier, peers = self.carrier, self.match and self.match:peers() or {}
  for _, peer in ipairs(peers) do
    if not peer.reason and (not carrier or carrier:useful(peer.id)) then return true end
  end
  return carrier ~= nil and self.match ~= nil and #peers < self.match.of_n - 1
end

-- The carrier has no use for a peer: no harm while there are others. Whoever hosts waits for them.
function Talk:misfit(message, code)
  if self:alive() then return self.out:detail("%s", message) end
  if not self.hosting then return self:finish(nil, message, code) end
  self.out:event("error", { code = code, message = message })
end

-- The verdict once nobody is left.
function Talk:deserted(reason)
  if self.done_waiting then return end
  local expect = self.options.expect
  if reason == "no_path" and not self.ever then
    self:finish(nil, "no path to the peer worked", "no_path")
  elseif expect then
    self.out:say("the peer is gone after %d of %d messages", self.count, expect)
    self:finish(3)
  elseif not self.hosting then
    if reason == "left" or reason == "closed" then return self:finish(0) end
    self:finish(nil, "the peer is gone: " .. output.reason(reason), reason == "no_path" and "no_path" or "closed")
  end
end

local on = {}

function on.queued(self)
  self.queued, self.asked = true, nil
end

function on.proposed(self, e)
  if self.options.decline then return self.node:decline(e.ticket) end
  if self.options.accept ~= "ask" then return end
  self.asked = e.ticket
  self.out:say("accept it? y or n")
  self:read_stdin()
end

function on.matched(self, _, match)
  self.asked = nil
  self.match = self.match or match
  self.met = true
  if self.carrier then self.carrier:matched(match) end
end

function on.connected(self, e, match)
  self.match, self.ever, self.met = self.match or match, true, true
  if self.carrier then return self.carrier:connected(e.peer) end
  if self.greeted[e.peer] then return end
  self.greeted[e.peer] = true
  if self.options.send then self:send(self.options.send, e.peer) end
  local lines = self.waiting
  self.waiting = {}
  for _, line in ipairs(lines) do self:send(line) end
end

function on.message(self, e)
  if self.carrier then return self.carrier:message(e.peer, e.data) end
  self.count = self.count + 1
  if self.count == self.options.expect then
    self.done_waiting = true
    self.env.timer(linger_ms, function() self:finish(0) end)
  end
end

function on.closed(self, e)
  self.last_reason = e.reason
  self.greeted[e.peer] = nil
  if self.carrier then self.carrier:closed(e.peer) end
  if not self:alive() then self:deserted(e.reason) end
end

-- What the latest record of a match shows, in short, where it found no path.
function Talk:explain(match)
  local list = self.node:why(match.id)
  local story, last = require "bodkin.cli.story", list[#list]
  if not last or last.confirmed_ms then return end
  self.explained = true
  for _, text in ipairs(story.short(story.pairs_of({ story.record(last) })[1])) do self.out:say("%s", text) end
  if not self.options.why then self.out:say("--why FILE writes what was tried, for a report") end
end

function on.error(self, e, match)
  if e.code == "no_path" and match and self.node then self:explain(match) end
end

-- --why: the records of all matches, once; where there were none, what ended the command.
function Talk:report(failure)
  local write = self.options.reporter
  if not write then return end
  self.options.reporter = nil
  local ok, err = write(self.node and self.node:why() or {}, failure)
  if not ok then self.out:say("the report %s is not whole: %s", self.options.why, tostring(err)) end
end

function Talk:on_event(e, match)
  local carried = self.carrier and e.event == "message"
  if not carried and not self.out:event(e.event, e) then return self:finish(0) end
  if on[e.event] then on[e.event](self, e, match) end
end

-- What --timeout means depends on how far things got.
function Talk:timed_out()
  local options, after = self.options, ("in %g s"):format(self.options.timeout)
  if self.done_waiting then return end
  if options.expect then
    self.out:say("%d of %d messages came %s", self.count, options.expect, after)
    if self.ever then return self:finish(3) end
  end
  if self.ever then return self:finish(0) end
  if self.queued and not self.match then return end -- the ticket has the same time-out, and more to say
  if not self.match then return self:finish(nil, "the server did not answer " .. after, "timeout") end
  if self.met then return self:finish(nil, "no path to the peer worked " .. after, "no_path") end
  self:finish(nil, ("nobody came %s: does the other side use this server%s?"):format(after,
    self.options.app and " and this --app" or ""), "no_match")
end

-- A line that answers whether the match is wanted.
function Talk:answer(line)
  local word = line:lower():match "^%s*(%a+)%s*$"
  local yes = word and ("yes"):find(word, 1, true) == 1
  if not yes and not (word and ("no"):find(word, 1, true) == 1) then return self.out:say("y or n?") end
  local ticket = self.asked
  self.asked = nil
  if yes then self.node:accept(ticket) else self.node:decline(ticket) end
end

function Talk:read_stdin()
  if self.reading or self.options.json and not self.asked or self.carrier then return end
  self.reading = true
  self.env.loop:stdin():on_line(function(line)
    if not line or #line == 0 then return end
    if self.asked then return self:answer(line) end
    if self.options.json then return end
    if #line > payload_max then
      return self.out:say("not sent: %d bytes do not fit in a datagram of %d", #line, payload_max)
    end
    if next(self.greeted) then return self:send(line) end
    if #self.waiting < waiting_max then self.waiting[#self.waiting + 1] = line end
  end)
end

-- Opens a node, begins with begin(node) -> match | nil, message, code, and stays until there is a verdict.
-- carry(talk) -> carrier | nil, message, code, where there is to be one.
function M.run(options, begin, hosting, carry)
  if not options.server then
    return nil, "no server given: --server bodkin://HOST[:PORT], or set $BODKIN_SERVER", "usage"
  end
  if options.trace then
    local err, code
    options.tracer, err, code = tracer(options.trace, output.of(options))
    if not options.tracer then return nil, err, code end
  end
  if options.why then
    local err, code
    options.reporter, err, code = require("bodkin.cli.why").writer(options.why)
    if not options.reporter then return nil, err, code end
  end
  return process.run(options, function(p)
    local self = setmetatable({
      env = p.env, options = options, out = output.of(options), hosting = hosting, count = 0, greeted = {},
      waiting = {},
    }, Talk)
    local function on_event(e, match) self:on_event(e, match) end
    local node, err, code
    if carry then
      self.carrier, err, code = carry(self)
      if not self.carrier then
        self.out:failure(err, code)
        return 1 -- mostly a port in use: nothing wrong with how it was called
      end
    end
    local _ <close> = setmetatable({}, { __close = function() if self.carrier then self.carrier:close() end end })
    node, err, code = require("bodkin").open(M.open_options(options, p.env, on_event))
    if not node then
      self:report(err)
      return nil, err, code
    end
    self.node = node
    p.on_stop = function()
      node:close()
      self:report()
    end
    if options.timeout then p.env.timer(options.timeout * 1000, function() self:timed_out() end) end
    local match
    match, err, code = begin(node)
    if match then
      self.match = match
      self:read_stdin()
      if not self.result then task.await(function(resume) self.wake = resume end) end
    else
      self:finish(nil, err, code)
    end
    node:close()
    self:report(self.result[2])
    if self.result[3] == "no_path" and self.match and not self.explained then self:explain(self.match) end
    return table.unpack(self.result, 1, self.result.n)
  end)
end

return M
