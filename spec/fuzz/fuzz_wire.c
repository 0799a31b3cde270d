// SPDX-License-Identifier: MIT
// Any bytes: the walker and the readers stay within them; what is taken as a message is written back the
// same when its encoding is the shortest, and is at least of the same meaning when it is not.
#include "fuzz.h"

static void drain(const uint8_t *bytes, size_t len, bool checked) {
  bdk_reader r = {bytes, bytes + len};
  bdk_item item;
  size_t items = 0;
  while (bdk_read(&r, &item)) {
    items++;
    REQUIRE(item.kind != BDK_WIRE_NONE && items <= len);
    if (item.kind == BDK_WIRE_STR || item.kind == BDK_WIRE_BIN)
      REQUIRE(item.data >= bytes && item.len <= (size_t)(bytes + len - item.data));
  }
  REQUIRE(!checked || r.p == r.end);
  r.p = bytes;
  REQUIRE(!checked || (bdk_skip(&r) && r.p == r.end));
  while (bdk_skip(&r)) {
  }
}

// A message with a field of each kind that the peers' messages do not have.
static const bdk_schema kinds = {
    .name = "kinds",
    .type = 1,
    .request = true,
    .count = 8,
    .fields = {{"tx", BDK_FIELD_BIN, false, 12, 12},
               {"proof", BDK_FIELD_BIN, true, 20, 20},
               {"name", BDK_FIELD_STR, false, 0, 32},
               {"ok", BDK_FIELD_BOOL, true, 0, 0},
               {"locals", BDK_FIELD_ADDRS, false, 0, 4},
               {"pubs", BDK_FIELD_BINS, true, 0, 2},
               {"props", BDK_FIELD_ANY, false, 1, 128},
               {"pad", BDK_FIELD_PAD, false, 0, 0}},
};

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len) {
  const bdk_schema *const schemas[] = {&bdk_message_test, &bdk_message_confirm, &kinds};
  bdk_field fields[BDK_FIELDS_MAX];
  bdk_message_head head;
  const char *bad;
  bool checked = bdk_wire_check(bytes, len);
  drain(bytes, len, checked);
  int refused = bdk_message_head_read(&head, bytes, len);
  REQUIRE(refused || checked);
  for (size_t i = 0; i < sizeof schemas / sizeof *schemas; i++) {
    int e = bdk_message_read(schemas[i], bytes, len, fields, &bad);
    REQUIRE((e == 0) == (bad == NULL));
    if (refused == 0 && e == 0) fuzz_round_trip(schemas[i], fields);
  }
  return 0;
}
