// SPDX-License-Identifier: MIT
#include "sandbox_net.h"

#include <string.h>

#include "core/coords.h"
#include "core/wire.h"

// In microseconds, so that a hundred thousand tickets are a few megabytes; nowhere: height < 0.
typedef struct place {
  int32_t at[BDK_COORD_DIMS], height;
  int32_t nat;
} place;

typedef struct slot {
  uint64_t no; // 0: free
  union {
    place one;
    place *many; // where count > 1
  };
  uint32_t count;
} slot;

// Robin Hood is not needed: numbers come one after the other, so the lowest bits of a hash spread them.
struct bdk_net {
  slot *slots;
  uint32_t count, cap; // cap: 0, or a power of two; at most 3/4 of it are taken
  uint8_t reach[BDK_NET_CLASSES][BDK_NET_CLASSES];
};

// All of it is the sandbox's memory, and counted.
static void *resize(bdk_sandbox *s, void *p, size_t old_size, size_t new_size) {
  void *ud;
  lua_Alloc alloc = lua_getallocf(s->L, &ud);
  return alloc(ud, p, old_size, new_size);
}

static struct bdk_net *net_of(bdk_sandbox *s) {
  if (s->net) return s->net;
  s->net = resize(s, NULL, 0, sizeof *s->net);
  if (!s->net) return NULL;
  memset(s->net, 0, sizeof *s->net);
  memset(s->net->reach, 128, sizeof s->net->reach); // nobody has said
  return s->net;
}

// --- by number
static uint32_t home(const struct bdk_net *n, uint64_t no) {
  return (uint32_t)((no * UINT64_C(0x9e3779b97f4a7c15)) >> 32) & (n->cap - 1);
}

// The slot of this number, or the free one where it would be. There is one.
static slot *place_of(const struct bdk_net *n, uint64_t no) {
  uint32_t i = home(n, no);
  while (n->slots[i].no && n->slots[i].no != no) i = (i + 1) & (n->cap - 1);
  return &n->slots[i];
}

static const slot *find(const bdk_sandbox *s, lua_Integer no) {
  const struct bdk_net *n = s->net;
  if (!n || !n->count || no <= 0) return NULL;
  const slot *found = place_of(n, (uint64_t)no);
  return found->no ? found : NULL;
}

static bool grow(bdk_sandbox *s, struct bdk_net *n) {
  if (n->cap && n->count + 1 <= n->cap / 4 * 3) return true;
  struct bdk_net bigger = *n;
  bigger.cap = n->cap ? 2 * n->cap : 16;
  bigger.slots = resize(s, NULL, 0, bigger.cap * sizeof(slot));
  if (!bigger.slots) return false;
  memset(bigger.slots, 0, bigger.cap * sizeof(slot));
  for (uint32_t i = 0; i < n->cap; i++)
    if (n->slots[i].no) *place_of(&bigger, n->slots[i].no) = n->slots[i];
  if (n->cap) resize(s, n->slots, n->cap * sizeof(slot), 0);
  *n = bigger;
  return true;
}

static const place *members(const slot *t) { return t->count > 1 ? t->many : &t->one; }

static const place nowhere = {.height = -1};

// The place of member `member`, those before it made where they are not.
static place *member_of(bdk_sandbox *s, slot *t, uint32_t member) {
  if (t->count < member) {
    place *list = resize(s, NULL, 0, member * sizeof *list);
    if (!list) return NULL;
    for (uint32_t i = 0; i < member; i++) list[i] = i < t->count ? members(t)[i] : nowhere;
    if (t->count > 1) resize(s, t->many, t->count * sizeof *t->many, 0);
    t->many = list;
    t->count = member;
  }
  return t->count > 1 ? &t->many[member - 1] : &t->one;
}

static int32_t us(double ms) { return (int32_t)(ms < 0 ? ms * 1000 - 0.5 : ms * 1000 + 0.5); }

static bool within(double ms) { return ms >= -BDK_COORD_FAR_MS && ms <= BDK_COORD_FAR_MS; }

bool bdk_net_set(bdk_sandbox *s, lua_Integer no, int member, double x, double y, double z, double height, int nat) {
  if (no <= 0 || member < 1 || member > BDK_NET_MEMBERS_MAX || nat < 0 || nat >= BDK_NET_CLASSES) return false;
  place p = nowhere;
  p.nat = nat;
  if (!(height < 0)) {
    if (!within(x) || !within(y) || !within(z) || !within(height)) return false;
    p = (place){{us(x), us(y), us(z)}, us(height), nat};
  }
  struct bdk_net *n = net_of(s);
  if (!n || !grow(s, n)) return false;
  slot *t = place_of(n, (uint64_t)no);
  if (!t->no) {
    *t = (slot){.no = (uint64_t)no, .one = nowhere, .count = 1};
    n->count++;
  }
  place *at = member_of(s, t, (uint32_t)member);
  if (at) *at = p;
  return at != NULL;
}

bool bdk_net_set_packed(bdk_sandbox *s, lua_Integer no, int member, const uint8_t *bytes, size_t len) {
  bdk_reader r = {bytes, bytes + len};
  bdk_item item;
  double v[4] = {0, 0, 0, -1};
  if (!bdk_read(&r, &item) || item.kind != BDK_WIRE_ARRAY || item.count != 5) return false;
  for (int i = 0; i < 4; i++) {
    if (!bdk_read(&r, &item)) return false;
    if (item.kind == BDK_WIRE_FLOAT)
      v[i] = item.f;
    else if (item.kind == BDK_WIRE_UINT)
      v[i] = (double)item.u;
    else if (item.kind == BDK_WIRE_INT)
      v[i] = (double)item.i;
    else if (item.kind != BDK_WIRE_NIL)
      return false;
  }
  if (!bdk_read(&r, &item) || r.p != r.end) return false;
  if (item.kind == BDK_WIRE_NIL) item.u = 0;
  if (item.kind != BDK_WIRE_NIL && (item.kind != BDK_WIRE_UINT || item.u >= BDK_NET_CLASSES)) return false;
  return bdk_net_set(s, no, member, v[0], v[1], v[2], v[3], (int)item.u);
}

void bdk_net_drop(bdk_sandbox *s, lua_Integer no) {
  struct bdk_net *n = s->net;
  if (!n || !find(s, no)) return;
  uint32_t mask = n->cap - 1, i = (uint32_t)(place_of(n, (uint64_t)no) - n->slots);
  if (n->slots[i].count > 1) resize(s, n->slots[i].many, n->slots[i].count * sizeof(place), 0);
  n->count--;
  // Those after it that it kept from their own place move up.
  for (uint32_t k = (i + 1) & mask; n->slots[k].no; k = (k + 1) & mask) {
    if (((k - home(n, n->slots[k].no)) & mask) < ((k - i) & mask)) continue;
    n->slots[i] = n->slots[k];
    i = k;
  }
  n->slots[i] = (slot){0};
}

void bdk_net_table(bdk_sandbox *s, const uint8_t bytes[BDK_NET_TABLE]) {
  struct bdk_net *n = net_of(s);
  if (!n) return;
  for (int a = 0; a < BDK_NET_CLASSES; a++)
    for (int b = 0; b <= a; b++) n->reach[a][b] = n->reach[b][a] = *bytes++;
}

void bdk_net_free(bdk_sandbox *s) {
  struct bdk_net *n = s->net;
  if (!n) return;
  for (uint32_t i = 0; i < n->cap; i++)
    if (n->slots[i].count > 1) resize(s, n->slots[i].many, n->slots[i].count * sizeof(place), 0);
  if (n->cap) resize(s, n->slots, n->cap * sizeof(slot), 0);
  resize(s, n, sizeof *n, 0);
  s->net = NULL;
}

// --- what follows from it
static bdk_coord coord_of(const place *p) {
  bdk_coord c = {.height = p->height / 1000.0};
  for (int i = 0; i < BDK_COORD_DIMS; i++) c.at[i] = p->at[i] / 1000.0;
  return c;
}

double bdk_net_rtt(const bdk_sandbox *s, lua_Integer a, lua_Integer b) {
  const slot *one = find(s, a), *two = find(s, b);
  if (!one || !two) return -1;
  double worst = 0;
  for (uint32_t i = 0; i < one->count; i++)
    for (uint32_t k = 0; k < two->count; k++) {
      const place *p = &members(one)[i], *q = &members(two)[k];
      if (p->height < 0 || q->height < 0) return -1;
      if (p == q) continue; // of a ticket and itself
      bdk_coord c = coord_of(p), d = coord_of(q);
      double ms = bdk_coord_distance_ms(&c, &d);
      if (ms > worst) worst = ms;
    }
  return worst;
}

double bdk_net_reach(const bdk_sandbox *s, lua_Integer a, lua_Integer b) {
  const slot *one = find(s, a), *two = find(s, b);
  uint32_t most = one ? one->count : 1, others = two ? two->count : 1;
  int worst = 255;
  for (uint32_t i = 0; i < most; i++)
    for (uint32_t k = 0; k < others; k++) {
      const place *p = one ? &members(one)[i] : &nowhere, *q = two ? &members(two)[k] : &nowhere;
      int chance = s->net ? s->net->reach[p->nat][q->nat] : 128;
      if ((p != q || p == &nowhere) && chance < worst) worst = chance;
    }
  return worst / 255.0;
}

double bdk_net_curve(const bdk_sandbox *s, lua_Integer no) {
  const slot *t = find(s, no);
  if (!t || members(t)->height < 0) return -1;
  bdk_coord c = coord_of(members(t));
  return bdk_coord_curve(&c);
}

// --- for policies
enum { TICKETS_MAX = 64 };

// A ticket, or its number.
static lua_Integer check_ticket(lua_State *L, int idx) {
  if (lua_istable(L, idx)) {
    lua_pushliteral(L, "id");
    lua_rawget(L, idx);
    lua_replace(L, idx);
  }
  int is_number;
  lua_Integer no = lua_tointegerx(L, idx, &is_number);
  luaL_argcheck(L, is_number && lua_type(L, idx) == LUA_TNUMBER, idx, "a ticket expected");
  return no;
}

// What comparing two tickets costs, in instructions.
static void charge(lua_State *L, lua_Integer a, lua_Integer b) {
  const bdk_sandbox *s = bdk_sandbox_of(L);
  const slot *one = find(s, a), *two = find(s, b);
  bdk_sandbox_charge(L, 8 + 8 * (one ? one->count : 1) * (two ? two->count : 1));
}

// [-0, +1, v] rtt_ms(a, b) -> ms | nil
static int net_rtt_ms(lua_State *L) {
  lua_Integer a = check_ticket(L, 1), b = check_ticket(L, 2);
  charge(L, a, b);
  double ms = bdk_net_rtt(bdk_sandbox_of(L), a, b);
  if (ms < 0)
    lua_pushnil(L);
  else
    lua_pushnumber(L, ms);
  return 1;
}

// [-0, +1, v] reach(a, b) -> 0 to 1
static int net_reach(lua_State *L) {
  lua_Integer a = check_ticket(L, 1), b = check_ticket(L, 2);
  charge(L, a, b);
  lua_pushnumber(L, bdk_net_reach(bdk_sandbox_of(L), a, b));
  return 1;
}

// [-0, +1, v] place(ticket) -> a number: near ones are near in space; -1 where its place is not known
static int net_place(lua_State *L) {
  lua_pushnumber(L, bdk_net_curve(bdk_sandbox_of(L), check_ticket(L, 1)));
  return 1;
}

// How well one of the tickets would do as the host of the others.
typedef struct candidate {
  double rtt_ms, reach; // the worst to one of the others; rtt_ms < 0: not known
  int step;             // reach in fifths: more of it is worth any time
} candidate;

static candidate candidate_of(lua_State *L, const lua_Integer *list, int count, int i) {
  const bdk_sandbox *s = bdk_sandbox_of(L);
  candidate c = {.reach = 1};
  for (int k = 0; k < count; k++) {
    if (k == i) continue;
    charge(L, list[i], list[k]);
    double ms = bdk_net_rtt(s, list[i], list[k]), reach = bdk_net_reach(s, list[i], list[k]);
    if (ms < 0 || (c.rtt_ms >= 0 && ms > c.rtt_ms)) c.rtt_ms = ms < 0 ? -1 : ms;
    if (reach < c.reach) c.reach = reach;
  }
  c.step = (int)(c.reach * 5);
  return c;
}

static bool better(const candidate *a, const candidate *b) {
  if (a->step != b->step) return a->step > b->step;
  bool a_known = a->rtt_ms >= 0, b_known = b->rtt_ms >= 0;
  if (a_known != b_known) return a_known;
  if (a_known && a->rtt_ms != b->rtt_ms) return a->rtt_ms < b->rtt_ms;
  return a->reach > b->reach;
}

// [-0, +2, v] best_host(tickets) -> ticket, { rtt_ms = or nil, reach = }: who all others reach with the best chance, in
// steps of a fifth; of those the one with the shortest way to the farthest; of those the first
static int net_best_host(lua_State *L) {
  lua_Integer list[TICKETS_MAX];
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_settop(L, 1);
  bdk_sandbox_fill(L, 1);
  lua_Integer count = (lua_Integer)lua_rawlen(L, 1);
  luaL_argcheck(L, count >= 1 && count <= TICKETS_MAX, 1, "a list of 1 to 64 tickets expected");
  for (int i = 0; i < count; i++) {
    lua_rawgeti(L, 1, i + 1);
    list[i] = check_ticket(L, 2);
    lua_settop(L, 1);
  }
  int best = 0;
  candidate chosen = candidate_of(L, list, (int)count, 0);
  for (int i = 1; i < count; i++) {
    candidate c = candidate_of(L, list, (int)count, i);
    if (!better(&c, &chosen)) continue;
    best = i;
    chosen = c;
  }
  lua_rawgeti(L, 1, best + 1);
  lua_createtable(L, 0, 2);
  if (chosen.rtt_ms >= 0) {
    lua_pushnumber(L, chosen.rtt_ms);
    lua_setfield(L, -2, "rtt_ms");
  }
  lua_pushnumber(L, chosen.reach);
  lua_setfield(L, -2, "reach");
  return 2;
}

// The module's chunk.
static int open_module(lua_State *L) {
  static const luaL_Reg functions[] = {
      {"rtt_ms", net_rtt_ms}, {"reach", net_reach}, {"best_host", net_best_host}, {"place", net_place}, {NULL, NULL}};
  luaL_newlib(L, functions);
  return 1;
}

void bdk_sandbox_open_net(lua_State *L) {
  lua_pushcfunction(L, open_module);
  bdk_sandbox_module(L, "bodkin.net", NULL);
}

// --- for the owner
// [-0, +1, e] sandbox:net_set(no, member, bytes) -> whether that is known now: msgpack, see above
int bdk_lua_net_set(lua_State *L) {
  bdk_sandbox *s = bdk_sandbox_check(L);
  size_t len;
  lua_Integer no = luaL_checkinteger(L, 2), member = luaL_checkinteger(L, 3);
  const uint8_t *bytes = (const uint8_t *)luaL_checklstring(L, 4, &len);
  bool is_member = member >= 1 && member <= BDK_NET_MEMBERS_MAX;
  lua_pushboolean(L, is_member && bdk_net_set_packed(s, no, (int)member, bytes, len));
  return 1;
}

// [-0, +0, e] sandbox:net_drop(no): nothing is known of that ticket any more
int bdk_lua_net_drop(lua_State *L) {
  bdk_net_drop(bdk_sandbox_check(L), luaL_checkinteger(L, 2));
  return 0;
}

// [-0, +0, e] sandbox:net_table(bytes): of classes of NATs, see above
int bdk_lua_net_table(lua_State *L) {
  bdk_net_table(bdk_sandbox_check(L), bdk_check_bytes(L, 2, BDK_NET_TABLE));
  return 0;
}
