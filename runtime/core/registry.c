// SPDX-License-Identifier: MIT
// Invariants of the slots: occupied ones ascend in (hash, id); an entry is never left of its home (the
// slot that the top bits of its hash name); no empty slot lies between an entry and its home. Nothing
// wraps around: after the last home come overflow slots, and when a run would leave these the table grows.
// So the order of entries depends on hash and id alone, not on the table's size, and survives growth.
#include "registry.h"

#include <sodium.h>
#include <string.h>

#define BITS_MIN 4u
#define BITS_MAX 30u
#define OVERFLOW_MAX 1024u // a run at 7/8 load is longer with a chance of about e^-8; it costs one doubling

// One block an entry; `data` holds app, name, props, addrs one after another.
typedef struct entry {
  bdk_timer timer; // first: the wheel gives it back
  uint8_t id[BDK_ID_LEN], key[32];
  uint8_t app_len, name_len, props_len;
  uint16_t addrs_len;
  uint8_t data[];
} entry;

// Hashes stand beside the pointers so that a search touches an entry only to compare ids.
typedef struct slots {
  entry **entry; // NULL: empty
  uint32_t *hash;
  uint32_t size; // homes and overflow
  uint8_t bits;  // 2^bits homes
} slots;

struct bdk_registry {
  bdk_registry_config config;
  bdk_wheel wheel;
  slots slots;
  uint32_t count;
};

static size_t entry_size(const entry *e) { return sizeof *e + e->app_len + e->name_len + e->props_len + e->addrs_len; }

static void *resize(bdk_registry *r, void *p, size_t old_size, size_t new_size) {
  return r->config.alloc.resize(r->config.alloc.ctx, p, old_size, new_size);
}

static uint32_t hash_id(const bdk_registry *r, const uint8_t *id) {
  uint8_t h[crypto_shorthash_BYTES];
  crypto_shorthash(h, id, BDK_ID_LEN, r->config.seed);
  return (uint32_t)h[0] << 24 | (uint32_t)h[1] << 16 | (uint32_t)h[2] << 8 | h[3];
}

static uint32_t home(const slots *s, uint32_t hash) { return hash >> (32 - s->bits); }

static int compare(const slots *s, uint32_t at, uint32_t hash, const uint8_t *id) {
  if (s->hash[at] != hash) return s->hash[at] < hash ? -1 : 1;
  return memcmp(s->entry[at]->id, id, BDK_ID_LEN);
}

// The slot of the first entry of at least (hash, id), or the first empty slot before it from `hash`'s home
// on: where (hash, id) is, or belongs. May be `s->size`.
static uint32_t find(const slots *s, uint32_t hash, const uint8_t *id, bool *found) {
  uint32_t at = home(s, hash);
  int order = 1;
  while (at < s->size && s->entry[at] && (order = compare(s, at, hash, id)) < 0) at++;
  *found = at < s->size && s->entry[at] && order == 0;
  return at;
}

static size_t slots_bytes(uint32_t size) { return size * (sizeof(entry *) + sizeof(uint32_t)); }

static bool slots_new(bdk_registry *r, slots *s, uint8_t bits) {
  uint32_t homes = 1u << bits;
  s->bits = bits;
  s->size = homes + (homes < OVERFLOW_MAX ? homes : OVERFLOW_MAX);
  s->entry = resize(r, NULL, 0, slots_bytes(s->size));
  if (!s->entry) return false;
  memset(s->entry, 0, slots_bytes(s->size));
  s->hash = (uint32_t *)(void *)(s->entry + s->size);
  return true;
}

static void slots_free(bdk_registry *r, slots *s) {
  if (s->entry) resize(r, s->entry, slots_bytes(s->size), 0);
}

// Moves all entries to slots with 2^bits homes, or more when the overflow is too small. Entries come in
// order, so each goes to its home or right after the one before it.
static bool rebuild(bdk_registry *r, uint8_t bits) {
  for (; bits <= BITS_MAX; bits++) {
    slots to;
    uint32_t next = 0, i = 0;
    if (!slots_new(r, &to, bits)) return false;
    for (; i < r->slots.size; i++) {
      if (!r->slots.entry[i]) continue;
      uint32_t hash = r->slots.hash[i], want = home(&to, hash);
      if (want > next) next = want;
      if (next == to.size) break;
      to.entry[next] = r->slots.entry[i];
      to.hash[next++] = hash;
    }
    if (i == r->slots.size) {
      slots_free(r, &r->slots);
      r->slots = to;
      return true;
    }
    slots_free(r, &to);
  }
  return false;
}

// Makes an empty slot at `at` by moving the run there one to the right; false when it would leave the slots.
static bool open_slot(slots *s, uint32_t at) {
  uint32_t end = at;
  while (end < s->size && s->entry[end]) end++;
  if (end == s->size) return false;
  memmove(s->entry + at + 1, s->entry + at, (end - at) * sizeof *s->entry);
  memmove(s->hash + at + 1, s->hash + at, (end - at) * sizeof *s->hash);
  return true;
}

// Closes the gap at `at`: what follows moves left, up to an empty slot or an entry that is at its home.
static void close_slot(slots *s, uint32_t at) {
  uint32_t end = at + 1;
  while (end < s->size && s->entry[end] && home(s, s->hash[end]) < end) end++;
  memmove(s->entry + at, s->entry + at + 1, (end - at - 1) * sizeof *s->entry);
  memmove(s->hash + at, s->hash + at + 1, (end - at - 1) * sizeof *s->hash);
  s->entry[end - 1] = NULL;
}

bdk_registry *bdk_registry_new(const bdk_registry_config *config) {
  bdk_registry *r = config->alloc.resize(config->alloc.ctx, NULL, 0, sizeof *r);
  if (!r) return NULL;
  *r = (bdk_registry){.config = *config};
  bdk_wheel_init(&r->wheel, &config->alloc);
  if (!slots_new(r, &r->slots, BITS_MIN)) {
    resize(r, r, sizeof *r, 0);
    return NULL;
  }
  return r;
}

void bdk_registry_free(bdk_registry *r) {
  if (!r) return;
  bdk_wheel_clear(&r->wheel);
  for (uint32_t i = 0; i < r->slots.size; i++)
    if (r->slots.entry[i]) resize(r, r->slots.entry[i], entry_size(r->slots.entry[i]), 0);
  slots_free(r, &r->slots);
  resize(r, r, sizeof *r, 0);
}

uint32_t bdk_registry_count(const bdk_registry *r) { return r->count; }

static bool is_map(const uint8_t *bytes, size_t len) {
  bdk_item item;
  bdk_reader reader = {bytes, bytes + len};
  return bdk_wire_check(bytes, len) && bdk_read(&reader, &item) && item.kind == BDK_WIRE_MAP;
}

static bool valid(const bdk_entry *in) {
  size_t shown = 2 + BDK_ID_LEN + 2u + in->name_len + in->props_len;
  if (!in->id || !in->key || shown > BDK_ENTRY_PUBLIC_MAX) return false;
  if (in->props_len > BDK_ENTRY_PROPS_MAX || in->addrs_len > BDK_ENTRY_PUBLIC_MAX) return false;
  return is_map(in->props, in->props_len);
}

static entry *entry_new(bdk_registry *r, const bdk_entry *in) {
  entry head = {
      .app_len = in->app_len, .name_len = in->name_len, .props_len = in->props_len, .addrs_len = in->addrs_len};
  entry *e = resize(r, NULL, 0, entry_size(&head));
  if (!e) return NULL;
  *e = head;
  memcpy(e->id, in->id, sizeof e->id);
  memcpy(e->key, in->key, sizeof e->key);
  uint8_t *p = e->data;
  if (in->app_len) memcpy(p, in->app, in->app_len);
  p += in->app_len;
  if (in->name_len) memcpy(p, in->name, in->name_len);
  p += in->name_len;
  memcpy(p, in->props, in->props_len);
  p += in->props_len;
  if (in->addrs_len) memcpy(p, in->addrs, in->addrs_len);
  return e;
}

static void entry_show(const entry *e, bdk_entry *out) {
  const uint8_t *name = e->data + e->app_len, *props = name + e->name_len;
  *out = (bdk_entry){
      .id = e->id,
      .key = e->key,
      .expires_us = e->timer.due_us,
      .app = e->data,
      .name = name,
      .props = props,
      .addrs = props + e->props_len,
      .app_len = e->app_len,
      .name_len = e->name_len,
      .props_len = e->props_len,
      .addrs_len = e->addrs_len,
  };
}

// A slot for (hash, id), which is not in the table; `r->slots.size` when memory cannot be had.
static uint32_t claim(bdk_registry *r, uint32_t hash, const uint8_t *id) {
  bool found, full = r->count >= (1u << r->slots.bits) / 8 * 7;
  for (;;) {
    if (full && !rebuild(r, r->slots.bits + 1)) return r->slots.size;
    uint32_t at = find(&r->slots, hash, id, &found);
    full = !open_slot(&r->slots, at);
    if (!full) return at;
  }
}

int bdk_registry_put(bdk_registry *r, const bdk_entry *in) {
  static const uint8_t empty_map[1] = {0x80};
  bdk_entry with_props = *in;
  bool found;
  if (in->props_len == 0) {
    with_props.props = empty_map;
    with_props.props_len = sizeof empty_map;
    in = &with_props;
  }
  if (!valid(in)) return BDK_E_INVALID;
  uint32_t hash = hash_id(r, in->id), at = find(&r->slots, hash, in->id, &found);
  if (!found && r->count >= r->config.max_entries) return BDK_E_LIMIT;
  entry *e = entry_new(r, in);
  if (!e) return BDK_E_LIMIT;
  if (found) {
    entry *old = r->slots.entry[at];
    bdk_wheel_cancel(&r->wheel, &old->timer); // leaves the room that the next line needs
    bdk_wheel_set(&r->wheel, &e->timer, in->expires_us);
    r->slots.entry[at] = e;
    resize(r, old, entry_size(old), 0);
    return 0;
  }
  if (bdk_wheel_set(&r->wheel, &e->timer, in->expires_us) < 0) goto fail;
  at = claim(r, hash, in->id);
  if (at == r->slots.size) goto fail;
  r->slots.entry[at] = e;
  r->slots.hash[at] = hash;
  r->count++;
  return 0;
fail:
  bdk_wheel_cancel(&r->wheel, &e->timer);
  resize(r, e, entry_size(e), 0);
  return BDK_E_LIMIT;
}

bool bdk_registry_get(const bdk_registry *r, const uint8_t id[BDK_ID_LEN], bdk_entry *out) {
  bool found;
  uint32_t at = find(&r->slots, hash_id(r, id), id, &found);
  if (found) entry_show(r->slots.entry[at], out);
  return found;
}

static void remove_at(bdk_registry *r, uint32_t at) {
  entry *e = r->slots.entry[at];
  bdk_wheel_cancel(&r->wheel, &e->timer);
  close_slot(&r->slots, at);
  resize(r, e, entry_size(e), 0);
  r->count--;
  // Empty slots cost an iteration time that its budget does not see, so they are kept in proportion. Growth
  // comes at 7/8, so this cannot alternate with it. Without memory the table stays large, no more.
  if (r->slots.bits > BITS_MIN + 1 && r->count < (1u << r->slots.bits) / 8) rebuild(r, r->slots.bits - 2);
}

bool bdk_registry_remove(bdk_registry *r, const uint8_t id[BDK_ID_LEN]) {
  bool found;
  uint32_t at = find(&r->slots, hash_id(r, id), id, &found);
  if (found) remove_at(r, at);
  return found;
}

static bool matches(const entry *e, const uint8_t *app, size_t app_len, const uint8_t *query, size_t query_len) {
  bdk_entry x;
  entry_show(e, &x);
  if (app && (x.app_len != app_len || memcmp(x.app, app, app_len) != 0)) return false;
  if (!query) return true;
  return bdk_query_matches(query, query_len, x.props, x.props_len);
}

int bdk_registry_after(const bdk_registry *r, const uint8_t *id, const uint8_t *app, size_t app_len,
                       const uint8_t *query, size_t query_len, uint32_t *budget, bdk_entry *out) {
  uint32_t at = 0;
  const uint8_t *last = id;
  if (query && bdk_query_check(query, query_len, NULL) < 0) return 0;
  if (id) {
    bool found;
    at = find(&r->slots, hash_id(r, id), id, &found);
    if (found) at++;
  }
  for (; at < r->slots.size; at++) {
    const entry *e = r->slots.entry[at];
    if (!e) continue;
    if (*budget == 0) {
      *out = (bdk_entry){.id = last};
      return -1;
    }
    --*budget;
    last = e->id;
    if (!matches(e, app, app_len, query, query_len)) continue;
    entry_show(e, out);
    return 1;
  }
  return 0;
}

bool bdk_registry_expire(bdk_registry *r, uint64_t now_us, uint8_t id[BDK_ID_LEN]) {
  bool found;
  bdk_timer *timer = bdk_wheel_pop(&r->wheel, now_us);
  if (!timer) return false;
  memcpy(id, ((const entry *)(void *)timer)->id, BDK_ID_LEN);
  uint32_t at = find(&r->slots, hash_id(r, id), id, &found);
  if (found) remove_at(r, at);
  return true;
}

uint64_t bdk_registry_deadline(const bdk_registry *r) { return bdk_wheel_deadline(&r->wheel); }
