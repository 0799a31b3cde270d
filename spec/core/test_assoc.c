// SPDX-License-Identifier: MIT
// Associations: both ends of one on virtual time, and the table at its limits.
#include "support.h"

#include <sodium.h>

#include "core/assoc.h"

#define SECOND 1000000u

// An attacker's Diffie-Hellman: with this secret it is zero, which is what a key of low order makes the server have.
// The real one is libsodium's under its other name.
static const uint8_t *complicit;
int crypto_scalarmult(unsigned char *q, const unsigned char *n, const unsigned char *p) {
  memset(q, 0, BDK_DH_LEN);
  if (complicit && memcmp(n, complicit, BDK_DH_LEN) == 0) return 0;
  return crypto_scalarmult_curve25519(q, n, p);
}

typedef struct world {
  spec_heap heap;
  bdk_counters counters;
  bdk_keypair keys[2]; // the server's
  bdk_assocs *table;
  uint64_t now_us;
  uint32_t drawn; // ephemerals
} world;

// A client, and the datagram and messages under way.
typedef struct client {
  bdk_keypair own;
  bdk_assoc assoc;
  bdk_route at;
  uint32_t index; // at the server
  uint8_t first[BDK_DATAGRAM_MAX], answer[BDK_DATAGRAM_MAX];
  size_t first_len, answer_len;
} client;

static bdk_route place(uint32_t n) {
  bdk_route r = {.remote = {.family = 4, .port = (uint16_t)(1000 + n % 50000)}, .sock = 1};
  for (int i = 0; i < 4; i++) r.remote.ip[i] = (uint8_t)(n >> (24 - 8 * i));
  r.remote.ip[0] = 11;
  return r;
}

static bdk_keypair pair_of(uint32_t n, uint8_t use) {
  uint8_t secret[BDK_DH_LEN] = {use, (uint8_t)n, (uint8_t)(n >> 8), (uint8_t)(n >> 16), (uint8_t)(n >> 24), 99};
  bdk_keypair pair;
  bdk_keypair_init(&pair, secret);
  return pair;
}

static bdk_assocs_config config_of(world *w, uint32_t max, uint8_t keys) {
  bdk_assocs_config c = {.alloc = {spec_resize, &w->heap}, .counters = &w->counters, .key_count = keys, .max = max};
  memset(c.seed, 7, sizeof c.seed);
  memcpy(c.keys, w->keys, sizeof c.keys);
  return c;
}

static void world_open(world *w, uint32_t max, uint8_t keys) {
  *w = (world){.now_us = 5000 * (uint64_t)SECOND};
  for (uint8_t i = 0; i < 2; i++) w->keys[i] = pair_of(i, 1);
  bdk_assocs_config c = config_of(w, max, keys);
  w->table = bdk_assocs_new(&c);
  assert_non_null(w->table);
}

static void world_close(world *w) {
  bdk_assocs_free(w->table);
  assert_int_equal(w->heap.bytes, 0);
  assert_int_equal(w->heap.blocks, 0);
}

static uint64_t counted(const world *w, bdk_counter which) { return w->counters.value[which]; }

static void begin(world *w, client *c, uint32_t n, const bdk_keypair *server, const char *messages) {
  bdk_keypair ephemeral = pair_of(w->drawn++, 3);
  *c = (client){.own = pair_of(n, 2), .at = place(n)};
  int len = bdk_assoc_begin(&c->assoc, &c->own, &ephemeral, server->public, 1 + n % BDK_ASSOC_CLIENT_MAX,
                            (const uint8_t *)messages, strlen(messages), c->first, sizeof c->first);
  assert_true(len > 0);
  c->first_len = (size_t)len;
}

// What the server makes of the client's first message, from `from`: the length of its messages, or the error.
static int offer(world *w, client *c, const bdk_route *from, uint8_t *payload, bool *again) {
  uint8_t *exact = spec_exact(c->first, c->first_len);
  int n = bdk_assocs_open(w->table, w->now_us, from, exact, c->first_len, payload, &c->index, again);
  free(exact);
  return n;
}

static void answer(world *w, client *c, const char *messages) {
  c->answer_len =
      bdk_assocs_answer(w->table, c->index, (const uint8_t *)messages, strlen(messages), c->answer, sizeof c->answer);
}

static void take_answer(client *c, const char *messages) {
  uint8_t out[BDK_DATAGRAM_MAX];
  int n = bdk_assoc_answered(&c->assoc, c->answer, c->answer_len, out, sizeof out);
  assert_int_equal(n, strlen(messages));
  assert_memory_equal(out, messages, (size_t)n);
}

static void join(world *w, client *c, uint32_t n) {
  uint8_t payload[BDK_NOISE_MAX];
  bool again;
  begin(w, c, n, &w->keys[0], "ask");
  assert_int_equal(offer(w, c, &c->at, payload, &again), 3);
  assert_false(again);
  answer(w, c, "tell");
  take_answer(c, "tell");
}

static size_t say(client *c, const char *text, uint8_t *frame) {
  size_t n =
      bdk_assoc_write(&c->assoc, BDK_FRAME_MESSAGE, (const uint8_t *)text, strlen(text), frame, BDK_DATAGRAM_MAX);
  assert_int_equal(n, strlen(text) + BDK_FRAME_OVERHEAD);
  return n;
}

static bdk_assoc_verdict give(world *w, const bdk_route *from, const uint8_t *frame, size_t len, uint8_t *out,
                              size_t *out_len) {
  uint32_t index;
  uint8_t *exact = spec_exact(frame, len);
  bdk_assoc_verdict v = bdk_assocs_input(w->table, w->now_us, from, exact, len, out, out_len, &index);
  free(exact);
  return v;
}

// A message of the client's, from where it is, arrives.
static void assert_heard(world *w, client *c, const char *text) {
  uint8_t frame[BDK_DATAGRAM_MAX], out[BDK_DATAGRAM_MAX];
  size_t n, len = say(c, text, frame);
  assert_int_equal(give(w, &c->at, frame, len, out, &n), BDK_ASSOC_MESSAGE);
  assert_int_equal(n, strlen(text));
  assert_memory_equal(out, text, n);
}

// And one of the server's, at `where`.
static void assert_told(world *w, client *c, const bdk_route *where, const char *text) {
  uint8_t frame[BDK_DATAGRAM_MAX], out[BDK_DATAGRAM_MAX], kind;
  bdk_route to;
  size_t n = bdk_assocs_write(w->table, c->index, (const uint8_t *)text, strlen(text), frame, sizeof frame, &to);
  assert_int_equal(n, strlen(text) + BDK_FRAME_OVERHEAD);
  assert_true(bdk_addr_equal(&to.remote, &where->remote));
  assert_int_equal(to.sock, where->sock);
  assert_int_equal(bdk_assoc_read(&c->assoc, frame, n, out, &kind), strlen(text));
  assert_int_equal(kind, BDK_FRAME_MESSAGE);
  assert_memory_equal(out, text, strlen(text));
}

static int sweep(world *w) {
  uint32_t budget = 2 * 16384; // all places
  bdk_addr origin;
  int n = 0;
  while (bdk_assocs_sweep(w->table, w->now_us, &budget, &origin)) n++;
  return n;
}

static void both_ends_talk(void **state) {
  (void)state;
  world w;
  client c;
  world_open(&w, 0, 1);
  join(&w, &c, 1);
  assert_int_equal(bdk_assocs_count(w.table), 1);
  assert_memory_equal(bdk_assocs_key(w.table, c.index), c.own.public, BDK_DH_LEN);
  for (int i = 0; i < 100; i++) {
    assert_heard(&w, &c, i % 2 ? "up" : "");
    assert_told(&w, &c, &c.at, i % 3 ? "down" : "");
  }
  for (bdk_counter i = 0; i < BDK_COUNTER_COUNT; i++) assert_int_equal(counted(&w, i), 0);
  assert_null(bdk_assocs_key(w.table, c.index + 1));
  assert_null(bdk_assocs_key(w.table, 0));
  world_close(&w);
}

static void either_key_of_the_server_will_do(void **state) {
  (void)state;
  world w;
  client c;
  uint8_t payload[BDK_NOISE_MAX];
  bool again;
  world_open(&w, 0, 2);
  for (uint32_t i = 0; i < 2; i++) {
    begin(&w, &c, i, &w.keys[i], "ask");
    assert_int_equal(offer(&w, &c, &c.at, payload, &again), 3);
    answer(&w, &c, "");
    take_answer(&c, "");
    assert_heard(&w, &c, "up");
  }
  bdk_keypair other = pair_of(9, 1);
  begin(&w, &c, 3, &other, "ask");
  assert_int_equal(offer(&w, &c, &c.at, payload, &again), BDK_E_BAD_KEY);
  assert_int_equal(bdk_assocs_count(w.table), 2);
  world_close(&w);
  world_open(&w, 0, 1); // the second is no key of this one
  begin(&w, &c, 3, &w.keys[1], "ask");
  assert_int_equal(offer(&w, &c, &c.at, payload, &again), BDK_E_BAD_KEY);
  world_close(&w);
}

static void a_repeat_gets_the_same_bytes_until_it_is_used(void **state) {
  (void)state;
  world w;
  client c;
  uint8_t payload[BDK_NOISE_MAX], before[BDK_DATAGRAM_MAX];
  bool again;
  world_open(&w, 0, 1);
  begin(&w, &c, 1, &w.keys[0], "ask");
  assert_int_equal(offer(&w, &c, &c.at, payload, &again), 3);
  answer(&w, &c, "tell");
  size_t len = c.answer_len;
  memcpy(before, c.answer, len);
  for (int i = 0; i < 3; i++) {
    assert_int_equal(offer(&w, &c, &c.at, payload, &again), 0);
    assert_true(again);
    answer(&w, &c, "other messages");
    assert_int_equal(c.answer_len, len);
    assert_memory_equal(c.answer, before, len);
  }
  assert_int_equal(bdk_assocs_count(w.table), 1);
  bdk_route elsewhere = place(2);
  assert_int_equal(offer(&w, &c, &elsewhere, payload, &again), BDK_E_CLOSED);
  elsewhere = c.at;
  elsewhere.sock = 2;
  assert_int_equal(offer(&w, &c, &elsewhere, payload, &again), BDK_E_CLOSED);
  assert_int_equal(bdk_assocs_answer(w.table, c.index, NULL, 0, before, len - 1), 0); // no room
  take_answer(&c, "tell");
  assert_int_equal(offer(&w, &c, &c.at, payload, &again), 0); // it has not been heard of
  assert_heard(&w, &c, "up");
  assert_int_equal(offer(&w, &c, &c.at, payload, &again), BDK_E_CLOSED);
  answer(&w, &c, "tell");
  assert_int_equal(c.answer_len, 0);
  world_close(&w);
}

static void a_first_message_is_remembered_for_half_an_hour(void **state) {
  (void)state;
  world w;
  client c, other;
  uint8_t payload[BDK_NOISE_MAX];
  bool again;
  world_open(&w, 0, 1);
  for (uint32_t n = 0; n < 20; n++) { // at any time of a generation
    w.now_us += 217 * (uint64_t)SECOND;
    join(&w, &c, n);
    assert_heard(&w, &c, "up");
    uint64_t until_us = w.now_us + BDK_ASSOC_REPLAY_US;
    for (; w.now_us < until_us; w.now_us += 300 * (uint64_t)SECOND) {
      sweep(&w);
      assert_int_equal(offer(&w, &c, &c.at, payload, &again), BDK_E_CLOSED);
      join(&w, &other, 1000 + n);
    }
  }
  w.now_us += 2 * (uint64_t)BDK_ASSOC_REPLAY_US + SECOND;
  join(&w, &other, 1);
  w.now_us += (uint64_t)BDK_ASSOC_REPLAY_US + SECOND;
  assert_int_equal(offer(&w, &c, &c.at, payload, &again), 3); // and then it is not: the address proves no more
  world_close(&w);
}

static void what_is_forged_or_cut_opens_nothing(void **state) {
  (void)state;
  world w;
  client c;
  uint8_t payload[BDK_NOISE_MAX], out[BDK_DATAGRAM_MAX];
  bool again;
  world_open(&w, 0, 1);
  begin(&w, &c, 1, &w.keys[0], "ask");
  size_t len = c.first_len;
  for (c.first_len = 0; c.first_len < len; c.first_len++)
    assert_int_equal(offer(&w, &c, &c.at, payload, &again), BDK_E_BAD_KEY);
  for (size_t i = 0; i < len; i++) {
    c.first[i] ^= 0x40;
    assert_int_equal(offer(&w, &c, &c.at, payload, &again), BDK_E_BAD_KEY);
    c.first[i] ^= 0x40;
  }
  assert_int_equal(bdk_assocs_count(w.table), 0);
  assert_int_equal(offer(&w, &c, &c.at, payload, &again), 3); // none of these spent it
  answer(&w, &c, "tell");
  len = c.answer_len;
  for (size_t cut = 0; cut < len; cut++) assert_true(bdk_assoc_answered(&c.assoc, c.answer, cut, out, sizeof out) < 0);
  for (size_t i = 0; i < len; i++) {
    c.answer[i] ^= 0x40;
    assert_int_equal(bdk_assoc_answered(&c.assoc, c.answer, len, out, sizeof out), BDK_E_BAD_KEY);
    c.answer[i] ^= 0x40;
  }
  assert_true(bdk_assoc_answered(&c.assoc, c.answer, len, out, 3) < 0); // no room: nothing changed
  take_answer(&c, "tell");
  assert_int_equal(bdk_assoc_answered(&c.assoc, c.answer, len, out, sizeof out), BDK_E_INVALID);
  bdk_assoc_clear(&c.assoc);
  assert_int_equal(bdk_assoc_answered(&c.assoc, c.first, c.first_len, out, sizeof out), BDK_E_INVALID);
  assert_int_equal(bdk_assoc_write(&c.assoc, BDK_FRAME_MESSAGE, NULL, 0, out, sizeof out), 0);
  world_close(&w);
}

// Authentic first messages that are not as the protocol has them.
static void first_messages_carry_an_index_of_a_client(void **state) {
  (void)state;
  static const uint32_t bad[] = {0, BDK_ASSOC_CLIENT_MAX + 1, UINT32_MAX};
  world w;
  client c;
  uint8_t payload[BDK_NOISE_MAX];
  bool again;
  world_open(&w, 0, 1);
  for (int i = 0; i < 4; i++) {
    bdk_keypair own = pair_of(1, 2), ephemeral = pair_of((uint32_t)i, 3);
    uint32_t index = i < 3 ? bad[i] : BDK_ASSOC_CLIENT_MAX;
    c = (client){.at = place(1)};
    c.first_len =
        (size_t)bdk_assoc_begin(&c.assoc, &own, &ephemeral, w.keys[0].public, index, NULL, 0, c.first, sizeof c.first);
    assert_int_equal(offer(&w, &c, &c.at, payload, &again), i < 3 ? BDK_E_BAD_KEY : 0);
  }
  assert_int_equal(bdk_assocs_count(w.table), 1);
  uint8_t big[BDK_DATAGRAM_MAX] = {0};
  bdk_keypair own = pair_of(1, 2);
  assert_int_equal(bdk_assoc_begin(&c.assoc, &own, &own, w.keys[0].public, 1, big, sizeof big, c.first, sizeof c.first),
                   BDK_E_INVALID);
  assert_int_equal(bdk_assoc_begin(&c.assoc, &own, &own, w.keys[0].public, 1, big, 1101, c.first, sizeof c.first),
                   BDK_E_INVALID);
  assert_int_equal(bdk_assoc_begin(&c.assoc, &own, &own, w.keys[0].public, 1, big, 1100, c.first, sizeof c.first),
                   1200);
  world_close(&w);
}

static void keys_of_low_order_are_refused(void **state) {
  (void)state;
  static const uint8_t points[][BDK_DH_LEN] = {
      {0},
      {1},
      {0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4, 0x6a,
       0xda, 0x09, 0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49, 0xb8, 0x00},
  };
  world w;
  uint8_t payload[BDK_NOISE_MAX];
  bool again;
  world_open(&w, 0, 2);
  for (size_t i = 0; i < sizeof points / sizeof *points; i++) {
    for (int which = 0; which < 2; which++) { // the static key, the ephemeral one: the client counts on zeros
      client c = {.own = pair_of(1, 2), .at = place(1)};
      bdk_keypair ephemeral = pair_of((uint32_t)i, 3);
      bdk_keypair *bad = which ? &ephemeral : &c.own;
      memcpy(bad->public, points[i], BDK_DH_LEN);
      complicit = bad->secret;
      c.first_len =
          (size_t)bdk_assoc_begin(&c.assoc, &c.own, &ephemeral, w.keys[0].public, 1, NULL, 0, c.first, sizeof c.first);
      complicit = NULL;
      assert_int_equal(c.first_len, BDK_IK_FIRST + BDK_ASSOC_INDEX_LEN);
      assert_int_equal(offer(&w, &c, &c.at, payload, &again), BDK_E_BAD_KEY);
    }
    client c = {.own = pair_of(1, 2)}; // and the server's, at the client
    assert_int_equal(bdk_assoc_begin(&c.assoc, &c.own, &c.own, points[i], 1, NULL, 0, c.first, sizeof c.first),
                     BDK_E_BAD_KEY);
  }
  assert_int_equal(bdk_assocs_count(w.table), 0);
  world_close(&w);
}

static void frames_forged_cut_or_repeated_are_dropped(void **state) {
  (void)state;
  world w;
  client c;
  uint8_t frame[BDK_DATAGRAM_MAX], out[BDK_DATAGRAM_MAX], kind;
  size_t n;
  world_open(&w, 0, 1);
  join(&w, &c, 1);
  size_t len = say(&c, "up", frame);
  for (size_t cut = 0; cut < len; cut++) {
    assert_int_equal(give(&w, &c.at, frame, cut, out, &n), BDK_ASSOC_DROP);
    assert_int_equal(counted(&w, BDK_COUNT_drop_frame), cut + 1);
  }
  for (size_t i = 1; i < len; i++) {
    frame[i] ^= 1;
    assert_int_equal(give(&w, &c.at, frame, len, out, &n), i < 5 ? BDK_ASSOC_UNKNOWN : BDK_ASSOC_DROP);
    frame[i] ^= 1;
  }
  assert_int_equal(counted(&w, BDK_COUNT_drop_frame), 2 * len - 5);
  assert_int_equal(give(&w, &c.at, frame, len, out, &n), BDK_ASSOC_MESSAGE);
  assert_int_equal(give(&w, &c.at, frame, len, out, &n), BDK_ASSOC_DROP);
  assert_int_equal(counted(&w, BDK_COUNT_drop_replay), 1);
  // Its own frames do not come back as the server's.
  assert_int_equal(bdk_assoc_read(&c.assoc, frame, len, out, &kind), BDK_E_BAD_KEY);
  // What the server says is read once.
  bdk_route to;
  len = bdk_assocs_write(w.table, c.index, (const uint8_t *)"down", 4, frame, sizeof frame, &to);
  for (size_t i = 1; i < len; i++) {
    frame[i] ^= 1;
    assert_int_equal(bdk_assoc_read(&c.assoc, frame, len, out, &kind), BDK_E_BAD_KEY);
    frame[i] ^= 1;
  }
  for (size_t cut = 0; cut < len; cut++)
    assert_int_equal(bdk_assoc_read(&c.assoc, frame, cut, out, &kind), BDK_E_BAD_KEY);
  assert_int_equal(bdk_assoc_read(&c.assoc, frame, len, out, &kind), 4);
  assert_int_equal(bdk_assoc_read(&c.assoc, frame, len, out, &kind), BDK_E_BAD_KEY);
  // Kinds of a session between peers, and challenges of the client's, are none here.
  for (int k = 0; k < 32; k++) {
    if (k == BDK_FRAME_MESSAGE) continue;
    uint64_t before = counted(&w, BDK_COUNT_drop_state);
    len = bdk_assoc_write(&c.assoc, (bdk_frame_kind)k, (const uint8_t *)"12345678", 8, frame, sizeof frame);
    assert_int_equal(give(&w, &c.at, frame, len, out, &n), BDK_ASSOC_DROP);
    assert_int_equal(counted(&w, BDK_COUNT_drop_state), before + 1);
  }
  world_close(&w);
}

static void the_window_is_64(void **state) {
  (void)state;
  enum { FRAMES = 200 };
  static uint8_t frames[FRAMES][64];
  world w;
  client c;
  uint8_t out[BDK_DATAGRAM_MAX], seen[FRAMES] = {0};
  size_t n, len = 0;
  uint64_t rng = 99;
  world_open(&w, 0, 1);
  join(&w, &c, 1);
  for (int i = 0; i < FRAMES; i++) len = say(&c, "up", frames[i]);
  int top = -1;
  for (int i = 0; i < 5000; i++) { // a window's width and more about a place that goes up
    int at = i * FRAMES / 5000 - 80 + (int)spec_below(&rng, 100);
    if (at < 0 || at >= FRAMES) continue;
    bool fresh = at > top || (top - at < 64 && !seen[at]);
    assert_int_equal(give(&w, &c.at, frames[at], len, out, &n), fresh ? BDK_ASSOC_MESSAGE : BDK_ASSOC_DROP);
    seen[at] = 1;
    if (at > top) top = at;
  }
  assert_true(counted(&w, BDK_COUNT_drop_replay) > 1000);
  assert_int_equal(counted(&w, BDK_COUNT_drop_frame), 0);
  world_close(&w);
}

static bdk_assoc_verdict from(world *w, client *c, const bdk_route *where, uint8_t *out, size_t *n) {
  uint8_t frame[BDK_DATAGRAM_MAX];
  size_t len = say(c, "a request", frame);
  return give(w, where, frame, len, out, n);
}

// The client's answer to a challenge, as a frame.
static size_t answer_challenge(client *c, const uint8_t *challenge, size_t len, uint8_t *frame) {
  uint8_t nonce[BDK_DATAGRAM_MAX], kind;
  assert_int_equal(bdk_assoc_read(&c->assoc, challenge, len, nonce, &kind), BDK_ASSOC_NONCE_LEN);
  assert_int_equal(kind, BDK_FRAME_CHALLENGE);
  return bdk_assoc_write(&c->assoc, BDK_FRAME_CHALLENGE_ANSWER, nonce, BDK_ASSOC_NONCE_LEN, frame, BDK_DATAGRAM_MAX);
}

static void a_client_that_moves_is_asked_there(void **state) {
  (void)state;
  world w;
  client c;
  uint8_t challenge[BDK_DATAGRAM_MAX], out[BDK_DATAGRAM_MAX], frame[BDK_DATAGRAM_MAX], late[BDK_DATAGRAM_MAX];
  size_t n, asked;
  bdk_route home = place(1), there = place(2), third = place(3);
  world_open(&w, 0, 1);
  join(&w, &c, 1);
  size_t late_len = say(&c, "an older one", late);
  assert_int_equal(from(&w, &c, &there, challenge, &asked), BDK_ASSOC_SEND);
  assert_told(&w, &c, &home, "still here"); // nothing goes there yet
  size_t len = answer_challenge(&c, challenge, asked, frame);
  assert_int_equal(give(&w, &third, frame, len, out, &n), BDK_ASSOC_DROP); // from a wrong place
  assert_int_equal(counted(&w, BDK_COUNT_client_moved), 0);
  assert_told(&w, &c, &home, "still here");
  assert_int_equal(from(&w, &c, &there, challenge, &asked), BDK_ASSOC_SEND); // the same question
  len = answer_challenge(&c, challenge, asked, frame);
  assert_int_equal(give(&w, &there, frame, len, out, &n), BDK_ASSOC_MOVED);
  assert_int_equal(counted(&w, BDK_COUNT_client_moved), 1);
  assert_told(&w, &c, &there, "now here");
  c.at = there;
  assert_heard(&w, &c, "from there");
  // An older frame from elsewhere asks nothing: it may have been held back on the way.
  uint64_t dropped = counted(&w, BDK_COUNT_drop_state);
  assert_int_equal(give(&w, &third, late, late_len, out, &n), BDK_ASSOC_DROP);
  assert_int_equal(counted(&w, BDK_COUNT_drop_state), dropped + 1);
  assert_told(&w, &c, &there, "still there");
  world_close(&w);
}

static void a_challenge_ends_when_the_client_is_heard_at_home(void **state) {
  (void)state;
  world w;
  client c;
  uint8_t challenge[BDK_DATAGRAM_MAX], out[BDK_DATAGRAM_MAX], frame[BDK_DATAGRAM_MAX], wrong[BDK_DATAGRAM_MAX];
  size_t n, asked;
  bdk_route home = place(1), there = place(2), third = place(3);
  world_open(&w, 0, 1);
  join(&w, &c, 1);
  assert_int_equal(from(&w, &c, &there, challenge, &asked), BDK_ASSOC_SEND);
  size_t len = answer_challenge(&c, challenge, asked, frame);
  assert_heard(&w, &c, "at home");
  assert_int_equal(give(&w, &there, frame, len, out, &n), BDK_ASSOC_DROP);
  // A wrong answer from the right place, and one that is too short.
  assert_int_equal(from(&w, &c, &there, challenge, &asked), BDK_ASSOC_SEND);
  len = bdk_assoc_write(&c.assoc, BDK_FRAME_CHALLENGE_ANSWER, (const uint8_t *)"12345678", 8, wrong, sizeof wrong);
  assert_int_equal(give(&w, &there, wrong, len, out, &n), BDK_ASSOC_DROP);
  len = bdk_assoc_write(&c.assoc, BDK_FRAME_CHALLENGE_ANSWER, NULL, 0, wrong, sizeof wrong);
  assert_int_equal(give(&w, &there, wrong, len, out, &n), BDK_ASSOC_DROP);
  // Asked at a third place, the answer to the second's question counts nowhere.
  size_t second = answer_challenge(&c, challenge, asked, frame);
  assert_int_equal(from(&w, &c, &third, challenge, &asked), BDK_ASSOC_SEND);
  assert_int_equal(give(&w, &third, frame, second, out, &n), BDK_ASSOC_DROP);
  assert_told(&w, &c, &home, "here");
  len = answer_challenge(&c, challenge, asked, frame);
  assert_int_equal(give(&w, &third, frame, len, out, &n), BDK_ASSOC_MOVED);
  // The same place by another socket is another place.
  third.sock = 2;
  assert_int_equal(from(&w, &c, &third, challenge, &asked), BDK_ASSOC_SEND);
  world_close(&w);
}

// Somebody who pretends to be elsewhere makes the server send there no more than he sent.
static void a_challenge_is_no_longer_than_what_it_answers(void **state) {
  (void)state;
  world w;
  client c;
  uint8_t frame[BDK_DATAGRAM_MAX], out[BDK_DATAGRAM_MAX];
  bdk_route there = place(2);
  world_open(&w, 0, 1);
  join(&w, &c, 1);
  for (size_t size = 0; size < 20; size++) {
    size_t n = 0;
    size_t len = bdk_assoc_write(&c.assoc, BDK_FRAME_MESSAGE, frame, size, frame, sizeof frame);
    bdk_assoc_verdict v = give(&w, &there, frame, len, out, &n);
    assert_int_equal(v, size < BDK_ASSOC_NONCE_LEN ? BDK_ASSOC_DROP : BDK_ASSOC_SEND);
    if (v == BDK_ASSOC_SEND) assert_true(n <= len);
  }
  world_close(&w);
}

static void sweeping_takes_what_has_had_its_time(void **state) {
  (void)state;
  world w;
  client used, pending;
  uint8_t payload[BDK_NOISE_MAX], frame[BDK_DATAGRAM_MAX], out[BDK_DATAGRAM_MAX];
  size_t n;
  bool again;
  world_open(&w, 0, 1);
  uint32_t none = 10;
  bdk_addr origin;
  assert_false(bdk_assocs_sweep(w.table, w.now_us, &none, &origin)); // an empty table
  join(&w, &used, 1);
  assert_heard(&w, &used, "up");
  begin(&w, &pending, 2, &w.keys[0], "ask");
  assert_int_equal(offer(&w, &pending, &pending.at, payload, &again), 3);
  answer(&w, &pending, "tell");
  uint64_t start_us = w.now_us;
  w.now_us = start_us + BDK_ASSOC_PENDING_US - 1;
  assert_int_equal(sweep(&w), 0);
  w.now_us = start_us + BDK_ASSOC_PENDING_US;
  uint32_t budget = 1000;
  assert_true(bdk_assocs_sweep(w.table, w.now_us, &budget, &origin));
  assert_true(bdk_addr_equal(&origin, &pending.at.remote));
  assert_false(bdk_assocs_sweep(w.table, w.now_us, &budget, &origin));
  assert_int_equal(bdk_assocs_count(w.table), 1);
  take_answer(&pending, "tell");
  size_t len = say(&pending, "too late", frame);
  assert_int_equal(give(&w, &pending.at, frame, len, out, &n), BDK_ASSOC_UNKNOWN);
  assert_int_equal(offer(&w, &pending, &pending.at, payload, &again), BDK_E_CLOSED);
  // Each message gives it as much again; what is forged does not.
  w.now_us = start_us + BDK_ASSOC_IDLE_US - 1;
  assert_int_equal(sweep(&w), 0);
  assert_heard(&w, &used, "up");
  w.now_us += BDK_ASSOC_IDLE_US - 1;
  len = say(&used, "forged", frame);
  frame[20] ^= 1;
  assert_int_equal(give(&w, &used.at, frame, len, out, &n), BDK_ASSOC_DROP);
  assert_int_equal(sweep(&w), 0);
  w.now_us++;
  assert_int_equal(sweep(&w), 1);
  assert_int_equal(bdk_assocs_count(w.table), 0);
  len = say(&used, "gone", frame);
  assert_int_equal(give(&w, &used.at, frame, len, out, &n), BDK_ASSOC_UNKNOWN);
  bdk_route to;
  assert_int_equal(bdk_assocs_write(w.table, used.index, out, 4, frame, sizeof frame, &to), 0);
  world_close(&w);
}

static void the_table_has_a_limit_and_gives_places_again(void **state) {
  (void)state;
  world w;
  client c;
  uint8_t payload[BDK_NOISE_MAX];
  bool again;
  world_open(&w, 3, 1);
  uint32_t indices[3];
  for (uint32_t i = 0; i < 3; i++) {
    join(&w, &c, i);
    indices[i] = c.index;
  }
  begin(&w, &c, 9, &w.keys[0], "ask");
  assert_int_equal(offer(&w, &c, &c.at, payload, &again), BDK_E_LIMIT);
  w.now_us += BDK_ASSOC_PENDING_US;
  assert_int_equal(sweep(&w), 3);
  assert_int_equal(offer(&w, &c, &c.at, payload, &again), 3);                 // it was not remembered
  for (uint32_t i = 0; i < 3; i++) assert_int_not_equal(c.index, indices[i]); // though it has a place of theirs
  world_close(&w);
}

// An allocation fails at each point in turn: nothing is half there, and the client may go on as if nothing had been.
// The points between repeat those of the first few clients, up to where the table grows.
static void any_allocation_may_fail(void **state) {
  (void)state;
  size_t total = 0;
  for (size_t at = 0; at <= total; at = at == 15 ? total - 20 : at + 1) {
    world w = {.now_us = SECOND};
    for (uint8_t i = 0; i < 2; i++) w.keys[i] = pair_of(i, 1);
    w.heap.fail_at = at;
    bdk_assocs_config config = config_of(&w, 0, 1);
    w.table = bdk_assocs_new(&config);
    if (!w.table) {
      assert_in_range(at, 1, 3);
      assert_int_equal(w.heap.blocks, 0);
      continue;
    }
    for (uint32_t i = 0; i < 70 && (!at || w.heap.calls < at + 9); i++) { // so many that the table grows
      client c;
      uint8_t payload[BDK_NOISE_MAX];
      bool again;
      begin(&w, &c, i, &w.keys[0], "ask");
      int n = offer(&w, &c, &c.at, payload, &again);
      if (n < 0) {
        assert_int_equal(n, BDK_E_LIMIT);
        assert_int_equal(bdk_assocs_count(w.table), i);
        n = offer(&w, &c, &c.at, payload, &again);
      }
      assert_int_equal(n, 3);
      assert_false(again);
      answer(&w, &c, "tell");
      take_answer(&c, "tell");
      assert_heard(&w, &c, "up");
    }
    assert_true(w.heap.calls >= at);
    if (at == 0) total = w.heap.calls;
    world_close(&w);
  }
  assert_true(total > 200);
}

static void ten_thousand(void **state) {
  (void)state;
  enum { MANY = 10000 };
  world w;
  client *all = calloc(MANY, sizeof *all);
  assert_non_null(all);
  world_open(&w, MANY, 1);
  for (uint32_t i = 0; i < MANY; i++) {
    join(&w, &all[i], i);
    w.now_us += 100;
  }
  assert_int_equal(bdk_assocs_count(w.table), MANY);
  size_t bytes = w.heap.bytes;
  for (uint32_t i = 0; i < MANY; i++) {
    assert_heard(&w, &all[i], "up");
    assert_memory_equal(bdk_assocs_key(w.table, all[i].index), all[i].own.public, BDK_DH_LEN);
  }
  assert_true(w.heap.bytes < bytes); // the answers are kept no longer
  assert_true(w.heap.bytes / MANY < 600);
  // Every second one stays; the others' places are given again, and no frame of theirs is another's.
  w.now_us += BDK_ASSOC_IDLE_US / 2;
  for (uint32_t i = 0; i < MANY; i += 2) assert_heard(&w, &all[i], "up");
  w.now_us += BDK_ASSOC_IDLE_US / 2;
  assert_int_equal(sweep(&w), MANY / 2);
  client extra;
  for (uint32_t i = 1; i < 200; i += 2) {
    uint8_t frame[BDK_DATAGRAM_MAX], out[BDK_DATAGRAM_MAX];
    size_t n;
    join(&w, &extra, MANY + i);
    size_t len = say(&all[i], "gone", frame);
    assert_int_equal(give(&w, &all[i].at, frame, len, out, &n), BDK_ASSOC_UNKNOWN);
    assert_heard(&w, &all[i - 1], "up");
    assert_heard(&w, &extra, "up");
  }
  assert_int_equal(bdk_assocs_count(w.table), MANY / 2 + 100);
  world_close(&w);
  free(all);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(both_ends_talk),
      cmocka_unit_test(either_key_of_the_server_will_do),
      cmocka_unit_test(a_repeat_gets_the_same_bytes_until_it_is_used),
      cmocka_unit_test(a_first_message_is_remembered_for_half_an_hour),
      cmocka_unit_test(what_is_forged_or_cut_opens_nothing),
      cmocka_unit_test(first_messages_carry_an_index_of_a_client),
      cmocka_unit_test(keys_of_low_order_are_refused),
      cmocka_unit_test(frames_forged_cut_or_repeated_are_dropped),
      cmocka_unit_test(the_window_is_64),
      cmocka_unit_test(a_client_that_moves_is_asked_there),
      cmocka_unit_test(a_challenge_ends_when_the_client_is_heard_at_home),
      cmocka_unit_test(a_challenge_is_no_longer_than_what_it_answers),
      cmocka_unit_test(sweeping_takes_what_has_had_its_time),
      cmocka_unit_test(the_table_has_a_limit_and_gives_places_again),
      cmocka_unit_test(any_allocation_may_fail),
      cmocka_unit_test(ten_thousand),
  };
  return cmocka_run_group_tests_name("assoc", tests, NULL, NULL);
}
