// SPDX-License-Identifier: MIT
// Fills the teams of a match with whole parties, the first of which has to be in: the earliest that get on with all
// chosen before; and where those do not come out even, others that do. A search that is bounded, so it may overlook
// what is there; what it finds is right.
//
// Values; no allocations. `together` is the owner's, and may leave by longjmp: there is nothing to undo.
#ifndef BDK_FILL_H
#define BDK_FILL_H

#include "base.h"

#define BDK_FILL_PARTIES 33
#define BDK_FILL_PLAYERS 32 // and teams
#define BDK_FILL_STEPS 512  // at the most

typedef struct bdk_fill {
  uint32_t teams, room[BDK_FILL_PLAYERS]; // what is still empty
  uint32_t min, max, players;             // of the match; of those chosen
  // Whether two get on, i before k and neither of them the first, with which all do; asked once of each two. NULL: all.
  bool (*together)(void *ctx, uint32_t i, uint32_t k);
  void *ctx;
  uint32_t steps, most_steps; // of the search; how many it may take, BDK_FILL_STEPS unless the owner says less
  // Of each party: its players; its team, -1: none; what was answered of it and those before, 0: nothing yet; the
  // players of it and those after.
  uint32_t count, size[BDK_FILL_PARTIES];
  int8_t team[BDK_FILL_PARTIES];
  uint8_t known[BDK_FILL_PARTIES][BDK_FILL_PARTIES];
  uint32_t rest[BDK_FILL_PARTIES];
} bdk_fill;

// sizes: of each team, at most BDK_FILL_PLAYERS together. min: players who are enough, where not all come.
void bdk_fill_init(bdk_fill *f, uint32_t teams, const uint32_t *sizes, uint32_t min);
// One more party, which gets on with the first. At most BDK_FILL_PARTIES.
void bdk_fill_offer(bdk_fill *f, uint32_t size);
static inline bool bdk_fill_is_full(const bdk_fill *f) { return f->players == f->max; }
// Nobody else comes. Whether it came to min players; `team` says who is in, and where.
bool bdk_fill_end(bdk_fill *f);

#endif
