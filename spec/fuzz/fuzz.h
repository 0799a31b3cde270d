// SPDX-License-Identifier: MIT
// What the fuzz targets share: an input read byte by byte, and an allocator whose n-th call may fail.
#ifndef BDK_SPEC_FUZZ_H
#define BDK_SPEC_FUZZ_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/message.h"

#define REQUIRE(x)                                                                                                     \
  do {                                                                                                                 \
    if (x) break;                                                                                                      \
    fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #x);                                                            \
    abort();                                                                                                           \
  } while (0)

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

// A program's bytes; after the end come zeros.
typedef struct fuzz_input {
  const uint8_t *p, *end;
} fuzz_input;

static inline uint8_t fuzz_take(fuzz_input *in) { return in->p < in->end ? *in->p++ : 0; }

typedef struct fuzz_heap {
  size_t bytes;
  unsigned fail_in; // the n-th call from now fails, 0: none does
} fuzz_heap;

static inline void *fuzz_resize(void *ctx, void *p, size_t old_size, size_t new_size) {
  fuzz_heap *h = ctx;
  if (new_size == 0) {
    h->bytes -= old_size;
    free(p);
    return NULL;
  }
  if (h->fail_in && --h->fail_in == 0) return NULL;
  h->bytes += new_size - old_size;
  return realloc(p, new_size);
}

// Written again and read again, the fields are what they were.
static inline void fuzz_round_trip(const bdk_schema *s, const bdk_field *fields) {
  uint8_t out[BDK_DATAGRAM_MAX];
  bdk_field again[BDK_FIELDS_MAX];
  bdk_message_head head;
  size_t len = bdk_message_write(s, fields, out, sizeof out, NULL);
  REQUIRE(len > 0);
  REQUIRE(bdk_message_head_read(&head, out, len) == 0 && head.type == s->type);
  REQUIRE(bdk_message_read(s, out, len, again, NULL) == 0);
  for (uint8_t i = 0; i < s->count; i++) {
    REQUIRE(again[i].nil == fields[i].nil && again[i].u == fields[i].u && again[i].len == fields[i].len);
    REQUIRE(again[i].len == 0 || memcmp(again[i].data, fields[i].data, again[i].len) == 0);
  }
}

#endif
