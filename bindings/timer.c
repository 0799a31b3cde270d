// SPDX-License-Identifier: MIT
// loop:timer: one shot, on the loop's wheel. While set it is a handle of the loop.
#include "bind.h"

#include <math.h>
#include <string.h>

static const char type[] = "bodkin.timer";
enum { FUNCTION = 1, LOOP = 2 };

typedef struct timer {
  bdk_handle h; // first; open while set
  bdk_timer t;
} timer;

static void release(bdk_handle *h) { bdk_driver_cancel(h->loop->driver, &((timer *)h)->t); }

// Runs inside bdk_lua_call. 1: the timer
static int call(lua_State *L) {
  timer *t = lua_touserdata(L, 1);
  if (!bdk_handle_push(L, &t->h)) return 0;
  bdk_handle_close(L, &t->h); // the stack keeps it; the function may set it again
  lua_getiuservalue(L, -1, FUNCTION);
  lua_call(L, 0, 0);
  return 0;
}

static void fire(bdk_timer *bt, uint64_t now_us) {
  (void)now_us;
  timer *t = (timer *)((char *)bt - offsetof(timer, t));
  bdk_lua_enter(t->h.loop->L, call, t);
}

static uint64_t check_delay(lua_State *L, int idx) {
  lua_Number ms = luaL_checknumber(L, idx);
  luaL_argcheck(L, ms >= 0 && ms <= 1e12, idx, "a delay in ms, not negative, expected");
  return (uint64_t)llround(ms * 1000);
}

// Sets the timer at `ud`; its loop is at `loop_idx`.
static void set(lua_State *L, int loop_idx, int ud, uint64_t delay_us) {
  bdk_loop *loop = bdk_check_loop(L, loop_idx);
  timer *t = lua_touserdata(L, ud);
  if (!t->h.loop) bdk_handle_open(L, loop_idx, ud, release);
  if (bdk_driver_timer(loop->driver, &t->t, bdk_loop_now(loop) + delay_us)) {
    bdk_handle_close(L, &t->h);
    luaL_error(L, "not enough memory for a timer");
  }
}

// [-0, +1, e] loop:timer(delay_ms, fn) -> timer
static int new (lua_State *L) {
  bdk_check_loop(L, 1);
  uint64_t delay_us = check_delay(L, 2);
  luaL_checktype(L, 3, LUA_TFUNCTION);
  lua_settop(L, 3);
  timer *t = lua_newuserdatauv(L, sizeof *t, 2);
  memset(t, 0, sizeof *t);
  t->t.fire = fire;
  luaL_setmetatable(L, type);
  lua_pushvalue(L, 3);
  lua_setiuservalue(L, 4, FUNCTION);
  lua_pushvalue(L, 1);
  lua_setiuservalue(L, 4, LOOP);
  set(L, 1, 4, delay_us);
  return 1;
}

// [-0, +0, e] timer:cancel(); idempotent
static int cancel(lua_State *L) {
  timer *t = luaL_checkudata(L, 1, type);
  bdk_handle_close(L, &t->h);
  return 0;
}

// [-0, +0, e] timer:again(delay_ms): sets it, or moves it
static int again(lua_State *L) {
  luaL_checkudata(L, 1, type);
  uint64_t delay_us = check_delay(L, 2);
  lua_settop(L, 1);
  lua_getiuservalue(L, 1, LOOP);
  set(L, 2, 1, delay_us);
  return 0;
}

static int timer_tostring(lua_State *L) {
  timer *t = luaL_checkudata(L, 1, type);
  lua_pushfstring(L, "timer (%s)", t->h.loop ? "set" : "not set");
  return 1;
}

void bdk_open_timer(lua_State *L) {
  static const luaL_Reg methods[] = {{"cancel", cancel}, {"close", cancel}, {"again", again}, {NULL, NULL}};
  static const luaL_Reg meta[] = {{"__gc", cancel}, {"__close", cancel}, {"__tostring", timer_tostring}, {NULL, NULL}};
  bdk_lua_type(L, type, methods, meta);
  luaL_getmetatable(L, "bodkin.loop");
  lua_getfield(L, -1, "__index");
  lua_pushcfunction(L, new);
  lua_setfield(L, -2, "timer");
  lua_pop(L, 2);
}
