// SPDX-License-Identifier: MIT
// The driver on libev: one timerfd at the wheel's deadline, one ev_io a watch, one ev_prepare for hooks.
// Each has a loop of its own, or borrows the caller's.
#ifndef BDK_DRIVE_EV_H
#define BDK_DRIVE_EV_H

#include "driver.h"

struct ev_loop;

// `loop` NULL: makes one. NULL when that fails. free is NULL-tolerant and unwatches nothing by itself:
// owners of watches go first. (Streams that were closed and still had something to write are let go.)
bdk_driver *bdk_drive_ev_new(struct ev_loop *loop);
void bdk_drive_ev_free(bdk_driver *d);
// Runs until bdk_drive_ev_stop. Not re-entrant.
void bdk_drive_ev_run(bdk_driver *d);
void bdk_drive_ev_stop(bdk_driver *d);
// With loops of its own.
extern const bdk_driver_kind bdk_drive_ev;

#endif
