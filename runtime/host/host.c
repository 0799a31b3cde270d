// SPDX-License-Identifier: MIT
#include "host.h"

#include <lualib.h>
#include <stdio.h>

#include "embed.h"
#include "last.h"

int luaopen_bodkin_core(lua_State *L);

// [-0, +1, m]
static int open_host(lua_State *L) {
  const luaL_Reg *functions = lua_touserdata(L, lua_upvalueindex(1));
  lua_newtable(L);
  luaL_setfuncs(L, functions, 0);
  return 1;
}

static int traceback(lua_State *L) {
  const char *message = lua_tostring(L, 1);
  if (!message) message = luaL_tolstring(L, 1, NULL);
  luaL_traceback(L, L, message, 1);
  return 1;
}

static int setup(lua_State *L) {
  luaL_openlibs(L);
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
  lua_pushcfunction(L, luaopen_bodkin_core);
  lua_setfield(L, -2, "bodkin.core");
  lua_pushvalue(L, 1);
  lua_pushcclosure(L, open_host, 1);
  lua_setfield(L, -2, "bodkin.host");
  bdk_embed_install(L);
  return 0;
}

lua_State *bdk_host_new(const luaL_Reg *functions) {
  lua_State *L = luaL_newstate();
  if (!L) return NULL;
  lua_pushcfunction(L, setup);
  lua_pushlightuserdata(L, (void *)functions);
  if (lua_pcall(L, 1, 0, 0) == LUA_OK) return L;
  fprintf(stderr, "bodkin: %s\n", lua_tostring(L, -1));
  lua_close(L);
  return NULL;
}

// require(script).main(arguments). [-*, +1, e]
static int call_main(lua_State *L) {
  int argc = (int)lua_tointeger(L, 2);
  char **argv = lua_touserdata(L, 3);
  lua_getglobal(L, "require");
  lua_pushvalue(L, 1);
  lua_call(L, 1, 1);
  lua_getfield(L, -1, "main");
  lua_createtable(L, argc, 0);
  for (int i = 0; i < argc; i++) {
    lua_pushstring(L, argv[i]);
    lua_rawseti(L, -2, i);
  }
  lua_call(L, 1, 1);
  return 1;
}

int bdk_host_run(lua_State *L, const char *script, int argc, char **argv) {
  lua_pushcfunction(L, traceback);
  lua_pushcfunction(L, call_main);
  lua_pushstring(L, script);
  lua_pushinteger(L, argc);
  lua_pushlightuserdata(L, argv);
  int status = lua_pcall(L, 3, 1, 1), code = 1;
  if (status == LUA_OK) {
    code = lua_isinteger(L, -1) ? (int)lua_tointeger(L, -1) : 0;
  } else {
    fflush(stdout);
    lua_pushfstring(L, "bodkin: %s", lua_tostring(L, -1));
    bdk_last_say(L, lua_tostring(L, -1), lua_rawlen(L, -1));
  }
  lua_settop(L, 0);
  return code;
}
