-- SPDX-License-Identifier: MIT
-- Every message between a client and a server, said once: its number, its fields, their bounds.
-- Messages between peers are declared in runtime/core/message.c. docs/PROTOCOL.md explains both.

local wire = require("bodkin.core").wire

local M = {}
local all = {}

-- Shapes that recur. A proof is epoch (4 bytes) ‖ cookie (16): that the sender owns the address it sends
-- from. A proven address is an address ‖ epoch ‖ cookie.
local tx = { "tx", "bin", 12, 12 }
local proof = { "proof", "bin?", 20, 20 }
local id = { "id", "bin", 16, 16 }
local secret = { "secret", "bin", 16, 16 }
local pubs = { "pubs", "bins", 0, 2 }
local locals = { "locals", "addrs", 0, 4 }
local app = { "app", "str", 0, 64 }
local name = { "name", "str", 0, 32 }
local match = { "match", "bin", 16, 16 }
local pad = { "pad", "pad" }

-- Numbers 1..31 are between client and server, 32..63 between peers, 64..127 for roles of your own.
local declared = {
  { 1, "address_request", true, tx, pad },
  { 2, "address_report", false, tx, { "xaddr", "addr" }, { "proof", "bin", 20, 20 } },
  { 3, "register", true, tx, proof, { "key", "bin", 32, 32 }, secret, pubs, locals, app, name,
    { "props", "any", 1, 128 }, pad },
  { 4, "registered", false, tx, { "xaddr", "addr" }, { "lifetime_s", "uint", 1, 3600 }, { "boot", "bin", 8, 8 } },
  { 5, "unregister", true, tx, id, secret },
  { 6, "list", true, tx, proof, app, { "query", "any", 1, 128 }, { "cursor", "bin?", 16, 16 },
    { "want_addr", "bool" }, pad },
  { 7, "page", false, tx, { "entries", "any", 1, 1100 }, { "next", "bin?", 16, 16 } },
  { 8, "lookup", true, tx, proof, id, pad },
  { 9, "found", false, tx, id, { "pubs", "addrs", 0, 3 }, locals },
  { 10, "room_open", true, tx, proof, id, secret, { "code", "str?", 1, 32 }, { "match", "bin?", 16, 16 }, pad },
  { 11, "room_opened", false, tx, { "code", "str", 1, 32 }, match },
  { 12, "select", true, tx, proof, { "key", "bin", 32, 32 }, { "secret", "bin?", 16, 16 }, { "target", "bin?", 16, 16 },
    { "code", "str?", 1, 32 }, pubs, locals, app, name, { "props", "any", 1, 128 }, pad },
  { 13, "selected", false, tx, match, { "of_n", "uint", 1, 32 } },
  { 14, "matched", false, tx, match, { "key", "bin", 32, 32 }, { "peer", "bin", 16, 16 }, name,
    { "props", "any", 1, 128 }, { "pubs", "addrs", 0, 3 }, locals, { "of_n", "uint", 2, 32 },
    { "start_in_ms", "uint", 0, 10000 },
    { "age_ms", "uint", 0, 60000 }, { "data", "any", 1, 512 }, { "seat", "any?", 1, 64 } },
  { 15, "matched_ack", true, tx },
  { 16, "maintain", true, tx, id },
  { 17, "maintained", false, tx, { "boot", "bin", 8, 8 } },
  { 18, "refused", false, tx, { "code", "uint", 1000, 1099 }, { "text", "str", 0, 40 } },
  { 19, "done", false, tx },
  { 20, "leave", true, tx, id, secret, match },
  { 21, "enqueue", true, tx, proof, id, secret, { "ticket", "bin", 16, 16 }, { "queue", "str", 1, 32 },
    { "props", "any", 1, 128 }, pad },
  { 22, "queued", false, tx, { "ticket", "bin", 16, 16 } },
  { 23, "cancel", true, tx, id, secret, { "ticket", "bin", 16, 16 } },
}

for _, d in ipairs(declared) do
  local number, title, request = d[1], d[2], d[3]
  M[title] = wire.schema { type = number, name = title, request = request, fields = table.move(d, 4, #d, 1, {}) }
  all[#all + 1] = M[title]
end

-- Every schema, in order of number (a field `list` would hide the message of that name).
M.all = all

return M
