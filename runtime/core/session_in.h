// SPDX-License-Identifier: MIT
// What the files of a session share, and no other: session.c is the machine, session_relay.c what it does with a relay
// and while its path is silent, session_roam.c what it does when an end moves, session_renew.c what the server
// schedules, session_seal.c its first keys.
#ifndef BDK_SESSION_IN_H
#define BDK_SESSION_IN_H

#include "session.h"

#define MS 1000u
#define BDK_ROUND_TESTS 25u  // what the schedule takes in 10 s
#define BDK_ROUND_LATER 10u  // and in a later round, to an address that never answered
#define BDK_ROUND_KNOWN 120u // 60 s, to one that did answer

// Whether tests may go there.
bool bdk_session_is_host(const bdk_addr *a);
// The path of a route, NULL when there is none.
bdk_path *bdk_session_path(bdk_session *s, const bdk_route *route);
// A place for another one, NULL when all are in use. Its former path is forgotten.
bdk_path *bdk_session_place(bdk_session *s);
// The path of an address the owner names, new (FROZEN) or as it is; NULL when it is none for tests or all places are in
// use.
bdk_path *bdk_session_candidate(bdk_session *s, const bdk_candidate *c);
// Sends a test on a path.
void bdk_session_test(bdk_session *s, bdk_outq *q, bdk_path *p, uint64_t now_us);
// False when the token bucket of tests is empty; `*wait_us` is then when it has one again.
bool bdk_session_token(bdk_session *s, uint64_t now_us, uint64_t *wait_us);
// Begins to test all candidates, for the first time or `later` again.
void bdk_session_round(bdk_session *s, bool later, uint64_t now_us);

// --- session_relay.c
// Whether sends have gone unanswered for so long that another path should carry them, too.
bool bdk_session_doubts(const bdk_session *s, uint64_t now_us);
// While it does: the path that carries them, too; NULL.
bdk_path *bdk_session_second(bdk_session *s, uint64_t now_us);
// While it does, and another path was answered since: that one's number, else -1.
int bdk_session_answering(const bdk_session *s, uint64_t now_us);
// What is due of both: other paths are tested in doubt, direct ones from time to time while a relay is in use.
void bdk_session_restless(bdk_session *s, bdk_outq *q, uint64_t now_us);
uint64_t bdk_session_restless_due(const bdk_session *s);
// Sends a test on a VALID path, if the token bucket has one, that leaves the schedule of its consent alone.
void bdk_session_test_beside(bdk_session *s, bdk_outq *q, bdk_path *p, uint64_t now_us);
// Tests a VALID path so; one that was and has failed begins anew.
void bdk_session_retest(bdk_session *s, bdk_outq *q, bdk_path *p, uint64_t now_us);
// All but the selected one.
void bdk_session_test_others(bdk_session *s, bdk_outq *q, uint64_t now_us);

// --- session_seal.c
// The keys of frames, from those of the match. 0, or BDK_E_BAD_KEY.
int bdk_session_seal(bdk_session *s, const bdk_match *match, uint64_t counter);

// --- session_renew.c
// What a new session has to do by the server's schedule.
void bdk_session_schedule(bdk_session *s, const bdk_match *match);
// Does what is due of it: openers, the start of candidates that came with a renewal, and telling of silence.
void bdk_session_scheduled(bdk_session *s, bdk_outq *q, uint64_t now_us);
uint64_t bdk_session_schedule_due(const bdk_session *s);

// --- session_roam.c
// While nothing comes back, asks the owner from time to time where the peer is.
void bdk_session_ask(bdk_session *s, bdk_outq *q, uint64_t now_us);

#endif
