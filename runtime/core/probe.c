// SPDX-License-Identifier: MIT
#include "probe.h"

#include <sodium.h>
#include <string.h>

#define MAC_LEN 16u
#define TAG_LEN 16u
#define WINDOW_WORDS (sizeof((bdk_window *)0)->bits / sizeof(uint64_t))

_Static_assert(BDK_FRAME_OVERHEAD == BDK_FRAME_HEAD + TAG_LEN, "frame layout");

static void derive(uint8_t out[BDK_KEY_LEN], const char *label, uint8_t direction, const uint8_t *match,
                   const uint8_t *key, const uint8_t *low, const uint8_t *high) {
  crypto_generichash_state state;
  crypto_generichash_init(&state, key, BDK_KEY_LEN, BDK_KEY_LEN);
  crypto_generichash_update(&state, (const uint8_t *)label, strlen(label));
  crypto_generichash_update(&state, &direction, 1);
  crypto_generichash_update(&state, match, BDK_MATCH_LEN);
  crypto_generichash_update(&state, low, BDK_ID_LEN);
  crypto_generichash_update(&state, high, BDK_ID_LEN);
  crypto_generichash_final(&state, out, BDK_KEY_LEN);
  sodium_memzero(&state, sizeof state);
}

void bdk_keys_init(bdk_keys *k, const uint8_t match[BDK_MATCH_LEN], const uint8_t key[BDK_KEY_LEN],
                   const uint8_t self[BDK_ID_LEN], const uint8_t peer[BDK_ID_LEN]) {
  k->role = memcmp(self, peer, BDK_ID_LEN) < 0 ? 0 : 1;
  memcpy(k->match, match, BDK_MATCH_LEN);
  const uint8_t *low = k->role == 0 ? self : peer, *high = k->role == 0 ? peer : self;
  for (uint8_t direction = 0; direction < 2; direction++) {
    derive(k->probe[direction], "bodkin probe 1", direction, match, key, low, high);
    derive(k->frame[direction], "bodkin frame 1", direction, match, key, low, high);
  }
}

void bdk_keys_clear(bdk_keys *k) { sodium_memzero(k, sizeof *k); }

// The origin travels masked, like any address (see bdk_addr_mask); nonce and match id stand for the tx.
static void mask_origin(uint8_t *packed, size_t len, const uint8_t *nonce, const uint8_t *match) {
  uint8_t tx[BDK_TX_LEN];
  memcpy(tx, nonce, BDK_NONCE_LEN);
  memcpy(tx + BDK_NONCE_LEN, match, BDK_TX_LEN - BDK_NONCE_LEN);
  bdk_addr_mask(packed, len, tx);
}

static void mac(uint8_t out[MAC_LEN], const uint8_t key[BDK_KEY_LEN], const uint8_t *bytes, size_t len) {
  crypto_generichash(out, MAC_LEN, bytes, len, key, BDK_KEY_LEN);
}

// Field places in the two schemas of message.c.
enum { F_MATCH, F_ROLE, F_EPOCH, F_INDEX, F_NONCE, F_LAST };

size_t bdk_probe_write(const bdk_keys *k, const bdk_probe *p, uint8_t *out, size_t cap) {
  static const uint8_t none[MAC_LEN];
  uint8_t origin[BDK_ADDR_WIRE_MAX];
  bdk_field f[BDK_FIELDS_MAX] = {0};
  f[F_MATCH] = (bdk_field){.data = k->match, .len = BDK_MATCH_LEN};
  f[F_ROLE] = (bdk_field){.u = k->role};
  f[F_EPOCH] = (bdk_field){.u = p->epoch};
  f[F_INDEX] = (bdk_field){.u = p->rx_index};
  f[F_NONCE] = (bdk_field){.data = p->nonce, .len = BDK_NONCE_LEN};
  int last = F_LAST;
  if (p->confirm) {
    size_t n = bdk_addr_pack(&p->origin, origin);
    mask_origin(origin, n, p->nonce, k->match);
    f[last++] = (bdk_field){.data = origin, .len = (uint32_t)n};
  }
  f[last] = (bdk_field){.data = none, .len = MAC_LEN};
  const bdk_schema *schema = p->confirm ? &bdk_message_confirm : &bdk_message_test;
  size_t len = bdk_message_write(schema, f, out, cap, NULL);
  if (len) mac(out + len - MAC_LEN, k->probe[k->role], out, len - MAC_LEN);
  return len;
}

int bdk_probe_read(bdk_probe *out, const uint8_t *bytes, size_t len) {
  bdk_message_head head;
  int error = bdk_message_head_read(&head, bytes, len);
  if (error) return error;
  out->confirm = head.type == bdk_message_confirm.type;
  if (!out->confirm && head.type != bdk_message_test.type) return -BDK_COUNT_drop_unknown;
  if (head.version != BDK_PROTOCOL_VERSION) return -BDK_COUNT_drop_version;
  bdk_field f[BDK_FIELDS_MAX];
  error = bdk_message_read(out->confirm ? &bdk_message_confirm : &bdk_message_test, bytes, len, f, NULL);
  if (error) return error;
  out->match = f[F_MATCH].data;
  out->role = (uint8_t)f[F_ROLE].u;
  out->epoch = (uint32_t)f[F_EPOCH].u;
  out->rx_index = (uint32_t)f[F_INDEX].u;
  memcpy(out->nonce, f[F_NONCE].data, BDK_NONCE_LEN);
  if (out->confirm) {
    uint8_t origin[BDK_ADDR_WIRE_MAX];
    memcpy(origin, f[F_LAST].data, f[F_LAST].len);
    mask_origin(origin, f[F_LAST].len, out->nonce, out->match);
    if (bdk_addr_unpack(&out->origin, origin, f[F_LAST].len)) return -BDK_COUNT_drop_field;
  }
  return 0;
}

bool bdk_probe_authentic(const bdk_keys *k, const bdk_probe *p, const uint8_t *bytes, size_t len) {
  // Our own probe, reflected, carries our role and fails here; the key of the other direction fails it again.
  if (p->role == k->role || memcmp(p->match, k->match, BDK_MATCH_LEN) != 0) return false;
  uint8_t expected[MAC_LEN];
  mac(expected, k->probe[p->role], bytes, len - MAC_LEN);
  return sodium_memcmp(expected, bytes + len - MAC_LEN, MAC_LEN) == 0;
}

static void put_big(uint8_t *out, uint64_t v, size_t bytes) {
  for (size_t i = 0; i < bytes; i++) out[i] = (uint8_t)(v >> (8 * (bytes - 1 - i)));
}

static uint64_t get_big(const uint8_t *in, size_t bytes) {
  uint64_t v = 0;
  for (size_t i = 0; i < bytes; i++) v = v << 8 | in[i];
  return v;
}

// Kind and counter, as they stand in the head, are the nonce: a counter is never used twice in a direction.
static void frame_nonce(uint8_t nonce[12], const uint8_t *head) {
  memset(nonce, 0, 4);
  memcpy(nonce + 4, head + 5, 8);
}

size_t bdk_frame_write(const bdk_keys *k, uint32_t index, bdk_frame_kind kind, uint64_t counter, const uint8_t *data,
                       size_t len, uint8_t *out, size_t cap) {
  if (cap < BDK_FRAME_OVERHEAD || len > cap - BDK_FRAME_OVERHEAD || counter >> 56) return 0;
  out[0] = 0xC1;
  put_big(out + 1, index, 4);
  out[5] = (uint8_t)kind;
  put_big(out + 6, counter, 7);
  uint8_t nonce[12];
  frame_nonce(nonce, out);
  crypto_aead_chacha20poly1305_ietf_encrypt(out + BDK_FRAME_HEAD, NULL, data, len, out, BDK_FRAME_HEAD, NULL, nonce,
                                            k->frame[k->role]);
  return len + BDK_FRAME_OVERHEAD;
}

bool bdk_frame_head(const uint8_t *bytes, size_t len, uint32_t *index, uint8_t *kind, uint64_t *counter) {
  if (len < BDK_FRAME_OVERHEAD || bytes[0] != 0xC1) return false;
  *index = (uint32_t)get_big(bytes + 1, 4);
  *kind = bytes[5];
  *counter = get_big(bytes + 6, 7);
  return true;
}

bool bdk_frame_open(const bdk_keys *k, const uint8_t *bytes, size_t len, uint8_t *out) {
  uint8_t nonce[12];
  frame_nonce(nonce, bytes);
  return crypto_aead_chacha20poly1305_ietf_decrypt(out, NULL, NULL, bytes + BDK_FRAME_HEAD, len - BDK_FRAME_HEAD, bytes,
                                                   BDK_FRAME_HEAD, nonce, k->frame[!k->role]) == 0;
}

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
