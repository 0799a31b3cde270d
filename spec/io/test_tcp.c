// SPDX-License-Identifier: MIT
// Datagrams over TCP, on loopback: two of our own, and plain sockets that do what they like.
#include "loop.h"

#include "io/tcp.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

static const bdk_driver_kind *kind;

typedef struct world {
  loop l;
  bdk_counters counters;
  bdk_tcp *server, *client;
  int got, want, sizes[64], count; // of the server; what the client got
  bdk_route from, back;
  uint8_t data[BDK_DATAGRAM_MAX];
  bool echo, close_inside;
} world;

static bdk_addr addr(const char *text) {
  bdk_addr a;
  assert_int_equal(0, bdk_addr_parse(&a, text, strlen(text), 0));
  return a;
}

static void on_server(void *ctx, bdk_tcp *tcp, const bdk_packet *packets, int count) {
  world *w = ctx;
  for (int i = 0; i < count; i++) {
    if (w->got < 64) w->sizes[w->got] = (int)packets[i].len;
    w->got++;
    w->from = packets[i].route;
    memcpy(w->data, packets[i].data, packets[i].len);
    if (w->echo) bdk_tcp_send(tcp, &packets[i].route, packets[i].data, packets[i].len);
  }
  if (w->close_inside) {
    bdk_tcp_close(tcp);
    w->server = NULL;
  }
  if (w->got >= w->want) loop_stop(&w->l);
}

static void on_client(void *ctx, bdk_tcp *tcp, const bdk_packet *packets, int count) {
  (void)tcp;
  world *w = ctx;
  w->count += count;
  w->back = packets[count - 1].route;
  memcpy(w->data, packets[count - 1].data, packets[count - 1].len);
  loop_stop(&w->l);
}

// A world with a server; `change` what is else the default, or NULL.
static void open_world(world *w, const char *bind, void (*change)(bdk_tcp_config *)) {
  memset(w, 0, sizeof *w);
  loop_open(&w->l, kind);
  bdk_tcp_config c = {.driver = w->l.d, .counters = &w->counters, .bind = addr(bind), .listens = true, .number = 7};
  c.on_packets = on_server;
  c.ctx = w;
  if (change) change(&c);
  assert_int_equal(0, bdk_tcp_open(&w->server, &c));
  w->want = 1;
}

static void open_client(world *w) {
  bdk_tcp_config c = {.driver = w->l.d, .counters = &w->counters, .bind = *bdk_tcp_local(w->server), .number = 8};
  c.port = c.bind.port;
  c.bind = addr(c.bind.family == 6 ? "[::]:0" : "0.0.0.0:0");
  c.on_packets = on_client;
  c.ctx = w;
  assert_int_equal(0, bdk_tcp_open(&w->client, &c));
}

static void close_world(world *w) {
  bdk_tcp_close(w->client);
  bdk_tcp_close(w->server);
  loop_close(&w->l);
}

static uint64_t count(const world *w, bdk_counter which) { return w->counters.value[which]; }

// The server, as a client knows it: by another port than that of its TCP.
static bdk_route server_of(const world *w) {
  bdk_route r = {.remote = *bdk_tcp_local(w->server)};
  r.remote.port = 4433;
  return r;
}

static void send_text(bdk_tcp *t, bdk_route r, const char *text) {
  assert_int_equal(0, bdk_tcp_send(t, &r, (const uint8_t *)text, strlen(text)));
}

static int plain(const world *w) {
  struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(bdk_tcp_local(w->server)->port)};
  at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  assert_true(fd >= 0);
  assert_int_equal(0, connect(fd, (struct sockaddr *)&at, sizeof at));
  return fd;
}

// Whether the server has ended it; a second at most.
static bool is_ended(world *w, int fd) {
  uint8_t byte;
  for (int i = 0; i < 100; i++) {
    ssize_t n = recv(fd, &byte, 1, MSG_DONTWAIT);
    if (n == 0 || (n < 0 && errno != EAGAIN)) return true;
    loop_idle(&w->l, 10);
  }
  return false;
}

static void datagrams_go_both_ways(void **state) {
  (void)state;
  const char *binds[] = {"127.0.0.1:0", "[::1]:0"};
  for (int i = 0; i < 2; i++) {
    world w;
    open_world(&w, binds[i], NULL);
    open_client(&w);
    w.echo = true;
    send_text(w.client, server_of(&w), "hello");
    while (!w.count) loop_run(&w.l);
    assert_memory_equal("hello", w.data, 5);
    assert_int_equal(7, w.from.sock);
    assert_true(bdk_addr_same_ip(bdk_tcp_local(w.server), &w.from.local));
    assert_int_equal(bdk_tcp_local(w.server)->port, w.from.local.port);
    bdk_route r = server_of(&w); // who answers is whom it was sent to
    assert_true(bdk_addr_equal(&r.remote, &w.back.remote));
    assert_int_equal(8, w.back.sock);
    assert_int_equal(2, count(&w, BDK_COUNT_tcp_rx));
    assert_int_equal(2, count(&w, BDK_COUNT_tcp_tx));
    assert_int_equal(10, count(&w, BDK_COUNT_tcp_rx_bytes));
    assert_int_equal(10, count(&w, BDK_COUNT_tcp_tx_bytes));
    assert_int_equal(2, count(&w, BDK_COUNT_tcp_opened));
    assert_int_equal(1, bdk_tcp_count(w.server));
    close_world(&w);
  }
}

static void order_and_sizes_are_kept(void **state) {
  (void)state;
  world w;
  uint8_t data[BDK_DATAGRAM_MAX] = {0};
  open_world(&w, "127.0.0.1:0", NULL);
  open_client(&w);
  w.want = 40;
  bdk_route r = server_of(&w);
  for (int i = 0; i < 40; i++) assert_int_equal(0, bdk_tcp_send(w.client, &r, data, (size_t)(1 + i * 1199 / 39)));
  loop_run(&w.l);
  for (int i = 0; i < 40; i++) assert_int_equal(1 + i * 1199 / 39, w.sizes[i]);
  assert_int_equal(BDK_E_INVALID, bdk_tcp_send(w.client, &r, data, 0));
  assert_int_equal(BDK_E_INVALID, bdk_tcp_send(w.client, &r, data, BDK_DATAGRAM_MAX + 1));
  r.ttl = 2;
  assert_int_equal(BDK_E_INVALID, bdk_tcp_send(w.client, &r, data, 1));
  close_world(&w);
}

static void pieces_of_every_size_make_the_same_datagrams(void **state) {
  (void)state;
  uint8_t bytes[3 * (2 + 9)];
  for (int i = 0; i < 3; i++) {
    bytes[i * 11] = 0;
    bytes[i * 11 + 1] = 9;
    memset(bytes + i * 11 + 2, 'a' + i, 9);
  }
  for (size_t piece = 1; piece <= sizeof bytes; piece++) {
    world w;
    open_world(&w, "127.0.0.1:0", NULL);
    int fd = plain(&w), on = 1;
    setsockopt(fd, IPPROTO_TCP, 1 /* TCP_NODELAY */, &on, sizeof on);
    w.want = 3;
    for (size_t at = 0; at < sizeof bytes; at += piece) {
      size_t n = sizeof bytes - at < piece ? sizeof bytes - at : piece;
      assert_int_equal((int)n, (int)send(fd, bytes + at, n, 0));
      if (w.got < 3) loop_idle(&w.l, 1); // is read before the next one comes
    }
    if (w.got < 3) loop_run(&w.l);
    assert_int_equal(3, w.got);
    for (int i = 0; i < 3; i++) assert_int_equal(9, w.sizes[i]);
    assert_memory_equal("ccccccccc", w.data, 9);
    close(fd);
    close_world(&w);
  }
}

static void what_is_no_length_ends_the_connection(void **state) {
  (void)state;
  static const char *const bad[] = {"\0\0", "\x04\xb1", "\x16\x03\x01\x02\x00\x01", "GET / HTTP/1.1\r\n\r\n",
                                    "\xff\xff"};
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
    world w;
    open_world(&w, "127.0.0.1:0", NULL);
    int fd = plain(&w);
    assert_true(send(fd, bad[i], i ? strlen(bad[i]) : 2, 0) > 0);
    assert_true(is_ended(&w, fd));
    assert_int_equal(0, w.got);
    assert_int_equal(1, count(&w, BDK_COUNT_tcp_broken));
    assert_int_equal(0, bdk_tcp_count(w.server));
    close(fd);
    close_world(&w);
  }
}

static void short_of_time(bdk_tcp_config *c) {
  c->first_us = 20000;
  c->idle_us = 60000;
}

static void who_says_nothing_or_nothing_whole_is_closed(void **state) {
  (void)state;
  world w;
  open_world(&w, "127.0.0.1:0", short_of_time);
  int silent = plain(&w), half = plain(&w), half_later = plain(&w);
  assert_int_equal(4, send(half,
                           "\0\x09"
                           "ab",
                           4, 0));
  assert_int_equal(5, send(half_later, "\0\1x\0\x09", 5, 0));
  assert_true(is_ended(&w, silent));
  assert_true(is_ended(&w, half));
  assert_int_equal(1, w.got);
  assert_true(is_ended(&w, half_later));
  assert_int_equal(3, count(&w, BDK_COUNT_tcp_broken));
  assert_int_equal(0, bdk_tcp_count(w.server));
  close(silent);
  close(half);
  close(half_later);
  close_world(&w);
}

static void few(bdk_tcp_config *c) {
  c->max = 5;
  c->max_each = 3;
}

static void too_many_are_refused_and_nobody_else(void **state) {
  (void)state;
  world w;
  open_world(&w, "127.0.0.1:0", few);
  int fd[4];
  w.want = 3;
  for (int i = 0; i < 4; i++) {
    fd[i] = plain(&w);
    assert_int_equal(3, send(fd[i], "\0\1x", 3, MSG_NOSIGNAL));
    if (i == 2) loop_run(&w.l);
  }
  assert_true(is_ended(&w, fd[3]));
  assert_int_equal(3, w.got);
  assert_int_equal(1, count(&w, BDK_COUNT_tcp_refused));
  assert_int_equal(3, bdk_tcp_count(w.server));
  close(fd[0]); // its place is another's
  loop_idle(&w.l, 20);
  fd[0] = plain(&w);
  assert_int_equal(3, send(fd[0], "\0\1x", 3, 0));
  w.want = 4;
  loop_run(&w.l);
  for (int i = 0; i < 4; i++) close(fd[i]);
  close_world(&w);
}

static void a_slow_reader_loses_datagrams_and_lags_no_further(void **state) {
  (void)state;
  world w;
  uint8_t data[1000] = {0};
  open_world(&w, "127.0.0.1:0", NULL);
  int small = 4096, fd = plain(&w);
  setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
  assert_int_equal(3, send(fd, "\0\1x", 3, 0));
  loop_run(&w.l);
  int sent = 0;
  for (int i = 0; i < 20000; i++) {
    sent += bdk_tcp_send(w.server, &w.from, data, sizeof data) == 0;
    if (i % 50 == 0) loop_idle(&w.l, 0);
  }
  assert_int_equal(20000 - sent, count(&w, BDK_COUNT_tcp_tx_dropped));
  // What there is of queues: ours, what is unsent in the kernel, and the reader's own.
  assert_true(sent > 60);
  assert_true(sent < 400);
  // It is whole all the same.
  uint8_t head[2], body[1000];
  for (int i = 0; i < sent; i++) {
    size_t have = 0;
    while (have < 1002) {
      ssize_t n = have < 2 ? recv(fd, head + have, 2 - have, MSG_DONTWAIT) : recv(fd, body, 1002 - have, MSG_DONTWAIT);
      if (n > 0)
        have += (size_t)n;
      else
        loop_idle(&w.l, 1);
    }
    assert_int_equal(1000, head[0] << 8 | head[1]);
  }
  close(fd);
  close_world(&w);
}

static void little_in_all(bdk_tcp_config *c) { c->long_max = 64 * 1024; }

static void slow_readers_take_no_more_than_there_is_for_all(void **state) {
  (void)state;
  world w;
  uint8_t data[1000] = {0};
  open_world(&w, "127.0.0.1:0", little_in_all);
  int fd[4], sent[4] = {0};
  bdk_route to[4];
  for (int i = 0; i < 4; i++) {
    fd[i] = plain(&w);
    assert_int_equal(3, send(fd[i], "\0\1x", 3, 0));
    w.want = i + 1;
    loop_run(&w.l);
    to[i] = w.from;
  }
  // Before the loop sleeps nothing leaves: what is taken is what waits.
  for (int i = 0; i < 4; i++)
    for (int n = 0; n < 100; n++) sent[i] += bdk_tcp_send(w.server, &to[i], data, sizeof data) == 0;
  assert_int_equal(65, sent[0]);                         // as much as a connection may have
  for (int i = 1; i < 4; i++) assert_true(sent[i] >= 4); // and each has its first
  assert_true(sent[0] + sent[1] + sent[2] + sent[3] <= (64 + 4 * 4) * 1024 / 1002);
  loop_idle(&w.l, 50); // all of it leaves
  assert_int_equal(0, bdk_tcp_send(w.server, &to[3], data, sizeof data));
  for (int n = 0; n < 50; n++) bdk_tcp_send(w.server, &to[3], data, sizeof data);
  assert_int_equal(400 - sent[0] - sent[1] - sent[2] - sent[3], count(&w, BDK_COUNT_tcp_tx_dropped));
  for (int i = 0; i < 4; i++) close(fd[i]);
  close_world(&w);
}

static void to_whom_there_is_no_connection_nothing_goes(void **state) {
  (void)state;
  world w;
  open_world(&w, "127.0.0.1:0", NULL);
  bdk_route r = {.remote = addr("127.0.0.1:9")};
  send_text(w.server, r, "x");
  assert_int_equal(1, count(&w, BDK_COUNT_tcp_tx_dropped));
  assert_int_equal(0, count(&w, BDK_COUNT_tcp_tx));
  close_world(&w);
}

static void where_nobody_listens_is_not_asked_at_each_datagram(void **state) {
  (void)state;
  world w;
  open_world(&w, "127.0.0.1:0", NULL);
  open_client(&w);
  bdk_route r = server_of(&w);
  bdk_tcp_close(w.server);
  w.server = NULL;
  for (int i = 0; i < 20; i++) {
    send_text(w.client, r, "x");
    loop_idle(&w.l, 2);
  }
  assert_int_equal(1, count(&w, BDK_COUNT_tcp_failed));
  assert_true(count(&w, BDK_COUNT_tcp_tx_dropped) >= 18);
  close_world(&w);
}

static void a_connection_that_ended_is_made_again(void **state) {
  (void)state;
  world w;
  open_world(&w, "127.0.0.1:0", short_of_time); // the server's
  open_client(&w);
  send_text(w.client, server_of(&w), "one");
  loop_run(&w.l);
  bdk_addr first = w.from.remote;
  while (bdk_tcp_count(w.server)) loop_idle(&w.l, 20);
  w.want = 2;
  for (int i = 0; i < 100 && w.got < 2; i++) {
    send_text(w.client, server_of(&w), "two");
    loop_idle(&w.l, 20);
  }
  assert_true(w.got >= 2);
  assert_int_not_equal(first.port, w.from.remote.port);
  close_world(&w);
}

static void closing_inside_is_allowed(void **state) {
  (void)state;
  world w;
  open_world(&w, "127.0.0.1:0", NULL);
  open_client(&w);
  w.close_inside = true;
  bdk_route r = server_of(&w);
  for (int i = 0; i < 3; i++) send_text(w.client, r, "x");
  loop_run(&w.l);
  assert_int_equal(1, w.got);
  close_world(&w);
}

static void without_descriptors_it_waits_and_goes_on(void **state) {
  (void)state;
  world w;
  struct rlimit before, none;
  open_world(&w, "127.0.0.1:0", NULL);
  int fd = plain(&w);
  assert_int_equal(3, send(fd, "\0\1x", 3, 0));
  assert_int_equal(0, getrlimit(RLIMIT_NOFILE, &before));
  none = before;
  none.rlim_cur = (rlim_t)fd + 1;
  assert_int_equal(0, setrlimit(RLIMIT_NOFILE, &none));
  loop_idle(&w.l, 30);
  assert_int_equal(0, setrlimit(RLIMIT_NOFILE, &before));
  assert_int_equal(0, w.got);
  assert_int_equal(1, count(&w, BDK_COUNT_tcp_accept_failed)); // no busy loop
  loop_run(&w.l);
  assert_int_equal(1, w.got);
  close(fd);
  close_world(&w);
}

static void an_address_in_use_is_refused(void **state) {
  (void)state;
  world w;
  bdk_tcp *other;
  open_world(&w, "127.0.0.1:0", NULL);
  bdk_tcp_config c = {.driver = w.l.d, .bind = *bdk_tcp_local(w.server), .listens = true};
  assert_int_equal(-EADDRINUSE, bdk_tcp_open(&other, &c));
  c.listens = false;
  assert_int_equal(BDK_E_INVALID, bdk_tcp_open(&other, &c));
  close_world(&w);
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

int main(void) {
  const struct CMUnitTest tests[] = {
      TEST(datagrams_go_both_ways),
      TEST(order_and_sizes_are_kept),
      TEST(pieces_of_every_size_make_the_same_datagrams),
      TEST(what_is_no_length_ends_the_connection),
      TEST(who_says_nothing_or_nothing_whole_is_closed),
      TEST(too_many_are_refused_and_nobody_else),
      TEST(a_slow_reader_loses_datagrams_and_lags_no_further),
      TEST(slow_readers_take_no_more_than_there_is_for_all),
      TEST(to_whom_there_is_no_connection_nothing_goes),
      TEST(where_nobody_listens_is_not_asked_at_each_datagram),
      TEST(a_connection_that_ended_is_made_again),
      TEST(closing_inside_is_allowed),
      TEST(without_descriptors_it_waits_and_goes_on),
      TEST(an_address_in_use_is_refused),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
