// SPDX-License-Identifier: MIT
// core.sandbox{ memory = bytes, instructions = a call } -> a state of its own, bytes in and bytes out.
#include "sandbox.h"
#include "sandbox_net.h"

#include <lualib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char type[] = "bodkin.sandbox";
static const char main_key = 0; // its address is the key of what load gave, in the sandbox's registry
enum { RESERVE = 65536, ARGUMENTS_MAX = 1000, RESULTS_MAX = 10000 };

// --- the account
static const char over_work[] = "over its budget of instructions", over_memory[] = "over its memory",
                  over_string[] = "a text longer than 1280 bytes";

// Notes where the running thread is: in the first function, from the top, that is not one of ours; else in ours, if
// `any` will do.
static void note_where(bdk_sandbox *s, lua_State *L, bool any) {
  lua_Debug ar;
  s->where[0] = 0;
  for (int level = 0; lua_getstack(L, level, &ar); level++) {
    if (!lua_getinfo(L, "Sl", &ar) || ar.currentline <= 0) continue;
    bool ours = strstr(ar.source, "bodkin/policy") != NULL;
    if (ours && (s->where[0] || !any)) continue;
    snprintf(s->where, sizeof s->where, "%s:%d: ", ar.short_src, ar.currentline);
    if (!ours) return;
  }
}

static void kill_it(bdk_sandbox *s, const char *why) {
  if (s->dead || !s->running) return;
  s->dead = why;
  note_where(s, s->current, true);
}

// --- memory. What Lua makes is small, lives shortly and dies in great numbers, and Lua knows the size of what it
// frees: so small blocks come from chunks, and go back to a list for their size.
static size_t class_of(size_t n) { return (n + 15) / 16; }

static void *take_small(bdk_sandbox *s, size_t n) {
  size_t c = class_of(n);
  void *p = s->free[c];
  if (p) {
    memcpy(&s->free[c], p, sizeof p);
    return p;
  }
  if ((size_t)(s->bump_end - s->bump) < c * 16) {
    size_t len = s->chunk_len ? s->chunk_len * 2 : 16384; // what is left of the one before is lost, 256 bytes at most
    if (len > 1 << 20) len = 1 << 20;
    uint8_t *chunk = calloc(1, len);
    if (!chunk) return NULL;
    memcpy(chunk, &s->chunks, sizeof s->chunks);
    s->chunks = chunk;
    s->chunk_len = len;
    s->bump = chunk + 16;
    s->bump_end = chunk + len;
  }
  p = s->bump;
  s->bump += c * 16;
  return p;
}

static void give_small(bdk_sandbox *s, void *p, size_t n) {
  size_t c = class_of(n);
  memcpy(p, &s->free[c], sizeof p);
  s->free[c] = p;
}

// A large block has room for a link behind what is used of it.
enum { LINK = sizeof(void *) };

static void free_chunks(bdk_sandbox *s) {
  for (void *next, *p = s->chunks; p; p = next) {
    memcpy(&next, p, sizeof next);
    free(p);
  }
  for (uint8_t *next, *p = s->adopted; p; p = next) {
    memcpy(&next, p + BDK_SANDBOX_SMALL, sizeof next);
    free(p);
  }
  s->chunks = s->adopted = NULL;
}

// Makes a small block of a large one, where there is no chunk to move it to: Lua counts on shrinking.
static void *adopt(bdk_sandbox *s, uint8_t *p) {
  memcpy(p + BDK_SANDBOX_SMALL, &s->adopted, sizeof s->adopted);
  s->adopted = p;
  return p;
}

static void *move_block(bdk_sandbox *s, void *p, size_t old, size_t n) {
  bool was_small = p && old <= BDK_SANDBOX_SMALL, is_small = n <= BDK_SANDBOX_SMALL;
  if (!was_small && !is_small) return realloc(p, n + LINK);
  if (was_small && is_small && class_of(old) == class_of(n)) return p;
  void *q = is_small ? take_small(s, n) : calloc(1, n + LINK);
  if (!q && p && n < old) return was_small ? p : adopt(s, p); // a small one is then of a smaller class than it could be
  if (!q || !p) return q;
  memcpy(q, p, old < n ? old : n);
  if (was_small)
    give_small(s, p, old);
  else
    free(p);
  return q;
}

// All memory of the state. What is refused ends the run: a script that could go on after it would have each
// refusal answered by a full collection, and that is work nobody counts.
static void *sandbox_alloc(void *ud, void *p, size_t osize, size_t nsize) {
  bdk_sandbox *s = ud;
  size_t old = p ? osize : 0;
  if (nsize == 0) {
    s->used -= old;
    if (p && old <= BDK_SANDBOX_SMALL)
      give_small(s, p, old);
    else
      free(p);
    return NULL;
  }
  if (nsize > old) {
    size_t more = nsize - old;
    size_t cap = bdk_sandbox_room(s);
    bool too_long = !p && osize == LUA_TSTRING && nsize > BDK_SANDBOX_STRING_MAX + 64;
    if (s->running && (too_long || s->used + more > cap)) kill_it(s, too_long ? over_string : over_memory);
    if (too_long || s->used + more > cap + RESERVE) return NULL;
    if (s->dead && more > 1024) return NULL;
    if (s->running) s->work += 16 + more / 4; // and the collector will have to look at it
  }
  void *q = move_block(s, p, old, nsize);
  if (!q) return nsize <= old ? p : NULL; // large ones that shrink and stay large
  s->used += nsize - old;
  return q;
}

static void on_count(lua_State *L, lua_Debug *ar) {
  (void)ar;
  bdk_sandbox_charge(L, BDK_SANDBOX_PERIOD);
}

int bdk_sandbox_die(lua_State *L) {
  // From now on each instruction is one too many, also in __close and in whatever caught the last error.
  lua_sethook(L, on_count, LUA_MASKCOUNT, 1);
  lua_pushliteral(L, "the sandbox has ended");
  return lua_error(L);
}

size_t bdk_sandbox_room(const bdk_sandbox *s) { return s->cap + (size_t)s->load * BDK_SANDBOX_EACH_BYTES; }

void bdk_sandbox_hold(bdk_sandbox *s) {
  s->holds = true;
  lua_gc(s->L, LUA_GCSTOP);
}

void bdk_sandbox_release(bdk_sandbox *s) {
  if (s->holds) lua_gc(s->L, LUA_GCRESTART);
  s->holds = false;
}

void bdk_sandbox_charge(lua_State *L, uint64_t work) {
  bdk_sandbox *s = bdk_sandbox_of(L);
  s->work += work;
  if (s->holds && s->used > bdk_sandbox_room(s) / 8 * 7) bdk_sandbox_release(s); // one function may make that much
  if (!s->dead && s->work <= s->limit) return;
  s->current = L;
  kill_it(s, over_work);
  bdk_sandbox_die(L);
}

void bdk_sandbox_tell(lua_State *L, const uint8_t *bytes, size_t len) {
  bdk_sandbox *s = bdk_sandbox_of(L);
  bdk_sandbox_charge(L, 20 + len);
  if (s->told_len + len + 2 > s->told_cap) {
    size_t cap = (s->told_len + len + 2) * 2;
    uint8_t *told = realloc(s->told, cap);
    if (!told) luaL_error(L, "not enough memory for a result");
    s->told = told;
    s->told_cap = cap;
  }
  s->told[s->told_len++] = (uint8_t)(len >> 8);
  s->told[s->told_len++] = (uint8_t)len;
  memcpy(s->told + s->told_len, bytes, len);
  s->told_len += len;
}

// --- inside: what runs under the one lua_pcall
typedef struct job {
  lua_State *owner; // of the arguments, strings from `first` on
  int first, count;
  const char *name; // of the function; NULL: load
  const char *text, *chunkname;
  size_t len;
} job;

static bool has_line(const char *text) {
  for (const char *p = strchr(text, ':'); p; p = strchr(p + 1, ':')) {
    const char *q = p + 1;
    while (*q >= '0' && *q <= '9') q++;
    if (q > p + 1 && *q == ':') return true;
  }
  return false;
}

// The message handler: gives an error that says no line the one it comes from.
static int on_error(lua_State *L) {
  bdk_sandbox *s = bdk_sandbox_of(L);
  if (s->dead) return 1;
  if (lua_type(L, 1) != LUA_TSTRING) {
    lua_pushfstring(L, "an error that is a %s", luaL_typename(L, 1));
    lua_replace(L, 1);
  }
  if (has_line(lua_tostring(L, 1))) return 1;
  note_where(s, L, false);
  lua_pushfstring(L, "%s%s", s->where, lua_tostring(L, 1));
  return 1;
}

// The primitives that a trusted chunk gets as its argument, and no other code.
// where(fn) -> "file:line: "
static int where(lua_State *L) {
  lua_Debug ar;
  luaL_checktype(L, 1, LUA_TFUNCTION);
  lua_settop(L, 1);
  lua_getinfo(L, ">S", &ar);
  lua_pushfstring(L, "%s:%d: ", ar.short_src, ar.linedefined);
  return 1;
}

// left() -> the part of the budget that is left, 0 to 1
static int left(lua_State *L) {
  const bdk_sandbox *s = bdk_sandbox_of(L);
  lua_pushnumber(L, s->work < s->limit ? 1 - (lua_Number)s->work / (lua_Number)s->limit : 0);
  return 1;
}

static void push_primitives(lua_State *L) {
  lua_newtable(L);
  bdk_open_wire(L);
  lua_getfield(L, -1, "wire");
  lua_remove(L, -2);
  lua_pushcfunction(L, where);
  lua_setfield(L, -2, "where");
  lua_pushcfunction(L, left);
  lua_setfield(L, -2, "left");
  bdk_sandbox_push_tickets(L);
  lua_setfield(L, -2, "tickets");
  bdk_sandbox_push_helpers(L);
  lua_setfield(L, -2, "helpers");
}

// 1: the job. For load: the chunk, or a chunk already compiled on the stack as 2.
static int run_load(lua_State *L) {
  const job *j = lua_touserdata(L, 1);
  bool trusted = lua_isfunction(L, 2);
  if (!trusted && luaL_loadbufferx(L, j->text, j->len, j->chunkname, "t") != LUA_OK) return lua_error(L);
  if (trusted) {
    push_primitives(L);
    lua_call(L, 1, 1);
  } else {
    bdk_sandbox_charge(L, j->len);
    lua_call(L, 0, 1);
  }
  lua_rawsetp(L, LUA_REGISTRYINDEX, &main_key);
  return 0;
}

static int run_call(lua_State *L) {
  const job *j = lua_touserdata(L, 1);
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &main_key) != LUA_TTABLE) return luaL_error(L, "the script returned no table");
  lua_getfield(L, -1, j->name);
  if (!lua_isfunction(L, -1)) return luaL_error(L, "there is no function '%s'", j->name);
  int fn = lua_gettop(L);
  luaL_checkstack(L, j->count + 4, "arguments");
  for (int i = 0; i < j->count; i++) {
    size_t len;
    const char *bytes = lua_tolstring(j->owner, j->first + i, &len);
    bdk_push_wire(L, (const uint8_t *)bytes, len);
  }
  lua_call(L, j->count, LUA_MULTRET);
  int results = lua_gettop(L) - fn + 1;
  if (results > RESULTS_MAX) return luaL_error(L, "%d results are too many", results);
  if (results == 0) {
    lua_pushnil(L);
    results = 1;
  }
  luaL_checkstack(L, 16, "results");
  for (int i = fn; i < fn + results; i++) {
    uint8_t out[BDK_DATAGRAM_MAX];
    const char *why, *code;
    size_t len = bdk_encode_wire(L, i, out, &code, &why);
    if (!len) return luaL_error(L, "%s: its result cannot be told: %s", j->name, why);
    lua_pushlstring(L, (const char *)out, len);
    lua_replace(L, i);
    bdk_sandbox_charge(L, len);
  }
  lua_settop(L, fn + results - 1);
  return results;
}

// --- outside
bdk_sandbox *bdk_sandbox_check(lua_State *L) {
  bdk_sandbox *s = luaL_checkudata(L, 1, type);
  if (!s->L) luaL_error(L, "closed sandbox");
  luaL_argcheck(L, !s->running, 1, "the sandbox is running");
  return s;
}

int bdk_sandbox_push_failure(lua_State *L, bdk_sandbox *s, int status) {
  lua_pushnil(L);
  if (s->dead) {
    lua_pushfstring(L, "%s%s", s->where, s->dead);
    lua_pushliteral(L, "limit");
  } else {
    size_t len = 0;
    const char *text = lua_type(s->L, -1) == LUA_TSTRING ? lua_tolstring(s->L, -1, &len) : NULL;
    lua_pushlstring(L, text ? text : "unknown error", text ? len : 13);
    lua_pushstring(L, status == LUA_ERRMEM ? "limit" : "invalid");
  }
  return 3;
}

int bdk_sandbox_run(bdk_sandbox *s, lua_CFunction fn, void *job, int extra, int results) {
  lua_State *in = s->L;
  int at = lua_gettop(in) - extra + 1;
  lua_pushcfunction(in, on_error);
  lua_insert(in, at);
  lua_pushcfunction(in, fn);
  lua_insert(in, at + 1);
  lua_pushlightuserdata(in, job);
  lua_insert(in, at + 2);
  s->work = 0;
  s->limit = s->budget + s->load * BDK_SANDBOX_EACH;
  if (s->share < 1) s->limit = (uint64_t)((double)s->limit * s->share);
  s->current = in;
  s->running = true;
  lua_sethook(in, on_count, LUA_MASKCOUNT, BDK_SANDBOX_PERIOD);
  int status = lua_pcall(in, 1 + extra, results, at);
  // What died stays so, even where it managed to return.
  if (s->dead && status == LUA_OK) status = LUA_ERRRUN;
  bdk_sandbox_release(s); // where an error ended it
  s->running = false;
  s->current = NULL;
  return status;
}

// --- chunks of the owner's: brought as bytecode. Scripts come as text.
typedef struct dump {
  char *bytes;
  size_t len, cap;
  const char *name;
} dump;

static int write_dump(lua_State *L, const void *p, size_t len, void *ud) {
  (void)L;
  dump *d = ud;
  if (d->len + len > d->cap) {
    size_t cap = (d->len + len) * 2;
    char *bytes = realloc(d->bytes, cap);
    if (!bytes) return 1;
    d->bytes = bytes;
    d->cap = cap;
  }
  memcpy(d->bytes + d->len, p, len);
  d->len += len;
  return 0;
}

// 1: the dump [-1, +1, e]
static int load_dump(lua_State *L) {
  const dump *d = lua_touserdata(L, 1);
  if (luaL_loadbufferx(L, d->bytes, d->len, d->name, "b") != LUA_OK) return lua_error(L);
  return 1;
}

// The chunk at `idx` of L, onto the stack of the sandbox.
static void bring(lua_State *L, bdk_sandbox *s, int idx) {
  luaL_argcheck(L, !lua_iscfunction(L, idx), idx, "a chunk of Lua expected");
  dump d = {.name = "chunk"};
  lua_pushvalue(L, idx);
  int error = lua_dump(L, write_dump, &d, 0);
  lua_pop(L, 1);
  lua_pushcfunction(s->L, load_dump);
  lua_pushlightuserdata(s->L, &d);
  int status = error ? LUA_ERRMEM : lua_pcall(s->L, 1, 1, 0);
  free(d.bytes);
  if (status == LUA_OK) return;
  lua_settop(s->L, 0);
  luaL_error(L, "the chunk cannot be brought into the sandbox");
}

typedef struct named {
  const char *name, *chunkname, *text; // text NULL: the chunk is on the stack
  size_t len;
} named;

static int set_module(lua_State *L) {
  const named *n = lua_touserdata(L, 1);
  if (n->text) {
    // A userdata, since a string of that length is more than a sandbox may make.
    char *copy = lua_newuserdatauv(L, n->len + 1, 0);
    memcpy(copy, n->text, n->len);
    copy[n->len] = 0;
  }
  bdk_sandbox_module(L, n->name, n->chunkname);
  return 0;
}

// [-0, +0, e] sandbox:module(name, text, chunkname) | (name, chunk): what require(name) finds in there
static int module(lua_State *L) {
  bdk_sandbox *s = bdk_sandbox_check(L);
  named n = {.name = luaL_checkstring(L, 2)};
  lua_settop(s->L, 0);
  lua_pushcfunction(s->L, set_module);
  lua_pushlightuserdata(s->L, &n);
  if (lua_isfunction(L, 3)) {
    bring(L, s, 3);
  } else {
    n.text = luaL_checklstring(L, 3, &n.len);
    n.chunkname = luaL_checkstring(L, 4);
  }
  int status = lua_pcall(s->L, lua_gettop(s->L) - 1, 0, 0);
  lua_settop(s->L, 0);
  if (status != LUA_OK) return luaL_error(L, "no memory for module %s", n.name);
  return 0;
}

// [-0, +1|3, e] sandbox:load(text, chunkname) | (chunk) -> true | nil, message, code. Runs it; the table it returns
// holds what call finds. A chunk of the owner's is trusted, and gets { encode, decode, array, bin, null, where, left,
// tickets, helpers }.
static int load(lua_State *L) {
  bdk_sandbox *s = bdk_sandbox_check(L);
  if (s->dead) return bdk_sandbox_push_failure(L, s, LUA_ERRRUN);
  job j = {.owner = L};
  lua_settop(s->L, 0);
  int extra = 0;
  if (lua_isfunction(L, 2)) {
    bring(L, s, 2);
    extra = 1;
  } else {
    j.text = luaL_checklstring(L, 2, &j.len);
    j.chunkname = luaL_optstring(L, 3, "=policy");
  }
  int status = bdk_sandbox_run(s, run_load, &j, extra, 0);
  if (status != LUA_OK) return bdk_sandbox_push_failure(L, s, status);
  lua_pushboolean(L, true);
  return 1;
}

// [-0, +n|3, e] sandbox:call(function, bytes, …) -> bytes, … | nil, message, code ("limit" or "invalid"). Arguments
// and results are msgpack, each of at most 1200 bytes; no result at all is one encoded nil.
static int call(lua_State *L) {
  bdk_sandbox *s = bdk_sandbox_check(L);
  job j = {.owner = L, .first = 3, .count = lua_gettop(L) - 2, .name = luaL_checkstring(L, 2)};
  luaL_argcheck(L, j.count <= ARGUMENTS_MAX, 3, "too many arguments");
  for (int i = 3; i < 3 + j.count; i++) {
    size_t len;
    luaL_checktype(L, i, LUA_TSTRING);
    const char *bytes = lua_tolstring(L, i, &len);
    if (!bdk_wire_check((const uint8_t *)bytes, len)) luaL_argerror(L, i, "msgpack expected");
  }
  if (s->dead) return bdk_sandbox_push_failure(L, s, LUA_ERRRUN);
  lua_settop(s->L, 0);
  s->told_len = 0;
  int status = bdk_sandbox_run(s, run_call, &j, 0, LUA_MULTRET);
  if (status != LUA_OK) return bdk_sandbox_push_failure(L, s, status);
  int results = lua_gettop(s->L) - 1; // the message handler is below them
  luaL_checkstack(L, results, "results");
  for (int i = 2; i < 2 + results; i++) {
    size_t len;
    const char *bytes = lua_tolstring(s->L, i, &len);
    lua_pushlstring(L, bytes, len);
  }
  lua_settop(s->L, 0);
  return results;
}

// [-0, +1, e] sandbox:said() -> what it printed since, at most 1024 bytes
static int said(lua_State *L) {
  bdk_sandbox *s = bdk_sandbox_check(L);
  lua_pushlstring(L, s->said, s->said_len);
  s->said_len = 0;
  return 1;
}

// [-0, +1, e] sandbox:told() -> a list of the pieces of msgpack that the last run told. They are forgotten then
static int told(lua_State *L) {
  bdk_sandbox *s = bdk_sandbox_check(L);
  lua_newtable(L);
  lua_Integer n = 0;
  for (size_t at = 0; at < s->told_len;) {
    size_t len = (size_t)s->told[at] << 8 | s->told[at + 1];
    bdk_push_wire(L, s->told + at + 2, len);
    lua_rawseti(L, -2, ++n);
    at += 2 + len;
  }
  s->told_len = 0;
  return 1;
}

// [-0, +2, e] sandbox:spent() -> instructions of the last run, bytes held now
static int spent(lua_State *L) {
  bdk_sandbox *s = bdk_sandbox_check(L);
  lua_pushinteger(L, (lua_Integer)s->work);
  lua_pushinteger(L, (lua_Integer)s->used);
  return 2;
}

// [-0, +0, e] sandbox:share(part): from the next run on each may use only so much, 0 to 1, of its instructions
static int share(lua_State *L) {
  bdk_sandbox *s = bdk_sandbox_check(L);
  lua_Number part = luaL_checknumber(L, 2);
  luaL_argcheck(L, part >= 0 && part <= 1, 2, "0 to 1 expected");
  s->share = part;
  return 0;
}

// [-0, +1, e] sandbox:collect() -> bytes held when everything that can be was let go of
static int collect(lua_State *L) {
  bdk_sandbox *s = bdk_sandbox_check(L);
  lua_gc(s->L, LUA_GCCOLLECT);
  lua_pushinteger(L, (lua_Integer)s->used);
  return 1;
}

// [-0, +0, e] sandbox:close(). Idempotent
static int sandbox_close(lua_State *L) {
  bdk_sandbox *s = luaL_checkudata(L, 1, type);
  if (s->running) return luaL_error(L, "a sandbox cannot close itself");
  if (s->L) {
    bdk_net_free(s);
    lua_close(s->L);
  }
  s->L = NULL;
  free_chunks(s);
  free(s->told);
  s->told = NULL;
  s->told_len = s->told_cap = 0;
  return 0;
}

static int sandbox_tostring(lua_State *L) {
  bdk_sandbox *s = luaL_checkudata(L, 1, type);
  lua_pushfstring(L, "sandbox (%s)", !s->L ? "closed" : s->dead ? s->dead : "open");
  return 1;
}

static int setup(lua_State *L) {
  bdk_sandbox_open_base(L);
  bdk_sandbox_open_string(L);
  bdk_sandbox_open_state(L);
  bdk_sandbox_open_net(L);
  return 0;
}

// [-0, +1, e] sandbox{ memory = bytes, instructions = a run } -> sandbox
static int new (lua_State *L) {
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_Integer cap = bdk_opt_integer(L, 1, "memory", 16 << 20, 1 << 17, (lua_Integer)1 << 32);
  lua_Integer budget = bdk_opt_integer(L, 1, "instructions", 10000000, BDK_SANDBOX_PERIOD, LUA_MAXINTEGER);
  bdk_sandbox *s = lua_newuserdatauv(L, sizeof *s, 0);
  memset(s, 0, sizeof *s);
  s->cap = (size_t)cap;
  s->budget = s->limit = (uint64_t)budget;
  s->share = 1;
  luaL_setmetatable(L, type);
  s->L = lua_newstate(sandbox_alloc, s);
  if (!s->L) return luaL_error(L, "not enough memory for a sandbox");
  *(bdk_sandbox **)lua_getextraspace(s->L) = s;
  lua_pushcfunction(s->L, setup);
  if (lua_pcall(s->L, 0, 0, 0) != LUA_OK) return luaL_error(L, "%s", lua_tostring(s->L, -1));
  return 1;
}

void bdk_open_sandbox(lua_State *L) {
  static const luaL_Reg methods[] = {{"module", module},
                                     {"load", load},
                                     {"call", call},
                                     {"said", said},
                                     {"told", told},
                                     {"collect", collect},
                                     {"spent", spent},
                                     {"share", share},
                                     {"state", bdk_sandbox_state},
                                     {"restore", bdk_sandbox_restore},
                                     {"net_set", bdk_lua_net_set},
                                     {"net_drop", bdk_lua_net_drop},
                                     {"net_table", bdk_lua_net_table},
                                     {"close", sandbox_close},
                                     {NULL, NULL}};
  static const luaL_Reg meta[] = {
      {"__gc", sandbox_close}, {"__close", sandbox_close}, {"__tostring", sandbox_tostring}, {NULL, NULL}};
  bdk_lua_type(L, type, methods, meta);
  lua_pushcfunction(L, new);
  lua_setfield(L, -2, "sandbox");
}
