// SPDX-License-Identifier: MIT
// Timers, in order of (due, set first) exactly, so that production and simulation fire alike.
// A binary heap of the caller's own timers; nothing is allocated but the heap's array.
#ifndef BDK_WHEEL_H
#define BDK_WHEEL_H

#include "base.h"

typedef struct bdk_timer bdk_timer;
struct bdk_timer {
  uint64_t due_us, seq;
  uint32_t slot;                              // place in the heap + 1; 0: not set
  void (*fire)(bdk_timer *, uint64_t now_us); // called by the driver, never by the wheel
};

typedef struct bdk_wheel {
  bdk_alloc alloc;
  bdk_timer **heap;
  uint32_t count, cap;
  uint64_t seq;
} bdk_wheel;

void bdk_wheel_init(bdk_wheel *w, const bdk_alloc *alloc);
// Forgets all timers (their slot becomes 0) and frees the array.
void bdk_wheel_clear(bdk_wheel *w);
// Sets or moves a timer. The caller keeps it alive until it is cancelled or popped. 0, or BDK_E_LIMIT when
// memory for a new one could not be had; a move never fails.
int bdk_wheel_set(bdk_wheel *w, bdk_timer *t, uint64_t due_us);
// Idempotent; a timer that is not set stays so.
void bdk_wheel_cancel(bdk_wheel *w, bdk_timer *t);
// Takes the next timer that is due at `now_us`, or NULL.
bdk_timer *bdk_wheel_pop(bdk_wheel *w, uint64_t now_us);
// When the next one is due; BDK_NEVER when none is set.
uint64_t bdk_wheel_deadline(const bdk_wheel *w);

#endif
