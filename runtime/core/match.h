// SPDX-License-Identifier: MIT
// What the owner of a session knows of the match with a peer: keys, where to look for it, and when.
#ifndef BDK_MATCH_H
#define BDK_MATCH_H

#include "addr.h"
#include "probe.h"

typedef struct bdk_candidate {
  bdk_addr addr;
  uint16_t sock; // the owner's number of the socket to probe it from
  uint8_t via;   // bdk_via
} bdk_candidate;

// A match with one peer, as `matched` told it. Everything is copied. The ids are those of the static keys; that
// they are is the owner's to see to.
typedef struct bdk_match {
  uint8_t match[BDK_MATCH_LEN], key[BDK_KEY_LEN], self[BDK_ID_LEN], peer[BDK_ID_LEN];
  bdk_keypair own, own_ephemeral;
  uint8_t peer_key[BDK_DH_LEN], peer_ephemeral[BDK_DH_LEN];
  uint64_t start_in_us;
  uint8_t opener_ttl; // of openers, sent at once where the start is later; 0: none
  const bdk_candidate *candidates;
  uint32_t count; // at most BDK_SESSION_PATHS are used
} bdk_match;

// A match scheduled again: `epoch` of what we send from now on, more candidates, and when to test them.
typedef struct bdk_renewal {
  uint32_t epoch;
  uint64_t start_in_us;
  uint8_t opener_ttl;
  const bdk_candidate *candidates;
  uint32_t count;
} bdk_renewal;

#endif
