// SPDX-License-Identifier: MIT
// What specs read out of docs/PROTOCOL.md: fenced blocks, hex with comments after a semicolon, and tables.
#ifndef BDK_SPEC_DOCS_H
#define BDK_SPEC_DOCS_H

#include <ctype.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static inline char *docs_read(void) {
  FILE *f = fopen("docs/PROTOCOL.md", "rb");
  if (!f) return NULL;
  size_t cap = 1 << 20;
  char *text = calloc(1, cap);
  size_t len = fread(text, 1, cap - 1, f);
  text[len] = 0;
  fclose(f);
  return text;
}

// The bytes of the block fenced "```hex NAME"; -1 when there is none.
static inline int docs_hex(const char *name, uint8_t *out, size_t cap) {
  char *text = docs_read(), fence[64];
  snprintf(fence, sizeof fence, "```hex %s\n", name);
  char *p = text ? strstr(text, fence) : NULL;
  if (!p) {
    free(text);
    return -1;
  }
  size_t len = 0;
  p += strlen(fence);
  while (*p && strncmp(p, "```", 3) != 0) {
    while (*p && *p != '\n' && *p != ';') {
      unsigned byte;
      if (isxdigit((unsigned char)p[0]) && isxdigit((unsigned char)p[1]) && len < cap && sscanf(p, "%2x", &byte) == 1) {
        out[len++] = (uint8_t)byte;
        p++;
      }
      p++;
    }
    while (*p && *p != '\n') p++;
    if (*p) p++;
  }
  free(text);
  return (int)len;
}

static inline bool docs_contain(const char *needle) {
  char *text = docs_read();
  bool found = text && strstr(text, needle);
  free(text);
  return found;
}

#endif
