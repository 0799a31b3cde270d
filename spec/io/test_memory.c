// SPDX-License-Identifier: MIT
// All that io has, with one allocation of its own refused, each in turn, and with all refused from each on: an error
// where it was asked for something, nothing that hangs, crashes or leaks. Linked so that malloc and its kin are here.
#include "loop.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "io/iface.h"
#include "io/resolve.h"
#include "io/stream.h"
#include "io/tcp.h"
#include "io/tun.h"
#include "io/udp.h"

#define TIMERS 40
#define TCP_PACKETS 10

void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *p, size_t size);
void __real_free(void *p);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *p, size_t size);
void __wrap_free(void *p);

static size_t calls, fail_at; // fail_at: counted from 1; 0: none
static long blocks;
static bool fail_on; // and all after it

static bool refuse(void) {
  calls++;
  return fail_at && (calls == fail_at || (fail_on && calls > fail_at));
}

static bool refused(void) { return fail_at && calls >= fail_at; }

void *__wrap_calloc(size_t count, size_t size) {
  if (refuse()) return NULL;
  blocks++;
  return __real_calloc(count, size);
}

void *__wrap_realloc(void *p, size_t size) {
  if (refuse()) return NULL;
  blocks += !p;
  return __real_realloc(p, size);
}

void __wrap_free(void *p) {
  blocks -= p != NULL;
  __real_free(p);
}

typedef struct world {
  loop l;
  bdk_udp *udp[2];
  bdk_tcp *tcp[2]; // the first one listens
  bdk_listener *listener;
  bdk_stream *client, *server;
  bdk_resolver *resolver;
  bdk_timer timers[TIMERS];
  char path[64];
  unsigned packets, tcp_packets, timers_set, timers_fired, accepted, asked, answered;
  size_t echoed;
} world;

static world *now_in; // timers carry no context

static bool is_memory(int error) { return error == -ENOMEM || error == BDK_E_LIMIT; }

// What was asked for is there, or memory was refused.
static bool got(int error) {
  if (error) assert_true(refused() && is_memory(error));
  return error == 0;
}

static void look(world *w) {
  if (w->packets < BDK_UDP_BATCH || w->tcp_packets < TCP_PACKETS || w->timers_fired < TIMERS || w->echoed < 20000 ||
      w->answered < 2)
    return;
  loop_stop(&w->l);
}

static void on_packets(void *ctx, bdk_udp *udp, const bdk_packet *packets, int count) {
  world *w = ctx;
  (void)udp, (void)packets;
  w->packets += (unsigned)count;
  look(w);
}

static void on_timer(bdk_timer *t, uint64_t now_us) {
  (void)t, (void)now_us;
  now_in->timers_fired++;
  look(now_in);
}

static void on_answer(void *ctx, const bdk_addr *addrs, int count, const char *error) {
  world *w = ctx;
  assert_true(count > 0 && !error && addrs[0].port == 7);
  w->answered++;
  look(w);
}

static void on_server(void *ctx, bdk_stream *s, const uint8_t *data, size_t len, int error) {
  (void)ctx, (void)error;
  if (len) bdk_stream_write(s, data, len);
}

static void on_client(void *ctx, bdk_stream *s, const uint8_t *data, size_t len, int error) {
  world *w = ctx;
  (void)s, (void)data, (void)error;
  w->echoed += len;
  look(w);
}

static void on_accept(void *ctx, bdk_stream *s) {
  world *w = ctx;
  w->accepted++;
  assert_null(w->server);
  w->server = s;
  bdk_stream_reader(s, on_server, w);
}

static void open_udp(world *w) {
  bdk_udp_config c = {
      .driver = w->l.d, .bind = {.ip = {127, 0, 0, 1}, .family = 4}, .on_packets = on_packets, .ctx = w};
  for (int i = 0; i < 2; i++) got(bdk_udp_open(&w->udp[i], &c));
  if (!w->udp[0] || !w->udp[1]) return;
  bdk_route to = {.remote = *bdk_udp_local(w->udp[1])};
  static const uint8_t bytes[1000];
  for (int i = 0; i < BDK_UDP_BATCH; i++) got(bdk_udp_send(w->udp[0], &to, bytes, sizeof bytes));
}

static void on_tcp_packets(void *ctx, bdk_tcp *tcp, const bdk_packet *packets, int count) {
  world *w = ctx;
  (void)tcp, (void)packets;
  w->tcp_packets += (unsigned)count;
  look(w);
}

static void open_tcp(world *w) {
  bdk_tcp_config c = {.driver = w->l.d, .bind = {.ip = {127, 0, 0, 1}, .family = 4}, .listens = true, .ctx = w};
  c.on_packets = on_tcp_packets;
  if (!got(bdk_tcp_open(&w->tcp[0], &c))) return;
  bdk_route to = {.remote = *bdk_tcp_local(w->tcp[0])};
  c.listens = false;
  c.port = to.remote.port;
  if (!got(bdk_tcp_open(&w->tcp[1], &c))) return;
  static const uint8_t bytes[1000];
  for (int i = 0; i < TCP_PACKETS; i++) got(bdk_tcp_send(w->tcp[1], &to, bytes, sizeof bytes));
}

static void open_streams(world *w) {
  static const uint8_t bytes[10000];
  if (!got(bdk_listener_open(&w->listener, w->l.d, w->path, on_accept, w))) return;
  if (!got(bdk_stream_connect(&w->client, w->l.d, w->path))) return;
  bdk_stream_reader(w->client, on_client, w);
  if (got(bdk_stream_write(w->client, bytes, sizeof bytes))) got(bdk_stream_write(w->client, bytes, sizeof bytes));
}

static void resolve(world *w) {
  w->resolver = bdk_resolver_new(w->l.d);
  if (!w->resolver) assert_true(refused());
  if (!w->resolver) return;
  w->asked += got(bdk_resolve(w->resolver, "192.0.2.1", 7, on_answer, w));
  w->asked += got(bdk_resolve(w->resolver, "localhost", 7, on_answer, w));
}

static void set_timers(world *w) {
  for (int i = 0; i < TIMERS; i++) {
    w->timers[i].fire = on_timer;
    w->timers_set += got(bdk_driver_timer(w->l.d, &w->timers[i], bdk_os_now_us()));
  }
}

static void everything(const bdk_driver_kind *kind) {
  world w = {.l.kind = kind};
  now_in = &w;
  snprintf(w.path, sizeof w.path, "/tmp/bodkin-memory-%d", (int)getpid());
  w.l.d = kind->make();
  if (!w.l.d) {
    assert_true(refused());
    return;
  }
  // The guard has to have its place in the wheel before memory runs out.
  if (got(bdk_driver_timer(w.l.d, &w.l.guard, BDK_NEVER))) {
    open_udp(&w);
    open_tcp(&w);
    open_streams(&w);
    resolve(&w);
    set_timers(&w);
    loop_run_for(&w.l, 60, true);
    assert_int_equal(w.timers_fired, w.timers_set);
    assert_int_equal(w.answered, w.asked);
    if (!fail_at) {
      assert_int_equal(w.packets, BDK_UDP_BATCH);
      assert_int_equal(w.tcp_packets, TCP_PACKETS);
      assert_int_equal(w.echoed, 20000);
      assert_int_equal(w.answered, 2);
    }
  }
  bdk_driver_cancel(w.l.d, &w.l.guard);
  for (int i = 0; i < TIMERS; i++) bdk_driver_cancel(w.l.d, &w.timers[i]);
  bdk_resolver_free(w.resolver);
  bdk_stream_close(w.client);
  bdk_stream_close(w.server);
  bdk_listener_close(w.listener);
  for (int i = 0; i < 2; i++) {
    bdk_udp_close(w.udp[i]);
    bdk_tcp_close(w.tcp[i]);
  }
  kind->free(w.l.d);
  assert_int_not_equal(access(w.path, F_OK), 0);
}

static void refuse_each(void (*scenario)(const bdk_driver_kind *), const bdk_driver_kind *kind, size_t at_least) {
  calls = fail_at = 0;
  scenario(kind);
  size_t total = calls;
  assert_true(total >= at_least);
  for (int on = 0; on < 2; on++) {
    for (size_t n = 1; n <= total; n++) {
      calls = 0, fail_at = n, fail_on = on;
      long before = blocks;
      scenario(kind);
      assert_int_equal(blocks, before);
    }
  }
  fail_at = 0;
}

static void libev_survives(void **state) {
  (void)state;
  refuse_each(everything, &loop_ev, 15);
}

static void poll_survives(void **state) {
  (void)state;
  refuse_each(everything, &loop_poll, 15);
}

static void copy(const bdk_driver_kind *kind) {
  (void)kind;
  const bdk_tun_port ports[] = {{"/nonexistent/netns", "core0"}};
  const bdk_tun_config config = {.ports = ports, .port_count = 1, .stop_fd = 0, .queue_max = 16};
  const char *where;
  uint32_t port;
  int error = bdk_tun_copy(&config, NULL, &where, &port);
  assert_int_equal(error, refused() ? BDK_E_LIMIT : -ENOENT);
  assert_string_equal(where, refused() ? "memory" : "namespace");
}

static void a_copier_survives(void **state) {
  (void)state;
  refuse_each(copy, NULL, 6);
}

static void list(const bdk_driver_kind *kind) {
  (void)kind;
  bdk_iface ifaces[8];
  assert_true(bdk_iface_list(ifaces, 8) >= 0);
}

static void interfaces_need_none(void **state) {
  (void)state;
  refuse_each(list, NULL, 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(libev_survives),
      cmocka_unit_test(poll_survives),
      cmocka_unit_test(a_copier_survives),
      cmocka_unit_test(interfaces_need_none),
  };
  return cmocka_run_group_tests_name("io: memory", tests, NULL, NULL);
}
