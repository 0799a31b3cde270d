// SPDX-License-Identifier: MIT
// What the specs of UDP sockets share: two of them on loopback, and a kernel that fails when it is told to.
#ifndef SPEC_IO_UDP_H
#define SPEC_IO_UDP_H

#include "loop.h"

#include "io/udp.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

// What loopback never does, the kernel is made to do here: these stand in for the C library's.
static struct {
  int error, times; // the next `times` calls fail with `error`
  unsigned limit;   // not 0: what one call before them takes at most
} tx_fault, rx_fault;
static int tx_messages; // that the kernel took

int sendmmsg(int fd, struct mmsghdr *msg, unsigned count, int flags) {
  if (tx_fault.limit > 0) {
    count = count < tx_fault.limit ? count : tx_fault.limit;
    tx_fault.limit = 0;
  } else if (tx_fault.times > 0) {
    tx_fault.times--;
    errno = tx_fault.error;
    return -1;
  }
  int n = (int)syscall(SYS_sendmmsg, fd, msg, count, flags);
  if (n > 0) tx_messages += n;
  return n;
}

int recvmmsg(int fd, struct mmsghdr *msg, unsigned count, int flags, struct timespec *timeout) {
  if (rx_fault.times > 0) {
    rx_fault.times--;
    errno = rx_fault.error;
    return -1;
  }
  return (int)syscall(SYS_recvmmsg, fd, msg, count, flags, timeout);
}

static int turns; // of any loop
static const bdk_driver_kind *kind;

// Visible, since it is libev, a shared library, that calls it.
__attribute__((visibility("default"))) int epoll_wait(int fd, struct epoll_event *events, int max, int timeout_ms) {
  turns++;
  return (int)syscall(SYS_epoll_wait, fd, events, max, timeout_ms);
}

typedef struct world {
  loop l;
  bdk_counters counters;
  bdk_udp *a, *b; // b listens, a sends
  int got, batches, want, largest_batch;
  bdk_packet last;
  uint8_t data[BDK_UDP_LEN_MAX];
  bool close_inside, keep;
  struct {
    size_t len;
    uint16_t sock;
    uint8_t first, last;
  } kept[32]; // while `keep`
  int unreachable, unreachable_error;
  bdk_addr unreachable_remote;
} world;

static bdk_addr addr(const char *text) {
  bdk_addr a;
  assert_int_equal(0, bdk_addr_parse(&a, text, strlen(text), 0));
  return a;
}

static void on_packets(void *ctx, bdk_udp *udp, const bdk_packet *packets, int count) {
  world *w = ctx;
  w->batches++;
  if (count > w->largest_batch) w->largest_batch = count;
  for (int i = 0; w->keep && i < count; i++) {
    const bdk_packet *p = &packets[i];
    assert_true(w->got + i < 32);
    w->kept[w->got + i].len = p->len;
    w->kept[w->got + i].sock = p->route.sock;
    w->kept[w->got + i].first = p->len ? p->data[0] : 0;
    w->kept[w->got + i].last = p->len ? p->data[p->len - 1] : 0;
  }
  w->got += count;
  w->last = packets[count - 1];
  memcpy(w->data, w->last.data, w->last.len);
  if (w->close_inside) {
    bdk_udp_close(udp);
    w->b = NULL;
  }
  if (w->got >= w->want) loop_stop(&w->l);
}

static void on_unreachable(void *ctx, bdk_udp *udp, const bdk_addr *remote, int error) {
  world *w = ctx;
  w->unreachable++;
  w->unreachable_error = error;
  w->unreachable_remote = *remote;
  if (w->close_inside) {
    bdk_udp_close(udp);
    w->a = NULL;
    loop_stop(&w->l);
  }
}

static bdk_udp *open_udp(world *w, const char *bind, uint16_t number) {
  bdk_udp_config c = {.driver = w->l.d, .counters = &w->counters, .bind = addr(bind), .number = number};
  c.on_packets = on_packets;
  c.on_unreachable = on_unreachable;
  c.ctx = w;
  bdk_udp *u;
  assert_int_equal(0, bdk_udp_open(&u, &c));
  return u;
}

static void open_world(world *w, const char *bind_a, const char *bind_b) {
  memset(w, 0, sizeof *w);
  loop_open(&w->l, kind);
  w->a = open_udp(w, bind_a, 1);
  w->b = open_udp(w, bind_b, 2);
  w->want = 1;
}

static void close_world(world *w) {
  bdk_udp_close(w->a);
  bdk_udp_close(w->b);
  assert_null(w->l.d->udp_rx);
  loop_close(&w->l);
}

static bdk_route to(const bdk_udp *u, const char *ip) {
  bdk_addr a = addr(ip);
  a.port = bdk_udp_local(u)->port;
  return (bdk_route){.remote = a};
}

static void send_text(bdk_udp *u, bdk_route r, const char *text) {
  assert_int_equal(0, bdk_udp_send(u, &r, (const uint8_t *)text, strlen(text)));
}

static int on_ev(void **state) {
  (void)state;
  kind = &loop_ev;
  return 0;
}

static int on_poll(void **state) {
  (void)state;
  kind = &loop_poll;
  return 0;
}

#define TEST(name) cmocka_unit_test_setup(name, on_ev), cmocka_unit_test_setup(name, on_poll)

#endif
