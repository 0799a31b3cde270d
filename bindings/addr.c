// SPDX-License-Identifier: MIT
// core.addr: addresses as packed strings of 6 or 18 bytes.
#include "bind.h"

bdk_addr bdk_check_addr(lua_State *L, int idx) {
  size_t len;
  const char *s = luaL_checklstring(L, idx, &len);
  bdk_addr a;
  if (bdk_addr_unpack(&a, (const uint8_t *)s, len)) luaL_argerror(L, idx, "packed address of 6 or 18 bytes expected");
  return a;
}

void bdk_push_addr(lua_State *L, const bdk_addr *a) {
  uint8_t packed[BDK_ADDR_WIRE_MAX];
  size_t len = bdk_addr_pack(a, packed);
  lua_pushlstring(L, (const char *)packed, len);
}

// [-0, +1|3, e] parse(text [, default_port]) -> addr | nil, message, code
static int parse(lua_State *L) {
  size_t len;
  const char *text = luaL_checklstring(L, 1, &len);
  lua_Integer port = luaL_optinteger(L, 2, 0);
  luaL_argcheck(L, port >= 0 && port <= 65535, 2, "port out of range");
  bdk_addr a;
  if (bdk_addr_parse(&a, text, len, (uint16_t)port)) {
    char shown[4 * 40];
    size_t n = bdk_log_escape(shown, text, len < 40 ? len : 40);
    return bdk_lua_invalid(L, "'%.*s' is not a numeric address (1.2.3.4:5 or [::1]:5)", (int)n, shown);
  }
  bdk_push_addr(L, &a);
  return 1;
}

// [-0, +1, e] format(addr) -> text
static int format(lua_State *L) {
  bdk_addr a = bdk_check_addr(L, 1);
  char text[BDK_ADDR_TEXT_MAX];
  size_t len = bdk_addr_format(&a, text);
  lua_pushlstring(L, text, len);
  return 1;
}

// [-0, +1, e] class(addr) -> "none|loopback|link_local|private|shared|multicast|public"
static int class(lua_State *L) {
  static const char *const names[] = {
      [BDK_ADDR_NONE] = "none",       [BDK_ADDR_LOOPBACK] = "loopback", [BDK_ADDR_LINK_LOCAL] = "link_local",
      [BDK_ADDR_PRIVATE] = "private", [BDK_ADDR_SHARED] = "shared",     [BDK_ADDR_MULTICAST] = "multicast",
      [BDK_ADDR_PUBLIC] = "public",
  };
  bdk_addr a = bdk_check_addr(L, 1);
  lua_pushstring(L, names[bdk_addr_classify(&a)]);
  return 1;
}

// [-0, +1, e] same_ip(a, b) -> bool
static int same_ip(lua_State *L) {
  bdk_addr a = bdk_check_addr(L, 1), b = bdk_check_addr(L, 2);
  lua_pushboolean(L, bdk_addr_same_ip(&a, &b));
  return 1;
}

// [-0, +1, e] port(addr) -> integer
static int port(lua_State *L) {
  bdk_addr a = bdk_check_addr(L, 1);
  lua_pushinteger(L, a.port);
  return 1;
}

// [-0, +1, e] with_port(addr, n) -> addr
static int with_port(lua_State *L) {
  bdk_addr a = bdk_check_addr(L, 1);
  lua_Integer n = luaL_checkinteger(L, 2);
  luaL_argcheck(L, n >= 0 && n <= 65535, 2, "port out of range");
  a.port = (uint16_t)n;
  bdk_push_addr(L, &a);
  return 1;
}

// [-0, +1, e] family(addr) -> 4 | 6
static int family(lua_State *L) {
  bdk_addr a = bdk_check_addr(L, 1);
  lua_pushinteger(L, a.family);
  return 1;
}

// [-0, +1, e] mask(addr, tx) -> the address XORed as in an address report; its own inverse. The bytes are
// not made canonical: a masked address is no address.
static int mask(lua_State *L) {
  size_t len, tx_len;
  const char *s = luaL_checklstring(L, 1, &len);
  const char *tx = luaL_checklstring(L, 2, &tx_len);
  luaL_argcheck(L, len == 6 || len == BDK_ADDR_WIRE_MAX, 1, "packed address of 6 or 18 bytes expected");
  luaL_argcheck(L, tx_len == BDK_TX_LEN, 2, "transaction id of 12 bytes expected");
  uint8_t packed[BDK_ADDR_WIRE_MAX];
  for (size_t i = 0; i < len; i++) packed[i] = (uint8_t)s[i];
  bdk_addr_mask(packed, len, (const uint8_t *)tx);
  lua_pushlstring(L, (const char *)packed, len);
  return 1;
}

void bdk_open_addr(lua_State *L) {
  static const luaL_Reg functions[] = {
      {"parse", parse},         {"format", format}, {"class", class}, {"same_ip", same_ip}, {"port", port},
      {"with_port", with_port}, {"family", family}, {"mask", mask},   {NULL, NULL},
  };
  luaL_newlib(L, functions);
  lua_setfield(L, -2, "addr");
}
