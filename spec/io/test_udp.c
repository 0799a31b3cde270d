// SPDX-License-Identifier: MIT
// UDP sockets on loopback.
#include "udp.h"

#include <pthread.h>

static void a_datagram_arrives_with_its_route(void **state) {
  (void)state;
  world w;
  open_world(&w, "127.0.0.1:0", "127.0.0.1:0");
  assert_int_not_equal(0, bdk_udp_local(w.a)->port);
  send_text(w.a, to(w.b, "127.0.0.1"), "hello");
  loop_run(&w.l);
  assert_int_equal(5, w.last.len);
  assert_memory_equal("hello", w.data, 5);
  assert_true(bdk_addr_equal(bdk_udp_local(w.a), &w.last.route.remote));
  assert_true(bdk_addr_equal(bdk_udp_local(w.b), &w.last.route.local));
  assert_int_equal(2, w.last.route.sock);
  assert_int_equal(1, w.counters.value[BDK_COUNT_udp_tx]);
  assert_int_equal(1, w.counters.value[BDK_COUNT_udp_rx]);
  assert_int_equal(5, w.counters.value[BDK_COUNT_udp_tx_bytes]);
  assert_int_equal(5, w.counters.value[BDK_COUNT_udp_rx_bytes]);
  close_world(&w);
}

static void batches_carry_what_was_sent_in_one_turn(void **state) {
  (void)state;
  world w;
  open_world(&w, "127.0.0.1:0", "127.0.0.1:0");
  w.want = 150;
  for (int i = 0; i < 150; i++) {
    bdk_route r = to(w.b, "127.0.0.1");
    uint8_t data[BDK_DATAGRAM_MAX];
    memset(data, i, sizeof data);
    assert_int_equal(0, bdk_udp_send(w.a, &r, data, (size_t)(i * 8)));
  }
  loop_run(&w.l);
  assert_int_equal(150, w.got);
  assert_int_equal(64, w.largest_batch);
  assert_int_equal(3, w.batches);
  assert_int_equal(149 * 8, w.last.len);
  for (int i = 0; i < 149 * 8; i++) assert_int_equal(149, w.data[i]);
  close_world(&w);
}

static void the_address_a_packet_came_to_is_told_and_answers_leave_from_it(void **state) {
  (void)state;
  world w;
  open_world(&w, "127.0.0.1:0", "0.0.0.0:0");
  bdk_addr any = *bdk_udp_local(w.b);
  assert_int_equal(BDK_ADDR_NONE, bdk_addr_classify(&any));
  send_text(w.a, to(w.b, "127.0.0.2"), "who");
  loop_run(&w.l);
  bdk_addr second = addr("127.0.0.2");
  assert_true(bdk_addr_same_ip(&second, &w.last.route.local));
  assert_int_equal(any.port, w.last.route.local.port);

  bdk_route back = w.last.route;
  send_text(w.b, back, "me");
  loop_run(&w.l);
  assert_int_equal(1, w.last.route.sock);
  assert_true(bdk_addr_same_ip(&second, &w.last.route.remote));

  back.local = addr("127.0.0.3"); // another source than the kernel would choose
  send_text(w.b, back, "me");
  loop_run(&w.l);
  assert_true(bdk_addr_same_ip(&back.local, &w.last.route.remote));
  close_world(&w);
}

static void ipv6_likewise(void **state) {
  (void)state;
  world w;
  open_world(&w, "[::1]:0", "[::]:0");
  send_text(w.a, to(w.b, "::1"), "who");
  loop_run(&w.l);
  bdk_addr one = addr("::1");
  assert_true(bdk_addr_same_ip(&one, &w.last.route.local));
  assert_true(bdk_addr_equal(bdk_udp_local(w.a), &w.last.route.remote));
  w.last.route.ttl = 3;
  send_text(w.b, w.last.route, "me");
  loop_run(&w.l);
  assert_int_equal(1, w.last.route.sock);
  assert_int_equal(bdk_udp_local(w.b)->port, w.last.route.remote.port);
  close_world(&w);
}

// A plain socket that is told each packet's TTL or hop limit.
static int open_ttl_socket(int family, bdk_addr *out) {
  int on = 1, fd = socket(family, SOCK_DGRAM, 0);
  struct timeval limit = {.tv_sec = 2};
  assert_true(fd >= 0);
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  struct sockaddr_in6 at = {0};
  socklen_t len = sizeof at;
  if (family == AF_INET) {
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    assert_int_equal(0, setsockopt(fd, IPPROTO_IP, IP_RECVTTL, &on, sizeof on));
    assert_int_equal(0, bind(fd, (struct sockaddr *)&v4, sizeof v4));
    len = sizeof v4;
    assert_int_equal(0, getsockname(fd, (struct sockaddr *)&v4, &len));
    *out = addr("127.0.0.1");
    out->port = ntohs(v4.sin_port);
  } else {
    at.sin6_family = AF_INET6;
    at.sin6_addr = in6addr_loopback;
    assert_int_equal(0, setsockopt(fd, IPPROTO_IPV6, IPV6_RECVHOPLIMIT, &on, sizeof on));
    assert_int_equal(0, bind(fd, (struct sockaddr *)&at, sizeof at));
    assert_int_equal(0, getsockname(fd, (struct sockaddr *)&at, &len));
    *out = addr("::1");
    out->port = ntohs(at.sin6_port);
  }
  return fd;
}

static int read_ttl(int fd) {
  char byte;
  _Alignas(struct cmsghdr) char control[64];
  struct iovec iov = {&byte, 1};
  struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
  assert_int_equal(1, recvmsg(fd, &m, 0));
  int ttl = -1;
  struct cmsghdr *h = CMSG_FIRSTHDR(&m);
  assert_non_null(h);
  memcpy(&ttl, CMSG_DATA(h), sizeof ttl);
  return ttl;
}

static void each_packet_has_its_own_ttl(void **state) {
  (void)state;
  world w;
  for (int v6 = 0; v6 < 2; v6++) {
    open_world(&w, v6 ? "[::]:0" : "0.0.0.0:0", v6 ? "[::1]:0" : "127.0.0.1:0");
    bdk_route r = {0};
    int fd = open_ttl_socket(v6 ? AF_INET6 : AF_INET, &r.remote);
    r.ttl = 7;
    send_text(w.a, r, "x");
    r.ttl = 0;
    send_text(w.a, r, "x");
    r.ttl = 2;
    r.local = addr(v6 ? "::1" : "127.0.0.5");
    send_text(w.a, r, "x");
    bdk_udp_flush(w.a);
    assert_int_equal(7, read_ttl(fd));
    assert_true(read_ttl(fd) > 7); // the system's default
    assert_int_equal(2, read_ttl(fd));
    close(fd);
    close_world(&w);
  }
}

static void icmp_errors_do_not_end_it(void **state) {
  (void)state;
  world w;
  open_world(&w, "127.0.0.1:0", "127.0.0.1:0");
  bdk_route closed = to(w.b, "127.0.0.1");
  bdk_udp *gone = open_udp(&w, "127.0.0.1:0", 3);
  closed.remote.port = bdk_udp_local(gone)->port;
  bdk_udp_close(gone);
  for (int i = 0; i < 3; i++) {
    send_text(w.a, closed, "anybody?");
    loop_idle(&w.l, 1);
  }
  send_text(w.b, to(w.a, "127.0.0.1"), "still here");
  loop_run(&w.l);
  assert_int_equal(1, w.last.route.sock);
  send_text(w.a, to(w.b, "127.0.0.1"), "me too");
  loop_run(&w.l);
  assert_int_equal(2, w.last.route.sock);
  assert_int_equal(0, w.unreachable);
  close_world(&w);
}

static void too_long_datagrams_are_dropped_and_counted(void **state) {
  (void)state;
  world w;
  open_world(&w, "127.0.0.1:0", "127.0.0.1:0");
  int fd = socket(AF_INET, SOCK_DGRAM, 0);
  struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  at.sin_port = htons(bdk_udp_local(w.b)->port);
  static char bytes[4000];
  int sizes[] = {1201, 4000, 1200, 0};
  w.want = 2;
  for (int i = 0; i < 4; i++)
    assert_int_equal(sizes[i], sendto(fd, bytes, (size_t)sizes[i], 0, (struct sockaddr *)&at, sizeof at));
  loop_run(&w.l);
  assert_int_equal(2, w.got);
  assert_int_equal(0, w.last.len);
  assert_int_equal(4, w.counters.value[BDK_COUNT_udp_rx]);
  assert_int_equal(2, w.counters.value[BDK_COUNT_udp_rx_truncated]);
  uint8_t long_one[BDK_DATAGRAM_MAX + 1] = {0};
  bdk_route r = to(w.b, "127.0.0.1");
  assert_int_equal(BDK_E_INVALID, bdk_udp_send(w.a, &r, long_one, sizeof long_one));
  r.remote = addr("[::1]:9");
  assert_int_equal(BDK_E_INVALID, bdk_udp_send(w.a, &r, long_one, 1));
  close(fd);
  close_world(&w);
}

static void one_socket_may_take_longer_ones_than_another(void **state) {
  (void)state;
  world w;
  open_world(&w, "127.0.0.1:0", "127.0.0.1:0");
  bdk_udp_close(w.a);
  bdk_udp_config c = {.driver = w.l.d, .counters = &w.counters, .bind = addr("127.0.0.1:0")};
  c.max_len = BDK_UDP_LEN_MAX;
  c.on_packets = on_packets;
  c.ctx = &w;
  assert_int_equal(0, bdk_udp_open(&w.a, &c));
  static uint8_t bytes[BDK_UDP_LEN_MAX + 1];
  bdk_route to_a = to(w.a, "127.0.0.1"), to_b = to(w.b, "127.0.0.1");
  assert_int_equal(BDK_E_INVALID, bdk_udp_send(w.a, &to_a, bytes, sizeof bytes));
  assert_int_equal(0, bdk_udp_send(w.a, &to_b, bytes, BDK_DATAGRAM_MAX + 1)); // more than that one takes
  assert_int_equal(0, bdk_udp_send(w.a, &to_a, bytes, BDK_UDP_LEN_MAX));
  assert_int_equal(0, bdk_udp_send(w.a, &to_b, bytes, BDK_DATAGRAM_MAX));
  w.want = 2;
  loop_run(&w.l);
  assert_int_equal(2, w.got);
  assert_int_equal(3, w.counters.value[BDK_COUNT_udp_rx]);
  assert_int_equal(1, w.counters.value[BDK_COUNT_udp_rx_truncated]);
  bdk_udp *none;
  c.max_len = BDK_UDP_LEN_MAX + 1;
  assert_int_equal(BDK_E_INVALID, bdk_udp_open(&none, &c));
  close_world(&w);
}

static void it_may_be_closed_in_its_callback(void **state) {
  (void)state;
  world w;
  open_world(&w, "127.0.0.1:0", "127.0.0.1:0");
  w.close_inside = true;
  for (int i = 0; i < 130; i++) send_text(w.a, to(w.b, "127.0.0.1"), "x");
  loop_run(&w.l);
  assert_null(w.b);
  assert_int_equal(1, w.batches);
  w.close_inside = false;
  close_world(&w);
}

static void an_unreachable_destination_is_told_and_the_rest_goes_on(void **state) {
  (void)state;
  world w;
  open_world(&w, "127.0.0.1:0", "127.0.0.1:0"); // bound to loopback: nothing else can be reached from it
  bdk_route far = {.remote = addr("192.0.2.1:9")};
  send_text(w.a, to(w.b, "127.0.0.1"), "before");
  send_text(w.a, far, "nowhere");
  send_text(w.a, to(w.b, "127.0.0.1"), "after");
  bdk_udp_flush(w.a);
  assert_int_equal(0, w.unreachable); // never from inside a call of the owner's
  w.want = 2;
  loop_run(&w.l);
  assert_int_equal(2, w.got);
  assert_memory_equal("after", w.data, 5);
  assert_int_equal(1, w.unreachable);
  assert_int_not_equal(0, w.unreachable_error);
  assert_true(bdk_addr_equal(&far.remote, &w.unreachable_remote));
  assert_int_equal(1, w.counters.value[BDK_COUNT_udp_tx_unreachable]);

  w.close_inside = true; // in on_unreachable, with another such report waiting
  send_text(w.a, far, "nowhere");
  send_text(w.a, far, "nowhere");
  loop_run(&w.l);
  assert_int_equal(2, w.unreachable);
  assert_null(w.a);
  w.close_inside = false;
  close_world(&w);
}

static void a_full_socket_is_waited_for(void **state) {
  (void)state;
  world w;
  open_world(&w, "127.0.0.1:0", "127.0.0.1:0");
  tx_fault.error = EAGAIN;
  tx_fault.times = 2;
  w.want = 3;
  for (int i = 0; i < 3; i++) send_text(w.a, to(w.b, "127.0.0.1"), i == 2 ? "last" : "x");
  loop_run(&w.l);
  assert_int_equal(0, tx_fault.times);
  assert_memory_equal("last", w.data, 4);
  assert_int_equal(2, w.counters.value[BDK_COUNT_udp_tx_again]);
  assert_int_equal(3, w.counters.value[BDK_COUNT_udp_tx]);
  // Not watched for writing any more: that would be a busy loop.
  turns = 0;
  loop_idle(&w.l, 10);
  assert_in_range(turns, 1, 5);
  close_world(&w);
}

static void a_full_queue_drops_and_counts(void **state) {
  (void)state;
  world w;
  open_world(&w, "127.0.0.1:0", "127.0.0.1:0");
  tx_fault.error = EAGAIN;
  tx_fault.times = 1;
  w.want = BDK_UDP_BATCH;
  bdk_route r = to(w.b, "127.0.0.1");
  uint8_t data[BDK_DATAGRAM_MAX] = {0};
  for (int i = 0; i < BDK_UDP_BATCH; i++) assert_int_equal(0, bdk_udp_send(w.a, &r, data, sizeof data));
  for (int i = 0; i < 5; i++) assert_int_equal(BDK_E_LIMIT, bdk_udp_send(w.a, &r, data, sizeof data));
  assert_int_equal(5, w.counters.value[BDK_COUNT_udp_tx_dropped]);
  loop_run(&w.l);
  assert_int_equal(BDK_UDP_BATCH, w.got);
  assert_int_equal(BDK_UDP_BATCH, w.counters.value[BDK_COUNT_udp_tx]);
  close_world(&w);
}

static void queue_numbered(world *w, int from, int to_number) {
  uint8_t data[BDK_UDP_LEN_MAX];
  for (int i = from; i < to_number; i++) {
    bdk_route r = to(w->b, "127.0.0.1");
    memset(data, i, sizeof data);
    assert_int_equal(0, bdk_udp_send(w->a, &r, data, (size_t)(10 + i * 3)));
  }
}

static void on_numbered(void *ctx, bdk_udp *udp, const bdk_packet *packets, int count) {
  world *w = ctx;
  (void)udp;
  for (int i = 0; i < count; i++, w->got++) {
    assert_int_equal(10 + w->got * 3, packets[i].len);
    for (size_t k = 0; k < packets[i].len; k++) assert_int_equal(w->got, packets[i].data[k]);
  }
  if (w->got >= w->want) loop_stop(&w->l);
}

static void what_is_queued_behind_a_partial_batch_keeps_its_order(void **state) {
  (void)state;
  world w;
  open_world(&w, "127.0.0.1:0", "127.0.0.1:0");
  bdk_udp_close(w.b);
  bdk_udp_config c = {.driver = w.l.d, .bind = addr("127.0.0.1:0"), .on_packets = on_numbered, .ctx = &w};
  assert_int_equal(0, bdk_udp_open(&w.b, &c));
  w.want = 60;
  queue_numbered(&w, 0, 20);
  tx_fault.limit = 7;
  tx_fault.error = EAGAIN;
  tx_fault.times = 1;
  bdk_udp_flush(w.a);
  assert_int_equal(7, w.counters.value[BDK_COUNT_udp_tx]);
  queue_numbered(&w, 20, 60);
  loop_run(&w.l);
  assert_int_equal(60, w.counters.value[BDK_COUNT_udp_tx]);
  close_world(&w);
}

static void a_kernel_without_buffers_is_tried_again(void **state) {
  (void)state;
  world w;
  open_world(&w, "127.0.0.1:0", "127.0.0.1:0");
  tx_fault.error = ENOBUFS;
  tx_fault.times = 3;
  send_text(w.a, to(w.b, "127.0.0.1"), "x");
  loop_run(&w.l);
  assert_int_equal(3, w.counters.value[BDK_COUNT_udp_tx_nobufs]);
  assert_int_equal(1, w.counters.value[BDK_COUNT_udp_tx]);
  assert_int_equal(0, w.unreachable);
  close_world(&w);
}

// What is always writable, and always refuses; and what lies in the socket and cannot be read.
static void what_keeps_failing_is_tried_less_and_less(void **state) {
  (void)state;
  static const int tx_errors[] = {EAGAIN, ENOBUFS, EINTR}, rx_errors[] = {ENOMEM, ECONNREFUSED, EINTR};
  for (int i = 0; i < 3; i++) {
    world w;
    open_world(&w, "127.0.0.1:0", "127.0.0.1:0");
    tx_fault.error = tx_errors[i];
    tx_fault.times = 1000000;
    send_text(w.a, to(w.b, "127.0.0.1"), "x");
    turns = 0;
    loop_idle(&w.l, 100);
    assert_in_range(turns, 5, 25);
    tx_fault.times = 0;
    rx_fault.error = rx_errors[i];
    rx_fault.times = 1000000;
    turns = 0;
    loop_idle(&w.l, 100); // it has left, and is not read
    assert_in_range(turns, 5, 25);
    assert_int_equal(0, w.got);
    assert_in_range(w.counters.value[BDK_COUNT_udp_rx_failed], 4, 10);
    rx_fault.times = 0;
    uint64_t began_us = bdk_os_now_us();
    loop_run(&w.l);
    assert_true(bdk_os_now_us() - began_us < 200000);
    assert_int_equal(1, w.got);
    // Once well, the next pause is short again.
    tx_fault.error = ENOBUFS;
    tx_fault.times = 1;
    began_us = bdk_os_now_us();
    send_text(w.a, to(w.b, "127.0.0.1"), "x");
    w.want = 2;
    loop_run(&w.l);
    assert_true(bdk_os_now_us() - began_us < 40000);
    close_world(&w);
  }
}

static void errors_left_on_the_socket_are_counted_and_cost_nothing(void **state) {
  (void)state;
  world w;
  open_world(&w, "127.0.0.1:0", "127.0.0.1:0");
  tx_fault.error = ECONNREFUSED;
  tx_fault.times = 1;
  rx_fault.error = EHOSTUNREACH;
  rx_fault.times = 2;
  send_text(w.a, to(w.b, "127.0.0.1"), "x");
  loop_run(&w.l);
  assert_int_equal(3, w.counters.value[BDK_COUNT_udp_icmp]);
  assert_int_equal(1, w.got);
  assert_int_equal(0, w.unreachable);
  close_world(&w);
}

// Datagrams of different sizes, the middle one refused: what follows it in the queue must not be mixed up.
static void what_the_kernel_forbids_is_skipped(void **state) {
  (void)state;
  int errors[] = {ENETUNREACH, EHOSTUNREACH, EPERM, EINVAL, EACCES, EMSGSIZE};
  for (size_t i = 0; i < sizeof errors / sizeof errors[0]; i++) {
    world w;
    open_world(&w, "127.0.0.1:0", "127.0.0.1:0");
    tx_fault.error = errors[i];
    tx_fault.times = 1;
    send_text(w.a, to(w.b, "127.0.0.1"), "refused");
    send_text(w.a, to(w.b, "127.0.0.1"), "is taken");
    loop_run(&w.l);
    assert_int_equal(1, w.got);
    assert_memory_equal("is taken", w.data, 8);
    assert_int_equal(1, w.unreachable);
    assert_int_equal(errors[i], w.unreachable_error);
    close_world(&w);
  }
}

static void a_port_in_use_is_an_error(void **state) {
  (void)state;
  world w;
  open_world(&w, "127.0.0.1:0", "127.0.0.1:0");
  bdk_udp_config c = {.driver = w.l.d, .bind = *bdk_udp_local(w.a)};
  bdk_udp *u = NULL;
  assert_int_equal(-EADDRINUSE, bdk_udp_open(&u, &c));
  c.bind = (bdk_addr){0};
  assert_int_equal(-EAFNOSUPPORT, bdk_udp_open(&u, &c));
  c.bind = addr("192.0.2.1:0");
  assert_int_equal(-EADDRNOTAVAIL, bdk_udp_open(&u, &c));
  assert_null(u);
  // One family a socket: the same port is free for the other.
  char text[32];
  snprintf(text, sizeof text, "[::]:%u", bdk_udp_local(w.a)->port);
  bdk_udp_close(open_udp(&w, text, 3));
  close_world(&w);
}

static void closing_sends_what_is_queued(void **state) {
  (void)state;
  world w;
  open_world(&w, "127.0.0.1:0", "127.0.0.1:0");
  send_text(w.a, to(w.b, "127.0.0.1"), "bye");
  bdk_udp_close(w.a);
  w.a = NULL;
  bdk_udp_close(NULL);
  loop_run(&w.l);
  assert_memory_equal("bye", w.data, 3);
  close_world(&w);
}

// A socket that was full is tried once more, its last words may be the ones that tell a peer; then they are lost.
static void closing_tries_a_full_socket_and_counts_what_is_lost(void **state) {
  (void)state;
  for (int full = 0; full < 2; full++) {
    world w;
    open_world(&w, "127.0.0.1:0", "127.0.0.1:0");
    tx_fault.error = EAGAIN;
    tx_fault.times = 1 + (unsigned)full;
    send_text(w.a, to(w.b, "127.0.0.1"), "bye");
    send_text(w.a, to(w.b, "127.0.0.1"), "bye");
    bdk_udp_flush(w.a);
    bdk_udp_close(w.a);
    w.a = NULL;
    assert_int_equal(0, tx_fault.times);
    assert_int_equal(full ? 0 : 2, w.counters.value[BDK_COUNT_udp_tx]);
    assert_int_equal(full ? 2 : 0, w.counters.value[BDK_COUNT_udp_tx_dropped]);
    close_world(&w);
  }
}

// A game that reads few packets a frame, so that a flood costs it no more than that.
static void a_turn_reads_as_many_packets_as_its_limit(void **state) {
  (void)state;
  world w;
  open_world(&w, "127.0.0.1:0", "127.0.0.1:0");
  for (int i = 0; i < 40; i++) send_text(w.a, to(w.b, "127.0.0.1"), "x");
  bdk_udp_flush(w.a);
  w.want = 1000;
  assert_int_equal(0, bdk_drive_poll_turn(w.l.d, BDK_POLL_CLOCK, 7));
  assert_int_equal(7, w.got);
  assert_int_equal(0, bdk_drive_poll_turn(w.l.d, BDK_POLL_CLOCK, 30));
  assert_int_equal(37, w.got);
  assert_int_equal(0, bdk_drive_poll_turn(w.l.d, BDK_POLL_CLOCK, 0));
  assert_int_equal(40, w.got);
  close_world(&w);
}

typedef struct stream {
  struct sockaddr_in to;
  int count;
} stream;

// One datagram each 100 us, as a stranger sends them.
static void *send_evenly(void *ctx) {
  const stream *s = ctx;
  int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  uint64_t begin_us = bdk_os_now_us();
  for (int i = 0; i < s->count;) {
    if (bdk_os_now_us() < begin_us + (uint64_t)i * 100)
      usleep(30);
    else if (sendto(fd, "x", 1, 0, (const struct sockaddr *)&s->to, sizeof s->to) == 1)
      i++;
  }
  close(fd);
  return NULL;
}

static void where_datagrams_come_one_by_one_they_are_gathered(void **state) {
  (void)state;
  world w;
  open_world(&w, "127.0.0.1:0", "127.0.0.1:0");
  w.l.d->gather_us = 1000;
  stream s = {{.sin_family = AF_INET, .sin_port = htons(bdk_udp_local(w.b)->port)}, 5000};
  s.to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  pthread_t thread;
  w.want = s.count;
  turns = 0;
  assert_int_equal(0, pthread_create(&thread, NULL, send_evenly, &s));
  loop_run(&w.l);
  pthread_join(thread, NULL);
  assert_int_equal(s.count, w.got);
  assert_true(turns * 3 < s.count); // a tenth of a second and more passes before it begins, at most 1,000 datagrams
  // And no longer once they have stopped.
  uint64_t begin_us = bdk_os_now_us();
  for (int i = 0; i < 100; i++) {
    send_text(w.a, to(w.b, "127.0.0.1"), "x");
    w.want = w.got + 1;
    loop_run(&w.l);
  }
  assert_true(bdk_os_now_us() - begin_us < 100 * 1000 + 100000);
  close_world(&w);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      TEST(a_datagram_arrives_with_its_route),
      TEST(batches_carry_what_was_sent_in_one_turn),
      TEST(the_address_a_packet_came_to_is_told_and_answers_leave_from_it),
      TEST(ipv6_likewise),
      TEST(each_packet_has_its_own_ttl),
      TEST(icmp_errors_do_not_end_it),
      TEST(too_long_datagrams_are_dropped_and_counted),
      TEST(one_socket_may_take_longer_ones_than_another),
      TEST(it_may_be_closed_in_its_callback),
      TEST(an_unreachable_destination_is_told_and_the_rest_goes_on),
      TEST(a_full_socket_is_waited_for),
      TEST(what_is_queued_behind_a_partial_batch_keeps_its_order),
      TEST(a_kernel_without_buffers_is_tried_again),
      TEST(what_keeps_failing_is_tried_less_and_less),
      TEST(errors_left_on_the_socket_are_counted_and_cost_nothing),
      TEST(what_the_kernel_forbids_is_skipped),
      TEST(a_full_queue_drops_and_counts),
      TEST(a_port_in_use_is_an_error),
      TEST(closing_sends_what_is_queued),
      TEST(closing_tries_a_full_socket_and_counts_what_is_lost),
      cmocka_unit_test_setup(where_datagrams_come_one_by_one_they_are_gathered, on_ev),
      cmocka_unit_test_setup(a_turn_reads_as_many_packets_as_its_limit, on_poll),
  };
  return cmocka_run_group_tests_name("udp", tests, NULL, NULL);
}
