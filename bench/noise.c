// SPDX-License-Identifier: MIT
// What handshakes and sealing cost on one core: medians of rounds. usage: noise
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <sodium.h>

#include "core/noise.h"
#include "core/seal.h"

#define ROUNDS 15

enum { A, B };

static bdk_keypair statics[2], ephemerals[2];
static uint8_t psk[32];

static void make_keys(void) {
  uint8_t secret[32];
  for (int i = A; i <= B; i++) {
    randombytes_buf(secret, sizeof secret);
    bdk_keypair_init(&statics[i], secret);
    randombytes_buf(secret, sizeof secret);
    bdk_keypair_init(&ephemerals[i], secret);
  }
  randombytes_buf(psk, sizeof psk);
}

static void begin(bdk_noise *s, bdk_noise_pattern pattern, int i) {
  bdk_noise_config config = {.pattern = pattern,
                             .initiator = i == A,
                             .prologue = (const uint8_t *)"bench",
                             .prologue_len = 5,
                             .own = &statics[i],
                             .own_ephemeral = &ephemerals[i],
                             .peer = pattern == BDK_NOISE_IK && i == B ? NULL : statics[!i].public,
                             .peer_ephemeral = pattern == BDK_NOISE_KKEEPSK0 ? ephemerals[!i].public : NULL,
                             .psk = pattern == BDK_NOISE_IK ? NULL : psk};
  bdk_noise_init(s, &config);
}

static void must(bool held) {
  if (!held) abort();
}

static uint8_t ik_first[BDK_IK_FIRST], keys[2][32];

// An ephemeral is of one handshake, so making its public key is part of it.
static void fresh(int i) { bdk_keypair_init(&ephemerals[i], ephemerals[i].secret); }

static void ik_responder(void) {
  bdk_noise s;
  uint8_t out[BDK_NOISE_MAX];
  fresh(B);
  begin(&s, BDK_NOISE_IK, B);
  must(bdk_noise_read(&s, ik_first, sizeof ik_first, out, sizeof out) == 0);
  must(bdk_noise_write(&s, NULL, 0, out, sizeof out) == BDK_IK_SECOND);
  must(bdk_noise_split(&s, keys[0], keys[1]) == 0);
}

static void ik_refusal(void) {
  bdk_noise s;
  uint8_t out[BDK_NOISE_MAX], bad[BDK_IK_FIRST];
  memcpy(bad, ik_first, sizeof bad);
  bad[40] ^= 1;
  begin(&s, BDK_NOISE_IK, B);
  must(bdk_noise_read(&s, bad, sizeof bad, out, sizeof out) == BDK_E_BAD_KEY);
}

static void kkee_side(void) {
  bdk_noise s;
  uint8_t tag[BDK_TAG_LEN];
  begin(&s, BDK_NOISE_KKEEPSK0, B);
  must(bdk_noise_write(&s, NULL, 0, tag, sizeof tag) == BDK_TAG_LEN);
  must(bdk_noise_split(&s, keys[0], keys[1]) == 0);
}

static void pair_of(bdk_noise_pattern pattern) {
  bdk_noise s[2];
  uint8_t message[BDK_NOISE_MAX], payload[16];
  for (int i = A; i <= B; i++) {
    fresh(i);
    begin(&s[i], pattern, i);
  }
  for (int i = A; i <= B; i++) {
    int n = bdk_noise_write(&s[i], NULL, 0, message, sizeof message);
    must(n > 0 && bdk_noise_read(&s[!i], message, (size_t)n, payload, sizeof payload) == 0);
  }
  for (int i = A; i <= B; i++) must(bdk_noise_split(&s[i], keys[0], keys[1]) == 0);
}

static void ik_pair(void) { pair_of(BDK_NOISE_IK); }
static void kk_pair(void) { pair_of(BDK_NOISE_KKPSK0); }

static void dh(void) { must(crypto_scalarmult(keys[0], statics[A].secret, statics[B].public) == 0); }

static uint8_t plain[1120], frame[1200];
static uint64_t counter;

// Every frame has its counter; one that is opened again and again is always the same.
static size_t seal(size_t len) {
  return bdk_frame_write(psk, 1, BDK_FRAME_DATA, counter++, plain, len, frame, sizeof frame);
}
static void seal_100(void) { must(seal(100) == 100 + BDK_FRAME_OVERHEAD); }
static void seal_1120(void) { must(seal(1120) == 1120 + BDK_FRAME_OVERHEAD); }
static void open_100(void) { must(bdk_frame_open(psk, frame, 100 + BDK_FRAME_OVERHEAD, plain)); }
static void open_1120(void) { must(bdk_frame_open(psk, frame, 1120 + BDK_FRAME_OVERHEAD, plain)); }

static double now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static int by_size(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

// In the order they run: what is opened is what was sealed before.
static const struct {
  const char *name;
  void (*run)(void);
  int times; // a round
} cases[] = {
    {"one X25519", dh, 200},
    {"IK, responder: read, write, split", ik_responder, 100},
    {"IK, responder: a first message refused at the client's key", ik_refusal, 200},
    {"IK, both sides", ik_pair, 100},
    {"KKeepsk0, one side", kkee_side, 100},
    {"KKpsk0, both sides", kk_pair, 100},
    {"seal 100 bytes", seal_100, 20000},
    {"open 100 bytes", open_100, 20000},
    {"seal 1,120 bytes", seal_1120, 5000},
    {"open 1,120 bytes", open_1120, 5000},
};

int main(void) {
  if (sodium_init() < 0) return 1;
  make_keys();
  bdk_noise s;
  begin(&s, BDK_NOISE_IK, A);
  must(bdk_noise_write(&s, NULL, 0, ik_first, sizeof ik_first) == BDK_IK_FIRST);
  printf("| what | ns | a second |\n|---|---|---|\n");
  for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
    double each[ROUNDS];
    for (int r = 0; r < ROUNDS; r++) {
      double start = now_ns();
      for (int i = 0; i < cases[c].times; i++) cases[c].run();
      each[r] = (now_ns() - start) / cases[c].times;
    }
    qsort(each, ROUNDS, sizeof *each, by_size);
    printf("| %s | %.0f | %.0f |\n", cases[c].name, each[ROUNDS / 2], 1e9 / each[ROUNDS / 2]);
  }
  return 0;
}
