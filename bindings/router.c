// SPDX-License-Identifier: MIT
#include "router.h"

#include "core/stun.h"

#include <string.h>

static const char type[] = "bodkin.router", reply_type[] = "bodkin.reply";
// User values of a router: type -> fn; list; the reply; fn for frames, Binding requests, answers to ours; the relay.
enum { HANDLERS = 1, KEEP = 2, REPLY = 3, FRAMES = 4, STUN_ASKED = 5, STUN_ANSWERED = 6, RELAY = 7, VALUES = 7 };
#define BDK_OPENED_MAX 1080u      // bytes of messages in the answer of a handshake, which is a datagram
enum { SCHEMAS = 1, SOCKET = 2 }; // of a reply: name -> schema; the Lua socket of this request

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
  bdk_router *r = lua_newuserdatauv(L, sizeof *r, VALUES);
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

// [-0, +0, e] router:assocs(assocs, schema, number): frames go to these, of unknown ones it is told with the schema
// (one field, 12 bytes); number: of the socket, where it is a Lua object
static int assocs(lua_State *L) {
  bdk_router *r = bdk_check_router(L, 1);
  bdk_assocs_box *box = bdk_check_assocs(L, 2);
  const bdk_schema *s = bdk_check_schema(L, 3);
  lua_Integer number = luaL_optinteger(L, 4, 0);
  luaL_argcheck(L, s->count == 1 && s->fields[0].kind == BDK_FIELD_BIN, 3, "field tx expected");
  luaL_argcheck(L, number >= 0 && number <= UINT16_MAX, 4, "number out of range");
  keep(L, 2);
  keep(L, 3);
  r->assocs = box;
  r->lost = s;
  r->number = (uint16_t)number;
  return 0;
}

// [-0, +0, e] router:relay(relay, number): what begins with BDK_RELAY_MARK goes there; number: of the socket, as above
static int relay(lua_State *L) {
  bdk_router *r = bdk_check_router(L, 1);
  bdk_relay_box *box = bdk_check_relay(L, 2);
  lua_Integer number = luaL_checkinteger(L, 3);
  luaL_argcheck(L, number >= 1 && number <= BDK_RELAY_SOCKETS, 3, "number out of range");
  lua_settop(L, 2);
  lua_setiuservalue(L, 1, RELAY);
  r->relay = box;
  r->number = (uint16_t)number;
  return 0;
}

// [-0, +0, e] router:frames(fn(from, bytes)): takes every frame
static int frames(lua_State *L) {
  bdk_router *r = bdk_check_router(L, 1);
  luaL_checktype(L, 2, LUA_TFUNCTION);
  lua_settop(L, 2);
  lua_setiuservalue(L, 1, FRAMES);
  r->frames = true;
  return 0;
}

// [-0, +0, e] router:stun(asked | nil, answered | nil). asked(from) -> bool: whether a Binding request is answered; if
// not, it counted why.
// answered(from, tx, mapped | nil, code | nil): what a STUN server answered: our address, else the number of an error.
static int stun(lua_State *L) {
  bdk_router *r = bdk_check_router(L, 1);
  for (int i = 2; i <= 3; i++)
    if (!lua_isnoneornil(L, i)) luaL_checktype(L, i, LUA_TFUNCTION);
  lua_settop(L, 3);
  lua_setiuservalue(L, 1, STUN_ANSWERED);
  lua_setiuservalue(L, 1, STUN_ASKED);
  r->stun = true;
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

bdk_reply *bdk_check_reply(lua_State *L, int idx) {
  bdk_reply *r = luaL_checkudata(L, idx, reply_type);
  if (!r->active) luaL_error(L, "a reply is valid only while the handler it was given to runs");
  return r;
}

static bdk_reply *check_reply(lua_State *L) { return bdk_check_reply(L, 1); }

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

// Sealed replies go where the association's client is, or into the answer of a handshake. What does not fit there is
// lost: the client asks again.
static bool reply_sealed(lua_State *L, bdk_reply *r, const uint8_t *bytes, size_t len) {
  if (r->batch) {
    if (r->batch->cap - r->batch->len < len) return false;
    bdk_pack_raw(r->batch, bytes, len);
    return true;
  }
  if (!r->assocs || !r->assocs->table) luaL_error(L, "a message that came in an association is answered through it");
  uint8_t frame[BDK_DATAGRAM_MAX];
  bdk_route to;
  size_t n = bdk_assocs_write(r->assocs->table, r->assoc, bytes, len, frame, sizeof frame, &to);
  return n && send_bytes(L, r, &to.local, &to.remote, frame, n);
}

// [-0, +1, e] reply(name, v1, v2, ...) -> true; false when the reply rule forbids it, or the socket is closed
static int reply_call(lua_State *L) {
  bdk_reply *r = check_reply(L);
  const bdk_schema *s;
  uint8_t out[BDK_DATAGRAM_MAX];
  size_t len = encode_reply(L, 2, out, &s);
  // A reply is never answered with a reply: two sides would keep each other going.
  bool allowed = r->sealed || r->proven || (!r->sent && len <= r->length && (r->request || s->request));
  if (allowed) {
    r->sent = true;
    allowed = r->sealed ? reply_sealed(L, r, out, len) : send_bytes(L, r, &r->route.local, &r->route.remote, out, len);
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

// [-0, +1, e] reply:sealed() -> bool: the message came in an association
static int reply_is_sealed(lua_State *L) {
  lua_pushboolean(L, check_reply(L)->sealed);
  return 1;
}

// [-0, +3|1, e] reply:who() -> id, public key, association | nil: who asks, as its association shows
static int reply_who(lua_State *L) {
  const bdk_reply *r = check_reply(L);
  const uint8_t *key = r->assocs && r->assocs->table ? bdk_assocs_key(r->assocs->table, r->assoc) : NULL;
  if (!key) {
    lua_pushnil(L);
    return 1;
  }
  uint8_t id[BDK_ID_LEN];
  bdk_key_id(id, key);
  lua_pushlstring(L, (const char *)id, sizeof id);
  lua_pushlstring(L, (const char *)key, BDK_DH_LEN);
  lua_pushinteger(L, r->assoc);
  return 3;
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
  if (!head->tx || r->reply->sealed) return;
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
  if (len > 0 && bytes[0] <= BDK_STUN_FIRST_MAX) return BDK_COUNT_drop_stun;
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
  if (h->schema->sealed && !r->reply->sealed) {
    bdk_count(r->counters, BDK_COUNT_drop_unsealed, 1);
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

// One message, plain or out of an association. Its reply is in place.
static bool take_message(lua_State *L, bdk_router *r, int router, const bdk_route *from, const uint8_t *bytes,
                         size_t len, bool others) {
  bdk_message_head head;
  int error = len > BDK_DATAGRAM_MAX ? -BDK_COUNT_udp_rx_truncated : bdk_message_head_read(&head, bytes, len);
  if (error || !r->handlers[head.type].schema) {
    if (!others) bdk_count(r->counters, (bdk_counter)foreign(bytes, len, error), 1);
    return false;
  }
  take(L, r, router, &head, from, bytes, len);
  return true;
}

// The messages of an association that follow each other in `bytes`.
static void take_sealed(lua_State *L, bdk_router *r, int router, const bdk_route *from, const uint8_t *bytes,
                        size_t len) {
  bdk_reply mine = *r->reply;
  bdk_reader in = {bytes, bytes + len};
  if (!len && !mine.batch) bdk_count(r->counters, BDK_COUNT_drop_short, 1); // a handshake may bring none
  while (in.p < in.end) {
    const uint8_t *start = in.p;
    if (!bdk_skip(&in)) {
      bdk_count(r->counters, BDK_COUNT_drop_msgpack, 1);
      break;
    }
    size_t n = (size_t)(in.p - start);
    *r->reply = mine;
    r->reply->length = n;
    take_message(L, r, router, from, start, n, false);
  }
  *r->reply = mine;
}

// Sends what no script has a part in; a Lua socket may throw.
static void send_own(lua_State *L, bdk_router *r, int router, const bdk_route *to, const uint8_t *bytes, size_t len) {
  refusal f = {bytes, len, to};
  lua_getiuservalue(L, router, REPLY);
  lua_pushcfunction(L, send_refusal);
  lua_insert(L, -2);
  lua_pushlightuserdata(L, &f);
  if (!bdk_lua_call(L, 2, 0)) bdk_count(r->counters, BDK_COUNT_handler_error, 1);
}

static void say_lost(lua_State *L, bdk_router *r, int router, const bdk_route *from, const uint8_t *bytes) {
  uint8_t out[32];
  // Index, kind and counter: only who sent the frame, or saw it, knows them.
  bdk_field tx = {.data = bytes + 1, .len = BDK_TX_LEN};
  size_t n = bdk_message_write(r->lost, &tx, out, sizeof out, NULL);
  if (!n) return;
  bdk_count(r->counters, BDK_COUNT_association_lost, 1);
  send_own(L, r, router, from, out, n);
}

static void take_frame(lua_State *L, bdk_router *r, int router, const bdk_route *from, const uint8_t *bytes,
                       size_t len) {
  uint8_t plain[BDK_DATAGRAM_MAX];
  size_t n;
  uint32_t index;
  switch (bdk_assocs_input(r->assocs->table, r->assocs->now_us, from, bytes, len, plain, &n, &index)) {
  case BDK_ASSOC_UNKNOWN:
    say_lost(L, r, router, from, bytes);
    break;
  case BDK_ASSOC_SEND:
    send_own(L, r, router, from, plain, n);
    break;
  case BDK_ASSOC_MESSAGE:
    r->reply->sealed = true;
    r->reply->assoc = index;
    r->reply->assocs = r->assocs;
    take_sealed(L, r, router, from, plain, n);
    break;
  case BDK_ASSOC_DROP:
  case BDK_ASSOC_MOVED:
    break;
  }
}

typedef struct frame {
  const bdk_route *from;
  const uint8_t *bytes;
  size_t len;
} frame;

// Runs inside bdk_lua_call. 1: the router, 2: the frame.
static int call_frames(lua_State *L) {
  const frame *f = lua_touserdata(L, 2);
  lua_getiuservalue(L, 1, FRAMES);
  bdk_push_addr(L, &f->from->remote);
  lua_pushlstring(L, (const char *)f->bytes, f->len);
  lua_call(L, 2, 0);
  return 0;
}

static void give_frame(lua_State *L, bdk_router *r, int router, const bdk_route *from, const uint8_t *bytes,
                       size_t len) {
  frame f = {from, bytes, len};
  lua_pushcfunction(L, call_frames);
  lua_pushvalue(L, router);
  lua_pushlightuserdata(L, &f);
  if (!bdk_lua_call(L, 2, 0)) bdk_count(r->counters, BDK_COUNT_handler_error, 1);
}

typedef struct binding {
  const bdk_stun *message;
  const bdk_route *from;
  bool taken, wanted; // somebody here wants such; and wants this one answered
} binding;

// Runs inside bdk_lua_call. 1: the router, 2: the binding.
static int call_stun(lua_State *L) {
  binding *b = lua_touserdata(L, 2);
  bool asked = b->message->kind == BDK_STUN_REQUEST;
  if (lua_getiuservalue(L, 1, asked ? STUN_ASKED : STUN_ANSWERED) != LUA_TFUNCTION) return 0;
  b->taken = true;
  bdk_push_addr(L, &b->from->remote);
  if (asked) {
    lua_call(L, 1, 1);
    b->wanted = lua_toboolean(L, -1);
    return 0;
  }
  lua_pushlstring(L, (const char *)b->message->id + 4, BDK_TX_LEN);
  if (b->message->kind == BDK_STUN_SUCCESS) {
    bdk_push_addr(L, &b->message->mapped);
    lua_pushnil(L);
  } else {
    lua_pushnil(L);
    lua_pushinteger(L, b->message->code);
  }
  lua_call(L, 4, 0);
  return 0;
}

// Of the answers none is longer than 44 bytes: the one exception to the reply rule, which is why who asks is limited.
static void take_stun(lua_State *L, bdk_router *r, int router, const bdk_route *from, const uint8_t *bytes,
                      size_t len) {
  bdk_stun message;
  binding b = {.message = &message, .from = from};
  uint8_t out[BDK_STUN_ANSWER_MAX];
  bool ok = len <= BDK_DATAGRAM_MAX && bdk_stun_read(&message, bytes, len) == 0;
  if (ok) {
    lua_pushcfunction(L, call_stun);
    lua_pushvalue(L, router);
    lua_pushlightuserdata(L, &b);
    if (!bdk_lua_call(L, 2, 0)) {
      bdk_count(r->counters, BDK_COUNT_handler_error, 1);
      return;
    }
  }
  if (!b.taken) {
    bdk_count(r->counters, len > BDK_DATAGRAM_MAX ? BDK_COUNT_udp_rx_truncated : BDK_COUNT_drop_stun, 1);
    return;
  }
  if (!b.wanted) return;
  size_t n = bdk_stun_write_answer(&message, &from->remote, out);
  bdk_count(r->counters, n ? BDK_COUNT_stun_answered : BDK_COUNT_drop_stun, 1);
  if (n) send_own(L, r, router, from, out, n);
}

// Puts a reply for `from` in place and keeps the outer one, for handlers nest when a Lua socket delivers at once.
typedef struct turn {
  bdk_reply outer;
  int top; // the reply, and above it its socket before
} turn;

static void begin_turn(lua_State *L, bdk_router *r, int router, int socket, turn *t) {
  t->outer = *r->reply;
  lua_getiuservalue(L, router, REPLY);
  lua_getiuservalue(L, -1, SOCKET);
  t->top = lua_gettop(L);
  if (socket)
    lua_pushvalue(L, socket);
  else
    lua_pushnil(L);
  lua_setiuservalue(L, t->top - 1, SOCKET);
}

static void end_turn(lua_State *L, bdk_router *r, const turn *t) {
  *r->reply = t->outer;
  lua_settop(L, t->top);
  lua_setiuservalue(L, t->top - 1, SOCKET);
  lua_settop(L, t->top - 2);
}

bool bdk_router_input(lua_State *L, int router, int socket, bdk_udp_box *udp, const bdk_route *from,
                      const uint8_t *bytes, size_t len, bool others) {
  bdk_router *r = lua_touserdata(L, router);
  if (!lua_checkstack(L, 8)) return false;
  if (len > 0 && bytes[0] == BDK_RELAY_MARK && r->relay && r->relay->table) {
    lua_getiuservalue(L, router, RELAY);
    bdk_relay_box_input(L, r->relay, from, bytes, len);
    lua_pop(L, 1);
    return true;
  }
  turn t;
  begin_turn(L, r, router, socket, &t);
  *r->reply = (bdk_reply){.counters = r->counters, .udp = udp, .route = *from, .length = len};
  bool taken = true, is_frame = len > 0 && bytes[0] == 0xC1, is_stun = len > 0 && bytes[0] <= BDK_STUN_FIRST_MAX;
  if (is_frame && r->assocs && r->assocs->table)
    take_frame(L, r, router, from, bytes, len);
  else if (is_frame && r->frames)
    give_frame(L, r, router, from, bytes, len);
  else if (is_stun && r->stun)
    take_stun(L, r, router, from, bytes, len);
  else
    taken = take_message(L, r, router, from, bytes, len, others);
  end_turn(L, r, &t);
  return taken;
}

// [-0, +1..3, e] router:open(reply, noise) -> true | nil, message, code: a client's first message of a handshake, whose
// sender has proven its address. Acts on the messages in it; their replies are in the answer, which the caller sends.
static int open(lua_State *L) {
  bdk_router *r = bdk_check_router(L, 1);
  bdk_reply *reply = luaL_checkudata(L, 2, reply_type);
  size_t len;
  const char *bytes = luaL_checklstring(L, 3, &len);
  luaL_argcheck(L, reply == r->reply && reply->active && r->assocs && r->assocs->table, 2,
                "the reply of this router's handler expected");
  lua_settop(L, 3);
  uint8_t payload[BDK_NOISE_MAX], messages[BDK_DATAGRAM_MAX], out[BDK_DATAGRAM_MAX];
  uint32_t index;
  bool again;
  bdk_route from = reply->route;
  int n =
      bdk_assocs_open(r->assocs->table, r->assocs->now_us, &from, (const uint8_t *)bytes, len, payload, &index, &again);
  if (n < 0) {
    bdk_count(r->counters, BDK_COUNT_association_refused, 1);
    return bdk_lua_fail(L, n);
  }
  bdk_packer batch = bdk_packer_init(messages, BDK_OPENED_MAX);
  if (!again) {
    bdk_reply outer = *reply;
    bdk_count(r->counters, BDK_COUNT_associated, 1);
    *reply = (bdk_reply){.counters = r->counters,
                         .udp = outer.udp,
                         .route = from,
                         .sealed = true,
                         .assoc = index,
                         .assocs = r->assocs,
                         .batch = &batch};
    take_sealed(L, r, 1, &from, payload, (size_t)n);
    *reply = outer;
  }
  size_t answer = bdk_assocs_answer(r->assocs->table, index, messages, batch.len, out, sizeof out);
  if (!answer) return bdk_lua_fail(L, BDK_E_LIMIT);
  lua_pushlstring(L, (const char *)out, answer);
  lua_pushinteger(L, index);
  lua_pushboolean(L, !again);
  return 3;
}

// [-0, +0, e] router:inner(from, bytes): messages out of an association, at a client
static int inner(lua_State *L) {
  bdk_router *r = bdk_check_router(L, 1);
  bdk_route from = {.remote = bdk_check_addr(L, 2)};
  size_t len;
  const char *bytes = luaL_checklstring(L, 3, &len);
  lua_settop(L, 3);
  turn t;
  begin_turn(L, r, 1, 0, &t);
  *r->reply = (bdk_reply){.counters = r->counters, .route = from, .length = len, .sealed = true};
  take_sealed(L, r, 1, &from, (const uint8_t *)bytes, len);
  end_turn(L, r, &t);
  return 0;
}

// [-0, +1, e] router:input(sock, from, bytes) -> true when it was a message of a type handled here
static int input(lua_State *L) {
  bdk_check_router(L, 1);
  luaL_checkany(L, 2);
  bdk_route route = {.remote = bdk_check_addr(L, 3), .sock = ((bdk_router *)lua_touserdata(L, 1))->number};
  size_t len;
  const char *bytes = luaL_checklstring(L, 4, &len);
  lua_settop(L, 4);
  lua_pushboolean(L, bdk_router_input(L, 1, 2, NULL, &route, (const uint8_t *)bytes, len, false));
  return 1;
}

void bdk_open_router(lua_State *L) {
  static const luaL_Reg methods[] = {{"on", on},       {"refuse", refuse}, {"reply_schemas", reply_schemas},
                                     {"input", input}, {"assocs", assocs}, {"frames", frames},
                                     {"open", open},   {"inner", inner},   {"relay", relay},
                                     {"stun", stun},   {NULL, NULL}};
  static const luaL_Reg meta[] = {{NULL, NULL}};
  static const luaL_Reg reply_methods[] = {
      {"proven", reply_proven}, {"length", reply_length},    {"send", reply_send}, {"at", reply_at},
      {"who", reply_who},       {"sealed", reply_is_sealed}, {NULL, NULL}};
  static const luaL_Reg reply_meta[] = {{"__call", reply_call}, {NULL, NULL}};
  bdk_lua_type(L, type, methods, meta);
  bdk_lua_type(L, reply_type, reply_methods, reply_meta);
  lua_pushcfunction(L, new);
  lua_setfield(L, -2, "router");
}
