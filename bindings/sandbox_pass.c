// SPDX-License-Identifier: MIT
// The tickets of a queue inside its policy's sandbox, and the pass through them: looking and packing here, deciding in
// the policy's functions. Given to chunks of ours alone (scripts/bodkin/policy/pass.lua), as the primitive `tickets`.
#include "core/tickets.h"

#include <string.h>

#include "core/fill.h"
#include "core/wire.h"
#include "sandbox.h"
#include "sandbox_net.h"

static const char type[] = "bodkin.tickets";
enum { VIEWS = 1, COMPATIBLE, FORM, NEAR, ANCHOR, FIELDS = ANCHOR }; // user values
enum { PATIENCE_MIN = 32, NEAR_MAX = 32, PLAYERS_MAX = 32, DATA_MAX = 512, MATCH_MAX = 1200 };
#define ENOUGH 0.4 // of the budget left: no further anchor in this run

typedef struct queue {
  bdk_tickets *table;
  uint32_t min, max, party, teams, sizes[PLAYERS_MAX];
  bool asks, forms;
  uint32_t pass; // counts runs: whose waited_ms is up to date
  lua_Integer now_ms;
  // The search of the anchor under way, and whom it found.
  bdk_search search;
  uint32_t found, near[NEAR_MAX], anchor;
  uint32_t filled; // of those, how many near was given. The policy may write into that table, so it says nothing
  const void *near_view[NEAR_MAX], *anchor_view; // as they were given: mostly these come back
  bool over;
  uint32_t patience; // steps for a match that does not fill up at once: less after each that came to nothing
} queue;

static queue *check(lua_State *L) { return luaL_checkudata(L, 1, type); }

static void *allocate(void *ctx, void *p, size_t old_size, size_t new_size) {
  lua_State *L = ctx;
  void *ud;
  lua_Alloc f = lua_getallocf(L, &ud);
  return f(ud, p, p ? old_size : 0, new_size);
}

static uint32_t field(lua_State *L, const char *name, lua_Integer otherwise, lua_Integer most) {
  return (uint32_t)bdk_opt_integer(L, 1, name, otherwise, 0, most);
}

// [-0, +1, e] tickets{ indexed =, min =, max =, party =, teams = { sizes } or nil, compatible =, form = } -> queue
static int new (lua_State *L) {
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_settop(L, 1);
  queue *q = lua_newuserdatauv(L, sizeof *q, FIELDS);
  memset(q, 0, sizeof *q);
  luaL_setmetatable(L, type);
  q->min = field(L, "min", 2, PLAYERS_MAX);
  q->max = field(L, "max", 2, PLAYERS_MAX);
  q->party = field(L, "party", 1, PLAYERS_MAX);
  if (lua_getfield(L, 1, "teams") == LUA_TTABLE) {
    q->teams = (uint32_t)lua_rawlen(L, -1);
    luaL_argcheck(L, q->teams <= PLAYERS_MAX, 1, "too many teams");
    for (uint32_t i = 0; i < q->teams; i++) {
      lua_rawgeti(L, -1, i + 1);
      q->sizes[i] = (uint32_t)lua_tointeger(L, -1);
      lua_pop(L, 1);
    }
  }
  lua_settop(L, 2);
  lua_newtable(L);
  lua_setiuservalue(L, 2, VIEWS);
  q->asks = lua_getfield(L, 1, "compatible") == LUA_TFUNCTION;
  lua_setiuservalue(L, 2, COMPATIBLE);
  q->forms = lua_getfield(L, 1, "form") == LUA_TFUNCTION;
  lua_setiuservalue(L, 2, FORM);
  lua_getfield(L, 1, "indexed");
  bdk_alloc alloc = {allocate, bdk_lua_main(L)};
  q->table = bdk_tickets_new(&alloc, lua_toboolean(L, -1));
  lua_settop(L, 2);
  return q->table ? 1 : luaL_error(L, "not enough memory for tickets");
}

static int queue_gc(lua_State *L) {
  queue *q = luaL_checkudata(L, 1, type);
  bdk_tickets_free(q->table);
  q->table = NULL;
  return 0;
}

// --- tickets
static int no_memory(lua_State *L) { return luaL_error(L, "not enough memory for this ticket"); }

// A pool's number. It comes by way of Lua, where a policy may have changed what ours relies on.
static uint32_t check_pool(lua_State *L, const queue *q, int idx) {
  lua_Integer pool = luaL_checkinteger(L, idx);
  bool is = pool >= 0 && pool < UINT32_MAX && bdk_tickets_is_pool(q->table, (uint32_t)pool);
  luaL_argcheck(L, is, idx, "no such pool");
  return (uint32_t)pool;
}

// What the search under way found is not to be read from now on: another begins, or its pool changes.
static void end_search(lua_State *L) {
  lua_pushnil(L);
  lua_setiuservalue(L, 1, NEAR);
}

static bool prepare(lua_State *L, queue *q, uint32_t pool) {
  end_search(L);
  return bdk_tickets_prepare(q->table, pool);
}

// [-0, +1, e] queue:pool() -> a new pool's number
static int new_pool(lua_State *L) {
  uint32_t pool = bdk_tickets_pool(check(L)->table);
  if (pool == BDK_TICKET_NONE) return no_memory(L);
  lua_pushinteger(L, pool);
  return 1;
}

// [-0, +1, e] queue:release(pool) -> whether it was empty, and is gone
static int release(lua_State *L) {
  queue *q = check(L);
  uint32_t pool = check_pool(L, q, 2);
  bool empty = bdk_tickets_pool_count(q->table, pool) == 0 && prepare(L, q, pool);
  if (empty) bdk_tickets_release(q->table, pool);
  lua_pushboolean(L, empty);
  return 1;
}

// [-0, +1, e] queue:count([pool])
static int count(lua_State *L) {
  queue *q = check(L);
  uint32_t n =
      lua_isnoneornil(L, 2) ? bdk_tickets_count(q->table) : bdk_tickets_pool_count(q->table, check_pool(L, q, 2));
  lua_pushinteger(L, n);
  return 1;
}

// What a run may cost grows with the number that wait. It shrinks once what those left behind is collected.
static void load_changed(lua_State *L, const queue *q) {
  bdk_sandbox *s = bdk_sandbox_of(L);
  uint64_t load = bdk_tickets_count(q->table);
  if (load > s->load || s->used <= s->cap + load * BDK_SANDBOX_EACH_BYTES) s->load = load;
}

// [-0, +0, e] queue:add(pool, no, since_ms, value, size, view)
static int add(lua_State *L) {
  queue *q = check(L);
  uint32_t pool = check_pool(L, q, 2);
  uint64_t no = (uint64_t)luaL_checkinteger(L, 3);
  lua_Integer size = luaL_checkinteger(L, 6);
  luaL_checktype(L, 7, LUA_TTABLE);
  luaL_argcheck(L, bdk_tickets_find(q->table, no) == BDK_TICKET_NONE, 3, "it waits already");
  luaL_argcheck(L, size >= 1 && size <= PLAYERS_MAX, 6, "no size of a party");
  uint32_t place =
      bdk_tickets_add(q->table, pool, no, (uint64_t)luaL_checkinteger(L, 4), luaL_checknumber(L, 5), (uint8_t)size);
  if (place == BDK_TICKET_NONE) return no_memory(L);
  lua_getiuservalue(L, 1, VIEWS);
  lua_pushvalue(L, 7);
  lua_rawseti(L, -2, (lua_Integer)place + 1);
  load_changed(L, q);
  return 0;
}

static void drop_place(lua_State *L, queue *q, int views, uint32_t place) {
  bdk_tickets_drop(q->table, place);
  lua_pushboolean(L, false); // not nil, so that the array stays one
  lua_rawseti(L, views, (lua_Integer)place + 1);
}

// [-0, +1, e] queue:drop(no) -> whether it waited
static int drop(lua_State *L) {
  queue *q = check(L);
  uint32_t place = bdk_tickets_find(q->table, (uint64_t)luaL_checkinteger(L, 2));
  if (place != BDK_TICKET_NONE) {
    end_search(L);
    lua_getiuservalue(L, 1, VIEWS);
    drop_place(L, q, lua_gettop(L), place);
    load_changed(L, q);
  }
  lua_pushboolean(L, place != BDK_TICKET_NONE);
  return 1;
}

// Pushes the view of a place, its waited_ms as of this run. Runs nothing of the policy's, whatever it did to views.
static void push_view(lua_State *L, queue *q, int views, uint32_t place) {
  bdk_ticket *k = bdk_tickets_at(q->table, place);
  if (lua_rawgeti(L, views, (lua_Integer)place + 1) != LUA_TTABLE || k->pass == q->pass) return;
  k->pass = q->pass;
  lua_pushliteral(L, "waited_ms");
  lua_pushinteger(L, q->now_ms - (lua_Integer)k->since);
  lua_rawset(L, -3);
}

// [-0, +1, e] queue:view(no, now_ms) -> view or nil
static int view(lua_State *L) {
  queue *q = check(L);
  uint32_t place = bdk_tickets_find(q->table, (uint64_t)luaL_checkinteger(L, 2));
  if (place == BDK_TICKET_NONE) return 0;
  q->now_ms = luaL_optinteger(L, 3, q->now_ms);
  q->pass++;
  lua_getiuservalue(L, 1, VIEWS);
  push_view(L, q, lua_gettop(L), place);
  return 1;
}

// [-0, +2, e] queue:others(no) -> the views of those it would be compared with first, as a list; its pool
static int others(lua_State *L) {
  queue *q = check(L);
  uint32_t place = bdk_tickets_find(q->table, (uint64_t)luaL_checkinteger(L, 2)), other;
  luaL_argcheck(L, place != BDK_TICKET_NONE, 2, "it waits no more");
  bdk_search s;
  uint32_t pool = bdk_tickets_at(q->table, place)->pool;
  if (!prepare(L, q, pool)) return no_memory(L);
  bdk_search_begin(q->table, &s, pool, place, bdk_tickets_at(q->table, place)->value);
  lua_getiuservalue(L, 1, VIEWS);
  int views = lua_gettop(L);
  lua_newtable(L);
  s.enough = true;
  for (lua_Integer n = 1; (other = bdk_search_next(q->table, &s)) != BDK_TICKET_NONE; n++) {
    push_view(L, q, views, other);
    lua_rawseti(L, -2, n);
  }
  lua_pushinteger(L, pool);
  return 2;
}

// [-0, +1, e] queue:nearest(no, within, most) -> those whose index is that near to a ticket's, the nearest first, as a
// list
static int nearest(lua_State *L) {
  queue *q = check(L);
  uint32_t place = bdk_tickets_find(q->table, (uint64_t)luaL_checkinteger(L, 2)), other;
  lua_Number within = luaL_checknumber(L, 3);
  lua_Integer most = luaL_checkinteger(L, 4);
  luaL_argcheck(L, place != BDK_TICKET_NONE, 2, "it waits no more");
  const bdk_ticket *k = bdk_tickets_at(q->table, place);
  bdk_search s;
  bdk_search_apart(q->table, &s, k->pool, place, k->value);
  lua_getiuservalue(L, 1, VIEWS);
  int views = lua_gettop(L);
  lua_newtable(L);
  for (lua_Integer n = 1; n <= most && (other = bdk_search_next(q->table, &s)) != BDK_TICKET_NONE; n++) {
    double gap = bdk_tickets_at(q->table, other)->value - k->value;
    if ((gap < 0 ? -gap : gap) > within) break;
    bdk_sandbox_charge(L, 10);
    push_view(L, q, views, other);
    lua_rawseti(L, -2, n);
  }
  return 1;
}

// --- near: a table that is filled as it is read, since most policies look at few of those they may choose from
typedef struct at { // stack places that a run needs
  int queue, views, compatible, form, anchor;
} at;

static bool fits(lua_State *L, queue *q, const at *a, int one, uint32_t place) {
  if (!q->asks) return true;
  lua_pushvalue(L, a->compatible);
  lua_pushvalue(L, one);
  push_view(L, q, a->views, place);
  lua_pushinteger(L, q->now_ms);
  lua_call(L, 3, 1);
  bool ok = lua_toboolean(L, -1);
  lua_pop(L, 1);
  return ok;
}

// Finds one more who is compatible with the anchor. `compatible` may read near, and so come here again: what was found
// meanwhile counts.
static bool find_one(lua_State *L, queue *q, const at *a) {
  while (!q->over && q->found < NEAR_MAX) {
    q->search.enough = q->party == 1 && q->found + 1 >= q->min;
    uint32_t place = bdk_search_next(q->table, &q->search);
    if (place == BDK_TICKET_NONE) break;
    bdk_sandbox_charge(L, 10);
    if (!fits(L, q, a, a->anchor, place)) continue;
    if (q->found == NEAR_MAX) break;
    q->near_view[q->found] = NULL;
    q->near[q->found++] = place;
    return true;
  }
  q->over = true;
  return false;
}

// The stack places of a run that is under way, its values pushed anew: for what the policy calls from within.
static queue *run_of(lua_State *L, int near, at *a) {
  lua_pushvalue(L, lua_upvalueindex(1)); // in the metamethods: the queue
  a->queue = lua_gettop(L);
  queue *q = lua_touserdata(L, -1);
  lua_getiuservalue(L, a->queue, NEAR);
  if (!lua_rawequal(L, -1, near)) return NULL; // of an anchor before
  lua_getiuservalue(L, a->queue, VIEWS);
  a->views = lua_gettop(L);
  lua_getiuservalue(L, a->queue, COMPATIBLE);
  a->compatible = lua_gettop(L);
  lua_getiuservalue(L, a->queue, ANCHOR);
  a->anchor = lua_gettop(L);
  return q;
}

// Fills the list at `near` to `n`; once it has all it is a table like others.
static void fill_to(lua_State *L, queue *q, const at *a, int near, lua_Integer n) {
  while (q->filled < n && (q->filled < q->found || find_one(L, q, a))) {
    push_view(L, q, a->views, q->near[q->filled]);
    q->near_view[q->filled] = lua_topointer(L, -1);
    lua_rawseti(L, near, ++q->filled);
  }
  if (q->filled >= n) return;
  lua_pushnil(L);
  lua_setmetatable(L, near);
}

static int near_index(lua_State *L) {
  at a;
  if (!lua_isinteger(L, 2)) return 0;
  luaL_checkstack(L, 16, "near");
  queue *q = run_of(L, 1, &a);
  if (!q) return 0;
  fill_to(L, q, &a, 1, lua_tointeger(L, 2));
  lua_pushvalue(L, 2);
  lua_rawget(L, 1);
  return 1;
}

static void fill_all(lua_State *L, int near) {
  at a;
  queue *q = run_of(L, near, &a);
  if (q) {
    fill_to(L, q, &a, near, NEAR_MAX + 1);
  } else {
    lua_pushnil(L);
    lua_setmetatable(L, near);
  }
}

static int near_len(lua_State *L) {
  luaL_checkstack(L, 16, "near");
  fill_all(L, 1);
  lua_pushinteger(L, (lua_Integer)lua_rawlen(L, 1));
  return 1;
}

static int fill_closure(lua_State *L) {
  luaL_checkstack(L, 16, "near");
  fill_all(L, 1);
  return 0;
}

void bdk_sandbox_fill(lua_State *L, int idx) {
  idx = lua_absindex(L, idx);
  if (luaL_getmetafield(L, idx, "__fill") == LUA_TNIL) return;
  if (lua_tocfunction(L, -1) != fill_closure) {
    lua_pop(L, 1);
    return;
  }
  lua_pushvalue(L, idx);
  lua_call(L, 1, 0);
}

// The metatable of near, of one queue.
static void push_near_meta(lua_State *L, int queue_at) {
  static const struct {
    const char *name;
    lua_CFunction fn;
  } fields[] = {{"__index", near_index}, {"__len", near_len}, {"__fill", fill_closure}};
  lua_createtable(L, 0, 4);
  for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
    lua_pushvalue(L, queue_at);
    lua_pushcclosure(L, fields[i].fn, 1);
    lua_setfield(L, -2, fields[i].name);
  }
  lua_pushboolean(L, false);
  lua_setfield(L, -2, "__metatable");
}

// Pushes near, with those found so far.
static void push_near(lua_State *L, queue *q, const at *a, int meta) {
  lua_createtable(L, (int)q->found, 0);
  for (uint32_t i = 0; i < q->found; i++) {
    push_view(L, q, a->views, q->near[i]);
    q->near_view[i] = lua_topointer(L, -1);
    lua_rawseti(L, -2, (lua_Integer)i + 1);
  }
  q->filled = q->found;
  lua_pushvalue(L, meta);
  lua_setmetatable(L, -2);
  lua_pushvalue(L, -1);
  lua_setiuservalue(L, a->queue, NEAR);
  lua_pushvalue(L, a->anchor);
  lua_setiuservalue(L, a->queue, ANCHOR);
}

// --- results
typedef struct result {
  uint32_t teams, count, of_team[PLAYERS_MAX], place[PLAYERS_MAX]; // tickets, by team
  uint32_t players;
  lua_Integer host; // 0: none
  const uint8_t *data;
  size_t data_len;
} result;

static int fail(lua_State *L, const at *a, const char *format, ...) {
  va_list args;
  lua_Debug ar;
  lua_pushvalue(L, a->form);
  lua_getinfo(L, ">S", &ar);
  lua_pushfstring(L, "%s:%d: ", ar.short_src, ar.linedefined);
  va_start(args, format);
  lua_pushvfstring(L, format, args);
  va_end(args);
  lua_concat(L, 2);
  return lua_error(L);
}

// The place of the ticket on the top, or of its number; NONE: none that waits. [-1, +0, e]
static uint32_t take_ticket(lua_State *L, queue *q) {
  if (lua_istable(L, -1)) {
    const void *view = lua_topointer(L, -1);
    uint32_t place = view == q->anchor_view ? q->anchor : BDK_TICKET_NONE;
    for (uint32_t i = 0; i < q->found && place == BDK_TICKET_NONE; i++)
      if (q->near_view[i] == view) place = q->near[i];
    if (place != BDK_TICKET_NONE) {
      lua_pop(L, 1);
      return place;
    }
    lua_getfield(L, -1, "id");
    lua_remove(L, -2);
  }
  lua_Integer no = lua_isinteger(L, -1) ? lua_tointeger(L, -1) : 0;
  lua_pop(L, 1);
  return no > 0 ? bdk_tickets_find(q->table, (uint64_t)no) : BDK_TICKET_NONE;
}

static bool is_in(const result *r, uint32_t place) {
  for (uint32_t i = 0; i < r->count; i++)
    if (r->place[i] == place) return true;
  return false;
}

// One team of what form made, on the top. [-1, +0, e]
static void read_team(lua_State *L, queue *q, const at *a, result *r, uint32_t team) {
  if (!lua_istable(L, -1)) fail(L, a, "form returned a team that is a %s", luaL_typename(L, -1));
  lua_Integer n = luaL_len(L, -1);
  if (n > (lua_Integer)q->max) fail(L, a, "form returned %d players; at most %d", (int)n, (int)q->max);
  bool is_ticket = !n && lua_getfield(L, -1, "id") == LUA_TNUMBER;
  if (is_ticket) fail(L, a, "form returned a ticket in place of a team: { teams = { { ticket, \xe2\x80\xa6 } } }");
  if (!n) lua_pop(L, 1);
  uint32_t players = 0;
  for (lua_Integer i = 1; i <= n; i++) {
    const char *what = luaL_typename(L, -1);
    lua_geti(L, -1, i);
    what = luaL_typename(L, -1);
    uint32_t place = take_ticket(L, q);
    if (place == BDK_TICKET_NONE) fail(L, a, "form returned what is no waiting ticket (a %s)", what);
    const bdk_ticket *k = bdk_tickets_at(q->table, place);
    if (is_in(r, place)) fail(L, a, "form returned ticket %I twice", (LUAI_UACINT)k->no);
    players += k->size;
    if (r->count == PLAYERS_MAX || r->players + players > q->max)
      fail(L, a, "form returned %d players; a match has %d to %d", (int)(r->players + players), (int)q->min,
           (int)q->max);
    r->of_team[r->count] = team;
    r->place[r->count++] = place;
  }
  if (q->teams && players != q->sizes[team])
    fail(L, a, "form returned a team of %d in place of %d", (int)players, (int)q->sizes[team]);
  r->players += players;
  lua_pop(L, 1);
}

// Whether data is within the bounds of messages also where it is told to on_match: in a table in a message.
static bool fits_told(const uint8_t *data, size_t len) {
  uint8_t told[2 + DATA_MAX];
  bdk_packer p = bdk_packer_init(told, sizeof told);
  bdk_pack_array(&p, 1);
  bdk_pack_array(&p, 1);
  bdk_pack_raw(&p, data, len);
  return bdk_wire_check(told, p.len);
}

// What form made, on the top; `data` is then encoded into `out`. [-0, +0, e]
static void read_result(lua_State *L, queue *q, const at *a, result *r, uint8_t out[BDK_DATAGRAM_MAX]) {
  int made = lua_gettop(L);
  const char *got = luaL_typename(L, made);
  if (!lua_istable(L, made) || lua_getfield(L, made, "teams") != LUA_TTABLE)
    fail(L, a, "form returned a %s, not { teams = { { ticket, \xe2\x80\xa6 }, \xe2\x80\xa6 } }", got);
  lua_Integer teams = luaL_len(L, -1);
  if (teams < 1 || teams > (lua_Integer)q->max) fail(L, a, "form returned %d teams", (int)teams);
  if (q->teams && teams != (lua_Integer)q->teams)
    fail(L, a, "form returned %d teams in place of %d", (int)teams, (int)q->teams);
  for (lua_Integer i = 1; i <= teams; i++) {
    lua_geti(L, made + 1, i);
    read_team(L, q, a, r, (uint32_t)(i - 1));
  }
  r->teams = (uint32_t)teams;
  if (r->players < q->min)
    fail(L, a, "form returned %d players; a match has %d to %d", (int)r->players, (int)q->min, (int)q->max);
  lua_getfield(L, made, "host");
  if (lua_toboolean(L, -1)) {
    uint32_t place = take_ticket(L, q);
    if (place == BDK_TICKET_NONE || !is_in(r, place)) fail(L, a, "form returned a host that is not in the match");
    r->host = (lua_Integer)bdk_tickets_at(q->table, place)->no;
  }
  lua_getfield(L, made, "data");
  const char *code, *why;
  r->data_len = bdk_encode_wire(L, lua_gettop(L), out, &code, &why);
  if (!r->data_len) fail(L, a, "form returned data that is not told: %s", why);
  if (r->data_len > DATA_MAX)
    fail(L, a, "form returned data that is not told: %d bytes; at most %d", (int)r->data_len, DATA_MAX);
  if (!fits_told(out, r->data_len)) fail(L, a, "form returned data that is not told: nested deeper than 6");
  r->data = out;
  lua_settop(L, made);
}

// Tells the owner of a match, and lets its tickets go, with what is known of where they are.
static void put_result(lua_State *L, queue *q, const at *a, const result *r) {
  uint8_t bytes[MATCH_MAX];
  bdk_packer p = bdk_packer_init(bytes, sizeof bytes);
  bool has_data = r->data_len > 1 || r->data[0] != 0xc0; // nil
  bdk_pack_array(&p, has_data ? 3 : 2);
  bdk_pack_array(&p, r->teams);
  for (uint32_t team = 0, i = 0; team < r->teams; team++) {
    uint32_t n = 0;
    while (i + n < r->count && r->of_team[i + n] == team) n++;
    bdk_pack_array(&p, n);
    for (; n; n--, i++) bdk_pack_uint(&p, bdk_tickets_at(q->table, r->place[i])->no);
  }
  if (r->host)
    bdk_pack_uint(&p, (uint64_t)r->host);
  else
    bdk_pack_bool(&p, false);
  if (has_data) bdk_pack_raw(&p, r->data, r->data_len);
  bdk_sandbox_tell(L, bytes, p.len);
  for (uint32_t i = 0; i < r->count; i++) {
    bdk_net_drop(bdk_sandbox_of(L), (lua_Integer)bdk_tickets_at(q->table, r->place[i])->no);
    drop_place(L, q, a->views, r->place[i]);
  }
}

// --- without form: the anchor and the earliest that are compatible with each other, parties whole
typedef struct filling {
  lua_State *L;
  queue *q;
  const at *a;
} filling;

static bool together(void *ctx, uint32_t i, uint32_t k) {
  const filling *f = ctx;
  push_view(f->L, f->q, f->a->views, f->q->near[i - 1]);
  bool ok = fits(f->L, f->q, f->a, lua_gettop(f->L), f->q->near[k - 1]);
  lua_pop(f->L, 1);
  return ok;
}

static bool fill(lua_State *L, queue *q, const at *a, uint32_t anchor, result *r) {
  filling ctx = {L, q, a};
  bdk_fill f;
  bdk_fill_init(&f, q->teams ? q->teams : 1, q->teams ? q->sizes : &q->max, q->teams ? q->max : q->min);
  if (q->asks) f.together = together, f.ctx = &ctx;
  bdk_fill_offer(&f, bdk_tickets_at(q->table, anchor)->size);
  for (uint32_t i = 0; !bdk_fill_is_full(&f) && (i < q->found || find_one(L, q, a)); i++)
    bdk_fill_offer(&f, bdk_tickets_at(q->table, q->near[i])->size);
  f.most_steps = q->patience;
  bool ok = bdk_fill_end(&f);
  bdk_sandbox_charge(L, f.steps * 5);
  if (ok)
    q->patience = BDK_FILL_STEPS;
  else if (f.steps == q->patience && q->patience > PATIENCE_MIN)
    q->patience /= 2;
  if (!ok) return false;
  static const uint8_t nil = 0xc0;
  r->data = &nil;
  r->data_len = 1;
  r->teams = f.teams;
  for (uint32_t team = 0; team < f.teams; team++)
    for (uint32_t k = 0; k < f.count; k++) {
      if (f.team[k] != (int8_t)team) continue;
      r->of_team[r->count] = team;
      r->place[r->count++] = k ? q->near[k - 1] : anchor;
    }
  r->players = f.players;
  return true;
}

// --- the pass
static void begin(lua_State *L, queue *q, uint32_t pool, uint32_t place, double value) {
  end_search(L);
  q->found = q->filled = 0;
  q->over = false;
  bdk_search_begin(q->table, &q->search, pool, place, value);
}

static void try_anchor(lua_State *L, queue *q, at *a, int meta, uint32_t place) {
  int top = lua_gettop(L);
  uint8_t data[BDK_DATAGRAM_MAX];
  result r = {0};
  const bdk_ticket *k = bdk_tickets_at(q->table, place);
  begin(L, q, k->pool, place, k->value);
  push_view(L, q, a->views, place);
  a->anchor = lua_gettop(L);
  q->anchor = place;
  q->anchor_view = lua_topointer(L, a->anchor);
  uint32_t need = q->party == 1 ? q->min - 1 : 0;
  while (q->found < need && find_one(L, q, a)) {
  }
  bool made = false;
  if (q->found >= need && !q->forms) {
    made = fill(L, q, a, place, &r);
  } else if (q->found >= need) {
    lua_pushvalue(L, a->form);
    lua_pushvalue(L, a->anchor);
    push_near(L, q, a, meta);
    lua_pushinteger(L, q->now_ms);
    lua_call(L, 3, 1);
    made = lua_toboolean(L, -1);
    if (made) read_result(L, q, a, &r, data);
  }
  if (made) put_result(L, q, a, &r);
  lua_settop(L, top);
}

static int begin_run(lua_State *L, queue *q, lua_Integer now_ms, at *a) {
  luaL_checkstack(L, 32, "pass");
  q->now_ms = now_ms;
  q->pass++;
  q->patience = BDK_FILL_STEPS;
  a->queue = 1;
  lua_getiuservalue(L, 1, VIEWS);
  a->views = lua_gettop(L);
  lua_getiuservalue(L, 1, COMPATIBLE);
  a->compatible = lua_gettop(L);
  lua_getiuservalue(L, 1, FORM);
  a->form = lua_gettop(L);
  push_near_meta(L, 1);
  return lua_gettop(L);
}

static void end_run(lua_State *L) {
  end_search(L);
  lua_pushnil(L);
  lua_setiuservalue(L, 1, ANCHOR);
}

// [-0, +0|1, e] queue:pass(pool, no, now_ms) -> nothing, or the number of the anchor that the next run is to begin
// with. Tries the anchors of a pool from number `no` on. What comes of it is told (sandbox:told).
static int pass(lua_State *L) {
  queue *q = check(L);
  at a;
  uint32_t pool = check_pool(L, q, 2), place;
  uint64_t no = (uint64_t)luaL_checkinteger(L, 3);
  int meta = begin_run(L, q, luaL_checkinteger(L, 4), &a);
  if (!prepare(L, q, pool)) return no_memory(L);
  uint32_t position = bdk_tickets_seek(q->table, pool, no);
  bdk_sandbox *s = bdk_sandbox_of(L);
  size_t room = bdk_sandbox_room(s);
  bdk_sandbox_hold(s); // what it leaves behind is collected between passes, while there is room for it
  while ((place = bdk_tickets_anchor(q->table, pool, &position)) != BDK_TICKET_NONE) {
    bdk_sandbox_charge(L, 20);
    if ((double)s->work > (1 - ENOUGH) * (double)s->limit) break;
    if (s->holds && s->used > room / 4 * 3) {
      lua_gc(L, LUA_GCCOLLECT);
      bdk_sandbox_charge(L, s->used / 64);
      if (s->used > room / 2) bdk_sandbox_release(s);
    }
    try_anchor(L, q, &a, meta, place);
  }
  bdk_sandbox_release(s);
  end_run(L);
  load_changed(L, q);
  if (place == BDK_TICKET_NONE) return 0;
  lua_pushinteger(L, (lua_Integer)bdk_tickets_at(q->table, place)->no);
  return 1;
}

// [-0, +1, e] queue:near(pool, view, value, now_ms) -> those compatible with `view`, which does not wait itself; until
// the next call
static int near(lua_State *L) {
  queue *q = check(L);
  at a;
  uint32_t pool = check_pool(L, q, 2);
  luaL_checktype(L, 3, LUA_TTABLE);
  double value = luaL_checknumber(L, 4);
  int meta = begin_run(L, q, luaL_checkinteger(L, 5), &a);
  a.anchor = 3;
  if (!prepare(L, q, pool)) return no_memory(L);
  begin(L, q, pool, BDK_TICKET_NONE, value);
  push_near(L, q, &a, meta);
  return 1;
}

void bdk_sandbox_push_tickets(lua_State *L) {
  static const luaL_Reg methods[] = {{"pool", new_pool}, {"release", release}, {"count", count},   {"add", add},
                                     {"drop", drop},     {"view", view},       {"others", others}, {"nearest", nearest},
                                     {"near", near},     {"pass", pass},       {NULL, NULL}};
  static const luaL_Reg meta[] = {{"__gc", queue_gc}, {NULL, NULL}};
  bdk_lua_type(L, type, methods, meta);
  lua_pushcfunction(L, new);
}
