// SPDX-License-Identifier: MIT
// core.mux: the five verbs as they are, or driven: sockets feed it in C, its deadline is a timer on the loop,
// its datagrams leave in C, its events call one function.
#include "core/relay.h"
#include "mux_trace.h"

#include <sodium.h>
#include <string.h>

#include "io/os.h"

static const char type[] = "bodkin.mux";
enum { FUNCTION = 1, LOOP = 2, COUNTERS = 3 };

bdk_mux_box *bdk_check_mux(lua_State *L, int idx) {
  bdk_mux_box *m = luaL_checkudata(L, idx, type);
  if (!m->mux) luaL_error(L, "closed mux");
  return m;
}

// --- sockets
int bdk_mux_attach(bdk_mux_box *m, bdk_udp_box *u) {
  for (bdk_udp_box *s = m->sockets; s; s = s->mux_next)
    if (s->number == u->number) return BDK_E_INVALID;
  u->mux = m;
  u->mux_next = m->sockets;
  m->sockets = u;
  return 0;
}

void bdk_mux_detach(bdk_udp_box *u) {
  if (!u->mux) return;
  for (bdk_udp_box **p = &u->mux->sockets; *p; p = &(*p)->mux_next) {
    if (*p != u) continue;
    *p = u->mux_next;
    break;
  }
  u->mux = NULL;
  u->mux_next = NULL;
}

static void free_mux(bdk_mux_box *m) {
  if (m->traced) bdk_mux_untrace(m->L, m);
  while (m->sockets) bdk_mux_detach(m->sockets);
  bdk_mux_free(m->mux);
  m->mux = NULL;
}

static void release(bdk_handle *h) {
  bdk_mux_box *m = (bdk_mux_box *)h;
  bdk_driver_cancel(h->loop->driver, &m->timer);
  free_mux(m);
}

// --- outputs
const char *bdk_path_kind(const bdk_output *out) {
  return out->lan ? "lan" : out->via == BDK_VIA_RELAY ? "relay" : "direct";
}

static void push_info(lua_State *L, const bdk_output *out) {
  lua_createtable(L, 0, 5);
  lua_pushstring(L, bdk_path_kind(out));
  lua_setfield(L, -2, "path");
  lua_pushstring(L, bdk_via_name(out->via));
  lua_setfield(L, -2, "via");
  bdk_push_addr(L, &out->route.remote);
  lua_setfield(L, -2, "remote");
  lua_pushnumber(L, (lua_Number)out->since_us / 1000);
  lua_setfield(L, -2, "ms");
  if (out->kind == BDK_OUT_PATH || out->rtt_us) { // confirmed: 0 is a round trip, too
    lua_pushnumber(L, (lua_Number)out->rtt_us / 1000);
    lua_setfield(L, -2, "rtt_ms");
  }
}

// Pushes kind, session, x of an event.
static void push_event(lua_State *L, const bdk_output *out) {
  static const char *const kinds[] = {
      [BDK_OUT_CONNECTED] = "connected",   [BDK_OUT_PATH] = "path",   [BDK_OUT_MESSAGE] = "message",
      [BDK_OUT_RELAY_LOST] = "relay_lost", [BDK_OUT_DOUBT] = "doubt", [BDK_OUT_CLOSED] = "closed",
      [BDK_OUT_SILENT] = "silent"};
  lua_pushstring(L, kinds[out->kind]);
  lua_pushinteger(L, out->session);
  if (out->kind == BDK_OUT_MESSAGE)
    lua_pushlstring(L, (const char *)out->data, out->len);
  else if (out->kind == BDK_OUT_CLOSED)
    lua_pushstring(L, bdk_reason_name(out->reason));
  else if (out->kind == BDK_OUT_RELAY_LOST)
    bdk_push_addr(L, &out->route.remote);
  else if (out->kind == BDK_OUT_SILENT || out->kind == BDK_OUT_DOUBT)
    lua_pushnil(L);
  else
    push_info(L, out);
}

// Runs inside bdk_lua_call. 1: the mux, 2: the output
static int call_event(lua_State *L) {
  const bdk_output *out = lua_touserdata(L, 2);
  lua_getiuservalue(L, 1, FUNCTION);
  push_event(L, out);
  lua_call(L, 3, 0);
  return 0;
}

static void send_output(bdk_mux_box *m, const bdk_output *out) {
  for (bdk_udp_box *u = m->sockets; u; u = u->mux_next) {
    if (u->number != out->route.sock) continue;
    bdk_udp_box_send(u, &out->route.local, &out->route.remote, out->route.ttl, out->data, out->len);
    return;
  }
}

// The first tests of a session leave at once, not at the end of the turn: what scripts do meanwhile would come on top
// of every peer's time to connect.
static void flush(const bdk_mux_box *m) {
  if (!m->driven) return;
  for (const bdk_udp_box *u = m->sockets, *next; u; u = next) {
    next = u->mux_next;
    bdk_udp_box_flush(u);
  }
}

// Carries out what a verb has left. An event's function may use the verbs: what they leave is carried out
// here, too, after what was there before, by the outermost call alone.
static void drain(bdk_mux_box *m) {
  if (!m->driven || m->draining) return;
  bdk_loop *loop = m->h.loop;
  lua_State *L = loop->L;
  bdk_output out;
  if (!lua_checkstack(L, 8) || !bdk_handle_push(L, &m->h)) return;
  m->draining = true;
  while (m->mux && bdk_mux_next(m->mux, &out)) {
    bdk_trace_output(m, &out);
    if (out.kind == BDK_OUT_SEND) {
      send_output(m, &out);
      continue;
    }
    lua_pushcfunction(L, call_event);
    lua_pushvalue(L, -2);
    lua_pushlightuserdata(L, &out);
    if (!bdk_lua_call(L, 2, 0)) bdk_count(m->counters, BDK_COUNT_handler_error, 1);
  }
  m->draining = false;
  if (m->mux) {
    uint64_t due = bdk_mux_deadline(m->mux);
    if (due == BDK_NEVER)
      bdk_driver_cancel(loop->driver, &m->timer);
    else if (!m->timer.slot || m->timer.due_us != due)
      bdk_driver_timer(loop->driver, &m->timer, due);
  }
  lua_pop(L, 1);
}

static void fire(bdk_timer *t, uint64_t now_us) {
  bdk_mux_box *m = (bdk_mux_box *)((char *)t - offsetof(bdk_mux_box, timer));
  bdk_trace_tick(m, now_us);
  bdk_mux_tick(m->mux, now_us);
  drain(m);
}

bool bdk_mux_box_input(bdk_mux_box *m, uint64_t now_us, const bdk_route *route, const uint8_t *bytes, size_t len) {
  if (!bdk_mux_input(m->mux, now_us, route, bytes, len)) return false;
  bdk_trace_input(m, now_us, route, bytes, len);
  drain(m);
  return true;
}

void bdk_mux_box_unreachable(bdk_mux_box *m, uint64_t now_us, const bdk_addr *remote) {
  bdk_trace_unreachable(m, now_us, remote);
  bdk_mux_unreachable(m->mux, now_us, remote);
  drain(m);
}

// --- methods
// [-0, +1, e] mux{ seed=, counters=, max_sessions= } -> mux
static int new (lua_State *L) {
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_settop(L, 1);
  bdk_mux_config config = {.alloc = bdk_os_alloc};
  memcpy(config.seed, bdk_need_bytes(L, 1, "seed", sizeof config.seed), sizeof config.seed);
  config.max_sessions = (uint32_t)bdk_opt_integer(L, 1, "max_sessions", 0, 0, 65535);
  lua_getfield(L, 1, "counters");
  config.counters = bdk_check_counters(L, 2);
  bdk_mux_box *m = lua_newuserdatauv(L, sizeof *m, 4);
  memset(m, 0, sizeof *m);
  m->counters = config.counters;
  m->max_sessions = config.max_sessions;
  memcpy(m->seed, config.seed, sizeof m->seed);
  lua_rawgeti(L, LUA_REGISTRYINDEX, LUA_RIDX_MAINTHREAD);
  m->L = lua_tothread(L, -1);
  lua_pop(L, 1);
  m->timer.fire = fire;
  luaL_setmetatable(L, type);
  lua_pushvalue(L, 2);
  lua_setiuservalue(L, 3, COUNTERS);
  m->mux = bdk_mux_new(&config);
  if (!m->mux) return luaL_error(L, "not enough memory for a mux");
  return 1;
}

// [-0, +1, e] mux:drive(loop, fn(kind, session, x)) -> mux
static int drive(lua_State *L) {
  bdk_mux_box *m = bdk_check_mux(L, 1);
  bdk_loop *loop = bdk_check_loop(L, 2);
  luaL_checktype(L, 3, LUA_TFUNCTION);
  luaL_argcheck(L, !m->driven, 1, "driven already");
  luaL_argcheck(L, m->hand_us <= bdk_loop_now(loop), 2, "the mux was told of a time later than the loop's");
  lua_settop(L, 3);
  lua_setiuservalue(L, 1, FUNCTION);
  lua_pushvalue(L, 2);
  lua_setiuservalue(L, 1, LOOP);
  bdk_handle_open(L, 2, 1, release);
  m->driven = true;
  drain(m);
  lua_settop(L, 1);
  return 1;
}

// The time a verb is called at: given, or the loop's. It never goes back: whatever is timed would be overdue.
static uint64_t check_now(lua_State *L, bdk_mux_box *m) {
  if (lua_isnoneornil(L, 2)) {
    luaL_argcheck(L, m->driven, 2, "a time in µs expected: the mux is not driven");
    return bdk_loop_now(m->h.loop);
  }
  luaL_argcheck(L, !m->driven, 2, "a driven mux has its loop's time: pass nil");
  lua_Integer now = luaL_checkinteger(L, 2);
  luaL_argcheck(L, now >= 0, 2, "negative time");
  luaL_argcheck(L, (uint64_t)now >= m->hand_us, 2, "a time before that of an earlier call");
  return m->hand_us = (uint64_t)now;
}

static uint16_t check_sock(lua_State *L, int idx) {
  lua_Integer n = luaL_checkinteger(L, idx);
  if (n < 0 || n > UINT16_MAX) luaL_error(L, "a socket's number is from 0 to 65535, not %I", (LUAI_UACINT)n);
  return (uint16_t)n;
}

static int find_via(lua_State *L, int idx) {
  const char *name = luaL_checkstring(L, idx);
  for (int i = 0; i < BDK_VIA_COUNT; i++)
    if (strcmp(bdk_via_name(i), name) == 0) return i;
  return luaL_error(L, "'%s' is no via", name);
}

// The candidates { addr, via, sock } of the list on the top.
static uint32_t read_candidates(lua_State *L, bdk_candidate *out) {
  luaL_checktype(L, -1, LUA_TTABLE);
  int list = lua_gettop(L);
  lua_Unsigned n = lua_rawlen(L, list);
  if (n > BDK_SESSION_PATHS) n = BDK_SESSION_PATHS;
  for (lua_Unsigned i = 0; i < n; i++) {
    lua_rawgeti(L, list, (lua_Integer)i + 1);
    luaL_checktype(L, -1, LUA_TTABLE);
    lua_rawgeti(L, list + 1, 1);
    lua_rawgeti(L, list + 1, 2);
    lua_rawgeti(L, list + 1, 3);
    out[i].addr = bdk_check_addr(L, list + 2);
    out[i].via = (uint8_t)find_via(L, list + 3);
    out[i].sock = check_sock(L, list + 4);
    lua_settop(L, list);
  }
  return (uint32_t)n;
}

static uint32_t check_session(lua_State *L, int idx) {
  lua_Integer n = luaL_checkinteger(L, idx);
  return n > 0 && n <= UINT32_MAX ? (uint32_t)n : 0;
}

// µs, of field start_in_ms of the table at `idx`; the stack grows by one.
static uint64_t read_start(lua_State *L, int idx) {
  lua_getfield(L, idx, "start_in_ms");
  lua_Number start_ms = luaL_optnumber(L, -1, 0);
  luaL_argcheck(L, start_ms >= 0 && start_ms <= 60000, idx, "start_in_ms out of range");
  return (uint64_t)(start_ms * 1000 + 0.5);
}

// [-0, +1|3, e] mux:add(now_us, { match=, key=, self=, peer=, own=, own_ephemeral=, peer_key=, peer_ephemeral=,
// start_in_ms=, opener_ttl=, candidates= }) -> session | nil, ...: own ones are public .. secret
static int add(lua_State *L) {
  bdk_mux_box *m = bdk_check_mux(L, 1);
  uint64_t now_us = check_now(L, m);
  luaL_checktype(L, 3, LUA_TTABLE);
  lua_settop(L, 3);
  bdk_candidate candidates[BDK_SESSION_PATHS];
  bdk_match match = {.candidates = candidates};
  memcpy(match.match, bdk_need_bytes(L, 3, "match", BDK_MATCH_LEN), BDK_MATCH_LEN);
  memcpy(match.key, bdk_need_bytes(L, 3, "key", BDK_KEY_LEN), BDK_KEY_LEN);
  memcpy(match.self, bdk_need_bytes(L, 3, "self", BDK_ID_LEN), BDK_ID_LEN);
  memcpy(match.peer, bdk_need_bytes(L, 3, "peer", BDK_ID_LEN), BDK_ID_LEN);
  memcpy(&match.own, bdk_need_bytes(L, 3, "own", sizeof match.own), sizeof match.own);
  memcpy(&match.own_ephemeral, bdk_need_bytes(L, 3, "own_ephemeral", sizeof match.own), sizeof match.own);
  memcpy(match.peer_key, bdk_need_bytes(L, 3, "peer_key", BDK_DH_LEN), BDK_DH_LEN);
  memcpy(match.peer_ephemeral, bdk_need_bytes(L, 3, "peer_ephemeral", BDK_DH_LEN), BDK_DH_LEN);
  match.start_in_us = read_start(L, 3);
  match.opener_ttl = (uint8_t)bdk_opt_integer(L, 3, "opener_ttl", 0, 0, UINT8_MAX);
  lua_getfield(L, 3, "candidates");
  match.count = read_candidates(L, candidates);
  uint32_t session;
  bdk_trace_add(m, now_us, &match);
  int error = bdk_mux_add(m->mux, now_us, &match, &session);
  sodium_memzero(&match.own, sizeof match.own);
  sodium_memzero(&match.own_ephemeral, sizeof match.own_ephemeral);
  drain(m);
  flush(m);
  if (error) return bdk_lua_fail(L, error);
  lua_pushinteger(L, session);
  return 1;
}

// [-0, +1|3, e] mux:renew(now_us, session, { epoch=, start_in_ms=, opener_ttl=, candidates= }) -> true | nil, message,
// code
static int renew(lua_State *L) {
  bdk_mux_box *m = bdk_check_mux(L, 1);
  uint64_t now_us = check_now(L, m);
  uint32_t session = check_session(L, 3);
  luaL_checktype(L, 4, LUA_TTABLE);
  lua_settop(L, 4);
  bdk_candidate candidates[BDK_SESSION_PATHS];
  bdk_renewal renewal = {.candidates = candidates, .epoch = (uint32_t)bdk_opt_integer(L, 4, "epoch", 0, 0, UINT32_MAX)};
  renewal.start_in_us = read_start(L, 4);
  renewal.opener_ttl = (uint8_t)bdk_opt_integer(L, 4, "opener_ttl", 0, 0, UINT8_MAX);
  lua_getfield(L, 4, "candidates");
  renewal.count = read_candidates(L, candidates);
  bdk_trace_renew(m, now_us, session, &renewal);
  int error = bdk_mux_renew(m->mux, now_us, session, &renewal);
  drain(m);
  flush(m);
  if (error) return bdk_lua_fail(L, error);
  lua_pushboolean(L, true);
  return 1;
}

// [-0, +1|3, e] mux:send(now_us, session, bytes) -> true | nil, message, code
static int send(lua_State *L) {
  bdk_mux_box *m = bdk_check_mux(L, 1);
  uint64_t now_us = check_now(L, m);
  uint32_t session = check_session(L, 3);
  size_t len;
  const char *bytes = luaL_checklstring(L, 4, &len);
  bdk_trace_send(m, now_us, session, (const uint8_t *)bytes, len);
  int error = bdk_mux_send(m->mux, now_us, session, (const uint8_t *)bytes, len);
  drain(m);
  if (error) return bdk_lua_fail(L, error);
  lua_pushboolean(L, true);
  return 1;
}

// [-0, +1, e] mux:hello(session) -> a test for a relay to hand to the peer | nil
static int hello(lua_State *L) {
  bdk_mux_box *m = bdk_check_mux(L, 1);
  uint32_t session = check_session(L, 2);
  uint8_t out[BDK_PROBE_MAX];
  bdk_trace_hello(m, session);
  size_t len = bdk_mux_hello(m->mux, session, out);
  if (len)
    lua_pushlstring(L, (const char *)out, len);
  else
    lua_pushnil(L);
  return 1;
}

// [-0, +1|3, e] mux:relay(now_us, session, sock, addr, channel [, hello]) -> true | nil, message, code: a relay has
// opened that channel; hello: what the peer left there
static int relay(lua_State *L) {
  bdk_mux_box *m = bdk_check_mux(L, 1);
  uint64_t now_us = check_now(L, m);
  uint32_t session = check_session(L, 3);
  bdk_route route = {.sock = check_sock(L, 4), .remote = bdk_check_addr(L, 5)};
  lua_Integer channel = luaL_checkinteger(L, 6);
  luaL_argcheck(L, channel > 0 && channel <= UINT32_MAX, 6, "channel out of range");
  route.channel = (uint32_t)channel;
  size_t len = 0;
  const char *bytes = luaL_optlstring(L, 7, NULL, &len);
  luaL_argcheck(L, len <= BDK_RELAY_HELLO_MAX, 7, "too long");
  bdk_trace_relay(m, now_us, session, &route, (const uint8_t *)bytes, len);
  int error = bdk_mux_relay(m->mux, now_us, session, &route, (const uint8_t *)bytes, len);
  drain(m);
  flush(m);
  if (error) return bdk_lua_fail(L, error);
  lua_pushboolean(L, true);
  return 1;
}

// [-0, +0, e] mux:listed(now_us, session, { { addr, via, sock }, … }): where the peer may be now
static int listed(lua_State *L) {
  bdk_mux_box *m = bdk_check_mux(L, 1);
  uint64_t now_us = check_now(L, m);
  uint32_t session = check_session(L, 3);
  lua_settop(L, 4);
  bdk_candidate candidates[BDK_SESSION_PATHS];
  uint32_t count = read_candidates(L, candidates);
  bdk_trace_listed(m, now_us, session, candidates, count);
  bdk_mux_listed(m->mux, now_us, session, candidates, count);
  drain(m);
  return 0;
}

// [-0, +0, e] mux:moved(now_us [, { addr, … }]): an address of this host has changed; nothing is to be sent any more
// from these, 8 at most
static int moved(lua_State *L) {
  bdk_mux_box *m = bdk_check_mux(L, 1);
  uint64_t now_us = check_now(L, m);
  bdk_addr left[BDK_LEFT_MAX];
  uint32_t count = 0;
  if (!lua_isnoneornil(L, 3)) luaL_checktype(L, 3, LUA_TTABLE);
  lua_settop(L, 3);
  for (lua_Unsigned n = lua_istable(L, 3) ? lua_rawlen(L, 3) : 0; count < n && count < BDK_LEFT_MAX; count++) {
    lua_rawgeti(L, 3, (lua_Integer)count + 1);
    left[count] = bdk_check_addr(L, 4);
    lua_settop(L, 3);
  }
  bdk_trace_moved(m, now_us, left, count);
  bdk_mux_moved(m->mux, now_us, left, count);
  drain(m);
  return 0;
}

// [-0, +0, e] mux:leave(now_us, session)
static int leave(lua_State *L) {
  bdk_mux_box *m = bdk_check_mux(L, 1);
  uint64_t now_us = check_now(L, m);
  uint32_t session = check_session(L, 3);
  bdk_trace_leave(m, now_us, session);
  bdk_mux_close(m->mux, now_us, session);
  drain(m);
  return 0;
}

// [-0, +1, e] mux:input(now_us, sock, from, to | nil, bytes) -> bool
static int input(lua_State *L) {
  bdk_mux_box *m = bdk_check_mux(L, 1);
  uint64_t now_us = check_now(L, m);
  bdk_route route = {.sock = check_sock(L, 3), .remote = bdk_check_addr(L, 4)};
  if (!lua_isnil(L, 5)) route.local = bdk_check_addr(L, 5);
  size_t len;
  const char *bytes = luaL_checklstring(L, 6, &len);
  bool taken = bdk_mux_input(m->mux, now_us, &route, (const uint8_t *)bytes, len);
  if (taken) bdk_trace_input(m, now_us, &route, (const uint8_t *)bytes, len);
  drain(m);
  lua_pushboolean(L, taken);
  return 1;
}

// [-0, +0, e] mux:tick(now_us)
static int tick(lua_State *L) {
  bdk_mux_box *m = bdk_check_mux(L, 1);
  uint64_t now_us = check_now(L, m);
  bdk_trace_tick(m, now_us);
  bdk_mux_tick(m->mux, now_us);
  drain(m);
  return 0;
}

// [-0, +0, e] mux:unreachable(now_us, addr): the kernel has no route there
static int unreachable(lua_State *L) {
  bdk_mux_box *m = bdk_check_mux(L, 1);
  uint64_t now_us = check_now(L, m);
  bdk_addr remote = bdk_check_addr(L, 3);
  bdk_mux_box_unreachable(m, now_us, &remote);
  return 0;
}

// [-0, +1, e] mux:deadline() -> µs | nil
static int deadline(lua_State *L) {
  uint64_t due = bdk_mux_deadline(bdk_check_mux(L, 1)->mux);
  if (due == BDK_NEVER)
    lua_pushnil(L);
  else
    lua_pushinteger(L, (lua_Integer)due);
  return 1;
}

// [-0, +1..6, e] mux:next() -> nil | "send", sock, to, bytes, ttl, from or nil | kind, session, x
static int next(lua_State *L) {
  bdk_mux_box *m = bdk_check_mux(L, 1);
  bdk_output out;
  if (m->driven) luaL_error(L, "a driven mux has its outputs carried out");
  if (!bdk_mux_next(m->mux, &out)) {
    lua_pushnil(L);
    return 1;
  }
  bdk_trace_output(m, &out);
  if (out.kind != BDK_OUT_SEND) {
    push_event(L, &out);
    return 3;
  }
  lua_pushliteral(L, "send");
  lua_pushinteger(L, out.route.sock);
  bdk_push_addr(L, &out.route.remote);
  lua_pushlstring(L, (const char *)out.data, out.len);
  lua_pushinteger(L, out.route.ttl);
  if (!out.route.local.family) return 5;
  bdk_push_addr(L, &out.route.local);
  return 6;
}

// [-0, +1, e] mux:paths(session) -> array of { remote=, via=, state=, reason=, tests=, rtt_ms=, jitter_ms=, loss=,
// selected= } | nil
static int paths(lua_State *L) {
  bdk_mux_box *m = bdk_check_mux(L, 1);
  const bdk_session *s = bdk_mux_session(m->mux, check_session(L, 2));
  if (!s) {
    lua_pushnil(L);
    return 1;
  }
  lua_createtable(L, s->path_count, 0);
  for (int i = 0; i < s->path_count; i++) {
    const bdk_path *p = &s->paths[i];
    lua_createtable(L, 0, 7);
    bdk_push_addr(L, &p->route.remote);
    lua_setfield(L, -2, "remote");
    lua_pushstring(L, bdk_via_name(p->via));
    lua_setfield(L, -2, "via");
    lua_pushstring(L, bdk_path_state_name(p->state));
    lua_setfield(L, -2, "state");
    lua_pushstring(L, bdk_reason_name(p->reason));
    lua_setfield(L, -2, "reason");
    lua_pushinteger(L, p->attempt);
    lua_setfield(L, -2, "tests");
    lua_pushboolean(L, i == s->selected);
    lua_setfield(L, -2, "selected");
    if (p->rtts) {
      lua_pushnumber(L, (lua_Number)p->srtt_us / 1000);
      lua_setfield(L, -2, "rtt_ms");
      lua_pushnumber(L, (lua_Number)p->jitter_us / 1000);
      lua_setfield(L, -2, "jitter_ms");
    }
    if (p->questions) {
      lua_pushnumber(L, (lua_Number)bdk_path_loss(p) / 1000);
      lua_setfield(L, -2, "loss");
    }
    lua_rawseti(L, -2, i + 1);
  }
  return 1;
}

// [-0, +0, e] mux:close(): tells nobody; leave the sessions first. Idempotent
static int mux_close(lua_State *L) {
  bdk_mux_box *m = luaL_checkudata(L, 1, type);
  bdk_handle_close(L, &m->h);
  if (m->mux) free_mux(m);
  return 0;
}

static int mux_tostring(lua_State *L) {
  bdk_mux_box *m = luaL_checkudata(L, 1, type);
  lua_pushfstring(L, "mux (%s)", !m->mux ? "closed" : m->driven ? "driven" : "by hand");
  return 1;
}

void bdk_open_mux(lua_State *L) {
  static const luaL_Reg methods[] = {
      {"drive", drive},     {"add", add},     {"renew", renew},         {"send", send},
      {"hello", hello},     {"relay", relay}, {"listed", listed},       {"moved", moved},
      {"leave", leave},     {"input", input}, {"tick", tick},           {"deadline", deadline},
      {"next", next},       {"paths", paths}, {"trace", bdk_mux_trace}, {"unreachable", unreachable},
      {"close", mux_close}, {NULL, NULL},
  };
  static const luaL_Reg meta[] = {
      {"__gc", mux_close}, {"__close", mux_close}, {"__tostring", mux_tostring}, {NULL, NULL}};
  bdk_lua_type(L, type, methods, meta);
  lua_pushcfunction(L, new);
  lua_setfield(L, -2, "mux");
}
