// SPDX-License-Identifier: MIT
// What the files of a session share, and no other: session.c is the machine, session_renew.c what the server schedules,
// session_seal.c its first keys.
#ifndef BDK_SESSION_IN_H
#define BDK_SESSION_IN_H

#include "session.h"

#define MS 1000u
#define BDK_ROUND_TESTS 25u // what the schedule takes in 10 s

// The path of a route, NULL when there is none.
bdk_path *bdk_session_path(bdk_session *s, const bdk_route *route);
// A place for another one, NULL when all are in use. Its former path is forgotten.
bdk_path *bdk_session_place(bdk_session *s);
// Whether an address may be tested at all.
bool bdk_session_is_host(const bdk_addr *a);

// --- session_seal.c
// The keys of frames, from those of the match. 0, or BDK_E_BAD_KEY.
int bdk_session_seal(bdk_session *s, const bdk_match *match, uint64_t counter);

// --- session_renew.c
// What a new session has to do by the server's schedule.
void bdk_session_schedule(bdk_session *s, const bdk_match *match);
// Does what is due of it: openers, the start of candidates that came with a renewal, and telling of silence.
void bdk_session_scheduled(bdk_session *s, bdk_outq *q, uint64_t now_us);
uint64_t bdk_session_schedule_due(const bdk_session *s);

#endif
