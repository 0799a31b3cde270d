// SPDX-License-Identifier: MIT
// core.relay: a server's relay, fed by its routers; a script opens its ends and is not asked after that.
#include "core/relay.h"
#include "router.h"

#include <string.h>

#include "io/os.h"

static const char type[] = "bodkin.relay";
enum { COUNTERS = 1, SOCKETS = 2 }; // user values

bdk_relay_box *bdk_check_relay(lua_State *L, int idx) {
  bdk_relay_box *b = luaL_checkudata(L, idx, type);
  if (!b->table) luaL_error(L, "closed relay");
  return b;
}

// [-0, +1, e] relay{ seed=, max=, rate=, burst=, bytes_max=, counters= } -> relay: rate in bytes a second from an end
static int new (lua_State *L) {
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_settop(L, 1);
  bdk_relay_config config = {.alloc = bdk_os_alloc};
  memcpy(config.seed, bdk_need_bytes(L, 1, "seed", sizeof config.seed), sizeof config.seed);
  config.max = (uint32_t)bdk_opt_integer(L, 1, "max", 0, 0, UINT32_MAX);
  config.rate = (uint32_t)bdk_opt_integer(L, 1, "rate", 0, 0, UINT32_MAX);
  config.burst = (uint32_t)bdk_opt_integer(L, 1, "burst", config.rate, 0, UINT32_MAX);
  config.bytes_max = (uint64_t)bdk_opt_integer(L, 1, "bytes_max", 0, 0, LUA_MAXINTEGER);
  lua_getfield(L, 1, "counters");
  config.counters = bdk_check_counters(L, 2);
  bdk_relay_box *b = lua_newuserdatauv(L, sizeof *b, 2);
  memset(b, 0, sizeof *b);
  luaL_setmetatable(L, type);
  lua_pushvalue(L, 2);
  lua_setiuservalue(L, 3, COUNTERS);
  lua_newtable(L);
  lua_setiuservalue(L, 3, SOCKETS);
  b->counters = config.counters;
  b->table = bdk_relay_new(&config);
  if (!b->table) return luaL_error(L, "not enough memory for a relay");
  return 1;
}

// --- datagrams
typedef struct relayed {
  const bdk_route *to;
  const uint8_t *bytes;
  size_t len;
} relayed;

// Runs inside bdk_lua_call, for a Lua socket. 1: the relay, 2: the datagram.
static int send_relayed(lua_State *L) {
  const relayed *d = lua_touserdata(L, 2);
  lua_getiuservalue(L, 1, SOCKETS);
  if (lua_rawgeti(L, -1, d->to->sock) == LUA_TNIL) return 0;
  lua_getfield(L, -1, "send");
  lua_insert(L, -2);
  bdk_push_addr(L, &d->to->remote);
  lua_pushlstring(L, (const char *)d->bytes, d->len);
  lua_call(L, 3, 0);
  return 0;
}

void bdk_relay_box_input(lua_State *L, bdk_relay_box *b, const bdk_route *from, const uint8_t *bytes, size_t len) {
  uint8_t out[BDK_DATAGRAM_MAX];
  bdk_route to;
  bdk_relay_verdict verdict = bdk_relay_input(b->table, from, bytes, len, &to, out);
  if (verdict == BDK_RELAY_DROP) return;
  size_t n = verdict == BDK_RELAY_LOST ? BDK_RELAY_HEAD : len;
  memcpy(out + BDK_RELAY_HEAD, bytes + BDK_RELAY_HEAD, n - BDK_RELAY_HEAD);
  bdk_udp_box *udp = to.sock <= BDK_RELAY_SOCKETS ? b->udp[to.sock] : NULL;
  if (udp) {
    bdk_udp_box_send(udp, &to.local, &to.remote, 0, out, n);
    return;
  }
  relayed d = {&to, out, n};
  lua_pushcfunction(L, send_relayed);
  lua_pushvalue(L, -2);
  lua_pushlightuserdata(L, &d);
  if (!bdk_lua_call(L, 2, 0)) bdk_count(b->counters, BDK_COUNT_handler_error, 1);
}

// --- methods
// [-0, +0, e] relay:attach(number, sock): what goes to an end that came in by that socket leaves by it
static int attach(lua_State *L) {
  bdk_relay_box *b = bdk_check_relay(L, 1);
  lua_Integer number = luaL_checkinteger(L, 2);
  luaL_argcheck(L, number >= 1 && number <= BDK_RELAY_SOCKETS, 2, "number out of range");
  luaL_checkany(L, 3);
  lua_settop(L, 3);
  lua_getiuservalue(L, 1, SOCKETS);
  lua_pushvalue(L, 3);
  lua_rawseti(L, 4, number);
  b->udp[number] = luaL_testudata(L, 3, "bodkin.udp");
  return 0;
}

static void push_hello(lua_State *L, const bdk_relay_end *end) {
  if (end->hello_len)
    lua_pushlstring(L, (const char *)end->hello, end->hello_len);
  else
    lua_pushnil(L);
}

// [-0, +2..7|3, e] relay:open(now_us, reply, pair, role, expires_us, tag, tx, hello) -> channel, the other's hello |
// nil and, where the other is to be told, its address, its socket's number, tx, channel, hello; or nil, message, code
static int open(lua_State *L) {
  bdk_relay_box *b = bdk_check_relay(L, 1);
  lua_Integer now_us = luaL_checkinteger(L, 2), role = luaL_checkinteger(L, 5), expires_us = luaL_checkinteger(L, 6);
  lua_Integer tag = luaL_checkinteger(L, 7);
  bdk_relay_request request = {.from = bdk_check_reply(L, 3)->route,
                               .pair = bdk_check_bytes(L, 4, BDK_RELAY_PAIR_LEN),
                               .role = (uint8_t)role,
                               .expires_us = (uint64_t)expires_us,
                               .tag = (uint32_t)tag,
                               .tx = bdk_check_bytes(L, 8, BDK_TX_LEN)};
  request.hello = (const uint8_t *)luaL_checklstring(L, 9, &request.hello_len);
  luaL_argcheck(L, now_us >= 0 && expires_us >= 0, 2, "negative time");
  luaL_argcheck(L, role == 0 || role == 1, 5, "0 or 1 expected");
  luaL_argcheck(L, tag >= 0 && tag <= UINT32_MAX, 7, "tag out of range");
  luaL_argcheck(L, request.hello_len <= BDK_RELAY_HELLO_MAX, 9, "too long");
  bdk_relay_end own, other;
  bool news;
  int error = bdk_relay_open(b->table, (uint64_t)now_us, &request, &own, &other, &news);
  if (error) return bdk_lua_fail(L, error);
  lua_pushinteger(L, own.channel);
  push_hello(L, &own);
  if (!news) return 2;
  bdk_push_addr(L, &other.to.remote);
  lua_pushinteger(L, other.to.sock);
  lua_pushlstring(L, (const char *)other.tx, sizeof other.tx);
  lua_pushinteger(L, other.channel);
  push_hello(L, &other);
  return 7;
}

// [-0, +1, e] relay:sweep(now_us) -> how many pairs there are; see core/relay.h
static int sweep(lua_State *L) {
  bdk_relay_box *b = bdk_check_relay(L, 1);
  lua_Integer now_us = luaL_checkinteger(L, 2);
  luaL_argcheck(L, now_us >= 0, 2, "negative time");
  bdk_relay_sweep(b->table, (uint64_t)now_us);
  lua_pushinteger(L, bdk_relay_count(b->table));
  return 1;
}

// [-0, +1, e] relay:count() -> pairs
static int count(lua_State *L) {
  lua_pushinteger(L, bdk_relay_count(bdk_check_relay(L, 1)->table));
  return 1;
}

// [-0, +0, e] relay:close(). Idempotent. The routers that have it forward nothing from then on
static int relay_close(lua_State *L) {
  bdk_relay_box *b = luaL_checkudata(L, 1, type);
  bdk_relay_free(b->table);
  b->table = NULL;
  return 0;
}

void bdk_open_relay(lua_State *L) {
  static const luaL_Reg methods[] = {{"attach", attach}, {"open", open},         {"sweep", sweep},
                                     {"count", count},   {"close", relay_close}, {NULL, NULL}};
  static const luaL_Reg meta[] = {{"__gc", relay_close}, {"__close", relay_close}, {NULL, NULL}};
  bdk_lua_type(L, type, methods, meta);
  lua_pushcfunction(L, new);
  lua_setfield(L, -2, "relay");
}
