// SPDX-License-Identifier: MIT
// Embedded nodes against a real server, the binary beside this spec, on loopback. Nothing sleeps: nodes are polled,
// with a guard of ten seconds.
#ifndef SPEC_HOST_WORLD_H
#define SPEC_HOST_WORLD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "host/bodkin.h"

typedef struct peer {
  bdk_node *node;
  char id[BDK_ID_SIZE], code[64], match[BDK_ID_SIZE], other[BDK_ID_SIZE], reason[32], text[64], ticket[BDK_ID_SIZE];
  int seen[BDK_HOST + 1]; // how many of each kind
  int error;
  size_t len;        // of the last message
  uint64_t clock_us; // added to the machine's, for a clock of its own
  const uint8_t *seed;
  bool asks;
  uint32_t players;
} peer;

static char server_url[160];
static pid_t server_pid;

static uint64_t world_now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000u + (uint64_t)t.tv_nsec / 1000u;
}

// bodkin of the same variant: BUILD/asan/spec/host/test_x -> BUILD/asan/bodkin
static int world_start(void **state) {
  (void)state;
  char path[512] = {0}, line[512], admin[64];
  int out[2];
  assert_true(readlink("/proc/self/exe", path, sizeof path - 16) > 0);
  for (int i = 0; i < 3; i++) *strrchr(path, '/') = 0;
  strcat(path, "/bodkin");
  snprintf(admin, sizeof admin, "/tmp/bodkin-spec-%d", (int)getpid());
  assert_int_equal(0, pipe(out));
  server_pid = fork();
  if (server_pid == 0) {
    dup2(out[1], 1);
    close(out[0]);
    execl(path, path, "serve", "--listen", "127.0.0.1:0", "--admin", admin, "--policy", "ask=spec/host/ask.lua",
          "--json", (char *)NULL);
    _exit(127);
  }
  close(out[1]);
  FILE *file = fdopen(out[0], "r");
  assert_non_null(fgets(line, sizeof line, file));
  const char *at = strstr(line, "bodkin://");
  assert_non_null(at);
  snprintf(server_url, sizeof server_url, "%.*s", (int)strcspn(at, "\""), at);
  return 0; // the pipe stays open: the server writes to it
}

static int world_stop(void **state) {
  (void)state;
  kill(server_pid, SIGTERM);
  waitpid(server_pid, NULL, 0);
  return 0;
}

static inline void copy_text(char *to, size_t size, const char *from) { snprintf(to, size, "%s", from ? from : ""); }

static inline void peer_take(peer *p, const bdk_event *e) {
  assert_in_range(e->kind, BDK_REGISTERED, BDK_HOST);
  p->seen[e->kind]++;
  if (e->match) copy_text(p->match, sizeof p->match, e->match);
  if (e->kind == BDK_REGISTERED) copy_text(p->id, sizeof p->id, e->id);
  if (e->kind == BDK_HOSTING) copy_text(p->code, sizeof p->code, e->code);
  if (e->kind == BDK_QUEUED) copy_text(p->ticket, sizeof p->ticket, e->ticket);
  if (e->kind == BDK_PROPOSED) p->players = e->players;
  if (e->kind == BDK_CONNECTED) copy_text(p->other, sizeof p->other, e->peer);
  if (e->kind == BDK_CLOSED || e->kind == BDK_QUEUED) copy_text(p->reason, sizeof p->reason, e->reason);
  if (e->kind == BDK_ERROR) {
    p->error = e->error;
    copy_text(p->text, sizeof p->text, e->message);
  }
  if (e->kind == BDK_MESSAGE) {
    p->len = e->len;
    if (e->len < sizeof p->text) {
      memcpy(p->text, e->data, e->len);
      p->text[e->len] = 0;
    }
  }
}

static inline uint64_t peer_now(const peer *p) { return p->clock_us ? world_now() + p->clock_us : BDK_CLOCK; }

// Updates all until `count` peers have seen `kind` at least `times` times.
static inline void world_await(peer *peers, int n, int kind, int times, int count) {
  uint64_t guard_us = world_now() + 10000000;
  struct pollfd *fds = calloc((size_t)n, sizeof *fds);
  for (int done = 0; done < count;) {
    if (world_now() > guard_us) fail_msg("event %d did not come (%d of %d)", kind, done, count);
    for (int i = 0; i < n; i++) {
      fds[i] = (struct pollfd){.fd = bdk_fd(peers[i].node), .events = POLLIN};
      assert_int_equal(0, bdk_update(peers[i].node, peer_now(&peers[i]), 0));
      for (const bdk_event *e; (e = bdk_next(peers[i].node));) peer_take(&peers[i], e);
    }
    done = 0;
    for (int i = 0; i < n; i++) done += peers[i].seen[kind] >= times;
    if (done < count) poll(fds, (nfds_t)n, 1000);
  }
  free(fds);
}

// For specs of failure: its sentence, kept.
static char logged[256];

static void keep_log(void *ctx, int level, const char *text) {
  (void)ctx;
  (void)level;
  copy_text(logged, sizeof logged, text);
}

static inline bdk_config world_config(void) {
  bdk_config c;
  bdk_config_init(&c, sizeof c);
  c.server = server_url;
  c.bind = "127.0.0.1:0";
  c.app = "spec/1";
  c.log = keep_log;
  c.log_level = BDK_LOG_WARN;
  return c;
}

static inline void peer_open(peer *p) {
  bdk_config c = world_config();
  c.seed = p->seed;
  c.ask_to_accept = p->asks;
  assert_int_equal(0, bdk_open(&p->node, &c));
}

// `n` is even: peers 0 and 1, 2 and 3 … are connected with each other.
static inline void world_pairs(peer *peers, int n) {
  for (int i = 0; i < n; i++) peer_open(&peers[i]);
  for (int i = 0; i < n; i += 2) assert_int_equal(0, bdk_host(peers[i].node, NULL));
  world_await(peers, n, BDK_HOSTING, 1, n / 2);
  for (int i = 0; i < n; i += 2) assert_int_equal(0, bdk_join(peers[i + 1].node, peers[i].code));
  world_await(peers, n, BDK_CONNECTED, 1, n);
}

static inline void world_close(peer *peers, int n) {
  for (int i = 0; i < n; i++) bdk_close(peers[i].node);
}

#endif
