// SPDX-License-Identifier: MIT
// What an embedded node costs: its memory once registered and idle, an idle bdk_update, and a message through it.
//   embed PATH-OF-BODKIN [NODES]
#include "host/bodkin.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { NODES_MAX = 200, UPDATES = 200000, ROUNDS = 9, MESSAGES = 20000 };

static bdk_node *nodes[NODES_MAX];
static char code[64], match[BDK_ID_SIZE];
static int counts[BDK_ERROR + 1];
static uint64_t heard;

static double now_us(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static double resident_kb(void) {
  double kb = 0;
  char line[128];
  FILE *f = fopen("/proc/self/status", "r");
  while (f && fgets(line, sizeof line, f))
    if (strncmp(line, "RssAnon:", 8) == 0) kb = atof(line + 8);
  if (f) fclose(f);
  return kb;
}

static int turn(int n) {
  for (int i = 0; i < n; i++) {
    bdk_update(nodes[i], BDK_CLOCK, 0);
    for (const bdk_event *e; (e = bdk_next(nodes[i]));) {
      counts[e->kind]++;
      if (e->kind == BDK_HOSTING) snprintf(code, sizeof code, "%s", e->code);
      if (e->kind == BDK_CONNECTED) snprintf(match, sizeof match, "%s", e->match);
      if (e->kind == BDK_MESSAGE) heard++;
      if (e->kind == BDK_ERROR) fprintf(stderr, "embed: %s\n", e->message);
    }
  }
  return counts[BDK_ERROR] == 0;
}

static void await(int n, int kind, int count) {
  for (double end = now_us() + 2e7; counts[kind] < count && turn(n);)
    if (now_us() > end) exit(1);
  if (counts[BDK_ERROR]) exit(1);
}

static int by_size(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static void memory_of_idle_nodes(const bdk_config *config, int n) {
  bdk_node_stats s;
  bdk_open(&nodes[0], config); // what is loaded once a process
  await(1, BDK_REGISTERED, 1);
  double before = resident_kb();
  for (int i = 1; i < n; i++)
    if (bdk_open(&nodes[i], config) != 0) exit(1);
  await(n, BDK_REGISTERED, n);
  bdk_stats(nodes[n - 1], &s, sizeof s);
  printf("idle node: %.0f KB resident each (of %d), %.0f KB of it from its allocator (%.0f KB at most)\n",
         (resident_kb() - before) / (n - 1), n - 1, (double)s.memory / 1024, (double)s.memory_max / 1024);
}

static void cost_of_idle_updates(void) {
  double each[ROUNDS];
  for (int r = 0; r < ROUNDS; r++) {
    double begin = now_us();
    for (int i = 0; i < UPDATES / ROUNDS; i++) bdk_update(nodes[0], BDK_CLOCK, 0);
    each[r] = (now_us() - begin) * 1000 / (UPDATES / ROUNDS);
  }
  qsort(each, ROUNDS, sizeof each[0], by_size);
  printf("idle bdk_update: %.0f ns (median of %d rounds; %.0f to %.0f)\n", each[ROUNDS / 2], ROUNDS, each[0],
         each[ROUNDS - 1]);
}

static void cost_of_messages(void) {
  char data[64] = {0};
  bdk_host(nodes[0], NULL);
  await(2, BDK_HOSTING, 1);
  bdk_join(nodes[1], code);
  await(2, BDK_CONNECTED, 2);
  await(2, BDK_PATH, 2);
  double begin = now_us();
  int sent = 0;
  for (; sent < MESSAGES; turn(2))
    for (int i = 0; i < 32; i++, sent++) bdk_send(nodes[0], match, NULL, 0, data, sizeof data);
  for (double end = now_us() + 1e5; heard < (uint64_t)sent && now_us() < end;) turn(2);
  printf("message of 64 bytes, sent and received: %.1f us (%d of %d heard)\n", (now_us() - begin) / sent, (int)heard,
         sent);
}

int main(int argc, char **argv) {
  int n = argc > 2 ? atoi(argv[2]) : 50, out[2];
  char line[512], url[128];
  if (argc < 2 || n < 2 || n > NODES_MAX || pipe(out) != 0) return 2;
  pid_t server = fork();
  if (server == 0) {
    dup2(out[1], 1);
    snprintf(url, sizeof url, "/tmp/bodkin-bench-%d", (int)getpid());
    execl(argv[1], argv[1], "serve", "--listen", "127.0.0.1:0", "--admin", url, "--json", (char *)NULL);
    _exit(127);
  }
  close(out[1]);
  FILE *file = fdopen(out[0], "r");
  char *at = file && fgets(line, sizeof line, file) ? strstr(line, "bodkin://") : NULL;
  if (!at) return 1;
  snprintf(url, sizeof url, "%.*s", (int)strcspn(at, "\""), at);
  bdk_config config;
  bdk_config_init(&config, sizeof config);
  config.server = url;
  memory_of_idle_nodes(&config, n);
  cost_of_idle_updates();
  for (int i = 2; i < n; i++) bdk_close(nodes[i]);
  cost_of_messages();
  bdk_close(nodes[0]);
  bdk_close(nodes[1]);
  kill(server, SIGTERM);
  return 0;
}
