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

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(consent_cannot_be_given_unasked),
      cmocka_unit_test(consent_is_given_once_an_asking_and_by_the_path_asked),
      cmocka_unit_test(consent_that_is_given_keeps_a_path),
  };
  return cmocka_run_group_tests_name("mux_hostile", tests, setup, NULL);
}
