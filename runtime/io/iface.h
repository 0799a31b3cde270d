// SPDX-License-Identifier: MIT
// The addresses of this machine's interfaces, and which of them is used.
#ifndef BDK_IFACE_H
#define BDK_IFACE_H

#include "../core/addr.h"

typedef struct bdk_iface {
  char name[16];
  bdk_addr addr; // port 0
  bool up, loopback;
} bdk_iface;

// Fills at most `max`; returns how many there are, or -errno.
int bdk_iface_list(bdk_iface *out, int max);
// The address, port 0, from which the kernel would send there now. 0, or -errno: there is no way.
int bdk_iface_source(const bdk_addr *to, bdk_addr *out);

#endif
