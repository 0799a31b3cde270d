// SPDX-License-Identifier: MIT
// core.logger: lines with a level and a time, safe to show on a terminal whatever they carry.
#include "bind.h"
#include "io/say.h"
#include "last.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static const char type[] = "bodkin.logger";
static const char *const levels[] = {"debug", "info", "warn", "error", NULL};
enum { SINK = 1, FORMAT = 2 };              // user values
enum { STDERR = 2, LINE_MAX_BYTES = 2048 }; // a line, escaped: well below BDK_SAY_WHOLE

// What is not seen and changes how the rest is: text running from right to left, lines that end elsewhere.
static bool is_invisible(uint32_t c) {
  return c == 0x61c || c == 0x200b || c == 0x200e || c == 0x200f || (c >= 0x2028 && c <= 0x202e) ||
         (c >= 0x2060 && c <= 0x206f) || c == 0xfeff || (c >= 0xfff9 && c <= 0xfffb) || (c >= 0xe0000 && c <= 0xe007f);
}

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
  uint32_t code = c & (0xffu >> (n + 1));
  for (size_t i = 1; i < n; i++) code = code << 6 | (s[i] & 0x3f);
  return is_invisible(code) ? 0 : n;
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

// Escapes into out[LINE_MAX_BYTES]: what does not fit is cut, and its whole length said. Tabs: tracebacks are
// indented by them.
static size_t escape_line(char *out, size_t o, const char *text, size_t len, bool tabs) {
  const size_t room = LINE_MAX_BYTES - 64;
  for (size_t i = 0; i < len;) {
    size_t n = printable((const uint8_t *)text + i, len - i);
    if (n == 0) n = 1;
    if (o + 4 > room) {
      o += (size_t)snprintf(out + o, 48, " ... (%zu bytes)", len);
      break;
    }
    if (tabs && text[i] == '\t') {
      out[o++] = ' ';
      out[o++] = ' ';
    } else {
      o += bdk_log_escape(out + o, text + i, n);
    }
    i += n;
  }
  return o;
}

// Nobody is left to be told of a line that could not be written.
static void to_stderr(const char *text, size_t len) {
  char out[LINE_MAX_BYTES];
  while (len) {
    const char *end = memchr(text, '\n', len);
    size_t line = end ? (size_t)(end - text) : len;
    size_t n = escape_line(out, 0, text, line, true);
    out[n++] = '\n';
    bdk_say(STDERR, out, n);
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
  bool torn;        // the last line is there in part
  uint64_t dropped; // lines since the last that was written
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
  *log = (logger){.level = level};
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

static size_t stamp(char *out, int level) {
  time_t t = time(NULL);
  struct tm tm;
  size_t n = strftime(out, 40, "%Y-%m-%dT%H:%M:%SZ ", gmtime_r(&t, &tm));
  return n + (size_t)snprintf(out + n, 8, "%s ", levels[level]);
}

// A whole line and its end, or none of it, as far as the descriptor allows.
static bool put(logger *log, char *line, size_t n) {
  line[n++] = '\n';
  int done = bdk_say(STDERR, line, n);
  log->torn = done > 0 ? (size_t)done < n : log->torn;
  return done == (int)n;
}

// A reader that does not keep up, or a full disk, costs lines, and never this program's time.
static void say(logger *log, const char *text, size_t len) {
  char line[LINE_MAX_BYTES];
  if (log->torn && bdk_say(STDERR, "\n", 1) == 1) log->torn = false;
  if (log->dropped > 0) {
    size_t n = stamp(line, 2);
    n += (size_t)snprintf(line + n, 80, "%llu lines of this log were lost: it could not be written",
                          (unsigned long long)log->dropped);
    if (put(log, line, n)) log->dropped = 0;
  }
  memcpy(line, text, len);
  if (log->dropped > 0 || !put(log, line, len)) log->dropped++;
}

static int write(lua_State *L, int level) {
  logger *log = luaL_checkudata(L, 1, type);
  BDK_STACK(L, 8);
  if (level < log->level) return 0;
  push_message(L);
  size_t len;
  const char *message = lua_tolstring(L, -1, &len);
  char line[LINE_MAX_BYTES];
  size_t n = escape_line(line, stamp(line, level), message, len, false);
  if (lua_getiuservalue(L, 1, SINK) == LUA_TFUNCTION) {
    lua_pushlstring(L, line, n);
    lua_call(L, 1, 0);
  } else {
    say(log, line, n);
  }
  return 0;
}

// [-0, +0, e] log:debug(format, ...) and so on. Without arguments the format is the message as it stands.
static int debug(lua_State *L) { return write(L, 0); }
static int info(lua_State *L) { return write(L, 1); }
static int warn(lua_State *L) { return write(L, 2); }
static int error(lua_State *L) { return write(L, 3); }

// [-0, +1, e] printable(s) -> text safe to show on a terminal: what is not is escaped as \xNN
static int push_printable(lua_State *L) {
  size_t len;
  const char *s = luaL_checklstring(L, 1, &len);
  luaL_Buffer b;
  char *p = luaL_buffinitsize(L, &b, 4 * len);
  luaL_pushresultsize(&b, bdk_log_escape(p, s, len));
  return 1;
}

// [-0, +1|3, e] say(fd, s) -> how many bytes went out, without waiting for any reader | nil, message, code ("closed":
// there is no reader any more)
static int say_to(lua_State *L) {
  lua_Integer fd = luaL_checkinteger(L, 1);
  luaL_argcheck(L, fd >= 0 && fd <= 1 << 20, 1, "a descriptor expected");
  size_t len;
  const char *s = luaL_checklstring(L, 2, &len);
  int n = bdk_say((int)fd, s, len);
  if (n < 0) return bdk_lua_fail(L, n == -EPIPE ? BDK_E_CLOSED : n);
  lua_pushinteger(L, n);
  return 1;
}

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
  lua_pushcfunction(L, push_printable);
  lua_setfield(L, -2, "printable");
  lua_pushcfunction(L, say_to);
  lua_setfield(L, -2, "say");
}
