// SPDX-License-Identifier: MIT
// What a sandbox keeps beyond its end: the table `state`, plain data, as bytes. A state goes on in the next sandbox
// where the last one stopped; the same table gives the same bytes.
#include "sandbox.h"

#include <stdlib.h>
#include <string.h>

static const char state_key = 0; // its address is the key of the table in the sandbox's registry
enum { DEPTH_MAX = 16 };

// [-0, +0, e] The global `state`, which the registry has, too: a script that assigns to the name loses only its own way
// to it.
void bdk_sandbox_open_state(lua_State *L) {
  lua_newtable(L);
  lua_pushvalue(L, -1);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &state_key);
  lua_setglobal(L, "state");
}

// --- out
static void pack_table(lua_State *L, bdk_packer *p, int depth);

// The value on the top [-1, +0, e]
static void pack_value(lua_State *L, bdk_packer *p, int depth) {
  size_t len;
  const char *s;
  switch (lua_type(L, -1)) {
  case LUA_TBOOLEAN:
    bdk_pack_bool(p, lua_toboolean(L, -1));
    break;
  case LUA_TNUMBER:
    if (lua_isinteger(L, -1))
      bdk_pack_int(p, lua_tointeger(L, -1));
    else
      bdk_pack_float(p, lua_tonumber(L, -1));
    break;
  case LUA_TSTRING:
    s = lua_tolstring(L, -1, &len);
    bdk_pack_bin(p, (const uint8_t *)s, len);
    break;
  case LUA_TTABLE:
    pack_table(L, p, depth);
    break;
  default:
    luaL_error(L, "state: a %s cannot be kept", luaL_typename(L, -1));
  }
  if (p->overflow) luaL_error(L, "state: longer than %d bytes", BDK_SANDBOX_STATE_MAX);
  lua_pop(L, 1);
}

// The table on the top [-0, +0, e]
static void pack_table(lua_State *L, bdk_packer *p, int depth) {
  int t = lua_gettop(L);
  uint32_t n = 0, at = 0;
  if (depth > DEPTH_MAX) luaL_error(L, "state: nested deeper than %d", DEPTH_MAX);
  luaL_checkstack(L, 6, "state");
  for (lua_pushnil(L); lua_next(L, t); lua_pop(L, 1)) n++;
  bdk_sandbox_charge(L, 8 * (uint64_t)n);
  if (n > BDK_SANDBOX_STATE_MAX) luaL_error(L, "state: longer than %d bytes", BDK_SANDBOX_STATE_MAX);
  bdk_key *keys = lua_newuserdatauv(L, n * sizeof *keys + 1, 0);
  for (lua_pushnil(L); lua_next(L, t); lua_pop(L, 1)) {
    if (!bdk_read_key(L, -2, &keys[at++]))
      luaL_error(L, "state: a key that is a %s cannot be kept", luaL_typename(L, -2));
  }
  qsort(keys, n, sizeof *keys, bdk_compare_keys);
  bdk_pack_map(p, n);
  for (uint32_t i = 0; i < n; i++) {
    bdk_push_key(L, &keys[i]);
    lua_pushvalue(L, -1);
    pack_value(L, p, depth + 1);
    lua_rawget(L, t);
    pack_value(L, p, depth + 1);
  }
  lua_settop(L, t);
}

// 1: the packer
static int run_save(lua_State *L) {
  bdk_packer *p = lua_touserdata(L, 1);
  lua_rawgetp(L, LUA_REGISTRYINDEX, &state_key);
  pack_table(L, p, 1);
  return 0;
}

// [-0, +1|3, e] sandbox:state() -> bytes | nil, message, code
int bdk_sandbox_state(lua_State *L) {
  bdk_sandbox *s = bdk_sandbox_check(L);
  if (s->dead) return bdk_sandbox_push_failure(L, s, LUA_ERRRUN);
  uint8_t *buf = lua_newuserdatauv(L, BDK_SANDBOX_STATE_MAX, 0);
  bdk_packer p = bdk_packer_init(buf, BDK_SANDBOX_STATE_MAX);
  lua_settop(s->L, 0);
  int status = bdk_sandbox_run(s, run_save, &p, 0, 0);
  if (status != LUA_OK) return bdk_sandbox_push_failure(L, s, status);
  lua_pushlstring(L, (const char *)buf, p.len);
  return 1;
}

// --- in
static void push_value(lua_State *L, bdk_reader *r, int depth);

// The pairs of a map into the table on the top [-0, +0, e]
static void fill(lua_State *L, bdk_reader *r, uint32_t count, int depth) {
  if (depth > DEPTH_MAX) luaL_error(L, "no state");
  luaL_checkstack(L, 6, "state");
  for (uint32_t i = 0; i < count; i++) {
    push_value(L, r, depth + 1);
    push_value(L, r, depth + 1);
    lua_rawset(L, -3);
  }
}

static void push_value(lua_State *L, bdk_reader *r, int depth) {
  bdk_item it;
  if (!bdk_read(r, &it)) it.kind = BDK_WIRE_NONE;
  switch (it.kind) {
  case BDK_WIRE_BOOL:
    lua_pushboolean(L, it.b);
    break;
  case BDK_WIRE_UINT:
    lua_pushinteger(L, (lua_Integer)it.u);
    break;
  case BDK_WIRE_INT:
    lua_pushinteger(L, it.i);
    break;
  case BDK_WIRE_FLOAT:
    lua_pushnumber(L, it.f);
    break;
  case BDK_WIRE_BIN:
    lua_pushlstring(L, (const char *)it.data, it.len);
    break;
  case BDK_WIRE_MAP:
    lua_newtable(L);
    fill(L, r, it.count, depth);
    break;
  default:
    luaL_error(L, "no state");
  }
}

// 1: the reader
static int run_restore(lua_State *L) {
  bdk_reader *r = lua_touserdata(L, 1);
  bdk_item it;
  lua_rawgetp(L, LUA_REGISTRYINDEX, &state_key);
  if (!bdk_read(r, &it) || it.kind != BDK_WIRE_MAP) return luaL_error(L, "no state");
  fill(L, r, it.count, 1);
  return 0;
}

// [-0, +1|3, e] sandbox:restore(bytes) -> true | nil, message, code: what state() gave, before anything runs
int bdk_sandbox_restore(lua_State *L) {
  bdk_sandbox *s = bdk_sandbox_check(L);
  size_t len;
  const uint8_t *bytes = (const uint8_t *)luaL_checklstring(L, 2, &len);
  if (s->dead) return bdk_sandbox_push_failure(L, s, LUA_ERRRUN);
  bdk_reader r = {bytes, bytes + len};
  lua_settop(s->L, 0);
  int status = bdk_sandbox_run(s, run_restore, &r, 0, 0);
  if (status != LUA_OK) return bdk_sandbox_push_failure(L, s, status);
  lua_pushboolean(L, true);
  return 1;
}
