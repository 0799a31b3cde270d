// SPDX-License-Identifier: MIT
// The decisions of a session one by one, against a peer that does what the spec wants: selection, moves,
// patience, consent, the places of the table.
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

static bdk_addr stranger(int i) {
  bdk_addr a = {.ip = {192, 0, (uint8_t)(i >> 8), (uint8_t)i}, .port = (uint16_t)(1 + i), .family = 4};
  return a;
}

static void select_frame(lone *l, const bdk_addr *from, bdk_frame_kind kind, uint32_t epoch, uint32_t n) {
  uint8_t body[8] = {[3] = (uint8_t)epoch, [7] = (uint8_t)n};
  lone_frame(l, from, kind, body, 8);
}

static bool selected(const lone *l, const bdk_addr *a) {
  const bdk_session *s = lone_session(l);
  return s && s->selected >= 0 && bdk_addr_equal(&s->paths[s->selected].route.remote, a);
}

static void say(lone *l, const bdk_addr *from) { lone_frame(l, from, BDK_FRAME_DATA, "x", 1); }

static int send(lone *l) {
  int error = bdk_mux_send(l->mux, l->now_us, l->session, home.ip, 4);
  lone_drain(l);
  return error;
}

static lone *with_two(int role, const bdk_addr *second, uint64_t start_in_us) {
  lone *l = lone_new(role);
  bdk_candidate c[2] = {{.addr = home, .sock = 1, .via = BDK_VIA_SRFLX},
                        {.addr = *second, .sock = 1, .via = BDK_VIA_SRFLX}};
  if (lone_add_later(l, c, 2, start_in_us)) abort();
  return l;
}

// --- moves

static void a_move_that_came_to_nothing_is_forgotten(void **state) {
  (void)state;
  lone *l = lone_begin(0, &home, true);
  say(l, &other); // and its tests stay unanswered
  lone_run(l, 14 * SECOND);
  assert_int_equal(lone_path(l, &other)->state, BDK_PATH_FAILED);
  lone_test(l, &other);
  lone_confirm(l, &other, &other, 1);
  assert_int_equal(lone_path(l, &other)->state, BDK_PATH_VALID);
  assert_true(selected(l, &home));
  assert_int_equal(lone_path(l, &home)->state, BDK_PATH_VALID);
  lone_free(l);
}

static void a_frame_that_was_overtaken_moves_nothing(void **state) {
  (void)state;
  lone *l = lone_begin(0, &home, true);
  select_frame(l, &home, BDK_FRAME_SELECT_ACK, 0, 1);
  l->counter = 100;
  lone_frame(l, &home, BDK_FRAME_DATA, home.ip, 1);
  l->counter = 50;
  lone_frame(l, &other, BDK_FRAME_DATA, home.ip, 1);
  lone_confirm(l, &other, &other, 1);
  assert_int_equal(lone_path(l, &other)->state, BDK_PATH_VALID);
  assert_true(selected(l, &home));
  l->counter = 60;
  lone_frame(l, &other, BDK_FRAME_DATA, home.ip, 1); // of a path by now
  assert_true(selected(l, &home));
  l->counter = 101;
  lone_frame(l, &other, BDK_FRAME_DATA, home.ip, 1);
  assert_true(selected(l, &other));
  lone_free(l);
}

// The path left dies while the new one awaits its confirm: the confirm is then its first, not its end.
static void a_move_confirmed_after_the_old_path_died(void **state) {
  (void)state;
  for (int role = 0; role < 2; role++) {
    lone *l = lone_begin(role, &home, true);
    lone_run(l, 29900 * MS);
    say(l, &other);
    lone_run(l, 200 * MS);
    assert_true(selected(l, &other));
    lone_confirm(l, &other, &other, 1);
    assert_int_equal(lone_path(l, &other)->state, BDK_PATH_VALID);
    assert_true(selected(l, &other));
    assert_int_equal(lone_session(l)->state, BDK_SESSION_OPEN);
    lone_free(l);
  }
}

static void a_move_awaited_keeps_its_place_in_a_flood(void **state) {
  (void)state;
  lone *l = lone_begin(0, &home, true);
  say(l, &other);
  for (int i = 0; i < 100; i++) {
    bdk_addr from = stranger(i);
    lone_test(l, &from);
  }
  lone_confirm(l, &other, &other, 1);
  assert_true(selected(l, &other));
  lone_free(l);
}

static void the_path_in_use_keeps_its_place_in_a_flood(void **state) {
  (void)state;
  lone *l = lone_begin(0, &home, false);
  lone_test(l, &other);
  assert_true(selected(l, &other));
  for (int i = 0; i < 100; i++) {
    bdk_addr from = stranger(i);
    lone_test(l, &from);
  }
  assert_true(selected(l, &other));
  assert_int_equal(lone_path(l, &other)->state, BDK_PATH_USABLE);
  lone_free(l);
}

// After many moves the table holds the listed address and the latest ones.
static void the_places_of_old_addresses_are_taken_first(void **state) {
  (void)state;
  lone *l = lone_begin(0, &home, true);
  for (int i = 0; i < 40; i++) {
    bdk_addr to = stranger(i);
    say(l, &to);
    lone_run(l, 100 * MS);
    lone_confirm(l, &to, &to, 1);
    assert_true(selected(l, &to));
    assert_int_equal(lone_session(l)->path_count, i < 15 ? i + 2 : BDK_SESSION_PATHS);
  }
  assert_non_null(lone_path(l, &home));
  for (int i = 0; i < 40; i++) {
    bdk_addr a = stranger(i);
    assert_int_equal(lone_path(l, &a) != NULL, i >= 25);
  }
  lone_free(l);
}

// Data by another path mean a move only once both sides had agreed upon one.
static void data_elsewhere_mean_nothing_before_the_agreement(void **state) {
  (void)state;
  lone *l = lone_begin(0, &home, true);
  lone_test(l, &other);
  lone_confirm(l, &other, &other, 1);
  say(l, &other); // it chose for itself so far
  assert_true(selected(l, &home));
  select_frame(l, &home, BDK_FRAME_SELECT_ACK, 0, 1);
  say(l, &other);
  assert_true(selected(l, &other));
  lone_free(l);
}

// The path the other side selected dies: another that lives is taken without being told.
static void the_led_side_helps_itself_when_its_path_dies(void **state) {
  (void)state;
  lone *l = lone_begin(1, &home, true);
  lone_test(l, &other);
  lone_confirm(l, &other, &other, 1);
  select_frame(l, &home, BDK_FRAME_SELECT, 0, 1);
  for (int i = 0; i < 32; i++) {
    l->sent_count = 0;
    lone_run(l, SECOND);
    const lone_sent *asked = lone_last(l, BDK_FRAME_CONSENT, &other);
    if (asked) lone_frame(l, &other, BDK_FRAME_CONSENT_ANSWER, asked->body, 8);
    assert_int_equal(lone_session(l)->state, BDK_SESSION_OPEN);
  }
  assert_int_equal(lone_path(l, &home)->state, BDK_PATH_FAILED);
  assert_true(selected(l, &other));
  lone_free(l);
}

// --- selection

static void a_path_returned_to_is_selected_anew(void **state) {
  (void)state;
  lone *l = lone_begin(0, &home, true);
  select_frame(l, &home, BDK_FRAME_SELECT_ACK, 0, 1);
  assert_int_equal(l->told[BDK_OUT_PATH], 1);
  for (int i = 0; i < 310; i++) { // consent ends, while `other` is heard but never confirms
    lone_test(l, &other);
    lone_run(l, 100 * MS);
    assert_int_equal(lone_session(l)->state, BDK_SESSION_OPEN);
  }
  assert_true(selected(l, &other));
  lone_test(l, &home);
  lone_confirm(l, &home, &home, 1);
  assert_true(selected(l, &home));
  assert_int_equal(l->told[BDK_OUT_PATH], 2);
  assert_int_equal(lone_last(l, BDK_FRAME_SELECT, &home)->body[7], 2);
  lone_free(l);
}

static void a_better_class_is_taken_before_the_first_select(void **state) {
  (void)state;
  lone *l = lone_begin(1, &home, true);
  bdk_addr lan = lone_addr("192.168.1.9:9");
  lone_test(l, &lan);
  assert_true(selected(l, &home)); // usable only
  lone_confirm(l, &lan, &lan, 1);
  assert_true(selected(l, &lan));
  select_frame(l, &home, BDK_FRAME_SELECT, 0, 1);
  assert_true(selected(l, &home)); // the other side decides
  lone_run(l, SECOND);
  assert_true(selected(l, &home));
  lone_free(l);
}

static void a_select_is_repeated_ever_more_slowly(void **state) {
  (void)state;
  lone *l = lone_begin(0, &home, true);
  uint64_t start = l->now_us;
  lone_run(l, 10 * SECOND);
  static const unsigned at_ms[] = {0, 100, 300, 700, 1500, 3100, 5100, 7100, 9100};
  unsigned n = 0;
  for (int i = 0; i < l->sent_count; i++) {
    if (l->sent[i].kind != BDK_FRAME_SELECT) continue;
    assert_true(n < sizeof at_ms / sizeof *at_ms);
    assert_int_equal(l->sent[i].at_us - start, at_ms[n++] * MS);
  }
  assert_int_equal(n, sizeof at_ms / sizeof *at_ms);
  lone_free(l);
}

static void a_select_by_a_path_not_confirmed_waits(void **state) {
  (void)state;
  lone *l = lone_begin(1, &home, true);
  lone_test(l, &other);
  select_frame(l, &other, BDK_FRAME_SELECT, 0, 1);
  assert_true(selected(l, &home));
  assert_int_equal(lone_count(l, BDK_FRAME_SELECT_ACK, NULL), 0); // so it comes again
  lone_confirm(l, &other, &other, 1);
  select_frame(l, &other, BDK_FRAME_SELECT, 0, 1);
  assert_true(selected(l, &other));
  assert_int_equal(lone_count(l, BDK_FRAME_SELECT_ACK, &other), 1);
  lone_free(l);
}

static void what_one_path_did_not_answer_is_not_held_against_the_next(void **state) {
  (void)state;
  lone *l = lone_begin(1, &home, true);
  lone_test(l, &other);
  lone_confirm(l, &other, &other, 1);
  assert_int_equal(send(l), 0);
  lone_run(l, 900 * MS);
  select_frame(l, &other, BDK_FRAME_SELECT, 0, 1);
  assert_int_equal(send(l), 0);
  lone_run(l, 900 * MS);
  assert_int_equal(l->told[BDK_OUT_DOUBT], 0);
  lone_run(l, 200 * MS);
  assert_int_equal(l->told[BDK_OUT_DOUBT], 1);
  lone_free(l);
}

// --- patience and consent

static void a_send_unanswered_is_followed_by_a_test(void **state) {
  (void)state;
  lone *l = lone_begin(0, &home, true);
  select_frame(l, &home, BDK_FRAME_SELECT_ACK, 0, 1);
  l->sent_count = 0;
  assert_int_equal(send(l), 0);
  lone_run(l, 200 * MS);
  say(l, &home);
  lone_run(l, 2 * SECOND);
  assert_int_equal(lone_count(l, LONE_TEST, NULL), 0); // answered
  uint64_t sent_us = l->now_us;
  assert_int_equal(send(l), 0);
  lone_run(l, 299 * MS);
  assert_int_equal(lone_count(l, LONE_TEST, NULL), 0);
  lone_run(l, MS);
  assert_int_equal(lone_count(l, LONE_TEST, &home), 1);
  assert_int_equal(lone_last(l, LONE_TEST, &home)->at_us, sent_us + 300 * MS);
  lone_free(l);
}

static void one_more_send_does_not_renew_patience(void **state) {
  (void)state;
  lone *l = lone_begin(0, &home, true);
  l->sent_count = 0;
  for (int i = 0; i < 30; i++) {
    assert_int_equal(send(l), 0);
    lone_run(l, 100 * MS);
  }
  assert_in_range(lone_count(l, LONE_TEST, &home), 8, 10); // each 300 ms
  lone_free(l);
}

static void patience_lasts_two_round_trips(void **state) {
  (void)state;
  lone *l = lone_begin(0, &home, false);
  lone_run(l, SECOND);
  lone_test(l, &home);
  lone_run(l, 720 * MS); // the latest test went after 320 ms, the next is not due
  lone_confirm(l, &home, &home, 1);
  uint64_t rtt_us = lone_path(l, &home)->srtt_us;
  assert_int_equal(rtt_us, 400 * MS);
  l->sent_count = 0;
  assert_int_equal(send(l), 0);
  lone_run(l, 2 * rtt_us - 1);
  assert_int_equal(lone_count(l, LONE_TEST, NULL), 0);
  lone_run(l, 1);
  assert_int_equal(lone_count(l, LONE_TEST, NULL), 1);
  lone_free(l);
}

// Tests that patience asks for stand beside the consent checks: these keep their pace, and a confirm counts as
// well as an answer.
static void tests_beside_consent_leave_it_alone(void **state) {
  (void)state;
  lone *l = lone_begin(0, &home, true);
  for (int i = 0; i < 120; i++) {
    l->sent_count = i % 40 ? l->sent_count : 0;
    send(l);
    lone_run(l, 500 * MS);
    if (lone_last(l, LONE_TEST, &home)) lone_confirm(l, &home, &home, 1);
    assert_int_equal(lone_path(l, &home)->state, BDK_PATH_VALID);
    if (i % 40 == 39) assert_in_range(lone_count(l, BDK_FRAME_CONSENT, &home), 3, 5);
  }
  assert_int_equal(l->told[BDK_OUT_PATH], 1); // it never failed in between
  lone_free(l);
}

static void a_silent_candidate_gets_twenty_five_tests(void **state) {
  (void)state;
  lone *l = with_two(0, &other, 0);
  lone_test(l, &home);
  lone_confirm(l, &home, &home, 1);
  int tests = 0;
  for (int i = 0; i < 30; i++) {
    lone_live(l, SECOND);
    tests += lone_count(l, LONE_TEST, &other);
    l->sent_count = 0;
  }
  assert_int_equal(tests, 25);
  assert_int_equal(lone_path(l, &other)->state, BDK_PATH_FAILED);
  assert_int_equal(lone_path(l, &other)->reason, BDK_REASON_no_answer);
  lone_free(l);
}

static void a_candidate_listed_twice_is_one_path(void **state) {
  (void)state;
  lone *l = with_two(0, &home, 0);
  assert_int_equal(lone_session(l)->path_count, 1);
  assert_int_equal(l->sent_count, 1);
  lone_free(l);
}

static void sixteen_unconfirmed_frames_are_counted_anew(void **state) {
  (void)state;
  lone *l = lone_begin(0, &home, false);
  lone_test(l, &home);
  for (int i = 0; i < 16; i++) assert_int_equal(send(l), 0);
  assert_int_equal(send(l), BDK_E_LIMIT);
  lone_confirm(l, &home, &home, 1);
  for (int i = 0; i < 40; i++) assert_int_equal(send(l), 0);
  lone_run(l, 31 * SECOND);
  assert_int_equal(send(l), BDK_E_NO_PATH);
  lone_test(l, &home);
  for (int i = 0; i < 16; i++) assert_int_equal(send(l), 0);
  assert_int_equal(send(l), BDK_E_LIMIT);
  lone_free(l);
}

// What a stranger was sent counts though its place in the table was given to another.
static void tests_to_places_taken_are_not_forgotten(void **state) {
  (void)state;
  lone *l = lone_new(0);
  bdk_candidate c[BDK_SESSION_PATHS];
  for (int i = 0; i < BDK_SESSION_PATHS; i++) {
    c[i] = (bdk_candidate){.addr = lone_addr("203.0.113.9:1"), .sock = 1, .via = BDK_VIA_SRFLX};
    c[i].addr.port = (uint16_t)(1000 + i);
  }
  assert_int_equal(lone_add(l, c, BDK_SESSION_PATHS), 0);
  lone_run(l, 300 * MS);
  for (int i = 0; i < 10; i++) {
    bdk_addr from = stranger(i);
    lone_test(l, &from);
  }
  lone_run(l, 9 * SECOND);
  int tests = 0;
  for (int i = 0; i < l->sent_count; i++)
    tests += l->sent[i].kind == LONE_TEST && bdk_addr_same_ip(&l->sent[i].route.remote, &c[0].addr);
  assert_in_range(tests, 80, 100);
  lone_free(l);
}

// Heard now and then, confirmed no more: that lasts 60 s from the last path's end, not for ever. By 9 s the path
// stays usable, by 15 s it fails in between.
static void being_heard_alone_does_not_keep_a_session(void **state) {
  (void)state;
  for (uint64_t gap = 9 * SECOND; gap <= 15 * SECOND; gap += 6 * SECOND) {
    lone *l = lone_begin(0, &home, true);
    uint64_t start = l->now_us;
    while (!l->told[BDK_OUT_CLOSED] && l->now_us < start + 300 * SECOND) {
      lone_run(l, gap);
      if (!l->told[BDK_OUT_CLOSED]) lone_test(l, &home);
    }
    assert_int_equal(l->told[BDK_OUT_CLOSED], 1);
    assert_int_equal(l->last[BDK_OUT_CLOSED].reason, BDK_REASON_consent_lost);
    assert_in_range(l->now_us - start, 90 * SECOND, 106 * SECOND);
    assert_int_equal(l->sends_after_close, 0);
    lone_free(l);
  }
}

// --- beginnings and ends

static void the_peer_may_begin_first(void **state) {
  (void)state;
  lone *l = with_two(0, &other, 5 * SECOND);
  lone_run(l, SECOND);
  assert_int_equal(l->sent_count, 0);
  lone_test(l, &home);
  assert_int_equal(l->told[BDK_OUT_CONNECTED], 1);
  lone_run(l, 100 * MS);
  assert_true(lone_count(l, LONE_TEST, &other) > 2); // this side tests all, too
  lone_run(l, 40 * SECOND);
  assert_int_equal(l->told[BDK_OUT_CONNECTED], 1);
  lone_free(l);
}

// What the peer's frames must carry it knows by our test, before we know what ours must carry.
static void no_frame_goes_out_before_the_peers_number_is_known(void **state) {
  (void)state;
  lone *l = lone_begin(0, &home, false);
  uint8_t body[8] = {0};
  lone_frame(l, &home, BDK_FRAME_CONSENT, body, 8);
  lone_frame(l, &home, BDK_FRAME_DATA, body, 8);
  assert_int_equal(lone_count(l, BDK_FRAME_CONSENT_ANSWER, NULL), 0);
  assert_int_equal(l->told[BDK_OUT_MESSAGE] + l->told[BDK_OUT_CONNECTED], 0);
  assert_int_equal(send(l), BDK_E_INVALID);
  lone_test(l, &home);
  assert_int_equal(l->told[BDK_OUT_CONNECTED], 1);
  lone_free(l);
}

// Until its end was taken a session can be asked about. Its keys are gone, and zeros are none.
static void what_ended_can_be_asked_about_and_takes_nothing(void **state) {
  (void)state;
  lone *l = lone_begin(0, &home, true);
  bdk_mux_close(l->mux, l->now_us, l->session); // and nothing is taken
  static const bdk_keys zero, peer = {.role = 1};
  static const bdk_seal no_seal;
  static const bdk_rekey no_rekey;
  const bdk_session *s = lone_session(l);
  assert_non_null(s);
  assert_int_equal(s->state, BDK_SESSION_CLOSED);
  assert_memory_equal(&s->keys, &zero, sizeof zero);
  assert_memory_equal(&s->seal, &no_seal, sizeof no_seal);
  assert_memory_equal(&s->rekey, &no_rekey, sizeof no_rekey);
  uint8_t out[BDK_DATAGRAM_MAX];
  bdk_route route = {.remote = home, .sock = 1};
  size_t n = bdk_frame_write(no_seal.tx, l->session, BDK_FRAME_DATA, (uint64_t)1 << 55, out, 4, out, sizeof out);
  bdk_mux_input(l->mux, l->now_us, &route, out, n);
  n = bdk_probe_write(&peer, &(bdk_probe){.rx_index = 1}, out, sizeof out);
  bdk_mux_input(l->mux, l->now_us, &route, out, n);
  assert_int_equal(l->counters.value[BDK_COUNT_drop_frame], 1);
  assert_int_equal(l->counters.value[BDK_COUNT_drop_probe], 1);
  assert_int_equal(bdk_mux_send(l->mux, l->now_us, l->session, out, 1), BDK_E_CLOSED);
  bdk_mux_unreachable(l->mux, l->now_us, &home);
  assert_ptr_equal(lone_session(l), s);
  lone_drain(l);
  assert_int_equal(l->told[BDK_OUT_CLOSED], 1);
  assert_int_equal(l->sends_after_close, 0);
  bdk_mux_tick(l->mux, l->now_us);
  assert_null(lone_session(l));
  lone_free(l);
}

static void a_frame_longer_than_any_datagram_is_dropped(void **state) {
  (void)state;
  lone *l = lone_begin(0, &home, true);
  static uint8_t out[4000];
  bdk_route route = {.remote = home, .sock = 1};
  for (size_t len = BDK_DATAGRAM_MAX - BDK_FRAME_OVERHEAD + 1; len < 3000; len += 100) {
    size_t n =
        bdk_frame_write(l->far.seal.tx, l->session, BDK_FRAME_DATA, l->counter++, out + 1000, len, out, sizeof out);
    bdk_mux_input(l->mux, l->now_us, &route, out, n);
  }
  assert_int_equal(l->counters.value[BDK_COUNT_frame_received], 0);
  assert_int_equal(l->counters.value[BDK_COUNT_drop_frame], 19);
  lone_free(l);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_move_that_came_to_nothing_is_forgotten),
      cmocka_unit_test(a_frame_that_was_overtaken_moves_nothing),
      cmocka_unit_test(a_move_confirmed_after_the_old_path_died),
      cmocka_unit_test(a_move_awaited_keeps_its_place_in_a_flood),
      cmocka_unit_test(the_path_in_use_keeps_its_place_in_a_flood),
      cmocka_unit_test(the_places_of_old_addresses_are_taken_first),
      cmocka_unit_test(data_elsewhere_mean_nothing_before_the_agreement),
      cmocka_unit_test(the_led_side_helps_itself_when_its_path_dies),
      cmocka_unit_test(a_path_returned_to_is_selected_anew),
      cmocka_unit_test(a_better_class_is_taken_before_the_first_select),
      cmocka_unit_test(a_select_is_repeated_ever_more_slowly),
      cmocka_unit_test(a_select_by_a_path_not_confirmed_waits),
      cmocka_unit_test(what_one_path_did_not_answer_is_not_held_against_the_next),
      cmocka_unit_test(a_send_unanswered_is_followed_by_a_test),
      cmocka_unit_test(one_more_send_does_not_renew_patience),
      cmocka_unit_test(patience_lasts_two_round_trips),
      cmocka_unit_test(tests_beside_consent_leave_it_alone),
      cmocka_unit_test(a_silent_candidate_gets_twenty_five_tests),
      cmocka_unit_test(a_candidate_listed_twice_is_one_path),
      cmocka_unit_test(sixteen_unconfirmed_frames_are_counted_anew),
      cmocka_unit_test(tests_to_places_taken_are_not_forgotten),
      cmocka_unit_test(being_heard_alone_does_not_keep_a_session),
      cmocka_unit_test(the_peer_may_begin_first),
      cmocka_unit_test(no_frame_goes_out_before_the_peers_number_is_known),
      cmocka_unit_test(what_ended_can_be_asked_about_and_takes_nothing),
      cmocka_unit_test(a_frame_longer_than_any_datagram_is_dropped),
  };
  return cmocka_run_group_tests_name("mux_guards", tests, setup, NULL);
}
