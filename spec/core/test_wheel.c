// SPDX-License-Identifier: MIT
#include "support.h"

#include "core/wheel.h"

#define TIMERS 300

static bdk_wheel wheel_with(spec_heap *heap) {
  bdk_wheel w;
  bdk_wheel_init(&w, &(bdk_alloc){spec_resize, heap});
  return w;
}

static void empty(void **state) {
  spec_heap heap = {0};
  bdk_wheel w = wheel_with(&heap);
  bdk_timer t = {0};
  (void)state;
  assert_true(bdk_wheel_deadline(&w) == BDK_NEVER);
  assert_null(bdk_wheel_pop(&w, UINT64_MAX));
  bdk_wheel_cancel(&w, &t);
  bdk_wheel_clear(&w);
  assert_int_equal(heap.calls, 0);
}

static void those_due_together_fire_in_the_order_they_were_set(void **state) {
  spec_heap heap = {0};
  bdk_wheel w = wheel_with(&heap);
  bdk_timer t[50] = {0};
  (void)state;
  for (int i = 0; i < 50; i++) assert_int_equal(bdk_wheel_set(&w, &t[i], 1000), 0);
  assert_null(bdk_wheel_pop(&w, 999));
  bdk_wheel_set(&w, &t[7], 1000); // moved, though to the same time: now last
  for (int i = 0; i < 50; i++)
    if (i != 7) assert_ptr_equal(bdk_wheel_pop(&w, 1000), &t[i]);
  assert_ptr_equal(bdk_wheel_pop(&w, 1000), &t[7]);
  assert_null(bdk_wheel_pop(&w, 1000));
  bdk_wheel_clear(&w);
  assert_int_equal(heap.bytes, 0);
}

static void clear_forgets_all(void **state) {
  spec_heap heap = {0};
  bdk_wheel w = wheel_with(&heap);
  bdk_timer t[40] = {0};
  (void)state;
  for (int i = 0; i < 40; i++) bdk_wheel_set(&w, &t[i], (uint64_t)i);
  bdk_wheel_clear(&w);
  for (int i = 0; i < 40; i++) assert_int_equal(t[i].slot, 0);
  assert_int_equal(heap.blocks, 0);
  assert_true(bdk_wheel_deadline(&w) == BDK_NEVER);
  assert_int_equal(bdk_wheel_set(&w, &t[0], 5), 0); // of use again
  assert_true(bdk_wheel_deadline(&w) == 5);
  bdk_wheel_clear(&w);
}

// The naive model: the due time and a sequence of each timer, searched for the least.
static int model_first(const uint64_t *due, const uint64_t *seq) {
  int first = -1;
  for (int i = 0; i < TIMERS; i++) {
    if (!seq[i]) continue;
    if (first < 0 || due[i] < due[first] || (due[i] == due[first] && seq[i] < seq[first])) first = i;
  }
  return first;
}

static void behaves_as_a_naive_model(void **state) {
  spec_heap heap = {0};
  bdk_wheel w = wheel_with(&heap);
  static bdk_timer t[TIMERS];
  static uint64_t due[TIMERS], seq[TIMERS];
  uint64_t rng = 3, next = 0, now = 0, popped = 0;
  (void)state;
  for (int step = 0; step < 60000; step++) {
    uint32_t i = spec_below(&rng, TIMERS), what = spec_below(&rng, 10);
    if (what < 6) {
      due[i] = now + spec_below(&rng, 50);
      seq[i] = ++next;
      assert_int_equal(bdk_wheel_set(&w, &t[i], due[i]), 0);
    } else if (what < 8) {
      seq[i] = 0;
      bdk_wheel_cancel(&w, &t[i]);
    } else {
      now += spec_below(&rng, 8);
      bdk_timer *got;
      do {
        int want = model_first(due, seq);
        if (want >= 0 && due[want] > now) want = -1;
        got = bdk_wheel_pop(&w, now);
        assert_ptr_equal(got, want < 0 ? NULL : &t[want]);
        if (got) seq[want] = 0, popped++, assert_int_equal(got->slot, 0);
      } while (got);
    }
    int first = model_first(due, seq);
    assert_true(bdk_wheel_deadline(&w) == (first < 0 ? BDK_NEVER : due[first]));
  }
  assert_true(popped > 1000);
  bdk_wheel_clear(&w);
  assert_int_equal(heap.bytes, 0);
}

static void a_set_that_finds_no_memory_changes_nothing(void **state) {
  spec_heap heap = {0};
  bdk_wheel w = wheel_with(&heap);
  bdk_timer t[200] = {0};
  int set = 0, failures = 0;
  (void)state;
  for (int i = 0; i < 200; i++) {
    heap.fail_at = heap.calls + 1;
    int e = bdk_wheel_set(&w, &t[i], (uint64_t)(1000 - i));
    if (e != 0) {
      failures++;
      assert_int_equal(e, BDK_E_LIMIT);
      assert_int_equal(t[i].slot, 0);
      assert_true(bdk_wheel_deadline(&w) == (i ? (uint64_t)(1000 - i + 1) : BDK_NEVER));
      for (int k = 0; k < i; k++) assert_int_equal(bdk_wheel_set(&w, &t[k], (uint64_t)(1000 - k)), 0); // moves
      heap.fail_at = 0;
      assert_int_equal(bdk_wheel_set(&w, &t[i], (uint64_t)(1000 - i)), 0);
    }
    set++;
  }
  assert_true(failures >= 4);
  while (set-- > 0) assert_ptr_equal(bdk_wheel_pop(&w, 1000), &t[set]);
  bdk_wheel_clear(&w);
  assert_int_equal(heap.bytes, 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(empty),
      cmocka_unit_test(those_due_together_fire_in_the_order_they_were_set),
      cmocka_unit_test(clear_forgets_all),
      cmocka_unit_test(behaves_as_a_naive_model),
      cmocka_unit_test(a_set_that_finds_no_memory_changes_nothing),
  };
  return cmocka_run_group_tests_name("core/wheel", tests, NULL, NULL);
}
