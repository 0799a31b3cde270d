// SPDX-License-Identifier: MIT
// Datagrams in a stream of bytes, as TCP carries them: each after its length in 2 bytes, big-endian (RFC 4571), 1 to
// BDK_DATAGRAM_MAX. Bytes come in pieces of any size. docs/PROTOCOL.md, "Over TCP".
#ifndef BDK_CARRIAGE_H
#define BDK_CARRIAGE_H

#include "base.h"

#define BDK_CARRIAGE_HEAD 2u

// The receiving end of one connection; zeroed to begin with.
typedef struct bdk_carriage {
  uint16_t have; // bytes of the datagram that is not whole yet, its head included
  uint8_t held[BDK_CARRIAGE_HEAD + BDK_DATAGRAM_MAX];
} bdk_carriage;

// Takes bytes from *at on, up to `end`, and moves *at behind them. The length of the next datagram, and where it is
// (valid until the next call, and while the bytes are); 0 when more bytes are needed; BDK_E_INVALID when that is no
// length, after which the stream is of no use.
int bdk_carriage_next(bdk_carriage *c, const uint8_t **at, const uint8_t *end, const uint8_t **data);
// What goes before a datagram of `len` bytes.
static inline void bdk_carriage_head(uint8_t out[BDK_CARRIAGE_HEAD], size_t len) {
  out[0] = (uint8_t)(len >> 8);
  out[1] = (uint8_t)len;
}

#endif
