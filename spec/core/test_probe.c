// SPDX-License-Identifier: MIT
// Keys, tests and confirms between peers: against the vectors of docs/PROTOCOL.md, and hostile.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <sodium.h>

#include "../../runtime/core/probe.h"
#include "documented.h"

static uint8_t match[BDK_MATCH_LEN], key[BDK_KEY_LEN], low[BDK_ID_LEN], high[BDK_ID_LEN];
static bdk_keys a, b; // a controls

static int setup(void **state) {
  (void)state;
  for (unsigned i = 0; i < sizeof match; i++) match[i] = (uint8_t)(0x10 + i);
  for (unsigned i = 0; i < sizeof key; i++) key[i] = (uint8_t)(0x40 + i);
  memset(low, 0x01, sizeof low);
  memset(high, 0x02, sizeof high);
  bdk_keys_init(&a, match, key, low, high);
  bdk_keys_init(&b, match, key, high, low);
  return 0;
}

static bdk_probe sample(bool confirm) {
  bdk_probe p = {.epoch = 0, .rx_index = 0xAABBCCDD, .nonce = {0xE0, 0xE1, 0xE2, 0xE3, 0xE4, 0xE5, 0xE6, 0xE7}};
  p.confirm = confirm;
  bdk_addr_parse(&p.origin, "203.0.113.7:40000", 17, 0);
  return p;
}

static void keys_are_those_of_the_document(void **state) {
  (void)state;
  assert_int_equal(a.role, 0);
  assert_int_equal(b.role, 1);
  assert_memory_equal(a.probe, b.probe, sizeof a.probe);
  assert_documented("key probe 0", a.probe[0], BDK_KEY_LEN);
  assert_documented("key probe 1", a.probe[1], BDK_KEY_LEN);
}

static void probes_are_those_of_the_document(void **state) {
  (void)state;
  uint8_t out[BDK_PROBE_MAX];
  bdk_probe test = sample(false), confirm = sample(true), read;
  size_t n = bdk_probe_write(&a, &test, out, sizeof out);
  assert_documented("test", out, n);
  assert_int_equal(bdk_probe_read(&read, out, n), 0);
  assert_true(bdk_probe_authentic(&b, &read, out, n));
  assert_false(bdk_probe_authentic(&a, &read, out, n)); // reflected
  assert_int_equal(read.rx_index, 0xAABBCCDD);
  n = bdk_probe_write(&b, &confirm, out, sizeof out);
  assert_documented("confirm", out, n);
  assert_int_equal(bdk_probe_read(&read, out, n), 0);
  assert_true(read.confirm);
  assert_true(bdk_addr_equal(&read.origin, &confirm.origin));
  assert_true(bdk_probe_authentic(&a, &read, out, n));
}

static void a_probe_is_at_most_100_bytes(void **state) {
  (void)state;
  uint8_t out[BDK_PROBE_MAX];
  bdk_probe p = {.epoch = UINT32_MAX, .rx_index = UINT32_MAX};
  assert_in_range(bdk_probe_write(&a, &p, out, sizeof out), 1, 64);
  p.confirm = true;
  bdk_addr_parse(&p.origin, "[2001:db8::1]:65535", 19, 0);
  assert_in_range(bdk_probe_write(&a, &p, out, sizeof out), 1, BDK_PROBE_MAX);
  assert_int_equal(bdk_probe_write(&a, &p, out, 20), 0);
}

static void any_changed_byte_of_a_probe_fails(void **state) {
  (void)state;
  for (int confirm = 0; confirm < 2; confirm++) {
    uint8_t out[BDK_PROBE_MAX];
    bdk_probe p = sample(confirm), read;
    size_t n = bdk_probe_write(&a, &p, out, sizeof out);
    for (size_t i = 0; i < n; i++)
      for (int v = 1; v < 256; v++) {
        out[i] ^= (uint8_t)v;
        bool accepted = bdk_probe_read(&read, out, n) == 0 && bdk_probe_authentic(&b, &read, out, n);
        out[i] ^= (uint8_t)v;
        assert_false(accepted);
      }
    for (size_t cut = 0; cut < n; cut++) assert_int_not_equal(bdk_probe_read(&read, out, cut), 0);
  }
}

// Authentic, of another version: its first byte of the version says which, the rest are features.
static void a_probe_of_another_version_is_dropped(void **state) {
  (void)state;
  uint8_t out[BDK_PROBE_MAX + 2];
  bdk_probe p = sample(false), read;
  size_t n = bdk_probe_write(&a, &p, out, sizeof out);
  out[2] = 2;
  crypto_generichash(out + n - 16, 16, out, n - 16, a.probe[0], BDK_KEY_LEN);
  assert_int_equal(bdk_probe_read(&read, out, n), -BDK_COUNT_drop_version);
  memmove(out + 5, out + 3, n - 3);
  memcpy(out + 2, "\xcd\x07\x01", 3); // version 1 with features
  n += 2;
  crypto_generichash(out + n - 16, 16, out, n - 16, a.probe[0], BDK_KEY_LEN);
  assert_int_equal(bdk_probe_read(&read, out, n), 0);
  assert_true(bdk_probe_authentic(&b, &read, out, n));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(keys_are_those_of_the_document),        cmocka_unit_test(probes_are_those_of_the_document),
      cmocka_unit_test(a_probe_is_at_most_100_bytes),          cmocka_unit_test(any_changed_byte_of_a_probe_fails),
      cmocka_unit_test(a_probe_of_another_version_is_dropped),
  };
  return cmocka_run_group_tests_name("probe", tests, setup, NULL);
}
