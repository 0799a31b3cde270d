// SPDX-License-Identifier: MIT
// Which path data go by: agreement of both sides, rebinds, the table of paths, and what brings one back.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "pair.h"

#define MS 1000u
#define SECOND 1000000u
#define START 1000000u // where pair_init sets the clock
#define DELAY (40 * MS)

static void both(pair *w) {
  assert_int_equal(pair_match(w, 0, 0), 0);
  assert_int_equal(pair_match(w, 1, 0), 0);
}

static void links(pair *w, int count) {
  for (int i = 1; i < count; i++) {
    char text[40];
    for (int side = 0; side < 2; side++) {
      snprintf(text, sizeof text, i == 1 ? "192.168.1.%d:%d" : "198.51.100.%d:%d", 10 + side, 5000 + i);
      w->side[side].end[i] = pair_addr(text);
    }
    w->link_delay_us[i] = (5 + pair_random(w) % 60) * MS;
  }
}

// Whether what is sent now by each side arrives at the other within a second.
static bool talks(pair *w) {
  int before[2] = {pair_events(w, 0, BDK_OUT_MESSAGE), pair_events(w, 1, BDK_OUT_MESSAGE)};
  if (pair_send(w, 0, "x", 1) || pair_send(w, 1, "y", 1)) return false;
  pair_run(w, w->now_us + SECOND);
  return pair_events(w, 0, BDK_OUT_MESSAGE) == before[0] + 1 && pair_events(w, 1, BDK_OUT_MESSAGE) == before[1] + 1;
}

// Any loss while they connect: once it is quiet both send by the same link, the lan one when it works.
static void both_sides_agree_whatever_is_lost(void **state) {
  (void)state;
  for (uint64_t seed = 1; seed <= 300; seed++) {
    pair w;
    pair_init(&w, seed, (5 + seed % 80) * MS);
    links(&w, 2 + (int)(seed % 3));
    w.loss_percent = seed % 41;
    w.link_cut[1] = seed & 1;
    assert_int_equal(pair_match(&w, 0, 0), 0);
    pair_run(&w, START + seed % 30 * MS);
    assert_int_equal(pair_match(&w, 1, 0), 0);
    pair_run(&w, START + 8 * SECOND);
    w.loss_percent = 0;
    pair_run(&w, START + 20 * SECOND);
    int a = pair_selected(&w, 0), b = pair_selected(&w, 1);
    if (a < 0 || a != b || (!w.link_cut[1] && a != 1) || !talks(&w))
      fail_msg("seed %llu: links %d and %d", (unsigned long long)seed, a, b);
    pair_free(&w);
  }
}

// Links come and go for minutes. Afterwards both sides are on one link, or both have given up.
static void both_sides_agree_after_outages(void **state) {
  (void)state;
  int lived = 0;
  for (uint64_t seed = 1; seed <= 200; seed++) {
    pair w;
    pair_init(&w, seed, (5 + seed % 80) * MS);
    links(&w, 3);
    w.loss_percent = seed % 20;
    both(&w);
    for (int turn = 0; turn < 12; turn++) {
      pair_run(&w, w.now_us + pair_random(&w) % (40 * SECOND));
      for (int i = 0; i < 3; i++) w.link_cut[i] = pair_random(&w) % 2;
      if (pair_random(&w) % 2) pair_send(&w, 0, "x", 1);
      if (pair_random(&w) % 2) pair_send(&w, 1, "x", 1);
    }
    memset(w.link_cut, 0, sizeof w.link_cut);
    w.loss_percent = 0;
    for (int i = 0; i < 100; i++) {
      pair_send(&w, 0, "x", 1);
      pair_send(&w, 1, "x", 1);
      pair_run(&w, w.now_us + SECOND);
      w.side[0].event_count = w.side[1].event_count = 0;
    }
    int a = pair_selected(&w, 0), b = pair_selected(&w, 1);
    bool ended = !pair_session(&w, 0) && !pair_session(&w, 1);
    if (!ended && (a < 0 || a != b || !talks(&w)))
      fail_msg("seed %llu: links %d and %d", (unsigned long long)seed, a, b);
    lived += !ended;
    pair_free(&w);
  }
  assert_in_range(lived, 50, 200); // else the outages were too long to say anything
}

// Of two others, one of which is dead as well, data go by the one that was heard later, too, and no test is waited for.
static void what_is_in_doubt_goes_by_the_path_heard_last_too(void **state) {
  (void)state;
  for (int dead = 0; dead <= 2; dead += 2) {
    pair w;
    pair_init(&w, 5, 200 * MS);
    links(&w, 3);
    w.link_delay_us[1] = 5 * MS, w.link_delay_us[2] = 200 * MS;
    both(&w);
    pair_run(&w, START + 10 * SECOND);
    assert_int_equal(pair_selected(&w, 0), 1);
    w.link_cut[dead] = true;
    pair_run(&w, w.now_us + 8 * SECOND);
    w.link_cut[1] = true;
    uint64_t cut_us = w.now_us;
    w.side[1].event_count = 0;
    while (!pair_find(&w, 1, BDK_OUT_MESSAGE)) {
      assert_in_range(w.now_us - cut_us, 0, 1400 * MS);
      assert_int_equal(pair_send(&w, 0, "x", 1), 0);
      pair_run(&w, w.now_us + 50 * MS);
    }
    pair_free(&w);
  }
}

static void rebind(pair *w, int who, unsigned n) {
  char text[40];
  snprintf(text, sizeof text, "198.51.100.9:%u", 1000 + n);
  w->side[who].public = pair_addr(text);
}

static void forty_rebinds_are_followed(void **state) {
  (void)state;
  for (int who = 0; who < 2; who++) {
    pair w;
    pair_init(&w, 21, DELAY);
    both(&w);
    pair_run(&w, START + SECOND);
    for (unsigned n = 1; n <= 40; n++) {
      rebind(&w, who, n);
      assert_int_equal(pair_send(&w, who, "x", 1), 0);
      pair_run(&w, w.now_us + SECOND);
      if (!talks(&w)) fail_msg("rebind %u of side %d", n, who);
    }
    pair_free(&w);
  }
}

// The first datagram from the new address is lost, and a test comes before the next frame.
static void a_rebind_seen_by_a_test_first_is_followed(void **state) {
  (void)state;
  for (int who = 0; who < 2; who++) {
    pair w;
    pair_init(&w, 22, DELAY);
    both(&w);
    pair_run(&w, START + SECOND);
    rebind(&w, who, 1);
    w.side[who].cut = true;
    assert_int_equal(pair_send(&w, who, "lost", 4), 0);
    w.side[who].cut = false;
    pair_run(&w, w.now_us + SECOND); // its patience ends: it tests
    assert_int_equal(pair_session(&w, !who)->path_count, 2);
    assert_int_equal(pair_send(&w, who, "x", 1), 0);
    pair_run(&w, w.now_us + SECOND);
    if (!talks(&w)) fail_msg("side %d", who);
    pair_free(&w);
  }
}

static void a_rebind_back_is_followed(void **state) {
  (void)state;
  for (int who = 0; who < 2; who++) {
    pair w;
    pair_init(&w, 23, DELAY);
    both(&w);
    bdk_addr first = w.side[who].public;
    pair_run(&w, START + SECOND);
    for (int n = 0; n < 6; n++) {
      if (n % 2)
        w.side[who].public = first;
      else
        rebind(&w, who, 1);
      assert_int_equal(pair_send(&w, who, "x", 1), 0);
      pair_run(&w, w.now_us + SECOND);
      if (!talks(&w)) fail_msg("side %d, turn %d", who, n);
    }
    pair_free(&w);
  }
}

// The address of a path in reserve changes: the one in use is none of its business.
static void a_rebind_of_another_path_leaves_the_selected_one(void **state) {
  (void)state;
  for (int who = 0; who < 2; who++) {
    pair w;
    pair_init(&w, 24, DELAY);
    links(&w, 2);
    both(&w);
    pair_run(&w, START + SECOND);
    assert_int_equal(pair_selected(&w, 0), 1);
    rebind(&w, who, 1);
    for (int i = 0; i < 600; i++) { // a minute of talk, and consent checks from the new address
      assert_int_equal(pair_send(&w, who, "x", 1), 0);
      pair_run(&w, w.now_us + 100 * MS);
      w.side[0].event_count = w.side[1].event_count = 0;
      assert_int_equal(pair_selected(&w, !who), 1);
    }
    assert_int_equal(w.side[!who].counters.value[BDK_COUNT_path_rebound], 0);
    pair_free(&w);
  }
}

// Side 1 listens to an address it was not told of, and has sent much there: an outage does not end that.
static void a_learned_path_comes_back_after_an_outage(void **state) {
  (void)state;
  pair w;
  pair_init(&w, 25, DELAY);
  bdk_candidate nowhere = {.addr = pair_addr("203.0.113.9:9"), .sock = 1, .via = BDK_VIA_SRFLX};
  assert_int_equal(pair_match(&w, 0, 0), 0);
  assert_int_equal(pair_match_with(&w, 1, &nowhere, 1, 0), 0);
  pair_run(&w, START + SECOND);
  uint8_t big[BDK_PAYLOAD_MAX] = {0};
  for (int i = 0; i < 200; i++) {
    assert_int_equal(pair_send(&w, 1, big, sizeof big), 0);
    pair_run(&w, w.now_us + 10 * MS);
  }
  w.side[0].event_count = 0;
  w.side[0].cut = w.side[1].cut = true;
  pair_run(&w, w.now_us + 50 * SECOND);
  assert_int_equal(pair_session(&w, 1)->state, BDK_SESSION_SEEKING);
  w.side[0].cut = w.side[1].cut = false;
  pair_run(&w, w.now_us + 3 * SECOND);
  const bdk_session *s = pair_session(&w, 1);
  assert_int_equal(s->state, BDK_SESSION_OPEN);
  assert_int_equal(s->paths[s->selected].state, BDK_PATH_VALID);
  assert_true(talks(&w));
  pair_free(&w);
}

static void connected_comes_before_path(void **state) {
  (void)state;
  for (uint64_t seed = 1; seed <= 60; seed++) {
    pair w;
    pair_init(&w, seed, DELAY);
    w.loss_percent = 40; // a confirm may be the first that is heard
    both(&w);
    pair_run(&w, START + 10 * SECOND);
    for (int i = 0; i < 2; i++)
      if (w.side[i].event_count && w.side[i].events[0].kind != BDK_OUT_CONNECTED)
        fail_msg("seed %llu: side %d was told %d first", (unsigned long long)seed, i, w.side[i].events[0].kind);
    pair_free(&w);
  }
}

// Of two paths of a class: three times faster in a row, and by an eighth and 2 ms.
static void a_faster_path_is_taken_when_it_is_worth_it(void **state) {
  (void)state;
  pair w;
  pair_init(&w, 26, 20 * MS);
  links(&w, 3);
  w.link_cut[1] = true;
  w.link_delay_us[2] = 50 * MS;
  both(&w);
  pair_run(&w, START + 5 * SECOND);
  assert_int_equal(pair_selected(&w, 0), 0);
  w.delay_us = 52 * MS; // 104 ms there and back, against 100
  pair_run(&w, START + 200 * SECOND);
  assert_int_equal(pair_selected(&w, 0), 0);
  w.delay_us = 80 * MS;
  pair_run(&w, START + 400 * SECOND);
  assert_int_equal(pair_selected(&w, 0), 2);
  assert_int_equal(pair_selected(&w, 1), 2);
  pair_free(&w);
}

static void one_fast_answer_is_not_enough(void **state) {
  (void)state;
  pair w;
  pair_init(&w, 27, 50 * MS);
  links(&w, 3);
  w.link_cut[1] = w.link_cut[2] = true;
  w.link_delay_us[2] = 10 * MS;
  both(&w);
  pair_run(&w, START + 400 * MS);
  w.link_cut[2] = false;
  pair_run(&w, START + 2 * SECOND);
  const bdk_session *s = pair_session(&w, 0);
  int fast = 0;
  while (pair_link(&w.side[1], &s->paths[fast].route.remote) != 2) fast++;
  assert_int_equal(s->paths[fast].state, BDK_PATH_VALID);
  for (; s->paths[fast].rtts < BDK_PATH_SAMPLES; pair_run(&w, w.now_us + 10 * MS))
    assert_int_equal(pair_selected(&w, 0), 0);
  pair_run(&w, w.now_us + 20 * SECOND);
  assert_int_equal(pair_selected(&w, 0), 2);
  assert_int_equal(pair_selected(&w, 1), 2);
  pair_free(&w);
}

static void each_message_once_though_doubled_and_overtaken(void **state) {
  (void)state;
  for (uint64_t seed = 1; seed <= 40; seed++) {
    pair w;
    pair_init(&w, seed, DELAY);
    links(&w, 1 + (int)(seed % 3));
    w.twice_percent = 30, w.jitter_us = 200 * MS;
    both(&w);
    pair_run(&w, START + 5 * SECOND);
    int seen[2][200] = {{0}};
    w.side[0].event_count = w.side[1].event_count = 0;
    for (int i = 0; i < 200; i++) {
      uint8_t n = (uint8_t)i;
      assert_int_equal(pair_send(&w, 0, &n, 1), 0);
      assert_int_equal(pair_send(&w, 1, &n, 1), 0);
      pair_run(&w, w.now_us + 2 * MS);
    }
    pair_run(&w, w.now_us + SECOND);
    for (int side = 0; side < 2; side++) {
      for (int i = 0; i < w.side[side].event_count; i++) {
        const pair_event *e = &w.side[side].events[i];
        if (e->kind == BDK_OUT_MESSAGE) seen[side][e->first]++;
      }
      for (int i = 0; i < 200; i++)
        if (seen[side][i] != 1)
          fail_msg("seed %llu: message %d came %d times", (unsigned long long)seed, i, seen[side][i]);
    }
    assert_int_equal(w.side[0].counters.value[BDK_COUNT_path_rebound], 0);
    pair_free(&w);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(both_sides_agree_whatever_is_lost),
      cmocka_unit_test(both_sides_agree_after_outages),
      cmocka_unit_test(what_is_in_doubt_goes_by_the_path_heard_last_too),
      cmocka_unit_test(forty_rebinds_are_followed),
      cmocka_unit_test(a_rebind_seen_by_a_test_first_is_followed),
      cmocka_unit_test(a_rebind_back_is_followed),
      cmocka_unit_test(a_rebind_of_another_path_leaves_the_selected_one),
      cmocka_unit_test(a_learned_path_comes_back_after_an_outage),
      cmocka_unit_test(connected_comes_before_path),
      cmocka_unit_test(a_faster_path_is_taken_when_it_is_worth_it),
      cmocka_unit_test(one_fast_answer_is_not_enough),
      cmocka_unit_test(each_message_once_though_doubled_and_overtaken),
  };
  return cmocka_run_group_tests_name("mux_paths", tests, NULL, NULL);
}
