// SPDX-License-Identifier: MIT
// core.logger: lines with a level and a time, safe to show on a terminal whatever they carry.
#include "bind.h"
#include "last.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

static const char type[] = "bodkin.logger";
static const char *const levels[] = {"debug", "info", "warn", "error", NULL};
enum { SINK = 1, FORMAT = 2 }; // user values

// Length of the well-formed UTF-8 sequence at `s`, 0 if there is none or it is a control character.
static size_t printable(const uint8_t *s, size_t len) {
  uint8_t c = s[0];
  if (c < 0x80) return c >= 0x20 && c != 0x7f;
  size_t n = c >= 0xc2 && c < 0xe0 ? 2 : c >= 0xe0 && c < 0xf0 ? 3 : c >= 0xf0 && c < 0xf5 ? 4 : 0;
  if (!n || n > len) return 0;
  for (size_t i = 1; i < n; i++)
    if ((s[i] & 0xc0) != 0x80) return 0;
  if (c == 0xc2 && s[1] < 0xa0) return 0;                                  // C1 controls
  if (c == 0xe0 && s[1] < 0xa0) return 0;                                  // overlong
  if (c == 0xed && s[1] >= 0xa0) return 0;                                 // surrogates
  if ((c == 0xf0 && s[1] < 0x90) || (c == 0xf4 && s[1] >= 0x90)) return 0; // overlong; past U+10FFFF
  return n;
}

size_t bdk_log_escape(char *out, const char *text, size_t len) {
  static const char digits[] = "0123456789abcdef";
  const uint8_t *s = (const uint8_t *)text;
  size_t o = 0;
  for (size_t i = 0; i < len;) {
    size_t n = printable(s + i, len - i);
    if (n) {
      memcpy(out + o, s + i, n);
      o += n;
      i += n;
    } else {
      out[o++] = '\\';
      out[o++] = 'x';
      out[o++] = digits[s[i] >> 4];
      out[o++] = digits[s[i] & 15];
      i++;
    }
  }
  return o;
}

// Tabs are kept: tracebacks are indented by them.
static void to_stderr(const char *text, size_t len) {
  char out[4 * 256 + 1];
  while (len) {
    const char *end = memchr(text, '\n', len);
    size_t line = end ? (size_t)(end - text) : len;
    for (size_t done = 0; done < line;) {
      if (text[done] == '\t') {
        fputs("  ", stderr);
        done++;
        continue;
      }
      size_t n = line - done < 256 ? line - done : 256;
      const char *tab = memchr(text + done, '\t', n);
      if (tab) n = (size_t)(tab - text) - done;
      fwrite(out, 1, bdk_log_escape(out, text + done, n), stderr);
      done += n;
    }
    fputc('\n', stderr);
    len -= line + (end ? 1 : 0);
    text += line + 1;
  }
}

static const char last_key = 0; // registry: the host's bdk_last

void bdk_last_set(lua_State *L, const bdk_last *last) {
  lua_pushlightuserdata(L, (void *)last);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &last_key);
}

void bdk_last_say(lua_State *L, const char *text, size_t len) {
  const bdk_last *last = NULL;
  if (lua_checkstack(L, 1)) {
    lua_rawgetp(L, LUA_REGISTRYINDEX, &last_key);
    last = lua_touserdata(L, -1);
    lua_pop(L, 1);
  }
  if (last)
    last->say(last->ctx, text, len);
  else
    to_stderr(text, len);
}

typedef struct logger {
  int level;
} logger;

// [-0, +1, e] logger{ level=, sink= } -> log
static int new (lua_State *L) {
  if (lua_isnone(L, 1)) lua_newtable(L);
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_settop(L, 1);
  lua_getfield(L, 1, "level");
  int level = luaL_checkoption(L, 2, "info", levels);
  if (lua_getfield(L, 1, "sink") != LUA_TNIL) luaL_checktype(L, 3, LUA_TFUNCTION);
  logger *log = lua_newuserdatauv(L, sizeof *log, 2);
  log->level = level;
  luaL_setmetatable(L, type);
  lua_pushvalue(L, 3);
  lua_setiuservalue(L, 4, SINK);
  lua_pushvalue(L, lua_upvalueindex(1));
  lua_setiuservalue(L, 4, FORMAT);
  return 1;
}

// Leaves the message on the top: the format alone, or string.format of all.
static void push_message(lua_State *L) {
  int top = lua_gettop(L);
  if (top <= 2) {
    luaL_checkstring(L, 2);
    return;
  }
  luaL_checkstack(L, top, "too many arguments");
  lua_getiuservalue(L, 1, FORMAT);
  for (int i = 2; i <= top; i++) lua_pushvalue(L, i);
  lua_call(L, top - 1, 1);
}

static int write(lua_State *L, int level) {
  logger *log = luaL_checkudata(L, 1, type);
  BDK_STACK(L, 8);
  if (level < log->level) return 0;
  push_message(L);
  size_t len;
  const char *message = lua_tolstring(L, -1, &len);
  luaL_Buffer b;
  char stamp[40];
  time_t t = time(NULL);
  struct tm tm;
  size_t n = strftime(stamp, sizeof stamp, "%Y-%m-%dT%H:%M:%SZ ", gmtime_r(&t, &tm));
  char *p = luaL_buffinitsize(L, &b, n + 8 + 4 * len);
  memcpy(p, stamp, n);
  n += (size_t)snprintf(p + n, 8, "%s ", levels[level]);
  n += bdk_log_escape(p + n, message, len);
  luaL_pushresultsize(&b, n);
  if (lua_getiuservalue(L, 1, SINK) == LUA_TFUNCTION) {
    lua_insert(L, -2);
    lua_call(L, 1, 0);
  } else {
    fprintf(stderr, "%s\n", lua_tostring(L, -2));
  }
  return 0;
}

// [-0, +0, e] log:debug(format, ...) and so on. Without arguments the format is the message as it stands.
static int debug(lua_State *L) { return write(L, 0); }
static int info(lua_State *L) { return write(L, 1); }
static int warn(lua_State *L) { return write(L, 2); }
static int error(lua_State *L) { return write(L, 3); }

void bdk_open_log(lua_State *L) {
  static const luaL_Reg methods[] = {{"debug", debug}, {"info", info}, {"warn", warn}, {"error", error}, {NULL, NULL}};
  static const luaL_Reg meta[] = {{NULL, NULL}};
  bdk_lua_type(L, type, methods, meta);
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
  lua_getfield(L, -1, "string");
  if (lua_istable(L, -1))
    lua_getfield(L, -1, "format");
  else
    luaL_error(L, "bodkin.core needs the string library");
  lua_pushcclosure(L, new, 1);
  lua_setfield(L, -4, "logger");
  lua_pop(L, 2);
}
