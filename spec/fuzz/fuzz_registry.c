// SPDX-License-Identifier: MIT
// The registry beside a naive model of it: entries put, replaced, read, removed, expired and iterated over with
// apps, queries and budgets, with allocations that fail between. What the one says, the other must say.
#include <sodium.h>

#include "core/registry.h"
#include "fuzz.h"

#define IDS 48
#define MAX 40 // entries; the table grows twice on the way there

static const uint8_t key[32] = "key", seed[16] = "seed of the hash";

// Properties as a set of pairs (bits 0: a = 1, 1: b = "x", 2: c = {-1, true}), and queries that name some of them,
// encoded in other ways and another order. Query 5 and 6 are met by none, 7 is no map.
static const struct {
  const char *bytes;
  uint8_t len, pairs;
} props[] = {{"", 0, 0},
             {"\x80", 1, 0},
             {"\x81\xa1"
              "a\x01",
              4, 1},
             {"\x81\xa1"
              "b\xa1x",
              5, 2},
             {"\x82\xa1"
              "a\x01\xa1"
              "b\xa1x",
              8, 3},
             {"\x83\xa1"
              "a\x01\xa1"
              "b\xa1x\xa1"
              "c\x92\xff\xc3",
              13, 7},
             {"\x82\xa1"
              "c\x92\xff\xc3\xa1"
              "b\xa1x",
              10, 6},
             {"\x90", 1, 0xFF}},
  queries[] = {{"\x80", 1, 0},
               {"\x81\xa1"
                "a\xcd\x00\x01",
                6, 1},
               {"\x81\xa1"
                "b\xd9\x01x",
                6, 2},
               {"\xde\x00\x02\xa1"
                "b\xa1x\xa1"
                "a\xcc\x01",
                11, 3},
               {"\x81\xa1"
                "c\x92\xd0\xff\xc3",
                7, 4},
               {"\x81\xa1"
                "a\x02",
                4, 0x80},
               {"\x81\xa1"
                "d\xc0",
                4, 0x80},
               {"\x90", 1, 0xFF}};

typedef struct known {
  bool there;
  uint8_t app, prop, name_len, addrs_len;
  uint64_t expires_us, order;
} known;

typedef struct world {
  bdk_registry *r;
  fuzz_heap heap;
  known at[IDS];
  uint32_t count;
  uint64_t now_us, order;
} world;

static void id_of(uint8_t n, uint8_t id[BDK_ID_LEN]) {
  memset(id, 0, BDK_ID_LEN);
  id[0] = (uint8_t)(n * 37);
  id[15] = n;
}

// The ids in the order of the table: by hash, then id. The same in every run.
static const uint8_t *ordered(void) {
  static uint8_t list[IDS];
  static uint64_t key[IDS];
  if (key[0]) return list;
  for (uint8_t n = 0; n < IDS; n++) {
    uint8_t id[BDK_ID_LEN], h[crypto_shorthash_BYTES], i = n;
    id_of(n, id);
    crypto_shorthash(h, id, sizeof id, seed);
    uint64_t k = ((uint64_t)h[0] << 24 | (uint64_t)h[1] << 16 | (uint64_t)h[2] << 8 | h[3]) << 16 | id[0] << 8 | id[15];
    for (; i > 0 && key[i - 1] > k; i--) key[i] = key[i - 1], list[i] = list[i - 1];
    key[i] = k, list[i] = n;
  }
  return list;
}

static void same(const world *w, const bdk_entry *e) {
  static const uint8_t bytes[256] = {0};
  uint8_t n = e->id[15], id[BDK_ID_LEN];
  REQUIRE(n < IDS && w->at[n].there);
  const known *k = &w->at[n];
  id_of(n, id);
  REQUIRE(memcmp(e->id, id, sizeof id) == 0 && memcmp(e->key, key, sizeof key) == 0);
  REQUIRE(e->expires_us == k->expires_us && e->app_len == k->app && e->name_len == k->name_len);
  REQUIRE(e->addrs_len == k->addrs_len && memcmp(e->addrs, bytes, e->addrs_len) == 0);
  REQUIRE(memcmp(e->name, bytes, e->name_len) == 0 && memcmp(e->app, bytes, e->app_len) == 0);
  uint8_t prop = k->prop ? k->prop : 1; // none at all are an empty map
  REQUIRE(e->props_len == props[prop].len && memcmp(e->props, props[prop].bytes, e->props_len) == 0);
}

static void put(world *w, fuzz_input *in) {
  static const uint8_t bytes[256] = {0};
  uint8_t n = fuzz_take(in) % IDS, shape = fuzz_take(in), life = fuzz_take(in), id[BDK_ID_LEN];
  known k = {.there = true, .app = shape >> 3 & 3, .prop = shape & 7, .name_len = shape & 0x20 ? 33 : 0};
  k.addrs_len = shape & 0x40 ? 38 : 0;
  if (shape & 0x80) k.name_len = 250; // too long, but for with no properties
  k.expires_us = w->now_us + life;
  id_of(n, id);
  bdk_entry e = {.id = id, .key = key, .expires_us = k.expires_us, .app = bytes, .name = bytes, .addrs = bytes};
  e.props = (const uint8_t *)props[k.prop].bytes;
  e.props_len = props[k.prop].len;
  e.app_len = k.app, e.name_len = k.name_len, e.addrs_len = k.addrs_len;
  bool may_fail = w->heap.fail_in;
  int error = bdk_registry_put(w->r, &e);
  size_t shown = 20u + k.name_len + (k.prop ? props[k.prop].len : 1u);
  if (props[k.prop].pairs == 0xFF || shown > BDK_ENTRY_PUBLIC_MAX)
    REQUIRE(error == BDK_E_INVALID);
  else if (!w->at[n].there && w->count == MAX)
    REQUIRE(error == BDK_E_LIMIT);
  else
    REQUIRE(error == 0 || (error == BDK_E_LIMIT && may_fail));
  if (error) return;
  k.order = ++w->order;
  w->count += !w->at[n].there;
  w->at[n] = k;
}

static void iterate(world *w, fuzz_input *in) {
  uint8_t from = fuzz_take(in), what = fuzz_take(in), id[BDK_ID_LEN];
  const uint8_t *order = ordered();
  bool by_app = what & 8, by_query = what & 16;
  uint8_t app = what >> 5 & 3, query = what & 7;
  static const uint8_t bytes[4] = {0};
  uint32_t budget = fuzz_take(in) % 64, left = budget;
  unsigned i = 0;
  id_of(from % IDS, id);
  const uint8_t *last = from & 0x80 ? NULL : id;
  if (last) {
    while (order[i] != from % IDS) i++;
    i++;
  }
  bdk_entry e = {0};
  int found =
      bdk_registry_after(w->r, last, by_app ? bytes : NULL, app,
                         by_query ? (const uint8_t *)queries[query].bytes : NULL, queries[query].len, &budget, &e);
  if (by_query && queries[query].pairs == 0xFF) {
    REQUIRE(found == 0);
    return;
  }
  int expected = 0;
  uint8_t looked[BDK_ID_LEN];
  for (; i < IDS && !expected; i++) {
    const known *k = &w->at[order[i]];
    if (!k->there) continue;
    if (left == 0) {
      expected = -1;
      break;
    }
    left--;
    id_of(order[i], looked);
    last = looked;
    if (by_app && k->app != app) continue;
    if (by_query && (props[k->prop].pairs & queries[query].pairs) != queries[query].pairs) continue;
    expected = 1;
  }
  REQUIRE(found == expected && budget == left);
  if (found > 0) same(w, &e);
  if (found) REQUIRE(last ? e.id && memcmp(e.id, last, BDK_ID_LEN) == 0 : !e.id);
}

// The one that is due first, of those the one put first.
static int first_due(const world *w) {
  int first = -1;
  for (int n = 0; n < IDS; n++) {
    const known *k = &w->at[n], *f = first < 0 ? NULL : &w->at[first];
    if (k->there && (!f || k->expires_us < f->expires_us || (k->expires_us == f->expires_us && k->order < f->order)))
      first = n;
  }
  return first;
}

static void expire(world *w) {
  uint8_t id[BDK_ID_LEN];
  int n = first_due(w);
  REQUIRE(bdk_registry_deadline(w->r) == (n < 0 ? BDK_NEVER : w->at[n].expires_us));
  bool due = n >= 0 && w->at[n].expires_us <= w->now_us;
  REQUIRE(bdk_registry_expire(w->r, w->now_us, id) == due);
  if (!due) return;
  REQUIRE(id[15] == n);
  w->at[n].there = false;
  w->count--;
}

static void look(world *w, uint8_t n, bool remove) {
  uint8_t id[BDK_ID_LEN];
  bdk_entry e;
  id_of(n, id);
  REQUIRE(bdk_registry_get(w->r, id, &e) == w->at[n].there);
  if (w->at[n].there) same(w, &e);
  if (!remove) return;
  REQUIRE(bdk_registry_remove(w->r, id) == w->at[n].there);
  w->count -= w->at[n].there;
  w->at[n].there = false;
}

int LLVMFuzzerInitialize(int *argc, char ***argv) {
  (void)argc, (void)argv;
  return sodium_init() < 0; // without it, libsodium uses its slowest code
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len) {
  fuzz_input in = {bytes, bytes + len};
  world w = {.now_us = 100};
  bdk_registry_config config = {.alloc = {fuzz_resize, &w.heap}, .max_entries = MAX};
  memcpy(config.seed, seed, sizeof seed);
  w.heap.fail_in = len ? bytes[0] % 4 : 0;
  w.r = bdk_registry_new(&config);
  if (!w.r) {
    REQUIRE(w.heap.bytes == 0);
    return 0;
  }
  while (in.p < in.end) {
    uint8_t op = fuzz_take(&in);
    switch (op % 8) {
    case 0:
    case 1:
    case 2:
      put(&w, &in);
      break;
    case 3:
      iterate(&w, &in);
      break;
    case 4:
      w.now_us += op >> 3;
      expire(&w);
      break;
    case 5:
    case 6:
      look(&w, fuzz_take(&in) % IDS, op & 8);
      break;
    case 7:
      w.heap.fail_in = op >> 3 & 3;
      break;
    }
    REQUIRE(bdk_registry_count(w.r) == w.count);
  }
  for (uint8_t n = 0; n < IDS; n++) look(&w, n, false);
  bdk_registry_free(w.r);
  REQUIRE(w.heap.bytes == 0);
  return 0;
}
