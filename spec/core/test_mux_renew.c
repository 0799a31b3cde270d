// SPDX-License-Identifier: MIT
// A session that hears nothing says so, and may be scheduled again with more candidates.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "lone.h"
#include "pair.h"

#define MS 1000u
#define SECOND 1000000u
#define START 1000000u
#define DELAY (20 * MS)

static bdk_renewal renewal_of(const bdk_candidate *c, uint32_t epoch, uint64_t start_in_us) {
  return (bdk_renewal){.epoch = epoch, .start_in_us = start_in_us, .candidates = c, .count = 1};
}

static void silence_is_told_after_a_second_and_twice_at_most(void **state) {
  (void)state;
  pair w;
  pair_init(&w, 1, DELAY);
  w.side[0].cut = w.side[1].cut = true;
  pair_match(&w, 0, 30 * MS);
  pair_run(&w, START + 30 * MS + SECOND - 1);
  assert_int_equal(pair_events(&w, 0, BDK_OUT_SILENT), 0);
  pair_run(&w, START + 30 * MS + SECOND);
  assert_int_equal(pair_events(&w, 0, BDK_OUT_SILENT), 1);
  pair_run(&w, START + 4 * SECOND);
  assert_int_equal(pair_events(&w, 0, BDK_OUT_SILENT), 1); // nobody did anything about it
  bdk_candidate c = {.addr = pair_addr("198.51.100.2:2001"), .sock = 3, .via = BDK_VIA_SRFLX};
  for (uint32_t n = 1; n <= 3; n++) {
    bdk_renewal r = renewal_of(&c, n, 5 * MS);
    uint64_t at_us = w.now_us;
    assert_int_equal(bdk_mux_renew(w.side[0].mux, w.now_us, w.side[0].session, &r), 0);
    pair_drain(&w, 0);
    pair_run(&w, at_us + 5 * MS + SECOND);
    assert_int_equal(pair_events(&w, 0, BDK_OUT_SILENT), n < 2 ? n + 1 : 2);
  }
  pair_run(&w, START + 30 * MS + 10 * SECOND);
  assert_int_equal(pair_find(&w, 0, BDK_OUT_CLOSED)->reason, BDK_REASON_no_path); // no later for it
  bdk_renewal late = renewal_of(&c, 4, 0);
  assert_int_equal(bdk_mux_renew(w.side[0].mux, w.now_us, w.side[0].session, &late), BDK_E_CLOSED);
  pair_free(&w);
}

static void who_is_heard_is_not_silent(void **state) {
  (void)state;
  pair w;
  pair_init(&w, 2, DELAY);
  w.side[0].cut = true; // the other hears nothing, and says so
  pair_match(&w, 0, 0);
  pair_match(&w, 1, 0);
  pair_run(&w, START + 3 * SECOND);
  assert_int_equal(pair_events(&w, 0, BDK_OUT_SILENT), 0);
  assert_int_equal(pair_events(&w, 1, BDK_OUT_SILENT), 1);
  pair_free(&w);
}

// A new candidate is tested when its time has come, on its own socket, with the new epoch; the others go on.
static void a_renewal_tests_new_candidates_in_time(void **state) {
  (void)state;
  pair w;
  pair_init(&w, 3, DELAY);
  w.side[0].cut = true;
  pair_match(&w, 0, 0);
  pair_run(&w, START + 1100 * MS);
  bdk_candidate c = {.addr = pair_addr("198.51.100.2:2001"), .sock = 3, .via = BDK_VIA_SRFLX};
  bdk_renewal r = renewal_of(&c, 1, 40 * MS);
  bdk_mux_renew(w.side[0].mux, w.now_us, w.side[0].session, &r);
  uint64_t first_us = 0;
  int old = 0;
  for (uint64_t at_us = w.now_us; at_us < START + 2 * SECOND; at_us += MS) {
    bdk_output o;
    bdk_mux_tick(w.side[0].mux, at_us);
    while (bdk_mux_next(w.side[0].mux, &o)) {
      bdk_probe probe;
      if (o.kind != BDK_OUT_SEND) continue;
      assert_int_equal(bdk_probe_read(&probe, o.data, o.len), 0);
      assert_int_equal(probe.epoch, 1);
      old += o.route.sock == 1;
      if (o.route.sock != 3) continue;
      assert_true(bdk_addr_equal(&o.route.remote, &c.addr));
      if (!first_us) first_us = at_us;
    }
  }
  assert_int_equal(first_us, START + 1140 * MS);
  assert_true(old >= 1);
  const bdk_session *s = bdk_mux_session(w.side[0].mux, w.side[0].session);
  assert_int_equal(s->path_count, 2);
  assert_true(s->paths[1].listed);
  pair_free(&w);
}

// The peer is told of the fresh port; its tests come there, and all is well.
static void both_meet_at_a_fresh_port(void **state) {
  (void)state;
  pair w;
  pair_init(&w, 4, DELAY);
  w.side[0].cut = w.side[1].cut = true;
  pair_match(&w, 0, 0);
  pair_match(&w, 1, 0);
  pair_run(&w, START + 1200 * MS);
  w.side[0].cut = w.side[1].cut = false;
  w.side[0].public = pair_addr("198.51.100.1:1001"); // the old one leads nowhere
  w.side[1].public = pair_addr("198.51.100.2:2001");
  for (int i = 0; i < 2; i++) {
    bdk_candidate c = {.addr = w.side[!i].public, .sock = 1, .via = BDK_VIA_SRFLX};
    bdk_renewal r = renewal_of(&c, 1, 0);
    bdk_mux_renew(w.side[i].mux, w.now_us, w.side[i].session, &r);
    pair_drain(&w, i);
  }
  pair_run(&w, START + 1200 * MS + 2 * DELAY + MS);
  for (int i = 0; i < 2; i++) {
    assert_int_equal(pair_events(&w, i, BDK_OUT_PATH), 1);
    assert_int_equal(bdk_mux_session(w.side[i].mux, w.side[i].session)->peer_epoch, 1);
  }
  pair_free(&w);
}

// --- openers

// The TTLs of what a side sends now, and how many; each must be a test.
static int ttls(pair *w, uint8_t *ttl, const bdk_addr *to) {
  bdk_output o;
  int n = 0;
  while (bdk_mux_next(w->side[0].mux, &o)) {
    bdk_probe probe;
    if (o.kind != BDK_OUT_SEND) continue;
    assert_int_equal(bdk_probe_read(&probe, o.data, o.len), 0);
    assert_false(probe.confirm);
    if (to) assert_true(bdk_addr_equal(&o.route.remote, to));
    ttl[n++] = o.route.ttl;
  }
  return n;
}

static void match_of(bdk_match *m, pair *w, const bdk_candidate *c, uint32_t count) {
  *m = (bdk_match){.candidates = c, .count = count};
  memset(m->match, 7, sizeof m->match);
  memset(m->key, 9, sizeof m->key);
  memcpy(m->self, w->side[0].id, BDK_ID_LEN);
  memcpy(m->peer, w->side[1].id, BDK_ID_LEN);
  person_keys(m, 1, 2);
}

// One to each candidate that may be behind a NAT, at once, and only where the start is later.
static void openers_go_while_it_waits(void **state) {
  (void)state;
  const bdk_candidate list[] = {{.addr = pair_addr("198.51.100.2:2000"), .sock = 1, .via = BDK_VIA_SRFLX},
                                {.addr = pair_addr("192.168.1.2:2000"), .sock = 1, .via = BDK_VIA_HOST}};
  for (int wait = 0; wait < 2; wait++) {
    pair w;
    bdk_match m;
    uint8_t ttl[8];
    pair_init(&w, 7, DELAY);
    match_of(&m, &w, list, 2);
    m.opener_ttl = 2, m.start_in_us = wait ? 30 * MS : 0;
    assert_int_equal(bdk_mux_add(w.side[0].mux, START, &m, &w.side[0].session), 0);
    if (!wait) {
      assert_int_equal(ttls(&w, ttl, NULL), 2);
      assert_int_equal(ttl[0] + ttl[1], 0);
    } else {
      assert_int_equal(ttls(&w, ttl, &list[0].addr), 1);
      assert_int_equal(ttl[0], 2);
      bdk_mux_tick(w.side[0].mux, START + 29 * MS);
      assert_int_equal(ttls(&w, ttl, NULL), 0);
      bdk_mux_tick(w.side[0].mux, START + 30 * MS);
      assert_int_equal(ttls(&w, ttl, NULL), 2);
      assert_int_equal(ttl[0] + ttl[1], 0);
    }
    // Also with what comes later, and for that alone.
    bdk_candidate c = {.addr = pair_addr("198.51.100.2:2001"), .sock = 3, .via = BDK_VIA_SRFLX};
    bdk_renewal r = renewal_of(&c, 1, 5 * MS);
    r.opener_ttl = 2;
    bdk_mux_renew(w.side[0].mux, START + 31 * MS, w.side[0].session, &r);
    int n = ttls(&w, ttl, NULL), low = 0;
    for (int i = 0; i < n; i++) low += ttl[i] == 2;
    assert_int_equal(low, 1);
    pair_free(&w);
  }
}

// More candidates than there are places, and what is no host's address.
static void a_renewal_is_bounded(void **state) {
  (void)state;
  pair w;
  pair_init(&w, 5, DELAY);
  w.side[0].cut = true;
  pair_match(&w, 0, 0);
  pair_run(&w, START + SECOND);
  bdk_candidate list[BDK_SESSION_PATHS];
  for (int round = 0; round < 4; round++) {
    for (unsigned i = 0; i < BDK_SESSION_PATHS; i++) {
      list[i] = (bdk_candidate){.addr = pair_addr("198.51.100.2:1"), .sock = 1, .via = BDK_VIA_SRFLX};
      list[i].addr.port = (uint16_t)(3000 + 100 * round + i);
    }
    list[0].addr = pair_addr("224.0.0.1:5000");
    bdk_renewal r = {.epoch = 1, .candidates = list, .count = BDK_SESSION_PATHS};
    bdk_mux_renew(w.side[0].mux, w.now_us, w.side[0].session, &r);
    pair_drain(&w, 0);
    pair_run(&w, w.now_us + 100 * MS);
  }
  pair_run(&w, START + 10 * SECOND);
  assert_in_range(w.side[0].sent, 50, 100); // tests to an IP that never answered
  pair_free(&w);
}

// All of a renewal's addresses get a place, though the table is full of what never answered; one that was given up is
// tried again.
static void a_renewal_displaces_what_was_tried(void **state) {
  (void)state;
  bdk_candidate list[BDK_SESSION_PATHS];
  for (unsigned i = 0; i < BDK_SESSION_PATHS; i++) {
    list[i] = (bdk_candidate){.addr = lone_addr("10.0.0.1:1"), .sock = 1, .via = BDK_VIA_HOST};
    list[i].addr.ip[3] = (uint8_t)(1 + i);
  }
  lone *l = lone_new(0);
  assert_int_equal(lone_add(l, list, BDK_SESSION_PATHS), 0);
  lone_run(l, SECOND);
  bdk_mux_unreachable(l->mux, l->now_us, &list[0].addr);
  bdk_candidate fresh[8];
  for (unsigned i = 0; i < 8; i++) {
    fresh[i] = (bdk_candidate){.addr = lone_addr("203.0.113.1:9"), .sock = 3, .via = BDK_VIA_SRFLX};
    fresh[i].addr.ip[3] = (uint8_t)(1 + i);
  }
  fresh[7] = list[0];
  bdk_renewal r = {.epoch = 1, .start_in_us = 10 * MS, .candidates = fresh, .count = 8};
  bdk_mux_renew(l->mux, l->now_us, l->session, &r);
  l->sent_count = 0;
  lone_run(l, 300 * MS);
  for (unsigned i = 0; i < 8; i++) {
    assert_non_null(lone_path(l, &fresh[i].addr));
    const lone_sent *test = lone_last(l, LONE_TEST, &fresh[i].addr);
    assert_non_null(test);
  }
  lone_free(l);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(silence_is_told_after_a_second_and_twice_at_most),
      cmocka_unit_test(who_is_heard_is_not_silent),
      cmocka_unit_test(a_renewal_tests_new_candidates_in_time),
      cmocka_unit_test(both_meet_at_a_fresh_port),
      cmocka_unit_test(a_renewal_is_bounded),
      cmocka_unit_test(openers_go_while_it_waits),
      cmocka_unit_test(a_renewal_displaces_what_was_tried),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
