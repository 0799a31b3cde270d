// SPDX-License-Identifier: MIT
// The reference is a naive table: an array of entries, searched from end to end.
#include "registry.h"

#include <sodium.h>

#define NAIVE 2000

typedef struct naive {
  bool there;
  uint64_t expires_us;
  uint8_t app[12], name[12], props[24], addrs[40];
  bdk_entry e;
} naive;

// A small entry with id `n`; `id` is the caller's storage.
static bdk_entry small(uint8_t id[BDK_ID_LEN], uint32_t n, uint64_t expires_us) {
  make_id(id, n);
  return (bdk_entry){
      .id = id, .key = some_key, .expires_us = expires_us, .props = (const uint8_t *)"\x80", .props_len = 1};
}

static void put(bdk_registry *r, uint32_t n, uint64_t expires_us) {
  uint8_t id[BDK_ID_LEN];
  bdk_entry e = small(id, n, expires_us);
  assert_int_equal(bdk_registry_put(r, &e), 0);
}

static bool take_out(bdk_registry *r, uint32_t n) {
  uint8_t id[BDK_ID_LEN];
  make_id(id, n);
  return bdk_registry_remove(r, id);
}

static void an_entry_comes_back_as_it_was_put(void **state) {
  spec_heap heap = {0};
  bdk_registry *r = registry(&heap, 10);
  uint8_t id[16], key[32];
  bdk_entry got;
  (void)state;
  memset(id, 7, 16), memset(key, 9, 32);
  bdk_entry e = {.id = id,
                 .key = key,
                 .expires_us = 60,
                 .app = (const uint8_t *)"chess",
                 .app_len = 5,
                 .name = (const uint8_t *)"ann",
                 .name_len = 3,
                 .props = (const uint8_t *)"\x81\xa1k\x05",
                 .props_len = 4,
                 .addrs = (const uint8_t *)"\x91\xc4\x06\1\2\3\4\5\6",
                 .addrs_len = 9};
  for (int round = 0; round < 2; round++) {
    assert_int_equal(bdk_registry_put(r, &e), 0);
    assert_int_equal(bdk_registry_count(r), 1);
    assert_true(bdk_registry_get(r, id, &got));
    assert_memory_equal(got.id, id, 16);
    assert_memory_equal(got.key, key, 32);
    assert_true(got.expires_us == e.expires_us);
    assert_int_equal(got.app_len, e.app_len);
    assert_memory_equal(got.app, e.app, e.app_len);
    assert_int_equal(got.name_len, e.name_len);
    assert_memory_equal(got.name, e.name, e.name_len);
    assert_int_equal(got.props_len, e.props_len);
    assert_memory_equal(got.props, e.props, e.props_len);
    assert_int_equal(got.addrs_len, e.addrs_len);
    assert_memory_equal(got.addrs, e.addrs, e.addrs_len);
    // replaced: other lengths, a later expiry
    key[0] = 1, e.expires_us = 90, e.name = (const uint8_t *)"annabel", e.name_len = 7, e.addrs_len = 0;
  }
  got.expires_us = 100; // what came out may go in again, though it points into the table
  assert_int_equal(bdk_registry_put(r, &got), 0);
  assert_true(bdk_registry_get(r, id, &got));
  assert_memory_equal(got.name, "annabel", 7);
  assert_true(bdk_registry_deadline(r) == 100);
  id[3] = 0;
  assert_false(bdk_registry_get(r, id, &got));
  assert_false(bdk_registry_remove(r, id));
  bdk_registry_free(r);
  assert_int_equal(heap.bytes, 0);
  bdk_registry_free(NULL);
}

static void bounds(void **state) {
  static uint8_t big[300];
  spec_heap heap = {0};
  bdk_registry *r = registry(&heap, 10);
  uint8_t id[16], props[130] = {0x81, 0xa1, 'k', 0xc4, 0};
  bdk_entry e, got;
  (void)state;
#define REFUSED(change)                                                                                                \
  e = small(id, 1, 5);                                                                                                 \
  change;                                                                                                              \
  assert_int_equal(bdk_registry_put(r, &e), BDK_E_INVALID)
  REFUSED(e.props = (const uint8_t *)"\x90");                            // no map
  REFUSED((e.props = (const uint8_t *)"\x80\x80", e.props_len = 2));     // two
  REFUSED((e.props = (const uint8_t *)"\x81\x01", e.props_len = 2));     // cut
  REFUSED((e.props = (const uint8_t *)"\x82\1\1\1\1", e.props_len = 5)); // duplicate keys
  REFUSED((e.addrs = big, e.addrs_len = 257));
  REFUSED((e.name = big, e.name_len = 236));
  REFUSED(e.key = NULL);
  for (int n = 128; n <= 129; n++) {
    props[4] = (uint8_t)(n - 5);
    e = small(id, 1, 5);
    e.props = props, e.props_len = (uint8_t)n;
    assert_int_equal(bdk_registry_put(r, &e), n == 128 ? 0 : BDK_E_INVALID);
  }
#undef REFUSED
  assert_int_equal(bdk_registry_count(r), 1);
  e = small(id, 2, 5);
  e.props_len = 0; // none at all: an empty map
  assert_int_equal(bdk_registry_put(r, &e), 0);
  assert_true(bdk_registry_get(r, id, &got));
  assert_int_equal(got.props_len, 1);
  assert_int_equal(got.props[0], 0x80);
  bdk_registry_free(r);
}

static void max_entries_is_kept(void **state) {
  spec_heap heap = {0};
  bdk_registry *r = registry(&heap, 100);
  uint8_t id[16];
  (void)state;
  for (uint32_t n = 0; n < 100; n++) put(r, n, n);
  bdk_entry e = small(id, 100, 5);
  assert_int_equal(bdk_registry_put(r, &e), BDK_E_LIMIT);
  put(r, 5, 77); // a refresh always goes
  assert_true(take_out(r, 3));
  assert_int_equal(bdk_registry_put(r, &e), 0);
  assert_int_equal(bdk_registry_count(r), 100);
  bdk_registry_free(r);
}

static void entries_expire_in_order(void **state) {
  spec_heap heap = {0};
  bdk_registry *r = registry(&heap, 100);
  uint8_t id[16], want[16];
  (void)state;
  assert_true(bdk_registry_deadline(r) == BDK_NEVER);
  for (uint32_t n = 0; n < 50; n++) put(r, n, 1000 - n);
  assert_true(bdk_registry_deadline(r) == 951);
  assert_false(bdk_registry_expire(r, 950, id));
  put(r, 49, 5000); // refreshed
  assert_true(bdk_registry_deadline(r) == 952);
  for (uint32_t n = 48; n < 49; n--) {
    make_id(want, n);
    assert_false(bdk_registry_expire(r, 999 - n, id));
    assert_true(bdk_registry_expire(r, 1000 - n, id));
    assert_memory_equal(id, want, 16);
    assert_false(has(r, n));
  }
  assert_int_equal(bdk_registry_count(r), 1);
  assert_true(has(r, 49));
  bdk_registry_free(r);
  assert_int_equal(heap.bytes, 0);
}

// --- against the naive table

static void fill(naive *x, uint32_t n, uint64_t *rng, uint64_t now) {
  static const char *const apps[] = {"chess", "go", ""};
  const char *app = apps[spec_below(rng, 3)];
  bdk_packer p = bdk_packer_init(x->props, sizeof x->props);
  memset(x, 0, sizeof *x);
  x->there = true;
  memcpy(x->app, app, strlen(app));
  bdk_pack_map(&p, 2);
  bdk_pack_str(&p, "mode", 4);
  bdk_pack_uint(&p, spec_below(rng, 3));
  bdk_pack_str(&p, "n", 1);
  bdk_pack_uint(&p, n);
  assert_false(p.overflow);
  for (size_t i = 0; i < sizeof x->addrs; i++) x->addrs[i] = (uint8_t)spec_random(rng);
  x->expires_us = now + spec_below(rng, 3000);
  x->e = (bdk_entry){.key = x->addrs,
                     .expires_us = x->expires_us,
                     .app = x->app,
                     .app_len = (uint8_t)strlen(app),
                     .name = x->addrs + 3,
                     .name_len = (uint8_t)spec_below(rng, 12),
                     .props = x->props,
                     .props_len = (uint8_t)p.len,
                     .addrs = x->addrs,
                     .addrs_len = (uint16_t)spec_below(rng, 40)};
}

static void assert_same(const bdk_entry *got, const naive *x) {
  assert_true(got->expires_us == x->expires_us);
  assert_memory_equal(got->key, x->e.key, 32);
  assert_int_equal(got->app_len, x->e.app_len);
  assert_memory_equal(got->app, x->e.app, x->e.app_len);
  assert_int_equal(got->name_len, x->e.name_len);
  assert_memory_equal(got->name, x->e.name, x->e.name_len);
  assert_int_equal(got->props_len, x->e.props_len);
  assert_memory_equal(got->props, x->e.props, x->e.props_len);
  assert_int_equal(got->addrs_len, x->e.addrs_len);
  assert_memory_equal(got->addrs, x->e.addrs, x->e.addrs_len);
}

static uint32_t number_of(const uint8_t *id) {
  uint32_t n;
  memcpy(&n, id + 5, sizeof n);
  assert_true(n < NAIVE);
  return n;
}

// Iterates all, or those of one app and mode, and compares with what the naive table holds.
static void compare_all(const bdk_registry *r, const naive *table, const char *app, int mode) {
  static bool seen[NAIVE];
  uint8_t cursor[16], query[8];
  const uint8_t *id = NULL;
  size_t found = 0, want = 0;
  bdk_entry e;
  bdk_packer p = bdk_packer_init(query, sizeof query);
  memset(seen, 0, sizeof seen);
  bdk_pack_map(&p, 1), bdk_pack_str(&p, "mode", 4), bdk_pack_uint(&p, (uint64_t)mode);
  for (;;) {
    uint32_t budget = 7;
    int got = bdk_registry_after(r, id, (const uint8_t *)app, app ? strlen(app) : 0, mode < 0 ? NULL : query, p.len,
                                 &budget, &e);
    if (got == 0) break;
    assert_true(got == 1 || budget == 0);
    memcpy(cursor, e.id, 16);
    id = cursor;
    if (got < 0) continue;
    uint32_t n = number_of(cursor);
    assert_true(table[n].there && !seen[n]);
    assert_same(&e, &table[n]);
    seen[n] = true;
    found++;
  }
  for (uint32_t n = 0; n < NAIVE; n++)
    want += table[n].there && (!app || strcmp((const char *)table[n].app, app) == 0) &&
            (mode < 0 || table[n].props[6] == mode);
  assert_int_equal(found, want);
}

static void behaves_as_a_naive_table(void **state) {
  static naive table[NAIVE];
  spec_heap heap = {0};
  bdk_registry *r = registry(&heap, 1u << 20);
  uint64_t rng = 8, now = 0, expired = 0;
  uint32_t count = 0, most = 0;
  uint8_t id[16];
  bdk_entry e;
  (void)state;
  for (int step = 0; step < 80000; step++) {
    uint32_t n = spec_below(&rng, NAIVE), what = spec_below(&rng, 100);
    bool filling = step / 8000 % 2 == 0; // the table grows and shrinks
    make_id(id, n);
    if (what < (filling ? 60u : 10u)) {
      count += !table[n].there;
      fill(&table[n], n, &rng, filling ? now + 5000 : now);
      table[n].e.id = id;
      assert_int_equal(bdk_registry_put(r, &table[n].e), 0);
    } else if (what < 80) {
      assert_int_equal(bdk_registry_remove(r, id), table[n].there);
      count -= table[n].there;
      table[n].there = false;
    } else if (what < 95) {
      assert_int_equal(bdk_registry_get(r, id, &e), table[n].there);
      if (table[n].there) assert_same(&e, &table[n]);
    } else {
      now += spec_below(&rng, 20);
      while (bdk_registry_expire(r, now, id)) {
        n = number_of(id);
        assert_true(table[n].there && table[n].expires_us <= now);
        table[n].there = false;
        count--, expired++;
      }
      uint64_t first = BDK_NEVER;
      for (n = 0; n < NAIVE; n++)
        if (table[n].there && table[n].expires_us < first) first = table[n].expires_us;
      assert_true(bdk_registry_deadline(r) == first);
    }
    assert_int_equal(bdk_registry_count(r), count);
    if (count > most) most = count;
    if (step % 4000 == 0) {
      compare_all(r, table, NULL, -1);
      compare_all(r, table, "chess", -1);
      compare_all(r, table, "go", 1);
      compare_all(r, table, "", 2);
      compare_all(r, table, NULL, 0);
      compare_all(r, table, "nobody", -1);
    }
  }
  assert_true(most > 900 && expired > 100);
  bdk_registry_free(r);
  assert_int_equal(heap.bytes, 0);
  assert_int_equal(heap.blocks, 0);
}

// Entries 0..KEPT are there throughout; others come and go between the pages, and the table is rebuilt.
static void an_entry_there_throughout_appears_exactly_once(void **state) {
  enum { KEPT = 400 };
  spec_heap heap = {0};
  uint64_t rng = 9;
  (void)state;
  for (int round = 0; round < 60; round++) {
    bdk_registry *r = registry(&heap, 1u << 20);
    int seen[KEPT] = {0};
    uint8_t cursor[16];
    const uint8_t *id = NULL;
    bdk_entry e;
    uint32_t churn = 1 + spec_below(&rng, 30);
    bool grow = round % 2 == 0;
    for (uint32_t n = 0; n < KEPT; n++) put(r, n, 1);
    if (!grow)
      for (uint32_t n = KEPT; n < NAIVE; n++) put(r, n, 1);
    for (;;) {
      uint32_t budget = 1 + spec_below(&rng, 5);
      int got = bdk_registry_after(r, id, NULL, 0, NULL, 0, &budget, &e);
      if (got == 0) break;
      assert_int_equal(got, 1);
      memcpy(cursor, e.id, 16);
      id = cursor;
      if (number_of(id) < KEPT)
        seen[number_of(id)]++;
      else if (spec_below(&rng, 2))
        take_out(r, number_of(id)); // the cursor's own entry goes
      for (uint32_t i = 0; i < churn; i++) {
        uint32_t n = KEPT + spec_below(&rng, NAIVE - KEPT);
        if (spec_below(&rng, 4) > 0 ? grow : !grow)
          put(r, n, 1);
        else
          take_out(r, n);
      }
      put(r, spec_below(&rng, KEPT), 2); // a refresh is no move
    }
    for (int n = 0; n < KEPT; n++) assert_int_equal(seen[n], 1);
    bdk_registry_free(r);
  }
  assert_int_equal(heap.bytes, 0);
}

static int query_one(const char *props, size_t props_len, const char *query, size_t query_len) {
  spec_heap heap = {0};
  bdk_registry *r = registry(&heap, 10);
  uint8_t id[16], *exact = spec_exact(query, query_len);
  uint32_t budget = 10;
  bdk_entry e = small(id, 1, 5), out;
  e.props = (const uint8_t *)props, e.props_len = (uint8_t)props_len;
  assert_int_equal(bdk_registry_put(r, &e), 0);
  int got = bdk_registry_after(r, NULL, NULL, 0, exact, query_len, &budget, &out);
  bdk_registry_free(r);
  free(exact);
  return got;
}

#define QUERY(props, query) query_one(props, sizeof(props) - 1, query, sizeof(query) - 1)

static void queries_compare_by_value(void **state) {
  (void)state;
  assert_int_equal(QUERY("\x80", "\x80"), 1);
  assert_int_equal(QUERY("\x82\xa1"
                         "a\x01\xa1"
                         "b\x02",
                         "\x80"),
                   1);
  assert_int_equal(QUERY("\x82\xa1"
                         "a\x01\xa1"
                         "b\x02",
                         "\x81\xa1"
                         "b\x02"),
                   1);
  assert_int_equal(QUERY("\x82\xa1"
                         "a\x01\xa1"
                         "b\x02",
                         "\x82\xa1"
                         "b\x02\xa1"
                         "a\x01"),
                   1);
  assert_int_equal(QUERY("\x82\xa1"
                         "a\x01\xa1"
                         "b\x02",
                         "\x81\xa1"
                         "b\x01"),
                   0); // the value of another key
  assert_int_equal(QUERY("\x82\xa1"
                         "a\x01\xa1"
                         "b\x02",
                         "\x81\xa1"
                         "c\x01"),
                   0);
  assert_int_equal(QUERY("\x82\xa1"
                         "a\x01\xa1"
                         "b\x02",
                         "\x82\xa1"
                         "a\x01\xa1"
                         "c\x01"),
                   0);
  assert_int_equal(QUERY("\x81\xa1"
                         "a\x01",
                         "\x81\xd9\x01"
                         "a\xcd\x00\x01"),
                   1); // other encodings
  assert_int_equal(QUERY("\x81\xa1"
                         "a\xff",
                         "\x81\xa1"
                         "a\xd3\xff\xff\xff\xff\xff\xff\xff\xff"),
                   1);
  assert_int_equal(QUERY("\x81\xa1"
                         "a\xff",
                         "\x81\xa1"
                         "a\xcf\xff\xff\xff\xff\xff\xff\xff\xff"),
                   0); // -1, 2^64-1
  assert_int_equal(QUERY("\x81\xa1"
                         "a\xca\x3f\x80\0\0",
                         "\x81\xa1"
                         "a\xcb\x3f\xf0\0\0\0\0\0\0"),
                   1);
  assert_int_equal(QUERY("\x81\xa1"
                         "a\x01",
                         "\x81\xa1"
                         "a\xcb\x3f\xf0\0\0\0\0\0\0"),
                   0); // 1 is not 1.0
  assert_int_equal(QUERY("\x81\xa1"
                         "a\xa1x",
                         "\x81\xa1"
                         "a\xc4\x01x"),
                   0); // str is not bin
  assert_int_equal(QUERY("\x81\xa1"
                         "a\xc3",
                         "\x81\xa1"
                         "a\xc2"),
                   0);
  assert_int_equal(QUERY("\x81\xa1"
                         "a\xc3",
                         "\x81\xa1"
                         "a\xc3"),
                   1);
  assert_int_equal(QUERY("\x81\xa1"
                         "a\xc0",
                         "\x81\xa1"
                         "a\xc0"),
                   1);
  assert_int_equal(QUERY("\x81\xa1"
                         "a\xa2xy",
                         "\x81\xa1"
                         "a\xa1x"),
                   0);
  assert_int_equal(QUERY("\x81\xa1"
                         "a\x92\x01\x02",
                         "\x81\xa1"
                         "a\x92\x01\xcc\x02"),
                   1);
  assert_int_equal(QUERY("\x81\xa1"
                         "a\x92\x01\x02",
                         "\x81\xa1"
                         "a\x92\x02\x01"),
                   0);
  assert_int_equal(QUERY("\x81\xa1"
                         "a\x92\x01\x02",
                         "\x81\xa1"
                         "a\x91\x01"),
                   0);
  assert_int_equal(QUERY("\x81\xa1"
                         "a\x82\x01\x02\x03\x04",
                         "\x81\xa1"
                         "a\x82\x03\x04\x01\x02"),
                   1);
  assert_int_equal(QUERY("\x81\xa1"
                         "a\x82\x01\x02\x03\x04",
                         "\x81\xa1"
                         "a\x81\x03\x04"),
                   0); // whole values only
  assert_int_equal(QUERY("\x82\xa1"
                         "a\x91\x81\x01\x02\xa1"
                         "b\x05",
                         "\x81\xa1"
                         "b\x05"),
                   1); // skips over the nested
}

static void a_query_that_is_no_map_finds_nothing(void **state) {
  (void)state;
  assert_int_equal(QUERY("\x80", "\x90"), 0);
  assert_int_equal(QUERY("\x80", "\x01"), 0);
  assert_int_equal(QUERY("\x80", ""), 0);
  assert_int_equal(QUERY("\x81\x01\x02", "\x81\x01"), 0);
  assert_int_equal(QUERY("\x81\x01\x02", "\xdf\x0f\xff\xff\xff"), 0);
}

static void the_budget_bounds_the_work(void **state) {
  static const uint8_t query[] = {0x81, 0xa1, 'x', 1};
  spec_heap heap = {0};
  bdk_registry *r = registry(&heap, 1000);
  uint8_t cursor[16];
  const uint8_t *id = NULL;
  bdk_entry e;
  uint32_t budget = 0, looked = 0;
  int got;
  (void)state;
  assert_int_equal(bdk_registry_after(r, NULL, NULL, 0, NULL, 0, &budget, &e), 0); // empty: at the end at once
  for (uint32_t n = 0; n < 95; n++) put(r, n, 1);
  assert_int_equal(bdk_registry_after(r, NULL, NULL, 0, NULL, 0, &budget, &e), -1);
  assert_null(e.id); // from the beginning, still
  do {
    budget = 10;
    got = bdk_registry_after(r, id, NULL, 0, query, sizeof query, &budget, &e);
    looked += 10 - budget;
    if (got == 0) break;
    assert_int_equal(got, -1);
    assert_int_equal(budget, 0);
    memcpy(cursor, e.id, 16);
    id = cursor;
  } while (looked < 1000);
  assert_int_equal(looked, 95);
  bdk_registry_free(r);
}

// What can be seen of the table, in order.
static void snapshot(const bdk_registry *r, uint8_t *out, size_t *len) {
  uint32_t budget = UINT32_MAX;
  bdk_entry e = {0};
  uint8_t cursor[16];
  const uint8_t *id = NULL;
  *len = 0;
  while (bdk_registry_after(r, id, NULL, 0, NULL, 0, &budget, &e) == 1) {
    memcpy(cursor, e.id, 16), id = cursor;
    memcpy(out + *len, e.id, 16), *len += 16;
    memcpy(out + *len, &e.expires_us, 8), *len += 8;
  }
  uint64_t deadline = bdk_registry_deadline(r);
  memcpy(out + *len, &deadline, 8), *len += 8;
}

static void failed_allocations_change_nothing(void **state) {
  static uint8_t before[8192], after[8192];
  spec_heap heap = {.fail_at = 1};
  bdk_registry_config c = {.alloc = {spec_resize, &heap}, .max_entries = 1000};
  uint8_t id[16];
  int failures = 0;
  (void)state;
  for (; heap.fail_at < 3; heap.fail_at++, heap.calls = 0) {
    assert_null(bdk_registry_new(&c));
    assert_int_equal(heap.blocks, 0);
  }
  heap.fail_at = 0;
  bdk_registry *r = bdk_registry_new(&c);
  assert_non_null(r);
  for (uint32_t n = 0; n < 200; n++) {
    bdk_entry e = small(id, n, 1000 + n);
    for (size_t k = 1;; k++) {
      size_t len, len_after, bytes = heap.bytes;
      bool done;
      snapshot(r, before, &len);
      heap.calls = 0, heap.fail_at = k;
      int got = bdk_registry_put(r, &e);
      done = heap.calls < k;
      heap.fail_at = 0;
      if (done) {
        assert_int_equal(got, 0);
        break;
      }
      failures++;
      assert_int_equal(got, BDK_E_LIMIT);
      assert_false(has(r, n));
      assert_int_equal(bdk_registry_count(r), n);
      snapshot(r, after, &len_after);
      assert_int_equal(len, len_after);
      assert_memory_equal(before, after, len);
      assert_true(heap.bytes >= bytes); // only the heap of timers, or the slots, may have grown
    }
    e.expires_us = 5; // a refresh that fails leaves the old entry
    heap.calls = 0, heap.fail_at = 1;
    assert_int_equal(bdk_registry_put(r, &e), BDK_E_LIMIT);
    heap.fail_at = 0;
    assert_true(bdk_registry_deadline(r) == 1000);
  }
  assert_true(failures > 200);
  for (uint32_t n = 0; n < 200; n++) { // without memory removal still works, only the slots stay
    heap.calls = 0, heap.fail_at = 1;
    assert_true(take_out(r, n));
    assert_int_equal(bdk_registry_count(r), 199 - n);
    for (uint32_t k = n + 1; k < 200; k++) assert_true(has(r, k));
  }
  bdk_registry_free(r);
  assert_int_equal(heap.bytes, 0);
}

// Ids chosen, with the key known, to crowd the last homes: more than there are overflow slots.
static void a_run_past_the_last_slot_grows_the_table(void **state) {
  enum { CROWD = 1200 };
  static const uint8_t seed[16] = {1, 2, 3};
  static uint32_t crowd[CROWD];
  spec_heap heap = {0};
  bdk_registry *r = registry(&heap, 1u << 20);
  uint32_t found = 0, budget = UINT32_MAX, seen = 0;
  uint8_t id[16], cursor[16], h[crypto_shorthash_BYTES];
  bdk_entry e;
  (void)state;
  for (uint32_t n = 0; found < CROWD; n++) {
    make_id(id, n);
    crypto_shorthash(h, id, sizeof id, seed);
    if (h[0] == 0xff) crowd[found++] = n;
  }
  for (uint32_t i = 0; i < CROWD; i++) {
    put(r, crowd[i], 1);
    assert_int_equal(bdk_registry_count(r), i + 1);
  }
  for (const uint8_t *at = NULL; bdk_registry_after(r, at, NULL, 0, NULL, 0, &budget, &e) == 1; seen++)
    memcpy(cursor, e.id, 16), at = cursor;
  assert_int_equal(seen, CROWD);
  for (uint32_t i = 0; i < CROWD; i++) {
    assert_true(take_out(r, crowd[i]));
    if (i % 100 != 0) continue;
    for (uint32_t k = 0; k < CROWD; k++) assert_int_equal(has(r, crowd[k]), k > i);
  }
  bdk_registry_free(r);
  assert_int_equal(heap.bytes, 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(an_entry_comes_back_as_it_was_put),
      cmocka_unit_test(bounds),
      cmocka_unit_test(max_entries_is_kept),
      cmocka_unit_test(entries_expire_in_order),
      cmocka_unit_test(behaves_as_a_naive_table),
      cmocka_unit_test(an_entry_there_throughout_appears_exactly_once),
      cmocka_unit_test(queries_compare_by_value),
      cmocka_unit_test(a_query_that_is_no_map_finds_nothing),
      cmocka_unit_test(the_budget_bounds_the_work),
      cmocka_unit_test(failed_allocations_change_nothing),
      cmocka_unit_test(a_run_past_the_last_slot_grows_the_table),
  };
  return cmocka_run_group_tests_name("core/registry", tests, NULL, NULL);
}
