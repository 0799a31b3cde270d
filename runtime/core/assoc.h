// SPDX-License-Identifier: MIT
// Associations: what a client and a server share after Noise IK, so that messages between them travel in frames.
// Here the server's table of them, and the one that a client has. docs/PROTOCOL.md, "Associations".
//
// A client's first message carries its requests, and is sent again byte by byte; so the server knows it by its
// ephemeral, answers a repeat with the bytes it answered before, and takes none a second time. That the sender owns
// its address has been proven before it comes here. A client that moves is asked at its new address before anything
// goes there.
#ifndef BDK_ASSOC_H
#define BDK_ASSOC_H

#include "addr.h"
#include "counter.h"
#include "seal.h"

#define BDK_ASSOC_CLIENT_MAX 65535u // a client's indices are from 1 to this; larger ones are its mux's
#define BDK_ASSOC_INDEX_LEN 4u      // before the messages in both handshake payloads
#define BDK_ASSOC_NONCE_LEN 8u
#define BDK_ASSOC_IDLE_US 150000000u    // unheard for so long, it is dropped
#define BDK_ASSOC_LEFT_US 10000000u     // after its client said that it leaves: for repeats
#define BDK_ASSOC_PENDING_US 60000000u  // while its client has not used it: its first frame may be a maintenance
#define BDK_ASSOC_REPLAY_US 1800000000u // how long first messages are remembered: longer than any proof of address

typedef struct bdk_assocs_config {
  bdk_alloc alloc;
  bdk_counters *counters; // borrowed, may be NULL
  uint8_t seed[32];
  bdk_keypair keys[2]; // the server's; the second while keys are being replaced
  uint8_t key_count;
  uint32_t max; // associations; 0: 200,000
} bdk_assocs_config;

typedef struct bdk_assocs bdk_assocs; // opaque

// NULL when memory cannot be had. free is NULL-tolerant.
bdk_assocs *bdk_assocs_new(const bdk_assocs_config *config);
void bdk_assocs_free(bdk_assocs *t);
uint32_t bdk_assocs_count(const bdk_assocs *t);
uint32_t bdk_assocs_places(const bdk_assocs *t); // that a sweep has to look at

// A client's first message, from a proven address. `payload`: its messages, at most `len` bytes. Returns how many, and
// `*index`; with *again they are not to be acted on, only bdk_assocs_answer is. BDK_E_BAD_KEY: to no key of ours, or
// forged; BDK_E_CLOSED: seen before; BDK_E_LIMIT: no room.
int bdk_assocs_open(bdk_assocs *t, uint64_t now_us, const bdk_route *from, const uint8_t *bytes, size_t len,
                    uint8_t *payload, uint32_t *index, bool *again);
// The answer to it, with messages: its length, at most `cap`; 0 when it does not fit. A second call gives the same.
size_t bdk_assocs_answer(bdk_assocs *t, uint32_t index, const uint8_t *messages, size_t len, uint8_t *out, size_t cap);

typedef enum bdk_assoc_verdict {
  BDK_ASSOC_DROP,    // counted
  BDK_ASSOC_UNKNOWN, // no association has this index: its sender should be told
  BDK_ASSOC_MESSAGE, // a message of *len bytes is in `out`, from the client's proven address
  BDK_ASSOC_SEND,    // a datagram of *len bytes is in `out`, for where the frame came from
  BDK_ASSOC_MOVED,   // the client was switched to where the frame came from
} bdk_assoc_verdict;
// A frame. `out` has room for BDK_DATAGRAM_MAX bytes.
bdk_assoc_verdict bdk_assocs_input(bdk_assocs *t, uint64_t now_us, const bdk_route *route, const uint8_t *bytes,
                                   size_t len, uint8_t *out, size_t *out_len, uint32_t *index);
// A message to a client, sealed: its length and where to; 0 when there is no such association, or no room.
size_t bdk_assocs_write(bdk_assocs *t, uint32_t index, const uint8_t *message, size_t len, uint8_t *out, size_t cap,
                        bdk_route *to);
// Its client leaves: unless it is heard again, it need not be kept for long.
void bdk_assocs_left(bdk_assocs *t, uint32_t index);
// The client's static key, borrowed until the next sweep; NULL when there is no such association.
const uint8_t *bdk_assocs_key(const bdk_assocs *t, uint32_t index);
// Drops one of those whose time is up, looking at no more than *budget, which it takes from: false when there was
// none. `origin`: the address it was opened from.
bool bdk_assocs_sweep(bdk_assocs *t, uint64_t now_us, uint32_t *budget, bdk_addr *origin);

// --- a client's
typedef struct bdk_assoc {
  bdk_noise noise; // until it is answered
  bdk_seal seal;
  uint32_t index, peer_index; // what frames to us carry, and frames of ours
  bool open;
} bdk_assoc;

// The first message, to be sent until it is answered, with `messages`: its length, or BDK_E_INVALID (too long),
// BDK_E_BAD_KEY (the server's is of low order).
int bdk_assoc_begin(bdk_assoc *a, const bdk_keypair *own, const bdk_keypair *ephemeral,
                    const uint8_t server[BDK_DH_LEN], uint32_t index, const uint8_t *messages, size_t len, uint8_t *out,
                    size_t cap);
// The answer: the length of its messages, in `out`, and the association is open; BDK_E_BAD_KEY: forged, and nothing
// changed.
int bdk_assoc_answered(bdk_assoc *a, const uint8_t *bytes, size_t len, uint8_t *out, size_t cap);
size_t bdk_assoc_write(bdk_assoc *a, bdk_frame_kind kind, const uint8_t *data, size_t len, uint8_t *out, size_t cap);
// Opens a frame of the server's: its length and kind, or BDK_E_BAD_KEY.
int bdk_assoc_read(bdk_assoc *a, const uint8_t *bytes, size_t len, uint8_t *out, uint8_t *kind);
void bdk_assoc_clear(bdk_assoc *a);

#endif
