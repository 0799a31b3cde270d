// SPDX-License-Identifier: MIT
// core.loop: one of the host's kind, or a virtual one whose time its owner moves; and the handles that live on it.
#include "bind.h"

#include <string.h>

#include "io/os.h"

static const char type[] = "bodkin.loop";
static const char loops_key = 0; // registry: loop -> userdata, weak, to find the anchors from C
enum { ANCHORS = 1 };            // user value: handle -> userdata

static bdk_loop *to_loop(lua_State *L, int idx) { return luaL_checkudata(L, idx, type); }

bdk_loop *bdk_check_loop(lua_State *L, int idx) {
  bdk_loop *loop = to_loop(L, idx);
  if (!loop->driver || loop->closing) luaL_error(L, "closed loop");
  return loop;
}

bdk_loop *bdk_check_real(lua_State *L, int idx) {
  bdk_loop *loop = bdk_check_loop(L, idx);
  if (loop->is_virtual) luaL_error(L, "a virtual loop has no sockets, files or names");
  return loop;
}

static bool is_run(const bdk_loop *loop) { return loop->kind && loop->kind->run; }

uint64_t bdk_loop_now(bdk_loop *loop) {
  if (is_run(loop) && !loop->running) loop->driver->now_us = bdk_os_now_us();
  return loop->driver->now_us;
}

// --- handles
static bool push_anchors(lua_State *L, bdk_loop *loop) {
  lua_rawgetp(L, LUA_REGISTRYINDEX, &loops_key);
  if (lua_rawgetp(L, -1, loop) != LUA_TUSERDATA) { // being finalised
    lua_pop(L, 2);
    return false;
  }
  lua_getiuservalue(L, -1, ANCHORS);
  lua_replace(L, -3);
  lua_pop(L, 1);
  return true;
}

void bdk_handle_open(lua_State *L, int loop_idx, int ud, void (*release)(bdk_handle *)) {
  bdk_loop *loop = bdk_check_loop(L, loop_idx);
  bdk_handle *h = lua_touserdata(L, ud);
  BDK_STACK(L, 3);
  lua_pushvalue(L, ud);
  lua_getiuservalue(L, loop_idx, ANCHORS);
  lua_insert(L, -2);
  lua_rawsetp(L, -2, h);
  lua_pop(L, 1);
  h->loop = loop;
  h->release = release;
  h->prev = NULL;
  h->next = loop->handles;
  if (h->next) h->next->prev = h;
  loop->handles = h;
  loop->count++;
}

void bdk_handle_close(lua_State *L, bdk_handle *h) {
  bdk_loop *loop = h->loop;
  if (!loop) return;
  if (h->prev)
    h->prev->next = h->next;
  else
    loop->handles = h->next;
  if (h->next) h->next->prev = h->prev;
  loop->count--;
  h->release(h); // with h->loop still set
  h->loop = NULL;
  if (lua_checkstack(L, 4) && push_anchors(L, loop)) {
    lua_pushnil(L);
    lua_rawsetp(L, -2, h); // the key is there, or nil is set to none: allocates nothing
    lua_pop(L, 1);
  }
}

bool bdk_handle_push(lua_State *L, bdk_handle *h) {
  if (!h->loop || !lua_checkstack(L, 4) || !push_anchors(L, h->loop)) return false;
  lua_rawgetp(L, -1, h);
  lua_remove(L, -2);
  if (lua_isuserdata(L, -1)) return true;
  lua_pop(L, 1);
  return false;
}

// --- the loop
// [-0, +1, e] loop{ virtual=, now_us= } -> loop
static int new (lua_State *L) {
  if (lua_isnone(L, 1)) lua_newtable(L);
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_settop(L, 1);
  lua_getfield(L, 1, "virtual");
  bool is_virtual = lua_toboolean(L, -1);
  uint64_t now_us = (uint64_t)bdk_opt_integer(L, 1, "now_us", 0, 0, LUA_MAXINTEGER / 2);
  bdk_loop *loop = lua_newuserdatauv(L, sizeof *loop, 1);
  memset(loop, 0, sizeof *loop);
  luaL_setmetatable(L, type);
  lua_newtable(L);
  lua_setiuservalue(L, -2, ANCHORS);
  lua_rawgetp(L, LUA_REGISTRYINDEX, &loops_key);
  lua_pushvalue(L, -2);
  lua_rawsetp(L, -2, loop);
  lua_pop(L, 1);
  loop->L = bdk_lua_main(L);
  loop->is_virtual = is_virtual;
  if (is_virtual) {
    bdk_wheel_init(&loop->own.wheel, &bdk_os_alloc);
    loop->own.now_us = now_us;
    loop->driver = &loop->own;
  } else {
    loop->kind = lua_touserdata(L, lua_upvalueindex(1));
    loop->driver = loop->kind->make();
    if (!loop->driver) return luaL_error(L, "cannot make an event loop: too many open files?");
  }
  return 1;
}

static void destroy(bdk_loop *loop) {
  if (loop->is_virtual)
    bdk_wheel_clear(&loop->own.wheel);
  else
    loop->kind->free(loop->driver);
  loop->driver = NULL;
}

static void stop_loop(bdk_loop *loop) {
  loop->stopped = true;
  if (is_run(loop) && loop->running) loop->kind->stop(loop->driver);
}

// [-0, +0, e] loop:close(): closes every handle, too. Inside a callback the loop ends after this turn.
static int loop_close(lua_State *L) {
  bdk_loop *loop = to_loop(L, 1);
  if (!loop->driver || loop->closing) return 0;
  loop->closing = true;
  bdk_resolver_free(loop->resolver); // first: it holds addresses of queries
  loop->resolver = NULL;
  while (loop->handles) bdk_handle_close(L, loop->handles);
  if (loop->running)
    stop_loop(loop);
  else
    destroy(loop);
  return 0;
}

bool bdk_loop_begin(bdk_loop *loop) {
  if (!loop->driver || loop->running) return false;
  loop->running = true;
  loop->stopped = false;
  return true;
}

void bdk_loop_end(bdk_loop *loop) {
  loop->running = false;
  if (loop->closing) destroy(loop);
}

// Around whatever fires callbacks. The loop stays on the caller's stack meanwhile.
static bdk_loop *enter(lua_State *L) {
  bdk_loop *loop = bdk_check_loop(L, 1);
  if (!bdk_loop_begin(loop)) luaL_error(L, "the loop runs already");
  return loop;
}

// Fires what is due next, at most at `limit`; false when there is nothing.
static bool fire_next(bdk_loop *loop, uint64_t limit) {
  uint64_t due = bdk_wheel_deadline(&loop->own.wheel);
  if (due == BDK_NEVER || due > limit) return false;
  if (due > loop->own.now_us) loop->own.now_us = due;
  bdk_timer *t = bdk_wheel_pop(&loop->own.wheel, loop->own.now_us);
  t->fire(t, loop->own.now_us);
  return true;
}

static bdk_loop *enter_virtual(lua_State *L) {
  if (!bdk_check_loop(L, 1)->is_virtual) luaL_error(L, "only a virtual loop's time can be moved");
  return enter(L);
}

// [-0, +0, e] loop:run(): until stop; a virtual loop also until no timer is left
static int run(lua_State *L) {
  if (!bdk_check_loop(L, 1)->is_virtual && !is_run(bdk_check_loop(L, 1)))
    luaL_error(L, "this loop is turned by the program it is in");
  bdk_loop *loop = enter(L);
  if (!loop->is_virtual)
    loop->kind->run(loop->driver);
  else
    while (!loop->stopped && fire_next(loop, BDK_NEVER - 1)) continue;
  bdk_loop_end(loop);
  return 0;
}

// [-0, +0, e] loop:stop()
static int stop(lua_State *L) {
  stop_loop(bdk_check_loop(L, 1));
  return 0;
}

// [-0, +0, e] loop:advance(us): virtual time passes; all that is due by then fires in order, unless stopped
static int advance(lua_State *L) {
  lua_Integer us = luaL_checkinteger(L, 2);
  luaL_argcheck(L, us >= 0 && us <= LUA_MAXINTEGER / 4, 2, "out of range");
  bdk_loop *loop = enter_virtual(L);
  uint64_t until = loop->own.now_us + (uint64_t)us;
  while (!loop->stopped && fire_next(loop, until)) continue;
  if (!loop->stopped) loop->own.now_us = until;
  bdk_loop_end(loop);
  return 0;
}

// [-0, +1, e] loop:step() -> bool: on to the next timer; false when none is set
static int step(lua_State *L) {
  bdk_loop *loop = enter_virtual(L);
  bool fired = fire_next(loop, BDK_NEVER - 1);
  bdk_loop_end(loop);
  lua_pushboolean(L, fired);
  return 1;
}

// [-0, +1, e] loop:now() -> µs
static int now(lua_State *L) {
  lua_pushinteger(L, (lua_Integer)bdk_loop_now(bdk_check_loop(L, 1)));
  return 1;
}

// [-0, +1, e] loop:handles() -> how many are open: sockets, streams, listeners, driven muxes, set timers, queries
static int handles(lua_State *L) {
  lua_pushinteger(L, to_loop(L, 1)->count);
  return 1;
}

// [-0, +0, e] loop:gather(us): the most it may wait for more where many datagrams come one by one; see io/driver.h
static int gather(lua_State *L) {
  bdk_loop *loop = bdk_check_loop(L, 1);
  lua_Integer us = luaL_checkinteger(L, 2);
  luaL_argcheck(L, us >= 0 && us <= 10000, 2, "0 to 10000 us expected");
  loop->driver->gather_us = (uint32_t)us;
  return 0;
}

static int loop_tostring(lua_State *L) {
  bdk_loop *loop = to_loop(L, 1);
  lua_pushfstring(L, "loop (%s)", !loop->driver ? "closed" : loop->is_virtual ? "virtual" : loop->kind->name);
  return 1;
}

void bdk_open_loop(lua_State *L, const bdk_driver_kind *kind) {
  static const luaL_Reg methods[] = {
      {"now", now},         {"run", run},       {"stop", stop},        {"advance", advance}, {"step", step},
      {"handles", handles}, {"gather", gather}, {"close", loop_close}, {NULL, NULL},
  };
  static const luaL_Reg meta[] = {
      {"__gc", loop_close}, {"__close", loop_close}, {"__tostring", loop_tostring}, {NULL, NULL}};
  bdk_lua_type(L, type, methods, meta);
  lua_newtable(L);
  lua_createtable(L, 0, 1);
  lua_pushliteral(L, "v");
  lua_setfield(L, -2, "__mode");
  lua_setmetatable(L, -2);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &loops_key);
  lua_pushlightuserdata(L, (void *)kind);
  lua_pushcclosure(L, new, 1);
  lua_setfield(L, -2, "loop");
}
