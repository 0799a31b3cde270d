// SPDX-License-Identifier: MIT
// Bytes as made here against the document's vectors; for specs with cmocka.
#ifndef BDK_SPEC_DOCUMENTED_H
#define BDK_SPEC_DOCUMENTED_H

#include "../../runtime/core/base.h"
#include "docs.h"

static inline void print_hex(const char *name, const uint8_t *bytes, size_t len) {
  printf("# %s:", name);
  for (size_t i = 0; i < len; i++) printf(" %02x", bytes[i]);
  printf("\n");
}

// Printed when they differ, so that the document can be mended.
static inline void assert_documented(const char *name, const uint8_t *bytes, size_t len) {
  uint8_t doc[BDK_DATAGRAM_MAX];
  int n = docs_hex(name, doc, sizeof doc);
  if (n != (int)len || memcmp(doc, bytes, len) != 0) {
    print_hex(name, bytes, len);
    fail_msg("docs/PROTOCOL.md, vector %s: %d bytes there, %zu here, or other ones", name, n, len);
  }
}

#endif
