// SPDX-License-Identifier: MIT
// All sessions of one client behind five verbs: input, tick, next, deadline (and new before them).
// Bytes and time go in; datagrams to send and things to tell come out of bdk_mux_next, until it is empty,
// after every other call. Nothing here knows a socket or a clock.
#ifndef BDK_MUX_H
#define BDK_MUX_H

#include "out.h"
#include "session.h"

typedef struct bdk_mux_config {
  bdk_alloc alloc;
  bdk_counters *counters; // borrowed, may be NULL
  uint8_t seed[32];       // expanded here; all randomness comes from it
  uint32_t max_sessions;  // 0: 256
} bdk_mux_config;

typedef struct bdk_mux bdk_mux; // opaque

// NULL when memory cannot be had. free is NULL-tolerant, sends and tells nothing.
bdk_mux *bdk_mux_new(const bdk_mux_config *config);
void bdk_mux_free(bdk_mux *m);

// Begins a session, ARMED. `*session` is its number, not 0. Without candidates only a relay can open it. BDK_E_LIMIT,
// BDK_E_INVALID (no candidate is a host's address, both ids are the same, or there is one of that match and peer).
int bdk_mux_add(bdk_mux *m, uint64_t now_us, const bdk_match *match, uint32_t *session);
// After BDK_OUT_SILENT, or when an address of either side has changed: more candidates, see bdk_session_renew.
// BDK_E_CLOSED when there is no such session any more.
int bdk_mux_renew(bdk_mux *m, uint64_t now_us, uint32_t session, const bdk_renewal *renewal);
// One datagram of at most BDK_PAYLOAD_MAX bytes to the peer. BDK_E_INVALID before `connected` or too long,
// BDK_E_CLOSED after the end, BDK_E_NO_PATH while a path is sought again after a loss, BDK_E_LIMIT while the
// path's address has not confirmed and had its share.
int bdk_mux_send(bdk_mux *m, uint64_t now_us, uint32_t session, const uint8_t *data, size_t len);
// A test to be handed to the peer by a relay, once that is there, in `out`: its length, 0 for unknown sessions.
size_t bdk_mux_hello(bdk_mux *m, uint32_t session, uint8_t out[BDK_PROBE_MAX]);
// A relay has opened a channel for the session: route's sock, remote and channel. `hello`: what the peer left there, of
// length 0 while that is not there. BDK_E_CLOSED, BDK_E_LIMIT.
int bdk_mux_relay(bdk_mux *m, uint64_t now_us, uint32_t session, const bdk_route *route, const uint8_t *hello,
                  size_t len);
#define BDK_LEFT_MAX 8
// An address of this host has changed, of an interface or a NAT's: every session tests all its paths at once. `left`:
// those of its addresses that nothing is to be sent from, as another interface has the default route now; what still
// comes there is answered from where the kernel says. At most BDK_LEFT_MAX, in place of those of the call before;
// copied.
void bdk_mux_moved(bdk_mux *m, uint64_t now_us, const bdk_addr *left, uint32_t count);
// Where the peer of a session may be from now on, besides where it was. Unknown sessions are ignored.
void bdk_mux_listed(bdk_mux *m, uint64_t now_us, uint32_t session, const bdk_candidate *list, uint32_t count);
// Leaves: tells the peer, then CLOSED(closed). Unknown sessions are ignored.
void bdk_mux_close(bdk_mux *m, uint64_t now_us, uint32_t session);
// A datagram that came in by `route`. True when it was of the kinds handled here (whatever became of it);
// false when it is for someone else.
bool bdk_mux_input(bdk_mux *m, uint64_t now_us, const bdk_route *route, const uint8_t *bytes, size_t len);
// The kernel would not send to `remote` (no route, or no more from the address it was heard at): candidates
// there fail, paths that worked leave their source address to the kernel, sockets live on.
void bdk_mux_unreachable(bdk_mux *m, uint64_t now_us, const bdk_addr *remote);
void bdk_mux_tick(bdk_mux *m, uint64_t now_us);
// The next output, in order; false when there is none.
bool bdk_mux_next(bdk_mux *m, bdk_output *out);
// When tick has something to do; BDK_NEVER when nothing.
uint64_t bdk_mux_deadline(const bdk_mux *m);
// For those who ask why: the session's state and its paths, borrowed; NULL when unknown.
const bdk_session *bdk_mux_session(const bdk_mux *m, uint32_t session);

#endif
