// SPDX-License-Identifier: MIT
// bodkin.h, one node or two at a time. Many pairs: test_pairs.c.
#include "world.h"

#include <pthread.h>
#include <sys/stat.h>

static int is_readable(bdk_node *n, int wait_ms) {
  struct pollfd fd = {.fd = bdk_fd(n), .events = POLLIN};
  return poll(&fd, 1, wait_ms) == 1;
}

static void two_nodes_connect_and_talk(void **state) {
  (void)state;
  peer p[2] = {0};
  world_pairs(p, 2);
  assert_string_equal(p[0].match, p[1].match);
  assert_string_equal(p[0].id, p[1].other);
  assert_string_equal(p[1].id, p[0].other);
  assert_int_equal(0, bdk_send(p[0].node, p[0].match, p[0].other, 0, "ping", 4));
  assert_int_equal(0, bdk_send(p[1].node, p[1].match, NULL, 0, "pong", 4));
  world_await(p, 2, BDK_MESSAGE, 1, 2);
  assert_string_equal("pong", p[0].text);
  assert_string_equal("ping", p[1].text);
  world_await(p, 2, BDK_PATH, 1, 2);
  bdk_node_stats s;
  assert_int_equal(0, bdk_stats(p[0].node, &s, sizeof s));
  assert_int_equal(1, s.matches);
  assert_int_equal(1, s.sessions);
  assert_int_equal(1, s.registered);
  assert_int_equal(0, s.events);
  assert_true(s.memory > 100000 && s.memory_max >= s.memory);
  assert_true(s.packets_in > 3 && s.bytes_out > s.packets_out);
  world_close(p, 2);
}

static void why_is_told_as_lines_of_json(void **state) {
  (void)state;
  peer p[2] = {0};
  char text[8192], one[8192], expected[128];
  assert_int_equal(BDK_E_INVALID, bdk_why(NULL, NULL, text, sizeof text));
  assert_string_equal("", text);
  world_pairs(p, 2);
  world_await(p, 2, BDK_PATH, 1, 2);
  int len = bdk_why(p[0].node, NULL, text, sizeof text);
  assert_in_range(len, 100, sizeof text - 1);
  assert_int_equal(len, strlen(text));
  assert_int_equal('\n', text[len - 1]);
  assert_ptr_equal(text + len - 1, strchr(text, '\n')); // one peer
  snprintf(expected, sizeof expected, "{\"event\":\"why\",\"match\":\"%s\",", p[0].match);
  assert_int_equal(0, strncmp(expected, text, strlen(expected)));
  snprintf(expected, sizeof expected, "\"self\":\"%s\"", p[0].id);
  assert_non_null(strstr(text, expected));
  assert_non_null(strstr(text, "\"state\":\"connected\""));
  assert_non_null(strstr(text, "\"paths\":[{"));
  // What is asked for, and nothing for what is not there.
  assert_true(bdk_why(p[0].node, p[0].match, one, sizeof one) > 0);
  assert_true(bdk_why(p[0].node, p[0].other, one, sizeof one) > 0);
  assert_int_equal(0, bdk_why(p[0].node, "nobody", one, sizeof one));
  assert_string_equal("", one);
  // Whole or not at all. (The time that it lasted may have grown by a digit.)
  memset(one, 'x', sizeof one);
  assert_in_range(bdk_why(p[0].node, NULL, one, 64), len - 8, len + 8);
  assert_string_equal("", one);
  assert_int_equal('x', one[1]);
  assert_in_range(bdk_why(p[0].node, NULL, NULL, 0), len - 8, len + 8);
  // After it is over, too; an id's first digits do.
  assert_int_equal(0, bdk_leave(p[0].node, p[0].match));
  world_await(p, 2, BDK_CLOSED, 1, 2);
  snprintf(expected, sizeof expected, "%.4s", p[1].other);
  assert_true(bdk_why(p[1].node, expected, text, sizeof text) > 0);
  assert_non_null(strstr(text, "\"reason\":\"left\""));
  world_close(p, 2);
}

static void leaving_is_told_to_both(void **state) {
  (void)state;
  peer p[2] = {0};
  world_pairs(p, 2);
  assert_int_equal(0, bdk_leave(p[0].node, p[0].match));
  world_await(p, 2, BDK_CLOSED, 1, 2);
  assert_string_equal("closed", p[0].reason);
  assert_string_equal("left", p[1].reason);
  assert_int_equal(BDK_E_INVALID, bdk_send(p[0].node, p[0].match, NULL, 0, "x", 1));
  assert_int_equal(BDK_E_INVALID, bdk_send(p[1].node, p[1].match, p[1].other, 0, "x", 1));
  world_close(p, 2);
}

static void closing_tells_the_peer(void **state) {
  (void)state;
  peer p[2] = {0};
  world_pairs(p, 2);
  bdk_close(p[0].node);
  world_await(p + 1, 1, BDK_CLOSED, 1, 1);
  assert_string_equal("left", p[1].reason);
  bdk_close(p[1].node);
  bdk_close(NULL);
}

static const bdk_event *await_event(peer *p, int n, int which, int kind) {
  uint64_t guard_us = world_now() + 10000000;
  for (;;) {
    assert_true(world_now() < guard_us);
    for (int i = 0; i < n; i++) {
      assert_int_equal(0, bdk_update(p[i].node, BDK_CLOCK, 0));
      for (const bdk_event *e; (e = bdk_next(p[i].node));) {
        if (i == which && (int)e->kind == kind) return e;
        peer_take(&p[i], e);
      }
    }
    is_readable(p[which].node, 20);
  }
}

// The table of events, for those that two nodes on one machine see.
static void events_carry_their_fields(void **state) {
  (void)state;
  peer p[2] = {0};
  peer_open(&p[0]);
  peer_open(&p[1]);
  const bdk_event *e = await_event(p, 1, 0, BDK_REGISTERED);
  assert_int_equal(sizeof *e, e->size);
  assert_string_equal("registered", e->name);
  assert_int_equal(32, strlen(e->id));
  assert_int_equal(1, e->public_count);
  assert_memory_equal("127.0.0.1:", e->publics[0], 10);
  assert_true(e->local_count >= 1);
  assert_null(e->match);
  assert_int_equal(0, bdk_host(p[0].node, NULL));
  e = await_event(p, 1, 0, BDK_HOSTING);
  assert_int_equal(32, strlen(e->match));
  assert_int_equal(0, bdk_join(p[1].node, e->code));
  e = await_event(p, 2, 0, BDK_MATCHED);
  assert_int_equal(1, e->peer_count);
  assert_int_equal(32, strlen(e->peers[0]));
  assert_null(e->data);
  e = await_event(p, 2, 0, BDK_CONNECTED);
  assert_int_equal(32, strlen(e->peer));
  assert_true(strcmp("lan", e->path) == 0 || strcmp("relay", e->path) == 0); // on one machine a relay is as quick
  assert_non_null(e->via);
  assert_memory_equal("127.0.0.1:", e->remote, 10);
  assert_true(e->first_ms >= 0 && e->first_ms < 5000);
  e = await_event(p, 2, 0, BDK_PATH);
  assert_true(e->confirmed_ms > 0 && e->confirmed_ms < 5000 && e->rtt_ms > 0);
  assert_true(e->why_count >= 1);
  assert_memory_equal("127.0.0.1:", e->why[0].remote, 10);
  bool valid = false; // others may not have had their turn
  for (size_t i = 0; i < (size_t)e->why_count; i++)
    valid |= strcmp("valid", e->why[i].state) == 0 && e->why[i].tests >= 1;
  assert_true(valid);
  bdk_close(p[0].node);
  e = await_event(p + 1, 1, 0, BDK_CLOSED);
  assert_string_equal("left", e->reason);
  bdk_close(p[1].node);
}

static void nothing_happens_outside_update(void **state) {
  (void)state;
  peer p[1] = {0};
  bdk_node_stats s;
  peer_open(p);
  assert_int_equal(0, bdk_host(p[0].node, NULL));
  assert_true(is_readable(p[0].node, 0)); // an update is due
  assert_true(bdk_deadline(p[0].node) < world_now());
  assert_null(bdk_next(p[0].node));
  assert_int_equal(0, bdk_stats(p[0].node, &s, sizeof s));
  assert_int_equal(0, s.packets_out);
  world_await(p, 1, BDK_HOSTING, 1, 1);
  assert_int_equal(0, bdk_stats(p[0].node, &s, sizeof s));
  uint64_t out = s.packets_out;
  assert_true(out >= 3);
  assert_int_equal(0, bdk_leave(p[0].node, p[0].match));
  assert_int_equal(0, bdk_stats(p[0].node, &s, sizeof s));
  assert_true(s.packets_out == out);
  assert_int_equal(0, bdk_update(p[0].node, BDK_CLOCK, 0));
  assert_int_equal(0, bdk_stats(p[0].node, &s, sizeof s));
  assert_true(s.packets_out > out);
  world_close(p, 1);
}

static void an_idle_node_sleeps(void **state) {
  (void)state;
  peer p[1] = {0};
  peer_open(p);
  world_await(p, 1, BDK_REGISTERED, 1, 1);
  // What is still due: the maintenance messages' answers, and timers that were cancelled.
  int turns = 0;
  for (uint64_t end_us = world_now() + 300000; world_now() < end_us; turns++) {
    is_readable(p[0].node, (int)((end_us - world_now()) / 1000) + 1);
    bdk_update(p[0].node, BDK_CLOCK, 0);
  }
  assert_in_range(turns, 1, 6);
  assert_true(bdk_deadline(p[0].node) > world_now() + 1000000);
  world_close(p, 1);
}

static void *wake(void *node) {
  bdk_wake(node);
  return NULL;
}

static void another_thread_wakes_it(void **state) {
  (void)state;
  peer p[1] = {0};
  pthread_t thread;
  peer_open(p);
  world_await(p, 1, BDK_REGISTERED, 1, 1);
  while (is_readable(p[0].node, 50)) bdk_update(p[0].node, BDK_CLOCK, 0);
  assert_int_equal(0, pthread_create(&thread, NULL, wake, p[0].node));
  assert_true(is_readable(p[0].node, 2000));
  pthread_join(thread, NULL);
  bdk_update(p[0].node, BDK_CLOCK, 0);
  world_close(p, 1);
}

// An engine's clock begins at its start, say.
static void the_clock_may_be_the_engines(void **state) {
  (void)state;
  peer p[2] = {{.clock_us = 1000000 - world_now()}, {.clock_us = UINT64_C(1) << 50}};
  world_pairs(p, 2);
  assert_int_equal(0, bdk_send(p[0].node, p[0].match, NULL, 0, "ping", 4));
  world_await(p, 2, BDK_MESSAGE, 1, 1);
  assert_true(bdk_deadline(p[0].node) < 60000000);
  world_close(p, 2);
}

static void what_cannot_be_sent_is_refused_at_once(void **state) {
  (void)state;
  char big[BDK_MESSAGE_MAX + 1] = {0};
  peer p[2] = {0};
  peer_open(&p[0]);
  assert_int_equal(BDK_E_INVALID, bdk_send(p[0].node, "00112233445566778899aabbccddeeff", NULL, 0, "x", 1));
  bdk_close(p[0].node);
  p[0] = (peer){0};
  world_pairs(p, 2);
  bdk_node *n = p[0].node;
  const char *match = p[0].match;
  assert_int_equal(BDK_E_INVALID, bdk_send(n, match, NULL, 0, big, BDK_MESSAGE_MAX + 1));
  assert_int_equal(BDK_E_INVALID, bdk_send(n, match, NULL, 1, "x", 1));
  assert_int_equal(BDK_E_INVALID, bdk_send(n, match, match, 0, "x", 1)); // no such peer
  assert_int_equal(BDK_E_INVALID, bdk_send(n, NULL, NULL, 0, "x", 1));
  assert_int_equal(BDK_E_INVALID, bdk_send(n, match, NULL, 0, NULL, 1));
  assert_int_equal(BDK_E_INVALID, bdk_send(NULL, match, NULL, 0, "x", 1));
  assert_int_equal(0, bdk_send(n, match, NULL, 0, NULL, 0));
  assert_int_equal(0, bdk_send(n, match, NULL, 0, big, BDK_MESSAGE_MAX));
  world_await(p, 2, BDK_MESSAGE, 2, 1);
  assert_int_equal(BDK_MESSAGE_MAX, p[1].len);
  int sent = 0, r = 0;
  while ((r = bdk_send(n, match, NULL, 0, big, BDK_MESSAGE_MAX)) == 0) sent++;
  assert_int_equal(BDK_E_LIMIT, r);
  assert_in_range(sent, 500, 1000);
  world_close(p, 2); // what waits is dropped
}

static void messages_that_nobody_fetches_are_bounded(void **state) {
  (void)state;
  peer p[2] = {0};
  bdk_node_stats s;
  world_pairs(p, 2);
  for (int i = 0; i < 1500; i++) {
    assert_int_equal(0, bdk_send(p[0].node, p[0].match, NULL, 0, &i, sizeof i));
    if (i % 32) continue;
    bdk_update(p[0].node, BDK_CLOCK, 0);
    bdk_update(p[1].node, BDK_CLOCK, 0);
  }
  bdk_update(p[0].node, BDK_CLOCK, 0);
  uint64_t guard_us = world_now() + 3000000;
  do {
    bdk_update(p[1].node, BDK_CLOCK, 0);
    assert_int_equal(0, bdk_stats(p[1].node, &s, sizeof s));
  } while (s.events + s.lost < 1500 && world_now() < guard_us);
  assert_in_range(s.events, 1024, 1030); // beside `path` and the like
  assert_true(s.lost >= 470);
  int first = -1;
  for (const bdk_event *e; (e = bdk_next(p[1].node));)
    if (e->kind == BDK_MESSAGE && first < 0) memcpy(&first, e->data, sizeof first);
  assert_int_equal(0, first);
  world_close(p, 2);
}

static bdk_node *entered;
static int entered_result;

static void enter(void *ctx, int level, const char *text) {
  (void)ctx;
  (void)level;
  (void)text;
  if (entered) entered_result = bdk_update(entered, BDK_CLOCK, 0);
}

static void update_is_not_entered_twice(void **state) {
  (void)state;
  bdk_config c = world_config();
  peer p = {0};
  char path[64], text[256];
  // A script that logs from within an update, by way of BODKIN_PATH.
  snprintf(path, sizeof path, "/tmp/bodkin-node-%d/bodkin/client", (int)getpid());
  snprintf(text, sizeof text,
           "mkdir -p %s && echo 'return { open = function(o) o.env.log:error(\"x\") return nil, \"no\","
           " \"refused\" end }' >%s/node.lua",
           path, path);
  assert_int_equal(0, system(text));
  *strstr(path, "/bodkin/client") = 0;
  setenv("BODKIN_PATH", path, 1);
  c.log = enter;
  assert_int_equal(0, bdk_open(&p.node, &c));
  entered = p.node;
  world_await(&p, 1, BDK_ERROR, 1, 1);
  entered = NULL;
  assert_int_equal(BDK_E_INVALID, entered_result);
  assert_int_equal(BDK_E_REFUSED, p.error);
  bdk_close(p.node);
  unsetenv("BODKIN_PATH");
  snprintf(text, sizeof text, "rm -r %s", path);
  assert_int_equal(0, system(text));
}

static void configs_that_cannot_work_are_refused(void **state) {
  (void)state;
  bdk_node *n;
  bdk_config c = world_config();
  static const struct {
    size_t at;
    const char *value, *says;
  } bad[] = {{offsetof(bdk_config, server), NULL, "server: no server given"},
             {offsetof(bdk_config, server), "example.org", "it does not begin with bodkin://"},
             {offsetof(bdk_config, maintenance_server), "x", "maintenance_server: "},
             {offsetof(bdk_config, bind), "localhost:1", "bind: \"localhost:1\" is no address"},
             {offsetof(bdk_config, props), "[1]", "props: [1] is no JSON object"},
             {offsetof(bdk_config, props), "{\"a\":", "props: {\"a\": is no JSON object"}};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    c = world_config();
    *(const char **)((char *)&c + bad[i].at) = bad[i].value;
    assert_int_equal(BDK_E_INVALID, bdk_open(&n, &c));
    assert_null(n);
    if (!strstr(logged, bad[i].says)) fail_msg("'%s' does not say '%s'", logged, bad[i].says);
  }
  assert_int_equal(BDK_E_INVALID, bdk_open(NULL, &c));
  assert_int_equal(BDK_E_INVALID, bdk_open(&n, NULL));
  struct {
    bdk_config c;
    char newer[16];
  } wide;
  bdk_config_init(&wide.c, sizeof wide);
  wide.c.server = server_url;
  assert_int_equal(0, bdk_open(&n, &wide.c)); // asks for nothing that is not known
  bdk_close(n);
  wide.newer[3] = 1;
  assert_int_equal(BDK_E_TOO_OLD, bdk_open(&n, &wide.c));
  bdk_config_init(&c, 0);
  c.size = 8;
  assert_int_equal(BDK_E_INVALID, bdk_open(&n, &c));
}

static void failure_comes_as_an_event_and_may_be_tried_again(void **state) {
  (void)state;
  bdk_config c = world_config();
  peer p = {0};
  c.server = "bodkin://127.0.0.1:9"; // discard
  c.timeout_ms = 100;
  assert_int_equal(0, bdk_open(&p.node, &c));
  world_await(&p, 1, BDK_ERROR, 1, 1);
  assert_int_equal(BDK_E_TIMEOUT, p.error);
  assert_int_equal(0, bdk_join(p.node, "bodav-lirom-tifug"));
  world_await(&p, 1, BDK_ERROR, 2, 1);
  bdk_close(p.node);
  p = (peer){0};
  peer_open(&p);
  assert_int_equal(0, bdk_join(p.node, "bodav-lirom-tifug"));
  world_await(&p, 1, BDK_ERROR, 1, 1);
  assert_int_equal(BDK_E_NO_MATCH, p.error);
  bdk_close(p.node);
}

static void a_queue_matches_those_who_wait_in_it(void **state) {
  (void)state;
  peer p[2] = {{.clock_us = 1}, {0}};
  for (int i = 0; i < 2; i++) peer_open(&p[i]);
  assert_int_equal(BDK_E_INVALID, bdk_match(p[0].node, NULL, NULL));
  assert_int_equal(BDK_E_INVALID, bdk_match(p[0].node, "", NULL));
  assert_int_equal(BDK_E_INVALID, bdk_match(p[0].node, "a name of more than thirty-two bytes", NULL));
  assert_int_equal(0, bdk_match(p[0].node, "duel", "{\"map\":")); // no JSON
  world_await(p, 1, BDK_ERROR, 1, 1);
  assert_int_equal(BDK_E_INVALID, p[0].error);
  assert_int_equal(0, bdk_match(p[0].node, "duel", "{\"map\":1}"));
  world_await(p, 1, BDK_QUEUED, 1, 1);
  p[0].clock_us += 3000000; // why it waits still
  world_await(p, 1, BDK_QUEUED, 2, 1);
  assert_string_equal("nobody else waits there", p[0].reason);
  assert_int_equal(0, bdk_match(p[1].node, "duel", NULL));
  world_await(p, 2, BDK_MATCHED, 1, 2);
  world_await(p, 2, BDK_CONNECTED, 1, 2);
  assert_string_equal(p[0].match, p[1].match);
  world_close(p, 2);
}

static void a_ticket_is_taken_back(void **state) {
  (void)state;
  peer p = {0};
  peer_open(&p);
  assert_int_equal(BDK_E_INVALID, bdk_cancel(p.node, NULL));
  assert_int_equal(0, bdk_cancel(p.node, "of nobody"));
  assert_int_equal(0, bdk_match(p.node, "duel", NULL));
  world_await(&p, 1, BDK_QUEUED, 1, 1);
  assert_int_equal(0, bdk_cancel(p.node, p.ticket));
  world_await(&p, 1, BDK_ERROR, 1, 1);
  assert_int_equal(BDK_E_CLOSED, p.error);
  // It is over, which was said already.
  assert_int_equal(0, bdk_cancel(p.node, p.ticket));
  assert_int_equal(0, bdk_accept(p.node, p.ticket));
  assert_int_equal(0, bdk_decline(p.node, p.ticket));
  assert_int_equal(0, bdk_match(p.node, "duel", NULL));
  world_await(&p, 1, BDK_QUEUED, 2, 1);
  assert_int_equal(1, p.seen[BDK_ERROR]);
  bdk_close(p.node);
}

static void a_match_is_accepted_or_declined(void **state) {
  (void)state;
  peer p[3] = {{.asks = true}, {.asks = true}, {0}};
  for (int i = 0; i < 3; i++) peer_open(&p[i]);
  for (int i = 0; i < 2; i++) assert_int_equal(0, bdk_match(p[i].node, "ask", NULL));
  world_await(p, 2, BDK_PROPOSED, 1, 2);
  assert_int_equal(2, p[0].players);
  assert_int_equal(0, bdk_accept(p[0].node, p[0].ticket));
  assert_int_equal(0, bdk_decline(p[1].node, p[1].ticket));
  world_await(p, 2, BDK_ERROR, 1, 1);
  assert_int_equal(BDK_E_CLOSED, p[1].error);
  world_await(p, 2, BDK_QUEUED, 2, 1); // the first waits on
  assert_int_equal(0, bdk_match(p[2].node, "ask", NULL));
  world_await(p, 3, BDK_PROPOSED, 2, 1);
  assert_int_equal(0, bdk_accept(p[0].node, p[0].ticket));
  world_await(p, 3, BDK_CONNECTED, 1, 2);
  assert_string_equal(p[0].match, p[2].match);
  world_close(p, 3);
}

static void a_party_is_matched_together(void **state) {
  (void)state;
  peer p[3] = {0};
  for (int i = 0; i < 3; i++) peer_open(&p[i]);
  char long_name[257];
  memset(long_name, 'x', 256);
  long_name[256] = 0;
  bdk_node *node = p[0].node;
  assert_int_equal(BDK_E_INVALID, bdk_match_party(node, "ask", NULL, "", 2));
  assert_int_equal(BDK_E_INVALID, bdk_match_party(node, "ask", NULL, long_name, 2));
  assert_int_equal(BDK_E_INVALID, bdk_match_party(node, "ask", NULL, "us", 0));
  assert_int_equal(BDK_E_INVALID, bdk_match_party(node, "ask", NULL, "us", 33));
  assert_int_equal(BDK_E_INVALID, bdk_match_party(node, NULL, NULL, "us", 2));
  assert_int_equal(0, bdk_match(node, "ask", NULL)); // who waited first, and finds nobody
  world_await(p, 1, BDK_QUEUED, 1, 1);
  for (int i = 1; i < 3; i++) assert_int_equal(0, bdk_match_party(p[i].node, "ask", "{}", long_name + 1, 2));
  world_await(p, 3, BDK_CONNECTED, 1, 2);
  assert_int_equal(0, p[0].seen[BDK_MATCHED]);
  assert_string_equal(p[1].match, p[2].match);
  world_close(p, 3);
}

static void the_seed_decides(void **state) {
  (void)state;
  const uint8_t seed[32] = {1, 2, 3}, other[32] = {1, 2, 4};
  peer p[3] = {{.seed = seed}, {.seed = seed}, {.seed = other}};
  for (int i = 0; i < 3; i++) {
    if (i == 1) { // to the same server the same keys once more are a copy of what it heard
      bdk_config c = world_config();
      peer copy = {0};
      c.seed = seed;
      c.timeout_ms = 300;
      assert_int_equal(0, bdk_open(&copy.node, &c));
      world_await(&copy, 1, BDK_ERROR, 1, 1);
      assert_int_equal(BDK_E_TIMEOUT, copy.error);
      bdk_close(copy.node);
      world_stop(state);
      world_start(state);
    }
    peer_open(&p[i]);
    world_await(&p[i], 1, BDK_REGISTERED, 1, 1);
    bdk_close(p[i].node);
  }
  assert_string_equal(p[0].id, p[1].id);
  assert_string_not_equal(p[0].id, p[2].id);
}

static void open_as(peer *p, const char *identity, const uint8_t *key) {
  bdk_config c = world_config();
  *p = (peer){0};
  c.identity = identity;
  c.identity_key = key;
  assert_int_equal(0, bdk_open(&p->node, &c));
  world_await(p, 1, BDK_REGISTERED, 1, 1);
  bdk_close(p->node);
}

static void an_identity_is_kept_by_the_program_or_in_a_file(void **state) {
  (void)state;
  uint8_t secret[32], other[32];
  char public_key[BDK_KEY_SIZE], file[64];
  peer p[4] = {0};
  memset(public_key, 'x', sizeof public_key);
  assert_int_equal(0, bdk_keygen(secret, public_key));
  assert_int_equal(43, strlen(public_key));
  assert_int_equal(0, bdk_keygen(other, NULL));
  assert_memory_not_equal(secret, other, sizeof secret);
  assert_int_equal(BDK_E_INVALID, bdk_keygen(NULL, public_key));
  open_as(&p[0], NULL, secret);
  open_as(&p[1], NULL, secret);
  open_as(&p[2], NULL, other);
  assert_string_equal(p[0].id, p[1].id);
  assert_string_not_equal(p[0].id, p[2].id);
  snprintf(file, sizeof file, "/tmp/bodkin-spec-%d-identity", (int)getpid());
  open_as(&p[2], file, NULL);
  open_as(&p[3], file, NULL);
  assert_string_equal(p[2].id, p[3].id);
  struct stat st;
  assert_int_equal(0, stat(file, &st));
  assert_int_equal(0600, st.st_mode & 0777);
  unlink(file);
}

static void what_is_no_token_comes_back_as_an_error(void **state) {
  (void)state;
  const struct {
    const char *token, *token_text, *identity;
  } bad[] = {{.token = "/nonexistent/token"}, {.token_text = "x"}, {.identity = "/dev/null"}};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    bdk_config c = world_config();
    peer p = {0};
    c.token = bad[i].token;
    c.token_text = bad[i].token_text;
    c.identity = bad[i].identity;
    assert_int_equal(0, bdk_open(&p.node, &c));
    world_await(&p, 1, BDK_ERROR, 1, 1);
    assert_int_equal(BDK_E_INVALID, p.error);
    bdk_close(p.node);
  }
}

typedef struct heap {
  size_t bytes, count, refuse_at;
} heap;

static void *heap_resize(void *ctx, void *p, size_t old_size, size_t new_size) {
  heap *h = ctx;
  if (new_size == 0) {
    h->bytes -= old_size;
    free(p);
    return NULL;
  }
  // Lua collects garbage and tries once more: what is refused stays so. To shrink never fails.
  if (new_size > old_size && ++h->count >= h->refuse_at && h->refuse_at) return NULL;
  void *q = realloc(p, new_size);
  if (q) h->bytes += new_size - old_size;
  return q;
}

static void memory_comes_from_the_allocator_given(void **state) {
  (void)state;
  heap h = {0};
  bdk_config c = world_config();
  c.alloc = heap_resize;
  c.alloc_ctx = &h;
  peer p = {0};
  bdk_node_stats s;
  assert_int_equal(0, bdk_open(&p.node, &c));
  world_await(&p, 1, BDK_REGISTERED, 1, 1);
  assert_int_equal(0, bdk_stats(p.node, &s, sizeof s));
  assert_true(s.memory == h.bytes);
  bdk_close(p.node);
  assert_int_equal(0, h.bytes);
  size_t total = h.count;
  assert_true(total > 1000);
  // Without memory an opening fails, and leaves nothing behind.
  for (size_t at = 1; at < total; at = at < 40 ? at + 1 : at + at / 4) {
    h = (heap){.refuse_at = at};
    int r = bdk_open(&p.node, &c);
    if (r == 0) {
      for (int i = 0; i < 3; i++) bdk_update(p.node, BDK_CLOCK, 0);
      bdk_close(p.node);
    } else {
      assert_int_equal(BDK_E_LIMIT, r);
      assert_null(p.node);
    }
    assert_int_equal(0, h.bytes);
  }
}

// Not even when memory runs out and nothing but that can be said.
static void nothing_is_printed(void **state) {
  (void)state;
  heap h = {0};
  bdk_config c = world_config();
  c.alloc = heap_resize;
  c.alloc_ctx = &h;
  peer p = {0};
  char text[32] = {0};
  FILE *file = tmpfile();
  fflush(stderr);
  int saved = dup(2);
  dup2(fileno(file), 2);
  assert_int_equal(0, bdk_open(&p.node, &c));
  logged[0] = 0;
  h.refuse_at = h.count + 1;
  for (int i = 0; i < 5; i++) bdk_update(p.node, BDK_CLOCK, 0);
  bdk_close(p.node);
  dup2(saved, 2);
  close(saved);
  assert_true(strlen(logged) > 0);
  rewind(file);
  assert_int_equal(0, fread(text, 1, sizeof text - 1, file));
  fclose(file);
  assert_int_equal(0, h.bytes);
}

static void errors_have_sentences(void **state) {
  (void)state;
  assert_string_equal("no path to the peer worked", bdk_strerror(BDK_E_NO_PATH));
  assert_string_equal("nothing went wrong", bdk_strerror(0));
  assert_string_equal(strerror(2), bdk_strerror(-2));
  assert_string_equal("0.1.0", bdk_version());
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(two_nodes_connect_and_talk),
      cmocka_unit_test(why_is_told_as_lines_of_json),
      cmocka_unit_test(leaving_is_told_to_both),
      cmocka_unit_test(closing_tells_the_peer),
      cmocka_unit_test(events_carry_their_fields),
      cmocka_unit_test(nothing_happens_outside_update),
      cmocka_unit_test(an_idle_node_sleeps),
      cmocka_unit_test(another_thread_wakes_it),
      cmocka_unit_test(the_clock_may_be_the_engines),
      cmocka_unit_test(what_cannot_be_sent_is_refused_at_once),
      cmocka_unit_test(messages_that_nobody_fetches_are_bounded),
      cmocka_unit_test(update_is_not_entered_twice),
      cmocka_unit_test(configs_that_cannot_work_are_refused),
      cmocka_unit_test(failure_comes_as_an_event_and_may_be_tried_again),
      cmocka_unit_test(a_queue_matches_those_who_wait_in_it),
      cmocka_unit_test(a_ticket_is_taken_back),
      cmocka_unit_test(a_match_is_accepted_or_declined),
      cmocka_unit_test(a_party_is_matched_together),
      cmocka_unit_test(the_seed_decides),
      cmocka_unit_test(an_identity_is_kept_by_the_program_or_in_a_file),
      cmocka_unit_test(what_is_no_token_comes_back_as_an_error),
      cmocka_unit_test(memory_comes_from_the_allocator_given),
      cmocka_unit_test(nothing_is_printed),
      cmocka_unit_test(errors_have_sentences),
  };
  return cmocka_run_group_tests_name("node", tests, world_start, world_stop);
}
