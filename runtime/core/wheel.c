// SPDX-License-Identifier: MIT
#include "wheel.h"

static bool before(const bdk_timer *a, const bdk_timer *b) {
  return a->due_us != b->due_us ? a->due_us < b->due_us : a->seq < b->seq;
}

static void place(bdk_wheel *w, uint32_t i, bdk_timer *t) {
  w->heap[i] = t;
  t->slot = i + 1;
}

// Puts `t` where it belongs, beginning from the hole at `i`.
static void sift(bdk_wheel *w, uint32_t i, bdk_timer *t) {
  while (i > 0 && before(t, w->heap[(i - 1) / 2])) {
    place(w, i, w->heap[(i - 1) / 2]);
    i = (i - 1) / 2;
  }
  for (;;) {
    uint64_t child = 2ull * i + 1;
    if (child >= w->count) break;
    if (child + 1 < w->count && before(w->heap[child + 1], w->heap[child])) child++;
    if (!before(w->heap[child], t)) break;
    place(w, i, w->heap[child]);
    i = (uint32_t)child;
  }
  place(w, i, t);
}

static bool grow(bdk_wheel *w) {
  uint32_t cap = w->cap ? w->cap * 2 : 16;
  if (w->cap > UINT32_MAX / 4) return false;
  bdk_timer **heap = w->alloc.resize(w->alloc.ctx, w->heap, w->cap * sizeof *heap, cap * sizeof *heap);
  if (!heap) return false;
  w->heap = heap;
  w->cap = cap;
  return true;
}

void bdk_wheel_init(bdk_wheel *w, const bdk_alloc *alloc) { *w = (bdk_wheel){.alloc = *alloc}; }

void bdk_wheel_clear(bdk_wheel *w) {
  for (uint32_t i = 0; i < w->count; i++) w->heap[i]->slot = 0;
  if (w->heap) w->alloc.resize(w->alloc.ctx, w->heap, w->cap * sizeof *w->heap, 0);
  *w = (bdk_wheel){.alloc = w->alloc};
}

int bdk_wheel_set(bdk_wheel *w, bdk_timer *t, uint64_t due_us) {
  uint32_t i = t->slot ? t->slot - 1 : w->count;
  if (!t->slot) {
    if (w->count == w->cap && !grow(w)) return BDK_E_LIMIT;
    w->count++;
  }
  t->due_us = due_us;
  t->seq = ++w->seq;
  sift(w, i, t);
  return 0;
}

void bdk_wheel_cancel(bdk_wheel *w, bdk_timer *t) {
  if (!t->slot) return;
  uint32_t i = t->slot - 1;
  t->slot = 0;
  bdk_timer *last = w->heap[--w->count];
  if (last != t) sift(w, i, last);
}

bdk_timer *bdk_wheel_pop(bdk_wheel *w, uint64_t now_us) {
  if (w->count == 0 || w->heap[0]->due_us > now_us) return NULL;
  bdk_timer *t = w->heap[0];
  bdk_wheel_cancel(w, t);
  return t;
}

uint64_t bdk_wheel_deadline(const bdk_wheel *w) { return w->count ? w->heap[0]->due_us : BDK_NEVER; }
