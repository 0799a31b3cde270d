// SPDX-License-Identifier: MIT
#include "session_in.h"

#include "relay.h"

#include <limits.h>
#include <sodium.h>
#include <string.h>

#define NO_PATH_US (10000u * MS)       // SEEKING, never OPEN
#define SEEK_AGAIN_US (60000u * MS)    // SEEKING after a loss
#define CONSENT_EVERY_US (5000u * MS)  // ±20 %, as RFC 7675 section 5.1
#define CONSENT_SPARE_US (10000u * MS) // of a relay that is only there in case: a server has many of them
#define CONSENT_FIRST_US (250u * MS)   // while the peer may not have confirmed the path yet; doubles
#define CONSENT_SOON_US (1000u * MS)   // up to this
#define CONSENT_LOST_US (30000u * MS)  // RFC 7675 section 5.1
#define TOKEN_US (10u * MS)            // 100 tests a second a match
#define BURST_US (60u * TOKEN_US)      // and 60 at once
#define TEST_MAX 60u                   // bytes of a test, each number at its longest
#define SILENT_IP_TESTS 100u           // in the first round, to any IP that never answered
#define SELECT_FIRST_US (100u * MS)
#define SELECT_WAIT_MAX_US (2000u * MS)
#define CLOSE_COPIES 3u
#define REKEY_US (120000u * MS)    // the age at which keys are replaced
#define REKEY_FIRST_US (500u * MS) // the first repeat of the question
#define REKEY_WAIT_MAX_US (5000u * MS)
#define BETTER_MARGIN_US (2u * MS) // a faster path of one class must win by this and an eighth

#define S(state) BDK_SESSION_##state

const uint8_t bdk_session_table[BDK_SESSION_STATES][BDK_SESSION_EVENTS] = {
    //              START        HEARD    LOST        CLOSE      GIVE_UP
    [S(ARMED)] = {S(SEEKING), S(OPEN), S(ARMED), S(CLOSED), S(CLOSED)},
    [S(SEEKING)] = {S(SEEKING), S(OPEN), S(SEEKING), S(CLOSED), S(CLOSED)},
    [S(OPEN)] = {S(OPEN), S(OPEN), S(SEEKING), S(CLOSED), S(OPEN)},
    [S(CLOSED)] = {S(CLOSED), S(CLOSED), S(CLOSED), S(CLOSED), S(CLOSED)},
};

const char *bdk_session_state_name(int state) {
  static const char *const names[BDK_SESSION_STATES] = {"armed", "seeking", "open", "closed"};
  return state >= 0 && state < BDK_SESSION_STATES ? names[state] : "?";
}

int bdk_session_on(bdk_session *s, bdk_session_event event) { return s->state = bdk_session_table[s->state][event]; }

static uint64_t sooner(uint64_t a, uint64_t b) { return a < b ? a : b; }

bdk_path *bdk_session_path(bdk_session *s, const bdk_route *route) {
  for (int i = 0; i < s->path_count; i++) {
    const bdk_route *r = &s->paths[i].route;
    if (r->sock == route->sock && (r->channel != 0) == (route->channel != 0) &&
        bdk_addr_equal(&r->remote, &route->remote))
      return &s->paths[i];
  }
  return NULL;
}

// Tests go to hosts alone, whatever a server lists: one to a group would reach everyone in it.
bool bdk_session_is_host(const bdk_addr *a) {
  bdk_addr_class class = bdk_addr_classify(a);
  return a->port && class != BDK_ADDR_NONE && class != BDK_ADDR_MULTICAST;
}

int bdk_session_init(bdk_session *s, const bdk_match *match, uint32_t index, uint64_t counter, uint64_t now_us) {
  memset(s, 0, sizeof *s);
  bdk_keys_init(&s->keys, match->match, match->key, match->self, match->peer);
  int error = bdk_session_seal(s, match, counter);
  if (error) {
    bdk_session_clear(s);
    return error;
  }
  memcpy(s->peer, match->peer, BDK_ID_LEN);
  s->index = index;
  s->selected = s->told = s->rebound = -1;
  s->armed_us = s->sealed_us = now_us;
  s->start_us = now_us + match->start_in_us;
  s->give_up_us = s->start_us + NO_PATH_US;
  s->select_due_us = BDK_NEVER;
  bdk_session_schedule(s, match);
  s->rekey_due_us = s->keys.role == 0 ? now_us + REKEY_US : BDK_NEVER;
  for (uint32_t i = 0; i < match->count && s->path_count < BDK_SESSION_PATHS; i++)
    (void)bdk_session_candidate(s, &match->candidates[i]);
  return BDK_OK;
}

void bdk_session_clear(bdk_session *s) {
  bdk_keys_clear(&s->keys);
  bdk_seal_clear(&s->seal);
  bdk_rekey_clear(&s->rekey);
}

// How easily a path gives its place to another, 0 first; -1: it does not.
static int spare_rank(const bdk_session *s, int i) {
  const bdk_path *p = &s->paths[i];
  bool failed = p->state == BDK_PATH_FAILED;
  if (i == s->selected || i == s->rebound) return -1;
  if (failed && !p->answered) return 0;
  if (failed && !p->listed) return 1;
  if (!p->answered) return 2;
  if (failed) return 3;
  return p->state == BDK_PATH_USABLE && !p->listed ? 4 : -1; // a test seen again elsewhere makes these, too
}

// Of two with the same rank: of those that never answered the one that was tested more, which one just placed was not;
// else the one confirmed less lately.
static bool rather(const bdk_path *p, const bdk_path *other) {
  if (!p->answered && !other->answered) return p->spent + p->attempt > other->spent + other->attempt;
  return p->heard_us < other->heard_us;
}

// When the table is full it is the place of the most dispensable.
bdk_path *bdk_session_place(bdk_session *s) {
  if (s->path_count < BDK_SESSION_PATHS) return &s->paths[s->path_count++];
  bdk_path *p = NULL;
  int lowest = INT_MAX;
  for (int i = 0; i < s->path_count; i++) {
    int rank = spare_rank(s, i);
    if (rank < 0 || rank > lowest || (rank == lowest && !rather(&s->paths[i], p))) continue;
    lowest = rank;
    p = &s->paths[i];
  }
  if (!p) return NULL;
  if (p->listed) s->lost_tests += p->spent + p->attempt;
  return p;
}

bdk_path *bdk_session_candidate(bdk_session *s, const bdk_candidate *c) {
  bdk_route route = {.remote = c->addr, .sock = c->sock};
  if (!bdk_session_is_host(&route.remote)) return NULL;
  bdk_path *p = bdk_session_path(s, &route);
  if (!p) {
    if (!(p = bdk_session_place(s))) return NULL;
    bdk_path_init(p, &route, c->via, true);
    p->attempt_max = BDK_ROUND_TESTS;
  }
  p->listed = true;
  if (c->via < p->via) p->via = (uint8_t)c->via;
  return p;
}

// A path for an address the peer was heard from but that nobody listed; NULL when all places are in use.
static bdk_path *learn_path(bdk_session *s, const bdk_route *route) {
  bdk_path *p = route->channel ? NULL : bdk_session_place(s);
  if (!p) return NULL;
  bdk_addr_class class = bdk_addr_classify(&route->remote);
  bool local = class == BDK_ADDR_PRIVATE || class == BDK_ADDR_LOOPBACK || class == BDK_ADDR_LINK_LOCAL;
  bdk_via via = local ? BDK_VIA_HOST : route->remote.family == 6 ? BDK_VIA_IPV6 : BDK_VIA_PRFLX;
  bdk_path_init(p, route, via, false);
  p->attempt_max = BDK_ROUND_TESTS;
  return p;
}

static void send_on(bdk_session *s, bdk_outq *q, bdk_path *p, const uint8_t *data, size_t len) {
  uint8_t relayed[BDK_DATAGRAM_MAX];
  uint32_t channel = p->route.channel;
  if (channel) {
    relayed[0] = BDK_RELAY_MARK;
    for (unsigned i = 0; i < 4; i++) relayed[1 + i] = (uint8_t)(channel >> (24 - 8 * i));
    memcpy(relayed + BDK_RELAY_HEAD, data, len);
    data = relayed;
    len += BDK_RELAY_HEAD;
  }
  bdk_outq_put(q,
               &(bdk_output){.kind = BDK_OUT_SEND, .session = s->index, .route = p->route, .data = data, .len = len});
  p->tx_bytes += len;
}

// `also`: a second path for the same datagram, or NULL: the peer takes whichever comes first.
static bool send_frame_twice(bdk_session *s, bdk_outq *q, bdk_path *p, bdk_path *also, bdk_frame_kind kind,
                             const uint8_t *data, size_t len) {
  if (!s->peer_known || !bdk_path_may_send(p, len + BDK_FRAME_OVERHEAD)) {
    bdk_count(q->counters, BDK_COUNT_refuse_unconfirmed, 1);
    return false;
  }
  uint8_t out[BDK_DATAGRAM_MAX];
  size_t n = bdk_seal_write(&s->seal, s->peer_index, kind, data, len, out, sizeof out);
  if (!n) return false;
  if (p->state != BDK_PATH_VALID) p->data_unconfirmed++;
  send_on(s, q, p, out, n);
  if (also) send_on(s, q, also, out, n);
  bdk_count(q->counters, BDK_COUNT_frame_sent, 1);
  return true;
}

static bool send_frame(bdk_session *s, bdk_outq *q, bdk_path *p, bdk_frame_kind kind, const uint8_t *data, size_t len) {
  return send_frame_twice(s, q, p, NULL, kind, data, len);
}

// What an IP was sent without ever answering, over all its ports: the bound that keeps a lying server from
// aiming us at a stranger.
static bool silent_ip_spent(const bdk_session *s, const bdk_path *p) {
  unsigned tests = s->lost_tests; // wherever those went
  for (int i = 0; i < s->path_count; i++) {
    const bdk_path *other = &s->paths[i];
    if (!bdk_addr_same_ip(&other->route.remote, &p->route.remote)) continue;
    if (other->answered) return false;
    tests += other->spent + other->attempt;
  }
  return tests >= (s->round_later ? BDK_ROUND_LATER : SILENT_IP_TESTS);
}

// False when the token bucket is empty; `*wait_us` is then when it has one again.
bool bdk_session_token(bdk_session *s, uint64_t now_us, uint64_t *wait_us) {
  uint64_t spent = s->bucket_us > now_us ? s->bucket_us : now_us;
  if (spent + TOKEN_US > now_us + BURST_US) {
    *wait_us = spent + TOKEN_US - BURST_US;
    return false;
  }
  s->bucket_us = spent + TOKEN_US;
  return true;
}

static void send_probe(bdk_session *s, bdk_outq *q, bdk_path *p, const bdk_probe *probe) {
  uint8_t out[BDK_PROBE_MAX];
  size_t n = bdk_probe_write(&s->keys, probe, out, sizeof out);
  if (n) send_on(s, q, p, out, n);
}

void bdk_session_test(bdk_session *s, bdk_outq *q, bdk_path *p, uint64_t now_us) {
  uint8_t random[BDK_NONCE_LEN + 2];
  bdk_outq_random(q, random, sizeof random);
  bdk_probe probe = {.epoch = s->epoch, .rx_index = s->index};
  memcpy(probe.nonce, random, BDK_NONCE_LEN);
  send_probe(s, q, p, &probe);
  bdk_path_tested(p, probe.nonce, now_us, (uint16_t)(random[BDK_NONCE_LEN] << 8 | random[BDK_NONCE_LEN + 1]));
  bdk_count(q->counters, BDK_COUNT_test_sent, 1);
}

static void tick_probing(bdk_session *s, bdk_outq *q, bdk_path *p, uint64_t now_us) {
  if (p->attempt >= p->attempt_max || silent_ip_spent(s, p)) {
    bdk_path_fail(p, BDK_REASON_no_answer, now_us);
    return;
  }
  // An address nobody listed gets no more than it gave.
  if (!p->listed && !p->valid_us && p->tx_bytes + TEST_MAX > BDK_PATH_UNLISTED_TIMES * p->rx_bytes) {
    p->due_us = now_us + 500 * MS;
    p->attempt++; // the round still ends
    return;
  }
  uint64_t wait_us;
  if (bdk_session_token(s, now_us, &wait_us)) {
    bdk_session_test(s, q, p, now_us);
  } else {
    p->due_us = wait_us;
    bdk_count(q->counters, BDK_COUNT_refuse_tokens, 1);
  }
}

// How long until the next consent check, before jitter. The controlling side repeats SELECT until the peer, too, has
// confirmed the path; the other asks sooner until a SELECT tells that. For all that a peer may send to an address
// nobody listed is three times what comes from there: silence would leave it without tests.
static uint64_t consent_wait_us(const bdk_session *s, const bdk_path *p, uint64_t now_us) {
  if (p->route.channel && p - s->paths != s->selected) return CONSENT_SPARE_US;
  if (s->keys.role == 0 || s->select_n) return CONSENT_EVERY_US;
  uint64_t wait_us = now_us - p->valid_us; // doubles
  if (wait_us < CONSENT_FIRST_US) return CONSENT_FIRST_US;
  return wait_us < CONSENT_SOON_US ? wait_us : CONSENT_SOON_US;
}

static void tick_consent(bdk_session *s, bdk_outq *q, bdk_path *p, uint64_t now_us) {
  if (now_us - p->heard_us >= CONSENT_LOST_US) {
    bdk_path_fail(p, BDK_REASON_no_consent, now_us);
    return;
  }
  uint8_t nonce[BDK_NONCE_LEN], jitter[2];
  bdk_outq_random(q, nonce, sizeof nonce);
  if (send_frame(s, q, p, BDK_FRAME_CONSENT, nonce, sizeof nonce)) bdk_path_asked(p, nonce, now_us);
  bdk_outq_random(q, jitter, sizeof jitter);
  uint64_t wait_us = consent_wait_us(s, p, now_us);
  uint64_t spread = wait_us / 5 * 2 * (unsigned)(jitter[0] << 8 | jitter[1]) / 65536;
  p->due_us = now_us + wait_us - wait_us / 5 + spread;
  // The end of consent is a deadline of its own: not up to 6 s late.
  if (p->due_us > p->heard_us + CONSENT_LOST_US) p->due_us = p->heard_us + CONSENT_LOST_US;
}

void bdk_session_round(bdk_session *s, bool later, uint64_t now_us) {
  s->round_later = later;
  s->lost_tests = 0;
  for (int i = 0; i < s->path_count; i++) {
    bdk_path *p = &s->paths[i];
    p->attempt_max = !later ? BDK_ROUND_TESTS : p->answered ? BDK_ROUND_KNOWN : BDK_ROUND_LATER;
    bdk_path_on(p, later ? BDK_PATH_REVIVE : BDK_PATH_START, now_us);
    p->spent = 0;
  }
}

// Is `a` to be preferred to `b` by the order of classes, then states, then round-trip times?
static bool better(const bdk_path *a, const bdk_path *b) {
  if (a->state != b->state) return a->state == BDK_PATH_VALID;
  if (bdk_path_class(a) != bdk_path_class(b)) return bdk_path_class(a) < bdk_path_class(b);
  if (a->state != BDK_PATH_VALID || a->rtts < BDK_PATH_SAMPLES || b->rtts < BDK_PATH_SAMPLES) return false;
  for (int i = 0; i < BDK_PATH_SAMPLES; i++) // hysteresis: each of the last samples wins by the margin
    if (a->rtt_us[i] + BETTER_MARGIN_US + b->srtt_us / 8 > b->srtt_us) return false;
  return true;
}

static bool alive(const bdk_path *p) { return p->state == BDK_PATH_USABLE || p->state == BDK_PATH_VALID; }

static void send_select(bdk_session *s, bdk_outq *q, bdk_path *p, bdk_frame_kind kind, uint32_t n) {
  uint8_t body[8];
  for (unsigned i = 0; i < 4; i++) {
    body[i] = (uint8_t)(s->epoch >> (24 - 8 * i));
    body[4 + i] = (uint8_t)(n >> (24 - 8 * i));
  }
  send_frame(s, q, p, kind, body, sizeof body);
}

static void tell(bdk_session *s, bdk_outq *q, bdk_output_kind kind, const bdk_path *p, uint64_t now_us) {
  bdk_outq_put(q, &(bdk_output){.kind = kind,
                                .session = s->index,
                                .via = p->via,
                                .lan = bdk_path_class(p) == 0,
                                .route = p->route,
                                .since_us = now_us - s->armed_us,
                                .rtt_us = p->srtt_us});
}

static void select_path(bdk_session *s, int at) {
  if (at == s->selected) return;
  s->told = -1;
  s->selected = (int8_t)at;
  s->silent_us = 0; // of the one before
}

// The path data goes by. The controlling side decides and says so with SELECT; until it has, and whenever
// the selected path fails, the other side chooses by the same order for itself.
static void choose(bdk_session *s, bdk_outq *q, uint64_t now_us) {
  bool controlling = s->keys.role == 0;
  int best = s->selected >= 0 && alive(&s->paths[s->selected]) ? s->selected : -1;
  int answering = bdk_session_answering(s, now_us);
  if (best >= 0 && answering >= 0) {
    bdk_path_fail(&s->paths[best], BDK_REASON_silent, now_us);
    best = answering;
  }
  if (s->rebound >= 0 && s->paths[s->rebound].state == BDK_PATH_FAILED) s->rebound = -1;
  if (s->rebound >= 0 && s->paths[s->rebound].state == BDK_PATH_VALID) {
    // The peer moved there, and answers there. What it left would still pass for valid until its consent
    // ran out; should it be alive after all, the first thing heard on it brings it back.
    if (best >= 0 && best != s->rebound) bdk_path_fail(&s->paths[best], BDK_REASON_replaced, now_us);
    best = s->rebound;
    s->rebound = -1;
    bdk_count(q->counters, BDK_COUNT_path_rebound, 1);
  } else if (controlling || s->select_n == 0 || best < 0) {
    for (int i = 0; i < s->path_count; i++)
      if (alive(&s->paths[i]) && (best < 0 || better(&s->paths[i], &s->paths[best]))) best = i;
  }
  select_path(s, best);
}

// Says which path is selected, once it is confirmed: to the owner, and with SELECT to the peer.
static void announce(bdk_session *s, bdk_outq *q, uint64_t now_us) {
  if (s->selected < 0 || s->told == s->selected) return;
  bdk_path *p = &s->paths[s->selected];
  if (p->state != BDK_PATH_VALID) return;
  s->told = s->selected;
  tell(s, q, BDK_OUT_PATH, p, now_us);
  if (s->keys.role != 0) return;
  s->select_n++;
  s->select_wait_us = SELECT_FIRST_US;
  s->select_due_us = now_us + SELECT_FIRST_US;
  send_select(s, q, p, BDK_FRAME_SELECT, s->select_n);
}

static void open_session(bdk_session *s, bdk_outq *q, uint64_t now_us) {
  if (s->state == BDK_SESSION_OPEN || !s->peer_known || s->selected < 0) return;
  if (bdk_session_on(s, BDK_SESSION_HEARD) != BDK_SESSION_OPEN || s->opened) return;
  s->opened = true;
  bdk_count(q->counters, BDK_COUNT_session_opened, 1);
  tell(s, q, BDK_OUT_CONNECTED, &s->paths[s->selected], now_us);
}

static void tick_paths(bdk_session *s, bdk_outq *q, uint64_t now_us) {
  for (int i = 0; i < s->path_count; i++) {
    bdk_path *p = &s->paths[i];
    if (p->due_us > now_us) continue;
    if (p->state == BDK_PATH_PROBING || p->state == BDK_PATH_USABLE)
      tick_probing(s, q, p, now_us);
    else if (p->state == BDK_PATH_VALID)
      tick_consent(s, q, p, now_us);
    else
      p->due_us = BDK_NEVER;
  }
}

// How long a send may go unanswered before the path is asked.
static uint64_t patience_us(const bdk_session *s) {
  uint64_t twice = s->selected >= 0 ? 2 * (uint64_t)s->paths[s->selected].srtt_us : 0;
  return twice > 300 * MS ? twice : 300 * MS;
}

// New keys are asked for once those in use are old, and the ones before them gone: a third could not be told apart.
static void tick_rekey(bdk_session *s, bdk_outq *q, bdk_path *p, uint64_t now_us) {
  if (now_us < s->rekey_due_us) return;
  if (p->state != BDK_PATH_VALID || (!s->rekey.asking && s->seal.rx_on[!s->seal.phase])) {
    s->rekey_due_us = now_us + REKEY_FIRST_US;
    return;
  }
  if (!s->rekey.asking) {
    uint8_t ephemeral[BDK_DH_LEN];
    bdk_outq_random(q, ephemeral, sizeof ephemeral);
    bool asking = bdk_rekey_ask(&s->rekey, ephemeral);
    s->rekey_wait_us = REKEY_FIRST_US;
    sodium_memzero(ephemeral, sizeof ephemeral);
    if (!asking) {
      s->rekey_due_us = BDK_NEVER;
      return;
    }
  }
  send_frame(s, q, p, BDK_FRAME_REKEY, s->rekey.question, sizeof s->rekey.question);
  s->rekey_due_us = now_us + s->rekey_wait_us;
  s->rekey_wait_us = sooner(s->rekey_wait_us * 2, REKEY_WAIT_MAX_US);
}

static void on_rekey(bdk_session *s, bdk_outq *q, bdk_path *p, uint64_t now_us, const uint8_t *data, bool answer) {
  if (answer) {
    if (!bdk_rekey_answered(&s->rekey, &s->seal, data)) return;
    s->sealed_us = now_us;
    s->rekey_due_us = now_us + REKEY_US;
    bdk_count(q->counters, BDK_COUNT_rekeyed, 1);
    return;
  }
  uint8_t ephemeral[BDK_DH_LEN];
  bdk_outq_random(q, ephemeral, sizeof ephemeral);
  bool fresh = memcmp(s->rekey.question, data, BDK_KK_MESSAGE) != 0;
  if (!bdk_rekey_asked(&s->rekey, &s->seal, data, ephemeral)) return;
  if (fresh) {
    s->sealed_us = now_us;
    bdk_count(q->counters, BDK_COUNT_rekeyed, 1);
  }
  send_frame(s, q, p, BDK_FRAME_REKEY_ANSWER, s->rekey.answer, sizeof s->rekey.answer);
}

static void tick_open(bdk_session *s, bdk_outq *q, uint64_t now_us) {
  if (s->selected < 0) {
    bdk_session_on(s, BDK_SESSION_LOST);
    s->select_due_us = BDK_NEVER;
    s->unanswered_us = 0;
    s->give_up_us = s->unconfirmed_us + SEEK_AGAIN_US; // being heard again, but not confirmed, buys no time
    bdk_session_round(s, true, now_us);
    tick_paths(s, q, now_us);
    return;
  }
  bdk_path *p = &s->paths[s->selected];
  if (s->select_due_us <= now_us) {
    send_select(s, q, p, BDK_FRAME_SELECT, s->select_n);
    s->select_wait_us = s->select_wait_us * 2 > SELECT_WAIT_MAX_US ? SELECT_WAIT_MAX_US : s->select_wait_us * 2;
    s->select_due_us = now_us + s->select_wait_us;
  }
  tick_rekey(s, q, p, now_us);
  if (s->unanswered_us && now_us - s->unanswered_us >= patience_us(s)) {
    if (p->state == BDK_PATH_VALID) bdk_session_test_beside(s, q, p, now_us);
    s->unanswered_us = now_us;
  }
}

// When to give up an OPEN session none of whose paths is confirmed. Two peers whose NATs answer each packet from
// yet another port hear each other's tests for ever, and would go on.
static uint64_t unconfirmed_until(const bdk_session *s) {
  uint64_t until = s->unconfirmed_us + NO_PATH_US;
  return until > s->give_up_us ? until : s->give_up_us;
}

static bool tick_unconfirmed(bdk_session *s, bdk_outq *q, uint64_t now_us) {
  bool ever = false;
  for (int i = 0; i < s->path_count; i++) {
    if (s->paths[i].state == BDK_PATH_VALID) {
      s->unconfirmed_us = 0;
      return false;
    }
    ever |= s->paths[i].valid_us != 0;
  }
  if (!s->unconfirmed_us) s->unconfirmed_us = now_us;
  if (now_us < unconfirmed_until(s)) return false;
  bdk_session_close(s, q, now_us, ever ? BDK_REASON_consent_lost : BDK_REASON_no_path);
  return true;
}

static void start(bdk_session *s, uint64_t now_us) {
  s->started = true;
  bdk_session_on(s, BDK_SESSION_START);
  bdk_session_round(s, false, now_us);
}

void bdk_session_tick(bdk_session *s, bdk_outq *q, uint64_t now_us) {
  if (s->state == BDK_SESSION_CLOSED) return;
  bdk_seal_retire(&s->seal, now_us);
  if (!s->started && now_us >= s->start_us) start(s, now_us);
  if (s->state == BDK_SESSION_SEEKING && now_us >= s->give_up_us) {
    bdk_session_close(s, q, now_us, s->opened ? BDK_REASON_consent_lost : BDK_REASON_no_path);
    return;
  }
  bdk_session_scheduled(s, q, now_us);
  tick_paths(s, q, now_us);
  choose(s, q, now_us);
  open_session(s, q, now_us);
  announce(s, q, now_us);
  if (s->state == BDK_SESSION_OPEN && tick_unconfirmed(s, q, now_us)) return;
  if (s->state == BDK_SESSION_OPEN) tick_open(s, q, now_us);
  bdk_session_restless(s, q, now_us);
}

uint64_t bdk_session_deadline(const bdk_session *s) {
  uint64_t due = BDK_NEVER;
  if (s->state == BDK_SESSION_CLOSED) return due;
  if (!s->started) due = s->start_us;
  for (int i = 0; i < s->path_count; i++) due = sooner(due, s->paths[i].due_us);
  due = sooner(due, bdk_session_schedule_due(s));
  if (s->seal.old_until_us) due = sooner(due, s->seal.old_until_us);
  if (s->state == BDK_SESSION_ARMED) return due;
  due = sooner(due, bdk_session_restless_due(s));
  if (s->state == BDK_SESSION_SEEKING) return sooner(due, s->give_up_us);
  due = sooner(sooner(due, s->select_due_us), s->rekey_due_us);
  if (s->unconfirmed_us) due = sooner(due, unconfirmed_until(s));
  return s->unanswered_us ? sooner(due, s->unanswered_us + patience_us(s)) : due;
}

static void heard(bdk_session *s, bdk_path *p, uint64_t now_us, size_t wire_len) {
  p->rx_bytes += wire_len;
  s->unanswered_us = 0;
  if (p - s->paths == s->selected) s->silent_us = 0;
  if (!s->started && !p->route.channel) start(s, now_us); // the peer began: so do we
  bdk_path_on(p, BDK_PATH_TEST, now_us);
}

void bdk_session_probe(bdk_session *s, bdk_outq *q, uint64_t now_us, const bdk_route *route, const bdk_probe *probe,
                       size_t len) {
  if (probe->epoch < s->peer_epoch) { // of an address the peer has left
    bdk_count(q->counters, BDK_COUNT_drop_probe, 1);
    return;
  }
  bdk_path *p = bdk_session_path(s, route);
  if (probe->confirm) {
    if (!p || !bdk_path_answered(p, probe->nonce, &route->remote, now_us)) {
      bool hello = route->channel && sodium_memcmp(probe->nonce, s->hello, sizeof s->hello) == 0;
      if (!hello) bdk_count(q->counters, BDK_COUNT_drop_confirm, 1);
      return; // how long the relay kept a hello is no round trip: a test of ours tells that
    }
    bdk_count(q->counters, BDK_COUNT_confirm_received, 1);
  } else {
    bdk_count(q->counters, BDK_COUNT_test_received, 1);
    if (!p && !(p = learn_path(s, route))) return;
  }
  // It has left where it was, and is here: where else, its next tests will say.
  if (probe->epoch > s->peer_epoch && s->state == BDK_SESSION_OPEN && p - s->paths != s->selected)
    s->rebound = (int8_t)(p - s->paths);
  s->peer_epoch = probe->epoch;
  s->peer_index = probe->rx_index;
  s->peer_known = true;
  p->route.local = route->local;
  heard(s, p, now_us, len);
  if (probe->confirm) {
    bool was_valid = p->state == BDK_PATH_VALID;
    p->heard_us = now_us;
    bdk_path_on(p, BDK_PATH_CONFIRM, now_us);
    if (!was_valid) p->due_us = now_us + consent_wait_us(s, p, now_us);
  } else {
    bdk_probe answer = {.confirm = true, .epoch = s->epoch, .rx_index = s->index, .origin = route->remote};
    memcpy(answer.nonce, probe->nonce, BDK_NONCE_LEN);
    send_probe(s, q, p, &answer);
    bdk_count(q->counters, BDK_COUNT_confirm_sent, 1);
  }
  bdk_session_tick(s, q, now_us);
}

static void on_select(bdk_session *s, bdk_outq *q, bdk_path *p, const uint8_t *data, bool ack) {
  uint32_t epoch = 0, n = 0;
  for (unsigned i = 0; i < 4; i++) {
    epoch = epoch << 8 | data[i];
    n = n << 8 | data[4 + i];
  }
  if (ack) {
    if (n == s->select_n && epoch == s->epoch) s->select_due_us = BDK_NEVER;
    return;
  }
  // Not to where nobody answered us: a copy from elsewhere may overtake the frame. It comes again.
  if (p->state != BDK_PATH_VALID) return;
  if (n > s->select_n && epoch >= s->peer_epoch) {
    s->select_n = n;
    select_path(s, (int)(p - s->paths));
    s->rebound = -1;
  }
  uint8_t body[8];
  memcpy(body, data, sizeof body);
  send_frame(s, q, p, BDK_FRAME_SELECT_ACK, body, sizeof body);
}

// Where the peer is now, only its newest frame says; one that was overtaken says where it was. An address that
// is no path yet: it has moved there, perhaps. Data by another path than the one agreed upon: it has moved to
// an address it had before, or that a test told of first. Anything by the selected path: it is there still.
static void note_move(bdk_session *s, const bdk_path *p, bool learned, uint8_t kind) {
  int8_t at = (int8_t)(p - s->paths);
  bool agreed = s->keys.role == 0 ? s->told == s->selected && s->select_due_us == BDK_NEVER : s->select_n > 0;
  if (at == s->selected)
    s->rebound = -1;
  else if (learned || (kind == BDK_FRAME_DATA && agreed))
    s->rebound = at;
}

void bdk_session_frame(bdk_session *s, bdk_outq *q, uint64_t now_us, const bdk_route *route, uint8_t kind,
                       uint64_t counter, const uint8_t *data, size_t len, size_t wire_len) {
  static const uint8_t sizes[] = {[BDK_FRAME_SELECT] = 8,
                                  [BDK_FRAME_SELECT_ACK] = 8,
                                  [BDK_FRAME_CONSENT] = 8,
                                  [BDK_FRAME_CONSENT_ANSWER] = 8,
                                  [BDK_FRAME_CLOSE] = 0,
                                  [BDK_FRAME_REKEY] = BDK_KK_MESSAGE,
                                  [BDK_FRAME_REKEY_ANSWER] = BDK_KK_MESSAGE};
  bool newest = counter + 1 == s->seal.window.top; // mux marked it
  bool bad = kind > BDK_FRAME_REKEY_ANSWER || (kind == BDK_FRAME_DATA ? len > BDK_PAYLOAD_MAX : len != sizes[kind]);
  bdk_path *p = bad ? NULL : bdk_session_path(s, route);
  bool learned = !bad && !p;
  if (learned) p = learn_path(s, route);
  if (!p) {
    bdk_count(q->counters, BDK_COUNT_drop_state, 1);
    return;
  }
  bdk_count(q->counters, BDK_COUNT_frame_received, 1);
  p->route.local = route->local;
  heard(s, p, now_us, wire_len);
  if (newest && s->state == BDK_SESSION_OPEN) note_move(s, p, learned, kind);
  if (kind == BDK_FRAME_CLOSE) {
    bdk_session_close(s, q, now_us, BDK_REASON_left);
    return;
  }
  choose(s, q, now_us);
  open_session(s, q, now_us); // before its message is told, so that `connected` comes first
  switch (kind) {
  case BDK_FRAME_DATA:
    // Nothing is told before `connected`, and that waits for a test or confirm: both were lost, or overtaken.
    if (!s->opened)
      bdk_count(q->counters, BDK_COUNT_drop_state, 1);
    else
      bdk_outq_put(q, &(bdk_output){.kind = BDK_OUT_MESSAGE, .session = s->index, .data = data, .len = len});
    break;
  case BDK_FRAME_SELECT:
    if (s->keys.role == 1) on_select(s, q, p, data, false);
    break;
  case BDK_FRAME_SELECT_ACK:
    if (s->keys.role == 0) on_select(s, q, p, data, true);
    break;
  case BDK_FRAME_CONSENT: {
    uint8_t echo[8];
    memcpy(echo, data, sizeof echo);
    send_frame(s, q, p, BDK_FRAME_CONSENT_ANSWER, echo, sizeof echo);
    break;
  }
  case BDK_FRAME_REKEY:
    if (s->keys.role == 1) on_rekey(s, q, p, now_us, data, false);
    break;
  case BDK_FRAME_REKEY_ANSWER:
    if (s->keys.role == 0) on_rekey(s, q, p, now_us, data, true);
    break;
  case BDK_FRAME_CONSENT_ANSWER:
    if (bdk_path_answered(p, data, &route->remote, now_us)) p->heard_us = now_us;
    break;
  }
  bdk_session_tick(s, q, now_us);
}

int bdk_session_send(bdk_session *s, bdk_outq *q, uint64_t now_us, const uint8_t *data, size_t len) {
  if (len > BDK_PAYLOAD_MAX || !s->opened) return BDK_E_INVALID;
  if (s->state == BDK_SESSION_CLOSED) return BDK_E_CLOSED;
  if (s->selected < 0) return BDK_E_NO_PATH;
  bdk_path *also = bdk_session_second(s, now_us);
  if (!send_frame_twice(s, q, &s->paths[s->selected], also, BDK_FRAME_DATA, data, len)) return BDK_E_LIMIT;
  if (!s->unanswered_us) s->unanswered_us = now_us;
  if (!s->silent_us) s->silent_us = now_us;
  return BDK_OK;
}

void bdk_session_close(bdk_session *s, bdk_outq *q, uint64_t now_us, bdk_reason reason) {
  (void)now_us;
  if (s->state == BDK_SESSION_CLOSED) return;
  if (reason == BDK_REASON_closed && s->selected >= 0)
    for (unsigned i = 0; i < CLOSE_COPIES; i++) // there is no one left to repeat it
      send_frame(s, q, &s->paths[s->selected], BDK_FRAME_CLOSE, NULL, 0);
  bdk_session_on(s, BDK_SESSION_CLOSE);
  s->reason = (uint8_t)reason;
  bdk_session_clear(s);
  bdk_count(q->counters, BDK_COUNT_session_closed, 1);
  bdk_outq_put(q, &(bdk_output){.kind = BDK_OUT_CLOSED, .session = s->index, .reason = (uint8_t)reason});
}
