// SPDX-License-Identifier: MIT
#include "assoc.h"

#include <sodium.h>
#include <string.h>

#define MAX_DEFAULT 200000u
#define PLACE_BITS 20u // of an index; what is above it no stray frame guesses
#define PLACES (1u << PLACE_BITS)
#define BUCKETS 1024u         // of associations that wait to be used
#define SEEN_FIRST (1u << 10) // places for first messages remembered, a generation; they grow to
#define SEEN_LAST (1u << 16)
#define WINDOW 64u

static const uint8_t prologue[] = "bodkin server 1";

typedef struct assoc {
  uint32_t index, peer_index;
  uint8_t tx[BDK_KEY_LEN], rx[BDK_KEY_LEN], key[BDK_DH_LEN];
  uint64_t tx_counter, top, bits; // a window of 64: requests are few
  uint64_t heard_us;
  bdk_route at, moving; // proven; and where it seems to have moved to
  uint8_t nonce[BDK_ASSOC_NONCE_LEN];
  bdk_addr origin;
  bool used, asked, left; // used: its client has the answer; asked: `nonce` is out; left: its client leaves
  // until it is used
  uint64_t tag;
  uint32_t next; // place of the next one in the bucket, + 1
  uint16_t answer_len;
  uint8_t *answer;
  bdk_noise *noise;
} assoc;

// A set of tags, open addressing; 0: free.
typedef struct tags {
  uint64_t *slots;
  uint32_t cap, count;
} tags;

struct bdk_assocs {
  bdk_assocs_config config;
  assoc **places;
  uint32_t cap, count, hand, lowest; // hand: of the sweep; lowest: no free place below it
  uint32_t waiting[BUCKETS];         // place + 1
  tags seen[2];                      // the younger generation first
  uint64_t turned_us, drawn;
};

static void *take(bdk_assocs *t, size_t size) {
  void *p = t->config.alloc.resize(t->config.alloc.ctx, NULL, 0, size);
  if (p) memset(p, 0, size);
  return p;
}

static void give(bdk_assocs *t, void *p, size_t size) {
  if (!p) return;
  sodium_memzero(p, size);
  t->config.alloc.resize(t->config.alloc.ctx, p, size, 0);
}

static void count(bdk_assocs *t, bdk_counter which) { bdk_count(t->config.counters, which, 1); }

static void draw(bdk_assocs *t, void *out, size_t len) {
  uint8_t nonce[crypto_stream_chacha20_NONCEBYTES];
  uint64_t n = t->drawn++;
  memcpy(nonce, &n, sizeof n);
  crypto_stream_chacha20(out, len, nonce, t->config.seed);
}

bdk_assocs *bdk_assocs_new(const bdk_assocs_config *config) {
  bdk_assocs *t = config->alloc.resize(config->alloc.ctx, NULL, 0, sizeof *t);
  if (!t) return NULL;
  memset(t, 0, sizeof *t);
  t->config = *config;
  if (!t->config.max) t->config.max = MAX_DEFAULT;
  if (t->config.max > PLACES) t->config.max = PLACES;
  for (int i = 0; i < 2; i++) {
    t->seen[i].slots = take(t, SEEN_FIRST * sizeof(uint64_t));
    t->seen[i].cap = SEEN_FIRST;
  }
  if (t->seen[0].slots && t->seen[1].slots) return t;
  bdk_assocs_free(t);
  return NULL;
}

static void drop_handshake(bdk_assocs *t, assoc *a) {
  give(t, a->answer, a->answer_len);
  give(t, a->noise, sizeof *a->noise);
  a->answer = NULL;
  a->noise = NULL;
}

static void leave_bucket(bdk_assocs *t, const assoc *a) {
  uint32_t *at = &t->waiting[a->tag % BUCKETS];
  while (*at && t->places[*at - 1] != a) at = &t->places[*at - 1]->next;
  if (*at) *at = a->next;
}

static void drop(bdk_assocs *t, uint32_t place) {
  assoc *a = t->places[place];
  if (!a->used) leave_bucket(t, a);
  drop_handshake(t, a);
  give(t, a, sizeof *a);
  t->places[place] = NULL;
  t->count--;
  if (place < t->lowest) t->lowest = place;
}

void bdk_assocs_free(bdk_assocs *t) {
  if (!t) return;
  for (uint32_t i = 0; i < t->cap; i++)
    if (t->places[i]) drop(t, i);
  give(t, t->places, t->cap * sizeof *t->places);
  for (int i = 0; i < 2; i++) give(t, t->seen[i].slots, t->seen[i].cap * sizeof(uint64_t));
  bdk_alloc alloc = t->config.alloc;
  sodium_memzero(t, sizeof *t);
  alloc.resize(alloc.ctx, t, sizeof *t, 0);
}

uint32_t bdk_assocs_count(const bdk_assocs *t) { return t->count; }
uint32_t bdk_assocs_places(const bdk_assocs *t) { return t->cap; }

static assoc *find(const bdk_assocs *t, uint32_t index) {
  uint32_t place = index & (PLACES - 1);
  assoc *a = place < t->cap ? t->places[place] : NULL;
  return a && a->index == index ? a : NULL;
}

const uint8_t *bdk_assocs_key(const bdk_assocs *t, uint32_t index) {
  const assoc *a = find(t, index);
  return a ? a->key : NULL;
}

// A free place in `*place`; false when there is none, or no memory.
static bool find_place(bdk_assocs *t, uint32_t *place) {
  if (t->count >= t->config.max) return false;
  for (uint32_t i = t->lowest; i < t->cap; i++)
    if (!t->places[i]) {
      *place = i;
      return true;
    }
  uint32_t cap = t->cap ? t->cap * 2 : 64;
  assoc **places =
      t->config.alloc.resize(t->config.alloc.ctx, t->places, t->cap * sizeof *places, cap * sizeof *places);
  if (!places) return false;
  memset(places + t->cap, 0, (cap - t->cap) * sizeof *places);
  *place = t->cap;
  t->places = places;
  t->cap = cap;
  return true;
}

// --- first messages
static uint64_t *slot(const tags *set, uint64_t tag) {
  uint32_t i = (uint32_t)(tag % set->cap);
  while (set->slots[i] && set->slots[i] != tag) i = (i + 1) % set->cap;
  return &set->slots[i];
}

static bool full(const tags *set) { return set->count >= set->cap / 4 * 3; } // fuller, its searches grow long

// Twice the places, where there may be more and memory is to be had.
static void grow(bdk_assocs *t, tags *set) {
  if (set->cap >= SEEN_LAST) return;
  tags wider = {take(t, 2 * set->cap * sizeof(uint64_t)), 2 * set->cap, set->count};
  if (!wider.slots) return;
  for (uint32_t i = 0; i < set->cap; i++)
    if (set->slots[i]) *slot(&wider, set->slots[i]) = set->slots[i];
  give(t, set->slots, set->cap * sizeof(uint64_t));
  *set = wider;
}

// Of two generations the older is forgotten when the younger is old, or full.
static void turn(bdk_assocs *t, uint64_t now_us) {
  if (full(&t->seen[0])) grow(t, &t->seen[0]);
  if (now_us - t->turned_us < BDK_ASSOC_REPLAY_US && !full(&t->seen[0])) return;
  tags old = t->seen[1];
  t->seen[1] = t->seen[0];
  memset(old.slots, 0, old.cap * sizeof(uint64_t));
  old.count = 0;
  t->seen[0] = old;
  t->turned_us = now_us;
}

static bool seen(bdk_assocs *t, uint64_t tag) { return *slot(&t->seen[0], tag) || *slot(&t->seen[1], tag); }

static void note_seen(bdk_assocs *t, uint64_t tag) {
  *slot(&t->seen[0], tag) = tag;
  t->seen[0].count++;
}

// Keyed, so that nobody chooses where an ephemeral of theirs lands; 0 marks a free slot.
static uint64_t tag_of(const bdk_assocs *t, const uint8_t ephemeral[BDK_DH_LEN]) {
  uint64_t tag;
  crypto_shorthash((uint8_t *)&tag, ephemeral, BDK_DH_LEN, t->config.seed);
  return tag ? tag : 1;
}

static bool same_place(const bdk_route *a, const bdk_route *b) {
  return a->sock == b->sock && bdk_addr_equal(&a->remote, &b->remote);
}

static assoc *find_waiting(bdk_assocs *t, uint64_t tag) {
  for (uint32_t at = t->waiting[tag % BUCKETS]; at; at = t->places[at - 1]->next)
    if (t->places[at - 1]->tag == tag) return t->places[at - 1];
  return NULL;
}

// Reads it with each of our keys in turn.
static int read_first(bdk_assocs *t, bdk_noise *noise, const uint8_t *bytes, size_t len, uint8_t *payload) {
  uint8_t secret[BDK_DH_LEN];
  bdk_keypair ephemeral;
  int n = BDK_E_BAD_KEY;
  draw(t, secret, sizeof secret);
  bdk_keypair_init(&ephemeral, secret);
  for (int i = 0; i < t->config.key_count && n < 0; i++) {
    bdk_noise_init(noise, &(bdk_noise_config){.pattern = BDK_NOISE_IK,
                                              .prologue = prologue,
                                              .prologue_len = sizeof prologue - 1,
                                              .own = &t->config.keys[i],
                                              .own_ephemeral = &ephemeral});
    n = bdk_noise_read(noise, bytes, len, payload, BDK_NOISE_MAX);
  }
  sodium_memzero(secret, sizeof secret);
  sodium_memzero(&ephemeral, sizeof ephemeral);
  return n;
}

static uint32_t get_index(const uint8_t *p) {
  return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void put_index(uint8_t *p, uint32_t index) {
  for (int i = 0; i < 4; i++) p[i] = (uint8_t)(index >> (24 - 8 * i));
}

static int add(bdk_assocs *t, uint64_t now_us, const bdk_route *from, bdk_noise *noise, uint64_t tag,
               uint32_t peer_index, uint32_t *index) {
  uint32_t place, high;
  if (!find_place(t, &place)) return BDK_E_LIMIT;
  assoc *a = take(t, sizeof *a);
  if (a) a->noise = take(t, sizeof *a->noise);
  if (!a || !a->noise) {
    give(t, a, sizeof *a);
    return BDK_E_LIMIT;
  }
  do draw(t, &high, sizeof high);
  while (high < PLACES); // 0 means none
  *a->noise = *noise;
  memcpy(a->key, noise->peer, sizeof a->key);
  a->index = (high & ~(PLACES - 1)) | place;
  a->peer_index = peer_index;
  a->at = *from;
  a->origin = from->remote;
  a->heard_us = now_us;
  a->tag = tag;
  a->next = t->waiting[tag % BUCKETS];
  t->waiting[tag % BUCKETS] = place + 1;
  t->places[place] = a;
  t->count++;
  t->lowest = place + 1;
  note_seen(t, tag);
  *index = a->index;
  return BDK_OK;
}

int bdk_assocs_open(bdk_assocs *t, uint64_t now_us, const bdk_route *from, const uint8_t *bytes, size_t len,
                    uint8_t *payload, uint32_t *index, bool *again) {
  *again = false;
  if (len < BDK_IK_FIRST + BDK_ASSOC_INDEX_LEN || len > BDK_NOISE_MAX) return BDK_E_BAD_KEY;
  turn(t, now_us);
  uint64_t tag = tag_of(t, bytes);
  if (seen(t, tag)) {
    assoc *a = find_waiting(t, tag);
    if (!a || !same_place(&a->at, from)) return BDK_E_CLOSED;
    *index = a->index;
    *again = true;
    return 0;
  }
  bdk_noise noise;
  int n = read_first(t, &noise, bytes, len, payload);
  if (n < 0) return BDK_E_BAD_KEY;
  uint32_t peer_index = get_index(payload);
  int error = peer_index && peer_index <= BDK_ASSOC_CLIENT_MAX ? 0 : BDK_E_BAD_KEY;
  if (!error) error = add(t, now_us, from, &noise, tag, peer_index, index);
  bdk_noise_clear(&noise);
  if (error) return error;
  memmove(payload, payload + BDK_ASSOC_INDEX_LEN, (size_t)n - BDK_ASSOC_INDEX_LEN);
  return n - (int)BDK_ASSOC_INDEX_LEN;
}

size_t bdk_assocs_answer(bdk_assocs *t, uint32_t index, const uint8_t *messages, size_t len, uint8_t *out, size_t cap) {
  assoc *a = find(t, index);
  if (!a) return 0;
  if (!a->noise) {
    if (!a->answer || a->answer_len > cap) return 0;
    memcpy(out, a->answer, a->answer_len);
    return a->answer_len;
  }
  uint8_t payload[BDK_DATAGRAM_MAX];
  if (len > sizeof payload - BDK_ASSOC_INDEX_LEN) return 0;
  put_index(payload, a->index);
  if (len) memcpy(payload + BDK_ASSOC_INDEX_LEN, messages, len);
  int n = bdk_noise_write(a->noise, payload, BDK_ASSOC_INDEX_LEN + len, out, cap);
  if (n < 0) return 0;
  bdk_noise_split(a->noise, a->rx, a->tx);
  give(t, a->noise, sizeof *a->noise);
  a->noise = NULL;
  a->answer = take(t, (size_t)n); // without it a repeat goes unanswered, and the client begins anew
  a->answer_len = (uint16_t)n;
  if (a->answer) memcpy(a->answer, out, (size_t)n);
  return (size_t)n;
}

// --- frames
static bool fresh(const assoc *a, uint64_t counter) {
  if (counter >= a->top) return true;
  uint64_t age = a->top - 1 - counter;
  return age < WINDOW && !(a->bits >> age & 1);
}

static void mark(assoc *a, uint64_t counter) {
  if (counter >= a->top) {
    uint64_t ahead = counter + 1 - a->top;
    a->bits = ahead < WINDOW ? a->bits << ahead : 0;
    a->top = counter + 1;
  }
  a->bits |= (uint64_t)1 << (a->top - 1 - counter);
}

static size_t seal(assoc *a, bdk_frame_kind kind, const uint8_t *data, size_t len, uint8_t *out, size_t cap) {
  size_t n = a->noise ? 0 : bdk_frame_write(a->tx, a->peer_index, kind, a->tx_counter, data, len, out, cap);
  if (n) a->tx_counter++;
  return n;
}

size_t bdk_assocs_write(bdk_assocs *t, uint32_t index, const uint8_t *message, size_t len, uint8_t *out, size_t cap,
                        bdk_route *to) {
  assoc *a = find(t, index);
  if (!a) return 0;
  *to = a->at;
  return seal(a, BDK_FRAME_MESSAGE, message, len, out, cap);
}

// From another address than before, and its newest: whether the client is there, only an answer from there shows.
static bdk_assoc_verdict ask(bdk_assocs *t, assoc *a, const bdk_route *route, uint8_t *out, size_t *out_len) {
  if (*out_len < sizeof a->nonce) return BDK_ASSOC_DROP; // the question would be longer
  if (!a->asked || !same_place(&a->moving, route)) {
    a->moving = *route;
    a->asked = true;
    draw(t, a->nonce, sizeof a->nonce);
  }
  *out_len = seal(a, BDK_FRAME_CHALLENGE, a->nonce, sizeof a->nonce, out, BDK_DATAGRAM_MAX);
  return *out_len ? BDK_ASSOC_SEND : BDK_ASSOC_DROP;
}

static bdk_assoc_verdict on_frame(bdk_assocs *t, assoc *a, const bdk_route *route, uint8_t kind, bool newest,
                                  uint8_t *out, size_t *out_len) {
  bool here = same_place(&a->at, route);
  switch (kind) {
  case BDK_FRAME_MESSAGE:
    if (here) {
      a->at.local = route->local;
      if (newest) a->asked = false;
      return BDK_ASSOC_MESSAGE;
    }
    // What is sent to an address that has not answered is no longer than what came from there.
    if (newest && *out_len >= sizeof a->nonce) return ask(t, a, route, out, out_len);
    break;
  case BDK_FRAME_CHALLENGE_ANSWER:
    if (!a->asked || !same_place(&a->moving, route) || *out_len != sizeof a->nonce ||
        sodium_memcmp(a->nonce, out, sizeof a->nonce) != 0)
      break;
    a->at = *route;
    a->asked = false;
    count(t, BDK_COUNT_client_moved);
    return BDK_ASSOC_MOVED;
  }
  count(t, BDK_COUNT_drop_state);
  return BDK_ASSOC_DROP;
}

bdk_assoc_verdict bdk_assocs_input(bdk_assocs *t, uint64_t now_us, const bdk_route *route, const uint8_t *bytes,
                                   size_t len, uint8_t *out, size_t *out_len, uint32_t *index) {
  uint8_t kind;
  uint64_t counter;
  if (len > BDK_DATAGRAM_MAX || !bdk_frame_head(bytes, len, index, &kind, &counter)) {
    count(t, BDK_COUNT_drop_frame);
    return BDK_ASSOC_DROP;
  }
  assoc *a = find(t, *index);
  if (!a) return BDK_ASSOC_UNKNOWN;
  bool forged = a->noise || (fresh(a, counter) && !bdk_frame_open(a->rx, bytes, len, out));
  if (forged || !fresh(a, counter)) {
    count(t, forged ? BDK_COUNT_drop_frame : BDK_COUNT_drop_replay);
    return BDK_ASSOC_DROP;
  }
  bool newest = counter >= a->top;
  mark(a, counter);
  a->heard_us = now_us;
  a->left = false;
  if (!a->used) {
    leave_bucket(t, a);
    drop_handshake(t, a);
    a->used = true;
  }
  *out_len = len - BDK_FRAME_OVERHEAD;
  return on_frame(t, a, route, kind, newest, out, out_len);
}

void bdk_assocs_left(bdk_assocs *t, uint32_t index) {
  assoc *a = find(t, index);
  if (a) a->left = true;
}

static uint64_t patience_us(const assoc *a) {
  if (a->left) return BDK_ASSOC_LEFT_US;
  return a->used ? BDK_ASSOC_IDLE_US : BDK_ASSOC_PENDING_US;
}

bool bdk_assocs_sweep(bdk_assocs *t, uint64_t now_us, uint32_t *budget, bdk_addr *origin) {
  for (; *budget && t->cap; --*budget) {
    uint32_t place = t->hand;
    t->hand = (t->hand + 1) % t->cap;
    assoc *a = t->places[place];
    if (!a || now_us - a->heard_us < patience_us(a)) continue;
    *origin = a->origin;
    drop(t, place);
    --*budget; // so that many that end at once take their turns, too
    return true;
  }
  return false;
}

// --- a client's
int bdk_assoc_begin(bdk_assoc *a, const bdk_keypair *own, const bdk_keypair *ephemeral,
                    const uint8_t server[BDK_DH_LEN], uint32_t index, const uint8_t *messages, size_t len, uint8_t *out,
                    size_t cap) {
  uint8_t payload[BDK_DATAGRAM_MAX];
  memset(a, 0, sizeof *a);
  if (len > sizeof payload - BDK_ASSOC_INDEX_LEN) return BDK_E_INVALID;
  a->index = index;
  put_index(payload, index);
  if (len) memcpy(payload + BDK_ASSOC_INDEX_LEN, messages, len);
  bdk_noise_init(&a->noise, &(bdk_noise_config){.pattern = BDK_NOISE_IK,
                                                .initiator = true,
                                                .prologue = prologue,
                                                .prologue_len = sizeof prologue - 1,
                                                .own = own,
                                                .own_ephemeral = ephemeral,
                                                .peer = server});
  return bdk_noise_write(&a->noise, payload, BDK_ASSOC_INDEX_LEN + len, out, cap);
}

int bdk_assoc_answered(bdk_assoc *a, const uint8_t *bytes, size_t len, uint8_t *out, size_t cap) {
  uint8_t tx[BDK_KEY_LEN], rx[BDK_KEY_LEN], payload[BDK_DATAGRAM_MAX];
  if (a->open || !a->noise.initiator) return BDK_E_INVALID; // or not begun, or cleared
  bdk_noise noise = a->noise;                               // what is forged must not end it
  int n = bdk_noise_read(&noise, bytes, len, payload, sizeof payload);
  if (n < (int)BDK_ASSOC_INDEX_LEN || (size_t)n - BDK_ASSOC_INDEX_LEN > cap) {
    bdk_noise_clear(&noise);
    return n < 0 ? n : BDK_E_BAD_KEY;
  }
  a->peer_index = get_index(payload);
  n -= (int)BDK_ASSOC_INDEX_LEN;
  memcpy(out, payload + BDK_ASSOC_INDEX_LEN, (size_t)n);
  bdk_noise_split(&noise, tx, rx);
  bdk_noise_clear(&a->noise);
  bdk_seal_init(&a->seal, tx, rx, 0);
  sodium_memzero(tx, sizeof tx);
  sodium_memzero(rx, sizeof rx);
  a->open = true;
  return n;
}

size_t bdk_assoc_write(bdk_assoc *a, bdk_frame_kind kind, const uint8_t *data, size_t len, uint8_t *out, size_t cap) {
  return a->open ? bdk_seal_write(&a->seal, a->peer_index, kind, data, len, out, cap) : 0;
}

int bdk_assoc_read(bdk_assoc *a, const uint8_t *bytes, size_t len, uint8_t *out, uint8_t *kind) {
  uint32_t index;
  uint64_t counter;
  if (!a->open || len > BDK_DATAGRAM_MAX || !bdk_frame_head(bytes, len, &index, kind, &counter) || index != a->index)
    return BDK_E_BAD_KEY;
  if (bdk_seal_open(&a->seal, 0, bytes, len, out) != BDK_SEAL_OPENED) return BDK_E_BAD_KEY;
  return (int)(len - BDK_FRAME_OVERHEAD);
}

void bdk_assoc_clear(bdk_assoc *a) { sodium_memzero(a, sizeof *a); }
