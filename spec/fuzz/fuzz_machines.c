// SPDX-License-Identifier: MIT
// Two muxes in one process, the network between them and all that either does told by the input: what is delivered,
// twice, late, never, changed, from elsewhere, back to its sender; how time passes; who moves, sends, leaves, begins
// again. Whatever comes: only what was sent is told, once, after `connected` and before `closed`; nobody who was
// neither listed nor heard from is sent anything, nor more than his share; no nonce comes twice; time moves on.
#include <sodium.h>

#include "core/mux.h"
#include "dh.h"
#include "fuzz.h"

#include "../core/people.h"

#define ENDS 8 // addresses a side may send from
#define IPS 4
#define QUEUE 8
#define SMALL 160   // bytes of the longest datagram: messages are short here
#define MESSAGES 64 // sent by a side; more are not checked, so not sent

typedef struct datagram {
  uint8_t to, end; // from the other side's end
  size_t len;
  uint8_t data[SMALL];
} datagram;

typedef struct side {
  bdk_mux *mux;
  bdk_counters counters;
  uint32_t session;
  bool connected, closed;
  uint8_t end, state, losses;
  bool listed[ENDS], known[ENDS], answered[ENDS]; // ends of the other, as this side may know them
  size_t in[ENDS], out[ENDS];                     // bytes from and to them
  bool heard_ip[IPS];
  unsigned silent[IPS]; // datagrams to each IP that was never heard from
  uint64_t counter;     // of its latest frame
  uint8_t last[SMALL];  // that frame
  size_t last_len;
  bool heard[MESSAGES];
  uint8_t sent;
} side;

typedef struct world {
  side side[2];
  fuzz_heap heap;
  uint64_t now_us;
  datagram queue[QUEUE];
  unsigned count;
} world;

// Ends 0 to 4 share an IP; 5 is of a local network, 6 of another public address, 7 is IPv6.
static int ip_of(int end) { return end < 5 ? 0 : end - 4; }

static bdk_addr address(int side, int end) {
  bdk_addr a = {.ip = {198, 51, 100, (uint8_t)(1 + side)}, .port = (uint16_t)(1000 + end), .family = 4};
  if (end == 5) a.ip[0] = 10;
  if (end == 6) a.ip[2] = 7;
  if (end == 7) a = (bdk_addr){.ip = {0x20, 1, [15] = (uint8_t)(1 + side)}, .port = 1007, .family = 6};
  return a;
}

static int end_of(int side, const bdk_addr *a) {
  for (int end = 0; end < ENDS; end++) {
    bdk_addr b = address(side, end);
    if (bdk_addr_equal(a, &b)) return end;
  }
  return -1;
}

static uint8_t message(uint8_t n, uint8_t *out) {
  uint8_t len = (uint8_t)(1 + n % 7);
  memset(out, n, len);
  return len;
}

static void told(world *w, int which, const bdk_output *o) {
  side *s = &w->side[which];
  const bdk_session *session = bdk_mux_session(s->mux, s->session);
  uint8_t expected[8];
  REQUIRE(session);
  switch (o->kind) {
  case BDK_OUT_CONNECTED:
    REQUIRE(!s->connected);
    s->connected = true;
    break;
  case BDK_OUT_PATH:
    REQUIRE(s->connected && end_of(!which, &o->route.remote) >= 0);
    REQUIRE(session->state == BDK_SESSION_CLOSED || s->known[end_of(!which, &o->route.remote)]);
    break;
  case BDK_OUT_MESSAGE:
    REQUIRE(s->connected && o->len > 0 && o->data[0] < w->side[!which].sent);
    REQUIRE(o->len == message(o->data[0], expected) && memcmp(o->data, expected, o->len) == 0);
    REQUIRE(!s->heard[o->data[0]]);
    s->heard[o->data[0]] = true;
    break;
  case BDK_OUT_DOUBT:
    REQUIRE(s->connected);
    break;
  case BDK_OUT_CLOSED:
    REQUIRE(session->state == BDK_SESSION_CLOSED && o->reason > BDK_REASON_none && o->reason < BDK_REASON_COUNT);
    s->closed = true;
    break;
  case BDK_OUT_SILENT:
    REQUIRE(!s->connected);
    break;
  default:
    abort();
  }
}

// One datagram leaves. The network takes what goes to an end of the other side while it has room.
static void leave(world *w, int which, const bdk_output *o) {
  side *s = &w->side[which];
  int to = end_of(!which, &o->route.remote);
  REQUIRE(to >= 0 && s->known[to] && o->len > 0 && o->len <= SMALL);
  s->out[to] += o->len;
  REQUIRE(s->listed[to] || s->answered[to] || s->out[to] <= 3 * s->in[to]);
  if (!s->heard_ip[ip_of(to)]) REQUIRE(++s->silent[ip_of(to)] <= 100u + 10u * s->losses);
  if (o->data[0] == 0xC1) {
    uint32_t index;
    uint8_t kind;
    uint64_t counter;
    REQUIRE(bdk_frame_head(o->data, o->len, &index, &kind, &counter));
    // The same bytes by a second path are no second use: the peer takes whichever come first.
    bool again = o->len == s->last_len && memcmp(o->data, s->last, o->len) == 0;
    REQUIRE(counter > s->counter || s->counter == 0 || (again && counter == s->counter));
    s->counter = counter;
    s->last_len = o->len;
    memcpy(s->last, o->data, o->len);
  }
  if (w->count == QUEUE) return;
  datagram *d = &w->queue[w->count++];
  d->to = (uint8_t)!which;
  d->end = s->end;
  d->len = o->len;
  memcpy(d->data, o->data, o->len);
}

static void drain(world *w, int which) {
  side *s = &w->side[which];
  bdk_output o;
  const bdk_session *session = bdk_mux_session(s->mux, s->session);
  if (session) {
    s->losses += s->state == BDK_SESSION_OPEN && session->state == BDK_SESSION_SEEKING;
    s->state = session->state;
    for (int i = 0; i < session->path_count; i++)
      if (session->paths[i].valid_us) s->answered[end_of(!which, &session->paths[i].route.remote)] = true;
  }
  while (bdk_mux_next(s->mux, &o)) {
    REQUIRE(!s->closed && o.session == s->session);
    if (o.kind == BDK_OUT_SEND)
      leave(w, which, &o);
    else
      told(w, which, &o);
  }
}

// `listed`: how many ends `matched` tells of (seldom many, for the time that takes), and which.
static void begin(world *w, int which, uint8_t listed, uint64_t start_in_us) {
  side *s = &w->side[which];
  bdk_candidate candidates[ENDS];
  bdk_match match = {.match = {7}, .key = {9}, .self = {(uint8_t)(1 + which)}, .peer = {(uint8_t)(2 - which)}};
  person_keys(&match, 1 + which, 2 - which);
  memset(s->listed, 0, sizeof s->listed);
  memset(s->known, 0, sizeof s->known);
  memset(s->answered, 0, sizeof s->answered);
  memset(s->in, 0, sizeof s->in);
  memset(s->out, 0, sizeof s->out);
  for (int i = 0, count = (listed & 7) == 7 ? 6 : listed & 3; i < count; i++) {
    uint8_t end = (uint8_t)((listed >> 3) + i * (1 + (listed >> 6))) % ENDS;
    bdk_via via = end == 7 ? BDK_VIA_IPV6 : end == 5 ? BDK_VIA_HOST : BDK_VIA_SRFLX;
    candidates[match.count++] = (bdk_candidate){.addr = address(!which, end), .sock = 1, .via = (uint8_t)via};
    s->listed[end] = s->known[end] = true;
  }
  match.candidates = candidates;
  match.start_in_us = start_in_us;
  s->connected = s->closed = false;
  s->state = s->losses = 0;
  memset(s->silent, 0, sizeof s->silent);
  memset(s->heard_ip, 0, sizeof s->heard_ip);
  s->counter = 0;                                                    // under another index, and from a random number on
  REQUIRE(bdk_mux_add(s->mux, w->now_us, &match, &s->session) == 0); // without any, only a relay can open it
  drain(w, which);
}

static void deliver(world *w, const datagram *d, uint8_t end, const uint8_t *bytes, size_t len) {
  side *s = &w->side[d->to];
  s->known[end] = true; // it may be answered, if it was authentic
  s->in[end] += len;
  s->heard_ip[ip_of(end)] = true;
  bdk_route route = {.remote = address(!d->to, end), .sock = 1};
  uint8_t *exact = malloc(len ? len : 1); // so that a read past the end is seen
  memcpy(exact, bytes, len);
  bdk_mux_input(s->mux, w->now_us, &route, exact, len);
  free(exact);
  drain(w, d->to);
}

// One datagram of the queue: as it is, again, from elsewhere, changed, cut, back to its sender, not at all.
static void handle(world *w, fuzz_input *in, uint8_t how, uint8_t which) {
  if (!w->count) return;
  unsigned at = which % w->count;
  datagram d = w->queue[at];
  uint8_t operand = how >= 2 && how <= 5 ? fuzz_take(in) : 0;
  if (how != 1) memmove(w->queue + at, w->queue + at + 1, (--w->count - at) * sizeof d);
  switch (how) {
  case 0:
  case 1:
    deliver(w, &d, d.end, d.data, d.len);
    break;
  case 2:
    deliver(w, &d, operand % ENDS, d.data, d.len);
    break;
  case 3:
    d.data[operand % d.len] ^= (uint8_t)(1u << (operand >> 5));
    deliver(w, &d, d.end, d.data, d.len);
    break;
  case 4:
    deliver(w, &d, d.end, d.data, operand % d.len);
    break;
  case 5:
    d.to = !d.to;
    deliver(w, &d, operand % ENDS, d.data, d.len);
    break;
  }
}

static void tick(world *w) {
  for (int which = 0; which < 2; which++) {
    bdk_mux_tick(w->side[which].mux, w->now_us);
    REQUIRE(bdk_mux_deadline(w->side[which].mux) > w->now_us); // what was due is done
    drain(w, which);
  }
}

// Time passes, `exactly`: each deadline is kept.
static void pass(world *w, uint64_t us, bool exactly) {
  uint64_t until = w->now_us + us;
  for (int i = 0; exactly && i < 3; i++) {
    uint64_t a = bdk_mux_deadline(w->side[0].mux), b = bdk_mux_deadline(w->side[1].mux), next = a < b ? a : b;
    if (next > until) break;
    if (next > w->now_us) w->now_us = next;
    tick(w);
  }
  w->now_us = until;
  tick(w);
}

static void forge(world *w, fuzz_input *in, uint8_t which) {
  datagram d = {.to = which & 1, .len = fuzz_take(in) % 32};
  for (size_t i = 0; i < d.len; i++) d.data[i] = fuzz_take(in);
  deliver(w, &d, which >> 1 & 7, d.data, d.len);
}

static void send(world *w, int which) {
  side *s = &w->side[which];
  uint8_t bytes[8], len = message(s->sent, bytes);
  if (s->sent == MESSAGES) return;
  int error = bdk_mux_send(s->mux, w->now_us, s->session, bytes, len);
  REQUIRE(error == 0 || !s->connected || s->closed || error == BDK_E_LIMIT || error == BDK_E_NO_PATH);
  if (!error) s->sent++;
  drain(w, which);
}

// Another address of the peer's is learned, or one of its own has changed.
static void roam(world *w, int which, uint8_t end) {
  side *s = &w->side[which];
  if (end < ENDS) {
    bdk_candidate c = {.addr = address(!which, end), .sock = 1, .via = BDK_VIA_SRFLX};
    s->listed[end] = s->known[end] = true;
    bdk_mux_listed(s->mux, w->now_us, s->session, &c, 1);
  } else {
    bdk_mux_moved(s->mux, w->now_us, NULL, 0);
  }
  drain(w, which);
}

static void leave_match(world *w, int which) {
  bdk_mux_close(w->side[which].mux, w->now_us, w->side[which].session);
  drain(w, which);
  REQUIRE(w->side[which].closed);
}

static void step(world *w, fuzz_input *in) {
  uint8_t op = fuzz_take(in), operand = op >> 4;
  int which = operand & 1;
  switch (op % 16) {
  case 0:
  case 1:
  case 2:
  case 3:
  case 4:
  case 5:
    handle(w, in, op % 16, operand);
    break;
  case 6: // dropped
    handle(w, in, 6, operand);
    break;
  case 7: // all that waits, in order
    for (unsigned n = w->count; n && w->count; n--) handle(w, in, 0, 0);
    break;
  case 8:
    pass(w, operand * 10000u, true);
    break;
  case 9:
    pass(w, operand * 250000u, true);
    break;
  case 10:
    pass(w, operand * 4000000u, false); // nobody called in time
    break;
  case 11:
    send(w, which);
    break;
  case 12:
    w->side[which].end = operand >> 1;
    break;
  case 13: {
    bdk_addr a = address(!which, operand >> 1);
    bdk_mux_unreachable(w->side[which].mux, w->now_us, &a);
    drain(w, which);
    break;
  }
  case 14:
    if (operand < 14)
      forge(w, in, operand);
    else
      leave_match(w, which);
    break;
  case 15:
    if (w->side[which].closed)
      begin(w, which, fuzz_take(in), operand * 10000u);
    else
      roam(w, which, operand >> 1 == 7 ? ENDS : operand >> 1);
    break;
  }
}

int LLVMFuzzerInitialize(int *argc, char ***argv) {
  (void)argc, (void)argv;
  return sodium_init() < 0; // without it, libsodium uses its slowest code
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len) {
  static world w; // large, and mostly a queue that need not be cleared
  fuzz_input in = {bytes, bytes + len};
  memset(w.side, 0, sizeof w.side);
  w.heap = (fuzz_heap){0};
  w.now_us = 1;
  w.count = 0;
  for (int which = 0; which < 2; which++) {
    bdk_mux_config config = {
        .alloc = {fuzz_resize, &w.heap}, .counters = &w.side[which].counters, .seed = {(uint8_t)which}};
    config.max_sessions = 2;
    w.side[which].mux = bdk_mux_new(&config);
  }
  for (int which = 0; which < 2; which++) begin(&w, which, fuzz_take(&in), fuzz_take(&in) * 1000u);
  while (in.p < in.end) step(&w, &in);
  for (int which = 0; which < 2; which++) bdk_mux_free(w.side[which].mux);
  REQUIRE(w.heap.bytes == 0);
  return 0;
}
