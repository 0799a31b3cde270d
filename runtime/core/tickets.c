// SPDX-License-Identifier: MIT
// Each pool has its places in two orders, by number and by value. New ones lie unsorted at the end until the pool is
// prepared: then they are sorted and merged in, and those gone are left out. By value there is a list through the
// order, from which a ticket that goes is taken out at once, so that a search never steps over those that went.
#include "tickets.h"

#include <string.h>

#define NONE BDK_TICKET_NONE
#define LOOK BDK_TICKETS_LOOK
#define STEPS_MAX (4 * LOOK) // over those that are gone, by age

// What a search reads of a position of `sorted`, together.
typedef struct stand {
  double value;
  uint32_t left, right; // the next one on each side that is still there, +1; 0: none
} stand;

typedef struct pool {
  uint32_t *order, *sorted;    // places
  stand *stands;               // of the positions of `sorted`
  uint32_t count, known, cap;  // of those, the first `known` are sorted
  uint32_t gone, first, round; // first: position in `order` before which nobody waits
  bool used;
} pool;

// While sorting: what is compared, beside each other.
typedef struct keyed {
  double value;
  uint64_t no;
  uint32_t place;
} keyed;

struct bdk_tickets {
  bdk_alloc alloc;
  bdk_ticket *tickets;
  uint32_t used, cap, free; // free: a list through `at` of places to be used again, +1
  uint32_t count;
  pool *pools;
  uint32_t pool_count, pool_cap;
  uint32_t *index; // hash of number -> place + 1, open addressing
  uint32_t index_mask;
  uint32_t serial, drops;
  bool indexed;
};

// --- memory
static void *resize(bdk_tickets *t, void *p, size_t old, size_t new) {
  return t->alloc.resize(t->alloc.ctx, p, old, new);
}

// Grows an array to `cap` elements; false and unchanged without memory.
#define GROW(t, array, old_cap, new_cap)                                                                               \
  grow(t, (void **)&(array), sizeof *(array) * (old_cap), sizeof *(array) * (new_cap))
static bool grow(bdk_tickets *t, void **array, size_t old, size_t new) {
  void *p = resize(t, *array, old, new);
  if (!p) return false;
  *array = p;
  return true;
}

bdk_tickets *bdk_tickets_new(const bdk_alloc *alloc, bool indexed) {
  bdk_tickets *t = alloc->resize(alloc->ctx, NULL, 0, sizeof *t);
  if (!t) return NULL;
  memset(t, 0, sizeof *t);
  t->alloc = *alloc;
  t->indexed = indexed;
  return t;
}

static void free_pool(bdk_tickets *t, pool *p) {
  if (p->order) resize(t, p->order, sizeof *p->order * p->cap, 0);
  if (p->sorted) resize(t, p->sorted, sizeof *p->sorted * p->cap, 0);
  if (p->stands) resize(t, p->stands, sizeof *p->stands * p->cap, 0);
  memset(p, 0, sizeof *p);
}

void bdk_tickets_free(bdk_tickets *t) {
  if (!t) return;
  for (uint32_t i = 0; i < t->pool_count; i++) free_pool(t, &t->pools[i]);
  if (t->pools) resize(t, t->pools, sizeof *t->pools * t->pool_cap, 0);
  if (t->tickets) resize(t, t->tickets, sizeof *t->tickets * t->cap, 0);
  if (t->index) resize(t, t->index, sizeof *t->index * ((size_t)t->index_mask + 1), 0);
  bdk_alloc alloc = t->alloc;
  alloc.resize(alloc.ctx, t, sizeof *t, 0);
}

uint32_t bdk_tickets_count(const bdk_tickets *t) { return t->count; }

// --- numbers
static uint32_t hash(uint64_t no) {
  no *= 0x9e3779b97f4a7c15u;
  return (uint32_t)(no >> 32);
}

static uint32_t slot_of(const bdk_tickets *t, uint64_t no) {
  uint32_t i = hash(no) & t->index_mask;
  while (t->index[i] && t->tickets[t->index[i] - 1].no != no) i = (i + 1) & t->index_mask;
  return i;
}

uint32_t bdk_tickets_find(const bdk_tickets *t, uint64_t no) {
  return t->index ? t->index[slot_of(t, no)] - 1 : NONE; // 0 - 1 is NONE
}

static bool reserve_index(bdk_tickets *t) {
  if (t->index && t->count + 1 <= (t->index_mask + 1) / 2) return true;
  uint32_t *old = t->index, old_mask = t->index_mask, size = old ? (old_mask + 1) * 2 : 64;
  uint32_t *index = resize(t, NULL, 0, sizeof *index * size);
  if (!index) return false;
  memset(index, 0, sizeof *index * size);
  t->index = index;
  t->index_mask = size - 1;
  for (uint32_t i = 0; old && i <= old_mask; i++)
    if (old[i]) t->index[slot_of(t, t->tickets[old[i] - 1].no)] = old[i];
  if (old) resize(t, old, sizeof *old * ((size_t)old_mask + 1), 0);
  return true;
}

// Takes a number out: those behind it in its run move up.
static void unindex(bdk_tickets *t, uint64_t no) {
  uint32_t hole = slot_of(t, no);
  for (uint32_t i = (hole + 1) & t->index_mask; t->index[i]; i = (i + 1) & t->index_mask) {
    uint32_t home = hash(t->tickets[t->index[i] - 1].no) & t->index_mask;
    if (((i - home) & t->index_mask) < ((i - hole) & t->index_mask)) continue;
    t->index[hole] = t->index[i];
    hole = i;
  }
  t->index[hole] = 0;
}

// --- pools
uint32_t bdk_tickets_pool(bdk_tickets *t) {
  for (uint32_t i = 0; i < t->pool_count; i++) {
    if (t->pools[i].used) continue;
    t->pools[i].used = true;
    return i;
  }
  if (t->pool_count == t->pool_cap) {
    uint32_t cap = t->pool_cap ? t->pool_cap * 2 : 4;
    if (!GROW(t, t->pools, t->pool_cap, cap)) return NONE;
    t->pool_cap = cap;
  }
  t->pools[t->pool_count] = (pool){.used = true};
  return t->pool_count++;
}

void bdk_tickets_release(bdk_tickets *t, uint32_t which) {
  if (t->pools[which].count == 0) free_pool(t, &t->pools[which]);
}

uint32_t bdk_tickets_pool_count(const bdk_tickets *t, uint32_t which) {
  return t->pools[which].count - t->pools[which].gone;
}

bool bdk_tickets_is_pool(const bdk_tickets *t, uint32_t which) { return which < t->pool_count; }

// Moves an array into a larger one, where there is one.
static void *moved(bdk_tickets *t, void *to, void *from, size_t bytes) {
  if (!from) return to;
  memcpy(to, from, bytes);
  resize(t, from, bytes, 0);
  return to;
}

// All arrays or, without memory, none: they have one size.
static bool reserve_pool(bdk_tickets *t, pool *p) {
  if (p->count < p->cap) return true;
  uint32_t cap = p->cap ? p->cap * 2 : 8;
  uint32_t *order = resize(t, NULL, 0, sizeof *order * cap);
  uint32_t *sorted = order && t->indexed ? resize(t, NULL, 0, sizeof *sorted * cap) : NULL;
  stand *stands = sorted ? resize(t, NULL, 0, sizeof *stands * cap) : NULL;
  if (!order || (t->indexed && !stands)) {
    if (sorted) resize(t, sorted, sizeof *sorted * cap, 0);
    if (order) resize(t, order, sizeof *order * cap, 0);
    return false;
  }
  p->order = moved(t, order, p->order, sizeof *order * p->cap);
  p->sorted = moved(t, sorted, p->sorted, sizeof *sorted * p->cap);
  p->stands = moved(t, stands, p->stands, sizeof *stands * p->cap);
  p->cap = cap;
  return true;
}

// --- tickets
bdk_ticket *bdk_tickets_at(bdk_tickets *t, uint32_t place) { return &t->tickets[place]; }

uint32_t bdk_tickets_add(bdk_tickets *t, uint32_t which, uint64_t no, uint64_t since, double value, uint8_t size) {
  if (!reserve_index(t) || !reserve_pool(t, &t->pools[which])) return NONE;
  uint32_t place = t->free - 1;
  if (t->free) {
    t->free = t->tickets[place].at;
  } else {
    if (t->used == t->cap) {
      uint32_t cap = t->cap ? t->cap * 2 : 16;
      if (!GROW(t, t->tickets, t->cap, cap)) return NONE;
      t->cap = cap;
    }
    place = t->used++;
  }
  t->tickets[place] = (bdk_ticket){.no = no, .since = since, .value = value, .pool = which, .at = NONE, .size = size};
  t->index[slot_of(t, no)] = place + 1;
  pool *p = &t->pools[which];
  if (t->indexed) p->sorted[p->count] = place;
  p->order[p->count++] = place;
  t->count++;
  return place;
}

static void unlink_sorted(pool *p, uint32_t at) {
  uint32_t l = p->stands[at].left, r = p->stands[at].right;
  if (l) p->stands[l - 1].right = r;
  if (r) p->stands[r - 1].left = l;
}

void bdk_tickets_drop(bdk_tickets *t, uint32_t place) {
  bdk_ticket *k = &t->tickets[place];
  if (k->gone) return;
  unindex(t, k->no);
  k->gone = true;
  t->count--;
  t->drops++;
  t->pools[k->pool].gone++;
  // Its own links stay: a search may stand there.
  if (t->indexed && k->at != NONE) unlink_sorted(&t->pools[k->pool], k->at);
}

// --- a pass
static bool before(const keyed *a, const keyed *b, bool by_value) {
  if (by_value && a->value != b->value) return a->value < b->value;
  return a->no < b->no;
}

// By merging ever longer runs; the result is in one of the two, which is returned.
static keyed *sort(keyed *from, keyed *to, uint32_t n, bool by_value) {
  for (uint32_t run = 1; run < n; run *= 2) {
    for (uint32_t begin = 0; begin < n; begin += 2 * run) {
      uint32_t middle = begin + run < n ? begin + run : n, end = middle + run < n ? middle + run : n;
      for (uint32_t i = begin, k = middle, out = begin; out < end; out++)
        to[out] = i < middle && (k == end || !before(&from[k], &from[i], by_value)) ? from[i++] : from[k++];
    }
    keyed *was = from;
    from = to;
    to = was;
  }
  return from;
}

// Sorts what is new at the end of `list`, and merges it with the rest, without those gone. `scratch` has room for all,
// twice.
static uint32_t merge(const bdk_tickets *t, uint32_t *list, uint32_t known, uint32_t count, keyed *scratch,
                      bool by_value) {
  uint32_t n = 0, fresh = 0;
  keyed *added = scratch;
  bool in_order = true;
  for (uint32_t i = known; i < count; i++) {
    const bdk_ticket *k = &t->tickets[list[i]];
    if (k->gone) continue;
    added[fresh] = (keyed){k->value, k->no, list[i]};
    if (fresh && before(&added[fresh], &added[fresh - 1], by_value)) in_order = false;
    fresh++;
  }
  if (!in_order) added = sort(added, added + fresh, fresh, by_value);
  for (uint32_t i = 0; i < known; i++)
    if (!t->tickets[list[i]].gone) list[n++] = list[i];
  // From the end on, so that it can be done in place.
  uint32_t total = n + fresh;
  for (uint32_t to = total; fresh; to--) {
    bool from_new = n == 0;
    if (!from_new) {
      const bdk_ticket *k = &t->tickets[list[n - 1]];
      keyed old = {k->value, k->no, 0};
      from_new = before(&old, &added[fresh - 1], by_value);
    }
    list[to - 1] = from_new ? added[--fresh].place : list[--n];
  }
  return total;
}

// The places of those gone can be used again once no order has them.
static void collect(bdk_tickets *t, pool *p) {
  for (uint32_t i = 0; i < p->count; i++) {
    bdk_ticket *k = &t->tickets[p->order[i]];
    if (!k->gone) continue;
    k->at = t->free;
    t->free = p->order[i] + 1;
  }
}

bool bdk_tickets_prepare(bdk_tickets *t, uint32_t which) {
  pool *p = &t->pools[which];
  p->first = 0;
  p->round++;
  uint32_t count = p->count;
  if (p->known == count && !p->gone) return true;
  size_t bytes = 2 * sizeof(keyed) * (count ? count : 1);
  keyed *scratch = resize(t, NULL, 0, bytes);
  if (!scratch) return false;
  uint32_t total = count;
  if (t->indexed) total = merge(t, p->sorted, p->known, count, scratch, true);
  if (p->gone) collect(t, p); // while the order still has them
  total = merge(t, p->order, p->known, count, scratch, false);
  resize(t, scratch, bytes, 0);
  p->count = p->known = total;
  p->gone = 0;
  for (uint32_t i = 0; t->indexed && i < total; i++) {
    bdk_ticket *k = &t->tickets[p->sorted[i]];
    k->at = i;
    p->stands[i] = (stand){k->value, i, i + 1 < total ? i + 2 : 0};
  }
  return true;
}

uint32_t bdk_tickets_seek(const bdk_tickets *t, uint32_t which, uint64_t no) {
  const pool *p = &t->pools[which];
  uint32_t lo = 0, hi = p->known;
  while (lo < hi) {
    uint32_t mid = lo + (hi - lo) / 2;
    if (t->tickets[p->order[mid]].no < no)
      lo = mid + 1;
    else
      hi = mid;
  }
  return lo;
}

uint32_t bdk_tickets_anchor(const bdk_tickets *t, uint32_t which, uint32_t *position) {
  const pool *p = &t->pools[which];
  while (*position < p->known && t->tickets[p->order[*position]].gone) ++*position;
  return *position < p->known ? p->order[(*position)++] : NONE;
}

// --- searching
enum { OUTWARDS, OLDEST, OTHERS, DONE };

// From position `at` of the order on, around its end, `most` more.
static void by_age(const pool *p, bdk_search *s, uint8_t phase, uint64_t at, uint32_t most) {
  s->phase = phase;
  s->at = p->known ? (uint32_t)(at % p->known) : 0;
  s->steps = 0;
  s->last = s->looked + most < LOOK ? s->looked + most : LOOK;
}

// How many of the oldest are looked at first: so few that near has room for others, if all are compatible.
#define OLDEST_MOST (LOOK / 4)
static uint64_t turn(const pool *p) { return (uint64_t)p->first + (uint64_t)p->round * OLDEST_MOST; }

static void begin_outwards(const bdk_tickets *t, const pool *p, bdk_search *s, uint32_t place, double value) {
  s->phase = OUTWARDS;
  if (place != NONE && t->tickets[place].at != NONE) {
    const stand *at = &p->stands[t->tickets[place].at];
    s->lo = at->left;
    s->hi = at->right;
    return;
  }
  uint32_t lo = 0, hi = p->known;
  while (lo < hi) {
    uint32_t mid = lo + (hi - lo) / 2;
    if (t->tickets[p->sorted[mid]].value < value)
      lo = mid + 1;
    else
      hi = mid;
  }
  for (s->hi = lo + 1; s->hi <= p->known && t->tickets[p->sorted[s->hi - 1]].gone;) s->hi++;
  if (s->hi > p->known) s->hi = 0;
  for (s->lo = lo; s->lo && t->tickets[p->sorted[s->lo - 1]].gone;) s->lo--;
}

void bdk_search_begin(bdk_tickets *t, bdk_search *s, uint32_t which, uint32_t place, double value) {
  pool *p = &t->pools[which];
  while (p->first < p->known && t->tickets[p->order[p->first]].gone) p->first++;
  *s = (bdk_search){.pool = which, .serial = ++t->serial, .drops = t->drops, .value = value};
  if (place != NONE) t->tickets[place].search = s->serial;
  if (t->indexed)
    begin_outwards(t, p, s, place, value);
  else
    by_age(p, s, OLDEST, p->first, OLDEST_MOST);
}

void bdk_search_apart(bdk_tickets *t, bdk_search *s, uint32_t which, uint32_t place, double value) {
  *s = (bdk_search){.pool = which, .drops = t->drops, .value = value, .enough = true};
  begin_outwards(t, &t->pools[which], s, place, value);
}

// The position on that side, from a position (+1) on; those that went since the search began are stepped over.
static uint32_t still(const bdk_tickets *t, const pool *p, uint32_t at, bool low) {
  while (at && t->tickets[p->sorted[at - 1]].gone) at = low ? p->stands[at - 1].left : p->stands[at - 1].right;
  return at;
}

static uint32_t outwards(const bdk_tickets *t, const pool *p, bdk_search *s) {
  if (s->drops != t->drops) {
    s->lo = still(t, p, s->lo, true);
    s->hi = still(t, p, s->hi, false);
    s->drops = t->drops;
  }
  if (!s->lo && !s->hi) return NONE;
  const stand *stands = p->stands;
  bool low = s->lo && (!s->hi || s->value - stands[s->lo - 1].value <= stands[s->hi - 1].value - s->value);
  uint32_t *side = low ? &s->lo : &s->hi, at = *side - 1;
  *side = low ? stands[at].left : stands[at].right;
  return p->sorted[at];
}

static uint32_t next_by_age(const bdk_tickets *t, const pool *p, bdk_search *s) {
  uint32_t most = p->known < STEPS_MAX ? p->known : STEPS_MAX;
  while (s->looked < s->last && s->steps < most) {
    uint32_t place = p->order[s->at];
    s->steps++;
    s->at = s->at + 1 < p->known ? s->at + 1 : 0;
    if (!t->tickets[place].gone && t->tickets[place].search != s->serial) return place;
  }
  return NONE;
}

uint32_t bdk_search_next(bdk_tickets *t, bdk_search *s) {
  const pool *p = &t->pools[s->pool];
  for (;;) {
    uint32_t place = NONE;
    if (s->phase == OUTWARDS && s->looked < LOOK) place = outwards(t, p, s);
    if (s->phase == OLDEST || s->phase == OTHERS) place = next_by_age(t, p, s);
    if (place != NONE) {
      if (s->serial) t->tickets[place].search = s->serial;
      s->looked++;
      return place;
    }
    if (s->phase == OUTWARDS && !s->enough) {
      s->looked = LOOK / 2;
      by_age(p, s, OTHERS, turn(p), LOOK / 2);
    } else if (s->phase == OLDEST) {
      by_age(p, s, OTHERS, turn(p), LOOK - OLDEST_MOST);
    } else {
      s->phase = DONE;
      return NONE;
    }
  }
}
