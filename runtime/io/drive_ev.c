// SPDX-License-Identifier: MIT
// A turn: prepare (hooks, arm the timer) · poll · check first (the clock) · ready descriptors · check last
// (due timers). Descriptors go before timers, so that what had arrived in time counts before a time-out
// does, also after this process was stopped for a while.
#include "drive_ev.h"

#include "os.h"

#include <errno.h>
#include <ev.h>
#include <stdlib.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

// Where datagrams come one by one, most of what one costs is the wake-up. So do as a network card does when it holds
// its interrupts back: at GATHER_RATE a second and more, wait a little before each look, that several lie there. Not
// where they come by batches anyway, as in a flood: there a wait would only cost throughput.
#define GATHER_WINDOW_US 50000u
#define GATHER_RATE 4000u
#define GATHER_BATCH 16u // datagrams a turn, beyond which there is nothing to gain

typedef struct drive_ev {
  bdk_driver base;
  struct ev_loop *loop;
  bool owned, running;
  bool expired;      // the timerfd has fired and was not set again since
  uint64_t armed_us; // what it is set to; BDK_NEVER: it is not
  bool gathering;
  uint64_t window_us; // when it began: what came since decides over the next one
  uint32_t window_rx, window_turns;
  int timer_fd;
  ev_io timer;
  ev_prepare prepare;
  ev_check check_first, check_last;
} drive_ev;

typedef struct ev_watch {
  ev_io io; // first: libev hands us its address
  bdk_watch *watch;
} ev_watch;

// An ev_timer would do but for libev's epoll timeout, which is whole milliseconds rounded up. Measured, timers
// 0.2 to 2.5 ms apart: ev_timer late by 640 us in the median, 980 us at p90; timerfd 22 us and 33 us.
static void set_timer(drive_ev *d, uint64_t due_us) {
  struct itimerspec t = {0};
  if (due_us != BDK_NEVER) {
    t.it_value.tv_sec = (time_t)(due_us / 1000000u);
    t.it_value.tv_nsec = (long)(due_us % 1000000u) * 1000 + 1; // zero would disarm it
  }
  timerfd_settime(d->timer_fd, TFD_TIMER_ABSTIME, &t, NULL);
  d->armed_us = due_us;
  d->expired = false;
}

static void look_at_rate(drive_ev *d) {
  d->window_turns++;
  uint64_t passed_us = d->base.now_us - d->window_us;
  if (passed_us < GATHER_WINDOW_US) return;
  uint64_t came = d->base.rx_count - d->window_rx; // as it wraps, too
  d->gathering = came * 1000000u >= GATHER_RATE * passed_us && came <= (uint64_t)GATHER_BATCH * d->window_turns;
  d->window_us = d->base.now_us;
  d->window_rx = d->base.rx_count;
  d->window_turns = 0;
}

// Not beyond what is due.
static void gather(const drive_ev *d, uint64_t due_us) {
  uint64_t wait_us = d->base.gather_us, now_us = due_us == BDK_NEVER ? 0 : bdk_os_now_us();
  if (due_us < now_us + wait_us) wait_us = due_us > now_us ? due_us - now_us : 0;
  struct timespec t = {.tv_nsec = (long)wait_us * 1000};
  if (wait_us) nanosleep(&t, NULL); // a signal ends it
}

static void on_prepare(struct ev_loop *loop, ev_prepare *w, int events) {
  (void)loop;
  (void)events;
  drive_ev *d = w->data;
  bdk_driver_run_hooks(&d->base);
  uint64_t due_us = d->base.hooks ? 0 : bdk_wheel_deadline(&d->base.wheel);
  // A deadline that moved away costs one idle wake-up instead of a system call at each move.
  if (d->expired || due_us < d->armed_us) set_timer(d, due_us);
  if (d->gathering) gather(d, due_us);
}

static void on_timer(struct ev_loop *loop, ev_io *w, int events) {
  (void)loop;
  (void)events;
  drive_ev *d = w->data;
  d->expired = true; // setting it again also makes it unreadable
}

static void on_check_first(struct ev_loop *loop, ev_check *w, int events) {
  (void)loop;
  (void)events;
  drive_ev *d = w->data;
  d->base.now_us = bdk_os_now_us();
  if (d->base.gather_us) look_at_rate(d);
}

static void on_check_last(struct ev_loop *loop, ev_check *w, int events) {
  (void)loop;
  (void)events;
  drive_ev *d = w->data;
  bdk_driver_fire(&d->base);
}

static void on_ready(struct ev_loop *loop, ev_io *io, int events) {
  (void)loop;
  bdk_watch *w = ((ev_watch *)io)->watch;
  int ready = (events & EV_READ ? BDK_READABLE : 0) | (events & EV_WRITE ? BDK_WRITABLE : 0);
  // EV_ERROR: libev gave the descriptor up. The owner finds out by trying what it waits for.
  if (events & EV_ERROR) ready = w->events;
  w->ready(w, ready); // may unwatch, and so free io
}

static void ev_unwatch(bdk_driver *base, bdk_watch *w) {
  drive_ev *d = (drive_ev *)base;
  ev_watch *e = w->impl;
  w->events = 0;
  w->impl = NULL;
  if (!e) return;
  ev_io_stop(d->loop, &e->io);
  free(e);
}

static int ev_watch_set(bdk_driver *base, bdk_watch *w, int events) {
  drive_ev *d = (drive_ev *)base;
  ev_watch *e = w->impl;
  int want = (events & BDK_READABLE ? EV_READ : 0) | (events & BDK_WRITABLE ? EV_WRITE : 0);
  if (e && w->events == events && e->io.fd == w->fd) return 0;
  if (!e) {
    if (w->fd < 0) return -EBADF;
    e = calloc(1, sizeof *e);
    if (!e) return -ENOMEM;
    e->watch = w;
    w->impl = e;
    ev_init(&e->io, on_ready);
  } else {
    ev_io_stop(d->loop, &e->io);
  }
  ev_io_set(&e->io, w->fd, want);
  ev_io_start(d->loop, &e->io);
  w->events = events;
  return 0;
}

// wheel_changed: nothing to do, every turn looks at the wheel before it sleeps.
static const bdk_driver_ops ops = {.watch = ev_watch_set, .unwatch = ev_unwatch};

bdk_driver *bdk_drive_ev_new(struct ev_loop *loop) {
  drive_ev *d = calloc(1, sizeof *d);
  if (!d) return NULL;
  d->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
  d->owned = loop == NULL;
  d->loop = loop ? loop : ev_loop_new(EVFLAG_AUTO | EVFLAG_NOENV);
  if (d->timer_fd < 0 || !d->loop) goto fail;
  d->base.ops = &ops;
  d->base.now_us = bdk_os_now_us();
  bdk_wheel_init(&d->base.wheel, &bdk_os_alloc);
  d->armed_us = BDK_NEVER;

  ev_io_init(&d->timer, on_timer, d->timer_fd, EV_READ);
  ev_prepare_init(&d->prepare, on_prepare);
  ev_check_init(&d->check_first, on_check_first);
  ev_check_init(&d->check_last, on_check_last);
  ev_set_priority(&d->prepare, EV_MINPRI); // after a borrowed loop's own, whose sends it may flush
  ev_set_priority(&d->check_first, EV_MAXPRI);
  ev_set_priority(&d->check_last, EV_MINPRI);
  d->timer.data = d->prepare.data = d->check_first.data = d->check_last.data = d;
  ev_io_start(d->loop, &d->timer);
  ev_prepare_start(d->loop, &d->prepare);
  ev_check_start(d->loop, &d->check_first);
  ev_check_start(d->loop, &d->check_last);
  return &d->base;
fail:
  if (d->owned && d->loop) ev_loop_destroy(d->loop);
  if (d->timer_fd >= 0) close(d->timer_fd);
  free(d);
  return NULL;
}

void bdk_drive_ev_free(bdk_driver *base) {
  drive_ev *d = (drive_ev *)base;
  if (!d) return;
  bdk_driver_end(base);
  ev_io_stop(d->loop, &d->timer);
  ev_prepare_stop(d->loop, &d->prepare);
  ev_check_stop(d->loop, &d->check_first);
  ev_check_stop(d->loop, &d->check_last);
  if (d->owned) ev_loop_destroy(d->loop);
  close(d->timer_fd);
  bdk_wheel_clear(&d->base.wheel);
  free(d);
}

void bdk_drive_ev_run(bdk_driver *base) {
  drive_ev *d = (drive_ev *)base;
  if (d->running) return;
  d->running = true;
  base->now_us = bdk_os_now_us();
  ev_run(d->loop, 0);
  bdk_driver_run_hooks(base); // the last turn's sends
  d->running = false;
}

void bdk_drive_ev_stop(bdk_driver *base) { ev_break(((drive_ev *)base)->loop, EVBREAK_ONE); }

static bdk_driver *make(void) { return bdk_drive_ev_new(NULL); }

const bdk_driver_kind bdk_drive_ev = {
    .name = "libev", .make = make, .free = bdk_drive_ev_free, .run = bdk_drive_ev_run, .stop = bdk_drive_ev_stop};
