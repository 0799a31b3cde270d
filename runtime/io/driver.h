// SPDX-License-Identifier: MIT
// What the io modules and bindings ask of an event loop. One contract spec runs on every driver.
// The driver owns the wheel: it sleeps until the first of a ready descriptor and bdk_wheel_deadline, then
// fires what is due in the wheel's order. Single-threaded; callbacks may add and remove anything, also
// themselves.
#ifndef BDK_DRIVER_H
#define BDK_DRIVER_H

#include "../core/wheel.h"

#define BDK_READABLE 1
#define BDK_WRITABLE 2

typedef struct bdk_driver bdk_driver;

typedef struct bdk_watch bdk_watch;
struct bdk_watch { // zeroed by its owner, who keeps it alive until unwatch
  int fd;
  int events; // what is being waited for; 0: not watched
  void (*ready)(bdk_watch *, int events);
  void *impl; // the driver's
};

// Run once before the loop sleeps (sockets flush there, so that sends of one turn leave in one system call).
typedef struct bdk_hook bdk_hook;
struct bdk_hook {
  void (*run)(bdk_hook *);
  bdk_hook *next;
  bool queued;
};

typedef struct bdk_driver_ops {
  int (*watch)(bdk_driver *, bdk_watch *, int events); // 0 or -errno; changes events when already watched
  void (*unwatch)(bdk_driver *, bdk_watch *);          // idempotent
  void (*wheel_changed)(bdk_driver *);                 // the wheel's deadline may have moved; may be NULL
} bdk_driver_ops;

struct bdk_driver {
  const bdk_driver_ops *ops; // NULL in the virtual driver: time is moved by its owner, nothing is watched
  bdk_wheel wheel;
  uint64_t now_us;                 // the time of this turn of the loop
  bdk_hook *hooks, *hooks_running; // queued, newest first; those of this turn that are still to be run
  bdk_hook *endings;               // to be run when the driver is freed
  struct bdk_udp_rx *udp_rx;       // receive buffers, shared by the UDP sockets on this driver
  uint32_t rx_limit, rx_count;     // datagrams a turn may read (0: no limit), and those that were read
  uint32_t gather_us;              // the most it may wait for more where many datagrams come one by one; 0: never
};

// How loops of one kind are made and run. Hosts hand one to the bindings, which thus name no driver.
typedef struct bdk_driver_kind {
  const char *name;
  bdk_driver *(*make)(void);  // NULL when that fails
  void (*free)(bdk_driver *); // NULL-tolerant
  void (*run)(bdk_driver *);  // until stop; both NULL: its owner turns it, and moves its time
  void (*stop)(bdk_driver *);
} bdk_driver_kind;

int bdk_driver_watch(bdk_driver *d, bdk_watch *w, int events); // -ENOSYS in the virtual driver
void bdk_driver_unwatch(bdk_driver *d, bdk_watch *w);
// What lies before now_us is due now. Timers are set through this, never in the wheel directly.
int bdk_driver_timer(bdk_driver *d, bdk_timer *t, uint64_t due_us);
void bdk_driver_cancel(bdk_driver *d, bdk_timer *t);
// Queues a hook for this turn; idempotent. It runs once, in the order queued; from within it may be queued
// again.
void bdk_driver_before_wait(bdk_driver *d, bdk_hook *h);
void bdk_driver_unhook(bdk_driver *d, bdk_hook *h);
// Runs `h`, queued nowhere else, when the driver is freed: for what outlives its owner for a while. forget
// takes it back.
void bdk_driver_at_end(bdk_driver *d, bdk_hook *h);
void bdk_driver_forget(bdk_driver *d, bdk_hook *h);
// For drivers: fire the timers due at d->now_us that were set before this call; run the hooks queued, and
// those these queue (if `hooks` is then not NULL, a further turn must follow without sleeping).
void bdk_driver_fire(bdk_driver *d);
void bdk_driver_run_hooks(bdk_driver *d);
// For drivers: the first thing when freed.
void bdk_driver_end(bdk_driver *d);

#endif
