// SPDX-License-Identifier: MIT
// Handshakes: against published vectors and those of docs/PROTOCOL.md, and hostile.
#include "support.h"

#include <sodium.h>

#include "core/noise.h"
#include "docs.h"

// Debian's golang-github-flynn-noise-dev; other machines may not have it.
#define PUBLISHED "/usr/share/gocode/src/github.com/flynn/noise/vectors.txt"

enum { A, B }; // initiator and responder

static const char *const names[] = {"IK", "KKpsk0", "KKeepsk0"};
static const uint8_t lengths[2][2] = {{BDK_IK_FIRST, BDK_IK_SECOND}, {BDK_KK_MESSAGE, BDK_KK_MESSAGE}};

// What both sides begin with; a test changes what it wants to be wrong.
typedef struct world {
  bdk_noise_config config[2];
  bdk_keypair s[2], e[2];
  uint8_t peer[2][BDK_DH_LEN], peer_ephemeral[2][BDK_DH_LEN], psk[2][32], prologue[2][64];
} world;

// An attacker's Diffie-Hellman: with this secret it is zero, which is what a key of low order makes the other side
// have. The real one is libsodium's under its other name. Zeroed first, so that a refusal ignored is worth something.
static const uint8_t *complicit;
int crypto_scalarmult(unsigned char *q, const unsigned char *n, const unsigned char *p) {
  memset(q, 0, BDK_DH_LEN);
  if (complicit && memcmp(n, complicit, BDK_DH_LEN) == 0) return 0;
  return crypto_scalarmult_curve25519(q, n, p);
}

static void count_up(uint8_t *out, size_t len, uint8_t from) {
  for (size_t i = 0; i < len; i++) out[i] = (uint8_t)(from + i);
}

static void point_config(world *w, bdk_noise_pattern pattern) {
  for (int i = A; i <= B; i++) {
    w->config[i] = (bdk_noise_config){.pattern = pattern,
                                      .initiator = i == A,
                                      .prologue = w->prologue[i],
                                      .prologue_len = sizeof w->prologue[i],
                                      .own = &w->s[i],
                                      .own_ephemeral = &w->e[i],
                                      .peer = pattern == BDK_NOISE_IK && i == B ? NULL : w->peer[i],
                                      .psk = pattern == BDK_NOISE_IK ? NULL : w->psk[i]};
    if (pattern == BDK_NOISE_KKEEPSK0) w->config[i].peer_ephemeral = w->peer_ephemeral[i];
  }
}

// The keys of the document.
static void make_world(world *w, bdk_noise_pattern pattern) {
  uint8_t secret[32];
  memset(w, 0, sizeof *w);
  for (int i = A; i <= B; i++) {
    count_up(secret, 32, (uint8_t)(0x01 + 0x20 * i));
    bdk_keypair_init(&w->s[i], secret);
    count_up(secret, 32, (uint8_t)(0x41 + 0x20 * i));
    bdk_keypair_init(&w->e[i], secret);
    count_up(w->psk[i], 32, 0x40);
    count_up(w->prologue[i], 64, 0);
  }
  for (int i = A; i <= B; i++) {
    memcpy(w->peer[i], w->s[!i].public, BDK_DH_LEN);
    memcpy(w->peer_ephemeral[i], w->e[!i].public, BDK_DH_LEN);
  }
  point_config(w, pattern);
}

static void begin(bdk_noise side[2], const world *w) {
  bdk_noise_init(&side[A], &w->config[A]);
  bdk_noise_init(&side[B], &w->config[B]);
}

// All zero but for the mark.
static void assert_wiped(const bdk_noise *s) {
  bdk_noise blank;
  memset(&blank, 0, sizeof blank);
  blank.failed = true;
  assert_memory_equal(s, &blank, sizeof blank);
}

static void assert_refuses(const bdk_noise *before, const uint8_t *bytes, size_t len, int error) {
  bdk_noise s = *before;
  uint8_t payload[BDK_NOISE_MAX], untouched[BDK_NOISE_MAX], *exact = spec_exact(bytes, len);
  memset(payload, 0, sizeof payload);
  memset(untouched, 0, sizeof untouched);
  int got = bdk_noise_read(&s, exact, len, payload, sizeof payload);
  free(exact);
  assert_true(error ? got == error : got == BDK_E_INVALID || got == BDK_E_BAD_KEY);
  assert_wiped(&s);
  assert_memory_equal(payload, untouched, sizeof payload); // nothing that is not authentic comes out
}

// --- agreement

static void assert_agree(bdk_noise side[2], uint8_t keys[2][32]) {
  uint8_t other[2][32], h[BDK_NOISE_HASH_LEN];
  assert_true(bdk_noise_done(&side[A]) && bdk_noise_done(&side[B]));
  memcpy(h, side[A].h, sizeof h);
  assert_int_equal(bdk_noise_split(&side[A], keys[0], keys[1]), 0);
  assert_int_equal(bdk_noise_split(&side[B], other[0], other[1]), 0);
  assert_memory_equal(keys, other, sizeof other);
  assert_memory_not_equal(keys[0], keys[1], 32);
  for (int i = A; i <= B; i++) {
    assert_memory_equal(side[i].h, h, sizeof h); // h alone outlives the split
    memset(side[i].h, 0, sizeof h);
    assert_wiped(&side[i]);
  }
}

// One message over: written into exactly the room it takes, read out of and into the same.
static size_t pass(bdk_noise *from, bdk_noise *to, const uint8_t *payload, size_t len, uint8_t *out, size_t over) {
  uint8_t *room = malloc(len + over), *got = malloc(len ? len : 1), *plain = spec_exact(payload, len);
  assert_true(bdk_noise_writes(from) && !bdk_noise_writes(to));
  assert_int_equal(bdk_noise_write(from, plain, len, room, len + over), len + over);
  assert_int_equal(bdk_noise_read(to, room, len + over, got, len), len);
  assert_memory_equal(got, plain, len);
  memcpy(out, room, len + over);
  free(room);
  free(got);
  free(plain);
  return len + over;
}

// --- published vectors

typedef struct vector {
  bdk_noise_pattern pattern;
  int count;
  struct {
    char name[32];
    uint8_t bytes[256];
    size_t len;
  } field[24];
} vector;

static size_t unhex(const char *text, uint8_t *out, size_t cap) {
  size_t n = 0;
  unsigned byte;
  for (; n < cap && sscanf(text + 2 * n, "%2x", &byte) == 1; n++) out[n] = (uint8_t)byte;
  return n;
}

// The next block of one of our patterns; false at the file's end.
static bool next_vector(FILE *f, vector *v) {
  char line[1024];
  bool ours = false;
  memset(v, 0, sizeof *v);
  while (fgets(line, sizeof line, f)) {
    line[strcspn(line, "\n")] = 0;
    char *value = strchr(line, '=');
    if (!value) {
      if (ours) return true;
      continue;
    }
    *value++ = 0;
    if (strcmp(line, "handshake") == 0) {
      for (int p = BDK_NOISE_IK; p <= BDK_NOISE_KKPSK0; p++) {
        char name[64];
        snprintf(name, sizeof name, "Noise_%s_25519_ChaChaPoly_SHA512", names[p]);
        if (strcmp(value, name) == 0) ours = true, v->pattern = (bdk_noise_pattern)p;
      }
    } else if (ours) {
      assert_true(v->count < 24 && strlen(line) < sizeof v->field[0].name);
      strcpy(v->field[v->count].name, line);
      v->field[v->count].len = unhex(value, v->field[v->count].bytes, sizeof v->field[0].bytes);
      assert_int_equal(2 * v->field[v->count++].len, strlen(value));
    }
  }
  return ours;
}

static const uint8_t *field(const vector *v, const char *name, size_t *len) {
  for (int i = 0; i < v->count; i++)
    if (strcmp(v->field[i].name, name) == 0) return *len = v->field[i].len, v->field[i].bytes;
  *len = 0;
  return NULL;
}

static const uint8_t *message_field(const vector *v, int n, const char *what, size_t *len) {
  char name[32];
  snprintf(name, sizeof name, "msg_%d_%s", n, what);
  return field(v, name, len);
}

static void world_of(world *w, const vector *v) {
  static const char *const statics[] = {"init_static", "resp_static"};
  static const char *const ephemerals[] = {"gen_init_ephemeral", "gen_resp_ephemeral"};
  size_t len;
  memset(w, 0, sizeof *w);
  for (int i = A; i <= B; i++) {
    bdk_keypair_init(&w->s[i], field(v, statics[i], &len));
    assert_int_equal(len, 32);
    bdk_keypair_init(&w->e[i], field(v, ephemerals[i], &len));
    assert_int_equal(len, 32);
    memcpy(w->peer[!i], w->s[i].public, BDK_DH_LEN);
  }
  point_config(w, v->pattern);
  for (int i = A; i <= B; i++) {
    w->config[i].prologue = field(v, "prologue", &w->config[i].prologue_len);
    if (v->pattern == BDK_NOISE_KKPSK0) {
      w->config[i].psk = field(v, "preshared_key", &len);
      assert_int_equal(len, 32);
    }
  }
}

// How many transport messages were compared.
static int run_vector(const vector *v) {
  world w;
  bdk_noise side[2];
  uint8_t out[BDK_NOISE_MAX], keys[2][32];
  size_t len, plain_len;
  int n = 0;
  world_of(&w, v);
  begin(side, &w);
  for (; n < 2; n++) {
    const uint8_t *plain = message_field(v, n, "payload", &plain_len);
    const uint8_t *want = message_field(v, n, "ciphertext", &len);
    assert_true(plain && want && len <= sizeof out);
    assert_int_equal(pass(&side[n], &side[!n], plain, plain_len, out, lengths[v->pattern][n]), len);
    assert_memory_equal(out, want, len);
  }
  assert_memory_equal(side[B].peer, w.s[A].public, BDK_DH_LEN);
  assert_agree(side, keys);
  for (const uint8_t *plain; (plain = message_field(v, n, "payload", &plain_len)); n++) {
    uint8_t nonce[12] = {[4] = (uint8_t)(n / 2 - 1)}; // each direction counts its own, little-endian
    const uint8_t *want = message_field(v, n, "ciphertext", &len);
    assert_int_equal(len, plain_len + BDK_TAG_LEN);
    crypto_aead_chacha20poly1305_ietf_encrypt(out, NULL, plain, plain_len, NULL, 0, NULL, nonce, keys[n % 2]);
    assert_memory_equal(out, want, len);
  }
  return n - 2;
}

static void published_vectors_pass(void **state) {
  (void)state;
  FILE *f = fopen(PUBLISHED, "r");
  if (!f) {
    print_message("# " PUBLISHED " is not there: install golang-github-flynn-noise-dev\n");
    skip();
  }
  int ran[2] = {0}, transport = 0;
  for (vector v; next_vector(f, &v); ran[v.pattern]++) transport += run_vector(&v);
  fclose(f);
  print_message("# published vectors: IK %d, KKpsk0 %d; transport messages %d\n", ran[0], ran[1], transport);
  assert_true(ran[BDK_NOISE_IK] > 0 && ran[BDK_NOISE_KKPSK0] > 0 && transport >= ran[0] + ran[1]);
}

// --- the document's

static void assert_documented(const char *pattern, const char *what, const void *bytes, size_t len) {
  uint8_t doc[512];
  char name[32];
  snprintf(name, sizeof name, "%s %s", pattern, what);
  assert_int_equal(docs_hex(name, doc, sizeof doc), len);
  assert_memory_equal(doc, bytes, len);
}

static void keys_are_those_of_the_document(void **state) {
  (void)state;
  world w;
  make_world(&w, BDK_NOISE_IK);
  for (int i = A; i <= B; i++) {
    uint8_t id[BDK_ID_LEN];
    bdk_key_id(id, w.s[i].public);
    assert_documented("noise s", i ? "1" : "0", w.s[i].public, BDK_DH_LEN);
    assert_documented("noise e", i ? "1" : "0", w.e[i].public, BDK_DH_LEN);
    assert_documented("noise id", i ? "1" : "0", id, sizeof id);
  }
}

static void messages_are_those_of_the_document(void **state) {
  (void)state;
  for (int p = BDK_NOISE_IK; p <= BDK_NOISE_KKPSK0; p++) {
    static const char *const payloads[] = {"first", "second"}, *const titles[] = {"message 1", "message 2"};
    world w;
    bdk_noise side[2];
    uint8_t out[BDK_NOISE_MAX], keys[2][32];
    make_world(&w, (bdk_noise_pattern)p);
    for (int i = A; i <= B && p == BDK_NOISE_IK; i++) {
      w.config[i].prologue = (const uint8_t *)"bodkin 1";
      w.config[i].prologue_len = 8;
    }
    begin(side, &w);
    for (int n = 0; n < 2; n++) {
      const uint8_t *payload = (const uint8_t *)payloads[n];
      size_t len = pass(&side[n], &side[!n], payload, strlen(payloads[n]), out, lengths[p][n]);
      assert_documented(names[p], titles[n], out, len);
    }
    assert_documented(names[p], "h", side[A].h, BDK_NOISE_HASH_LEN);
    assert_agree(side, keys);
    assert_documented(names[p], "keys", keys, sizeof keys);
  }
}

static void peers_meet_as_the_document_says(void **state) {
  (void)state;
  world w;
  bdk_noise side[2];
  uint8_t tag[2][BDK_TAG_LEN], keys[2][32], prologue[13 + 48] = "bodkin peer 1";
  make_world(&w, BDK_NOISE_KKEEPSK0);
  count_up(prologue + 13, 16, 0x10);
  bdk_key_id(prologue + 29, w.s[A].public);
  bdk_key_id(prologue + 45, w.s[B].public);
  for (int i = A; i <= B; i++) w.config[i].prologue = prologue, w.config[i].prologue_len = sizeof prologue;
  begin(side, &w);
  for (int i = A; i <= B; i++) {
    assert_true(bdk_noise_writes(&side[i]) && !bdk_noise_done(&side[i]));
    assert_int_equal(bdk_noise_write(&side[i], NULL, 0, tag[i], BDK_TAG_LEN), BDK_TAG_LEN);
    assert_documented("KKeepsk0", "tag", tag[i], BDK_TAG_LEN);
    assert_documented("KKeepsk0", "h", side[i].h, BDK_NOISE_HASH_LEN);
  }
  assert_agree(side, keys);
  assert_documented("KKeepsk0", "keys", keys, sizeof keys);
}

// --- hostile

// Runs a handshake up to its message `n`, which it writes; `to` has yet to read it.
static size_t up_to(bdk_noise side[2], const world *w, int n, uint8_t *out) {
  uint8_t payload[7];
  count_up(payload, sizeof payload, 0xA0);
  begin(side, w);
  if (n == 1) pass(&side[A], &side[B], payload, sizeof payload, out, lengths[w->config[A].pattern][0]);
  int len = bdk_noise_write(&side[n], payload, sizeof payload, out, BDK_NOISE_MAX);
  assert_int_equal(len, lengths[w->config[A].pattern][n] + sizeof payload);
  return (size_t)len;
}

static void any_bit_changed_fails(void **state) {
  (void)state;
  for (int p = BDK_NOISE_IK; p <= BDK_NOISE_KKPSK0; p++) {
    for (int n = 0; n < 2; n++) {
      world w;
      bdk_noise side[2];
      uint8_t out[BDK_NOISE_MAX + 1];
      make_world(&w, (bdk_noise_pattern)p);
      size_t len = up_to(side, &w, n, out);
      for (size_t i = 0; i < len; i++) {
        for (int bit = 0; bit < 9; bit++) { // and all of them
          uint8_t flip = bit < 8 ? (uint8_t)(1u << bit) : 0xFF;
          out[i] ^= flip;
          assert_refuses(&side[!n], out, len, BDK_E_BAD_KEY);
          out[i] ^= flip;
        }
      }
      assert_int_equal(bdk_noise_read(&side[!n], out, len, out, sizeof out), 7); // left alone it passes
    }
  }
}

static void any_other_length_fails(void **state) {
  (void)state;
  for (int p = BDK_NOISE_IK; p <= BDK_NOISE_KKPSK0; p++) {
    for (int n = 0; n < 2; n++) {
      world w;
      bdk_noise side[2];
      uint8_t out[BDK_NOISE_MAX + 1] = {0};
      make_world(&w, (bdk_noise_pattern)p);
      size_t len = up_to(side, &w, n, out);
      for (size_t i = 0; i < len; i++)
        assert_refuses(&side[!n], out, i, i < lengths[p][n] ? BDK_E_INVALID : BDK_E_BAD_KEY);
      for (size_t i = len + 1; i < len + 40; i++) assert_refuses(&side[!n], out, i, BDK_E_BAD_KEY);
      assert_refuses(&side[!n], out, BDK_NOISE_MAX, BDK_E_BAD_KEY);
      assert_refuses(&side[!n], out, BDK_NOISE_MAX + 1, BDK_E_INVALID);
    }
  }
}

// Each thing that one side may believe otherwise: where it is wrong, the first message fails.
static void who_believes_otherwise_is_not_understood(void **state) {
  (void)state;
  for (int p = BDK_NOISE_IK; p <= BDK_NOISE_KKPSK0; p++) {
    for (int i = A; i <= B; i++) {
      for (int wrong = 0; wrong < 5; wrong++) {
        world w;
        bdk_noise side[2];
        uint8_t out[BDK_NOISE_MAX], other[32] = {0x77};
        make_world(&w, (bdk_noise_pattern)p);
        if (p == BDK_NOISE_IK && (wrong == 1 || (wrong == 2 && i == B))) continue; // it has none
        if (p == BDK_NOISE_IK && wrong == 3 && i == A) continue;                   // anyone may come
        if (wrong == 0) w.prologue[i][63] ^= 1;
        if (wrong == 1) w.psk[i][31] ^= 1;
        if (wrong == 2) crypto_scalarmult_base(w.peer[i], other);
        if (wrong == 3) bdk_keypair_init(&w.s[i], other);
        if (wrong == 4) w.config[i].prologue_len--;
        begin(side, &w);
        int len = bdk_noise_write(&side[A], NULL, 0, out, sizeof out);
        assert_int_equal(len, lengths[p][0]);
        assert_refuses(&side[B], out, (size_t)len, BDK_E_BAD_KEY);
      }
    }
  }
}

// Two of one role; a message that comes back, or comes twice; one of another handshake.
static void roles_and_handshakes_do_not_mix(void **state) {
  (void)state;
  for (int p = BDK_NOISE_IK; p <= BDK_NOISE_KKPSK0; p++) {
    world w;
    bdk_noise side[2], old[2];
    uint8_t first[BDK_NOISE_MAX], second[BDK_NOISE_MAX], secret[32] = {5};
    make_world(&w, (bdk_noise_pattern)p);
    size_t len = up_to(side, &w, 0, first);
    assert_refuses(&side[A], first, len, 0); // reflected
    w.config[B].initiator = true;
    w.config[B].peer = w.peer[B];
    bdk_noise_init(&side[B], &w.config[B]);
    assert_refuses(&side[B], first, len, BDK_E_INVALID);
    w.config[B].initiator = false;
    point_config(&w, (bdk_noise_pattern)p);
    size_t second_len = up_to(old, &w, 1, second);
    assert_refuses(&old[B], second, second_len, BDK_E_INVALID); // reflected
    assert_refuses(&old[B], first, len, BDK_E_INVALID);         // twice
    bdk_keypair_init(&w.e[A], secret);
    up_to(side, &w, 1, first);
    assert_refuses(&side[A], second, second_len, BDK_E_BAD_KEY); // the answer to another first message
  }
}

// KKeepsk0 sends nothing that could fail: who differs has other keys.
static void peers_that_differ_get_other_keys(void **state) {
  (void)state;
  for (int wrong = -1; wrong < 9; wrong++) {
    world w;
    bdk_noise side[2];
    uint8_t tag[2][BDK_TAG_LEN], keys[2][2][32], other[32] = {0x77}, h[2][BDK_NOISE_HASH_LEN];
    make_world(&w, BDK_NOISE_KKEEPSK0);
    if (wrong == 0) w.prologue[B][0] ^= 1;
    if (wrong == 1) w.psk[B][0] ^= 1;
    if (wrong == 2) crypto_scalarmult_base(w.peer[B], other);
    if (wrong == 3) crypto_scalarmult_base(w.peer_ephemeral[B], other);
    if (wrong == 4) bdk_keypair_init(&w.s[B], other);
    if (wrong == 5) bdk_keypair_init(&w.e[B], other);
    if (wrong == 6) w.config[B].initiator = true;
    if (wrong == 7) w.peer_ephemeral[B][31] ^= 0x80; // a bit that X25519 does not look at
    if (wrong == 8) w.peer[B][31] ^= 0x80;
    begin(side, &w);
    for (int i = A; i <= B; i++) {
      assert_int_equal(bdk_noise_write(&side[i], NULL, 0, tag[i], BDK_TAG_LEN), BDK_TAG_LEN);
      memcpy(h[i], side[i].h, sizeof h[i]);
      assert_int_equal(bdk_noise_split(&side[i], keys[i][0], keys[i][1]), 0);
    }
    bool same = wrong < 0;
    assert_int_equal(memcmp(tag[A], tag[B], BDK_TAG_LEN) == 0, same);
    assert_int_equal(memcmp(h[A], h[B], BDK_NOISE_HASH_LEN) == 0, same);
    for (int i = 0; i < 4; i++) assert_int_equal(memcmp(keys[A][i / 2], keys[B][i % 2], 32) == 0, same && i % 3 == 0);
  }
}

// The points of small order on the curve and its twist, in each encoding: 0, 1, two of order 8, p - 1, p, p + 1; the
// high bit is not looked at.
static void low_order(int n, uint8_t out[32]) {
  static const char *const points[] = {
      "0000000000000000000000000000000000000000000000000000000000000000",
      "0100000000000000000000000000000000000000000000000000000000000000",
      "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
      "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
      "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
      "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
      "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
  };
  assert_int_equal(unhex(points[n / 2], out, 32), 32);
  if (n % 2) out[31] |= 0x80;
}
#define LOW_ORDER 14

// What a side knows beforehand is of low order: each side, static and ephemeral.
static void low_order_beforehand_is_refused(void **state) {
  (void)state;
  for (int n = 0; n < LOW_ORDER; n++) {
    world w;
    bdk_noise side[2];
    uint8_t out[BDK_NOISE_MAX];
    for (int p = 0; p < BDK_NOISE_PATTERNS; p++) {
      for (int i = A; i <= B; i++) {
        for (int ephemeral = 0; ephemeral < 2; ephemeral++) {
          if (ephemeral && p != BDK_NOISE_KKEEPSK0) continue;
          if (p == BDK_NOISE_IK && i == B) continue; // it knows nobody
          make_world(&w, (bdk_noise_pattern)p);
          low_order(n, ephemeral ? w.peer_ephemeral[i] : w.peer[i]);
          if (p != BDK_NOISE_KKEEPSK0 && i == B) {
            // What comes is as it would be from one whose static is that: DH(s, s) is zero, the point is in h.
            memcpy(w.s[A].public, w.peer[B], BDK_DH_LEN);
            complicit = w.s[A].secret;
            begin(side, &w);
            assert_int_equal(bdk_noise_write(&side[A], NULL, 0, out, sizeof out), lengths[p][0]);
            complicit = NULL;
            assert_refuses(&side[B], out, lengths[p][0], BDK_E_BAD_KEY);
          } else {
            begin(side, &w);
            assert_int_equal(bdk_noise_write(&side[i], NULL, 0, out, sizeof out), BDK_E_BAD_KEY);
            assert_wiped(&side[i]);
          }
        }
      }
    }
  }
}

// A key of low order in a message that is authentic otherwise: the sender counts on the zeros it makes.
static void low_order_in_a_message_is_refused(void **state) {
  (void)state;
  for (int n = 0; n < LOW_ORDER; n++) {
    for (int p = BDK_NOISE_IK; p <= BDK_NOISE_KKPSK0; p++) {
      for (int key = 0; key < 3; key++) { // the first message's e and s, the second's e
        world w;
        bdk_noise side[2];
        uint8_t out[BDK_NOISE_MAX];
        if (key == 1 && p != BDK_NOISE_IK) continue; // it does not travel
        make_world(&w, (bdk_noise_pattern)p);
        bdk_keypair *bad = key == 0 ? &w.e[A] : key == 1 ? &w.s[A] : &w.e[B];
        low_order(n, bad->public);
        complicit = bad->secret;
        size_t len = up_to(side, &w, key == 2, out);
        complicit = NULL;
        assert_refuses(&side[key != 2], out, len, BDK_E_BAD_KEY);
      }
    }
  }
}

// --- misuse and bounds

static void assert_dead(bdk_noise *s) {
  uint8_t out[BDK_NOISE_MAX], keys[2][32];
  assert_wiped(s);
  assert_false(bdk_noise_writes(s) || bdk_noise_done(s));
  assert_int_equal(bdk_noise_write(s, NULL, 0, out, sizeof out), BDK_E_INVALID);
  assert_int_equal(bdk_noise_read(s, out, BDK_KK_MESSAGE, out, sizeof out), BDK_E_INVALID);
  assert_int_equal(bdk_noise_split(s, keys[0], keys[1]), BDK_E_INVALID);
  bdk_noise_clear(s);
  assert_wiped(s);
}

// Each call at each step where it is not due.
static void out_of_turn_ends_a_handshake(void **state) {
  (void)state;
  for (int p = 0; p < BDK_NOISE_PATTERNS; p++) {
    int steps = p == BDK_NOISE_KKEEPSK0 ? 1 : 2;
    for (int at = 0; at <= steps; at++) {
      for (int i = A; i <= B; i++) {
        world w;
        bdk_noise side[2], s;
        uint8_t out[BDK_NOISE_MAX], first[BDK_NOISE_MAX] = {9}, keys[2][32];
        make_world(&w, (bdk_noise_pattern)p);
        begin(side, &w);
        for (int n = 0; n < at; n++) {
          if (p != BDK_NOISE_KKEEPSK0)
            pass(&side[n], &side[!n], NULL, 0, first, lengths[p][n]);
          else
            for (int k = A; k <= B; k++) assert_int_equal(bdk_noise_write(&side[k], NULL, 0, first, 16), BDK_TAG_LEN);
        }
        bool done = at == steps, writes = !done && (p == BDK_NOISE_KKEEPSK0 || i == at);
        assert_int_equal(bdk_noise_done(&side[i]), done);
        assert_int_equal(bdk_noise_writes(&side[i]), writes);
        s = side[i];
        if (!writes) {
          assert_int_equal(bdk_noise_write(&s, NULL, 0, out, sizeof out), BDK_E_INVALID);
          assert_dead(&s);
        }
        s = side[i];
        if (writes || done) {
          assert_int_equal(bdk_noise_read(&s, first, BDK_IK_FIRST, out, sizeof out), BDK_E_INVALID);
          assert_dead(&s);
        }
        s = side[i];
        assert_int_equal(bdk_noise_split(&s, keys[0], keys[1]), done ? 0 : BDK_E_INVALID);
        if (done) assert_int_equal(bdk_noise_split(&s, keys[0], keys[1]), BDK_E_INVALID);
        assert_dead(&s);
        bdk_noise_clear(&side[i]);
        assert_dead(&side[i]);
      }
    }
  }
}

static void payloads_fill_a_message_and_no_more(void **state) {
  (void)state;
  static uint8_t payload[BDK_NOISE_MAX + 1];
  uint64_t seed = 4711;
  for (size_t i = 0; i < sizeof payload; i++) payload[i] = (uint8_t)spec_random(&seed);
  for (int p = BDK_NOISE_IK; p <= BDK_NOISE_KKPSK0; p++) {
    size_t most[2] = {BDK_NOISE_MAX - lengths[p][0], BDK_NOISE_MAX - lengths[p][1]};
    for (int round = 0; round < 40; round++) {
      world w;
      bdk_noise side[2], s;
      uint8_t out[2 * BDK_NOISE_MAX], keys[2][32];
      make_world(&w, (bdk_noise_pattern)p);
      begin(side, &w);
      for (int n = 0; n < 2; n++) {
        size_t len = round == 0 ? most[n] : round == 1 ? 0 : spec_below(&seed, (uint32_t)most[n] + 1);
        const size_t refused[][2] = {{most[n] + 1, sizeof out}, {BDK_NOISE_MAX, sizeof out},    {SIZE_MAX, sizeof out},
                                     {SIZE_MAX - 10, SIZE_MAX}, {len, lengths[p][n] + len - 1}, {len, 0}};
        for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
          s = side[n];
          assert_int_equal(bdk_noise_write(&s, payload, refused[i][0], out, refused[i][1]), BDK_E_INVALID);
          assert_dead(&s);
        }
        bdk_noise before = side[!n];
        size_t whole = pass(&side[n], &side[!n], payload, len, out, lengths[p][n]);
        if (len == 0) continue;
        assert_int_equal(bdk_noise_read(&before, out, whole, out + BDK_NOISE_MAX, len - 1), BDK_E_INVALID);
        assert_dead(&before);
      }
      assert_agree(side, keys);
    }
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(published_vectors_pass),
      cmocka_unit_test(keys_are_those_of_the_document),
      cmocka_unit_test(messages_are_those_of_the_document),
      cmocka_unit_test(peers_meet_as_the_document_says),
      cmocka_unit_test(any_bit_changed_fails),
      cmocka_unit_test(any_other_length_fails),
      cmocka_unit_test(who_believes_otherwise_is_not_understood),
      cmocka_unit_test(roles_and_handshakes_do_not_mix),
      cmocka_unit_test(peers_that_differ_get_other_keys),
      cmocka_unit_test(low_order_beforehand_is_refused),
      cmocka_unit_test(low_order_in_a_message_is_refused),
      cmocka_unit_test(out_of_turn_ends_a_handshake),
      cmocka_unit_test(payloads_fill_a_message_and_no_more),
  };
  if (sodium_init() < 0) return 1;
  return cmocka_run_group_tests(tests, NULL, NULL);
}
