// SPDX-License-Identifier: MIT
#include "router.h"

#include <string.h>

static const char type[] = "bodkin.router", reply_type[] = "bodkin.reply";
enum { HANDLERS = 1, KEEP = 2, REPLY = 3 }; // user values of a router: type -> fn; list; the reply
enum { SCHEMAS = 1, SOCKET = 2 };           // of a reply: name -> schema; the Lua socket of this request

bdk_router *bdk_check_router(lua_State *L, int idx) { return luaL_checkudata(L, idx, type); }

// Keeps the value at `idx` alive with the router at 1.
static void keep(lua_State *L, int idx) {
  lua_getiuservalue(L, 1, KEEP);
  lua_pushvalue(L, idx);
  lua_rawseti(L, -2, (lua_Integer)lua_rawlen(L, -2) + 1);
  lua_pop(L, 1);
}

// [-0, +1, e] router([counters]) -> router
static int new (lua_State *L) {
  bdk_counters *counters = bdk_check_counters(L, 1);
  lua_settop(L, 1);
  bdk_router *r = lua_newuserdatauv(L, sizeof *r, 3);
  memset(r, 0, sizeof *r);
  luaL_setmetatable(L, type);
  bdk_reply *reply = lua_newuserdatauv(L, sizeof *reply, 2);
  memset(reply, 0, sizeof *reply);
  luaL_setmetatable(L, reply_type);
  lua_newtable(L);
  lua_setiuservalue(L, 3, SCHEMAS);
  lua_setiuservalue(L, 2, REPLY);
  lua_newtable(L);
  lua_setiuservalue(L, 2, HANDLERS);
  lua_newtable(L);
  lua_pushvalue(L, 1);
  lua_rawseti(L, -2, 1);
  lua_setiuservalue(L, 2, KEEP);
  lua_getiuservalue(L, 2, REPLY); // the reply keeps the counters, too: it may be all that is left
  lua_getiuservalue(L, -1, SCHEMAS);
  lua_pushvalue(L, 1);
  lua_rawseti(L, -2, 1);
  lua_pop(L, 2);
  r->counters = reply->counters = counters;
  r->reply = reply;
  return 1;
}

static int find_field(const bdk_schema *s, const char *name) {
  for (int i = 0; i < s->count; i++)
    if (strcmp(s->fields[i].name, name) == 0) return i;
  return -1;
}

// [-0, +0, e] router:on(schema, wants | nil, fn)
static int on(lua_State *L) {
  bdk_router *r = bdk_check_router(L, 1);
  const bdk_schema *s = bdk_check_schema(L, 2);
  if (!lua_isnil(L, 3)) luaL_checktype(L, 3, LUA_TTABLE);
  luaL_checktype(L, 4, LUA_TFUNCTION);
  bdk_handler h = {.schema = s};
  if (r->handlers[s->type].schema)
    luaL_error(L, "message type %d (%s) has a handler already", s->type, r->handlers[s->type].schema->name);
  if (lua_isnil(L, 3)) {
    for (int i = 0; i < s->count; i++)
      if (s->fields[i].kind != BDK_FIELD_PAD) h.wants[h.count++] = (uint8_t)i;
  } else {
    lua_Unsigned n = lua_rawlen(L, 3);
    luaL_argcheck(L, n <= BDK_FIELDS_MAX, 3, "too many fields");
    for (lua_Unsigned i = 1; i <= n; i++) {
      lua_rawgeti(L, 3, (lua_Integer)i);
      const char *name = luaL_checkstring(L, -1);
      int field = find_field(s, name);
      if (field < 0) luaL_error(L, "%s has no field '%s'", s->name, name);
      h.wants[h.count++] = (uint8_t)field;
      lua_pop(L, 1);
    }
  }
  keep(L, 2);
  lua_getiuservalue(L, 1, HANDLERS);
  lua_pushvalue(L, 4);
  lua_rawseti(L, -2, s->type);
  r->handlers[s->type] = h;
  return 0;
}

// [-0, +0, e] router:refuse(schema): requests of another protocol version are answered with it
static int refuse(lua_State *L) {
  bdk_router *r = bdk_check_router(L, 1);
  const bdk_schema *s = bdk_check_schema(L, 2);
  luaL_argcheck(L,
                s->count == 3 && s->fields[0].kind == BDK_FIELD_BIN && s->fields[1].kind == BDK_FIELD_UINT &&
                    s->fields[2].kind == BDK_FIELD_STR,
                2, "fields tx, code, text expected");
  keep(L, 2);
  r->refused = s;
  return 0;
}

// [-0, +0, e] router:reply_schemas{ schema, ... }
static int reply_schemas(lua_State *L) {
  bdk_check_router(L, 1);
  luaL_checktype(L, 2, LUA_TTABLE);
  lua_settop(L, 2);
  lua_getiuservalue(L, 1, REPLY);
  lua_getiuservalue(L, 3, SCHEMAS);
  lua_Unsigned n = lua_rawlen(L, 2);
  for (lua_Unsigned i = 1; i <= n; i++) {
    lua_rawgeti(L, 2, (lua_Integer)i);
    lua_pushstring(L, bdk_check_schema(L, -1)->name);
    lua_insert(L, -2);
    lua_rawset(L, 4);
  }
  return 0;
}

// --- the reply. Sends `bytes` to `to`; the reply is at 1.
static bool send_bytes(lua_State *L, bdk_reply *r, const bdk_addr *local, const bdk_addr *to, const uint8_t *bytes,
                       size_t len) {
  if (r->udp) return bdk_udp_box_send(r->udp, local, to, 0, bytes, len) == 0;
  luaL_checkstack(L, 4, "reply");
  lua_getiuservalue(L, 1, SOCKET);
  lua_getfield(L, -1, "send");
  lua_insert(L, -2);
  bdk_push_addr(L, to);
  lua_pushlstring(L, (const char *)bytes, len);
  lua_call(L, 3, 0);
  return true;
}

static bdk_reply *check_reply(lua_State *L) {
  bdk_reply *r = luaL_checkudata(L, 1, reply_type);
  if (!r->active) luaL_error(L, "a reply is valid only while the handler it was given to runs");
  return r;
}

// The schema that the string at `idx` names, encoded from the arguments after it.
static size_t encode_reply(lua_State *L, int idx, uint8_t out[BDK_DATAGRAM_MAX], const bdk_schema **s) {
  const char *name = luaL_checkstring(L, idx), *bad;
  lua_getiuservalue(L, 1, SCHEMAS);
  lua_pushvalue(L, idx);
  lua_rawget(L, -2);
  *s = lua_touserdata(L, -1);
  lua_pop(L, 2);
  if (!*s) luaL_argerror(L, idx, lua_pushfstring(L, "'%s' is not among the router's reply schemas", name));
  size_t len = bdk_schema_encode(L, *s, idx + 1, out, &bad);
  if (!len) luaL_error(L, "reply %s: field '%s' is missing, of another kind or out of bounds", name, bad);
  return len;
}

// [-0, +1, e] reply(name, v1, v2, ...) -> true; false when the reply rule forbids it, or the socket is closed
static int reply_call(lua_State *L) {
  bdk_reply *r = check_reply(L);
  const bdk_schema *s;
  uint8_t out[BDK_DATAGRAM_MAX];
  size_t len = encode_reply(L, 2, out, &s);
  // A reply is never answered with a reply: two sides would keep each other going.
  bool allowed = r->proven || (!r->sent && len <= r->length && (r->request || s->request));
  if (allowed) {
    r->sent = true;
    allowed = send_bytes(L, r, &r->route.local, &r->route.remote, out, len);
  } else {
    bdk_count(r->counters, BDK_COUNT_refuse_reply, 1);
  }
  lua_pushboolean(L, allowed);
  return 1;
}

// [-0, +1, e] reply:send(to, name, v1, ...) -> bool: to another address, one that is proven, by this socket
static int reply_send(lua_State *L) {
  bdk_reply *r = check_reply(L);
  bdk_addr to = bdk_check_addr(L, 2), any = {0};
  const bdk_schema *s;
  uint8_t out[BDK_DATAGRAM_MAX];
  size_t len = encode_reply(L, 3, out, &s);
  lua_pushboolean(L, send_bytes(L, r, &any, &to, out, len));
  return 1;
}

// [-0, +0, e] reply:proven(): the sender owns the address it sends from
static int reply_proven(lua_State *L) {
  check_reply(L)->proven = true;
  return 0;
}

// [-0, +1, e] reply:length() -> bytes of the request
static int reply_length(lua_State *L) {
  lua_pushinteger(L, (lua_Integer)check_reply(L)->length);
  return 1;
}

// [-0, +1, e] reply:at() -> the address of ours that the request came to | nil where that is not known
static int reply_at(lua_State *L) {
  const bdk_reply *r = check_reply(L);
  if (r->route.local.family)
    bdk_push_addr(L, &r->route.local);
  else
    lua_pushnil(L);
  return 1;
}

// --- input
typedef struct delivery {
  const bdk_handler *handler;
  const bdk_route *route;
  const bdk_field *fields;
} delivery;

// Runs inside bdk_lua_call. 1: the router, 2: the delivery.
static int deliver(lua_State *L) {
  const delivery *d = lua_touserdata(L, 2);
  const bdk_handler *h = d->handler;
  luaL_checkstack(L, BDK_FIELDS_MAX + 8, "handler");
  lua_getiuservalue(L, 1, HANDLERS);
  lua_rawgeti(L, -1, h->schema->type);
  lua_getiuservalue(L, 1, REPLY);
  bdk_push_addr(L, &d->route->remote);
  for (int i = 0; i < h->count; i++) bdk_push_field(L, &h->schema->fields[h->wants[i]], &d->fields[h->wants[i]]);
  lua_call(L, 2 + h->count, 0);
  return 0;
}

typedef struct refusal {
  const uint8_t *bytes;
  size_t len;
  const bdk_route *route;
} refusal;

// Runs inside bdk_lua_call, since a Lua socket may throw. 1: the reply, 2: the refusal.
static int send_refusal(lua_State *L) {
  bdk_reply *r = lua_touserdata(L, 1);
  const refusal *f = lua_touserdata(L, 2);
  send_bytes(L, r, &f->route->local, &f->route->remote, f->bytes, f->len);
  return 0;
}

static void answer_too_old(lua_State *L, bdk_router *r, int router, const bdk_message_head *head,
                           const bdk_route *route, size_t request_len) {
  static const char text[] = "version 1"; // so short that even a maintain, of 35 bytes, is answered
  uint8_t out[128];
  bdk_field fields[3] = {
      {.data = head->tx, .len = BDK_TX_LEN},
      {.u = (uint64_t)-BDK_E_TOO_OLD},
      {.data = (const uint8_t *)text, .len = sizeof text - 1},
  };
  if (!head->tx) return;
  refusal f = {out, bdk_message_write(r->refused, fields, out, sizeof out, NULL), route};
  if (!f.len || f.len > request_len) return;
  lua_getiuservalue(L, router, REPLY);
  lua_pushcfunction(L, send_refusal);
  lua_insert(L, -2);
  lua_pushlightuserdata(L, &f);
  if (!bdk_lua_call(L, 2, 0)) bdk_count(r->counters, BDK_COUNT_handler_error, 1);
}

// Why nothing here reads this datagram.
static int foreign(const uint8_t *bytes, size_t len, int head_error) {
  if (len > BDK_DATAGRAM_MAX) return BDK_COUNT_udp_rx_truncated;
  if (len > 0 && bytes[0] < 4) return BDK_COUNT_drop_stun;
  if (len > 0 && bytes[0] == 0xc1) return BDK_COUNT_drop_frame;
  return head_error ? -head_error : BDK_COUNT_drop_unknown;
}

// A message of a type handled here.
static void take(lua_State *L, bdk_router *r, int router, const bdk_message_head *head, const bdk_route *route,
                 const uint8_t *bytes, size_t len) {
  const bdk_handler *h = &r->handlers[head->type];
  bdk_field fields[BDK_FIELDS_MAX];
  // That we are too old, a server says in a version of its own.
  if (head->version != BDK_PROTOCOL_VERSION && head->type != BDK_REFUSED) {
    bdk_count(r->counters, BDK_COUNT_drop_version, 1);
    if (h->schema->request && r->refused) answer_too_old(L, r, router, head, route, len);
    return;
  }
  int error = bdk_message_read(h->schema, bytes, len, fields, NULL);
  if (error) {
    bdk_count(r->counters, (bdk_counter)-error, 1);
    return;
  }
  delivery d = {h, route, fields};
  r->reply->request = h->schema->request;
  r->reply->active = true;
  lua_pushcfunction(L, deliver);
  lua_pushvalue(L, router);
  lua_pushlightuserdata(L, &d);
  if (!bdk_lua_call(L, 2, 0)) bdk_count(r->counters, BDK_COUNT_handler_error, 1);
}

bool bdk_router_input(lua_State *L, int router, int socket, bdk_udp_box *udp, const bdk_route *from,
                      const uint8_t *bytes, size_t len, bool others) {
  bdk_router *r = lua_touserdata(L, router);
  bdk_message_head head;
  int error = len > BDK_DATAGRAM_MAX ? -BDK_COUNT_udp_rx_truncated : bdk_message_head_read(&head, bytes, len);
  if (error || !r->handlers[head.type].schema) {
    if (!others) bdk_count(r->counters, (bdk_counter)foreign(bytes, len, error), 1);
    return false;
  }
  if (!lua_checkstack(L, 8)) return false;
  // Handlers nest when a Lua socket delivers at once: the outer request comes back when this one is done.
  bdk_reply outer = *r->reply;
  lua_getiuservalue(L, router, REPLY);
  lua_getiuservalue(L, -1, SOCKET);
  int top = lua_gettop(L); // top - 1: the reply, top: its socket before
  if (socket)
    lua_pushvalue(L, socket);
  else
    lua_pushnil(L);
  lua_setiuservalue(L, top - 1, SOCKET);
  *r->reply = (bdk_reply){.counters = r->counters, .udp = udp, .route = *from, .length = len};
  take(L, r, router, &head, from, bytes, len);
  *r->reply = outer;
  lua_setiuservalue(L, top - 1, SOCKET);
  lua_settop(L, top - 2);
  return true;
}

// [-0, +1, e] router:input(sock, from, bytes) -> true when it was a message of a type handled here
static int input(lua_State *L) {
  bdk_check_router(L, 1);
  luaL_checkany(L, 2);
  bdk_route route = {.remote = bdk_check_addr(L, 3)};
  size_t len;
  const char *bytes = luaL_checklstring(L, 4, &len);
  lua_settop(L, 4);
  lua_pushboolean(L, bdk_router_input(L, 1, 2, NULL, &route, (const uint8_t *)bytes, len, false));
  return 1;
}

void bdk_open_router(lua_State *L) {
  static const luaL_Reg methods[] = {
      {"on", on}, {"refuse", refuse}, {"reply_schemas", reply_schemas}, {"input", input}, {NULL, NULL}};
  static const luaL_Reg meta[] = {{NULL, NULL}};
  static const luaL_Reg reply_methods[] = {
      {"proven", reply_proven}, {"length", reply_length}, {"send", reply_send}, {"at", reply_at}, {NULL, NULL}};
  static const luaL_Reg reply_meta[] = {{"__call", reply_call}, {NULL, NULL}};
  bdk_lua_type(L, type, methods, meta);
  bdk_lua_type(L, reply_type, reply_methods, reply_meta);
  lua_pushcfunction(L, new);
  lua_setfield(L, -2, "router");
}
