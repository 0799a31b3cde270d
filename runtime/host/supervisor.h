// SPDX-License-Identifier: MIT
// The process beside the server in which policies run: started from this very program, joined by a socket, ended for
// good. Whatever happens to it, the server only sees its socket close.
#ifndef BDK_SUPERVISOR_H
#define BDK_SUPERVISOR_H

#include <lua.h>

// For the module bodkin.host:
// child(argument) -> pid, descriptor of the socket, the caller's | nil, message, code. Runs `bodkin ARGUMENT` with
// the other end as descriptor 3, in a process group of its own. [-0, +(2|3), e]
int bdk_supervisor_child(lua_State *L);
// end_child(pid): kills it if it still runs, and takes note of its end. [-0, +0, e]
int bdk_supervisor_end(lua_State *L);
// background(): this process yields to others when there is not processor enough. [-0, +0, -]
int bdk_supervisor_background(lua_State *L);

#endif
