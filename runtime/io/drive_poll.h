// SPDX-License-Identifier: MIT
// The driver for programs that have a main loop already: one descriptor to poll, one bounded turn a call.
// The descriptor (an epoll set with a timerfd and an eventfd in it) is readable when a turn has something to
// do. Nothing blocks, and nothing happens between turns.
#ifndef BDK_DRIVE_POLL_H
#define BDK_DRIVE_POLL_H

#include "driver.h"

#define BDK_POLL_CLOCK UINT64_MAX // for now_us: the machine's own monotonic clock

// NULL when there are no descriptors or memory left. free is NULL-tolerant; owners of watches go first.
bdk_driver *bdk_drive_poll_new(void);
void bdk_drive_poll_free(bdk_driver *d);
// One turn: ready descriptors, timers due, hooks. `now_us` comes from any one clock that does not go back
// (where it does, time stands still); at most `max_packets` datagrams are read (0: no limit but the sockets').
// 0, or -EBUSY from inside a turn.
int bdk_drive_poll_turn(bdk_driver *d, uint64_t now_us, uint32_t max_packets);
// When the next turn is due by that clock, as of the last turn; what is in the past is due now.
uint64_t bdk_drive_poll_deadline(const bdk_driver *d);
int bdk_drive_poll_fd(const bdk_driver *d); // the driver's own: to be polled, nothing else
// Makes the descriptor readable until the next turn. Of any thread, and of signal handlers.
void bdk_drive_poll_wake(bdk_driver *d);
// Loops of this kind are not run, but turned with the above.
extern const bdk_driver_kind bdk_drive_poll;

#endif
