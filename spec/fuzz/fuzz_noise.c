// SPDX-License-Identifier: MIT
// Handshakes fed with any bytes. The first byte says which: pattern, and what is done:
//   any      read what comes by either side at either step: nothing is taken, the state is wiped
//   mutated  a real message with bytes of it changed, cut or added: refused
//   left     both payloads as given, what travels left alone: both agree
#include <stdlib.h>
#include <string.h>

#include "core/noise.h"

#define REQUIRE(x)                                                                                                     \
  if (!(x)) abort()

enum { A, B };
enum { ANY, MUTATED, LEFT, WAYS };

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

static bdk_keypair statics[2], ephemerals[2];
static uint8_t psk[32];

static void make_keys(void) {
  uint8_t secret[32];
  for (int i = A; i <= B; i++) {
    memset(secret, 1 + i, sizeof secret);
    bdk_keypair_init(&statics[i], secret);
    memset(secret, 3 + i, sizeof secret);
    bdk_keypair_init(&ephemerals[i], secret);
  }
  memset(psk, 5, sizeof psk);
}

// Each way has its own prologue: a real message that libFuzzer saw in a comparison of one is nothing in another.
static void begin(bdk_noise side[2], bdk_noise_pattern pattern, const uint8_t *way) {
  for (int i = A; i <= B; i++) {
    bdk_noise_config config = {.pattern = pattern,
                               .initiator = i == A,
                               .prologue = way,
                               .prologue_len = 1,
                               .own = &statics[i],
                               .own_ephemeral = &ephemerals[i],
                               .peer = pattern == BDK_NOISE_IK && i == B ? NULL : statics[!i].public,
                               .peer_ephemeral = pattern == BDK_NOISE_KKEEPSK0 ? ephemerals[!i].public : NULL,
                               .psk = pattern == BDK_NOISE_IK ? NULL : psk};
    bdk_noise_init(&side[i], &config);
  }
}

static void require_wiped(const bdk_noise *s) {
  bdk_noise blank;
  memset(&blank, 0, sizeof blank);
  blank.failed = true;
  REQUIRE(memcmp(s, &blank, sizeof blank) == 0);
}

// From and into memory of exactly the size, so that a byte too many is seen.
static int read_exactly(bdk_noise *s, const uint8_t *bytes, size_t len, size_t cap) {
  uint8_t *in = malloc(len ? len : 1), *out = malloc(cap ? cap : 1);
  REQUIRE(in && out);
  if (len) memcpy(in, bytes, len);
  int got = bdk_noise_read(s, in, len, out, cap);
  REQUIRE(got < 0 || (size_t)got <= cap);
  if (got < 0) require_wiped(s);
  free(in);
  free(out);
  return got;
}

static size_t write_message(bdk_noise *s, const uint8_t *payload, size_t len, uint8_t out[BDK_NOISE_MAX]) {
  int n = bdk_noise_write(s, payload, len, out, BDK_NOISE_MAX);
  REQUIRE(n >= (int)len && n <= (int)BDK_NOISE_MAX);
  return (size_t)n;
}

static void pass(bdk_noise *from, bdk_noise *to, const uint8_t *payload, size_t len) {
  uint8_t message[BDK_NOISE_MAX], got[BDK_NOISE_MAX];
  size_t n = write_message(from, payload, len, message);
  REQUIRE(bdk_noise_read(to, message, n, got, sizeof got) == (int)len);
  REQUIRE(len == 0 || memcmp(got, payload, len) == 0);
}

static void any(bdk_noise side[2], const uint8_t *bytes, size_t len) {
  for (int i = A; i <= B; i++) {
    bdk_noise s = side[i];
    REQUIRE(read_exactly(&s, bytes, len, len) < 0);
    s = side[i];
    REQUIRE(read_exactly(&s, bytes, len, len / 2) < 0);
  }
  if (bdk_noise_writes(&side[B])) return; // of the pattern in which nothing travels
  pass(&side[A], &side[B], NULL, 0);
  REQUIRE(read_exactly(&side[A], bytes, len, len) < 0);
  REQUIRE(read_exactly(&side[B], bytes, len, len) < 0); // not its turn
}

// The first two bytes: how much longer or shorter, and which message; the rest is laid over it from its end.
static void mutated(bdk_noise side[2], const uint8_t *bytes, size_t len) {
  uint8_t message[BDK_NOISE_MAX + 256] = {0}, before[sizeof message];
  if (len < 2 || bdk_noise_writes(&side[B])) return;
  int n = bytes[1] & 1, longer = (int8_t)bytes[0];
  if (n == 1) pass(&side[A], &side[B], NULL, 0);
  size_t whole = write_message(&side[n], bytes, len > 32 ? 32 : len, message), now = (size_t)((int)whole + longer);
  if ((int)whole + longer < 0) return;
  memcpy(before, message, sizeof before);
  bytes += 2;
  len -= 2;
  for (size_t i = 0; i < len && i < now; i++) message[now - 1 - i] ^= bytes[i];
  bool same = now == whole && memcmp(message, before, whole) == 0;
  REQUIRE((read_exactly(&side[!n], message, now, BDK_NOISE_MAX) >= 0) == same);
}

static void left(bdk_noise side[2], const uint8_t *bytes, size_t len) {
  uint8_t keys[2][2][32], h[BDK_NOISE_HASH_LEN], tag[2][BDK_TAG_LEN];
  size_t most = BDK_NOISE_MAX - BDK_IK_FIRST;
  if (bdk_noise_writes(&side[B])) {
    for (int i = A; i <= B; i++) REQUIRE(bdk_noise_write(&side[i], NULL, 0, tag[i], BDK_TAG_LEN) == BDK_TAG_LEN);
    REQUIRE(memcmp(tag[A], tag[B], BDK_TAG_LEN) == 0);
  } else {
    size_t first = len / 3;
    pass(&side[A], &side[B], bytes, first < most ? first : most);
    pass(&side[B], &side[A], bytes + first, len - first < most ? len - first : most);
  }
  REQUIRE(memcmp(side[A].h, side[B].h, sizeof h) == 0);
  for (int i = A; i <= B; i++) REQUIRE(bdk_noise_split(&side[i], keys[i][0], keys[i][1]) == 0);
  REQUIRE(memcmp(keys[A], keys[B], sizeof keys[A]) == 0 && memcmp(keys[A][0], keys[A][1], 32) != 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len) {
  bdk_noise side[2];
  if (len < 1) return 0;
  if (statics[A].public[0] == 0) make_keys();
  uint8_t way = bytes[0] / BDK_NOISE_PATTERNS % WAYS;
  begin(side, (bdk_noise_pattern)(bytes[0] % BDK_NOISE_PATTERNS), &way);
  if (way == ANY) any(side, bytes + 1, len - 1);
  if (way == MUTATED) mutated(side, bytes + 1, len - 1);
  if (way == LEFT) left(side, bytes + 1, len - 1);
  return 0;
}
