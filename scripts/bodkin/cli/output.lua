-- SPDX-License-Identifier: MIT
-- What a command says. With --json: one object a line on stdout and nothing else there. Without: what peers
-- sent on stdout, progress as sentences on stderr.
--
-- Nothing of it waits for a reader while a loop runs, since peers and clients would wait, too: what stderr does not
-- take is lost, what stdout does not take is kept up to a bound and lost beyond; both are told of once there is room.

local core = require "bodkin.core"

local M = {}

local KEPT_MAX = 1 << 20 -- bytes for stdout
local AGAIN_MS = 20
local Output = {}
Output.__index = Output

-- The fields of each event in the order they are printed.
local fields = {
  listening = { "url", "role", "addr" },
  registered = { "id", "public", "local" },
  hosting = { "code" },
  host = { "match", "host" },
  queued = { "ticket", "waited_ms", "present", "of", "reason" },
  proposed = { "ticket", "accept_ms", "players" },
  matched = { "match", "peers", "team", "host", "data" },
  connected = { "match", "peer", "path", "via", "remote", "first_ms", "commit_ms" },
  path = { "match", "peer", "path", "via", "remote", "confirmed_ms", "rtt_ms", "commit_ms", "why" },
  message = { "match", "peer", "channel", "data", "data_b64" },
  closed = { "match", "peer", "reason" },
  error = { "code", "message", "hint" },
}

local colours = { good = "32", bad = "31", dim = "2", bold = "1" }

-- One for each set of options.
function M.of(options)
  if options.output then return options.output end
  local host = require "bodkin.host"
  local no_color = os.getenv "NO_COLOR"
  options.output = setmetatable({
    json = options.json and true or false, join_with = "join %s", way_of = {},
    level = options.quiet and 0 or 1 + (options.verbose or 0),
    to_terminal = host.is_terminal(1),
    colour = host.is_terminal(2) and (no_color == nil or no_color == "") and os.getenv "TERM" ~= "dumb",
  }, Output)
  return options.output
end

-- Text in a colour, as an argument of say and detail, which leave it as it is; others are escaped there.
local Painted = { __tostring = function(self) return self.text end }

function Output:paint(colour, text)
  text = core.printable(text)
  return setmetatable({ text = self.colour and ("\27[%sm%s\27[0m"):format(colours[colour], text) or text }, Painted)
end

M.printable = function(text) return core.printable(tostring(text)) end
local printable = M.printable

local function formatted(format, ...)
  local args = table.pack(...)
  for i = 1, args.n do
    if type(args[i]) == "string" then args[i] = printable(args[i]) end
  end
  return format:format(table.unpack(args, 1, args.n))
end

-- Lines on stderr.
local function progress(self, text)
  if not self.env then return io.stderr:write(text, "\n") end
  local lost = self.lost or 0
  if lost > 0 then text = ("(%d lines here were lost: they could not be written)\n%s"):format(lost, text) end
  self.lost = core.say(2, text .. "\n") == #text + 1 and 0 or lost + 1
end

-- A sentence of progress: on stderr, unless quiet.
function Output:say(format, ...)
  if self.level >= 1 then progress(self, formatted(format, ...)) end
end

-- A detail, with -v.
function Output:detail(format, ...)
  if self.level >= 2 then progress(self, tostring(self:paint("dim", formatted(format, ...)))) end
end

-- Writes what is kept, and says what was lost meanwhile. False once nobody reads any more.
local function pump(self)
  while self.first <= self.last do
    local text = self.kept[self.first]
    local n, _, code = core.say(1, text)
    if code == "closed" then
      self.closed = true
      return false
    end
    if not n then break end -- a full disk
    self.bytes = self.bytes - n
    if n < #text then
      self.kept[self.first] = text:sub(n + 1)
      break
    end
    self.kept[self.first] = nil
    self.first = self.first + 1
  end
  if self.first > self.last then
    self.first, self.last = 1, 0
    if self.unwritten > 0 then
      progress(self, ("%d lines of stdout were lost: they could not be written"):format(self.unwritten))
      self.unwritten = 0
    end
  elseif not self.timer then
    self.timer = self.env.timer(AGAIN_MS, function()
      self.timer = nil
      pump(self)
    end)
  end
  return true
end

local function put(self, text)
  if not self.env then return io.stdout:write(text) and io.stdout:flush() and true or false end
  if self.closed then return false end
  if self.bytes + #text > KEPT_MAX then
    self.unwritten = self.unwritten + 1
    return true
  end
  self.last = self.last + 1
  self.kept[self.last], self.bytes = text, self.bytes + #text
  return self.timer and true or pump(self)
end

-- From now on a loop runs, and nothing waits, until settle.
function Output:attach(env)
  self.env, self.kept, self.first, self.last, self.bytes, self.unwritten = env, {}, 1, 0, 0, 0
end

-- Nothing depends on the loop any more: what is kept is written, however long its reader takes, unless it is not wanted
-- any more; and so is what comes after. Idempotent.
function Output:settle(wanted)
  if not self.env then return end
  if self.timer then self.timer:cancel() end
  self.env, self.timer = nil, nil
  if not wanted or self.closed then return end
  for i = self.first, self.last do io.stdout:write(self.kept[i]) end
  io.stdout:flush()
end

-- An object as a line of JSON; false once nobody reads any more.
function Output:object(value, order)
  return put(self, require("bodkin.json").encode(value, order) .. "\n")
end

-- A line on stdout.
function Output:line(text)
  return put(self, text:sub(-1) == "\n" and text or text .. "\n")
end

-- A line on stderr, quiet or not, as it is.
function Output:error_line(text) progress(self, text) end

local function ms(value)
  return value and ("%.1f ms"):format(value) or "?"
end

local ways = { lan = "on the same network", direct = "directly", relay = "over a relay" }

-- Each event as a sentence; nil: nothing to say.
local sentences = {}

function sentences.listening(out, e)
  out:say("%s: %s on %s", out:paint("good", "listening"), e.role, e.addr)
end

function sentences.registered(out, e)
  out:detail("registered as %s, public %s, local %s", e.id, table.concat(e.public or {}, " "),
    table.concat(e["local"] or {}, " "))
end

function sentences.hosting(out, e)
  out:say("room %s: on the other machine run  bodkin %s", out:paint("bold", e.code), out.join_with:format(e.code))
end

function sentences.queued(out, e)
  if e.waited_ms then return out:say("%s", require("bodkin.waiting").sentence(e)) end
  local why = e.reason and e.reason .. ": " or ""
  if e.of and e.of > e.present then
    out:say("%swaiting for the party, %d of %d are there", why, e.present, e.of)
  else
    out:say("%swaiting for a match", why)
  end
  out:detail("ticket %s", e.ticket)
end

function sentences.proposed(out, e)
  out:say("a match of %d is there, to be accepted within %.0f s", e.players, e.accept_ms / 1000)
end

function sentences.matched(out, e)
  out:say("matched with %s; looking for a path", table.concat(e.peers or {}, ", "))
end

function sentences.connected(out, e)
  out.way_of[e.peer] = e.path
  out:say("%s to %s %s (%s %s), first heard after %s", out:paint("good", "connected"), tostring(e.peer),
    ways[e.path] or tostring(e.path), tostring(e.via), tostring(e.remote), ms(e.first_ms))
end

-- Whoever reads the last line without -v is to know whether a relay is in between.
function sentences.path(out, e)
  if out.way_of[e.peer] ~= e.path then
    out.way_of[e.peer] = e.path
    return out:say("%s is now reached %s (%s %s), confirmed after %s, round trip %s", tostring(e.peer),
      ways[e.path] or tostring(e.path), tostring(e.via), tostring(e.remote), ms(e.confirmed_ms), ms(e.rtt_ms))
  end
  out:detail("path to %s: %s, %s %s, confirmed after %s, round trip %s", tostring(e.peer), tostring(e.path),
    tostring(e.via), tostring(e.remote), ms(e.confirmed_ms), ms(e.rtt_ms))
end

function sentences.closed(out, e)
  out.way_of[e.peer] = nil
  if e.reason == "closed" then return out:detail("left %s", tostring(e.peer)) end
  local text = e.reason == "left" and "has left" or ("is gone: %s"):format(e.note or M.reason(e.reason))
  out:say("%s %s", tostring(e.peer), text)
end

-- Also when quiet.
function sentences.error(out, e)
  progress(out, ("%s%s%s"):format(out:paint("bad", "bodkin: "), printable(e.message),
    e.hint and "\n" .. printable(e.hint) or ""))
end

-- The sentence of a reason.
function M.reason(name)
  for _, reason in ipairs(require("bodkin.core").reasons) do
    if reason.name == name then return reason.text end
  end
  return tostring(name)
end

-- One of the surface's events; false once nobody reads any more.
function Output:event(name, e)
  if name == "error" and e.code == "no_path" then self.told = e.code end
  if not self.json then
    if name == "message" then return self:line(self.to_terminal and printable(e.data) or e.data) end
    if sentences[name] then sentences[name](self, e) end
    return true
  end
  local object = { event = name }
  for _, key in ipairs(fields[name]) do object[key] = e[key] end
  if name == "message" and not utf8.len(e.data) then
    object.data, object.data_b64 = nil, require("bodkin.json").base64(e.data)
  end
  return self:object(object, table.move(fields[name], 1, #fields[name], 2, { "event" }))
end

local hints = {
  timeout = "is the server running, and UDP open there? try bodkin ping",
  no_match = "is the other side still there, and is the code right? codes end with their room",
  no_path = "is UDP allowed on both sides? bodkin ping shows whether it is here",
  blocked_udp = "try another network, or ask its administrator for UDP",
  too_old = "install the same version on both sides",
  app_mismatch = "give both sides the same --app",
  bad_key = "was the server started anew with another key? start this program again",
  limit = "wait a moment, then try again",
}

-- The error that ends a command; not again when the node told of it, which knows more.
function Output:failure(message, code)
  if self.told == code then return end
  message = tostring(message)
  local e = { code = code, message = message, hint = not message:find "%?" and hints[code] or nil }
  if self.json then sentences.error(self, e) end
  self:event("error", e)
end

return M
