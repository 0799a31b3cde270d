// SPDX-License-Identifier: MIT
// Two muxes on a virtual wire, for specs of the machines: virtual time, one-way delay, loss, and NATs that
// forward, filter by address and port, or have their outside port changed in mid-flight. Further links, each
// with its own address on both sides, delay and outages, for specs that have a choice of paths.
#ifndef BDK_SPEC_PAIR_H
#define BDK_SPEC_PAIR_H

#include <stdlib.h>
#include <string.h>

#include "../../runtime/core/mux.h"
#include "people.h"

#define PAIR_QUEUE 4096
#define PAIR_EVENTS 256
#define PAIR_LINKS 4

typedef struct pair_packet {
  uint64_t at_us, order;
  int to;
  bdk_addr from;
  size_t len;
  uint8_t data[BDK_DATAGRAM_MAX];
} pair_packet;

typedef struct pair_event {
  uint64_t at_us;
  bdk_output_kind kind;
  uint8_t via, reason;
  bool lan;
  size_t len;
  uint64_t since_us;
  uint32_t rtt_us;
  uint8_t first; // first byte of a message
} pair_event;

typedef struct pair_side {
  bdk_mux *mux;
  bdk_counters counters;
  uint32_t session;
  uint8_t id[BDK_ID_LEN];
  bdk_addr public;          // what its NAT shows: its end of link 0
  bdk_addr end[PAIR_LINKS]; // of links 1 and up; family 0: there is none
  bool filtered;            // its NAT lets in only addresses it sent to
  bool cut;                 // nothing it sends arrives
  bdk_addr allowed[8];
  int allowed_count;
  pair_event events[PAIR_EVENTS];
  int event_count;
  uint64_t sent, closed_sends; // datagrams; those sent after `closed`
} pair_side;

typedef struct pair {
  pair_side side[2];
  uint64_t now_us, delay_us, order, rng;
  unsigned loss_percent, twice_percent; // lost; delivered twice
  uint64_t jitter_us;                   // later by up to this, so that packets overtake each other
  uint64_t link_delay_us[PAIR_LINKS];   // of links 1 and up
  bool link_cut[PAIR_LINKS];
  pair_packet *queue;
  int count;
} pair;

static inline void *pair_resize(void *ctx, void *p, size_t old_size, size_t new_size) {
  (void)ctx, (void)old_size;
  if (new_size) return realloc(p, new_size);
  free(p);
  return NULL;
}

static inline uint32_t pair_random(pair *w) { // xorshift64*
  w->rng ^= w->rng >> 12, w->rng ^= w->rng << 25, w->rng ^= w->rng >> 27;
  return (uint32_t)((w->rng * 2685821657736338717u) >> 32);
}

static inline bdk_addr pair_addr(const char *text) {
  bdk_addr a = {0};
  if (bdk_addr_parse(&a, text, strlen(text), 0)) abort();
  return a;
}

static inline void pair_init(pair *w, uint64_t seed, uint64_t delay_us) {
  memset(w, 0, sizeof *w);
  w->delay_us = delay_us;
  w->now_us = 1000000;
  w->rng = seed * 2654435761u + 1;
  w->queue = calloc(PAIR_QUEUE, sizeof *w->queue);
  for (int i = 0; i < 2; i++) {
    bdk_mux_config config = {.alloc = {pair_resize, NULL}, .counters = &w->side[i].counters};
    for (unsigned k = 0; k < sizeof config.seed; k++) config.seed[k] = (uint8_t)pair_random(w);
    w->side[i].mux = bdk_mux_new(&config);
    memset(w->side[i].id, i + 1, BDK_ID_LEN);
    w->side[i].public = pair_addr(i ? "198.51.100.2:2000" : "198.51.100.1:1000");
  }
}

static inline void pair_free(pair *w) {
  bdk_mux_free(w->side[0].mux);
  bdk_mux_free(w->side[1].mux);
  free(w->queue);
}

static inline const bdk_addr *pair_end(const pair_side *s, int link) { return link ? &s->end[link] : &s->public; }

// The link whose end at `s` has this address, -1 when none has.
static inline int pair_link(const pair_side *s, const bdk_addr *a) {
  for (int i = 0; i < PAIR_LINKS; i++)
    if (bdk_addr_equal(pair_end(s, i), a)) return i;
  return -1;
}

static inline void pair_deliver(pair *w, int from, const bdk_output *o) {
  pair_side *me = &w->side[from], *other = &w->side[!from];
  me->sent++;
  for (int i = 0; i < me->event_count; i++) me->closed_sends += me->events[i].kind == BDK_OUT_CLOSED;
  bool known = false;
  for (int i = 0; i < me->allowed_count; i++) known |= bdk_addr_equal(&me->allowed[i], &o->route.remote);
  if (!known && me->allowed_count < 8) me->allowed[me->allowed_count++] = o->route.remote;
  int link = pair_link(other, &o->route.remote);
  if (me->cut || link < 0 || w->link_cut[link]) return;
  if (pair_random(w) % 100 < w->loss_percent) return;
  bool twice = w->twice_percent && pair_random(w) % 100 < w->twice_percent;
  for (int copy = 0; copy <= twice && w->count < PAIR_QUEUE; copy++) {
    pair_packet *p = &w->queue[w->count++];
    uint64_t delay_us = link ? w->link_delay_us[link] : w->delay_us;
    if (w->jitter_us) delay_us += pair_random(w) % w->jitter_us;
    *p = (pair_packet){.at_us = w->now_us + delay_us, .order = w->order++, .to = !from, .len = o->len};
    p->from = *pair_end(me, link);
    memcpy(p->data, o->data, o->len);
  }
}

static inline void pair_drain(pair *w, int which) {
  pair_side *s = &w->side[which];
  bdk_output o;
  while (bdk_mux_next(s->mux, &o)) {
    if (o.kind == BDK_OUT_SEND) {
      pair_deliver(w, which, &o);
      continue;
    }
    if (s->event_count == PAIR_EVENTS) continue;
    s->events[s->event_count++] = (pair_event){.at_us = w->now_us,
                                               .kind = o.kind,
                                               .via = o.via,
                                               .reason = o.reason,
                                               .lan = o.lan,
                                               .len = o.len,
                                               .since_us = o.since_us,
                                               .rtt_us = o.rtt_us,
                                               .first = o.kind == BDK_OUT_MESSAGE && o.len ? o.data[0] : 0};
  }
}

static inline int pair_match_with(pair *w, int which, const bdk_candidate *candidates, uint32_t count,
                                  uint64_t start_in_us) {
  pair_side *s = &w->side[which], *other = &w->side[!which];
  bdk_match match = {.start_in_us = start_in_us, .candidates = candidates, .count = count};
  memset(match.match, 7, sizeof match.match);
  memset(match.key, 9, sizeof match.key);
  memcpy(match.self, s->id, BDK_ID_LEN);
  memcpy(match.peer, other->id, BDK_ID_LEN);
  person_keys(&match, 1 + which, 2 - which);
  int error = bdk_mux_add(s->mux, w->now_us, &match, &s->session);
  pair_drain(w, which);
  return error;
}

// Adds the session on one side, with the other's ends of all links as candidates.
static inline int pair_match(pair *w, int which, uint64_t start_in_us) {
  bdk_candidate candidates[PAIR_LINKS];
  uint32_t count = 0;
  for (int i = 0; i < PAIR_LINKS; i++) {
    const bdk_addr *a = pair_end(&w->side[!which], i);
    bdk_via via = bdk_addr_classify(a) == BDK_ADDR_PRIVATE ? BDK_VIA_HOST : BDK_VIA_SRFLX;
    if (a->family) candidates[count++] = (bdk_candidate){.addr = *a, .sock = 1, .via = (uint8_t)via};
  }
  return pair_match_with(w, which, candidates, count, start_in_us);
}

static inline bool pair_admit(const pair_side *s, const bdk_addr *from) {
  if (!s->filtered) return true;
  for (int i = 0; i < s->allowed_count; i++)
    if (bdk_addr_equal(&s->allowed[i], from)) return true;
  return false;
}

// Runs until `until_us`: packets and timers in order of time, packets first.
static inline void pair_run(pair *w, uint64_t until_us) {
  for (;;) {
    int next = -1;
    for (int i = 0; i < w->count; i++)
      if (next < 0 || w->queue[i].at_us < w->queue[next].at_us ||
          (w->queue[i].at_us == w->queue[next].at_us && w->queue[i].order < w->queue[next].order))
        next = i;
    uint64_t timer = BDK_NEVER;
    for (int i = 0; i < 2; i++)
      if (bdk_mux_deadline(w->side[i].mux) < timer) timer = bdk_mux_deadline(w->side[i].mux);
    uint64_t at = next >= 0 && w->queue[next].at_us <= timer ? w->queue[next].at_us : timer;
    if (at > until_us) break;
    if (at > w->now_us) w->now_us = at;
    if (next >= 0 && w->queue[next].at_us <= timer) {
      pair_packet p = w->queue[next];
      w->queue[next] = w->queue[--w->count];
      pair_side *s = &w->side[p.to];
      if (!pair_admit(s, &p.from)) continue;
      bdk_route route = {.local = s->public, .remote = p.from, .sock = 1};
      bdk_mux_input(s->mux, w->now_us, &route, p.data, p.len);
      pair_drain(w, p.to);
    } else {
      for (int i = 0; i < 2; i++) {
        bdk_mux_tick(w->side[i].mux, w->now_us);
        pair_drain(w, i);
      }
    }
  }
  w->now_us = until_us;
}

// A datagram from nowhere: as if it had come to `which` from `from`.
static inline void pair_inject(pair *w, int which, const bdk_addr *from, const uint8_t *bytes, size_t len) {
  bdk_route route = {.local = w->side[which].public, .remote = *from, .sock = 1};
  bdk_mux_input(w->side[which].mux, w->now_us, &route, bytes, len);
  pair_drain(w, which);
}

static inline const bdk_session *pair_session(const pair *w, int which) {
  return bdk_mux_session(w->side[which].mux, w->side[which].session);
}

// The link that data of `which` goes by, -1: none.
static inline int pair_selected(const pair *w, int which) {
  const bdk_session *s = pair_session(w, which);
  return s && s->selected >= 0 ? pair_link(&w->side[!which], &s->paths[s->selected].route.remote) : -1;
}

static inline const pair_event *pair_find(const pair *w, int which, bdk_output_kind kind) {
  for (int i = 0; i < w->side[which].event_count; i++)
    if (w->side[which].events[i].kind == kind) return &w->side[which].events[i];
  return NULL;
}

static inline int pair_events(const pair *w, int which, bdk_output_kind kind) {
  int n = 0;
  for (int i = 0; i < w->side[which].event_count; i++) n += w->side[which].events[i].kind == kind;
  return n;
}

static inline int pair_send(pair *w, int which, const void *data, size_t len) {
  int error = bdk_mux_send(w->side[which].mux, w->now_us, w->side[which].session, data, len);
  pair_drain(w, which);
  return error;
}

#endif
