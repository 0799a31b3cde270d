// SPDX-License-Identifier: MIT
// Queries against properties, in a text that is turned into msgpack here: JSON without escapes.
#include "core/query.h"

#include "support.h"

static const char *text;

static void put_value(bdk_packer *p);

static void put_items(bdk_packer *p, char close) {
  uint8_t inner[1024];
  bdk_packer q = bdk_packer_init(inner, sizeof inner);
  uint32_t n = 0;
  text++;
  while (*text != close) {
    put_value(&q);
    n++;
    while (*text == ',' || *text == ':' || *text == ' ') text++;
  }
  text++;
  if (close == ']')
    bdk_pack_array(p, n);
  else
    bdk_pack_map(p, n / 2);
  bdk_pack_raw(p, inner, q.len);
}

static void put_value(bdk_packer *p) {
  while (*text == ' ') text++;
  if (*text == '[') return put_items(p, ']');
  if (*text == '{') return put_items(p, '}');
  if (*text == '"') {
    const char *end = strchr(++text, '"');
    bdk_pack_str(p, text, (size_t)(end - text));
    text = end + 1;
    return;
  }
  if (*text == 't' || *text == 'f') {
    bdk_pack_bool(p, *text == 't');
    text += *text == 't' ? 4 : 5;
    return;
  }
  char *end;
  size_t len = strcspn(text, ",]} ");
  if (memchr(text, '.', len) || memchr(text, 'n', len) || memchr(text, 'e', len)) // also nan, inf
    bdk_pack_float(p, strtod(text, &end));
  else if (*text == '-')
    bdk_pack_int(p, strtoll(text, &end, 10));
  else
    bdk_pack_uint(p, strtoull(text, &end, 10));
  text = end;
}

static size_t packed(const char *json, uint8_t *buf, size_t cap) {
  bdk_packer p = bdk_packer_init(buf, cap);
  text = json;
  put_value(&p);
  assert_false(p.overflow);
  assert_true(bdk_wire_check(buf, p.len));
  return p.len;
}

static bool finds(const char *query, const char *props) {
  uint8_t q[1024], m[1024];
  size_t q_len = packed(query, q, sizeof q), m_len = packed(props, m, sizeof m);
  uint8_t *exact_q = spec_exact(q, q_len), *exact_m = spec_exact(m, m_len);
  bdk_query_fault fault = {0};
  if (bdk_query_check(exact_q, q_len, &fault) < 0) fail_msg("%s: %s", query, fault.why);
  bool found = bdk_query_matches(exact_q, q_len, exact_m, m_len);
  free(exact_q);
  free(exact_m);
  return found;
}

static void operators_mean_what_the_document_says(void **state) {
  (void)state;
  static const struct {
    const char *query, *props;
    bool found;
  } cases[] = {
      {"{}", "{\"a\":1}", true},
      {"{\"a\":1}", "{\"a\":1,\"b\":2}", true},
      {"{\"a\":1,\"b\":3}", "{\"a\":1,\"b\":2}", false},
      {"[\"=\",\"a\",1]", "{\"a\":1}", true},
      {"[\"=\",\"a\",1.0]", "{\"a\":1}", true},
      {"[\"=\",\"a\",\"x\"]", "{\"a\":\"x\"}", true},
      {"[\"=\",\"a\",[1,{\"k\":true}]]", "{\"a\":[1,{\"k\":true}]}", true},
      {"[\"=\",\"a\",1]", "{\"b\":1}", false},
      {"[\"!=\",\"a\",1]", "{\"b\":1}", true},
      {"[\"!=\",\"a\",1]", "{\"a\":1.0}", false},
      {"[\"!=\",\"a\",1]", "{\"a\":\"1\"}", true},
      {"[\"<\",\"a\",5]", "{\"a\":-3}", true},
      {"[\"<\",\"a\",5]", "{\"a\":5}", false},
      {"[\"<=\",\"a\",5]", "{\"a\":5.0}", true},
      {"[\">\",\"a\",4.5]", "{\"a\":5}", true},
      {"[\">\",\"a\",-4.5]", "{\"a\":-4}", true},
      {"[\">\",\"a\",-4]", "{\"a\":-4.5}", false},
      {"[\">=\",\"a\",-4]", "{\"a\":-4}", true},
      {"[\">=\",\"a\",18446744073709551615]", "{\"a\":18446744073709551615}", true},
      {"[\">\",\"a\",18446744073709551614]", "{\"a\":18446744073709551615}", true},
      {"[\"<\",\"a\",18446744073709551616.0]", "{\"a\":18446744073709551615}", true},
      {"[\">\",\"a\",9007199254740992.0]", "{\"a\":9007199254740993}", true},
      {"[\"<\",\"a\",-9223372036854775807]", "{\"a\":-9223372036854775808}", true},
      {"[\">\",\"a\",-1e300]", "{\"a\":-9223372036854775808}", true},
      {"[\"<\",\"a\",nan]", "{\"a\":1}", false},
      {"[\">=\",\"a\",1]", "{\"a\":nan}", false},
      {"[\"<\",\"a\",\"b\"]", "{\"a\":\"abc\"}", true},
      {"[\"<\",\"a\",\"ab\"]", "{\"a\":\"abc\"}", false},
      {"[\"<\",\"a\",\"5\"]", "{\"a\":3}", false},
      {"[\">\",\"a\",3]", "{\"a\":true}", false},
      {"[\"in\",\"a\",[1,\"x\",2.5]]", "{\"a\":\"x\"}", true},
      {"[\"in\",\"a\",[1,\"x\",2.5]]", "{\"a\":1.0}", true},
      {"[\"in\",\"a\",[1,\"x\",2.5]]", "{\"a\":\"y\"}", false},
      {"[\"in\",\"a\",[]]", "{\"a\":1}", false},
      {"[\"range\",\"a\",1,3]", "{\"a\":3}", true},
      {"[\"range\",\"a\",1,3]", "{\"a\":0.99}", false},
      {"[\"range\",\"a\",1,3]", "{\"a\":3.01}", false},
      {"[\"range\",\"a\",\"a\",\"c\"]", "{\"a\":\"bb\"}", true},
      {"[\"and\"]", "{}", true},
      {"[\"or\"]", "{}", false},
      {"[\"and\",[\">=\",\"mmr\",1000],[\"in\",\"mode\",[\"a\",\"b\"]]]", "{\"mmr\":1200,\"mode\":\"b\"}", true},
      {"[\"and\",[\">=\",\"mmr\",1000],[\"in\",\"mode\",[\"a\",\"b\"]]]", "{\"mmr\":900,\"mode\":\"b\"}", false},
      {"[\"or\",[\"=\",\"a\",1],[\"and\",[\"=\",\"b\",2],{\"c\":3}]]", "{\"b\":2,\"c\":3}", true},
      {"[\"or\",[\"and\",[\"=\",\"a\",1],[\"=\",\"a\",1]],[\"=\",\"b\",2]]", "{\"b\":2}", true},
      {"[\"not\",[\"or\",[\"=\",\"a\",1],[\"=\",\"a\",2]]]", "{\"a\":2}", false},
      {"[\"not\",[\"not\",{\"a\":2}]]", "{\"a\":2}", true},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
    if (finds(cases[i].query, cases[i].props) != cases[i].found) fail_msg("%s on %s", cases[i].query, cases[i].props);
}

static void what_is_wrong_is_said_with_where(void **state) {
  (void)state;
  static const struct {
    const char *query, *why;
    uint8_t depth;
    uint32_t at[3];
  } cases[] = {
      {"1", "neither map nor list", 0, {0}},
      {"[]", "an empty list", 0, {1}},
      {"[\"like\",\"a\",1]", "no such operator", 1, {1}},
      {"[1]", "no such operator", 1, {1}},
      {"[\"=\",\"a\"]", "too few or too many", 0, {1}},
      {"[\"not\",{},{}]", "too few or too many", 0, {1}},
      {"[\"=\",1,1]", "no property's name", 1, {2}},
      {"[\"and\",{},[\"<\",\"a\",true]]", "no number and no text", 2, {3, 3}},
      {"[\"and\",[\"or\",[\"in\",\"a\",1]]]", "no list of values", 3, {2, 2, 3}},
      {"[\"range\",\"a\",1,\"x\"]", "not of the other's kind", 1, {4}},
      {"[\"not\",7]", "neither map nor list", 1, {2}},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    uint8_t q[256];
    size_t len = packed(cases[i].query, q, sizeof q);
    bdk_query_fault fault = {0};
    assert_int_equal(-1, bdk_query_check(q, len, &fault));
    assert_string_equal(cases[i].why, fault.why);
    assert_int_equal(cases[i].depth, fault.depth);
    for (uint8_t k = 0; k < fault.depth; k++) assert_int_equal(cases[i].at[k], fault.at[k]);
    assert_true(strlen(fault.why) <= 24);
  }
}

static void comparisons_are_counted_and_bounded(void **state) {
  (void)state;
  uint8_t q[1024];
  size_t len = packed("[\"and\",{\"a\":1,\"b\":2},[\"in\",\"c\",[1,2,3]],[\"range\",\"d\",1,2]]", q, sizeof q);
  assert_int_equal(2 + 4 + 1, bdk_query_check(q, len, NULL));
  bdk_packer p = bdk_packer_init(q, sizeof q);
  for (uint32_t n = 63; n <= 64; n++) {
    p.len = 0;
    bdk_pack_array(&p, 3);
    bdk_pack_str(&p, "in", 2);
    bdk_pack_str(&p, "a", 1);
    bdk_pack_array(&p, n);
    for (uint32_t i = 0; i < n; i++) bdk_pack_uint(&p, i);
    bdk_query_fault fault;
    assert_int_equal(n == 63 ? 64 : -1, bdk_query_check(q, p.len, &fault));
  }
}

// Whatever is not a query, nothing reads beyond it.
static void bytes_that_are_none_do_no_harm(void **state) {
  (void)state;
  uint8_t q[256];
  size_t len = packed("[\"and\",{\"a\":1},[\"not\",[\"in\",\"c\",[1,2,3]]],[\"range\",\"d\",1,2]]", q, sizeof q);
  for (size_t cut = 0; cut < len; cut++) {
    uint8_t *exact = spec_exact(q, cut);
    bdk_query_fault fault;
    assert_int_equal(-1, bdk_query_check(exact, cut, &fault));
    free(exact);
  }
  for (size_t i = 0; i < len; i++) {
    for (int b = 0; b < 256; b++) {
      uint8_t *exact = spec_exact(q, len);
      exact[i] = (uint8_t)b;
      if (bdk_wire_check(exact, len) && bdk_query_check(exact, len, NULL) >= 0)
        bdk_query_matches(exact, len, (const uint8_t *)"\x80", 1);
      free(exact);
    }
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(operators_mean_what_the_document_says),
      cmocka_unit_test(what_is_wrong_is_said_with_where),
      cmocka_unit_test(comparisons_are_counted_and_bounded),
      cmocka_unit_test(bytes_that_are_none_do_no_harm),
  };
  return cmocka_run_group_tests_name("query", tests, NULL, NULL);
}
