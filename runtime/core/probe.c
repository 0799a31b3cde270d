// SPDX-License-Identifier: MIT
#include "probe.h"

#include <sodium.h>
#include <string.h>

#define MAC_LEN 16u

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
  for (uint8_t direction = 0; direction < 2; direction++)
    derive(k->probe[direction], "bodkin probe 1", direction, match, key, low, high);
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
