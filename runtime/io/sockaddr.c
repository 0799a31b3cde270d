// SPDX-License-Identifier: MIT
#include "sockaddr.h"

#include <string.h>

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
