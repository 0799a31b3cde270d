// SPDX-License-Identifier: MIT
#include "stun.h"

#include <string.h>

enum { HEADER = 20, ATTRIBUTE = 4 };

// Attribute types (RFC 8489 section 18.3; the three of RFC 3489 section 11.2 are what old servers still add).
enum {
  MAPPED_ADDRESS = 0x0001,
  SOURCE_ADDRESS = 0x0004,
  CHANGED_ADDRESS = 0x0005,
  USERNAME = 0x0006,
  MESSAGE_INTEGRITY = 0x0008,
  ERROR_CODE = 0x0009,
  UNKNOWN_ATTRIBUTES = 0x000A,
  REFLECTED_FROM = 0x000B,
  REALM = 0x0014,
  NONCE = 0x0015,
  MESSAGE_INTEGRITY_SHA256 = 0x001C,
  PASSWORD_ALGORITHM = 0x001D,
  USERHASH = 0x001E,
  XOR_MAPPED_ADDRESS = 0x0020,
  OPTIONAL = 0x8000, // from here on: skipped by who does not know them
};

static const uint8_t cookie[4] = {0x21, 0x12, 0xA4, 0x42};

static uint16_t get16(const uint8_t *p) { return (uint16_t)(p[0] << 8 | p[1]); }

static uint8_t *put16(uint8_t *p, unsigned v) {
  p[0] = (uint8_t)(v >> 8);
  p[1] = (uint8_t)v;
  return p + 2;
}

// Known, and so ignored where it has no business to be (section 6.3).
static bool known(uint16_t type, bdk_stun_kind kind) {
  switch (type) {
  case MAPPED_ADDRESS:
  case USERNAME:
  case MESSAGE_INTEGRITY:
  case ERROR_CODE:
  case UNKNOWN_ATTRIBUTES:
  case REALM:
  case NONCE:
  case MESSAGE_INTEGRITY_SHA256:
  case PASSWORD_ALGORITHM:
  case USERHASH:
  case XOR_MAPPED_ADDRESS:
    return true;
  case SOURCE_ADDRESS:
  case CHANGED_ADDRESS:
  case REFLECTED_FROM:
    return kind != BDK_STUN_REQUEST;
  default:
    return type >= OPTIONAL;
  }
}

static void note_unknown(bdk_stun *s, uint16_t type) {
  for (unsigned i = 0; i < s->unknown_count && i < BDK_STUN_UNKNOWN_MAX; i++)
    if (s->unknown[i] == type) return;
  if (s->unknown_count < BDK_STUN_UNKNOWN_MAX) s->unknown[s->unknown_count] = type;
  if (s->unknown_count <= BDK_STUN_UNKNOWN_MAX) s->unknown_count++;
}

// The value of a MAPPED-ADDRESS, or of an XOR-MAPPED-ADDRESS with `tx`: sections 14.1, 14.2.
static int read_address(bdk_addr *out, const uint8_t *p, size_t len, const uint8_t *tx) {
  uint8_t packed[BDK_ADDR_WIRE_MAX];
  size_t ip = len == 8 ? 4 : 16;
  if ((len != 8 && len != 20) || p[1] != (len == 8 ? 1 : 2)) return BDK_E_INVALID;
  memcpy(packed, p + 4, ip);
  memcpy(packed + ip, p + 2, 2);
  if (tx) bdk_addr_mask(packed, ip + 2, tx);
  return bdk_addr_unpack(out, packed, ip + 2);
}

// What the answers say, as far as it was found.
typedef struct findings {
  const uint8_t *mapped, *xor_mapped, *error;
  size_t mapped_len, xor_len, error_len;
} findings;

static void note(findings *f, uint16_t type, const uint8_t *value, size_t len) {
  if (type == MAPPED_ADDRESS && !f->mapped) {
    f->mapped = value;
    f->mapped_len = len;
  } else if (type == XOR_MAPPED_ADDRESS && !f->xor_mapped) {
    f->xor_mapped = value;
    f->xor_len = len;
  } else if (type == ERROR_CODE && !f->error) {
    f->error = value;
    f->error_len = len;
  }
}

static int conclude(bdk_stun *s, const findings *f) {
  if (s->kind == BDK_STUN_REQUEST) return 0;
  if (s->unknown_count) return BDK_E_INVALID; // section 6.3.3: the transaction has failed
  if (s->kind == BDK_STUN_SUCCESS) {
    if (f->xor_mapped) return read_address(&s->mapped, f->xor_mapped, f->xor_len, s->id + sizeof cookie);
    return f->mapped ? read_address(&s->mapped, f->mapped, f->mapped_len, NULL) : BDK_E_INVALID;
  }
  if (!f->error || f->error_len < 4) return BDK_E_INVALID;
  s->code = (uint16_t)((f->error[2] & 7) * 100 + f->error[3]);
  return s->code >= 300 && s->code <= 699 && f->error[3] < 100 ? 0 : BDK_E_INVALID;
}

int bdk_stun_read(bdk_stun *out, const uint8_t *bytes, size_t len) {
  if (len < HEADER || len % 4 || get16(bytes + 2) != len - HEADER) return BDK_E_INVALID;
  *out = (bdk_stun){.kind = (bdk_stun_kind)get16(bytes), .id = bytes + 4};
  out->classic = memcmp(out->id, cookie, sizeof cookie) != 0;
  if (out->kind != BDK_STUN_REQUEST && (out->classic || (out->kind != BDK_STUN_SUCCESS && out->kind != BDK_STUN_ERROR)))
    return BDK_E_INVALID; // old servers return the cookie, as part of the id
  findings found = {0};
  bool sealed = false; // past MESSAGE-INTEGRITY
  for (size_t at = HEADER; at < len;) {
    uint16_t type = get16(bytes + at);
    size_t n = get16(bytes + at + 2), padded = (n + 3) & ~(size_t)3;
    at += ATTRIBUTE;
    if (padded > len - at) return BDK_E_INVALID;
    if (!sealed) {
      if (!known(type, out->kind)) note_unknown(out, type);
      note(&found, type, bytes + at, n);
    }
    sealed = sealed || type == MESSAGE_INTEGRITY || type == MESSAGE_INTEGRITY_SHA256;
    at += padded;
  }
  return conclude(out, &found);
}

static uint8_t *put_header(uint8_t *out, bdk_stun_kind kind, size_t len, const uint8_t *id) {
  put16(out, kind);
  put16(out + 2, (unsigned)len);
  memcpy(out + 4, id, HEADER - 4);
  return out + HEADER;
}

size_t bdk_stun_write_request(const uint8_t tx[BDK_TX_LEN], uint8_t out[BDK_STUN_REQUEST_LEN]) {
  uint8_t id[HEADER - 4];
  memcpy(id, cookie, sizeof cookie);
  memcpy(id + sizeof cookie, tx, BDK_TX_LEN);
  put_header(out, BDK_STUN_REQUEST, 0, id);
  return BDK_STUN_REQUEST_LEN;
}

// Section 6.3.1, with an empty reason phrase.
static size_t write_unknown(const bdk_stun *request, uint8_t *out) {
  unsigned count = request->unknown_count;
  if (count > BDK_STUN_UNKNOWN_MAX) return 0;
  size_t len = ATTRIBUTE + 4 + ATTRIBUTE + (2 * count + 3) / 4 * 4;
  uint8_t *p = put_header(out, BDK_STUN_ERROR, len, request->id);
  memset(p, 0, len);
  p = put16(put16(p, ERROR_CODE), 4);
  p[2] = 4;
  p[3] = 20;
  p = put16(put16(p + 4, UNKNOWN_ATTRIBUTES), 2 * count);
  for (unsigned i = 0; i < count; i++) p = put16(p, request->unknown[i]);
  return HEADER + len;
}

size_t bdk_stun_write_answer(const bdk_stun *request, const bdk_addr *from, uint8_t out[BDK_STUN_ANSWER_MAX]) {
  if (request->unknown_count) return write_unknown(request, out);
  uint8_t packed[BDK_ADDR_WIRE_MAX];
  size_t len = bdk_addr_pack(from, packed), ip = len - 2;
  if (!len) return 0;
  if (!request->classic) bdk_addr_mask(packed, len, request->id + sizeof cookie);
  uint8_t *p = put_header(out, BDK_STUN_SUCCESS, ATTRIBUTE + 4 + ip, request->id);
  p = put16(put16(p, request->classic ? MAPPED_ADDRESS : XOR_MAPPED_ADDRESS), (unsigned)(4 + ip));
  *p++ = 0;
  *p++ = from->family == 4 ? 1 : 2;
  memcpy(p, packed + ip, 2);
  memcpy(p + 2, packed, ip);
  return HEADER + ATTRIBUTE + 4 + ip;
}
