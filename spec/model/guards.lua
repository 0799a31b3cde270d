-- SPDX-License-Identifier: MIT
-- Guards of core, each broken on purpose: the line in a copy of its file that is replaced, and the seeds that must
-- notice. Run by guards_spec.lua; production code carries no switch for it.
--
-- A guard: name; file in runtime/core; line, found exactly once there; broken: what stands in its place; wish: see
-- scenario.draw; seeds: how many at most; quick: among the ones that `make test` breaks.
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
    broken = ";",
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
    line = "return tests >= (s->round_later ? ROUND_TESTS_LATER : SILENT_IP_TESTS);",
    broken = "return tests > 1000;",
    wish = { bogus = { n = 15, one_ip = true } },
  },
  {
    name = "what was sent to places others took", file = "session.c", seeds = 2000,
    line = "if (p->listed) s->lost_tests += p->attempt;",
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

-- The file's text with the line replaced; or nil and why.
function M.mutate(guard)
  local text = read("runtime/core/" .. guard.file)
  local n = count(text, guard.line)
  if n ~= 1 then
    return nil, ("%s: its line stands %d times in runtime/core/%s; amend spec/model/guards.lua"):format(guard.name, n,
      guard.file)
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

-- Builds a core.so with the guard broken, and runs its seeds on it. Returns whether they noticed, and their output.
function M.run(guard, build, name)
  local text, why = M.mutate(guard)
  if not text then return nil, why end
  local dir = build .. "/guards/" .. name
  assert(sh(("mkdir -p '%s/bodkin'"):format(dir)))
  local source = dir .. "/" .. guard.file
  do
    local file <close> = assert(io.open(source, "w"))
    file:write(text)
  end
  local object = ("%s/release/runtime/core/%s"):format(build, guard.file:gsub("%.c$", ".o"))
  local command = ("gcc -std=c11 -D_GNU_SOURCE -O1 -fPIC -fvisibility=hidden -w -Iruntime -Iruntime/core -c '%s' "
    .. "-o '%s.o' && gcc -shared -o '%s/bodkin/core.so' '%s.o' $(ls %s/release/runtime/core/*.o "
    .. "%s/release/runtime/io/*.o %s/release/bindings/*.o | grep -vxF '%s') -lmsgpackc -lev -lcares -lsodium"):format(
    source, source, dir, source, build, build, build, object)
  local ok, output = sh(command)
  if not ok then return nil, output end
  local words = {}
  for field, value in pairs(guard.wish) do words[#words + 1] = ("[%q] = %s"):format(field, M.literal(value)) end
  table.sort(words)
  local code = ("local s = dofile 'spec/model/seeds.lua' local r = s.range(1, %d, { %s }, { stop = 1 }) "
    .. "print(r.failures[1] or 'nothing noticed') os.exit(r.failures[1] and 3 or 0)"):format(guard.seeds,
    table.concat(words, ", "))
  local _, seen = sh(("env -u LD_PRELOAD LUA_CPATH='%s/?.so;;' LUA_PATH='scripts/?.lua;scripts/?/init.lua;;' "
    .. "timeout 120 lua5.4 -e \"%s\"; echo exit $?"):format(dir, (code:gsub('"', '\\"'))))
  return seen:find("exit 3", 1, true) ~= nil, seen
end

function M.literal(value)
  if type(value) ~= "table" then return type(value) == "string" and ("'%s'"):format(value) or tostring(value) end
  local words = {}
  for field, x in pairs(value) do words[#words + 1] = ("%s = %s"):format(field, M.literal(x)) end
  return "{ " .. table.concat(words, ", ") .. " }"
end

return M
