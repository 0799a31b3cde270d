// SPDX-License-Identifier: MIT
// loop:udp, and loop:tcp, its like over connections: what comes in goes to the mux first, then to the router, then to a
// function.
#include "router.h"
#include "udp_box.h"

#include <string.h>

static const char type[] = "bodkin.udp";
enum { LOOP = 1, COUNTERS = 2, ROUTER = 3, MUX = 4, READER = 5 };

static bool is_open(const bdk_udp_box *u) { return u->udp || u->tcp; }

static bdk_udp_box *check(lua_State *L) {
  bdk_udp_box *u = luaL_checkudata(L, 1, type);
  if (!is_open(u)) luaL_error(L, "closed socket");
  return u;
}

static void release(bdk_handle *h) {
  bdk_udp_box *u = (bdk_udp_box *)h;
  bdk_mux_detach(u);
  bdk_udp_close(u->udp);
  bdk_tcp_close(u->tcp);
  u->udp = NULL;
  u->tcp = NULL;
}

int bdk_udp_box_send(bdk_udp_box *u, const bdk_addr *local, const bdk_addr *to, uint8_t ttl, const uint8_t *data,
                     size_t len) {
  if (!is_open(u)) return BDK_E_CLOSED;
  bdk_route route = {.local = *local, .remote = *to, .sock = u->number, .ttl = ttl};
  return u->tcp ? bdk_tcp_send(u->tcp, &route, data, len) : bdk_udp_send(u->udp, &route, data, len);
}

void bdk_udp_box_flush(const bdk_udp_box *u) {
  if (u->udp) bdk_udp_flush(u->udp);
  if (u->tcp) bdk_tcp_flush(u->tcp);
}

// --- packets

// Runs inside bdk_lua_call. 1: the socket, 2: the packet. fn(from, bytes, to)
static int call_reader(lua_State *L) {
  const bdk_packet *p = lua_touserdata(L, 2);
  lua_getiuservalue(L, 1, READER);
  bdk_push_addr(L, &p->route.remote);
  lua_pushlstring(L, (const char *)p->data, p->len);
  bdk_push_addr(L, &p->route.local);
  lua_call(L, 3, 0);
  return 0;
}

// The socket's userdata is at `self`.
static void dispatch(lua_State *L, bdk_udp_box *u, int self, const bdk_packet *p) {
  if (u->mux && bdk_mux_box_input(u->mux, u->h.loop->driver->now_us, &p->route, p->data, p->len)) return;
  if (!is_open(u)) return; // closed by an event of the mux
  if (u->has_router) {
    lua_getiuservalue(L, self, ROUTER);
    bool taken = bdk_router_input(L, lua_gettop(L), 0, u, &p->route, p->data, p->len, u->has_reader);
    lua_pop(L, 1);
    if (taken || !u->has_reader) return;
  }
  if (u->has_reader) {
    lua_pushcfunction(L, call_reader);
    lua_pushvalue(L, self);
    lua_pushlightuserdata(L, (void *)p);
    if (!bdk_lua_call(L, 2, 0)) bdk_count(u->counters, BDK_COUNT_handler_error, 1);
  } else {
    bdk_count(u->counters, BDK_COUNT_drop_unknown, 1);
  }
}

static void on_packets(bdk_udp_box *u, const bdk_packet *packets, int count) {
  lua_State *L = u->h.loop->L;
  if (!lua_checkstack(L, 16) || !bdk_handle_push(L, &u->h)) return;
  int self = lua_gettop(L); // and so it stays alive, should it be closed meanwhile
  for (int i = 0; i < count && is_open(u); i++) dispatch(L, u, self, &packets[i]);
  lua_settop(L, self - 1);
}

static void on_udp_packets(void *ctx, bdk_udp *udp, const bdk_packet *packets, int count) {
  (void)udp;
  on_packets(ctx, packets, count);
}

static void on_tcp_packets(void *ctx, bdk_tcp *tcp, const bdk_packet *packets, int count) {
  (void)tcp;
  on_packets(ctx, packets, count);
}

static void on_unreachable(void *ctx, bdk_udp *udp, const bdk_addr *remote, int error) {
  (void)udp;
  (void)error;
  bdk_udp_box *u = ctx;
  if (u->mux) bdk_mux_box_unreachable(u->mux, u->h.loop->driver->now_us, remote);
}

// --- methods
// The arguments of both: 1 the loop, 2 the address, 3 a table, 4 its counters.
static bdk_addr check_options(lua_State *L, bdk_counters **counters) {
  bdk_addr bind = bdk_check_addr(L, 2);
  if (lua_isnoneornil(L, 3)) {
    lua_settop(L, 2);
    lua_newtable(L);
  }
  luaL_checktype(L, 3, LUA_TTABLE);
  lua_settop(L, 3);
  lua_getfield(L, 3, "counters");
  *counters = bdk_check_counters(L, 4);
  return bind;
}

// Pushes one that is closed yet, anchored on its loop.
static bdk_udp_box *new_box(lua_State *L, bdk_counters *counters, uint16_t number) {
  bdk_udp_box *u = lua_newuserdatauv(L, sizeof *u, 5);
  memset(u, 0, sizeof *u);
  u->counters = counters;
  u->number = number;
  luaL_setmetatable(L, type);
  lua_pushvalue(L, 1);
  lua_setiuservalue(L, 5, LOOP);
  lua_pushvalue(L, 4);
  lua_setiuservalue(L, 5, COUNTERS);
  bdk_handle_open(L, 1, 5, release);
  return u;
}

static int opened(lua_State *L, bdk_udp_box *u, int error, const bdk_addr *bind) {
  if (!error) return 1;
  u->udp = NULL;
  u->tcp = NULL;
  bdk_handle_close(L, &u->h);
  char text[BDK_ADDR_TEXT_MAX];
  bdk_addr_format(bind, text);
  return bdk_lua_failf(L, error, "cannot bind %s", text);
}

// [-0, +1|3, e] loop:udp(bind_addr [, { counters=, number=, max_bytes= }]) -> udp | nil, message, code
static int open(lua_State *L) {
  bdk_udp_config config = {.driver = bdk_check_real(L, 1)->driver};
  config.bind = check_options(L, &config.counters);
  config.number = (uint16_t)bdk_opt_integer(L, 3, "number", 0, 0, UINT16_MAX);
  config.max_len = (uint16_t)bdk_opt_integer(L, 3, "max_bytes", 0, 0, BDK_UDP_LEN_MAX);
  bdk_udp_box *u = new_box(L, config.counters, config.number);
  config.on_packets = on_udp_packets;
  config.on_unreachable = on_unreachable;
  config.ctx = u;
  return opened(L, u, bdk_udp_open(&u->udp, &config), &config.bind);
}

// [-0, +1|3, e] loop:tcp(bind_addr [, { counters=, number=, port=, max=, max_each= }]) -> udp | nil, message, code
// Connects to that port of whoever is sent to; without one it listens. max: connections, each: of one source.
static int open_tcp(lua_State *L) {
  bdk_tcp_config config = {.driver = bdk_check_real(L, 1)->driver};
  config.bind = check_options(L, &config.counters);
  config.number = (uint16_t)bdk_opt_integer(L, 3, "number", 0, 0, UINT16_MAX);
  config.port = (uint16_t)bdk_opt_integer(L, 3, "port", 0, 0, UINT16_MAX);
  config.listens = config.port == 0;
  config.max = (uint32_t)bdk_opt_integer(L, 3, "max", 0, 0, UINT32_MAX);
  config.max_each = (uint32_t)bdk_opt_integer(L, 3, "max_each", 0, 0, UINT32_MAX);
  bdk_udp_box *u = new_box(L, config.counters, config.number);
  config.on_packets = on_tcp_packets;
  config.ctx = u;
  return opened(L, u, bdk_tcp_open(&u->tcp, &config), &config.bind);
}

// [-0, +1, e] udp:router(router) -> udp
static int router(lua_State *L) {
  bdk_udp_box *u = check(L);
  bdk_check_router(L, 2);
  lua_settop(L, 2);
  lua_setiuservalue(L, 1, ROUTER);
  u->has_router = true;
  return 1;
}

// [-0, +1, e] udp:mux(mux) -> udp; the mux is driven by the same loop
static int mux(lua_State *L) {
  bdk_udp_box *u = check(L);
  bdk_mux_box *m = bdk_check_mux(L, 2);
  luaL_argcheck(L, m->driven && m->h.loop == u->h.loop, 2, "not driven by this socket's loop");
  luaL_argcheck(L, !u->mux, 2, "the socket has a mux already");
  lua_settop(L, 2);
  if (bdk_mux_attach(m, u)) luaL_argerror(L, 1, lua_pushfstring(L, "the mux has a socket number %d", u->number));
  lua_setiuservalue(L, 1, MUX);
  return 1;
}

// [-0, +1|3, e] udp:send(to, bytes [, ttl [, from]]) -> true | nil, message, code
static int send(lua_State *L) {
  bdk_udp_box *u = check(L);
  bdk_addr to = bdk_check_addr(L, 2), from = {0};
  size_t len;
  const char *bytes = luaL_checklstring(L, 3, &len);
  lua_Integer ttl = luaL_optinteger(L, 4, 0);
  luaL_argcheck(L, ttl >= 0 && ttl <= 255, 4, "TTL out of range");
  if (!lua_isnoneornil(L, 5)) from = bdk_check_addr(L, 5);
  int error = bdk_udp_box_send(u, &from, &to, (uint8_t)ttl, (const uint8_t *)bytes, len);
  if (error) return bdk_lua_fail(L, error);
  lua_pushboolean(L, true);
  return 1;
}

// [-0, +1, e] udp:addr() -> the bound address; an unspecified IP stays so
static int addr(lua_State *L) {
  const bdk_udp_box *u = check(L);
  bdk_push_addr(L, u->tcp ? bdk_tcp_local(u->tcp) : bdk_udp_local(u->udp));
  return 1;
}

// [-0, +1, e] udp:number() -> what the mux knows it by
static int number(lua_State *L) {
  bdk_udp_box *u = luaL_checkudata(L, 1, type);
  lua_pushinteger(L, u->number);
  return 1;
}

// [-0, +1, e] udp:on_packet(fn(from, bytes, to) | nil) -> udp; gets what neither mux nor router takes
static int on_packet(lua_State *L) {
  bdk_udp_box *u = check(L);
  if (!lua_isnoneornil(L, 2)) luaL_checktype(L, 2, LUA_TFUNCTION);
  lua_settop(L, 2);
  u->has_reader = !lua_isnil(L, 2);
  lua_setiuservalue(L, 1, READER);
  return 1;
}

// [-0, +0, e] udp:close(); idempotent
static int udp_close(lua_State *L) {
  bdk_udp_box *u = luaL_checkudata(L, 1, type);
  bdk_handle_close(L, &u->h);
  return 0;
}

static int udp_tostring(lua_State *L) {
  bdk_udp_box *u = luaL_checkudata(L, 1, type);
  char text[BDK_ADDR_TEXT_MAX] = "closed";
  if (is_open(u)) bdk_addr_format(u->tcp ? bdk_tcp_local(u->tcp) : bdk_udp_local(u->udp), text);
  lua_pushfstring(L, "%s (%s)", u->tcp ? "tcp" : "udp", text);
  return 1;
}

void bdk_open_udp(lua_State *L) {
  static const luaL_Reg methods[] = {
      {"router", router},       {"mux", mux},         {"send", send}, {"addr", addr}, {"number", number},
      {"on_packet", on_packet}, {"close", udp_close}, {NULL, NULL},
  };
  static const luaL_Reg meta[] = {
      {"__gc", udp_close}, {"__close", udp_close}, {"__tostring", udp_tostring}, {NULL, NULL}};
  bdk_lua_type(L, type, methods, meta);
  luaL_getmetatable(L, "bodkin.loop");
  lua_getfield(L, -1, "__index");
  lua_pushcfunction(L, open);
  lua_setfield(L, -2, "udp");
  lua_pushcfunction(L, open_tcp);
  lua_setfield(L, -2, "tcp");
  lua_pop(L, 2);
}
