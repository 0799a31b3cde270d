// SPDX-License-Identifier: MIT
// POST over HTTP, for the process that tells a game's backend of matches. libcurl is loaded when it is asked for, so no
// other process of the binary has it, or needs it installed.
#ifndef BDK_HTTP_H
#define BDK_HTTP_H

#include <lua.h>

// host.http() -> http | nil, message. [-0, +(1|2), e]
//   http:post(id, url, headers, body, timeout_ms) -> true | nil, message    headers: a list of lines; id: an integer
//   http:turn() -> ended, under way     does what can be done without waiting. ended: { { id, status | false, message }
//   } http:close()
int bdk_http_open(lua_State *L);

#endif
