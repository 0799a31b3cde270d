// SPDX-License-Identifier: MIT
#include "mux.h"

#include "relay.h"
#include "session_in.h"

#include <string.h>

#define SESSIONS_DEFAULT 256u
#define SESSIONS_MAX 65536u // the low half of an index is the session's place

struct bdk_mux {
  bdk_mux_config config;
  bdk_wheel wheel;
  bdk_outq out;
  bdk_session **sessions;
  uint64_t *tags;  // the beginning of each one's match id: what a flood of probes is held against
  uint32_t closed; // sessions that ended and await reap
  bdk_addr left[BDK_LEFT_MAX];
  uint32_t left_count;
};

static void *take(const bdk_alloc *a, size_t size) { return a->resize(a->ctx, NULL, 0, size); }

static void give(const bdk_alloc *a, void *p, size_t size) {
  if (p) a->resize(a->ctx, p, size, 0);
}

static uint64_t tag_of(const uint8_t match[BDK_MATCH_LEN]) {
  uint64_t tag;
  memcpy(&tag, match, sizeof tag);
  return tag;
}

bdk_mux *bdk_mux_new(const bdk_mux_config *config) {
  bdk_mux *m = take(&config->alloc, sizeof *m);
  if (!m) return NULL;
  memset(m, 0, sizeof *m);
  m->config = *config;
  if (!m->config.max_sessions) m->config.max_sessions = SESSIONS_DEFAULT;
  if (m->config.max_sessions > SESSIONS_MAX) m->config.max_sessions = SESSIONS_MAX;
  size_t size = m->config.max_sessions * sizeof *m->sessions, tags_size = m->config.max_sessions * sizeof *m->tags;
  m->sessions = take(&config->alloc, size);
  m->tags = take(&config->alloc, tags_size);
  if (!m->sessions || !m->tags) {
    give(&config->alloc, m->sessions, size);
    give(&config->alloc, m->tags, tags_size);
    give(&config->alloc, m, sizeof *m);
    return NULL;
  }
  memset(m->sessions, 0, size);
  memset(m->tags, 0, tags_size);
  bdk_wheel_init(&m->wheel, &config->alloc);
  bdk_outq_init(&m->out, &config->alloc, config->counters, config->seed);
  return m;
}

static void drop(bdk_mux *m, uint32_t place) {
  bdk_session *s = m->sessions[place];
  bdk_wheel_cancel(&m->wheel, &s->timer);
  bdk_session_clear(s);
  give(&m->config.alloc, s, sizeof *s);
  m->sessions[place] = NULL;
}

void bdk_mux_free(bdk_mux *m) {
  if (!m) return;
  for (uint32_t i = 0; i < m->config.max_sessions; i++)
    if (m->sessions[i]) drop(m, i);
  bdk_wheel_clear(&m->wheel);
  bdk_outq_clear(&m->out);
  bdk_alloc alloc = m->config.alloc;
  give(&alloc, m->sessions, m->config.max_sessions * sizeof *m->sessions);
  give(&alloc, m->tags, m->config.max_sessions * sizeof *m->tags);
  give(&alloc, m, sizeof *m);
}

// A session that ended stays to be asked about until its `closed` was taken, and goes at the verb after.
static void reap(bdk_mux *m) {
  if (!m->closed || m->out.head != m->out.tail) return;
  for (uint32_t i = 0; i < m->config.max_sessions; i++)
    if (m->sessions[i] && m->sessions[i]->state == BDK_SESSION_CLOSED) drop(m, i);
  m->closed = 0;
}

static void settle(bdk_mux *m, bdk_session *s) {
  if (s->state == BDK_SESSION_CLOSED) {
    bdk_wheel_cancel(&m->wheel, &s->timer);
    m->closed++;
    return;
  }
  uint64_t due = bdk_session_deadline(s);
  // Only the first set can want memory, and bdk_mux_add saw to that one.
  if (due == BDK_NEVER)
    bdk_wheel_cancel(&m->wheel, &s->timer);
  else
    bdk_wheel_set(&m->wheel, &s->timer, due);
}

static bdk_session *find(const bdk_mux *m, uint32_t index) {
  uint32_t place = index & (SESSIONS_MAX - 1);
  if (place >= m->config.max_sessions) return NULL;
  bdk_session *s = m->sessions[place];
  return s && s->index == index ? s : NULL;
}

static bdk_session *find_open(const bdk_mux *m, uint32_t index) {
  bdk_session *s = find(m, index);
  return s && s->state != BDK_SESSION_CLOSED ? s : NULL;
}

static bool known(const bdk_mux *m, const bdk_match *match) {
  for (uint32_t i = 0; i < m->config.max_sessions; i++) {
    const bdk_session *s = m->tags[i] == tag_of(match->match) ? m->sessions[i] : NULL;
    if (s && s->state != BDK_SESSION_CLOSED && memcmp(s->keys.match, match->match, BDK_MATCH_LEN) == 0 &&
        memcmp(s->peer, match->peer, BDK_ID_LEN) == 0)
      return true;
  }
  return false;
}

int bdk_mux_add(bdk_mux *m, uint64_t now_us, const bdk_match *match, uint32_t *session) {
  reap(m);
  if (memcmp(match->self, match->peer, BDK_ID_LEN) == 0 || known(m, match)) return BDK_E_INVALID;
  uint32_t place = 0, index;
  while (place < m->config.max_sessions && m->sessions[place]) place++;
  if (place == m->config.max_sessions) return BDK_E_LIMIT;
  bdk_session *s = take(&m->config.alloc, sizeof *s);
  if (!s) return BDK_E_LIMIT;
  do bdk_outq_random(&m->out, &index, sizeof index);
  while (index < SESSIONS_MAX); // the high half is what a stray frame must guess; the low ones are of associations
  // Should a match be begun again with the same keys, a counter under one key must not come twice all the same.
  uint64_t counter;
  bdk_outq_random(&m->out, &counter, sizeof counter);
  counter >>= 9; // 55 of 56 bits: there is no end to reach
  int error = bdk_session_init(s, match, (index & ~(SESSIONS_MAX - 1)) | place, counter, now_us);
  if (!error && match->count && !s->path_count) error = BDK_E_INVALID;
  if (!error) error = bdk_wheel_set(&m->wheel, &s->timer, s->start_us);
  if (error) {
    bdk_session_clear(s);
    give(&m->config.alloc, s, sizeof *s);
    return error;
  }
  m->sessions[place] = s;
  m->tags[place] = tag_of(match->match);
  *session = s->index;
  bdk_session_tick(s, &m->out, now_us);
  settle(m, s);
  return BDK_OK;
}

int bdk_mux_renew(bdk_mux *m, uint64_t now_us, uint32_t session, const bdk_renewal *renewal) {
  reap(m);
  bdk_session *s = find_open(m, session);
  if (!s) return BDK_E_CLOSED;
  bdk_session_renew(s, &m->out, now_us, renewal);
  settle(m, s);
  return BDK_OK;
}

int bdk_mux_send(bdk_mux *m, uint64_t now_us, uint32_t session, const uint8_t *data, size_t len) {
  reap(m);
  bdk_session *s = find_open(m, session);
  if (!s) return BDK_E_CLOSED;
  int error = bdk_session_send(s, &m->out, now_us, data, len);
  settle(m, s);
  return error;
}

size_t bdk_mux_hello(bdk_mux *m, uint32_t session, uint8_t out[BDK_PROBE_MAX]) {
  bdk_session *s = find_open(m, session);
  return s ? bdk_session_hello(s, &m->out, out) : 0;
}

void bdk_mux_close(bdk_mux *m, uint64_t now_us, uint32_t session) {
  reap(m);
  bdk_session *s = find_open(m, session);
  if (!s) return;
  bdk_session_close(s, &m->out, now_us, BDK_REASON_closed);
  settle(m, s);
}

static void input_frame(bdk_mux *m, uint64_t now_us, const bdk_route *route, const uint8_t *bytes, size_t len) {
  uint32_t index;
  uint8_t kind, plain[BDK_DATAGRAM_MAX];
  uint64_t counter;
  bdk_session *s = NULL;
  if (len <= BDK_DATAGRAM_MAX && bdk_frame_head(bytes, len, &index, &kind, &counter)) s = find_open(m, index);
  if (!s) {
    bdk_count(m->config.counters, BDK_COUNT_drop_frame, 1);
    return;
  }
  bdk_seal_verdict verdict = bdk_seal_open(&s->seal, now_us, bytes, len, plain);
  if (verdict != BDK_SEAL_OPENED) {
    bdk_count(m->config.counters, verdict == BDK_SEAL_REPLAYED ? BDK_COUNT_drop_replay : BDK_COUNT_drop_frame, 1);
    return;
  }
  kind &= (uint8_t)~BDK_FRAME_PHASE;
  bdk_session_frame(s, &m->out, now_us, route, kind, counter, plain, len - BDK_FRAME_OVERHEAD, len);
  settle(m, s);
}

static void input_probe(bdk_mux *m, uint64_t now_us, const bdk_route *route, const uint8_t *bytes, size_t len) {
  bdk_probe probe;
  int error = bdk_probe_read(&probe, bytes, len);
  if (error) {
    bdk_count(m->config.counters, (bdk_counter)-error, 1);
    return;
  }
  // The peers of one match share its id; which of them sent this, only the key tells.
  uint64_t tag = tag_of(probe.match);
  for (uint32_t i = 0; i < m->config.max_sessions; i++) {
    bdk_session *s = m->tags[i] == tag ? m->sessions[i] : NULL;
    if (!s || s->state == BDK_SESSION_CLOSED || !bdk_probe_authentic(&s->keys, &probe, bytes, len)) continue;
    bdk_session_probe(s, &m->out, now_us, route, &probe, len);
    settle(m, s);
    return;
  }
  bdk_count(m->config.counters, BDK_COUNT_drop_probe, 1);
}

static bool is_probe(const uint8_t *bytes) {
  return (bytes[0] & 0xF0) == 0x90 && (bytes[1] == bdk_message_test.type || bytes[1] == bdk_message_confirm.type);
}

// A relay says that a channel is not open: of whichever session it is.
static void input_lost(bdk_mux *m, const bdk_route *route, uint32_t channel) {
  for (uint32_t i = 0; i < m->config.max_sessions; i++) {
    bdk_session *s = m->sessions[i];
    if (!s || s->state == BDK_SESSION_CLOSED) continue;
    bdk_route at = *route;
    at.channel = channel;
    const bdk_path *p = bdk_session_path(s, &at);
    if (!p || !channel || p->route.channel != channel) continue; // 0 is of direct paths
    bdk_outq_put(&m->out, &(bdk_output){.kind = BDK_OUT_RELAY_LOST, .session = s->index, .route = at});
    return;
  }
  bdk_count(m->config.counters, BDK_COUNT_drop_frame, 1);
}

// What a relay forwards bears the index of the session it is for; by which of its channels, the relay's address tells.
static void input_relayed(bdk_mux *m, uint64_t now_us, const bdk_route *route, const uint8_t *bytes, size_t len) {
  uint32_t number = 0;
  for (unsigned i = 1; i < BDK_RELAY_HEAD; i++) number = number << 8 | bytes[i];
  if (len == BDK_RELAY_HEAD) {
    input_lost(m, route, number);
    return;
  }
  bdk_session *s = find_open(m, number);
  bdk_route by = *route;
  by.channel = 1; // any
  const bdk_path *p = s ? bdk_session_path(s, &by) : NULL;
  const uint8_t *inner = bytes + BDK_RELAY_HEAD;
  size_t n = len - BDK_RELAY_HEAD;
  by.channel = p ? p->route.channel : 0;
  if (p && n >= 2 && is_probe(inner))
    input_probe(m, now_us, &by, inner, n);
  else if (p && inner[0] == 0xC1)
    input_frame(m, now_us, &by, inner, n);
  else
    bdk_count(m->config.counters, BDK_COUNT_drop_frame, 1);
}

int bdk_mux_relay(bdk_mux *m, uint64_t now_us, uint32_t session, const bdk_route *route, const uint8_t *hello,
                  size_t len) {
  reap(m);
  bdk_session *s = find_open(m, session);
  if (!s) return BDK_E_CLOSED;
  int error = bdk_session_relay(s, &m->out, now_us, route);
  settle(m, s);
  if (!error && len >= 2 && is_probe(hello)) input_probe(m, now_us, route, hello, len);
  return error;
}

bool bdk_mux_input(bdk_mux *m, uint64_t now_us, const bdk_route *route, const uint8_t *bytes, size_t len) {
  if (len < 2) return false;
  bdk_route from = *route;
  if (m->left_count && bdk_addr_among(m->left, m->left_count, &from.local)) from.local = (bdk_addr){0};
  if (bytes[0] == BDK_RELAY_MARK && len >= BDK_RELAY_HEAD) {
    reap(m);
    input_relayed(m, now_us, &from, bytes, len);
    return true;
  }
  bool probe = is_probe(bytes);
  uint32_t index;
  uint8_t kind;
  uint64_t counter;
  if (!probe && bytes[0] != 0xC1) return false;
  // The low indices are for associations with servers.
  if (!probe && bdk_frame_head(bytes, len, &index, &kind, &counter) && index < SESSIONS_MAX) return false;
  reap(m);
  if (probe)
    input_probe(m, now_us, &from, bytes, len);
  else
    input_frame(m, now_us, &from, bytes, len);
  return true;
}

void bdk_mux_moved(bdk_mux *m, uint64_t now_us, const bdk_addr *left, uint32_t count) {
  m->left_count = count < BDK_LEFT_MAX ? count : BDK_LEFT_MAX;
  if (m->left_count) memcpy(m->left, left, m->left_count * sizeof *left);
  reap(m);
  for (uint32_t i = 0; i < m->config.max_sessions; i++) {
    bdk_session *s = m->sessions[i];
    if (!s || s->state == BDK_SESSION_CLOSED) continue;
    bdk_session_moved(s, &m->out, now_us, m->left, m->left_count);
    settle(m, s);
  }
}

void bdk_mux_listed(bdk_mux *m, uint64_t now_us, uint32_t session, const bdk_candidate *list, uint32_t count) {
  reap(m);
  bdk_session *s = find_open(m, session);
  if (!s) return;
  bdk_session_listed(s, &m->out, now_us, list, count);
  settle(m, s);
}

void bdk_mux_unreachable(bdk_mux *m, uint64_t now_us, const bdk_addr *remote) {
  reap(m);
  for (uint32_t i = 0; i < m->config.max_sessions; i++) {
    bdk_session *s = m->sessions[i];
    if (!s || s->state == BDK_SESSION_CLOSED) continue;
    if (bdk_session_unreachable(s, &m->out, now_us, remote)) settle(m, s);
  }
}

void bdk_mux_tick(bdk_mux *m, uint64_t now_us) {
  reap(m);
  bdk_timer *t;
  while ((t = bdk_wheel_pop(&m->wheel, now_us))) {
    bdk_session *s = (bdk_session *)t; // its first member
    bdk_session_tick(s, &m->out, now_us);
    settle(m, s);
  }
}

bool bdk_mux_next(bdk_mux *m, bdk_output *out) { return bdk_outq_next(&m->out, out); }

uint64_t bdk_mux_deadline(const bdk_mux *m) { return bdk_wheel_deadline(&m->wheel); }

const bdk_session *bdk_mux_session(const bdk_mux *m, uint32_t session) { return find(m, session); }
