// SPDX-License-Identifier: MIT
// Name resolution against a name server of our own on loopback, in the same loop.
#include "loop.h"

#include "io/resolve.h"
#include "io/udp.h"

#include <ares.h>
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

typedef struct world {
  loop l;
  bdk_resolver *r;
  bdk_udp *dns;
  int queries, answers, count, want;
  bdk_addr addrs[16];
  char error[512];
  bool free_inside, silent;
} world;

static time_t wall_offset_s;

// Visible, since it is c-ares, a shared library, that may call these.
__attribute__((visibility("default"))) int clock_gettime(clockid_t id, struct timespec *t) {
  int r = (int)syscall(SYS_clock_gettime, id, t);
  if (id == CLOCK_REALTIME) t->tv_sec += wall_offset_s;
  return r;
}

__attribute__((visibility("default"))) int gettimeofday(struct timeval *restrict t, void *restrict zone) {
  struct timespec now;
  (void)zone;
  clock_gettime(CLOCK_REALTIME, &now);
  *t = (struct timeval){.tv_sec = now.tv_sec, .tv_usec = now.tv_nsec / 1000};
  return 0;
}

static char dns_server[64]; // "127.0.0.1:port"; what resolv.conf says does not count here

int ares_init_options(ares_channel *channel, struct ares_options *options, int mask) {
  int (*real)(ares_channel *, struct ares_options *, int) = NULL;
  void *symbol = dlsym(RTLD_NEXT, "ares_init_options");
  memcpy(&real, &symbol, sizeof real);
  int r = real(channel, options, mask);
  return r == ARES_SUCCESS && dns_server[0] ? ares_set_servers_ports_csv(*channel, dns_server) : r;
}

// Answers: two.test has one address of each kind, old.test IPv4 only, all else does not exist.
static void on_query(void *ctx, bdk_udp *udp, const bdk_packet *packets, int count) {
  static const uint8_t two[] = "\3two\4test", old[] = "\3old\4test";
  world *w = ctx;
  for (int i = 0; i < count; i++) {
    const bdk_packet *p = &packets[i];
    w->queries++;
    if (w->silent) continue;
    assert_true(p->len > 12 && p->len < 200);
    uint8_t reply[512];
    size_t name_len = strlen((const char *)p->data + 12) + 1, len = 12 + name_len + 4;
    memcpy(reply, p->data, len);
    bool is_two = memcmp(p->data + 12, two, sizeof two) == 0, is_old = memcmp(p->data + 12, old, sizeof old) == 0;
    int type = p->data[12 + name_len + 1];
    bool has = is_two || (is_old && type == 1);
    reply[2] = 0x81;
    reply[3] = is_two || is_old ? 0x80 : 0x83;
    memset(reply + 6, 0, 6);
    reply[7] = has;
    if (has) {
      const uint8_t v4[] = {0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 7};
      const uint8_t v6[] = {0xc0, 12,   0, 28, 0, 1, 0, 0, 0, 60, 0, 16, 0x20, 0x01,
                            0x0d, 0xb8, 0, 0,  0, 0, 0, 0, 0, 0,  0, 0,  0,    7};
      memcpy(reply + len, type == 1 ? v4 : v6, type == 1 ? sizeof v4 : sizeof v6);
      len += type == 1 ? sizeof v4 : sizeof v6;
    }
    assert_int_equal(0, bdk_udp_send(udp, &p->route, reply, len));
  }
}

static void open_world(world *w) {
  memset(w, 0, sizeof *w);
  loop_open(&w->l, &loop_ev);
  bdk_udp_config c = {.driver = w->l.d, .on_packets = on_query, .ctx = w};
  assert_int_equal(0, bdk_addr_parse(&c.bind, "127.0.0.1", 9, 0));
  assert_int_equal(0, bdk_udp_open(&w->dns, &c));
  bdk_addr_format(bdk_udp_local(w->dns), dns_server);
  w->r = bdk_resolver_new(w->l.d);
  assert_non_null(w->r);
  w->want = 1;
}

static void close_world(world *w) {
  bdk_resolver_free(w->r);
  bdk_udp_close(w->dns);
  loop_close(&w->l);
}

static void on_resolved(void *ctx, const bdk_addr *addrs, int count, const char *error) {
  world *w = ctx;
  w->answers++;
  w->count = count;
  assert_true((count > 0) == (error == NULL));
  memcpy(w->addrs, addrs, (size_t)count * sizeof addrs[0]);
  snprintf(w->error, sizeof w->error, "%s", error ? error : "");
  if (w->free_inside) {
    bdk_resolver_free(w->r);
    w->r = NULL;
  }
  if (w->answers == w->want) loop_stop(&w->l);
}

static void ask(world *w, const char *host) { assert_int_equal(0, bdk_resolve(w->r, host, 4433, on_resolved, w)); }

static bool has(world *w, const char *text) {
  bdk_addr a;
  assert_int_equal(0, bdk_addr_parse(&a, text, strlen(text), 0));
  for (int i = 0; i < w->count; i++)
    if (bdk_addr_equal(&a, &w->addrs[i])) return true;
  return false;
}

static void numeric_addresses_are_answered_later_without_a_query(void **state) {
  (void)state;
  world w;
  const char *hosts[] = {"192.0.2.1", "2001:db8::1", "[2001:db8::1]"};
  const char *expected[] = {"192.0.2.1:4433", "[2001:db8::1]:4433", "[2001:db8::1]:4433"};
  open_world(&w);
  for (int i = 0; i < 3; i++) {
    w.answers = 0;
    ask(&w, hosts[i]);
    assert_int_equal(0, w.answers); // not before it returns
    loop_run(&w.l);
    assert_int_equal(1, w.count);
    assert_true(has(&w, expected[i]));
  }
  assert_int_equal(0, w.queries);
  close_world(&w);
}

static void localhost_is_loopback_unasked(void **state) {
  (void)state;
  world w;
  const char *hosts[] = {"localhost", "LocalHost.", "a.localhost"};
  open_world(&w);
  for (int i = 0; i < 3; i++) {
    w.answers = 0;
    ask(&w, hosts[i]);
    assert_int_equal(0, w.answers);
    loop_run(&w.l);
    assert_int_equal(2, w.count);
    assert_true(has(&w, "127.0.0.1:4433") && has(&w, "[::1]:4433"));
  }
  assert_int_equal(0, w.queries);
  close_world(&w);
}

static void a_name_has_its_addresses_of_both_families(void **state) {
  (void)state;
  world w;
  open_world(&w);
  ask(&w, "two.test");
  loop_run(&w.l);
  assert_int_equal(2, w.count);
  assert_true(has(&w, "192.0.2.7:4433"));
  assert_true(has(&w, "[2001:db8::7]:4433"));
  w.answers = 0;
  ask(&w, "old.test");
  loop_run(&w.l);
  assert_int_equal(1, w.count);
  assert_true(has(&w, "192.0.2.7:4433"));
  close_world(&w);
}

static void what_does_not_exist_is_said(void **state) {
  (void)state;
  world w;
  open_world(&w);
  ask(&w, "gone.test.");
  loop_run(&w.l);
  assert_string_equal("no such host: gone.test. (Domain name not found)", w.error);
  char long_name[400];
  memset(long_name, 'a', sizeof long_name - 1);
  long_name[sizeof long_name - 1] = 0;
  const char *bad[] = {"", long_name, "a..b"};
  for (int i = 0; i < 3; i++) {
    w.answers = 0;
    ask(&w, bad[i]);
    loop_run(&w.l);
    assert_int_equal(0, w.count);
    assert_non_null(strstr(w.error, "no such host: "));
  }
  close_world(&w);
}

static void many_at_once_up_to_a_limit(void **state) {
  (void)state;
  world w;
  open_world(&w);
  w.want = 64;
  for (int i = 0; i < 64; i++) ask(&w, i % 2 ? "two.test" : "gone.test.");
  assert_int_equal(BDK_E_LIMIT, bdk_resolve(w.r, "two.test", 1, on_resolved, &w));
  loop_run(&w.l);
  assert_int_equal(64, w.answers);
  ask(&w, "two.test");
  w.want = 65;
  loop_run(&w.l);
  close_world(&w);
}

static void it_may_be_freed_in_its_callback(void **state) {
  (void)state;
  world w;
  open_world(&w);
  w.free_inside = true;
  ask(&w, "192.0.2.1"); // answered first: the queries behind it are under way then
  ask(&w, "two.test");
  ask(&w, "localhost");
  loop_run(&w.l);
  loop_idle(&w.l, 3);
  assert_int_equal(1, w.answers);
  close_world(&w);
}

static void freeing_it_ends_queries_without_an_answer(void **state) {
  (void)state;
  world w;
  open_world(&w);
  w.silent = true;
  ask(&w, "two.test");
  loop_idle(&w.l, 3);
  assert_true(w.queries > 0);
  assert_int_equal(0, w.answers);
  bdk_resolver_free(w.r);
  w.r = NULL;
  bdk_resolver_free(NULL);
  loop_idle(&w.l, 1);
  assert_int_equal(0, w.answers);
  close_world(&w);
}

// Its sockets are made for each question.
static void without_descriptors_it_says_so_and_with_some_it_answers(void **state) {
  (void)state;
  world w;
  open_world(&w);
  struct rlimit before, none;
  assert_int_equal(0, getrlimit(RLIMIT_NOFILE, &before));
  int lowest = dup(0);
  close(lowest);
  none = before;
  none.rlim_cur = (rlim_t)lowest;
  assert_int_equal(0, setrlimit(RLIMIT_NOFILE, &none));
  w.want = 1;
  ask(&w, "two.test");
  loop_run(&w.l);
  assert_int_equal(0, w.count);
  assert_non_null(strstr(w.error, "cannot look up two.test"));
  assert_int_equal(0, w.queries);
  assert_int_equal(0, setrlimit(RLIMIT_NOFILE, &before));
  w.want = 2;
  ask(&w, "two.test");
  loop_run(&w.l);
  assert_int_equal(2, w.count);
  close_world(&w);
}

// A question that is under way neither fails nor is it forgotten.
static void the_wall_clock_may_jump(void **state) {
  (void)state;
  enum { YEAR_S = 365 * 86400 };
  world w;
  open_world(&w);
  w.silent = true;
  w.want = 1;
  ask(&w, "two.test");
  loop_idle(&w.l, 50);
  int asked = w.queries;
  for (int sign = 1; sign >= -1; sign -= 2) {
    wall_offset_s = sign * YEAR_S;
    loop_idle(&w.l, 50);
    assert_int_equal(0, w.answers);
    assert_int_equal(asked, w.queries);
  }
  w.silent = false;
  loop_run(&w.l); // it is asked again in time
  assert_int_equal(2, w.count);
  wall_offset_s = 0;
  close_world(&w);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(numeric_addresses_are_answered_later_without_a_query),
      cmocka_unit_test(localhost_is_loopback_unasked),
      cmocka_unit_test(a_name_has_its_addresses_of_both_families),
      cmocka_unit_test(what_does_not_exist_is_said),
      cmocka_unit_test(many_at_once_up_to_a_limit),
      cmocka_unit_test(it_may_be_freed_in_its_callback),
      cmocka_unit_test(without_descriptors_it_says_so_and_with_some_it_answers),
      cmocka_unit_test(the_wall_clock_may_jump),
      cmocka_unit_test(freeing_it_ends_queries_without_an_answer),
  };
  return cmocka_run_group_tests_name("resolve", tests, NULL, NULL);
}
