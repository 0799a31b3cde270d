-- SPDX-License-Identifier: MIT
-- The numbers of docs/PROTOCOL.md, read from the code: its constants become the table of section 10, and each
-- `says` is how the text names one (%s: the number as the table has it). A spec fails where either differs.

local M = {}

local function read(path)
  local f <close> = assert(io.open(path))
  return f:read "a"
end

-- The value of a #define, whose other names are looked up in the same file, in base.h or in what the sessions share.
local function define(path, name)
  local text = read(path)
  local raw
  for _, place in ipairs { text, read "runtime/core/base.h", read "runtime/core/session_in.h" } do
    raw = raw or place:match("#define " .. name .. "%s+([^\n]+)")
  end
  if not raw then error(("%s: no #define %s"):format(path, name), 0) end
  local expression = raw:gsub("//.*", ""):gsub("(%d)u%f[^%w]", "%1"):gsub("%a[%w_]*", function(other)
    return tostring(define(path, other))
  end)
  return load("return " .. expression)()
end

-- What a pattern captures in a file, as numbers.
local function found(path, pattern)
  local values = { read(path):match(pattern) }
  if not values[1] then error(("%s: nothing like %s"):format(path, pattern), 0) end
  for i, v in ipairs(values) do values[i] = load("return " .. v)() end
  return table.unpack(values)
end

local units = {
  us = function(v) return v % 1000000 == 0 and v // 1000000 .. " s" or ("%g ms"):format(v / 1000) end,
  ms = function(v) return v >= 1000 and v % 1000 == 0 and v // 1000 .. " s" or v .. " ms" end,
  s = function(v) return v .. " s" end,
  percent = function(v) return ("±%g %%"):format(v) end,
}

local function with_comma(v)
  return (tostring(v):gsub("^(%d+)(%d%d%d)$", "%1,%2"))
end

local function format(value, unit)
  if units[unit] then return units[unit](math.tointeger(value) or value) end
  return with_comma(math.tointeger(value) or value) .. (unit and " " .. unit or "")
end

local SESSION, PATH_C, PATH_H = "runtime/core/session.c", "runtime/core/path.c", "runtime/core/path.h"
local SESSION_IN, RELAYED = "runtime/core/session_in.h", "runtime/core/session_relay.c"
local ROAM = "runtime/core/session_roam.c"
local BASE, SEAL, MESSAGE = "runtime/core/base.h", "runtime/core/seal.h", "runtime/core/message.h"
local ASSOC, ASSOC_C = "runtime/core/assoc.h", "runtime/core/assoc.c"
local SERVERS, CLIENT = "scripts/bodkin/servers/", "scripts/bodkin/client/"

local function limit(name)
  return require("bodkin.servers.limits").defaults[name]
end

local function early()
  local list = read(PATH_C):match "early_ms%[%] = {([%d, ]+)}"
  return assert(list, "path.c: no early_ms") .. " ms"
end

local function matched_times()
  local wait, tries = found(SERVERS .. "delivery.lua", "FIRST_WAIT_MS, TRIES = (%d+), (%d+)")
  local at, out = 0, {}
  for i = 1, tries do
    out[i] = math.tointeger(at)
    at, wait = at + wait, wait * 2
  end
  local words = ("is sent at %d, %d and %d ms, each further interval doubled, %s times"):format(out[1], out[2], out[3],
    tries == 10 and "ten" or tries)
  return table.concat(out, ", ") .. " ms", words
end

-- A heading, or { what, value, unit, says… }; value: a number, or a text that needs no unit.
function M.list()
  local matched, matched_words = matched_times()
  return {
    "Datagrams",
    { "protocol version", define(BASE, "BDK_PROTOCOL_VERSION"), nil, "its low 8 bits are the version (%s)" },
    { "bytes of a datagram", define(BASE, "BDK_DATAGRAM_MAX"), nil, "a datagram is at most %s bytes" },
    { "bytes of application data", define(BASE, "BDK_PAYLOAD_MAX"), nil, "at most %s bytes of the application's" },
    { "bytes of an id", define(BASE, "BDK_ID_LEN"), nil },
    { "bytes of a transaction id", define(BASE, "BDK_TX_LEN"), nil, "its transaction id `tx`, %s bytes" },
    { "depth of msgpack values", define("runtime/core/wire.h", "BDK_WIRE_DEPTH_MAX"), nil, "depth at most %s" },
    { "pairs of a map", define("runtime/core/wire.c", "PAIRS_MAX"), nil, "at most %s pairs a map" },
    { "bytes a request is padded to", define(MESSAGE, "BDK_PAD_TO"), nil, "with a `pad` are at least %s bytes long" },
    { "bytes of an element of `bin ×`", define("runtime/core/message.c", "BINS_ELEMENT_MAX"), nil,
      "each at most %s bytes" },

    "Proofs, requests, registration",
    { "an epoch of proofs", found(SERVERS .. "cookie.lua", "EPOCH_S = (%d+)"), "s",
      "an epoch lasts %s of wall-clock time" },
    { "first repeat of a request", found(CLIENT .. "request.lua", "first_gap_ms, longest_gap_ms = (%d+)"), "ms",
      "retransmitted with the same tx after %s" },
    { "longest gap between repeats", found(CLIENT .. "request.lua", "first_gap_ms, longest_gap_ms = %d+, (%d+)"),
      "ms", "then each %s" },
    { "a request is given up", found(CLIENT .. "request.lua", "{ timeout_ms = (%d+) }"), "ms", "given up after %s" },
    { "proofs taken for one request", found(CLIENT .. "request.lua", "proofs_max = (%d+)"), nil,
      "at most %s different proofs" },
    { "lifetime of a registration", found(SERVERS .. "matching.lua", "LIFETIME_S = (%d+)"), "s",
      "its lifetime (%s)" },
    { "refresh, ms a second of lifetime", found(CLIENT .. "registration.lua", "self.lifetime_s %* (%d+)\n"),
      nil, "repeated at half the lifetime" },
    { "pause after a failed refresh", found(CLIENT .. "registration.lua", "first_pause_ms, [%w_]+ = (%d+)"), "ms" },
    { "the longest such pause", found(CLIENT .. "registration.lua", "longest_pause_ms = %d+, (%d+)"), "ms" },
    { "a client looks at its NAT after", found(CLIENT .. "nat.lua", "FIRST_MS, SPREAD_MS = (%d+)"), "ms" },
    { "and at most so much later", found(CLIENT .. "nat.lua", "FIRST_MS, SPREAD_MS = %d+, (%d+)"), "ms" },
    { "maintenance", found(CLIENT .. "maintenance.lua", "interval_ms = (%d+)"), "ms", "Sent every %s ±10 %" },
    { "maintenance, spread", 100 * found(CLIENT .. "maintenance.lua", "%(0%.9 %+ (0%.2) %* jitter%)") / 2, "percent",
      "Sent every 15 s %s" },
    { "where a mapping outlived", found(CLIENT .. "maintenance.lua", "REFRESHED_MS = (%d+)"), "s", "outlived %s, each" },
    { "maintenance each", found(CLIENT .. "maintenance.lua", "REFRESHED_MS = %d+, (%d+)"), "ms", "each %s ±10 %" },
    { "and to the matching server after a silence of", found(CLIENT .. "maintenance.lua",
      "REFRESHED_MS = %d+, %d+, (%d+)"), "ms", "for %s: the" },
    { "where none outlived", found(CLIENT .. "maintenance.lua", "CONTROL_S = (%d+)"), "s", "did not outlive %s" },
    { "maintenance, at the most often", found(CLIENT .. "maintenance.lua", "SHORTEST_MS = (%d+)"), "ms",
      "(%s at the least)" },
    { "two changes of address are none by chance within", found(CLIENT .. "maintenance.lua", "LAPSES_US = (%d+)"), "us",
      "within %s of such a" },
    { "proven and observed addresses kept", found(SERVERS .. "addresses.lua", "PUBS_MAX = %d+, (%d+)"), nil,
      "at most %s in all" },
    { "local addresses kept", found(SERVERS .. "addresses.lua", "LOCALS_MAX, PUBS_MAX = (%d+)"), nil },
    { "registrations (default)", limit "registrations", nil },

    { "round trips of which the shortest counts", found(CLIENT .. "address.lua", "rtts_max = (%d+)"), nil,
      "the shortest of its latest %s samples" },

    "Associations",
    { "index of a client, at most", define(ASSOC, "BDK_ASSOC_CLIENT_MAX"), nil, "1–%s" },
    { "counters a frame may be late by", define(ASSOC_C, "WINDOW"), nil, "a window of at least %s" },
    { "kept while the client has not used it", define(ASSOC, "BDK_ASSOC_PENDING_US"), "us", "at most %s; else" },
    { "kept while it is not used", define(ASSOC, "BDK_ASSOC_IDLE_US"), "us", "that was not used for %s" },
    { "kept after `unregister`", define(ASSOC, "BDK_ASSOC_LEFT_US"), "us", "or for %s after" },
    { "first messages are remembered", define(ASSOC, "BDK_ASSOC_REPLAY_US"), "us" },
    { "replaced by a client at the age of", found(CLIENT .. "association.lua", "RENEW_US = (%d+)"), "us" },
    { "between two handshakes", found(CLIENT .. "association.lua", "GAP_US = (%d+)"), "us" },
    { "associations (default)", limit "associations", nil },
    { "from one source (default)", limit "associations_each", nil },
    { "handshakes a second (default)", limit "handshakes", nil },
    { "handshakes a second from one source (default)", limit "handshakes_each", nil },
    { "an ephemeral is kept", found(CLIENT .. "ephemerals.lua", "KEPT_US = (%d+)"), "us", "is erased after %s" },

    "Pages, rooms, matches",
    { "bytes of a page's entries", found(SERVERS .. "page.lua", "PAGE_MAX = (%d+)"), nil, "up to %s bytes a page" },
    { "bytes of an entry", found(SERVERS .. "page.lua", "ENTRY_MAX = (%d+)"), nil,
      "Whole entries of at most %s bytes" },
    { "entries looked at for a page (default)", limit "page_budget", nil, "after looking at %s" },
    { "rooms (default)", limit "rooms", nil },
    { "members of a room (default)", limit "room_members", nil },
    { "an empty room is kept", found(SERVERS .. "rooms.lua", "EMPTY_MS = (%d+)"), "ms", "are kept %s longer" },
    { "an unregistered selector is a member", found(SERVERS .. "rooms.lua", "GUEST_MS = (%d+)"), "ms",
      "is a member for %s" },
    { "wrong codes from one source at once", limit "guess_burst", nil, "%s wrong codes" },
    { "one more wrong code", limit "guess_every_s", "s", "one more each %s" },
    { "a repeated selection is known", found(SERVERS .. "selection.lua", "REPEAT_US, REPEATS_MAX = (%d+)"), "us",
      "for at least %s" },
    { "`matched` is sent at", matched, nil, matched_words },
    { "the nearer of two waits, at most", found(SERVERS .. "delivery.lua", "WAIT_MAX_MS = (%d+)"), "ms",
      "of their round-trip times, at most %s" },
    { "a pair is known to `renew`", found(SERVERS .. "renewals.lua", "KEPT_US, KEPT_MAX = (%d+)"), "us",
      "the pairs of the last %s at least" },
    { "the other's fresh port is waited for", found(SERVERS .. "renewals.lua", "PATIENCE_MS = (%d+)"), "ms" },
    { "unacknowledged `matched` to one client (default)", limit "pending", nil, "%s `matched` unacknowledged" },
    { "unacknowledged `matched` in all (default)", limit "pending_all", nil },
    { "`matched` remembered by a client", found(CLIENT .. "sharing.lua", "remembered_max = (%d+)"), nil },

    "Relays",
    { "relays in `matched`", found(SERVERS .. "init.lua", "RELAYS_MAX = (%d+)"), nil, nil },
    { "pairs (default)", limit "relay_pairs", nil, nil },
    { "bytes a second from an end (default)", limit "relay_rate", nil, nil },
    { "bytes of a pair (default)", limit "relay_bytes", nil, nil },
    { "a ticket is good for (default)", limit "relay_s", "s" },
    { "a pair is forgotten after", define("runtime/core/relay.h", "BDK_RELAY_IDLE_US"), "us",
      "nothing comes from for %s" },
    { "no hello: asked again after", found(CLIENT .. "relays.lua", "AGAIN_MS, AGAIN_MAX_MS = (%d+)"), "ms",
      "asks again after %s" },
    { "at most", found(CLIENT .. "relays.lua", "AGAIN_MS, AGAIN_MAX_MS = %d+, (%d+)"), "ms", "then doubling to %s" },
    { "after no answer", found(CLIENT .. "relays.lua", "LATER_MS = (%d+)"), "ms", "after no answer %s later" },
    { "a lost channel is opened again, at most each", found(CLIENT .. "relays.lua", "GAP_US = (%d+)"), "us",
      "at most each %s" },
    { "a ticket refused is had anew when it is older than", found(CLIENT .. "relays.lua", "STALE_US = (%d+)"), "us",
      "that it has had for %s" },
    { "consent of a relay that is spare, each", define(SESSION, "CONSENT_SPARE_US"), "us",
      "for consent each %s while" },
    { "in doubt after a send unanswered for, at least", define(RELAYED, "DOUBT_US"), "us", "since a send max(%s" },
    { "other paths are then tested each", define(RELAYED, "DOUBT_EVERY_US"), "us", "other paths are tested each %s" },
    { "beside a relay, failed paths again after", define(RELAYED, "AGAIN_FIRST_US"), "us", "first %s after the relay" },
    { "at the most", define(RELAYED, "AGAIN_MAX_US"), "us", "then doubling to %s" },

    "Who moves",
    { "asked again where the peer is, after", define(ROAM, "ASK_FIRST_US"), "us", "at once, again after %s" },
    { "at the most, each", define(ROAM, "ASK_MAX_US"), "us", "then doubling to %s. A candidate" },
    { "a peer is told where who asks is, at most each", found(SERVERS .. "whereabouts.lua", "PUSH_US = (%d+)"), "us" },
    { "such a question is given up after", found(CLIENT .. "roaming.lua", "ANSWER_MS = (%d+)"), "ms",
      "gives a question up after %s" },
    { "a client in a match looks at its interfaces each", found(CLIENT .. "roaming.lua", "LOOK_MS, SELDOM_MS = (%d+)"),
      "ms", "it looks each %s" },
    { "else each", found(CLIENT .. "roaming.lua", "LOOK_MS, SELDOM_MS = %d+, (%d+)"), "ms", "in no match each %s" },

    "Paths",
    { "tests at", early(), nil, "tested at\n%s and then" },
    { "then each", define(PATH_C, "LATE_US"), "us", "and then each %s ±10 %" },
    { "spread of it", 100 / found(PATH_C, "LATE_US / (%d+) "), "percent", "and then each 500 ms %s" },
    { "between two tests of a path, at least", define(PATH_C, "GAP_US"), "us", "at least %s between two" },
    { "tests a path, first round", define(SESSION_IN, "BDK_ROUND_TESTS"), nil, "at most %s tests in the first round" },
    { "in a later one, never answered", define(SESSION_IN, "BDK_ROUND_LATER"), nil, "%s in a later one" },
    { "in a later one, else", define(SESSION_IN, "BDK_ROUND_KNOWN"), nil, "%s where the address ever answered" },
    { "tests of a match at once", found(SESSION, "BURST_US %((%d+)u %* TOKEN_US"), nil, "share a token bucket of %s" },
    { "one more each", define(SESSION, "TOKEN_US"), "us", "one more each %s" },
    { "tests to an IP that never answered, first round", define(SESSION, "SILENT_IP_TESTS"), nil,
      "gets at most %s tests in the first round" },
    { "questions remembered a path", define(PATH_H, "BDK_PATH_NONCES"), nil, "the latest %s a path are remembered" },
    { "an answer counts for", define(PATH_H, "BDK_PATH_ANSWER_US"), "us", "for %s" },
    { "frames to a listed address until it confirms", define(PATH_H, "BDK_PATH_LISTED_MAX"), nil,
      "at most %s frames until" },
    { "bytes to an unlisted one, a byte received", define(PATH_H, "BDK_PATH_UNLISTED_TIMES"), nil,
      "at most %s times the bytes" },
    { "consent is asked each", define(SESSION, "CONSENT_EVERY_US"), "us", "asked for consent (RFC 7675) each %s" },
    { "spread of it", 100 / found(SESSION, "spread = wait_us / (%d+) %* 2"), "percent", "each 5 s %s" },
    { "the first time by the controlled side", define(SESSION, "CONSENT_FIRST_US"), "us",
      "by the controlled side after %s already" },
    { "at most, until the first select came", define(SESSION, "CONSENT_SOON_US"), "us",
      "steps up to %s, until the first select came" },
    { "consent is lost after", define(SESSION, "CONSENT_LOST_US"), "us", "%s without an answer" },

    "Sessions",
    { "paths of a session", define("runtime/core/session.h", "BDK_SESSION_PATHS"), nil, "at most %s paths" },
    { "SEEKING, never OPEN", define(SESSION, "NO_PATH_US"), "us", "SEEKING for %s and never OPEN" },
    { "SEEKING and nothing heard: a fresh port after", define("runtime/core/session_renew.c", "SILENT_US"), "us",
      "Sought for %s without anything" },
    { "fresh ports a session", define("runtime/core/session_renew.c", "SILENCES_MAX"), nil },
    { "SEEKING after a loss", define(SESSION, "SEEK_AGAIN_US"), "us", "all are tested again, for %s" },
    { "select, first repeat", define(SESSION, "SELECT_FIRST_US"), "us", "again after %s" },
    { "select, longest gap", define(SESSION, "SELECT_WAIT_MAX_US"), "us", "doubling to %s" },
    { "samples that must be better", define(PATH_H, "BDK_PATH_SAMPLES"), nil, "by %s round-trip times" },
    { "and by", define(SESSION, "BETTER_MARGIN_US"), "us", "by an eighth and %s" },
    { "patience with a send, at least", 1000 * found(SESSION, "twice > (%d+) %* MS"), "us",
      "unanswered for max(%s, 2 RTT)" },
    { "copies of close", define(SESSION, "CLOSE_COPIES"), nil, "**Close.** %s copies" },
    { "bytes a frame costs", define(SEAL, "BDK_FRAME_OVERHEAD"), nil, "%s bytes of overhead" },
    { "counters a frame may be late by", define(SEAL, "BDK_WINDOW"), nil, "none %s or more below the highest" },
    { "keys are replaced at the age of", define(SESSION, "REKEY_US"), "us", "When its keys are %s old" },
    { "rekey, first repeat", define(SESSION, "REKEY_FIRST_US"), "us", "in another frame, after %s" },
    { "rekey, longest gap", define(SESSION, "REKEY_WAIT_MAX_US"), "us", "then doubling to %s, until it is answered" },
    { "an old key is kept", define(SEAL, "BDK_SEAL_OLD_US"), "us", "is erased %s after the first frame" },
  }
end

function M.table()
  local out = { "| number | value |", "|---|---|" }
  for _, row in ipairs(M.list()) do
    if type(row) == "string" then
      out[#out + 1] = ("| **%s** | |"):format(row)
    else
      out[#out + 1] = ("| %s | %s |"):format(row[1], type(row[2]) == "string" and row[2] or format(row[2], row[3]))
    end
  end
  return table.concat(out, "\n")
end

local function flat(text)
  return (text:gsub("%s+", " "))
end

-- What the text should say of its numbers, and does not.
function M.unsaid(text)
  text = flat(text)
  local out = {}
  for _, row in ipairs(M.list()) do
    for i = 4, type(row) == "table" and #row or 0 do
      local value = type(row[2]) == "string" and row[2] or format(row[2], row[3])
      local says = flat(row[i]):gsub("%%s", function() return value end)
      if not text:find(says, 1, true) then out[#out + 1] = says end
    end
  end
  return out
end

return M
