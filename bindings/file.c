// SPDX-License-Identifier: MIT
// core.file: files that hold secrets, read and written so that nobody else gets to see them.
#include "bind.h"

#include <errno.h>
#include <sodium.h>

#include "io/os.h"

#define FILE_MAX 65536u

// Pushes nil, message, code and a word for what a caller treats apart: "absent", "exists", "exposed", or nothing.
static int fail(lua_State *L, int error) {
  bdk_lua_fail(L, error);
  const char *word = NULL;
  if (error == -ENOENT || error == -ENOTDIR) word = "absent";
  if (error == -EEXIST) word = "exists";
  if (error == BDK_E_REFUSED) word = "exposed";
  lua_pushstring(L, word); // nil where NULL
  return 4;
}

// [-0, +1|4, e] read(path [, forbidden = 63 (077)]) -> bytes | nil, message, code, word. "exposed": its mode has one of
// the bits forbidden. At most 65,536 bytes.
static int read_file(lua_State *L) {
  const char *path = luaL_checkstring(L, 1);
  lua_Integer forbidden = luaL_optinteger(L, 2, 077);
  luaL_argcheck(L, forbidden >= 0 && forbidden <= 0777, 2, "bits of a file's mode expected");
  size_t len = 0;
  char *bytes = lua_newuserdatauv(L, FILE_MAX, 0);
  int r = bdk_os_read_private(path, (unsigned)forbidden, bytes, FILE_MAX, &len);
  if (r == 0) lua_pushlstring(L, bytes, len); // out of memory: the collector's, unwiped, as the text would be
  sodium_memzero(bytes, len);
  return r == 0 ? 1 : fail(L, r);
}

// [-0, +1|4, e] write(path, bytes [, replace]) -> true | nil, message, code, word. Mode 0600; whole or not at all.
static int write_file(lua_State *L) {
  const char *path = luaL_checkstring(L, 1);
  size_t len;
  const char *bytes = luaL_checklstring(L, 2, &len);
  int r = bdk_os_write_private(path, bytes, len, lua_toboolean(L, 3));
  if (r < 0) return fail(L, r);
  lua_pushboolean(L, 1);
  return 1;
}

// [-0, +1|4, e] make_parents(path) -> true | nil, message, code, word. The directories above it, 0700 where made.
static int make_parents(lua_State *L) {
  int r = bdk_os_make_parents(luaL_checkstring(L, 1));
  if (r < 0) return fail(L, r);
  lua_pushboolean(L, 1);
  return 1;
}

void bdk_open_file(lua_State *L) {
  static const luaL_Reg functions[] = {
      {"read", read_file}, {"write", write_file}, {"make_parents", make_parents}, {NULL, NULL}};
  luaL_newlib(L, functions);
  lua_setfield(L, -2, "file");
}
