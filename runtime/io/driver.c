// SPDX-License-Identifier: MIT
#include "driver.h"

#include <errno.h>

int bdk_driver_watch(bdk_driver *d, bdk_watch *w, int events) {
  if (!d->ops) return -ENOSYS;
  if (events == 0) {
    d->ops->unwatch(d, w);
    return 0;
  }
  return d->ops->watch(d, w, events);
}

void bdk_driver_unwatch(bdk_driver *d, bdk_watch *w) {
  if (d->ops) d->ops->unwatch(d, w);
}

int bdk_driver_timer(bdk_driver *d, bdk_timer *t, uint64_t due_us) {
  // What is overdue is due now. So within one bdk_driver_fire, whose now_us does not move, every timer set
  // by a callback sorts behind all that were set before it: (due, seq) can only be larger.
  if (due_us < d->now_us) due_us = d->now_us;
  int r = bdk_wheel_set(&d->wheel, t, due_us);
  if (r == 0 && d->ops && d->ops->wheel_changed) d->ops->wheel_changed(d);
  return r;
}

void bdk_driver_cancel(bdk_driver *d, bdk_timer *t) {
  if (t->slot == 0) return;
  bdk_wheel_cancel(&d->wheel, t);
  if (d->ops && d->ops->wheel_changed) d->ops->wheel_changed(d);
}

void bdk_driver_before_wait(bdk_driver *d, bdk_hook *h) {
  if (h->queued) return;
  h->queued = true;
  h->next = d->hooks;
  d->hooks = h;
}

static bool take_out(bdk_hook **list, bdk_hook *h) {
  for (bdk_hook **p = list; *p; p = &(*p)->next) {
    if (*p != h) continue;
    *p = h->next;
    h->next = NULL;
    return true;
  }
  return false;
}

void bdk_driver_unhook(bdk_driver *d, bdk_hook *h) {
  if (!h->queued) return;
  h->queued = false;
  if (!take_out(&d->hooks, h)) take_out(&d->hooks_running, h);
}

void bdk_driver_fire(bdk_driver *d) {
  uint64_t limit = d->wheel.seq; // the latest set so far
  uint64_t now_us = d->now_us;
  while (d->wheel.count > 0 && d->wheel.heap[0]->seq <= limit) {
    bdk_timer *t = bdk_wheel_pop(&d->wheel, now_us);
    if (!t) return;
    t->fire(t, now_us);
  }
}

void bdk_driver_run_hooks(bdk_driver *d) {
  // A hook may queue others (a script's output ends in a socket's flush): these still belong to this turn.
  // Bounded, so that hooks that queue each other cannot keep the loop from its descriptors.
  for (int round = 0; round < 4 && d->hooks; round++) {
    while (d->hooks) { // newest first: turn it round
      bdk_hook *h = d->hooks;
      d->hooks = h->next;
      h->next = d->hooks_running;
      d->hooks_running = h;
    }
    while (d->hooks_running) {
      bdk_hook *h = d->hooks_running;
      d->hooks_running = h->next;
      h->next = NULL;
      h->queued = false;
      h->run(h);
    }
  }
}

void bdk_driver_at_end(bdk_driver *d, bdk_hook *h) {
  h->next = d->endings;
  d->endings = h;
}

void bdk_driver_forget(bdk_driver *d, bdk_hook *h) { take_out(&d->endings, h); }

void bdk_driver_end(bdk_driver *d) {
  while (d->endings) {
    bdk_hook *h = d->endings;
    d->endings = h->next;
    h->run(h);
  }
}
