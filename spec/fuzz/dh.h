// SPDX-License-Identifier: MIT
// X25519, and the first handshake of a session, with a memory: the same keys come again in every run, and these take
// longer than the rest of most runs. Linked in the place of the real ones (WRAP in the Makefile).
#ifndef BDK_SPEC_FUZZ_DH_H
#define BDK_SPEC_FUZZ_DH_H

#include <string.h>

#include "core/seal.h"

#define FUZZ_DH_KNOWN (1u << 13)

int __real_crypto_scalarmult(unsigned char *q, const unsigned char *n, const unsigned char *p);
int __real_crypto_scalarmult_base(unsigned char *q, const unsigned char *n);
int __wrap_crypto_scalarmult(unsigned char *q, const unsigned char *n, const unsigned char *p);
int __wrap_crypto_scalarmult_base(unsigned char *q, const unsigned char *n);
int __real_bdk_rekey_first(bdk_rekey *r, bdk_seal *s, const bdk_noise_config *peers, uint64_t counter);
int __wrap_bdk_rekey_first(bdk_rekey *r, bdk_seal *s, const bdk_noise_config *peers, uint64_t counter);

typedef struct fuzz_dh {
  uint8_t in[65], out[32]; // secret ‖ public ‖ 1; all zeros: free
  int result;
} fuzz_dh;

// The entry for (secret, public); `*known` is false where it is to be filled in.
static inline fuzz_dh *fuzz_dh_find(const uint8_t *n, const uint8_t *p, int *known) {
  static fuzz_dh all[FUZZ_DH_KNOWN];
  uint8_t in[65];
  uint64_t h = 0, word;
  memcpy(in, n, 32);
  memcpy(in + 32, p, 32);
  in[64] = 1;
  for (int i = 0; i < 64; i += 8) {
    memcpy(&word, in + i, sizeof word);
    h = (h ^ word) * 0x9E3779B97F4A7C15u;
    h ^= h >> 29;
  }
  fuzz_dh *d = &all[h % FUZZ_DH_KNOWN];
  *known = memcmp(d->in, in, sizeof in) == 0;
  memcpy(d->in, in, sizeof in);
  return d;
}

int __wrap_crypto_scalarmult(unsigned char *q, const unsigned char *n, const unsigned char *p) {
  int known;
  fuzz_dh *d = fuzz_dh_find(n, p, &known);
  if (!known) d->result = __real_crypto_scalarmult(d->out, n, p);
  memcpy(q, d->out, sizeof d->out);
  return d->result;
}

int __wrap_crypto_scalarmult_base(unsigned char *q, const unsigned char *n) {
  static const uint8_t base[32] = {9};
  int known;
  fuzz_dh *d = fuzz_dh_find(n, base, &known);
  if (!known) d->result = __real_crypto_scalarmult_base(d->out, n);
  memcpy(q, d->out, sizeof d->out);
  return d->result;
}

// All that a handshake depends on, in one row.
#define FUZZ_FIRST_IN (2 * sizeof(bdk_keypair) + 3 * 32 + 1 + 128)

int __wrap_bdk_rekey_first(bdk_rekey *r, bdk_seal *s, const bdk_noise_config *peers, uint64_t counter) {
  static struct {
    uint8_t in[FUZZ_FIRST_IN];
    bdk_rekey rekey;
    bdk_seal seal;
  } known[8];
  static unsigned count;
  uint8_t in[FUZZ_FIRST_IN] = {0}, *at = in;
  const struct {
    const void *bytes;
    size_t len;
  } parts[] = {{peers->own, sizeof(bdk_keypair)},
               {peers->own_ephemeral, sizeof(bdk_keypair)},
               {peers->peer, 32},
               {peers->peer_ephemeral, 32},
               {peers->psk, 32},
               {&peers->initiator, 1},
               {peers->prologue, peers->prologue_len}};
  if (peers->prologue_len > 128) return __real_bdk_rekey_first(r, s, peers, counter);
  for (size_t i = 0; i < sizeof parts / sizeof *parts; at += parts[i++].len)
    if (parts[i].len) memcpy(at, parts[i].bytes, parts[i].len);
  for (unsigned i = 0; i < count; i++) {
    if (memcmp(known[i].in, in, sizeof in) != 0) continue;
    *r = known[i].rekey;
    *s = known[i].seal;
    s->tx_counter = counter;
    return BDK_OK;
  }
  int error = __real_bdk_rekey_first(r, s, peers, counter);
  if (!error && count < sizeof known / sizeof *known) {
    memcpy(known[count].in, in, sizeof in);
    known[count].rekey = *r;
    known[count++].seal = *s;
  }
  return error;
}

#endif
