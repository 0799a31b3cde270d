// SPDX-License-Identifier: MIT
#include "signals.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

int64_t now_us(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static FILE *open_one(const char *dir, const char *of, const char *mode) {
  char path[512];
  snprintf(path, sizeof path, "%s/%s", dir, of);
  FILE *f = fopen(path, mode);
  if (!f) perror(path), exit(1);
  return f;
}

void signals_open(signals *s, int argc, char **argv) {
  if (argc != 8) {
    fprintf(stderr, "usage: %s a|b LOCAL-IP STUN-IP DIRECTORY DELAY-MS GO-US RUN-MS\n", argv[0]);
    exit(2);
  }
  *s = (signals){.go_us = strtoll(argv[6], NULL, 10), .delay_us = (int64_t)(atof(argv[5]) * 1000.0)};
  setvbuf(stdout, NULL, _IOLBF, 0);
  s->say = open_one(argv[4], argv[1], "a");
  s->hear = open_one(argv[4], strcmp(argv[1], "a") == 0 ? "b" : "a", "a+");
  rewind(s->hear);
  while (now_us() < s->go_us) nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
}

double signals_since(const signals *s) { return (double)(now_us() - s->go_us) / 1000.0; }

void signals_tell(signals *s, const char *verb, const char *text) {
  fprintf(s->say, "%lld %s %s\n", (long long)now_us(), verb, text);
  fflush(s->say);
}

void signals_hear(signals *s, void (*heard)(void *ctx, const char *verb, char *text), void *ctx) {
  for (;;) {
    if (!*s->next && !fgets(s->next, sizeof s->next, s->hear)) {
      clearerr(s->hear);
      return;
    }
    if (now_us() < strtoll(s->next, NULL, 10) + s->delay_us) return;
    s->next[strcspn(s->next, "\n")] = 0;
    char *verb = strchr(s->next, ' ') + 1, *text = strchr(verb, ' ');
    *text++ = 0;
    heard(ctx, verb, text);
    *s->next = 0;
  }
}
