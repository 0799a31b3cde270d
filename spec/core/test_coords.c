// SPDX-License-Identifier: MIT
#include "support.h"

#include "core/coords.h"

enum { HOSTS = 80 };

typedef struct space {
  bdk_coord truth[HOSTS], guess[HOSTS];
  uint64_t random;
} space;

static double unit(uint64_t *random) { return (double)spec_below(random, 1 << 30) / (1 << 30); }

// Hosts within 200 ms of each other, each behind an access link of up to `height` ms.
static space made(uint64_t seed, double height) {
  space s = {.random = seed};
  for (int i = 0; i < HOSTS; i++) {
    bdk_coord_init(&s.truth[i]);
    bdk_coord_init(&s.guess[i]);
    for (int k = 0; k < BDK_COORD_DIMS; k++) s.truth[i].at[k] = 120 * unit(&s.random);
    s.truth[i].height = height * unit(&s.random);
  }
  return s;
}

// What is measured between two, up to `noise` of it more or less.
static double measured(space *s, int i, int j, double noise) {
  return bdk_coord_distance_ms(&s->truth[i], &s->truth[j]) * (1 + noise * (2 * unit(&s->random) - 1));
}

static int ascending(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

// The median of how much estimates are off.
static double off(const space *s) {
  double list[HOSTS * HOSTS];
  size_t n = 0;
  for (int i = 0; i < HOSTS; i++)
    for (int j = 0; j < i; j++) {
      double truth = bdk_coord_distance_ms(&s->truth[i], &s->truth[j]);
      double guess = bdk_coord_distance_ms(&s->guess[i], &s->guess[j]);
      list[n++] = (guess > truth ? guess - truth : truth - guess) / truth;
    }
  qsort(list, n, sizeof *list, ascending);
  return list[n / 2];
}

static void measure_each_once(space *s, double noise) {
  for (int i = 0; i < HOSTS; i++) {
    int j = (i + 1 + (int)spec_below(&s->random, HOSTS - 1)) % HOSTS;
    bdk_coord_update(&s->guess[i], &s->guess[j], measured(s, i, j, noise), (uint64_t)i);
  }
}

static void finds_a_geometric_space(void **state) {
  (void)state;
  for (uint64_t seed = 1; seed <= 5; seed++) {
    space s = made(seed, 0);
    for (int round = 0; round < 400; round++) measure_each_once(&s, 0);
    if (seed == 1) print_message("# 3 dimensions, 400 measurements each: off by %.2f %%\n", 100 * off(&s));
    assert_true(off(&s) < 0.03);
  }
}

static void finds_heights_and_bears_noise(void **state) {
  (void)state;
  for (uint64_t seed = 1; seed <= 5; seed++) {
    space s = made(seed, 30);
    for (int round = 0; round < 400; round++) measure_each_once(&s, 0.1);
    if (seed == 1) print_message("# with access links and 10 %% of noise: off by %.2f %%\n", 100 * off(&s));
    assert_true(off(&s) < 0.08);
  }
}

// As a server does it: a dozen measurements of each, every one with others, gone through again and again.
static void a_dozen_measurements_are_enough(void **state) {
  (void)state;
  enum { KEPT = 12 };
  for (uint64_t seed = 1; seed <= 5; seed++) {
    space s = made(seed, 10);
    int peer[HOSTS][KEPT];
    double rtt_ms[HOSTS][KEPT];
    for (int n = 0; n < KEPT; n++)
      for (int i = 0; i < HOSTS; i++) {
        peer[i][n] = (i + 1 + (int)spec_below(&s.random, HOSTS - 1)) % HOSTS;
        rtt_ms[i][n] = measured(&s, i, peer[i][n], 0.02);
        bdk_measured list[KEPT];
        for (int k = 0; k <= n; k++) list[k] = (bdk_measured){s.guess[peer[i][k]], rtt_ms[i][k]};
        bdk_coord_refine(&s.guess[i], list, (size_t)n + 1, 20, (uint64_t)i);
      }
    print_message("# a dozen measurements each: off by %.2f %%\n", 100 * off(&s));
    assert_true(off(&s) < 0.2);
  }
}

static void who_is_sure_moves_less(void **state) {
  (void)state;
  bdk_coord sure, unsure;
  bdk_coord_init(&sure);
  bdk_coord_init(&unsure);
  sure.error = 0.05;
  sure.at[0] = 10;
  bdk_coord a = sure, b = unsure;
  bdk_coord_update(&a, &unsure, 100, 1);
  bdk_coord_update(&b, &sure, 100, 1);
  assert_true(bdk_coord_distance_ms(&a, &sure) < 5);
  assert_true(bdk_coord_distance_ms(&b, &unsure) > 15);
  assert_true(b.error < unsure.error);
}

static void two_at_one_place_part(void **state) {
  (void)state;
  bdk_coord a, b;
  bdk_coord_init(&a);
  bdk_coord_init(&b);
  for (int i = 0; i < 50; i++) {
    bdk_coord_update(&a, &b, 50, 1);
    bdk_coord_update(&b, &a, 50, 2);
  }
  double d = bdk_coord_distance_ms(&a, &b);
  assert_true(d > 45 && d < 55);
  assert_true(a.at[0] != 0 && a.at[1] != 0 && a.at[2] != 0);
}

static void bounds_hold_whatever_is_measured(void **state) {
  (void)state;
  bdk_coord peer;
  bdk_coord_init(&peer);
  const double zero = 0, odd[] = {-1, 1e9, 1 / zero, -1 / zero, zero / zero};
  for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) {
    bdk_coord c, before;
    bdk_coord_init(&c);
    before = c;
    bdk_coord_update(&c, &peer, odd[i], 3);
    assert_memory_equal(&c, &before, sizeof c);
  }
  uint64_t random = 7;
  bdk_coord c;
  bdk_coord_init(&c);
  for (int i = 0; i < 20000; i++) {
    for (int k = 0; k < BDK_COORD_DIMS; k++) peer.at[k] = (unit(&random) - 0.5) * 2 * BDK_COORD_FAR_MS;
    peer.height = unit(&random) * BDK_COORD_FAR_MS;
    peer.error = unit(&random) * BDK_COORD_ERROR_MAX;
    bdk_coord_update(&c, &peer, spec_below(&random, 3) ? unit(&random) * BDK_COORD_FAR_MS : 0, random);
    uint8_t bytes[BDK_COORD_LEN];
    bdk_coord again;
    bdk_coord_write(&c, bytes);
    assert_true(bdk_coord_read(&again, bytes)); // which refuses what is out of bounds
    double d = bdk_coord_distance_ms(&c, &peer);
    assert_true(d >= 0 && d < 8 * BDK_COORD_FAR_MS && d == bdk_coord_distance_ms(&peer, &c));
  }
}

static void bytes_hold_it(void **state) {
  (void)state;
  bdk_coord c = {.at = {1.5, -20.25, 300.125}, .height = 7.007, .error = 0.1234}, d;
  uint8_t bytes[BDK_COORD_LEN], again[BDK_COORD_LEN];
  bdk_coord_write(&c, bytes);
  const uint8_t expected[BDK_COORD_LEN] = {0x00, 0x00, 0x05, 0xdc, 0xff, 0xff, 0xb0, 0xe6, 0x00,
                                           0x04, 0x94, 0x5d, 0x00, 0x00, 0x1b, 0x5f, 0x04, 0xd2};
  assert_memory_equal(bytes, expected, sizeof bytes);
  assert_true(bdk_coord_read(&d, bytes));
  bdk_coord_write(&d, again);
  assert_memory_equal(bytes, again, sizeof bytes);
  memset(again, 0x7f, sizeof again);
  assert_false(bdk_coord_read(&d, again));
  memcpy(again, bytes, sizeof again);
  again[12] = 0x80; // a height beyond the bound
  assert_false(bdk_coord_read(&d, again));
  memcpy(again, bytes, sizeof again);
  again[16] = 0xff; // an error
  assert_false(bdk_coord_read(&d, again));
}

static void roots_are_right(void **state) {
  (void)state;
  assert_true(bdk_coord_root(0) == 0);
  assert_true(bdk_coord_root(-4) == 0);
  uint64_t random = 5;
  for (int i = 0; i < 100000; i++) {
    double x = unit(&random) * 8000 + 1e-6, r = bdk_coord_root(x * x);
    double off_by = r > x ? r - x : x - r;
    assert_true(off_by <= x * 4e-16);
  }
}

// Neighbours on the curve are near in space; at one step of the grid they are neighbours there.
static void the_curve_keeps_who_is_near_together(void **state) {
  (void)state;
  enum { POINTS = 4096 };
  static struct {
    double place; // first, so that `ascending` orders by it
    bdk_coord c;
  } list[POINTS];
  uint64_t random = 11;
  for (int i = 0; i < POINTS; i++) {
    bdk_coord_init(&list[i].c);
    for (int k = 0; k < BDK_COORD_DIMS; k++) list[i].c.at[k] = (unit(&random) - 0.5) * 300;
    list[i].place = bdk_coord_curve(&list[i].c);
    assert_true(list[i].place >= 0 && list[i].place < (double)((uint64_t)1 << 51));
  }
  double strangers = 0, neighbours = 0;
  for (int i = 1; i < POINTS; i++) strangers += bdk_coord_distance_ms(&list[i - 1].c, &list[i].c);
  qsort(list, POINTS, sizeof *list, ascending);
  for (int i = 1; i < POINTS; i++) {
    assert_true(list[i - 1].place < list[i].place);
    neighbours += bdk_coord_distance_ms(&list[i - 1].c, &list[i].c);
  }
  print_message("# neighbours on the curve are %.1f ms apart, any two %.1f ms\n", neighbours / (POINTS - 1),
                strangers / (POINTS - 1));
  assert_true(neighbours < 0.15 * strangers);
  // Among the 64 nearest on the curve (32 to each side) there is one of the nearest few in space.
  int found = 0;
  for (int i = 32; i < POINTS - 32; i++) {
    double best = 1e9;
    int nearer = 0;
    for (int k = i - 32; k <= i + 32; k++)
      if (k != i && bdk_coord_distance_ms(&list[i].c, &list[k].c) < best)
        best = bdk_coord_distance_ms(&list[i].c, &list[k].c);
    for (int k = 0; k < POINTS; k++) nearer += k != i && bdk_coord_distance_ms(&list[i].c, &list[k].c) < best;
    found += nearer < 8;
  }
  print_message("# of 64 looked at, one of the 8 nearest is among them for %.0f %%\n", 100.0 * found / (POINTS - 64));
  assert_true(found > 0.9 * (POINTS - 64));
  bdk_coord far = {.at = {1e9, -1e9, 0}};
  assert_true(bdk_coord_curve(&far) >= 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(finds_a_geometric_space),
      cmocka_unit_test(finds_heights_and_bears_noise),
      cmocka_unit_test(a_dozen_measurements_are_enough),
      cmocka_unit_test(who_is_sure_moves_less),
      cmocka_unit_test(two_at_one_place_part),
      cmocka_unit_test(bounds_hold_whatever_is_measured),
      cmocka_unit_test(bytes_hold_it),
      cmocka_unit_test(roots_are_right),
      cmocka_unit_test(the_curve_keeps_who_is_near_together),
  };
  return cmocka_run_group_tests_name("core/coords", tests, NULL, NULL);
}
