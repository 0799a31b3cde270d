// SPDX-License-Identifier: MIT
// What matching by skill costs at the very least: numbers sorted, and neighbours within a window paired in one sweep.
//   sweep COUNT [ROUNDS]     numbers as bench/match.lua draws them, on stdin; prints the median time in ms, and the
//   pairs
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

typedef struct one {
  double value;
  uint64_t no;
} one;

static int compare(const void *pa, const void *pb) {
  const one *a = pa, *b = pb;
  if (a->value != b->value) return a->value < b->value ? -1 : 1;
  return (a->no > b->no) - (a->no < b->no);
}

static int by_time(const void *pa, const void *pb) {
  const double *a = pa, *b = pb;
  return (*a > *b) - (*a < *b);
}

static double now_ms(void) {
  struct timespec t;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

int main(int argc, char **argv) {
  size_t n = argc > 1 ? (size_t)atol(argv[1]) : 0, pairs = 0;
  int rounds = argc > 2 ? atoi(argv[2]) : 5;
  one *given = calloc(n ? n : 1, sizeof *given), *list = calloc(n ? n : 1, sizeof *list);
  double *ms = calloc((size_t)rounds, sizeof *ms), window = 50;
  if (!n || !given || !list || !ms) return fputs("usage: sweep COUNT [ROUNDS] <NUMBERS\n", stderr), 2;
  for (size_t i = 0; i < n; i++) {
    if (scanf("%lf", &given[i].value) != 1) return fputs("sweep: too few numbers\n", stderr), 2;
    given[i].no = i;
  }
  for (int r = 0; r < rounds; r++) {
    for (size_t i = 0; i < n; i++) list[i] = given[i];
    double begin = now_ms();
    qsort(list, n, sizeof *list, compare);
    pairs = 0;
    for (size_t i = 0; i + 1 < n;) {
      if (list[i + 1].value - list[i].value <= window) {
        pairs++;
        i += 2;
      } else {
        i++;
      }
    }
    ms[r] = now_ms() - begin;
  }
  qsort(ms, (size_t)rounds, sizeof *ms, by_time);
  printf("%.3f %zu\n", ms[rounds / 2], pairs);
  return 0;
}
