// SPDX-License-Identifier: MIT
// Noise: arbitrary bytes read in each pattern, role and step, and what the other side wrote, changed, cut, grown or
// meant for another handshake, or read with another prologue, psk or key. Only what is as it was written is taken,
// and then both sides hold the same.
#include <sodium.h>

#include "core/noise.h"
#include "dh.h"
#include "fuzz.h"

#define PAYLOADS 2
#define STEPS 2

static const size_t payload_len[PAYLOADS] = {0, 21};
static const uint8_t payload[32] = "what the message carries";

typedef struct handshake { // one that went well: its messages, and who was about to read each
  bdk_noise reader[STEPS];
  uint8_t message[STEPS][BDK_NOISE_MAX];
  size_t len[STEPS];
  uint8_t steps, keys[2][32];
} handshake;

static handshake made[BDK_NOISE_PATTERNS][PAYLOADS];
static bdk_keypair statics[2], ephemerals[2], stranger;
static const uint8_t psk[32] = "psk", prologue[] = "prologue";

static bdk_noise_config config_of(bdk_noise_pattern pattern, int side) {
  bdk_noise_config c = {.pattern = pattern, .initiator = side == 0, .prologue = prologue, .own = &statics[side]};
  c.prologue_len = sizeof prologue;
  c.own_ephemeral = &ephemerals[side];
  if (pattern != BDK_NOISE_IK || side == 0) c.peer = statics[!side].public;
  if (pattern != BDK_NOISE_IK) c.psk = psk;
  if (pattern == BDK_NOISE_KKEEPSK0) c.peer_ephemeral = ephemerals[!side].public;
  return c;
}

static void make(bdk_noise_pattern pattern, int which) {
  handshake *h = &made[pattern][which];
  bdk_noise side[2];
  uint8_t got[sizeof payload], other[2][32], same[BDK_TAG_LEN];
  for (int i = 0; i < 2; i++) {
    bdk_noise_config c = config_of(pattern, i);
    bdk_noise_init(&side[i], &c);
  }
  for (; !bdk_noise_done(&side[0]); h->steps++) {
    bdk_noise *writer = &side[h->steps], *reader = &side[!h->steps];
    REQUIRE(bdk_noise_writes(writer) && bdk_noise_writes(reader) == (pattern == BDK_NOISE_KKEEPSK0));
    h->reader[h->steps] = *reader;
    size_t len = pattern == BDK_NOISE_KKEEPSK0 ? 0 : payload_len[which];
    int n = bdk_noise_write(writer, payload, len, h->message[h->steps], BDK_NOISE_MAX);
    REQUIRE(n > 0);
    h->len[h->steps] = (size_t)n;
    if (pattern == BDK_NOISE_KKEEPSK0) // both write it, and none travels
      REQUIRE(bdk_noise_write(reader, NULL, 0, same, sizeof same) == n &&
              memcmp(same, h->message[0], sizeof same) == 0);
    else
      REQUIRE(bdk_noise_read(reader, h->message[h->steps], (size_t)n, got, sizeof got) == (int)payload_len[which]);
  }
  REQUIRE(h->steps == (pattern == BDK_NOISE_KKEEPSK0 ? 1 : 2) && bdk_noise_done(&side[1]));
  REQUIRE(bdk_noise_split(&side[0], h->keys[0], h->keys[1]) == 0 && bdk_noise_split(&side[1], other[0], other[1]) == 0);
  REQUIRE(memcmp(other, h->keys, sizeof other) == 0);
}

int LLVMFuzzerInitialize(int *argc, char ***argv) {
  (void)argc, (void)argv;
  if (sodium_init() < 0) return 1;
  bdk_keypair *const pairs[] = {&statics[0], &statics[1], &ephemerals[0], &ephemerals[1], &stranger};
  for (uint8_t i = 0; i < sizeof pairs / sizeof *pairs; i++)
    bdk_keypair_init(pairs[i], (uint8_t[32]){[1] = (uint8_t)(i + 1)});
  for (int pattern = 0; pattern < BDK_NOISE_PATTERNS; pattern++)
    for (int which = 0; which < PAYLOADS; which++) make((bdk_noise_pattern)pattern, which);
  return 0;
}

// What comes: as written, or the input's own bytes, or as written but for some of them. `room`: for its payload.
static size_t arrive(fuzz_input *in, uint8_t how, const handshake *h, int step, uint8_t *out) {
  size_t len = h->len[step];
  memcpy(out, h->message[step], len);
  if (how == 0) return len;
  if (how == 1) {
    for (len = 0; in->p < in->end && len < BDK_NOISE_MAX; len++) out[len] = fuzz_take(in);
    return len;
  }
  if (how == 2) { // in full, then some bytes of it others
    while (in->p < in->end) {
      size_t at = fuzz_take(in) % len;
      out[at] = fuzz_take(in);
    }
    return len;
  }
  uint8_t by = fuzz_take(in);
  if (by & 0x80) return len - by % (len + 1);
  for (size_t i = 0; i < by && len < BDK_NOISE_MAX; i++) out[len++] = fuzz_take(in);
  return len;
}

// Another reader of a first message, who knows something else. True when there is something to know.
static bool other_reader(bdk_noise *s, bdk_noise_pattern pattern, uint8_t what) {
  uint8_t other[32] = "another";
  bdk_noise_config c = config_of(pattern, 1);
  switch (what % 5) {
  case 0:
    c.prologue_len--;
    break;
  case 1:
    if (!c.psk) return false;
    c.psk = other;
    break;
  case 2:
    if (!c.peer) return false;
    c.peer = stranger.public;
    break;
  case 3:
    c.own = &stranger;
    break;
  case 4:
    if (!c.peer_ephemeral) return false;
    c.peer_ephemeral = stranger.public;
    break;
  }
  bdk_noise_init(s, &c);
  return true;
}

static void over(bdk_noise *s) {
  uint8_t out[BDK_NOISE_MAX];
  REQUIRE(!bdk_noise_done(s) && !bdk_noise_writes(s));
  REQUIRE(bdk_noise_read(s, out, 0, out, sizeof out) == BDK_E_INVALID);
  REQUIRE(bdk_noise_write(s, out, 0, out, sizeof out) == BDK_E_INVALID);
  for (size_t i = 0; i < sizeof s->k; i++) REQUIRE(s->k[i] == 0 && s->ck[i] == 0 && s->own.secret[i] == 0);
}

static void finish(bdk_noise *s, const handshake *h, int step) {
  uint8_t keys[2][32];
  if (step + 1 < h->steps) {
    REQUIRE(bdk_noise_writes(s));
    return;
  }
  REQUIRE(bdk_noise_done(s) && !bdk_noise_writes(s));
  REQUIRE(bdk_noise_split(s, keys[0], keys[1]) == 0);
  REQUIRE(memcmp(keys, h->keys, sizeof keys) == 0);
}

// KKeepsk0: nothing is read, both write the same, and whoever knows something else gets other keys.
static void silently(fuzz_input *in, uint8_t op, uint8_t room) {
  const handshake *h = &made[BDK_NOISE_KKEEPSK0][0];
  bdk_noise s = h->reader[0];
  uint8_t message[BDK_NOISE_MAX], keys[2][32];
  bool foreign = op & 0x80 && other_reader(&s, BDK_NOISE_KKEEPSK0, fuzz_take(in));
  if (op & 0x40) {
    size_t len = arrive(in, op >> 4 & 3, h, 0, message);
    REQUIRE(bdk_noise_read(&s, message, len, message, 0) == BDK_E_INVALID);
    over(&s);
    return;
  }
  int n = bdk_noise_write(&s, NULL, 0, message, room);
  REQUIRE(n == (room < BDK_TAG_LEN ? BDK_E_INVALID : (int)BDK_TAG_LEN));
  if (n < 0) {
    over(&s);
    return;
  }
  REQUIRE((memcmp(message, h->message[0], BDK_TAG_LEN) == 0) == !foreign);
  REQUIRE(bdk_noise_split(&s, keys[0], keys[1]) == 0);
  REQUIRE((memcmp(keys, h->keys, sizeof keys) == 0) == !foreign);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len) {
  fuzz_input in = {bytes, bytes + len};
  uint8_t op = fuzz_take(&in), room = fuzz_take(&in), message[BDK_NOISE_MAX], out[BDK_NOISE_MAX];
  bdk_noise_pattern pattern = (bdk_noise_pattern)((op & 3) % BDK_NOISE_PATTERNS);
  if (pattern == BDK_NOISE_KKEEPSK0) {
    silently(&in, op, room);
    return 0;
  }
  int which = op >> 2 & 1, step = (op >> 3 & 1) % made[pattern][which].steps;
  const handshake *h = &made[pattern][which];
  bdk_noise s = h->reader[step];
  const handshake *theirs = NULL;
  bool foreign = false;
  uint8_t how = op >> 4 & 3;
  if (op & 0x80) { // knows something else, or takes part in another handshake
    uint8_t what = fuzz_take(&in);
    if (step == 0 && !(what & 0x80)) {
      foreign = other_reader(&s, pattern, what);
    } else {
      bdk_noise_pattern another = pattern == BDK_NOISE_IK ? BDK_NOISE_KKPSK0 : BDK_NOISE_IK;
      theirs = &made[another][which];
      s = theirs->reader[step];
      foreign = true;
    }
  }
  size_t n = arrive(&in, how, h, step, message);
  // The input may have learned the very message that this reader waits for.
  if (theirs && n == theirs->len[step] && memcmp(message, theirs->message[step], n) == 0) return 0;
  size_t cap = op & 0x40 ? room : sizeof out;
  bool whole = !foreign && n == h->len[step] && memcmp(message, h->message[step], n) == 0;
  uint8_t *exact = malloc(n ? n : 1);
  memcpy(exact, message, n);
  int got = bdk_noise_read(&s, exact, n, out, cap);
  free(exact);
  if (whole && cap >= payload_len[which]) {
    REQUIRE(got == (int)payload_len[which] && memcmp(out, payload, payload_len[which]) == 0);
    finish(&s, h, step);
  } else {
    REQUIRE(got == BDK_E_BAD_KEY || got == BDK_E_INVALID);
    over(&s);
  }
  return 0;
}
