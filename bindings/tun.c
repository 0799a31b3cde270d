// SPDX-License-Identifier: MIT
// The lab's packet copier as core.tun.copy. It holds the thread until it is told to stop, so it gets a process
// of its own. All it needs is read from the argument first; memory is userdata, so an error leaks nothing.
#include "bind.h"

#include <string.h>

#include "io/tun.h"

typedef struct calls { // into the functions that the argument holds, at these places of the stack
  lua_State *L;
  int ready, hook, emit;
  bdk_tun_copier *copier; // while the hook runs
  uint8_t ttl;            // of what it was given
} calls;

static void call_ready(void *ctx) {
  calls *c = ctx;
  if (!c->ready) return;
  lua_pushvalue(c->L, c->ready);
  bdk_lua_call(c->L, 0, 0);
}

static void call_hook(void *ctx, bdk_tun_copier *copier, uint32_t rule, const bdk_tun_udp *udp) {
  calls *c = ctx;
  c->copier = copier;
  c->ttl = udp->ttl;
  lua_pushvalue(c->L, c->hook);
  lua_pushinteger(c->L, (lua_Integer)rule + 1);
  lua_pushlstring(c->L, (const char *)udp->src, sizeof udp->src);
  lua_pushlstring(c->L, (const char *)udp->dst, sizeof udp->dst);
  lua_pushlstring(c->L, (const char *)udp->data, udp->len);
  lua_pushvalue(c->L, c->emit);
  bdk_lua_call(c->L, 5, 0);
  c->copier = NULL;
}

// emit(delay_ms, src, dst, bytes): the hook's last argument; addresses as it got them. [-0, +0, e]
static int emit(lua_State *L) {
  calls *c = lua_touserdata(L, lua_upvalueindex(1));
  lua_Number ms = luaL_checknumber(L, 1);
  luaL_argcheck(L, ms >= 0 && ms <= BDK_TUN_DELAY_MAX_US / 1000, 1, "0 to 60000 ms expected");
  size_t src_len, dst_len, len;
  const char *src = luaL_checklstring(L, 2, &src_len), *dst = luaL_checklstring(L, 3, &dst_len);
  const char *data = luaL_checklstring(L, 4, &len);
  bdk_tun_udp udp = {.ttl = c->ttl, .data = (const uint8_t *)data, .len = (uint16_t)len};
  luaL_argcheck(L, src_len == sizeof udp.src, 2, "a packed IPv4 address expected");
  luaL_argcheck(L, dst_len == sizeof udp.dst, 3, "a packed IPv4 address expected");
  luaL_argcheck(L, len < BDK_TUN_PACKET_MAX, 4, "longer than a packet");
  if (!c->copier) return luaL_error(L, "emit works only while the hook runs");
  memcpy(udp.src, src, src_len);
  memcpy(udp.dst, dst, dst_len);
  bdk_tun_emit(c->copier, &udp, (uint32_t)(ms * 1000));
  return 0;
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
  bdk_tun_prefix p = {.len = 4};
  size_t len;
  const char *text = bdk_opt_bytes(L, idx, field, &len);
  if (!text || bdk_tun_prefix_parse(&p, text) < 0) luaL_error(L, "%s: a prefix expected", field);
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
    lua_getfield(L, entry, "hooked");
    rules[i].hooked = lua_toboolean(L, -1);
    lua_pop(L, 1);
    lua_pop(L, 1);
  }
  config->rules = rules;
}

static void push_stats(lua_State *L, const bdk_tun_stats *stats) {
  const struct {
    const char *name;
    uint64_t value;
  } all[] = {{"copied", stats->copied},   {"lost", stats->lost},
             {"doubled", stats->doubled}, {"no_route", stats->no_route},
             {"expired", stats->expired}, {"malformed", stats->malformed},
             {"full", stats->full},       {"failed", stats->failed},
             {"hooked", stats->hooked},   {"late_max_us", stats->late_max_us}};
  lua_newtable(L);
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
    lua_pushinteger(L, (lua_Integer)all[i].value);
    lua_setfield(L, -2, all[i].name);
  }
}

// copy{ ports = { { netns = path|nil, device = } … }, routes = { { to = prefix, port = 1… } … },
//       rules = { { from = prefix, to = prefix, delay_us =, jitter_us =, reorder_us =,
//                   loss = 0…1, duplicate = 0…1, reorder = 0…1, hooked = bool } … },
//       stop_fd =, seed =, queue_max =, ready = function called once the devices are attached,
//       hook = function(rule, src, dst, bytes, emit) called for each UDP datagram of the hooked rules }
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
  calls *c = lua_newuserdatauv(L, sizeof *c, 0); // emit may be called when all this is over
  *c = (calls){.L = L};
  int self = lua_gettop(L);
  config.ready = call_ready;
  config.ctx = c;
  if (lua_getfield(L, 1, "ready") == LUA_TFUNCTION) c->ready = lua_gettop(L);
  if (lua_getfield(L, 1, "hook") == LUA_TFUNCTION) {
    config.hook = call_hook;
    c->hook = lua_gettop(L);
    lua_pushvalue(L, self);
    lua_pushcclosure(L, emit, 1);
    c->emit = lua_gettop(L);
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
