// SPDX-License-Identifier: MIT
// The one guarded way from C into Lua, and how results and errors are mapped.
#include "bind.h"
#include "last.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const char on_error_key = 0; // its address is the registry's key

static int traceback(lua_State *L) {
  const char *msg = lua_tostring(L, 1);
  if (!msg) {
    if (luaL_callmeta(L, 1, "__tostring") && lua_type(L, -1) == LUA_TSTRING)
      msg = lua_tostring(L, -1);
    else
      msg = lua_pushfstring(L, "(error object is a %s value)", luaL_typename(L, 1));
  }
  luaL_traceback(L, L, msg, 1);
  return 1;
}

// Takes the message on the top. Must not throw: what can is under lua_pcall.
static void report(lua_State *L) {
  if (lua_type(L, -1) != LUA_TSTRING) { // the traceback itself failed
    lua_pop(L, 1);
    static const char text[] = "error in error handling";
    bdk_last_say(L, text, sizeof text - 1);
    return;
  }
  lua_rawgetp(L, LUA_REGISTRYINDEX, &on_error_key);
  if (lua_isfunction(L, -1)) {
    lua_pushvalue(L, -2);
    if (lua_pcall(L, 1, 0, 0) == LUA_OK) {
      lua_pop(L, 1);
      return;
    }
  }
  size_t len = 0;
  const char *text = lua_type(L, -1) == LUA_TSTRING ? lua_tolstring(L, -1, &len) : NULL; // on_error's own error
  if (text) bdk_last_say(L, text, len);
  text = lua_tolstring(L, -2, &len);
  bdk_last_say(L, text, len);
  lua_pop(L, 2);
}

bool bdk_lua_call(lua_State *L, int nargs, int nresults) {
  int base = lua_gettop(L) - nargs;
  if (!lua_checkstack(L, 6)) {
    lua_settop(L, base - 1);
    static const char text[] = "callback not run: Lua stack overflow";
    bdk_last_say(L, text, sizeof text - 1);
    return false;
  }
#ifdef BDK_STRESS
  lua_gc(L, LUA_GCCOLLECT);
#endif
  lua_pushcfunction(L, traceback);
  lua_insert(L, base);
  int status = lua_pcall(L, nargs, nresults, base);
  lua_remove(L, base);
  if (status != LUA_OK) report(L);
#ifdef BDK_STRESS
  lua_gc(L, LUA_GCCOLLECT);
#endif
  return status == LUA_OK;
}

bool bdk_lua_enter(lua_State *L, lua_CFunction fn, void *ctx) {
  if (!lua_checkstack(L, 2)) return false;
  lua_pushcfunction(L, fn);
  lua_pushlightuserdata(L, ctx);
  return bdk_lua_call(L, 1, 0);
}

// Callbacks run there: the coroutine that made a handle may be dead when they come.
lua_State *bdk_lua_main(lua_State *L) {
  lua_rawgeti(L, LUA_REGISTRYINDEX, LUA_RIDX_MAINTHREAD);
  lua_State *main = lua_tothread(L, -1);
  lua_pop(L, 1);
  return main;
}

// [-0, +1, e] on_error(fn | nil) -> the function set before, or nil
int bdk_on_error(lua_State *L) {
  if (!lua_isnoneornil(L, 1)) luaL_checktype(L, 1, LUA_TFUNCTION);
  lua_settop(L, 1);
  lua_rawgetp(L, LUA_REGISTRYINDEX, &on_error_key);
  lua_pushvalue(L, 1);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &on_error_key);
  return 1;
}

void bdk_lua_type(lua_State *L, const char *type, const luaL_Reg *methods, const luaL_Reg *meta) {
  if (luaL_newmetatable(L, type)) {
    luaL_setfuncs(L, meta, 0);
    if (methods) {
      lua_newtable(L);
      luaL_setfuncs(L, methods, 0);
      lua_setfield(L, -2, "__index");
    }
  }
  lua_pop(L, 1);
}

static void push_error_text(lua_State *L, int error) {
  lua_pushstring(L, error > BDK_E_TIMEOUT && error < 0 ? strerror(-error) : bdk_error_text(error));
}

static const char *error_code(int error) { return error > BDK_E_TIMEOUT ? "invalid" : bdk_error_name(error); }

int bdk_lua_fail(lua_State *L, int error) {
  lua_pushnil(L);
  push_error_text(L, error);
  lua_pushstring(L, error_code(error));
  return 3;
}

int bdk_lua_failf(lua_State *L, int error, const char *what, ...) {
  char buf[256];
  va_list args;
  va_start(args, what);
  vsnprintf(buf, sizeof buf, what, args);
  va_end(args);
  lua_pushnil(L);
  push_error_text(L, error);
  lua_pushfstring(L, "%s: %s", buf, lua_tostring(L, -1));
  lua_remove(L, -2);
  lua_pushstring(L, error_code(error));
  return 3;
}

int bdk_lua_invalid(lua_State *L, const char *text, ...) {
  char buf[256];
  va_list args;
  va_start(args, text);
  vsnprintf(buf, sizeof buf, text, args);
  va_end(args);
  lua_pushnil(L);
  lua_pushstring(L, buf);
  lua_pushliteral(L, "invalid");
  return 3;
}

lua_Integer bdk_opt_integer(lua_State *L, int idx, const char *field, lua_Integer def, lua_Integer min,
                            lua_Integer max) {
  int isnum = 0;
  lua_Integer v = def;
  if (lua_getfield(L, idx, field) != LUA_TNIL) {
    v = lua_tointegerx(L, -1, &isnum);
    if (!isnum || v < min || v > max)
      luaL_error(L, "%s: an integer from %I to %I expected", field, (LUAI_UACINT)min, (LUAI_UACINT)max);
  }
  lua_pop(L, 1);
  return v;
}

// The string stays alive in the table it came from.
const char *bdk_opt_bytes(lua_State *L, int idx, const char *field, size_t *len) {
  const char *s = NULL;
  *len = 0;
  int type = lua_getfield(L, idx, field);
  if (type == LUA_TSTRING)
    s = lua_tolstring(L, -1, len);
  else if (type != LUA_TNIL)
    luaL_error(L, "%s: a string expected, got %s", field, lua_typename(L, type));
  lua_pop(L, 1);
  return s;
}

const char *bdk_need_bytes(lua_State *L, int idx, const char *field, size_t len) {
  size_t got;
  const char *s = bdk_opt_bytes(L, idx, field, &got);
  if (!s || got != len) luaL_error(L, "%s: a string of %d bytes expected", field, (int)len);
  return s;
}

const uint8_t *bdk_check_bytes(lua_State *L, int idx, size_t want) {
  size_t len;
  const char *s = luaL_checklstring(L, idx, &len);
  if (len != want) luaL_argerror(L, idx, lua_pushfstring(L, "%d bytes expected", (int)want));
  return (const uint8_t *)s;
}
