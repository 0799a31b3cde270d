// SPDX-License-Identifier: MIT
// Datagrams in a stream: cut anywhere, and what is no length.
#include "support.h"

#include "core/carriage.h"
#include "docs.h"

static size_t put(uint8_t *out, uint8_t fill, size_t len) {
  bdk_carriage_head(out, len);
  memset(out + BDK_CARRIAGE_HEAD, fill, len);
  return BDK_CARRIAGE_HEAD + len;
}

static void cut_in_two_anywhere_it_is_the_same(void **state) {
  (void)state;
  uint8_t stream[2 + 5 + 2 + 1 + 2 + 300];
  size_t n = put(stream, 'a', 5);
  n += put(stream + n, 'b', 1);
  n += put(stream + n, 'c', 300);
  static const int lengths[] = {5, 1, 300};
  for (size_t cut = 0; cut <= n; cut++) {
    bdk_carriage c = {0};
    const uint8_t *at = stream, *data;
    int found = 0;
    for (int part = 0; part < 2; part++) {
      const uint8_t *end = part ? stream + n : stream + cut;
      int len;
      while ((len = bdk_carriage_next(&c, &at, end, &data)) > 0) {
        assert_int_equal(lengths[found], len);
        assert_int_equal('a' + found, data[0]);
        assert_int_equal('a' + found, data[len - 1]);
        found++;
      }
      assert_int_equal(0, len);
      assert_ptr_equal(end, at);
    }
    assert_int_equal(3, found);
    assert_int_equal(0, c.have);
  }
}

static void lengths_of_0_and_over_1200_are_none(void **state) {
  (void)state;
  for (int len = 0; len <= UINT16_MAX; len++) {
    for (int whole = 0; whole < 2; whole++) { // both bytes of it at once, or one after the other
      bdk_carriage c = {0};
      uint8_t head[BDK_CARRIAGE_HEAD];
      const uint8_t *at = head, *data;
      bdk_carriage_head(head, (size_t)len);
      if (!whole) assert_int_equal(0, bdk_carriage_next(&c, &at, head + 1, &data));
      int want = len >= 1 && len <= (int)BDK_DATAGRAM_MAX ? 0 : BDK_E_INVALID;
      assert_int_equal(want, bdk_carriage_next(&c, &at, head + 2, &data));
    }
  }
}

static void the_documents_bytes_are_these(void **state) {
  (void)state;
  uint8_t written[10], documented[64];
  bdk_carriage_head(written, 5);
  memcpy(written + 2, "hello", 5);
  bdk_carriage_head(written + 7, 1);
  written[9] = 'x';
  assert_int_equal(sizeof written, docs_hex("carriage", documented, sizeof documented));
  assert_memory_equal(written, documented, sizeof written);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(cut_in_two_anywhere_it_is_the_same),
      cmocka_unit_test(the_documents_bytes_are_these),
      cmocka_unit_test(lengths_of_0_and_over_1200_are_none),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
