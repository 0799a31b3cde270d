-- SPDX-License-Identifier: MIT
-- How a match went with one peer, as a client tells its server (message `outcome`, docs/PROTOCOL.md section 4), and
-- how records of that are looked for. Numbers stand for words on the wire: a word's place in its list here, which is
-- only ever added to; 0 is none, or one that is not known here.

local core = require "bodkin.core"
local kind = require "bodkin.kind"

local M = {}

M.REPORT_MAX = 340 -- bytes; the message then has at most 400

M.STATES = { "seeking", "connected", "closed" }
M.REASONS = { "none", "left", "closed", "no_path", "consent_lost", "no_answer", "no_consent", "unreachable",
  "replaced", "silent", "refused", "limit" }
M.VIAS = { "host", "ipv6", "mapped", "srflx", "prflx", "predicted", "relay" }
M.PATHS = { "lan", "direct", "relay" }
M.PATH_STATES = { "frozen", "probing", "usable", "valid", "failed" }

-- The note of a record where there was nothing to try.
M.NO_ADDRESS = "it has no address that this host can try"

local CANDIDATES_MAX, TESTS_MAX = 16, 65535
local TENTHS_MAX = 36000000 -- an hour, in tenths of a millisecond

local wire = core.wire

local function number_of(list, word)
  for i, known in ipairs(list) do
    if known == word then return i end
  end
  return 0
end

-- Milliseconds as tenths of them.
local function tenths(ms)
  return ms and math.tointeger(math.min(TENTHS_MAX, math.max(0, ms) * 10 // 1)) or wire.null
end

local function candidate(p)
  local at = core.addr.parse(p.remote)
  return {
    at and wire.bin(at) or wire.null, number_of(M.VIAS, p.via), number_of(M.PATH_STATES, p.state),
    number_of(M.REASONS, p.reason), math.min(TESTS_MAX, p.tests or 0), tenths(p.rtt_ms),
  }
end

-- Those that the peer was heard on are worth most.
local function worth(paths)
  local first, rest = {}, {}
  for _, p in ipairs(paths) do
    local list = (p.state == "usable" or p.state == "valid" or p.via == "prflx") and first or rest
    list[#list + 1] = p
  end
  return table.move(rest, 1, #rest, #first + 1, first)
end

-- A record of node:why, which was so many times told of before, as bytes; of its paths as many as fit.
function M.pack(r, n)
  local paths, list = worth(r.paths or {}), wire.array {}
  local report = {
    n, number_of(M.STATES, r.state), number_of(M.REASONS, r.reason), number_of(M.PATHS, r.path),
    number_of(M.VIAS, r.via), tenths(r.first_ms), tenths(r.confirmed_ms), tenths(r.rtt_ms), tenths(r.lasted_ms),
    r.behaviour and kind.pack(r.behaviour) or wire.null, #paths, list,
  }
  local bytes = wire.encode(report)
  for i = 1, math.min(#paths, CANDIDATES_MAX) do
    list[i] = candidate(paths[i])
    local more = wire.encode(report)
    if #more > M.REPORT_MAX then break end
    bytes = more
  end
  return bytes
end

local function uint(value, max)
  return math.type(value) == "integer" and value >= 0 and value <= max and value or nil
end

-- nil in place of what is none; false where it is not one.
local function ms(value)
  if value == wire.null then return nil end
  local n = uint(value, TENTHS_MAX)
  return n and n / 10 or false
end

local function array(value, count)
  return type(value) == "table" and #value == count and value or nil
end

local function candidate_of(c)
  c = array(c, 6)
  local at = c and c[1]
  if at == wire.null then at = nil end
  if not c or at ~= nil and (type(at) ~= "string" or #at ~= 6 and #at ~= 18) then return nil end
  local via, state, reason, tests = uint(c[2], 63), uint(c[3], 63), uint(c[4], 63), uint(c[5], TESTS_MAX)
  local rtt_ms = ms(c[6])
  if not (via and state and reason and tests) or rtt_ms == false then return nil end
  return {
    remote = at and core.addr.format(at), via = M.VIAS[via], state = M.PATH_STATES[state], reason = M.REASONS[reason],
    tests = tests, rtt_ms = rtt_ms,
  }
end

local function behaviour_of(b)
  if b == wire.null then return nil end
  return kind.unpack(b) or false
end

-- What the bytes tell, with `n` and `candidates` (how many there were); nil where they are no report.
function M.unpack(bytes)
  if #bytes > M.REPORT_MAX then return nil end
  local r = array(wire.decode(bytes), 12)
  if not r then return nil end
  local out = {
    n = uint(r[1], 0xffffffff), state = M.STATES[uint(r[2], 63)], reason = M.REASONS[uint(r[3], 63)],
    path = M.PATHS[uint(r[4], 63)], via = M.VIAS[uint(r[5], 63)], first_ms = ms(r[6]), confirmed_ms = ms(r[7]),
    rtt_ms = ms(r[8]), lasted_ms = ms(r[9]), behaviour = behaviour_of(r[10]), candidates = uint(r[11], 255),
    paths = {},
  }
  for i = 2, 5 do
    if not uint(r[i], 63) then return nil end
  end
  for _, name in ipairs { "first_ms", "confirmed_ms", "rtt_ms", "lasted_ms", "behaviour" } do
    if out[name] == false then return nil end
  end
  if not (out.n and out.state and out.candidates) then return nil end
  if type(r[12]) ~= "table" or #r[12] > CANDIDATES_MAX then return nil end
  for i, c in ipairs(r[12]) do
    out.paths[i] = candidate_of(c)
    if not out.paths[i] then return nil end
  end
  if out.reason == "none" then out.reason = nil end
  return out
end

-- The fields of a record (node:why) in JSON, in this order.
M.KEYS = { "event", "match", "at", "how", "self", "own_name", "peer", "name", "state", "connected", "reason", "note",
  "path", "via", "remote", "first_ms", "confirmed_ms", "rtt_ms", "lasted_ms", "behaviour", "peer_behaviour", "public",
  "local", "peer_public", "peer_local", "candidates", "paths", "tests" }

-- A record as a line of JSON.
function M.line(r)
  local line = { event = "why" }
  for key, value in pairs(r) do line[key] = value end
  return require("bodkin.json").encode(line, M.KEYS) .. "\n"
end

-- Whether what is asked for means this id: all of it, or how it begins, four digits or more.
function M.means(asked, id)
  return #asked >= 4 and #asked <= #id and id:sub(1, #asked) == asked:lower()
end

return M
