-- SPDX-License-Identifier: MIT
-- What a command says. With --json: one object a line on stdout and nothing else there. Without: what peers
-- sent on stdout, progress as sentences on stderr.

local M = {}
local Output = {}
Output.__index = Output

-- The fields of each event in the order they are printed.
local fields = {
  listening = { "url", "role", "addr" },
  registered = { "id", "public", "local" },
  hosting = { "code" },
  queued = { "ticket" },
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
    json = options.json and true or false,
    level = options.quiet and 0 or 1 + (options.verbose or 0),
    to_terminal = host.is_terminal(1),
    colour = host.is_terminal(2) and (no_color == nil or no_color == "") and os.getenv "TERM" ~= "dumb",
  }, Output)
  return options.output
end

function Output:paint(colour, text)
  return self.colour and ("\27[%sm%s\27[0m"):format(colours[colour], text) or text
end

-- A sentence of progress: on stderr, unless quiet.
function Output:say(format, ...)
  if self.level >= 1 then io.stderr:write(format:format(...), "\n") end
end

-- A detail, with -v.
function Output:detail(format, ...)
  if self.level >= 2 then io.stderr:write(self:paint("dim", format:format(...)), "\n") end
end

-- An object as a line of JSON; false once nobody reads any more.
function Output.object(_, value, order)
  local ok = io.stdout:write(require("bodkin.cli.json").encode(value, order), "\n")
  return ok and true or false
end

-- A line on stdout.
function Output.line(_, text)
  local ok = io.stdout:write(text, text:sub(-1) == "\n" and "" or "\n") and io.stdout:flush()
  return ok and true or false
end

-- Control characters of others must not reach a terminal.
function M.printable(text)
  return (tostring(text):gsub("%c", function(c) return ("\\x%02X"):format(c:byte()) end))
end
local printable = M.printable

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
  out:say("room %s: on the other machine run  bodkin join %s", out:paint("bold", e.code), e.code)
end

function sentences.queued(out, e)
  out:say("waiting for a match")
  out:detail("ticket %s", e.ticket)
end

function sentences.matched(out, e)
  local names = {}
  for i, peer in ipairs(e.peers or {}) do names[i] = printable(peer) end
  out:say("matched with %s; looking for a path", table.concat(names, ", "))
end

function sentences.connected(out, e)
  out:say("%s to %s %s (%s %s), first heard after %s", out:paint("good", "connected"), printable(e.peer),
    ways[e.path] or tostring(e.path), tostring(e.via), tostring(e.remote), ms(e.first_ms))
end

function sentences.path(out, e)
  out:detail("path to %s: %s, %s %s, confirmed after %s, round trip %s", printable(e.peer), tostring(e.path),
    tostring(e.via), tostring(e.remote), ms(e.confirmed_ms), ms(e.rtt_ms))
end

function sentences.closed(out, e)
  if e.reason == "closed" then return out:detail("left %s", printable(e.peer)) end
  local text = e.reason == "left" and "has left" or ("is gone: %s"):format(M.reason(e.reason))
  out:say("%s %s", printable(e.peer), text)
end

-- Also when quiet.
function sentences.error(out, e)
  io.stderr:write(out:paint("bad", "bodkin: "), printable(e.message), e.hint and "\n" .. printable(e.hint) or "", "\n")
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
    object.data, object.data_b64 = nil, require("bodkin.cli.json").base64(e.data)
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
