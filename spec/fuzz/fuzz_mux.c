// SPDX-License-Identifier: MIT
// The mux fed with arbitrary strings of events: authentic and forged datagrams from several addresses, answers
// to what it asked, time, sends, closes. Checked at every output: nothing goes to an address that is neither
// listed nor heard from, to one that is not listed and never answered no more than three times what came from
// there, nothing follows `closed`, no message or path comes before `connected`.
#include <sodium.h>

#include "core/mux.h"
#include "dh.h"
#include "fuzz.h"

#include "../core/people.h"

static bdk_addr address(uint8_t n) {
  bdk_addr a = {.ip = {198, 51, 100, (uint8_t)(n % 4)}, .port = (uint16_t)(1000 + n % 8), .family = 4};
  if (n & 0x80) a = (bdk_addr){.ip = {0x20, 1, [15] = (uint8_t)(n % 4)}, .port = 7, .family = 6};
  if (n & 0x40) a.ip[0] = 10;
  return a;
}

#define ASKED 16

typedef struct question { // a test or consent check of the mux
  bdk_addr to;
  bool consent;
  uint8_t nonce[BDK_NONCE_LEN];
} question;

typedef struct world {
  bdk_mux *mux;
  fuzz_heap heap;
  bdk_keys peer;          // the other end of the session
  const bdk_session *far; // its seal
  uint32_t session;
  uint64_t counter;
  question asked[ASKED]; // the latest, a ring
  unsigned asked_count;
  size_t in[256], out[256]; // bytes, by address
  bool known[256], listed[256], answered[256], connected, closed;
} world;

// The smallest number of an address: several stand for one.
static uint8_t number(const bdk_addr *a) {
  uint8_t n = a->family == 6 ? (uint8_t)(0x80 | a->ip[15]) : (uint8_t)(a->port - 1000);
  if (a->ip[0] == 10) n |= 0x40;
  bdk_addr b = address(n);
  REQUIRE(bdk_addr_equal(a, &b));
  return n;
}

static void note_question(world *w, const bdk_output *o) {
  question q = {.to = o->route.remote};
  uint8_t plain[BDK_DATAGRAM_MAX];
  bdk_probe probe;
  if (o->data[0] == 0xC1) {
    if (o->data[5] != BDK_FRAME_CONSENT || !bdk_frame_open(w->far->seal.rx[0], o->data, o->len, plain)) return;
    q.consent = true;
    memcpy(q.nonce, plain, sizeof q.nonce);
  } else {
    if (bdk_probe_read(&probe, o->data, o->len)) abort();
    if (!bdk_probe_authentic(&w->peer, &probe, o->data, o->len)) abort();
    if (probe.confirm) return;
    memcpy(q.nonce, probe.nonce, sizeof q.nonce);
  }
  w->asked[w->asked_count++ % ASKED] = q;
}

static void drain(world *w) {
  bdk_output o;
  const bdk_session *session = bdk_mux_session(w->mux, w->session);
  for (int i = 0; session && i < session->path_count; i++)
    if (session->paths[i].valid_us) w->answered[number(&session->paths[i].route.remote)] = true;
  while (bdk_mux_next(w->mux, &o)) {
    if (w->closed) abort();
    if (o.session != w->session) abort();
    if (o.kind == BDK_OUT_SEND) {
      uint8_t n = number(&o.route.remote);
      w->out[n] += o.len;
      if (!w->known[n] || o.len > BDK_DATAGRAM_MAX) abort();
      if (!w->listed[n] && !w->answered[n] && w->out[n] > 3 * w->in[n]) abort();
      note_question(w, &o);
    }
    if (o.kind == BDK_OUT_PATH && !w->connected) abort();
    if (o.kind == BDK_OUT_CONNECTED) w->connected = true;
    if (o.kind == BDK_OUT_MESSAGE && (!w->connected || o.len > BDK_PAYLOAD_MAX)) abort();
    if (o.kind == BDK_OUT_CLOSED) w->closed = true;
  }
}

static void begin(world *w, fuzz_input *in) {
  bdk_candidate candidates[4];
  uint32_t count = 1 + fuzz_take(in) % 4;
  for (uint32_t i = 0; i < count; i++) {
    candidates[i] = (bdk_candidate){.addr = address(fuzz_take(in)), .sock = 1, .via = fuzz_take(in) % BDK_VIA_COUNT};
    uint8_t n = number(&candidates[i].addr);
    w->known[n] = w->listed[n] = true;
  }
  bdk_match match = {.peer = {(uint8_t)(1 + fuzz_take(in) % 2)}, .self = {1}, .candidates = candidates, .count = count};
  match.peer[1] = 1; // smaller or larger than ours
  match.start_in_us = fuzz_take(in) * 1000u;
  person_keys(&match, 1, 2);
  REQUIRE(bdk_mux_add(w->mux, 1, &match, &w->session) == 0);
  bdk_keys_init(&w->peer, match.match, match.key, match.peer, match.self);
  static bdk_session far[2]; // made once: the ids and keys are always these
  bdk_session *f = &far[match.peer[0] - 1];
  if (!f->index) person_other_end(f, &match, 1, 2);
  w->far = f;
}

static void receive(world *w, uint64_t now, const bdk_addr *from, const uint8_t *bytes, size_t n) {
  w->known[number(from)] = true; // it may be answered if it was authentic
  w->in[number(from)] += n;
  bdk_route route = {.remote = *from, .sock = 1};
  if (n) bdk_mux_input(w->mux, now, &route, bytes, n);
}

// Answers one of the latest questions, from where it was sent to or from elsewhere.
static void answer(world *w, uint64_t now, fuzz_input *in) {
  uint8_t out[BDK_DATAGRAM_MAX], which = fuzz_take(in), elsewhere = fuzz_take(in);
  if (!w->asked_count) return;
  const question *q = &w->asked[which % (w->asked_count < ASKED ? w->asked_count : ASKED)];
  bdk_addr from = elsewhere & 0x20 ? address(elsewhere) : q->to;
  bdk_probe p = {.confirm = true, .rx_index = 1, .origin = address(1)};
  memcpy(p.nonce, q->nonce, sizeof p.nonce);
  size_t n = q->consent ? bdk_frame_write(w->far->seal.tx, w->session, BDK_FRAME_CONSENT_ANSWER, ++w->counter, q->nonce,
                                          sizeof q->nonce, out, sizeof out)
                        : bdk_probe_write(&w->peer, &p, out, sizeof out);
  receive(w, now, &from, out, n);
}

static size_t forge(world *w, fuzz_input *in, uint8_t *out) {
  uint8_t kind = fuzz_take(in), body[BDK_DATAGRAM_MAX] = {0};
  if (kind % 4 == 0) { // raw bytes
    size_t n = fuzz_take(in);
    for (size_t i = 0; i < n; i++) out[i] = fuzz_take(in);
    return n;
  }
  if (kind % 4 == 1) {
    bdk_probe p = {
        .epoch = fuzz_take(in) % 2, .rx_index = fuzz_take(in), .confirm = fuzz_take(in) & 1, .origin = address(1)};
    for (unsigned i = 0; i < BDK_NONCE_LEN; i++) p.nonce[i] = fuzz_take(in);
    return bdk_probe_write(&w->peer, &p, out, BDK_DATAGRAM_MAX);
  }
  size_t n = kind % 4 == 2 ? fuzz_take(in) : 8;
  for (size_t i = 0; i < n && i < 16; i++) body[i] = fuzz_take(in);
  w->counter += fuzz_take(in) % 8;
  return bdk_frame_write(w->far->seal.tx, w->session, fuzz_take(in) % 7, w->counter, body, n * 5, out,
                         BDK_DATAGRAM_MAX);
}

int LLVMFuzzerInitialize(int *argc, char ***argv) {
  (void)argc, (void)argv;
  return sodium_init() < 0; // without it, libsodium uses its slowest code
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  fuzz_input in = {data, data + size};
  world w = {0};
  w.mux = bdk_mux_new(&(bdk_mux_config){.alloc = {fuzz_resize, &w.heap}, .max_sessions = 1});
  begin(&w, &in);
  drain(&w);
  uint64_t now = 1;
  while (in.p < in.end) {
    uint8_t op = fuzz_take(&in), out[BDK_DATAGRAM_MAX];
    switch (op % 7) {
    case 0:
      now += (uint64_t)fuzz_take(&in) * (op & 0x80 ? 1000000 : 1000);
      for (int i = 0; i < 100 && bdk_mux_deadline(w.mux) <= now; i++) {
        bdk_mux_tick(w.mux, now);
        drain(&w);
        if (i == 99) abort(); // a deadline that work does not move
      }
      break;
    case 1:
    case 2: {
      bdk_addr from = address(fuzz_take(&in));
      receive(&w, now, &from, out, forge(&w, &in, out));
      break;
    }
    case 3:
      bdk_mux_send(w.mux, now, w.session, data, size > BDK_PAYLOAD_MAX ? BDK_PAYLOAD_MAX : size);
      break;
    case 4: {
      bdk_addr a = address(fuzz_take(&in));
      bdk_mux_unreachable(w.mux, now, &a);
      break;
    }
    case 5:
      answer(&w, now, &in);
      break;
    case 6:
      if (fuzz_take(&in) > 250) bdk_mux_close(w.mux, now, w.session);
    }
    drain(&w);
  }
  bdk_mux_free(w.mux);
  REQUIRE(w.heap.bytes == 0);
  return 0;
}
