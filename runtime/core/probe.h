// SPDX-License-Identifier: MIT
// Tests and confirms, authenticated by keys derived from the match key. Layouts and derivation: docs/PROTOCOL.md,
// "Between peers". All other traffic of a session is sealed: seal.h.
#ifndef BDK_PROBE_H
#define BDK_PROBE_H

#include "addr.h"
#include "counter.h"
#include "message.h"
#include "seal.h"

#define BDK_MATCH_LEN 16u
#define BDK_NONCE_LEN 8u
#define BDK_PROBE_MAX 100u // bytes of the longest test or confirm

// Directions: index 0 is what the controlling side (role 0, the smaller id) sends.
typedef struct bdk_keys {
  uint8_t match[BDK_MATCH_LEN];
  uint8_t role; // ours: 0 controlling, 1 controlled
  uint8_t probe[2][BDK_KEY_LEN];
} bdk_keys;

typedef struct bdk_probe {
  const uint8_t *match; // 16 bytes, borrowed
  uint8_t role;         // the sender's
  uint32_t epoch, rx_index;
  uint8_t nonce[BDK_NONCE_LEN];
  bool confirm;
  bdk_addr origin; // confirms only: where the test came from, as its receiver saw it
} bdk_probe;

// `key`: the 32-byte match key; ids of both; derives role and keys.
void bdk_keys_init(bdk_keys *k, const uint8_t match[BDK_MATCH_LEN], const uint8_t key[BDK_KEY_LEN],
                   const uint8_t self[BDK_ID_LEN], const uint8_t peer[BDK_ID_LEN]);
void bdk_keys_clear(bdk_keys *k);

// Writes a test or confirm with our role; its length (≤ BDK_PROBE_MAX), 0 when `cap` is too small.
size_t bdk_probe_write(const bdk_keys *k, const bdk_probe *p, uint8_t *out, size_t cap);
// Reads the fields of a test or confirm without trusting them: 0 or a negative counter (see message.h).
int bdk_probe_read(bdk_probe *out, const uint8_t *bytes, size_t len);
// True when the bytes that bdk_probe_read accepted are from the peer that shares `k`.
bool bdk_probe_authentic(const bdk_keys *k, const bdk_probe *p, const uint8_t *bytes, size_t len);

#endif
