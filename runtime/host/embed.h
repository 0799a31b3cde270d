// SPDX-License-Identifier: MIT
// The Lua scripts carried inside the binary as text, and the package.searcher that finds them: first in
// the directory that BODKIN_PATH names (so that a script can be changed without a build), then here.
#ifndef BDK_EMBED_H
#define BDK_EMBED_H

#include <lua.h>
#include <stdbool.h>
#include <stddef.h>

typedef struct bdk_script {
  const char *path; // as require sees it: "bodkin/cli/init.lua"
  const char *text;
  size_t len;
} bdk_script;

bool bdk_embed_find(const char *path, bdk_script *out);

// Puts the searcher right behind the one for package.preload. [-0, +0, e]
void bdk_embed_install(lua_State *L);

#endif
