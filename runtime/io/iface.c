// SPDX-License-Identifier: MIT
#include "iface.h"

#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <string.h>
#include <unistd.h>

#include "sockaddr.h"

static bool read_addr(const struct sockaddr *from, bdk_addr *out) {
  bdk_sockaddr at;
  if (!from || (from->sa_family != AF_INET && from->sa_family != AF_INET6)) return false;
  memcpy(&at, from, from->sa_family == AF_INET ? sizeof at.v4 : sizeof at.v6);
  bdk_sockaddr_read(out, &at);
  out->port = 0;
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
  bdk_sockaddr at;
  bdk_addr any_port = *to;
  any_port.port = 1; // nothing is sent, but none is no port
  int fd = bdk_sockaddr_open(to, SOCK_DGRAM);
  if (fd < 0) return -errno;
  int error = 0;
  socklen_t len = bdk_sockaddr_make(&any_port, &at);
  if (connect(fd, &at.any, len) < 0 || getsockname(fd, &at.any, &len) < 0)
    error = -errno;
  else if (!read_addr(&at.any, out))
    error = -EAFNOSUPPORT;
  close(fd);
  return error;
}
