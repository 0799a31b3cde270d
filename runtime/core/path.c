// SPDX-License-Identifier: MIT
#include "path.h"

#include <string.h>

#define S(state) BDK_PATH_##state

const uint8_t bdk_path_table[BDK_PATH_STATES][BDK_PATH_EVENTS] = {
    //             START        TEST       CONFIRM   FAIL       REVIVE
    [S(FROZEN)] = {S(PROBING), S(USABLE), S(FROZEN), S(FROZEN), S(FROZEN)},
    [S(PROBING)] = {S(PROBING), S(USABLE), S(VALID), S(FAILED), S(PROBING)},
    [S(USABLE)] = {S(USABLE), S(USABLE), S(VALID), S(FAILED), S(USABLE)},
    [S(VALID)] = {S(VALID), S(VALID), S(VALID), S(FAILED), S(VALID)},
    [S(FAILED)] = {S(FAILED), S(USABLE), S(VALID), S(FAILED), S(PROBING)},
};

const char *bdk_path_state_name(int state) {
  static const char *const names[BDK_PATH_STATES] = {"frozen", "probing", "usable", "valid", "failed"};
  return state >= 0 && state < BDK_PATH_STATES ? names[state] : "?";
}

const char *bdk_via_name(int via) {
  static const char *const names[BDK_VIA_COUNT] = {"host", "ipv6", "mapped", "srflx", "prflx", "relay"};
  return via >= 0 && via < BDK_VIA_COUNT ? names[via] : "?";
}

// DESIGN's schedule: dense at first, since both sides start at once and the first crossing decides, then
// slow enough to be harmless.
static const uint32_t early_ms[] = {0, 20, 40, 80, 160, 320};
#define EARLY (sizeof early_ms / sizeof *early_ms)
#define LATE_US 500000u
#define GAP_US 5000u // at least, between two tests of a path

void bdk_path_init(bdk_path *p, const bdk_route *route, bdk_via via, bool listed) {
  memset(p, 0, sizeof *p);
  p->route = *route;
  p->via = (uint8_t)via;
  p->listed = listed;
  p->due_us = BDK_NEVER;
}

static void restart(bdk_path *p, uint64_t now_us) {
  p->spent += p->attempt;
  p->attempt = 0;
  p->due_us = now_us;
}

int bdk_path_on(bdk_path *p, bdk_path_event event, uint64_t now_us) {
  int before = p->state;
  p->state = bdk_path_table[before][event];
  if (event == BDK_PATH_TEST || event == BDK_PATH_CONFIRM) p->answered = true;
  if (p->state == before) return p->state;
  switch (p->state) {
  case BDK_PATH_PROBING:
    restart(p, now_us);
    p->reason = BDK_REASON_none;
    break;
  case BDK_PATH_USABLE: // heard before our own test was answered: ask again at once
    restart(p, now_us);
    p->reason = BDK_REASON_none;
    break;
  case BDK_PATH_VALID:
    p->reason = BDK_REASON_none;
    p->heard_us = now_us;
    p->data_unconfirmed = 0;
    if (!p->valid_us) p->valid_us = now_us;
    break;
  case BDK_PATH_FAILED:
    p->due_us = BDK_NEVER;
    memset(p->asked, 0, sizeof p->asked);
    break;
  }
  return p->state;
}

void bdk_path_fail(bdk_path *p, bdk_reason reason, uint64_t now_us) {
  if (bdk_path_on(p, BDK_PATH_FAIL, now_us) == BDK_PATH_FAILED && p->reason == BDK_REASON_none)
    p->reason = (uint8_t)reason;
}

int bdk_path_class(const bdk_path *p) {
  switch (p->via) {
  case BDK_VIA_HOST:
    return 0;
  case BDK_VIA_IPV6:
    return 1;
  case BDK_VIA_MAPPED:
    return 2;
  case BDK_VIA_RELAY:
    return 4;
  default:
    return 3;
  }
}

void bdk_path_asked(bdk_path *p, const uint8_t nonce[BDK_NONCE_LEN], uint64_t now_us) {
  unsigned oldest = 0;
  for (unsigned i = 1; i < BDK_PATH_NONCES; i++)
    if (p->asked[i].sent_us < p->asked[oldest].sent_us) oldest = i;
  memcpy(p->asked[oldest].nonce, nonce, BDK_NONCE_LEN);
  p->asked[oldest].sent_us = now_us ? now_us : 1; // 0 means free
  p->asked_last = (uint8_t)oldest;
  p->asked[oldest].counted = p->state == BDK_PATH_VALID;
  p->questions += p->state == BDK_PATH_VALID;
}

void bdk_path_tested(bdk_path *p, const uint8_t nonce[BDK_NONCE_LEN], uint64_t now_us, uint16_t jitter) {
  bdk_path_asked(p, nonce, now_us);
  if (p->attempt < UINT16_MAX) p->attempt++;
  if (p->attempt < EARLY) {
    // Against the schedule, not against now: a late tick must not shift the tests that follow, nor bunch them.
    uint64_t next = p->due_us + (uint64_t)(early_ms[p->attempt] - early_ms[p->attempt - 1]) * 1000;
    p->due_us = next > now_us + GAP_US ? next : now_us + GAP_US;
  } else {
    p->due_us = now_us + LATE_US - LATE_US / 10 + (uint64_t)(LATE_US / 5) * jitter / 65536;
  }
}

bool bdk_path_answered(bdk_path *p, const uint8_t nonce[BDK_NONCE_LEN], const bdk_addr *remote, uint64_t now_us) {
  if (!bdk_addr_equal(&p->route.remote, remote)) return false;
  for (unsigned i = 0; i < BDK_PATH_NONCES; i++) {
    uint64_t sent = p->asked[i].sent_us;
    if (!sent || now_us > sent + BDK_PATH_ANSWER_US || memcmp(p->asked[i].nonce, nonce, BDK_NONCE_LEN) != 0) continue;
    p->asked[i].sent_us = 0;
    p->answers += p->asked[i].counted;
    bdk_path_sample(p, now_us > sent ? (uint32_t)(now_us - sent) : 0);
    return true;
  }
  return false;
}

unsigned bdk_path_loss(const bdk_path *p) {
  uint32_t waits = p->asked[p->asked_last].counted && p->asked[p->asked_last].sent_us;
  uint32_t over = p->questions - waits, lost = over - p->answers;
  return over ? (unsigned)((uint64_t)lost * 1000 / over) : 0;
}

void bdk_path_sample(bdk_path *p, uint32_t rtt_us) {
  if (p->rtts) {
    uint32_t last_us = p->rtt_us[(p->rtts - 1) % BDK_PATH_SAMPLES];
    uint32_t by_us = rtt_us > last_us ? rtt_us - last_us : last_us - rtt_us;
    p->jitter_us = p->jitter_us - p->jitter_us / 16 + by_us / 16;
  }
  p->srtt_us = p->rtts ? p->srtt_us - p->srtt_us / 8 + rtt_us / 8 : rtt_us; // RFC 6298 section 2.3
  p->rtt_us[p->rtts % BDK_PATH_SAMPLES] = rtt_us;
  p->rtts++;
}

bool bdk_path_may_send(const bdk_path *p, size_t len) {
  if (p->state == BDK_PATH_VALID) return true;
  if (p->state != BDK_PATH_USABLE) return false;
  if (p->listed || p->valid_us) return p->data_unconfirmed < BDK_PATH_LISTED_MAX;
  return p->tx_bytes + len <= BDK_PATH_UNLISTED_TIMES * p->rx_bytes;
}
