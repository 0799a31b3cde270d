// SPDX-License-Identifier: MIT
// Pairs of ends on this host that send each other datagrams through a relay on this host: a TURN server (RFC 8656,
// one that asks for no password), or Bodkin's. Prints how many arrived, how many did not, and how long it took.
// usage: relay turn|turn2|bodkin IP PORT BYTES DATAGRAMS RATE [TICKET TICKET ...]
//   turn: of each pair one has an allocation and sends channel data; the other is its peer, and sends to there.
//   turn2: both have one, and a channel to the other's: each datagram passes the server twice.
//   bodkin: tickets as hexadecimal digits, two for a pair.
// BYTES of content a datagram; RATE datagrams a second in all, evenly, or 0: as many as the relay takes.
#include <arpa/inet.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define PAIRS 8
#define ENDS (2 * PAIRS) // 2i and 2i + 1 are a pair
#define BATCH 32         // to one end under way, where there is no rate
#define SIZE 1200
#define HEAD_MAX 5
#define WAIT_MS 200 // for what is under way, before it counts as lost
#define TICKET 37
#define SOCKET_BUFFER (1 << 20)

static const uint8_t mark[4] = {'l', 'o', 'a', 'd'};

typedef struct end {
  int fd;
  struct sockaddr_in to, relayed;
  uint8_t head[HEAD_MAX];  // before the content of what it sends
  size_t head_len, in_len; // and before that of what it receives
} end;

static end ends[ENDS];
static struct sockaddr_in server;
static size_t content;
static struct mmsghdr out[BATCH], in[BATCH];
static struct iovec out_iov[BATCH][2], in_iov[BATCH];
static uint8_t out_data[SIZE], in_data[BATCH][SIZE];

static void fail(const char *what) {
  fprintf(stderr, "relay: %s\n", what);
  exit(1);
}

static double now_s(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void put16(uint8_t *at, unsigned value) {
  at[0] = (uint8_t)(value >> 8);
  at[1] = (uint8_t)value;
}

static void put32(uint8_t *at, uint32_t value) {
  put16(at, value >> 16);
  put16(at + 2, value & 0xffff);
}

static void open_socket(end *e) {
  int size = SOCKET_BUFFER;
  struct sockaddr_in any = server;
  any.sin_port = 0;
  e->fd = socket(AF_INET, SOCK_DGRAM, 0);
  if (e->fd < 0 || bind(e->fd, (struct sockaddr *)&any, sizeof any) < 0) fail("no socket");
  setsockopt(e->fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
  e->to = server;
}

// Asks the server; the length of what it answers, which has the same 12 bytes of a transaction id at `tx`.
static size_t ask(const end *e, const uint8_t *request, size_t len, size_t tx, uint8_t answer[SIZE]) {
  for (int tries = 0; tries < 5; tries++) {
    struct pollfd p = {.fd = e->fd, .events = POLLIN};
    if (sendto(e->fd, request, len, 0, (struct sockaddr *)&server, sizeof server) < 0) fail("cannot send");
    while (poll(&p, 1, 1000) > 0) {
      ssize_t n = recv(e->fd, answer, SIZE, 0); // or what was still on its way
      if (n >= (ssize_t)tx + 12 && answer[0] != 0x40 && memcmp(answer + tx, request + tx, 12) == 0) return (size_t)n;
    }
  }
  fail("no answer");
  return 0;
}

// --- TURN

#define MAGIC 0x2112a442u
enum { ALLOCATE = 0x003, REFRESH = 0x004, CHANNEL_BIND = 0x009, ANSWER = 0x100 };
enum {
  CHANNEL_NUMBER = 0x0c,
  LIFETIME = 0x0d,
  XOR_PEER_ADDRESS = 0x12,
  XOR_RELAYED_ADDRESS = 0x16,
  REQUESTED_TRANSPORT = 0x19
};
#define CHANNEL 0x4000u

typedef struct stun {
  uint8_t bytes[64];
  size_t len;
} stun;

static void attribute(stun *m, unsigned type, const uint8_t *value, size_t len) {
  put16(m->bytes + m->len, type);
  put16(m->bytes + m->len + 2, (unsigned)len);
  memcpy(m->bytes + m->len + 4, value, len);
  m->len += 4 + len;
}

static size_t stun_ask(const end *e, unsigned type, stun *m, uint8_t answer[SIZE]) {
  static uint32_t number;
  put16(m->bytes, type);
  put16(m->bytes + 2, (unsigned)m->len - 20);
  put32(m->bytes + 4, MAGIC);
  put32(m->bytes + 16, ++number);
  size_t len = ask(e, m->bytes, m->len, 8, answer);
  if (len < 20 || (unsigned)(answer[0] << 8 | answer[1]) != (type | ANSWER)) {
    fprintf(stderr, "relay: to %03x the TURN server answered %02x%02x, error %d%02d\n", type, answer[0], answer[1],
            len > 27 ? answer[26] : 0, len > 27 ? answer[27] : 0);
    exit(1);
  }
  return len;
}

static void allocate(end *e) {
  static const uint8_t udp[4] = {17};
  uint8_t answer[SIZE];
  stun m = {.len = 20};
  attribute(&m, REQUESTED_TRANSPORT, udp, sizeof udp);
  size_t len = stun_ask(e, ALLOCATE, &m, answer);
  for (size_t at = 20; at + 12 <= len; at += 4 + ((size_t)(answer[at + 2] << 8 | answer[at + 3]) + 3) / 4 * 4) {
    if ((answer[at] << 8 | answer[at + 1]) != XOR_RELAYED_ADDRESS) continue;
    e->relayed = server;
    e->relayed.sin_port = htons((uint16_t)((answer[at + 6] << 8 | answer[at + 7]) ^ (MAGIC >> 16)));
    return;
  }
  fail("an allocation without an address");
}

static void bind_channel(end *e, const struct sockaddr_in *peer) {
  uint8_t number[4] = {CHANNEL >> 8}, xored[8] = {0, 1}, answer[SIZE];
  stun m = {.len = 20};
  put16(xored + 2, ntohs(peer->sin_port) ^ (MAGIC >> 16));
  put32(xored + 4, ntohl(peer->sin_addr.s_addr) ^ MAGIC);
  attribute(&m, CHANNEL_NUMBER, number, sizeof number);
  attribute(&m, XOR_PEER_ADDRESS, xored, sizeof xored);
  stun_ask(e, CHANNEL_BIND, &m, answer);
  put16(e->head, CHANNEL);
  put16(e->head + 2, (unsigned)content);
  e->head_len = e->in_len = 4;
}

static void open_turn(end *pair, bool two) {
  struct sockaddr_in own;
  socklen_t len = sizeof own;
  allocate(&pair[0]);
  if (two) {
    allocate(&pair[1]);
    bind_channel(&pair[0], &pair[1].relayed);
    bind_channel(&pair[1], &pair[0].relayed);
  } else {
    getsockname(pair[1].fd, (struct sockaddr *)&own, &len);
    bind_channel(&pair[0], &own);
    pair[1].to = pair[0].relayed;
  }
}

// Else a later run that happens to get the same port finds it taken.
static void release(const end *e) {
  static const uint8_t none[4] = {0};
  uint8_t answer[SIZE];
  stun m = {.len = 20};
  if (!e->relayed.sin_port) return;
  attribute(&m, LIFETIME, none, sizeof none);
  stun_ask(e, REFRESH, &m, answer);
}

// --- Bodkin, docs/PROTOCOL.md 7a

static uint32_t read_uint(const uint8_t *at) {
  uint32_t value = 0;
  if (*at < 0x80) return *at;
  for (int n = 1 << (*at - 0xcc), i = 1; i <= n && n <= 4; i++) value = value << 8 | at[i];
  return value;
}

// relay_open without a proof is answered with an address report, and with that one's proof with relay_opened.
static void open_end(end *e, uint32_t tag, const char *ticket) {
  uint8_t request[160] = {0x98, 30, 1, 0xc4, 12}, answer[SIZE], proof[22] = {0xc0};
  put32(request + 5, tag);
  for (size_t proof_len = 1;; proof_len = sizeof proof) {
    uint8_t *at = request + 17;
    memcpy(at, proof, proof_len);
    at += proof_len;
    *at++ = 0xc4;
    *at++ = TICKET;
    for (size_t i = 0; i < TICKET; i++)
      *at++ = (uint8_t)strtoul((char[]){ticket[2 * i], ticket[2 * i + 1], 0}, NULL, 16);
    *at++ = 0xce;
    put32(at, tag);
    at += 4;
    memcpy(at, "\xc4\x05hello\xc4\x40", 9); // and 64 bytes of padding
    memset(at + 9, 0, 64);
    size_t len = ask(e, request, (size_t)(at + 9 + 64 - request), 5, answer);
    if (proof_len == 1 && len == 47 && answer[1] == 2) {
      memcpy(proof, answer + 25, sizeof proof);
      continue;
    }
    if (len < 19 || answer[1] != 31) fail("the relay refused");
    e->head[0] = 0x40;
    put32(e->head + 1, read_uint(answer + 17));
    e->head_len = e->in_len = 5;
    return;
  }
}

// --- load

static void prepare(struct mmsghdr *m, struct iovec iov[2], end *from) {
  iov[0] = (struct iovec){from->head, from->head_len};
  iov[1] = (struct iovec){out_data, content};
  m->msg_hdr = (struct msghdr){.msg_iov = iov, .msg_iovlen = 2, .msg_name = &from->to, .msg_namelen = sizeof from->to};
}

// How many datagrams an end sent, of so many.
static int send_from(end *from, int count) {
  for (int i = 0; i < count; i++) prepare(&out[i], out_iov[i], from);
  int n = sendmmsg(from->fd, out, (unsigned)count, 0);
  return n < 0 ? 0 : n;
}

// How many came that are whole and begin as they should; without waiting.
static int take(const end *e) {
  int good = 0, n = recvmmsg(e->fd, in, BATCH, MSG_DONTWAIT, NULL);
  for (int i = 0; i < n; i++)
    good += in[i].msg_len == e->in_len + content && memcmp(in_data[i] + e->in_len, mark, sizeof mark) == 0;
  return good;
}

static int receive(const end *e, int open) {
  int good = 0;
  struct pollfd p = {.fd = e->fd, .events = POLLIN};
  while (good < open && poll(&p, 1, WAIT_MS) > 0) good += take(e);
  return good;
}

// Ends take turns, each with a batch on its way to it, so that the relay finds as much work as it can take.
static long flood(long want, long *sent) {
  long came = 0;
  int open[ENDS];
  for (int i = 0; i < ENDS; i++) *sent += open[i] = send_from(&ends[i ^ 1], BATCH);
  for (int i = 0, silent = 0; *sent < want; i = (i + 1) % ENDS) {
    int n = receive(&ends[i], open[i]);
    came += n;
    silent = n > 0 ? 0 : silent + 1;
    if (silent == 2 * ENDS) fail("nothing arrives");
    *sent += open[i] = send_from(&ends[i ^ 1], BATCH);
  }
  for (int i = 0; i < ENDS; i++) came += receive(&ends[i], open[i]);
  return came;
}

static long pace(long want, double rate, long *sent) {
  long came = 0;
  double begin_s = now_s(), end_s = begin_s + (double)want / rate;
  for (int i = 0; *sent < want || now_s() < end_s + WAIT_MS / 1e3; i = (i + 1) % ENDS) {
    while (*sent < want && (double)*sent < (now_s() - begin_s) * rate) {
      if (send_from(&ends[*sent % ENDS], 1) == 1) ++*sent;
    }
    came += take(&ends[i]);
  }
  return came;
}

int main(int argc, char **argv) {
  bool bodkin = argc > 1 && strcmp(argv[1], "bodkin") == 0, two = argc > 1 && strcmp(argv[1], "turn2") == 0;
  if (argc != (bodkin ? 7 + ENDS : 7) || inet_pton(AF_INET, argv[2], &server.sin_addr) != 1)
    return fputs("usage: relay turn|turn2|bodkin IP PORT BYTES DATAGRAMS RATE [TICKET TICKET ...]\n", stderr), 2;
  server.sin_family = AF_INET;
  server.sin_port = htons((uint16_t)atoi(argv[3]));
  content = (size_t)atoi(argv[4]);
  long want = atol(argv[5]), sent = 0;
  double rate = atof(argv[6]);
  if (content < sizeof mark || content > SIZE - HEAD_MAX) fail("BYTES is 4 to 1195");
  alarm(300);
  memcpy(out_data, mark, sizeof mark);
  for (int i = 0; i < BATCH; i++) {
    in_iov[i] = (struct iovec){in_data[i], SIZE};
    in[i].msg_hdr = (struct msghdr){.msg_iov = &in_iov[i], .msg_iovlen = 1};
  }
  for (int i = 0; i < ENDS; i++) open_socket(&ends[i]);
  for (int i = 0; i < ENDS; i++) {
    if (bodkin)
      open_end(&ends[i], 1000 + (uint32_t)i, argv[7 + i]);
    else if (i % 2 == 0)
      open_turn(&ends[i], two);
  }
  for (int i = 0; i < ENDS; i++) receive(&ends[i], 1); // what else the server had to say
  double begin_s = now_s();
  long came = rate > 0 ? pace(want, rate, &sent) : flood(want, &sent);
  double took_s = now_s() - begin_s - (rate > 0 ? WAIT_MS / 1e3 : 0);
  for (int i = 0; i < ENDS; i++) release(&ends[i]);
  printf("%ld %ld %.6f\n", came, sent - came, took_s);
  return 0;
}
