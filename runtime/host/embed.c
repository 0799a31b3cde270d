// SPDX-License-Identifier: MIT
#include "embed.h"

#include <lauxlib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifdef _WIN32 // COFF's assembler has no stack of sections; what the compiler writes next stands in .text
#define BEGIN ".section .rdata,\"dr\"\n"
#define END ".text\n"
#else
#define BEGIN ".pushsection .rodata\n"
#define END ".popsection\n"
#endif

// embed.inc is made by the Makefile: SCRIPT(number, "path for require", "file"), one line a script.
#define SCRIPT(n, path, file)                                                                                          \
  __asm__(BEGIN ".global bdk_script_" #n "\n"                                                                          \
                ".global bdk_script_end_" #n "\n"                                                                      \
                "bdk_script_" #n ": .incbin \"" file "\"\n"                                                            \
                "bdk_script_end_" #n ": .byte 0\n" END);                                                               \
  extern const char bdk_script_##n[], bdk_script_end_##n[];
#include "embed.inc"
#undef SCRIPT

static const struct {
  const char *path, *text, *end;
} scripts[] = {
#define SCRIPT(n, path, file) {path, bdk_script_##n, bdk_script_end_##n},
#include "embed.inc"
#undef SCRIPT
};

bool bdk_embed_find(const char *path, bdk_script *out) {
  for (size_t i = 0; i < sizeof scripts / sizeof *scripts; i++) {
    if (strcmp(scripts[i].path, path) != 0) continue;
    *out = (bdk_script){scripts[i].path, scripts[i].text, (size_t)(scripts[i].end - scripts[i].text)};
    return true;
  }
  return false;
}

// Loads module `name` from the file or script `path`; pushes the loader and its argument. [-0, +(0|2), e]
static bool load(lua_State *L, const char *name, const char *path) {
  const char *dir = getenv("BODKIN_PATH");
  int status = LUA_OK;
  bdk_script s;
  if (dir && *dir) {
    const char *file = lua_pushfstring(L, "%s/%s", dir, path);
    if (access(file, R_OK) == 0) {
      status = luaL_loadfilex(L, file, "t");
      if (status != LUA_OK) luaL_error(L, "error loading module '%s':\n\t%s", name, lua_tostring(L, -1));
      lua_insert(L, -2); // the loader's second argument: where it came from
      return true;
    }
    lua_pop(L, 1);
  }
  if (!bdk_embed_find(path, &s)) return false;
  const char *chunk = lua_pushfstring(L, "@%s", s.path);
  status = luaL_loadbufferx(L, s.text, s.len, chunk, "t");
  if (status != LUA_OK) luaL_error(L, "error loading module '%s':\n\t%s", name, lua_tostring(L, -1));
  lua_insert(L, -2);
  return true;
}

// The searcher. [-1, +(1|2), e]
static int search(lua_State *L) {
  const char *name = luaL_checkstring(L, 1);
  const char *base = luaL_gsub(L, name, ".", "/");
  if (load(L, name, lua_pushfstring(L, "%s.lua", base))) return 2;
  if (load(L, name, lua_pushfstring(L, "%s/init.lua", base))) return 2;
  lua_pushfstring(L, "no script '%s' in the binary", name);
  return 1;
}

void bdk_embed_install(lua_State *L) {
  lua_getglobal(L, "package");
  lua_getfield(L, -1, "searchers");
  for (lua_Integer i = (lua_Integer)lua_rawlen(L, -1); i >= 2; i--) {
    lua_rawgeti(L, -1, i);
    lua_rawseti(L, -2, i + 1);
  }
  lua_pushcfunction(L, search);
  lua_rawseti(L, -2, 2);
  lua_pop(L, 2);
}
