// SPDX-License-Identifier: MIT
// The reference is a list of all that wait, looked through from end to end.
#include "support.h"

#include "core/tickets.h"

#define MANY 400

typedef struct naive {
  uint64_t no;
  double value;
  uint32_t pool;
} naive;

typedef struct world {
  spec_heap heap;
  bdk_tickets *t;
  naive list[MANY];
  int count;
  uint64_t last;
  uint32_t pools[3];
  uint64_t seed;
} world;

static unsigned draw(world *w, unsigned n) { return spec_below(&w->seed, n); }

static void open_world(world *w, bool indexed, unsigned seed) {
  memset(w, 0, sizeof *w);
  w->seed = seed;
  bdk_alloc alloc = {spec_resize, &w->heap};
  w->t = bdk_tickets_new(&alloc, indexed);
  assert_non_null(w->t);
  for (int i = 0; i < 3; i++) w->pools[i] = bdk_tickets_pool(w->t);
}

static void close_world(world *w) {
  bdk_tickets_free(w->t);
  assert_int_equal(w->heap.bytes, 0);
  assert_int_equal(w->heap.blocks, 0);
}

static uint32_t put(world *w, int pool, uint64_t no, double value) {
  uint32_t place = bdk_tickets_add(w->t, w->pools[pool], no, 0, value, 1);
  if (place == BDK_TICKET_NONE) return place;
  w->list[w->count++] = (naive){no, value, w->pools[pool]};
  return place;
}

static void take(world *w, int i) {
  bdk_tickets_drop(w->t, bdk_tickets_find(w->t, w->list[i].no));
  w->list[i] = w->list[--w->count];
}

static int by_no(const void *a, const void *b) {
  const naive *x = a, *y = b;
  return (x->no > y->no) - (x->no < y->no);
}

// The anchors of a pool are those that wait there, in order of their numbers.
static void check_anchors(world *w, int pool) {
  qsort(w->list, (size_t)w->count, sizeof *w->list, by_no);
  assert_true(bdk_tickets_prepare(w->t, w->pools[pool]));
  uint32_t position = bdk_tickets_seek(w->t, w->pools[pool], 0), place, n = 0;
  for (int i = 0; i < w->count; i++) {
    if (w->list[i].pool != w->pools[pool]) continue;
    place = bdk_tickets_anchor(w->t, w->pools[pool], &position);
    assert_true(place != BDK_TICKET_NONE);
    assert_true(bdk_tickets_at(w->t, place)->no == w->list[i].no);
    assert_int_equal(bdk_tickets_find(w->t, w->list[i].no), place);
    n++;
  }
  assert_int_equal(bdk_tickets_anchor(w->t, w->pools[pool], &position), BDK_TICKET_NONE);
  assert_int_equal(bdk_tickets_pool_count(w->t, w->pools[pool]), n);
}

// A search by index gives those that wait, the nearer first, none twice, not the anchor, nobody of another pool.
static void check_search(world *w, int i) {
  naive anchor = w->list[i];
  uint32_t place = bdk_tickets_find(w->t, anchor.no), other;
  bdk_search s;
  bdk_search_begin(w->t, &s, anchor.pool, place, anchor.value);
  s.enough = true;
  double last = 0;
  unsigned n = 0, peers = 0;
  bool seen[MANY] = {false};
  while ((other = bdk_search_next(w->t, &s)) != BDK_TICKET_NONE) {
    const bdk_ticket *k = bdk_tickets_at(w->t, other);
    int at = -1;
    for (int e = 0; e < w->count; e++)
      if (w->list[e].no == k->no) at = e;
    assert_true(at >= 0 && at != i && !seen[at]);
    assert_int_equal(w->list[at].pool, anchor.pool);
    seen[at] = true;
    double gap = k->value > anchor.value ? k->value - anchor.value : anchor.value - k->value;
    assert_true(gap >= last);
    last = gap;
    n++;
  }
  for (int e = 0; e < w->count; e++) {
    if (e == i || w->list[e].pool != anchor.pool) continue;
    double gap = w->list[e].value - anchor.value;
    if (gap < 0) gap = -gap;
    assert_true(seen[e] || gap >= last);
    peers++;
  }
  assert_int_equal(n, peers < BDK_TICKETS_LOOK ? peers : BDK_TICKETS_LOOK);
}

static void it_agrees_with_a_list_by_seeds(void **state) {
  (void)state;
  for (unsigned seed = 1; seed <= 60; seed++) {
    world w;
    open_world(&w, seed & 1, seed);
    for (int step = 0; step < 60; step++) {
      for (unsigned n = draw(&w, 20); n && w.count < MANY; n--) {
        // Mostly in order, after a failure in any.
        uint64_t no = draw(&w, 10) ? ++w.last : w.last + 1 + draw(&w, 50);
        if (bdk_tickets_find(w.t, no) != BDK_TICKET_NONE) continue;
        if (no > w.last) w.last = no;
        put(&w, (int)draw(&w, 3), no, (double)draw(&w, 100));
      }
      for (unsigned n = draw(&w, 18); n && w.count; n--) take(&w, (int)draw(&w, (unsigned)w.count));
      int pool = (int)draw(&w, 3);
      check_anchors(&w, pool);
      // In the middle of a pass some go.
      for (int i = 0; i < w.count; i++) {
        if (w.list[i].pool != w.pools[pool]) continue;
        if (draw(&w, 4) == 0) take(&w, i);
        if (seed & 1 && i < w.count && w.list[i].pool == w.pools[pool]) check_search(&w, i);
      }
      assert_int_equal(bdk_tickets_count(w.t), w.count);
    }
    close_world(&w);
  }
}

static void who_is_behind_a_crowd_is_seen_in_a_later_pass(void **state) {
  (void)state;
  for (int indexed = 0; indexed < 2; indexed++) {
    world w;
    open_world(&w, indexed, 1);
    for (int i = 1; i <= 300; i++) put(&w, 0, (uint64_t)i, i);
    bool seen = false;
    for (int round = 0; round < 20 && !seen; round++) {
      assert_true(bdk_tickets_prepare(w.t, w.pools[0]));
      bdk_search s;
      uint32_t place;
      bdk_search_begin(w.t, &s, w.pools[0], bdk_tickets_find(w.t, 1), 1);
      unsigned n = 0;
      while ((place = bdk_search_next(w.t, &s)) != BDK_TICKET_NONE) {
        seen = seen || bdk_tickets_at(w.t, place)->no == 250;
        n++;
      }
      assert_true(n <= BDK_TICKETS_LOOK + BDK_TICKETS_LOOK / 2);
    }
    assert_true(seen);
    close_world(&w);
  }
}

static void a_search_finds_nobody_who_went_meanwhile(void **state) {
  (void)state;
  world w;
  uint32_t place[4];
  open_world(&w, true, 1);
  for (int i = 0; i < 4; i++) place[i] = put(&w, 0, (uint64_t)i + 1, i);
  assert_true(bdk_tickets_prepare(w.t, w.pools[0]));
  bdk_search s;
  bdk_search_begin(w.t, &s, w.pools[0], place[0], 0);
  bdk_tickets_drop(w.t, place[1]);
  assert_int_equal(bdk_search_next(w.t, &s), place[2]);
  bdk_tickets_drop(w.t, place[3]);
  assert_int_equal(bdk_search_next(w.t, &s), BDK_TICKET_NONE);
  close_world(&w);
}

static void an_empty_pool_is_used_again(void **state) {
  (void)state;
  world w;
  open_world(&w, true, 1);
  put(&w, 1, 5, 1);
  take(&w, 0);
  assert_true(bdk_tickets_prepare(w.t, w.pools[1]));
  bdk_tickets_release(w.t, w.pools[1]);
  assert_int_equal(bdk_tickets_pool(w.t), w.pools[1]);
  put(&w, 1, 6, 1);
  check_anchors(&w, 1);
  close_world(&w);
}

static void without_memory_nothing_changes(void **state) {
  (void)state;
  for (int fails = 1; fails < 40; fails++) {
    world w;
    open_world(&w, true, 1);
    for (int i = 1; i <= 40; i++) put(&w, 0, (uint64_t)i, 40 - i);
    assert_true(bdk_tickets_prepare(w.t, w.pools[0]));
    w.heap.fail_at = w.heap.calls + (size_t)fails;
    for (int i = 41; i <= 140; i++) put(&w, 0, (uint64_t)i, i % 7);
    bool ready = bdk_tickets_prepare(w.t, w.pools[0]);
    w.heap.fail_at = 0;
    if (!ready) assert_true(bdk_tickets_prepare(w.t, w.pools[0]));
    check_anchors(&w, 0);
    for (int i = 0; i < w.count; i++) check_search(&w, i);
    close_world(&w);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(it_agrees_with_a_list_by_seeds),
      cmocka_unit_test(who_is_behind_a_crowd_is_seen_in_a_later_pass),
      cmocka_unit_test(a_search_finds_nobody_who_went_meanwhile),
      cmocka_unit_test(an_empty_pool_is_used_again),
      cmocka_unit_test(without_memory_nothing_changes),
  };
  return cmocka_run_group_tests_name("tickets", tests, NULL, NULL);
}
