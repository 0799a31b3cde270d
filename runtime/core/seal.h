// SPDX-License-Identifier: MIT
// Sealed datagrams: 0xC1 ‖ index (4) ‖ kind (1) ‖ counter (7) ‖ ciphertext ‖ tag (16), the same between peers and
// between client and server; a window against replays; and keys that are exchanged under traffic without losing a
// datagram. Layouts: docs/PROTOCOL.md, "Frames".
#ifndef BDK_SEAL_H
#define BDK_SEAL_H

#include "noise.h"

#define BDK_KEY_LEN 32u
#define BDK_FRAME_HEAD 13u        // 0xC1, index (4), kind (1), counter (7)
#define BDK_FRAME_OVERHEAD 29u    // and a tag of 16
#define BDK_WINDOW 1024u          // counters a frame may be late by
#define BDK_FRAME_PHASE 0x80u     // of the kind's byte: which of two keys
#define BDK_SEAL_OLD_US 10000000u // how long a key is kept for what was under way when the peer left it

typedef enum bdk_frame_kind {
  BDK_FRAME_DATA = 0,
  BDK_FRAME_SELECT = 1,     // epoch (4) ‖ n (4)
  BDK_FRAME_SELECT_ACK = 2, // the same, echoed
  BDK_FRAME_CONSENT = 3,    // 8 bytes, echoed by
  BDK_FRAME_CONSENT_ANSWER = 4,
  BDK_FRAME_CLOSE = 5,        // empty
  BDK_FRAME_REKEY = 6,        // KKpsk0's first message
  BDK_FRAME_REKEY_ANSWER = 7, // and its second
  // between client and server
  BDK_FRAME_MESSAGE = 16,
  BDK_FRAME_CHALLENGE = 17, // 8 bytes, echoed by
  BDK_FRAME_CHALLENGE_ANSWER = 18,
} bdk_frame_kind;

typedef struct bdk_window {
  uint64_t top;                       // highest counter seen + 1
  uint64_t bits[BDK_WINDOW / 64 + 1]; // a ring; one word more, since the window seldom starts at a word
} bdk_window;

// True when `counter` was not seen and is not too old; marked only after authentication.
bool bdk_window_fresh(const bdk_window *w, uint64_t counter);
void bdk_window_mark(bdk_window *w, uint64_t counter);

// Seals a frame: len + 29 bytes, or 0 when `cap` is too small or counters are used up. A counter is used once a key.
size_t bdk_frame_write(const uint8_t key[BDK_KEY_LEN], uint32_t index, uint8_t kind, uint64_t counter,
                       const uint8_t *data, size_t len, uint8_t *out, size_t cap);
// Reads index, kind (with its phase) and counter without trusting them; false when too short to be a frame.
bool bdk_frame_head(const uint8_t *bytes, size_t len, uint32_t *index, uint8_t *kind, uint64_t *counter);
// Opens a frame into `out` (len - 29 bytes); false when it is not authentic.
bool bdk_frame_open(const uint8_t key[BDK_KEY_LEN], const uint8_t *bytes, size_t len, uint8_t *out);

// What one side of a session seals and opens with. Counters go on when the keys change, so that one window holds.
typedef struct bdk_seal {
  uint8_t tx[BDK_KEY_LEN], next_tx[BDK_KEY_LEN], rx[2][BDK_KEY_LEN]; // rx by phase
  uint8_t phase;                                                     // of what we send
  bool rx_on[2], switching; // next_tx waits until the peer uses the other phase
  uint64_t tx_counter;
  uint64_t old_until_us; // when the key of the phase before goes; 0: while the peer may still use it, or there is none
  bdk_window window;
} bdk_seal;

// `counter`: of the first frame.
void bdk_seal_init(bdk_seal *s, const uint8_t tx[BDK_KEY_LEN], const uint8_t rx[BDK_KEY_LEN], uint64_t counter);
void bdk_seal_clear(bdk_seal *s);
size_t bdk_seal_write(bdk_seal *s, uint32_t index, bdk_frame_kind kind, const uint8_t *data, size_t len, uint8_t *out,
                      size_t cap);
typedef enum bdk_seal_verdict { BDK_SEAL_OPENED, BDK_SEAL_REPLAYED, BDK_SEAL_FORGED } bdk_seal_verdict;
// Opens a frame of ours into `out` and marks its counter. Its first frame of a new phase ends the old one.
bdk_seal_verdict bdk_seal_open(bdk_seal *s, uint64_t now_us, const uint8_t *bytes, size_t len, uint8_t *out);
// New keys in the other phase. `at_once`: send with them from now on (the peer has them already); else when the
// peer does.
void bdk_seal_next(bdk_seal *s, const uint8_t tx[BDK_KEY_LEN], const uint8_t rx[BDK_KEY_LEN], bool at_once);
// Erases the phase before, once it is time.
void bdk_seal_retire(bdk_seal *s, uint64_t now_us);

// The exchange of new keys in a session: KKpsk0 in frames, asked for by role 0. A message is sent again byte by
// byte, so that no ephemeral serves twice.
typedef struct bdk_rekey {
  bdk_keypair own;
  uint8_t peer[BDK_DH_LEN], psk[BDK_KEY_LEN];
  uint8_t bond[BDK_NOISE_HASH_LEN];                         // the handshake before: each is bound to it
  bdk_noise noise;                                          // role 0, while `asking`
  uint8_t question[BDK_KK_MESSAGE], answer[BDK_KK_MESSAGE]; // role 1 knows a repeated question by the first
  bool asking;
} bdk_rekey;

// Both sides' first keys, by KKeepsk0, into `s`; `r` is ready for those to come. BDK_E_BAD_KEY: a key of low order.
int bdk_rekey_first(bdk_rekey *r, bdk_seal *s, const bdk_noise_config *peers, uint64_t counter);
void bdk_rekey_clear(bdk_rekey *r);
// Role 0: makes r->question, to be sent until it is answered.
bool bdk_rekey_ask(bdk_rekey *r, const uint8_t ephemeral[BDK_DH_LEN]);
// Role 1: a question came; makes r->answer, or finds it made already. False: no good, drop it.
bool bdk_rekey_asked(bdk_rekey *r, bdk_seal *s, const uint8_t question[BDK_KK_MESSAGE],
                     const uint8_t ephemeral[BDK_DH_LEN]);
// Role 0: the answer came, and new keys are in use. False, and nothing changed: not asked for, or no good.
bool bdk_rekey_answered(bdk_rekey *r, bdk_seal *s, const uint8_t answer[BDK_KK_MESSAGE]);

#endif
