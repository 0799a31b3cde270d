// SPDX-License-Identifier: MIT
// The global table of a sandbox: of Lua's libraries what is harmless, and versions of the rest that cannot catch the
// end of the account, show no address, keep one order in each run, and are charged where C does the work.
#include <lualib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sandbox.h"

static const char modules_key = 0; // its address is the key of name -> { chunkname, text or chunk, value }

// --- errors: what ends the sandbox passes through everything
static int finish_pcall(lua_State *L, int status, lua_KContext extra) {
  if (status == LUA_OK || status == LUA_YIELD) return lua_gettop(L) - (int)extra;
  // Lua walks the whole stack of calls when it catches an error; the memory held bounds its depth.
  bdk_sandbox_charge(L, 100 + bdk_sandbox_of(L)->used / 128);
  lua_pushboolean(L, 0);
  lua_pushvalue(L, -2);
  return 2;
}

// [-0, +n, v] pcall(fn, …)
static int sandbox_pcall(lua_State *L) {
  luaL_checkany(L, 1);
  lua_pushboolean(L, 1);
  lua_insert(L, 1);
  int status = lua_pcallk(L, lua_gettop(L) - 2, LUA_MULTRET, 0, 0, finish_pcall);
  return finish_pcall(L, status, 0);
}

// A message handler of the script's: not called for the end, when a hook raised it and no hook could stop it.
static int handle(lua_State *L) {
  if (bdk_sandbox_of(L)->dead) return 1;
  lua_settop(L, 1);
  lua_pushvalue(L, lua_upvalueindex(1));
  lua_insert(L, 1);
  lua_call(L, 1, 1);
  return 1;
}

// [-0, +n, v] xpcall(fn, handler, …)
static int sandbox_xpcall(lua_State *L) {
  int n = lua_gettop(L);
  luaL_checktype(L, 2, LUA_TFUNCTION);
  lua_pushvalue(L, 2);
  lua_pushcclosure(L, handle, 1);
  lua_replace(L, 2);
  lua_pushboolean(L, 1);
  lua_pushvalue(L, 1);
  lua_rotate(L, 3, 2); // fn, handler, true, fn, …
  int status = lua_pcallk(L, n - 2, LUA_MULTRET, 2, 2, finish_pcall);
  return finish_pcall(L, status, 2);
}

// --- coroutines
static int resume(lua_State *L, lua_State *co, int nargs) {
  bdk_sandbox *s = bdk_sandbox_of(L);
  if (!lua_checkstack(co, nargs)) {
    lua_pushliteral(L, "too many arguments to resume");
    return -1;
  }
  lua_xmove(L, co, nargs);
  int results = 0;
  s->current = co;
  int status = lua_resume(co, L, nargs, &results);
  s->current = L;
  if (s->dead) bdk_sandbox_die(L);
  if (status != LUA_OK && status != LUA_YIELD) {
    lua_xmove(co, L, 1);
    return -1;
  }
  if (!lua_checkstack(L, results + 1)) {
    lua_pop(co, results);
    lua_pushliteral(L, "too many results to resume");
    return -1;
  }
  lua_xmove(co, L, results);
  return results;
}

// [-0, +1, e] coroutine.create(fn). A new thread begins its count anew, so the whole count is charged.
static int co_create(lua_State *L) {
  luaL_checktype(L, 1, LUA_TFUNCTION);
  bdk_sandbox_charge(L, BDK_SANDBOX_PERIOD);
  lua_State *co = lua_newthread(L);
  lua_pushvalue(L, 1);
  lua_xmove(L, co, 1);
  return 1;
}

static int resumable(lua_State *L, lua_State *co) {
  if (lua_status(co) == LUA_YIELD) return 1;
  lua_Debug ar;
  return co != L && lua_status(co) == LUA_OK && !lua_getstack(co, 0, &ar) && lua_gettop(co) > 0;
}

// [-0, +n, v] coroutine.resume(co, …)
static int co_resume(lua_State *L) {
  lua_State *co = lua_tothread(L, 1);
  luaL_argexpected(L, co, 1, "coroutine");
  int n = -1;
  if (resumable(L, co))
    n = resume(L, co, lua_gettop(L) - 1);
  else
    lua_pushliteral(L, "cannot resume this coroutine: it is dead or running");
  lua_pushboolean(L, n >= 0);
  lua_insert(L, n >= 0 ? -(n + 1) : -2);
  return n >= 0 ? n + 1 : 2;
}

static int wrapped(lua_State *L) {
  lua_State *co = lua_tothread(L, lua_upvalueindex(1));
  if (!resumable(L, co)) return luaL_error(L, "cannot resume this coroutine: it is dead or running");
  int n = resume(L, co, lua_gettop(L));
  return n >= 0 ? n : lua_error(L);
}

// [-0, +1, e] coroutine.wrap(fn)
static int co_wrap(lua_State *L) {
  co_create(L);
  lua_pushcclosure(L, wrapped, 1);
  return 1;
}

// --- values
// [-0, +1, e] setmetatable(t, mt). No finalizers: hooks are off in them. No weak tables: what a collection leaves
// in them is not the same in each run.
static int sandbox_setmetatable(lua_State *L) {
  luaL_checktype(L, 1, LUA_TTABLE);
  luaL_argexpected(L, lua_isnil(L, 2) || lua_istable(L, 2), 2, "nil or table");
  if (luaL_getmetafield(L, 1, "__metatable") != LUA_TNIL) return luaL_error(L, "a protected metatable");
  static const char *const refused[] = {"__gc", "__close", "__mode"};
  for (size_t i = 0; i < sizeof refused / sizeof *refused && lua_istable(L, 2); i++) {
    lua_pushstring(L, refused[i]);
    if (lua_rawget(L, 2) != LUA_TNIL) return luaL_error(L, "a metatable has no %s in a policy", refused[i]);
    lua_pop(L, 1);
  }
  lua_settop(L, 2);
  lua_setmetatable(L, 1);
  return 1;
}

// Addresses differ from run to run: without __tostring only the type is told.
static void push_text(lua_State *L, int idx) {
  int t = lua_type(L, idx);
  bool plain = t == LUA_TNIL || t == LUA_TBOOLEAN || t == LUA_TNUMBER || t == LUA_TSTRING;
  if (plain || luaL_getmetafield(L, idx, "__tostring") != LUA_TNIL) {
    if (!plain) lua_pop(L, 1);
    luaL_tolstring(L, idx, NULL);
    return;
  }
  lua_pushstring(L, lua_typename(L, t));
}

static int sandbox_tostring(lua_State *L) {
  luaL_checkany(L, 1);
  push_text(L, 1);
  return 1;
}

// [-0, +0, e] print(…): kept for the owner, who says when it is shown; a tab would be escaped there
static int sandbox_print(lua_State *L) {
  bdk_sandbox *s = bdk_sandbox_of(L);
  int n = lua_gettop(L);
  bdk_sandbox_charge(L, 20 + (uint64_t)n * 20);
  for (int i = 1; i <= n; i++) {
    size_t len;
    push_text(L, i);
    const char *text = lua_tolstring(L, -1, &len);
    size_t room = sizeof s->said - 1 - s->said_len;
    if (len > room) len = room;
    memcpy(s->said + s->said_len, text, len);
    s->said_len += len;
    if (s->said_len < sizeof s->said - 1) s->said[s->said_len++] = i < n ? ' ' : '\n';
    lua_pop(L, 1);
  }
  return 0;
}

// --- order of keys: numbers, then texts, then booleans, so that each run sees the same one
typedef struct key {
  int rank;
  lua_Number n;
  const char *s;
  size_t len;
} key;

static int compare_keys(const void *pa, const void *pb) {
  const key *a = pa, *b = pb;
  if (a->rank != b->rank) return a->rank - b->rank;
  if (a->rank != 1) return (a->n > b->n) - (a->n < b->n);
  int order = memcmp(a->s, b->s, a->len < b->len ? a->len : b->len);
  return order ? order : (a->len > b->len) - (a->len < b->len);
}

static key read_key(lua_State *L, int idx) {
  key k = {0};
  switch (lua_type(L, idx)) {
  case LUA_TNUMBER:
    k.n = lua_tonumber(L, idx);
    return k;
  case LUA_TSTRING:
    k.rank = 1;
    k.s = lua_tolstring(L, idx, &k.len);
    return k;
  case LUA_TBOOLEAN:
    k.rank = 2;
    k.n = lua_toboolean(L, idx);
    return k;
  default:
    luaL_error(L, "pairs: a %s as a key has no order; keep a list beside the table", luaL_typename(L, idx));
    return k;
  }
}

static void push_key(lua_State *L, const key *k) {
  if (k->rank == 1)
    lua_pushlstring(L, k->s, k->len);
  else if (k->rank == 2)
    lua_pushboolean(L, k->n != 0);
  else if (k->n >= -9007199254740992.0 && k->n <= 9007199254740992.0 && k->n == (lua_Number)(lua_Integer)k->n)
    lua_pushinteger(L, (lua_Integer)k->n);
  else
    lua_pushnumber(L, k->n);
}

// Upvalues: the table, an array of its keys in order, how far it got.
static int next_in_order(lua_State *L) {
  lua_Integer i = lua_tointeger(L, lua_upvalueindex(3));
  for (;;) {
    i++;
    if (lua_rawgeti(L, lua_upvalueindex(2), i) == LUA_TNIL) return 1;
    lua_pushvalue(L, -1);
    if (lua_rawget(L, lua_upvalueindex(1)) != LUA_TNIL) break;
    lua_pop(L, 2); // cleared meanwhile
  }
  lua_pushinteger(L, i);
  lua_replace(L, lua_upvalueindex(3));
  return 2;
}

// [-0, +3, e] pairs(t): of the keys it has now. Integers beyond 2^53 are not told apart.
static int sandbox_pairs(lua_State *L) {
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_settop(L, 1);
  bdk_sandbox_fill(L, 1);
  lua_Integer n = 0;
  for (lua_pushnil(L); lua_next(L, 1); lua_pop(L, 1)) n++;
  bdk_sandbox_charge(L, (uint64_t)n * 10);
  key *keys = lua_newuserdatauv(L, (size_t)(n ? n : 1) * sizeof *keys, 0);
  lua_Integer i = 0;
  for (lua_pushnil(L); lua_next(L, 1); lua_pop(L, 1)) keys[i++] = read_key(L, -2);
  qsort(keys, (size_t)n, sizeof *keys, compare_keys);
  lua_pushvalue(L, 1);
  lua_createtable(L, (int)n, 0);
  for (i = 0; i < n; i++) {
    push_key(L, &keys[i]);
    lua_rawseti(L, -2, i + 1);
  }
  lua_pushinteger(L, 0);
  lua_pushcclosure(L, next_in_order, 3);
  lua_pushvalue(L, 1);
  lua_pushnil(L);
  return 3;
}

// [-0, +2, e] next(t [, key]): the least key after it, in the order of pairs; it looks at them all
static int sandbox_next(lua_State *L) {
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_settop(L, 2);
  bdk_sandbox_fill(L, 1);
  bool from = !lua_isnil(L, 2), found = false;
  key after = from ? read_key(L, 2) : (key){0}, best = {0};
  uint64_t n = 0;
  for (lua_pushnil(L); lua_next(L, 1); lua_pop(L, 1)) {
    key k = read_key(L, -2);
    n++;
    if ((from && compare_keys(&k, &after) <= 0) || (found && compare_keys(&k, &best) >= 0)) continue;
    best = k;
    found = true;
  }
  bdk_sandbox_charge(L, n * 2);
  if (!found) {
    lua_pushnil(L);
    return 1;
  }
  push_key(L, &best);
  lua_pushvalue(L, -1);
  lua_rawget(L, 1);
  return 2;
}

// --- table
static lua_Integer plain_length(lua_State *L, int idx) {
  luaL_checktype(L, idx, LUA_TTABLE);
  bdk_sandbox_fill(L, idx);
  if (luaL_getmetafield(L, idx, "__len") != LUA_TNIL) luaL_argerror(L, idx, "a table without __len expected");
  return (lua_Integer)lua_rawlen(L, idx);
}

static void charge_range(lua_State *L, lua_Integer from, lua_Integer to) {
  if (to >= from) bdk_sandbox_charge(L, (uint64_t)to - (uint64_t)from + 1);
}

static int original(lua_State *L) { return lua_tocfunction(L, lua_upvalueindex(1))(L); }

static int table_insert(lua_State *L) {
  lua_Integer n = plain_length(L, 1);
  if (lua_gettop(L) == 3) charge_range(L, luaL_checkinteger(L, 2), n);
  return original(L);
}

static int table_remove(lua_State *L) {
  lua_Integer n = plain_length(L, 1);
  charge_range(L, luaL_optinteger(L, 2, n), n);
  return original(L);
}

static int table_concat(lua_State *L) {
  lua_Integer n = plain_length(L, 1);
  charge_range(L, luaL_optinteger(L, 3, 1), luaL_optinteger(L, 4, n));
  return original(L);
}

static int table_unpack(lua_State *L) {
  lua_Integer n = plain_length(L, 1);
  charge_range(L, luaL_optinteger(L, 2, 1), luaL_optinteger(L, 3, n));
  return original(L);
}

static int table_move(lua_State *L) {
  charge_range(L, luaL_checkinteger(L, 2), luaL_checkinteger(L, 3));
  return original(L);
}

// Whether element b of the list at `list` comes before element a.
static bool before(lua_State *L, int list, lua_Integer b, lua_Integer a) {
  if (lua_isnil(L, 2)) {
    lua_rawgeti(L, list, b);
    lua_rawgeti(L, list, a);
    bool less = lua_compare(L, -2, -1, LUA_OPLT);
    lua_pop(L, 2);
    return less;
  }
  lua_pushvalue(L, 2);
  lua_rawgeti(L, list, b);
  lua_rawgeti(L, list, a);
  lua_call(L, 2, 1);
  bool less = lua_toboolean(L, -1);
  lua_pop(L, 1);
  return less;
}

static void merge(lua_State *L, int from, int to, lua_Integer lo, lua_Integer mid, lua_Integer hi) {
  lua_Integer a = lo, b = mid;
  for (lua_Integer i = lo; i < hi; i++) {
    bool second = a == mid || (b < hi && before(L, from, b, a));
    lua_rawgeti(L, from, second ? b++ : a++);
    lua_rawseti(L, to, i);
  }
}

// [-0, +0, e] table.sort(t [, less]): by merging, so equal ones keep their order and no order of elements is slow
static int table_sort(lua_State *L) {
  lua_Integer n = plain_length(L, 1);
  if (!lua_isnoneornil(L, 2)) luaL_checktype(L, 2, LUA_TFUNCTION);
  lua_settop(L, 2);
  lua_createtable(L, (int)n, 0);
  int from = 1, to = 3;
  for (lua_Integer width = 1; width < n; width *= 2) {
    bdk_sandbox_charge(L, (uint64_t)n * 4);
    for (lua_Integer lo = 1; lo <= n; lo += 2 * width) {
      lua_Integer mid = lo + width < n + 1 ? lo + width : n + 1;
      lua_Integer hi = mid + width < n + 1 ? mid + width : n + 1;
      merge(L, from, to, lo, mid, hi);
    }
    int t = from;
    from = to;
    to = t;
  }
  for (lua_Integer i = 1; from != 1 && i <= n; i++) {
    lua_rawgeti(L, from, i);
    lua_rawseti(L, 1, i);
  }
  return 0;
}

// --- text of programs
// [-0, +1|2, e] load(text [, chunkname [, mode [, env]]]): text only
static int sandbox_load(lua_State *L) {
  size_t len;
  const char *text = luaL_checklstring(L, 1, &len);
  const char *chunkname = luaL_optstring(L, 2, text);
  bool env = !lua_isnone(L, 4);
  bdk_sandbox_charge(L, len * 4);
  if (luaL_loadbufferx(L, text, len, chunkname, "t") != LUA_OK) {
    lua_pushnil(L);
    lua_insert(L, -2);
    return 2;
  }
  if (env) {
    lua_pushvalue(L, 4);
    if (!lua_setupvalue(L, -2, 1)) lua_pop(L, 1);
  }
  return 1;
}

enum { CHUNKNAME = 1, SOURCE = 2, VALUE = 3 };

void bdk_sandbox_module(lua_State *L, const char *name, const char *chunkname) {
  lua_rawgetp(L, LUA_REGISTRYINDEX, &modules_key);
  lua_createtable(L, 3, 0);
  lua_pushstring(L, chunkname ? chunkname : name);
  lua_rawseti(L, -2, CHUNKNAME);
  lua_pushvalue(L, -3);
  lua_rawseti(L, -2, SOURCE);
  lua_setfield(L, -2, name);
  lua_pop(L, 2);
}

// [-0, +1, e] require(name): of the modules that the owner gave, nothing else
static int sandbox_require(lua_State *L) {
  const char *name = luaL_checkstring(L, 1);
  lua_rawgetp(L, LUA_REGISTRYINDEX, &modules_key);
  if (lua_getfield(L, -1, name) != LUA_TTABLE)
    return luaL_error(L, "module '%s' not found: a policy may require text files beside it, by name", name);
  int module = lua_gettop(L);
  if (lua_rawgeti(L, module, VALUE) != LUA_TNIL) return 1;
  lua_rawgeti(L, module, CHUNKNAME);
  if (lua_rawgeti(L, module, SOURCE) == LUA_TUSERDATA) {
    size_t len = lua_rawlen(L, -1) - 1;
    bdk_sandbox_charge(L, len);
    if (luaL_loadbufferx(L, lua_touserdata(L, -1), len, lua_tostring(L, -2), "t") != LUA_OK) return lua_error(L);
  }
  lua_pushboolean(L, true); // for a module that requires itself
  lua_rawseti(L, module, VALUE);
  lua_pushvalue(L, 1);
  lua_call(L, 1, 1);
  if (lua_isnil(L, -1)) lua_pushboolean(L, true);
  lua_pushvalue(L, -1);
  lua_rawseti(L, module, VALUE);
  return 1;
}

// --- putting it together
static int charged(lua_State *L) {
  size_t len = lua_isstring(L, 1) ? lua_rawlen(L, 1) : 0;
  bdk_sandbox_charge(L, 1 + len / 2);
  return original(L);
}

void bdk_sandbox_push_charged(lua_State *L, lua_CFunction function) {
  lua_pushcfunction(L, function);
  lua_pushcclosure(L, charged, 1);
}

// Replaces field `name` of the table on the top by `with`, a closure over the original.
static void replace(lua_State *L, const char *name, lua_CFunction with) {
  lua_getfield(L, -1, name);
  lua_pushcclosure(L, with, 1);
  lua_setfield(L, -2, name);
}

static void forget(lua_State *L, const char *const *names) {
  for (; *names; names++) {
    lua_pushnil(L);
    lua_setfield(L, -2, *names);
  }
}

static void open_table(lua_State *L) {
  luaL_requiref(L, LUA_TABLIBNAME, luaopen_table, 1);
  replace(L, "insert", table_insert);
  replace(L, "remove", table_remove);
  replace(L, "concat", table_concat);
  replace(L, "unpack", table_unpack);
  replace(L, "move", table_move);
  replace(L, "sort", table_sort);
  lua_pop(L, 1);
}

static void open_math(lua_State *L) {
  luaL_requiref(L, LUA_MATHLIBNAME, luaopen_math, 1);
  lua_getfield(L, -1, "randomseed");
  lua_pushinteger(L, 2002); // the same numbers in each run
  lua_call(L, 1, 0);
  forget(L, (const char *const[]){"randomseed", NULL});
  lua_pop(L, 1);
}

static void open_coroutine(lua_State *L) {
  static const luaL_Reg functions[] = {{"create", co_create}, {"resume", co_resume}, {"wrap", co_wrap}, {NULL, NULL}};
  luaL_requiref(L, LUA_COLIBNAME, luaopen_coroutine, 1);
  luaL_setfuncs(L, functions, 0);
  forget(L, (const char *const[]){"close", NULL});
  lua_pop(L, 1);
}

void bdk_sandbox_open_base(lua_State *L) {
  static const luaL_Reg functions[] = {{"pcall", sandbox_pcall},
                                       {"xpcall", sandbox_xpcall},
                                       {"setmetatable", sandbox_setmetatable},
                                       {"tostring", sandbox_tostring},
                                       {"print", sandbox_print},
                                       {"pairs", sandbox_pairs},
                                       {"next", sandbox_next},
                                       {"load", sandbox_load},
                                       {"require", sandbox_require},
                                       {NULL, NULL}};
  lua_newtable(L);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &modules_key);
  luaL_requiref(L, LUA_GNAME, luaopen_base, 1);
  luaL_setfuncs(L, functions, 0);
  forget(L, (const char *const[]){"dofile", "loadfile", "collectgarbage", "warn", NULL});
  replace(L, "tonumber", charged);
  lua_pop(L, 1);
  open_table(L);
  open_math(L);
  open_coroutine(L);
  luaL_requiref(L, LUA_UTF8LIBNAME, luaopen_utf8, 1);
  static const char *const utf8[] = {"codepoint", "len", "offset", "codes", NULL};
  for (const char *const *name = utf8; *name; name++) replace(L, *name, charged);
  lua_pop(L, 1);
}
