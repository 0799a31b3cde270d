// SPDX-License-Identifier: MIT
// What a peer, a server or a stranger may try: bounds on what is sent where, proofs that count and those
// that do not, floods.
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

// A peer that holds the keys, but not this address any more, does not see what it is asked.
static void consent_cannot_be_given_unasked(void **state) {
  (void)state;
  lone *l = lone_begin(0, &home, true);
  assert_int_equal(lone_path(l, &home)->state, BDK_PATH_VALID);
  for (int i = 0; i < 31; i++) {
    uint64_t guess = l->now_us; // what a clock would put there, in either order of bytes
    uint8_t little[8], big[8];
    for (int k = 0; k < 8; k++) little[k] = big[7 - k] = (uint8_t)(guess >> (8 * k));
    lone_frame(l, &home, BDK_FRAME_CONSENT_ANSWER, little, 8);
    lone_frame(l, &home, BDK_FRAME_CONSENT_ANSWER, big, 8);
    lone_run(l, SECOND);
  }
  assert_int_equal(lone_path(l, &home)->state != BDK_PATH_VALID, 1);
  assert_int_equal(lone_count(l, BDK_FRAME_CONSENT, &home) >= 5, 1);
  lone_free(l);
}

static void consent_is_given_once_an_asking_and_by_the_path_asked(void **state) {
  (void)state;
  lone *l = lone_begin(0, &home, true);
  lone_test(l, &other);
  lone_confirm(l, &other, &other, 1);
  lone_run(l, 6 * SECOND);
  uint8_t stamp[8];
  memcpy(stamp, lone_last(l, BDK_FRAME_CONSENT, &home)->body, 8);
  for (int i = 0; i < 40; i++) { // an old answer over and over, and one by another path
    lone_frame(l, &home, BDK_FRAME_CONSENT_ANSWER, stamp, 8);
    lone_frame(l, &other, BDK_FRAME_CONSENT_ANSWER, stamp, 8);
    lone_run(l, SECOND);
  }
  assert_int_not_equal(lone_path(l, &home)->state, BDK_PATH_VALID);
  assert_int_not_equal(lone_path(l, &other)->state, BDK_PATH_VALID);
  lone_free(l);
}

static void consent_that_is_given_keeps_a_path(void **state) {
  (void)state;
  lone *l = lone_begin(0, &home, true);
  lone_live(l, 300 * SECOND);
  assert_int_equal(lone_path(l, &home)->state, BDK_PATH_VALID);
  assert_int_equal(l->told[BDK_OUT_CLOSED], 0);
  uint64_t heard = lone_path(l, &home)->heard_us;
  lone_run(l, heard + 30 * SECOND - 1 - l->now_us);
  assert_int_equal(lone_path(l, &home)->state, BDK_PATH_VALID);
  lone_run(l, 1);
  assert_int_not_equal(lone_path(l, &home)->state, BDK_PATH_VALID); // 30 s, to the µs
  lone_free(l);
}

// Until a select tells that the peer, too, has confirmed the path, the led side asks each second at least: an unlisted
// peer may send three times what it gets, and tests with that.
static void consent_is_asked_for_sooner_until_the_first_select(void **state) {
  (void)state;
  const uint8_t select[8] = {[7] = 1};
  lone *l = lone_begin(1, &home, true);
  lone_live(l, 20 * SECOND);
  int n = lone_count(l, BDK_FRAME_CONSENT, &home);
  assert_in_range(n, 18, 28);
  lone_frame(l, &home, BDK_FRAME_SELECT, select, sizeof select);
  lone_live(l, 30 * SECOND);
  assert_in_range(lone_count(l, BDK_FRAME_CONSENT, &home) - n, 5, 8);
  lone_free(l);
}

// --- bounds on what is sent where

static size_t bytes_to(const lone *l, const bdk_addr *to) {
  size_t n = 0;
  for (int i = 0; i < l->sent_count; i++)
    if (bdk_addr_equal(&l->sent[i].route.remote, to)) n += l->sent[i].len;
  return n;
}

static int frames_to(const lone *l, const bdk_addr *to) {
  int n = 0;
  for (int kind = BDK_FRAME_DATA; kind <= BDK_FRAME_CLOSE; kind++) n += lone_count(l, kind, to);
  return n;
}

static void an_unlisted_address_gets_three_times_what_it_sent(void **state) {
  (void)state;
  for (int role = 0; role < 2; role++) {
    lone *l = lone_begin(role, &home, false);
    size_t in = 0;
    uint8_t body[8] = {0, 0, 0, 0, 0, 0, 0, 1};
    for (int i = 0; i < 100; i++) {
      if (i % 3 == 0) {
        in += lone_test(l, &other);
      } else {
        lone_frame(l, &other, i % 3 == 1 ? BDK_FRAME_CONSENT : BDK_FRAME_SELECT, body, 8);
        in += 8 + BDK_FRAME_OVERHEAD;
      }
      uint8_t big[BDK_PAYLOAD_MAX] = {0};
      for (int k = 0; k < 4; k++) bdk_mux_send(l->mux, l->now_us, l->session, big, k % 2 ? 1 : sizeof big);
      lone_run(l, i < 90 ? 20 * MS : 3 * SECOND);
      if (bytes_to(l, &other) > 3 * in) fail_msg("role %d: %zu for %zu bytes", role, bytes_to(l, &other), in);
    }
    assert_true(lone_count(l, LONE_TEST, &other) > 3); // it was used, though
    assert_true(frames_to(l, &other) > 3);
    lone_free(l);
  }
}

static void a_listed_address_gets_sixteen_frames_of_any_kind(void **state) {
  (void)state;
  lone *l = lone_begin(1, &home, false);
  lone_test(l, &home);
  uint8_t body[8] = {0};
  for (int i = 0; i < 30; i++) {
    body[7] = (uint8_t)i;
    lone_frame(l, &home, i % 2 ? BDK_FRAME_CONSENT : BDK_FRAME_SELECT, body, 8);
    bdk_mux_send(l->mux, l->now_us, l->session, body, 1);
    lone_run(l, 10 * MS);
  }
  lone_frame(l, &home, BDK_FRAME_CONSENT, body, 8);
  bdk_mux_close(l->mux, l->now_us, l->session);
  lone_drain(l);
  assert_int_equal(frames_to(l, &home), 16);
  lone_free(l);
}

static void sixteen_again_after_it_was_valid_and_failed(void **state) {
  (void)state;
  lone *l = lone_begin(0, &home, true);
  for (int i = 0; i < 100; i++) assert_int_equal(bdk_mux_send(l->mux, l->now_us, l->session, home.ip, 1), 0);
  lone_run(l, 31 * SECOND);
  assert_int_equal(lone_session(l)->state, BDK_SESSION_SEEKING);
  l->sent_count = 0;
  lone_test(l, &home);
  for (int i = 0; i < 100; i++) bdk_mux_send(l->mux, l->now_us, l->session, home.ip, 1);
  lone_drain(l);
  assert_int_equal(frames_to(l, &home), 16);
  lone_free(l);
}

// In no stretch of time more tests than 60 and 100 a second.
static void tests_keep_to_the_token_bucket(void **state) {
  (void)state;
  lone *l = lone_new(0);
  bdk_candidate c[BDK_SESSION_PATHS];
  for (int i = 0; i < BDK_SESSION_PATHS; i++) {
    char text[32];
    snprintf(text, sizeof text, "203.0.113.%d:9", 1 + i);
    c[i] = (bdk_candidate){.addr = lone_addr(text), .sock = 1, .via = BDK_VIA_SRFLX};
  }
  assert_int_equal(lone_add(l, c, BDK_SESSION_PATHS), 0);
  for (int i = 0; i < 200; i++) { // and each path begins anew when something is heard
    lone_test(l, &c[i % BDK_SESSION_PATHS].addr);
    lone_run(l, 5 * MS);
  }
  int tests = 0;
  uint64_t at[LONE_SENT];
  for (int i = 0; i < l->sent_count; i++)
    if (l->sent[i].kind == LONE_TEST) at[tests++] = l->sent[i].at_us;
  for (int i = 0; i < tests; i++)
    for (int k = i; k < tests; k++)
      if ((uint64_t)(k - i + 1) > 60 + (at[k] - at[i]) / (10 * MS))
        fail_msg("%d tests in %llu us", k - i + 1, (unsigned long long)(at[k] - at[i]));
  assert_true(l->counters.value[BDK_COUNT_refuse_tokens] > 0);
  lone_free(l);
}

// A lying server lists many ports of one stranger: 100 tests at first, 10 in each later round.
static void a_silent_ip_gets_ten_tests_in_a_later_round(void **state) {
  (void)state;
  lone *l = lone_new(0);
  bdk_candidate c[9] = {{.addr = home, .sock = 1, .via = BDK_VIA_SRFLX}};
  for (int i = 1; i < 9; i++) {
    c[i] = (bdk_candidate){.addr = lone_addr("203.0.113.9:1"), .sock = 1, .via = BDK_VIA_SRFLX};
    c[i].addr.port = (uint16_t)(1000 + i);
  }
  assert_int_equal(lone_add(l, c, 9), 0);
  lone_test(l, &home);
  lone_confirm(l, &home, &home, 1);
  for (int round = 0; round < 3; round++) {
    lone_run(l, 45 * SECOND);
    int tests = 0;
    for (int i = 0; i < l->sent_count; i++)
      tests += l->sent[i].kind == LONE_TEST && bdk_addr_same_ip(&l->sent[i].route.remote, &c[1].addr);
    assert_in_range(tests, 1, round == 0 ? 110 : 10); // the first loss falls into the first 45 s
    l->sent_count = 0;
    lone_test(l, &home);
    lone_confirm(l, &home, &home, 1);
  }
  lone_free(l);
}

static void only_hosts_are_tested(void **state) {
  (void)state;
  static const char *const none[] = {"0.0.0.0:9",         "0.1.2.3:9",      "224.0.0.1:9", "239.255.255.250:1900",
                                     "255.255.255.255:9", "240.0.0.1:9",    "[ff02::1]:9", "[::]:9",
                                     "198.51.100.2:0",    "[2001:db8::1]:0"};
  enum { COUNT = sizeof none / sizeof *none };
  bdk_candidate c[COUNT + 1];
  for (int i = 0; i < COUNT; i++) c[i] = (bdk_candidate){.addr = lone_addr(none[i]), .sock = 1};
  lone *l = lone_new(0);
  assert_int_equal(lone_add(l, c, COUNT), BDK_E_INVALID);
  c[COUNT] = (bdk_candidate){.addr = home, .sock = 1};
  assert_int_equal(lone_add(l, c, COUNT + 1), 0);
  lone_run(l, 12 * SECOND);
  assert_true(l->sent_count > 0);
  for (int i = 0; i < l->sent_count; i++) assert_true(bdk_addr_equal(&l->sent[i].route.remote, &home));
  lone_free(l);
}

// --- what counts as a proof, and what does not

static void a_confirm_counts_once_from_the_address_and_socket_tested(void **state) {
  (void)state;
  lone *l = lone_begin(0, &home, false);
  lone_confirm(l, &home, &other, 1); // a stranger's address
  lone_confirm(l, &home, &home, 2);  // by another socket of ours
  bdk_addr port = home;
  port.port++;
  lone_confirm(l, &home, &port, 1);
  assert_int_equal(lone_path(l, &home)->state, BDK_PATH_PROBING);
  assert_null(lone_path(l, &other)); // and teaches no address
  assert_int_equal(l->counters.value[BDK_COUNT_drop_confirm], 3);
  lone_confirm(l, &home, &home, 1);
  assert_int_equal(lone_path(l, &home)->state, BDK_PATH_VALID);
  lone_confirm(l, &home, &home, 1);
  assert_int_equal(l->counters.value[BDK_COUNT_drop_confirm], 4);
  lone_free(l);
}

static void a_confirm_of_a_test_forgotten_or_never_sent_is_dropped(void **state) {
  (void)state;
  lone *l = lone_begin(0, &home, false);
  uint8_t out[BDK_PROBE_MAX];
  bdk_probe p = {.confirm = true, .rx_index = 1, .origin = home};
  memcpy(p.nonce, lone_last(l, LONE_TEST, &home)->nonce, BDK_NONCE_LEN);
  lone_run(l, 9 * SECOND); // more than eight tests later
  lone_input(l, &home, 1, out, bdk_probe_write(&l->keys, &p, out, sizeof out));
  memset(p.nonce, 0, sizeof p.nonce); // that of a free place
  lone_input(l, &home, 1, out, bdk_probe_write(&l->keys, &p, out, sizeof out));
  assert_int_equal(l->counters.value[BDK_COUNT_drop_confirm], 2);
  assert_int_equal(lone_path(l, &home)->state, BDK_PATH_PROBING);
  assert_int_equal(l->told[BDK_OUT_CONNECTED], 0);
  lone_free(l);
}

// What this side said itself comes back to it: its own role, and its own key.
static void reflected_datagrams_are_dropped(void **state) {
  (void)state;
  for (int role = 0; role < 2; role++) {
    lone *l = lone_begin(role, &home, true);
    uint8_t out[BDK_DATAGRAM_MAX];
    bdk_probe p = {.rx_index = l->session, .nonce = {9}, .origin = home};
    for (int confirm = 0; confirm < 2; confirm++) {
      p.confirm = confirm;
      size_t n = bdk_probe_write(&l->ours, &p, out, sizeof out);
      lone_input(l, &other, 1, out, n);
    }
    size_t n = bdk_frame_write(l->far.seal.rx[0], l->session, BDK_FRAME_DATA, 1, home.ip, 4, out, sizeof out);
    lone_input(l, &other, 1, out, n);
    assert_int_equal(l->counters.value[BDK_COUNT_drop_probe], 2);
    assert_int_equal(l->counters.value[BDK_COUNT_drop_frame], 1);
    assert_null(lone_path(l, &other));
    assert_int_equal(l->told[BDK_OUT_MESSAGE], 0);
    lone_free(l);
  }
}

static void frames_of_wrong_length_or_kind_are_dropped(void **state) {
  (void)state;
  lone *l = lone_begin(1, &home, true);
  uint8_t body[BDK_DATAGRAM_MAX] = {0};
  int bad = 0;
  for (int kind = BDK_FRAME_SELECT; kind <= BDK_FRAME_REKEY_ANSWER; kind++)
    for (size_t len = 0; len < 20; len++)
      if (len != (kind == BDK_FRAME_CLOSE ? 0 : 8) || kind >= BDK_FRAME_REKEY)
        lone_frame(l, &other, (bdk_frame_kind)kind, body, len), bad++;
  for (int kind = BDK_FRAME_REKEY_ANSWER + 1; kind < (int)BDK_FRAME_PHASE; kind++)
    lone_frame(l, &other, (bdk_frame_kind)kind, body, 8), bad++;
  lone_frame(l, &other, BDK_FRAME_DATA, body, BDK_PAYLOAD_MAX + 1), bad++;
  assert_int_equal(l->counters.value[BDK_COUNT_drop_state], bad);
  assert_null(lone_path(l, &other));
  assert_int_equal(l->told[BDK_OUT_CLOSED] + l->told[BDK_OUT_MESSAGE], 0);
  lone_free(l);
}

static void select_frame(lone *l, const bdk_addr *from, bdk_frame_kind kind, uint32_t epoch, uint32_t n) {
  uint8_t body[8] = {[3] = (uint8_t)epoch, [7] = (uint8_t)n};
  lone_frame(l, from, kind, body, 8);
}

static bool selected(const lone *l, const bdk_addr *a) {
  const bdk_session *s = lone_session(l);
  return s->selected >= 0 && bdk_addr_equal(&s->paths[s->selected].route.remote, a);
}

static void only_a_larger_select_is_followed(void **state) {
  (void)state;
  lone *l = lone_begin(1, &home, true);
  lone_test(l, &other);
  lone_confirm(l, &other, &other, 1);
  select_frame(l, &other, BDK_FRAME_SELECT, 0, 5);
  assert_true(selected(l, &other));
  static const uint8_t stale[] = {5, 4, 1, 0};
  for (unsigned i = 0; i < sizeof stale; i++) {
    select_frame(l, &home, BDK_FRAME_SELECT, 0, stale[i]);
    assert_true(selected(l, &other));
    const lone_sent *ack = lone_last(l, BDK_FRAME_SELECT_ACK, NULL);
    assert_int_equal(ack->body[7], stale[i]); // acknowledged all the same, where it came from
    assert_true(bdk_addr_equal(&ack->route.remote, &home));
  }
  select_frame(l, &home, BDK_FRAME_SELECT, 0, 6);
  assert_true(selected(l, &home));
  assert_int_equal(lone_count(l, BDK_FRAME_SELECT_ACK, NULL), 6);
  assert_int_equal(lone_count(l, BDK_FRAME_SELECT, NULL), 0); // this side does not decide
  select_frame(l, &other, BDK_FRAME_SELECT_ACK, 0, 7);
  assert_true(selected(l, &home));
  lone_free(l);
}

static void the_deciding_side_takes_no_select_and_only_its_acknowledgement(void **state) {
  (void)state;
  lone *l = lone_begin(0, &home, true);
  lone_test(l, &other);
  lone_confirm(l, &other, &other, 1);
  select_frame(l, &other, BDK_FRAME_SELECT, 0, 200);
  assert_true(selected(l, &home));
  assert_int_equal(lone_count(l, BDK_FRAME_SELECT_ACK, NULL), 0);
  select_frame(l, &home, BDK_FRAME_SELECT_ACK, 0, 2); // not the one that waits
  select_frame(l, &home, BDK_FRAME_SELECT_ACK, 1, 1); // of another epoch
  int before = lone_count(l, BDK_FRAME_SELECT, NULL);
  lone_run(l, SECOND);
  assert_true(lone_count(l, BDK_FRAME_SELECT, NULL) > before);
  select_frame(l, &home, BDK_FRAME_SELECT_ACK, 0, 1);
  before = lone_count(l, BDK_FRAME_SELECT, NULL);
  lone_run(l, 10 * SECOND);
  assert_int_equal(lone_count(l, BDK_FRAME_SELECT, NULL), before);
  lone_free(l);
}

static void what_is_of_an_earlier_epoch_is_dropped(void **state) {
  (void)state;
  lone *l = lone_begin(1, &home, true);
  uint8_t out[BDK_PROBE_MAX];
  bdk_probe p = {.rx_index = l->peer_index, .epoch = 3};
  lone_input(l, &home, 1, out, bdk_probe_write(&l->keys, &p, out, sizeof out));
  p.epoch = 2, p.rx_index = 5;
  lone_input(l, &other, 1, out, bdk_probe_write(&l->keys, &p, out, sizeof out));
  assert_null(lone_path(l, &other));
  assert_int_equal(lone_session(l)->peer_index, l->peer_index);
  assert_int_equal(l->counters.value[BDK_COUNT_drop_probe], 1);
  select_frame(l, &home, BDK_FRAME_SELECT, 2, 9);
  assert_int_equal(lone_session(l)->select_n, 0);
  select_frame(l, &home, BDK_FRAME_SELECT, 3, 1);
  assert_int_equal(lone_session(l)->select_n, 1);
  lone_free(l);
}

// --- ends

static void closed_means_silent(void **state) {
  (void)state;
  for (int how = 0; how < 3; how++) {
    lone *l = lone_begin(how & 1, &home, true);
    bdk_mux_send(l->mux, l->now_us, l->session, home.ip, 4);
    lone_drain(l);
    if (how == 0) lone_frame(l, &home, BDK_FRAME_CLOSE, NULL, 0);
    if (how == 1) lone_frame(l, &other, BDK_FRAME_CLOSE, NULL, 0); // from an address not known
    if (how == 2) bdk_mux_close(l->mux, l->now_us, l->session);
    lone_drain(l);
    assert_int_equal(l->told[BDK_OUT_CLOSED], 1);
    assert_int_equal(l->last[BDK_OUT_CLOSED].reason, how == 2 ? BDK_REASON_closed : BDK_REASON_left);
    assert_int_equal(lone_count(l, BDK_FRAME_CLOSE, NULL), how == 2 ? 3 : 0);
    for (int i = 0; i < 30; i++) {
      lone_test(l, &home);
      lone_test(l, &other);
      lone_frame(l, &home, (bdk_frame_kind)(i % 6), home.ip, i % 6 == BDK_FRAME_CLOSE ? 0 : 8);
      bdk_mux_unreachable(l->mux, l->now_us, &home);
      assert_int_equal(bdk_mux_send(l->mux, l->now_us, l->session, home.ip, 1), BDK_E_CLOSED);
      bdk_mux_close(l->mux, l->now_us, l->session);
      bdk_mux_tick(l->mux, l->now_us);
      lone_run(l, SECOND);
      lone_drain(l);
    }
    assert_int_equal(l->sends_after_close, 0);
    assert_int_equal(l->told[BDK_OUT_CLOSED], 1);
    assert_int_equal(l->told[BDK_OUT_MESSAGE], 0);
    assert_true(bdk_mux_deadline(l->mux) == BDK_NEVER);
    lone_free(l);
  }
}

// --- our own side moves

static void a_source_address_that_is_gone_is_not_insisted_upon(void **state) {
  (void)state;
  lone *l = lone_begin(0, &home, true);
  assert_int_equal(bdk_mux_send(l->mux, l->now_us, l->session, home.ip, 1), 0);
  lone_drain(l);
  assert_int_equal(lone_last(l, BDK_FRAME_DATA, &home)->route.local.family, 4);
  bdk_mux_unreachable(l->mux, l->now_us, &home); // the interface it came by has another address now
  assert_int_equal(bdk_mux_send(l->mux, l->now_us, l->session, home.ip, 1), 0);
  lone_drain(l);
  assert_int_equal(lone_last(l, BDK_FRAME_DATA, &home)->route.local.family, 0);
  assert_int_equal(lone_path(l, &home)->state, BDK_PATH_VALID);
  lone_frame(l, &home, BDK_FRAME_DATA, home.ip, 1);
  assert_int_equal(bdk_mux_send(l->mux, l->now_us, l->session, home.ip, 1), 0);
  lone_drain(l);
  assert_int_equal(lone_last(l, BDK_FRAME_DATA, &home)->route.local.family, 4);
  lone_free(l);
}

// --- floods

static bdk_addr stranger(int i) {
  bdk_addr a = {.ip = {192, 0, (uint8_t)(i >> 8), (uint8_t)i}, .port = (uint16_t)(1 + i), .family = 4};
  return a;
}

// A test that was overheard comes again from everywhere. Nobody gets more than he sent three times over, all
// together no more than the bucket's tests; the path in use stays; a real move is followed after.
static void a_test_replayed_from_everywhere_is_endured(void **state) {
  (void)state;
  lone *l = lone_begin(0, &home, true);
  uint64_t resizes = 0;
  size_t in = 0, out = 0;
  for (int i = 0; i < 5000; i++) {
    bdk_addr from = stranger(i);
    if (i == 100) resizes = l->resizes;
    l->sent_count = 0;
    in += lone_test(l, &from);
    lone_run(l, 100);
    for (int k = 0; k < l->sent_count; k++) out += l->sent[k].len;
    assert_in_range(lone_session(l)->path_count, 1, BDK_SESSION_PATHS);
    assert_true(selected(l, &home));
  }
  assert_true(out <= 3 * in);
  assert_in_range(l->counters.value[BDK_COUNT_test_sent], 60, 60 + 50 + 2); // half a second
  assert_int_equal(l->resizes, resizes);                                    // nothing is allocated a packet
  lone_run(l, SECOND);
  lone_frame(l, &other, BDK_FRAME_DATA, home.ip, 1);
  lone_run(l, 20 * MS);
  lone_confirm(l, &other, &other, 1);
  assert_true(selected(l, &other));
  lone_free(l);
}

// Forged tests and frames cost no output and no memory, and change nothing.
static void a_flood_of_forgeries_is_counted(void **state) {
  (void)state;
  lone *l = lone_begin(0, &home, true);
  uint8_t frame[BDK_DATAGRAM_MAX], test[BDK_PROBE_MAX];
  bdk_probe p = {.rx_index = 1};
  size_t test_len = bdk_probe_write(&l->keys, &p, test, sizeof test);
  size_t frame_len =
      bdk_frame_write(l->far.seal.tx, l->session, BDK_FRAME_DATA, 1u << 20, test, 50, frame, sizeof frame);
  test[test_len - 1] ^= 1;
  frame[frame_len - 1] ^= 1;
  bdk_session before = *lone_session(l);
  uint64_t resizes = l->resizes;
  int sent = l->sent_count;
  for (int i = 0; i < 20000; i++) {
    bdk_addr from = stranger(i);
    lone_input(l, &from, 1, i & 1 ? test : frame, i & 1 ? test_len : frame_len);
  }
  assert_int_equal(l->counters.value[BDK_COUNT_drop_probe], 10000);
  assert_int_equal(l->counters.value[BDK_COUNT_drop_frame], 10000);
  assert_int_equal(l->sent_count, sent);
  assert_int_equal(l->resizes, resizes);
  const bdk_session *after = lone_session(l);
  assert_int_equal(after->path_count, before.path_count);
  assert_memory_equal(&after->seal.window, &before.seal.window, sizeof before.seal.window);
  lone_free(l);
}

// Frames of data both ways, by the ten thousand: once the queue has grown nothing more is allocated.
static void no_packet_allocates(void **state) {
  (void)state;
  lone *l = lone_begin(1, &home, true);
  uint8_t big[BDK_PAYLOAD_MAX] = {0};
  uint64_t resizes = 0;
  for (int i = 0; i < 10000; i++) {
    if (i == 10) resizes = l->resizes;
    l->sent_count = 0;
    lone_frame(l, &home, BDK_FRAME_DATA, big, (size_t)i % sizeof big);
    assert_int_equal(bdk_mux_send(l->mux, l->now_us, l->session, big, sizeof big), 0);
    lone_run(l, MS);
  }
  assert_int_equal(l->told[BDK_OUT_MESSAGE], 10000);
  assert_int_equal(l->resizes, resizes);
  lone_free(l);
}

// --- many sessions

static void peers_of_one_match_are_told_apart(void **state) {
  (void)state;
  enum { PEERS = 12 };
  bdk_mux *m = bdk_mux_new(&(bdk_mux_config){.alloc = {lone_resize, &(uint64_t){0}}});
  bdk_keys keys[PEERS];
  bdk_session far[PEERS];
  uint32_t session[PEERS];
  bdk_candidate c = {.addr = home, .sock = 1};
  bdk_match match = {.self = {100}, .candidates = &c, .count = 1}; // one key for all, even
  for (int i = 0; i < PEERS; i++) {
    match.peer[0] = (uint8_t)(94 + i + (i > 5)); // smaller ids and larger ones
    person_keys(&match, 1, 2);
    assert_int_equal(bdk_mux_add(m, 1, &match, &session[i]), 0);
    bdk_keys_init(&keys[i], match.match, match.key, match.peer, match.self);
    person_other_end(&far[i], &match, 1, 2);
  }
  bdk_output o;
  while (bdk_mux_next(m, &o)) {
  }
  for (int i = 0; i < PEERS; i++) {
    uint8_t out[BDK_PROBE_MAX];
    bdk_probe p = {.rx_index = (uint32_t)i + 1};
    bdk_route route = {.remote = stranger(i), .sock = 1};
    assert_true(bdk_mux_input(m, 2, &route, out, bdk_probe_write(&keys[i], &p, out, sizeof out)));
    uint32_t connected = 0;
    while (bdk_mux_next(m, &o)) {
      if (o.kind == BDK_OUT_CONNECTED) connected = o.session;
      assert_int_equal(o.session, session[i]);
    }
    assert_int_equal(connected, session[i]);
    size_t n = bdk_frame_write(far[i].seal.tx, session[(i + 1) % PEERS], BDK_FRAME_DATA, 1, out, 4, out, sizeof out);
    bdk_mux_input(m, 2, &route, out, n); // with the index of another
    assert_false(bdk_mux_next(m, &o));
  }
  bdk_mux_free(m);
}

// A number is not given twice, its frames reach nobody after, and no key meets a counter again.
static void a_session_begun_again_is_another(void **state) {
  (void)state;
  lone *l = lone_begin(0, &home, true);
  uint64_t counters[100];
  uint32_t numbers[100];
  for (int i = 0; i < 100; i++) {
    numbers[i] = l->session;
    counters[i] = lone_session(l)->seal.tx_counter;
    for (int k = 0; k < i; k++) {
      assert_int_not_equal(numbers[k], numbers[i]);
      assert_true(counters[k] > counters[i] + 1000 || counters[i] > counters[k] + 1000);
    }
    uint8_t old[BDK_DATAGRAM_MAX];
    size_t n = bdk_frame_write(l->far.seal.tx, l->session, BDK_FRAME_DATA, l->counter++, old, 4, old, sizeof old);
    bdk_mux_close(l->mux, l->now_us, l->session);
    lone_drain(l);
    l->told[BDK_OUT_CLOSED] = l->sends_after_close = l->sent_count = 0;
    bdk_candidate c = {.addr = home, .sock = 1, .via = BDK_VIA_SRFLX};
    assert_int_equal(lone_add(l, &c, 1), 0);
    lone_input(l, &home, 1, old, n);
    assert_int_equal(l->counters.value[BDK_COUNT_drop_frame], i + 1);
    lone_test(l, &home);
    lone_confirm(l, &home, &home, 1);
  }
  lone_free(l);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(consent_cannot_be_given_unasked),
      cmocka_unit_test(consent_is_given_once_an_asking_and_by_the_path_asked),
      cmocka_unit_test(consent_that_is_given_keeps_a_path),
      cmocka_unit_test(consent_is_asked_for_sooner_until_the_first_select),
      cmocka_unit_test(an_unlisted_address_gets_three_times_what_it_sent),
      cmocka_unit_test(a_listed_address_gets_sixteen_frames_of_any_kind),
      cmocka_unit_test(sixteen_again_after_it_was_valid_and_failed),
      cmocka_unit_test(tests_keep_to_the_token_bucket),
      cmocka_unit_test(a_silent_ip_gets_ten_tests_in_a_later_round),
      cmocka_unit_test(only_hosts_are_tested),
      cmocka_unit_test(a_confirm_counts_once_from_the_address_and_socket_tested),
      cmocka_unit_test(a_confirm_of_a_test_forgotten_or_never_sent_is_dropped),
      cmocka_unit_test(reflected_datagrams_are_dropped),
      cmocka_unit_test(frames_of_wrong_length_or_kind_are_dropped),
      cmocka_unit_test(only_a_larger_select_is_followed),
      cmocka_unit_test(the_deciding_side_takes_no_select_and_only_its_acknowledgement),
      cmocka_unit_test(what_is_of_an_earlier_epoch_is_dropped),
      cmocka_unit_test(closed_means_silent),
      cmocka_unit_test(a_source_address_that_is_gone_is_not_insisted_upon),
      cmocka_unit_test(a_test_replayed_from_everywhere_is_endured),
      cmocka_unit_test(a_flood_of_forgeries_is_counted),
      cmocka_unit_test(no_packet_allocates),
      cmocka_unit_test(peers_of_one_match_are_told_apart),
      cmocka_unit_test(a_session_begun_again_is_another),
  };
  return cmocka_run_group_tests_name("mux_hostile", tests, setup, NULL);
}
