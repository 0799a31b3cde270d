// SPDX-License-Identifier: MIT
// The module bodkin.core: everything C offers to scripts, on whatever kind of loop its host has.
#include "bind.h"

#include <sodium.h>

#include "io/iface.h"
#include "io/os.h"

// [-0, +1, -] now() -> µs on the machine's monotonic clock
static int now(lua_State *L) {
  lua_pushinteger(L, (lua_Integer)bdk_os_now_us());
  return 1;
}

// [-0, +1|3, e] interfaces() -> array of { name=, addr=, up=, loopback= } | nil, message, code
static int interfaces(lua_State *L) {
  enum { MAX = 128 };
  bdk_iface *list = lua_newuserdatauv(L, MAX * sizeof *list, 0);
  int n = bdk_iface_list(list, MAX);
  if (n < 0) return bdk_lua_failf(L, n, "cannot list the interfaces");
  if (n > MAX) n = MAX;
  lua_createtable(L, n, 0);
  for (int i = 0; i < n; i++) {
    lua_createtable(L, 0, 4);
    lua_pushstring(L, list[i].name);
    lua_setfield(L, -2, "name");
    bdk_push_addr(L, &list[i].addr);
    lua_setfield(L, -2, "addr");
    lua_pushboolean(L, list[i].up);
    lua_setfield(L, -2, "up");
    lua_pushboolean(L, list[i].loopback);
    lua_setfield(L, -2, "loopback");
    lua_rawseti(L, -2, i + 1);
  }
  return 1;
}

static void push_errors(lua_State *L) {
  static const struct {
    const char *name, *text;
    int value, exit;
  } errors[] = {
#define X(NAME, value, name, exit, text) {name, text, value, exit},
      BDK_ERRORS(X)
#undef X
  };
  lua_newtable(L);
  for (size_t i = 0; i < sizeof errors / sizeof *errors; i++) {
    lua_createtable(L, 0, 3);
    lua_pushinteger(L, errors[i].value);
    lua_setfield(L, -2, "value");
    lua_pushinteger(L, errors[i].exit);
    lua_setfield(L, -2, "exit");
    lua_pushstring(L, errors[i].text);
    lua_setfield(L, -2, "text");
    lua_setfield(L, -2, errors[i].name);
  }
}

int bdk_open_core(lua_State *L, const bdk_driver_kind *kind) {
  luaL_checkversion(L);
  if (sodium_init() < 0) return luaL_error(L, "libsodium cannot be initialised");
  static const luaL_Reg functions[] = {
      {"now", now}, {"interfaces", interfaces}, {"on_error", bdk_on_error}, {NULL, NULL}};
  luaL_newlib(L, functions);
  lua_pushliteral(L, BDK_VERSION);
  lua_setfield(L, -2, "version");
  lua_pushinteger(L, BDK_PROTOCOL_VERSION);
  lua_setfield(L, -2, "protocol_version");
  push_errors(L);
  lua_setfield(L, -2, "errors");
  bdk_open_addr(L);
  bdk_open_assoc(L);
  bdk_open_coord(L);
  bdk_open_counters(L);
  bdk_open_crypto(L);
  bdk_open_file(L);
  bdk_open_log(L);
  bdk_open_wire(L);
  bdk_open_schema(L);
  bdk_open_router(L);
  bdk_open_loop(L, kind);
  bdk_open_timer(L);
  bdk_open_tun(L);
  bdk_open_udp(L);
  bdk_open_stream(L);
  bdk_open_mux(L);
  bdk_open_registry(L);
  bdk_open_relay(L);
  bdk_open_sandbox(L);
  bdk_open_stun(L);
  return 1;
}
