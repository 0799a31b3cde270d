// SPDX-License-Identifier: MIT
// Garbage collected at every allocation, and memory refused at each one in turn: under ASan neither may crash,
// leak or leave anything half made, and nothing may be thrown through the loop.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>
#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>

int luaopen_bodkin_core(lua_State *L);

typedef struct memory {
  long count, refuse_at, refuse_n; // allocations so far; the first that is refused, and how many
  int collect;                     // refuse every first try: Lua collects all garbage, then tries again
  int refused;                     // this try's predecessor was
  size_t bytes;
} memory;

static void *allocate(void *ctx, void *p, size_t old_size, size_t new_size) {
  memory *m = ctx;
  if (!p) old_size = 0;
  if (new_size == 0) {
    m->bytes -= old_size;
    free(p);
    return NULL;
  }
  if (new_size > old_size) { // Lua relies on shrinking never failing
    if (m->collect && !m->refused) {
      m->refused = 1;
      return NULL;
    }
    m->refused = 0;
    m->count++;
    if (m->refuse_at && m->count >= m->refuse_at && m->count < m->refuse_at + m->refuse_n) return NULL;
  }
  void *q = realloc(p, new_size);
  if (q) m->bytes += new_size - old_size;
  return q;
}

// All types are made and used; the real loop is left when all has happened, or after 30 ms.
static const char script[] =
    "local core = require 'bodkin.core'\n"
    "core.on_error(function() end)\n"
    "local wire, at = core.wire, core.addr.parse '127.0.0.1:0'\n"
    "local tx = ('t'):rep(12)\n"
    "local ask = wire.schema { name = 'ask', type = 70, request = true, fields = { { 'tx', 'bin', 12, 12 },\n"
    "  { 'list', 'addrs', 0, 4 }, { 'any', 'any', 1, 60 }, { 'pad', 'pad' } } }\n"
    "local counters = core.counters()\n"
    "local loop <close> = core.loop {}\n"
    "local router = core.router(counters)\n"
    "router:reply_schemas { ask }\n"
    "local seen, raw = 0, 0\n"
    "router:on(ask, nil, function(reply, from, id, list, any)\n"
    "  seen = seen + #list + #wire.decode(any).k\n"
    "  reply:proven()\n"
    "  reply('ask', id, list, any)\n"
    "end)\n"
    "local a = loop:udp(at, { counters = counters, number = 1 })\n"
    "local b = loop:udp(at, { counters = counters, number = 2 })\n"
    "local ends, pairs_of = {}, {}\n"
    "for i = 1, 4 do pairs_of[i] = table.concat { core.crypto.keypair(string.char(i):rep(32)) } end\n"
    "for i, sock in ipairs { a, b } do\n"
    "  local mux = core.mux { seed = ('s'):rep(32), counters = counters }\n"
    "  mux:drive(loop, function(kind, session, x)\n"
    "    ends[kind] = (ends[kind] or 0) + 1\n"
    "    if kind == 'connected' then mux:send(nil, session, 'hello') mux:paths(session) end\n"
    "  end)\n"
    "  sock:mux(mux)\n"
    "  mux:add(nil, { match = ('m'):rep(16), key = ('k'):rep(32), self = ('a'):rep(15) .. i,\n"
    "    peer = ('a'):rep(15) .. 3 - i, own = pairs_of[i], own_ephemeral = pairs_of[i + 2],\n"
    "    peer_key = pairs_of[3 - i]:sub(1, 32), peer_ephemeral = pairs_of[5 - i]:sub(1, 32),\n"
    "    candidates = { { (i == 1 and b or a):addr(), 'host', i } } })\n"
    "end\n"
    "a:router(router)\n"
    "b:on_packet(function(from, bytes) raw = raw + #bytes end)\n"
    "b:send(a:addr(), ask:encode(tx, { at }, wire.encode { k = { 1, 'x', true } }))\n"
    "local path = ...\n"
    "loop:listen(path, function(s) s:on_line(function(line) if line then s:write(line) end s:close() end) end)\n"
    "local s = loop:connect(path)\n"
    "s:on_line(function(line) ends.line = ends.line or line end)\n"
    "s:write 'line\\n'\n"
    "loop:resolve('127.0.0.1', 1, function(addrs) ends.addrs = addrs end)\n"
    "local reg <close> = core.registry { seed = ('s'):rep(16) }\n"
    "reg:put { id = ('i'):rep(16), key = ('k'):rep(32), expires_us = 5, props = wire.encode { a = 1 } }\n"
    "reg:after(nil, nil, wire.encode { a = 1 }, 10)\n"
    "core.logger { sink = function(line) ends.log = line end }:info('%s', path)\n"
    "local v <close> = core.loop { virtual = true }\n"
    "local t = v:timer(1, function() ends.virtual = true error 'x' end)\n"
    "v:run()\n"
    "t:again(5)\n"
    "router:input({ send = function() end }, at, ask:encode(tx, {}, wire.encode { k = {} }))\n"
    "local lost = wire.schema { name = 'lost', type = 26, fields = { { 'tx', 'bin', 12, 12 } } }\n"
    "local opening = wire.schema { name = 'opening', type = 24, request = true, fields = {\n"
    "  { 'noise', 'bin', 100, 1140 } } }\n"
    "local push = wire.schema { name = 'push', type = 71, request = true, sealed = true,\n"
    "  fields = { { 'tx', 'bin', 12, 12 } } }\n"
    "local assocs <close> = core.assocs { keys = { ('k'):rep(32) }, seed = ('s'):rep(32), counters = counters }\n"
    "local sealed = core.router(counters)\n"
    "sealed:reply_schemas { push }\n"
    "sealed:assocs(assocs, lost, 1)\n"
    "local opened, index\n"
    "sealed:on(opening, nil, function(reply, from, noise)\n"
    "  reply:proven()\n"
    "  opened, index = sealed:open(reply, noise)\n"
    "end)\n"
    "sealed:on(push, nil, function(reply, from, id)\n"
    "  ends.who = reply:who()\n"
    "  reply('push', id)\n"
    "end)\n"
    "local own = table.concat { core.crypto.keypair(('o'):rep(32)) }\n"
    "local server = core.crypto.keypair(('k'):rep(32))\n"
    "local assoc <close>, first = core.assoc(own, ('e'):rep(32), server, 9, push:encode(tx))\n"
    "local said = { send = function(_, to, frame) ends.frame = frame end }\n"
    "sealed:input(said, at, opening:encode(first))\n"
    "assoc:answered(opened)\n"
    "sealed:input(said, at, assoc:write(push:encode(tx)))\n"
    "local frame = ends.frame\n"
    "assoc:read(frame)\n"
    "assoc:read((assocs:write(index, 'x')))\n"
    "sealed:input(said, at, '\\xc1' .. ('x'):rep(40))\n"
    "local inner = core.router(counters)\n"
    "inner:on(push, nil, function(reply, from, id) ends.inner = reply:sealed() end)\n"
    "inner:frames(function(from, bytes) ends.raw = bytes end)\n"
    "inner:inner(at, push:encode(tx))\n"
    "inner:input(said, at, frame)\n"
    "assocs:sweep(1, 10)\n"
    "local function done()\n"
    "  return seen == 4 and raw > 0 and ends.line and ends.addrs and ends.virtual and ends.log and\n"
    "    ends.connected == 2 and ends.message == 2 and ends.who and ends.inner and ends.raw and #ends.frame == 17\n"
    "end\n"
    "for ms = 1, 30 do loop:timer(ms, function() if ms == 30 or done() then loop:stop() end end) end\n"
    "loop:run()\n"
    "assert(done(), 'something did not happen')\n";

static char socket_path[64];

static int run_script(lua_State *L) {
  luaL_requiref(L, "bodkin.core", luaopen_bodkin_core, 0);
  lua_pop(L, 1);
  if (luaL_loadstring(L, script) != LUA_OK) return lua_error(L);
  lua_pushstring(L, socket_path);
  lua_call(L, 1, 0);
  return 0;
}

// A state of its own; the result of the script.
static int run(memory *m, const char **error) {
  static char text[256];
  memory wanted = *m;
  *m = (memory){0}; // until the standard libraries are there
  lua_State *L = lua_newstate(allocate, m);
  assert_non_null(L);
  luaL_openlibs(L);
  wanted.bytes = m->bytes;
  *m = wanted;
  lua_pushcfunction(L, run_script);
  int status = lua_pcall(L, 0, 0, 0);
  snprintf(text, sizeof text, "%s", status == LUA_OK ? "" : lua_tostring(L, -1));
  *error = text;
  m->collect = m->refused = 0;
  m->refuse_at = 0;
  lua_close(L);
  unlink(socket_path);
  assert_int_equal(m->bytes, 0);
  return status;
}

static void collects_at_every_allocation(void **state) {
  (void)state;
  memory m = {.collect = 0};
  const char *error;
  run(&m, &error);
  assert_string_equal(error, "");
  m = (memory){.collect = 1};
  run(&m, &error);
  assert_string_equal(error, "");
}

static void survives_any_refusal(void **state) {
  (void)state;
  memory m = {0};
  const char *error;
  run(&m, &error);
  assert_string_equal(error, "");
  long total = m.count, refused = 0;
  assert_true(total > 500);
  // Lua tries each twice; more in a row reach what handles the first error.
  for (long at = 1; at <= total; at++) {
    m = (memory){.refuse_at = at, .refuse_n = at % 3 ? 2 : 40};
    if (run(&m, &error) != LUA_OK) refused++;
  }
  assert_true(refused > 100);
}

int main(void) {
  snprintf(socket_path, sizeof socket_path, "/tmp/bodkin-memory-%d", (int)getpid());
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(collects_at_every_allocation),
      cmocka_unit_test(survives_any_refusal),
  };
  return cmocka_run_group_tests_name("bindings: memory", tests, NULL, NULL);
}
