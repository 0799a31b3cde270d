// SPDX-License-Identifier: MIT
// Two nodes in one program: one opens a room, the other joins it, and they say hello to each other.
//   cc embed.c $(pkg-config --cflags --libs bodkin) -o embed && ./embed URL
#include <bodkin.h>
#include <poll.h>
#include <stdio.h>

static bdk_node *nodes[2];
static int heard;

static void on_event(int i, const bdk_event *e) {
  if (e->kind == BDK_HOSTING) bdk_join(nodes[1 - i], e->code);
  if (e->kind == BDK_CONNECTED) {
    printf("%d: connected (%s) after %.1f ms\n", i, e->path, e->first_ms);
    bdk_send(nodes[i], e->match, e->peer, 0, "hello", 5);
  }
  if (e->kind == BDK_MESSAGE) heard |= 1 << i, printf("%d: heard %.*s\n", i, (int)e->len, (const char *)e->data);
  if (e->kind == BDK_ERROR) printf("%d: %s (%s)\n", i, e->message, e->hint ? e->hint : e->code);
}

int main(int argc, char **argv) {
  bdk_config config;
  struct pollfd fds[2];
  bdk_config_init(&config, sizeof config);
  config.server = argc > 1 ? argv[1] : NULL;
  for (int i = 0; i < 2; i++) {
    if (bdk_open(&nodes[i], &config) != 0) return 1;
    fds[i] = (struct pollfd){.fd = bdk_fd(nodes[i]), .events = POLLIN};
  }
  bdk_host(nodes[0], NULL);
  while (heard != 3 && poll(fds, 2, 10000) > 0) {
    for (int i = 0; i < 2; i++) {
      bdk_update(nodes[i], BDK_CLOCK, 0);
      for (const bdk_event *e; (e = bdk_next(nodes[i]));) on_event(i, e);
    }
  }
  for (int i = 0; i < 2; i++) bdk_close(nodes[i]);
  return heard == 3 ? 0 : 1;
}
