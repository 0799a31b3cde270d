// SPDX-License-Identifier: MIT
// The registry with many entries: what each takes in bytes, and in time as this was built.
#include "registry.h"

#include <time.h>

static double seconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void a_hundred_thousand_entries(void **state) {
  enum { MANY = 100000 };
  static const char props[] = "\x82\xa4mode\xa4rank\xa5skill\xcd\x05\xdc";
  spec_heap heap = {0};
  bdk_registry *r = registry(&heap, MANY);
  static uint8_t id[16], addrs[24], cursor[16];
  bdk_entry e = {.id = id,
                 .key = some_key,
                 .app = (const uint8_t *)"chess",
                 .app_len = 5,
                 .name = (const uint8_t *)"player",
                 .name_len = 6,
                 .props = (const uint8_t *)props,
                 .props_len = sizeof props - 1,
                 .addrs = addrs,
                 .addrs_len = sizeof addrs};
  size_t payload = BDK_ID_LEN + sizeof some_key + e.app_len + e.name_len + e.props_len + e.addrs_len;
  uint32_t budget = UINT32_MAX, seen = 0;
  double t[6];
  (void)state;
  t[0] = seconds();
  for (uint32_t n = 0; n < MANY; n++) make_id(id, n), e.expires_us = n, assert_int_equal(bdk_registry_put(r, &e), 0);
  t[1] = seconds();
  size_t bytes = heap.bytes;
  for (uint32_t n = 0; n < MANY; n++) assert_true(has(r, n));
  t[2] = seconds();
  for (uint32_t n = 0; n < MANY; n++)
    make_id(id, n), e.expires_us = MANY + n, assert_int_equal(bdk_registry_put(r, &e), 0);
  t[3] = seconds();
  for (const uint8_t *at = NULL; bdk_registry_after(r, at, NULL, 0, NULL, 0, &budget, &e) == 1; seen++)
    memcpy(cursor, e.id, 16), at = cursor;
  t[4] = seconds();
  assert_int_equal(seen, MANY);
  for (uint32_t n = 0; n < MANY; n++) {
    uint8_t gone[16];
    make_id(id, n);
    assert_true(bdk_registry_expire(r, MANY + n, gone));
    assert_memory_equal(gone, id, 16);
  }
  t[5] = seconds();
  print_message("# %d entries of %zu bytes: %zu bytes each; ns each: put %.0f, get %.0f, refresh %.0f, next %.0f, "
                "expire %.0f (as this was built)\n",
                MANY, payload, bytes / MANY, (t[1] - t[0]) * 1e9 / MANY, (t[2] - t[1]) * 1e9 / MANY,
                (t[3] - t[2]) * 1e9 / MANY, (t[4] - t[3]) * 1e9 / MANY, (t[5] - t[4]) * 1e9 / MANY);
  assert_true(bytes / MANY < 200);
  assert_int_equal(bdk_registry_count(r), 0);
  bdk_registry_free(r);
  assert_int_equal(heap.bytes, 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(a_hundred_thousand_entries)};
  return cmocka_run_group_tests_name("core/registry, many", tests, NULL, NULL);
}
