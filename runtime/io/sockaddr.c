// SPDX-License-Identifier: MIT
#include "sockaddr.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

socklen_t bdk_sockaddr_make(const bdk_addr *a, bdk_sockaddr *out) {
  memset(out, 0, sizeof *out);
  if (a->family == 4) {
    out->v4.sin_family = AF_INET;
    out->v4.sin_port = htons(a->port);
    memcpy(&out->v4.sin_addr, a->ip, 4);
    return sizeof out->v4;
  }
  out->v6.sin6_family = AF_INET6;
  out->v6.sin6_port = htons(a->port);
  out->v6.sin6_scope_id = a->scope;
  memcpy(&out->v6.sin6_addr, a->ip, 16);
  return sizeof out->v6;
}

void bdk_sockaddr_read(bdk_addr *out, const bdk_sockaddr *from) {
  memset(out, 0, sizeof *out);
  if (from->any.sa_family == AF_INET) {
    out->family = 4;
    out->port = ntohs(from->v4.sin_port);
    memcpy(out->ip, &from->v4.sin_addr, 4);
  } else {
    out->family = 6;
    out->port = ntohs(from->v6.sin6_port);
    out->scope = from->v6.sin6_scope_id;
    memcpy(out->ip, &from->v6.sin6_addr, 16);
  }
  bdk_addr_canon(out);
}

int bdk_sockaddr_open(const bdk_addr *a, int type) {
  int on = 1, fd = socket(a->family == 6 ? AF_INET6 : AF_INET, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0 || a->family != 6 || setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on) == 0) return fd;
  int error = errno;
  close(fd);
  errno = error;
  return -1;
}

int bdk_sockaddr_bind(int fd, const bdk_addr *to, bdk_addr *local) {
  bdk_sockaddr at;
  if (bind(fd, &at.any, bdk_sockaddr_make(to, &at)) < 0) return -1;
  socklen_t len = sizeof at;
  if (getsockname(fd, &at.any, &len) < 0) return -1;
  bdk_sockaddr_read(local, &at);
  return 0;
}
