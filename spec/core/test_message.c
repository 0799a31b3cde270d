// SPDX-License-Identifier: MIT
#include "support.h"

#include "core/counter.h"
#include "core/message.h"

#define HEX_MAX 1300

static size_t unhex(const char *hex, uint8_t *out) {
  size_t n = 0;
  for (; *hex; hex++) {
    if (*hex == ' ') continue;
    char pair[3] = {hex[0], hex[1], 0};
    out[n++] = (uint8_t)strtoul(pair, NULL, 16);
    hex++;
  }
  return n;
}

// What docs/PROTOCOL.md shows: a test and a confirm, byte by byte.
static const char test_hex[] = "98 20 01"                                  // 8 elements, type 32, version 1
                               "c410 000102030405060708090a0b0c0d0e0f"     // match
                               "00"                                        // role
                               "01"                                        // epoch
                               "cedeadbeef"                                // rx_index
                               "c408 0102030405060708"                     // nonce
                               "c410 f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff";    // mac
static const char confirm_hex[] = "99 21 01"                               // 9 elements, type 33, version 1
                                  "c410 000102030405060708090a0b0c0d0e0f"  // match
                                  "01"                                     // role
                                  "cd0100"                                 // epoch
                                  "07"                                     // rx_index
                                  "c408 0102030405060708"                  // nonce
                                  "c406 cb007101 1151"                     // origin: 203.0.113.1:4433
                                  "c410 f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff"; // mac

static uint8_t match[16], mac[16], nonce[8] = {1, 2, 3, 4, 5, 6, 7, 8}, origin[6] = {203, 0, 113, 1, 0x11, 0x51};

static int setup(void **state) {
  (void)state;
  for (int i = 0; i < 16; i++) match[i] = (uint8_t)i, mac[i] = (uint8_t)(0xf0 + i);
  return 0;
}

static void a_test_is_written_and_read(void **state) {
  bdk_field f[6] = {{.data = match, .len = 16}, {.u = 0}, {.u = 1}, {.u = 0xdeadbeef}, {.data = nonce, .len = 8},
                    {.data = mac, .len = 16}},
            g[6];
  uint8_t want[HEX_MAX], out[HEX_MAX];
  bdk_message_head head;
  const char *bad = "?";
  size_t len = unhex(test_hex, want);
  (void)state;
  assert_int_equal(bdk_message_write(&bdk_message_test, f, out, sizeof out, &bad), len);
  assert_null(bad);
  assert_memory_equal(out, want, len);
  assert_int_equal(bdk_message_head_read(&head, out, len), 0);
  assert_int_equal(head.type, 32);
  assert_int_equal(head.version, 1);
  assert_true(head.features == 0);
  assert_int_equal(head.count, 6);
  assert_null(head.tx);
  assert_int_equal(bdk_message_read(&bdk_message_test, out, len, g, &bad), 0);
  assert_null(bad);
  for (int i = 0; i < 6; i++) {
    assert_false(g[i].nil);
    assert_int_equal(g[i].len, f[i].len);
    if (f[i].data)
      assert_memory_equal(g[i].data, f[i].data, f[i].len);
    else
      assert_true(g[i].u == f[i].u);
  }
  assert_ptr_equal(g[5].data + 16, out + len); // the mac ends the datagram
}

static void a_confirm_is_written_and_read(void **state) {
  bdk_field f[7] = {{.data = match, .len = 16},
                    {.u = 1},
                    {.u = 256},
                    {.u = 7},
                    {.data = nonce, .len = 8},
                    {.data = origin, .len = 6},
                    {.data = mac, .len = 16}},
            g[7];
  uint8_t want[HEX_MAX], out[HEX_MAX];
  size_t len = unhex(confirm_hex, want);
  (void)state;
  assert_int_equal(bdk_message_write(&bdk_message_confirm, f, out, sizeof out, NULL), len);
  assert_memory_equal(out, want, len);
  assert_int_equal(bdk_message_read(&bdk_message_confirm, out, len, g, NULL), 0);
  assert_int_equal(g[5].len, 6);
  assert_memory_equal(g[5].data, origin, 6);
  assert_ptr_equal(g[6].data + 16, out + len);
  assert_int_equal(bdk_message_read(&bdk_message_test, out, len, g, NULL), -BDK_COUNT_drop_field);
}

// Each truncation, each changed byte: dropped, or read within the schema's bounds.
static void broken_datagrams_are_dropped(void **state) {
  static const char *const hex[] = {test_hex, confirm_hex};
  static const bdk_schema *const schemas[] = {&bdk_message_test, &bdk_message_confirm};
  int dropped = 0;
  (void)state;
  for (int s = 0; s < 2; s++) {
    uint8_t whole[HEX_MAX];
    bdk_message_head head;
    bdk_field f[BDK_FIELDS_MAX];
    size_t len = unhex(hex[s], whole);
    for (size_t n = 0; n < len; n++) {
      uint8_t *cut = spec_exact(whole, n);
      assert_int_equal(bdk_message_head_read(&head, cut, n), n < 3 ? -BDK_COUNT_drop_short : -BDK_COUNT_drop_msgpack);
      assert_int_equal(bdk_message_read(schemas[s], cut, n, f, NULL), -BDK_COUNT_drop_field);
      free(cut);
    }
    for (size_t at = 0; at < len; at++)
      for (int b = 0; b < 256; b++) {
        uint8_t *changed = spec_exact(whole, len);
        changed[at] = (uint8_t)b;
        int e = bdk_message_head_read(&head, changed, len);
        if (e != 0) assert_true(e == -BDK_COUNT_drop_short || e == -BDK_COUNT_drop_msgpack);
        int g = bdk_message_read(schemas[s], changed, len, f, NULL); // must be safe even if the head was refused
        if (e == 0 && g == 0) {
          assert_int_equal(f[0].len, 16);
          assert_true(f[1].u <= 1);
          assert_true(f[3].u <= UINT32_MAX);
          assert_int_equal(f[schemas[s]->count - 1].len, 16);
        }
        dropped += e != 0 || g != 0;
        free(changed);
      }
  }
  assert_true(dropped > 5000);
}

static int head_of(const char *hex, bdk_message_head *head) {
  uint8_t bytes[HEX_MAX];
  size_t len = unhex(hex, bytes);
  uint8_t *exact = spec_exact(bytes, len);
  int e = bdk_message_head_read(head, exact, len);
  if (e == 0 && head->tx) {
    assert_ptr_equal(head->tx + BDK_TX_LEN, exact + len);
    head->tx = (const uint8_t *)"the bytes go, that there were some is told";
  }
  free(exact);
  return e;
}

static void heads(void **state) {
  bdk_message_head h;
  (void)state;
  assert_int_equal(head_of("", &h), -BDK_COUNT_drop_short);
  assert_int_equal(head_of("92 01", &h), -BDK_COUNT_drop_short);
  assert_int_equal(head_of("92 01 01", &h), 0);
  assert_int_equal(h.count, 0);
  assert_null(h.tx);
  assert_int_equal(head_of("92 7f cd 0502", &h), 0);
  assert_int_equal(h.type, 127);
  assert_int_equal(h.version, 2);
  assert_true(h.features == 5);
  assert_int_equal(head_of("92 01 cf ffffffffffffffff", &h), 0);
  assert_int_equal(h.version, 255);
  assert_true(h.features == UINT64_MAX >> 8);
  assert_int_equal(head_of("93 01 05 c40c 000102030405060708090a0b", &h), 0);
  assert_non_null(h.tx); // in a version unknown here as well
  assert_int_equal(head_of("93 01 05 c40b 000102030405060708090a", &h), 0);
  assert_null(h.tx);
  assert_int_equal(head_of("93 01 05 ac 000102030405060708090a0b", &h), 0);
  assert_null(h.tx);
  static const char *const bad[] = {"92 00 01",
                                    "92 cc80 01",
                                    "92 ff 01",
                                    "92 a161 01",
                                    "92 01 ff",
                                    "92 01 a161",
                                    "92 01 c0",
                                    "92 c0 01",
                                    "91 cc 01",
                                    "82 01 01 02 02",
                                    "90 00 00",
                                    "01 02 03",
                                    "a2 01 01",
                                    "92 01 01 01",
                                    "93 01 01",
                                    "c0 00 00",
                                    "c1 01 01",
                                    "dd 0fffffff",
                                    "dfdfdfdfdfdfdfdfdfdfdf0a",
                                    "93 01 01 d40102",
                                    "93 01 01 82 01c0 01c0",
                                    "93 01 01 91 91 91 91 91 91 91 91 c0"};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
    if (head_of(bad[i], &h) != -BDK_COUNT_drop_msgpack) fail_msg("%s: %d", bad[i], head_of(bad[i], &h));
}

static void a_datagram_is_at_most_1200_bytes(void **state) {
  uint8_t bytes[1300] = {0x93, 0x01, 0x01, 0xc5};
  bdk_message_head h;
  (void)state;
  for (size_t len = 1199; len <= 1201; len++) {
    bytes[4] = (uint8_t)((len - 6) >> 8), bytes[5] = (uint8_t)(len - 6);
    assert_int_equal(bdk_message_head_read(&h, bytes, len), len <= 1200 ? 0 : -BDK_COUNT_drop_msgpack);
  }
  memset(bytes, 0, sizeof bytes);
  memcpy(bytes, (uint8_t[]){0xdc, 0x01, 0x10, 0x01, 0x01}, 5); // 272 elements: too many for `count`
  assert_int_equal(bdk_message_head_read(&h, bytes, 3 + 272), 0);
  assert_int_equal(h.count, 255);
}

// One schema of each kind of field.
static const bdk_schema all = {
    .name = "all",
    .type = 100,
    .request = true,
    .count = 9,
    .fields = {{"tx", BDK_FIELD_BIN, false, 12, 12},
               {"proof", BDK_FIELD_BIN, true, 2, 4},
               {"name", BDK_FIELD_STR, false, 1, 3},
               {"age", BDK_FIELD_UINT, false, 10, 300},
               {"ok", BDK_FIELD_BOOL, false, 0, 0},
               {"addr", BDK_FIELD_ADDR, true, 0, 0},
               {"locals", BDK_FIELD_ADDRS, false, 0, 2},
               {"pubs", BDK_FIELD_BINS, false, 1, 2},
               {"props", BDK_FIELD_ANY, true, 1, 6}},
};

static const char *try_read(const char *tail) {
  char hex[2 * HEX_MAX];
  uint8_t bytes[HEX_MAX];
  bdk_message_head h;
  bdk_field f[BDK_FIELDS_MAX];
  const char *bad;
  snprintf(hex, sizeof hex, "9b 64 01 c40c000102030405060708090a0b %s", tail);
  size_t len = unhex(hex, bytes);
  if (bdk_message_head_read(&h, bytes, len) != 0) return "head";
  int e = bdk_message_read(&all, bytes, len, f, &bad);
  assert_int_equal(e, bad ? -BDK_COUNT_drop_field : 0);
  return bad ? bad : "fine";
}

static void each_kind_keeps_its_bounds_when_read(void **state) {
  static const char *const cases[][2] = {
      {"c0       a161 0a     c2 c0             90               91c400  c0", "fine"},
      {"c4020000 a161 cd012c c3 c406010203040506 91c406010203040506 92c40101c400 8101c0", "fine"},
      {"c40100   a161 0a c2 c0 90 91c400 c0", "proof"},
      {"c4050000000000 a161 0a c2 c0 90 91c400 c0", "proof"},
      {"a20000   a161 0a c2 c0 90 91c400 c0", "proof"},
      {"c0 a0 0a c2 c0 90 91c400 c0", "name"},
      {"c0 a461616161 0a c2 c0 90 91c400 c0", "name"},
      {"c0 c40161 0a c2 c0 90 91c400 c0", "name"},
      {"c0 c0   0a c2 c0 90 91c400 c0", "name"},
      {"c0 a161 09 c2 c0 90 91c400 c0", "age"},
      {"c0 a161 cd012d c2 c0 90 91c400 c0", "age"},
      {"c0 a161 cfffffffffffffffff c2 c0 90 91c400 c0", "age"},
      {"c0 a161 ff c2 c0 90 91c400 c0", "age"},
      {"c0 a161 ca41200000 c2 c0 90 91c400 c0", "age"},
      {"c0 a161 0a 01 c0 90 91c400 c0", "ok"},
      {"c0 a161 0a c0 c0 90 91c400 c0", "ok"},
      {"c0 a161 0a c2 c4050102030405 90 91c400 c0", "addr"},
      {"c0 a161 0a c2 c40701020304050607 90 91c400 c0", "addr"},
      {"c0 a161 0a c2 a6010203040506 90 91c400 c0", "addr"},
      {"c0 a161 0a c2 c412000102030405060708090a0b0c0d0e0f0000 90 91c400 c0", "fine"},
      {"c0 a161 0a c2 c0 93c406000000000000c406000000000000c406000000000000 91c400 c0", "locals"},
      {"c0 a161 0a c2 c0 91c4050000000000 91c400 c0", "locals"},
      {"c0 a161 0a c2 c0 91c0 91c400 c0", "locals"},
      {"c0 a161 0a c2 c0 c0 91c400 c0", "locals"},
      {"c0 a161 0a c2 c0 90 90 c0", "pubs"},
      {"c0 a161 0a c2 c0 90 93c400c400c400 c0", "pubs"},
      {"c0 a161 0a c2 c0 90 91a0 c0", "pubs"},
      {"c0 a161 0a c2 c0 90 9101 c0", "pubs"},
      {"c0 a161 0a c2 c0 90 91c400 a5 6161616161", "fine"},
      {"c0 a161 0a c2 c0 90 91c400 a6 616161616161", "props"},
      {"c0 a161 0a c2 c0 90 91c400 93 93 000000 93 000000", "head"},
      {"c0 a161 0a c2 c0 90 91c400 92 92 000000", "fine"},
      {"c0 a161 0a c2 c0 90 91c400 92 93 00000000", "fine"},
      {"c0 a161 0a c2 c0 90 91c400 92 93 000000 a100", "props"},
  };
  (void)state;
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
    if (strcmp(try_read(cases[i][0]), cases[i][1]) != 0)
      fail_msg("%s: '%s', not '%s'", cases[i][0], try_read(cases[i][0]), cases[i][1]);
  char long_bin[300] = "c0 a161 0a c2 c0 90 91c441";
  for (int i = 0; i < 65; i++) strcat(long_bin, "00");
  strcat(long_bin, "c0");
  assert_string_equal(try_read(long_bin), "pubs"); // elements of at most 64 bytes
}

static void too_few_or_too_many_fields(void **state) {
  uint8_t bytes[HEX_MAX];
  bdk_field f[BDK_FIELDS_MAX];
  const char *bad;
  (void)state;
  size_t len = unhex("94 64 01 c40c000102030405060708090a0b c0", bytes);
  assert_int_equal(bdk_message_read(&all, bytes, len, f, &bad), -BDK_COUNT_drop_field);
  assert_string_equal(bad, "name");
  len = unhex("9c 64 01 c40c000102030405060708090a0b c0 a161 0a c2 c0 90 91c400 c0 c0", bytes);
  assert_int_equal(bdk_message_read(&all, bytes, len, f, &bad), -BDK_COUNT_drop_field);
  assert_string_equal(bad, "a field too many");
}

typedef struct sample {
  bdk_field f[9];
} sample;

static sample good(void) {
  static const uint8_t tx[12] = {1}, locals[] = {0x91, 0xc4, 6, 1, 2, 3, 4, 5, 6}, pubs[] = {0x91, 0xc4, 0};
  return (sample){{{.data = tx, .len = 12},
                   {.nil = true},
                   {.data = (const uint8_t *)"abc", .len = 3},
                   {.u = 300},
                   {.u = 7},
                   {.data = origin, .len = 6},
                   {.u = 99, .data = locals, .len = sizeof locals}, // the count is read from the bytes
                   {.data = pubs, .len = sizeof pubs},
                   {.data = (const uint8_t *)"\x81\x01\xc0", .len = 3}}};
}

static const char *try_write(const sample *s) {
  uint8_t out[HEX_MAX];
  const char *bad = "?";
  size_t n = bdk_message_write(&all, s->f, out, sizeof out, &bad);
  assert_int_equal(n > 0, bad == NULL);
  return bad ? bad : "fine";
}

static void the_writer_names_what_is_out_of_bounds(void **state) {
  sample s = good();
  (void)state;
  assert_string_equal(try_write(&s), "fine");
#define BREAK(want, change)                                                                                            \
  s = good();                                                                                                          \
  change;                                                                                                              \
  assert_string_equal(try_write(&s), want)
  BREAK("tx", s.f[0].len = 11);
  BREAK("tx", s.f[0].nil = true);
  BREAK("proof", (s.f[1] = (bdk_field){.data = match, .len = 1}));
  BREAK("name", s.f[2].len = 0);
  BREAK("age", s.f[3].u = 301);
  BREAK("age", s.f[3].u = 9);
  BREAK("addr", s.f[5].len = 5);
  BREAK("locals", s.f[6].len--);
  BREAK("locals", s.f[6].len = 0);
  BREAK("locals", (s.f[6] = (bdk_field){.data = (const uint8_t *)"\x90\x90", .len = 2})); // two values
  BREAK("locals", s.f[6].data = (const uint8_t *)"\x91\xc4\x05\1\2\3\4\5\6");
  BREAK("pubs", (s.f[7] = (bdk_field){.data = (const uint8_t *)"\x90", .len = 1}));
  BREAK("props", s.f[8].len = 2);                                                            // cut
  BREAK("props", (s.f[8] = (bdk_field){.data = (const uint8_t *)"\1\2", .len = 2}));         // two values
  BREAK("props", (s.f[8] = (bdk_field){.data = match, .len = 0}));                           // none
  BREAK("props", (s.f[8] = (bdk_field){.data = (const uint8_t *)"\x82\1\1\1\1", .len = 5})); // duplicate keys
  BREAK("props", (s.f[8] = (bdk_field){.data = (const uint8_t *)"\xa6 too l", .len = 7}));   // too long
  BREAK("props", (s.f[8] = (bdk_field){.data = (const uint8_t *)"\xd4\1\1", .len = 3}));     // ext
#undef BREAK
}

static void what_is_embedded_may_not_go_too_deep(void **state) {
  static const bdk_schema deep = {
      .name = "deep", .type = 101, .count = 1, .fields = {{"v", BDK_FIELD_ANY, false, 1, 99}}};
  uint8_t nested[9], out[64];
  const char *bad;
  (void)state;
  memset(nested, 0x91, sizeof nested);
  for (uint32_t depth = 1; depth < 9; depth++) {
    nested[depth] = 0xc0;
    bdk_field f = {.data = nested, .len = depth + 1};
    size_t n = bdk_message_write(&deep, &f, out, sizeof out, &bad);
    assert_int_equal(n > 0, depth <= 7); // the message is an array itself
    if (depth > 7) assert_string_equal(bad, "v");
    nested[depth] = 0x91;
  }
}

static void too_little_room_writes_nothing(void **state) {
  sample s = good();
  uint8_t out[HEX_MAX];
  const char *bad;
  size_t whole = bdk_message_write(&all, s.f, out, sizeof out, &bad);
  (void)state;
  for (size_t cap = 0; cap < whole; cap++) {
    uint8_t *small = spec_exact(out, cap);
    assert_int_equal(bdk_message_write(&all, s.f, small, cap, &bad), 0);
    assert_null(bad);
    free(small);
  }
  static uint8_t big[1300];
  static const bdk_schema wide = {
      .name = "wide", .type = 102, .count = 1, .fields = {{"b", BDK_FIELD_BIN, false, 0, 9999}}};
  bdk_field f = {.data = big, .len = 1194};
  assert_int_equal(bdk_message_write(&wide, &f, out, sizeof out, NULL), 1200);
  f.len++;
  assert_int_equal(bdk_message_write(&wide, &f, out, sizeof out, NULL), 0);
}

static void a_pad_brings_the_datagram_to_128_bytes(void **state) {
  static const bdk_schema last = {.name = "last",
                                  .type = 103,
                                  .count = 2,
                                  .fields = {{"b", BDK_FIELD_BIN, false, 0, 200}, {"pad", BDK_FIELD_PAD, false, 0, 0}}},
                          first = {
                              .name = "first",
                              .type = 104,
                              .count = 2,
                              .fields = {{"pad", BDK_FIELD_PAD, false, 0, 0}, {"b", BDK_FIELD_BIN, false, 0, 200}}};
  static uint8_t ones[200];
  (void)state;
  memset(ones, 1, sizeof ones);
  for (uint32_t n = 0; n < 200; n++)
    for (int which = 0; which < 2; which++) {
      const bdk_schema *s = which ? &first : &last;
      bdk_field f[2] = {{.data = ones, .len = n}, {.nil = true}}, g[2];
      uint8_t out[HEX_MAX];
      bdk_message_head h;
      size_t bare = 3 + 2 + n + 2, len;
      if (which) f[1] = f[0], f[0] = (bdk_field){.u = 5};
      len = bdk_message_write(s, f, out, sizeof out, NULL);
      assert_int_equal(len, bare > BDK_PAD_TO ? bare : BDK_PAD_TO);
      assert_int_equal(bdk_message_head_read(&h, out, len), 0);
      assert_int_equal(bdk_message_read(s, out, len, g, NULL), 0);
      assert_true(g[which ? 0 : 1].nil);
      assert_int_equal(g[which].len, n);
      assert_memory_equal(g[which].data, ones, n);
      uint8_t *pad = out + (which ? 3 : 5 + n);
      assert_int_equal(pad[0], 0xc4);
      assert_int_equal(pad[1], len - bare);
      for (size_t i = 0; i < pad[1]; i++) assert_int_equal(pad[2 + i], 0);
      if (bare < BDK_PAD_TO) assert_int_equal(bdk_message_write(s, f, out, BDK_PAD_TO - 1, NULL), 0);
    }
}

static void a_pad_of_any_length_is_read_as_absent(void **state) {
  static const bdk_schema s = {.name = "p", .type = 105, .count = 1, .fields = {{"pad", BDK_FIELD_PAD, false, 0, 0}}};
  uint8_t bytes[HEX_MAX];
  bdk_field f;
  (void)state;
  assert_int_equal(bdk_message_read(&s, bytes, unhex("93 69 01 c403 ffffff", bytes), &f, NULL), 0);
  assert_true(f.nil);
  assert_null(f.data);
  assert_int_equal(bdk_message_read(&s, bytes, unhex("93 69 01 c50001 00", bytes), &f, NULL), 0);
  assert_int_equal(bdk_message_read(&s, bytes, unhex("93 69 01 c0", bytes), &f, NULL), -BDK_COUNT_drop_field);
  assert_int_equal(bdk_message_read(&s, bytes, unhex("93 69 01 a0", bytes), &f, NULL), -BDK_COUNT_drop_field);
}

static void fields_are_read_as_documented(void **state) {
  sample s = good();
  uint8_t out[HEX_MAX];
  bdk_field g[BDK_FIELDS_MAX];
  bdk_message_head h;
  size_t len = bdk_message_write(&all, s.f, out, sizeof out, NULL);
  (void)state;
  assert_int_equal(bdk_message_head_read(&h, out, len), 0);
  assert_memory_equal(h.tx, s.f[0].data, 12);
  assert_int_equal(bdk_message_read(&all, out, len, g, NULL), 0);
  assert_true(g[1].nil);
  assert_memory_equal(g[2].data, "abc", 3);
  assert_true(g[3].u == 300);
  assert_true(g[4].u == 1);
  assert_int_equal(g[5].len, 6);
  assert_true(g[6].u == 1); // elements; data is the whole value, encoded
  assert_int_equal(g[6].len, 9);
  assert_memory_equal(g[6].data, s.f[6].data, 9);
  assert_true(g[7].u == 1);
  assert_int_equal(g[8].len, 3);
  assert_memory_equal(g[8].data, "\x81\x01\xc0", 3);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_test_is_written_and_read),
      cmocka_unit_test(a_confirm_is_written_and_read),
      cmocka_unit_test(broken_datagrams_are_dropped),
      cmocka_unit_test(heads),
      cmocka_unit_test(a_datagram_is_at_most_1200_bytes),
      cmocka_unit_test(each_kind_keeps_its_bounds_when_read),
      cmocka_unit_test(too_few_or_too_many_fields),
      cmocka_unit_test(the_writer_names_what_is_out_of_bounds),
      cmocka_unit_test(what_is_embedded_may_not_go_too_deep),
      cmocka_unit_test(too_little_room_writes_nothing),
      cmocka_unit_test(a_pad_brings_the_datagram_to_128_bytes),
      cmocka_unit_test(a_pad_of_any_length_is_read_as_absent),
      cmocka_unit_test(fields_are_read_as_documented),
  };
  return cmocka_run_group_tests_name("core/message", tests, setup, NULL);
}
