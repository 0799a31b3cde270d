// SPDX-License-Identifier: MIT
// STUN: whatever is read stays within its bounds, an answer within 44 bytes, and what we answer we read again.
#include "core/stun.h"
#include "fuzz.h"

static void check_request(const bdk_stun *s) {
  static const char *texts[] = {"203.0.113.7:40000", "[2001:db8::7]:40000"};
  REQUIRE(s->unknown_count <= BDK_STUN_UNKNOWN_MAX + 1);
  for (int i = 0; i < 2; i++) {
    bdk_addr from;
    bdk_stun again;
    uint8_t out[BDK_STUN_ANSWER_MAX];
    REQUIRE(bdk_addr_parse(&from, texts[i], strlen(texts[i]), 0) == 0);
    size_t n = bdk_stun_write_answer(s, &from, out);
    REQUIRE(n <= BDK_STUN_ANSWER_MAX && (n == 0) == (s->unknown_count > BDK_STUN_UNKNOWN_MAX));
    if (!n) continue;
    REQUIRE(memcmp(out + 4, s->id, 16) == 0 && out[0] == 1);
    if (s->classic) memcpy(out + 4, "\x21\x12\xa4\x42", 4); // or we do not read it
    REQUIRE(bdk_stun_read(&again, out, n) == 0);
    if (s->unknown_count)
      REQUIRE(again.kind == BDK_STUN_ERROR && again.code == 420);
    else
      REQUIRE(again.kind == BDK_STUN_SUCCESS && bdk_addr_equal(&again.mapped, &from));
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len) {
  bdk_stun s;
  if (bdk_stun_read(&s, bytes, len) != 0) return 0;
  REQUIRE(s.id == bytes + 4);
  if (s.kind == BDK_STUN_REQUEST) check_request(&s);
  if (s.kind == BDK_STUN_SUCCESS) {
    bdk_addr canon = s.mapped;
    bdk_addr_canon(&canon);
    REQUIRE(memcmp(&canon, &s.mapped, sizeof canon) == 0 && (canon.family == 4 || canon.family == 6));
  }
  if (s.kind == BDK_STUN_ERROR) REQUIRE(s.code >= 300 && s.code <= 699);
  return 0;
}
