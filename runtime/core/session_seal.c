// SPDX-License-Identifier: MIT
// Apart from session.c: it happens once a session, and is of the handshake rather than of paths.
#include "session_in.h"

#include <string.h>

// Role 0 initiates.
int bdk_session_seal(bdk_session *s, const bdk_match *match, uint64_t counter) {
  static const char label[] = "bodkin peer 1";
  uint8_t prologue[sizeof label - 1 + BDK_MATCH_LEN + 2 * BDK_ID_LEN], *p = prologue;
  bool first = s->keys.role == 0;
  memcpy(p, label, sizeof label - 1);
  memcpy(p += sizeof label - 1, match->match, BDK_MATCH_LEN);
  memcpy(p += BDK_MATCH_LEN, first ? match->self : match->peer, BDK_ID_LEN);
  memcpy(p += BDK_ID_LEN, first ? match->peer : match->self, BDK_ID_LEN);
  bdk_noise_config peers = {.pattern = BDK_NOISE_KKEEPSK0,
                            .initiator = first,
                            .prologue = prologue,
                            .prologue_len = sizeof prologue,
                            .own = &match->own,
                            .own_ephemeral = &match->own_ephemeral,
                            .peer = match->peer_key,
                            .peer_ephemeral = match->peer_ephemeral,
                            .psk = match->key};
  return bdk_rekey_first(&s->rekey, &s->seal, &peers, counter);
}
