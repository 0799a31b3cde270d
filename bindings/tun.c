// SPDX-License-Identifier: MIT
// The lab's packet copier as core.tun.copy. It holds the thread until it is told to stop, so it gets a process
// of its own. All it needs is read from the argument first; memory is userdata, so an error leaks nothing.
#include "bind.h"

#include "io/tun.h"

typedef struct ready_call {
  lua_State *L;
  int index;
} ready_call;

static void call_ready(void *ctx) {
  ready_call *ready = ctx;
  lua_pushvalue(ready->L, ready->index);
  bdk_lua_call(ready->L, 0, 0);
}

// Pushes table[key], which has to be a list, and a zeroed array of `size` a piece. The count, bounded.
static uint32_t push_list(lua_State *L, const char *key, size_t size, void **array) {
  enum { MAX = 4096 };
  if (lua_getfield(L, 1, key) != LUA_TTABLE) luaL_error(L, "%s: a list expected", key);
  lua_Unsigned count = lua_rawlen(L, -1);
  if (count > MAX) luaL_error(L, "%s: at most %d expected", key, (int)MAX);
  *array = lua_newuserdatauv(L, (count + 1) * size, 0);
  return (uint32_t)count;
}

// Pushes entry `i` of the list below the array on the top, for its fields to be read.
static int push_entry(lua_State *L, const char *key, uint32_t i) {
  if (lua_rawgeti(L, -2, (lua_Integer)i + 1) != LUA_TTABLE) luaL_error(L, "%s: a list of tables expected", key);
  return lua_gettop(L);
}

static bdk_tun_prefix prefix(lua_State *L, int idx, const char *field) {
  bdk_tun_prefix p = {.bits = 0};
  size_t len;
  const char *text = bdk_opt_bytes(L, idx, field, &len);
  if (!text || bdk_tun_prefix_parse(&p, text) < 0) luaL_error(L, "%s: an IPv4 prefix expected", field);
  return p;
}

static void read_ports(lua_State *L, bdk_tun_config *config) {
  void *array;
  config->port_count = push_list(L, "ports", sizeof(bdk_tun_port), &array);
  bdk_tun_port *ports = array;
  for (uint32_t i = 0; i < config->port_count; i++) {
    int entry = push_entry(L, "ports", i);
    size_t len;
    ports[i].netns = bdk_opt_bytes(L, entry, "netns", &len);
    ports[i].device = bdk_opt_bytes(L, entry, "device", &len);
    if (!ports[i].device) luaL_error(L, "device: a name expected");
    lua_pop(L, 1); // the strings stay alive in their tables
  }
  config->ports = ports;
}

static void read_routes(lua_State *L, bdk_tun_config *config) {
  void *array;
  config->route_count = push_list(L, "routes", sizeof(bdk_tun_route), &array);
  bdk_tun_route *routes = array;
  for (uint32_t i = 0; i < config->route_count; i++) {
    int entry = push_entry(L, "routes", i);
    routes[i].to = prefix(L, entry, "to");
    routes[i].port = (uint32_t)bdk_opt_integer(L, entry, "port", 0, 1, config->port_count) - 1;
    lua_pop(L, 1);
  }
  config->routes = routes;
}

static uint32_t delay(lua_State *L, int idx, const char *field) {
  return (uint32_t)bdk_opt_integer(L, idx, field, 0, 0, BDK_TUN_DELAY_MAX_US);
}

static double chance(lua_State *L, int idx, const char *field) {
  lua_getfield(L, idx, field);
  double p = lua_tonumber(L, -1); // nil: 0
  if (!(p >= 0 && p <= 1)) luaL_error(L, "%s: a number from 0 to 1 expected", field);
  lua_pop(L, 1);
  return p;
}

static void read_rules(lua_State *L, bdk_tun_config *config) {
  void *array;
  config->rule_count = push_list(L, "rules", sizeof(bdk_tun_rule), &array);
  bdk_tun_rule *rules = array;
  for (uint32_t i = 0; i < config->rule_count; i++) {
    int entry = push_entry(L, "rules", i);
    rules[i].from = prefix(L, entry, "from");
    rules[i].to = prefix(L, entry, "to");
    rules[i].delay_us = delay(L, entry, "delay_us");
    rules[i].jitter_us = delay(L, entry, "jitter_us");
    rules[i].reorder_us = delay(L, entry, "reorder_us");
    rules[i].loss = chance(L, entry, "loss");
    rules[i].duplicate = chance(L, entry, "duplicate");
    rules[i].reorder = chance(L, entry, "reorder");
    lua_pop(L, 1);
  }
  config->rules = rules;
}

static void push_stats(lua_State *L, const bdk_tun_stats *stats) {
  const struct {
    const char *name;
    uint64_t value;
  } all[] = {{"copied", stats->copied},     {"lost", stats->lost},       {"doubled", stats->doubled},
             {"no_route", stats->no_route}, {"expired", stats->expired}, {"malformed", stats->malformed},
             {"full", stats->full},         {"failed", stats->failed},   {"late_max_us", stats->late_max_us}};
  lua_newtable(L);
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
    lua_pushinteger(L, (lua_Integer)all[i].value);
    lua_setfield(L, -2, all[i].name);
  }
}

// copy{ ports = { { netns = path|nil, device = } … }, routes = { { to = prefix, port = 1… } … },
//       rules = { { from = prefix, to = prefix, delay_us =, jitter_us =, reorder_us =,
//                   loss = 0…1, duplicate = 0…1, reorder = 0…1 } … },
//       stop_fd =, seed =, queue_max =, ready = function called once the devices are attached }
//   -> statistics | nil, message, code
// Returns when stop_fd is at its end. [-0, +1|3, e]
static int copy(lua_State *L) {
  luaL_checktype(L, 1, LUA_TTABLE);
  luaL_checkstack(L, 20, NULL);
  lua_settop(L, 1);
  bdk_tun_config config = {.stop_fd = (int)bdk_opt_integer(L, 1, "stop_fd", -1, -1, 1 << 20),
                           .seed = (uint64_t)bdk_opt_integer(L, 1, "seed", 0, LUA_MININTEGER, LUA_MAXINTEGER),
                           .queue_max = (uint32_t)bdk_opt_integer(L, 1, "queue_max", 0, 0, 1 << 20)};
  if (config.stop_fd < 0) luaL_error(L, "stop_fd: a descriptor expected");
  read_ports(L, &config);
  read_routes(L, &config);
  read_rules(L, &config);
  ready_call ready = {L, 0};
  if (lua_getfield(L, 1, "ready") == LUA_TFUNCTION) {
    ready.index = lua_gettop(L);
    config.ready = call_ready;
    config.ctx = &ready;
  }
  bdk_tun_stats stats;
  const char *where;
  uint32_t port;
  int error = bdk_tun_copy(&config, &stats, &where, &port);
  if (error < 0) {
    const char *device = port < config.port_count ? config.ports[port].device : "-";
    return bdk_lua_failf(L, error, "cannot copy packets: %s (%s)", where, device);
  }
  push_stats(L, &stats);
  return 1;
}

void bdk_open_tun(lua_State *L) {
  lua_createtable(L, 0, 1);
  lua_pushcfunction(L, copy);
  lua_setfield(L, -2, "copy");
  lua_setfield(L, -2, "tun");
}
