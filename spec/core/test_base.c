// SPDX-License-Identifier: MIT
#include "support.h"

#include "core/counter.h"

static void errors_have_name_text_and_exit_code(void **state) {
  (void)state;
#define X(NAME, value, name, exit, text)                                                                               \
  assert_int_equal(BDK_E_##NAME, value);                                                                               \
  assert_string_equal(bdk_error_name(value), name);                                                                    \
  assert_string_equal(bdk_error_text(value), text);                                                                    \
  assert_int_equal(bdk_error_from_name(name), value);                                                                  \
  assert_int_equal(bdk_error_exit(value), exit);
  BDK_ERRORS(X)
#undef X
}

static void no_error_is_ok(void **state) {
  (void)state;
  assert_string_equal(bdk_error_name(0), "ok");
  assert_int_equal(bdk_error_from_name("ok"), 0);
  assert_int_equal(bdk_error_exit(0), 0);
}

static void a_value_that_is_none_of_ours(void **state) {
  static const int values[] = {1, -1, -999, -1099, INT32_MIN, INT32_MAX};
  (void)state;
  for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
    assert_string_equal(bdk_error_name(values[i]), "invalid");
    assert_non_null(bdk_error_text(values[i]));
    assert_int_equal(bdk_error_exit(values[i]), 1);
  }
  assert_int_equal(bdk_error_from_name("nonsense"), 0);
  assert_int_equal(bdk_error_from_name(""), 0);
  assert_int_equal(bdk_error_from_name(NULL), 0);
}

static void check_table(int count, const char *(*name)(int), const char *(*text)(int)) {
  assert_null(name(-1));
  assert_null(text(-1));
  assert_null(name(count));
  assert_null(text(count));
  for (int i = 0; i < count; i++) {
    assert_true(strlen(text(i)) > 8);
    for (int j = 0; j < i; j++) assert_string_not_equal(name(i), name(j));
  }
}

static void counters_and_reasons_each_have_a_sentence(void **state) {
  (void)state;
  check_table(BDK_COUNTER_COUNT, bdk_counter_name, bdk_counter_text);
  check_table(BDK_REASON_COUNT, bdk_reason_name, bdk_reason_text);
  assert_string_equal(bdk_counter_name(BDK_COUNT_drop_field), "drop_field");
  assert_string_equal(bdk_reason_name(BDK_REASON_no_path), "no_path");
}

static void counting(void **state) {
  bdk_counters c = {0};
  (void)state;
  bdk_count(&c, BDK_COUNT_udp_rx_bytes, 5);
  bdk_count(&c, BDK_COUNT_udp_rx_bytes, 7);
  assert_int_equal(c.value[BDK_COUNT_udp_rx_bytes], 12);
  bdk_count(NULL, BDK_COUNT_udp_rx, 1);
  assert_int_not_equal(BDK_COUNT_drop_short, 0); // message.h gives causes as negated indices
  assert_int_not_equal(BDK_COUNT_drop_msgpack, 0);
  assert_int_not_equal(BDK_COUNT_drop_field, 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(errors_have_name_text_and_exit_code),
      cmocka_unit_test(no_error_is_ok),
      cmocka_unit_test(a_value_that_is_none_of_ours),
      cmocka_unit_test(counters_and_reasons_each_have_a_sentence),
      cmocka_unit_test(counting),
  };
  return cmocka_run_group_tests_name("core/base", tests, NULL, NULL);
}
