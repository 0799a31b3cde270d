// SPDX-License-Identifier: MIT
// A session with one peer: its paths, the one selected, and when it ends.
//
//   ARMED --start--> SEEKING --heard--> OPEN --lost--> SEEKING; any --close, give_up--> CLOSED(reason)
//
// Fed by mux, which finds the session a datagram belongs to, checks that it is authentic, and keeps the
// session's timer at bdk_session_deadline.
#ifndef BDK_SESSION_H
#define BDK_SESSION_H

#include "match.h"
#include "out.h"
#include "path.h"
#include "wheel.h"

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
  BDK_SESSION_HEARD,   // something authentic came, and the peer can be answered
  BDK_SESSION_LOST,    // no path is left
  BDK_SESSION_CLOSE,   // this side or the peer leaves
  BDK_SESSION_GIVE_UP, // sought for too long
  BDK_SESSION_EVENTS
} bdk_session_event;

extern const uint8_t bdk_session_table[BDK_SESSION_STATES][BDK_SESSION_EVENTS];
const char *bdk_session_state_name(int state);

typedef struct bdk_session {
  bdk_timer timer; // mux's: the next thing any part of this has to do
  bdk_keys keys;
  uint8_t peer[BDK_ID_LEN];
  uint8_t state, reason, path_count;
  int8_t selected;     // the path data goes by, -1: none
  int8_t told;         // the path last told to the owner as confirmed, -1: none
  int8_t rebound;      // a path the peer seems to have moved to, awaiting its confirm, -1: none
  bool opened;         // was ever OPEN
  bool peer_known;     // peer_index is
  bool round_later;    // candidates are sought again, after a loss
  bool started;        // direct candidates are, or were, sought: start_in elapsed, or the peer began
  uint8_t silences;    // how often the owner was told that nothing is heard
  uint8_t opener_ttl;  // of the openers to be sent, 0: none
  uint16_t lost_tests; // of this round, to listed candidates whose places others took
  uint32_t index;      // what the peer's frames to us carry
  uint32_t peer_index, peer_epoch, epoch;
  bdk_seal seal;
  bdk_rekey rekey;
  uint64_t sealed_us;                   // since when the keys in use are
  uint64_t rekey_due_us, rekey_wait_us; // role 0: when to ask for new ones, or again; BDK_NEVER
  uint64_t armed_us, start_us, give_up_us;
  uint64_t quiet_us, renew_us;            // when silence is told; when candidates of a renewal begin; BDK_NEVER
  uint64_t unconfirmed_us;                // since when, once OPEN, no path is VALID, 0: one is
  uint64_t unanswered_us;                 // when something was sent since the peer was last heard, 0: nothing was
  uint64_t silent_us;                     // the same of the selected path, 0: nothing was
  uint64_t doubt_due_us;                  // in doubt of it: when the other paths are tested
  uint64_t again_us, again_wait_us;       // by relay: when direct ones are sought again, 0: not
  uint64_t ask_us, ask_wait_us;           // while nothing comes back: when the owner is told again, 0: not
  uint8_t hello[BDK_NONCE_LEN];           // of the test that was handed out
  uint64_t bucket_us;                     // token bucket of tests: until when its tokens are spent
  uint32_t select_n;                      // latest selection sent (controlling) or followed (controlled)
  uint64_t select_due_us, select_wait_us; // its repeat; BDK_NEVER once acknowledged
  bdk_path paths[BDK_SESSION_PATHS];
} bdk_session;

// Copies what it needs and sets the session ARMED. `index` names it in the peer's frames, `counter` is of the first
// one of ours. 0, or BDK_E_BAD_KEY: a key of the peer's is of low order.
int bdk_session_init(bdk_session *s, const bdk_match *match, uint32_t index, uint64_t counter, uint64_t now_us);
// The server scheduled the match again: tests more candidates from start_in on, beside those there are.
void bdk_session_renew(bdk_session *s, bdk_outq *q, uint64_t now_us, const bdk_renewal *renewal);
// Forgets all keys.
void bdk_session_clear(bdk_session *s);
// Applies an event to the table: the state that follows.
int bdk_session_on(bdk_session *s, bdk_session_event event);
// An authentic test or confirm of `len` bytes came by `route`.
void bdk_session_probe(bdk_session *s, bdk_outq *q, uint64_t now_us, const bdk_route *route, const bdk_probe *probe,
                       size_t len);
// An authentic frame, never seen before, whose datagram had `wire_len` bytes.
void bdk_session_frame(bdk_session *s, bdk_outq *q, uint64_t now_us, const bdk_route *route, uint8_t kind,
                       uint64_t counter, const uint8_t *data, size_t len, size_t wire_len);
// A relay has opened a channel: it becomes a path, tested at once, or a failed one is again. BDK_E_LIMIT: no place.
int bdk_session_relay(bdk_session *s, bdk_outq *q, uint64_t now_us, const bdk_route *route);
// An address of ours has changed: everything is tested at once. left: as for bdk_mux_moved.
void bdk_session_moved(bdk_session *s, bdk_outq *q, uint64_t now_us, const bdk_addr *left, uint32_t count);
// The peer may be at these addresses, too, from now on. Copied.
void bdk_session_listed(bdk_session *s, bdk_outq *q, uint64_t now_us, const bdk_candidate *list, uint32_t count);
// A test for the relay to hand to the peer once that is there; its length.
size_t bdk_session_hello(bdk_session *s, bdk_outq *q, uint8_t out[BDK_PROBE_MAX]);
// Does what is due. Also called after each of the above.
void bdk_session_tick(bdk_session *s, bdk_outq *q, uint64_t now_us);
uint64_t bdk_session_deadline(const bdk_session *s);
int bdk_session_send(bdk_session *s, bdk_outq *q, uint64_t now_us, const uint8_t *data, size_t len);
// False, and nothing done, when no path of this session goes there.
bool bdk_session_unreachable(bdk_session *s, bdk_outq *q, uint64_t now_us, const bdk_addr *remote);
// Ends it, telling the peer when `reason` is closed; the owner hears BDK_OUT_CLOSED.
void bdk_session_close(bdk_session *s, bdk_outq *q, uint64_t now_us, bdk_reason reason);

#endif
