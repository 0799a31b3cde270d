// SPDX-License-Identifier: MIT
// A turn is in the order of drive_ev's: the clock · ready descriptors · due timers · hooks · arm the timer.
#include "drive_poll.h"

#include "os.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#define READY_MAX 64 // a turn; epoll hands out the rest first in the next one
// The owner reads its clock some time before we read the machine's. Less than this is no change between them.
#define CLOCK_SLACK_US 1000

typedef struct poll_watch poll_watch;
struct poll_watch {
  bdk_watch *watch; // NULL: unwatched in this turn, whose list of ready ones may still name it
  int fd;
  poll_watch *next; // among those gone
};

typedef struct drive_poll {
  bdk_driver base;
  int epoll_fd, timer_fd, wake_fd;
  bool turning;
  bool expired;         // the timerfd has fired and was not set again since
  uint64_t armed_us;    // what it is set to, by the owner's clock; BDK_NEVER: it is not
  uint64_t armed_os_us; // and by the machine's
  uint64_t ahead_us;    // the machine's clock over the owner's in this turn, modulo 2^64
  poll_watch *gone;
} drive_poll;

// --- descriptors
static void bury(drive_poll *d, poll_watch *p) {
  p->watch = NULL;
  if (!d->turning) {
    free(p);
    return;
  }
  p->next = d->gone;
  d->gone = p;
}

static void poll_unwatch(bdk_driver *base, bdk_watch *w) {
  drive_poll *d = (drive_poll *)base;
  poll_watch *p = w->impl;
  w->events = 0;
  w->impl = NULL;
  if (!p) return;
  epoll_ctl(d->epoll_fd, EPOLL_CTL_DEL, p->fd, NULL); // fails where it was closed first, which has the same effect
  bury(d, p);
}

static int poll_watch_set(bdk_driver *base, bdk_watch *w, int events) {
  drive_poll *d = (drive_poll *)base;
  poll_watch *p = w->impl;
  if (w->fd < 0) return -EBADF;
  if (p && p->fd != w->fd) {
    poll_unwatch(base, w);
    p = NULL;
  }
  if (p && w->events == events) return 0;
  bool fresh = p == NULL;
  if (fresh && !(p = calloc(1, sizeof *p))) return -ENOMEM;
  struct epoll_event e = {.data.ptr = p};
  e.events = (events & BDK_READABLE ? EPOLLIN : 0u) | (events & BDK_WRITABLE ? EPOLLOUT : 0u);
  if (epoll_ctl(d->epoll_fd, fresh ? EPOLL_CTL_ADD : EPOLL_CTL_MOD, w->fd, &e) < 0) {
    int error = errno;
    if (fresh) free(p);
    return -error;
  }
  p->watch = w;
  p->fd = w->fd;
  w->impl = p;
  w->events = events;
  return 0;
}

static void on_ready(poll_watch *p, uint32_t events) {
  bdk_watch *w = p->watch;
  if (!w) return;
  int ready = (events & EPOLLIN ? BDK_READABLE : 0) | (events & EPOLLOUT ? BDK_WRITABLE : 0);
  // The owner finds out what went wrong by trying what it waits for.
  if (events & (EPOLLERR | EPOLLHUP)) ready = w->events;
  if (ready & w->events) w->ready(w, ready & w->events); // may unwatch, and so bury p
}

static void drain(int fd) {
  uint64_t count;
  while (read(fd, &count, sizeof count) < 0 && errno == EINTR) continue;
}

static void dispatch(drive_poll *d) {
  struct epoll_event ready[READY_MAX];
  int n = epoll_wait(d->epoll_fd, ready, READY_MAX, 0);
  for (int i = 0; i < n; i++) {
    if (ready[i].data.ptr == &d->timer_fd)
      d->expired = true; // setting it again also makes it unreadable
    else if (ready[i].data.ptr == &d->wake_fd)
      drain(d->wake_fd);
    else
      on_ready(ready[i].data.ptr, ready[i].events);
  }
}

// --- time
static void arm(drive_poll *d) {
  uint64_t due_us = bdk_drive_poll_deadline(&d->base), os_us = due_us + d->ahead_us;
  // A deadline that moved away costs one idle wake-up instead of a system call at each move.
  if (!d->expired && due_us >= d->armed_us && (due_us == BDK_NEVER || os_us + CLOCK_SLACK_US >= d->armed_os_us)) return;
  struct itimerspec t = {0};
  if (due_us != BDK_NEVER) {
    t.it_value.tv_sec = (time_t)(os_us / 1000000u);
    t.it_value.tv_nsec = (long)(os_us % 1000000u) * 1000 + 1; // zero would disarm it
  }
  timerfd_settime(d->timer_fd, TFD_TIMER_ABSTIME, &t, NULL);
  d->armed_us = due_us;
  d->armed_os_us = due_us == BDK_NEVER ? BDK_NEVER : os_us;
  d->expired = false;
}

uint64_t bdk_drive_poll_deadline(const bdk_driver *base) {
  return base->hooks ? base->now_us : bdk_wheel_deadline(&base->wheel);
}

int bdk_drive_poll_turn(bdk_driver *base, uint64_t now_us, uint32_t max_packets) {
  drive_poll *d = (drive_poll *)base;
  if (d->turning) return -EBUSY;
  d->turning = true;
  uint64_t os_us = bdk_os_now_us();
  if (now_us == BDK_POLL_CLOCK) now_us = os_us;
  if (now_us > base->now_us) base->now_us = now_us;
  d->ahead_us = os_us - base->now_us;
  base->rx_limit = max_packets;
  base->rx_count = 0;
  dispatch(d);
  bdk_driver_fire(base);
  bdk_driver_run_hooks(base);
  arm(d);
  d->turning = false;
  while (d->gone) {
    poll_watch *p = d->gone;
    d->gone = p->next;
    free(p);
  }
  return 0;
}

// --- life
static const bdk_driver_ops ops = {.watch = poll_watch_set, .unwatch = poll_unwatch};

static int add_own(drive_poll *d, int *fd) {
  struct epoll_event e = {.events = EPOLLIN, .data.ptr = fd};
  return *fd < 0 ? -1 : epoll_ctl(d->epoll_fd, EPOLL_CTL_ADD, *fd, &e);
}

bdk_driver *bdk_drive_poll_new(void) {
  drive_poll *d = calloc(1, sizeof *d);
  if (!d) return NULL;
  d->base.ops = &ops;
  bdk_wheel_init(&d->base.wheel, &bdk_os_alloc);
  d->armed_us = d->armed_os_us = BDK_NEVER;
  d->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
  d->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
  d->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  if (d->epoll_fd >= 0 && add_own(d, &d->timer_fd) == 0 && add_own(d, &d->wake_fd) == 0) return &d->base;
  bdk_drive_poll_free(&d->base);
  return NULL;
}

void bdk_drive_poll_free(bdk_driver *base) {
  drive_poll *d = (drive_poll *)base;
  if (!d) return;
  bdk_driver_end(base);
  if (d->epoll_fd >= 0) close(d->epoll_fd);
  if (d->timer_fd >= 0) close(d->timer_fd);
  if (d->wake_fd >= 0) close(d->wake_fd);
  bdk_wheel_clear(&d->base.wheel);
  free(d);
}

int bdk_drive_poll_fd(const bdk_driver *base) { return ((const drive_poll *)base)->epoll_fd; }

void bdk_drive_poll_wake(bdk_driver *base) {
  uint64_t one = 1;
  int saved = errno;
  while (write(((drive_poll *)base)->wake_fd, &one, sizeof one) < 0 && errno == EINTR) continue;
  errno = saved;
}

const bdk_driver_kind bdk_drive_poll = {
    .name = "poll", .make = bdk_drive_poll_new, .free = bdk_drive_poll_free, .run = NULL, .stop = NULL};
