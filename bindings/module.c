// SPDX-License-Identifier: MIT
// bodkin.core for programs that have no main loop of their own: the binary, and core.so in a stock Lua 5.4.
#include "bind.h"

#include "io/drive_ev.h"

// [-0, +1, e]
__attribute__((visibility("default"))) int luaopen_bodkin_core(lua_State *L) { return bdk_open_core(L, &bdk_drive_ev); }
