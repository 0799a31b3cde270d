// SPDX-License-Identifier: MIT
// The least that a server of datagrams can do: sends back what comes, in batches of 64. The measure for
// bench/server.lua. usage: echo IP PORT
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define BATCH 64
#define SIZE 1200

int main(int argc, char **argv) {
  static char data[BATCH][SIZE];
  static struct sockaddr_in from[BATCH];
  static struct iovec iov[BATCH];
  static struct mmsghdr msg[BATCH];
  struct sockaddr_in at = {.sin_family = AF_INET};
  int size = 1 << 20, fd = socket(AF_INET, SOCK_DGRAM, 0);
  if (argc != 3 || inet_pton(AF_INET, argv[1], &at.sin_addr) != 1) return fputs("usage: echo IP PORT\n", stderr), 2;
  at.sin_port = htons((uint16_t)atoi(argv[2]));
  setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
  if (bind(fd, (struct sockaddr *)&at, sizeof at) < 0) return perror("echo: bind"), 1;
  puts("ready");
  fflush(stdout);
  for (;;) {
    for (int i = 0; i < BATCH; i++) {
      iov[i] = (struct iovec){data[i], SIZE};
      msg[i].msg_hdr =
          (struct msghdr){.msg_name = &from[i], .msg_namelen = sizeof from[i], .msg_iov = &iov[i], .msg_iovlen = 1};
    }
    int n = recvmmsg(fd, msg, BATCH, MSG_WAITFORONE, NULL);
    if (n < 0) return perror("echo: recvmmsg"), 1;
    for (int i = 0; i < n; i++) iov[i].iov_len = msg[i].msg_len;
    for (int sent = 0, k; sent < n; sent += k)
      if ((k = sendmmsg(fd, msg + sent, (unsigned)(n - sent), 0)) < 0) return perror("echo: sendmmsg"), 1;
  }
}
