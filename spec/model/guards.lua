-- SPDX-License-Identifier: MIT
-- Guards, each broken on purpose: the line in a copy of its file that is replaced, and the tests that must notice. Run
-- by guards_spec.lua; production code carries no switch for it.
--
-- A guard: name; file: a C or Lua file, in runtime/core where it names no directory; line, found exactly once there;
-- broken: what stands in its place; quick: among the ones that `make test` breaks; and who must notice, one of
--   seeds = how many at most, wish = see scenario.draw
--   spec  = a busted spec
--   test  = a C spec, without .c (what stands in core only)
local M = {}

M.list = {
  {
    name = "the confirm check", file = "session.c", quick = true, seeds = 500,
    line = "if (!p || !bdk_path_answered(p, probe->nonce, &route->remote, now_us)) {",
    broken = "if (!p) {",
    wish = { a = "none", b = "none", attack = true },
  },
  {
    name = "the origin rule", file = "session.c", seeds = 50,
    line = "if (!p && !(p = learn_path(s, route))) return;",
    broken = "if (!p) p = &s->paths[0];",
    wish = { a = "symmetric_random", b = "full_cone" },
  },
  {
    name = "the token bucket", file = "session.c", seeds = 20,
    line = "if (spent + TOKEN_US > now_us + BURST_US) {",
    broken = "if (spent + TOKEN_US == 0) {",
    wish = { bogus = { n = 15 } },
  },
  {
    name = "the deadline of seeking", file = "session.c", seeds = 50,
    line = "if (s->state == BDK_SESSION_SEEKING) return sooner(due, s->give_up_us);",
    broken = "if (s->state == BDK_SESSION_SEEKING) return due;",
    wish = { a = "symmetric_random", b = "port_restricted", attack = false },
  },
  {
    name = "the role check", file = "probe.c", quick = true, seeds = 50,
    line = "if (p->role == k->role || memcmp(p->match, k->match, BDK_MATCH_LEN) != 0) return false;",
    broken = "if (memcmp(p->match, k->match, BDK_MATCH_LEN) != 0) return false;",
    wish = { a = "none", b = "none", attack = true },
  },
  {
    name = "the mac check", file = "probe.c", seeds = 100,
    line = "return sodium_memcmp(expected, bytes + len - MAC_LEN, MAC_LEN) == 0;",
    broken = "return sodium_memcmp(expected, bytes + len - MAC_LEN, MAC_LEN) <= 0;",
    wish = { a = "none", b = "none", attack = true },
  },
  {
    name = "the window", file = "seal.c", quick = true, seeds = 50,
    line = "if (!bdk_window_fresh(&s->window, counter)) return BDK_SEAL_REPLAYED;",
    broken = "",
    wish = { a = "none", b = "none", duplicate = 0.1, early_data = true },
  },
  {
    name = "three times the bytes", file = "session.c", seeds = 200,
    line = "if (!p->listed && !p->valid_us && p->tx_bytes + TEST_MAX > BDK_PATH_UNLISTED_TIMES * p->rx_bytes) {",
    broken = "if (false) {",
    wish = { a = "none", b = "none", attack = true },
  },
  {
    name = "SELECT counts upward", file = "session.c", seeds = 500,
    line = "if (n > s->select_n && epoch >= s->peer_epoch) {",
    broken = "if (n != s->select_n && epoch >= s->peer_epoch) {",
    wish = { together = { at = "home", shared = "full_cone" }, loss = 0.1, reorder = 0.3, reorder_ms = 400 },
  },
  {
    name = "close", file = "session.c", seeds = 20,
    line = "bdk_session_on(s, BDK_SESSION_CLOSE);",
    broken = ";",
    wish = { a = "none", b = "none" },
  },
  {
    name = "16 frames to a listed address", file = "path.c", seeds = 50,
    line = "if (p->listed || p->valid_us) return p->data_unconfirmed < BDK_PATH_LISTED_MAX;",
    broken = "if (p->listed || p->valid_us) return true;",
    wish = { a = "none", b = "none", early_data = true },
  },
  {
    name = "100 tests to a silent IP", file = "session.c", seeds = 20,
    line = "return tests >= (s->round_later ? BDK_ROUND_LATER : SILENT_IP_TESTS);",
    broken = "return tests > 1000;",
    wish = { bogus = { n = 15, one_ip = true } },
  },
  {
    name = "what was sent to places others took", file = "session.c", seeds = 2000,
    line = "if (p->listed) s->lost_tests += p->spent + p->attempt;",
    broken = ";",
    wish = { bogus = { n = 15, one_ip = true } },
  },
  {
    name = "the end of what is never confirmed", file = "session.c", seeds = 1,
    line = "if (!s->unconfirmed_us) s->unconfirmed_us = now_us;",
    broken = "s->unconfirmed_us = now_us;",
    wish = { a = "APD/EI/random", b = "APD/EI/random", attack = false },
  },
  {
    name = "SELECT on a path that is not valid", file = "session.c", seeds = 1000,
    line = "It comes again.\n  if (p->state != BDK_PATH_VALID) return;",
    broken = "\n",
    wish = { a = "none", b = "none", attack = true },
  },
  {
    name = "the tag check", file = "seal.c", quick = true, seeds = 50,
    line = "BDK_FRAME_HEAD, nonce, key) == 0;",
    broken = "BDK_FRAME_HEAD, nonce, key) <= 0;",
    wish = { a = "none", b = "none", attack = true, mitm = 0.3, early_data = true },
  },
  {
    name = "the window against a man in the middle", file = "seal.c", seeds = 50,
    line = "bdk_window_mark(&s->window, counter);",
    broken = ";",
    wish = { a = "none", b = "none", attack = true, mitm = 0.3, early_data = true },
  },
  {
    name = "the role in the key", file = "probe.c", quick = true, test = "spec/core/test_probe",
    line = "crypto_generichash_update(&state, &direction, 1);",
    broken = "crypto_generichash_update(&state, &(uint8_t){0}, 1);",
  },
  {
    name = "the role in a session's keys", file = "seal.c", quick = true, test = "spec/core/test_seal",
    line = "bdk_noise_split(noise, initiator ? tx : rx, initiator ? rx : tx);",
    broken = "bdk_noise_split(noise, tx, rx); memcpy(rx, tx, BDK_KEY_LEN);",
  },
  {
    name = "the refusal of keys of low order", file = "noise.c", quick = true, test = "spec/core/test_noise",
    line = "if (crypto_scalarmult(shared, secret, public)) return false;",
    broken = "(void)!crypto_scalarmult(shared, secret, public);",
  },
  {
    name = "the challenge before a client is followed", file = "assoc.c", quick = true,
    spec = "spec/client/association_spec.lua",
    line = "if (newest && *out_len >= sizeof a->nonce) return ask(t, a, route, out, out_len);",
    broken = "if (newest) { a->at = *route; return BDK_ASSOC_MESSAGE; }",
  },
  {
    name = "what the challenge asks", file = "assoc.c", spec = "spec/client/association_spec.lua",
    line = "sodium_memcmp(a->nonce, out, sizeof a->nonce) != 0)",
    broken = "false)",
  },
  {
    name = "the memory of first messages", file = "assoc.c", quick = true, spec = "spec/client/association_spec.lua",
    line = "if (seen(t, tag)) {",
    broken = "if (false) {",
  },
  {
    name = "the length of a challenge", file = "assoc.c", test = "spec/core/test_assoc",
    line = "if (*out_len < sizeof a->nonce) return BDK_ASSOC_DROP;",
    broken = ";",
  },
  {
    name = "the window of an association", file = "assoc.c", test = "spec/core/test_assoc",
    line = "return age < WINDOW && !(a->bits >> age & 1);",
    broken = "return age < WINDOW;",
  },
  {
    name = "the place that a challenge is answered from", file = "assoc.c", test = "spec/core/test_assoc",
    line = "if (!a->asked || !same_place(&a->moving, route) || *out_len != sizeof a->nonce ||",
    broken = "if (!a->asked || *out_len != sizeof a->nonce ||",
  },
  {
    name = "the erasure of ephemerals", file = "scripts/bodkin/client/ephemerals.lua",
    spec = "spec/client/association_spec.lua",
    line = "while self.list[1] and now - self.list[1].made_us > KEPT_US do table.remove(self.list, 1) end",
    broken = "",
  },
  {
    name = "what must be sealed", file = "bindings/router.c", quick = true, spec = "spec/servers/matching_spec.lua",
    line = "if (h->schema->sealed && !r->reply->sealed) {",
    broken = "if (false) {",
  },
  {
    name = "single use of an answer", file = "path.c", test = "spec/core/test_mux_hostile",
    line = "p->asked[i].sent_us = 0;",
    broken = ";",
  },
  {
    name = "filter of what is no host", file = "session.c", test = "spec/core/test_mux_hostile",
    line = "if (!bdk_session_is_host(&route.remote)) return NULL;",
    broken = ";",
  },
  {
    name = "check of the epoch", file = "session.c", test = "spec/core/test_mux_hostile",
    line = "if (probe->epoch < s->peer_epoch) {",
    broken = "if (false) {",
  },
  {
    name = "the cookie check", file = "scripts/bodkin/servers/cookie.lua", quick = true,
    spec = "spec/servers/cookie_spec.lua",
    line = "return crypto.equal(crypto.proof(self.secret, addr, epoch), proof)",
    broken = "return true",
  },
  {
    name = "the age of a cookie", file = "scripts/bodkin/servers/cookie.lua", spec = "spec/servers/cookie_spec.lua",
    line = "if age > 1 and age ~= 0xffffffff then return false end",
    broken = "",
  },
  {
    name = "the cookie before an association", file = "scripts/bodkin/servers/associations.lua", quick = true,
    spec = "spec/servers/matching_spec.lua",
    line = "if not server:prove(reply, from, tx, proof) then return end",
    broken = "reply:proven()",
  },
  {
    name = "the reply rule", file = "bindings/router.c", quick = true, spec = "spec/bindings/router_spec.lua",
    line = "bool allowed = r->sealed || r->proven || (!r->sent && len <= r->length && (r->request || s->request));",
    broken = "bool allowed = true;",
  },
  {
    name = "the filter of public candidates", file = "scripts/bodkin/servers/addresses.lua", quick = true,
    spec = "spec/servers/matching_spec.lua",
    line = "if a and addr.port(a) ~= 0 and (proven or addr.same_ip(a, from)) and #list < PUBS_MAX then",
    broken = "if a and addr.port(a) ~= 0 and #list < PUBS_MAX then",
  },
  {
    name = "the filter of local candidates", file = "scripts/bodkin/servers/addresses.lua",
    spec = "spec/servers/matching_spec.lua",
    line = "return addr.port(a) ~= 0 and (class == \"private\"",
    broken = "return addr.port(a) ~= 0 and (class ~= \"none\" or class == \"private\"",
  },
  {
    name = "rule of whom local candidates are shown to", file = "scripts/bodkin/servers/addresses.lua",
    spec = "spec/servers/matching_spec.lua",
    line = "if addr.same_ip(a, b) then return locals end",
    broken = "return locals",
  },
  {
    name = "silence about addresses seen over TCP", file = "scripts/bodkin/servers/addresses.lua",
    spec = "spec/client/tcp_spec.lua --filter told",
    line = "if pubs[1] and addr.port(pubs[1]) ~= 0 then return pubs end",
    broken = "do return pubs end",
  },
  {
    name = "the proof that is of TCP alone", file = "scripts/bodkin/servers/cookie.lua",
    spec = "spec/client/tcp_spec.lua --filter proof",
    line = "local label = options.over_tcp and \"cookie tcp\" or \"cookie\"",
    broken = "local label = \"cookie\"",
  },
  {
    name = "the bounds of a length over TCP", file = "carriage.c", test = "spec/core/test_carriage",
    line = "return len >= 1 && len <= (int)BDK_DATAGRAM_MAX ? len : BDK_E_INVALID;",
    broken = "return len;",
  },
  {
    name = "check of who answers", file = "scripts/bodkin/client/request.lua",
    spec = "spec/client/request_spec.lua",
    line = "if r and r.to == from and (r.sealed or false) == reply:sealed() then",
    broken = "if r and (r.sealed or false) == reply:sealed() then",
  },
  {
    name = "check that a sealed request is not answered in the clear", file = "scripts/bodkin/client/request.lua",
    spec = "spec/client/association_spec.lua",
    line = "if r and r.to == from and (r.sealed or false) == reply:sealed() then",
    broken = "if r and r.to == from then",
  },
  {
    name = "the address that a relayed datagram comes from", file = "relay.c", quick = true,
    test = "spec/core/test_relay",
    line = "e->route.sock != from->sock || !bdk_addr_equal(&e->route.remote, &from->remote)) {",
    broken = "false) {",
  },
  {
    name = "the rule that a relay forwards to the other end", file = "relay.c", test = "spec/core/test_relay",
    line = "*to = other->route;",
    broken = "*to = *from;",
  },
  {
    name = "the whole of a pair's name", file = "relay.c", test = "spec/core/test_relay",
    line = "r->pairs[i] && memcmp(r->pairs[i]->name, name, BDK_RELAY_PAIR_LEN) == 0) return i;",
    broken = "r->pairs[i]) return i;",
  },
  {
    name = "the rate of a relay's end", file = "relay.c", test = "spec/core/test_relay",
    line = "if (full_us + cost_us > r->now_us + span_us) return false;",
    broken = "",
  },
  {
    name = "the share of a relayed pair", file = "relay.c", test = "spec/core/test_relay",
    line = "if (spent || !pay(r, e, len)) {",
    broken = "if (!pay(r, e, len)) {",
  },
  {
    name = "the proof before a relay opens", file = "scripts/bodkin/servers/relay.lua", quick = true,
    spec = "spec/client/relay_spec.lua --filter ticket",
    line = "if not server:prove(reply, from, tx, proof) then return end",
    broken = "reply:proven()",
  },
  {
    name = "the MAC of a ticket", file = "scripts/bodkin/servers/tickets.lua",
    spec = "spec/client/relay_spec.lua --filter ticket",
    line = "if #ticket ~= M.LEN or not crypto.equal(sign(self, body), ticket) then return nil end",
    broken = "",
  },
  {
    name = "the expiry of a ticket", file = "scripts/bodkin/servers/tickets.lua",
    spec = "spec/client/relay_spec.lua --filter ticket",
    line = "if role > 1 or left_s <= 0 then return nil end",
    broken = "if left_s <= 0 then left_s = 1 end",
  },
}

local function read(path)
  local file <close> = assert(io.open(path))
  return file:read "a"
end

local function count(text, line)
  local n, from = 0, 1
  while true do
    local first, last = text:find(line, from, true)
    if not first then return n end
    n, from = n + 1, last + 1
  end
end

local function path_of(guard)
  return guard.file:find "/" and guard.file or "runtime/core/" .. guard.file
end

-- The file's text with the line replaced; or nil and why.
function M.mutate(guard)
  local text = read(path_of(guard))
  local n = count(text, guard.line)
  if n ~= 1 then
    return nil, ("%s: its line stands %d times in %s; amend spec/model/guards.lua"):format(guard.name, n,
      path_of(guard))
  end
  local first, last = text:find(guard.line, 1, true)
  return text:sub(1, first - 1) .. guard.broken .. text:sub(last + 1)
end

local function sh(command)
  local pipe = assert(io.popen(command .. " 2>&1"))
  local output = pipe:read "a"
  local ok = pipe:close()
  return ok, output
end

local function literal(value)
  if type(value) ~= "table" then return type(value) == "string" and ("'%s'"):format(value) or tostring(value) end
  local words = {}
  for field, x in pairs(value) do words[#words + 1] = ("%s = %s"):format(field, literal(x)) end
  table.sort(words)
  return "{ " .. table.concat(words, ", ") .. " }"
end

local CC = "gcc -std=c11 -D_GNU_SOURCE -O1 -fPIC -fvisibility=hidden -w -Iruntime -Iruntime/core -Ibindings "
  .. "-I/usr/include/lua5.4 "

-- Writes the broken file into the directory and makes of it what the tests need there. Returns true, or nil and why.
local function make(guard, text, build, dir)
  local path = path_of(guard)
  local source = dir .. "/" .. path
  assert(sh(("mkdir -p '%s' '%s/bodkin'"):format(source:match "^(.*)/", dir)))
  do
    local file <close> = assert(io.open(source, "w"))
    file:write(text)
  end
  if path:find "%.lua$" then return true end
  local object = ("%s/release/%s"):format(build, path:gsub("%.c$", ".o"))
  local dirs = guard.test and { "runtime/core" } or { "runtime/core", "runtime/io", "bindings" }
  local others = {}
  for i, name in ipairs(dirs) do others[i] = ("%s/release/%s/*.o"):format(build, name) end
  local link = ("$(ls %s | grep -vxF '%s') -lmsgpackc -lev -lcares -lsodium"):format(table.concat(others, " "), object)
  local ok, output = sh(("%s -iquote '%s' -c '%s' -o '%s.o'"):format(CC, path:match "^(.*)/", source, source))
  if ok and guard.test then
    ok, output = sh(("%s -o '%s/test' %s.c '%s.o' %s -lcmocka"):format(CC, dir, guard.test, source, link))
  elseif ok then
    ok, output = sh(("gcc -shared -o '%s/bodkin/core.so' '%s.o' %s"):format(dir, source, link))
  end
  if not ok then return nil, output end
  return true
end

-- The command that runs the guard's tests, with what stands in the directory before what is whole.
local function command_of(guard, build, dir)
  if guard.test then return ("CMOCKA_MESSAGE_OUTPUT=TAP timeout 120 '%s/test'"):format(dir) end
  local env = ("env -u LD_PRELOAD LUA_CPATH='%s/?.so;%s/release/lua/?.so;;' LUA_PATH='%s/scripts/?.lua;"
    .. "%s/scripts/?/init.lua;scripts/?.lua;scripts/?/init.lua;;' timeout 120 "):format(dir, build, dir, dir)
  if guard.spec then return ("%s busted --lua=/usr/bin/lua5.4 -o TAP %s"):format(env, guard.spec) end
  local code = ("local s = dofile 'spec/model/seeds.lua' local r = s.range(1, %d, %s, { stop = 1 }) "
    .. "print(r.failures[1] and 'not ok: ' .. r.failures[1] or 'nothing noticed') os.exit(r.failures[1] and 3 or 0)")
    :format(guard.seeds, literal(guard.wish))
  return ("%s lua5.4 -e \"%s\""):format(env, (code:gsub('"', '\\"')))
end

-- Breaks the guard in a copy and runs its tests on that. Returns whether they noticed, and their output.
function M.run(guard, build, name)
  local text, why = M.mutate(guard)
  if not text then return nil, why end
  local dir = build .. "/guards/" .. name
  local made, output = make(guard, text, build, dir)
  if not made then return nil, output end
  local ok, seen = sh(command_of(guard, build, dir))
  return not ok and seen:find("not ok", 1, true) ~= nil, seen
end

-- The same tests on what is whole (C specs are run by themselves). Returns whether they pass, and their output.
function M.whole(guard, build)
  if guard.test then return true end
  return sh(command_of(guard, build, build .. "/guards/none"))
end

return M
