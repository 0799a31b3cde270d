// SPDX-License-Identifier: MIT
// Garbage collected at every allocation, and memory refused at each one in turn, Lua's and the C's below: under ASan
// neither may crash, leak or leave anything half made, and nothing may be thrown through the loop.
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
#include <malloc.h>

int luaopen_bodkin_core(lua_State *L);

void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *p, size_t size);
void __real_free(void *p);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *p, size_t size);
void __wrap_free(void *p);

static struct { // what the C asks of malloc's kin
  long count, refuse_at, blocks;
  int refuse_on; // and all after it
} below;

static int refuse_below(void) {
  long n = ++below.count;
  return below.refuse_at && (n == below.refuse_at || (below.refuse_on && n > below.refuse_at));
}

void *__wrap_calloc(size_t count, size_t size) {
  if (refuse_below()) return NULL;
  below.blocks++;
  return __real_calloc(count, size);
}

void *__wrap_realloc(void *p, size_t size) {
  if ((!p || size > malloc_usable_size(p)) && refuse_below()) return NULL; // Lua relies on shrinking, in sandboxes too
  below.blocks += !p;
  return __real_realloc(p, size);
}

void __wrap_free(void *p) {
  below.blocks -= p != NULL;
  __real_free(p);
}

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
    __real_free(p);
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
  void *q = __real_realloc(p, new_size);
  if (q) m->bytes += new_size - old_size;
  return q;
}

// All types are made and used; the real loop is left when all has happened, or after 30 ms.
static const char on_loops[] =
    "local core = require 'bodkin.core'\n"
    "core.on_error(function() end)\n"
    "local wire, at = core.wire, core.addr.parse '127.0.0.1:0'\n"
    "local tx = ('t'):rep(12)\n"
    "local ask = wire.schema { name = 'ask', type = 70, request = true, fields = { { 'tx', 'bin', 12, 12 },\n"
    "  { 'list', 'addrs', 0, 4 }, { 'any', 'any', 1, 60 }, { 'pad', 'pad' } } }\n"
    "local counters = core.counters()\n"
    "local pair = {}\n"
    "for i = 1, 4 do\n"
    "  local public, secret = core.crypto.keypair(('x'):rep(31) .. i)\n"
    "  pair[i] = public .. secret\n"
    "end\n"
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
    "local l = loop:tcp(at, { counters = counters, number = 3, max = 5 })\n"
    "local d = loop:tcp(at, { counters = counters, number = 4, port = core.addr.port(l:addr()) })\n"
    "l:on_packet(function(from, bytes) l:send(from, bytes) end)\n"
    "d:on_packet(function(from, bytes) ends.tcp = bytes end)\n"
    "d:send(l:addr(), tostring(d))\n"
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
    "    ends.tcp and ends.connected == 2 and ends.message == 2 and ends.who and ends.inner and ends.raw and "
    "#ends.frame == 17\n"
    "end\n"
    "local input = loop:stdin()\n"
    "if input then input:close() end\n"
    "b:send(a:addr(), 'raw', 9)\n"
    "assert(a:number() == 1 and loop:now() > 0 and loop:handles() > 3)\n"
    "for _, x in ipairs { loop, a, s, t, router } do assert(tostring(x)) end\n"
    "for ms = 1, 30 do loop:timer(ms, function() if ms == 30 or done() then loop:stop() end end) end\n"
    "loop:run()\n"
    "assert(done(), 'something did not happen')\n";

// What needs no loop: every other function there is.
static const char alone[] =
    "local core = require 'bodkin.core'\n"
    "core.on_error(function() end)\n"
    "local addr, wire, crypto = core.addr, core.wire, core.crypto\n"
    "local a, b = addr.parse '192.0.2.1:7', addr.parse '[fe80::1%3]:9'\n"
    "for _, x in ipairs { a, b } do\n"
    "  local _ = addr.format(x), addr.class(x), addr.family(x), addr.port(x), addr.same_ip(a, x)\n"
    "  _ = addr.with_port(x, 5), addr.mask(x, ('t'):rep(12))\n"
    "end\n"
    "assert(not addr.parse 'nowhere')\n"
    "local public, secret = crypto.keypair()\n"
    "assert(crypto.keypair(secret) == public and crypto.equal(public, public) and #crypto.id(public) == 16)\n"
    "assert(#crypto.mac(secret, 'x', 32) == 32 and #crypto.proof(secret, a, 7) == 20 and #crypto.random(3) == 3)\n"
    "assert(crypto.unhex(crypto.hex 'xyz') == 'xyz' and not crypto.unhex 'x')\n"
    "local counters = core.counters()\n"
    "counters:add('drop_short', 2)\n"
    "assert(counters:get 'drop_short' == 2 and #counters:all() > 10 and #core.interfaces() > 0 and core.now() > 0)\n"
    "local log = core.logger { level = 'debug', sink = function(line) assert(#line > 20) end }\n"
    "for _, level in ipairs { 'debug', 'info', 'warn', 'error' } do log[level](log, '%s\\n', level) end\n"
    "local value = { a = wire.array {}, b = { 1, 2.5, true, wire.null }, c = wire.bin 'x', d = -7 }\n"
    "assert(wire.decode(assert(wire.encode(value))).b[2] == 2.5 and not wire.decode '\\xc1' and not "
    "wire.encode(print))\n"
    "local say = wire.schema { name = 'say', type = 71, fields = { { 'ok', 'bool?' }, { 'n', 'uint', 0, 9 },\n"
    "  { 'text', 'str' }, { 'at', 'addr' }, { 'list', 'bins', 0, 2 } } }\n"
    "local ok, n, text = say:decode(assert(say:encode(nil, 3, 'x', a, { 'y' })))\n"
    "assert(ok == nil and n == 3 and text == 'x' and say.name == 'say' and #say.fields == 5 and not say:decode 'x')\n"
    "local router = core.router(counters)\n"
    "local refused = wire.schema { name = 'refused', type = 18, fields = { { 'tx', 'bin', 12, 12 },\n"
    "  { 'code', 'uint' }, { 'text', 'str' } } }\n"
    "local ask = wire.schema { name = 'ask', type = 72, request = true, fields = { { 'tx', 'bin', 12, 12 },\n"
    "  { 'pad', 'pad' } } }\n"
    "local got = 0\n"
    "local sock = { send = function(_, to, bytes) got = got + #bytes end }\n"
    "router:refuse(refused)\n"
    "router:reply_schemas { refused, say }\n"
    "local relay <close> = core.relay { seed = ('s'):rep(32), counters = counters, max = 4 }\n"
    "local channel\n"
    "router:relay(relay, 1)\n"
    "relay:attach(1, sock)\n"
    "router:on(ask, { 'tx' }, function(reply, from, tx)\n"
    "  assert(reply:length() >= 72 and not reply:at())\n"
    "  for side = 0, 1 do channel = assert(relay:open(1, reply, ('p'):rep(16), side, 9, 7, tx, 'hello')) end\n"
    "  reply:send(b, 'say', true, 1, 'x', from, {})\n"
    "  reply('refused', tx, 1001, 'no')\n"
    "end)\n"
    "local bytes = ask:encode(('t'):rep(12))\n"
    "router:input(sock, a, bytes)\n"
    "router:input(sock, a, bytes:sub(1, 2) .. '\\2' .. bytes:sub(4))\n"
    "assert(got > 0)\n"
    "got = 0\n"
    "router:input(sock, a, ('>BI4'):pack(0x40, channel) .. 'x')\n"
    "assert(got == 6 and relay:count() == 1 and relay:sweep(9) == 0)\n"
    "local pair = {}\n"
    "for i = 1, 4 do\n"
    "  local public, secret = core.crypto.keypair(('x'):rep(31) .. i)\n"
    "  pair[i] = public .. secret\n"
    "end\n"
    "local now, muxes, ends = 1, {}, {}\n"
    "for i = 1, 2 do\n"
    "  local mux = core.mux { seed = ('s'):rep(31) .. i, max_sessions = 2 }\n"
    "  mux:trace(function(line) ends[#ends + 1] = line end)\n"
    "  local session = mux:add(now, { match = ('m'):rep(16), key = ('k'):rep(32), self = ('a'):rep(15) .. i,\n"
    "    own = pair[i], own_ephemeral = pair[i + 2], peer_key = pair[3 - i]:sub(1, 32),\n"
    "    peer_ephemeral = pair[5 - i]:sub(1, 32),\n"
    "    peer = ('a'):rep(15) .. 3 - i, candidates = { { addr.with_port(a, 3 - i), 'srflx', 1 } } })\n"
    "  muxes[i] = { mux = mux, session = session, at = addr.with_port(a, i) }\n"
    "end\n"
    "for turn = 1, 12 do\n"
    "  for i, m in ipairs(muxes) do\n"
    "    if turn == 6 then m.mux:send(now, m.session, 'hello') end\n"
    "    if turn == 8 then m.mux:unreachable(now, muxes[3 - i].at) end\n"
    "    if turn == 10 then m.mux:leave(now, m.session) end\n"
    "    m.mux:tick(now)\n"
    "    local _ = m.mux:deadline(), m.mux:paths(m.session), tostring(m.mux)\n"
    "    local out = {}\n"
    "    for kind, x, to, datagram in m.mux.next, m.mux do out[#out + 1] = { kind, x, to, datagram } end\n"
    "    for _, o in ipairs(out) do\n"
    "      if o[1] == 'send' then muxes[3 - i].mux:input(now, 1, m.at, nil, o[4]) end\n"
    "    end\n"
    "  end\n"
    "  now = now + 50000\n"
    "end\n"
    "assert(#ends > 20)\n"
    "for _, m in ipairs(muxes) do m.mux:close() end\n"
    "local reg <close> = core.registry { seed = ('s'):rep(16), max_entries = 40 }\n"
    "for i = 10, 49 do assert(reg:put { id = ('i'):rep(14) .. i, key = ('k'):rep(32), expires_us = i, app = 'a',\n"
    "  name = 'n', props = wire.encode { n = i }, addrs = a }) end\n"
    "assert(reg:get(('i'):rep(14) .. 20).name == 'n' and reg:count() == 40 and reg:deadline() == 10)\n"
    "assert(reg:after(nil, 'a', wire.encode { n = 33 }, 100).expires_us == 33)\n"
    "assert(reg:remove(('i'):rep(14) .. 20) and #reg:expire(1000) == 16 and tostring(reg))\n"
    "local box <close> = core.sandbox { memory = 1 << 20, instructions = 100000 }\n"
    "box:module('lib', 'return { double = function(s) return s .. s end }', '@lib.lua')\n"
    "assert(box:load('local lib = require \"lib\" return { twice = function(s) print(s)\\n'\n"
    "  .. 'return (lib.double(s):gsub(\"(x)\", \"%1y\")) end, loop = function() while true do end end }', '@p.lua'))\n"
    "assert(wire.decode(box:call('twice', wire.encode 'x')) == 'xyxy' and box:said() and box:spent() and "
    "tostring(box))\n"
    "local other <close> = core.sandbox {}\n"
    "assert(other:restore(box:state()) and other:state() == '\\x80')\n"
    "local here = wire.encode { 1, 2, 3, 4, 5 }\n"
    "for i = 1, 40 do assert(box:net_set(i, 1 + i % 3, here)) end\n"
    "for i = 1, 40, 2 do box:net_drop(i) end\n"
    "box:net_table(('x'):rep(153))\n"
    "local at = core.coord.pack(1, 2, 3, 4, 0.5)\n"
    "at = core.coord.refine(at, 1, 5, core.coord.refine(nil, 2, 0), 30)\n"
    "assert(core.coord.distance(at, at) > 0 and select('#', core.coord.unpack(at)) == 5)\n"
    "assert(not box:call 'loop' and not core.sandbox {}:load('x', '@x'))\n"
    "local v <close> = core.loop { virtual = true, now_us = 5 }\n"
    "local t = v:timer(2, function() end)\n"
    "t:cancel()\n"
    "t:again(1)\n"
    "v:timer(3, function() v:stop() end)\n"
    "assert(v:step() and v:handles() == 1 and v:now() > 5 and tostring(v) and tostring(t))\n"
    "v:advance(10000)\n"
    "assert(not core.tun.copy { ports = { { device = 'x', netns = '/nonexistent' } }, routes = {}, rules = {},\n"
    "  stop_fd = 0 })\n";

static char socket_path[64];

static const char *script; // one of the two

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

static void collects(const char *text) {
  script = text;
  memory m = {.collect = 0};
  const char *error;
  run(&m, &error);
  assert_string_equal(error, "");
  m = (memory){.collect = 1};
  run(&m, &error);
  assert_string_equal(error, "");
}

static void collects_at_every_allocation(void **state) {
  (void)state;
  collects(on_loops);
  collects(alone);
}

static void survives(const char *text) {
  script = text;
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

static void survives_any_refusal(void **state) {
  (void)state;
  survives(on_loops);
  survives(alone);
}

// Lua's memory is there, that of what it holds is not: an error in Lua, and all is given back.
static void survives_below(const char *text) {
  script = text;
  memory m = {0};
  const char *error;
  below.count = below.refuse_at = 0;
  run(&m, &error);
  assert_string_equal(error, "");
  long total = below.count;
  assert_true(total > 10);
  for (int on = 0; on < 2; on++)
    for (long at = 1; at <= total; at++) {
      below.count = 0, below.refuse_at = at, below.refuse_on = on;
      m = (memory){0};
      run(&m, &error);
      assert_int_equal(below.blocks, 0);
    }
  below.refuse_at = 0;
}

static void survives_any_refusal_below(void **state) {
  (void)state;
  survives_below(on_loops);
  survives_below(alone);
}

int main(void) {
  snprintf(socket_path, sizeof socket_path, "/tmp/bodkin-memory-%d", (int)getpid());
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(collects_at_every_allocation),
      cmocka_unit_test(survives_any_refusal),
      cmocka_unit_test(survives_any_refusal_below),
  };
  return cmocka_run_group_tests_name("bindings: memory", tests, NULL, NULL);
}
