// SPDX-License-Identifier: MIT
#include "support.h"

#include <arpa/inet.h>

#include "core/addr.h"

static bdk_addr parse(const char *text) {
  bdk_addr a;
  if (bdk_addr_parse(&a, text, strlen(text), 7) != 0) fail_msg("'%s' was refused", text);
  return a;
}

static void accepts_and_prints_the_shortest_form(void **state) {
  static const char *const cases[][2] = {
      {"1.2.3.4", "1.2.3.4:7"},
      {"1.2.3.4:5", "1.2.3.4:5"},
      {"1.2.3.4:0", "1.2.3.4:0"},
      {"0.0.0.0:65535", "0.0.0.0:65535"},
      {"255.255.255.255", "255.255.255.255:7"},
      {"::", "[::]:7"},
      {"::1", "[::1]:7"},
      {"[::1]", "[::1]:7"},
      {"[::1]:5", "[::1]:5"},
      {"1::", "[1::]:7"},
      {"::1:5", "[::1:5]:7"},
      {"::ffff:1.2.3.4", "1.2.3.4:7"},
      {"[::ffff:1.2.3.4]:9", "1.2.3.4:9"},
      {"::FFFF:102:304", "1.2.3.4:7"},
      {"64:ff9b::1.2.3.4", "[64:ff9b::102:304]:7"},
      {"1:2:3:4:5:6:1.2.3.4", "[1:2:3:4:5:6:102:304]:7"},
      {"fe80::1%3", "[fe80::1%3]:7"},
      {"[fe80::1%3]:5", "[fe80::1%3]:5"},
      {"[fe80::1%4294967295]:5", "[fe80::1%4294967295]:5"},
      {"2001:DB8::A", "[2001:db8::a]:7"},
      {"2001:0db8:0000:0000:0001:0000:0000:0001", "[2001:db8::1:0:0:1]:7"}, // RFC 5952 4.2.3: the first run
      {"2001:db8:0:0:1:0:0:0", "[2001:db8:0:0:1::]:7"},                     // the longest run
      {"2001:db8:0:1:1:1:1:1", "[2001:db8:0:1:1:1:1:1]:7"},                 // 4.2.2: not for one group
      {"1:2:3:4:5:6:7::", "[1:2:3:4:5:6:7:0]:7"},
      {"::2:3:4:5:6:7:8", "[0:2:3:4:5:6:7:8]:7"},
      {"1:0:0:4:0:0:0:8", "[1:0:0:4::8]:7"},
  };
  (void)state;
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    bdk_addr a = parse(cases[i][0]), again;
    char text[BDK_ADDR_TEXT_MAX];
    assert_int_equal(bdk_addr_format(&a, text), strlen(cases[i][1]));
    assert_string_equal(text, cases[i][1]);
    again = parse(text);
    assert_memory_equal(&a, &again, sizeof a);
  }
}

static void refuses_what_is_no_address(void **state) {
  static const char *const cases[] = {
      "",
      " ",
      "1",
      "1.2.3",
      "1.2.3.",
      "1.2.3.4.",
      "1.2.3.4.5",
      "1.2.3.256",
      "01.2.3.4",
      "1.2.3.04",
      "1.2.3.4:",
      "1.2.3.4:99999",
      "1.2.3.4:65536",
      "1.2.3.4:-1",
      "1.2.3.4:05",
      "1.2.3.4:5 ",
      " 1.2.3.4",
      "1.2.3.4:5:6",
      "-1.2.3.4",
      "1..2.3",
      "1.2.3.4%1",
      "[",
      "[]",
      "[]:5",
      "[::1",
      "[::1]5",
      "[::1]:",
      "[::1]:99999",
      "::1]",
      "[1.2.3.4]:5",
      "[1.2.3.4]",
      ":",
      ":::",
      "1:2:3:4:5:6:7",
      "1:2:3:4:5:6:7:8:9",
      "1::2::3",
      "12345::",
      "::g",
      "::1.2.3",
      "::1.2.3.4.5",
      "1.2.3.4::",
      "::1.2.3.4:1",
      "1:",
      ":1",
      "1:2:3:4:5:6:7:1.2.3.4",
      "1:2:3:4::5:6:7:8",
      "1:2:3:4:5:6:7:8::",
      "fe80::1%",
      "fe80::1%eth0",
      "fe80::1%4294967296",
      "::1%1",
      "2001:db8::1%1",
      "::ffff:1.2.3.4%1",
      "[fe80::1%1",
      "[fe80::1]%1",
      "localhost",
      "example.com:1",
      "1.2.3.4:0x5",
      "none",
      "::1/64",
      "99999999999999999999.1.1.1",
      "1.2.3.4:99999999999999999999",
  };
  (void)state;
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    bdk_addr a, before;
    memset(&a, 0x5a, sizeof a);
    before = a;
    if (bdk_addr_parse(&a, cases[i], strlen(cases[i]), 7) != BDK_E_INVALID) fail_msg("'%s' was accepted", cases[i]);
    assert_memory_equal(&a, &before, sizeof a);
  }
}

static void text_is_as_long_as_said(void **state) {
  bdk_addr a;
  (void)state;
  assert_int_equal(bdk_addr_parse(&a, "1.2.3.4\0", 8, 7), BDK_E_INVALID);
  assert_int_equal(bdk_addr_parse(&a, "\0001.2.3.4", 8, 7), BDK_E_INVALID);
  assert_int_equal(bdk_addr_parse(&a, "1.2\0.3.4", 8, 7), BDK_E_INVALID);
  assert_int_equal(bdk_addr_parse(&a, "::1\0", 4, 7), BDK_E_INVALID);
  assert_int_equal(bdk_addr_parse(&a, NULL, 0, 7), BDK_E_INVALID);
  assert_int_equal(bdk_addr_parse(&a, "1.2.3.45", 7, 7), 0); // not read past the length
  assert_int_equal(a.ip[3], 4);
}

// inet_pton is the reference for the address part; ports, zones and brackets are ours.
static void agrees_with_inet_pton(void **state) {
  static const char *const seeds[] = {
      "1.2.3.4",   "255.0.19.199", "2001:db8::1:0:0:1", "::ffff:1.2.3.4",          "1:2:3:4:5:6:7:8", "::",
      "fe80::1:2", "1::8",         "::1.2.3.4",         "1:2:3:4:5:6:77.88.99.100"};
  static const char alphabet[] = "0123456789abcdefABF::::....g[]% ";
  uint64_t rng = 1;
  int accepted = 0;
  (void)state;
  for (int i = 0; i < 200000; i++) {
    char text[64];
    const char *seed = seeds[spec_below(&rng, sizeof seeds / sizeof *seeds)];
    size_t len = strlen(seed);
    memcpy(text, seed, len + 1);
    for (uint32_t n = spec_below(&rng, 4); n > 0; n--) {
      size_t at = spec_below(&rng, (uint32_t)len + 1);
      char c = alphabet[spec_below(&rng, sizeof alphabet - 1)];
      uint32_t how = spec_below(&rng, 3);
      if (how == 0 && at < len) {
        text[at] = c;
      } else if (how == 1 && len > 1 && at < len) {
        memmove(text + at, text + at + 1, len - at);
        len--;
      } else if (how == 2) {
        memmove(text + at + 1, text + at, len - at + 1);
        text[at] = c;
        len++;
      }
    }
    char *exact = (char *)spec_exact(text, len);
    bdk_addr a, want = {0};
    int got = bdk_addr_parse(&a, exact, len, 7);
    free(exact);
    bool v4 = inet_pton(AF_INET, text, want.ip) == 1, v6 = !v4 && inet_pton(AF_INET6, text, want.ip) == 1;
    if (strpbrk(text, "[]%")) continue;
    if (!v4 && strchr(text, '.') && strchr(text, ':') && !v6) continue; // a port, perhaps
    if ((got == 0) != (v4 || v6)) fail_msg("'%s': %d, inet_pton: %d", text, got, v4 || v6);
    if (got != 0) continue;
    want.family = v4 ? 4 : 6, want.port = 7;
    bdk_addr_canon(&want);
    assert_true(bdk_addr_equal(&a, &want));
    accepted++;
  }
  assert_true(accepted > 50000);
}

static void prints_as_inet_ntop(void **state) {
  uint64_t rng = 2;
  (void)state;
  for (int i = 0; i < 50000; i++) {
    bdk_addr a = {.family = 6, .port = (uint16_t)spec_random(&rng)}, back;
    char text[BDK_ADDR_TEXT_MAX], ip[64], want[80];
    for (int k = 0; k < 8; k++) {
      uint32_t group = spec_below(&rng, 2) ? 0 : spec_below(&rng, 3) ? spec_below(&rng, 65536) : spec_below(&rng, 16);
      a.ip[2 * k] = (uint8_t)(group >> 8), a.ip[2 * k + 1] = (uint8_t)group;
    }
    a.ip[0] |= 1; // outside ::/96, which inet_ntop prints with dots
    inet_ntop(AF_INET6, a.ip, ip, sizeof ip);
    snprintf(want, sizeof want, "[%s]:%u", ip, a.port);
    bdk_addr_format(&a, text);
    assert_string_equal(text, want);
    assert_int_equal(bdk_addr_parse(&back, text, strlen(text), 0), 0);
    assert_true(bdk_addr_equal(&a, &back));
  }
}

static void the_longest_text_fits(void **state) {
  char text[BDK_ADDR_TEXT_MAX];
  (void)state;
  bdk_addr a = parse("[febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff%4294967295]:65535");
  assert_int_equal(bdk_addr_format(&a, text), strlen("[febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff%4294967295]:65535"));
  bdk_addr none = {0};
  assert_int_equal(bdk_addr_format(&none, text), 4);
  assert_string_equal(text, "none");
}

static void classes(void **state) {
  static const struct {
    const char *text;
    bdk_addr_class want;
  } cases[] = {
      {"0.0.0.0", BDK_ADDR_NONE},
      {"0.1.2.3", BDK_ADDR_NONE},
      {"1.0.0.0", BDK_ADDR_PUBLIC},
      {"9.255.255.255", BDK_ADDR_PUBLIC},
      {"10.0.0.0", BDK_ADDR_PRIVATE},
      {"10.255.255.255", BDK_ADDR_PRIVATE},
      {"11.0.0.0", BDK_ADDR_PUBLIC},
      {"100.63.255.255", BDK_ADDR_PUBLIC},
      {"100.64.0.0", BDK_ADDR_SHARED},
      {"100.127.255.255", BDK_ADDR_SHARED},
      {"100.128.0.0", BDK_ADDR_PUBLIC},
      {"126.255.255.255", BDK_ADDR_PUBLIC},
      {"127.0.0.1", BDK_ADDR_LOOPBACK},
      {"127.255.255.255", BDK_ADDR_LOOPBACK},
      {"128.0.0.1", BDK_ADDR_PUBLIC},
      {"169.253.255.255", BDK_ADDR_PUBLIC},
      {"169.254.0.1", BDK_ADDR_LINK_LOCAL},
      {"169.255.0.0", BDK_ADDR_PUBLIC},
      {"172.15.255.255", BDK_ADDR_PUBLIC},
      {"172.16.0.0", BDK_ADDR_PRIVATE},
      {"172.31.255.255", BDK_ADDR_PRIVATE},
      {"172.32.0.0", BDK_ADDR_PUBLIC},
      {"192.167.255.255", BDK_ADDR_PUBLIC},
      {"192.168.0.0", BDK_ADDR_PRIVATE},
      {"192.168.255.255", BDK_ADDR_PRIVATE},
      {"192.169.0.0", BDK_ADDR_PUBLIC},
      {"203.0.113.1", BDK_ADDR_PUBLIC},
      {"223.255.255.255", BDK_ADDR_PUBLIC},
      {"224.0.0.0", BDK_ADDR_MULTICAST},
      {"255.255.255.255", BDK_ADDR_MULTICAST},
      {"::", BDK_ADDR_NONE},
      {"::1", BDK_ADDR_LOOPBACK},
      {"::2", BDK_ADDR_PUBLIC},
      {"fe80::1", BDK_ADDR_LINK_LOCAL},
      {"febf::1", BDK_ADDR_LINK_LOCAL},
      {"fec0::1", BDK_ADDR_PUBLIC},
      {"fc00::1", BDK_ADDR_PRIVATE},
      {"fdff::1", BDK_ADDR_PRIVATE},
      {"fbff::1", BDK_ADDR_PUBLIC},
      {"ff02::1", BDK_ADDR_MULTICAST},
      {"2001:db8::1", BDK_ADDR_PUBLIC},
      {"::ffff:10.0.0.1", BDK_ADDR_PRIVATE},
      {"::ffff:127.0.0.1", BDK_ADDR_LOOPBACK},
  };
  (void)state;
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    bdk_addr a = parse(cases[i].text);
    if (bdk_addr_classify(&a) != cases[i].want) fail_msg("%s: class %d", cases[i].text, bdk_addr_classify(&a));
  }
  bdk_addr none = {0};
  assert_int_equal(bdk_addr_classify(&none), BDK_ADDR_NONE);
}

static void order_is_total(void **state) {
  static const char *const ascending[] = {"1.2.3.4:5", "1.2.3.4:6",   "1.2.4.0:1",     "200.0.0.0:0",   "[::]:9",
                                          "[::1]:1",   "[fe80::1]:5", "[fe80::1%1]:5", "[fe80::1%2]:5", "[fe80::1]:6"};
  int n = sizeof ascending / sizeof *ascending;
  (void)state;
  for (int i = 0; i < n; i++)
    for (int j = 0; j < n; j++) {
      bdk_addr a = parse(ascending[i]), b = parse(ascending[j]);
      int order = bdk_addr_compare(&a, &b);
      assert_int_equal((order > 0) - (order < 0), (i > j) - (i < j));
      assert_int_equal(bdk_addr_equal(&a, &b), i == j);
    }
}

static void same_ip_ignores_the_port_only(void **state) {
  bdk_addr a = parse("1.2.3.4:5"), b = parse("::ffff:1.2.3.4"), c = parse("1.2.3.5:5"), none = {0};
  bdk_addr d = parse("[fe80::1%1]:5"), e = parse("[fe80::1%2]:5");
  (void)state;
  assert_true(bdk_addr_same_ip(&a, &b));
  assert_false(bdk_addr_same_ip(&a, &c));
  assert_false(bdk_addr_same_ip(&d, &e));
  assert_false(bdk_addr_same_ip(&none, &none));
}

static void canon_zeroes_what_is_unused(void **state) {
  bdk_addr a, b = parse("1.2.3.4:5"), c, d = parse("[2001:db8::1]:5"), zero;
  (void)state;
  memset(&a, 0xff, sizeof a);
  memcpy(a.ip, b.ip, 4);
  a.family = 4, a.port = 5;
  bdk_addr_canon(&a);
  assert_memory_equal(&a, &b, sizeof a);
  memset(&c, 0xff, sizeof c);
  memcpy(c.ip, d.ip, 16);
  c.family = 6, c.port = 5; // its scope means nothing: not link-local
  bdk_addr_canon(&c);
  assert_memory_equal(&c, &d, sizeof c);
  memset(&zero, 0, sizeof zero);
  memset(&a, 0xff, sizeof a);
  bdk_addr_canon(&a);
  assert_memory_equal(&a, &zero, sizeof a);
}

static void packs_and_unpacks(void **state) {
  static const uint8_t v4[6] = {1, 2, 3, 4, 0x12, 0x34};
  static const uint8_t mapped[18] = {[10] = 0xff, 0xff, 1, 2, 3, 4, 0x12, 0x34};
  uint8_t out[BDK_ADDR_WIRE_MAX];
  bdk_addr a, b, none = {0};
  (void)state;
  assert_int_equal(bdk_addr_unpack(&a, v4, 6), 0);
  assert_int_equal(a.port, 0x1234);
  assert_int_equal(bdk_addr_pack(&a, out), 6);
  assert_memory_equal(out, v4, 6);
  assert_int_equal(bdk_addr_unpack(&b, mapped, 18), 0);
  assert_memory_equal(&a, &b, sizeof a);
  b = parse("[2001:db8::1]:4660");
  assert_int_equal(bdk_addr_pack(&b, out), 18);
  assert_int_equal(bdk_addr_unpack(&a, out, 18), 0);
  assert_memory_equal(&a, &b, sizeof a);
  assert_int_equal(bdk_addr_pack(&none, out), 0);
  for (size_t n = 0; n < 40; n++) {
    uint8_t *bytes = spec_exact((uint8_t[40]){0}, n);
    assert_int_equal(bdk_addr_unpack(&a, bytes, n), n == 6 || n == 18 ? 0 : BDK_E_INVALID);
    free(bytes);
  }
}

// RFC 5769 sections 2.2 and 2.3: XOR-MAPPED-ADDRESS; there the port comes first.
static void masks_as_stun_does(void **state) {
  static const uint8_t tx[12] = {0xb7, 0xe7, 0xa7, 0x01, 0xbc, 0x34, 0xd6, 0x86, 0xfa, 0x87, 0xdf, 0xae};
  static const uint8_t want4[6] = {0xe1, 0x12, 0xa6, 0x43, 0xa1, 0x47};
  static const uint8_t want6[18] = {0x01, 0x13, 0xa9, 0xfa, 0xa5, 0xd3, 0xf1, 0x79, 0xbc,
                                    0x25, 0xf4, 0xb5, 0xbe, 0xd2, 0xb9, 0xd9, 0xa1, 0x47};
  uint8_t out[BDK_ADDR_WIRE_MAX], plain[BDK_ADDR_WIRE_MAX];
  (void)state;
  bdk_addr a = parse("192.0.2.1:32853"), b = parse("[2001:db8:1234:5678:11:2233:4455:6677]:32853");
  bdk_addr_pack(&a, out);
  bdk_addr_mask(out, 6, tx);
  assert_memory_equal(out, want4, 6);
  bdk_addr_pack(&b, out);
  memcpy(plain, out, 18);
  bdk_addr_mask(out, 18, tx);
  assert_memory_equal(out, want6, 18);
  bdk_addr_mask(out, 18, tx);
  assert_memory_equal(out, plain, 18);
  bdk_addr_mask(out, 7, tx); // no address: left alone
  assert_memory_equal(out, plain, 18);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(accepts_and_prints_the_shortest_form),
      cmocka_unit_test(refuses_what_is_no_address),
      cmocka_unit_test(text_is_as_long_as_said),
      cmocka_unit_test(agrees_with_inet_pton),
      cmocka_unit_test(prints_as_inet_ntop),
      cmocka_unit_test(the_longest_text_fits),
      cmocka_unit_test(classes),
      cmocka_unit_test(order_is_total),
      cmocka_unit_test(same_ip_ignores_the_port_only),
      cmocka_unit_test(canon_zeroes_what_is_unused),
      cmocka_unit_test(packs_and_unpacks),
      cmocka_unit_test(masks_as_stun_does),
  };
  return cmocka_run_group_tests_name("core/addr", tests, NULL, NULL);
}
