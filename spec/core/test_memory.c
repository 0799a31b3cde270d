// SPDX-License-Identifier: MIT
// Whole scenarios with one allocation refused, each in turn, and with all refused from each on: an error, nothing
// changed where that is promised, nothing leaked, and after one refusal things go on.
#include "support.h"

#include "core/assoc.h"
#include "core/out.h"
#include "core/registry.h"
#include "core/wheel.h"
#include "pair.h"

#define MS 1000u
#define START 1000000u // where pair_init sets the clock
#define SECOND 1000000u

// Runs `scenario` with the n-th allocation refused, for each n that there is.
static void refuse_each(void (*scenario)(spec_heap *), size_t at_least) {
  for (int on = 0; on < 2; on++) {
    size_t n = 1;
    for (;; n++) {
      spec_heap heap = {.fail_at = n, .fail_on = on};
      scenario(&heap);
      assert_int_equal(heap.bytes, 0);
      assert_int_equal(heap.blocks, 0);
      if (heap.calls < n) break;
      assert_true(n < 10000);
    }
    assert_true(n > at_least);
  }
}

static bool refused(const spec_heap *h) { return h->fail_at && h->calls >= h->fail_at; }

// --- two muxes meet, send and leave
static bool make_muxes(pair *w, spec_heap *heap) {
  for (int i = 0; i < 2; i++) {
    bdk_mux_free(w->side[i].mux);
    bdk_mux_config config = {.alloc = {spec_resize, heap}, .counters = &w->side[i].counters, .seed = {(uint8_t)i}};
    config.max_sessions = 4;
    w->side[i].mux = bdk_mux_new(&config);
    if (w->side[i].mux) continue;
    assert_true(refused(heap));
    bdk_mux_free(w->side[!i].mux);
    w->side[0].mux = w->side[1].mux = NULL;
    return false;
  }
  return true;
}

static bool add_sessions(pair *w, spec_heap *heap) {
  for (int i = 0; i < 2; i++) {
    uint64_t deadline = bdk_mux_deadline(w->side[i].mux);
    bool before = refused(heap);
    int error = pair_match(w, i, 0);
    if (!error) {
      assert_non_null(pair_session(w, i));
      continue;
    }
    assert_int_equal(error, BDK_E_LIMIT);
    assert_true(refused(heap) && (heap->fail_on || !before));
    assert_int_equal(bdk_mux_deadline(w->side[i].mux), deadline);
    assert_null(pair_session(w, i));
    if (heap->fail_on) return false;
    assert_int_equal(pair_match(w, i, 0), 0); // memory came back
  }
  return true;
}

static void meets(spec_heap *heap) {
  pair w;
  pair_init(&w, 1, 40 * MS);
  uint8_t big[BDK_PAYLOAD_MAX] = {7};
  if (make_muxes(&w, heap) && add_sessions(&w, heap)) {
    pair_run(&w, START + 3 * SECOND);
    bool can = pair_session(&w, 0) && pair_session(&w, 0)->state == BDK_SESSION_OPEN;
    if (!heap->fail_on) assert_true(can && pair_session(&w, 1)->state == BDK_SESSION_OPEN);
    int messages = pair_events(&w, 1, BDK_OUT_MESSAGE);
    for (int i = 0; can && i < 12; i++) // more at once than the queue begins with
      assert_int_equal(bdk_mux_send(w.side[0].mux, w.now_us, w.side[0].session, big, sizeof big), 0);
    pair_drain(&w, 0);
    pair_run(&w, START + 4 * SECOND);
    if (!heap->fail_on) assert_true(pair_events(&w, 1, BDK_OUT_MESSAGE) >= messages + 11);
    bdk_mux_close(w.side[0].mux, w.now_us, w.side[0].session);
    const bdk_session *s = pair_session(&w, 0);
    assert_true(!s || s->state == BDK_SESSION_CLOSED);
    pair_drain(&w, 0);
    pair_run(&w, START + 120 * SECOND); // by now the other side knows, whatever was lost
    s = pair_session(&w, 1);
    assert_true(!s || s->state == BDK_SESSION_CLOSED);
    // Each output that was lost is counted.
    uint64_t lost = w.side[0].counters.value[BDK_COUNT_refuse_full] + w.side[1].counters.value[BDK_COUNT_refuse_full];
    if (!refused(heap)) assert_int_equal(lost, 0);
  }
  pair_free(&w);
}

static void a_pair_meets(void **state) {
  (void)state;
  refuse_each(meets, 10);
}

// --- a registry fills, changes and empties
static const uint8_t key[32], map[] = {0x81, 0xA1, 'a', 1};

static int put(bdk_registry *r, uint32_t n, uint64_t expires_us) {
  uint8_t id[BDK_ID_LEN] = {0};
  memcpy(id, &n, sizeof n);
  bdk_entry e = {.id = id, .key = key, .expires_us = expires_us, .props = map, .props_len = sizeof map};
  return bdk_registry_put(r, &e);
}

static uint64_t expiry(const bdk_registry *r, uint32_t n) {
  uint8_t id[BDK_ID_LEN] = {0};
  bdk_entry e;
  memcpy(id, &n, sizeof n);
  return bdk_registry_get(r, id, &e) ? e.expires_us : 0;
}

static void put_all(bdk_registry *r, spec_heap *heap, uint32_t count, uint64_t base_us) {
  for (uint32_t n = 0; n < count; n++) {
    uint32_t entries = bdk_registry_count(r);
    uint64_t was_us = expiry(r, n), deadline_us = bdk_registry_deadline(r);
    int error = put(r, n, base_us + n);
    if (!error) {
      assert_int_equal(expiry(r, n), base_us + n);
      continue;
    }
    assert_int_equal(error, BDK_E_LIMIT);
    assert_true(refused(heap));
    assert_int_equal(bdk_registry_count(r), entries);
    assert_int_equal(bdk_registry_deadline(r), deadline_us);
    assert_int_equal(expiry(r, n), was_us);
    if (!heap->fail_on) assert_int_equal(put(r, n, base_us + n), 0);
  }
}

static void fills_and_empties(spec_heap *heap) {
  enum { COUNT = 150 };
  bdk_registry *r = bdk_registry_new(&(bdk_registry_config){.alloc = {spec_resize, heap}, .max_entries = 1000});
  if (!r) {
    assert_true(refused(heap));
    return;
  }
  put_all(r, heap, COUNT, 1000);
  put_all(r, heap, COUNT / 2, 5000); // replaces
  if (!heap->fail_on) assert_int_equal(bdk_registry_count(r), COUNT);
  uint32_t left = bdk_registry_count(r), seen = 0, budget = 1000;
  bdk_entry e;
  uint8_t id[BDK_ID_LEN];
  const uint8_t *last = NULL;
  for (; bdk_registry_after(r, last, NULL, 0, map, sizeof map, &budget, &e) == 1; last = id, seen++)
    memcpy(id, e.id, sizeof id);
  assert_int_equal(seen, left);
  while (bdk_registry_expire(r, UINT64_MAX - 1, id)) left--; // whose shrinking may fail, too
  assert_int_equal(left, 0);
  assert_int_equal(bdk_registry_count(r), 0);
  bdk_registry_free(r);
}

static void a_registry_fills_and_empties(void **state) {
  (void)state;
  refuse_each(fills_and_empties, 200);
}

// --- timers
static void sets_timers(spec_heap *heap) {
  static bdk_timer timers[200];
  bdk_wheel w;
  uint32_t set = 0;
  memset(timers, 0, sizeof timers);
  bdk_wheel_init(&w, &(bdk_alloc){spec_resize, heap});
  for (uint64_t i = 0; i < 200; i++) {
    uint64_t deadline_us = bdk_wheel_deadline(&w);
    int error = bdk_wheel_set(&w, &timers[i], 1000 - i);
    if (error) {
      assert_int_equal(error, BDK_E_LIMIT);
      assert_true(refused(heap));
      assert_int_equal(timers[i].slot, 0);
      assert_int_equal(bdk_wheel_deadline(&w), deadline_us);
    }
    set += !error;
    if (!error) assert_int_equal(bdk_wheel_set(&w, &timers[i], 1000 + i), 0); // a move never fails
  }
  assert_true(set >= 199 || heap->fail_on);
  uint64_t last_us = 0;
  for (bdk_timer *t; (t = bdk_wheel_pop(&w, 5000)); set--) {
    assert_true(t->due_us >= last_us);
    last_us = t->due_us;
  }
  assert_int_equal(set, 0);
  bdk_wheel_clear(&w);
}

static void timers_are_set(void **state) {
  (void)state;
  refuse_each(sets_timers, 4);
}

// --- outputs
static void queues_outputs(spec_heap *heap) {
  bdk_outq q;
  bdk_counters counters = {0};
  uint8_t bytes[BDK_DATAGRAM_MAX];
  bdk_output o;
  uint8_t next = 0;
  unsigned taken = 0;
  bdk_outq_init(&q, &(bdk_alloc){spec_resize, heap}, &counters, (const uint8_t[32]){1});
  for (uint8_t i = 0; i < 60; i++) {
    memset(bytes, i, sizeof bytes);
    bdk_outq_put(&q, &(bdk_output){.kind = BDK_OUT_SEND, .session = i, .data = bytes, .len = 20u * i});
  }
  for (; bdk_outq_next(&q, &o); taken++) { // in order, and whole
    assert_true(o.session >= next && o.len == 20u * o.session);
    for (size_t i = 0; i < o.len; i++) assert_int_equal(o.data[i], o.session);
    next = (uint8_t)(o.session + 1);
  }
  assert_int_equal(taken + counters.value[BDK_COUNT_refuse_full], 60);
  if (!heap->fail_on) assert_true(taken >= 59);
  bdk_outq_clear(&q);
}

static void outputs_are_queued(void **state) {
  (void)state;
  refuse_each(queues_outputs, 4);
}

// --- clients of a server
static void associates(spec_heap *heap) {
  bdk_assocs_config config = {.alloc = {spec_resize, heap}, .keys = {person_static(9)}, .key_count = 1, .max = 10};
  bdk_assocs *t = bdk_assocs_new(&config);
  if (!t) {
    assert_true(refused(heap));
    return;
  }
  uint32_t known = 0;
  for (int i = 0; i < 3; i++) {
    bdk_assoc client;
    bdk_keypair own = person_static(1 + i), ephemeral = person_ephemeral(1 + i);
    bdk_route from = {.remote = pair_addr("198.51.100.1:1000")}, to;
    uint8_t bytes[BDK_DATAGRAM_MAX], payload[BDK_DATAGRAM_MAX];
    uint32_t index;
    bool again;
    int n = bdk_assoc_begin(&client, &own, &ephemeral, config.keys[0].public, 7, (const uint8_t *)"ask", 3, bytes,
                            sizeof bytes);
    assert_true(n > 0);
    int got = bdk_assocs_open(t, START, &from, bytes, (size_t)n, payload, &index, &again);
    if (got < 0) { // and it may come again
      assert_int_equal(got, BDK_E_LIMIT);
      assert_true(refused(heap));
      assert_int_equal(bdk_assocs_count(t), known);
      if (!heap->fail_on) got = bdk_assocs_open(t, START, &from, bytes, (size_t)n, payload, &index, &again);
    }
    if (got < 0) continue;
    assert_int_equal(got, 3);
    assert_int_equal(bdk_assocs_count(t), ++known);
    size_t answer = bdk_assocs_answer(t, index, (const uint8_t *)"yes", 3, bytes, sizeof bytes);
    assert_true(answer > 0); // even where it cannot be kept for a repeat
    assert_int_equal(bdk_assoc_answered(&client, bytes, answer, payload, sizeof payload), 3);
    size_t len = bdk_assocs_write(t, index, (const uint8_t *)"more", 4, bytes, sizeof bytes, &to);
    uint8_t kind;
    assert_int_equal(bdk_assoc_read(&client, bytes, len, payload, &kind), 4);
    bdk_assoc_clear(&client);
  }
  if (!heap->fail_on) assert_int_equal(known, 3);
  bdk_addr origin;
  for (uint32_t budget = 100; bdk_assocs_sweep(t, START + 2 * BDK_ASSOC_IDLE_US, &budget, &origin);) known--;
  assert_int_equal(known, 0);
  bdk_assocs_free(t);
}

static void clients_associate(void **state) {
  (void)state;
  refuse_each(associates, 10);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_pair_meets),      cmocka_unit_test(a_registry_fills_and_empties),
      cmocka_unit_test(timers_are_set),    cmocka_unit_test(outputs_are_queued),
      cmocka_unit_test(clients_associate),
  };
  return cmocka_run_group_tests_name("core: memory", tests, NULL, NULL);
}
