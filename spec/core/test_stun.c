// SPDX-License-Identifier: MIT
// STUN Binding: the vectors of RFC 5769, what old servers answer, and hostile bytes.
#include "core/stun.h"
#include "support.h"

#define COOKIE "\x21\x12\xa4\x42"
#define TX "\xb7\xe7\xa7\x01\xbc\x34\xd6\x86\xfa\x87\xdf\xae"
#define SOFTWARE "\x80\x22\x00\x0btest vector "

// RFC 5769 section 2.1: an ICE check, which asks for more than we understand
static const char ice_request[] = "\x00\x01\x00\x58" COOKIE TX "\x80\x22\x00\x10STUN test client"
                                  "\x00\x24\x00\x04\x6e\x00\x01\xff"
                                  "\x80\x29\x00\x08\x93\x2f\xf9\xb1\x51\x26\x3b\x36"
                                  "\x00\x06\x00\x09\x65\x76tj:h6vY   "
                                  "\x00\x08\x00\x14\x9a\xea\xa7\x0c\xbf\xd8\xcb\x56\x78\x1e\xf2\xb5\xb2\xd3\xf2\x49"
                                  "\xc1\xb5\x71\xa2\x80\x28\x00\x04\xe5\x7a\x3b\xcf";
// 2.2 and 2.3
static const char response4[] = "\x01\x01\x00\x3c" COOKIE TX SOFTWARE "\x00\x20\x00\x08\x00\x01\xa1\x47\xe1\x12\xa6\x43"
                                "\x00\x08\x00\x14\x2b\x91\xf5\x99\xfd\x9e\x90\xc3\x8c\x74\x89\xf9\x2a\xf9\xba\x53"
                                "\xf0\x6b\xe7\xd7\x80\x28\x00\x04\xc0\x7d\x4c\x96";
static const char response6[] = "\x01\x01\x00\x48" COOKIE TX SOFTWARE
                                "\x00\x20\x00\x14\x00\x02\xa1\x47\x01\x13\xa9\xfa\xa5\xd3\xf1\x79\xbc\x25\xf4\xb5\xbe"
                                "\xd2\xb9\xd9\x00\x08\x00\x14\xa3\x82\x95\x4e\x4b\xe6\x7b\xf1\x17\x84\xc9\x7c\x82\x92"
                                "\xc2\x75\xbf\xe3\xed\x41\x80\x28\x00\x04\xc8\xfb\x0b\x4c";
// 2.4: with long-term authentication, which nobody here asked for
static const char long_term[] = "\x00\x01\x00\x60" COOKIE "\x78\xad\x34\x33\xc6\xad\x72\xc0\x29\xda\x41\x2e"
                                "\x00\x06\x00\x12\xe3\x83\x9e\xe3\x83\x88\xe3\x83\xaa\xe3\x83\x83\xe3\x82\xaf\xe3\x82"
                                "\xb9\x00\x00\x00\x15\x00\x1c\x66//499k954d6OL34oL9FSTvy64sA"
                                "\x00\x14\x00\x0b\x65xample.org\x00"
                                "\x00\x08\x00\x14\xf6\x70\x24\x65\x6d\xd6\x4a\x3e\x02\xb8\xe0\x71\x2e\x85\xc9\xa2\x8c"
                                "\xa8\x96\x66";

// Of a literal without its NUL, from memory of exactly that size.
#define READ(s, literal) read_exact((s), (literal), sizeof(literal) - 1)

static int read_exact(bdk_stun *s, const void *bytes, size_t len) {
  static uint8_t *last; // `tx` is borrowed until the next
  free(last);
  last = spec_exact(bytes, len);
  return bdk_stun_read(s, last, len);
}

static void assert_addr(const bdk_addr *a, const char *text) {
  char out[BDK_ADDR_TEXT_MAX];
  bdk_addr_format(a, out);
  assert_string_equal(out, text);
}

static bdk_addr parse(const char *text) {
  bdk_addr a;
  assert_int_equal(bdk_addr_parse(&a, text, strlen(text), 0), 0);
  return a;
}

static void the_responses_of_rfc_5769_are_read(void **state) {
  (void)state;
  bdk_stun s;
  assert_int_equal(READ(&s, response4), 0);
  assert_int_equal(s.kind, BDK_STUN_SUCCESS);
  assert_memory_equal(s.id, COOKIE TX, 16);
  assert_addr(&s.mapped, "192.0.2.1:32853");
  assert_int_equal(READ(&s, response6), 0);
  assert_addr(&s.mapped, "[2001:db8:1234:5678:11:2233:4455:6677]:32853");
}

static void the_requests_of_rfc_5769_are_answered(void **state) {
  (void)state;
  bdk_stun s, answer;
  uint8_t out[BDK_STUN_ANSWER_MAX];
  bdk_addr from = parse("192.0.2.1:32853");
  assert_int_equal(READ(&s, long_term), 0);
  assert_int_equal(s.unknown_count, 0);
  assert_int_equal(bdk_stun_write_answer(&s, &from, out), 32);
  assert_int_equal(READ(&s, ice_request), 0);
  assert_int_equal(s.unknown_count, 1);
  assert_int_equal(s.unknown[0], 0x0024);
  size_t n = bdk_stun_write_answer(&s, &from, out);
  assert_int_equal(n, 36);
  assert_memory_equal(out, "\x01\x11\x00\x10" COOKIE TX "\x00\x09\x00\x04\x00\x00\x04\x14\x00\x0a\x00\x02\x00\x24\0\0",
                      n);
  assert_int_equal(bdk_stun_read(&answer, out, n), 0);
  assert_int_equal(answer.code, 420);
}

// With the XOR-MAPPED-ADDRESS of the vectors, without what is optional in them.
static void an_answer_is_the_vector_without_its_options(void **state) {
  (void)state;
  uint8_t asked[BDK_STUN_REQUEST_LEN], out[BDK_STUN_ANSWER_MAX];
  bdk_stun s;
  bdk_addr from = parse("192.0.2.1:32853"), none = {0};
  assert_int_equal(bdk_stun_write_request((const uint8_t *)TX, asked), 20);
  assert_memory_equal(asked, "\x00\x01\x00\x00" COOKIE TX, 20);
  assert_int_equal(bdk_stun_read(&s, asked, sizeof asked), 0);
  assert_int_equal(bdk_stun_write_answer(&s, &from, out), 32);
  assert_memory_equal(out, "\x01\x01\x00\x0c" COOKIE TX, 20);
  assert_memory_equal(out + 20, response4 + 36, 12);
  from = parse("[2001:db8:1234:5678:11:2233:4455:6677]:32853");
  assert_int_equal(bdk_stun_write_answer(&s, &from, out), 44);
  assert_memory_equal(out, "\x01\x01\x00\x18" COOKIE TX, 20);
  assert_memory_equal(out + 20, response6 + 36, 24);
  assert_int_equal(bdk_stun_write_answer(&s, &none, out), 0);
}

static void old_servers_are_understood(void **state) {
  (void)state;
  bdk_stun s;
  assert_int_equal(READ(&s, "\x01\x01\x00\x24" COOKIE TX "\x00\x01\x00\x08\x00\x01\x80\x55\xc0\x00\x02\x01"
                            "\x00\x04\x00\x08\x00\x01\x0d\x96\xc6\x33\x64\x01"
                            "\x00\x05\x00\x08\x00\x01\x0d\x97\xc6\x33\x64\x02"),
                   0);
  assert_addr(&s.mapped, "192.0.2.1:32853");
  // the masked one counts where both are there, in either order: a gateway may have rewritten the other
  assert_int_equal(READ(&s, "\x01\x01\x00\x18" COOKIE TX "\x00\x01\x00\x08\x00\x01\x80\x55\x0a\x00\x00\x01"
                            "\x00\x20\x00\x08\x00\x01\xa1\x47\xe1\x12\xa6\x43"),
                   0);
  assert_addr(&s.mapped, "192.0.2.1:32853");
}

// The id of 16 bytes comes back as it is, and the address in the clear.
static void old_clients_are_answered(void **state) {
  (void)state;
  bdk_stun s;
  uint8_t out[BDK_STUN_ANSWER_MAX];
  bdk_addr from = parse("192.0.2.1:32853");
  assert_int_equal(READ(&s, "\x00\x01\x00\x00\x21\x12\xa4\x43" TX), 0);
  assert_int_equal(bdk_stun_write_answer(&s, &from, out), 32);
  assert_memory_equal(out, "\x01\x01\x00\x0c\x21\x12\xa4\x43" TX "\x00\x01\x00\x08\x00\x01\x80\x55\xc0\x00\x02\x01",
                      32);
  assert_int_not_equal(bdk_stun_read(&s, out, 32), 0); // we ask with the cookie
  from = parse("[2001:db8::1]:1");
  assert_int_equal(READ(&s, "\x00\x01\x00\x00\x21\x12\xa4\x43" TX), 0);
  assert_int_equal(bdk_stun_write_answer(&s, &from, out), 44);
  assert_memory_equal(out + 28, "\x20\x01\x0d\xb8", 4);
}

static void errors_are_read(void **state) {
  (void)state;
  bdk_stun s;
  assert_int_equal(READ(&s, "\x01\x11\x00\x10" COOKIE TX "\x00\x09\x00\x09\x00\x00\x05\x00"
                            "busy \0\0\0"),
                   0);
  assert_int_equal(s.kind, BDK_STUN_ERROR);
  assert_int_equal(s.code, 500);
}

static void what_is_after_the_integrity_does_not_count(void **state) {
  (void)state;
  bdk_stun s;
  assert_int_equal(READ(&s, "\x00\x01\x00\x0c" COOKIE TX "\x00\x08\x00\x00\x00\x24\x00\x04\x6e\x00\x01\xff"), 0);
  assert_int_equal(s.unknown_count, 0);
  assert_int_not_equal(
      READ(&s, "\x01\x01\x00\x10" COOKIE TX "\x00\x1c\x00\x00\x00\x20\x00\x08\x00\x01\xa1\x47\xe1\x12\xa6\x43"), 0);
}

// However many a request has, an answer has 44 bytes at most, and names all of them or is not there.
static void unknown_attributes_are_named_within_the_bound(void **state) {
  (void)state;
  bdk_addr from = parse("192.0.2.1:1");
  for (unsigned count = 0; count <= 200; count++) {
    uint8_t bytes[20 + 4 * 200] = "\x00\x01\x00\x00" COOKIE TX, out[BDK_STUN_ANSWER_MAX];
    bdk_stun s;
    size_t len = 20 + 4 * count;
    bytes[2] = (uint8_t)(4 * count >> 8);
    bytes[3] = (uint8_t)(4 * count);
    for (unsigned i = 0; i < count; i++) bytes[20 + 4 * i] = 0x40, bytes[21 + 4 * i] = (uint8_t)(i / 2); // each twice
    assert_int_equal(read_exact(&s, bytes, len), 0);
    unsigned kinds = (count + 1) / 2;
    size_t n = bdk_stun_write_answer(&s, &from, out);
    if (kinds == 0) assert_int_equal(n, 32);
    if (kinds > BDK_STUN_UNKNOWN_MAX) assert_int_equal(n, 0);
    if (kinds == 0 || kinds > BDK_STUN_UNKNOWN_MAX) continue;
    assert_in_range(n, 36, BDK_STUN_ANSWER_MAX);
    assert_int_equal(out[20 + 8 + 3], 2 * kinds);
    for (unsigned i = 0; i < kinds; i++) assert_int_equal(out[20 + 8 + 4 + 2 * i + 1], i);
  }
}

static void what_is_no_binding_message_is_refused(void **state) {
  (void)state;
  bdk_stun s;
  assert_int_not_equal(READ(&s, ""), 0);
  assert_int_not_equal(READ(&s, "\x00\x03\x00\x00" COOKIE TX), 0);                    // TURN's Allocate
  assert_int_not_equal(READ(&s, "\x00\x11\x00\x00" COOKIE TX), 0);                    // an indication
  assert_int_not_equal(READ(&s, "\x40\x01\x00\x00" COOKIE TX), 0);                    // first two bits
  assert_int_not_equal(READ(&s, "\x00\x01\x00\x04" COOKIE TX), 0);                    // longer than it is
  assert_int_not_equal(READ(&s, "\x00\x01\x00\x00" COOKIE TX "\x80\x22\0\0"), 0);     // and shorter
  assert_int_not_equal(READ(&s, "\x00\x01\x00\x04" COOKIE TX "\x80\x22\x00\x01"), 0); // an attribute cut off
  assert_int_not_equal(READ(&s, "\x00\x01\x00\x04" COOKIE TX "\x80\x22\xff\xff"), 0); // and one of 64 kB
  assert_int_not_equal(READ(&s, "\x01\x01\x00\x00" COOKIE TX), 0);                    // a success without address
  assert_int_not_equal(READ(&s, "\x01\x11\x00\x08" COOKIE TX "\x00\x09\x00\x04\0\0\x02\x63"), 0);     // error 299
  assert_int_not_equal(READ(&s, "\x01\x11\x00\x08" COOKIE TX "\x00\x09\x00\x04\0\0\x04\x64"), 0);     // error 4 and 100
  assert_int_not_equal(READ(&s, "\x01\x01\x00\x0c" COOKIE TX "\x00\x20\x00\x08\0\2\0\0\0\0\0\0"), 0); // family IPv6
  assert_int_not_equal(READ(&s, "\x01\x01\x00\x08" COOKIE TX "\x00\x20\x00\x04\0\1\0\0"), 0);         // no IP
  assert_int_not_equal( // an answer that must be understood whole, and is not
      READ(&s, "\x01\x01\x00\x10" COOKIE TX "\x00\x20\x00\x08\x00\x01\xa1\x47\xe1\x12\xa6\x43\x7f\xff\0\0"), 0);
}

static void mutants_do_no_harm(void **state) {
  (void)state;
  const struct {
    const char *bytes;
    size_t len;
  } seeds[] = {{ice_request, sizeof ice_request - 1},
               {response4, sizeof response4 - 1},
               {response6, sizeof response6 - 1},
               {long_term, sizeof long_term - 1}};
  uint64_t random = 5769;
  unsigned read = 0;
  for (unsigned i = 0; i < 400000; i++) {
    uint8_t bytes[160], out[BDK_STUN_ANSWER_MAX];
    size_t k = spec_below(&random, 4), len = seeds[k].len;
    memcpy(bytes, seeds[k].bytes, len);
    for (uint32_t n = 1 + spec_below(&random, 4); n > 0; n--)
      bytes[spec_below(&random, (uint32_t)len)] = (uint8_t)spec_random(&random);
    if (spec_below(&random, 4) == 0) len = spec_below(&random, (uint32_t)len + 1);
    bdk_stun s;
    if (read_exact(&s, bytes, len) != 0) continue;
    read++;
    bdk_addr from = parse("[2001:db8::1]:65535");
    if (s.kind == BDK_STUN_REQUEST) assert_in_range(bdk_stun_write_answer(&s, &from, out), 0, BDK_STUN_ANSWER_MAX);
    if (s.kind == BDK_STUN_SUCCESS) assert_true(s.mapped.family == 4 || s.mapped.family == 6);
    if (s.kind == BDK_STUN_ERROR) assert_in_range(s.code, 300, 699);
  }
  assert_in_range(read, 1000, 399000);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(the_responses_of_rfc_5769_are_read),
      cmocka_unit_test(the_requests_of_rfc_5769_are_answered),
      cmocka_unit_test(an_answer_is_the_vector_without_its_options),
      cmocka_unit_test(old_servers_are_understood),
      cmocka_unit_test(old_clients_are_answered),
      cmocka_unit_test(errors_are_read),
      cmocka_unit_test(what_is_after_the_integrity_does_not_count),
      cmocka_unit_test(unknown_attributes_are_named_within_the_bound),
      cmocka_unit_test(what_is_no_binding_message_is_refused),
      cmocka_unit_test(mutants_do_no_harm),
  };
  return cmocka_run_group_tests_name("stun", tests, NULL, NULL);
}
