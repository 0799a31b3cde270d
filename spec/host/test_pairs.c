// SPDX-License-Identifier: MIT
// Many pairs in one process: PAIRS of them, or 100. Under ASan and UBSan, and (fewer) under valgrind in the soak.
#include "world.h"

#include <sys/resource.h>

static void all_pairs_connect_talk_and_part(void **state) {
  (void)state;
  const char *asked = getenv("PAIRS");
  int pairs = asked ? atoi(asked) : 100, n = 2 * pairs;
  assert_in_range(pairs, 1, 1000);
  peer *p = calloc((size_t)n, sizeof *p);
  world_pairs(p, n);
  for (int i = 0; i < n; i++) {
    assert_string_equal(p[i ^ 1].match, p[i].match);
    assert_string_equal(p[i ^ 1].id, p[i].other);
    assert_int_equal(0, bdk_send(p[i].node, p[i].match, NULL, 0, p[i].id, sizeof p[i].id));
  }
  world_await(p, n, BDK_MESSAGE, 1, n);
  for (int i = 0; i < n; i++) {
    assert_string_equal(p[i ^ 1].id, p[i].text);
    assert_int_equal(1, p[i].seen[BDK_MESSAGE]);
    assert_int_equal(0, p[i].seen[BDK_ERROR]);
  }
  for (int i = 0; i < n; i += 2) assert_int_equal(0, bdk_leave(p[i].node, p[i].match));
  world_await(p, n, BDK_CLOSED, 1, n);
  world_close(p, n);
  free(p);
}

int main(void) {
  struct rlimit files;
  if (getrlimit(RLIMIT_NOFILE, &files) == 0) { // four descriptors a node
    files.rlim_cur = files.rlim_max < 4096 ? files.rlim_max : 4096;
    setrlimit(RLIMIT_NOFILE, &files);
  }
  const struct CMUnitTest tests[] = {cmocka_unit_test(all_pairs_connect_talk_and_part)};
  return cmocka_run_group_tests_name("pairs", tests, world_start, world_stop);
}
