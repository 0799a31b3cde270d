// SPDX-License-Identifier: MIT
// The operating system's small things: the monotonic clock, random bytes, the heap.
#ifndef BDK_OS_H
#define BDK_OS_H

#include "../core/base.h"

// Microseconds on CLOCK_MONOTONIC; machine-wide, so processes on one machine share it.
uint64_t bdk_os_now_us(void);
// Cryptographically random bytes.
void bdk_os_random(void *out, size_t len);
// realloc and free as a bdk_alloc.
extern const bdk_alloc bdk_os_alloc;

#endif
