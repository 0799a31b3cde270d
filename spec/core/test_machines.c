// SPDX-License-Identifier: MIT
// The two transition tables stand in docs/PROTOCOL.md as they are in the code. `--print` writes them.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "../../runtime/core/session.h"
#include "docs.h"

static const char *const path_events[] = {"start", "test", "confirm", "fail", "revive"};
static const char *const session_events[] = {"start", "heard", "lost", "close", "give_up"};

static void print_table(char *out, size_t cap, const uint8_t *table, int states, int events, const char *(*name)(int),
                        const char *const *event_names) {
  size_t n = (size_t)snprintf(out, cap, "| state |");
  for (int e = 0; e < events; e++) n += (size_t)snprintf(out + n, cap - n, " %s |", event_names[e]);
  n += (size_t)snprintf(out + n, cap - n, "\n|---|");
  for (int e = 0; e < events; e++) n += (size_t)snprintf(out + n, cap - n, "---|");
  for (int s = 0; s < states; s++) {
    n += (size_t)snprintf(out + n, cap - n, "\n| %s |", name(s));
    for (int e = 0; e < events; e++) {
      int next = table[s * events + e];
      n += (size_t)snprintf(out + n, cap - n, " %s |", next == s ? "·" : name(next));
    }
  }
  snprintf(out + n, cap - n, "\n");
}

static void tables(char path[2048], char session[2048]) {
  print_table(path, 2048, &bdk_path_table[0][0], BDK_PATH_STATES, BDK_PATH_EVENTS, bdk_path_state_name, path_events);
  print_table(session, 2048, &bdk_session_table[0][0], BDK_SESSION_STATES, BDK_SESSION_EVENTS, bdk_session_state_name,
              session_events);
}

static void tables_stand_in_the_document(void **state) {
  (void)state;
  char path[2048], session[2048];
  tables(path, session);
  assert_true(docs_contain(path));
  assert_true(docs_contain(session));
}

static void closed_and_frozen_are_what_they_say(void **state) {
  (void)state;
  for (int e = 0; e < BDK_SESSION_EVENTS; e++)
    assert_int_equal(bdk_session_table[BDK_SESSION_CLOSED][e], BDK_SESSION_CLOSED);
  for (int s = 0; s < BDK_PATH_STATES; s++)
    assert_int_not_equal(bdk_path_table[s][BDK_PATH_TEST], BDK_PATH_PROBING);           // what is heard is usable
  assert_int_equal(bdk_path_table[BDK_PATH_FROZEN][BDK_PATH_CONFIRM], BDK_PATH_FROZEN); // nothing was asked yet
}

static void the_schedule_is_the_documents(void **state) {
  (void)state;
  static const uint64_t expected_ms[] = {0, 20, 40, 80, 160, 320};
  bdk_path p;
  bdk_path_init(&p, &(bdk_route){0}, BDK_VIA_SRFLX, true);
  assert_int_equal(bdk_path_on(&p, BDK_PATH_START, 1000000), BDK_PATH_PROBING);
  uint8_t nonce[BDK_NONCE_LEN] = {0};
  for (unsigned i = 0; i < 6; i++) {
    assert_int_equal(p.due_us, 1000000 + expected_ms[i] * 1000);
    bdk_path_tested(&p, nonce, p.due_us, 0);
  }
  assert_int_equal(p.due_us, 1320000 + 450000);
  bdk_path_tested(&p, nonce, p.due_us, 65535);
  assert_in_range(p.due_us - (1320000 + 450000), 549000, 550000);
}

static void an_answer_counts_once_in_time_and_from_there(void **state) {
  (void)state;
  bdk_addr there = {.ip = {198, 51, 100, 2}, .port = 2, .family = 4}, elsewhere = there;
  elsewhere.port = 3;
  const uint8_t nonce[BDK_NONCE_LEN] = {1}, zero[BDK_NONCE_LEN] = {0};
  bdk_path p;
  bdk_path_init(&p, &(bdk_route){.remote = there}, BDK_VIA_SRFLX, true);
  assert_false(bdk_path_answered(&p, zero, &there, 1)); // nothing was asked
  bdk_path_on(&p, BDK_PATH_START, 1);
  bdk_path_asked(&p, nonce, 1000);
  assert_false(bdk_path_answered(&p, nonce, &elsewhere, 2000));
  assert_false(bdk_path_answered(&p, nonce, &there, 1001 + BDK_PATH_ANSWER_US));
  assert_true(bdk_path_answered(&p, nonce, &there, 1000 + BDK_PATH_ANSWER_US));
  assert_false(bdk_path_answered(&p, nonce, &there, 2000));
  for (uint8_t i = 0; i <= BDK_PATH_NONCES; i++) bdk_path_asked(&p, (const uint8_t[BDK_NONCE_LEN]){2, i}, 3000u + i);
  assert_false(bdk_path_answered(&p, (const uint8_t[BDK_NONCE_LEN]){2, 0}, &there, 4000)); // forgotten
  assert_true(bdk_path_answered(&p, (const uint8_t[BDK_NONCE_LEN]){2, 1}, &there, 4000));
  bdk_path_fail(&p, BDK_REASON_no_answer, 5000);
  assert_false(bdk_path_answered(&p, (const uint8_t[BDK_NONCE_LEN]){2, 2}, &there, 5000)); // given up is given up
}

static void a_late_tick_does_not_bunch_tests(void **state) {
  (void)state;
  bdk_path p;
  bdk_path_init(&p, &(bdk_route){0}, BDK_VIA_SRFLX, true);
  bdk_path_on(&p, BDK_PATH_START, 1000000);
  for (unsigned i = 0; i < 5; i++) {
    uint64_t late = 9000000 + p.due_us;
    bdk_path_tested(&p, (const uint8_t[BDK_NONCE_LEN]){0}, late, 0);
    assert_int_equal(p.due_us, late + 5000);
  }
}

// Where one alone talks, a valid path is tested for as long as it does.
static void a_path_may_be_tested_for_days(void **state) {
  (void)state;
  bdk_path p;
  bdk_path_init(&p, &(bdk_route){0}, BDK_VIA_SRFLX, true);
  bdk_path_on(&p, BDK_PATH_START, 1000000);
  for (unsigned i = 0; i < 70000; i++) {
    uint64_t at = p.due_us;
    bdk_path_tested(&p, (const uint8_t[BDK_NONCE_LEN]){0}, at, 0);
    assert_true(p.due_us > at && p.due_us < at + 1000000);
  }
  assert_true(p.attempt > 10);
}

static void only_who_was_heard_is_sent_frames(void **state) {
  (void)state;
  bdk_path p;
  bdk_path_init(&p, &(bdk_route){0}, BDK_VIA_SRFLX, true);
  p.rx_bytes = 1000;
  assert_false(bdk_path_may_send(&p, 10));
  bdk_path_on(&p, BDK_PATH_START, 1);
  assert_false(bdk_path_may_send(&p, 10));
  bdk_path_on(&p, BDK_PATH_TEST, 2);
  assert_true(bdk_path_may_send(&p, 10));
  p.listed = false;
  p.tx_bytes = 2000;
  assert_true(bdk_path_may_send(&p, 1000));
  assert_false(bdk_path_may_send(&p, 1001));
  p.valid_us = 1; // it did confirm once
  assert_true(bdk_path_may_send(&p, 1001));
  bdk_path_fail(&p, BDK_REASON_no_answer, 3);
  assert_false(bdk_path_may_send(&p, 10));
}

// Asks at *now_us; answered after rtt_us, 0: never.
static void ask(bdk_path *p, uint64_t *now_us, uint32_t rtt_us) {
  uint8_t nonce[BDK_NONCE_LEN];
  memcpy(nonce, now_us, sizeof nonce);
  bdk_path_asked(p, nonce, *now_us);
  if (rtt_us) assert_true(bdk_path_answered(p, nonce, &p->route.remote, *now_us + rtt_us));
  *now_us += 1000000;
}

static void a_path_tells_its_jitter_and_loss(void **state) {
  (void)state;
  bdk_route route = {.remote = {.ip = {192, 0, 2, 1}, .port = 9, .family = 4}};
  bdk_path p;
  uint64_t now_us = 1000;
  bdk_path_init(&p, &route, BDK_VIA_SRFLX, true);
  bdk_path_on(&p, BDK_PATH_START, 0);
  for (int i = 0; i < 5; i++) ask(&p, &now_us, 0); // while it is sought, silence is no loss
  bdk_path_on(&p, BDK_PATH_CONFIRM, now_us);
  assert_int_equal(bdk_path_loss(&p), 0);
  for (int i = 0; i < 10; i++) ask(&p, &now_us, 40000);
  assert_int_equal(bdk_path_loss(&p), 0);
  assert_int_equal(p.jitter_us, 0);
  ask(&p, &now_us, 0);
  assert_int_equal(bdk_path_loss(&p), 0); // it may still come
  ask(&p, &now_us, 56000);
  assert_int_equal(bdk_path_loss(&p), 1000 / 12);
  assert_int_equal(p.jitter_us, 1000); // a sixteenth of 16 ms
  ask(&p, &now_us, 40000);
  assert_int_equal(p.jitter_us, 1000 - 62 + 1000);
  for (int i = 0; i < 30; i++) ask(&p, &now_us, i % 2 ? 40000 : 0);
  assert_int_equal(bdk_path_loss(&p), 16 * 1000 / 43);
}

int main(int argc, char **argv) {
  if (argc > 1 && strcmp(argv[1], "--print") == 0) {
    char path[2048], session[2048];
    tables(path, session);
    printf("%s\n%s", path, session);
    return 0;
  }
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(tables_stand_in_the_document),
      cmocka_unit_test(closed_and_frozen_are_what_they_say),
      cmocka_unit_test(the_schedule_is_the_documents),
      cmocka_unit_test(an_answer_counts_once_in_time_and_from_there),
      cmocka_unit_test(a_late_tick_does_not_bunch_tests),
      cmocka_unit_test(a_path_may_be_tested_for_days),
      cmocka_unit_test(only_who_was_heard_is_sent_frames),
      cmocka_unit_test(a_path_tells_its_jitter_and_loss),
  };
  return cmocka_run_group_tests_name("machines", tests, NULL, NULL);
}
