// SPDX-License-Identifier: MIT
// Streams by lines: loop:listen, connect, stdin, fd; and loop:resolve.
#include "io/stream.h"
#include "bind.h"

#include <stdlib.h>
#include <string.h>

static const char type[] = "bodkin.stream", listener_type[] = "bodkin.listener", query_type[] = "bodkin.query";
enum { LINE_MAX_BYTES = 65536 };
enum { LOOP = 1, FUNCTION = 2 };

typedef struct stream {
  bdk_handle h; // first
  bdk_stream *s;
  char *line; // what came of the next line
  size_t len, cap;
  bool reading, ended;
} stream;

typedef struct listener {
  bdk_handle h; // first
  bdk_listener *l;
} listener;

typedef struct query {
  bdk_handle h; // first; open until answered. What it waits for cannot be taken back: close waits, too
} query;

// --- streams
static stream *check(lua_State *L) {
  stream *s = luaL_checkudata(L, 1, type);
  if (!s->s) luaL_error(L, "closed stream");
  return s;
}

static void release_stream(bdk_handle *h) {
  stream *s = (stream *)h;
  bdk_stream_close(s->s);
  s->s = NULL;
  free(s->line);
  s->line = NULL;
  s->len = s->cap = 0;
}

// Pushes a closed stream, anchored on the loop at `loop_idx`.
static stream *push_stream(lua_State *L, int loop_idx) {
  stream *s = lua_newuserdatauv(L, sizeof *s, 2);
  memset(s, 0, sizeof *s);
  luaL_setmetatable(L, type);
  int at = lua_gettop(L);
  lua_pushvalue(L, loop_idx);
  lua_setiuservalue(L, at, LOOP);
  bdk_handle_open(L, loop_idx, at, release_stream);
  return s;
}

typedef struct read_event {
  stream *s;
  const char *line; // NULL: the end
  size_t len;
  const char *error;
} read_event;

// Runs inside bdk_lua_call. 1: the event. fn(line) or fn(nil, message)
static int call_reader(lua_State *L) {
  const read_event *e = lua_touserdata(L, 1);
  if (!bdk_handle_push(L, &e->s->h)) return 0;
  if (lua_getiuservalue(L, -1, FUNCTION) != LUA_TFUNCTION) return 0;
  if (e->line)
    lua_pushlstring(L, e->line, e->len);
  else
    lua_pushnil(L);
  lua_pushstring(L, e->error);
  lua_call(L, 2, 0);
  return 0;
}

static void tell(stream *s, const char *line, size_t len, const char *error) {
  read_event e = {s, line, len, error};
  bdk_lua_enter(s->h.loop->L, call_reader, &e);
}

static void end_stream(stream *s, const char *error) {
  s->ended = true;
  if (s->len) {
    size_t len = s->len;
    s->len = 0;
    tell(s, s->line, len, NULL); // the line may be freed in there, not read after
  }
  if (s->s) tell(s, NULL, 0, error);
}

static bool append(stream *s, const char *data, size_t len) {
  if (s->len + len > LINE_MAX_BYTES) return false;
  if (s->len + len > s->cap) {
    size_t cap = s->cap ? s->cap : 256;
    while (cap < s->len + len) cap *= 2;
    char *p = realloc(s->line, cap);
    if (!p) return false;
    s->line = p;
    s->cap = cap;
  }
  if (len) memcpy(s->line + s->len, data, len);
  s->len += len;
  return true;
}

// Tells each whole line; stops when the stream is closed from inside.
static void feed(stream *s, const char *data, size_t len) {
  while (len && s->s && !s->ended) {
    const char *end = memchr(data, '\n', len);
    size_t n = end ? (size_t)(end - data) : len;
    if (!append(s, data, n)) {
      s->len = 0;
      end_stream(s, "a line is longer than 65536 bytes");
      return;
    }
    if (!end) return;
    size_t line_len = s->len;
    s->len = 0; // what is told next is not touched by anything but a close, after the string was made
    tell(s, s->line ? s->line : "", line_len, NULL);
    data = end + 1;
    len -= n + 1;
  }
}

static void on_read(void *ctx, bdk_stream *bs, const uint8_t *data, size_t len, int error) {
  (void)bs;
  stream *s = ctx;
  lua_State *L = s->h.loop->L;
  if (s->ended || !lua_checkstack(L, 8) || !bdk_handle_push(L, &s->h)) return; // and so it stays alive
  if (len)
    feed(s, (const char *)data, len);
  else
    end_stream(s, error ? strerror(-error) : NULL);
  lua_pop(L, 1);
}

// [-0, +1, e] stream:on_line(fn(line) | fn(nil, message | nil) at the end) -> stream. Reading begins with it.
static int on_line(lua_State *L) {
  stream *s = check(L);
  luaL_checktype(L, 2, LUA_TFUNCTION);
  lua_settop(L, 2);
  lua_setiuservalue(L, 1, FUNCTION);
  if (!s->reading) {
    s->reading = true;
    bdk_stream_reader(s->s, on_read, s);
  }
  return 1;
}

// [-0, +1|3, e] stream:write(s) -> true | nil, message, code
static int write(lua_State *L) {
  stream *s = check(L);
  size_t len;
  const char *data = luaL_checklstring(L, 2, &len);
  int error = bdk_stream_write(s->s, data, len);
  if (error) return bdk_lua_fail(L, error);
  lua_pushboolean(L, true);
  return 1;
}

// [-0, +0, e] stream:close(): once what was written has left. Idempotent
static int stream_close(lua_State *L) {
  stream *s = luaL_checkudata(L, 1, type);
  bdk_handle_close(L, &s->h);
  return 0;
}

static int stream_tostring(lua_State *L) {
  stream *s = luaL_checkudata(L, 1, type);
  lua_pushfstring(L, "stream (%s)", s->s ? "open" : "closed");
  return 1;
}

static int finish_open(lua_State *L, stream *s, int error, const char *what) {
  if (!error) return 1;
  s->s = NULL;
  bdk_handle_close(L, &s->h);
  return bdk_lua_failf(L, error, "%s", what);
}

// [-0, +1|3, e] loop:fd(fd) -> stream, which owns the descriptor (but 0, 1 and 2) | nil, message, code
static int from_fd(lua_State *L) {
  bdk_loop *loop = bdk_check_real(L, 1);
  lua_Integer fd = luaL_checkinteger(L, 2);
  luaL_argcheck(L, fd >= 0 && fd <= 1 << 20, 2, "a descriptor expected");
  stream *s = push_stream(L, 1);
  return finish_open(L, s, bdk_stream_wrap(&s->s, loop->driver, (int)fd, fd > 2), "cannot use the descriptor");
}

// [-0, +1|3, e] loop:stdin() -> stream | nil, message, code
static int from_stdin(lua_State *L) {
  lua_settop(L, 1);
  lua_pushinteger(L, 0);
  return from_fd(L);
}

// [-0, +1|3, e] loop:connect(path) -> stream | nil, message, code
static int from_connect(lua_State *L) {
  bdk_loop *loop = bdk_check_real(L, 1);
  const char *path = luaL_checkstring(L, 2);
  stream *s = push_stream(L, 1);
  return finish_open(L, s, bdk_stream_connect(&s->s, loop->driver, path), path);
}

// --- listeners
static void release_listener(bdk_handle *h) {
  listener *l = (listener *)h;
  bdk_listener_close(l->l);
  l->l = NULL;
}

typedef struct accepted {
  listener *l;
  bdk_stream *s; // NULL once a userdata owns it
} accepted;

// Runs inside bdk_lua_call. 1: what was accepted
static int call_accept(lua_State *L) {
  accepted *a = lua_touserdata(L, 1);
  if (!bdk_handle_push(L, &a->l->h)) return 0; // 2
  lua_getiuservalue(L, 2, FUNCTION);
  lua_getiuservalue(L, 2, LOOP);
  stream *s = push_stream(L, 4);
  s->s = a->s;
  a->s = NULL;
  lua_remove(L, 4);
  lua_call(L, 1, 0);
  return 0;
}

static void on_accept(void *ctx, bdk_stream *s) {
  listener *l = ctx;
  accepted a = {l, s};
  bdk_lua_enter(l->h.loop->L, call_accept, &a);
  bdk_stream_close(a.s);
}

// [-0, +1|3, e] loop:listen(path, fn(stream)) -> listener | nil, message, code
static int listen(lua_State *L) {
  bdk_loop *loop = bdk_check_real(L, 1);
  const char *path = luaL_checkstring(L, 2);
  luaL_checktype(L, 3, LUA_TFUNCTION);
  lua_settop(L, 3);
  listener *l = lua_newuserdatauv(L, sizeof *l, 2);
  memset(l, 0, sizeof *l);
  luaL_setmetatable(L, listener_type);
  lua_pushvalue(L, 1);
  lua_setiuservalue(L, 4, LOOP);
  lua_pushvalue(L, 3);
  lua_setiuservalue(L, 4, FUNCTION);
  bdk_handle_open(L, 1, 4, release_listener);
  int error = bdk_listener_open(&l->l, loop->driver, path, on_accept, l);
  if (error) {
    l->l = NULL;
    bdk_handle_close(L, &l->h);
    return bdk_lua_failf(L, error, "cannot listen on %s", path);
  }
  return 1;
}

// [-0, +0, e] listener:close(): also removes the socket's file. Idempotent
static int listener_close(lua_State *L) {
  listener *l = luaL_checkudata(L, 1, listener_type);
  bdk_handle_close(L, &l->h);
  return 0;
}

static int listener_tostring(lua_State *L) {
  listener *l = luaL_checkudata(L, 1, listener_type);
  lua_pushfstring(L, "listener (%s)", l->l ? "open" : "closed");
  return 1;
}

// --- names. A query's memory is the resolver's ctx: it stays anchored until answered, or until the loop is
// closed, where the resolver goes first and answers no more.
static void release_query(bdk_handle *h) { (void)h; }

typedef struct answer {
  query *q;
  const bdk_addr *addrs;
  int count;
  const char *error;
} answer;

// Runs inside bdk_lua_call. 1: the answer. fn(addrs) or fn(nil, message)
static int call_resolved(lua_State *L) {
  const answer *a = lua_touserdata(L, 1);
  if (!bdk_handle_push(L, &a->q->h)) return 0; // 2
  bdk_handle_close(L, &a->q->h);
  lua_getiuservalue(L, 2, FUNCTION);
  if (a->count < 1) {
    lua_pushnil(L);
    lua_pushstring(L, a->error ? a->error : "no address");
    lua_call(L, 2, 0);
    return 0;
  }
  lua_createtable(L, a->count, 0);
  for (int i = 0; i < a->count; i++) {
    bdk_push_addr(L, &a->addrs[i]);
    lua_rawseti(L, -2, i + 1);
  }
  lua_call(L, 1, 0);
  return 0;
}

static void on_resolved(void *ctx, const bdk_addr *addrs, int count, const char *error) {
  query *q = ctx;
  answer a = {q, addrs, count, error};
  bdk_lua_enter(q->h.loop->L, call_resolved, &a);
}

// [-0, +1|3, e] loop:resolve(host, port, fn(addrs) | fn(nil, message)) -> true | nil, message, code
static int resolve(lua_State *L) {
  bdk_loop *loop = bdk_check_real(L, 1);
  const char *host = luaL_checkstring(L, 2);
  lua_Integer port = luaL_checkinteger(L, 3);
  luaL_argcheck(L, port >= 0 && port <= 65535, 3, "port out of range");
  luaL_checktype(L, 4, LUA_TFUNCTION);
  lua_settop(L, 4);
  if (!loop->resolver) loop->resolver = bdk_resolver_new(loop->driver);
  if (!loop->resolver) return bdk_lua_failf(L, BDK_E_LIMIT, "cannot start the resolver");
  query *q = lua_newuserdatauv(L, sizeof *q, 2);
  memset(q, 0, sizeof *q);
  luaL_setmetatable(L, query_type);
  lua_pushvalue(L, 1);
  lua_setiuservalue(L, 5, LOOP);
  lua_pushvalue(L, 4);
  lua_setiuservalue(L, 5, FUNCTION);
  bdk_handle_open(L, 1, 5, release_query);
  int error = bdk_resolve(loop->resolver, host, (uint16_t)port, on_resolved, q);
  if (error) {
    bdk_handle_close(L, &q->h);
    return bdk_lua_failf(L, error, "cannot resolve %s", host);
  }
  lua_pushboolean(L, true);
  return 1;
}

void bdk_open_stream(lua_State *L) {
  static const luaL_Reg methods[] = {{"on_line", on_line}, {"write", write}, {"close", stream_close}, {NULL, NULL}};
  static const luaL_Reg meta[] = {
      {"__gc", stream_close}, {"__close", stream_close}, {"__tostring", stream_tostring}, {NULL, NULL}};
  static const luaL_Reg listener_methods[] = {{"close", listener_close}, {NULL, NULL}};
  static const luaL_Reg listener_meta[] = {
      {"__gc", listener_close}, {"__close", listener_close}, {"__tostring", listener_tostring}, {NULL, NULL}};
  static const luaL_Reg query_meta[] = {{NULL, NULL}};
  static const luaL_Reg makers[] = {{"fd", from_fd},    {"stdin", from_stdin}, {"connect", from_connect},
                                    {"listen", listen}, {"resolve", resolve},  {NULL, NULL}};
  bdk_lua_type(L, type, methods, meta);
  bdk_lua_type(L, listener_type, listener_methods, listener_meta);
  bdk_lua_type(L, query_type, NULL, query_meta);
  luaL_getmetatable(L, "bodkin.loop");
  lua_getfield(L, -1, "__index");
  luaL_setfuncs(L, makers, 0);
  lua_pop(L, 2);
}
