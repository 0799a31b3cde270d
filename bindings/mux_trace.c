// SPDX-License-Identifier: MIT
#include "mux_trace.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define TRACE_MAX 4096 // the longest: a datagram of 1200 bytes in hex, and two addresses

typedef struct line {
  char text[TRACE_MAX];
  size_t len;
} line;

__attribute__((format(printf, 2, 3))) static void put(line *l, const char *format, ...) {
  va_list args;
  va_start(args, format);
  int n = vsnprintf(l->text + l->len, sizeof l->text - l->len, format, args);
  va_end(args);
  l->len += n > 0 ? (size_t)n : 0;
  if (l->len >= sizeof l->text) l->len = sizeof l->text - 1;
}

static void put_hex(line *l, const uint8_t *bytes, size_t len) {
  static const char digits[] = "0123456789abcdef";
  put(l, len ? " " : " -");
  for (size_t i = 0; i < len && l->len + 2 < sizeof l->text; i++) {
    l->text[l->len++] = digits[bytes[i] >> 4];
    l->text[l->len++] = digits[bytes[i] & 15];
  }
}

static void put_addr(line *l, const bdk_addr *a) {
  char text[BDK_ADDR_TEXT_MAX] = "-";
  if (a->family) bdk_addr_format(a, text);
  put(l, " %s", text);
}

static void put_candidates(line *l, const bdk_candidate *list, uint32_t count) {
  for (uint32_t i = 0; i < count; i++) {
    put(l, " %s %u", bdk_via_name(list[i].via), list[i].sock);
    put_addr(l, &list[i].addr);
  }
}

// Runs inside bdk_lua_call. 1: the mux, 2: the text, 3: its length
static int call(lua_State *L) {
  const char *text = lua_touserdata(L, 2);
  lua_getiuservalue(L, 1, BDK_MUX_TRACE);
  lua_pushlstring(L, text, (size_t)lua_tointeger(L, 3));
  lua_call(L, 1, 0);
  return 0;
}

static void say(bdk_mux_box *m, const line *l) {
  lua_State *L = m->L;
  if (!lua_checkstack(L, 8)) return;
  lua_rawgetp(L, LUA_REGISTRYINDEX, m); // anchored while it is traced
  lua_pushcfunction(L, call);
  lua_pushvalue(L, -2);
  lua_pushlightuserdata(L, (void *)(uintptr_t)l->text);
  lua_pushinteger(L, (lua_Integer)l->len);
  if (!bdk_lua_call(L, 3, 0)) bdk_count(m->counters, BDK_COUNT_handler_error, 1);
  lua_pop(L, 1);
}

int bdk_mux_trace(lua_State *L) {
  bdk_mux_box *m = bdk_check_mux(L, 1);
  if (!lua_isnoneornil(L, 2)) luaL_checktype(L, 2, LUA_TFUNCTION);
  lua_settop(L, 2);
  m->traced = lua_isfunction(L, 2);
  lua_setiuservalue(L, 1, BDK_MUX_TRACE);
  if (!m->traced) {
    bdk_mux_untrace(L, m);
    return 0;
  }
  lua_pushvalue(L, 1);
  lua_rawsetp(L, LUA_REGISTRYINDEX, m);
  line l = {.len = 0};
  put(&l, "bodkin-trace 3");
  put_hex(&l, m->seed, sizeof m->seed);
  put(&l, " %" PRIu32, m->max_sessions);
  say(m, &l);
  return 0;
}

void bdk_mux_untrace(lua_State *L, bdk_mux_box *m) {
  m->traced = false;
  lua_pushnil(L);
  lua_rawsetp(L, LUA_REGISTRYINDEX, m);
}

void bdk_trace_add(bdk_mux_box *m, uint64_t now_us, const bdk_match *match) {
  if (!m->traced) return;
  line l = {.len = 0};
  put(&l, "%" PRIu64 " add", now_us);
  put_hex(&l, match->match, BDK_MATCH_LEN);
  put_hex(&l, match->key, BDK_KEY_LEN);
  put_hex(&l, match->self, BDK_ID_LEN);
  put_hex(&l, match->peer, BDK_ID_LEN);
  put_hex(&l, (const uint8_t *)&match->own, sizeof match->own);
  put_hex(&l, (const uint8_t *)&match->own_ephemeral, sizeof match->own_ephemeral);
  put_hex(&l, match->peer_key, BDK_DH_LEN);
  put_hex(&l, match->peer_ephemeral, BDK_DH_LEN);
  put(&l, " %" PRIu64 " %u", match->start_in_us, match->opener_ttl);
  put_candidates(&l, match->candidates, match->count);
  say(m, &l);
}

void bdk_trace_renew(bdk_mux_box *m, uint64_t now_us, uint32_t session, const bdk_renewal *renewal) {
  if (!m->traced) return;
  line l = {.len = 0};
  put(&l, "%" PRIu64 " renew %" PRIu32 " %" PRIu32, now_us, session, renewal->epoch);
  put(&l, " %" PRIu64 " %u", renewal->start_in_us, renewal->opener_ttl);
  put_candidates(&l, renewal->candidates, renewal->count);
  say(m, &l);
}

void bdk_trace_listed(bdk_mux_box *m, uint64_t now_us, uint32_t session, const bdk_candidate *list, uint32_t count) {
  if (!m->traced) return;
  line l = {.len = 0};
  put(&l, "%" PRIu64 " listed %" PRIu32, now_us, session);
  put_candidates(&l, list, count);
  say(m, &l);
}

void bdk_trace_moved(bdk_mux_box *m, uint64_t now_us, const bdk_addr *left, uint32_t count) {
  if (!m->traced) return;
  line l = {.len = 0};
  put(&l, "%" PRIu64 " moved", now_us);
  for (uint32_t i = 0; i < count; i++) put_addr(&l, &left[i]);
  say(m, &l);
}

void bdk_trace_send(bdk_mux_box *m, uint64_t now_us, uint32_t session, const uint8_t *bytes, size_t len) {
  if (!m->traced) return;
  line l = {.len = 0};
  put(&l, "%" PRIu64 " send %" PRIu32, now_us, session);
  put_hex(&l, bytes, len <= BDK_PAYLOAD_MAX ? len : BDK_PAYLOAD_MAX + 1); // longer ones fail alike
  say(m, &l);
}

void bdk_trace_hello(bdk_mux_box *m, uint32_t session) {
  if (!m->traced) return;
  line l = {.len = 0};
  put(&l, "0 hello %" PRIu32, session);
  say(m, &l);
}

void bdk_trace_relay(bdk_mux_box *m, uint64_t now_us, uint32_t session, const bdk_route *route, const uint8_t *hello,
                     size_t len) {
  if (!m->traced) return;
  line l = {.len = 0};
  put(&l, "%" PRIu64 " relay %" PRIu32 " %u", now_us, session, route->sock);
  put_addr(&l, &route->remote);
  put(&l, " %" PRIu32, route->channel);
  put_hex(&l, hello, len);
  say(m, &l);
}

void bdk_trace_leave(bdk_mux_box *m, uint64_t now_us, uint32_t session) {
  if (!m->traced) return;
  line l = {.len = 0};
  put(&l, "%" PRIu64 " leave %" PRIu32, now_us, session);
  say(m, &l);
}

void bdk_trace_input(bdk_mux_box *m, uint64_t now_us, const bdk_route *route, const uint8_t *bytes, size_t len) {
  if (!m->traced) return;
  line l = {.len = 0};
  put(&l, "%" PRIu64 " input %u", now_us, route->sock);
  put_addr(&l, &route->remote);
  put_addr(&l, &route->local);
  put_hex(&l, bytes, len);
  say(m, &l);
}

void bdk_trace_tick(bdk_mux_box *m, uint64_t now_us) {
  if (!m->traced) return;
  line l = {.len = 0};
  put(&l, "%" PRIu64 " tick", now_us);
  say(m, &l);
}

void bdk_trace_unreachable(bdk_mux_box *m, uint64_t now_us, const bdk_addr *remote) {
  if (!m->traced) return;
  line l = {.len = 0};
  put(&l, "%" PRIu64 " unreachable", now_us);
  put_addr(&l, remote);
  say(m, &l);
}

void bdk_trace_output(bdk_mux_box *m, const bdk_output *out) {
  if (!m->traced) return;
  line l = {.len = 0};
  put(&l, "> %" PRIu32, out->session);
  switch (out->kind) {
  case BDK_OUT_SEND:
    put(&l, " send %u", out->route.sock);
    put_addr(&l, &out->route.remote);
    put(&l, " %u", out->route.ttl);
    put_hex(&l, out->data, out->len);
    break;
  case BDK_OUT_CONNECTED:
  case BDK_OUT_PATH:
    put(&l, out->kind == BDK_OUT_PATH ? " path" : " connected");
    put(&l, " %s %s", bdk_path_kind(out), bdk_via_name(out->via));
    put_addr(&l, &out->route.remote);
    put(&l, " %" PRIu64 " %" PRIu32, out->since_us, out->rtt_us);
    break;
  case BDK_OUT_MESSAGE:
    put(&l, " message");
    put_hex(&l, out->data, out->len);
    break;
  case BDK_OUT_RELAY_LOST:
    put(&l, " relay_lost");
    put_addr(&l, &out->route.remote);
    break;
  case BDK_OUT_DOUBT:
    put(&l, " doubt");
    break;
  case BDK_OUT_CLOSED:
    put(&l, " closed %s", bdk_reason_name(out->reason));
    break;
  case BDK_OUT_SILENT:
    put(&l, " silent");
    break;
  }
  say(m, &l);
}
