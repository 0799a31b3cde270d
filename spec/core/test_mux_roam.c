// SPDX-License-Identifier: MIT
// A session whose ends move: what is asked while nothing comes back, what becomes of addresses learned meanwhile, and
// of an own one that changed.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "lone.h"

#define MS 1000u
#define SECOND 1000000u

static bdk_addr home, other;

static int setup(void **state) {
  (void)state;
  home = lone_addr("198.51.100.2:2000");
  other = lone_addr("198.51.100.77:777");
  return 0;
}

static void say(lone *l) {
  assert_int_equal(bdk_mux_send(l->mux, l->now_us, l->session, home.ip, 4), 0);
  lone_drain(l);
}

static void listed(lone *l, const bdk_addr *a) {
  bdk_candidate c = {.addr = *a, .sock = 1, .via = BDK_VIA_SRFLX};
  bdk_mux_listed(l->mux, l->now_us, l->session, &c, 1);
  lone_drain(l);
}

static void asks_ever_more_rarely_until_something_comes_back(void **state) {
  (void)state;
  static const unsigned at_ms[] = {1000, 2000, 4000, 8000, 16000};
  lone *l = lone_begin(0, &home, true);
  lone_run(l, 3u * SECOND);
  assert_int_equal(l->told[BDK_OUT_DOUBT], 0); // who says nothing misses nothing
  say(l);
  uint64_t begun = l->now_us;
  for (unsigned i = 0; i < sizeof at_ms / sizeof *at_ms; i++) {
    lone_run(l, begun + at_ms[i] * MS - 1 - l->now_us);
    assert_int_equal(l->told[BDK_OUT_DOUBT], i);
    lone_run(l, 1);
    assert_int_equal(l->told[BDK_OUT_DOUBT], i + 1);
    assert_int_equal(l->last[BDK_OUT_DOUBT].session, l->session);
  }
  lone_frame(l, &home, BDK_FRAME_DATA, "x", 1);
  lone_live(l, 20u * SECOND);
  assert_int_equal(l->told[BDK_OUT_DOUBT], 5);
  lone_run(l, 60u * SECOND);
  assert_true(l->told[BDK_OUT_DOUBT] > 5); // and begins anew
  lone_free(l);
}

static void asks_while_a_path_is_sought_again_after_a_loss(void **state) {
  (void)state;
  lone *l = lone_begin(1, &home, true);
  lone_run(l, 29u * SECOND);
  assert_int_equal(l->told[BDK_OUT_DOUBT], 0);
  lone_run(l, 3u * SECOND);
  assert_int_equal(lone_session(l)->state, BDK_SESSION_SEEKING);
  assert_in_range(l->told[BDK_OUT_DOUBT], 1, 2);
  lone_run(l, 60u * SECOND);
  assert_int_equal(l->told[BDK_OUT_CLOSED], 1);
  assert_int_equal(l->last[BDK_OUT_CLOSED].reason, BDK_REASON_consent_lost);
  assert_in_range(l->told[BDK_OUT_DOUBT], 8, 12);
  lone_free(l);
}

static void never_asks_before_it_was_open(void **state) {
  (void)state;
  lone *l = lone_begin(0, &home, false);
  lone_run(l, 11u * SECOND);
  assert_int_equal(l->told[BDK_OUT_CLOSED], 1);
  assert_int_equal(l->told[BDK_OUT_DOUBT], 0);
  lone_free(l);
}

static void a_peer_is_found_where_it_is_said_to_be(void **state) {
  (void)state;
  lone *l = lone_begin(0, &home, true);
  lone_run(l, SECOND);
  say(l);
  lone_run(l, 1100 * MS);
  assert_int_equal(l->told[BDK_OUT_DOUBT], 1);
  listed(l, &other);
  assert_int_equal(lone_count(l, LONE_TEST, &other), 1);
  lone_confirm(l, &other, &other, 1);
  say(l);
  assert_non_null(lone_last(l, BDK_FRAME_DATA, &other));
  assert_int_equal(lone_path(l, &home)->reason, BDK_REASON_silent);
  lone_free(l);
}

static void what_is_known_already_is_left_alone(void **state) {
  (void)state;
  lone *l = lone_begin(0, &home, true);
  lone_run(l, 100 * MS);
  int tests = lone_count(l, LONE_TEST, NULL);
  listed(l, &home);
  bdk_addr group = lone_addr("224.0.0.1:99"), nowhere = lone_addr("198.51.100.3:0");
  listed(l, &group);
  listed(l, &nowhere);
  assert_int_equal(lone_count(l, LONE_TEST, NULL), tests);
  assert_int_equal(lone_session(l)->path_count, 1);
  bdk_mux_listed(l->mux, l->now_us, l->session + 1, NULL, 0); // of no session
  lone_free(l);
}

static void a_stranger_named_for_ever_gets_no_more_than_in_a_round(void **state) {
  (void)state;
  lone *l = lone_begin(0, &home, true);
  listed(l, &other);
  lone_run(l, 6u * SECOND);
  assert_int_equal(lone_count(l, LONE_TEST, &other), 10);
  for (int i = 0; i < 40; i++) {
    bdk_addr port = other;
    port.port = (uint16_t)(1 + i);
    listed(l, &other);
    listed(l, &port);
    lone_frame(l, &home, BDK_FRAME_DATA, "x", 1);
    lone_live(l, 4u * SECOND);
  }
  int tests = 0;
  for (int i = 0; i < l->sent_count; i++)
    tests += l->sent[i].kind == LONE_TEST && bdk_addr_same_ip(&l->sent[i].route.remote, &other);
  assert_in_range(tests, 90, 101);
  lone_free(l);
}

static void a_stranger_named_again_takes_no_tests_from_another(void **state) {
  (void)state;
  bdk_addr silent = lone_addr("10.9.9.9:5000");
  lone *l = lone_begin(0, &home, true);
  lone_run(l, 32u * SECOND);
  assert_int_equal(lone_session(l)->state, BDK_SESSION_SEEKING);
  for (int i = 0; i < 4; i++) { // each time what the peer once was, too
    listed(l, &silent);
    lone_run(l, 6u * SECOND);
  }
  assert_int_equal(lone_count(l, LONE_TEST, &silent), 10);
  listed(l, &other);
  lone_run(l, 6u * SECOND);
  assert_int_equal(lone_count(l, LONE_TEST, &other), 10);
  lone_free(l);
}

static void one_named_before_the_start_waits_for_it(void **state) {
  (void)state;
  lone *l = lone_new(0);
  bdk_candidate c = {.addr = home, .sock = 1, .via = BDK_VIA_SRFLX};
  assert_int_equal(lone_add_later(l, &c, 1, 50 * MS), 0);
  listed(l, &other);
  lone_run(l, 49 * MS);
  assert_int_equal(lone_count(l, LONE_TEST, NULL), 0);
  lone_run(l, 2 * MS);
  assert_int_equal(lone_count(l, LONE_TEST, &home), 1);
  assert_int_equal(lone_count(l, LONE_TEST, &other), 1);
  lone_free(l);
}

static void a_new_address_of_ours_is_tried_on_every_path_at_once(void **state) {
  (void)state;
  lone *l = lone_begin(0, &home, true);
  bdk_candidate c = {.addr = other, .sock = 1, .via = BDK_VIA_SRFLX};
  bdk_mux_listed(l->mux, l->now_us, l->session, &c, 1);
  lone_drain(l);
  lone_confirm(l, &other, &other, 1);
  lone_run(l, 25u * SECOND);
  lone_frame(l, &home, BDK_FRAME_CONSENT_ANSWER, lone_last(l, BDK_FRAME_CONSENT, &home)->body, 8);
  lone_run(l, 10u * SECOND);
  assert_int_equal(lone_path(l, &other)->state, BDK_PATH_FAILED);
  assert_int_equal(lone_path(l, &home)->state, BDK_PATH_VALID);
  int here = lone_count(l, LONE_TEST, &home), there = lone_count(l, LONE_TEST, &other);
  bdk_mux_moved(l->mux, l->now_us, NULL, 0);
  lone_drain(l);
  assert_int_equal(lone_count(l, LONE_TEST, &home), here + 2);
  assert_int_equal(lone_count(l, LONE_TEST, &other), there + 1);
  assert_int_equal(lone_session(l)->epoch, 1);
  lone_free(l);
}

static void the_path_in_use_is_first_with_a_new_address_of_ours(void **state) {
  (void)state;
  static const bdk_via via[] = {BDK_VIA_HOST, BDK_VIA_SRFLX};
  for (int i = 0; i < 2; i++) {
    lone *l = lone_begin(0, &home, true);
    bdk_candidate c = {.addr = other, .sock = 1, .via = via[i]};
    bdk_mux_listed(l->mux, l->now_us, l->session, &c, 1);
    lone_drain(l);
    lone_confirm(l, &other, &other, 1);
    assert_int_equal(lone_session(l)->selected, via[i] == BDK_VIA_HOST);
    lone_run(l, 100 * MS);
    l->sent_count = 0;
    bdk_mux_moved(l->mux, l->now_us, NULL, 0);
    lone_drain(l);
    assert_int_equal(l->sent_count, 3);
    assert_true(bdk_addr_equal(&l->sent[0].route.remote, via[i] == BDK_VIA_HOST ? &other : &home));
    lone_free(l);
  }
}

// From where the peer was heard, as long as the kernel sends from there: its NAT may know no other. But another default
// route may have made that a way on which nothing comes back; so from where the kernel says, too.
static void the_path_in_use_is_tried_from_where_it_was_heard_and_from_anywhere(void **state) {
  (void)state;
  lone *l = lone_begin(0, &home, true);
  lone_run(l, 100 * MS);
  l->sent_count = 0;
  bdk_mux_moved(l->mux, l->now_us, NULL, 0);
  lone_drain(l);
  assert_int_equal(lone_count(l, LONE_TEST, &home), 2);
  assert_int_equal(l->sent[0].route.local.family, 4);
  assert_int_equal(l->sent[1].route.local.family, 0);
  say(l); // until an answer came
  assert_int_equal(lone_last(l, BDK_FRAME_DATA, &home)->route.local.family, 4);
  lone_free(l);
}

// The default route went to another interface: what left from the old one's address would go by the new one all the
// same, past a NAT that sends nothing back to it. The peer, which does not know yet, is still heard there.
static void from_an_address_that_was_left_nothing_goes(void **state) {
  (void)state;
  lone *l = lone_begin(0, &home, true);
  lone_run(l, 100 * MS);
  l->sent_count = 0;
  bdk_addr left = lone_addr("10.0.0.1:0"), another = lone_addr("192.168.9.9:0");
  bdk_mux_moved(l->mux, l->now_us, &left, 1);
  lone_drain(l);
  assert_int_equal(lone_count(l, LONE_TEST, &home), 1);
  lone_frame(l, &home, BDK_FRAME_DATA, "x", 1);
  say(l);
  for (int i = 0; i < l->sent_count; i++) assert_int_equal(l->sent[i].route.local.family, 0);
  bdk_mux_moved(l->mux, l->now_us, &another, 1); // and back
  lone_frame(l, &home, BDK_FRAME_DATA, "x", 1);
  say(l);
  assert_int_equal(lone_last(l, BDK_FRAME_DATA, &home)->route.local.family, 4);
  lone_free(l);
}

static void a_test_that_the_kernel_refuses_goes_from_anywhere_at_once(void **state) {
  (void)state;
  lone *l = lone_begin(0, &home, true);
  lone_run(l, 100 * MS);
  bdk_mux_moved(l->mux, l->now_us, NULL, 0);
  lone_drain(l);
  int tests = lone_count(l, LONE_TEST, &home);
  for (int i = 0; i < 3; i++) { // once: then it is not the address of ours that is in the way
    bdk_mux_unreachable(l->mux, l->now_us, &home);
    lone_drain(l);
    assert_int_equal(lone_count(l, LONE_TEST, &home), tests + 1);
    assert_int_equal(lone_last(l, LONE_TEST, &home)->route.local.family, 0);
  }
  lone_free(l);
}

static void relayed(lone *l, const bdk_addr *relay, bool confirm, const uint8_t nonce[BDK_NONCE_LEN]) {
  uint8_t out[BDK_RELAY_HEAD + BDK_PROBE_MAX] = {BDK_RELAY_MARK};
  for (unsigned i = 0; i < 4; i++) out[1 + i] = (uint8_t)(l->session >> (24 - 8 * i));
  bdk_probe p = {.confirm = confirm, .rx_index = l->peer_index, .origin = lone_addr("198.51.100.1:1000")};
  memcpy(p.nonce, nonce, BDK_NONCE_LEN);
  size_t len = bdk_probe_write(&l->keys, &p, out + BDK_RELAY_HEAD, BDK_PROBE_MAX);
  lone_input(l, relay, 1, out, BDK_RELAY_HEAD + len);
}

// Its test at the move came to a relay that did not know us there.
static void a_relay_opened_anew_is_tested_anew(void **state) {
  (void)state;
  bdk_addr relay = lone_addr("203.0.113.5:3478");
  lone *l = lone_new(0);
  assert_int_equal(lone_add(l, NULL, 0), 0);
  bdk_route route = {.remote = relay, .sock = 1, .channel = 7};
  for (int i = 0; i < 2; i++) {
    int tests = lone_count(l, LONE_TEST, &relay);
    bdk_mux_relay(l->mux, l->now_us, l->session, &route, NULL, 0);
    lone_drain(l);
    assert_int_equal(lone_count(l, LONE_TEST, &relay), tests + 1);
    // From where the request came, which opened it: wherever the peer's datagrams came to before.
    assert_int_equal(lone_last(l, LONE_TEST, &relay)->route.local.family, 0);
    relayed(l, &relay, true, lone_last(l, LONE_TEST, &relay)->nonce);
    assert_int_equal(lone_path(l, &relay)->state, BDK_PATH_VALID);
    lone_run(l, SECOND);
  }
  lone_free(l);
}

// The peer tests from there, and confirms the test that this brings.
static void come(lone *l, const bdk_addr *from, uint32_t epoch) {
  uint8_t out[BDK_PROBE_MAX];
  bdk_probe p = {.epoch = epoch, .rx_index = l->peer_index, .nonce = {4, 5, 6}};
  lone_input(l, from, 1, out, bdk_probe_write(&l->keys, &p, out, sizeof out));
  p.confirm = true;
  p.origin = lone_addr("198.51.100.1:1000");
  memcpy(p.nonce, lone_last(l, LONE_TEST, from)->nonce, BDK_NONCE_LEN);
  lone_input(l, from, 1, out, bdk_probe_write(&l->keys, &p, out, sizeof out));
}

static void a_peer_of_a_higher_epoch_has_left_where_it_was(void **state) {
  (void)state;
  for (uint32_t epoch = 0; epoch < 2; epoch++) {
    lone *l = lone_begin(1, &home, true);
    listed(l, &other);
    come(l, &other, epoch);
    // Its word is needed only where both answered a moment ago.
    if (epoch == 0)
      assert_int_equal(lone_path(l, &home)->state, BDK_PATH_VALID);
    else
      assert_int_equal(lone_path(l, &home)->reason, BDK_REASON_replaced);
    lone_test(l, &home); // of the epoch before
    assert_int_equal(lone_path(l, &home)->state, epoch == 0 ? BDK_PATH_VALID : BDK_PATH_FAILED);
    lone_free(l);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup(asks_ever_more_rarely_until_something_comes_back, setup),
      cmocka_unit_test_setup(asks_while_a_path_is_sought_again_after_a_loss, setup),
      cmocka_unit_test_setup(never_asks_before_it_was_open, setup),
      cmocka_unit_test_setup(a_peer_is_found_where_it_is_said_to_be, setup),
      cmocka_unit_test_setup(what_is_known_already_is_left_alone, setup),
      cmocka_unit_test_setup(a_stranger_named_for_ever_gets_no_more_than_in_a_round, setup),
      cmocka_unit_test_setup(a_stranger_named_again_takes_no_tests_from_another, setup),
      cmocka_unit_test_setup(one_named_before_the_start_waits_for_it, setup),
      cmocka_unit_test_setup(a_new_address_of_ours_is_tried_on_every_path_at_once, setup),
      cmocka_unit_test_setup(the_path_in_use_is_first_with_a_new_address_of_ours, setup),
      cmocka_unit_test_setup(the_path_in_use_is_tried_from_where_it_was_heard_and_from_anywhere, setup),
      cmocka_unit_test_setup(from_an_address_that_was_left_nothing_goes, setup),
      cmocka_unit_test_setup(a_test_that_the_kernel_refuses_goes_from_anywhere_at_once, setup),
      cmocka_unit_test_setup(a_relay_opened_anew_is_tested_anew, setup),
      cmocka_unit_test_setup(a_peer_of_a_higher_epoch_has_left_where_it_was, setup),
  };
  return cmocka_run_group_tests_name("core/mux, roaming", tests, NULL, NULL);
}
