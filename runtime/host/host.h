// SPDX-License-Identifier: MIT
// The Lua host: a state with the standard libraries, bodkin.core, the embedded scripts, and the module
// bodkin.host, which main.c fills with what only a process may do (signals, its terminal).
#ifndef BDK_HOST_H
#define BDK_HOST_H

#include <lauxlib.h>

// `functions` (borrowed) become bodkin.host. NULL when there is no memory. The caller closes it with lua_close.
lua_State *bdk_host_new(const luaL_Reg *functions);

// Calls main(arguments) of the module `script` with argv[1..] (and argv[0] at index 0). Returns its exit
// code; an error goes to stderr with a traceback and gives 1.
int bdk_host_run(lua_State *L, const char *script, int argc, char **argv);

#endif
