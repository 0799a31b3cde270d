// SPDX-License-Identifier: MIT
// Datagrams over TCP, for networks that let no UDP out: to its owner much as a UDP socket (udp.h), but each remote
// address is a connection. One that listens accepts them, and has nothing to send to whom it has no connection with;
// one that does not makes them, when something is sent, all to one TCP port, whatever the port of the address.
//
// Nothing lags without bound: what does not fit in a connection's queue is dropped, as UDP would. A connection that
// says nothing, or nothing whole, is closed; how many there are is bounded, in all and from one source.
#ifndef BDK_TCP_H
#define BDK_TCP_H

#include "udp.h"

#define BDK_TCP_QUEUE_MAX (64u * 1024) // bytes that wait in a connection; as many as 16 KiB more wait in the kernel
#define BDK_TCP_LONG_MAX (16u * 1024 * 1024) // that wait in all of them, beyond the first 4 KiB in each
#define BDK_TCP_FIRST_US 5000000u            // for the first datagram of who connected, and for who does not accept
#define BDK_TCP_IDLE_US 60000000u            // without a datagram; who connected counts those it was given to send, too
#define BDK_TCP_AGAIN_US 500000u             // from a connection that failed, or was closed, to the next one

typedef struct bdk_tcp bdk_tcp; // opaque

typedef struct bdk_tcp_config {
  bdk_driver *driver;     // borrowed
  bdk_counters *counters; // borrowed, may be NULL
  bdk_addr bind;          // listening: there (port 0: any); else an IP to connect from, or none, of the family
  bool listens;
  uint16_t port;                        // of those connected to
  uint16_t number;                      // comes back as route.sock
  uint32_t max, max_each;               // connections, and from one IPv4 address or IPv6 /64; 0: 4096, and 256
  uint32_t long_max, first_us, idle_us; // 0: as above
  // As in udp.h; route.remote is who it came from: its own port where this one listens, else as it was sent to.
  void (*on_packets)(void *ctx, bdk_tcp *tcp, const bdk_packet *packets, int count);
  void *ctx;
} bdk_tcp_config;

// 0 or -errno, or BDK_E_INVALID.
int bdk_tcp_open(bdk_tcp **out, const bdk_tcp_config *config);
// As bdk_udp_close; connections end.
void bdk_tcp_close(bdk_tcp *t);
// Where it listens; else what it was told to bind.
const bdk_addr *bdk_tcp_local(const bdk_tcp *t);
uint32_t bdk_tcp_count(const bdk_tcp *t); // connections
// Queues a copy, 1 to BDK_DATAGRAM_MAX bytes; it leaves before the loop next sleeps. Dropped and counted: 0 where there
// is no connection, BDK_E_LIMIT where the queue, or all of them together, is full. BDK_E_INVALID: length, family, a
// TTL; BDK_E_CLOSED.
int bdk_tcp_send(bdk_tcp *t, const bdk_route *route, const uint8_t *data, size_t len);
void bdk_tcp_flush(bdk_tcp *t);

#endif
