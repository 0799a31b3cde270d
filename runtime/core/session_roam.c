// SPDX-License-Identifier: MIT
// A session whose ends move: an own address that changed or is gone, the peer's new ones as the owner learned them, and
// asking the owner for these while nothing comes back.
#include "session_in.h"

#define ASK_FIRST_US (1000u * MS) // from the first time to the second; doubles
#define ASK_MAX_US (8000u * MS)

void bdk_session_moved(bdk_session *s, bdk_outq *q, uint64_t now_us, const bdk_addr *left, uint32_t count) {
  s->epoch++; // by which the peer sees it
  for (int i = 0; i < s->path_count; i++)
    if (bdk_addr_among(left, count, &s->paths[i].route.local)) s->paths[i].route.local = (bdk_addr){0};
  // First the one in use: should all still work, the peer stays with it. And should what leaves from where the peer
  // was heard last take a way on which nothing comes back, as after another default route: from where the kernel says.
  if (s->selected >= 0) {
    bdk_path *p = &s->paths[s->selected];
    bdk_session_retest(s, q, p, now_us);
    bdk_addr local = p->route.local;
    p->route.local = (bdk_addr){0};
    if (local.family) bdk_session_retest(s, q, p, now_us);
    p->route.local = local;
  }
  bdk_session_test_others(s, q, now_us);
  bdk_session_tick(s, q, now_us);
}

bool bdk_session_unreachable(bdk_session *s, bdk_outq *q, uint64_t now_us, const bdk_addr *remote) {
  bool ours = false;
  for (int i = 0; i < s->path_count; i++) {
    bdk_path *p = &s->paths[i];
    if (!bdk_addr_equal(&p->route.remote, remote)) continue;
    ours = true;
    // A path that worked is left to its consent: routes go and come back when a network changes. The address
    // of ours that it worked from may be gone, though, and the kernel refuse to send from there for good.
    if (!p->answered) {
      bdk_path_fail(p, BDK_REASON_unreachable, now_us);
      continue;
    }
    bool refused = p->route.local.family != 0;
    p->route.local = (bdk_addr){0};
    if (refused && p->state == BDK_PATH_VALID) bdk_session_test_beside(s, q, p, now_us);
  }
  if (ours) bdk_session_tick(s, q, now_us);
  return ours;
}

void bdk_session_listed(bdk_session *s, bdk_outq *q, uint64_t now_us, const bdk_candidate *list, uint32_t count) {
  for (uint32_t i = 0; i < count; i++) {
    bdk_path *p = bdk_session_candidate(s, &list[i]);
    if (!p || (p->state != BDK_PATH_FAILED && p->state != BDK_PATH_FROZEN)) continue;
    p->attempt_max = p->answered ? BDK_ROUND_KNOWN : BDK_ROUND_LATER;
    if (s->started) bdk_path_on(p, p->state == BDK_PATH_FAILED ? BDK_PATH_REVIVE : BDK_PATH_START, now_us);
  }
  bdk_session_tick(s, q, now_us);
}

void bdk_session_ask(bdk_session *s, bdk_outq *q, uint64_t now_us) {
  bool lost = s->opened && (s->state == BDK_SESSION_SEEKING || bdk_session_doubts(s, now_us));
  if (!lost) {
    s->ask_us = 0;
    return;
  }
  if (s->ask_us > now_us) return;
  uint64_t twice = s->ask_wait_us * 2 < ASK_MAX_US ? s->ask_wait_us * 2 : ASK_MAX_US;
  s->ask_wait_us = s->ask_us ? twice : ASK_FIRST_US;
  s->ask_us = now_us + s->ask_wait_us;
  bdk_outq_put(q, &(bdk_output){.kind = BDK_OUT_DOUBT, .session = s->index});
}
