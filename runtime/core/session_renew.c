// SPDX-License-Identifier: MIT
// A session and the server's schedule: openers while it waits, what came with a renewal, and the silence that asks for
// one. Why: "The race" in docs/NAT.md.
#include "session_in.h"

#include <string.h>

#define SILENT_US (1000u * MS) // SEEKING and nothing heard: the owner may want a fresh port
#define SILENCES_MAX 2u        // told so often

void bdk_session_schedule(bdk_session *s, const bdk_match *match) {
  s->opener_ttl = match->start_in_us ? match->opener_ttl : 0;
  s->renew_us = BDK_NEVER;
  s->quiet_us = s->start_us + SILENT_US;
}

void bdk_session_renew(bdk_session *s, bdk_outq *q, uint64_t now_us, const bdk_renewal *renewal) {
  if (renewal->epoch > s->epoch) s->epoch = renewal->epoch;
  s->renew_us = now_us + renewal->start_in_us;
  for (uint32_t i = 0; i < renewal->count; i++) {
    bdk_path *p = bdk_session_candidate(s, &renewal->candidates[i]);
    if (p && p->state == BDK_PATH_FAILED) bdk_path_on(p, BDK_PATH_REVIVE, s->renew_us);
  }
  s->opener_ttl = renewal->start_in_us ? renewal->opener_ttl : 0;
  s->quiet_us = s->silences < SILENCES_MAX ? s->renew_us + SILENT_US : BDK_NEVER;
  bdk_session_tick(s, q, now_us);
}

// A test that dies on the way. Should it arrive all the same, it is one.
static void send_opener(bdk_session *s, bdk_outq *q, bdk_path *p, uint64_t now_us) {
  uint8_t out[BDK_PROBE_MAX];
  bdk_probe probe = {.epoch = s->epoch, .rx_index = s->index};
  bdk_outq_random(q, probe.nonce, sizeof probe.nonce);
  bdk_output send = {.kind = BDK_OUT_SEND, .session = s->index, .route = p->route, .data = out};
  send.route.ttl = s->opener_ttl;
  send.len = bdk_probe_write(&s->keys, &probe, out, sizeof out);
  bdk_outq_put(q, &send);
  bdk_path_asked(p, probe.nonce, now_us);
  p->tx_bytes += send.len;
  bdk_count(q->counters, BDK_COUNT_test_sent, 1);
}

// By a relay does not count: it may be all that there will be.
static bool heard(const bdk_session *s) {
  for (int i = 0; i < s->path_count; i++)
    if (s->paths[i].answered && !s->paths[i].route.channel) return true;
  return false;
}

void bdk_session_scheduled(bdk_session *s, bdk_outq *q, uint64_t now_us) {
  // Only where both have a NAT, or may have, is a mapping in danger.
  for (int i = 0; s->opener_ttl && i < s->path_count; i++) {
    bdk_path *p = &s->paths[i];
    if (p->state == BDK_PATH_FROZEN && p->via == BDK_VIA_SRFLX) send_opener(s, q, p, now_us);
  }
  s->opener_ttl = 0;
  if (s->state == BDK_SESSION_ARMED) return;
  if (now_us >= s->renew_us) {
    for (int i = 0; i < s->path_count; i++) bdk_path_on(&s->paths[i], BDK_PATH_START, now_us);
    s->renew_us = BDK_NEVER;
  }
  if (now_us < s->quiet_us) return;
  s->quiet_us = BDK_NEVER;
  if (heard(s)) return;
  s->silences++;
  bdk_outq_put(q, &(bdk_output){.kind = BDK_OUT_SILENT, .session = s->index});
}

uint64_t bdk_session_schedule_due(const bdk_session *s) {
  if (s->state == BDK_SESSION_ARMED) return BDK_NEVER;
  return s->quiet_us < s->renew_us ? s->quiet_us : s->renew_us;
}
