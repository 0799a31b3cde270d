// SPDX-License-Identifier: MIT
// core.counters() -> a set of every counter there is; core.reasons.
#include "bind.h"

#include <string.h>

static const char type[] = "bodkin.counters";

bdk_counters *bdk_check_counters(lua_State *L, int idx) {
  if (lua_isnoneornil(L, idx)) return NULL;
  return luaL_checkudata(L, idx, type);
}

// [-0, +1, e] counters() -> set, all zero
static int new (lua_State *L) {
  memset(lua_newuserdatauv(L, sizeof(bdk_counters), 0), 0, sizeof(bdk_counters));
  luaL_setmetatable(L, type);
  return 1;
}

static int which(lua_State *L, int idx) {
  const char *name = luaL_checkstring(L, idx);
  lua_pushvalue(L, idx);
  if (lua_rawget(L, lua_upvalueindex(1)) != LUA_TNUMBER)
    luaL_argerror(L, idx, lua_pushfstring(L, "no counter is called '%s'", name));
  int index = (int)lua_tointeger(L, -1);
  lua_pop(L, 1);
  return index;
}

// [-0, +0, e] set:add(name [, n])
static int add(lua_State *L) {
  bdk_counters *c = luaL_checkudata(L, 1, type);
  lua_Integer n = luaL_optinteger(L, 3, 1);
  luaL_argcheck(L, n >= 0, 3, "a counter never goes down");
  c->value[which(L, 2)] += (uint64_t)n;
  return 0;
}

// [-0, +1, e] set:get(name) -> integer
static int get(lua_State *L) {
  bdk_counters *c = luaL_checkudata(L, 1, type);
  lua_pushinteger(L, (lua_Integer)c->value[which(L, 2)]);
  return 1;
}

// [-0, +1, e] set:all() -> array of { name=, value=, text= } in table order
static int all(lua_State *L) {
  bdk_counters *c = luaL_checkudata(L, 1, type);
  lua_createtable(L, BDK_COUNTER_COUNT, 0);
  for (int i = 0; i < BDK_COUNTER_COUNT; i++) {
    lua_createtable(L, 0, 3);
    lua_pushstring(L, bdk_counter_name(i));
    lua_setfield(L, -2, "name");
    lua_pushstring(L, bdk_counter_text(i));
    lua_setfield(L, -2, "text");
    lua_pushinteger(L, (lua_Integer)c->value[i]);
    lua_setfield(L, -2, "value");
    lua_rawseti(L, -2, i + 1);
  }
  return 1;
}

void bdk_open_counters(lua_State *L) {
  static const luaL_Reg methods[] = {{"add", add}, {"get", get}, {"all", all}, {NULL, NULL}};
  static const luaL_Reg meta[] = {{NULL, NULL}};
  bdk_lua_type(L, type, NULL, meta);
  luaL_getmetatable(L, type);
  lua_newtable(L);
  lua_createtable(L, 0, BDK_COUNTER_COUNT); // name -> index, upvalue of the methods
  for (int i = 0; i < BDK_COUNTER_COUNT; i++) {
    lua_pushinteger(L, i);
    lua_setfield(L, -2, bdk_counter_name(i));
  }
  luaL_setfuncs(L, methods, 1);
  lua_setfield(L, -2, "__index");
  lua_pop(L, 1);
  lua_pushcfunction(L, new);
  lua_setfield(L, -2, "counters");

  lua_createtable(L, BDK_REASON_COUNT, 0);
  for (int i = 0; i < BDK_REASON_COUNT; i++) {
    lua_createtable(L, 0, 2);
    lua_pushstring(L, bdk_reason_name(i));
    lua_setfield(L, -2, "name");
    lua_pushstring(L, bdk_reason_text(i));
    lua_setfield(L, -2, "text");
    lua_rawseti(L, -2, i + 1);
  }
  lua_setfield(L, -2, "reasons");
}
