// SPDX-License-Identifier: MIT
// Noise handshakes (noiseprotocol.org, revision 34) as values: 25519, ChaChaPoly, SHA512; keys, ephemerals and
// bytes in, bytes and keys out. Three patterns:
//
//   IK         <- s · … · -> e, es, s, ss · <- e, ee, se                      client and server
//   KKpsk0     -> s · <- s · … · -> psk, e, es, ss · <- e, ee, se             a session's rekeying
//   KKeepsk0   -> e, s · <- e, s · … · -> psk, ee, es, se, ss                 two peers of a match
//
// The last is ours: statics and ephemerals are known beforehand, so that both ends write its one message, whose
// payload is empty, and none travels; its split takes in h. docs/PROTOCOL.md defines it.
#ifndef BDK_NOISE_H
#define BDK_NOISE_H

#include "base.h"

#define BDK_DH_LEN 32u
#define BDK_NOISE_HASH_LEN 64u
#define BDK_TAG_LEN 16u
#define BDK_IK_FIRST 96u    // bytes of IK's first message with an empty payload
#define BDK_IK_SECOND 48u   // and of its second
#define BDK_KK_MESSAGE 48u  // of each of KKpsk0's
#define BDK_NOISE_MAX 1200u // bytes of a message taken or made here

typedef enum bdk_noise_pattern {
  BDK_NOISE_IK,
  BDK_NOISE_KKPSK0,
  BDK_NOISE_KKEEPSK0,
  BDK_NOISE_PATTERNS
} bdk_noise_pattern;

// An X25519 key pair.
typedef struct bdk_keypair {
  uint8_t public[BDK_DH_LEN], secret[BDK_DH_LEN];
} bdk_keypair;

// The pair of a secret; any 32 random bytes are one.
void bdk_keypair_init(bdk_keypair *k, const uint8_t secret[BDK_DH_LEN]);
// A client's id: BLAKE2b-128 of its public key.
void bdk_key_id(uint8_t out[BDK_ID_LEN], const uint8_t public[BDK_DH_LEN]);

// What a side begins with; copied. NULL what the pattern does not know beforehand.
typedef struct bdk_noise_config {
  bdk_noise_pattern pattern;
  bool initiator;
  const uint8_t *prologue;
  size_t prologue_len;
  const bdk_keypair *own;           // static
  const bdk_keypair *own_ephemeral; // fresh for this handshake alone (KKeepsk0: for this registration)
  const uint8_t *peer;              // static; NULL for IK's responder
  const uint8_t *peer_ephemeral;    // KKeepsk0
  const uint8_t *psk;               // 32 bytes; the patterns that have one
} bdk_noise_config;

typedef struct bdk_noise {
  uint8_t h[BDK_NOISE_HASH_LEN], ck[BDK_NOISE_HASH_LEN], k[32], psk[32];
  uint64_t n;
  bdk_keypair own, own_ephemeral;
  uint8_t peer[BDK_DH_LEN], peer_ephemeral[BDK_DH_LEN];
  uint8_t pattern, step;
  bool initiator, has_key, failed;
} bdk_noise;

void bdk_noise_init(bdk_noise *s, const bdk_noise_config *config);
// Idempotent.
void bdk_noise_clear(bdk_noise *s);
// Whether the next message is ours to write (KKeepsk0's: both sides'); false, too, when there is none left.
bool bdk_noise_writes(const bdk_noise *s);
bool bdk_noise_done(const bdk_noise *s);
// The next message, with a payload: its length, or BDK_E_INVALID (not our turn, no room for it), BDK_E_BAD_KEY (a
// key of the peer's is of low order). After an error the handshake is over. Neither here nor in read may what comes in
// and what goes out overlap.
int bdk_noise_write(bdk_noise *s, const uint8_t *payload, size_t len, uint8_t *out, size_t cap);
// Reads the peer's: the length of its payload, or BDK_E_INVALID (not its turn, too short, no room), BDK_E_BAD_KEY
// (not authentic, or a key of low order). `peer` holds IK's client after it. After an error the handshake is over.
int bdk_noise_read(bdk_noise *s, const uint8_t *bytes, size_t len, uint8_t *payload, size_t cap);
// The keys of a handshake that is done: what the initiator sends with, what the responder sends with. `h` binds
// channels to it. Wipes the rest. BDK_E_INVALID, and no keys, when it is not done or was split before.
int bdk_noise_split(bdk_noise *s, uint8_t initiator[32], uint8_t responder[32]);

#endif
