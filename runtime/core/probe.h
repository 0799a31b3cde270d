// SPDX-License-Identifier: MIT
// What two peers share from the moment `matched` arrives: keys derived from the match key, authenticated
// tests and confirms, and AEAD frames. Layouts and derivation: docs/PROTOCOL.md, "Between peers".
#ifndef BDK_PROBE_H
#define BDK_PROBE_H

#include "addr.h"
#include "counter.h"
#include "message.h"

#define BDK_KEY_LEN 32u
#define BDK_MATCH_LEN 16u
#define BDK_NONCE_LEN 8u
#define BDK_FRAME_HEAD 13u     // 0xC1, index (4), kind (1), counter (7)
#define BDK_FRAME_OVERHEAD 29u // and a tag of 16
#define BDK_PROBE_MAX 100u     // bytes of the longest test or confirm
#define BDK_WINDOW 1024u       // counters a frame may be late by

typedef enum bdk_frame_kind {
  BDK_FRAME_DATA = 0,
  BDK_FRAME_SELECT = 1,     // epoch (4) ‖ n (4)
  BDK_FRAME_SELECT_ACK = 2, // the same, echoed
  BDK_FRAME_CONSENT = 3,    // 8 bytes, echoed by
  BDK_FRAME_CONSENT_ANSWER = 4,
  BDK_FRAME_CLOSE = 5, // empty
} bdk_frame_kind;

// Directions: index 0 is what the controlling side (role 0, the smaller id) sends.
typedef struct bdk_keys {
  uint8_t match[BDK_MATCH_LEN];
  uint8_t role; // ours: 0 controlling, 1 controlled
  uint8_t probe[2][BDK_KEY_LEN], frame[2][BDK_KEY_LEN];
} bdk_keys;

typedef struct bdk_window {
  uint64_t top;                       // highest counter seen + 1
  uint64_t bits[BDK_WINDOW / 64 + 1]; // a ring; one word more, since the window seldom starts at a word
} bdk_window;

typedef struct bdk_probe {
  const uint8_t *match; // 16 bytes, borrowed
  uint8_t role;         // the sender's
  uint32_t epoch, rx_index;
  uint8_t nonce[BDK_NONCE_LEN];
  bool confirm;
  bdk_addr origin; // confirms only: where the test came from, as its receiver saw it
} bdk_probe;

// `key`: the 32-byte match key; ids of both; derives role and the four keys.
void bdk_keys_init(bdk_keys *k, const uint8_t match[BDK_MATCH_LEN], const uint8_t key[BDK_KEY_LEN],
                   const uint8_t self[BDK_ID_LEN], const uint8_t peer[BDK_ID_LEN]);
void bdk_keys_clear(bdk_keys *k);

// Writes a test or confirm with our role; its length (≤ BDK_PROBE_MAX), 0 when `cap` is too small.
size_t bdk_probe_write(const bdk_keys *k, const bdk_probe *p, uint8_t *out, size_t cap);
// Reads the fields of a test or confirm without trusting them: 0 or a negative counter (see message.h).
int bdk_probe_read(bdk_probe *out, const uint8_t *bytes, size_t len);
// True when the bytes that bdk_probe_read accepted are from the peer that shares `k`.
bool bdk_probe_authentic(const bdk_keys *k, const bdk_probe *p, const uint8_t *bytes, size_t len);

// Seals a frame in our direction: len + 29 bytes, or 0 when `cap` is too small. A counter is used once.
size_t bdk_frame_write(const bdk_keys *k, uint32_t index, bdk_frame_kind kind, uint64_t counter, const uint8_t *data,
                       size_t len, uint8_t *out, size_t cap);
// Reads index, kind and counter without trusting them; false when too short to be a frame.
bool bdk_frame_head(const uint8_t *bytes, size_t len, uint32_t *index, uint8_t *kind, uint64_t *counter);
// Opens a frame of the peer's direction into `out` (len - 29 bytes); false when it is not authentic.
bool bdk_frame_open(const bdk_keys *k, const uint8_t *bytes, size_t len, uint8_t *out);

// True when `counter` was not seen and is not too old; marks it only with `mark`, after authentication.
bool bdk_window_fresh(const bdk_window *w, uint64_t counter);
void bdk_window_mark(bdk_window *w, uint64_t counter);

#endif
