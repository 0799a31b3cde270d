// SPDX-License-Identifier: MIT
// What every driver promises (runtime/io/driver.h). A further driver is one more CONTRACT line in main.
#include "loop.h"

#include <errno.h>
#include <ev.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define COUNT 12

typedef struct world world;

typedef struct part {
  bdk_timer timer;
  bdk_watch watch;
  bdk_hook hook;
  world *w;
  int number;
} part;

struct world {
  loop l;
  part parts[COUNT];
  int log[64], logged;
  int a[2], b[2]; // two pairs of connected sockets
};

static void note(world *w, int what) {
  if (w->logged < 64) w->log[w->logged++] = what;
}

static part *of_timer(bdk_timer *t) { return (part *)((uint8_t *)t - offsetof(part, timer)); }
static part *of_watch(bdk_watch *t) { return (part *)((uint8_t *)t - offsetof(part, watch)); }
static part *of_hook(bdk_hook *t) { return (part *)((uint8_t *)t - offsetof(part, hook)); }

static void open_world(world *w, void **state) {
  memset(w, 0, sizeof *w);
  loop_open(&w->l, *state);
  for (int i = 0; i < COUNT; i++) {
    w->parts[i].w = w;
    w->parts[i].number = i;
  }
  assert_int_equal(0, socketpair(AF_UNIX, SOCK_STREAM, 0, w->a));
  assert_int_equal(0, socketpair(AF_UNIX, SOCK_STREAM, 0, w->b));
}

static void close_world(world *w) {
  loop_close(&w->l);
  for (int i = 0; i < 2; i++) {
    close(w->a[i]);
    close(w->b[i]);
  }
}

static void assert_log(world *w, int count, const int *expected) {
  assert_int_equal(count, w->logged);
  for (int i = 0; i < count; i++) assert_int_equal(expected[i], w->log[i]);
}

static void note_timer(bdk_timer *t, uint64_t now_us) {
  part *p = of_timer(t);
  assert_true(now_us >= t->due_us);
  assert_true(now_us == p->w->l.d->now_us);
  note(p->w, p->number);
  if (p->number == COUNT - 1) loop_stop(&p->w->l);
}

// libev by itself fires such timers in the order 0, 11, 10 … 1.
static void timers_due_together_fire_in_the_order_set(void **state) {
  world w;
  open_world(&w, state);
  uint64_t due_us = bdk_os_now_us() + 2000;
  int expected[COUNT];
  for (int i = 0; i < COUNT; i++) {
    w.parts[i].timer.fire = note_timer;
    assert_int_equal(0, bdk_driver_timer(w.l.d, &w.parts[i].timer, due_us));
    expected[i] = i;
  }
  loop_run(&w.l);
  assert_true(bdk_os_now_us() >= due_us);
  assert_log(&w, COUNT, expected);
  close_world(&w);
}

static void timers_fire_in_the_order_due(void **state) {
  world w;
  open_world(&w, state);
  uint64_t now_us = bdk_os_now_us();
  int expected[COUNT];
  for (int i = 0; i < COUNT; i++) {
    int which = (i * 5) % COUNT;
    w.parts[which].timer.fire = note_timer;
    bdk_driver_timer(w.l.d, &w.parts[which].timer, now_us + 1000 + (uint64_t)which * 300);
    expected[i] = i;
  }
  loop_run(&w.l);
  assert_log(&w, COUNT, expected);
  close_world(&w);
}

static void a_timer_is_moved_by_setting_it_again(void **state) {
  world w;
  open_world(&w, state);
  uint64_t now_us = bdk_os_now_us();
  for (int i = 0; i < COUNT; i++) w.parts[i].timer.fire = note_timer;
  bdk_driver_timer(w.l.d, &w.parts[0].timer, now_us + 1000);
  bdk_driver_timer(w.l.d, &w.parts[1].timer, now_us + 2000);
  bdk_driver_timer(w.l.d, &w.parts[COUNT - 1].timer, now_us + 4000);
  bdk_driver_timer(w.l.d, &w.parts[0].timer, now_us + 3000);
  loop_run(&w.l);
  assert_log(&w, 3, (int[]){1, 0, COUNT - 1});
  close_world(&w);
}

static void cancel_others(bdk_timer *t, uint64_t now_us) {
  part *p = of_timer(t);
  note_timer(t, now_us);
  for (int i = 1; i < COUNT - 1; i++) bdk_driver_cancel(p->w->l.d, &p->w->parts[i].timer);
  bdk_driver_cancel(p->w->l.d, t); // not set any more: nothing happens
}

static void a_callback_cancels_timers_due_in_the_same_turn(void **state) {
  world w;
  open_world(&w, state);
  for (int i = 0; i < COUNT; i++) {
    w.parts[i].timer.fire = i ? note_timer : cancel_others;
    bdk_driver_timer(w.l.d, &w.parts[i].timer, w.l.d->now_us);
  }
  loop_run(&w.l);
  assert_log(&w, 2, (int[]){0, COUNT - 1});
  close_world(&w);
}

static void note_hook(bdk_hook *h) {
  part *p = of_hook(h);
  note(p->w, p->number);
}

static void set_self_again(bdk_timer *t, uint64_t now_us) {
  part *p = of_timer(t);
  note(p->w, p->number);
  if (p->w->logged >= 20) loop_stop(&p->w->l);
  bdk_driver_before_wait(p->w->l.d, &p->w->parts[8].hook); // marks the end of the turn
  // Overdue by far, yet behind the others: else one timer would keep the rest, and the loop, from going on.
  bdk_driver_timer(p->w->l.d, t, now_us > 1000000 ? now_us - 1000000 : 0);
}

static void timers_set_while_firing_wait_for_the_next_turn(void **state) {
  world w;
  open_world(&w, state);
  for (int i = 0; i < 2; i++) {
    w.parts[i].timer.fire = set_self_again;
    bdk_driver_timer(w.l.d, &w.parts[i].timer, w.l.d->now_us);
  }
  w.parts[8].hook.run = note_hook;
  loop_run(&w.l);
  for (int i = 0; i < 18; i++) assert_int_equal(((int[]){0, 1, 8})[i % 3], w.log[i]);
  close_world(&w);
}

static void read_and_note(bdk_watch *t, int events) {
  part *p = of_watch(t);
  char byte;
  assert_true(events & BDK_READABLE);
  note(p->w, 100 + p->number);
  assert_int_equal(1, read(t->fd, &byte, 1));
}

static void descriptors_get_their_turn_beside_overdue_timers(void **state) {
  world w;
  open_world(&w, state);
  w.parts[0].timer.fire = set_self_again;
  w.parts[8].hook.run = note_hook;
  bdk_driver_timer(w.l.d, &w.parts[0].timer, 0);
  w.parts[1].watch = (bdk_watch){.fd = w.a[0], .ready = read_and_note};
  assert_int_equal(0, bdk_driver_watch(w.l.d, &w.parts[1].watch, BDK_READABLE));
  assert_int_equal(1, write(w.a[1], "x", 1));
  loop_run(&w.l);
  assert_true(w.log[0] == 101 || w.log[1] == 101);
  bdk_driver_unwatch(w.l.d, &w.parts[1].watch);
  close_world(&w);
}

static void unwatch_both(bdk_watch *t, int events) {
  part *p = of_watch(t);
  (void)events;
  note(p->w, p->number);
  for (int i = 0; i < 2; i++) {
    bdk_driver_unwatch(p->w->l.d, &p->w->parts[i].watch);
    memset(&p->w->parts[i].watch, 0, sizeof(bdk_watch)); // its owner may free it at once
  }
  bdk_driver_timer(p->w->l.d, &p->w->parts[COUNT - 1].timer, bdk_os_now_us() + 2000);
}

static void a_callback_unwatches_itself_and_others(void **state) {
  world w;
  open_world(&w, state);
  w.parts[COUNT - 1].timer.fire = note_timer;
  int fds[2] = {w.a[0], w.b[0]};
  for (int i = 0; i < 2; i++) {
    w.parts[i].watch = (bdk_watch){.fd = fds[i], .ready = unwatch_both};
    assert_int_equal(0, bdk_driver_watch(w.l.d, &w.parts[i].watch, BDK_READABLE));
  }
  assert_int_equal(1, write(w.a[1], "x", 1));
  assert_int_equal(1, write(w.b[1], "x", 1));
  loop_run(&w.l);
  assert_int_equal(2, w.logged);
  assert_int_equal(COUNT - 1, w.log[1]);
  close_world(&w);
}

static void read_then_stop(bdk_watch *t, int events) {
  part *p = of_watch(t);
  read_and_note(t, events);
  loop_stop(&p->w->l);
}

static void watch_another(bdk_watch *t, int events) {
  part *p = of_watch(t);
  note(p->w, p->number);
  assert_int_equal(BDK_WRITABLE, events);
  bdk_driver_unwatch(p->w->l.d, t);
  part *other = &p->w->parts[1];
  other->watch = (bdk_watch){.fd = p->w->b[0], .ready = read_then_stop};
  assert_int_equal(0, bdk_driver_watch(p->w->l.d, &other->watch, BDK_READABLE));
}

static void a_callback_watches_another_descriptor(void **state) {
  world w;
  open_world(&w, state);
  w.parts[0].watch = (bdk_watch){.fd = w.a[0], .ready = watch_another};
  assert_int_equal(0, bdk_driver_watch(w.l.d, &w.parts[0].watch, BDK_WRITABLE));
  assert_int_equal(1, write(w.b[1], "x", 1));
  loop_run(&w.l);
  assert_log(&w, 2, (int[]){0, 101});
  bdk_driver_unwatch(w.l.d, &w.parts[1].watch);
  bdk_driver_unwatch(w.l.d, &w.parts[1].watch);
  assert_int_equal(0, w.parts[1].watch.events);
  close_world(&w);
}

static void change_events(bdk_watch *t, int events) {
  part *p = of_watch(t);
  note(p->w, events);
  if (events & BDK_WRITABLE) {
    assert_int_equal(0, bdk_driver_watch(p->w->l.d, t, BDK_READABLE));
    assert_int_equal(1, write(p->w->a[1], "x", 1));
  } else {
    loop_stop(&p->w->l);
  }
}

static void watching_again_changes_what_is_waited_for(void **state) {
  world w;
  open_world(&w, state);
  w.parts[0].watch = (bdk_watch){.fd = w.a[0], .ready = change_events};
  assert_int_equal(0, bdk_driver_watch(w.l.d, &w.parts[0].watch, BDK_READABLE | BDK_WRITABLE));
  loop_run(&w.l);
  assert_log(&w, 2, (int[]){BDK_WRITABLE, BDK_READABLE});
  bdk_driver_unwatch(w.l.d, &w.parts[0].watch);
  close_world(&w);
}

static void a_reused_descriptor_number_is_watched_anew(void **state) {
  world w;
  open_world(&w, state);
  w.parts[0].watch = (bdk_watch){.fd = w.a[0], .ready = read_then_stop};
  assert_int_equal(0, bdk_driver_watch(w.l.d, &w.parts[0].watch, BDK_READABLE));
  loop_idle(&w.l, 1);
  bdk_driver_unwatch(w.l.d, &w.parts[0].watch);
  close(w.a[0]);
  int fd = dup(w.b[0]);
  assert_int_equal(w.a[0], fd);
  assert_int_equal(0, bdk_driver_watch(w.l.d, &w.parts[0].watch, BDK_READABLE));
  assert_int_equal(1, write(w.b[1], "x", 1));
  loop_run(&w.l);
  assert_log(&w, 1, (int[]){100});
  bdk_driver_unwatch(w.l.d, &w.parts[0].watch);
  close_world(&w);
}

static void hook_queues_another(bdk_hook *h) {
  part *p = of_hook(h);
  note(p->w, p->number);
  bdk_driver_before_wait(p->w->l.d, &p->w->parts[5].hook);
  bdk_driver_unhook(p->w->l.d, &p->w->parts[2].hook); // queued, not yet run
}

static void hooks_run_once_before_the_loop_sleeps(void **state) {
  world w;
  open_world(&w, state);
  w.parts[COUNT - 1].timer.fire = note_timer;
  bdk_driver_timer(w.l.d, &w.parts[COUNT - 1].timer, bdk_os_now_us() + 3000);
  for (int i = 0; i < 6; i++) w.parts[i].hook.run = i == 1 ? hook_queues_another : note_hook;
  for (int i = 0; i < 5; i++) {
    bdk_driver_before_wait(w.l.d, &w.parts[i].hook);
    bdk_driver_before_wait(w.l.d, &w.parts[i].hook);
  }
  bdk_driver_unhook(w.l.d, &w.parts[3].hook);
  bdk_driver_unhook(w.l.d, &w.parts[3].hook);
  loop_run(&w.l);
  assert_log(&w, 5, (int[]){0, 1, 4, 5, COUNT - 1});
  close_world(&w);
}

static void hook_again(bdk_hook *h) {
  part *p = of_hook(h);
  note(p->w, p->number);
  bdk_driver_before_wait(p->w->l.d, h);
}

static void a_hook_that_queues_itself_does_not_stop_the_loop(void **state) {
  world w;
  open_world(&w, state);
  w.parts[0].hook.run = hook_again;
  bdk_driver_before_wait(w.l.d, &w.parts[0].hook);
  w.parts[COUNT - 1].timer.fire = note_timer;
  bdk_driver_timer(w.l.d, &w.parts[COUNT - 1].timer, bdk_os_now_us() + 100);
  loop_run(&w.l);
  assert_true(w.logged > 4); // more than one turn, none of which slept
  bdk_driver_unhook(w.l.d, &w.parts[0].hook);
  close_world(&w);
}

static void stop_and_hook(bdk_timer *t, uint64_t now_us) {
  (void)now_us;
  part *p = of_timer(t);
  bdk_driver_before_wait(p->w->l.d, &p->w->parts[1].hook);
  loop_stop(&p->w->l);
}

static void hooks_of_the_last_turn_run_too(void **state) {
  world w;
  open_world(&w, state);
  w.parts[0].timer.fire = stop_and_hook;
  w.parts[1].hook.run = note_hook;
  bdk_driver_timer(w.l.d, &w.parts[0].timer, 0);
  loop_run(&w.l);
  assert_log(&w, 1, (int[]){1});
  close_world(&w);
}

static void set_sooner(bdk_watch *t, int events) {
  part *p = of_watch(t);
  read_and_note(t, events);
  bdk_driver_timer(p->w->l.d, &p->w->parts[COUNT - 1].timer, p->w->l.d->now_us + 1000);
}

static void a_nearer_deadline_set_in_a_callback_counts(void **state) {
  world w;
  open_world(&w, state);
  w.parts[COUNT - 1].timer.fire = note_timer;
  bdk_driver_timer(w.l.d, &w.parts[COUNT - 1].timer, bdk_os_now_us() + 60000000);
  w.parts[0].watch = (bdk_watch){.fd = w.a[0], .ready = set_sooner};
  assert_int_equal(0, bdk_driver_watch(w.l.d, &w.parts[0].watch, BDK_READABLE));
  assert_int_equal(1, write(w.a[1], "x", 1));
  loop_run(&w.l);
  assert_log(&w, 2, (int[]){100, COUNT - 1});
  bdk_driver_unwatch(w.l.d, &w.parts[0].watch);
  close_world(&w);
}

// The lateness of each of 60 timers, 200..2500 µs apart. Half of them within 0.5 ms: a driver that waits in
// whole milliseconds is off by 0.5 ms in the mean. Loose, because specs run beside other programs.
typedef struct late {
  bdk_timer timer;
  loop l;
  uint64_t late_us[60];
  int count;
} late;

static void on_late(bdk_timer *t, uint64_t now_us) {
  late *x = (late *)t;
  x->late_us[x->count++] = now_us - t->due_us;
  if (x->count == 60)
    loop_stop(&x->l);
  else
    bdk_driver_timer(x->l.d, t, now_us + 200 + (uint64_t)(x->count * 977) % 2300);
}

static int by_size(const void *a, const void *b) {
  uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
  return x < y ? -1 : x > y;
}

static void timers_are_late_by_less_than_a_millisecond(void **state) {
  late x = {.timer.fire = on_late};
  loop_open(&x.l, *state);
  bdk_driver_timer(x.l.d, &x.timer, bdk_os_now_us() + 1000);
  loop_run(&x.l);
  qsort(x.late_us, 60, sizeof x.late_us[0], by_size);
  print_message("lateness: median %u us, p90 %u us, max %u us\n", (unsigned)x.late_us[30], (unsigned)x.late_us[54],
                (unsigned)x.late_us[59]);
  assert_true(x.late_us[30] < 500);
  loop_close(&x.l);
}

static void the_virtual_driver_watches_nothing(void **state) {
  (void)state;
  bdk_driver d = {.ops = NULL};
  bdk_watch w = {.fd = 0};
  assert_int_equal(-ENOSYS, bdk_driver_watch(&d, &w, BDK_READABLE));
  bdk_driver_unwatch(&d, &w);
}

static void a_borrowed_loop_is_left_as_it_was(void **state) {
  (void)state;
  struct ev_loop *loop = ev_loop_new(EVFLAG_AUTO | EVFLAG_NOENV);
  bdk_driver *d = bdk_drive_ev_new(loop);
  assert_non_null(d);
  bdk_drive_ev_free(d);
  assert_int_equal(0, ev_run(loop, 0)); // returns at once: no watcher of ours is left
  ev_loop_destroy(loop);
  bdk_drive_ev_free(NULL);
}

static void a_driver_with_nothing_to_do_sleeps(void **state) {
  (void)state;
  world w;
  struct ev_loop *loop = ev_loop_new(EVFLAG_AUTO | EVFLAG_NOENV);
  loop_open(&w.l, &loop_ev);
  bdk_drive_ev_free(w.l.d);
  w.l.d = bdk_drive_ev_new(loop);
  assert_int_equal(0, socketpair(AF_UNIX, SOCK_STREAM, 0, w.a));
  bdk_watch watch = {.fd = w.a[0], .ready = read_and_note};
  assert_int_equal(0, bdk_driver_watch(w.l.d, &watch, BDK_READABLE));
  loop_idle(&w.l, 2); // a deadline that then goes away
  unsigned before = ev_iteration(loop);
  loop_idle(&w.l, 20);
  assert_true(ev_iteration(loop) - before < 6);
  bdk_driver_unwatch(w.l.d, &watch);
  bdk_drive_ev_free(w.l.d);
  ev_loop_destroy(loop);
  close(w.a[0]);
  close(w.a[1]);
}

// --- drive_poll alone: what its owner may rely on
static bool readable(bdk_driver *d, int wait_ms) {
  struct pollfd fd = {.fd = bdk_drive_poll_fd(d), .events = POLLIN};
  return poll(&fd, 1, wait_ms) == 1;
}

static void the_descriptor_is_readable_when_a_turn_has_something_to_do(void **state) {
  world w;
  open_world(&w, state);
  bdk_driver *d = w.l.d;
  w.parts[0].watch = (bdk_watch){.fd = w.a[0], .ready = read_and_note};
  assert_int_equal(0, bdk_driver_watch(d, &w.parts[0].watch, BDK_READABLE));
  assert_int_equal(0, bdk_drive_poll_turn(d, 5000000, 0));
  assert_false(readable(d, 0));
  assert_true(bdk_drive_poll_deadline(d) == BDK_NEVER);
  assert_int_equal(1, write(w.a[1], "x", 1));
  assert_true(readable(d, 0));
  assert_int_equal(0, bdk_drive_poll_turn(d, 5000000, 0));
  assert_log(&w, 1, (int[]){100});
  assert_false(readable(d, 0));
  bdk_driver_unwatch(d, &w.parts[0].watch);
  close_world(&w);
}

static void time_is_its_owners(void **state) {
  world w;
  open_world(&w, state);
  bdk_driver *d = w.l.d;
  w.parts[0].timer.fire = note_timer;
  assert_int_equal(0, bdk_drive_poll_turn(d, 7000000, 0));
  bdk_driver_timer(d, &w.parts[0].timer, 7003000);
  assert_true(bdk_drive_poll_deadline(d) == 7003000);
  assert_int_equal(0, bdk_drive_poll_turn(d, 7000000, 0));
  assert_true(readable(d, 2000)); // 3 ms later, by the machine's clock
  // The owner's says otherwise (a game that is paused): neither does it fire, nor is a turn due at once.
  assert_int_equal(0, bdk_drive_poll_turn(d, 7000000, 0));
  assert_int_equal(0, bdk_drive_poll_turn(d, 6000000, 0)); // does not go back
  assert_true(d->now_us == 7000000);
  assert_int_equal(0, w.logged);
  assert_false(readable(d, 0));
  // Nor does the deadline stay where it was, when the owner's clock jumps.
  assert_int_equal(0, bdk_drive_poll_turn(d, 7002900, 0));
  assert_true(readable(d, 2));
  assert_int_equal(0, bdk_drive_poll_turn(d, 7003000, 0));
  assert_log(&w, 1, (int[]){0});
  assert_false(readable(d, 5));
  close_world(&w);
}

static void turn_inside(bdk_timer *t, uint64_t now_us) {
  part *p = of_timer(t);
  note(p->w, -bdk_drive_poll_turn(p->w->l.d, now_us, 0));
}

static void a_turn_inside_a_turn_is_refused(void **state) {
  world w;
  open_world(&w, state);
  w.parts[0].timer.fire = turn_inside;
  bdk_driver_timer(w.l.d, &w.parts[0].timer, 1);
  assert_int_equal(0, bdk_drive_poll_turn(w.l.d, 1, 0));
  assert_log(&w, 1, (int[]){EBUSY});
  close_world(&w);
}

static void *wake(void *d) {
  bdk_drive_poll_wake(d);
  return NULL;
}

static void another_thread_wakes_it(void **state) {
  world w;
  open_world(&w, state);
  pthread_t thread;
  assert_int_equal(0, bdk_drive_poll_turn(w.l.d, BDK_POLL_CLOCK, 0));
  assert_int_equal(0, pthread_create(&thread, NULL, wake, w.l.d));
  assert_true(readable(w.l.d, 2000));
  pthread_join(thread, NULL);
  assert_int_equal(0, bdk_drive_poll_turn(w.l.d, BDK_POLL_CLOCK, 0));
  assert_false(readable(w.l.d, 0));
  bdk_drive_poll_free(NULL);
  close_world(&w);
}

#define CONTRACT(kind)                                                                                                 \
  cmocka_unit_test_prestate(timers_due_together_fire_in_the_order_set, kind),                                          \
      cmocka_unit_test_prestate(timers_fire_in_the_order_due, kind),                                                   \
      cmocka_unit_test_prestate(a_timer_is_moved_by_setting_it_again, kind),                                           \
      cmocka_unit_test_prestate(a_callback_cancels_timers_due_in_the_same_turn, kind),                                 \
      cmocka_unit_test_prestate(timers_set_while_firing_wait_for_the_next_turn, kind),                                 \
      cmocka_unit_test_prestate(descriptors_get_their_turn_beside_overdue_timers, kind),                               \
      cmocka_unit_test_prestate(a_callback_unwatches_itself_and_others, kind),                                         \
      cmocka_unit_test_prestate(a_callback_watches_another_descriptor, kind),                                          \
      cmocka_unit_test_prestate(watching_again_changes_what_is_waited_for, kind),                                      \
      cmocka_unit_test_prestate(a_reused_descriptor_number_is_watched_anew, kind),                                     \
      cmocka_unit_test_prestate(hooks_run_once_before_the_loop_sleeps, kind),                                          \
      cmocka_unit_test_prestate(a_hook_that_queues_itself_does_not_stop_the_loop, kind),                               \
      cmocka_unit_test_prestate(hooks_of_the_last_turn_run_too, kind),                                                 \
      cmocka_unit_test_prestate(a_nearer_deadline_set_in_a_callback_counts, kind),                                     \
      cmocka_unit_test_prestate(timers_are_late_by_less_than_a_millisecond, kind)

int main(void) {
  const struct CMUnitTest tests[] = {
      CONTRACT((void *)&loop_ev),
      CONTRACT((void *)&loop_poll),
      cmocka_unit_test(the_virtual_driver_watches_nothing),
      cmocka_unit_test(a_driver_with_nothing_to_do_sleeps),
      cmocka_unit_test(a_borrowed_loop_is_left_as_it_was),
      cmocka_unit_test_prestate(the_descriptor_is_readable_when_a_turn_has_something_to_do, (void *)&loop_poll),
      cmocka_unit_test_prestate(time_is_its_owners, (void *)&loop_poll),
      cmocka_unit_test_prestate(a_turn_inside_a_turn_is_refused, (void *)&loop_poll),
      cmocka_unit_test_prestate(another_thread_wakes_it, (void *)&loop_poll),
  };
  return cmocka_run_group_tests_name("driver", tests, NULL, NULL);
}
