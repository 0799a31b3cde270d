// SPDX-License-Identifier: MIT
// Messages: [type, version, fields…], each declared once as a schema. Peer messages are declared here;
// all others in scripts/bodkin/message.lua, through the same structs. One reader and one writer serve both.
#ifndef BDK_MESSAGE_H
#define BDK_MESSAGE_H

#include "wire.h"

#define BDK_FIELDS_MAX 24
#define BDK_REFUSED 18u // the type of the one message whose layout is the same in every version
#define BDK_PAD_TO 128u // bytes a request is padded to, so that no reply to it need be longer

typedef enum bdk_field_kind {
  BDK_FIELD_UINT, // min..max: the value
  BDK_FIELD_BOOL,
  BDK_FIELD_BIN,   // min..max: bytes
  BDK_FIELD_STR,   // min..max: bytes, UTF-8 not checked
  BDK_FIELD_ADDR,  // bin 6 or 18
  BDK_FIELD_ADDRS, // array of addr, at most max
  BDK_FIELD_BINS,  // array of bin, at most max elements of at most 64 bytes
  BDK_FIELD_ANY,   // any value, at most max bytes encoded
  BDK_FIELD_PAD,   // bin of zeros that brings the datagram to BDK_PAD_TO bytes; read as absent
} bdk_field_kind;

typedef struct bdk_field_def {
  const char *name;
  bdk_field_kind kind;
  bool optional; // nil is allowed
  uint64_t min, max;
} bdk_field_def;

typedef struct bdk_schema {
  const char *name;
  uint8_t type; // 1..127 on the wire
  bool request; // of these an unknown version is refused with too_old; all others are dropped
  bool sealed;  // taken from an association alone
  uint8_t count;
  bdk_field_def fields[BDK_FIELDS_MAX];
} bdk_schema;

// A field's value. `data`/`len` are borrowed: the bytes of bin, str and addr, the whole encoded value of
// addrs, bins and any. `nil` when absent.
typedef struct bdk_field {
  bool nil;
  uint64_t u; // uint and bool; element count of addrs and bins
  const uint8_t *data;
  uint32_t len;
} bdk_field;

typedef struct bdk_message_head {
  uint8_t type;
  uint8_t version;   // low byte of the version field
  uint64_t features; // the rest of it, shifted down
  uint8_t count;     // fields after the version; 255: or more
  const uint8_t *tx; // the first field, when it is bin 12: so in every version; else NULL
} bdk_message_head;

// Checks the whole datagram (bdk_wire_check) and reads its head. 0, or the negative counter index of the
// cause: -BDK_COUNT_drop_short or -BDK_COUNT_drop_msgpack (also for a type outside 1..127 and a version that
// is no uint).
int bdk_message_head_read(bdk_message_head *out, const uint8_t *bytes, size_t len);
// Reads the fields of a datagram that bdk_message_head_read accepted, in schema order, into
// fields[schema->count]. 0, or -BDK_COUNT_drop_field; `bad`, if given, then names the field.
int bdk_message_read(const bdk_schema *s, const uint8_t *bytes, size_t len, bdk_field *fields, const char **bad);
// Writes a message. Returns its length; 0 when a field is out of its bounds (`bad` names it) or `cap` is
// too small. Fields of kind pad are ignored in `fields` and made here.
size_t bdk_message_write(const bdk_schema *s, const bdk_field *fields, uint8_t *out, size_t cap, const char **bad);

// The messages between peers before they share a session's frames.
extern const bdk_schema bdk_message_test;    // match role epoch rx_index nonce mac
extern const bdk_schema bdk_message_confirm; // match role epoch rx_index nonce origin mac

#endif
