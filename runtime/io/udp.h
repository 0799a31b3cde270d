// SPDX-License-Identifier: MIT
// A UDP socket that reads and writes in batches (recvmmsg, sendmmsg), says which of our addresses a packet
// came to (IP_PKTINFO, IPV6_PKTINFO), sends from a given one, and with a given TTL (IP_TTL, IPV6_HOPLIMIT
// as ancillary data). Unconnected: ICMP errors never end it; they are counted. One family a socket.
#ifndef BDK_UDP_H
#define BDK_UDP_H

#include "../core/addr.h"
#include "../core/counter.h"
#include "driver.h"

#define BDK_UDP_BATCH 64
#define BDK_UDP_LEN_MAX 2232u // bytes of a datagram where `max_len` asks for more than our own have

typedef struct bdk_packet {
  bdk_route route; // local: the destination address it carried, with this socket's port
  const uint8_t *data;
  size_t len;
} bdk_packet;

typedef struct bdk_udp bdk_udp; // opaque

typedef struct bdk_udp_config {
  bdk_driver *driver;     // borrowed
  bdk_counters *counters; // borrowed, may be NULL
  bdk_addr bind;          // port 0: any; SO_REUSEADDR is not set
  uint16_t number;        // comes back as route.sock
  uint16_t max_len;       // of a datagram, either way: at most BDK_UDP_LEN_MAX; 0: BDK_DATAGRAM_MAX
  // One call a batch; the packets are valid during it. Closing the socket inside is allowed.
  void (*on_packets)(void *ctx, bdk_udp *udp, const bdk_packet *packets, int count);
  // The kernel has no route to (or forbids) this destination; `error` is an errno. Called by the loop, never
  // from inside bdk_udp_send or bdk_udp_flush. Closing the socket inside is allowed.
  void (*on_unreachable)(void *ctx, bdk_udp *udp, const bdk_addr *remote, int error);
  void *ctx;
} bdk_udp_config;

// 0 or -errno (-EADDRINUSE, -EACCES, -EAFNOSUPPORT …).
int bdk_udp_open(bdk_udp **out, const bdk_udp_config *config);
// Idempotent on NULL; sends what is queued if the kernel takes it at once. Frees at once, or after the
// running callback returns.
void bdk_udp_close(bdk_udp *u);
// The bound address (unspecified IP stays unspecified).
const bdk_addr *bdk_udp_local(const bdk_udp *u);
// Queues a copy; it leaves before the loop next sleeps, or when 64 are queued. Full: dropped and counted.
// route->sock is not looked at. 0, or BDK_E_INVALID (family, length), BDK_E_LIMIT, BDK_E_CLOSED.
int bdk_udp_send(bdk_udp *u, const bdk_route *route, const uint8_t *data, size_t len);
void bdk_udp_flush(bdk_udp *u);

#endif
