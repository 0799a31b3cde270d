// SPDX-License-Identifier: MIT
#include "iface.h"

#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static bool read_addr(const struct sockaddr *from, bdk_addr *out) {
  memset(out, 0, sizeof *out);
  if (from && from->sa_family == AF_INET) {
    struct sockaddr_in v4;
    memcpy(&v4, from, sizeof v4);
    out->family = 4;
    memcpy(out->ip, &v4.sin_addr, 4);
  } else if (from && from->sa_family == AF_INET6) {
    struct sockaddr_in6 v6;
    memcpy(&v6, from, sizeof v6);
    out->family = 6;
    out->scope = v6.sin6_scope_id;
    memcpy(out->ip, &v6.sin6_addr, 16);
  } else {
    return false;
  }
  bdk_addr_canon(out);
  return true;
}

int bdk_iface_list(bdk_iface *out, int max) {
  struct ifaddrs *all;
  int count = 0;
  if (getifaddrs(&all) < 0) return -errno;
  for (struct ifaddrs *i = all; i; i = i->ifa_next) {
    bdk_iface one = {.up = (i->ifa_flags & IFF_UP) != 0, .loopback = (i->ifa_flags & IFF_LOOPBACK) != 0};
    if (!read_addr(i->ifa_addr, &one.addr)) continue;
    strncpy(one.name, i->ifa_name, sizeof one.name - 1);
    if (count < max) out[count] = one;
    count++;
  }
  freeifaddrs(all);
  return count;
}

int bdk_iface_source(const bdk_addr *to, bdk_addr *out) {
  struct sockaddr_storage at = {0};
  socklen_t len = sizeof(struct sockaddr_in);
  if (to->family == 4) {
    struct sockaddr_in *v4 = (struct sockaddr_in *)&at;
    v4->sin_family = AF_INET;
    v4->sin_port = htons(1); // nothing is sent, but none is no port
    memcpy(&v4->sin_addr, to->ip, 4);
  } else {
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&at;
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons(1);
    v6->sin6_scope_id = to->scope;
    memcpy(&v6->sin6_addr, to->ip, 16);
    len = sizeof *v6;
  }
  int fd = socket(at.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return -errno;
  int error = 0;
  if (connect(fd, (struct sockaddr *)&at, len) < 0 || getsockname(fd, (struct sockaddr *)&at, &len) < 0)
    error = -errno;
  else if (!read_addr((struct sockaddr *)&at, out))
    error = -EAFNOSUPPORT;
  close(fd);
  return error;
}
