// SPDX-License-Identifier: MIT
// Frames, their window, and keys that change under traffic.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <sodium.h>

#include "../../runtime/core/seal.h"
#include "documented.h"
#include "pair.h"

#define MS 1000u
#define SECOND (1000u * MS)

static uint8_t key[BDK_KEY_LEN];

static int setup(void **state) {
  (void)state;
  for (unsigned i = 0; i < sizeof key; i++) key[i] = (uint8_t)(0x40 + i);
  return 0;
}

static void frames_are_those_of_the_document(void **state) {
  (void)state;
  uint8_t out[BDK_DATAGRAM_MAX], plain[BDK_DATAGRAM_MAX];
  size_t n = bdk_frame_write(key, 0x01020304, BDK_FRAME_DATA, 7, (const uint8_t *)"hello", 5, out, sizeof out);
  assert_int_equal(n, 5 + BDK_FRAME_OVERHEAD);
  assert_documented("frame", out, n);
  uint32_t index;
  uint8_t kind;
  uint64_t counter;
  assert_true(bdk_frame_head(out, n, &index, &kind, &counter));
  assert_int_equal(index, 0x01020304);
  assert_int_equal(kind, BDK_FRAME_DATA);
  assert_int_equal(counter, 7);
  assert_true(bdk_frame_open(key, out, n, plain));
  assert_memory_equal(plain, "hello", 5);
  for (size_t i = 0; i < n; i++) {
    out[i] ^= 0x20;
    assert_false(bdk_frame_head(out, n, &index, &kind, &counter) && bdk_frame_open(key, out, n, plain));
    out[i] ^= 0x20;
  }
  for (size_t cut = 0; cut < n; cut++)
    assert_false(bdk_frame_head(out, cut, &index, &kind, &counter) && bdk_frame_open(key, out, cut, plain));
  assert_int_equal(bdk_frame_write(key, 1, BDK_FRAME_DATA, (uint64_t)1 << 56, NULL, 0, out, sizeof out), 0);
  assert_int_equal(bdk_frame_write(key, 1, BDK_FRAME_DATA, 1, out, 100, out, 128), 0);
}

// Against a plain list of what was seen.
static void window_is_a_set_of_1024(void **state) {
  (void)state;
  enum { SPAN = 20000 };
  static uint8_t seen[SPAN];
  bdk_window w = {0};
  uint64_t top = 0, rng = 88172645463325252u;
  for (int i = 0; i < 200000; i++) {
    rng ^= rng << 13, rng ^= rng >> 7, rng ^= rng << 17;
    uint64_t base = (uint64_t)i * (SPAN - 3000) / 200000;
    uint64_t c = base + rng % 2500;
    bool fresh = c >= top || (top - c <= BDK_WINDOW && !seen[c]);
    assert_int_equal(bdk_window_fresh(&w, c), fresh);
    if (!fresh) continue;
    bdk_window_mark(&w, c);
    seen[c] = 1;
    if (c + 1 > top) top = c + 1;
  }
  bdk_window far = {0};
  bdk_window_mark(&far, 3);
  bdk_window_mark(&far, (uint64_t)1 << 50);
  assert_false(bdk_window_fresh(&far, 3));
  assert_false(bdk_window_fresh(&far, (uint64_t)1 << 50));
  assert_true(bdk_window_fresh(&far, ((uint64_t)1 << 50) - 1000));
}

// --- keys that change

typedef struct ends {
  bdk_seal seal[2];
  bdk_rekey rekey[2]; // 0 controls
  uint64_t now_us;
} ends;

static void begin(ends *e) {
  bdk_match m = {.count = 0};
  memset(m.self, 1, BDK_ID_LEN);
  memset(m.peer, 2, BDK_ID_LEN);
  bdk_session s;
  person_keys(&m, 1, 2);
  assert_int_equal(bdk_session_init(&s, &m, 1, 0, 0), 0);
  e->seal[0] = s.seal, e->rekey[0] = s.rekey;
  person_other_end(&s, &m, 1, 2);
  e->seal[1] = s.seal, e->rekey[1] = s.rekey;
  e->now_us = 1;
}

typedef struct datagram {
  uint8_t bytes[64];
  size_t len;
} datagram;

static datagram sealed(ends *e, int from) {
  datagram d;
  d.len = bdk_seal_write(&e->seal[from], 7, BDK_FRAME_DATA, (const uint8_t *)"x", 1, d.bytes, sizeof d.bytes);
  assert_int_equal(d.len, 1 + BDK_FRAME_OVERHEAD);
  return d;
}

static bool opens(ends *e, int at, const datagram *d) {
  uint8_t plain[64];
  return bdk_seal_open(&e->seal[at], e->now_us, d->bytes, d->len, plain) == BDK_SEAL_OPENED && plain[0] == 'x';
}

static void exchange(ends *e, uint8_t seed) {
  uint8_t ephemeral[2][BDK_DH_LEN];
  memset(ephemeral, seed, sizeof ephemeral);
  ephemeral[1][0] ^= 1;
  assert_true(bdk_rekey_ask(&e->rekey[0], ephemeral[0]));
  assert_true(bdk_rekey_asked(&e->rekey[1], &e->seal[1], e->rekey[0].question, ephemeral[1]));
  assert_true(bdk_rekey_answered(&e->rekey[0], &e->seal[0], e->rekey[1].answer));
}

// What was sealed before, during and after an exchange opens, in any order, once; keys are new each time.
static void no_datagram_is_lost_while_keys_change(void **state) {
  (void)state;
  ends e;
  begin(&e);
  for (uint8_t round = 1; round < 50; round++) {
    uint8_t ephemeral[BDK_DH_LEN], old_tx[BDK_KEY_LEN];
    memcpy(old_tx, e.seal[0].tx, sizeof old_tx);
    memset(ephemeral, round, sizeof ephemeral);
    datagram before[2] = {sealed(&e, 0), sealed(&e, 1)};
    assert_true(bdk_rekey_ask(&e.rekey[0], ephemeral));
    datagram asked[2] = {sealed(&e, 0), sealed(&e, 1)};
    ephemeral[0] ^= 1;
    assert_true(bdk_rekey_asked(&e.rekey[1], &e.seal[1], e.rekey[0].question, ephemeral));
    datagram answered[2] = {sealed(&e, 0), sealed(&e, 1)};
    assert_true(opens(&e, 1, &asked[0])); // of the old key: it changes nothing yet
    uint8_t answer[BDK_KK_MESSAGE];
    memcpy(answer, e.rekey[1].answer, sizeof answer);
    ephemeral[0] ^= 2; // the question comes again, and is answered with the same bytes
    assert_true(bdk_rekey_asked(&e.rekey[1], &e.seal[1], e.rekey[0].question, ephemeral));
    assert_memory_equal(answer, e.rekey[1].answer, sizeof answer);
    assert_true(bdk_rekey_answered(&e.rekey[0], &e.seal[0], answer));
    assert_false(bdk_rekey_answered(&e.rekey[0], &e.seal[0], answer));
    assert_memory_not_equal(old_tx, e.seal[0].tx, sizeof old_tx);
    datagram after[2] = {sealed(&e, 0), sealed(&e, 1)};
    assert_int_equal(after[0].bytes[5] >> 7, round & 1);
    assert_int_equal(after[1].bytes[5] >> 7, !(round & 1)); // it has not heard the new key yet
    assert_true(opens(&e, 1, &after[0]));
    datagram last = sealed(&e, 1);
    assert_int_equal(last.bytes[5] >> 7, round & 1);
    assert_true(opens(&e, 0, &last));
    for (int side = 0; side < 2; side++) {
      assert_true(opens(&e, !side, &answered[side]));
      assert_true(opens(&e, !side, &before[side]));
      assert_false(opens(&e, !side, &before[side]));
    }
    assert_true(opens(&e, 0, &asked[1]));
    assert_true(opens(&e, 0, &after[1]));
    e.now_us += BDK_SEAL_OLD_US;
    for (int side = 0; side < 2; side++) bdk_seal_retire(&e.seal[side], e.now_us);
  }
}

static void an_old_key_is_erased_ten_seconds_after_the_peer_left_it(void **state) {
  (void)state;
  static const uint8_t none[BDK_KEY_LEN];
  ends e;
  begin(&e);
  datagram late = sealed(&e, 1);
  exchange(&e, 9);
  datagram fresh = sealed(&e, 0);
  for (int i = 0; i < 3; i++) { // while the peer may not have the answer the old key stays
    e.now_us += 100 * SECOND;
    bdk_seal_retire(&e.seal[0], e.now_us);
    bdk_seal_retire(&e.seal[1], e.now_us);
    assert_true(e.seal[0].rx_on[0] && e.seal[1].rx_on[0]);
  }
  assert_true(opens(&e, 1, &fresh));
  fresh = sealed(&e, 1);
  assert_true(opens(&e, 0, &fresh));
  for (int side = 0; side < 2; side++) {
    bdk_seal_retire(&e.seal[side], e.now_us + BDK_SEAL_OLD_US - 1);
    assert_true(e.seal[side].rx_on[0]);
    bdk_seal_retire(&e.seal[side], e.now_us + BDK_SEAL_OLD_US);
    assert_false(e.seal[side].rx_on[0]);
    assert_memory_equal(e.seal[side].rx[0], none, sizeof none);
    assert_memory_equal(e.seal[side].next_tx, none, sizeof none);
  }
  assert_false(opens(&e, 0, &late));
}

static void nobody_opens_what_it_sealed_itself(void **state) {
  (void)state;
  ends e;
  begin(&e);
  for (int round = 0; round < 3; round++) {
    for (int side = 0; side < 2; side++) {
      datagram d = sealed(&e, side);
      assert_false(opens(&e, side, &d));
      assert_true(opens(&e, !side, &d));
    }
    exchange(&e, (uint8_t)(20 + round));
    datagram fresh = sealed(&e, 0);
    assert_true(opens(&e, 1, &fresh));
    fresh = sealed(&e, 1);
    assert_true(opens(&e, 0, &fresh));
  }
}

static void a_changed_question_or_answer_changes_nothing(void **state) {
  (void)state;
  ends e;
  begin(&e);
  uint8_t ephemeral[BDK_DH_LEN] = {5}, bad[BDK_KK_MESSAGE];
  assert_true(bdk_rekey_ask(&e.rekey[0], ephemeral));
  ends before = e;
  for (size_t i = 0; i < sizeof bad; i++) {
    memcpy(bad, e.rekey[0].question, sizeof bad);
    bad[i] ^= 1;
    assert_false(bdk_rekey_asked(&e.rekey[1], &e.seal[1], bad, ephemeral));
    assert_memory_equal(&e.seal[1], &before.seal[1], sizeof e.seal[1]);
    assert_memory_equal(&e.rekey[1].bond, &before.rekey[1].bond, sizeof e.rekey[1].bond);
  }
  ephemeral[0]++;
  assert_true(bdk_rekey_asked(&e.rekey[1], &e.seal[1], e.rekey[0].question, ephemeral));
  memcpy(bad, e.rekey[1].answer, sizeof bad);
  bad[40] ^= 1;
  assert_false(bdk_rekey_answered(&e.rekey[0], &e.seal[0], bad));
  assert_memory_equal(&e.seal[0], &before.seal[0], sizeof e.seal[0]);
}

// --- in sessions, on a virtual wire

// Traffic of 100 datagrams a second each way over five exchanges, with loss, repeats and reordering or without:
// what arrives arrives once, and where nothing is lost all of it does.
static void sessions_change_keys_under_traffic(void **state) {
  (void)state;
  for (uint64_t seed = 1; seed <= 20; seed++) {
    pair w;
    pair_init(&w, seed, (5 + seed * 7 % 90) * MS);
    bool lossy = seed % 2 == 0;
    assert_int_equal(pair_match(&w, 0, 0), 0);
    assert_int_equal(pair_match(&w, 1, 0), 0);
    pair_run(&w, w.now_us + SECOND);
    w.jitter_us = 100 * MS;
    if (lossy) w.loss_percent = 20, w.twice_percent = 10;
    int sent[2] = {0}, got[2] = {0};
    for (int i = 0; i < 62000; i++) {
      uint8_t n = (uint8_t)i;
      for (int side = 0; side < 2; side++) {
        sent[side] += pair_send(&w, side, &n, 1) == 0;
        got[side] += pair_events(&w, side, BDK_OUT_MESSAGE);
        w.side[side].event_count = 0;
      }
      pair_run(&w, w.now_us + 10 * MS);
    }
    w.jitter_us = 0, w.loss_percent = w.twice_percent = 0;
    pair_run(&w, w.now_us + SECOND);
    for (int side = 0; side < 2; side++) got[side] += pair_events(&w, side, BDK_OUT_MESSAGE);
    for (int side = 0; side < 2; side++) {
      assert_in_range(w.side[side].counters.value[BDK_COUNT_rekeyed], 5, 5);
      if (lossy)
        assert_in_range(got[!side], sent[side] * 3 / 4, sent[side] * 9 / 10);
      else
        assert_int_equal(got[!side], sent[side]);
      assert_int_equal(w.side[side].counters.value[BDK_COUNT_drop_frame], 0);
    }
    pair_free(&w);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(frames_are_those_of_the_document),
      cmocka_unit_test(window_is_a_set_of_1024),
      cmocka_unit_test(no_datagram_is_lost_while_keys_change),
      cmocka_unit_test(an_old_key_is_erased_ten_seconds_after_the_peer_left_it),
      cmocka_unit_test(nobody_opens_what_it_sealed_itself),
      cmocka_unit_test(a_changed_question_or_answer_changes_nothing),
      cmocka_unit_test(sessions_change_keys_under_traffic),
  };
  return cmocka_run_group_tests_name("seal", tests, setup, NULL);
}
