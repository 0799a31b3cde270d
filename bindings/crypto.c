// SPDX-License-Identifier: MIT
// core.crypto: the few primitives that scripts need, all libsodium's.
#include "bind.h"

#include <sodium.h>
#include <string.h>

#include "io/os.h"

#define BASE64_MAX 65536 // bytes

// [-0, +2, e] keypair(secret32 | nil) -> public, secret (X25519; the secret is random when not given)
static int keypair(lua_State *L) {
  uint8_t public[crypto_scalarmult_BYTES], secret[crypto_scalarmult_SCALARBYTES];
  if (lua_isnoneornil(L, 1))
    bdk_os_random(secret, sizeof secret);
  else
    memcpy(secret, bdk_check_bytes(L, 1, sizeof secret), sizeof secret);
  crypto_scalarmult_base(public, secret);
  lua_pushlstring(L, (const char *)public, sizeof public);
  lua_pushlstring(L, (const char *)secret, sizeof secret);
  sodium_memzero(secret, sizeof secret);
  return 2;
}

// [-0, +2, e] sign_keypair(seed32 | nil) -> public, seed (Ed25519; the seed is random when not given)
static int sign_keypair(lua_State *L) {
  uint8_t public[crypto_sign_PUBLICKEYBYTES], secret[crypto_sign_SECRETKEYBYTES], seed[crypto_sign_SEEDBYTES];
  if (lua_isnoneornil(L, 1))
    bdk_os_random(seed, sizeof seed);
  else
    memcpy(seed, bdk_check_bytes(L, 1, sizeof seed), sizeof seed);
  crypto_sign_seed_keypair(public, secret, seed);
  sodium_memzero(secret, sizeof secret);
  lua_pushlstring(L, (const char *)public, sizeof public);
  lua_pushlstring(L, (const char *)seed, sizeof seed);
  sodium_memzero(seed, sizeof seed);
  return 2;
}

// [-0, +1, e] sign(seed32, msg) -> 64 bytes
static int sign(lua_State *L) {
  uint8_t public[crypto_sign_PUBLICKEYBYTES], secret[crypto_sign_SECRETKEYBYTES], out[crypto_sign_BYTES];
  size_t len;
  const uint8_t *seed = bdk_check_bytes(L, 1, crypto_sign_SEEDBYTES);
  const char *msg = luaL_checklstring(L, 2, &len);
  crypto_sign_seed_keypair(public, secret, seed);
  crypto_sign_detached(out, NULL, (const uint8_t *)msg, len, secret);
  sodium_memzero(secret, sizeof secret);
  lua_pushlstring(L, (const char *)out, sizeof out);
  return 1;
}

// [-0, +1, e] verify(public32, msg, sig64) -> bool
static int verify(lua_State *L) {
  size_t len;
  const uint8_t *public = bdk_check_bytes(L, 1, crypto_sign_PUBLICKEYBYTES);
  const char *msg = luaL_checklstring(L, 2, &len);
  const uint8_t *sig = bdk_check_bytes(L, 3, crypto_sign_BYTES);
  lua_pushboolean(L, crypto_sign_verify_detached(sig, (const uint8_t *)msg, len, public) == 0);
  return 1;
}

// [-0, +1, e] id(public32) -> 16 bytes: BLAKE2b-128 of it
static int id(lua_State *L) {
  uint8_t out[BDK_ID_LEN];
  crypto_generichash(out, sizeof out, bdk_check_bytes(L, 1, crypto_scalarmult_BYTES), crypto_scalarmult_BYTES, NULL, 0);
  lua_pushlstring(L, (const char *)out, sizeof out);
  return 1;
}

// [-0, +1, e] mac(key, msg [, len = 16]) -> keyed BLAKE2b
static int mac(lua_State *L) {
  size_t key_len, len;
  const char *key = luaL_checklstring(L, 1, &key_len);
  const char *msg = luaL_checklstring(L, 2, &len);
  lua_Integer n = luaL_optinteger(L, 3, 16);
  luaL_argcheck(L, key_len >= crypto_generichash_KEYBYTES_MIN && key_len <= crypto_generichash_KEYBYTES_MAX, 1,
                "16 to 64 bytes expected");
  luaL_argcheck(L, n >= crypto_generichash_BYTES_MIN && n <= crypto_generichash_BYTES_MAX, 3, "16 to 64 expected");
  uint8_t out[crypto_generichash_BYTES_MAX];
  crypto_generichash(out, (size_t)n, (const uint8_t *)msg, len, (const uint8_t *)key, key_len);
  lua_pushlstring(L, (const char *)out, (size_t)n);
  return 1;
}

// [-0, +1, e] hmac_sha256(key, msg) -> 32 bytes: HMAC with SHA-256 (RFC 2104), which backends have
static int hmac_sha256(lua_State *L) {
  size_t key_len, len;
  const char *key = luaL_checklstring(L, 1, &key_len);
  const char *msg = luaL_checklstring(L, 2, &len);
  crypto_auth_hmacsha256_state state;
  uint8_t out[crypto_auth_hmacsha256_BYTES];
  crypto_auth_hmacsha256_init(&state, (const uint8_t *)key, key_len);
  crypto_auth_hmacsha256_update(&state, (const uint8_t *)msg, len);
  crypto_auth_hmacsha256_final(&state, out);
  sodium_memzero(&state, sizeof state);
  lua_pushlstring(L, (const char *)out, sizeof out);
  return 1;
}

// [-0, +1, e] proof(secret, addr, epoch) -> 20 bytes: epoch (4, big-endian) ‖ BLAKE2b-128 over addr ‖ epoch, keyed.
// What each address report carries: hence in one call.
static int proof(lua_State *L) {
  size_t key_len, len;
  const char *key = luaL_checklstring(L, 1, &key_len);
  const char *addr = luaL_checklstring(L, 2, &len);
  lua_Integer epoch = luaL_checkinteger(L, 3);
  luaL_argcheck(L, key_len >= crypto_generichash_KEYBYTES_MIN && key_len <= crypto_generichash_KEYBYTES_MAX, 1,
                "16 to 64 bytes expected");
  luaL_argcheck(L, len <= BDK_ADDR_WIRE_MAX, 2, "an address expected");
  uint8_t msg[BDK_ADDR_WIRE_MAX + 4], out[20];
  memcpy(msg, addr, len);
  for (int i = 0; i < 4; i++) out[i] = msg[len + (size_t)i] = (uint8_t)(epoch >> (24 - 8 * i));
  crypto_generichash(out + 4, 16, msg, len + 4, (const uint8_t *)key, key_len);
  lua_pushlstring(L, (const char *)out, sizeof out);
  return 1;
}

// [-0, +1, e] equal(a, b) -> bool, in time that depends on the length alone
static int equal(lua_State *L) {
  size_t a_len, b_len;
  const char *a = luaL_checklstring(L, 1, &a_len), *b = luaL_checklstring(L, 2, &b_len);
  lua_pushboolean(L, a_len == b_len && sodium_memcmp(a, b, a_len) == 0);
  return 1;
}

// [-0, +1, e] random(n) -> n bytes
static int random_bytes(lua_State *L) {
  lua_Integer n = luaL_checkinteger(L, 1);
  luaL_argcheck(L, n >= 0 && n <= 65536, 1, "0 to 65536 expected");
  luaL_Buffer b;
  char *p = luaL_buffinitsize(L, &b, (size_t)n);
  bdk_os_random(p, (size_t)n);
  luaL_pushresultsize(&b, (size_t)n);
  return 1;
}

// [-0, +1, e] hex(s) -> lower-case text
static int hex(lua_State *L) {
  static const char digits[] = "0123456789abcdef";
  size_t len;
  const char *s = luaL_checklstring(L, 1, &len);
  luaL_Buffer b;
  char *p = luaL_buffinitsize(L, &b, 2 * len);
  for (size_t i = 0; i < len; i++) {
    p[2 * i] = digits[(uint8_t)s[i] >> 4];
    p[2 * i + 1] = digits[s[i] & 15];
  }
  luaL_pushresultsize(&b, 2 * len);
  return 1;
}

static int digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

// [-0, +1|3, e] unhex(text) -> bytes | nil, message, code
static int unhex(lua_State *L) {
  size_t len;
  const char *s = luaL_checklstring(L, 1, &len);
  if (len % 2) return bdk_lua_invalid(L, "hexadecimal text of odd length");
  luaL_Buffer b;
  char *p = luaL_buffinitsize(L, &b, len / 2);
  for (size_t i = 0; i < len; i += 2) {
    int high = digit(s[i]), low = digit(s[i + 1]);
    if (high < 0 || low < 0) return bdk_lua_invalid(L, "not hexadecimal at character %d", (int)i + 1);
    p[i / 2] = (char)(high << 4 | low);
  }
  luaL_pushresultsize(&b, len / 2);
  return 1;
}

// [-0, +1, e] base64url(bytes) -> text (RFC 4648, section 5, without padding)
static int base64url(lua_State *L) {
  size_t len;
  const char *bytes = luaL_checklstring(L, 1, &len);
  luaL_argcheck(L, len <= BASE64_MAX, 1, "too long");
  size_t size = sodium_base64_encoded_len(len, sodium_base64_VARIANT_URLSAFE_NO_PADDING);
  luaL_Buffer b;
  char *p = luaL_buffinitsize(L, &b, size);
  sodium_bin2base64(p, size, (const uint8_t *)bytes, len, sodium_base64_VARIANT_URLSAFE_NO_PADDING);
  luaL_pushresultsize(&b, size - 1);
  return 1;
}

// [-0, +1, e] unbase64url(text) -> bytes | nil where it is not what base64url would have written
static int unbase64url(lua_State *L) {
  size_t len, got;
  const char *text = luaL_checklstring(L, 1, &len);
  luaL_argcheck(L, len <= 2 * BASE64_MAX, 1, "too long");
  luaL_Buffer b;
  char *p = luaL_buffinitsize(L, &b, len / 4 * 3 + 3);
  int r = sodium_base642bin((uint8_t *)p, len / 4 * 3 + 3, text, len, NULL, &got, NULL,
                            sodium_base64_VARIANT_URLSAFE_NO_PADDING);
  luaL_pushresultsize(&b, r == 0 ? got : 0);
  if (r != 0) lua_pushnil(L);
  return 1;
}

void bdk_open_crypto(lua_State *L) {
  static const luaL_Reg functions[] = {
      {"keypair", keypair},
      {"sign_keypair", sign_keypair},
      {"sign", sign},
      {"verify", verify},
      {"id", id},
      {"mac", mac},
      {"hmac_sha256", hmac_sha256},
      {"proof", proof},
      {"equal", equal},
      {"random", random_bytes},
      {"hex", hex},
      {"unhex", unhex},
      {"base64url", base64url},
      {"unbase64url", unbase64url},
      {NULL, NULL},
  };
  luaL_newlib(L, functions);
  lua_setfield(L, -2, "crypto");
}
