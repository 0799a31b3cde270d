// SPDX-License-Identifier: MIT
// Parsing and printing are done here, not by inet_pton and inet_ntop: those know neither ports nor zones,
// and core links nothing of the sockets library.
#include "addr.h"

#include <string.h>

// A cursor over text that need not end in NUL.
typedef struct text {
  const char *p, *end;
} text;

static bool take(text *t, char c) {
  if (t->p == t->end || *t->p != c) return false;
  t->p++;
  return true;
}

static int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

// A decimal number ≤ max. A leading zero is refused: some read it as octal.
static bool take_decimal(text *t, uint32_t max, uint32_t *out) {
  const char *start = t->p;
  uint64_t n = 0;
  while (t->p < t->end && *t->p >= '0' && *t->p <= '9') {
    n = n * 10 + (uint64_t)(*t->p++ - '0');
    if (n > max || (*start == '0' && t->p - start > 1)) return false;
  }
  *out = (uint32_t)n;
  return t->p > start;
}

static bool take_ipv4(text *t, uint8_t ip[4]) {
  for (int i = 0; i < 4; i++) {
    uint32_t n;
    if (i > 0 && !take(t, '.')) return false;
    if (!take_decimal(t, 255, &n)) return false;
    ip[i] = (uint8_t)n;
  }
  return true;
}

// RFC 4291 section 2.2: eight groups, "::" once for one or more groups of zeros, an IPv4 address at the end.
static bool take_ipv6(text *t, uint8_t ip[16]) {
  uint8_t out[16] = {0};
  size_t n = 0;
  int gap = -1;
  if (t->end - t->p >= 2 && t->p[0] == ':') {
    if (t->p[1] != ':') return false;
    t->p += 2;
    gap = 0;
  }
  while (n < 16 && t->p < t->end && hex_digit(*t->p) >= 0) {
    const char *group = t->p;
    uint32_t value = 0;
    while (t->p < t->end && hex_digit(*t->p) >= 0 && t->p - group < 4)
      value = value << 4 | (uint32_t)hex_digit(*t->p++);
    if (t->p < t->end && *t->p == '.') {
      t->p = group;
      if (n > 12 || !take_ipv4(t, out + n)) return false;
      n += 4;
      break;
    }
    out[n++] = (uint8_t)(value >> 8);
    out[n++] = (uint8_t)value;
    if (t->end - t->p >= 2 && t->p[0] == ':' && t->p[1] == ':') {
      if (gap >= 0) return false;
      gap = (int)n;
      t->p += 2;
    } else if (t->end - t->p >= 2 && t->p[0] == ':' && hex_digit(t->p[1]) >= 0) {
      t->p++;
    } else {
      break;
    }
  }
  if (gap < 0 ? n != 16 : n > 14) return false;
  memset(ip, 0, 16);
  size_t head = gap < 0 ? n : (size_t)gap;
  memcpy(ip, out, head);
  memcpy(ip + 16 - (n - head), out + head, n - head);
  return true;
}

static bool link_local(const bdk_addr *a) { return a->family == 6 && a->ip[0] == 0xfe && (a->ip[1] & 0xc0) == 0x80; }

int bdk_addr_parse(bdk_addr *out, const char *string, size_t len, uint16_t default_port) {
  bdk_addr a = {.family = 6};
  uint32_t port = default_port;
  if (!string || len == 0) return BDK_E_INVALID;
  text t = {string, string + len};
  bool brackets = take(&t, '['), v6 = brackets;
  for (const char *p = t.p; !v6 && p < t.end && p - t.p < 5; p++) // an IPv4 address has a dot before any colon
    if (*p == ':' || *p == '.') {
      v6 = *p == ':';
      break;
    }
  if (v6) {
    if (!take_ipv6(&t, a.ip)) return BDK_E_INVALID;
    if (take(&t, '%') && (!link_local(&a) || !take_decimal(&t, UINT32_MAX, &a.scope))) return BDK_E_INVALID;
    if (brackets && !take(&t, ']')) return BDK_E_INVALID;
  } else {
    a.family = 4;
    if (!take_ipv4(&t, a.ip)) return BDK_E_INVALID;
  }
  if ((brackets || !v6) && take(&t, ':') && !take_decimal(&t, UINT16_MAX, &port)) return BDK_E_INVALID;
  if (t.p != t.end) return BDK_E_INVALID;
  a.port = (uint16_t)port;
  bdk_addr_canon(&a);
  memcpy(out, &a, sizeof a);
  return 0;
}

static char *put_number(char *p, uint32_t n, uint32_t base) {
  char digits[10];
  int i = 0;
  do digits[i++] = "0123456789abcdef"[n % base];
  while ((n /= base) > 0);
  while (i > 0) *p++ = digits[--i];
  return p;
}

static char *put_ipv6(char *p, const uint8_t ip[16]) {
  uint32_t group[8];
  int best = -1, best_len = 1; // RFC 5952 section 4.2: never for one group; the first of the longest runs
  for (int i = 0; i < 8; i++) group[i] = (uint32_t)ip[2 * i] << 8 | ip[2 * i + 1];
  for (int i = 0; i < 8; i++) {
    int n = 0;
    while (i + n < 8 && group[i + n] == 0) n++;
    if (n > best_len) best = i, best_len = n;
    i += n;
  }
  for (int i = 0; i < 8; i++) {
    if (i == best) {
      *p++ = ':', *p++ = ':';
      i += best_len - 1;
      continue;
    }
    if (i > 0 && i != best + best_len) *p++ = ':';
    p = put_number(p, group[i], 16);
  }
  return p;
}

size_t bdk_addr_format(const bdk_addr *a, char out[BDK_ADDR_TEXT_MAX]) {
  char *p = out;
  if (a->family == 4) {
    for (int i = 0; i < 4; i++) {
      if (i > 0) *p++ = '.';
      p = put_number(p, a->ip[i], 10);
    }
  } else if (a->family == 6) {
    *p++ = '[';
    p = put_ipv6(p, a->ip);
    if (a->scope) *p++ = '%', p = put_number(p, a->scope, 10);
    *p++ = ']';
  } else {
    memcpy(out, "none", 5);
    return 4;
  }
  *p++ = ':';
  p = put_number(p, a->port, 10);
  *p = 0;
  return (size_t)(p - out);
}

void bdk_addr_canon(bdk_addr *a) {
  static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
  bdk_addr c;
  memset(&c, 0, sizeof c); // padding as well
  c.port = a->port, c.family = a->family;
  if (a->family == 6 && memcmp(a->ip, mapped, 12) == 0) {
    c.family = 4;
    memcpy(c.ip, a->ip + 12, 4);
  } else if (a->family == 6) {
    memcpy(c.ip, a->ip, 16);
    if (link_local(a)) c.scope = a->scope;
  } else if (a->family == 4) {
    memcpy(c.ip, a->ip, 4);
  } else {
    c.port = 0, c.family = 0;
  }
  memcpy(a, &c, sizeof c);
}

int bdk_addr_compare(const bdk_addr *a, const bdk_addr *b) {
  if (a->family != b->family) return a->family < b->family ? -1 : 1;
  int order = memcmp(a->ip, b->ip, 16);
  if (order) return order < 0 ? -1 : 1;
  if (a->port != b->port) return a->port < b->port ? -1 : 1;
  return a->scope == b->scope ? 0 : a->scope < b->scope ? -1 : 1;
}

bool bdk_addr_equal(const bdk_addr *a, const bdk_addr *b) { return bdk_addr_compare(a, b) == 0; }

bool bdk_addr_same_ip(const bdk_addr *a, const bdk_addr *b) {
  return a->family && a->family == b->family && a->scope == b->scope && memcmp(a->ip, b->ip, 16) == 0;
}

bool bdk_addr_among(const bdk_addr *list, uint32_t count, const bdk_addr *a) {
  for (uint32_t i = 0; i < count; i++)
    if (bdk_addr_same_ip(&list[i], a)) return true;
  return false;
}

static bdk_addr_class classify_ipv4(const uint8_t ip[4]) {
  if (ip[0] == 0) return BDK_ADDR_NONE; // RFC 1122: "this network", never a destination
  if (ip[0] == 127) return BDK_ADDR_LOOPBACK;
  if (ip[0] == 169 && ip[1] == 254) return BDK_ADDR_LINK_LOCAL;
  if (ip[0] == 10 || (ip[0] == 172 && (ip[1] & 0xf0) == 16) || (ip[0] == 192 && ip[1] == 168)) return BDK_ADDR_PRIVATE;
  if (ip[0] == 100 && (ip[1] & 0xc0) == 64) return BDK_ADDR_SHARED;
  return ip[0] >= 224 ? BDK_ADDR_MULTICAST : BDK_ADDR_PUBLIC;
}

static bdk_addr_class classify_ipv6(const bdk_addr *a) {
  static const uint8_t zero[15];
  if (memcmp(a->ip, zero, 15) == 0 && a->ip[15] <= 1) return a->ip[15] ? BDK_ADDR_LOOPBACK : BDK_ADDR_NONE;
  if (link_local(a)) return BDK_ADDR_LINK_LOCAL;
  if ((a->ip[0] & 0xfe) == 0xfc) return BDK_ADDR_PRIVATE;
  return a->ip[0] == 0xff ? BDK_ADDR_MULTICAST : BDK_ADDR_PUBLIC;
}

bdk_addr_class bdk_addr_classify(const bdk_addr *a) {
  if (a->family == 4) return classify_ipv4(a->ip);
  return a->family == 6 ? classify_ipv6(a) : BDK_ADDR_NONE;
}

size_t bdk_addr_pack(const bdk_addr *a, uint8_t out[BDK_ADDR_WIRE_MAX]) {
  size_t n = a->family == 4 ? 4 : a->family == 6 ? 16 : 0;
  if (n == 0) return 0;
  memcpy(out, a->ip, n);
  out[n] = (uint8_t)(a->port >> 8);
  out[n + 1] = (uint8_t)a->port;
  return n + 2;
}

int bdk_addr_unpack(bdk_addr *out, const uint8_t *bytes, size_t len) {
  if (len != 6 && len != 18) return BDK_E_INVALID;
  bdk_addr a = {.family = len == 6 ? 4 : 6, .port = (uint16_t)(bytes[len - 2] << 8 | bytes[len - 1])};
  memcpy(a.ip, bytes, len - 2);
  bdk_addr_canon(&a);
  memcpy(out, &a, sizeof a);
  return 0;
}

void bdk_addr_mask(uint8_t *packed, size_t len, const uint8_t tx[BDK_TX_LEN]) {
  uint8_t key[4 + BDK_TX_LEN] = {0x21, 0x12, 0xa4, 0x42};
  if (len != 6 && len != 18) return;
  memcpy(key + 4, tx, BDK_TX_LEN);
  for (size_t i = 0; i < len - 2; i++) packed[i] ^= key[i];
  packed[len - 2] ^= key[0];
  packed[len - 1] ^= key[1];
}
