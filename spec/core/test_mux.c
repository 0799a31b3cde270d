// SPDX-License-Identifier: MIT
// Sessions and paths through the five verbs, on virtual time.
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

static void connects_in_d_and_confirms_in_2d(void **state) {
  (void)state;
  pair w;
  pair_init(&w, 1, DELAY);
  w.side[0].filtered = w.side[1].filtered = true;
  both(&w);
  pair_run(&w, START + 5 * SECOND);
  for (int i = 0; i < 2; i++) {
    const pair_event *connected = pair_find(&w, i, BDK_OUT_CONNECTED), *path = pair_find(&w, i, BDK_OUT_PATH);
    assert_non_null(connected);
    assert_int_equal(connected->since_us, DELAY);
    assert_non_null(path);
    assert_int_equal(path->since_us, 2 * DELAY);
    assert_int_equal(path->rtt_us, 2 * DELAY);
    assert_false(path->lan);
    assert_int_equal(pair_events(&w, i, BDK_OUT_PATH), 1);
  }
  // At rest nothing but consent goes: a quiet second has no datagram in it.
  uint64_t before = w.side[0].sent + w.side[1].sent;
  pair_run(&w, START + 5 * SECOND + 30 * SECOND);
  uint64_t quiet = w.side[0].sent + w.side[1].sent - before;
  assert_in_range(quiet, 4 * 4, 4 * 9); // each side asks and is answered each 4–6 s
  pair_free(&w);
}

static void data_follows_the_first_probe(void **state) {
  (void)state;
  pair w;
  pair_init(&w, 2, DELAY);
  both(&w);
  assert_int_equal(pair_send(&w, 0, "x", 1), BDK_E_INVALID); // before `connected`
  pair_run(&w, START + DELAY);
  assert_int_equal(pair_send(&w, 0, "hello", 5), 0);
  pair_run(&w, START + 2 * DELAY);
  const pair_event *m = pair_find(&w, 1, BDK_OUT_MESSAGE);
  assert_non_null(m);
  assert_int_equal(m->len, 5);
  assert_int_equal(m->first, 'h');
  uint8_t big[BDK_PAYLOAD_MAX + 1] = {0};
  assert_int_equal(pair_send(&w, 0, big, BDK_PAYLOAD_MAX), 0);
  assert_int_equal(pair_send(&w, 0, big, BDK_PAYLOAD_MAX + 1), BDK_E_INVALID);
  pair_run(&w, START + 3 * DELAY);
  assert_int_equal(pair_events(&w, 1, BDK_OUT_MESSAGE), 2);
  pair_free(&w);
}

static void unconfirmed_address_gets_sixteen_frames(void **state) {
  (void)state;
  pair w;
  pair_init(&w, 3, DELAY);
  both(&w);
  w.side[0].cut = true; // the peer's tests arrive, ours do not: USABLE, never confirmed
  pair_run(&w, START + DELAY);
  for (int i = 0; i < 16; i++) assert_int_equal(pair_send(&w, 0, "x", 1), 0);
  assert_int_equal(pair_send(&w, 0, "x", 1), BDK_E_LIMIT);
  pair_free(&w);
}

static void no_path_in_ten_seconds(void **state) {
  (void)state;
  pair w;
  pair_init(&w, 4, DELAY);
  assert_int_equal(pair_match(&w, 0, 0), 0); // the other side never starts
  pair_run(&w, START + 9900 * MS);
  assert_null(pair_find(&w, 0, BDK_OUT_CLOSED));
  pair_run(&w, START + 10 * SECOND);
  const pair_event *closed = pair_find(&w, 0, BDK_OUT_CLOSED);
  assert_non_null(closed);
  assert_int_equal(closed->reason, BDK_REASON_no_path);
  assert_in_range(w.side[0].sent, 20, 25);
  uint64_t sent = w.side[0].sent;
  pair_run(&w, START + 60 * SECOND);
  assert_int_equal(w.side[0].sent, sent); // closed means zero sends
  assert_true(bdk_mux_deadline(w.side[0].mux) == BDK_NEVER);
  pair_free(&w);
}

static void start_in_is_waited_for(void **state) {
  (void)state;
  pair w;
  pair_init(&w, 5, DELAY);
  assert_int_equal(pair_match(&w, 0, 30 * MS), 0);
  pair_run(&w, START + 29 * MS);
  assert_int_equal(w.side[0].sent, 0);
  pair_run(&w, START + 30 * MS);
  assert_int_equal(w.side[0].sent, 1);
  pair_free(&w);
}

static void close_tells_the_peer(void **state) {
  (void)state;
  pair w;
  pair_init(&w, 6, DELAY);
  both(&w);
  pair_run(&w, START + SECOND);
  bdk_mux_close(w.side[0].mux, w.now_us, w.side[0].session);
  pair_drain(&w, 0);
  pair_run(&w, w.now_us + SECOND);
  assert_int_equal(pair_find(&w, 0, BDK_OUT_CLOSED)->reason, BDK_REASON_closed);
  assert_int_equal(pair_find(&w, 1, BDK_OUT_CLOSED)->reason, BDK_REASON_left);
  assert_int_equal(pair_events(&w, 1, BDK_OUT_CLOSED), 1);
  assert_int_equal(pair_send(&w, 0, "x", 1), BDK_E_CLOSED);
  assert_int_equal(w.side[0].closed_sends + w.side[1].closed_sends, 0);
  pair_free(&w);
}

static void consent_ends_and_the_session_with_it(void **state) {
  (void)state;
  pair w;
  pair_init(&w, 7, DELAY);
  both(&w);
  pair_run(&w, START + SECOND);
  w.side[0].cut = w.side[1].cut = true;
  pair_run(&w, START + 40 * SECOND);
  assert_null(pair_find(&w, 0, BDK_OUT_CLOSED));
  const bdk_session *s = bdk_mux_session(w.side[0].mux, w.side[0].session);
  assert_int_equal(s->state, BDK_SESSION_SEEKING);
  pair_run(&w, START + 100 * SECOND);
  assert_int_equal(pair_find(&w, 0, BDK_OUT_CLOSED)->reason, BDK_REASON_consent_lost);
  assert_int_equal(pair_find(&w, 1, BDK_OUT_CLOSED)->reason, BDK_REASON_consent_lost);
  pair_free(&w);
}

static void comes_back_after_a_loss_of_fifty_seconds(void **state) {
  (void)state;
  pair w;
  pair_init(&w, 8, DELAY);
  both(&w);
  pair_run(&w, START + SECOND);
  w.side[0].cut = w.side[1].cut = true;
  pair_run(&w, START + 50 * SECOND);
  w.side[0].cut = w.side[1].cut = false;
  pair_run(&w, START + 52 * SECOND);
  assert_int_equal(pair_send(&w, 0, "x", 1), 0);
  assert_int_equal(pair_send(&w, 1, "x", 1), 0);
  pair_run(&w, START + 53 * SECOND);
  assert_int_equal(pair_events(&w, 0, BDK_OUT_MESSAGE), 1);
  assert_int_equal(pair_events(&w, 1, BDK_OUT_MESSAGE), 1);
  assert_int_equal(pair_events(&w, 0, BDK_OUT_CONNECTED), 1);
  pair_free(&w);
}

// The peer's NAT gives it another port, in silence: its next frame says so.
static void follows_a_silent_rebind_of(int who) {
  pair w;
  pair_init(&w, 9, DELAY);
  both(&w);
  pair_run(&w, START + SECOND);
  w.side[who].public = pair_addr("198.51.100.9:9999");
  pair_run(&w, START + 2 * SECOND);
  assert_int_equal(pair_send(&w, who, "x", 1), 0);
  pair_run(&w, START + 2 * SECOND + 4 * DELAY);
  assert_int_equal(pair_send(&w, !who, "y", 1), 0); // reaches the new port
  pair_run(&w, START + 3 * SECOND);
  assert_int_equal(pair_events(&w, who, BDK_OUT_MESSAGE), 1);
  assert_int_equal(w.side[!who].counters.value[BDK_COUNT_path_rebound], 1);
  assert_int_equal(pair_events(&w, !who, BDK_OUT_PATH), 2);
  pair_run(&w, START + 120 * SECOND);
  assert_null(pair_find(&w, 0, BDK_OUT_CLOSED));
  assert_null(pair_find(&w, 1, BDK_OUT_CLOSED));
  assert_int_equal(w.side[!who].counters.value[BDK_COUNT_path_rebound], 1);
  pair_free(&w);
}

static void follows_a_silent_rebind(void **state) {
  (void)state;
  follows_a_silent_rebind_of(0);
  follows_a_silent_rebind_of(1);
}

static void unreachable_kills_the_candidate_only(void **state) {
  (void)state;
  pair w;
  pair_init(&w, 10, DELAY);
  pair_side *s = &w.side[0];
  bdk_candidate two[2] = {{.addr = pair_addr("203.0.113.9:9"), .sock = 1, .via = BDK_VIA_SRFLX},
                          {.addr = w.side[1].public, .sock = 1, .via = BDK_VIA_SRFLX}};
  bdk_match match = {.candidates = two, .count = 2};
  memset(match.match, 7, sizeof match.match);
  memset(match.key, 9, sizeof match.key);
  memcpy(match.self, s->id, BDK_ID_LEN);
  memcpy(match.peer, w.side[1].id, BDK_ID_LEN);
  person_keys(&match, 1, 2);
  assert_int_equal(bdk_mux_add(s->mux, w.now_us, &match, &s->session), 0);
  pair_drain(&w, 0);
  bdk_mux_unreachable(s->mux, w.now_us, &two[0].addr);
  pair_drain(&w, 0);
  const bdk_session *session = bdk_mux_session(s->mux, s->session);
  assert_int_equal(session->paths[0].state, BDK_PATH_FAILED);
  assert_int_equal(session->paths[0].reason, BDK_REASON_unreachable);
  assert_int_equal(session->paths[1].state, BDK_PATH_PROBING);
  assert_int_equal(pair_match(&w, 1, 0), 0);
  pair_run(&w, START + SECOND);
  assert_non_null(pair_find(&w, 0, BDK_OUT_CONNECTED));
  pair_free(&w);
}

static void a_silent_ip_gets_a_hundred_tests(void **state) {
  (void)state;
  pair w;
  pair_init(&w, 11, DELAY);
  pair_side *s = &w.side[0];
  bdk_candidate many[BDK_SESSION_PATHS];
  for (int i = 0; i < BDK_SESSION_PATHS; i++) {
    char text[32];
    snprintf(text, sizeof text, "203.0.113.9:%d", 1000 + i);
    many[i] = (bdk_candidate){.addr = pair_addr(text), .sock = 1, .via = BDK_VIA_SRFLX};
  }
  bdk_match match = {.candidates = many, .count = BDK_SESSION_PATHS};
  memset(match.match, 7, sizeof match.match);
  memcpy(match.self, s->id, BDK_ID_LEN);
  memcpy(match.peer, w.side[1].id, BDK_ID_LEN);
  person_keys(&match, 1, 2);
  assert_int_equal(bdk_mux_add(s->mux, w.now_us, &match, &s->session), 0);
  pair_drain(&w, 0);
  assert_int_equal(s->sent, BDK_SESSION_PATHS);
  pair_run(&w, START + 400 * MS);
  assert_in_range(s->sent, 60, 100); // the bucket: 60 at once, then 100 a second
  pair_run(&w, START + 60 * SECOND);
  assert_in_range(s->sent, 90, 100);
  pair_free(&w);
}

static void wrong_input_changes_nothing(void **state) {
  (void)state;
  pair w;
  pair_init(&w, 12, DELAY);
  both(&w);
  // Take the first test on the wire, and change each byte, cut each length.
  assert_true(w.count >= 1);
  pair_packet test = w.queue[0];
  assert_int_equal(test.to, 1);
  bdk_route route = {.remote = test.from, .sock = 1};
  uint64_t sent = w.side[1].sent;
  for (size_t i = 0; i < test.len; i++) {
    for (int bit = 0; bit < 8; bit++) {
      uint8_t copy[BDK_DATAGRAM_MAX];
      memcpy(copy, test.data, test.len);
      copy[i] ^= (uint8_t)(1 << bit);
      bdk_mux_input(w.side[1].mux, w.now_us, &route, copy, test.len);
      pair_drain(&w, 1);
    }
    bdk_mux_input(w.side[1].mux, w.now_us, &route, test.data, i);
    pair_drain(&w, 1);
  }
  // Reflected to its sender it is not the peer's either.
  bdk_mux_input(w.side[0].mux, w.now_us, &route, test.data, test.len);
  pair_drain(&w, 0);
  assert_int_equal(w.side[1].sent, sent);
  assert_int_equal(w.side[0].counters.value[BDK_COUNT_test_received], 0);
  assert_int_equal(w.side[1].counters.value[BDK_COUNT_test_received], 0);
  assert_int_equal(bdk_mux_session(w.side[1].mux, w.side[1].session)->path_count, 1);
  pair_free(&w);
}

static void frames_are_delivered_once(void **state) {
  (void)state;
  pair w;
  pair_init(&w, 13, DELAY);
  both(&w);
  pair_run(&w, START + SECOND);
  assert_int_equal(pair_send(&w, 0, "x", 1), 0);
  pair_packet copy = w.queue[w.count - 1];
  pair_run(&w, START + 2 * SECOND);
  bdk_route route = {.remote = copy.from, .sock = 1};
  for (int i = 0; i < 3; i++) bdk_mux_input(w.side[1].mux, w.now_us, &route, copy.data, copy.len);
  pair_drain(&w, 1);
  assert_int_equal(pair_events(&w, 1, BDK_OUT_MESSAGE), 1);
  assert_int_equal(w.side[1].counters.value[BDK_COUNT_drop_replay], 3);
  pair_free(&w);
}

static void prefers_lan_however_late(void **state) {
  (void)state;
  pair w;
  pair_init(&w, 14, DELAY);
  both(&w);
  pair_run(&w, START + SECOND);
  // A test from a private address: the peer is on the same network after all.
  bdk_addr public = w.side[1].public;
  w.side[1].public = pair_addr("192.168.1.7:2000");
  const bdk_session *s = bdk_mux_session(w.side[1].mux, w.side[1].session);
  bdk_probe probe = {.rx_index = s->index, .nonce = {1}};
  uint8_t bytes[BDK_PROBE_MAX];
  size_t len = bdk_probe_write(&s->keys, &probe, bytes, sizeof bytes);
  bdk_route route = {.remote = w.side[1].public, .sock = 1};
  bdk_mux_input(w.side[0].mux, w.now_us, &route, bytes, len);
  pair_drain(&w, 0);
  pair_run(&w, START + 2 * SECOND);
  const bdk_session *mine = bdk_mux_session(w.side[0].mux, w.side[0].session);
  assert_int_equal(mine->path_count, 2);
  assert_int_equal(mine->selected, 1);
  assert_int_equal(mine->paths[1].via, BDK_VIA_HOST);
  const pair_side *side = &w.side[0];
  assert_true(side->events[side->event_count - 1].lan);
  w.side[1].public = public;
  pair_free(&w);
}

// Both sides end on one pair, whatever is lost; a failing seed is printed.
static void loss_of_every_kind(void **state) {
  (void)state;
  for (uint64_t seed = 1; seed <= 500; seed++) {
    pair w;
    pair_init(&w, seed, (5 + seed % 80) * MS);
    w.loss_percent = seed % 41;
    w.side[0].filtered = seed & 1, w.side[1].filtered = seed & 2;
    assert_int_equal(pair_match(&w, 0, 0), 0);
    pair_run(&w, START + seed % 30 * MS);
    assert_int_equal(pair_match(&w, 1, 0), 0);
    pair_run(&w, START + 20 * SECOND); // a SELECT is repeated each 2 s at last, and 40 % are lost each way
    bool ok = pair_find(&w, 0, BDK_OUT_PATH) && pair_find(&w, 1, BDK_OUT_PATH);
    const bdk_session *a = bdk_mux_session(w.side[0].mux, w.side[0].session);
    const bdk_session *b = bdk_mux_session(w.side[1].mux, w.side[1].session);
    ok = ok && a && b && a->selected >= 0 && b->selected >= 0 && a->select_n == b->select_n;
    ok = ok && a->select_due_us == BDK_NEVER;
    if (!ok) fail_msg("seed %llu", (unsigned long long)seed);
    pair_free(&w);
  }
}

static int allocations_left;
static void *resize_failing(void *ctx, void *p, size_t old_size, size_t new_size) {
  if (new_size && allocations_left-- <= 0) return NULL;
  return pair_resize(ctx, p, old_size, new_size);
}

static void allocation_failure_is_an_error(void **state) {
  (void)state;
  for (int n = 0; n < 6; n++) {
    allocations_left = n;
    bdk_counters counters = {0};
    bdk_mux *m = bdk_mux_new(&(bdk_mux_config){.alloc = {resize_failing, NULL}, .counters = &counters});
    if (!m) continue;
    bdk_candidate c = {.addr = pair_addr("203.0.113.9:9"), .sock = 1};
    bdk_match match = {.candidates = &c, .count = 1, .peer = {1}};
    person_keys(&match, 1, 2);
    uint32_t session;
    int error = bdk_mux_add(m, 1, &match, &session);
    assert_true(error == 0 || error == BDK_E_LIMIT);
    bdk_mux_tick(m, 20 * SECOND);
    bdk_output o;
    while (bdk_mux_next(m, &o)) {
    }
    bdk_mux_free(m);
  }
}

static void limits_and_misuse(void **state) {
  (void)state;
  bdk_mux *m = bdk_mux_new(&(bdk_mux_config){.alloc = {pair_resize, NULL}, .max_sessions = 2});
  bdk_candidate c = {.addr = pair_addr("203.0.113.9:9"), .sock = 1};
  bdk_match match = {.candidates = &c, .count = 1, .peer = {1}};
  person_keys(&match, 1, 2);
  uint32_t a, b, other;
  assert_int_equal(bdk_mux_add(m, 0, &match, &a), 0);
  assert_int_equal(bdk_mux_add(m, 0, &match, &b), BDK_E_INVALID); // the same match and peer
  match.peer[0] = 2;
  assert_int_equal(bdk_mux_add(m, 0, &match, &b), 0);
  match.peer[0] = 3;
  assert_int_equal(bdk_mux_add(m, 0, &match, &other), BDK_E_LIMIT);
  match.peer[0] = 0;
  assert_int_equal(bdk_mux_add(m, 0, &match, &other), BDK_E_INVALID); // with oneself
  bdk_mux_close(m, 0, a);
  bdk_mux_close(m, 0, a);
  bdk_mux_close(m, 0, 12345);
  bdk_output o;
  while (bdk_mux_next(m, &o)) {
  }
  match.peer[0] = 3;
  c.addr.port = 0;
  assert_int_equal(bdk_mux_add(m, 0, &match, &other), BDK_E_INVALID); // no candidate is a host's address
  match.count = 0;
  assert_int_equal(bdk_mux_add(m, 0, &match, &other), 0); // the place is free again; and a relay may come
  assert_null(bdk_mux_session(m, a));
  assert_false(bdk_mux_input(m, 0, &(bdk_route){0}, (const uint8_t *)"\x91\x01", 2));
  assert_false(bdk_mux_input(m, 0, &(bdk_route){0}, NULL, 0));
  assert_true(bdk_mux_input(m, 0, &(bdk_route){0}, (const uint8_t *)"\xC1\x01", 2));
  bdk_mux_free(m);
  bdk_mux_free(NULL);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(connects_in_d_and_confirms_in_2d),
      cmocka_unit_test(data_follows_the_first_probe),
      cmocka_unit_test(unconfirmed_address_gets_sixteen_frames),
      cmocka_unit_test(no_path_in_ten_seconds),
      cmocka_unit_test(start_in_is_waited_for),
      cmocka_unit_test(close_tells_the_peer),
      cmocka_unit_test(consent_ends_and_the_session_with_it),
      cmocka_unit_test(comes_back_after_a_loss_of_fifty_seconds),
      cmocka_unit_test(follows_a_silent_rebind),
      cmocka_unit_test(unreachable_kills_the_candidate_only),
      cmocka_unit_test(a_silent_ip_gets_a_hundred_tests),
      cmocka_unit_test(wrong_input_changes_nothing),
      cmocka_unit_test(frames_are_delivered_once),
      cmocka_unit_test(prefers_lan_however_late),
      cmocka_unit_test(loss_of_every_kind),
      cmocka_unit_test(allocation_failure_is_an_error),
      cmocka_unit_test(limits_and_misuse),
  };
  return cmocka_run_group_tests_name("mux", tests, NULL, NULL);
}
