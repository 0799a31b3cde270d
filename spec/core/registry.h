// SPDX-License-Identifier: MIT
// What the registry's specs share: a table on a counting heap, and ids made from numbers.
#ifndef BDK_SPEC_REGISTRY_H
#define BDK_SPEC_REGISTRY_H

#include "support.h"

#include "core/registry.h"

static inline void make_id(uint8_t id[BDK_ID_LEN], uint32_t n) {
  memset(id, 0xab, BDK_ID_LEN);
  memcpy(id + 5, &n, sizeof n);
}

static inline bdk_registry *registry(spec_heap *heap, uint32_t max_entries) {
  bdk_registry_config c = {.alloc = {spec_resize, heap}, .seed = {1, 2, 3}, .max_entries = max_entries};
  bdk_registry *r = bdk_registry_new(&c);
  assert_non_null(r);
  return r;
}

static inline bool has(const bdk_registry *r, uint32_t n) {
  uint8_t id[BDK_ID_LEN];
  bdk_entry e;
  make_id(id, n);
  return bdk_registry_get(r, id, &e);
}

static uint8_t some_key[32];

#endif
