// SPDX-License-Identifier: MIT
// core.wire: Lua values to msgpack and back. Encoding is deterministic: map keys are sorted, integers first.
#include "bind.h"

#include <stdlib.h>
#include <string.h>

static const char array_type[] = "bodkin.wire.array";
static const char bin_type[] = "bodkin.wire.bin";
enum { PAIRS_MAX = 32 }; // of a map, as bdk_wire_check has it

static bool is_utf8(const uint8_t *s, size_t len) {
  for (size_t i = 0; i < len;) {
    uint8_t c = s[i];
    size_t n = c < 0x80 ? 1 : c >= 0xc2 && c < 0xe0 ? 2 : c >= 0xe0 && c < 0xf0 ? 3 : c >= 0xf0 && c < 0xf5 ? 4 : 0;
    if (!n || n > len - i) return false;
    for (size_t k = 1; k < n; k++)
      if ((s[i + k] & 0xc0) != 0x80) return false;
    if ((c == 0xe0 && s[i + 1] < 0xa0) || (c == 0xed && s[i + 1] >= 0xa0) || (c == 0xf0 && s[i + 1] < 0x90) ||
        (c == 0xf4 && s[i + 1] >= 0x90))
      return false;
    i += n;
  }
  return true;
}

static int fail(lua_State *L, const char *code, const char *text) {
  lua_pushnil(L);
  lua_pushstring(L, text);
  lua_pushstring(L, code);
  return 3;
}

// --- encoding. On failure `why` and `code` say what; nothing throws but the checks for stack and memory.
typedef struct encoder {
  bdk_packer p;
  const char *code, *why;
} encoder;

static bool encode_value(lua_State *L, encoder *e, int idx, int depth);

static bool refuse(encoder *e, const char *code, const char *why) {
  e->code = code;
  e->why = why;
  return false;
}

static void encode_string(lua_State *L, encoder *e, int idx) {
  size_t len;
  const char *s = lua_tolstring(L, idx, &len);
  if (is_utf8((const uint8_t *)s, len))
    bdk_pack_str(&e->p, s, len);
  else
    bdk_pack_bin(&e->p, (const uint8_t *)s, len);
}

static bool encode_array(lua_State *L, encoder *e, int idx, int depth) {
  lua_Unsigned n = lua_rawlen(L, idx);
  if (n > BDK_DATAGRAM_MAX) return refuse(e, "limit", "an array is too long");
  bdk_pack_array(&e->p, (uint32_t)n);
  for (lua_Unsigned i = 1; i <= n; i++) {
    lua_rawgeti(L, idx, (lua_Integer)i);
    if (!encode_value(L, e, lua_gettop(L), depth + 1)) return false;
    lua_pop(L, 1);
  }
  return true;
}

bool bdk_read_key(lua_State *L, int idx, bdk_key *out) {
  *out = (bdk_key){0};
  if (lua_type(L, idx) == LUA_TSTRING)
    out->s = lua_tolstring(L, idx, &out->len);
  else if (lua_isinteger(L, idx))
    out->i = lua_tointeger(L, idx);
  else
    return false;
  return true;
}

void bdk_push_key(lua_State *L, const bdk_key *k) {
  if (k->s)
    lua_pushlstring(L, k->s, k->len);
  else
    lua_pushinteger(L, k->i);
}

int bdk_compare_keys(const void *pa, const void *pb) {
  const bdk_key *a = pa, *b = pb;
  if (!a->s || !b->s) {
    if (a->s || b->s) return a->s ? 1 : -1;
    return a->i < b->i ? -1 : a->i > b->i;
  }
  int order = memcmp(a->s, b->s, a->len < b->len ? a->len : b->len);
  if (order) return order;
  return a->len < b->len ? -1 : a->len > b->len;
}

static bool encode_map(lua_State *L, encoder *e, int idx, int depth) {
  bdk_key keys[PAIRS_MAX];
  int n = 0;
  for (lua_pushnil(L); lua_next(L, idx); lua_pop(L, 1)) {
    if (n == PAIRS_MAX) return refuse(e, "limit", "a map has more than 32 keys");
    if (!bdk_read_key(L, -2, &keys[n++])) return refuse(e, "invalid", "a key is neither a string nor an integer");
  }
  qsort(keys, (size_t)n, sizeof *keys, bdk_compare_keys);
  bdk_pack_map(&e->p, (uint32_t)n);
  for (int i = 0; i < n; i++) {
    bdk_push_key(L, &keys[i]);
    encode_value(L, e, lua_gettop(L), depth + 1);
    lua_rawget(L, idx);
    if (!encode_value(L, e, lua_gettop(L), depth + 1)) return false;
    lua_pop(L, 1);
  }
  return true;
}

static bool encode_table(lua_State *L, encoder *e, int idx, int depth) {
  if (depth > BDK_WIRE_DEPTH_MAX) return refuse(e, "limit", "nested deeper than 8");
  luaL_checkstack(L, 8, "encoding");
  if (lua_getmetatable(L, idx)) {
    luaL_getmetatable(L, array_type);
    bool forced = lua_rawequal(L, -1, -2);
    luaL_getmetatable(L, bin_type);
    bool bin = lua_rawequal(L, -1, -3);
    lua_pop(L, 3);
    if (bin) {
      size_t len = 0;
      lua_rawgeti(L, idx, 1);
      const char *s = lua_type(L, -1) == LUA_TSTRING ? lua_tolstring(L, -1, &len) : "";
      bdk_pack_bin(&e->p, (const uint8_t *)s, len);
      lua_pop(L, 1);
      return true;
    }
    if (forced) return encode_array(L, e, idx, depth);
  }
  lua_Unsigned n = lua_rawlen(L, idx), count = 0;
  for (lua_pushnil(L); lua_next(L, idx); lua_pop(L, 1)) {
    lua_Integer i = lua_isinteger(L, -2) ? lua_tointeger(L, -2) : 0;
    if (i < 1 || (lua_Unsigned)i > n) {
      lua_pop(L, 2);
      return encode_map(L, e, idx, depth);
    }
    count++;
  }
  return n && count == n ? encode_array(L, e, idx, depth) : encode_map(L, e, idx, depth);
}

static bool encode_value(lua_State *L, encoder *e, int idx, int depth) {
  switch (lua_type(L, idx)) {
  case LUA_TNIL:
    bdk_pack_nil(&e->p);
    break;
  case LUA_TLIGHTUSERDATA:
    if (lua_touserdata(L, idx)) return refuse(e, "invalid", "userdata cannot be encoded");
    bdk_pack_nil(&e->p);
    break;
  case LUA_TBOOLEAN:
    bdk_pack_bool(&e->p, lua_toboolean(L, idx));
    break;
  case LUA_TNUMBER:
    if (!lua_isinteger(L, idx))
      bdk_pack_float(&e->p, lua_tonumber(L, idx));
    else if (lua_tointeger(L, idx) >= 0)
      bdk_pack_uint(&e->p, (uint64_t)lua_tointeger(L, idx));
    else
      bdk_pack_int(&e->p, lua_tointeger(L, idx));
    break;
  case LUA_TSTRING:
    encode_string(L, e, idx);
    break;
  case LUA_TTABLE:
    if (!encode_table(L, e, idx, depth)) return false;
    break;
  default:
    return refuse(e, "invalid", "only nil, booleans, numbers, strings and tables can be encoded");
  }
  return !e->p.overflow || refuse(e, "limit", "longer than 1200 bytes");
}

size_t bdk_encode_wire(lua_State *L, int idx, uint8_t out[BDK_DATAGRAM_MAX], const char **code, const char **why) {
  encoder e = {.p = bdk_packer_init(out, BDK_DATAGRAM_MAX)};
  int top = lua_gettop(L);
  bool ok = encode_value(L, &e, idx, 1);
  if (ok && e.p.overflow) ok = refuse(&e, "limit", "longer than 1200 bytes");
  if (ok && !bdk_wire_check(out, e.p.len)) ok = refuse(&e, "limit", "not within the bounds that every reader sets");
  lua_settop(L, top);
  *code = e.code;
  *why = e.why;
  return ok ? e.p.len : 0;
}

// [-0, +1|3, e] encode(value) -> bytes | nil, message, code
static int encode(lua_State *L) {
  luaL_checkany(L, 1);
  lua_settop(L, 1);
  uint8_t out[BDK_DATAGRAM_MAX];
  const char *code, *why;
  size_t len = bdk_encode_wire(L, 1, out, &code, &why);
  if (!len) return fail(L, code, why);
  lua_pushlstring(L, (const char *)out, len);
  return 1;
}

// --- decoding of bytes that bdk_wire_check accepted
static void push_value(lua_State *L, bdk_reader *r) {
  bdk_item it;
  luaL_checkstack(L, 4, "decoding");
  if (!bdk_read(r, &it)) luaL_error(L, "checked bytes are not well formed");
  switch (it.kind) {
  case BDK_WIRE_BOOL:
    lua_pushboolean(L, it.b);
    break;
  case BDK_WIRE_UINT:
    if (it.u <= INT64_MAX)
      lua_pushinteger(L, (lua_Integer)it.u);
    else
      lua_pushnumber(L, (lua_Number)it.u);
    break;
  case BDK_WIRE_INT:
    lua_pushinteger(L, it.i);
    break;
  case BDK_WIRE_FLOAT:
    lua_pushnumber(L, it.f);
    break;
  case BDK_WIRE_STR:
  case BDK_WIRE_BIN:
    lua_pushlstring(L, (const char *)it.data, it.len);
    break;
  case BDK_WIRE_ARRAY:
    lua_createtable(L, (int)it.count, 0);
    for (uint32_t i = 1; i <= it.count; i++) {
      push_value(L, r);
      lua_rawseti(L, -2, i);
    }
    break;
  case BDK_WIRE_MAP:
    lua_createtable(L, 0, (int)it.count);
    for (uint32_t i = 0; i < it.count; i++) {
      push_value(L, r);
      push_value(L, r);
      lua_rawset(L, -3);
    }
    break;
  default:
    lua_pushlightuserdata(L, NULL);
  }
}

void bdk_push_wire(lua_State *L, const uint8_t *bytes, size_t len) {
  bdk_reader r = {bytes, bytes + len};
  push_value(L, &r);
}

// [-0, +1|3, e] decode(bytes) -> value | nil, message, code. nil is core.wire.null, everywhere.
static int decode(lua_State *L) {
  size_t len;
  const uint8_t *bytes = (const uint8_t *)luaL_checklstring(L, 1, &len);
  if (!bdk_wire_check(bytes, len)) return fail(L, "invalid", "not one well-formed msgpack value within the bounds");
  bdk_push_wire(L, bytes, len);
  return 1;
}

// [-0, +1, e] array(t) -> t, which encodes as an array even when empty
static int array(lua_State *L) {
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_settop(L, 1);
  luaL_setmetatable(L, array_type);
  return 1;
}

// [-0, +1, e] bin(s) -> a value that encodes as bin even when it is UTF-8
static int bin(lua_State *L) {
  luaL_checktype(L, 1, LUA_TSTRING);
  lua_createtable(L, 1, 0);
  lua_pushvalue(L, 1);
  lua_rawseti(L, -2, 1);
  luaL_setmetatable(L, bin_type);
  return 1;
}

void bdk_open_wire(lua_State *L) {
  static const luaL_Reg functions[] = {
      {"encode", encode}, {"decode", decode}, {"array", array}, {"bin", bin}, {NULL, NULL}};
  static const luaL_Reg meta[] = {{NULL, NULL}};
  bdk_lua_type(L, array_type, NULL, meta);
  bdk_lua_type(L, bin_type, NULL, meta);
  luaL_newlib(L, functions);
  lua_pushlightuserdata(L, NULL);
  lua_setfield(L, -2, "null");
  lua_setfield(L, -2, "wire");
}
