// SPDX-License-Identifier: MIT
// A path: one of our sockets and one remote address, probed until it answers or is given up.
// Transitions are a table; what a path does in a state (its schedule, its samples) is here too.
//
//   FROZEN --start--> PROBING --test--> USABLE --confirm--> VALID
//                        \--------------confirm-------------/
//   any but FROZEN --fail--> FAILED(reason) --revive--> PROBING; FAILED --test--> USABLE
#ifndef BDK_PATH_H
#define BDK_PATH_H

#include "probe.h"

#define BDK_PATH_NONCES 8            // tests and consent checks of a path that may still be answered
#define BDK_PATH_ANSWER_US 30000000u // what is answered later than consent lasts proves nothing
#define BDK_PATH_SAMPLES 3
#define BDK_PATH_LISTED_MAX 16u    // frames to a listed address until it confirms, or does so again
#define BDK_PATH_UNLISTED_TIMES 3u // bytes to an unlisted one, per byte received, before it ever confirmed

typedef enum bdk_path_state {
  BDK_PATH_FROZEN,
  BDK_PATH_PROBING,
  BDK_PATH_USABLE, // the peer was heard on it: data may flow
  BDK_PATH_VALID,  // a test of ours was confirmed on it
  BDK_PATH_FAILED,
  BDK_PATH_STATES
} bdk_path_state;

typedef enum bdk_path_event {
  BDK_PATH_START,   // start_in elapsed
  BDK_PATH_TEST,    // an authentic test or frame came
  BDK_PATH_CONFIRM, // an authentic confirm of a test of ours came, from the address tested
  BDK_PATH_FAIL,
  BDK_PATH_REVIVE, // try again from the beginning
  BDK_PATH_EVENTS
} bdk_path_event;

extern const uint8_t bdk_path_table[BDK_PATH_STATES][BDK_PATH_EVENTS];
const char *bdk_path_state_name(int state);

// How a candidate came about, in order of preference.
typedef enum bdk_via {
  BDK_VIA_HOST,
  BDK_VIA_IPV6,
  BDK_VIA_MAPPED,
  BDK_VIA_SRFLX,
  BDK_VIA_PRFLX,
  BDK_VIA_RELAY,
  BDK_VIA_COUNT
} bdk_via;
const char *bdk_via_name(int via);

typedef struct bdk_path {
  uint8_t state, via, reason;
  bool listed;   // came with `matched`; else learned from an authentic datagram
  bool answered; // its address sent something authentic at least once
  bdk_route route;
  uint16_t attempt;          // tests sent since it was begun or revived
  uint16_t spent;            // and before that, in this round of its session
  uint16_t attempt_max;      // tests a round may take while `answered` is false
  uint16_t data_unconfirmed; // frames sent while not VALID
  uint64_t rx_bytes, tx_bytes;
  uint64_t due_us;                         // next test, or next consent check when VALID; BDK_NEVER
  uint64_t heard_us;                       // last authentic confirm or consent answer
  uint64_t valid_us;                       // when first confirmed, 0 before
  uint32_t rtt_us[BDK_PATH_SAMPLES], rtts; // latest samples, and how many there were
  uint32_t srtt_us;                        // smoothed, RFC 6298 weights
  uint32_t jitter_us;                      // between samples, RFC 3550 section 6.4.1
  uint8_t asked_last;                      // the place of the latest in `asked`
  uint32_t questions, answers;             // sent while VALID, and how many of these were answered
  struct {
    uint8_t nonce[BDK_NONCE_LEN];
    bool counted;     // among the questions
    uint64_t sent_us; // 0: free
  } asked[BDK_PATH_NONCES];
} bdk_path;

void bdk_path_init(bdk_path *p, const bdk_route *route, bdk_via via, bool listed);
// Applies an event. Returns the state that follows; an event that a state ignores leaves it.
int bdk_path_on(bdk_path *p, bdk_path_event event, uint64_t now_us);
// Gives it up for a reason (event FAIL).
void bdk_path_fail(bdk_path *p, bdk_reason reason, uint64_t now_us);
// Class of preference, smaller is better: lan, ipv6, mapped, direct, relay.
int bdk_path_class(const bdk_path *p);
// Notes a question sent now, that only who receives there can answer.
void bdk_path_asked(bdk_path *p, const uint8_t nonce[BDK_NONCE_LEN], uint64_t now_us);
// Notes a test sent now and sets when the next is due; `jitter` is 0..65535, for the ±10 %.
void bdk_path_tested(bdk_path *p, const uint8_t nonce[BDK_NONCE_LEN], uint64_t now_us, uint16_t jitter);
// True when `nonce` is of a question of ours sent to `remote`; takes it and the RTT sample.
bool bdk_path_answered(bdk_path *p, const uint8_t nonce[BDK_NONCE_LEN], const bdk_addr *remote, uint64_t now_us);
// How many in 1,000 of the questions had no answer; one that the latest still waits for does not count.
unsigned bdk_path_loss(const bdk_path *p);
void bdk_path_sample(bdk_path *p, uint32_t rtt_us);
// Whether `len` bytes more may be sent to an address that has not confirmed.
bool bdk_path_may_send(const bdk_path *p, size_t len);

#endif
