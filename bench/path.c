// SPDX-License-Identifier: MIT
// `make bench-seal`: what a packet costs on the data path, from one mux over two UDP sockets on loopback to another:
// CPU time for one in bursts, and the round trip of one at a time. Linked a second time with libsodium's AEAD replaced
// by a copy (-Wl,--wrap), it measures the same without sealing. Prints: bytes, ns a packet, round trip in ns.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "core/mux.h"

enum { BURST = 32, PACKETS = 200000, TRIPS = 20000 };

#ifdef BENCH_PLAIN
int __wrap_crypto_aead_chacha20poly1305_ietf_encrypt(unsigned char *c, unsigned long long *clen, const unsigned char *m,
                                                     unsigned long long mlen, const unsigned char *ad,
                                                     unsigned long long adlen, const unsigned char *nsec,
                                                     const unsigned char *npub, const unsigned char *k);
int __wrap_crypto_aead_chacha20poly1305_ietf_decrypt(unsigned char *m, unsigned long long *mlen, unsigned char *nsec,
                                                     const unsigned char *c, unsigned long long clen,
                                                     const unsigned char *ad, unsigned long long adlen,
                                                     const unsigned char *npub, const unsigned char *k);
int __wrap_crypto_aead_chacha20poly1305_ietf_encrypt(unsigned char *c, unsigned long long *clen, const unsigned char *m,
                                                     unsigned long long mlen, const unsigned char *ad,
                                                     unsigned long long adlen, const unsigned char *nsec,
                                                     const unsigned char *npub, const unsigned char *k) {
  (void)ad, (void)adlen, (void)nsec, (void)npub, (void)k;
  if (mlen) memmove(c, m, mlen);
  memset(c + mlen, 0, 16);
  if (clen) *clen = mlen + 16;
  return 0;
}
int __wrap_crypto_aead_chacha20poly1305_ietf_decrypt(unsigned char *m, unsigned long long *mlen, unsigned char *nsec,
                                                     const unsigned char *c, unsigned long long clen,
                                                     const unsigned char *ad, unsigned long long adlen,
                                                     const unsigned char *npub, const unsigned char *k) {
  (void)ad, (void)adlen, (void)nsec, (void)npub, (void)k;
  if (clen < 16) return -1;
  memmove(m, c, clen - 16);
  if (mlen) *mlen = clen - 16;
  return 0;
}
#endif

typedef struct side {
  int fd;
  bdk_mux *mux;
  bdk_addr addr;
  uint32_t session;
  bool valid;
  unsigned long got;
} side;

static side sides[2];

static void *resize(void *ctx, void *p, size_t old_size, size_t new_size) {
  (void)ctx, (void)old_size;
  if (new_size) return realloc(p, new_size);
  free(p);
  return NULL;
}

static uint64_t now_us(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static double cpu_s(void) {
  struct rusage u;
  getrusage(RUSAGE_SELF, &u);
  return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) + (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static void drain(side *s) {
  bdk_output o;
  while (bdk_mux_next(s->mux, &o)) {
    if (o.kind == BDK_OUT_SEND) {
      struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(o.route.remote.port)};
      memcpy(&to.sin_addr, o.route.remote.ip, 4);
      sendto(s->fd, o.data, o.len, 0, (struct sockaddr *)&to, sizeof to);
    }
    s->valid = s->valid || o.kind == BDK_OUT_PATH;
    s->got += o.kind == BDK_OUT_MESSAGE;
  }
}

static void receive(side *s) {
  uint8_t bytes[BDK_DATAGRAM_MAX];
  struct sockaddr_in from;
  socklen_t len = sizeof from;
  ssize_t n;
  while ((n = recvfrom(s->fd, bytes, sizeof bytes, MSG_DONTWAIT, (struct sockaddr *)&from, &len)) > 0) {
    bdk_route route = {.remote = {.port = ntohs(from.sin_port), .family = 4}, .sock = 1};
    memcpy(route.remote.ip, &from.sin_addr, 4);
    bdk_mux_input(s->mux, now_us(), &route, bytes, (size_t)n);
    drain(s);
  }
}

static void wait_for(const side *s) {
  struct pollfd p = {.fd = s->fd, .events = POLLIN};
  poll(&p, 1, 1000);
}

static bdk_keypair pair_of(int who, int use) {
  uint8_t secret[BDK_DH_LEN];
  memset(secret, who, sizeof secret);
  secret[0] = (uint8_t)use;
  bdk_keypair pair;
  bdk_keypair_init(&pair, secret);
  return pair;
}

static void open_side(int i) {
  side *s = &sides[i];
  struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t len = sizeof at;
  s->fd = socket(AF_INET, SOCK_DGRAM, 0);
  if (bind(s->fd, (struct sockaddr *)&at, len) || getsockname(s->fd, (struct sockaddr *)&at, &len)) exit(1);
  s->addr = (bdk_addr){.ip = {127, 0, 0, 1}, .port = ntohs(at.sin_port), .family = 4};
  s->mux = bdk_mux_new(&(bdk_mux_config){.alloc = {resize, NULL}, .seed = {(uint8_t)(i + 1)}});
}

static void begin(int i) {
  bdk_candidate c = {.addr = sides[!i].addr, .sock = 1, .via = BDK_VIA_HOST};
  bdk_match m = {.candidates = &c, .count = 1, .own = pair_of(1 + i, 1), .own_ephemeral = pair_of(1 + i, 2)};
  memset(m.self, 1 + i, sizeof m.self);
  memset(m.peer, 2 - i, sizeof m.peer);
  memcpy(m.peer_key, pair_of(2 - i, 1).public, BDK_DH_LEN);
  memcpy(m.peer_ephemeral, pair_of(2 - i, 2).public, BDK_DH_LEN);
  if (bdk_mux_add(sides[i].mux, now_us(), &m, &sides[i].session)) exit(1);
  drain(&sides[i]);
}

static void send_one(side *s, const uint8_t *data, size_t len) {
  if (bdk_mux_send(s->mux, now_us(), s->session, data, len)) exit(2);
  drain(s);
}

// CPU time of a packet, sending and receiving, in ns.
static double burst_ns(size_t len) {
  static const uint8_t data[BDK_PAYLOAD_MAX];
  double before = cpu_s();
  unsigned long got = sides[1].got;
  for (int i = 0; i < PACKETS / BURST; i++) {
    for (int k = 0; k < BURST; k++) send_one(&sides[0], data, len);
    receive(&sides[1]);
    receive(&sides[0]);
  }
  if (sides[1].got - got != PACKETS / BURST * BURST) exit(3);
  return (cpu_s() - before) / (PACKETS / BURST * BURST) * 1e9;
}

static int compare(const void *a, const void *b) {
  uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
  return x < y ? -1 : x > y;
}

static uint64_t clock_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

// The median round trip, in ns.
static double trip_ns(size_t len) {
  static const uint8_t data[BDK_PAYLOAD_MAX];
  static uint64_t took[TRIPS];
  for (int i = 0; i < TRIPS; i++) {
    uint64_t before = clock_ns();
    for (int from = 0; from < 2; from++) {
      unsigned long got = sides[!from].got;
      send_one(&sides[from], data, len);
      while (sides[!from].got == got) {
        wait_for(&sides[!from]);
        receive(&sides[!from]);
      }
    }
    took[i] = clock_ns() - before;
  }
  qsort(took, TRIPS, sizeof *took, compare);
  return (double)took[TRIPS / 2];
}

int main(void) {
  if (sodium_init() < 0) return 5; // picks what this processor is good at
  for (int i = 0; i < 2; i++) open_side(i);
  for (int i = 0; i < 2; i++) begin(i);
  for (int i = 0; i < 1000 && !(sides[0].valid && sides[1].valid); i++)
    for (int k = 0; k < 2; k++) {
      receive(&sides[k]);
      bdk_mux_tick(sides[k].mux, now_us());
      drain(&sides[k]);
    }
  if (!sides[0].valid || !sides[1].valid) return 4;
  static const size_t sizes[] = {100, 1120};
  for (int i = 0; i < 2; i++) burst_ns(sizes[i]);
  for (int i = 0; i < 2; i++) printf("%zu %.0f %.0f\n", sizes[i], burst_ns(sizes[i]), trip_ns(sizes[i]));
  return 0;
}
