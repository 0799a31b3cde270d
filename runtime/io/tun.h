// SPDX-License-Identifier: MIT
// The lab's core router: packets are read from TUN devices, held for the one-way delay of their source and
// destination, lost or doubled, and written to the device their destination is routed to. A process of its own;
// it owns no state beyond the call. IPv4 and IPv6; anything else is dropped.
//
// It is a router: it takes one from the TTL, and drops what has none left without a word (it sends no ICMP).
// Delay counts from the read to the write; two packets due at the same time leave in the order they came.
//
// A hook may sit on chosen links, as a man in the middle: it gets the UDP datagrams of IPv4 there instead of their
// delivery, and emits what shall go on.
#ifndef BDK_TUN_H
#define BDK_TUN_H

#include "../core/base.h"

#define BDK_TUN_PACKET_MAX 1500u // the devices' MTU
#define BDK_TUN_DELAY_MAX_US 60000000u

typedef struct bdk_tun_prefix {
  uint8_t ip[16];
  uint8_t len;  // of the address: 4 or 16
  uint8_t bits; // 0 … 8 len
} bdk_tun_prefix;

typedef struct bdk_tun_port {
  const char *netns;  // path of the namespace the device is in; NULL: the caller's
  const char *device; // made if it is not there; a persistent one is attached to
} bdk_tun_port;

typedef struct bdk_tun_route { // the longest prefix wins
  bdk_tun_prefix to;
  uint32_t port; // index into ports
} bdk_tun_route;

// The first that fits counts; none: no delay, no loss. Probabilities are 0 … 1. Each rule draws from a generator of
// its own, so other traffic changes nothing.
typedef struct bdk_tun_rule {
  bdk_tun_prefix from, to;
  uint32_t delay_us, jitter_us; // 0 … jitter_us more, each packet on its own: they may overtake one another
  uint32_t reorder_us;          // 0 … so much more for the packets that `reorder` picks
  double loss, duplicate, reorder;
  bool hooked;
} bdk_tun_rule;

typedef struct bdk_tun_udp {
  uint8_t src[6], dst[6]; // IP and port, in network order
  uint8_t ttl;
  const uint8_t *data;
  uint16_t len;
} bdk_tun_udp;

typedef struct bdk_tun_copier bdk_tun_copier;

typedef struct bdk_tun_stats {
  uint64_t copied, lost, doubled, no_route, expired, malformed, full, failed, hooked;
  uint64_t late_max_us; // the worst lateness of a write against its due time
} bdk_tun_stats;

typedef struct bdk_tun_config { // all borrowed during the call
  const bdk_tun_port *ports;
  const bdk_tun_route *routes;
  const bdk_tun_rule *rules;
  uint32_t port_count, route_count, rule_count;
  uint32_t queue_max; // packets held at once, beyond which new ones are dropped; 0: 4096
  uint64_t seed;
  int stop_fd;              // returns once this is at its end or broken; what is read from it is ignored
  void (*ready)(void *ctx); // called once all devices are attached; may be NULL
  // For each datagram of a hooked rule, its index given; bdk_tun_emit is for use in here. NULL: no rule is hooked.
  void (*hook)(void *ctx, bdk_tun_copier *copier, uint32_t rule, const bdk_tun_udp *udp);
  void *ctx;
} bdk_tun_config;

// Parses "198.18.1.0/24", "2001:db8::/32" or an address alone. 0 or BDK_E_INVALID.
int bdk_tun_prefix_parse(bdk_tun_prefix *out, const char *text);
// True when `ip` (`len` bytes, network order) is in the prefix.
bool bdk_tun_prefix_has(const bdk_tun_prefix *p, const uint8_t *ip, uint8_t len);
// Length of a packet's addresses, 4 or 16, and where in it they are; 0: it is neither IPv4 nor IPv6, or cut short.
uint8_t bdk_tun_ends(const uint8_t *packet, size_t len, const uint8_t **src, const uint8_t **dst);
// Takes one from a whole header's TTL or hop limit and mends IPv4's checksum (RFC 1624); false when none would be left.
bool bdk_tun_hop(uint8_t *header);

// Reads an IPv4 packet with a whole UDP datagram in it (no options, no fragment), which `out` then borrows; false: it
// is none. Writes one, with its checksums; the length, or 0 when it is longer than a packet may be.
bool bdk_tun_udp_read(bdk_tun_udp *out, const uint8_t *packet, size_t len);
size_t bdk_tun_udp_write(const bdk_tun_udp *udp, uint8_t packet[BDK_TUN_PACKET_MAX]);
// Holds a datagram as if it had come from its source just now, but for `delay_us` longer; no hook sees it again.
void bdk_tun_emit(bdk_tun_copier *copier, const bdk_tun_udp *udp, uint32_t delay_us);

// Copies until stop_fd ends. 0, BDK_E_INVALID, BDK_E_LIMIT (memory), or -errno of what failed, its name in
// `*where` ("setns", "open /dev/net/tun", …) and the port it was for in `*port`. `stats` may be NULL.
int bdk_tun_copy(const bdk_tun_config *config, bdk_tun_stats *stats, const char **where, uint32_t *port);

#endif
