// SPDX-License-Identifier: MIT
// bodkin.core on drive_poll, run as a program with a main loop would: so that the specs of loops, sockets and env,
// which know one kind of loop, hold for this one, too.
#include "bind.h"

#include <poll.h>

#include "io/drive_poll.h"

static bool stopped; // loops are run one at a time

static void run(bdk_driver *d) {
  struct pollfd fd = {.fd = bdk_drive_poll_fd(d), .events = POLLIN};
  for (stopped = false;;) {
    bdk_drive_poll_turn(d, BDK_POLL_CLOCK, 0);
    if (stopped) return;
    poll(&fd, 1, -1);
  }
}

static void stop(bdk_driver *d) {
  (void)d;
  stopped = true;
}

static const bdk_driver_kind kind = {
    .name = "poll, run", .make = bdk_drive_poll_new, .free = bdk_drive_poll_free, .run = run, .stop = stop};

__attribute__((visibility("default"))) int luaopen_bodkin_core(lua_State *L) { return bdk_open_core(L, &kind); }
