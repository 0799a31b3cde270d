// SPDX-License-Identifier: MIT
// A session and its relay: paths of which a server forwards what is sent, opened by the owner; what is sent by two
// paths while the selected one is silent; and the search for a direct one that goes on meanwhile.
#include "session_in.h"

#include <string.h>

#define DOUBT_US (1000u * MS)       // at least, or four round trips
#define DOUBT_EVERY_US (500u * MS)  // the other paths are tested, ±10 %
#define AGAIN_FIRST_US (5000u * MS) // direct paths are sought again while a relay is in use; doubles
#define AGAIN_MAX_US (300000u * MS)

int bdk_session_relay(bdk_session *s, bdk_outq *q, uint64_t now_us, const bdk_route *route) {
  bdk_path *p = bdk_session_path(s, route);
  if (!p) {
    if (!(p = bdk_session_place(s))) return BDK_E_LIMIT;
    bdk_path_init(p, route, BDK_VIA_RELAY, true);
    p->answered = true; // it answered the request that opened it
  }
  p->route.channel = route->channel;
  p->route.local = (bdk_addr){0}; // the relay knows the channel from where the kernel sent the request
  p->attempt_max = BDK_ROUND_TESTS;
  // Whether the nearer side waits does not matter here.
  if (p->state == BDK_PATH_VALID)
    bdk_session_test_beside(s, q, p, now_us);
  else
    bdk_path_on(p, p->state == BDK_PATH_FAILED ? BDK_PATH_REVIVE : BDK_PATH_START, now_us);
  bdk_session_tick(s, q, now_us);
  return BDK_OK;
}

size_t bdk_session_hello(bdk_session *s, bdk_outq *q, uint8_t out[BDK_PROBE_MAX]) {
  bdk_probe probe = {.epoch = s->epoch, .rx_index = s->index};
  bdk_outq_random(q, s->hello, sizeof s->hello);
  memcpy(probe.nonce, s->hello, sizeof probe.nonce);
  return bdk_probe_write(&s->keys, &probe, out, BDK_PROBE_MAX);
}

static uint64_t doubt_us(const bdk_session *s) {
  uint64_t four = s->selected >= 0 ? 4 * (uint64_t)s->paths[s->selected].srtt_us : 0;
  return s->silent_us + (four > DOUBT_US ? four : DOUBT_US);
}

bool bdk_session_doubts(const bdk_session *s, uint64_t now_us) {
  return s->silent_us && s->selected >= 0 && now_us >= doubt_us(s);
}

bdk_path *bdk_session_second(bdk_session *s, uint64_t now_us) {
  bdk_path *best = NULL;
  if (!bdk_session_doubts(s, now_us)) return NULL;
  for (int i = 0; i < s->path_count; i++) {
    bdk_path *p = &s->paths[i];
    if (i == s->selected || p->state != BDK_PATH_VALID) continue;
    if (!best || p->heard_us > best->heard_us) best = p;
  }
  return best;
}

int bdk_session_answering(const bdk_session *s, uint64_t now_us) {
  if (!bdk_session_doubts(s, now_us)) return -1;
  int best = -1;
  for (int i = 0; i < s->path_count; i++) {
    const bdk_path *p = &s->paths[i];
    if (i == s->selected || p->state != BDK_PATH_VALID || p->heard_us < s->silent_us) continue;
    if (best < 0 || p->heard_us > s->paths[best].heard_us) best = i;
  }
  return best;
}

void bdk_session_test_beside(bdk_session *s, bdk_outq *q, bdk_path *p, uint64_t now_us) {
  uint64_t wait_us, consent_us = p->due_us;
  if (!bdk_session_token(s, now_us, &wait_us)) return;
  bdk_session_test(s, q, p, now_us);
  p->due_us = consent_us;
}

void bdk_session_retest(bdk_session *s, bdk_outq *q, bdk_path *p, uint64_t now_us) {
  if (p->state == BDK_PATH_FAILED && p->valid_us) {
    p->attempt_max = BDK_ROUND_KNOWN;
    bdk_path_on(p, BDK_PATH_REVIVE, now_us);
  }
  if (p->state == BDK_PATH_VALID) bdk_session_test_beside(s, q, p, now_us);
}

void bdk_session_test_others(bdk_session *s, bdk_outq *q, uint64_t now_us) {
  for (int i = 0; i < s->path_count; i++)
    if (i != s->selected) bdk_session_retest(s, q, &s->paths[i], now_us);
}

static bool relayed(const bdk_session *s) { return s->selected >= 0 && s->paths[s->selected].route.channel != 0; }

static bool probing(const bdk_session *s) {
  for (int i = 0; i < s->path_count; i++)
    if (s->paths[i].state == BDK_PATH_PROBING) return true;
  return false;
}

void bdk_session_restless(bdk_session *s, bdk_outq *q, uint64_t now_us) {
  bdk_session_ask(s, q, now_us);
  if (bdk_session_doubts(s, now_us) && now_us >= s->doubt_due_us) {
    uint8_t jitter;
    bdk_outq_random(q, &jitter, sizeof jitter);
    s->doubt_due_us = now_us + DOUBT_EVERY_US - DOUBT_EVERY_US / 10 + DOUBT_EVERY_US / 5 * jitter / 256;
    bdk_session_test_others(s, q, now_us); // the one in doubt is tested for its silence already
  }
  if (!relayed(s)) {
    s->again_us = 0;
  } else if (!s->again_us) {
    s->again_wait_us = AGAIN_FIRST_US;
    s->again_us = now_us + AGAIN_FIRST_US;
  } else if (now_us >= s->again_us) {
    bool busy = probing(s); // the round before is not over
    if (!busy) {
      bdk_session_round(s, true, now_us);
      s->again_wait_us = s->again_wait_us * 2 < AGAIN_MAX_US ? s->again_wait_us * 2 : AGAIN_MAX_US;
    }
    s->again_us = now_us + (busy ? AGAIN_FIRST_US : s->again_wait_us);
  }
}

uint64_t bdk_session_restless_due(const bdk_session *s) {
  uint64_t due = s->again_us ? s->again_us : BDK_NEVER;
  if (s->ask_us && s->ask_us < due) due = s->ask_us;
  if (!s->silent_us || s->selected < 0) return due;
  uint64_t doubt = doubt_us(s) > s->doubt_due_us ? doubt_us(s) : s->doubt_due_us;
  return doubt < due ? doubt : due;
}
