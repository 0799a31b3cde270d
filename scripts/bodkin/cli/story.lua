-- SPDX-License-Identifier: MIT
-- What became of a match, as text: both ends side by side, what each tried, what that means and what would help. The
-- records come from files and servers, so each field is looked at before it is believed, and made fit for a terminal.

local diagnosis = require "bodkin.cli.diagnosis"
local kind = require "bodkin.kind"
local output = require "bodkin.cli.output"

local M = {}

local LIST_MAX = 32 -- of addresses or candidates

-- --- reading

local words = { "state", "reason", "path", "via", "remote", "note", "name", "own_name", "over" }
local numbers = { "at", "first_ms", "confirmed_ms", "rtt_ms", "lasted_ms", "candidates" }
local lists = { "public", "local", "peer_public", "peer_local" }

local function word(value) return type(value) == "string" and output.printable(value:sub(1, 200)) or nil end

local function number(value)
  return type(value) == "number" and value == value and math.abs(value) < 1e12 and value or nil
end

local function hex(value) return type(value) == "string" and #value == 32 and not value:find "%X" and value or nil end

local function each(value, read)
  local out = {}
  for i, v in ipairs(type(value) == "table" and value or {}) do
    if i > LIST_MAX then break end
    out[#out + 1] = read(v)
  end
  return out
end

local function candidate(c)
  if type(c) ~= "table" then return nil end
  local tests = number(c.tests)
  return {
    remote = word(c.remote), via = word(c.via), state = word(c.state), reason = word(c.reason),
    tests = tests and math.floor(tests) or 0, rtt_ms = number(c.rtt_ms),
  }
end

-- A NAT's kind in words, see kind.lua; back and forth, so that there are no others.
local function behaviour(b)
  return type(b) == "table" and kind.unpack(kind.pack(b)) or nil
end

-- A record as it should be; nil where it is none.
function M.record(given)
  if type(given) ~= "table" then return nil end
  local r = { match = hex(given.match), self = hex(given.self), peer = hex(given.peer) }
  if not (r.match and r.self and r.peer) then return nil end
  for _, key in ipairs(words) do r[key] = word(given[key]) end
  for _, key in ipairs(numbers) do r[key] = number(given[key]) end
  for _, key in ipairs(lists) do r[key] = each(given[key], word) end
  if type(given.acknowledged) == "boolean" then r.acknowledged = given.acknowledged end
  r.behaviour, r.peer_behaviour = behaviour(given.behaviour), behaviour(given.peer_behaviour)
  r.paths = each(given.paths, candidate)
  if r.reason == "none" then r.reason = nil end
  return r
end

-- Records as pairs { match, ends, names }, in the order they first come in. The first of a pair is ends[1].
function M.pairs_of(records)
  local out, of = {}, {}
  for _, r in ipairs(records) do
    local there, back = r.match .. r.self .. r.peer, r.match .. r.peer .. r.self
    local pair, side = of[there], 1
    if not pair and of[back] then pair, side = of[back], 2 end
    if not pair then
      pair = { match = r.match, at = r.at, ends = {} }
      of[there], out[#out + 1] = pair, pair
    end
    pair.ends[side] = r -- a later record of the same end stands for an earlier one
  end
  for _, pair in ipairs(out) do M.name(pair) end
  return out
end

-- Each end by its name where it has one, and not the same as the other; else by the beginning of its id. As a title, by
-- both.
function M.name(pair)
  local a, b = pair.ends[1], pair.ends[2]
  local ids, names = { a.self, a.peer }, { a.own_name or b and b.name or "", a.name or b and b.own_name or "" }
  pair.names, pair.titles = {}, {}
  for i = 1, 2 do
    local short = ids[i]:sub(1, 8)
    pair.titles[i] = names[i] ~= "" and ("%s (%s)"):format(names[i], short) or short
    pair.names[i] = names[i] ~= "" and names[1] ~= names[2] and names[i] or short
  end
end

-- --- text

local verdicts = {
  failed = "no path was found", lost = "the path was lost", connected = "connected",
  over = "was connected, and is over", left = "left before a path was found", seeking = "a path is being looked for",
  unknown = "nothing is known of it yet",
}

local kinds = {
  endpoint = "one port for all", address = "a port for each address", address_port = "a port for each destination",
}
local filters = {
  endpoint = "lets in all", address = "lets in addresses sent to", address_port = "lets in ports sent to",
}

local function nat(b)
  if not b then return "not known" end
  local mapping, filtering = diagnosis.said(kinds, b.mapping), diagnosis.said(filters, b.filtering)
  if b.nat == false then return "none" .. (filtering and "; " .. filtering or "") end
  if not mapping and not filtering then return b.nat and "there is one" or "not known" end
  return (mapping or "ports not known") .. "; " .. (filtering or "filter not known")
end

local function after(ms) return ms and ("after %.1f ms"):format(ms) or "never" end

local function ended(e)
  if e.state == "unknown" then return "not told" end
  if e.state ~= "closed" then return e.state or "?" end
  return ("%s, after %.1f s"):format(e.reason or "?", (e.lasted_ms or 0) / 1000)
end

local function some(list) return #list > 0 and list or { "none" } end

local rows = {
  { "seen at", function(e) return some(e.public) end },
  { "local", function(e) return some(e["local"]) end },
  { "NAT", function(e, other) return nat(e.behaviour or other and other.peer_behaviour) end },
  { "first heard", function(e) return e.state == "unknown" and "not told" or after(e.first_ms) end },
  { "confirmed", function(e) return e.state == "unknown" and "not told" or after(e.confirmed_ms) end },
  { "path", function(e) return e.confirmed_ms and ("%s, %s"):format(e.path or "?", e.via or "?") or "none" end },
  { "state", ended },
}

local function side_by_side(lines, pair)
  local a, b = pair.ends[1], pair.ends[2]
  local cells, width = { { "", pair.titles[1], b and pair.titles[2] } }, 0
  for _, row in ipairs(rows) do
    local left, right = row[2](a, b), b and row[2](b, a) or {}
    left, right = type(left) == "table" and left or { left }, type(right) == "table" and right or { right }
    for i = 1, math.max(#left, #right) do
      cells[#cells + 1] = { i == 1 and row[1] or "", left[i] or "", right[i] or "" }
    end
    if row[1] == "NAT" and not b and a.peer_behaviour then
      cells[#cells + 1] = { "peer's NAT", nat(a.peer_behaviour) }
    end
  end
  for _, c in ipairs(cells) do width = math.max(width, utf8.len(c[2]) or #c[2]) end
  for _, c in ipairs(cells) do
    local pad = (" "):rep(width - (utf8.len(c[2]) or #c[2]))
    lines[#lines + 1] = (("  %-12s %s%s"):format(c[1], c[2], c[3] and pad .. "   " .. c[3] or ""):gsub("%s+$", ""))
  end
end

local function became(p)
  if diagnosis.closed_relay(p) == "no_answer" then return "failed: the relay did not answer" end
  if p.state == "valid" then return "works" .. (p.rtt_ms and (", round trip %.1f ms"):format(p.rtt_ms) or "") end
  if p.state == "usable" then return "the peer was heard there; no test was confirmed" end
  if p.state == "failed" then return "failed: " .. output.reason(p.reason or "no_answer") end
  if p.state == "frozen" then return "not tried yet" end
  return output.reason "no_answer"
end

local function candidates(lines, e, me, other)
  if e.state == "unknown" then return end
  lines[#lines + 1] = ""
  lines[#lines + 1] = ("  %s tried, to reach %s:"):format(me, other)
  if #e.paths == 0 then lines[#lines + 1] = "    nothing" end
  for _, p in ipairs(e.paths) do
    local tests = p.state ~= "valid" and ("%d test%s"):format(p.tests, p.tests == 1 and "" or "s") or ""
    lines[#lines + 1] = ("    %-6s %-24s %9s   %s"):format(p.via or "?", p.remote or "?", tests, became(p))
  end
  local more = math.floor(e.candidates or 0) - #e.paths
  if more > 0 then lines[#lines + 1] = ("    and %d more"):format(more) end
end

-- Words in lines of at most 100 columns.
local function wrapped(lines, text, first, rest)
  local line, begun = first, false
  for piece in text:gmatch "%S+" do
    if begun and #line + 1 + #piece > 100 then
      lines[#lines + 1], line, begun = line, rest, false
    end
    line, begun = line .. (begun and " " or "") .. piece, true
  end
  lines[#lines + 1] = line
end

-- The time of day of a record, where it has one.
local function date(at) return at and at >= 0 and at < 1e11 and os.date("!%Y-%m-%d %H:%M:%S UTC", math.floor(at)) end

-- Lines, without ends of line. how: how the match was made, where that is known.
function M.text(pair, how)
  local d, lines = diagnosis.of(pair), {}
  local made = (date(pair.at) and ", made " .. date(pair.at) or "") .. (how and " (" .. how .. ")" or "")
  lines[1] = ("match %s%s: %s"):format(pair.match, made, verdicts[d.verdict])
  lines[2] = ""
  side_by_side(lines, pair)
  for i = 1, 2 do
    if pair.ends[i] then candidates(lines, pair.ends[i], pair.names[i], pair.names[3 - i]) end
  end
  if #d.findings > 0 then
    table.move({ "", "  What it means:" }, 1, 2, #lines + 1, lines)
    for _, f in ipairs(d.findings) do wrapped(lines, f.text, "    - ", "      ") end
  end
  if #d.help > 0 then
    table.move({ "", "  What would help:" }, 1, 2, #lines + 1, lines)
    for _, text in ipairs(d.help) do wrapped(lines, text, "    - ", "      ") end
  end
  return lines, d
end

-- The findings alone, for who has no time.
function M.short(pair)
  local d, out = diagnosis.of(pair), {}
  for i, f in ipairs(d.findings) do out[i] = f.text end
  return out
end

return M
