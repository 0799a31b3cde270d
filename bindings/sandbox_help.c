// SPDX-License-Identifier: MIT
// What policies may have done in C: filling teams with whole parties, and balancing them. Each is a search that is
// bounded, and charged for.
#include <string.h>

#include "sandbox.h"

enum { TICKETS_MAX = 64, TEAMS_MAX = 32, LIMITS_MAX = 8, PACK_STEPS = 4000, SPLIT_STEPS = 20000 };

typedef struct teams {
  int count, room[TEAMS_MAX];
  int tickets, size[TICKETS_MAX], team[TICKETS_MAX]; // team: -1: none
  double value[TICKETS_MAX], sum[TEAMS_MAX];
  // How many players of a team may have one value of a property: what each ticket takes of it, what each team has left.
  int limits, takes[TICKETS_MAX][LIMITS_MAX], left[TEAMS_MAX][LIMITS_MAX];
  int steps;
  // split
  int best[TICKETS_MAX], full[TEAMS_MAX];
  double best_gap;
} teams;

// The tickets of the list at 1, as many as can matter, and the sizes at 2.
static void read_args(lua_State *L, teams *t) {
  luaL_checktype(L, 1, LUA_TTABLE);
  luaL_checktype(L, 2, LUA_TTABLE);
  bdk_sandbox_fill(L, 1);
  memset(t, 0, sizeof *t);
  lua_Unsigned n = lua_rawlen(L, 1);
  t->tickets = n < TICKETS_MAX ? (int)n : TICKETS_MAX;
  for (int i = 0; i < t->tickets; i++) {
    lua_rawgeti(L, 1, i + 1);
    if (!lua_istable(L, -1))
      luaL_error(L, "a list of tickets expected, but place %d holds a %s", i + 1, luaL_typename(L, -1));
    lua_getfield(L, -1, "size");
    t->size[i] = lua_isinteger(L, -1) ? (int)lua_tointeger(L, -1) : 1;
    if (t->size[i] < 1 || t->size[i] > TEAMS_MAX) luaL_error(L, "a ticket of size %d", t->size[i]);
    t->team[i] = -1;
    lua_pop(L, 2);
  }
  n = lua_rawlen(L, 2);
  luaL_argcheck(L, n >= 1 && n <= TEAMS_MAX, 2, "the size of each team expected, such as { 5, 5 }");
  t->count = (int)n;
  for (int i = 0; i < t->count; i++) {
    lua_rawgeti(L, 2, i + 1);
    lua_Integer size = lua_isinteger(L, -1) ? lua_tointeger(L, -1) : 0;
    luaL_argcheck(L, size >= 1 && size <= TEAMS_MAX, 2, "the size of each team expected, such as { 5, 5 }");
    t->room[i] = t->full[i] = (int)size;
    lua_pop(L, 1);
  }
}

// The limits at `idx`, { property = { value = most a team } } or nothing.
static void read_limits(lua_State *L, teams *t, int idx) {
  if (lua_isnoneornil(L, idx)) return;
  luaL_checktype(L, idx, LUA_TTABLE);
  int top = lua_gettop(L);
  lua_pushnil(L);
  bool is = lua_next(L, idx) && lua_type(L, -2) == LUA_TSTRING && lua_istable(L, -1);
  if (!is) luaL_argerror(L, idx, "limits are { property = { value = most a team } }");
  int prop = top + 1, values = top + 2;
  for (lua_pushnil(L); lua_next(L, values); lua_pop(L, 1)) {
    lua_Integer most = lua_isinteger(L, -1) ? lua_tointeger(L, -1) : -1;
    if (t->limits == LIMITS_MAX || most < 0 || most > TEAMS_MAX)
      luaL_argerror(L, idx, "at most 8 values are limited, each by a number of players");
    int which = t->limits++;
    for (int k = 0; k < t->count; k++) t->left[k][which] = (int)most;
    for (int i = 0; i < t->tickets; i++) {
      lua_rawgeti(L, 1, i + 1);
      lua_getfield(L, -1, "members");
      lua_Integer n = lua_istable(L, -1) ? (lua_Integer)lua_rawlen(L, -1) : 0;
      for (lua_Integer m = 1; m <= n; m++) {
        if (lua_rawgeti(L, values + 4, m) == LUA_TTABLE && lua_getfield(L, -1, "props") == LUA_TTABLE) {
          lua_pushvalue(L, prop);
          lua_rawget(L, -2);
          t->takes[i][which] += lua_rawequal(L, -1, values + 1);
        }
        lua_settop(L, values + 4);
      }
      lua_settop(L, values + 2);
    }
  }
  lua_settop(L, top);
}

static bool allows(const teams *t, int team, int ticket) {
  for (int i = 0; i < t->limits; i++)
    if (t->takes[ticket][i] > t->left[team][i]) return false;
  return true;
}

// Puts a ticket into a team (1), or takes it out again (-1).
static void move_in(teams *t, int team, int ticket, int sign) {
  t->room[team] -= sign * t->size[ticket];
  t->sum[team] += sign * t->value[ticket];
  for (int i = 0; i < t->limits; i++) t->left[team][i] -= sign * t->takes[ticket][i];
  t->team[ticket] = sign > 0 ? team : -1;
}

static bool alike(const teams *t, int a, int b) {
  return t->room[a] == t->room[b] && t->full[a] == t->full[b] && t->sum[a] == t->sum[b] &&
         memcmp(t->left[a], t->left[b], sizeof t->left[a]) == 0;
}

static int push_teams(lua_State *L, const teams *t, const int *team) {
  lua_createtable(L, t->count, 0);
  for (int k = 0; k < t->count; k++) {
    lua_newtable(L);
    lua_Integer n = 0;
    for (int i = 0; i < t->tickets; i++) {
      if (team[i] != k) continue;
      lua_rawgeti(L, 1, i + 1);
      lua_rawseti(L, -2, ++n);
    }
    lua_rawseti(L, -2, k + 1);
  }
  return 1;
}

// Seats tickets from `i` on, `left` places still empty, `rest` players from i on. The first one has to be in.
static bool seat_all(teams *t, int i, int left, int rest) {
  if (left == 0) return true;
  if (i == t->tickets || rest < left || ++t->steps > PACK_STEPS) return false;
  int size = t->size[i];
  for (int k = 0; k < t->count; k++) {
    bool was = t->room[k] < size || !allows(t, k, i);
    for (int e = 0; e < k && !was; e++) was = alike(t, e, k); // nothing new comes of it
    if (was) continue;
    move_in(t, k, i, 1);
    if (seat_all(t, i + 1, left - size, rest - size)) return true;
    move_in(t, k, i, -1);
  }
  return i > 0 && seat_all(t, i + 1, left, rest - size);
}

// [-0, +1, e] pack(tickets, sizes) -> teams or nil: fills each team to its size, parties whole, with the first ticket
// and then the earlier ones of the list where that is possible
static int pack(lua_State *L) {
  teams t;
  read_args(L, &t);
  read_limits(L, &t, 3);
  int left = 0, rest = 0;
  for (int k = 0; k < t.count; k++) left += t.room[k];
  for (int i = 0; i < t.tickets; i++) rest += t.size[i];
  bool ok = seat_all(&t, 0, left, rest);
  bdk_sandbox_charge(L, 100 + (uint64_t)t.steps * 5);
  return ok ? push_teams(L, &t, t.team) : 0;
}

// --- balance: the means of the teams as near to each other as can be
static double gap_of(const teams *t, const double *sum) {
  double low = 0, high = 0;
  for (int k = 0; k < t->count; k++) {
    double mean = sum[k] / t->full[k];
    if (k == 0 || mean < low) low = mean;
    if (k == 0 || mean > high) high = mean;
  }
  return high - low;
}

// By value, the largest first, each where the mean is least so far: so the first solution is a good one already.
static void divide(teams *t, const int *order, int i) {
  if (i == t->tickets) {
    double gap = gap_of(t, t->sum);
    if (t->best_gap >= 0 && gap >= t->best_gap) return;
    t->best_gap = gap;
    memcpy(t->best, t->team, sizeof t->best);
    return;
  }
  int ticket = order[i], size = t->size[ticket], tried[TEAMS_MAX], n = 0;
  for (;;) {
    int next = -1;
    for (int k = 0; k < t->count; k++) {
      bool was = t->room[k] < size || !allows(t, k, ticket);
      for (int e = 0; e < n && !was; e++) was = tried[e] == k || alike(t, tried[e], k);
      if (!was && (next < 0 || t->sum[k] * t->full[next] < t->sum[next] * t->full[k])) next = k;
    }
    if (next < 0 || t->best_gap == 0 || ++t->steps > SPLIT_STEPS) return;
    tried[n++] = next;
    move_in(t, next, ticket, 1);
    divide(t, order, i + 1);
    move_in(t, next, ticket, -1);
  }
}

// Exchanges two of the same size in different teams as long as that helps.
static void improve(lua_State *L, teams *t) {
  double sum[TEAMS_MAX] = {0};
  for (int i = 0; i < t->tickets; i++) sum[t->best[i]] += t->value[i];
  for (bool better = true; better;) {
    better = false;
    bdk_sandbox_charge(L, (uint64_t)t->tickets * (uint64_t)t->tickets * 5);
    for (int i = 0; i < t->tickets; i++)
      for (int k = 0; k < i; k++) {
        int a = t->best[i], b = t->best[k];
        if (a == b || t->size[i] != t->size[k]) continue;
        if (memcmp(t->takes[i], t->takes[k], sizeof t->takes[i])) continue; // else a limit might be passed
        double more = t->value[k] - t->value[i];
        sum[a] += more, sum[b] -= more;
        double gap = gap_of(t, sum);
        if (gap < t->best_gap - 1e-9) {
          t->best_gap = gap, t->best[i] = b, t->best[k] = a;
          better = true;
        } else {
          sum[a] -= more, sum[b] += more;
        }
      }
  }
}

// What a ticket adds to its team: the sum of its members' property, or of what the function at 3 gives for each.
static double value_of(lua_State *L, int i) {
  double sum = 0;
  int top = lua_gettop(L);
  lua_rawgeti(L, 1, i + 1);
  lua_getfield(L, -1, "members");
  lua_Integer n = lua_istable(L, -1) ? (lua_Integer)lua_rawlen(L, -1) : 0;
  for (lua_Integer m = 1; m <= n; m++) {
    if (lua_isfunction(L, 3)) {
      lua_pushvalue(L, 3);
      lua_rawgeti(L, top + 2, m);
      lua_call(L, 1, 1);
    } else {
      if (lua_rawgeti(L, top + 2, m) != LUA_TTABLE || lua_getfield(L, -1, "props") != LUA_TTABLE)
        luaL_error(L, "a ticket without props");
      lua_getfield(L, -1, lua_tostring(L, 3));
    }
    if (!lua_isnumber(L, -1)) luaL_error(L, "split by what is a %s, not a number", luaL_typename(L, -1));
    sum += lua_tonumber(L, -1);
    lua_settop(L, top + 2);
  }
  lua_settop(L, top);
  return sum;
}

// [-0, +2, e] split(tickets, sizes, property) -> teams, the gap between the highest and the lowest mean of the
// property; or nil: the tickets do not fill these sizes. Parties stay whole.
static int split(lua_State *L) {
  teams t;
  read_args(L, &t);
  if (!lua_isfunction(L, 3)) luaL_checkstring(L, 3);
  read_limits(L, &t, 4);
  int order[TICKETS_MAX], players = 0, places = 0;
  for (int i = 0; i < t.tickets; i++) {
    t.value[i] = value_of(L, i);
    players += t.size[i];
    int at = i;
    // The larger parties first, which are harder to seat, then by value.
    for (; at && (t.size[order[at - 1]] < t.size[i] ||
                  (t.size[order[at - 1]] == t.size[i] && t.value[order[at - 1]] < t.value[i]));
         at--)
      order[at] = order[at - 1];
    order[at] = i;
  }
  for (int k = 0; k < t.count; k++) places += t.room[k];
  if (players != places || (lua_Unsigned)t.tickets != lua_rawlen(L, 1)) return 0;
  t.best_gap = -1;
  divide(&t, order, 0);
  bdk_sandbox_charge(L, 100 + (uint64_t)t.steps * 10);
  if (t.best_gap < 0) return 0;
  improve(L, &t);
  push_teams(L, &t, t.best);
  lua_pushnumber(L, t.best_gap);
  return 2;
}

void bdk_sandbox_push_helpers(lua_State *L) {
  static const luaL_Reg functions[] = {{"pack", pack}, {"split", split}, {NULL, NULL}};
  luaL_newlib(L, functions);
}
