// SPDX-License-Identifier: MIT
// Running a driver until something happened. No spec sleeps: the loop waits for real descriptors and timers,
// and a guard of two seconds ends it when what is awaited does not come.
#ifndef SPEC_IO_LOOP_H
#define SPEC_IO_LOOP_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <poll.h>

#include "io/drive_ev.h"
#include "io/drive_poll.h"
#include "io/os.h"

// drive_poll as a program with a main loop of its own would use it.
static bool loop_poll_stopped;

static void loop_poll_run(bdk_driver *d) {
  struct pollfd fd = {.fd = bdk_drive_poll_fd(d), .events = POLLIN};
  loop_poll_stopped = false;
  for (;;) {
    assert_int_equal(0, bdk_drive_poll_turn(d, BDK_POLL_CLOCK, 0));
    if (loop_poll_stopped) return;
    assert_int_equal(1, poll(&fd, 1, 3000)); // the guard's timer comes before that
  }
}

static void loop_poll_stop(bdk_driver *d) {
  (void)d;
  loop_poll_stopped = true;
}

__attribute__((unused)) static const bdk_driver_kind loop_poll = {"drive_poll", bdk_drive_poll_new, bdk_drive_poll_free,
                                                                  loop_poll_run, loop_poll_stop};
#define loop_ev bdk_drive_ev

typedef struct loop {
  bdk_timer guard;
  const bdk_driver_kind *kind;
  bdk_driver *d;
  bool guarded;
} loop;

static void loop_on_guard(bdk_timer *t, uint64_t now_us) {
  (void)now_us;
  loop *l = (loop *)((uint8_t *)t - offsetof(loop, guard));
  l->guarded = true;
  l->kind->stop(l->d);
}

// Runs until loop_stop; fails the spec after `limit_ms`.
static inline void loop_run_for(loop *l, unsigned limit_ms, bool may_end) {
  l->guarded = false;
  l->guard.fire = loop_on_guard;
  bdk_driver_timer(l->d, &l->guard, bdk_os_now_us() + limit_ms * 1000ull);
  l->kind->run(l->d);
  bdk_driver_cancel(l->d, &l->guard);
  if (!may_end) assert_false(l->guarded);
}

static inline void loop_run(loop *l) { loop_run_for(l, 2000, false); }

// A while in which nothing is to happen: returns at its end.
static inline void loop_idle(loop *l, unsigned ms) { loop_run_for(l, ms, true); }

static inline void loop_stop(loop *l) { l->kind->stop(l->d); }

static inline void loop_open(loop *l, const bdk_driver_kind *kind) {
  *l = (loop){.kind = kind, .d = kind->make()};
  assert_non_null(l->d);
}

static inline void loop_close(loop *l) { l->kind->free(l->d); }

#endif
