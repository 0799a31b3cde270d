// SPDX-License-Identifier: MIT
// Keys, tests, confirms and frames between peers: against the vectors of docs/PROTOCOL.md, and hostile.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <sodium.h>

#include "../../runtime/core/probe.h"
#include "docs.h"

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

static void print_hex(const char *name, const uint8_t *bytes, size_t len) {
  printf("# %s:", name);
  for (size_t i = 0; i < len; i++) printf(" %02x", bytes[i]);
  printf("\n");
}

// Bytes as made here against the document's; printed when they differ, so that the document can be mended.
static void assert_documented(const char *name, const uint8_t *bytes, size_t len) {
  uint8_t doc[BDK_DATAGRAM_MAX];
  int n = docs_hex(name, doc, sizeof doc);
  if (n != (int)len || memcmp(doc, bytes, len) != 0) {
    print_hex(name, bytes, len);
    fail_msg("docs/PROTOCOL.md, vector %s: %d bytes there, %zu here, or other ones", name, n, len);
  }
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
  assert_memory_equal(a.frame, b.frame, sizeof a.frame);
  assert_documented("key probe 0", a.probe[0], BDK_KEY_LEN);
  assert_documented("key probe 1", a.probe[1], BDK_KEY_LEN);
  assert_documented("key frame 0", a.frame[0], BDK_KEY_LEN);
  assert_documented("key frame 1", a.frame[1], BDK_KEY_LEN);
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

static void frames_are_those_of_the_document(void **state) {
  (void)state;
  uint8_t out[BDK_DATAGRAM_MAX], plain[BDK_DATAGRAM_MAX];
  size_t n = bdk_frame_write(&a, 0x01020304, BDK_FRAME_DATA, 7, (const uint8_t *)"hello", 5, out, sizeof out);
  assert_int_equal(n, 5 + BDK_FRAME_OVERHEAD);
  assert_documented("frame", out, n);
  uint32_t index;
  uint8_t kind;
  uint64_t counter;
  assert_true(bdk_frame_head(out, n, &index, &kind, &counter));
  assert_int_equal(index, 0x01020304);
  assert_int_equal(kind, BDK_FRAME_DATA);
  assert_int_equal(counter, 7);
  assert_true(bdk_frame_open(&b, out, n, plain));
  assert_memory_equal(plain, "hello", 5);
  assert_false(bdk_frame_open(&a, out, n, plain)); // reflected
  for (size_t i = 0; i < n; i++) {
    out[i] ^= 0x20;
    assert_false(bdk_frame_head(out, n, &index, &kind, &counter) && bdk_frame_open(&b, out, n, plain));
    out[i] ^= 0x20;
  }
  for (size_t cut = 0; cut < n; cut++)
    assert_false(bdk_frame_head(out, cut, &index, &kind, &counter) && bdk_frame_open(&b, out, cut, plain));
  assert_int_equal(bdk_frame_write(&a, 1, BDK_FRAME_DATA, (uint64_t)1 << 56, NULL, 0, out, sizeof out), 0);
  assert_int_equal(bdk_frame_write(&a, 1, BDK_FRAME_DATA, 1, out, 100, out, 128), 0);
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

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(keys_are_those_of_the_document),        cmocka_unit_test(probes_are_those_of_the_document),
      cmocka_unit_test(a_probe_is_at_most_100_bytes),          cmocka_unit_test(any_changed_byte_of_a_probe_fails),
      cmocka_unit_test(frames_are_those_of_the_document),      cmocka_unit_test(window_is_a_set_of_1024),
      cmocka_unit_test(a_probe_of_another_version_is_dropped),
  };
  return cmocka_run_group_tests_name("probe", tests, setup, NULL);
}
