// SPDX-License-Identifier: MIT
// Our addresses as the kernel has them.
#ifndef BDK_SOCKADDR_H
#define BDK_SOCKADDR_H

#include <netinet/in.h>
#include <sys/socket.h>

#include "../core/addr.h"

typedef union bdk_sockaddr {
  struct sockaddr any;
  struct sockaddr_in v4;
  struct sockaddr_in6 v6;
} bdk_sockaddr;

// Returns the length.
socklen_t bdk_sockaddr_make(const bdk_addr *a, bdk_sockaddr *out);
void bdk_sockaddr_read(bdk_addr *out, const bdk_sockaddr *from);

#endif
