// SPDX-License-Identifier: MIT
// Sockets of datagrams, over UDP or TCP, and muxes as userdata, as far as they know each other: a socket offers what
// comes in to its mux, a mux sends through the socket of a number. Either may be closed first.
#ifndef BDK_UDP_BOX_H
#define BDK_UDP_BOX_H

#include "bind.h"
#include "core/mux.h"
#include "io/tcp.h"
#include "io/udp.h"

typedef struct bdk_mux_box bdk_mux_box;
typedef struct bdk_udp_box bdk_udp_box;

struct bdk_udp_box {
  bdk_handle h; // first
  bdk_udp *udp; // one of the two; both NULL: closed
  bdk_tcp *tcp;
  bdk_counters *counters;
  bdk_mux_box *mux; // NULL: none, or closed
  bdk_udp_box *mux_next;
  uint16_t number;
  bool has_router, has_reader;
};

struct bdk_mux_box {
  bdk_handle h; // first; open while driven
  bdk_mux *mux; // NULL: closed
  bdk_counters *counters;
  bdk_timer timer;
  uint64_t hand_us;     // the latest time a verb was given by hand
  bdk_udp_box *sockets; // attached
  bool driven, draining, traced;
  lua_State *L; // the main thread, where a trace is told
  uint8_t seed[32];
  uint32_t max_sessions;
};

enum { BDK_MUX_TRACE = 4 }; // the user value of a mux that a trace's function stands in

// Sends through a socket; 0 or an error of ours (closed sockets: BDK_E_CLOSED).
int bdk_udp_box_send(bdk_udp_box *u, const bdk_addr *local, const bdk_addr *to, uint8_t ttl, const uint8_t *data,
                     size_t len);
// What was sent leaves now.
void bdk_udp_box_flush(const bdk_udp_box *u);
const char *bdk_path_kind(const bdk_output *out);  // of connected and path: lan, direct, relay
bdk_mux_box *bdk_check_mux(lua_State *L, int idx); // throws when closed
// 0, or BDK_E_INVALID when a socket of that number is attached already. Closing either detaches.
int bdk_mux_attach(bdk_mux_box *m, bdk_udp_box *u);
void bdk_mux_detach(bdk_udp_box *u);
// A datagram from an attached socket; true when the mux took it. Outputs are carried out.
bool bdk_mux_box_input(bdk_mux_box *m, uint64_t now_us, const bdk_route *route, const uint8_t *bytes, size_t len);
void bdk_mux_untrace(lua_State *L, bdk_mux_box *m);
void bdk_mux_box_unreachable(bdk_mux_box *m, uint64_t now_us, const bdk_addr *remote);

#endif
