// SPDX-License-Identifier: MIT
#include "seal.h"

#include <sodium.h>
#include <string.h>

#define WINDOW_WORDS (BDK_WINDOW / 64 + 1)

// --- window
bool bdk_window_fresh(const bdk_window *w, uint64_t counter) {
  if (counter >= w->top) return true;
  if (w->top - counter > BDK_WINDOW) return false;
  return !(w->bits[counter / 64 % WINDOW_WORDS] >> (counter % 64) & 1);
}

void bdk_window_mark(bdk_window *w, uint64_t counter) {
  if (counter >= w->top) {
    // Clear the words between, at most the whole ring: they hold counters of a window ago.
    uint64_t from = w->top / 64 + (w->top % 64 != 0), to = counter / 64;
    if (to + 1 - from > WINDOW_WORDS) from = to + 1 - WINDOW_WORDS;
    for (uint64_t word = from; word <= to; word++) w->bits[word % WINDOW_WORDS] = 0;
    w->top = counter + 1;
  }
  w->bits[counter / 64 % WINDOW_WORDS] |= (uint64_t)1 << (counter % 64);
}

// --- frames
static void put_big(uint8_t *out, uint64_t v, size_t bytes) {
  for (size_t i = 0; i < bytes; i++) out[i] = (uint8_t)(v >> (8 * (bytes - 1 - i)));
}

static uint64_t get_big(const uint8_t *in, size_t bytes) {
  uint64_t v = 0;
  for (size_t i = 0; i < bytes; i++) v = v << 8 | in[i];
  return v;
}

// Kind and counter, as they stand in the head, are the nonce: a counter is never used twice under a key.
static void frame_nonce(uint8_t nonce[12], const uint8_t *head) {
  memset(nonce, 0, 4);
  memcpy(nonce + 4, head + 5, 8);
}

size_t bdk_frame_write(const uint8_t key[BDK_KEY_LEN], uint32_t index, uint8_t kind, uint64_t counter,
                       const uint8_t *data, size_t len, uint8_t *out, size_t cap) {
  if (cap < BDK_FRAME_OVERHEAD || len > cap - BDK_FRAME_OVERHEAD || counter >> 56) return 0;
  out[0] = 0xC1;
  put_big(out + 1, index, 4);
  out[5] = kind;
  put_big(out + 6, counter, 7);
  uint8_t nonce[12];
  frame_nonce(nonce, out);
  crypto_aead_chacha20poly1305_ietf_encrypt(out + BDK_FRAME_HEAD, NULL, data, len, out, BDK_FRAME_HEAD, NULL, nonce,
                                            key);
  return len + BDK_FRAME_OVERHEAD;
}

bool bdk_frame_head(const uint8_t *bytes, size_t len, uint32_t *index, uint8_t *kind, uint64_t *counter) {
  if (len < BDK_FRAME_OVERHEAD || bytes[0] != 0xC1) return false;
  *index = (uint32_t)get_big(bytes + 1, 4);
  *kind = bytes[5];
  *counter = get_big(bytes + 6, 7);
  return true;
}

bool bdk_frame_open(const uint8_t key[BDK_KEY_LEN], const uint8_t *bytes, size_t len, uint8_t *out) {
  uint8_t nonce[12];
  frame_nonce(nonce, bytes);
  return crypto_aead_chacha20poly1305_ietf_decrypt(out, NULL, NULL, bytes + BDK_FRAME_HEAD, len - BDK_FRAME_HEAD, bytes,
                                                   BDK_FRAME_HEAD, nonce, key) == 0;
}

// --- seal
void bdk_seal_init(bdk_seal *s, const uint8_t tx[BDK_KEY_LEN], const uint8_t rx[BDK_KEY_LEN], uint64_t counter) {
  memset(s, 0, sizeof *s);
  memcpy(s->tx, tx, BDK_KEY_LEN);
  memcpy(s->rx[0], rx, BDK_KEY_LEN);
  s->rx_on[0] = true;
  s->tx_counter = counter;
}

void bdk_seal_clear(bdk_seal *s) { sodium_memzero(s, sizeof *s); }

size_t bdk_seal_write(bdk_seal *s, uint32_t index, bdk_frame_kind kind, const uint8_t *data, size_t len, uint8_t *out,
                      size_t cap) {
  uint8_t phased = (uint8_t)(kind | (s->phase ? BDK_FRAME_PHASE : 0));
  size_t n = bdk_frame_write(s->tx, index, phased, s->tx_counter, data, len, out, cap);
  if (n) s->tx_counter++;
  return n;
}

static void use_next(bdk_seal *s) {
  memcpy(s->tx, s->next_tx, BDK_KEY_LEN);
  sodium_memzero(s->next_tx, BDK_KEY_LEN);
  s->phase ^= 1;
  s->switching = false;
}

bdk_seal_verdict bdk_seal_open(bdk_seal *s, uint64_t now_us, const uint8_t *bytes, size_t len, uint8_t *out) {
  uint32_t index;
  uint8_t kind;
  uint64_t counter;
  if (!bdk_frame_head(bytes, len, &index, &kind, &counter)) return BDK_SEAL_FORGED;
  uint8_t phase = kind >> 7;
  if (!s->rx_on[phase]) return BDK_SEAL_FORGED;
  if (!bdk_window_fresh(&s->window, counter)) return BDK_SEAL_REPLAYED;
  if (!bdk_frame_open(s->rx[phase], bytes, len, out)) return BDK_SEAL_FORGED;
  bdk_window_mark(&s->window, counter);
  if (s->switching && phase != s->phase) use_next(s);
  if (phase == s->phase && s->rx_on[!phase] && !s->switching && !s->old_until_us)
    s->old_until_us = now_us + BDK_SEAL_OLD_US;
  return BDK_SEAL_OPENED;
}

void bdk_seal_next(bdk_seal *s, const uint8_t tx[BDK_KEY_LEN], const uint8_t rx[BDK_KEY_LEN], bool at_once) {
  memcpy(s->next_tx, tx, BDK_KEY_LEN);
  memcpy(s->rx[!s->phase], rx, BDK_KEY_LEN);
  s->rx_on[!s->phase] = true;
  s->switching = true;
  s->old_until_us = 0;
  if (at_once) use_next(s);
}

void bdk_seal_retire(bdk_seal *s, uint64_t now_us) {
  if (!s->old_until_us || now_us < s->old_until_us) return;
  s->old_until_us = 0;
  s->rx_on[!s->phase] = false;
  sodium_memzero(s->rx[!s->phase], BDK_KEY_LEN);
}

// --- rekeying
static void split(bdk_rekey *r, bdk_noise *noise, bool initiator, uint8_t tx[BDK_KEY_LEN], uint8_t rx[BDK_KEY_LEN]) {
  bdk_noise_split(noise, initiator ? tx : rx, initiator ? rx : tx);
  memcpy(r->bond, noise->h, sizeof r->bond);
}

int bdk_rekey_first(bdk_rekey *r, bdk_seal *s, const bdk_noise_config *peers, uint64_t counter) {
  uint8_t unsent[BDK_TAG_LEN], tx[BDK_KEY_LEN], rx[BDK_KEY_LEN];
  bdk_noise noise;
  memset(r, 0, sizeof *r);
  r->own = *peers->own;
  memcpy(r->peer, peers->peer, sizeof r->peer);
  memcpy(r->psk, peers->psk, sizeof r->psk);
  bdk_noise_init(&noise, peers);
  int n = bdk_noise_write(&noise, NULL, 0, unsent, sizeof unsent);
  if (n < 0) {
    bdk_rekey_clear(r);
    return n;
  }
  split(r, &noise, peers->initiator, tx, rx);
  bdk_seal_init(s, tx, rx, counter);
  sodium_memzero(tx, sizeof tx);
  sodium_memzero(rx, sizeof rx);
  return BDK_OK;
}

void bdk_rekey_clear(bdk_rekey *r) { sodium_memzero(r, sizeof *r); }

static void begin(bdk_rekey *r, bdk_noise *noise, bool initiator, const uint8_t ephemeral[BDK_DH_LEN]) {
  bdk_keypair fresh;
  bdk_keypair_init(&fresh, ephemeral);
  bdk_noise_init(noise, &(bdk_noise_config){.pattern = BDK_NOISE_KKPSK0,
                                            .initiator = initiator,
                                            .prologue = r->bond,
                                            .prologue_len = sizeof r->bond,
                                            .own = &r->own,
                                            .own_ephemeral = &fresh,
                                            .peer = r->peer,
                                            .psk = r->psk});
  sodium_memzero(&fresh, sizeof fresh);
}

bool bdk_rekey_ask(bdk_rekey *r, const uint8_t ephemeral[BDK_DH_LEN]) {
  begin(r, &r->noise, true, ephemeral);
  r->asking = bdk_noise_write(&r->noise, NULL, 0, r->question, sizeof r->question) == BDK_KK_MESSAGE;
  return r->asking;
}

bool bdk_rekey_asked(bdk_rekey *r, bdk_seal *s, const uint8_t question[BDK_KK_MESSAGE],
                     const uint8_t ephemeral[BDK_DH_LEN]) {
  if (memcmp(r->question, question, BDK_KK_MESSAGE) == 0) return true;
  bdk_noise noise;
  uint8_t none[1], tx[BDK_KEY_LEN], rx[BDK_KEY_LEN];
  begin(r, &noise, false, ephemeral);
  if (bdk_noise_read(&noise, question, BDK_KK_MESSAGE, none, 0) < 0) return false;
  if (bdk_noise_write(&noise, NULL, 0, r->answer, sizeof r->answer) < 0) return false;
  memcpy(r->question, question, BDK_KK_MESSAGE);
  split(r, &noise, false, tx, rx);
  bdk_seal_next(s, tx, rx, false);
  sodium_memzero(tx, sizeof tx);
  sodium_memzero(rx, sizeof rx);
  return true;
}

bool bdk_rekey_answered(bdk_rekey *r, bdk_seal *s, const uint8_t answer[BDK_KK_MESSAGE]) {
  uint8_t none[1], tx[BDK_KEY_LEN], rx[BDK_KEY_LEN];
  if (!r->asking) return false;
  bdk_noise noise = r->noise; // a late answer to the question before must not end this one: the peer has taken it
  if (bdk_noise_read(&noise, answer, BDK_KK_MESSAGE, none, 0) < 0) return false;
  r->asking = false;
  bdk_noise_clear(&r->noise);
  split(r, &noise, true, tx, rx);
  bdk_seal_next(s, tx, rx, true);
  sodium_memzero(tx, sizeof tx);
  sodium_memzero(rx, sizeof rx);
  return true;
}
