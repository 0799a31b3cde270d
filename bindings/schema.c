// SPDX-License-Identifier: MIT
// core.wire.schema: messages declared in Lua, encoded from and decoded to positional values.
#include "bind.h"

#include <string.h>

static const char type[] = "bodkin.schema";
enum { FIELDS = 1, NAMES = 2 }; // user values: what Lua may see and change; what keeps the names' bytes alive

static const struct {
  const char *name;
  bdk_field_kind kind;
  lua_Integer min, max; // when not given
} kinds[] = {
    {"uint", BDK_FIELD_UINT, 0, LUA_MAXINTEGER},
    {"bool", BDK_FIELD_BOOL, 0, 0},
    {"bin", BDK_FIELD_BIN, 0, BDK_DATAGRAM_MAX},
    {"str", BDK_FIELD_STR, 0, BDK_DATAGRAM_MAX},
    {"addr", BDK_FIELD_ADDR, 0, 0},
    {"addrs", BDK_FIELD_ADDRS, 0, 16},
    {"bins", BDK_FIELD_BINS, 0, 16},
    {"any", BDK_FIELD_ANY, 1, BDK_DATAGRAM_MAX},
    {"pad", BDK_FIELD_PAD, 0, 0},
};
enum { KINDS = sizeof kinds / sizeof *kinds };

const bdk_schema *bdk_check_schema(lua_State *L, int idx) { return luaL_checkudata(L, idx, type); }

static int find_kind(const char *name, size_t len) {
  for (int i = 0; i < KINDS; i++)
    if (strlen(kinds[i].name) == len && memcmp(kinds[i].name, name, len) == 0) return i;
  return -1;
}

// Keeps the string on the top alive with the schema at `self`; pops it and gives its bytes.
static const char *keep_name(lua_State *L, int self) {
  lua_getiuservalue(L, self, NAMES);
  lua_pushvalue(L, -2);
  lua_rawseti(L, -2, (lua_Integer)lua_rawlen(L, -2) + 1);
  const char *s = lua_tostring(L, -2);
  lua_pop(L, 2);
  return s;
}

// The definition { name, kind [, min [, max]] } on the top.
static void read_field(lua_State *L, int self, bdk_schema *s, bdk_field_def *f) {
  int at = lua_gettop(L);
  if (!lua_istable(L, at)) luaL_error(L, "a field is { name, kind, min, max }");
  if (lua_rawgeti(L, at, 1) != LUA_TSTRING) luaL_error(L, "a field's name is a string");
  f->name = keep_name(L, self);
  for (int i = 0; i < s->count; i++)
    if (strcmp(s->fields[i].name, f->name) == 0) luaL_error(L, "field '%s' is there twice", f->name);
  size_t len = 0;
  lua_rawgeti(L, at, 2);
  const char *kind = lua_type(L, -1) == LUA_TSTRING ? lua_tolstring(L, -1, &len) : "";
  f->optional = len && kind[len - 1] == '?';
  int k = find_kind(kind, f->optional ? len - 1 : len);
  if (k < 0) luaL_error(L, "field '%s': '%s' is no kind", f->name, kind);
  f->kind = kinds[k].kind;
  lua_Integer bounds[2] = {kinds[k].min, kinds[k].max};
  for (int i = 0; i < 2; i++) {
    int isnum = 0;
    if (lua_rawgeti(L, at, 3 + i) != LUA_TNIL) {
      lua_Integer v = lua_tointegerx(L, -1, &isnum);
      if (!isnum || v < kinds[k].min || v > kinds[k].max) luaL_error(L, "field '%s': bound out of range", f->name);
      bounds[i] = v;
    }
  }
  if (bounds[0] > bounds[1]) luaL_error(L, "field '%s': bounds out of order", f->name);
  f->min = (uint64_t)bounds[0];
  f->max = (uint64_t)bounds[1];
  lua_settop(L, at);
}

static bdk_schema *push_new(lua_State *L) {
  bdk_schema *s = lua_newuserdatauv(L, sizeof *s, 2);
  memset(s, 0, sizeof *s);
  luaL_setmetatable(L, type);
  lua_newtable(L);
  lua_setiuservalue(L, -2, NAMES);
  return s;
}

// The list that schema.fields shows, from the schema itself.
static void set_fields(lua_State *L, int self, const bdk_schema *s) {
  lua_createtable(L, s->count, 0);
  for (int i = 0; i < s->count; i++) {
    const bdk_field_def *f = &s->fields[i];
    lua_createtable(L, 4, 0);
    lua_pushstring(L, f->name);
    lua_rawseti(L, -2, 1);
    for (int k = 0; k < KINDS; k++)
      if (kinds[k].kind == f->kind) lua_pushfstring(L, "%s%s", kinds[k].name, f->optional ? "?" : "");
    lua_rawseti(L, -2, 2);
    lua_pushinteger(L, (lua_Integer)f->min);
    lua_rawseti(L, -2, 3);
    lua_pushinteger(L, (lua_Integer)f->max);
    lua_rawseti(L, -2, 4);
    lua_rawseti(L, -2, i + 1);
  }
  lua_setiuservalue(L, self, FIELDS);
}

// [-0, +1, e] schema{ name=, type=, request=, sealed=, fields= } -> schema
static int new (lua_State *L) {
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_settop(L, 1);
  bdk_schema *s = push_new(L);
  if (lua_getfield(L, 1, "name") != LUA_TSTRING) luaL_error(L, "name: a string expected");
  s->name = keep_name(L, 2);
  s->type = (uint8_t)bdk_opt_integer(L, 1, "type", 0, 1, 127);
  if (!s->type) luaL_error(L, "type: an integer from 1 to 127 expected");
  lua_getfield(L, 1, "request");
  s->request = lua_toboolean(L, -1);
  lua_getfield(L, 1, "sealed");
  s->sealed = lua_toboolean(L, -1);
  lua_settop(L, 2);
  if (lua_getfield(L, 1, "fields") != LUA_TTABLE) luaL_error(L, "fields: a list expected");
  lua_Unsigned n = lua_rawlen(L, -1);
  if (n > BDK_FIELDS_MAX) luaL_error(L, "%s: more than %d fields", s->name, (int)BDK_FIELDS_MAX);
  for (lua_Unsigned i = 1; i <= n; i++) {
    lua_rawgeti(L, -1, (lua_Integer)i);
    read_field(L, 2, s, &s->fields[s->count]);
    s->count++;
    lua_pop(L, 1);
  }
  set_fields(L, 2, s);
  lua_settop(L, 2);
  return 1;
}

static void push_const(lua_State *L, const bdk_schema *schema) {
  *push_new(L) = *schema;
  set_fields(L, lua_gettop(L), schema);
}

// --- from Lua to fields. An array of strings is packed to `*to`, which moves on. False: of the wrong kind.
static bool read_list(lua_State *L, int idx, bdk_packer *to, bdk_field *f) {
  if (!lua_istable(L, idx)) return false;
  lua_Unsigned n = lua_rawlen(L, idx);
  if (n > 16) return false;
  size_t start = to->len;
  bdk_pack_array(to, (uint32_t)n);
  for (lua_Unsigned i = 1; i <= n; i++) {
    size_t len;
    bool ok = lua_rawgeti(L, idx, (lua_Integer)i) == LUA_TSTRING;
    if (ok) {
      const char *s = lua_tolstring(L, -1, &len);
      bdk_pack_bin(to, (const uint8_t *)s, len);
    }
    lua_pop(L, 1);
    if (!ok) return false;
  }
  f->u = n;
  f->data = to->buf + start;
  f->len = (uint32_t)(to->len - start);
  return !to->overflow;
}

static bool read_value(lua_State *L, int idx, const bdk_field_def *def, bdk_packer *scratch, bdk_field *f) {
  int isnum;
  size_t len;
  if (lua_isnoneornil(L, idx)) {
    f->nil = true;
    return def->optional;
  }
  switch (def->kind) {
  case BDK_FIELD_UINT:
    if (lua_type(L, idx) != LUA_TNUMBER) return false;
    lua_Integer v = lua_tointegerx(L, idx, &isnum);
    f->u = (uint64_t)v;
    return isnum && v >= 0;
  case BDK_FIELD_BOOL:
    f->u = (uint64_t)lua_toboolean(L, idx);
    return lua_isboolean(L, idx);
  case BDK_FIELD_ADDRS:
  case BDK_FIELD_BINS:
    return read_list(L, idx, scratch, f);
  default:
    if (lua_type(L, idx) != LUA_TSTRING) return false;
    f->data = (const uint8_t *)lua_tolstring(L, idx, &len);
    f->len = (uint32_t)len;
    return len <= BDK_DATAGRAM_MAX;
  }
}

size_t bdk_schema_encode(lua_State *L, const bdk_schema *s, int first, uint8_t out[BDK_DATAGRAM_MAX],
                         const char **bad) {
  bdk_field fields[BDK_FIELDS_MAX];
  uint8_t lists[BDK_DATAGRAM_MAX];
  bdk_packer scratch = bdk_packer_init(lists, sizeof lists);
  memset(fields, 0, sizeof fields);
  luaL_checkstack(L, 2, "encoding");
  int idx = first;
  for (int i = 0; i < s->count; i++) {
    if (s->fields[i].kind == BDK_FIELD_PAD) {
      fields[i].nil = true;
    } else if (!read_value(L, idx++, &s->fields[i], &scratch, &fields[i])) {
      *bad = s->fields[i].name;
      return 0;
    }
  }
  if (lua_gettop(L) >= idx) luaL_argerror(L, idx, lua_pushfstring(L, "%s has only %d fields", s->name, idx - first));
  size_t len = bdk_message_write(s, fields, out, BDK_DATAGRAM_MAX, bad);
  if (!len && !*bad) *bad = "(all together, over 1200 bytes)";
  return len;
}

// [-0, +1|3, e] schema:encode(v1, v2, ...) -> bytes | nil, message, code
static int encode(lua_State *L) {
  const bdk_schema *s = bdk_check_schema(L, 1);
  uint8_t out[BDK_DATAGRAM_MAX];
  const char *bad;
  size_t len = bdk_schema_encode(L, s, 2, out, &bad);
  if (!len) return bdk_lua_invalid(L, "%s: field '%s' is missing, of another kind or out of bounds", s->name, bad);
  lua_pushlstring(L, (const char *)out, len);
  return 1;
}

// --- from fields to Lua
static void push_list(lua_State *L, const bdk_field *f) {
  bdk_reader r = {f->data, f->data + f->len};
  bdk_item it;
  lua_createtable(L, (int)f->u, 0);
  if (!bdk_read(&r, &it)) return;
  for (uint32_t i = 1, n = it.count; i <= n && bdk_read(&r, &it); i++) {
    lua_pushlstring(L, (const char *)it.data, it.len);
    lua_rawseti(L, -2, i);
  }
}

void bdk_push_field(lua_State *L, const bdk_field_def *def, const bdk_field *f) {
  if (f->nil)
    lua_pushnil(L);
  else if (def->kind == BDK_FIELD_UINT)
    lua_pushinteger(L, (lua_Integer)f->u);
  else if (def->kind == BDK_FIELD_BOOL)
    lua_pushboolean(L, f->u != 0);
  else if (def->kind == BDK_FIELD_ADDRS || def->kind == BDK_FIELD_BINS)
    push_list(L, f);
  else
    lua_pushlstring(L, (const char *)f->data, f->len);
}

// [-0, +n|3, e] schema:decode(bytes) -> v1, v2, ... | nil, message, code
static int decode(lua_State *L) {
  const bdk_schema *s = bdk_check_schema(L, 1);
  size_t len;
  const uint8_t *bytes = (const uint8_t *)luaL_checklstring(L, 2, &len);
  bdk_message_head head;
  bdk_field fields[BDK_FIELDS_MAX];
  const char *bad = "?";
  if (len > BDK_DATAGRAM_MAX) return bdk_lua_invalid(L, "longer than 1200 bytes");
  if (bdk_message_head_read(&head, bytes, len)) return bdk_lua_invalid(L, "not a message");
  if (head.type != s->type) return bdk_lua_invalid(L, "a message of type %d, not %s", head.type, s->name);
  if (head.version != BDK_PROTOCOL_VERSION) return bdk_lua_invalid(L, "%s of version %d", s->name, head.version);
  if (bdk_message_read(s, bytes, len, fields, &bad))
    return bdk_lua_invalid(L, "%s: field '%s' is missing, of another kind or out of bounds", s->name, bad);
  luaL_checkstack(L, BDK_FIELDS_MAX + 4, "decoding");
  int pushed = 0;
  for (int i = 0; i < s->count; i++) {
    if (s->fields[i].kind == BDK_FIELD_PAD) continue;
    bdk_push_field(L, &s->fields[i], &fields[i]);
    pushed++;
  }
  return pushed;
}

// [-0, +1, e] schema.name, .type, .request, .sealed, .fields, and the methods
static int get_index(lua_State *L) {
  const bdk_schema *s = bdk_check_schema(L, 1);
  const char *k = luaL_checkstring(L, 2);
  if (strcmp(k, "name") == 0)
    lua_pushstring(L, s->name);
  else if (strcmp(k, "type") == 0)
    lua_pushinteger(L, s->type);
  else if (strcmp(k, "request") == 0)
    lua_pushboolean(L, s->request);
  else if (strcmp(k, "sealed") == 0)
    lua_pushboolean(L, s->sealed);
  else if (strcmp(k, "fields") == 0)
    lua_getiuservalue(L, 1, FIELDS);
  else if (strcmp(k, "encode") == 0)
    lua_pushcfunction(L, encode);
  else if (strcmp(k, "decode") == 0)
    lua_pushcfunction(L, decode);
  else
    lua_pushnil(L);
  return 1;
}

void bdk_open_schema(lua_State *L) {
  static const luaL_Reg meta[] = {{"__index", get_index}, {NULL, NULL}};
  bdk_lua_type(L, type, NULL, meta);
  lua_getfield(L, -1, "wire");
  lua_pushcfunction(L, new);
  lua_setfield(L, -2, "schema");
  lua_createtable(L, 0, 2);
  push_const(L, &bdk_message_test);
  lua_setfield(L, -2, "test");
  push_const(L, &bdk_message_confirm);
  lua_setfield(L, -2, "confirm");
  lua_setfield(L, -2, "peer_schemas");
  lua_pop(L, 1);
}
