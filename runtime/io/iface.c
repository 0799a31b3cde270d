// SPDX-License-Identifier: MIT
#include "iface.h"

#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <string.h>

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
