// SPDX-License-Identifier: MIT
// Many pairs in one process: PAIRS of them, or 100. Under ASan and UBSan, and (fewer) under valgrind in the soak.
#include "world.h"

#include <pthread.h>
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

// One thread a node, any number of threads. cmocka's assertions belong to the first: here the result is returned.
static void *pair_in_a_thread(void *unused) {
  (void)unused;
  bdk_node *n[2] = {0};
  bdk_config c = world_config();
  char code[64] = "";
  uint64_t guard_us = world_now() + 10000000;
  unsigned heard = 0;
  c.log = NULL;
  for (int i = 0; i < 2; i++)
    if (bdk_open(&n[i], &c) != 0) return NULL;
  bdk_host(n[0], NULL);
  while (heard != 3 && world_now() < guard_us) {
    struct pollfd fds[2] = {{bdk_fd(n[0]), POLLIN, 0}, {bdk_fd(n[1]), POLLIN, 0}};
    for (int i = 0; i < 2; i++) {
      bdk_update(n[i], BDK_CLOCK, 0);
      for (const bdk_event *e; (e = bdk_next(n[i]));) {
        if (e->kind == BDK_HOSTING) bdk_join(n[1], e->code);
        if (e->kind == BDK_CONNECTED) bdk_send(n[i], e->match, e->peer, 0, code, sizeof code);
        if (e->kind == BDK_MESSAGE) heard |= 1u << i;
      }
    }
    if (heard != 3) poll(fds, 2, 100);
  }
  for (int i = 0; i < 2; i++) bdk_close(n[i]);
  return heard == 3 ? &server_pid : NULL;
}

static void threads_with_nodes_of_their_own_do_not_meet(void **state) {
  (void)state;
  pthread_t threads[8];
  for (int i = 0; i < 8; i++) assert_int_equal(0, pthread_create(&threads[i], NULL, pair_in_a_thread, NULL));
  for (int i = 0; i < 8; i++) {
    void *result = NULL;
    pthread_join(threads[i], &result);
    assert_non_null(result);
  }
}

int main(void) {
  struct rlimit files;
  if (getrlimit(RLIMIT_NOFILE, &files) == 0) { // four descriptors a node
    files.rlim_cur = files.rlim_max < 4096 ? files.rlim_max : 4096;
    setrlimit(RLIMIT_NOFILE, &files);
  }
  const struct CMUnitTest tests[] = {cmocka_unit_test(all_pairs_connect_talk_and_part),
                                     cmocka_unit_test(threads_with_nodes_of_their_own_do_not_meet)};
  return cmocka_run_group_tests_name("pairs", tests, world_start, world_stop);
}
