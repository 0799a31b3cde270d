// SPDX-License-Identifier: MIT
#include "fill.h"

#include <stddef.h>
#include <string.h>

void bdk_fill_init(bdk_fill *f, uint32_t teams, const uint32_t *sizes, uint32_t min) {
  memset(f, 0, offsetof(bdk_fill, size)); // what comes after it is set with each party: few are offered to most
  f->teams = teams;
  f->min = min;
  f->most_steps = BDK_FILL_STEPS;
  for (uint32_t i = 0; i < teams; i++) f->max += f->room[i] = sizes[i];
}

static bool get_on(bdk_fill *f, uint32_t i, uint32_t k) {
  if (!f->together || i == 0) return true;
  if (!f->known[k][i]) f->known[k][i] = f->together(f->ctx, i, k) ? 1 : 2;
  return f->known[k][i] == 1;
}

// With all of those before it that are in.
static bool fits(bdk_fill *f, uint32_t k) {
  for (uint32_t i = 1; i < k; i++)
    if (f->team[i] >= 0 && !get_on(f, i, k)) return false;
  return true;
}

static void put(bdk_fill *f, uint32_t k, uint32_t team) {
  f->team[k] = (int8_t)team;
  f->room[team] -= f->size[k];
  f->players += f->size[k];
}

static void take_out(bdk_fill *f, uint32_t k) {
  f->room[f->team[k]] += f->size[k];
  f->players -= f->size[k];
  f->team[k] = -1;
}

void bdk_fill_offer(bdk_fill *f, uint32_t size) {
  uint32_t k = f->count++, team = 0;
  f->size[k] = size;
  f->team[k] = -1;
  memset(f->known[k], 0, k);
  if (f->team[0] < 0 && k > 0) return; // no team is large enough for the first
  while (team < f->teams && f->room[team] < size) team++;
  if (team < f->teams && fits(f, k)) put(f, k, team);
}

// --- the search: in the order that they came, each in before it is left out
static bool search(bdk_fill *f, uint32_t k, uint32_t want) {
  if (f->players == want) return true;
  if (k == f->count || f->players + f->rest[k] < want || f->steps >= f->most_steps) return false;
  f->steps++;
  uint32_t size = f->size[k];
  if (f->players + size <= want && fits(f, k))
    for (uint32_t team = 0; team < f->teams; team++) {
      bool is_new = f->room[team] >= size;
      for (uint32_t i = 0; i < team && is_new; i++) is_new = f->room[i] != f->room[team]; // nothing else comes of it
      if (!is_new) continue;
      put(f, k, team);
      if (search(f, k + 1, want)) return true;
      take_out(f, k);
    }
  return k > 0 && search(f, k + 1, want);
}

static void clear(bdk_fill *f) {
  for (uint32_t k = 0; k < f->count; k++)
    if (f->team[k] >= 0) take_out(f, k);
}

bool bdk_fill_end(bdk_fill *f) {
  if (bdk_fill_is_full(f) || f->count == 0) return f->players >= f->min && f->players > 0;
  int8_t before[BDK_FILL_PARTIES];
  uint32_t least = f->players, total = 0;
  memcpy(before, f->team, sizeof before);
  clear(f);
  // Which numbers of players there can be at all, a bit each, with the first and in any team: few sizes do not add up
  // to all.
  uint64_t with_first = (uint64_t)1 << f->size[0], sums = 1;
  for (uint32_t k = f->count; k-- > 0;) {
    f->rest[k] = total += f->size[k];
    if (k > 0) with_first |= with_first << f->size[k];
    sums |= sums << f->size[k];
  }
  for (uint32_t i = 0; i < f->teams; i++)
    if (!(sums >> f->room[i] & 1)) with_first &= ~((uint64_t)1 << f->max);
  for (uint32_t want = f->max; want > least && want >= f->min; want--)
    if (with_first >> want & 1 && search(f, 0, want)) return true;
  for (uint32_t k = 0; k < f->count; k++)
    if (before[k] >= 0) put(f, k, (uint32_t)before[k]);
  return f->players >= f->min && f->players > 0;
}
