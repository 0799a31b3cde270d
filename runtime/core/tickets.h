// SPDX-License-Identifier: MIT
// The tickets of one queue, as a pass goes through them: in pools whose members may meet, oldest first, and by the
// value of an index. What a ticket is, the owner knows: here it has a number, an age, a size and a value.
//
// A pass is: bdk_tickets_prepare once a pool, then its anchors from bdk_tickets_anchor on, and for each a bdk_search,
// whose results the owner takes (bdk_tickets_drop) or leaves. Dropping is O(1) at any time; sorting is done once a
// pass, of what is new.
#ifndef BDK_TICKETS_H
#define BDK_TICKETS_H

#include "base.h"

#define BDK_TICKET_NONE UINT32_MAX
#define BDK_TICKETS_LOOK 64u // others that an anchor is compared with, at most

typedef struct bdk_ticket {
  uint64_t no;    // its number: the older, the smaller
  uint64_t since; // the owner's
  double value;   // of the index; 0 in pools without
  uint32_t pool;
  uint32_t at;     // where it stands by value, while its pool is prepared
  uint32_t search; // the latest that looked at it
  uint32_t pass;   // the owner's
  uint8_t size;    // players
  bool gone;       // its place is used again after the next prepare
} bdk_ticket;

typedef struct bdk_tickets bdk_tickets; // opaque

// indexed: pools are kept by value, too. NULL when memory cannot be had; free is NULL-tolerant.
bdk_tickets *bdk_tickets_new(const bdk_alloc *alloc, bool indexed);
void bdk_tickets_free(bdk_tickets *t);
uint32_t bdk_tickets_count(const bdk_tickets *t);

// A new pool, empty, or BDK_TICKET_NONE. One that is empty when it is prepared can be given back.
uint32_t bdk_tickets_pool(bdk_tickets *t);
void bdk_tickets_release(bdk_tickets *t, uint32_t pool);
uint32_t bdk_tickets_pool_count(const bdk_tickets *t, uint32_t pool);
bool bdk_tickets_is_pool(const bdk_tickets *t, uint32_t pool);

// The place of a new ticket (its number is not there yet), or BDK_TICKET_NONE: no memory, and nothing has changed.
uint32_t bdk_tickets_add(bdk_tickets *t, uint32_t pool, uint64_t no, uint64_t since, double value, uint8_t size);
// The place of a number, or BDK_TICKET_NONE.
uint32_t bdk_tickets_find(const bdk_tickets *t, uint64_t no);
bdk_ticket *bdk_tickets_at(bdk_tickets *t, uint32_t place); // valid until the next add
void bdk_tickets_drop(bdk_tickets *t, uint32_t place);

// Begins a pass through a pool; what is added after it is not seen in that pass. False: no memory.
bool bdk_tickets_prepare(bdk_tickets *t, uint32_t pool);
// Anchors in order: the position of the first whose number is at least `no`; and from a position on the next that
// waits, or BDK_TICKET_NONE. `*position` is then the one after it.
uint32_t bdk_tickets_seek(const bdk_tickets *t, uint32_t pool, uint64_t no);
uint32_t bdk_tickets_anchor(const bdk_tickets *t, uint32_t pool, uint32_t *position);

// Whom an anchor is compared with: where there is an index, outwards from where it stands, then the oldest; in each
// pass half of these are others, so that nobody is out of sight for ever behind a crowd that does not fit.
typedef struct bdk_search {
  uint32_t pool, serial, drops, lo, hi, looked, last, at, steps;
  double value;
  uint8_t phase;
  bool enough; // set by the owner: the index gave as many as it needs, and the others are not looked at
} bdk_search;

// `value`, `place`: the anchor's; BDK_TICKET_NONE for one that does not wait in the pool itself.
void bdk_search_begin(bdk_tickets *t, bdk_search *s, uint32_t pool, uint32_t place, double value);
// Likewise, but by the index alone, and beside a search that is under way. The pool has one.
void bdk_search_apart(bdk_tickets *t, bdk_search *s, uint32_t pool, uint32_t place, double value);
// The place of the next, or BDK_TICKET_NONE when BDK_TICKETS_LOOK have been looked at, or there are no more.
uint32_t bdk_search_next(bdk_tickets *t, bdk_search *s);

#endif
