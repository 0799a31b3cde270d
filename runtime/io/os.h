// SPDX-License-Identifier: MIT
// The operating system's small things: the monotonic clock, random bytes, the heap, files that hold secrets.
#ifndef BDK_OS_H
#define BDK_OS_H

#include <stdbool.h>

#include "../core/base.h"

// Microseconds on CLOCK_MONOTONIC; machine-wide, so processes on one machine share it.
uint64_t bdk_os_now_us(void);
// Cryptographically random bytes.
void bdk_os_random(void *out, size_t len);
// realloc and free as a bdk_alloc.
extern const bdk_alloc bdk_os_alloc;

// --- files that are their owner's alone; 0, or -errno or one of ours
// Reads a regular file whole. BDK_E_REFUSED: its mode has one of the bits `forbidden` (077: others may read or write
// it); BDK_E_LIMIT: more than `cap` bytes.
int bdk_os_read_private(const char *path, unsigned forbidden, void *out, size_t cap, size_t *len);
// A file of mode 0600, on the disk: whole or not at all, even when two do it at once. -EEXIST where there is one
// already, unless `replace`.
int bdk_os_write_private(const char *path, const void *bytes, size_t len, bool replace);
// The directories above `path`: those that are not there are made, 0700.
int bdk_os_make_parents(const char *path);

#endif
