// SPDX-License-Identifier: MIT
// What core's specs share: cmocka, a seeded generator, and an allocator that counts and can fail.
#ifndef BDK_SPEC_SUPPORT_H
#define BDK_SPEC_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/base.h"

// xorshift64*: the same numbers everywhere for one seed.
static inline uint64_t spec_random(uint64_t *state) {
  *state ^= *state >> 12;
  *state ^= *state << 25;
  *state ^= *state >> 27;
  return *state * 2685821657736338717ull;
}

static inline uint32_t spec_below(uint64_t *state, uint32_t n) { return (uint32_t)((spec_random(state) >> 32) % n); }

typedef struct spec_heap {
  size_t bytes, blocks, calls;
  size_t fail_at; // the allocation that fails, counted from 1; 0: none
  bool fail_on;   // and all after it
} spec_heap;

static inline void *spec_resize(void *ctx, void *p, size_t old_size, size_t new_size) {
  spec_heap *h = ctx;
  if (new_size == 0) {
    if (p) h->blocks--;
    h->bytes -= old_size;
    free(p);
    return NULL;
  }
  ++h->calls;
  if (h->fail_at && (h->calls == h->fail_at || (h->fail_on && h->calls > h->fail_at))) return NULL;
  void *q = realloc(p, new_size);
  assert_non_null(q);
  if (!p) h->blocks++;
  h->bytes += new_size - old_size;
  return q;
}

// A copy of exactly `len` bytes on the heap, so that ASan sees a read past its end. The caller frees it.
static inline uint8_t *spec_exact(const void *bytes, size_t len) {
  uint8_t *p = malloc(len ? len : 1);
  assert_non_null(p);
  if (len) memcpy(p, bytes, len);
  return p;
}

#endif
