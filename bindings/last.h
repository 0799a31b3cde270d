// SPDX-License-Identifier: MIT
// Where goes what Lua cannot be told any more: to the host's function, else to stderr, each line escaped.
#ifndef BDK_LAST_H
#define BDK_LAST_H

#include <lua.h>

typedef struct bdk_last {
  void (*say)(void *ctx, const char *text, size_t len); // text ends in a zero, too
  void *ctx;
} bdk_last;

void bdk_last_set(lua_State *L, const bdk_last *last); // borrowed; may throw
void bdk_last_say(lua_State *L, const char *text, size_t len);

#endif
