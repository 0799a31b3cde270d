// SPDX-License-Identifier: MIT
// core.stun: Binding requests and answers as bytes. What comes in goes through the router.
#include "core/stun.h"
#include "bind.h"

// [-0, +1, e] request(tx) -> bytes
static int request(lua_State *L) {
  size_t len;
  const char *tx = luaL_checklstring(L, 1, &len);
  luaL_argcheck(L, len == BDK_TX_LEN, 1, "transaction id of 12 bytes expected");
  uint8_t out[BDK_STUN_REQUEST_LEN];
  lua_pushlstring(L, (const char *)out, bdk_stun_write_request((const uint8_t *)tx, out));
  return 1;
}

// [-0, +1|3, e] answer(bytes, addr) -> bytes | nil, message, code: to a Binding request that came from there
static int answer(lua_State *L) {
  size_t len;
  const char *bytes = luaL_checklstring(L, 1, &len);
  bdk_addr from = bdk_check_addr(L, 2);
  bdk_stun s;
  if (bdk_stun_read(&s, (const uint8_t *)bytes, len) != 0 || s.kind != BDK_STUN_REQUEST)
    return bdk_lua_invalid(L, "no STUN Binding request");
  uint8_t out[BDK_STUN_ANSWER_MAX];
  size_t n = bdk_stun_write_answer(&s, &from, out);
  if (!n) return bdk_lua_fail(L, BDK_E_LIMIT);
  lua_pushlstring(L, (const char *)out, n);
  return 1;
}

void bdk_open_stun(lua_State *L) {
  static const luaL_Reg functions[] = {{"request", request}, {"answer", answer}, {NULL, NULL}};
  luaL_newlib(L, functions);
  lua_setfield(L, -2, "stun");
}
