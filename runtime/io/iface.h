// SPDX-License-Identifier: MIT
// The addresses of this machine's interfaces.
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

#endif
