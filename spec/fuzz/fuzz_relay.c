// SPDX-License-Identifier: MIT
// The relay's table beside a model of it that knows only what it promises: programs of opened ends, datagrams from
// anywhere on any channel, and time, with allocations that fail between. Nothing goes anywhere but to the other end of
// the pair it came from, under that one's tag; and no end gets more through than its share.
#include <sodium.h>

#include "core/relay.h"
#include "fuzz.h"

#define PAIRS 5
#define MAX 3 // of them at once
#define RATE 1000u
#define BURST 1500u
#define SECOND 1000000u

typedef struct side {
  bool there;
  bdk_route route;
  uint32_t tag, channel;
  uint8_t tx, hello[BDK_RELAY_HELLO_MAX], hello_len;
  uint64_t since_us, sent; // what got through, from then on
  uint64_t quiet_us;       // when it last sent anything
} side;

typedef struct known {
  bool there;
  uint64_t heard_us, expires_us, bytes;
  side sides[2];
} known;

typedef struct world {
  bdk_relay *r;
  bdk_relay_config config;
  bdk_counters counters;
  fuzz_heap heap;
  known at[PAIRS];
  uint32_t count, forwarded;
  uint64_t now_us;
} world;

// One of eight places: four addresses at each of two sockets.
static bdk_route place(uint8_t n) {
  bdk_route r = {.sock = (uint16_t)(1 + (n >> 2 & 1))};
  r.remote = (bdk_addr){.ip = {203, 0, 113, (uint8_t)(1 + (n & 1))}, .port = (uint16_t)(1 + (n & 2)), .family = 4};
  return r;
}

static bool same_place(const bdk_route *a, const bdk_route *b) {
  return a->sock == b->sock && bdk_addr_equal(&a->remote, &b->remote);
}

static side *owner(world *w, uint32_t channel, known **pair) {
  for (int i = 0; i < 2 * PAIRS; i++) {
    *pair = &w->at[i / 2];
    if ((*pair)->there && (*pair)->sides[i % 2].there && (*pair)->sides[i % 2].channel == channel)
      return &(*pair)->sides[i % 2];
  }
  return NULL;
}

static void told(const bdk_relay_end *end, const side *s, const side *other) {
  static const uint8_t rest[BDK_TX_LEN - 1] = {0};
  REQUIRE(same_place(&end->to, &s->route) && end->channel == s->channel);
  REQUIRE(end->tx[0] == s->tx && memcmp(end->tx + 1, rest, sizeof rest) == 0);
  REQUIRE(end->hello_len == (other->there ? other->hello_len : 0));
  REQUIRE(end->hello_len == 0 || memcmp(end->hello, other->hello, end->hello_len) == 0);
}

static void open_side(world *w, fuzz_input *in) {
  uint8_t n = fuzz_take(in), where = fuzz_take(in), hello[BDK_RELAY_HELLO_MAX], name[BDK_RELAY_PAIR_LEN] = {0};
  uint8_t tx[BDK_TX_LEN] = {fuzz_take(in)}, role = n >> 7;
  known *k = &w->at[n % PAIRS], *owning;
  side *s = &k->sides[role], *other = &k->sides[1 - role];
  memset(hello, where >> 5, sizeof hello);
  name[0] = n % PAIRS & 1; // by their beginnings they are told apart first, and some have the same
  name[15] = (uint8_t)(n % PAIRS);
  bdk_relay_request request = {.pair = name, .role = role, .from = place(where), .tag = 0x01020300u + tx[0], .tx = tx};
  request.expires_us = w->now_us + (where >> 3 & 3) * 50 * SECOND;
  request.hello = hello;
  request.hello_len = where >> 5 ? 10u * (where >> 5) : BDK_RELAY_HELLO_MAX;
  bdk_relay_end own, theirs;
  bool news = false, may_fail = w->heap.fail_in;
  int error = bdk_relay_open(w->r, w->now_us, &request, &own, &theirs, &news);
  if ((!k->there && w->count == MAX) || (k->there && k->bytes > w->config.bytes_max && w->config.bytes_max)) {
    REQUIRE(error == BDK_E_LIMIT);
    return;
  }
  REQUIRE(error == 0 || (error == BDK_E_LIMIT && may_fail && !k->there));
  if (error) return;
  if (!k->there) {
    *k = (known){.there = true};
    w->count++;
  }
  bool changed = !s->there || s->hello_len != request.hello_len || memcmp(s->hello, hello, s->hello_len) != 0;
  if (!s->there) {
    REQUIRE(!owner(w, own.channel, &owning));
    *s = (side){.there = true, .channel = own.channel, .since_us = w->now_us, .quiet_us = w->now_us};
  }
  s->route = request.from;
  s->tag = request.tag;
  s->tx = tx[0];
  s->hello_len = (uint8_t)request.hello_len;
  memcpy(s->hello, hello, sizeof hello);
  k->heard_us = w->now_us;
  if (request.expires_us > k->expires_us) k->expires_us = request.expires_us;
  told(&own, s, other);
  REQUIRE(news == (changed && other->there));
  if (news) told(&theirs, other, s);
}

static void input(world *w, fuzz_input *in) {
  uint8_t what = fuzz_take(in), where = fuzz_take(in), size = fuzz_take(in), head[BDK_RELAY_HEAD] = {0};
  uint32_t channel = w->at[what % PAIRS].sides[what >> 7].channel;
  for (int i = 0; what & 0x40 && i < 4; i++) channel = channel << 8 | fuzz_take(in);
  if (what & 0x20) channel ^= 1u << (fuzz_take(in) % 32);
  uint8_t bytes[BDK_DATAGRAM_MAX + 2] = {BDK_RELAY_MARK, (uint8_t)(channel >> 24), (uint8_t)(channel >> 16),
                                         (uint8_t)(channel >> 8), (uint8_t)channel};
  size_t len = size < 10 ? size : size > 250 ? BDK_DATAGRAM_MAX + 1u - (size - 251u) / 2 : size * 4u;
  known *k;
  side *s = owner(w, channel, &k);
  bdk_route from = place(where), to = {0};
  if (s && where & 0x80) from = s->route; // else it would hardly ever be from there
  bdk_relay_verdict verdict = bdk_relay_input(w->r, &from, bytes, len, &to, head);
  if (len <= BDK_RELAY_HEAD || len > BDK_DATAGRAM_MAX) { // a head alone is nothing to forward, nor to answer
    REQUIRE(verdict == BDK_RELAY_DROP);
    return;
  }
  if (!s || !same_place(&from, &s->route)) {
    REQUIRE(verdict == BDK_RELAY_LOST && same_place(&to, &from) && memcmp(head, bytes, sizeof head) == 0);
    return;
  }
  const side *other = &k->sides[s == &k->sides[0]];
  bool rested = w->now_us >= s->quiet_us + BURST * SECOND / RATE;
  k->heard_us = w->now_us;
  s->quiet_us = w->now_us;
  if (!other->there) {
    REQUIRE(verdict == BDK_RELAY_DROP);
    return;
  }
  bool spent = w->config.bytes_max && k->bytes > w->config.bytes_max;
  REQUIRE((verdict == BDK_RELAY_LOST) == spent); // so that it asks, and hears why
  if (spent) {
    REQUIRE(same_place(&to, &from) && memcmp(head, bytes, sizeof head) == 0);
    return;
  }
  if (!w->config.rate || rested) REQUIRE(verdict == BDK_RELAY_FORWARD);
  if (verdict == BDK_RELAY_DROP) return;
  REQUIRE(same_place(&to, &other->route) && head[0] == BDK_RELAY_MARK);
  for (unsigned i = 0; i < 4; i++) REQUIRE(head[1 + i] == (uint8_t)(other->tag >> (24 - 8 * i)));
  w->forwarded++;
  k->bytes += len;
  s->sent += len;
  if (w->config.rate) REQUIRE(s->sent <= BURST + (w->now_us - s->since_us) * RATE / SECOND + 1);
}

static void sweep(world *w, uint8_t steps) {
  w->now_us += steps * (steps > 15 ? 2 * SECOND : SECOND / 4);
  bdk_relay_sweep(w->r, w->now_us);
  for (int i = 0; i < PAIRS; i++) {
    known *k = &w->at[i];
    if (!k->there || (w->now_us < k->heard_us + BDK_RELAY_IDLE_US && w->now_us < k->expires_us)) continue;
    *k = (known){0};
    w->count--;
  }
}

int LLVMFuzzerInitialize(int *argc, char ***argv) {
  (void)argc, (void)argv;
  return sodium_init() < 0; // without it, libsodium uses its slowest code
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len) {
  fuzz_input in = {bytes, bytes + len};
  world w = {.now_us = 100};
  uint8_t how = fuzz_take(&in);
  w.config = (bdk_relay_config){.alloc = {fuzz_resize, &w.heap}, .counters = &w.counters, .max = MAX};
  if (how & 1) w.config.rate = RATE, w.config.burst = BURST;
  if (how & 2) w.config.bytes_max = 4000;
  w.config.seed[0] = how;
  w.heap.fail_in = how >> 2 & 3;
  w.r = bdk_relay_new(&w.config);
  while (w.r && in.p < in.end) {
    uint8_t op = fuzz_take(&in);
    switch (op % 4) {
    case 0:
      open_side(&w, &in);
      break;
    case 1:
    case 2:
      input(&w, &in);
      break;
    case 3:
      if (op & 0x80)
        w.heap.fail_in = op >> 2 & 3;
      else
        sweep(&w, op >> 2);
      break;
    }
    REQUIRE(bdk_relay_count(w.r) == w.count && w.counters.value[BDK_COUNT_relay_datagrams] == w.forwarded);
  }
  bdk_relay_free(w.r);
  REQUIRE(w.heap.bytes == 0);
  return 0;
}
