// SPDX-License-Identifier: MIT
// A Lua state that lives as long as the process, with bodkin.core and the scripts, and a script of this directory
// loaded into it: it returns a function of the input's bytes. What it throws is a failure. libFuzzer sees which lines
// of Lua were run, as it sees C's branches.
#ifndef BDK_SPEC_FUZZ_LUA_H
#define BDK_SPEC_FUZZ_LUA_H

#include <lauxlib.h>
#include <lualib.h>
#include <sanitizer/asan_interface.h>

#include "../../runtime/host/embed.h"
#include "fuzz.h"

int luaopen_bodkin_core(lua_State *L);

#define FUZZ_LINES (1u << 14)
__attribute__((section("__libfuzzer_extra_counters"))) static uint8_t fuzz_lines[FUZZ_LINES];

static inline void fuzz_count_line(lua_State *L, lua_Debug *ar) {
  lua_getinfo(L, "S", ar);
  uint64_t h = ((uint64_t)(uintptr_t)ar->source ^ (uint64_t)ar->currentline << 44) * 0x9E3779B97F4A7C15u;
  uint8_t *count = &fuzz_lines[h >> 50];
  if (*count < UINT8_MAX) ++*count;
}

// Lua's memory comes from here: libFuzzer looks for leaks whenever more is allocated than freed, which between two
// collections is always so. Blocks are powers of two; what nobody asked for of them is poisoned.
#define FUZZ_ARENA (96u << 20)
static struct {
  size_t used;
  void *spare[32];
  _Alignas(16) uint8_t bytes[FUZZ_ARENA];
} fuzz_arena;

static inline int fuzz_class(size_t size) { return size <= 16 ? 4 : 64 - __builtin_clzll(size - 1); }

static inline void *fuzz_arena_take(size_t size) {
  int class = fuzz_class(size);
  void *p = fuzz_arena.spare[class];
  if (p) {
    ASAN_UNPOISON_MEMORY_REGION(p, (size_t)1 << class);
    memcpy(&fuzz_arena.spare[class], p, sizeof p);
  } else if ((sizeof fuzz_arena.bytes - fuzz_arena.used) >> class) {
    p = fuzz_arena.bytes + fuzz_arena.used;
    fuzz_arena.used += (size_t)1 << class;
  } else {
    return NULL;
  }
  ASAN_POISON_MEMORY_REGION((uint8_t *)p + size, ((size_t)1 << class) - size);
  return p;
}

static inline void fuzz_arena_give(void *p, size_t size) {
  int class = fuzz_class(size);
  ASAN_UNPOISON_MEMORY_REGION(p, (size_t)1 << class);
  memcpy(p, &fuzz_arena.spare[class], sizeof p);
  fuzz_arena.spare[class] = p;
  ASAN_POISON_MEMORY_REGION(p, (size_t)1 << class);
}

static inline void *fuzz_lua_alloc(void *ctx, void *p, size_t old_size, size_t new_size) {
  (void)ctx;
  void *q = new_size ? fuzz_arena_take(new_size) : NULL;
  if (new_size && !q) return NULL;
  if (!p) return q;
  if (q) memcpy(q, p, old_size < new_size ? old_size : new_size);
  if (old_size) fuzz_arena_give(p, old_size);
  return q;
}

// fail(text): reports and aborts.
static inline int fuzz_fail(lua_State *L) {
  fprintf(stderr, "%s\n", luaL_tolstring(L, -1, NULL));
  abort();
}

static inline int fuzz_traceback(lua_State *L) {
  luaL_traceback(L, L, luaL_tolstring(L, 1, NULL), 1);
  return 1;
}

static inline void fuzz_call(lua_State *L, int nargs, int nresults) {
  int at = lua_gettop(L) - nargs;
  lua_pushcfunction(L, fuzz_traceback);
  lua_insert(L, at);
  if (lua_pcall(L, nargs, nresults, at) != LUA_OK) fuzz_fail(L);
  lua_remove(L, at);
}

// The state, what `script` returned alone on its stack. Run from the root of the repository.
static inline lua_State *fuzz_lua_open(const char *script) {
  lua_State *L = lua_newstate(fuzz_lua_alloc, NULL);
  REQUIRE(L);
  luaL_openlibs(L);
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
  lua_pushcfunction(L, luaopen_bodkin_core);
  lua_setfield(L, -2, "bodkin.core");
  lua_settop(L, 0);
  bdk_embed_install(L);
  if (luaL_loadfile(L, script) != LUA_OK) fuzz_fail(L);
  lua_pushcfunction(L, fuzz_fail);
  fuzz_call(L, 1, LUA_MULTRET);
  return L;
}

// Calls the function at `idx` with bytes. Of one input in four, always the same ones, the lines are seen: that takes
// more time than running them.
static inline void fuzz_lua_input(lua_State *L, int idx, const uint8_t *bytes, size_t len) {
  uint32_t sum = 0;
  for (size_t i = 0; i < len; i++) sum = (sum ^ bytes[i]) * 16777619u;
  bool seen = sum >> 30 == 0;
  lua_sethook(L, seen ? fuzz_count_line : NULL, seen ? LUA_MASKLINE : 0, 0);
  lua_pushvalue(L, idx);
  lua_pushlstring(L, (const char *)bytes, len);
  fuzz_call(L, 1, 0);
}

#endif
