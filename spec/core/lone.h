// SPDX-License-Identifier: MIT
// One mux, and a peer that is not a mux: it holds the peer's keys and says whatever a spec wants, from any
// address. What the mux sends is read with those keys, and what it tells is counted.
#ifndef BDK_SPEC_LONE_H
#define BDK_SPEC_LONE_H

#include <stdlib.h>
#include <string.h>

#include "../../runtime/core/mux.h"
#include "../../runtime/core/relay.h"
#include "people.h"

#define LONE_SENT 4096

typedef struct lone_sent {
  uint64_t at_us;
  bdk_route route;
  size_t len;
  int kind; // of a frame; LONE_TEST, LONE_CONFIRM
  uint8_t nonce[BDK_NONCE_LEN], body[8];
} lone_sent;

enum { LONE_TEST = 100, LONE_CONFIRM };

typedef struct lone {
  bdk_mux *mux;
  bdk_counters counters;
  bdk_keys keys, ours; // the peer's, and the mux's own: to read what it sends
  bdk_session far;     // the peer's seal and rekeying
  uint32_t session, peer_index;
  uint64_t now_us, counter, resizes;
  lone_sent sent[LONE_SENT];
  int sent_count, told[BDK_OUT_SILENT + 1], sends_after_close;
  bdk_output last[BDK_OUT_SILENT + 1];
} lone;

static inline bdk_addr lone_addr(const char *text) {
  bdk_addr a = {0};
  if (bdk_addr_parse(&a, text, strlen(text), 0)) abort();
  return a;
}

static inline void *lone_resize(void *ctx, void *p, size_t old_size, size_t new_size) {
  (void)old_size;
  ++*(uint64_t *)ctx;
  if (new_size) return realloc(p, new_size);
  free(p);
  return NULL;
}

// Of persons 1 and 2, whose ids are their numbers.
static inline bdk_match lone_match(int role) {
  bdk_match m = {.count = 0};
  memset(m.match, 7, sizeof m.match);
  memset(m.key, 9, sizeof m.key);
  memset(m.self, 1 + role, BDK_ID_LEN);
  memset(m.peer, 2 - role, BDK_ID_LEN);
  person_keys(&m, 1 + role, 2 - role);
  return m;
}

// A mux that controls (role 0) or not, with nothing added yet.
static inline lone *lone_new(int role) {
  lone *l = calloc(1, sizeof *l);
  l->now_us = 1000000;
  l->peer_index = 0x70000001;
  bdk_mux_config config = {
      .alloc = {lone_resize, &l->resizes}, .counters = &l->counters, .seed = {(uint8_t)(1 + role)}};
  l->mux = bdk_mux_new(&config);
  bdk_match m = lone_match(role);
  bdk_keys_init(&l->ours, m.match, m.key, m.self, m.peer);
  bdk_keys_init(&l->keys, m.match, m.key, m.peer, m.self);
  person_other_end(&l->far, &m, 1 + role, 2 - role);
  return l;
}

static inline void lone_free(lone *l) {
  bdk_mux_free(l->mux);
  free(l);
}

static inline void lone_note(lone *l, const bdk_output *o) {
  if (l->told[BDK_OUT_CLOSED]) l->sends_after_close++;
  if (l->sent_count == LONE_SENT) return;
  lone_sent *s = &l->sent[l->sent_count++];
  *s = (lone_sent){.at_us = l->now_us, .route = o->route, .len = o->len, .kind = -1};
  uint32_t index;
  uint64_t counter;
  uint8_t kind, plain[BDK_DATAGRAM_MAX];
  bdk_probe probe;
  const uint8_t *data = o->data + (o->route.channel ? BDK_RELAY_HEAD : 0);
  size_t len = o->len - (size_t)(data - o->data);
  if (bdk_frame_head(data, len, &index, &kind, &counter)) {
    if (index != l->peer_index || !bdk_frame_open(l->far.seal.rx[kind >> 7], data, len, plain)) abort();
    s->kind = kind & ~BDK_FRAME_PHASE;
    memcpy(s->body, plain, len - BDK_FRAME_OVERHEAD < 8 ? len - BDK_FRAME_OVERHEAD : 8);
  } else {
    if (bdk_probe_read(&probe, data, len) || !bdk_probe_authentic(&l->keys, &probe, data, len)) abort();
    s->kind = probe.confirm ? LONE_CONFIRM : LONE_TEST;
    memcpy(s->nonce, probe.nonce, BDK_NONCE_LEN);
  }
}

static inline void lone_drain(lone *l) {
  bdk_output o;
  while (bdk_mux_next(l->mux, &o)) {
    l->told[o.kind]++;
    l->last[o.kind] = o;
    if (o.kind == BDK_OUT_SEND) lone_note(l, &o);
  }
}

static inline int lone_add_later(lone *l, const bdk_candidate *candidates, uint32_t count, uint64_t start_in_us) {
  bdk_match match = lone_match(l->ours.role);
  match.candidates = candidates, match.count = count, match.start_in_us = start_in_us;
  int error = bdk_mux_add(l->mux, l->now_us, &match, &l->session);
  lone_drain(l);
  return error;
}

static inline int lone_add(lone *l, const bdk_candidate *candidates, uint32_t count) {
  return lone_add_later(l, candidates, count, 0);
}

static inline void lone_run(lone *l, uint64_t us) {
  uint64_t until = l->now_us + us;
  while (bdk_mux_deadline(l->mux) <= until) {
    l->now_us = bdk_mux_deadline(l->mux) > l->now_us ? bdk_mux_deadline(l->mux) : l->now_us;
    bdk_mux_tick(l->mux, l->now_us);
    lone_drain(l);
  }
  l->now_us = until;
}

static inline void lone_input(lone *l, const bdk_addr *from, uint16_t sock, const uint8_t *bytes, size_t len) {
  bdk_route route = {.remote = *from, .local = lone_addr("10.0.0.1:5000"), .sock = sock};
  bdk_mux_input(l->mux, l->now_us, &route, bytes, len);
  lone_drain(l);
}

static inline size_t lone_test(lone *l, const bdk_addr *from) {
  uint8_t out[BDK_PROBE_MAX];
  bdk_probe p = {.rx_index = l->peer_index, .nonce = {1, 2, 3}};
  size_t n = bdk_probe_write(&l->keys, &p, out, sizeof out);
  lone_input(l, from, 1, out, n);
  return n;
}

// The latest datagram of a kind to an address (any, when NULL).
static inline const lone_sent *lone_last(const lone *l, int kind, const bdk_addr *to) {
  for (int i = l->sent_count; i-- > 0;)
    if (l->sent[i].kind == kind && (!to || bdk_addr_equal(&l->sent[i].route.remote, to))) return &l->sent[i];
  return NULL;
}

static inline int lone_count(const lone *l, int kind, const bdk_addr *to) {
  int n = 0;
  for (int i = 0; i < l->sent_count; i++)
    n += l->sent[i].kind == kind && (!to || bdk_addr_equal(&l->sent[i].route.remote, to));
  return n;
}

// A confirm of the latest test sent to `tested`, coming from `from`.
static inline void lone_confirm(lone *l, const bdk_addr *tested, const bdk_addr *from, uint16_t sock) {
  const lone_sent *test = lone_last(l, LONE_TEST, tested);
  if (!test) abort();
  uint8_t out[BDK_PROBE_MAX];
  bdk_probe p = {.confirm = true, .rx_index = l->peer_index, .origin = lone_addr("198.51.100.1:1000")};
  memcpy(p.nonce, test->nonce, BDK_NONCE_LEN);
  lone_input(l, from, sock, out, bdk_probe_write(&l->keys, &p, out, sizeof out));
}

static inline void lone_frame(lone *l, const bdk_addr *from, bdk_frame_kind kind, const void *body, size_t len) {
  uint8_t out[BDK_DATAGRAM_MAX];
  size_t n = bdk_frame_write(l->far.seal.tx, l->session, kind, l->counter++, body, len, out, sizeof out);
  lone_input(l, from, 1, out, n);
}

// Time passes; consent asked of any address in the meantime is answered from there.
static inline void lone_live(lone *l, uint64_t us) {
  for (uint64_t until = l->now_us + us; l->now_us < until;) {
    int before = l->sent_count;
    lone_run(l, until - l->now_us < 100000 ? until - l->now_us : 100000);
    for (int i = before, end = l->sent_count; i < end; i++)
      if (l->sent[i].kind == BDK_FRAME_CONSENT) {
        bdk_addr to = l->sent[i].route.remote;
        lone_frame(l, &to, BDK_FRAME_CONSENT_ANSWER, l->sent[i].body, 8);
      }
    if (l->sent_count > LONE_SENT / 2) l->sent_count = 0;
  }
}

static inline const bdk_session *lone_session(const lone *l) { return bdk_mux_session(l->mux, l->session); }

static inline const bdk_path *lone_path(const lone *l, const bdk_addr *a) {
  const bdk_session *s = lone_session(l);
  for (int i = 0; s && i < s->path_count; i++)
    if (bdk_addr_equal(&s->paths[i].route.remote, a)) return &s->paths[i];
  return NULL;
}

// Begins with one listed address and, when `confirmed`, a valid path to it.
static inline lone *lone_begin(int role, const bdk_addr *listed, bool confirmed) {
  lone *l = lone_new(role);
  bdk_candidate c = {.addr = *listed, .sock = 1, .via = BDK_VIA_SRFLX};
  if (lone_add(l, &c, 1)) abort();
  if (confirmed) {
    lone_test(l, listed);
    lone_confirm(l, listed, listed, 1);
  }
  return l;
}

#endif
