// SPDX-License-Identifier: MIT
// What the machines put out: datagrams to send and things to tell, in one order, until the owner takes
// them. With it travels what a session needs of its owner: counters, and randomness expanded from a seed.
#ifndef BDK_OUT_H
#define BDK_OUT_H

#include "addr.h"
#include "counter.h"

typedef enum bdk_output_kind {
  BDK_OUT_SEND,       // route, data, len
  BDK_OUT_CONNECTED,  // session and its path: application data may flow
  BDK_OUT_PATH,       // session and its path: confirmed, and on every change
  BDK_OUT_MESSAGE,    // session, data, len
  BDK_OUT_RELAY_LOST, // session, route: that relay knows the channel no more
  BDK_OUT_DOUBT,      // session: nothing comes back. Who moved, and where to? Told again until something does
  BDK_OUT_CLOSED,     // session, reason; its number means nothing after it
  BDK_OUT_SILENT,     // session: it sought for a second and heard nothing; a fresh port may help, see bdk_mux_renew
} bdk_output_kind;

typedef struct bdk_output {
  bdk_output_kind kind;
  uint32_t session;
  uint8_t via, reason; // of the path; why closed
  bool lan;            // path: `lan`, else by via `relay` or `direct`
  bdk_route route;     // send: where to; connected, path: of the path
  uint64_t since_us;   // connected, path: time since the session was added
  uint32_t rtt_us;
  const uint8_t *data; // borrowed until the next call of any verb
  size_t len;
} bdk_output;

typedef struct bdk_outq {
  bdk_alloc alloc;
  bdk_counters *counters;
  uint8_t seed[32];
  uint64_t drawn; // blocks of randomness drawn from the seed
  uint8_t *buf;   // records: a bdk_output, then its bytes
  size_t cap, head, tail;
} bdk_outq;

void bdk_outq_init(bdk_outq *q, const bdk_alloc *alloc, bdk_counters *counters, const uint8_t seed[32]);
void bdk_outq_clear(bdk_outq *q);
// Appends, copying `len` bytes of data. Without memory the output is lost and counted: a datagram may be,
// and whoever waits for an event finds the state itself.
void bdk_outq_put(bdk_outq *q, const bdk_output *output);
bool bdk_outq_next(bdk_outq *q, bdk_output *out);
void bdk_outq_random(bdk_outq *q, void *out, size_t len);

#endif
