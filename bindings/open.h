// SPDX-License-Identifier: MIT
// What the parts of the module bodkin.core are opened by: each pushes nothing and fills the module table on the top of
// the stack.
#ifndef BDK_OPEN_H
#define BDK_OPEN_H

#include <lua.h>

typedef struct bdk_driver_kind bdk_driver_kind;
void bdk_open_addr(lua_State *L);
void bdk_open_assoc(lua_State *L);
void bdk_open_coord(lua_State *L);
void bdk_open_counters(lua_State *L);
void bdk_open_crypto(lua_State *L);
void bdk_open_file(lua_State *L);
void bdk_open_log(lua_State *L);
void bdk_open_loop(lua_State *L, const bdk_driver_kind *kind);
void bdk_open_mux(lua_State *L);
void bdk_open_registry(lua_State *L);
void bdk_open_relay(lua_State *L);
void bdk_open_router(lua_State *L);
void bdk_open_sandbox(lua_State *L);
void bdk_open_schema(lua_State *L); // after wire
void bdk_open_stream(lua_State *L); // the four of these after loop
void bdk_open_timer(lua_State *L);
void bdk_open_stun(lua_State *L);
void bdk_open_tun(lua_State *L);
void bdk_open_udp(lua_State *L);
void bdk_open_wire(lua_State *L);

#endif
