// SPDX-License-Identifier: MIT
// Two ends that seal for each other while their keys are exchanged, and a network that the input runs: frames late,
// twice, never, changed, forged. Beside them a model of what may be opened: what the other sealed, once; and of what
// has to be: all of it that was sealed with the newest keys, or those before while they are kept.
#include <sodium.h>

#include "core/seal.h"
#include "dh.h"
#include "fuzz.h"

#define KEPT 24      // frames in flight; a new one takes the oldest's place
#define COUNTERS 128 // that are followed
#define FIRST 1000u  // an end's first counter

typedef struct message {
  uint8_t to, generation, phase, len, bytes[96];
  uint16_t counter; // from FIRST on
  bool mutated;
} message;

typedef struct end {
  bdk_seal seal;
  bdk_rekey rekey;
  uint8_t sends, knows; // generations of keys: what it seals with, the newest it has
  uint16_t sent;
  bool seen[COUNTERS];
} end;

typedef struct world {
  end side[2];
  message kept[KEPT];
  unsigned count;
  uint64_t now_us;
  uint8_t fresh; // of the next ephemeral
} world;

static bdk_seal seals[2]; // as they are after the first exchange, the same in every run
static bdk_rekey rekeys[2];

int LLVMFuzzerInitialize(int *argc, char ***argv) {
  (void)argc, (void)argv;
  if (sodium_init() < 0) return 1;
  static const uint8_t psk[32] = "psk";
  bdk_keypair pairs[4];
  for (uint8_t i = 0; i < 4; i++) bdk_keypair_init(&pairs[i], (uint8_t[32]){[1] = (uint8_t)(i + 1)});
  for (int i = 0; i < 2; i++) {
    bdk_noise_config c = {.pattern = BDK_NOISE_KKEEPSK0, .initiator = i == 0, .own = &pairs[i], .psk = psk};
    c.own_ephemeral = &pairs[2 + i];
    c.peer = pairs[!i].public;
    c.peer_ephemeral = pairs[3 - i].public;
    REQUIRE(bdk_rekey_first(&rekeys[i], &seals[i], &c, FIRST) == 0);
  }
  return 0;
}

static message *keep(world *w) {
  if (w->count == KEPT) memmove(w->kept, w->kept + 1, --w->count * sizeof *w->kept);
  message *m = &w->kept[w->count++];
  memset(m, 0, sizeof *m);
  return m;
}

static void send(world *w, int from, const uint8_t *data, uint8_t len, bdk_frame_kind kind) {
  end *e = &w->side[from];
  if (e->sent == COUNTERS) return;
  message *m = keep(w);
  size_t n = bdk_seal_write(&e->seal, 7, kind, data, len, m->bytes, sizeof m->bytes);
  REQUIRE(n == len + BDK_FRAME_OVERHEAD);
  uint32_t index;
  uint8_t phased;
  uint64_t counter;
  REQUIRE(bdk_frame_head(m->bytes, n, &index, &phased, &counter));
  REQUIRE(index == 7 && (phased & ~BDK_FRAME_PHASE) == kind && counter == FIRST + e->sent);
  m->len = (uint8_t)n;
  m->to = !from;
  m->generation = e->sends;
  m->phase = phased >> 7;
  m->counter = e->sent++;
}

static void send_data(world *w, int from, uint8_t len) {
  uint8_t data[16];
  memset(data, (uint8_t)w->side[from].sent, sizeof data);
  send(w, from, data, len, len & 1 ? BDK_FRAME_DATA : BDK_FRAME_CONSENT);
}

static void ephemeral(world *w, uint8_t out[BDK_DH_LEN]) {
  memset(out, 0, BDK_DH_LEN);
  out[2] = (uint8_t)(1 + ++w->fresh % 8); // few, so that their exchanges are known
}

static void exchange(world *w, int to, uint8_t kind, const uint8_t *data) {
  end *e = &w->side[to];
  uint8_t secret[BDK_DH_LEN], answered[BDK_KK_MESSAGE];
  if (to == 1 && kind == BDK_FRAME_REKEY) {
    bool again = memcmp(e->rekey.question, data, BDK_KK_MESSAGE) == 0;
    memcpy(answered, e->rekey.answer, sizeof answered);
    ephemeral(w, secret);
    if (!bdk_rekey_asked(&e->rekey, &e->seal, data, secret)) return;
    if (again) REQUIRE(memcmp(answered, e->rekey.answer, sizeof answered) == 0); // no ephemeral serves twice
    e->knows += !again;
    send(w, 1, e->rekey.answer, BDK_KK_MESSAGE, BDK_FRAME_REKEY_ANSWER);
  } else if (to == 0 && kind == BDK_FRAME_REKEY_ANSWER && bdk_rekey_answered(&e->rekey, &e->seal, data)) {
    e->knows++;
    e->sends++;
  }
}

static void opened(world *w, const message *m, uint8_t kind, const uint8_t *plain) {
  end *e = &w->side[m->to];
  size_t len = m->len - BDK_FRAME_OVERHEAD;
  REQUIRE(!m->mutated && !e->seen[m->counter]);
  e->seen[m->counter] = true;
  if (len == BDK_KK_MESSAGE)
    exchange(w, m->to, kind, plain);
  else
    for (size_t i = 0; i < len; i++) REQUIRE(plain[i] == (uint8_t)m->counter);
}

static void deliver(world *w, const message *m) {
  end *e = &w->side[m->to];
  uint8_t plain[BDK_DATAGRAM_MAX], *exact = malloc(m->len ? m->len : 1), phase = e->seal.phase, kind;
  uint32_t index;
  uint64_t counter;
  memcpy(exact, m->bytes, m->len);
  bool frame = bdk_frame_head(exact, m->len, &index, &kind, &counter), held = e->seal.rx_on[m->phase];
  bdk_window before = e->seal.window;
  bdk_seal_verdict verdict = bdk_seal_open(&e->seal, w->now_us, exact, m->len, plain);
  free(exact);
  REQUIRE(frame || m->mutated);
  e->sends += e->seal.phase != phase;
  REQUIRE(e->sends <= e->knows && m->generation <= w->side[!m->to].knows);
  if (verdict == BDK_SEAL_OPENED) {
    opened(w, m, kind & (uint8_t)~BDK_FRAME_PHASE, plain);
    return;
  }
  REQUIRE(memcmp(&before, &e->seal.window, sizeof before) == 0); // what is refused marks nothing
  if (m->mutated || e->seen[m->counter]) return;
  REQUIRE(verdict == BDK_SEAL_FORGED && m->generation < e->knows);
  if (m->generation + 1 == e->knows) REQUIRE(!held);
}

static void change(message *m, uint8_t at, uint8_t by) {
  if (at >= 0xF0)
    m->len = (uint8_t)(m->len > by % 64 ? m->len - by % 64 : 0);
  else
    m->bytes[at % m->len] ^= by;
  m->mutated = m->mutated || (at >= 0xF0 ? by % 64 : by);
}

// As a session does: not before the keys of the exchange before are gone, and the same until it is answered.
static bool ask(world *w) {
  uint8_t secret[BDK_DH_LEN];
  end *e = &w->side[0];
  if (!e->rekey.asking) {
    if (e->seal.rx_on[!e->seal.phase]) return false;
    ephemeral(w, secret);
    REQUIRE(bdk_rekey_ask(&e->rekey, secret));
  }
  send(w, 0, e->rekey.question, BDK_KK_MESSAGE, BDK_FRAME_REKEY);
  return true;
}

static void pass(world *w, uint64_t us) {
  w->now_us += us;
  for (int i = 0; i < 2; i++) bdk_seal_retire(&w->side[i].seal, w->now_us);
}

static void step(world *w, fuzz_input *in) {
  uint8_t op = fuzz_take(in);
  switch (op % 8) {
  case 0:
  case 1:
    send_data(w, op & 1, op >> 4);
    break;
  case 2:
    ask(w);
    break;
  case 3: // all that waits, in order
    for (unsigned n = w->count; n && w->count; n--) {
      message m = w->kept[0];
      memmove(w->kept, w->kept + 1, --w->count * sizeof m);
      deliver(w, &m);
    }
    break;
  case 4:
  case 5:
  case 6: {
    if (!w->count) break;
    unsigned at = (op >> 3) % w->count;
    message m = w->kept[at];
    if (op % 8 == 6) {
      uint8_t where = fuzz_take(in);
      change(&m, where, fuzz_take(in));
    } else if (op % 8 == 4) {
      memmove(w->kept + at, w->kept + at + 1, (--w->count - at) * sizeof m);
    }
    deliver(w, &m);
    break;
  }
  case 7:
    pass(w, (op >> 3) * 1000000u);
    break;
  }
}

// The newest one of those that wait arrives.
static bool arrive_last(world *w) {
  if (!w->count) return false;
  message m = w->kept[w->count - 1];
  deliver(w, &m);
  return w->side[m.to].seen[m.counter];
}

static void talk(world *w) {
  for (int i = 0; i < 4; i++) {
    send_data(w, i % 2, 1);
    REQUIRE(arrive_last(w));
  }
}

// Whatever has happened: once the two hear each other again, they finish what they began, and can begin anew.
static void settle(world *w) {
  if (w->side[0].sent + 10 > COUNTERS || w->side[1].sent + 10 > COUNTERS) return;
  for (int round = 0; round < 2; round++) {
    talk(w);
    pass(w, BDK_SEAL_OLD_US);
    REQUIRE(ask(w));
    REQUIRE(arrive_last(w) && arrive_last(w)); // the question, and its answer
    REQUIRE(!w->side[0].rekey.asking);
  }
  talk(w);
  REQUIRE(w->side[0].sends == w->side[1].sends && w->side[0].knows == w->side[1].knows);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len) {
  fuzz_input in = {bytes, bytes + len};
  world w = {.now_us = 1};
  for (int i = 0; i < 2; i++) w.side[i] = (end){.seal = seals[i], .rekey = rekeys[i]};
  while (in.p < in.end) step(&w, &in);
  if (len && bytes[len - 1] % 32 == 7) settle(&w); // it takes longer than all before it
  return 0;
}
