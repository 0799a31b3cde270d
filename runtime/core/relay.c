// SPDX-License-Identifier: MIT
#include "relay.h"

#include "out.h"

#include <string.h>

#define PAIRS_DEFAULT 10000u
#define PAIRS_MAX (1u << 18) // a channel is 13 random bits, 18 of the pair's place, one of the role
#define SECOND_US 1000000u

typedef struct end {
  bdk_route route; // remote of family 0: not there
  uint32_t tag, channel;
  uint64_t full_us; // of its token bucket: when it is full again
  uint8_t tx[BDK_TX_LEN], hello[BDK_RELAY_HELLO_MAX];
  uint8_t hello_len;
} end;

typedef struct pair {
  uint8_t name[BDK_RELAY_PAIR_LEN];
  uint64_t heard_us, expires_us, bytes;
  end ends[2];
} pair;

struct bdk_relay {
  bdk_relay_config config;
  bdk_outq random; // of it only the randomness expanded from a seed
  uint64_t now_us;
  uint64_t *tags; // the beginning of each one's name: what a request is held against
  pair **pairs;
  uint32_t count, top; // places up to `top` have been used
};

static uint64_t tag_of(const uint8_t *name) {
  uint64_t tag;
  memcpy(&tag, name, sizeof tag);
  return tag;
}

static void *resize(bdk_relay *r, void *p, size_t old, size_t size) {
  return r->config.alloc.resize(r->config.alloc.ctx, p, old, size);
}

bdk_relay *bdk_relay_new(const bdk_relay_config *config) {
  bdk_relay *r = config->alloc.resize(config->alloc.ctx, NULL, 0, sizeof *r);
  if (!r) return NULL;
  memset(r, 0, sizeof *r);
  r->config = *config;
  if (!r->config.max) r->config.max = PAIRS_DEFAULT;
  if (r->config.max > PAIRS_MAX) r->config.max = PAIRS_MAX;
  bdk_outq_init(&r->random, &config->alloc, config->counters, config->seed);
  r->tags = resize(r, NULL, 0, r->config.max * sizeof *r->tags);
  r->pairs = resize(r, NULL, 0, r->config.max * sizeof *r->pairs);
  if (r->tags && r->pairs) return r;
  bdk_relay_free(r);
  return NULL;
}

static void drop(bdk_relay *r, uint32_t place) {
  resize(r, r->pairs[place], sizeof(pair), 0);
  r->pairs[place] = NULL;
  r->tags[place] = 0;
  r->count--;
}

void bdk_relay_free(bdk_relay *r) {
  if (!r) return;
  for (uint32_t i = 0; i < r->top; i++)
    if (r->pairs[i]) drop(r, i);
  if (r->tags) resize(r, r->tags, r->config.max * sizeof *r->tags, 0);
  if (r->pairs) resize(r, r->pairs, r->config.max * sizeof *r->pairs, 0);
  bdk_outq_clear(&r->random);
  bdk_alloc alloc = r->config.alloc;
  alloc.resize(alloc.ctx, r, sizeof *r, 0);
}

uint32_t bdk_relay_count(const bdk_relay *r) { return r->count; }

static bool there(const end *e) { return e->route.remote.family != 0; }

// The place of a pair, or `max`.
static uint32_t find(const bdk_relay *r, const uint8_t *name) {
  uint64_t tag = tag_of(name);
  for (uint32_t i = 0; i < r->top; i++)
    if (r->tags[i] == tag && r->pairs[i] && memcmp(r->pairs[i]->name, name, BDK_RELAY_PAIR_LEN) == 0) return i;
  return r->config.max;
}

// A place for a new pair, or `max`.
static uint32_t add(bdk_relay *r, const uint8_t *name) {
  uint32_t place = 0, random;
  while (place < r->top && r->pairs[place]) place++;
  if (place == r->config.max) return place;
  pair *p = resize(r, NULL, 0, sizeof *p);
  if (!p) return r->config.max;
  memset(p, 0, sizeof *p);
  memcpy(p->name, name, sizeof p->name);
  do bdk_outq_random(&r->random, &random, sizeof random);
  while (!(random << 19)); // no channel is 0
  for (uint32_t role = 0; role < 2; role++) p->ends[role].channel = random << 19 | place << 1 | role;
  if (place == r->top) r->top++;
  r->pairs[place] = p;
  r->tags[place] = tag_of(name);
  r->count++;
  return place;
}

static void describe(const end *e, const end *other, bdk_relay_end *out) {
  *out = (bdk_relay_end){.to = e->route, .channel = e->channel, .hello = other->hello, .hello_len = other->hello_len};
  memcpy(out->tx, e->tx, sizeof out->tx);
}

int bdk_relay_open(bdk_relay *r, uint64_t now_us, const bdk_relay_request *request, bdk_relay_end *own,
                   bdk_relay_end *other, bool *news) {
  r->now_us = now_us;
  uint32_t place = find(r, request->pair);
  if (place == r->config.max) place = add(r, request->pair);
  if (place == r->config.max) return BDK_E_LIMIT;
  pair *p = r->pairs[place];
  if (r->config.bytes_max && p->bytes > r->config.bytes_max) return BDK_E_LIMIT;
  end *e = &p->ends[request->role], *peer = &p->ends[1 - request->role];
  bool changed =
      !there(e) || e->hello_len != request->hello_len || memcmp(e->hello, request->hello, request->hello_len) != 0;
  if (!there(e)) bdk_count(r->config.counters, BDK_COUNT_relay_opened, 1);
  p->heard_us = now_us;
  if (request->expires_us > p->expires_us) p->expires_us = request->expires_us;
  e->route = request->from;
  e->tag = request->tag;
  memcpy(e->tx, request->tx, sizeof e->tx);
  memcpy(e->hello, request->hello, request->hello_len);
  e->hello_len = (uint8_t)request->hello_len;
  describe(e, peer, own);
  *news = changed && there(peer);
  if (*news) describe(peer, e, other);
  return BDK_OK;
}

// Whether an end may send so many bytes more now.
static bool pay(const bdk_relay *r, end *e, size_t len) {
  if (!r->config.rate) return true;
  uint64_t cost_us = (uint64_t)len * SECOND_US / r->config.rate;
  uint64_t span_us = (uint64_t)r->config.burst * SECOND_US / r->config.rate;
  uint64_t full_us = e->full_us > r->now_us ? e->full_us : r->now_us;
  if (full_us + cost_us > r->now_us + span_us) return false;
  e->full_us = full_us + cost_us;
  return true;
}

static bdk_relay_verdict lost(const bdk_route *from, const uint8_t *bytes, bdk_route *to,
                              uint8_t head[BDK_RELAY_HEAD]) {
  memcpy(head, bytes, BDK_RELAY_HEAD);
  *to = *from;
  return BDK_RELAY_LOST;
}

bdk_relay_verdict bdk_relay_input(bdk_relay *r, const bdk_route *from, const uint8_t *bytes, size_t len, bdk_route *to,
                                  uint8_t head[BDK_RELAY_HEAD]) {
  // Nothing after the head: an end sends no such thing, only another relay that does not know a channel. Two that
  // answered it would go on for ever.
  if (len <= BDK_RELAY_HEAD || len > BDK_DATAGRAM_MAX) {
    bdk_count(r->config.counters, BDK_COUNT_drop_short, 1);
    return BDK_RELAY_DROP;
  }
  uint32_t channel = (uint32_t)bytes[1] << 24 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 8 | bytes[4];
  uint32_t place = channel >> 1 & (PAIRS_MAX - 1);
  pair *p = place < r->top ? r->pairs[place] : NULL;
  end *e = p ? &p->ends[channel & 1] : NULL;
  if (!e || e->channel != channel || e->route.sock != from->sock || !bdk_addr_equal(&e->route.remote, &from->remote)) {
    bdk_count(r->config.counters, BDK_COUNT_relay_lost, 1);
    return lost(from, bytes, to, head);
  }
  p->heard_us = r->now_us;
  const end *other = &p->ends[1 - (channel & 1)];
  if (!there(other)) {
    bdk_count(r->config.counters, BDK_COUNT_relay_alone, 1);
    return BDK_RELAY_DROP;
  }
  bool spent = r->config.bytes_max && p->bytes > r->config.bytes_max;
  if (spent || !pay(r, e, len)) {
    bdk_count(r->config.counters, BDK_COUNT_relay_limited, 1);
    // An end that asks to open its side again is told why it may not.
    return spent ? lost(from, bytes, to, head) : BDK_RELAY_DROP;
  }
  p->bytes += len;
  bdk_count(r->config.counters, BDK_COUNT_relay_datagrams, 1);
  bdk_count(r->config.counters, BDK_COUNT_relay_bytes, len);
  head[0] = BDK_RELAY_MARK;
  for (unsigned i = 0; i < 4; i++) head[1 + i] = (uint8_t)(other->tag >> (24 - 8 * i));
  *to = other->route;
  return BDK_RELAY_FORWARD;
}

void bdk_relay_sweep(bdk_relay *r, uint64_t now_us) {
  r->now_us = now_us;
  for (uint32_t i = 0; i < r->top; i++) {
    const pair *p = r->pairs[i];
    if (p && (now_us >= p->heard_us + BDK_RELAY_IDLE_US || now_us >= p->expires_us)) drop(r, i);
  }
  while (r->top && !r->pairs[r->top - 1]) r->top--;
}
