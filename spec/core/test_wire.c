// SPDX-License-Identifier: MIT
// msgpack-c is the reference: what our walker takes it must take, whole, with the same values; and what our
// packer writes it must write, byte for byte.
#include "support.h"

#include <msgpack.h>

#include "core/wire.h"

static bool check(const void *bytes, size_t len) {
  uint8_t *exact = spec_exact(bytes, len);
  bool ok = bdk_wire_check(exact, len);
  free(exact);
  return ok;
}

#define CHECK(...) check((const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

// Compares the value at `r` with what msgpack-c made of it.
static void same(bdk_reader *r, const msgpack_object *o) {
  bdk_item item;
  assert_true(bdk_read(r, &item));
  switch (item.kind) {
  case BDK_WIRE_NIL:
    assert_int_equal(o->type, MSGPACK_OBJECT_NIL);
    break;
  case BDK_WIRE_BOOL:
    assert_int_equal(o->type, MSGPACK_OBJECT_BOOLEAN);
    assert_int_equal(item.b, o->via.boolean);
    break;
  case BDK_WIRE_UINT:
    assert_int_equal(o->type, MSGPACK_OBJECT_POSITIVE_INTEGER);
    assert_true(item.u == o->via.u64);
    break;
  case BDK_WIRE_INT:
    assert_int_equal(o->type, MSGPACK_OBJECT_NEGATIVE_INTEGER);
    assert_true(item.i == o->via.i64);
    break;
  case BDK_WIRE_FLOAT:
    assert_true(o->type == MSGPACK_OBJECT_FLOAT32 || o->type == MSGPACK_OBJECT_FLOAT64);
    assert_memory_equal(&item.f, &o->via.f64, sizeof item.f);
    break;
  case BDK_WIRE_STR:
    assert_int_equal(o->type, MSGPACK_OBJECT_STR);
    assert_int_equal(item.len, o->via.str.size);
    assert_memory_equal(item.data, o->via.str.ptr, item.len);
    break;
  case BDK_WIRE_BIN:
    assert_int_equal(o->type, MSGPACK_OBJECT_BIN);
    assert_int_equal(item.len, o->via.bin.size);
    assert_memory_equal(item.data, o->via.bin.ptr, item.len);
    break;
  case BDK_WIRE_ARRAY:
    assert_int_equal(o->type, MSGPACK_OBJECT_ARRAY);
    assert_int_equal(item.count, o->via.array.size);
    for (uint32_t i = 0; i < item.count; i++) same(r, &o->via.array.ptr[i]);
    break;
  case BDK_WIRE_MAP:
    assert_int_equal(o->type, MSGPACK_OBJECT_MAP);
    assert_int_equal(item.count, o->via.map.size);
    for (uint32_t i = 0; i < item.count; i++) {
      same(r, &o->via.map.ptr[i].key);
      same(r, &o->via.map.ptr[i].val);
    }
    break;
  default:
    fail();
  }
}

// Reads everything there is, checked or not: only ASan can object.
static void drain(const uint8_t *bytes, size_t len) {
  bdk_reader r = {bytes, bytes + len}, s = r;
  bdk_item item;
  volatile uint8_t sink = 0;
  while (bdk_read(&r, &item)) {
    if (item.kind != BDK_WIRE_STR && item.kind != BDK_WIRE_BIN) continue;
    for (uint32_t i = 0; i < item.len; i++) sink ^= item.data[i];
  }
  while (bdk_skip(&s)) {
  }
  (void)sink;
  assert_true(r.p <= r.end && s.p <= s.end);
}

// True when we accept; msgpack-c then does as well.
static bool judge(const void *bytes, size_t len) {
  uint8_t *exact = spec_exact(bytes, len);
  drain(exact, len);
  bool ok = bdk_wire_check(exact, len);
  if (ok) {
    msgpack_unpacked u;
    size_t off = 0;
    bdk_reader r = {exact, exact + len}, s = r;
    msgpack_unpacked_init(&u);
    assert_int_equal(msgpack_unpack_next(&u, (const char *)exact, len, &off), MSGPACK_UNPACK_SUCCESS);
    assert_int_equal(off, len);
    same(&r, &u.data);
    assert_ptr_equal(r.p, r.end);
    assert_true(bdk_skip(&s));
    assert_ptr_equal(s.p, s.end);
    msgpack_unpacked_destroy(&u);
  }
  free(exact);
  return ok;
}

// --- a generator of values in every encoding, not only the shortest

typedef struct gen {
  uint64_t rng;
  uint8_t buf[4096];
  size_t len;
} gen;

static void byte(gen *g, uint64_t b) {
  if (g->len < sizeof g->buf) g->buf[g->len++] = (uint8_t)b;
}

static void number(gen *g, uint8_t head, uint64_t v, int width) {
  byte(g, head);
  while (width-- > 0) byte(g, v >> (8 * width));
}

static void text(gen *g, uint8_t head, size_t len, int width) {
  if (width == 0)
    byte(g, head | len);
  else
    number(g, head, len, width);
  while (len-- > 0) byte(g, spec_random(&g->rng));
}

// A map key that is unlike all before it in the same map: i makes it so.
static void key(gen *g, uint32_t i) {
  if (spec_below(&g->rng, 3) == 0)
    number(g, spec_below(&g->rng, 2) ? 0xcd : 0xd1, i, 2);
  else if (spec_below(&g->rng, 2))
    number(g, 0xd1, (uint16_t) - (int)(i + 1), 2);
  else
    byte(g, 0xa1), byte(g, i);
}

static void value(gen *g, int depth) {
  static const uint8_t widths[][2] = {{0xcc, 1}, {0xcd, 2}, {0xce, 4}, {0xcf, 8}, {0xd0, 1},
                                      {0xd1, 2}, {0xd2, 4}, {0xd3, 8}, {0xca, 4}, {0xcb, 8}};
  uint32_t what = spec_below(&g->rng, depth < BDK_WIRE_DEPTH_MAX ? 9 : 6), n = spec_below(&g->rng, 5), i;
  switch (what) {
  case 0:
    byte(g, 0xc0 + (n == 0 ? 0 : 2 + (n & 1)));
    break;
  case 1:
    byte(g, spec_below(&g->rng, 2) ? spec_below(&g->rng, 128) : 0xe0 + spec_below(&g->rng, 32));
    break;
  case 2:
    i = spec_below(&g->rng, 10);
    number(g, widths[i][0], spec_random(&g->rng) >> spec_below(&g->rng, 64), widths[i][1]);
    break;
  case 3:
    text(g, 0xa0, n, 0);
    break;
  case 4:
    i = spec_below(&g->rng, 3);
    text(g, (uint8_t)(0xd9 + i), n * 7, 1 << i);
    break;
  case 5:
    i = spec_below(&g->rng, 3);
    text(g, (uint8_t)(0xc4 + i), n * 7, 1 << i);
    break;
  case 6:
  case 7:
    i = spec_below(&g->rng, 3);
    if (i == 0)
      byte(g, 0x90 | n);
    else
      number(g, (uint8_t)(0xdb + i), n, 2 * (int)i);
    while (n-- > 0) value(g, depth + 1);
    break;
  default:
    i = spec_below(&g->rng, 3);
    if (i == 0)
      byte(g, 0x80 | n);
    else
      number(g, (uint8_t)(0xdd + i), n, 2 * (int)i);
    for (i = 0; i < n; i++) key(g, i), value(g, depth + 1);
  }
}

static void takes_every_encoding_msgpack_c_takes(void **state) {
  static gen g;
  int containers = 0;
  (void)state;
  g.rng = 4;
  for (int i = 0; i < 30000; i++) {
    g.len = 0;
    value(&g, spec_below(&g.rng, 3) ? 0 : 6);
    if (g.len == sizeof g.buf) continue; // cut off
    if (!judge(g.buf, g.len)) fail_msg("value %d was refused", i);
    containers += g.len > 40;
  }
  assert_true(containers > 500);
}

// Walks truncations and single-byte changes of `bytes`; returns how many of these we still accept.
static int mutate(uint8_t *bytes, size_t len) {
  int accepted = 0;
  for (size_t n = 0; n < len; n++) assert_false(judge(bytes, n)); // no value is a prefix of another
  for (size_t at = 0; at < len; at++) {
    uint8_t was = bytes[at];
    for (int b = 0; b < 256; b++) {
      if (b == was) continue;
      bytes[at] = (uint8_t)b;
      accepted += judge(bytes, len);
    }
    bytes[at] = was;
  }
  return accepted;
}

static void survives_truncation_and_each_changed_byte(void **state) {
  static gen g;
  int accepted = 0;
  (void)state;
  g.rng = 5;
  for (int i = 0; i < 150; i++) {
    do {
      g.len = 0;
      value(&g, 0);
    } while (g.len < 8 || g.len > 90);
    assert_true(judge(g.buf, g.len));
    accepted += mutate(g.buf, g.len);
  }
  assert_true(accepted > 1000);
}

static void survives_random_bytes(void **state) {
  uint64_t rng = 6;
  int accepted = 0;
  (void)state;
  for (int i = 0; i < 300000; i++) {
    uint8_t bytes[24];
    size_t len = spec_below(&rng, sizeof bytes);
    for (size_t k = 0; k < len; k++) bytes[k] = (uint8_t)spec_random(&rng);
    if (len > 0 && spec_below(&rng, 2)) bytes[0] = 0x80 | (bytes[0] & 0x1f);
    accepted += judge(bytes, len);
  }
  assert_true(accepted > 100);
}

static void refuses_bombs(void **state) {
  (void)state;
  assert_false(CHECK(0xdd, 0x0f, 0xff, 0xff, 0xff));
  assert_false(CHECK(0xdf, 0xdf, 0xdf, 0xdf, 0xdf, 0xdf, 0xdf, 0xdf, 0xdf, 0xdf, 0xdf, 0x0a));
  assert_false(CHECK(0xdd, 0xff, 0xff, 0xff, 0xff, 0xc0));
  assert_false(CHECK(0xdf, 0x80, 0x00, 0x00, 0x01, 0xc0, 0xc0)); // 2 × count wraps in 32 bits
  assert_false(CHECK(0xdb, 0xff, 0xff, 0xff, 0xff, 'a'));
  assert_false(CHECK(0xc6, 0x7f, 0xff, 0xff, 0xff, 'a'));
  assert_false(CHECK(0xdc, 0x00, 0x02, 0xc0));
  uint8_t wide[1200]; // arrays within arrays, each as long as what remains allows
  for (size_t i = 0; i + 3 <= sizeof wide; i += 3) {
    size_t left = sizeof wide - i - 3;
    wide[i] = 0xdc, wide[i + 1] = (uint8_t)(left >> 8), wide[i + 2] = (uint8_t)left;
  }
  assert_false(check(wide, sizeof wide));
  bdk_reader r = {wide, wide + sizeof wide};
  assert_false(bdk_skip(&r));
  assert_ptr_equal(r.p, wide);
}

static void depth_ends_at_eight(void **state) {
  uint8_t arrays[16], maps[32] = {0};
  (void)state;
  memset(arrays, 0x91, sizeof arrays);
  for (size_t depth = 1; depth < 12; depth++) {
    arrays[depth] = 0xc0;
    assert_int_equal(check(arrays, depth + 1), depth <= 8);
    arrays[depth - 1] = 0x90; // the innermost empty
    assert_int_equal(check(arrays, depth), depth <= 8);
    arrays[depth - 1] = arrays[depth] = 0x91;
  }
  for (size_t depth = 1; depth < 12; depth++) {
    for (size_t i = 0; i < depth; i++) maps[2 * i] = 0x81, maps[2 * i + 1] = 0x01;
    maps[2 * depth] = 0xc0;
    assert_int_equal(check(maps, 2 * depth + 1), depth <= 8);
  }
}

static void takes_one_whole_value_only(void **state) {
  (void)state;
  assert_false(bdk_wire_check(NULL, 0));
  assert_false(check("", 0));
  assert_true(CHECK(0xc0));
  assert_false(CHECK(0xc0, 0xc0));
  assert_false(CHECK(0x90, 0x00));
  assert_false(CHECK(0xc1));
  assert_false(CHECK(0x91, 0xc1));
}

static void refuses_ext(void **state) {
  static const uint8_t heads[] = {0xc7, 0xc8, 0xc9, 0xd4, 0xd5, 0xd6, 0xd7, 0xd8};
  (void)state;
  for (size_t i = 0; i < sizeof heads; i++) {
    uint8_t bytes[40] = {heads[i]}, nested[41] = {0x91, heads[i]};
    for (size_t n = 1; n <= sizeof bytes; n++) {
      assert_false(check(bytes, n));
      assert_false(check(nested, n + 1));
    }
  }
  assert_true(CHECK(0x92, 0x01, 0x02));
}

static void map_keys_are_distinct_strings_or_integers(void **state) {
  (void)state;
  assert_true(CHECK(0x82, 0xa1, 'a', 0x01, 0xa1, 'b', 0x02));
  assert_false(CHECK(0x82, 0xa1, 'a', 0x01, 0xa1, 'a', 0x02));
  assert_false(CHECK(0x82, 0xa1, 'a', 0x01, 0xd9, 0x01, 'a', 0x02));
  assert_false(CHECK(0x82, 0x01, 0xc0, 0xcc, 0x01, 0xc0));
  assert_false(CHECK(0x82, 0x01, 0xc0, 0xd3, 0, 0, 0, 0, 0, 0, 0, 1, 0xc0));
  assert_false(CHECK(0x82, 0xff, 0xc0, 0xd1, 0xff, 0xff, 0xc0));
  assert_true(CHECK(0x82, 0xff, 0xc0, 0xcf, 255, 255, 255, 255, 255, 255, 255, 255, 0xc0)); // -1 and 2^64-1
  assert_true(CHECK(0x82, 0x01, 0xc0, 0xa1, '1', 0xc0));
  assert_true(CHECK(0x82, 0xa0, 0xc0, 0xa1, 0, 0xc0));
  assert_false(CHECK(0x82, 0xa0, 0xc0, 0xa0, 0xc0));
  assert_false(CHECK(0x81, 0xca, 0x3f, 0x80, 0, 0, 0xc0));             // float
  assert_false(CHECK(0x81, 0xcb, 0x3f, 0xf0, 0, 0, 0, 0, 0, 0, 0xc0)); // float
  assert_false(CHECK(0x81, 0xc0, 0xc0));                               // nil
  assert_false(CHECK(0x81, 0xc3, 0xc0));                               // bool
  assert_false(CHECK(0x81, 0xc4, 0x01, 'a', 0xc0));                    // bin
  assert_false(CHECK(0x81, 0x90, 0xc0));                               // array
  assert_false(CHECK(0x81, 0x80, 0xc0));                               // map
  assert_true(CHECK(0x92, 0x81, 0x01, 0xc0, 0x81, 0x01, 0xc0));        // the same key in two maps
}

static void a_map_has_at_most_32_pairs(void **state) {
  (void)state;
  for (uint32_t n = 30; n < 36; n++) {
    uint8_t bytes[80] = {0xde, 0, (uint8_t)n};
    for (uint32_t i = 0; i < n; i++) bytes[3 + 2 * i] = (uint8_t)i, bytes[4 + 2 * i] = 0xc0;
    assert_int_equal(check(bytes, 3 + 2 * n), n <= 32);
  }
}

static void a_read_that_fails_moves_nothing(void **state) {
  static const uint8_t cut[] = {0xda, 0x00, 0x05, 'a'};
  bdk_reader r = {cut, cut + sizeof cut};
  bdk_item item = {.kind = BDK_WIRE_BOOL, .len = 77};
  (void)state;
  assert_false(bdk_read(&r, &item));
  assert_false(bdk_skip(&r));
  assert_ptr_equal(r.p, cut);
  assert_int_equal(item.len, 77);
  r.p = r.end;
  assert_false(bdk_read(&r, &item));
  static const uint8_t pairs[] = {0x83, 1, 1, 2, 2, 3}; // three pairs need six bytes
  r = (bdk_reader){pairs, pairs + sizeof pairs};
  assert_false(bdk_read(&r, &item));
  assert_ptr_equal(r.p, pairs);
}

// --- the packer

typedef struct both {
  uint8_t buf[200000];
  bdk_packer ours;
  msgpack_sbuffer theirs;
  msgpack_packer pk;
} both;

static both *both_new(void) {
  both *b = malloc(sizeof *b);
  assert_non_null(b);
  b->ours = bdk_packer_init(b->buf, sizeof b->buf);
  msgpack_sbuffer_init(&b->theirs);
  msgpack_packer_init(&b->pk, &b->theirs, msgpack_sbuffer_write);
  return b;
}

static void both_same(both *b) {
  assert_false(b->ours.overflow);
  assert_int_equal(b->ours.len, b->theirs.size);
  assert_memory_equal(b->buf, b->theirs.data, b->ours.len);
  b->ours.len = 0;
  msgpack_sbuffer_clear(&b->theirs);
}

static void both_free(both *b) {
  msgpack_sbuffer_destroy(&b->theirs);
  free(b);
}

static void packs_numbers_as_msgpack_c(void **state) {
  both *b = both_new();
  uint64_t rng = 7;
  (void)state;
  for (int i = 0; i < 20000; i++) {
    uint64_t u = i < 640 ? (1ull << (i % 64)) + (uint64_t)(i / 64) - 4 : spec_random(&rng) >> spec_below(&rng, 64);
    double f;
    bdk_pack_uint(&b->ours, u);
    msgpack_pack_uint64(&b->pk, u);
    bdk_pack_int(&b->ours, (int64_t)u);
    msgpack_pack_int64(&b->pk, (int64_t)u);
    bdk_pack_int(&b->ours, (int64_t)-u);
    msgpack_pack_int64(&b->pk, (int64_t)-u);
    memcpy(&f, &u, sizeof f);
    bdk_pack_float(&b->ours, f);
    msgpack_pack_double(&b->pk, f);
    bdk_pack_float(&b->ours, (double)u);
    msgpack_pack_double(&b->pk, (double)u);
    both_same(b);
  }
  bdk_pack_nil(&b->ours), bdk_pack_bool(&b->ours, true), bdk_pack_bool(&b->ours, false);
  msgpack_pack_nil(&b->pk), msgpack_pack_true(&b->pk), msgpack_pack_false(&b->pk);
  both_same(b);
  both_free(b);
}

static void packs_lengths_as_msgpack_c(void **state) {
  static const uint32_t lengths[] = {0, 1, 15, 16, 31, 32, 127, 128, 255, 256, 1000, 65535, 65536, 70000};
  static char zeros[70000];
  both *b = both_new();
  (void)state;
  for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
    uint32_t n = lengths[i];
    bdk_pack_str(&b->ours, zeros, n);
    msgpack_pack_str_with_body(&b->pk, zeros, n);
    bdk_pack_bin(&b->ours, (const uint8_t *)zeros, n);
    msgpack_pack_bin_with_body(&b->pk, zeros, n);
    bdk_pack_array(&b->ours, n);
    msgpack_pack_array(&b->pk, n);
    bdk_pack_map(&b->ours, n);
    msgpack_pack_map(&b->pk, n);
    both_same(b);
  }
  bdk_pack_str(&b->ours, NULL, 0);
  bdk_pack_bin(&b->ours, NULL, 0);
  bdk_pack_raw(&b->ours, NULL, 0);
  bdk_pack_raw(&b->ours, (const uint8_t *)"\x93\x01", 2);
  assert_int_equal(b->ours.len, 5);
  assert_memory_equal(b->buf, "\xa0\xc4\x00\x93\x01", 5);
  both_free(b);
}

static void pack_sample(bdk_packer *p) {
  bdk_pack_array(p, 7);
  bdk_pack_uint(p, 70000);
  bdk_pack_int(p, -70000);
  bdk_pack_float(p, 1.5);
  bdk_pack_str(p, "hello", 5);
  bdk_pack_bin(p, (const uint8_t *)"\0\1\2", 3);
  bdk_pack_raw(p, (const uint8_t *)"\x81\x01\xc0", 3);
  bdk_pack_nil(p);
}

static void overflow_keeps_whole_values_and_sticks(void **state) {
  static const size_t ends[] = {0, 1, 6, 11, 20, 26, 31, 34, 35}; // of the values of pack_sample
  uint8_t whole[64];
  bdk_packer p = bdk_packer_init(whole, sizeof whole);
  (void)state;
  pack_sample(&p);
  assert_false(p.overflow);
  assert_int_equal(p.len, 35);
  assert_true(judge(whole, p.len));
  for (size_t cap = 0; cap < 35; cap++) {
    uint8_t *small = spec_exact(whole, cap);
    size_t want = 0;
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
      if (ends[i] <= cap) want = ends[i];
    memset(small, 0, cap);
    p = bdk_packer_init(small, cap);
    pack_sample(&p);
    assert_true(p.overflow);
    assert_int_equal(p.len, want);
    assert_memory_equal(small, whole, want);
    bdk_pack_nil(&p);
    assert_int_equal(p.len, want);
    free(small);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(takes_every_encoding_msgpack_c_takes),
      cmocka_unit_test(survives_truncation_and_each_changed_byte),
      cmocka_unit_test(survives_random_bytes),
      cmocka_unit_test(refuses_bombs),
      cmocka_unit_test(depth_ends_at_eight),
      cmocka_unit_test(takes_one_whole_value_only),
      cmocka_unit_test(refuses_ext),
      cmocka_unit_test(map_keys_are_distinct_strings_or_integers),
      cmocka_unit_test(a_map_has_at_most_32_pairs),
      cmocka_unit_test(a_read_that_fails_moves_nothing),
      cmocka_unit_test(packs_numbers_as_msgpack_c),
      cmocka_unit_test(packs_lengths_as_msgpack_c),
      cmocka_unit_test(overflow_keeps_whole_values_and_sticks),
  };
  return cmocka_run_group_tests_name("core/wire", tests, NULL, NULL);
}
