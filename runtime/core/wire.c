// SPDX-License-Identifier: MIT
// The reader and walker are our own because msgpack-c trusts counts it has not checked (a 5-byte datagram
// makes it reserve gigabytes), and allocates. The packer writes the same bytes as msgpack-c's: a spec
// compares them.
#include "wire.h"

#include <string.h>

#define PAIRS_MAX 32u // of a map: its keys are compared pairwise

static uint64_t big_endian(const uint8_t *p, size_t n) {
  uint64_t v = 0;
  for (size_t i = 0; i < n; i++) v = v << 8 | p[i];
  return v;
}

// Finishes an item whose head ends at `r->p`: the counts and lengths that it announces must be there.
static bool body(bdk_reader *r, bdk_item *item, bdk_wire_kind kind, uint64_t n) {
  uint64_t left = (uint64_t)(r->end - r->p);
  item->kind = kind;
  if (kind == BDK_WIRE_ARRAY || kind == BDK_WIRE_MAP) {
    item->count = (uint32_t)n;
    return n <= (kind == BDK_WIRE_MAP ? left / 2 : left);
  }
  if (n > left) return false;
  item->data = r->p;
  item->len = (uint32_t)n;
  r->p += n;
  return true;
}

static void set_int(bdk_item *item, int64_t i) {
  item->kind = i < 0 ? BDK_WIRE_INT : BDK_WIRE_UINT;
  item->i = i;
}

static double to_double(uint64_t bits, size_t n) {
  float f;
  double d;
  uint32_t low = (uint32_t)bits;
  memcpy(&f, &low, sizeof f);
  memcpy(&d, &bits, sizeof d);
  return n == 4 ? (double)f : d;
}

// A head of one byte: fixint, fixmap, fixarray, fixstr, nil, false, true.
static bool read_short(bdk_reader *r, bdk_item *item, uint8_t b) {
  if (b < 0x80) {
    item->kind = BDK_WIRE_UINT;
    item->u = b;
    return true;
  }
  if (b >= 0xe0) {
    set_int(item, (int8_t)b);
    return true;
  }
  if (b < 0x90) return body(r, item, BDK_WIRE_MAP, b & 0x0f);
  if (b < 0xa0) return body(r, item, BDK_WIRE_ARRAY, b & 0x0f);
  if (b < 0xc0) return body(r, item, BDK_WIRE_STR, b & 0x1f);
  item->kind = b == 0xc0 ? BDK_WIRE_NIL : BDK_WIRE_BOOL;
  item->b = b == 0xc3;
  return b != 0xc1;
}

static bool read_item(bdk_reader *r, bdk_item *item) {
  // Bytes after each head from 0xc4 on; 0: ext, which is not taken.
  static const uint8_t widths[] = {1, 2, 4, 0, 0, 0, 4, 8, 1, 2, 4, 8, 1, 2, 4, 8, 0, 0, 0, 0, 0, 1, 2, 4, 2, 4, 2, 4};
  if (r->p == r->end) return false;
  uint8_t b = *r->p++;
  if (b < 0xc4 || b >= 0xe0) return read_short(r, item, b);
  size_t n = widths[b - 0xc4];
  if (n == 0 || n > (size_t)(r->end - r->p)) return false;
  uint64_t v = big_endian(r->p, n);
  r->p += n;
  if (b <= 0xc6) return body(r, item, BDK_WIRE_BIN, v);
  if (b >= 0xde) return body(r, item, BDK_WIRE_MAP, v);
  if (b >= 0xdc) return body(r, item, BDK_WIRE_ARRAY, v);
  if (b >= 0xd9) return body(r, item, BDK_WIRE_STR, v);
  if (b <= 0xcb) {
    item->kind = BDK_WIRE_FLOAT;
    item->f = to_double(v, n);
  } else if (b <= 0xcf) {
    item->kind = BDK_WIRE_UINT;
    item->u = v;
  } else {
    uint64_t sign = 1ull << (n * 8 - 1);
    set_int(item, (int64_t)((v ^ sign) - sign));
  }
  return true;
}

bool bdk_read(bdk_reader *r, bdk_item *out) {
  bdk_reader at = *r;
  bdk_item item = {.kind = BDK_WIRE_NONE};
  if (!read_item(&at, &item)) return false;
  *out = item;
  *r = at;
  return true;
}

bool bdk_skip(bdk_reader *r) {
  bdk_reader at = *r;
  bdk_item item;
  // Each turn takes a byte at least, so there are no more turns than bytes, whatever the counts say.
  for (uint64_t owed = 1; owed > 0; owed--) {
    if (!bdk_read(&at, &item)) return false;
    if (item.kind == BDK_WIRE_ARRAY) owed += item.count;
    if (item.kind == BDK_WIRE_MAP) owed += 2ull * item.count;
  }
  *r = at;
  return true;
}

static bool same_key(const bdk_item *a, const bdk_item *b) {
  if (a->kind != b->kind) return false;
  if (a->kind != BDK_WIRE_STR) return a->u == b->u;
  return a->len == b->len && memcmp(a->data, b->data, a->len) == 0;
}

// Recursion ends at the depth bound.
static bool walk(bdk_reader *r, int depth) {
  bdk_item item, keys[PAIRS_MAX];
  if (!bdk_read(r, &item)) return false;
  if (item.kind != BDK_WIRE_ARRAY && item.kind != BDK_WIRE_MAP) return true;
  if (depth == BDK_WIRE_DEPTH_MAX) return false;
  if (item.kind == BDK_WIRE_MAP && item.count > PAIRS_MAX) return false;
  for (uint32_t i = 0; i < item.count; i++) {
    if (item.kind == BDK_WIRE_MAP) {
      bdk_item *key = &keys[i];
      if (!bdk_read(r, key)) return false;
      if (key->kind != BDK_WIRE_STR && key->kind != BDK_WIRE_UINT && key->kind != BDK_WIRE_INT) return false;
      for (uint32_t j = 0; j < i; j++)
        if (same_key(key, &keys[j])) return false;
    }
    if (!walk(r, depth + 1)) return false;
  }
  return true;
}

bool bdk_wire_check(const uint8_t *bytes, size_t len) {
  if (!bytes || len == 0) return false;
  bdk_reader r = {bytes, bytes + len};
  return walk(&r, 0) && r.p == r.end;
}

// Reserves `n` bytes; NULL, and nothing is written from then on, when they do not fit.
static uint8_t *room(bdk_packer *p, size_t n) {
  if (p->overflow || n > p->cap - p->len) {
    p->overflow = true;
    return NULL;
  }
  uint8_t *at = p->buf + p->len;
  p->len += n;
  return at;
}

// A head byte, `width` bytes of `v`, and `len` bytes of data, all or nothing.
static void put(bdk_packer *p, uint8_t head, uint64_t v, size_t width, const void *data, size_t len) {
  uint8_t *at = len > UINT32_MAX ? NULL : room(p, 1 + width + len);
  if (!at) {
    p->overflow = true;
    return;
  }
  *at++ = head;
  for (size_t i = width; i-- > 0;) *at++ = (uint8_t)(v >> (8 * i));
  if (len > 0) memcpy(at, data, len);
}

void bdk_pack_nil(bdk_packer *p) { put(p, 0xc0, 0, 0, NULL, 0); }

void bdk_pack_bool(bdk_packer *p, bool b) { put(p, b ? 0xc3 : 0xc2, 0, 0, NULL, 0); }

void bdk_pack_uint(bdk_packer *p, uint64_t u) {
  if (u < 0x80)
    put(p, (uint8_t)u, 0, 0, NULL, 0);
  else if (u <= UINT8_MAX)
    put(p, 0xcc, u, 1, NULL, 0);
  else if (u <= UINT16_MAX)
    put(p, 0xcd, u, 2, NULL, 0);
  else if (u <= UINT32_MAX)
    put(p, 0xce, u, 4, NULL, 0);
  else
    put(p, 0xcf, u, 8, NULL, 0);
}

void bdk_pack_int(bdk_packer *p, int64_t i) {
  if (i >= 0)
    bdk_pack_uint(p, (uint64_t)i);
  else if (i >= -32)
    put(p, (uint8_t)i, 0, 0, NULL, 0);
  else if (i >= INT8_MIN)
    put(p, 0xd0, (uint64_t)i, 1, NULL, 0);
  else if (i >= INT16_MIN)
    put(p, 0xd1, (uint64_t)i, 2, NULL, 0);
  else if (i >= INT32_MIN)
    put(p, 0xd2, (uint64_t)i, 4, NULL, 0);
  else
    put(p, 0xd3, (uint64_t)i, 8, NULL, 0);
}

void bdk_pack_float(bdk_packer *p, double f) {
  uint64_t bits;
  memcpy(&bits, &f, sizeof bits);
  put(p, 0xcb, bits, 8, NULL, 0);
}

void bdk_pack_str(bdk_packer *p, const char *s, size_t len) {
  if (len < 32)
    put(p, (uint8_t)(0xa0 | len), 0, 0, s, len);
  else if (len <= UINT8_MAX)
    put(p, 0xd9, len, 1, s, len);
  else if (len <= UINT16_MAX)
    put(p, 0xda, len, 2, s, len);
  else
    put(p, 0xdb, len, 4, s, len);
}

void bdk_pack_bin(bdk_packer *p, const uint8_t *b, size_t len) {
  if (len <= UINT8_MAX)
    put(p, 0xc4, len, 1, b, len);
  else if (len <= UINT16_MAX)
    put(p, 0xc5, len, 2, b, len);
  else
    put(p, 0xc6, len, 4, b, len);
}

void bdk_pack_array(bdk_packer *p, uint32_t count) {
  if (count < 16)
    put(p, (uint8_t)(0x90 | count), 0, 0, NULL, 0);
  else if (count <= UINT16_MAX)
    put(p, 0xdc, count, 2, NULL, 0);
  else
    put(p, 0xdd, count, 4, NULL, 0);
}

void bdk_pack_map(bdk_packer *p, uint32_t count) {
  if (count < 16)
    put(p, (uint8_t)(0x80 | count), 0, 0, NULL, 0);
  else if (count <= UINT16_MAX)
    put(p, 0xde, count, 2, NULL, 0);
  else
    put(p, 0xdf, count, 4, NULL, 0);
}

void bdk_pack_raw(bdk_packer *p, const uint8_t *bytes, size_t len) {
  uint8_t *at = room(p, len);
  if (at && len > 0) memcpy(at, bytes, len);
}
