// SPDX-License-Identifier: MIT
#include "os.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>
#include <time.h>

uint64_t bdk_os_now_us(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000u + (uint64_t)t.tv_nsec / 1000u;
}

void bdk_os_random(void *out, size_t len) {
  uint8_t *p = out;
  while (len > 0) {
    ssize_t n = getrandom(p, len, 0);
    if (n < 0 && errno == EINTR) continue;
    // Without entropy every key made here could be guessed: there is no safe way to go on.
    if (n < 0) abort();
    p += n;
    len -= (size_t)n;
  }
}

static void *resize(void *ctx, void *p, size_t old_size, size_t new_size) {
  (void)ctx;
  (void)old_size;
  if (new_size == 0) {
    free(p);
    return NULL;
  }
  return realloc(p, new_size);
}

const bdk_alloc bdk_os_alloc = {.resize = resize, .ctx = NULL};
