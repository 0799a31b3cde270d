// SPDX-License-Identifier: MIT
// Asks a server on this host until it has answered so many requests, and says how many of them it did not. Sockets
// take turns, each with a batch of requests under way, so that a server finds as much work as it can take.
// usage: load stun|report|echo IP PORT ANSWERS
#include <arpa/inet.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define SOCKETS 16
#define BATCH 32
#define SIZE 1200
#define WAIT_MS 200 // for a batch's answers, before they count as lost

static const uint8_t mark[4] = {'l', 'o', 'a', 'd'};

// What is asked, with a transaction id of 12 bytes at `tx`; the answer has the same id at `answer_tx`.
typedef struct kind {
  const char *name;
  size_t len, tx, answer_tx;
  uint8_t head[20];
} kind;

static const kind kinds[] = {
    // RFC 8489: a Binding request without attributes
    {"stun", 20, 8, 8, {0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42}},
    // docs/PROTOCOL.md: address_request, [1, 1, tx, pad], and address_report, [2, 1, tx, ...]
    {"report", 128, 5, 5, {0x94, 1, 1, 0xc4, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xc4, 109}},
    {"echo", 128, 5, 5, {0x94, 1, 1, 0xc4, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xc4, 109}},
};

static struct mmsghdr out[BATCH], in[BATCH];
static struct iovec out_iov[BATCH], in_iov[BATCH];
static uint8_t out_data[BATCH][SIZE], in_data[BATCH][SIZE];
static uint32_t asked;

static int send_batch(int fd, const kind *k) {
  for (int i = 0; i < BATCH; i++) {
    asked++;
    memcpy(out_data[i] + k->tx, mark, 4);
    memcpy(out_data[i] + k->tx + 8, &asked, 4);
  }
  return sendmmsg(fd, out, BATCH, 0);
}

// How many answers came, of `open` under way.
static int receive(int fd, const kind *k, int open, int wait_ms) {
  int good = 0;
  while (good < open) {
    struct pollfd p = {.fd = fd, .events = POLLIN};
    if (poll(&p, 1, wait_ms) <= 0) break;
    int n = recvmmsg(fd, in, BATCH, MSG_DONTWAIT, NULL);
    for (int i = 0; i < n; i++)
      good += in[i].msg_len >= k->answer_tx + 12 && memcmp(in_data[i] + k->answer_tx, mark, 4) == 0;
  }
  return good;
}

int main(int argc, char **argv) {
  struct sockaddr_in to = {.sin_family = AF_INET};
  const kind *k = NULL;
  for (size_t i = 0; argc == 5 && i < sizeof kinds / sizeof *kinds; i++)
    if (strcmp(kinds[i].name, argv[1]) == 0) k = &kinds[i];
  if (!k || inet_pton(AF_INET, argv[2], &to.sin_addr) != 1)
    return fputs("usage: load stun|report|echo IP PORT ANSWERS\n", stderr), 2;
  to.sin_port = htons((uint16_t)atoi(argv[3]));
  long want = atol(argv[4]), answered = 0, lost = 0;
  int fd[SOCKETS], open[SOCKETS];
  for (int i = 0; i < BATCH; i++) {
    memcpy(out_data[i], k->head, sizeof k->head);
    out_iov[i] = (struct iovec){out_data[i], k->len};
    in_iov[i] = (struct iovec){in_data[i], SIZE};
    out[i].msg_hdr = (struct msghdr){.msg_iov = &out_iov[i], .msg_iovlen = 1};
    in[i].msg_hdr = (struct msghdr){.msg_iov = &in_iov[i], .msg_iovlen = 1};
  }
  for (int s = 0; s < SOCKETS; s++) {
    fd[s] = socket(AF_INET, SOCK_DGRAM, 0);
    if (connect(fd[s], (struct sockaddr *)&to, sizeof to) < 0) return perror("load: connect"), 1;
    open[s] = send_batch(fd[s], k);
  }
  for (int s = 0, silent = 0; answered < want; s = (s + 1) % SOCKETS) {
    int n = receive(fd[s], k, open[s], WAIT_MS);
    answered += n;
    if (open[s] > 0) lost += open[s] - n;
    silent = n > 0 ? 0 : silent + 1;
    if (silent == 2 * SOCKETS) return fputs("load: no answers\n", stderr), 1;
    open[s] = send_batch(fd[s], k);
  }
  for (int s = 0; s < SOCKETS; s++) answered += receive(fd[s], k, open[s], WAIT_MS); // so that all is paid for
  printf("%ld %ld\n", answered, lost);
  return 0;
}
