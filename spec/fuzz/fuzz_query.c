// SPDX-License-Identifier: MIT
// A query and properties, both of any bytes that msgpack takes: what is a query is asked, and by the laws of logic.
#include "core/query.h"
#include "fuzz.h"

// ["not", query], and what it finds.
static bool denied(const uint8_t *query, size_t len, const uint8_t *props, size_t props_len, bool *taken) {
  uint8_t buf[600];
  bdk_packer p = bdk_packer_init(buf, sizeof buf);
  bdk_pack_array(&p, 2);
  bdk_pack_str(&p, "not", 3);
  bdk_pack_raw(&p, query, len);
  *taken = !p.overflow && bdk_wire_check(buf, p.len) && bdk_query_check(buf, p.len, NULL) >= 0;
  return *taken && bdk_query_matches(buf, p.len, props, props_len);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len) {
  if (len < 1 || bytes[0] >= len) return 0;
  const uint8_t *query = bytes + 1, *props = query + bytes[0];
  size_t query_len = bytes[0], props_len = len - 1 - query_len;
  bdk_query_fault fault = {0};
  int terms = bdk_query_check(query, query_len, &fault);
  REQUIRE(terms <= (int)BDK_QUERY_TERMS_MAX && fault.depth <= BDK_WIRE_DEPTH_MAX);
  REQUIRE(terms >= 0 || fault.why);
  if (terms < 0 || !bdk_wire_check(query, query_len) || !bdk_wire_check(props, props_len)) return 0;
  bool found = bdk_query_matches(query, query_len, props, props_len), taken;
  bool other = denied(query, query_len, props, props_len, &taken);
  REQUIRE(!taken || found != other);
  return 0;
}
