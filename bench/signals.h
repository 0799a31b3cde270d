// SPDX-License-Identifier: MIT
// What the two sides of a connection by another library tell each other, for nice.c and juice.c: through files, and as
// late as the way through a server would make it.
#ifndef BENCH_SIGNALS_H
#define BENCH_SIGNALS_H

#include <stdint.h>
#include <stdio.h>

typedef struct signals {
  int64_t go_us, delay_us;
  FILE *say, *hear; // what goes to the other side, and what comes from it: "TIME-US VERB TEXT" lines
  char next[512];   // a line that came, but is not due yet
} signals;

int64_t now_us(void); // the monotonic clock
// What both programs are called with: a|b LOCAL-IP STUN-IP DIRECTORY DELAY-MS GO-US RUN-MS. Waits until GO-US; ends the
// program where they are others.
void signals_open(signals *s, int argc, char **argv);
double signals_since(const signals *s); // ms since GO-US
void signals_tell(signals *s, const char *verb, const char *text);
// Calls heard(ctx, verb, text) with each line that is due.
void signals_hear(signals *s, void (*heard)(void *ctx, const char *verb, char *text), void *ctx);

#endif
