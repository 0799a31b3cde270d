// SPDX-License-Identifier: MIT
// msgpack, read in place and written into the caller's buffer. Bytes from the network are walked once by
// bdk_wire_check before anything reads them; after that the readers cannot run out of bounds or depth.
#ifndef BDK_WIRE_H
#define BDK_WIRE_H

#include "base.h"

#define BDK_WIRE_DEPTH_MAX 8

typedef enum bdk_wire_kind {
  BDK_WIRE_NONE, // end of input, or a byte that starts nothing
  BDK_WIRE_NIL,
  BDK_WIRE_BOOL,
  BDK_WIRE_UINT, // a non-negative integer, however encoded
  BDK_WIRE_INT,  // a negative integer
  BDK_WIRE_FLOAT,
  BDK_WIRE_STR,
  BDK_WIRE_BIN,
  BDK_WIRE_ARRAY,
  BDK_WIRE_MAP,
} bdk_wire_kind;

typedef struct bdk_reader {
  const uint8_t *p, *end;
} bdk_reader;

typedef struct bdk_item {
  bdk_wire_kind kind;
  union {
    bool b;
    uint64_t u;
    int64_t i;
    double f;
    uint32_t count; // elements of an array, pairs of a map
  };
  const uint8_t *data; // bytes of str and bin, borrowed from the input
  uint32_t len;
} bdk_item;

// True when `bytes` are exactly one msgpack value: depth ≤ 8, every count ≤ the bytes that remain, no ext
// types, no duplicate map keys, map keys strings or integers, nothing after it. Time O(n) but for the keys
// of a map, which are compared pairwise; at most 32 pairs a map.
bool bdk_wire_check(const uint8_t *bytes, size_t len);

// Reads the head of the next value (the elements of an array or map follow). False at the end or at a byte
// that starts nothing; `r` is then unchanged. Bounds are checked here too, so unchecked input is safe.
bool bdk_read(bdk_reader *r, bdk_item *out);
// Skips one whole value. False, `r` unchanged, when it is not well formed.
bool bdk_skip(bdk_reader *r);

typedef struct bdk_packer {
  uint8_t *buf;
  size_t cap, len;
  bool overflow; // something did not fit; `len` is then what was written before it
} bdk_packer;

static inline bdk_packer bdk_packer_init(uint8_t *buf, size_t cap) { return (bdk_packer){.buf = buf, .cap = cap}; }
void bdk_pack_nil(bdk_packer *p);
void bdk_pack_bool(bdk_packer *p, bool b);
void bdk_pack_uint(bdk_packer *p, uint64_t u);
void bdk_pack_int(bdk_packer *p, int64_t i);
void bdk_pack_float(bdk_packer *p, double f);
void bdk_pack_str(bdk_packer *p, const char *s, size_t len);
void bdk_pack_bin(bdk_packer *p, const uint8_t *b, size_t len);
void bdk_pack_array(bdk_packer *p, uint32_t count);
void bdk_pack_map(bdk_packer *p, uint32_t count);
// Appends bytes that are msgpack already.
void bdk_pack_raw(bdk_packer *p, const uint8_t *bytes, size_t len);

#endif
