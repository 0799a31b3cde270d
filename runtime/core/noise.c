// SPDX-License-Identifier: MIT
#include "noise.h"

#include <sodium.h>
#include <string.h>

enum { END, E, S, EE, ES, SE, SS, PSK };

// Both sides' pre-messages, then the messages in turn, the initiator's first.
typedef struct pattern {
  const char *name;
  uint8_t ours[3], theirs[3]; // pre-messages of initiator and responder
  uint8_t messages[2][6];
  bool psk, silent; // silent: both sides write the one message, and nobody sends it
} pattern;

static const pattern patterns[BDK_NOISE_PATTERNS] = {
    [BDK_NOISE_IK] = {"Noise_IK_25519_ChaChaPoly_SHA512", {END}, {S}, {{E, ES, S, SS}, {E, EE, SE}}, false, false},
    [BDK_NOISE_KKPSK0] =
        {"Noise_KKpsk0_25519_ChaChaPoly_SHA512", {S}, {S}, {{PSK, E, ES, SS}, {E, EE, SE}}, true, false},
    [BDK_NOISE_KKEEPSK0] =
        {"Noise_KKeepsk0_25519_ChaChaPoly_SHA512", {E, S}, {E, S}, {{PSK, EE, ES, SE, SS}}, true, true},
};

void bdk_keypair_init(bdk_keypair *k, const uint8_t secret[BDK_DH_LEN]) {
  memmove(k->secret, secret, BDK_DH_LEN);
  crypto_scalarmult_base(k->public, k->secret);
}

void bdk_key_id(uint8_t out[BDK_ID_LEN], const uint8_t public[BDK_DH_LEN]) {
  crypto_generichash(out, BDK_ID_LEN, public, BDK_DH_LEN, NULL, 0);
}

// --- symmetric state (Noise section 5.2)
static void mix_hash(bdk_noise *s, const uint8_t *bytes, size_t len) {
  crypto_hash_sha512_state state;
  crypto_hash_sha512_init(&state);
  crypto_hash_sha512_update(&state, s->h, sizeof s->h);
  if (len) crypto_hash_sha512_update(&state, bytes, len);
  crypto_hash_sha512_final(&state, s->h);
}

static void hmac(uint8_t out[64], const uint8_t key[64], const uint8_t *a, size_t a_len, uint8_t last) {
  crypto_auth_hmacsha512_state state;
  crypto_auth_hmacsha512_init(&state, key, 64);
  if (a_len) crypto_auth_hmacsha512_update(&state, a, a_len);
  if (last) crypto_auth_hmacsha512_update(&state, &last, 1);
  crypto_auth_hmacsha512_final(&state, out);
  sodium_memzero(&state, sizeof state);
}

// HKDF (section 4.3): `count` outputs of 64 bytes from the chaining key and `input`.
static void hkdf(const uint8_t ck[64], const uint8_t *input, size_t len, int count, uint8_t out[3][64]) {
  uint8_t temp[64], block[65];
  hmac(temp, ck, input, len, 0);
  for (int i = 0; i < count; i++) {
    hmac(out[i], temp, block, i ? 64 : 0, (uint8_t)(i + 1));
    memcpy(block, out[i], 64);
  }
  sodium_memzero(temp, sizeof temp);
  sodium_memzero(block, sizeof block);
}

static void set_key(bdk_noise *s, const uint8_t key[64]) {
  memcpy(s->k, key, sizeof s->k); // SHA512's outputs are cut to the cipher's key
  s->n = 0;
  s->has_key = true;
}

static void mix_key(bdk_noise *s, const uint8_t *input) {
  uint8_t out[3][64];
  hkdf(s->ck, input, 32, 2, out);
  memcpy(s->ck, out[0], sizeof s->ck);
  set_key(s, out[1]);
  sodium_memzero(out, sizeof out);
}

static void mix_key_and_hash(bdk_noise *s, const uint8_t *input) {
  uint8_t out[3][64];
  hkdf(s->ck, input, 32, 3, out);
  memcpy(s->ck, out[0], sizeof s->ck);
  mix_hash(s, out[1], 64);
  set_key(s, out[2]);
  sodium_memzero(out, sizeof out);
}

// ChaChaPoly's nonce (section 12.3): 32 zero bits, then n, little-endian.
static void nonce_of(uint8_t nonce[12], uint64_t n) {
  memset(nonce, 0, 4);
  for (unsigned i = 0; i < 8; i++) nonce[4 + i] = (uint8_t)(n >> (8 * i));
}

// Appends; what is not yet keyed travels as it is.
static size_t encrypt(bdk_noise *s, const uint8_t *plain, size_t len, uint8_t *out) {
  size_t n = len;
  if (s->has_key) {
    uint8_t nonce[12];
    nonce_of(nonce, s->n++);
    crypto_aead_chacha20poly1305_ietf_encrypt(out, NULL, plain, len, s->h, sizeof s->h, NULL, nonce, s->k);
    n += BDK_TAG_LEN;
  } else if (len) {
    memcpy(out, plain, len);
  }
  mix_hash(s, out, n);
  return n;
}

// `len` bytes in, tag included.
static bool decrypt(bdk_noise *s, const uint8_t *bytes, size_t len, uint8_t *plain) {
  if (s->has_key) {
    uint8_t nonce[12];
    nonce_of(nonce, s->n++);
    if (crypto_aead_chacha20poly1305_ietf_decrypt(plain, NULL, NULL, bytes, len, s->h, sizeof s->h, nonce, s->k))
      return false;
  } else if (len) {
    memcpy(plain, bytes, len);
  }
  mix_hash(s, bytes, len);
  return true;
}

// --- handshake state (section 5.3)
// A pre-message or message's public key; in a pattern with a psk an ephemeral is mixed into the key, too (9.2).
static void mix_public(bdk_noise *s, int token, const uint8_t *public) {
  mix_hash(s, public, BDK_DH_LEN);
  if (token == E && patterns[s->pattern].psk) mix_key(s, public);
}

static void premessage(bdk_noise *s, const uint8_t *tokens, bool ours) {
  for (; *tokens != END; tokens++) {
    if (*tokens == E)
      mix_public(s, E, ours ? s->own_ephemeral.public : s->peer_ephemeral);
    else
      mix_public(s, S, ours ? s->own.public : s->peer);
  }
}

void bdk_noise_init(bdk_noise *s, const bdk_noise_config *config) {
  const pattern *p = &patterns[config->pattern];
  memset(s, 0, sizeof *s);
  s->pattern = (uint8_t)config->pattern;
  s->initiator = config->initiator;
  s->own = *config->own;
  if (config->own_ephemeral) s->own_ephemeral = *config->own_ephemeral;
  if (config->peer) memcpy(s->peer, config->peer, sizeof s->peer);
  if (config->peer_ephemeral) memcpy(s->peer_ephemeral, config->peer_ephemeral, sizeof s->peer_ephemeral);
  if (config->psk) memcpy(s->psk, config->psk, sizeof s->psk);
  size_t len = strlen(p->name); // none is longer than a hash, so none is hashed
  memcpy(s->h, p->name, len);
  memcpy(s->ck, s->h, sizeof s->ck);
  mix_hash(s, config->prologue, config->prologue_len);
  premessage(s, p->ours, s->initiator);
  premessage(s, p->theirs, !s->initiator);
}

void bdk_noise_clear(bdk_noise *s) {
  sodium_memzero(s, sizeof *s);
  s->failed = true;
}

bool bdk_noise_done(const bdk_noise *s) {
  return !s->failed && (s->step == 2 || patterns[s->pattern].messages[s->step][0] == END);
}

bool bdk_noise_writes(const bdk_noise *s) {
  return !s->failed && !bdk_noise_done(s) && (patterns[s->pattern].silent || (s->step == 0) == s->initiator);
}

// One Diffie-Hellman of a token; false when the other side's key is of low order, so that the result is known.
static bool mix_dh(bdk_noise *s, int token) {
  bool own_e = token == EE || (token == ES) == s->initiator, peer_e = token == EE || (token == SE) == s->initiator;
  if (token == SS) own_e = peer_e = false;
  const uint8_t *secret = own_e ? s->own_ephemeral.secret : s->own.secret;
  const uint8_t *public = peer_e ? s->peer_ephemeral : s->peer;
  uint8_t shared[crypto_scalarmult_BYTES];
  if (crypto_scalarmult(shared, secret, public)) return false;
  mix_key(s, shared);
  sodium_memzero(shared, sizeof shared);
  return true;
}

// PSK and the four of Diffie-Hellman, which are alike for writer and reader.
static bool mix_secret(bdk_noise *s, int token) {
  if (token != PSK) return mix_dh(s, token);
  mix_key_and_hash(s, s->psk);
  return true;
}

static int fail(bdk_noise *s, int error) {
  bdk_noise_clear(s);
  return error;
}

// Bytes of the next message beside its payload: public keys and tags.
static size_t overhead(const bdk_noise *s) {
  size_t n = 0;
  bool keyed = s->has_key;
  for (const uint8_t *t = patterns[s->pattern].messages[s->step]; *t != END; t++) {
    if (*t == E || *t == S) n += BDK_DH_LEN + (*t == S && keyed ? BDK_TAG_LEN : 0);
    keyed = keyed || *t >= EE || patterns[s->pattern].psk;
  }
  return n + (keyed ? BDK_TAG_LEN : 0);
}

int bdk_noise_write(bdk_noise *s, const uint8_t *payload, size_t len, uint8_t *out, size_t cap) {
  if (!bdk_noise_writes(s) || len > BDK_NOISE_MAX || overhead(s) + len > (cap < BDK_NOISE_MAX ? cap : BDK_NOISE_MAX))
    return fail(s, BDK_E_INVALID);
  uint8_t *p = out;
  for (const uint8_t *t = patterns[s->pattern].messages[s->step]; *t != END; t++) {
    if (*t == E) {
      memcpy(p, s->own_ephemeral.public, BDK_DH_LEN);
      p += BDK_DH_LEN;
      mix_public(s, E, s->own_ephemeral.public);
    } else if (*t == S) {
      p += encrypt(s, s->own.public, BDK_DH_LEN, p);
    } else if (!mix_secret(s, *t)) {
      return fail(s, BDK_E_BAD_KEY);
    }
  }
  p += encrypt(s, payload, len, p);
  s->step++;
  return (int)(p - out);
}

int bdk_noise_read(bdk_noise *s, const uint8_t *bytes, size_t len, uint8_t *payload, size_t cap) {
  if (s->failed || bdk_noise_done(s) || bdk_noise_writes(s)) return fail(s, BDK_E_INVALID);
  size_t over = overhead(s);
  if (len < over || len > BDK_NOISE_MAX || len - over > cap) return fail(s, BDK_E_INVALID);
  const uint8_t *p = bytes, *end = bytes + len;
  for (const uint8_t *t = patterns[s->pattern].messages[s->step]; *t != END; t++) {
    if (*t == E) {
      memcpy(s->peer_ephemeral, p, BDK_DH_LEN);
      p += BDK_DH_LEN;
      mix_public(s, E, s->peer_ephemeral);
    } else if (*t == S) {
      size_t n = BDK_DH_LEN + (s->has_key ? BDK_TAG_LEN : 0);
      if (!decrypt(s, p, n, s->peer)) return fail(s, BDK_E_BAD_KEY);
      p += n;
    } else if (!mix_secret(s, *t)) {
      return fail(s, BDK_E_BAD_KEY);
    }
  }
  if (!decrypt(s, p, (size_t)(end - p), payload)) return fail(s, BDK_E_BAD_KEY);
  s->step++;
  return (int)(len - over);
}

int bdk_noise_split(bdk_noise *s, uint8_t initiator[32], uint8_t responder[32]) {
  uint8_t out[3][64], h[BDK_NOISE_HASH_LEN];
  if (!bdk_noise_done(s)) return fail(s, BDK_E_INVALID); // a cleared state would give keys that anyone knows
  // Where no tag travels nothing else would tell that the sides differ in what h alone holds: prologue, statics' bytes.
  hkdf(s->ck, s->h, patterns[s->pattern].silent ? sizeof s->h : 0, 2, out);
  memcpy(initiator, out[0], 32);
  memcpy(responder, out[1], 32);
  sodium_memzero(out, sizeof out);
  memcpy(h, s->h, sizeof h);
  bdk_noise_clear(s);
  memcpy(s->h, h, sizeof h);
  return 0;
}
