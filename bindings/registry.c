// SPDX-License-Identifier: MIT
// core.registry: the registry table of a matching server; entries are copied in and out.
#include "core/registry.h"
#include "bind.h"

#include <string.h>

#include "io/os.h"

static const char type[] = "bodkin.registry";

typedef struct registry_box {
  bdk_registry *r; // NULL: closed
} registry_box;

static bdk_registry *check(lua_State *L) {
  registry_box *b = luaL_checkudata(L, 1, type);
  if (!b->r) luaL_error(L, "closed registry");
  return b->r;
}

static const uint8_t *check_id(lua_State *L, int idx) {
  size_t len;
  const char *id = luaL_checklstring(L, idx, &len);
  luaL_argcheck(L, len == BDK_ID_LEN, idx, "id of 16 bytes expected");
  return (const uint8_t *)id;
}

// [-0, +1, e] registry{ seed=, max_entries=, counters= } -> registry
static int new (lua_State *L) {
  luaL_checktype(L, 1, LUA_TTABLE);
  bdk_registry_config config = {.alloc = bdk_os_alloc};
  memcpy(config.seed, bdk_need_bytes(L, 1, "seed", sizeof config.seed), sizeof config.seed);
  config.max_entries = (uint32_t)bdk_opt_integer(L, 1, "max_entries", 1 << 20, 1, UINT32_MAX / 4);
  registry_box *b = lua_newuserdatauv(L, sizeof *b, 0);
  b->r = NULL;
  luaL_setmetatable(L, type);
  b->r = bdk_registry_new(&config);
  if (!b->r) return luaL_error(L, "not enough memory for a registry");
  return 1;
}

// [-0, +1|3, e] reg:put{ id=, key=, expires_us=, app=, name=, props=, addrs= } -> true | nil, message, code
static int put(lua_State *L) {
  bdk_registry *r = check(L);
  luaL_checktype(L, 2, LUA_TTABLE);
  bdk_entry e = {0};
  size_t app, name, props, addrs;
  e.id = (const uint8_t *)bdk_need_bytes(L, 2, "id", BDK_ID_LEN);
  e.key = (const uint8_t *)bdk_need_bytes(L, 2, "key", 32);
  e.expires_us = (uint64_t)bdk_opt_integer(L, 2, "expires_us", 0, 0, LUA_MAXINTEGER);
  e.app = (const uint8_t *)bdk_opt_bytes(L, 2, "app", &app);
  e.name = (const uint8_t *)bdk_opt_bytes(L, 2, "name", &name);
  e.props = (const uint8_t *)bdk_opt_bytes(L, 2, "props", &props);
  e.addrs = (const uint8_t *)bdk_opt_bytes(L, 2, "addrs", &addrs);
  if (app > UINT8_MAX || name > UINT8_MAX || props > UINT8_MAX || addrs > UINT16_MAX)
    return bdk_lua_fail(L, BDK_E_INVALID);
  e.app_len = (uint8_t)app;
  e.name_len = (uint8_t)name;
  e.props_len = (uint8_t)props;
  e.addrs_len = (uint16_t)addrs;
  int error = bdk_registry_put(r, &e);
  if (error) return bdk_lua_fail(L, error);
  lua_pushboolean(L, true);
  return 1;
}

static void set_bytes(lua_State *L, const char *field, const uint8_t *bytes, size_t len) {
  lua_pushlstring(L, (const char *)bytes, len);
  lua_setfield(L, -2, field);
}

static void push_entry(lua_State *L, const bdk_entry *e) {
  lua_createtable(L, 0, 7);
  set_bytes(L, "id", e->id, BDK_ID_LEN);
  set_bytes(L, "key", e->key, 32);
  set_bytes(L, "app", e->app, e->app_len);
  set_bytes(L, "name", e->name, e->name_len);
  set_bytes(L, "props", e->props, e->props_len);
  set_bytes(L, "addrs", e->addrs, e->addrs_len);
  lua_pushinteger(L, (lua_Integer)e->expires_us);
  lua_setfield(L, -2, "expires_us");
}

// [-0, +1, e] reg:get(id) -> entry | nil
static int get(lua_State *L) {
  bdk_entry e;
  if (bdk_registry_get(check(L), check_id(L, 2), &e))
    push_entry(L, &e);
  else
    lua_pushnil(L);
  return 1;
}

// [-0, +1, e] reg:remove(id) -> bool
static int remove_entry(lua_State *L) {
  lua_pushboolean(L, bdk_registry_remove(check(L), check_id(L, 2)));
  return 1;
}

// [-0, +1, e] reg:count() -> integer
static int count(lua_State *L) {
  lua_pushinteger(L, bdk_registry_count(check(L)));
  return 1;
}

// [-0, +1|2|3, e] core.query(encoded [, props]) -> how many comparisons it is at most [, whether these properties, an
//   encoded map, are what it wants] | nil, what is wrong, where ("[2][3]")
static int query(lua_State *L) {
  size_t len, props_len = 0;
  const uint8_t *bytes = (const uint8_t *)luaL_checklstring(L, 1, &len);
  const uint8_t *props = (const uint8_t *)luaL_optlstring(L, 2, NULL, &props_len);
  luaL_argcheck(L, !props || bdk_wire_check(props, props_len), 2, "an encoded map expected");
  bdk_query_fault fault = {.why = "not well formed"};
  int terms = bdk_wire_check(bytes, len) ? bdk_query_check(bytes, len, &fault) : -1;
  if (terms >= 0) {
    lua_pushinteger(L, terms);
    if (props) lua_pushboolean(L, bdk_query_matches(bytes, len, props, props_len));
    return props ? 2 : 1;
  }
  lua_pushnil(L);
  lua_pushstring(L, fault.why);
  luaL_Buffer b;
  luaL_buffinit(L, &b);
  for (uint8_t i = 0; i < fault.depth && i < BDK_WIRE_DEPTH_MAX; i++) {
    lua_pushfstring(L, "[%d]", (int)fault.at[i]);
    luaL_addvalue(&b);
  }
  luaL_pushresult(&b);
  return 3;
}

// [-0, +2|3, e] reg:after(id | nil, app | nil, query | nil, budget)
//   -> entry, budget | nil, budget (at the end) | false, last id, budget (0: spent)
static int after(lua_State *L) {
  bdk_registry *r = check(L);
  const uint8_t *id = lua_isnil(L, 2) ? NULL : check_id(L, 2);
  size_t app_len = 0, query_len = 0;
  const char *app = luaL_optlstring(L, 3, NULL, &app_len), *query = luaL_optlstring(L, 4, NULL, &query_len);
  lua_Integer given = luaL_checkinteger(L, 5);
  luaL_argcheck(L, given >= 0 && given <= UINT32_MAX, 5, "budget out of range");
  if (query && !bdk_wire_check((const uint8_t *)query, query_len)) luaL_argerror(L, 4, "an encoded query expected");
  uint32_t budget = (uint32_t)given;
  bdk_entry e = {0};
  int found = bdk_registry_after(r, id, (const uint8_t *)app, app_len, (const uint8_t *)query, query_len, &budget, &e);
  if (found > 0) {
    push_entry(L, &e);
  } else if (found == 0) {
    lua_pushnil(L);
  } else {
    lua_pushboolean(L, false);
    if (e.id)
      lua_pushlstring(L, (const char *)e.id, BDK_ID_LEN);
    else
      lua_pushnil(L); // none was given, and none looked at
  }
  lua_pushinteger(L, budget);
  return found < 0 ? 3 : 2;
}

// [-0, +1, e] reg:expire(now_us) -> id of one removed | nil
static int expire(lua_State *L) {
  uint8_t id[BDK_ID_LEN];
  if (bdk_registry_expire(check(L), (uint64_t)luaL_checkinteger(L, 2), id))
    lua_pushlstring(L, (const char *)id, sizeof id);
  else
    lua_pushnil(L);
  return 1;
}

// [-0, +1, e] reg:deadline() -> µs | nil
static int deadline(lua_State *L) {
  uint64_t due = bdk_registry_deadline(check(L));
  if (due == BDK_NEVER)
    lua_pushnil(L);
  else
    lua_pushinteger(L, (lua_Integer)due);
  return 1;
}

// [-0, +0, e] reg:close(); idempotent
static int registry_close(lua_State *L) {
  registry_box *b = luaL_checkudata(L, 1, type);
  bdk_registry_free(b->r);
  b->r = NULL;
  return 0;
}

static int registry_tostring(lua_State *L) {
  registry_box *b = luaL_checkudata(L, 1, type);
  if (b->r)
    lua_pushfstring(L, "registry (%d entries)", (int)bdk_registry_count(b->r));
  else
    lua_pushliteral(L, "registry (closed)");
  return 1;
}

void bdk_open_registry(lua_State *L) {
  static const luaL_Reg methods[] = {
      {"put", put},       {"get", get},           {"remove", remove_entry},  {"count", count}, {"after", after},
      {"expire", expire}, {"deadline", deadline}, {"close", registry_close}, {NULL, NULL},
  };
  static const luaL_Reg meta[] = {
      {"__gc", registry_close}, {"__close", registry_close}, {"__tostring", registry_tostring}, {NULL, NULL}};
  bdk_lua_type(L, type, methods, meta);
  lua_pushcfunction(L, new);
  lua_setfield(L, -2, "registry");
  lua_pushcfunction(L, query);
  lua_setfield(L, -2, "query");
}
