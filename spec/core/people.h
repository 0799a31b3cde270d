// SPDX-License-Identifier: MIT
// Key pairs of made-up people, by number, for specs that need whole matches, and what the other end of one seals with.
#ifndef BDK_SPEC_PEOPLE_H
#define BDK_SPEC_PEOPLE_H

#include <string.h>

#include "../../runtime/core/session.h"

static inline bdk_keypair person_pair(int person, int use) {
  uint8_t secret[BDK_DH_LEN];
  memset(secret, person, sizeof secret);
  secret[1] = (uint8_t)use; // of the first byte, X25519 ignores the low bits
  bdk_keypair pair;
  bdk_keypair_init(&pair, secret);
  return pair;
}

static inline bdk_keypair person_static(int person) { return person_pair(person, 1); }
static inline bdk_keypair person_ephemeral(int person) { return person_pair(person, 2); }

// Fills in the keys of a match as person `self` is told of it.
static inline void person_keys(bdk_match *m, int self, int peer) {
  bdk_keypair key = person_static(peer), ephemeral = person_ephemeral(peer);
  m->own = person_static(self);
  m->own_ephemeral = person_ephemeral(self);
  memcpy(m->peer_key, key.public, BDK_DH_LEN);
  memcpy(m->peer_ephemeral, ephemeral.public, BDK_DH_LEN);
}

// The session at the other end of `m`, whose keys are those of persons `self` and `peer`: for its seal and rekey.
static inline void person_other_end(bdk_session *s, const bdk_match *m, int self, int peer) {
  bdk_match other = *m;
  memcpy(other.self, m->peer, BDK_ID_LEN);
  memcpy(other.peer, m->self, BDK_ID_LEN);
  other.count = 0;
  person_keys(&other, peer, self);
  bdk_session_init(s, &other, 1, 0, 0);
}

#endif
