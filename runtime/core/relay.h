// SPDX-License-Identifier: MIT
// A relay's table: the two ends of a pair of peers, each of which has proven its address. What one end sends on its
// channel goes to the other, and nowhere else: no datagram names where it is to go. What is in it nobody here looks at.
// docs/PROTOCOL.md, "Relays".
//
// Fed by the owner of the sockets: an end opens its side (bdk_relay_open), datagrams that begin with BDK_RELAY_MARK go
// through bdk_relay_input, and bdk_relay_sweep tells the time.
#ifndef BDK_RELAY_H
#define BDK_RELAY_H

#include "addr.h"
#include "counter.h"

#define BDK_RELAY_MARK 0x40u     // the first byte of a relayed datagram; RFC 7983 gives 64..79 to TURN's channels
#define BDK_RELAY_HEAD 5u        // the mark, and 4 bytes: to the relay its channel, from it the end's own tag
#define BDK_RELAY_PAIR_LEN 16u   // the name of a pair of peers in their tickets
#define BDK_RELAY_HELLO_MAX 100u // a test for the other end, kept until that is there
#define BDK_RELAY_IDLE_US 60000000u

typedef struct bdk_relay_config {
  bdk_alloc alloc;
  bdk_counters *counters; // borrowed, may be NULL
  uint8_t seed[32];
  uint32_t max;         // pairs; 0: 10,000
  uint32_t rate, burst; // bytes a second from an end, and at once, head included
  uint64_t bytes_max;   // from both ends in all, then the pair is closed
} bdk_relay_config;

typedef struct bdk_relay bdk_relay; // opaque

// One end's request, with a ticket that holds and from a proven address.
typedef struct bdk_relay_request {
  const uint8_t *pair; // BDK_RELAY_PAIR_LEN bytes
  uint8_t role;        // 0 or 1: which of the ends
  uint64_t expires_us; // of the ticket
  bdk_route from;
  uint32_t tag; // its own name for what it will receive
  const uint8_t *tx, *hello;
  size_t hello_len;
} bdk_relay_request;

// What an end is to be told: `hello` is the other's, of length 0 while that is not there. Borrowed until the next call.
typedef struct bdk_relay_end {
  bdk_route to;
  uint8_t tx[BDK_TX_LEN]; // of its latest request
  uint32_t channel;
  const uint8_t *hello;
  size_t hello_len;
} bdk_relay_end;

// NULL when memory cannot be had. free is NULL-tolerant.
bdk_relay *bdk_relay_new(const bdk_relay_config *config);
void bdk_relay_free(bdk_relay *r);
uint32_t bdk_relay_count(const bdk_relay *r); // pairs

// Opens an end, or moves it to where it asks from; a repeat changes nothing. `own` is for who asked. True in *news when
// `other` is there and has to be told what it did not know. BDK_E_LIMIT: no room, or the pair has had its bytes.
int bdk_relay_open(bdk_relay *r, uint64_t now_us, const bdk_relay_request *request, bdk_relay_end *own,
                   bdk_relay_end *other, bool *news);

typedef enum bdk_relay_verdict {
  BDK_RELAY_DROP,    // counted
  BDK_RELAY_FORWARD, // `to` gets the datagram with `head` in place of its first BDK_RELAY_HEAD bytes
  BDK_RELAY_LOST,    // its sender, `to`, gets `head` alone: this channel is not open, or not from there, or spent
} bdk_relay_verdict;
bdk_relay_verdict bdk_relay_input(bdk_relay *r, const bdk_route *from, const uint8_t *bytes, size_t len, bdk_route *to,
                                  uint8_t head[BDK_RELAY_HEAD]);
// Tells the time, and drops what is idle or has expired. To be called each quarter of a second while there are pairs:
// quotas are counted in such steps.
void bdk_relay_sweep(bdk_relay *r, uint64_t now_us);

#endif
