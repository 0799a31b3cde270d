// SPDX-License-Identifier: MIT
// The addresses of this machine, whatever they are.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "io/iface.h"

static void the_loopback_interface_is_there(void **state) {
  (void)state;
  bdk_iface all[64];
  int n = bdk_iface_list(all, 64), loopbacks = 0;
  assert_true(n > 0);
  for (int i = 0; i < n && i < 64; i++) {
    assert_true(all[i].addr.family == 4 || all[i].addr.family == 6);
    assert_int_equal(0, all[i].addr.port);
    assert_true(all[i].name[0] != 0);
    if (!all[i].loopback) continue;
    loopbacks++;
    assert_true(strcmp(all[i].name, "lo") == 0);
  }
  assert_true(loopbacks > 0);
}

static void no_more_is_written_than_there_is_room_for(void **state) {
  (void)state;
  bdk_iface two[2];
  memset(two, 0x5a, sizeof two);
  bdk_iface untouched = two[1];
  int n = bdk_iface_list(two, 1);
  assert_true(n >= 1);
  assert_memory_equal(&untouched, &two[1], sizeof untouched);
  assert_int_equal(n, bdk_iface_list(NULL, 0));
}

static void what_is_sent_home_comes_from_home(void **state) {
  (void)state;
  bdk_addr to = {.family = 4, .ip = {127, 0, 0, 2}, .port = 99}, from;
  assert_int_equal(0, bdk_iface_source(&to, &from));
  assert_int_equal(4, from.family);
  assert_int_equal(0, from.port);
  assert_int_equal(127, from.ip[0]);
  bdk_addr none = {.family = 4, .ip = {255, 255, 255, 255}}; // to all there are: not without being allowed to
  assert_true(bdk_iface_source(&none, &from) < 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(the_loopback_interface_is_there),
      cmocka_unit_test(what_is_sent_home_comes_from_home),
      cmocka_unit_test(no_more_is_written_than_there_is_room_for),
  };
  return cmocka_run_group_tests_name("iface", tests, NULL, NULL);
}
