-- SPDX-License-Identifier: MIT
-- Every message between a client and a server, said once: its number, its fields, their bounds.
-- Messages between peers are declared in runtime/core/message.c. docs/PROTOCOL.md explains both.

local wire = require("bodkin.core").wire

local M = {}
local all = {}

-- Shapes that recur. A proof is epoch (4 bytes) ‖ cookie (16): that the sender owns the address it sends
-- from. A proven address is an address ‖ epoch ‖ cookie. An ephemeral is a public key for one match's handshake.
local tx = { "tx", "bin", 12, 12 }
local id = { "id", "bin", 16, 16 }
local ephemeral = { "ephemeral", "bin", 32, 32 }
local pubs = { "pubs", "bins", 0, 2 }
local locals = { "locals", "addrs", 0, 4 }
local app = { "app", "str", 0, 64 }
local name = { "name", "str", 0, 32 }
local props = { "props", "any", 1, 128 }
local match = { "match", "bin", 16, 16 }
local ticket = { "ticket", "bin", 16, 16 }
local rtt = { "rtt_ms", "uint?", 0, 10000 }
local nat = { "nat", "uint?", 1, 16383 } -- see kind.lua
local pad = { "pad", "pad" }

-- Numbers 1..31 and 40..63 are between client and server, 32..39 between peers, 64..127 for roles of your own. What is
-- sealed counts only when it comes in an association, which says who sent it.
local REQUEST, REPLY, SEALED_REQUEST, SEALED = "request", "reply", "sealed request", "sealed"
local declared = {
  { 1, "address_request", REQUEST, tx, pad },
  { 2, "address_report", REPLY, tx, { "xaddr", "addr" }, { "proof", "bin", 20, 20 } },
  { 3, "register", SEALED_REQUEST, tx, ephemeral, pubs, locals, app, name, props, { "token", "bin?", 1, 512 },
    rtt, nat },
  { 4, "registered", SEALED, tx, { "xaddr", "addr" }, { "lifetime_s", "uint", 1, 3600 }, { "boot", "bin", 8, 8 } },
  { 5, "unregister", SEALED_REQUEST, tx },
  { 6, "list", SEALED_REQUEST, tx, app, { "query", "any", 1, 512 }, { "cursor", "bin?", 16, 16 },
    { "want_addr", "bool" } },
  { 7, "page", SEALED, tx, { "entries", "any", 1, 1100 }, { "next", "bin?", 16, 16 } },
  { 8, "lookup", SEALED_REQUEST, tx, id },
  { 9, "found", SEALED, tx, id, { "pubs", "addrs", 0, 3 }, locals },
  { 10, "room_open", SEALED_REQUEST, tx, { "code", "str?", 1, 32 }, { "match", "bin?", 16, 16 } },
  { 11, "room_opened", SEALED, tx, { "code", "str", 1, 32 }, match },
  { 12, "select", SEALED_REQUEST, tx, ephemeral, { "target", "bin?", 16, 16 }, { "code", "str?", 1, 32 }, pubs, locals,
    app, name, props, { "token", "bin?", 1, 512 }, rtt, nat },
  { 13, "selected", SEALED, tx, match, { "of_n", "uint", 1, 32 } },
  { 14, "matched", SEALED, tx, match, { "key", "bin", 32, 32 }, { "peer_key", "bin", 32, 32 },
    { "peer_ephemeral", "bin", 32, 32 }, { "own", "bin", 8, 8 }, name, props, { "pubs", "addrs", 0, 3 }, locals,
    { "of_n", "uint", 2, 32 }, { "start_in_ms", "uint", 0, 10000 }, { "age_ms", "uint", 0, 60000 },
    { "data", "any", 1, 512 }, { "seat", "any?", 1, 64 }, { "relays", "addrs", 0, 3 }, { "ticket", "bin?", 37, 37 },
    { "again", "uint", 0, 255 }, { "commit_us", "uint?" }, { "own_nat", "uint?", 1, 16383 },
    { "peer_nat", "uint?", 1, 16383 } },
  { 15, "matched_ack", SEALED_REQUEST, tx },
  { 16, "maintain", REQUEST, tx, id },
  { 17, "maintained", REPLY, tx, { "boot", "bin", 8, 8 } },
  { 18, "refused", REPLY, tx, { "code", "uint", 1000, 1099 }, { "text", "str", 0, 40 } },
  { 19, "done", SEALED, tx },
  { 20, "leave", SEALED_REQUEST, tx, match },
  { 21, "enqueue", SEALED_REQUEST, tx, ticket, { "queue", "str", 1, 32 }, props,
    { "party", "bin?", 16, 16 }, { "party_size", "uint?", 2, 32 } },
  { 22, "queued", SEALED, tx, ticket },
  { 23, "cancel", SEALED_REQUEST, tx, ticket },
  { 24, "open", REQUEST, tx, { "proof", "bin?", 20, 20 }, { "noise", "bin", 100, 1140 } },
  { 25, "opened", REPLY, tx, { "noise", "bin", 52, 1140 } },
  { 26, "lost", REPLY, tx },
  { 27, "key_request", REQUEST, tx, pad },
  { 28, "key_report", REPLY, tx, { "keys", "bins", 1, 2 } },
  { 29, "outcome", SEALED_REQUEST, tx, match, { "peer", "bin", 16, 16 }, { "report", "any", 1, 340 } },
  { 30, "relay_open", REQUEST, tx, { "proof", "bin?", 20, 20 }, { "ticket", "bin", 37, 37 },
    { "tag", "uint", 1, 0xffffffff }, { "hello", "bin", 1, 100 }, pad },
  { 31, "relay_opened", REPLY, tx, { "channel", "uint", 1, 0xffffffff }, { "hello", "bin?", 1, 100 },
    { "lasts_s", "uint?", 1, 0xffffffff } },
  { 40, "probe_request", REQUEST, tx, { "proof", "bin?", 20, 20 }, { "via", "uint", 0, 4 },
    { "after_s", "uint", 0, 180 }, pad },
  { 41, "probe_report", REPLY, tx, { "via", "uint", 0, 4 }, { "others", "addrs", 0, 4 } },
  { 42, "renew", SEALED_REQUEST, tx, match, { "peer", "bin", 16, 16 }, { "epoch", "uint", 1, 255 }, pubs,
    rtt },
  { 43, "proposed", SEALED, tx, ticket, match, { "accept_ms", "uint", 0, 120000 }, { "players", "uint", 2, 32 } },
  { 44, "accept", SEALED_REQUEST, tx, ticket, match },
  { 45, "decline", SEALED_REQUEST, tx, ticket, match },
  { 46, "waiting", SEALED, tx, ticket, { "present", "uint", 1, 32 }, { "of", "uint", 1, 32 },
    { "text", "str", 0, 40 } },
  { 47, "ended", SEALED, tx, ticket, { "code", "uint", 1000, 1099 }, { "text", "str", 0, 40 } },
  { 48, "backfill", SEALED_REQUEST, tx, match, { "seats", "any", 1, 64 }, props },
  { 49, "room_host", SEALED, tx, match, { "host", "bin", 16, 16 }, { "code", "str", 1, 32 } },
  { 50, "watch", SEALED_REQUEST, tx, { "watch", "bin", 16, 16 }, app, { "query", "any", 1, 512 }, { "on", "bool" } },
  { 51, "changed", SEALED, tx, { "watch", "bin", 16, 16 } },
  { 52, "why", SEALED_REQUEST, tx, ticket },
  { 53, "waits", SEALED, tx, ticket, { "waited_ms", "uint", 0, 0xffffffff }, { "present", "uint", 1, 32 },
    { "of", "uint", 1, 32 }, { "said", "any?", 1, 1000 } },
  { 62, "where", SEALED_REQUEST, tx, match, { "peer", "bin", 16, 16 }, pubs, locals },
  { 63, "whereabouts", SEALED, tx, match, { "peer", "bin", 16, 16 }, { "pubs", "addrs", 0, 3 }, locals,
    { "ticket", "bin?", 37, 37 } },
}

for _, d in ipairs(declared) do
  local number, title, kind = d[1], d[2], d[3]
  M[title] = wire.schema {
    type = number, name = title, request = kind == REQUEST or kind == SEALED_REQUEST,
    sealed = kind == SEALED_REQUEST or kind == SEALED, fields = table.move(d, 4, #d, 1, {}),
  }
  all[#all + 1] = M[title]
end

-- Every schema, in order of number (a field `list` would hide the message of that name).
M.all = all

return M
