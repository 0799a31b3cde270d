// SPDX-License-Identifier: MIT
// core.assocs, the associations of a server, fed by its routers; core.assoc, the one that a client has with a server.
#include "router.h"

#include <sodium.h>
#include <string.h>

#include "io/os.h"

static const char table_type[] = "bodkin.assocs", type[] = "bodkin.assoc";

bdk_assocs_box *bdk_check_assocs(lua_State *L, int idx) {
  bdk_assocs_box *b = luaL_checkudata(L, idx, table_type);
  if (!b->table) luaL_error(L, "closed associations");
  return b;
}

// --- a server's
// [-0, +1, e] assocs{ keys = { secret, ... }, seed=, now_us=, counters=, max= } -> assocs
static int new_table(lua_State *L) {
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_settop(L, 1);
  bdk_assocs_config config = {.alloc = bdk_os_alloc};
  memcpy(config.seed, bdk_need_bytes(L, 1, "seed", sizeof config.seed), sizeof config.seed);
  config.max = (uint32_t)bdk_opt_integer(L, 1, "max", 0, 0, 1 << 20);
  uint64_t now_us = (uint64_t)bdk_opt_integer(L, 1, "now_us", 0, 0, LUA_MAXINTEGER);
  lua_getfield(L, 1, "counters");
  config.counters = bdk_check_counters(L, 2);
  luaL_argcheck(L, lua_getfield(L, 1, "keys") == LUA_TTABLE, 1, "keys: a list of one or two expected");
  lua_Unsigned n = lua_rawlen(L, 3);
  luaL_argcheck(L, n >= 1 && n <= 2, 1, "keys: a list of one or two expected");
  for (lua_Unsigned i = 1; i <= n; i++) {
    lua_rawgeti(L, 3, (lua_Integer)i);
    size_t len;
    const char *secret = luaL_checklstring(L, -1, &len);
    luaL_argcheck(L, len == BDK_DH_LEN, 1, "keys: 32 bytes each expected");
    bdk_keypair_init(&config.keys[config.key_count++], (const uint8_t *)secret);
    lua_pop(L, 1);
  }
  bdk_assocs_box *b = lua_newuserdatauv(L, sizeof *b, 1);
  memset(b, 0, sizeof *b);
  luaL_setmetatable(L, table_type);
  lua_pushvalue(L, 2);
  lua_setiuservalue(L, -2, 1); // the counters
  b->now_us = now_us;
  b->table = bdk_assocs_new(&config);
  sodium_memzero(&config, sizeof config);
  if (!b->table) return luaL_error(L, "not enough memory for associations");
  return 1;
}

static uint32_t check_index(lua_State *L, int idx) {
  lua_Integer n = luaL_checkinteger(L, idx);
  return n > 0 && n <= UINT32_MAX ? (uint32_t)n : 0;
}

// [-0, +1|4, e] assocs:write(index, message) -> frame, to, socket's number, address of ours | nil | nil
static int table_write(lua_State *L) {
  bdk_assocs_box *b = bdk_check_assocs(L, 1);
  size_t len;
  const char *message = luaL_checklstring(L, 3, &len);
  uint8_t out[BDK_DATAGRAM_MAX];
  bdk_route to;
  size_t n = bdk_assocs_write(b->table, check_index(L, 2), (const uint8_t *)message, len, out, sizeof out, &to);
  if (!n) {
    lua_pushnil(L);
    return 1;
  }
  lua_pushlstring(L, (const char *)out, n);
  bdk_push_addr(L, &to.remote);
  lua_pushinteger(L, to.sock);
  if (to.local.family)
    bdk_push_addr(L, &to.local);
  else
    lua_pushnil(L);
  return 4;
}

// [-0, +1, e] assocs:sweep(now_us [, passes = 1]) -> addresses that those were opened from which are dropped. Tells the
// time, too: to be called each second. In so many passes it looks at all
static int table_sweep(lua_State *L) {
  bdk_assocs_box *b = bdk_check_assocs(L, 1);
  lua_Integer now_us = luaL_checkinteger(L, 2), passes = luaL_optinteger(L, 3, 1);
  luaL_argcheck(L, passes >= 1 && passes <= 1000, 3, "1 to 1000 expected");
  uint32_t budget = bdk_assocs_places(b->table) / (uint32_t)passes + 1;
  if (now_us > 0 && (uint64_t)now_us > b->now_us) b->now_us = (uint64_t)now_us;
  lua_newtable(L);
  bdk_addr origin;
  for (lua_Integer i = 1; bdk_assocs_sweep(b->table, b->now_us, &budget, &origin); i++) {
    bdk_push_addr(L, &origin);
    lua_rawseti(L, -2, i);
  }
  return 1;
}

// [-0, +0, e] assocs:left(index): its client leaves
static int table_left(lua_State *L) {
  bdk_assocs_left(bdk_check_assocs(L, 1)->table, check_index(L, 2));
  return 0;
}

// [-0, +1, e] assocs:count() -> how many
static int table_count(lua_State *L) {
  lua_pushinteger(L, bdk_assocs_count(bdk_check_assocs(L, 1)->table));
  return 1;
}

// [-0, +0, e] assocs:close(). Idempotent. The routers that have it must not be fed any more
static int table_close(lua_State *L) {
  bdk_assocs_box *b = luaL_checkudata(L, 1, table_type);
  bdk_assocs_free(b->table);
  b->table = NULL;
  return 0;
}

// --- a client's
// [-0, +2|3, e] assoc(own = public .. secret, ephemeral = secret, server's key, index, messages) -> assoc, first
// message | nil, message, code
static int new (lua_State *L) {
  bdk_keypair own, ephemeral;
  memcpy(&own, bdk_check_bytes(L, 1, sizeof own), sizeof own);
  const uint8_t *secret = bdk_check_bytes(L, 2, BDK_DH_LEN), *server = bdk_check_bytes(L, 3, BDK_DH_LEN);
  lua_Integer index = luaL_checkinteger(L, 4);
  luaL_argcheck(L, index >= 1 && index <= BDK_ASSOC_CLIENT_MAX, 4, "index out of range");
  size_t len;
  const char *messages = luaL_checklstring(L, 5, &len);
  bdk_assoc *a = lua_newuserdatauv(L, sizeof *a, 0);
  memset(a, 0, sizeof *a);
  luaL_setmetatable(L, type);
  bdk_keypair_init(&ephemeral, secret);
  uint8_t out[BDK_DATAGRAM_MAX];
  int n =
      bdk_assoc_begin(a, &own, &ephemeral, server, (uint32_t)index, (const uint8_t *)messages, len, out, sizeof out);
  sodium_memzero(&own, sizeof own);
  sodium_memzero(&ephemeral, sizeof ephemeral);
  if (n < 0) return bdk_lua_fail(L, n);
  lua_pushlstring(L, (const char *)out, (size_t)n);
  return 2;
}

static bdk_assoc *check(lua_State *L) { return luaL_checkudata(L, 1, type); }

// [-0, +1|3, e] assoc:answered(bytes) -> messages | nil, message, code
static int answered(lua_State *L) {
  bdk_assoc *a = check(L);
  size_t len;
  const char *bytes = luaL_checklstring(L, 2, &len);
  uint8_t out[BDK_DATAGRAM_MAX];
  int n = bdk_assoc_answered(a, (const uint8_t *)bytes, len, out, sizeof out);
  if (n < 0) return bdk_lua_fail(L, n);
  lua_pushlstring(L, (const char *)out, (size_t)n);
  return 1;
}

// [-0, +1, e] assoc:write(message) -> frame | nil: not open, or too long
static int write(lua_State *L) {
  bdk_assoc *a = check(L);
  size_t len;
  const char *message = luaL_checklstring(L, 2, &len);
  uint8_t out[BDK_DATAGRAM_MAX];
  size_t n = bdk_assoc_write(a, BDK_FRAME_MESSAGE, (const uint8_t *)message, len, out, sizeof out);
  if (n)
    lua_pushlstring(L, (const char *)out, n);
  else
    lua_pushnil(L);
  return 1;
}

// [-0, +1|2, e] assoc:read(frame) -> "message", message | "challenge", frame that answers it | nil: not of this one
static int read(lua_State *L) {
  bdk_assoc *a = check(L);
  size_t len;
  const char *bytes = luaL_checklstring(L, 2, &len);
  uint8_t plain[BDK_DATAGRAM_MAX], out[64], kind;
  int n = bdk_assoc_read(a, (const uint8_t *)bytes, len, plain, &kind);
  if (n >= 0 && kind == BDK_FRAME_MESSAGE) {
    lua_pushliteral(L, "message");
    lua_pushlstring(L, (const char *)plain, (size_t)n);
    return 2;
  }
  if (n == BDK_ASSOC_NONCE_LEN && kind == BDK_FRAME_CHALLENGE) {
    lua_pushliteral(L, "challenge");
    size_t answer = bdk_assoc_write(a, BDK_FRAME_CHALLENGE_ANSWER, plain, (size_t)n, out, sizeof out);
    lua_pushlstring(L, (const char *)out, answer);
    return 2;
  }
  lua_pushnil(L);
  return 1;
}

// [-0, +1, e] assoc:sent(tx) -> whether these 12 bytes are index and counter of a frame that was sent here
static int sent(lua_State *L) {
  const bdk_assoc *a = check(L);
  size_t len;
  const uint8_t *tx = (const uint8_t *)luaL_checklstring(L, 2, &len);
  bool ours = a->open && len == BDK_TX_LEN;
  uint64_t index = 0, counter = 0;
  for (int i = 0; ours && i < 4; i++) index = index << 8 | tx[i];
  for (int i = 5; ours && i < 12; i++) counter = counter << 8 | tx[i];
  lua_pushboolean(L, ours && index == a->peer_index && counter < a->seal.tx_counter);
  return 1;
}

// [-0, +0, e] assoc:close(): its keys are wiped. Idempotent
static int assoc_close(lua_State *L) {
  bdk_assoc_clear(check(L));
  return 0;
}

void bdk_open_assoc(lua_State *L) {
  static const luaL_Reg table_methods[] = {{"write", table_write}, {"sweep", table_sweep}, {"count", table_count},
                                           {"left", table_left},   {"close", table_close}, {NULL, NULL}};
  static const luaL_Reg table_meta[] = {{"__gc", table_close}, {"__close", table_close}, {NULL, NULL}};
  static const luaL_Reg methods[] = {{"answered", answered}, {"write", write},       {"read", read},
                                     {"sent", sent},         {"close", assoc_close}, {NULL, NULL}};
  static const luaL_Reg meta[] = {{"__gc", assoc_close}, {"__close", assoc_close}, {NULL, NULL}};
  bdk_lua_type(L, table_type, table_methods, table_meta);
  bdk_lua_type(L, type, methods, meta);
  lua_pushcfunction(L, new_table);
  lua_setfield(L, -2, "assocs");
  lua_pushcfunction(L, new);
  lua_setfield(L, -2, "assoc");
}
