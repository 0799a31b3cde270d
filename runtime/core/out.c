// SPDX-License-Identifier: MIT
#include "out.h"

#include <sodium.h>
#include <string.h>

#define FIRST_CAP 8192u
#define ALIGN 16u

void bdk_outq_init(bdk_outq *q, const bdk_alloc *alloc, bdk_counters *counters, const uint8_t seed[32]) {
  memset(q, 0, sizeof *q);
  q->alloc = *alloc;
  q->counters = counters;
  memcpy(q->seed, seed, sizeof q->seed);
}

void bdk_outq_clear(bdk_outq *q) {
  if (q->buf) q->alloc.resize(q->alloc.ctx, q->buf, q->cap, 0);
  sodium_memzero(q, sizeof *q);
}

static size_t record_size(size_t len) {
  size_t size = sizeof(bdk_output) + len;
  return (size + ALIGN - 1) / ALIGN * ALIGN;
}

static bool reserve(bdk_outq *q, size_t size) {
  if (size <= q->cap - q->tail) return true;
  size_t cap = q->cap ? q->cap : FIRST_CAP;
  while (cap - q->tail < size) cap *= 2;
  uint8_t *buf = q->alloc.resize(q->alloc.ctx, q->buf, q->cap, cap);
  if (!buf) return false;
  q->buf = buf;
  q->cap = cap;
  return true;
}

void bdk_outq_put(bdk_outq *q, const bdk_output *output) {
  size_t size = record_size(output->len);
  if (!reserve(q, size)) {
    bdk_count(q->counters, BDK_COUNT_refuse_full, 1);
    return;
  }
  memcpy(q->buf + q->tail, output, sizeof *output);
  if (output->len) memcpy(q->buf + q->tail + sizeof *output, output->data, output->len);
  q->tail += size;
}

bool bdk_outq_next(bdk_outq *q, bdk_output *out) {
  if (q->head == q->tail) {
    q->head = q->tail = 0;
    return false;
  }
  memcpy(out, q->buf + q->head, sizeof *out);
  out->data = q->buf + q->head + sizeof *out;
  q->head += record_size(out->len);
  return true;
}

void bdk_outq_random(bdk_outq *q, void *out, size_t len) {
  // A fresh nonce a call: what was drawn before says nothing about what comes.
  uint8_t nonce[crypto_stream_chacha20_NONCEBYTES];
  uint64_t n = q->drawn++;
  for (unsigned i = 0; i < sizeof nonce; i++) nonce[i] = (uint8_t)(n >> (8 * i));
  crypto_stream_chacha20(out, len, nonce, q->seed);
}
