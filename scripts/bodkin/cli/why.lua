-- SPDX-License-Identifier: MIT
local outcome = require "bodkin.outcome"
local output = require "bodkin.cli.output"
local story = require "bodkin.cli.story"

local FILE_MAX = 4 << 20
local order = outcome.KEYS

local M = {
  usage = "bodkin why [ID|NAME] [--admin PATH|PORT] | bodkin why FILE...",
  summary = "what became of a match or a ticket, and what would help",
  text = [[
Asks a server on this machine, over its admin socket, about the matches of the last hour: without ID or NAME one line
for each, those that failed first; with the id of a match or of a client (four digits of it or more), or a client's
name, all that both ends told of it, side by side: what each tried and what became of it, what that means, and what
would help. With the id of a ticket, or of a client or its name, also why its tickets wait, or how they ended.

A FILE is what --why of a client wrote. Two, one from each end of the same match, are put side by side. An argument is
taken for a file where there is one of that name, unless --admin is given.]],
  options = {
    { "admin", arg = "PATH", help = "the server's Unix socket, or its port (default: the socket of port 4433)" },
  },
  arguments = 16,
}

-- --- files, as clients write them: text, and a line of JSON for each record

local HEAD = [[
What became of each match, for a report. bodkin why FILE prints it again, bodkin why FILE FILE puts those of both ends
side by side. Addresses of both ends are in it, and no keys.
]]

-- A file for the records that write(records, failure) is given, once; or nil, message, code. failure: what ended it
-- where there are no records.
function M.writer(path)
  local file, err = io.open(path, "w")
  if not file then
    return nil, ("cannot write the report: %s; is the directory there?"):format(err), "invalid"
  end
  return function(records, failure)
    local ok, wrong = file:write(M.report(records, failure))
    if ok then ok, wrong = file:close() end
    return ok, wrong
  end
end

function M.report(records, failure)
  local parts = { HEAD }
  if #records == 0 then
    parts[2] = ("\nThere was no match%s\n"):format(failure and ": " .. output.printable(failure) or ".")
  end
  for _, r in ipairs(records) do
    local clean = story.record(r)
    local pair = story.pairs_of { clean }[1]
    parts[#parts + 1] = "\n" .. table.concat(story.text(pair), "\n") .. "\n"
    parts[#parts + 1] = outcome.line(r)
  end
  return table.concat(parts)
end

-- The records in a file; nil, message, code.
function M.read(path)
  local file, err = io.open(path, "rb")
  local text = file and file:read(FILE_MAX)
  if file then file:close() end
  if not file then return nil, ("cannot read %s"):format(err), "invalid" end
  local list = {}
  for line in (text or ""):gmatch "[^\n]+" do
    local value = line:find "^{" and require("bodkin.json").decode(line)
    local r = story.record(value)
    if r then list[#list + 1] = r end
  end
  if #list > 0 then return list end
  return nil, ("%s tells of no match: is it what --why wrote, whole?"):format(path), "invalid"
end

local function show(out, pair, how, first)
  if out.json then
    for i = 1, 2 do
      local r = pair.ends[i]
      if r then
        r.event, r.how = "why", how
        out:object(r, order)
      end
    end
    return
  end
  if not first then out:line("") end
  for _, line in ipairs((story.text(pair, how))) do out:line(line) end
end

local function from_files(out, paths)
  local all = {}
  for _, path in ipairs(paths) do
    local list, err, code = M.read(path)
    if not list then return nil, err, code end
    table.move(list, 1, #list, #all + 1, all)
  end
  for i, pair in ipairs(story.pairs_of(all)) do show(out, pair, nil, i == 1) end
  return 0
end

-- --- the server

local marks = { failed = "!", connected = " ", unknown = "?" }
local said = { failed = "no path, or lost", connected = "connected", unknown = "not told" }

local function text_of(value) return output.printable(type(value) == "string" and value:sub(1, 80) or "?") end

local function ago(s)
  s = math.floor(type(s) == "number" and s or 0)
  return s < 120 and ("%d s ago"):format(s) or ("%d min ago"):format(s // 60)
end

local function brief(m)
  local names = {}
  for i, member in ipairs(type(m.members) == "table" and m.members or {}) do
    local name = type(member) == "table" and member.name
    names[i] = name and name ~= "" and text_of(name) or text_of(type(member) == "table" and member.id):sub(1, 8)
  end
  local more = (math.tointeger(m.count) or #names) - #names
  if more > 0 then names[#names + 1] = ("%d more"):format(more) end
  return ("%s %s  %11s  %-16s %s: %s"):format(marks[m.verdict] or "?", text_of(m.match):sub(1, 12), ago(m.age_s),
    text_of(m.how), table.concat(names, ", "), said[m.verdict] or "?")
end

local function list(out, answer)
  local ranked = { {}, {} }
  for _, m in ipairs(answer.matches) do
    if type(m) == "table" then table.insert(ranked[m.verdict == "failed" and 1 or 2], m) end
  end
  for _, half in ipairs(ranked) do
    for _, m in ipairs(half) do
      if out.json then
        m.event = "match"
        out:object(m, { "event", "match", "verdict", "how", "app", "at", "age_s", "count", "members" })
      else
        out:line(brief(m))
      end
    end
  end
  local more = (math.tointeger(answer.total) or 0) - #answer.matches
  if more > 0 then out:say("and %d older ones", more) end
end

local function full(out, m)
  local records = {}
  for _, e in ipairs(m.ends) do records[#records + 1] = story.record(e) end
  for i, pair in ipairs(story.pairs_of(records)) do show(out, pair, text_of(m.how), i == 1) end
  local more = math.tointeger(m.more) or 0
  if more > 0 then out:say("and %d pairs more in this match", more // 2) end
end

local function from_server(p, out, admin, asked)
  if asked and (asked:find "%c" or #asked > 64) then return nil, "an id or a name has no such characters", "usage" end
  local answer, err, code = require("bodkin.cli.admin").ask(p.env, admin, asked and "why " .. asked or "why", "matches")
  if not answer then return nil, err, code end
  if type(answer.matches) ~= "table" then return nil, "the server answered something else", "invalid" end
  local one = answer.matches[1]
  local has_tickets = require("bodkin.cli.waits").show(out, answer.tickets)
  if not one then
    if has_tickets then return 0 end
    if not asked then
      out:say("no match was made in the last hour")
      return 0
    end
    return nil, ("no match or ticket of the last hour is, or had a client of the id or name, %s: is it older, or the "
      .. "server?"):format(asked), "no_match"
  end
  if has_tickets and not out.json then out:line "" end
  if type(one) == "table" and type(one.ends) == "table" then full(out, one) else list(out, answer) end
  return 0
end

local function is_file(path)
  local file = io.open(path, "rb")
  if file then file:close() end
  return file ~= nil
end

function M.run(values, rest)
  local out = output.of(values)
  if rest[1] and not values.admin and (rest[2] or is_file(rest[1])) then return from_files(out, rest) end
  if rest[2] then return nil, "one ID or NAME at a time", "usage" end
  return require("bodkin.cli.process").run(values, function(p) return from_server(p, out, values.admin, rest[1]) end)
end

return M
