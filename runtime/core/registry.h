// SPDX-License-Identifier: MIT
// The registry table of a matching server: entries by id, iterated in an order that survives insertion and
// removal, searched by query, expired by the time passed in.
//
// Robin Hood hashing over a keyed hash of the id keeps the slots sorted by (hash, id), so "the entry after
// this id" is a lookup and a step, and a client cannot choose where its id lands.
#ifndef BDK_REGISTRY_H
#define BDK_REGISTRY_H

#include "query.h"
#include "wheel.h"
#include "wire.h"

#define BDK_ENTRY_PUBLIC_MAX 256u // id, name and props, encoded; addrs may be as long again
#define BDK_ENTRY_PROPS_MAX 128u

// An entry as put and as read: all pointers borrowed (on get: until the next put, remove or expire).
typedef struct bdk_entry {
  const uint8_t *id;  // 16 bytes
  const uint8_t *key; // 32 bytes: the client's public key
  uint64_t expires_us;
  const uint8_t *app;   // app, as text
  const uint8_t *name;  // as text
  const uint8_t *props; // a msgpack map, encoded
  const uint8_t *addrs; // the owner's bytes (addresses, encoded)
  uint8_t app_len, name_len, props_len;
  uint16_t addrs_len;
} bdk_entry;

typedef struct bdk_registry_config {
  bdk_alloc alloc;
  uint8_t seed[16];     // keys the hash
  uint32_t max_entries; // put beyond it fails with BDK_E_LIMIT
} bdk_registry_config;

typedef struct bdk_registry bdk_registry; // opaque

// NULL when memory cannot be had. free is NULL-tolerant.
bdk_registry *bdk_registry_new(const bdk_registry_config *config);
void bdk_registry_free(bdk_registry *r);
uint32_t bdk_registry_count(const bdk_registry *r);

// Inserts or replaces; copies everything. 0, BDK_E_LIMIT, or BDK_E_INVALID (lengths over the bounds, props
// not a map; none at all, props_len 0, are an empty map). The table is unchanged on error.
int bdk_registry_put(bdk_registry *r, const bdk_entry *entry);
// False when there is none.
bool bdk_registry_get(const bdk_registry *r, const uint8_t id[BDK_ID_LEN], bdk_entry *out);
bool bdk_registry_remove(bdk_registry *r, const uint8_t id[BDK_ID_LEN]);

// Iteration: the entry after `id` in table order (NULL: the first) for which `app` is the same (NULL: any)
// and whose properties are what `query` wants (query.h; NULL: any). Looks at ≤ *budget entries
// and subtracts them. Returns 1: `out` is filled; 0: at the end; -1: the budget is spent and out->id is the
// last id looked at, to go on from. `id` need not be in the table any more.
int bdk_registry_after(const bdk_registry *r, const uint8_t *id, const uint8_t *app, size_t app_len,
                       const uint8_t *query, size_t query_len, uint32_t *budget, bdk_entry *out);

// Removes one entry that has expired at `now_us`, copying its id to `id`; false when there is none.
bool bdk_registry_expire(bdk_registry *r, uint64_t now_us, uint8_t id[BDK_ID_LEN]);
// When the next entry expires; BDK_NEVER when empty.
uint64_t bdk_registry_deadline(const bdk_registry *r);

#endif
