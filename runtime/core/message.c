// SPDX-License-Identifier: MIT
#include "message.h"

#include "counter.h"

#include <string.h>

#define BINS_ELEMENT_MAX 64u

static bool is_addr(const bdk_item *item) { return item->kind == BDK_WIRE_BIN && (item->len == 6 || item->len == 18); }

static bool read_list(bdk_reader *r, const bdk_field_def *def, const bdk_item *head) {
  if (head->kind != BDK_WIRE_ARRAY || head->count < def->min || head->count > def->max) return false;
  for (uint32_t i = 0; i < head->count; i++) {
    bdk_item item;
    if (!bdk_read(r, &item)) return false;
    if (def->kind == BDK_FIELD_ADDRS && !is_addr(&item)) return false;
    if (def->kind == BDK_FIELD_BINS && (item.kind != BDK_WIRE_BIN || item.len > BINS_ELEMENT_MAX)) return false;
  }
  return true;
}

// Reads one field. The writer passes what it wrote through here too, so that both keep the same bounds.
static bool read_field(bdk_reader *r, const bdk_field_def *def, bdk_field *out) {
  const uint8_t *start = r->p;
  bdk_item item;
  *out = (bdk_field){.nil = true};
  if (!bdk_read(r, &item)) return false;
  if (item.kind == BDK_WIRE_NIL && def->optional) return true;
  *out = (bdk_field){.data = item.data, .len = item.len};
  switch (def->kind) {
  case BDK_FIELD_UINT:
    out->u = item.u;
    return item.kind == BDK_WIRE_UINT && item.u >= def->min && item.u <= def->max;
  case BDK_FIELD_BOOL:
    out->u = item.kind == BDK_WIRE_BOOL && item.b;
    return item.kind == BDK_WIRE_BOOL;
  case BDK_FIELD_BIN:
    return item.kind == BDK_WIRE_BIN && item.len >= def->min && item.len <= def->max;
  case BDK_FIELD_STR:
    return item.kind == BDK_WIRE_STR && item.len >= def->min && item.len <= def->max;
  case BDK_FIELD_ADDR:
    return is_addr(&item);
  case BDK_FIELD_ADDRS:
  case BDK_FIELD_BINS:
    if (!read_list(r, def, &item)) return false;
    *out = (bdk_field){.u = item.count, .data = start, .len = (uint32_t)(r->p - start)};
    return true;
  case BDK_FIELD_ANY:
    r->p = start;
    if (!bdk_skip(r)) return false;
    *out = (bdk_field){.data = start, .len = (uint32_t)(r->p - start)};
    return out->len >= def->min && out->len <= def->max;
  case BDK_FIELD_PAD:
    *out = (bdk_field){.nil = true};
    return item.kind == BDK_WIRE_BIN;
  }
  return false;
}

int bdk_message_head_read(bdk_message_head *out, const uint8_t *bytes, size_t len) {
  bdk_item head, type, version, first;
  if (len < 3) return -BDK_COUNT_drop_short;
  if (len > BDK_DATAGRAM_MAX || !bdk_wire_check(bytes, len)) return -BDK_COUNT_drop_msgpack;
  bdk_reader r = {bytes, bytes + len};
  if (!bdk_read(&r, &head) || head.kind != BDK_WIRE_ARRAY || head.count < 2) return -BDK_COUNT_drop_msgpack;
  if (!bdk_read(&r, &type) || type.kind != BDK_WIRE_UINT || type.u < 1 || type.u > 127) return -BDK_COUNT_drop_msgpack;
  if (!bdk_read(&r, &version) || version.kind != BDK_WIRE_UINT) return -BDK_COUNT_drop_msgpack;
  *out = (bdk_message_head){
      .type = (uint8_t)type.u,
      .version = (uint8_t)version.u,
      .features = version.u >> 8,
      .count = head.count - 2 > UINT8_MAX ? UINT8_MAX : (uint8_t)(head.count - 2),
  };
  if (bdk_read(&r, &first) && first.kind == BDK_WIRE_BIN && first.len == BDK_TX_LEN) out->tx = first.data;
  return 0;
}

int bdk_message_read(const bdk_schema *s, const uint8_t *bytes, size_t len, bdk_field *fields, const char **bad) {
  bdk_reader r = {bytes, bytes + len};
  bdk_item head, type;
  const char *ignored;
  if (!bad) bad = &ignored;
  *bad = "type";
  if (!bdk_read(&r, &head) || head.kind != BDK_WIRE_ARRAY || head.count < 2) return -BDK_COUNT_drop_field;
  if (!bdk_read(&r, &type) || type.kind != BDK_WIRE_UINT || type.u != s->type) return -BDK_COUNT_drop_field;
  *bad = "version";
  if (!bdk_skip(&r)) return -BDK_COUNT_drop_field;
  *bad = head.count < 2u + s->count ? s->fields[head.count - 2].name : "a field too many";
  if (head.count != 2u + s->count) return -BDK_COUNT_drop_field;
  for (uint8_t i = 0; i < s->count; i++) {
    *bad = s->fields[i].name;
    if (!read_field(&r, &s->fields[i], &fields[i])) return -BDK_COUNT_drop_field;
  }
  *bad = NULL;
  return 0;
}

static void write_field(bdk_packer *p, const bdk_field_def *def, const bdk_field *f) {
  if (def->kind == BDK_FIELD_PAD)
    bdk_pack_bin(p, NULL, 0);
  else if (f->nil)
    bdk_pack_nil(p);
  else if (def->kind == BDK_FIELD_UINT)
    bdk_pack_uint(p, f->u);
  else if (def->kind == BDK_FIELD_BOOL)
    bdk_pack_bool(p, f->u != 0);
  else if (def->kind == BDK_FIELD_STR)
    bdk_pack_str(p, (const char *)f->data, f->len);
  else if (def->kind == BDK_FIELD_BIN || def->kind == BDK_FIELD_ADDR)
    bdk_pack_bin(p, f->data, f->len);
  else
    bdk_pack_raw(p, f->data, f->len);
}

// Makes the empty pad whose head is at `at` fill the datagram up to BDK_PAD_TO. A bin8's head is 2 bytes at
// every length, so the datagram grows by exactly what is added.
static void fill_pad(bdk_packer *p, size_t at) {
  if (p->len >= BDK_PAD_TO) return;
  size_t more = BDK_PAD_TO - p->len, tail = p->len - (at + 2);
  if (more > p->cap - p->len) {
    p->overflow = true;
    return;
  }
  memmove(p->buf + at + 2 + more, p->buf + at + 2, tail);
  memset(p->buf + at + 2, 0, more);
  p->buf[at + 1] = (uint8_t)more;
  p->len += more;
}

size_t bdk_message_write(const bdk_schema *s, const bdk_field *fields, uint8_t *out, size_t cap, const char **bad) {
  bdk_packer p = bdk_packer_init(out, cap < BDK_DATAGRAM_MAX ? cap : BDK_DATAGRAM_MAX);
  const char *ignored, *embedded = NULL;
  size_t pad_at = 0;
  if (!bad) bad = &ignored;
  *bad = NULL;
  bdk_pack_array(&p, 2u + s->count);
  bdk_pack_uint(&p, s->type);
  bdk_pack_uint(&p, BDK_PROTOCOL_VERSION);
  for (uint8_t i = 0; i < s->count; i++) {
    const bdk_field_def *def = &s->fields[i];
    size_t start = p.len;
    bdk_field back;
    write_field(&p, def, &fields[i]);
    if (p.overflow) return 0;
    bdk_reader r = {out + start, out + p.len};
    if (!read_field(&r, def, &back) || r.p != r.end) {
      *bad = def->name;
      return 0;
    }
    if (def->kind == BDK_FIELD_PAD) pad_at = start;
    if (def->kind == BDK_FIELD_ANY) embedded = def->name;
  }
  if (pad_at) fill_pad(&p, pad_at);
  if (p.overflow) return 0;
  // A value from outside may be too deep, or hold duplicate keys; the receiver would drop the whole message.
  if (embedded && !bdk_wire_check(out, p.len)) {
    *bad = embedded;
    return 0;
  }
  return p.len;
}

// docs/PROTOCOL.md, "Between peers". The mac is the last 16 bytes of the datagram and covers all before it.
#define MATCH                                                                                                          \
  { "match", BDK_FIELD_BIN, false, 16, 16 }
#define ROLE                                                                                                           \
  { "role", BDK_FIELD_UINT, false, 0, 1 }
#define EPOCH                                                                                                          \
  { "epoch", BDK_FIELD_UINT, false, 0, UINT32_MAX }
#define RX_INDEX                                                                                                       \
  { "rx_index", BDK_FIELD_UINT, false, 0, UINT32_MAX }
#define NONCE                                                                                                          \
  { "nonce", BDK_FIELD_BIN, false, 8, 8 }
#define ORIGIN                                                                                                         \
  { "origin", BDK_FIELD_ADDR, false, 0, 0 }
#define MAC                                                                                                            \
  { "mac", BDK_FIELD_BIN, false, 16, 16 }

const bdk_schema bdk_message_test = {
    .name = "test",
    .type = 32,
    .count = 6,
    .fields = {MATCH, ROLE, EPOCH, RX_INDEX, NONCE, MAC},
};

const bdk_schema bdk_message_confirm = {
    .name = "confirm",
    .type = 33,
    .count = 7,
    .fields = {MATCH, ROLE, EPOCH, RX_INDEX, NONCE, ORIGIN, MAC},
};
