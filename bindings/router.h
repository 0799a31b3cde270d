// SPDX-License-Identifier: MIT
// The router: from a datagram to one call of a script's handler, with the fields it asked for. One reply
// object a router, reused, which holds the reply rule. A socket in C or a Lua object with :send feeds it.
#ifndef BDK_ROUTER_H
#define BDK_ROUTER_H

#include "bind.h"
#include "core/assoc.h"
#include "core/relay.h"
#include "udp_box.h"

// A server's associations, and the time as it was last told: to the second, which is all they need.
typedef struct bdk_assocs_box {
  bdk_assocs *table;
  uint64_t now_us;
} bdk_assocs_box;

bdk_assocs_box *bdk_check_assocs(lua_State *L, int idx);

// A server's relay, and the sockets its pairs are reached by: the number of a socket is its place.
#define BDK_RELAY_SOCKETS 16
typedef struct bdk_relay_box {
  bdk_relay *table;
  bdk_counters *counters;
  bdk_udp_box *udp[BDK_RELAY_SOCKETS + 1]; // NULL: none, or a Lua object in the user value
} bdk_relay_box;

bdk_relay_box *bdk_check_relay(lua_State *L, int idx);
// A datagram for the relay, whose userdata is on the top: forwards it, or answers it.
void bdk_relay_box_input(lua_State *L, bdk_relay_box *b, const bdk_route *from, const uint8_t *bytes, size_t len);

typedef struct bdk_handler {
  const bdk_schema *schema; // NULL: this type is not handled; kept alive by a user value
  uint8_t count, wants[BDK_FIELDS_MAX];
} bdk_handler;

// What a reply needs to know, valid while the handler runs. Copied aside when handlers nest.
typedef struct bdk_reply {
  bdk_counters *counters;
  bdk_udp_box *udp; // NULL: the Lua socket in a user value
  bdk_route route;  // back to the sender
  size_t length;    // of the request
  bool active, proven, sent, request;
  bool sealed;            // came in an association
  uint32_t assoc;         // its index, at a server; else 0
  bdk_assocs_box *assocs; // where it stands
  bdk_packer *batch;      // while a handshake is answered: replies go into the answer
} bdk_reply;

typedef struct bdk_router {
  bdk_counters *counters;
  const bdk_schema *refused, *lost;
  bdk_assocs_box *assocs; // a server's
  bdk_relay_box *relay;   // a server's
  bool frames;            // a client's: a function takes what begins with 0xC1
  bool stun;              // functions say what becomes of STUN
  uint16_t number;        // of its socket, where that is a Lua object
  bdk_reply *reply;
  bdk_handler handlers[128];
} bdk_router;

// Hands a datagram to the router whose userdata is at `router`. `socket`: index of a Lua socket object, or 0
// with `udp` set. False when it is no message of a type handled here: then, unless `others`, it was counted.
bool bdk_router_input(lua_State *L, int router, int socket, bdk_udp_box *udp, const bdk_route *from,
                      const uint8_t *bytes, size_t len, bool others);
bdk_router *bdk_check_router(lua_State *L, int idx);
bdk_reply *bdk_check_reply(lua_State *L, int idx); // throws unless its handler runs

#endif
