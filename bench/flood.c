// SPDX-License-Identifier: MIT
// Sends bad and spoofed datagrams to a UDP port, from a million source addresses, at a steady rate. As root, in a
// network namespace of its own: see spec/hostile/flood.lua. The first of the sources is FROM; those that follow it are
// the numbers after it. CORPUS holds messages, in the form that spec/hostile/corpus.lua writes.
// usage: flood FROM IP PORT DATAGRAMS-A-SECOND DATAGRAMS CORPUS SEED
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/ip.h>
#include <netinet/udp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>

#define SOURCES 1000000u
#define STRIDE 618033u // has no divisor in common with SOURCES: each source sends as often as any other
#define BATCH 32
#define HEADERS (sizeof(struct iphdr) + sizeof(struct udphdr))
#define LONGEST (1500 - HEADERS) // what passes unfragmented
#define DATAGRAM 1200            // the protocol's longest
#define FRAME_SHORTEST 29
#define BEHIND_NS 20000000 // further behind than this, what was missed is not made up for in one burst

// The first four are made here, from any message; the others are messages of the corpus, by the number they have there.
enum { NOISE, TRUNCATED, FLIPPED, FRAME, CORPUS, KINDS = CORPUS + 4 };
static const char *const names[KINDS] = {"noise", "truncated", "flipped", "frame", "request", "plain", "open", "bomb"};

typedef struct record {
  const uint8_t *bytes, *mask; // mask: 0xff where any byte will do, 0 where the message has what it must have
  uint16_t len;
} record;

static record *records[KINDS], *all;
static size_t counts[KINDS], total;

static struct mmsghdr out[BATCH];
static struct iovec iov[BATCH];
static uint8_t data[BATCH][1504];
static uint64_t state, sent_of[KINDS], bytes_sent;

static uint64_t next(void) { // xorshift64*, Vigna 2014
  state ^= state >> 12;
  state ^= state << 25;
  state ^= state >> 27;
  return state * 0x2545f4914f6cdd1dull;
}

static uint32_t below(uint32_t n) { return (uint32_t)((next() >> 32) * n >> 32); }

// Writes up to 7 bytes more than `len`.
static void random_bytes(uint8_t *to, size_t len) {
  for (size_t i = 0; i < len; i += 8) {
    uint64_t r = next();
    memcpy(to + i, &r, 8);
  }
}

static size_t from_record(uint8_t *to, const record *r) {
  random_bytes(to, r->len);
  for (size_t i = 0; i < r->len; i++) to[i] = (uint8_t)((to[i] & r->mask[i]) | (r->bytes[i] & ~r->mask[i]));
  return r->len;
}

static size_t payload(uint8_t *to, int kind) {
  size_t len;
  switch (kind) {
  case NOISE:
    len = below(LONGEST + 1);
    random_bytes(to, len);
    return len;
  case TRUNCATED:
    len = from_record(to, &all[below((uint32_t)total)]);
    return len ? below((uint32_t)len) : 0;
  case FLIPPED:
    len = from_record(to, &all[below((uint32_t)total)]);
    for (uint32_t n = 1 + below(4); n > 0 && len > 0; n--) to[below((uint32_t)len)] ^= (uint8_t)(1u << below(8));
    return len;
  case FRAME:
    len = FRAME_SHORTEST + below(DATAGRAM + 1 - FRAME_SHORTEST);
    random_bytes(to, len);
    to[0] = 0xc1;
    return len;
  default:
    return from_record(to, &records[kind][below((uint32_t)counts[kind])]);
  }
}

static uint8_t *read_file(const char *path, size_t *len) {
  FILE *f = fopen(path, "rb");
  if (!f) return NULL;
  fseek(f, 0, SEEK_END);
  long size = ftell(f);
  rewind(f);
  uint8_t *bytes = size > 0 ? malloc((size_t)size) : NULL;
  *len = bytes ? fread(bytes, 1, (size_t)size, f) : 0;
  fclose(f);
  return bytes;
}

// Records: kind (1 byte), length (2, big-endian), the bytes, the mask.
static bool load(const char *path) {
  size_t len;
  uint8_t *bytes = read_file(path, &len);
  if (!bytes) return false;
  all = calloc(len / 3 + 1, sizeof *all);
  for (int k = CORPUS; all && k < KINDS; k++) records[k] = calloc(len / 3 + 1, sizeof *all);
  for (size_t at = 0; at < len;) {
    if (len - at < 3 || bytes[at] >= KINDS - CORPUS) return false;
    size_t n = (size_t)bytes[at + 1] << 8 | bytes[at + 2];
    int kind = CORPUS + bytes[at];
    if (n > LONGEST || len - at - 3 < 2 * n || !all || !records[kind]) return false;
    all[total] = (record){bytes + at + 3, bytes + at + 3 + n, (uint16_t)n};
    records[kind][counts[kind]++] = all[total++];
    at += 3 + 2 * n;
  }
  return total > 0;
}

static void build(int slot, uint32_t from, const struct sockaddr_in *to, int kind) {
  static uint32_t turn;
  uint8_t *p = data[slot];
  size_t len = payload(p + HEADERS, kind);
  uint32_t source = (uint32_t)((uint64_t)turn++ * STRIDE % SOURCES);
  struct iphdr ip = {.version = 4, .ihl = 5, .ttl = 64, .protocol = IPPROTO_UDP, .saddr = htonl(from + source)};
  ip.daddr = to->sin_addr.s_addr; // the kernel fills in the length and the checksum
  struct udphdr udp = {.source = htons((uint16_t)(1024 + source % 64000)), .dest = to->sin_port};
  udp.len = htons((uint16_t)(sizeof udp + len));
  memcpy(p, &ip, sizeof ip);
  memcpy(p + sizeof ip, &udp, sizeof udp);
  iov[slot].iov_len = HEADERS + len;
  sent_of[kind]++;
  bytes_sent += len;
}

static int64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

// Sleeps until it is time for datagram number `sent`; returns the moment it all counts from.
static int64_t pace(int64_t start, int64_t sent, int64_t rate) {
  int64_t due = start + sent * 1000000000 / rate, now = now_ns();
  if (now > due + BEHIND_NS) return start + (now - due);
  struct timespec at = {.tv_sec = due / 1000000000, .tv_nsec = due % 1000000000};
  if (now < due) clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL);
  return start;
}

static bool send_batch(int fd, int n) {
  for (int done = 0; done < n;) {
    int m = sendmmsg(fd, out + done, (unsigned)(n - done), 0);
    if (m < 0 && errno != ENOBUFS && errno != EAGAIN && errno != EINTR) return false;
    if (m > 0) done += m;
  }
  return true;
}

int main(int argc, char **argv) {
  struct sockaddr_in to = {.sin_family = AF_INET};
  struct in_addr from;
  if (argc != 8 || inet_pton(AF_INET, argv[1], &from) != 1 || inet_pton(AF_INET, argv[2], &to.sin_addr) != 1)
    return fputs("usage: flood FROM IP PORT DATAGRAMS-A-SECOND DATAGRAMS CORPUS SEED\n", stderr), 2;
  to.sin_port = htons((uint16_t)atoi(argv[3]));
  int64_t rate = atoll(argv[4]), count = atoll(argv[5]), sent = 0;
  state = strtoull(argv[7], NULL, 10) * 0x9e3779b97f4a7c15ull | 1;
  if (rate < 1 || !load(argv[6])) return fprintf(stderr, "flood: no rate, or no corpus in %s\n", argv[6]), 2;
  int kinds[KINDS], n_kinds = 0;
  for (int k = 0; k < KINDS; k++)
    if (k < CORPUS || counts[k]) kinds[n_kinds++] = k;
  int fd = socket(AF_INET, SOCK_RAW, IPPROTO_RAW);
  if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof to) < 0) return perror("flood: raw socket"), 1;
  for (int i = 0; i < BATCH; i++) {
    iov[i].iov_base = data[i];
    out[i].msg_hdr = (struct msghdr){.msg_iov = &iov[i], .msg_iovlen = 1};
  }
  prctl(PR_SET_TIMERSLACK, 1);
  int64_t began = now_ns(), start = began;
  while (sent < count) {
    int n = count - sent < BATCH ? (int)(count - sent) : BATCH;
    for (int i = 0; i < n; i++) build(i, ntohl(from.s_addr), &to, kinds[below((uint32_t)n_kinds)]);
    start = pace(start, sent, rate);
    if (!send_batch(fd, n)) return perror("flood: send"), 1;
    sent += n;
  }
  printf("sent %lld bytes %llu us %lld\n", (long long)sent, (unsigned long long)bytes_sent,
         (long long)((now_ns() - began) / 1000));
  for (int k = 0; k < KINDS; k++)
    if (sent_of[k]) printf("kind %s %llu\n", names[k], (unsigned long long)sent_of[k]);
  return 0;
}
