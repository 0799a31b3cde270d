// SPDX-License-Identifier: MIT
// Addresses: a text that is taken as one is printed and read again the same, packed and unpacked the same; and
// bytes that are taken as a packed one are printed as a text that is read as the same.
#include "core/addr.h"
#include "fuzz.h"

static void check(const bdk_addr *a) {
  bdk_addr canon = *a, again;
  char text[BDK_ADDR_TEXT_MAX];
  uint8_t packed[BDK_ADDR_WIRE_MAX], masked[BDK_ADDR_WIRE_MAX];
  const uint8_t tx[BDK_TX_LEN] = "transaction";
  REQUIRE(a->family == 4 || a->family == 6);
  bdk_addr_canon(&canon);
  REQUIRE(memcmp(&canon, a, sizeof canon) == 0); // whatever comes out is canonical
  REQUIRE(bdk_addr_equal(a, &canon) && bdk_addr_compare(a, &canon) == 0 && bdk_addr_same_ip(a, &canon));
  REQUIRE(bdk_addr_classify(a) <= BDK_ADDR_PUBLIC);
  size_t len = bdk_addr_format(a, text);
  REQUIRE(len < sizeof text && strlen(text) == len);
  REQUIRE(bdk_addr_parse(&again, text, len, (uint16_t)(a->port + 1)) == 0 && bdk_addr_equal(a, &again));
  len = bdk_addr_pack(a, packed);
  REQUIRE(len == (a->family == 4 ? 6 : 18));
  REQUIRE(bdk_addr_unpack(&again, packed, len) == 0);
  canon.scope = 0; // a zone means nothing elsewhere and does not travel
  REQUIRE(bdk_addr_equal(&again, &canon));
  memcpy(masked, packed, len);
  bdk_addr_mask(masked, len, tx);
  bdk_addr_mask(masked, len, tx);
  REQUIRE(memcmp(masked, packed, len) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len) {
  bdk_addr a, untouched;
  memset(&a, 0x5A, sizeof a);
  untouched = a;
  if (bdk_addr_parse(&a, (const char *)bytes, len, 4433) == 0)
    check(&a);
  else
    REQUIRE(memcmp(&a, &untouched, sizeof a) == 0);
  int error = bdk_addr_unpack(&a, bytes, len);
  REQUIRE((error == 0) == (len == 6 || len == 18));
  if (error == 0) check(&a);
  return 0;
}
