// SPDX-License-Identifier: MIT
// Datagrams in a stream, cut into pieces of any size: what comes out is what comes out of it in one piece, and what a
// plain reading of the stream says; where that ends, both end.
#include "core/carriage.h"
#include "fuzz.h"

typedef struct found {
  uint64_t sum;
  size_t count, bytes;
  bool broken;
} found;

static void note(found *f, const uint8_t *data, size_t len) {
  for (size_t i = 0; i < len; i++) f->sum = (f->sum ^ data[i]) * 0x100000001b3u;
  f->sum = (f->sum ^ len) * 0x100000001b3u;
  f->count++;
  f->bytes += len;
}

// What the document says.
static found plainly(const uint8_t *p, size_t len) {
  found f = {0};
  size_t at = 0;
  while (at + 2 <= len) {
    size_t n = (size_t)p[at] << 8 | p[at + 1];
    if (n < 1 || n > BDK_DATAGRAM_MAX) {
      f.broken = true;
      break;
    }
    if (at + 2 + n > len) break;
    note(&f, p + at + 2, n);
    at += 2 + n;
  }
  return f;
}

static found in_pieces(const uint8_t *p, size_t len, const uint8_t *sizes, size_t size_count) {
  found f = {0};
  bdk_carriage c = {0};
  size_t at = 0, turn = 0;
  while (at < len && !f.broken) {
    size_t n = size_count ? 1 + sizes[turn++ % size_count] : len;
    if (n > len - at) n = len - at;
    uint8_t *piece = malloc(n); // so that reading past it is seen
    REQUIRE(piece);
    memcpy(piece, p + at, n);
    const uint8_t *from = piece, *data;
    int got;
    while ((got = bdk_carriage_next(&c, &from, piece + n, &data)) > 0) {
      REQUIRE(got <= (int)BDK_DATAGRAM_MAX);
      note(&f, data, (size_t)got);
    }
    REQUIRE(got == 0 || got == BDK_E_INVALID);
    REQUIRE(got < 0 || from == piece + n); // all is taken
    f.broken = got < 0;
    free(piece);
    at += n;
  }
  return f;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len) {
  size_t sizes = len ? bytes[0] % 8 : 0;
  if (len < 1 + sizes) return 0;
  const uint8_t *stream = bytes + 1 + sizes;
  size_t n = len - 1 - sizes;
  found want = plainly(stream, n), whole = in_pieces(stream, n, NULL, 0), cut = in_pieces(stream, n, bytes + 1, sizes);
  REQUIRE(want.sum == whole.sum && want.count == whole.count && want.broken == whole.broken);
  REQUIRE(want.sum == cut.sum && want.count == cut.count && want.bytes == cut.bytes && want.broken == cut.broken);
  return 0;
}
