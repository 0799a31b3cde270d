// SPDX-License-Identifier: MIT
// core.coord: network coordinates as strings of 18 bytes, see core/coords.h.
#include "bind.h"
#include "core/coords.h"

enum { MEASURED_MAX = 32, PASSES_MAX = 100 };

static bdk_coord check_coord(lua_State *L, int idx) {
  bdk_coord c;
  bool ok = bdk_coord_read(&c, bdk_check_bytes(L, idx, BDK_COORD_LEN));
  luaL_argcheck(L, ok, idx, "a coordinate out of bounds");
  return c;
}

static int push_coord(lua_State *L, const bdk_coord *c) {
  uint8_t bytes[BDK_COORD_LEN];
  bdk_coord_write(c, bytes);
  lua_pushlstring(L, (const char *)bytes, sizeof bytes);
  return 1;
}

// [-0, +1, e] pack(x, y, z, height, error) -> coord: what is out of bounds is moved to them
static int pack(lua_State *L) {
  bdk_coord c = {.at = {luaL_checknumber(L, 1), luaL_checknumber(L, 2), luaL_checknumber(L, 3)},
                 .height = luaL_checknumber(L, 4),
                 .error = luaL_checknumber(L, 5)};
  return push_coord(L, &c);
}

// [-0, +5, e] unpack(coord) -> x, y, z, height, error
static int unpack(lua_State *L) {
  bdk_coord c = check_coord(L, 1);
  for (int i = 0; i < BDK_COORD_DIMS; i++) lua_pushnumber(L, c.at[i]);
  lua_pushnumber(L, c.height);
  lua_pushnumber(L, c.error);
  return BDK_COORD_DIMS + 2;
}

// [-0, +1, e] refine(coord or nil, salt, passes, peer, rtt_ms, peer, rtt_ms, …) -> coord: after measurements to peers,
// which stay where they are; nil: never measured before. salt: another integer for each host
static int refine(lua_State *L) {
  bdk_measured list[MEASURED_MAX];
  size_t count = 0;
  bdk_coord c;
  bdk_coord_init(&c);
  if (!lua_isnil(L, 1)) c = check_coord(L, 1);
  lua_Integer salt = luaL_checkinteger(L, 2), passes = luaL_checkinteger(L, 3);
  luaL_argcheck(L, passes >= 0 && passes <= PASSES_MAX, 3, "passes out of range");
  luaL_argcheck(L, lua_gettop(L) <= 3 + 2 * MEASURED_MAX, 4, "too many measurements");
  for (int i = 4; i <= lua_gettop(L); i += 2)
    list[count++] = (bdk_measured){.peer = check_coord(L, i), .rtt_ms = luaL_checknumber(L, i + 1)};
  bdk_coord_refine(&c, list, count, (int)passes, (uint64_t)salt);
  return push_coord(L, &c);
}

// [-0, +1, e] distance(coord, coord) -> ms
static int distance(lua_State *L) {
  bdk_coord a = check_coord(L, 1), b = check_coord(L, 2);
  lua_pushnumber(L, bdk_coord_distance_ms(&a, &b));
  return 1;
}

void bdk_open_coord(lua_State *L) {
  static const luaL_Reg functions[] = {
      {"pack", pack}, {"unpack", unpack}, {"refine", refine}, {"distance", distance}, {NULL, NULL}};
  luaL_newlib(L, functions);
  lua_setfield(L, -2, "coord");
}
