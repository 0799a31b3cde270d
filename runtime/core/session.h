// SPDX-License-Identifier: MIT
// A session with one peer: its paths, the one selected, and when it ends.
//
//   ARMED --start--> SEEKING --heard--> OPEN --lost--> SEEKING ...; any --close, give_up--> CLOSED(reason)
//
// Internal to mux, which finds the session a datagram belongs to and owns time, memory and outputs.
#ifndef BDK_SESSION_H
#define BDK_SESSION_H

#include "path.h"

#define BDK_SESSION_PATHS 16

typedef enum bdk_session_state {
  BDK_SESSION_ARMED,
  BDK_SESSION_SEEKING,
  BDK_SESSION_OPEN,
  BDK_SESSION_CLOSED,
  BDK_SESSION_STATES
} bdk_session_state;

typedef enum bdk_session_event {
  BDK_SESSION_START,   // start_in elapsed
  BDK_SESSION_HEARD,   // an authentic test or frame came
  BDK_SESSION_LOST,    // no path is left
  BDK_SESSION_CLOSE,   // this side or the peer leaves
  BDK_SESSION_GIVE_UP, // sought for too long
  BDK_SESSION_EVENTS
} bdk_session_event;

extern const uint8_t bdk_session_table[BDK_SESSION_STATES][BDK_SESSION_EVENTS];
const char *bdk_session_state_name(int state);

struct bdk_mux;

typedef struct bdk_session {
  bdk_timer timer; // the next thing any part of it has to do
  bdk_keys keys;
  uint8_t peer[BDK_ID_LEN];
  uint8_t state, reason;
  bool used, opened, reported; // opened: ever OPEN; reported: `path` was told for the selected one
  uint8_t path_count;
  int8_t selected; // index of the path data goes by, -1: none
  uint32_t index, peer_index, generation; // what the peer's frames to us carry; ours to it; of this slot
  bool peer_index_known;
  uint32_t epoch;
  uint64_t tx_counter, rx_top; // next frame; the highest counter received
  bdk_window window;
  uint64_t armed_us, start_us, give_up_us;
  uint64_t unanswered_us; // first data sent since something was heard on the selected path, 0: none
  uint64_t tokens_us;     // token bucket of tests: the time up to which tokens are spent
  uint32_t select_n;      // latest selection sent (controlling) or followed (controlled)
  uint32_t select_tries;
  uint64_t select_due_us; // its repeat; BDK_NEVER when acknowledged
  int8_t told;            // the path last told to the owner
  bdk_path paths[BDK_SESSION_PATHS];
} bdk_session;

// Applies an event to the table: the state that follows.
int bdk_session_on(bdk_session *s, bdk_session_event event);
// The following do what DESIGN's rules say, queueing outputs on `mux` (see mux.c for those).
void bdk_session_probe(struct bdk_mux *m, bdk_session *s, uint64_t now_us, const bdk_route *r, const bdk_probe *p,
                       size_t len);
void bdk_session_frame(struct bdk_mux *m, bdk_session *s, uint64_t now_us, const bdk_route *r, uint8_t kind,
                       uint64_t counter, const uint8_t *data, size_t len, size_t wire_len);
void bdk_session_tick(struct bdk_mux *m, bdk_session *s, uint64_t now_us);
int bdk_session_send(struct bdk_mux *m, bdk_session *s, uint64_t now_us, const uint8_t *data, size_t len);
void bdk_session_unreachable(struct bdk_mux *m, bdk_session *s, uint64_t now_us, const bdk_addr *remote);
void bdk_session_close(struct bdk_mux *m, bdk_session *s, uint64_t now_us, bdk_reason reason);

#endif
