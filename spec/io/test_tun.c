// SPDX-License-Identifier: MIT
// The copier's decisions that need no device; spec/lab has it carry packets.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "io/tun.h"

static void prefixes_are_parsed(void **state) {
  (void)state;
  bdk_tun_prefix p;
  assert_int_equal(bdk_tun_prefix_parse(&p, "198.18.1.0/24"), 0);
  assert_int_equal(p.bits, 24);
  assert_memory_equal(p.ip, "\xc6\x12\x01\x00", 4);
  assert_int_equal(bdk_tun_prefix_parse(&p, "192.0.2.10"), 0);
  assert_int_equal(p.bits, 32);
  assert_int_equal(p.len, 4);
  assert_int_equal(bdk_tun_prefix_parse(&p, "2001:db8:1::/64"), 0);
  assert_int_equal(p.bits, 64);
  assert_int_equal(p.len, 16);
  assert_memory_equal(p.ip, "\x20\x01\x0d\xb8\x00\x01\x00\x00\x00\x00", 10);
  assert_int_equal(bdk_tun_prefix_parse(&p, "2001:db8::1"), 0);
  assert_int_equal(p.bits, 128);
  static const char *const bad[] = {"",
                                    "1.2.3",
                                    "1.2.3.4/",
                                    "1.2.3.4/33",
                                    "1.2.3.4/-1",
                                    "1.2.3.4/ 1",
                                    "::1/129",
                                    "1.2.3.4/24x",
                                    "/24",
                                    "1.2.3.4.5",
                                    "1234.123.123.123.123",
                                    "1::2::3",
                                    "fe80::1%1",
                                    "::/",
                                    "::g/64",
                                    "1111:1111:1111:1111:1111:1111:1111.111.111.111"};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
    assert_int_equal(bdk_tun_prefix_parse(&p, bad[i]), BDK_E_INVALID);
  assert_int_equal(p.bits, 128); // untouched
}

static void prefixes_hold_their_addresses(void **state) {
  (void)state;
  static const struct {
    const char *prefix;
    uint8_t ip[4];
    bool has;
  } cases[] = {{"198.18.1.0/24", {198, 18, 1, 255}, true}, {"198.18.1.0/24", {198, 18, 2, 0}, false},
               {"192.0.2.10", {192, 0, 2, 10}, true},      {"192.0.2.10", {192, 0, 2, 11}, false},
               {"0.0.0.0/0", {255, 1, 2, 3}, true},        {"128.0.0.0/1", {127, 255, 255, 255}, false}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    bdk_tun_prefix p;
    assert_int_equal(bdk_tun_prefix_parse(&p, cases[i].prefix), 0);
    assert_int_equal(bdk_tun_prefix_has(&p, cases[i].ip, 4), cases[i].has);
  }
  bdk_tun_prefix six, bits[129];
  uint8_t ip[16] = {0x20, 1, 0x0d, 0xb8};
  assert_int_equal(bdk_tun_prefix_parse(&six, "2001:db8::"), 0);
  for (unsigned n = 0; n <= 128; n++) {
    bits[n] = six;
    bits[n].bits = (uint8_t)n;
  }
  for (unsigned at = 0; at < 128; at++) {
    ip[at / 8] ^= (uint8_t)(0x80u >> at % 8);
    for (unsigned n = 0; n <= 128; n++) assert_int_equal(bdk_tun_prefix_has(&bits[n], ip, 16), n <= at);
    ip[at / 8] ^= (uint8_t)(0x80u >> at % 8);
  }
  bdk_tun_prefix any;
  assert_int_equal(bdk_tun_prefix_parse(&any, "0.0.0.0/0"), 0);
  assert_false(bdk_tun_prefix_has(&any, ip, 16)); // of the other family
  assert_false(bdk_tun_prefix_has(&bits[0], ip, 4));
}

static void the_ends_of_a_packet_are_found(void **state) {
  (void)state;
  uint8_t packet[40] = {0x45};
  const uint8_t *src, *dst;
  assert_int_equal(bdk_tun_ends(packet, 20, &src, &dst), 4);
  assert_ptr_equal(src, packet + 12);
  assert_ptr_equal(dst, packet + 16);
  assert_int_equal(bdk_tun_ends(packet, 19, &src, &dst), 0);
  packet[0] = 0x60;
  assert_int_equal(bdk_tun_ends(packet, 40, &src, &dst), 16);
  assert_ptr_equal(src, packet + 8);
  assert_ptr_equal(dst, packet + 24);
  assert_int_equal(bdk_tun_ends(packet, 39, &src, &dst), 0);
  assert_int_equal(bdk_tun_ends(packet, 0, &src, &dst), 0);
  packet[0] = 0x50;
  assert_int_equal(bdk_tun_ends(packet, 40, &src, &dst), 0);
}

static void a_hop_of_ipv6_changes_its_limit_alone(void **state) {
  (void)state;
  for (unsigned limit = 0; limit < 256; limit++) {
    uint8_t h[40] = {[0] = 0x6f, [6] = 17, [7] = (uint8_t)limit, [8] = 0x20, [10] = 1, [11] = 2}, before[40];
    memcpy(before, h, sizeof h);
    assert_int_equal(bdk_tun_hop(h), limit > 1);
    if (limit > 1) before[7]--;
    assert_memory_equal(before, h, sizeof h);
  }
}

static uint16_t checksum(const uint8_t *header) {
  uint32_t sum = 0;
  for (int i = 0; i < 20; i += 2)
    if (i != 10) sum += (uint32_t)header[i] << 8 | header[i + 1];
  while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
  return (uint16_t)~sum;
}

static void a_hop_keeps_the_checksum_right(void **state) {
  (void)state;
  for (uint32_t n = 0; n < 70000; n++) {
    uint8_t h[20] = {
        0x45, 0,   0x04, 0xd2, (uint8_t)(n >> 8), (uint8_t)n, 0x40, 0, (uint8_t)(2 + n % 254), 17, 0, 0, 198, 18, 1,
        10,   192, 0,    2,    (uint8_t)(n >> 16)};
    uint16_t sum = checksum(h);
    h[10] = (uint8_t)(sum >> 8);
    h[11] = (uint8_t)sum;
    uint8_t ttl = h[8];
    assert_true(bdk_tun_hop(h));
    assert_int_equal(h[8], ttl - 1);
    uint16_t mended = (uint16_t)(h[10] << 8 | h[11]);
    // 0 and 0xffff are the same sum in ones' complement (RFC 1624 section 3).
    assert_true(mended == checksum(h) || (mended == 0xffff && checksum(h) == 0));
  }
}

static void a_hop_ends_what_has_none_left(void **state) {
  (void)state;
  for (uint8_t ttl = 0; ttl < 2; ttl++) {
    uint8_t h[20] = {[0] = 0x45, [8] = ttl, [10] = 1, [11] = 2};
    uint8_t before[20];
    memcpy(before, h, sizeof h);
    assert_false(bdk_tun_hop(h));
    assert_memory_equal(before, h, sizeof h);
  }
}

static uint32_t sum16(const uint8_t *bytes, size_t len, uint32_t sum) {
  for (size_t i = 0; i < len; i++) sum += i & 1 ? bytes[i] : (uint32_t)bytes[i] << 8;
  while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
  return sum;
}

static void a_datagram_is_written_with_its_checksums_and_read_again(void **state) {
  (void)state;
  uint8_t data[1472], packet[BDK_TUN_PACKET_MAX];
  bdk_tun_udp udp = {{198, 18, 1, 10, 0x13, 0x88}, {192, 0, 2, 10, 0x11, 0x51}, 61, data, 0}, back;
  for (size_t len = 0; len <= sizeof data; len++) {
    memset(data, (int)len, sizeof data);
    udp.len = (uint16_t)len;
    assert_int_equal(bdk_tun_udp_write(&udp, packet), len + 28);
    assert_int_equal(sum16(packet, 20, 0), 0xffff);
    assert_int_equal(sum16(packet + 20, len + 8, sum16(packet + 12, 8, 17 + 8 + (uint32_t)len)), 0xffff);
    assert_true(bdk_tun_udp_read(&back, packet, len + 28));
    assert_memory_equal(back.src, udp.src, 6);
    assert_memory_equal(back.dst, udp.dst, 6);
    assert_int_equal(back.ttl, 61);
    assert_int_equal(back.len, len);
    assert_memory_equal(back.data, data, len);
    assert_false(bdk_tun_udp_read(&back, packet, len + 27));
  }
  udp.len = 2; // a sum of 0 is written as its other form: 0 means that there is none
  for (uint32_t n = 0; n < 65536; n++) {
    data[0] = (uint8_t)(n >> 8);
    data[1] = (uint8_t)n;
    bdk_tun_udp_write(&udp, packet);
    assert_true(packet[26] || packet[27]);
  }
  udp.len = 1473;
  assert_int_equal(bdk_tun_udp_write(&udp, packet), 0);
}

static void what_is_no_whole_datagram_is_not_read(void **state) {
  (void)state;
  static const struct {
    size_t at;
    uint8_t value;
  } changes[] = {{0, 0x46}, {0, 0x65}, {2, 1}, {3, 31}, {6, 0x20}, {7, 1}, {9, 6}, {25, 7}, {25, 13}, {24, 1}};
  const uint8_t data[4] = {1, 2, 3, 4};
  const bdk_tun_udp udp = {{198, 18, 1, 10, 0, 1}, {192, 0, 2, 10, 0, 2}, 64, data, 4};
  for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
    uint8_t packet[BDK_TUN_PACKET_MAX];
    bdk_tun_udp out;
    size_t len = bdk_tun_udp_write(&udp, packet);
    assert_true(bdk_tun_udp_read(&out, packet, len));
    packet[changes[i].at] = changes[i].value;
    assert_false(bdk_tun_udp_read(&out, packet, len));
  }
}

static void a_bad_configuration_is_refused(void **state) {
  (void)state;
  const bdk_tun_port ports[] = {{NULL, "bdk-none0"}};
  const bdk_tun_route astray[] = {{{{0}, 4, 0}, 1}};
  const bdk_tun_rule rules[] = {{.delay_us = BDK_TUN_DELAY_MAX_US + 1},
                                {.jitter_us = BDK_TUN_DELAY_MAX_US + 1},
                                {.reorder_us = BDK_TUN_DELAY_MAX_US + 1},
                                {.loss = 1.5},
                                {.duplicate = -0.5},
                                {.reorder = NAN},
                                {.hooked = true}};
  const bdk_tun_config bad[] = {
      {.stop_fd = 0},
      {.ports = ports, .port_count = 1, .stop_fd = -1},
      {.ports = ports, .port_count = 1, .routes = astray, .route_count = 1},
      {.ports = ports, .port_count = 1, .rules = rules, .rule_count = 1},
      {.ports = ports, .port_count = 1, .rules = rules + 1, .rule_count = 1},
      {.ports = ports, .port_count = 1, .rules = rules + 2, .rule_count = 1},
      {.ports = ports, .port_count = 1, .rules = rules + 3, .rule_count = 1},
      {.ports = ports, .port_count = 1, .rules = rules + 4, .rule_count = 1},
      {.ports = ports, .port_count = 1, .rules = rules + 5, .rule_count = 1},
      {.ports = ports, .port_count = 1, .rules = rules + 6, .rule_count = 1},
  };
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    const char *where = NULL;
    uint32_t port;
    assert_int_equal(bdk_tun_copy(&bad[i], NULL, &where, &port), BDK_E_INVALID);
    assert_string_equal(where, "configuration");
  }
}

static void what_cannot_be_attached_is_named(void **state) {
  (void)state;
  int pipe_fds[2];
  assert_int_equal(pipe(pipe_fds), 0);
  const bdk_tun_port ports[] = {{"/nonexistent/netns", "core0"}};
  const bdk_tun_config config = {.ports = ports, .port_count = 1, .stop_fd = pipe_fds[0]};
  const char *where = NULL;
  uint32_t port = 9;
  assert_int_equal(bdk_tun_copy(&config, NULL, &where, &port), -2); // ENOENT
  assert_string_equal(where, "namespace");
  assert_int_equal(port, 0);
  close(pipe_fds[0]);
  close(pipe_fds[1]);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(prefixes_are_parsed),
      cmocka_unit_test(prefixes_hold_their_addresses),
      cmocka_unit_test(the_ends_of_a_packet_are_found),
      cmocka_unit_test(a_hop_of_ipv6_changes_its_limit_alone),
      cmocka_unit_test(a_hop_keeps_the_checksum_right),
      cmocka_unit_test(a_hop_ends_what_has_none_left),
      cmocka_unit_test(a_datagram_is_written_with_its_checksums_and_read_again),
      cmocka_unit_test(what_is_no_whole_datagram_is_not_read),
      cmocka_unit_test(a_bad_configuration_is_refused),
      cmocka_unit_test(what_cannot_be_attached_is_named),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
