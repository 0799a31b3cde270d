// SPDX-License-Identifier: MIT
// Transport addresses, IPv4 and IPv6, as plain values. Always canonical: an IPv4-mapped IPv6 address is
// stored as IPv4, unused bytes are zero, so that two equal addresses are equal byte for byte.
// On the wire and in Lua an address is 6 bytes (IPv4 ‖ port) or 18 (IPv6 ‖ port), big-endian.
#ifndef BDK_ADDR_H
#define BDK_ADDR_H

#include "base.h"

typedef struct bdk_addr {
  uint8_t ip[16]; // IPv4 in the first four bytes
  uint32_t scope; // IPv6 link-local zone, else 0
  uint16_t port;  // host order
  uint8_t family; // 4, 6, or 0: no address
} bdk_addr;

// Where a datagram came from and went to. `sock` is the owner's number for the socket; `ttl` 0 means the
// default; `local` of family 0 leaves the source address to the kernel; `channel` is one of a relay at `remote`, or 0.
typedef struct bdk_route {
  bdk_addr local, remote;
  uint32_t channel;
  uint16_t sock;
  uint8_t ttl;
} bdk_route;

typedef enum bdk_addr_class {
  BDK_ADDR_NONE,       // no address, unspecified, or in 0/8
  BDK_ADDR_LOOPBACK,   // 127/8, ::1
  BDK_ADDR_LINK_LOCAL, // 169.254/16, fe80::/10
  BDK_ADDR_PRIVATE,    // RFC 1918, RFC 4193
  BDK_ADDR_SHARED,     // RFC 6598, 100.64/10: between a carrier's NAT and its customers
  BDK_ADDR_MULTICAST,  // broadcast, and the reserved 240/4
  BDK_ADDR_PUBLIC,
} bdk_addr_class;

#define BDK_ADDR_TEXT_MAX 64 // "[v6%scope]:port" and its NUL
#define BDK_ADDR_WIRE_MAX 18

// Parses "1.2.3.4", "1.2.3.4:5", "::1", "[::1]:5", "[fe80::1%3]:5". Without a port, `default_port`.
// Numeric only. 0, or BDK_E_INVALID and `*out` untouched.
int bdk_addr_parse(bdk_addr *out, const char *text, size_t len, uint16_t default_port);
// Writes the shortest form of RFC 5952 with port ("1.2.3.4:5", "[::1]:5"), "none" for no address; returns
// the length.
size_t bdk_addr_format(const bdk_addr *a, char out[BDK_ADDR_TEXT_MAX]);
// Makes an IPv4-mapped address IPv4 and zeroes what is unused.
void bdk_addr_canon(bdk_addr *a);
// Order by family, ip, port, scope: <0, 0, >0.
int bdk_addr_compare(const bdk_addr *a, const bdk_addr *b);
bool bdk_addr_equal(const bdk_addr *a, const bdk_addr *b);
bool bdk_addr_same_ip(const bdk_addr *a, const bdk_addr *b);
bool bdk_addr_among(const bdk_addr *list, uint32_t count, const bdk_addr *a); // by IP
bdk_addr_class bdk_addr_classify(const bdk_addr *a);
// Wire form: returns 6 or 18, or 0 for no address.
size_t bdk_addr_pack(const bdk_addr *a, uint8_t out[BDK_ADDR_WIRE_MAX]);
// From wire form; BDK_E_INVALID unless `len` is 6 or 18. The result is canonical.
int bdk_addr_unpack(bdk_addr *out, const uint8_t *bytes, size_t len);
// XORs a packed address in place with STUN's magic cookie ‖ `tx` (RFC 8489 section 14.2), port with the
// cookie's first half: gateways that rewrite addresses they recognise leave it alone. Its own inverse.
void bdk_addr_mask(uint8_t *packed, size_t len, const uint8_t tx[BDK_TX_LEN]);

#endif
