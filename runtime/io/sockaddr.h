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

// A socket of SOCK_DGRAM or SOCK_STREAM, of the address's family alone; it does not block. -1 and errno.
int bdk_sockaddr_open(const bdk_addr *a, int type);
// Binds it, and tells where that is. -1 and errno.
int bdk_sockaddr_bind(int fd, const bdk_addr *to, bdk_addr *local);

#endif
