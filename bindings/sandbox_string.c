// SPDX-License-Identifier: MIT
// The string library of a sandbox. Lua's patterns (manual, section 6.4.1), matched by a matcher whose every step is
// charged: six `.-` on 60 characters take seconds elsewhere, and no hook can look in on C.
#include <ctype.h>
#include <lualib.h>
#include <string.h>

#include "sandbox.h"

enum { CAPTURES_MAX = 32, DEPTH_MAX = 150, CHARGE_EACH = 256 };
enum { OPEN = -1, POSITION = -2 }; // the length of a capture that is still open, or is a position

typedef struct capture {
  const char *at;
  ptrdiff_t len;
} capture;

typedef struct matcher {
  lua_State *L;
  const char *text, *end; // the subject
  const char *pend;       // the end of the pattern
  int captures, depth, steps;
  capture list[CAPTURES_MAX];
} matcher;

static const char *match(matcher *m, const char *s, const char *p);

static inline void step(matcher *m) {
  if (++m->steps < CHARGE_EACH) return;
  m->steps = 0;
  bdk_sandbox_charge(m->L, CHARGE_EACH);
}

// --- one character
// The end of the single-character item at p.
static const char *item_end(matcher *m, const char *p) {
  char c = *p++;
  if (c == '%') {
    if (p == m->pend) luaL_error(m->L, "malformed pattern (ends with '%%')");
    return p + 1;
  }
  if (c != '[') return p;
  if (p < m->pend && *p == '^') p++;
  do { // a ] in first place stands for itself
    if (p == m->pend) luaL_error(m->L, "malformed pattern (missing ']')");
    c = *p++;
    if (c == '%') {
      if (p == m->pend) luaL_error(m->L, "malformed pattern (missing ']')");
      p++;
    }
  } while (p == m->pend || *p != ']');
  return p + 1;
}

static bool in_class(int c, int class) {
  bool yes;
  switch (class | 0x20) { // in lower case, if a letter
  case 'a':
    yes = isalpha(c);
    break;
  case 'c':
    yes = iscntrl(c);
    break;
  case 'd':
    yes = isdigit(c);
    break;
  case 'g':
    yes = isgraph(c);
    break;
  case 'l':
    yes = islower(c);
    break;
  case 'p':
    yes = ispunct(c);
    break;
  case 's':
    yes = isspace(c);
    break;
  case 'u':
    yes = isupper(c);
    break;
  case 'w':
    yes = isalnum(c);
    break;
  case 'x':
    yes = isxdigit(c);
    break;
  case 'z':
    yes = c == 0;
    break;
  default:
    return class == c;
  }
  return isupper(class) ? !yes : yes;
}

// Whether c is in the set from p, its '[', to last, its ']'.
static bool in_set(int c, const char *p, const char *last) {
  bool wanted = true;
  if (*++p == '^') {
    wanted = false;
    p++;
  }
  for (; p < last; p++) {
    if (*p == '%') {
      p++;
      if (in_class(c, (unsigned char)*p)) return wanted;
    } else if (p + 2 < last && p[1] == '-') {
      if ((unsigned char)*p <= c && c <= (unsigned char)p[2]) return wanted;
      p += 2;
    } else if ((unsigned char)*p == c) {
      return wanted;
    }
  }
  return !wanted;
}

static bool fits(matcher *m, const char *s, const char *p, const char *pnext) {
  step(m);
  if (s >= m->end) return false;
  int c = (unsigned char)*s;
  switch (*p) {
  case '.':
    return true;
  case '%':
    return in_class(c, (unsigned char)p[1]);
  case '[':
    m->steps += (int)(pnext - p) / 4;
    return in_set(c, p, pnext - 1);
  default:
    return (unsigned char)*p == c;
  }
}

// --- items of more than one character
static const char *balanced(matcher *m, const char *s, const char *p) {
  if (p + 1 >= m->pend) luaL_error(m->L, "malformed pattern (missing arguments to '%%b')");
  if (s >= m->end || *s != p[0]) return NULL;
  int open = 1;
  while (++s < m->end) {
    step(m);
    if (*s == p[1]) {
      if (--open == 0) return s + 1;
    } else if (*s == p[0]) {
      open++;
    }
  }
  return NULL;
}

static const char *greedy(matcher *m, const char *s, const char *p, const char *pnext, ptrdiff_t least) {
  ptrdiff_t n = 0;
  while (fits(m, s + n, p, pnext)) n++;
  for (; n >= least; n--) {
    const char *found = match(m, s + n, pnext + 1);
    if (found) return found;
  }
  return NULL;
}

static const char *lazy(matcher *m, const char *s, const char *p, const char *pnext) {
  for (;; s++) {
    const char *found = match(m, s, pnext + 1);
    if (found) return found;
    if (!fits(m, s, p, pnext)) return NULL;
  }
}

static const char *open_capture(matcher *m, const char *s, const char *p, ptrdiff_t kind) {
  if (m->captures == CAPTURES_MAX) luaL_error(m->L, "too many captures");
  m->list[m->captures++] = (capture){s, kind};
  const char *found = match(m, s, p);
  if (!found) m->captures--;
  return found;
}

static const char *close_capture(matcher *m, const char *s, const char *p) {
  int i = m->captures - 1;
  while (i >= 0 && m->list[i].len != OPEN) i--;
  if (i < 0) luaL_error(m->L, "invalid pattern capture");
  m->list[i].len = s - m->list[i].at;
  const char *found = match(m, s, p);
  if (!found) m->list[i].len = OPEN;
  return found;
}

static const char *again(matcher *m, const char *s, int digit) {
  int i = digit - '1';
  if (i < 0 || i >= m->captures || m->list[i].len == OPEN)
    luaL_error(m->L, "invalid capture index %%%d in the pattern", i + 1);
  size_t len = m->list[i].len < 0 ? 0 : (size_t)m->list[i].len;
  m->steps += (int)(len / 8);
  step(m);
  return (size_t)(m->end - s) >= len && memcmp(m->list[i].at, s, len) == 0 ? s + len : NULL;
}

static bool at_frontier(matcher *m, const char *s, const char *p, const char *pnext) {
  int before = s == m->text ? 0 : (unsigned char)s[-1], here = s < m->end ? (unsigned char)*s : 0;
  step(m);
  return !in_set(before, p, pnext - 1) && in_set(here, p, pnext - 1);
}

// The end of the longest match of the rest of the pattern at s, as the pattern prefers; NULL: none.
static const char *match_here(matcher *m, const char *s, const char *p) {
  while (p != m->pend) {
    step(m);
    if (*p == '(') {
      bool position = p + 1 < m->pend && p[1] == ')';
      return open_capture(m, s, p + (position ? 2 : 1), position ? POSITION : OPEN);
    }
    if (*p == ')') return close_capture(m, s, p + 1);
    if (*p == '$' && p + 1 == m->pend) return s == m->end ? s : NULL;
    if (*p == '%' && p + 1 < m->pend) {
      if (p[1] == 'b') {
        s = balanced(m, s, p + 2);
        if (!s) return NULL;
        p += 4;
        continue;
      }
      if (p[1] == 'f') {
        p += 2;
        if (p == m->pend || *p != '[') luaL_error(m->L, "missing '[' after '%%f' in pattern");
        const char *pnext = item_end(m, p);
        if (!at_frontier(m, s, p, pnext)) return NULL;
        p = pnext;
        continue;
      }
      if (isdigit((unsigned char)p[1])) {
        s = again(m, s, (unsigned char)p[1]);
        if (!s) return NULL;
        p += 2;
        continue;
      }
    }
    const char *pnext = item_end(m, p);
    char repeat = pnext < m->pend ? *pnext : 0;
    if (repeat == '*' || repeat == '+') return greedy(m, s, p, pnext, repeat == '+');
    if (repeat == '-') return lazy(m, s, p, pnext);
    bool here = fits(m, s, p, pnext);
    if (repeat == '?') {
      const char *found = here ? match(m, s + 1, pnext + 1) : NULL;
      if (found) return found;
      p = pnext + 1;
      continue;
    }
    if (!here) return NULL;
    s++;
    p = pnext;
  }
  return s;
}

static const char *match(matcher *m, const char *s, const char *p) {
  if (++m->depth > DEPTH_MAX) luaL_error(m->L, "pattern too complex");
  const char *found = match_here(m, s, p);
  m->depth--;
  return found;
}

static const char *match_at(matcher *m, const char *s, const char *p) {
  m->captures = m->depth = 0;
  return match(m, s, p);
}

// --- captures
static void push_capture(matcher *m, int i, const char *s, const char *e) {
  if (i >= m->captures) {
    if (i != 0) luaL_error(m->L, "invalid capture index %%%d", i + 1);
    lua_pushlstring(m->L, s, (size_t)(e - s));
    return;
  }
  if (m->list[i].len == OPEN) luaL_error(m->L, "unfinished capture");
  if (m->list[i].len == POSITION)
    lua_pushinteger(m->L, m->list[i].at - m->text + 1);
  else
    lua_pushlstring(m->L, m->list[i].at, (size_t)m->list[i].len);
}

// All captures; the whole match where there is none and it is wanted.
static int push_captures(matcher *m, const char *s, const char *e) {
  int n = m->captures == 0 && s ? 1 : m->captures;
  luaL_checkstack(m->L, n, "too many captures");
  for (int i = 0; i < n; i++) push_capture(m, i, s, e);
  return n;
}

static matcher new_matcher(lua_State *L, const char *text, size_t len, const char *p, size_t plen) {
  bdk_sandbox_charge(L, 8 + plen);
  return (matcher){.L = L, .text = text, .end = text + len, .pend = p + plen};
}

// --- find, match
static size_t start_of(lua_Integer init, size_t len) {
  if (init > 0) return (size_t)init - 1;
  if (init == 0 || init < -(lua_Integer)len) return 0;
  return len + (size_t)(init + 1) - 1;
}

static bool is_plain(const char *p, size_t len) {
  for (size_t i = 0; i < len; i++)
    if (strchr("^$*+?.([%-", p[i]) && p[i]) return false;
  return true;
}

static const char *find_plain(lua_State *L, const char *s, size_t len, const char *p, size_t plen) {
  bdk_sandbox_charge(L, 1 + len * (plen / 16 + 1) / 8);
  for (size_t i = 0; i + plen <= len; i++)
    if (memcmp(s + i, p, plen) == 0) return s + i;
  return NULL;
}

static int find_or_match(lua_State *L, bool find) {
  size_t len, plen;
  const char *s = luaL_checklstring(L, 1, &len), *p = luaL_checklstring(L, 2, &plen);
  size_t init = start_of(luaL_optinteger(L, 3, 1), len);
  if (init > len) {
    lua_pushnil(L);
    return 1;
  }
  if (find && (lua_toboolean(L, 4) || is_plain(p, plen))) {
    const char *at = find_plain(L, s + init, len - init, p, plen);
    if (at) {
      lua_pushinteger(L, at - s + 1);
      lua_pushinteger(L, at - s + (lua_Integer)plen);
      return 2;
    }
    lua_pushnil(L);
    return 1;
  }
  bool anchored = plen && *p == '^';
  matcher m = new_matcher(L, s, len, p, plen);
  for (const char *at = s + init; at <= m.end; at++) {
    const char *e = match_at(&m, at, p + anchored);
    if (e && find) {
      lua_pushinteger(L, at - s + 1);
      lua_pushinteger(L, e - s);
      return 2 + push_captures(&m, NULL, NULL);
    }
    if (e) return push_captures(&m, at, e);
    if (anchored) break;
  }
  lua_pushnil(L);
  return 1;
}

static int string_find(lua_State *L) { return find_or_match(L, true); }
static int string_match(lua_State *L) { return find_or_match(L, false); }

// --- gmatch. Upvalues: subject, pattern, where to go on, where the last match ended.
static int gmatch_next(lua_State *L) {
  size_t len, plen;
  const char *s = lua_tolstring(L, lua_upvalueindex(1), &len), *p = lua_tolstring(L, lua_upvalueindex(2), &plen);
  lua_Integer last = lua_tointeger(L, lua_upvalueindex(4));
  matcher m = new_matcher(L, s, len, p, plen);
  for (const char *at = s + lua_tointeger(L, lua_upvalueindex(3)); at <= m.end; at++) {
    const char *e = match_at(&m, at, p);
    if (!e || e - s == last) continue;
    lua_pushinteger(L, e - s);
    lua_pushvalue(L, -1);
    lua_replace(L, lua_upvalueindex(3));
    lua_replace(L, lua_upvalueindex(4));
    return push_captures(&m, at, e);
  }
  return 0;
}

static int string_gmatch(lua_State *L) {
  size_t len;
  luaL_checklstring(L, 1, &len);
  luaL_checkstring(L, 2);
  size_t init = start_of(luaL_optinteger(L, 3, 1), len);
  lua_settop(L, 2);
  lua_pushinteger(L, (lua_Integer)(init > len ? len + 1 : init));
  lua_pushinteger(L, -1);
  lua_pushcclosure(L, gmatch_next, 4);
  return 1;
}

// --- gsub
static void add_text(matcher *m, luaL_Buffer *b, const char *s, const char *e) {
  size_t len;
  const char *with = lua_tolstring(m->L, 3, &len);
  for (size_t i = 0; i < len; i++) {
    if (with[i] != '%') {
      luaL_addchar(b, with[i]);
    } else if (++i < len && with[i] == '%') {
      luaL_addchar(b, '%');
    } else if (i < len && with[i] == '0') {
      luaL_addlstring(b, s, (size_t)(e - s));
    } else if (i < len && isdigit((unsigned char)with[i])) {
      push_capture(m, with[i] - '1', s, e);
      luaL_tolstring(m->L, -1, NULL);
      lua_remove(m->L, -2);
      luaL_addvalue(b);
    } else {
      luaL_error(m->L, "invalid use of '%%' in replacement string");
    }
    step(m);
  }
}

// What replaces the match from s to e goes to b; whether it is something else than the match.
static bool add_value(matcher *m, luaL_Buffer *b, const char *s, const char *e) {
  lua_State *L = m->L;
  if (lua_type(L, 3) == LUA_TFUNCTION) {
    lua_pushvalue(L, 3);
    int n = push_captures(m, s, e);
    lua_call(L, n, 1);
  } else if (lua_type(L, 3) == LUA_TTABLE) {
    push_capture(m, 0, s, e);
    lua_gettable(L, 3);
  } else {
    add_text(m, b, s, e);
    return true;
  }
  if (!lua_toboolean(L, -1)) {
    lua_pop(L, 1);
    luaL_addlstring(b, s, (size_t)(e - s));
    return false;
  }
  if (!lua_isstring(L, -1)) luaL_error(L, "invalid replacement value (a %s)", luaL_typename(L, -1));
  luaL_addvalue(b);
  return true;
}

static int string_gsub(lua_State *L) {
  size_t len, plen;
  const char *s = luaL_checklstring(L, 1, &len), *p = luaL_checklstring(L, 2, &plen), *last = NULL;
  int t = lua_type(L, 3);
  luaL_argexpected(L, t == LUA_TNUMBER || t == LUA_TSTRING || t == LUA_TTABLE || t == LUA_TFUNCTION, 3,
                   "string, function or table");
  lua_Integer most = luaL_optinteger(L, 4, (lua_Integer)len + 1), n = 0;
  lua_settop(L, 3);
  bool anchored = plen && *p == '^';
  matcher m = new_matcher(L, s, len, p, plen);
  luaL_Buffer b;
  luaL_buffinit(L, &b);
  while (n < most) {
    const char *e = match_at(&m, s, p + anchored);
    if (e && e != last) {
      n++;
      add_value(&m, &b, s, e);
      s = last = e;
    } else if (s < m.end) {
      luaL_addchar(&b, *s++);
    } else {
      break;
    }
    if (anchored) break;
  }
  luaL_addlstring(&b, s, (size_t)(m.end - s));
  luaL_pushresult(&b);
  lua_pushinteger(L, n);
  return 2;
}

// --- the others
// [-0, +1, e] string.rep(s, n [, sep]): no longer than a text may be, said before it is built
static int string_rep(lua_State *L) {
  size_t len, sep_len;
  const char *s = luaL_checklstring(L, 1, &len), *sep = luaL_optlstring(L, 3, "", &sep_len);
  lua_Integer n = luaL_checkinteger(L, 2);
  if (n <= 0 || len + sep_len == 0) {
    lua_pushliteral(L, "");
    return 1;
  }
  if ((size_t)n > BDK_SANDBOX_STRING_MAX / (len + sep_len) + 1)
    return luaL_error(L, "string.rep: longer than %d bytes", BDK_SANDBOX_STRING_MAX);
  luaL_Buffer b;
  luaL_buffinit(L, &b);
  for (lua_Integer i = 0; i < n; i++) {
    if (i) luaL_addlstring(&b, sep, sep_len);
    luaL_addlstring(&b, s, len);
  }
  luaL_pushresult(&b);
  return 1;
}

// [-0, +1, e] string.format(…): addresses are not told
static int string_format(lua_State *L) {
  size_t len;
  const char *format = luaL_checklstring(L, 1, &len);
  bdk_sandbox_charge(L, 4 + len / 4);
  for (const char *p = strchr(format, '%'); p; p = strchr(p + 1, '%')) {
    if (p[1] == '%') {
      p++;
      continue;
    }
    bdk_sandbox_charge(L, 500); // a long float takes microseconds
    p += 1 + strspn(p + 1, "-+ #0123456789.");
    if (*p == 'p') return luaL_error(L, "string.format: there is no %%p in a policy");
    if (!*p) break;
  }
  int n = lua_gettop(L);
  for (int i = 2; i <= n; i++) {
    int t = lua_type(L, i);
    bool addressed = t == LUA_TTABLE || t == LUA_TFUNCTION || t == LUA_TTHREAD;
    if (!addressed) continue;
    lua_getglobal(L, "tostring");
    lua_pushvalue(L, i);
    lua_call(L, 1, 1);
    lua_replace(L, i);
  }
  return lua_tocfunction(L, lua_upvalueindex(1))(L);
}

void bdk_sandbox_open_string(lua_State *L) {
  static const luaL_Reg functions[] = {{"find", string_find}, {"match", string_match}, {"gmatch", string_gmatch},
                                       {"gsub", string_gsub}, {"rep", string_rep},     {NULL, NULL}};
  static const char *const charged[] = {"byte", "len", "lower", "upper", "reverse", "sub", "unpack", "pack"};
  luaL_requiref(L, LUA_STRLIBNAME, luaopen_string, 1);
  luaL_setfuncs(L, functions, 0);
  lua_pushnil(L);
  lua_setfield(L, -2, "dump");
  for (size_t i = 0; i < sizeof charged / sizeof *charged; i++) {
    lua_getfield(L, -1, charged[i]);
    lua_CFunction original = lua_tocfunction(L, -1);
    lua_pop(L, 1);
    bdk_sandbox_push_charged(L, original);
    lua_setfield(L, -2, charged[i]);
  }
  lua_getfield(L, -1, "format");
  lua_pushcclosure(L, string_format, 1);
  lua_setfield(L, -2, "format");
  lua_pop(L, 1);
  lua_pushliteral(L, "");
  lua_getmetatable(L, -1);
  lua_pushboolean(L, false);
  lua_setfield(L, -2, "__metatable");
  lua_pop(L, 2);
}
