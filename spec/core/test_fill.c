// SPDX-License-Identifier: MIT
#include "support.h"

#include "core/fill.h"

typedef struct hall {
  uint32_t count, size[BDK_FILL_PARTIES];
  bool gets_on[BDK_FILL_PARTIES][BDK_FILL_PARTIES];
  uint32_t asked[BDK_FILL_PARTIES][BDK_FILL_PARTIES];
} hall;

static bool together(void *ctx, uint32_t i, uint32_t k) {
  hall *h = ctx;
  assert_true(0 < i && i < k && k < h->count);
  assert_int_equal(h->asked[i][k]++, 0);
  return h->gets_on[i][k];
}

static void begin(bdk_fill *f, hall *h, uint32_t teams, const uint32_t *sizes, uint32_t min) {
  memset(h->asked, 0, sizeof h->asked);
  bdk_fill_init(f, teams, sizes, min);
  f->together = together;
  f->ctx = h;
  for (uint32_t i = 0; i < h->count && !bdk_fill_is_full(f); i++) bdk_fill_offer(f, h->size[i]);
}

static bool filled(bdk_fill *f, hall *h, uint32_t teams, const uint32_t *sizes, uint32_t min) {
  begin(f, h, teams, sizes, min);
  return bdk_fill_end(f);
}

// By each way there is: the most players that can be in, with the first party.
static uint32_t most(const hall *h, uint32_t teams, uint32_t *room, uint32_t k, int *team) {
  if (k == h->count) {
    uint32_t players = 0;
    for (uint32_t i = 0; i < k; i++) players += team[i] >= 0 ? h->size[i] : 0;
    return players;
  }
  uint32_t best = 0;
  team[k] = -1;
  if (k > 0) best = most(h, teams, room, k + 1, team);
  for (uint32_t i = 1; i < k; i++)
    if (team[i] >= 0 && !h->gets_on[i][k]) return best;
  for (uint32_t t = 0; t < teams; t++) {
    if (room[t] < h->size[k]) continue;
    room[t] -= h->size[k];
    team[k] = (int)t;
    uint32_t n = most(h, teams, room, k + 1, team);
    if (n > best) best = n;
    room[t] += h->size[k];
  }
  team[k] = -1;
  return best;
}

static void is_right(const bdk_fill *f, const hall *h, const uint32_t *sizes) {
  uint32_t in[BDK_FILL_PLAYERS] = {0}, players = 0;
  assert_true(f->team[0] >= 0);
  for (uint32_t k = 0; k < f->count; k++) {
    if (f->team[k] < 0) continue;
    in[f->team[k]] += h->size[k];
    players += h->size[k];
    for (uint32_t i = 1; i < k; i++)
      if (f->team[i] >= 0) assert_true(h->gets_on[i][k]);
  }
  assert_int_equal(players, f->players);
  for (uint32_t t = 0; t < f->teams; t++) assert_true(in[t] <= sizes[t]);
}

static hall made(uint64_t *random, uint32_t count, uint32_t party, uint32_t get_on) {
  hall h = {.count = count};
  for (uint32_t i = 0; i < count; i++) {
    h.size[i] = 1 + spec_below(random, party);
    for (uint32_t k = i + 1; k < count; k++) h.gets_on[i][k] = i == 0 || spec_below(random, 100) < get_on;
  }
  return h;
}

static void finds_what_there_is_among_a_few(void **state) {
  (void)state;
  static const struct {
    uint32_t teams, sizes[3], min;
  } games[] = {{1, {4}, 4}, {1, {6}, 3}, {2, {3, 3}, 6}, {3, {2, 2, 2}, 6}, {2, {4, 1}, 5}};
  uint32_t full = 0, beyond_the_first_try = 0;
  for (uint64_t seed = 1; seed <= 3000; seed++) {
    uint64_t random = seed;
    hall h = made(&random, 2 + spec_below(&random, 6), 3, 50 + spec_below(&random, 51));
    for (size_t g = 0; g < sizeof games / sizeof *games; g++) {
      uint32_t room[3];
      int team[BDK_FILL_PARTIES];
      bdk_fill f;
      memcpy(room, games[g].sizes, sizeof room);
      uint32_t best = most(&h, games[g].teams, room, 0, team);
      bool ok = filled(&f, &h, games[g].teams, games[g].sizes, games[g].min);
      if (ok != (best >= games[g].min) || (ok && f.players != best))
        fail_msg("seed %d, game %d: %d players of %d", (int)seed, (int)g, ok ? (int)f.players : 0, (int)best);
      if (!ok) continue;
      is_right(&f, &h, games[g].sizes);
      full++;
      beyond_the_first_try += f.steps > 0 && f.players == f.max;
    }
  }
  assert_true(full > 3000);
  assert_true(beyond_the_first_try > 300);
}

// Where it gives up, it has not looked for long, and what it had found first stands.
static void gives_up_in_bounds(void **state) {
  (void)state;
  static const uint32_t size = 32;
  for (uint64_t seed = 1; seed <= 200; seed++) {
    uint64_t random = seed;
    hall h = made(&random, BDK_FILL_PARTIES, 4, 30);
    bdk_fill f;
    assert_true(filled(&f, &h, 1, &size, 1));
    assert_true(f.steps <= BDK_FILL_STEPS);
    is_right(&f, &h, &size);
    begin(&f, &h, 1, &size, 1);
    f.most_steps = 20;
    assert_true(bdk_fill_end(&f));
    assert_true(f.steps <= 20);
    is_right(&f, &h, &size);
  }
}

static void searches_nothing_where_no_sizes_add_up(void **state) {
  (void)state;
  static const uint32_t size = 5;
  hall h = {.count = 20};
  for (uint32_t i = 0; i < h.count; i++) {
    h.size[i] = 2;
    for (uint32_t k = i + 1; k < h.count; k++) h.gets_on[i][k] = true;
  }
  bdk_fill f;
  assert_false(filled(&f, &h, 1, &size, 5));
  assert_int_equal(f.steps, 0);
  assert_true(filled(&f, &h, 1, &size, 4));
  assert_int_equal(f.players, 4);
  bdk_fill_init(&f, 1, &size, 1);
  assert_false(bdk_fill_end(&f));
  // All of them, but no team.
  static const uint32_t teams[] = {3, 3};
  assert_false(filled(&f, &h, 2, teams, 6));
  assert_int_equal(f.steps, 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(finds_what_there_is_among_a_few),
      cmocka_unit_test(gives_up_in_bounds),
      cmocka_unit_test(searches_nothing_where_no_sizes_add_up),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
