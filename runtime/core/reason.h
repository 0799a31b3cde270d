// SPDX-License-Identifier: MIT
// Every reason for which a path fails or a session closes, each with its sentence, as counter.h has the counters.
#ifndef BDK_REASON_H
#define BDK_REASON_H

// X(name, sentence)
#define BDK_REASONS(X)                                                                                                 \
  X(none, "nothing went wrong")                                                                                        \
  X(left, "the peer left the match")                                                                                   \
  X(closed, "closed by this side")                                                                                     \
  X(no_path, "no candidate answered a probe in 10 s")                                                                  \
  X(consent_lost, "nothing was heard from the peer for 30 s and no path came back in 60 s")                            \
  X(no_answer, "no probe to this candidate was answered")                                                              \
  X(no_consent, "this path answered once, then not for 30 s")                                                          \
  X(unreachable, "the kernel has no route to this candidate")                                                          \
  X(replaced, "the peer moved to another address")                                                                     \
  X(silent, "nothing came back on this path, while another one was answered")                                          \
  X(refused, "the relay refused")                                                                                      \
  X(limit, "the relay has no room for the two, or they have had their bytes")

typedef enum bdk_reason {
#define X(name, text) BDK_REASON_##name,
  BDK_REASONS(X)
#undef X
      BDK_REASON_COUNT
} bdk_reason;

const char *bdk_reason_name(int reason);
const char *bdk_reason_text(int reason);

#endif
