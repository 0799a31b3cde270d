// SPDX-License-Identifier: MIT
#include "carriage.h"

#include <string.h>

static int length_of(const uint8_t *head) {
  int len = head[0] << 8 | head[1];
  return len >= 1 && len <= (int)BDK_DATAGRAM_MAX ? len : BDK_E_INVALID;
}

// Holds up to `want` bytes in all; whether they are there.
static bool hold(bdk_carriage *c, const uint8_t **at, const uint8_t *end, size_t want) {
  size_t n = want - c->have, left = (size_t)(end - *at);
  if (n > left) n = left;
  if (n) memcpy(c->held + c->have, *at, n);
  *at += n;
  c->have = (uint16_t)(c->have + n);
  return c->have == want;
}

int bdk_carriage_next(bdk_carriage *c, const uint8_t **at, const uint8_t *end, const uint8_t **data) {
  size_t left = (size_t)(end - *at);
  if (c->have == 0 && left >= BDK_CARRIAGE_HEAD) { // most often it is all there, and stays where it is
    int len = length_of(*at);
    if (len < 0) return len;
    if (left >= BDK_CARRIAGE_HEAD + (size_t)len) {
      *data = *at + BDK_CARRIAGE_HEAD;
      *at += BDK_CARRIAGE_HEAD + len;
      return len;
    }
  }
  if (c->have < BDK_CARRIAGE_HEAD && !hold(c, at, end, BDK_CARRIAGE_HEAD)) return 0;
  int len = length_of(c->held);
  if (len < 0) return len;
  if (!hold(c, at, end, BDK_CARRIAGE_HEAD + (size_t)len)) return 0;
  c->have = 0;
  *data = c->held + BDK_CARRIAGE_HEAD;
  return len;
}
