// SPDX-License-Identifier: MIT
// The relay's table: what one end of a pair sends reaches the other and nobody else, within its bounds.
#include "support.h"

#include "core/relay.h"

#define SECOND 1000000u

typedef struct fixture {
  spec_heap heap;
  bdk_counters counters;
  bdk_relay *relay;
  bdk_relay_end own, other;
  bool news;
  uint64_t expires_us; // of tickets
} fixture;

static bdk_route at(const char *text, uint16_t sock) {
  bdk_route route = {.sock = sock};
  assert_int_equal(bdk_addr_parse(&route.remote, text, strlen(text), 0), 0);
  return route;
}

static void begin(fixture *f, bdk_relay_config config) {
  memset(f, 0, sizeof *f);
  f->expires_us = 1000u * SECOND;
  config.alloc = (bdk_alloc){spec_resize, &f->heap};
  config.counters = &f->counters;
  f->relay = bdk_relay_new(&config);
  assert_non_null(f->relay);
}

static void end(fixture *f) {
  bdk_relay_free(f->relay);
  assert_int_equal(f->heap.bytes, 0);
  assert_int_equal(f->heap.blocks, 0);
}

// Opens an end of the pair of that number. Its tag is 1000 * pair + role.
static int open_end(fixture *f, uint64_t now_us, int pair, uint8_t role, const char *from, const char *hello) {
  uint8_t name[BDK_RELAY_PAIR_LEN] = {(uint8_t)pair, [8] = (uint8_t)(pair >> 8)}, tx[BDK_TX_LEN] = {role};
  bdk_relay_request request = {.pair = name,
                               .role = role,
                               .expires_us = f->expires_us,
                               .from = at(from, 1),
                               .tag = (uint32_t)(1000 * pair + role),
                               .tx = tx,
                               .hello = (const uint8_t *)hello,
                               .hello_len = strlen(hello)};
  return bdk_relay_open(f->relay, now_us, &request, &f->own, &f->other, &f->news);
}

static bdk_relay_verdict feed(fixture *f, uint32_t channel, const char *from, size_t len, bdk_route *to,
                              uint8_t head[BDK_RELAY_HEAD]) {
  uint8_t bytes[BDK_DATAGRAM_MAX + 1] = {BDK_RELAY_MARK, (uint8_t)(channel >> 24), (uint8_t)(channel >> 16),
                                         (uint8_t)(channel >> 8), (uint8_t)channel};
  bdk_route route = at(from, 1);
  return bdk_relay_input(f->relay, &route, bytes, len, to, head);
}

static uint32_t tag_in(const uint8_t head[BDK_RELAY_HEAD]) {
  return (uint32_t)head[1] << 24 | (uint32_t)head[2] << 16 | (uint32_t)head[3] << 8 | head[4];
}

static void forwards_between_the_ends_of_a_pair(void **state) {
  (void)state;
  fixture f;
  begin(&f, (bdk_relay_config){0});
  bdk_route to, a = at("203.0.113.1:1", 1), b = at("203.0.113.2:2", 1);
  uint8_t head[BDK_RELAY_HEAD];
  assert_int_equal(open_end(&f, 0, 7, 0, "203.0.113.1:1", "hello of a"), 0);
  assert_int_equal(f.own.hello_len, 0);
  assert_false(f.news);
  uint32_t ca = f.own.channel;
  assert_int_equal(feed(&f, ca, "203.0.113.1:1", 100, &to, head), BDK_RELAY_DROP); // nobody is there yet
  assert_int_equal(f.counters.value[BDK_COUNT_relay_alone], 1);
  assert_int_equal(open_end(&f, 0, 7, 1, "203.0.113.2:2", "hello of b"), 0);
  assert_memory_equal(f.own.hello, "hello of a", f.own.hello_len);
  assert_true(f.news); // a waits for it
  assert_memory_equal(f.other.hello, "hello of b", f.other.hello_len);
  assert_int_equal(f.other.channel, ca);
  assert_int_equal(f.other.tx[0], 0);
  assert_true(bdk_addr_equal(&f.other.to.remote, &a.remote));
  uint32_t cb = f.own.channel;
  assert_int_not_equal(ca, cb);
  assert_int_equal(feed(&f, ca, "203.0.113.1:1", 100, &to, head), BDK_RELAY_FORWARD);
  assert_true(bdk_addr_equal(&to.remote, &b.remote));
  assert_int_equal(head[0], BDK_RELAY_MARK);
  assert_int_equal(tag_in(head), 7001);
  assert_int_equal(feed(&f, cb, "203.0.113.2:2", BDK_DATAGRAM_MAX, &to, head), BDK_RELAY_FORWARD);
  assert_true(bdk_addr_equal(&to.remote, &a.remote));
  assert_int_equal(tag_in(head), 7000);
  assert_int_equal(f.counters.value[BDK_COUNT_relay_datagrams], 2);
  assert_int_equal(f.counters.value[BDK_COUNT_relay_bytes], 100 + BDK_DATAGRAM_MAX);
  // A repeat changes nothing, and is answered again.
  assert_int_equal(open_end(&f, 0, 7, 0, "203.0.113.1:1", "hello of a"), 0);
  assert_int_equal(f.own.channel, ca);
  assert_false(f.news);
  assert_memory_equal(f.own.hello, "hello of b", f.own.hello_len);
  assert_int_equal(f.counters.value[BDK_COUNT_relay_opened], 2);
  assert_int_equal(bdk_relay_count(f.relay), 1);
  // A pair whose name only begins like that one's is another.
  assert_int_equal(open_end(&f, 0, 7 + 256, 1, "203.0.113.3:3", "hello of c"), 0);
  assert_int_equal(f.own.hello_len, 0);
  assert_false(f.news);
  assert_int_equal(bdk_relay_count(f.relay), 2);
  end(&f);
}

static void tells_who_is_not_an_end_in_no_more_than_a_head(void **state) {
  (void)state;
  fixture f;
  begin(&f, (bdk_relay_config){0});
  bdk_route to, stranger = at("203.0.113.9:9", 1);
  uint8_t head[BDK_RELAY_HEAD];
  open_end(&f, 0, 1, 0, "203.0.113.1:1", "a");
  uint32_t channel = f.own.channel;
  open_end(&f, 0, 1, 1, "203.0.113.2:2", "b");
  uint32_t wrong[] = {channel, channel ^ 1, channel ^ 1u << 19, channel + 2, 0, UINT32_MAX};
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
    assert_int_equal(feed(&f, wrong[i], "203.0.113.9:9", 30, &to, head), BDK_RELAY_LOST);
    assert_true(bdk_addr_equal(&to.remote, &stranger.remote));
    assert_int_equal(tag_in(head), wrong[i]);
    if (i) assert_int_equal(feed(&f, wrong[i], "203.0.113.1:1", 30, &to, head), BDK_RELAY_LOST);
  }
  // The other port of the same host, and the same address at another socket of ours.
  assert_int_equal(feed(&f, channel, "203.0.113.1:3", 30, &to, head), BDK_RELAY_LOST);
  uint8_t bytes[9] = {BDK_RELAY_MARK, (uint8_t)(channel >> 24), (uint8_t)(channel >> 16), (uint8_t)(channel >> 8),
                      (uint8_t)channel};
  bdk_route elsewhere = at("203.0.113.1:1", 2);
  assert_int_equal(bdk_relay_input(f.relay, &elsewhere, bytes, sizeof bytes, &to, head), BDK_RELAY_LOST);
  for (size_t len = 0; len <= BDK_RELAY_HEAD; len++)
    assert_int_equal(feed(&f, channel, "203.0.113.1:1", len, &to, head), BDK_RELAY_DROP);
  // What one relay says of a channel it does not know ends at another, even if that one does not know it either.
  assert_int_equal(feed(&f, channel ^ 1u << 19, "203.0.113.9:9", BDK_RELAY_HEAD, &to, head), BDK_RELAY_DROP);
  assert_int_equal(feed(&f, channel, "203.0.113.1:1", BDK_DATAGRAM_MAX + 1, &to, head), BDK_RELAY_DROP);
  assert_int_equal(f.counters.value[BDK_COUNT_relay_datagrams], 0);
  end(&f);
}

static void follows_an_end_that_opens_from_elsewhere(void **state) {
  (void)state;
  fixture f;
  begin(&f, (bdk_relay_config){0});
  bdk_route to, moved = at("203.0.113.3:3", 1);
  uint8_t head[BDK_RELAY_HEAD];
  open_end(&f, 0, 1, 0, "203.0.113.1:1", "a");
  uint32_t ca = f.own.channel;
  open_end(&f, 0, 1, 1, "203.0.113.2:2", "b");
  uint32_t cb = f.own.channel;
  open_end(&f, 0, 1, 0, "203.0.113.3:3", "a");
  assert_int_equal(f.own.channel, ca);
  assert_false(f.news);
  assert_int_equal(feed(&f, ca, "203.0.113.1:1", 30, &to, head), BDK_RELAY_LOST);
  assert_int_equal(feed(&f, ca, "203.0.113.3:3", 30, &to, head), BDK_RELAY_FORWARD);
  assert_int_equal(feed(&f, cb, "203.0.113.2:2", 30, &to, head), BDK_RELAY_FORWARD);
  assert_true(bdk_addr_equal(&to.remote, &moved.remote));
  // One that began anew, with another hello: the other has to hear of it.
  open_end(&f, 0, 1, 0, "203.0.113.3:3", "again");
  assert_true(f.news);
  assert_memory_equal(f.other.hello, "again", f.other.hello_len);
  end(&f);
}

static void bounds_the_rate_of_an_end_and_the_bytes_of_a_pair(void **state) {
  (void)state;
  fixture f;
  begin(&f, (bdk_relay_config){.rate = 10000, .burst = 5000, .bytes_max = 20000});
  bdk_route to;
  uint8_t head[BDK_RELAY_HEAD];
  open_end(&f, 0, 1, 0, "203.0.113.1:1", "a");
  uint32_t ca = f.own.channel;
  open_end(&f, 0, 1, 1, "203.0.113.2:2", "b");
  uint32_t cb = f.own.channel;
  unsigned through = 0;
  for (int i = 0; i < 20; i++) through += feed(&f, ca, "203.0.113.1:1", 1000, &to, head) == BDK_RELAY_FORWARD;
  assert_int_equal(through, 5);                                                        // the burst
  assert_int_equal(feed(&f, cb, "203.0.113.2:2", 1000, &to, head), BDK_RELAY_FORWARD); // has a bucket of its own
  bdk_relay_sweep(f.relay, SECOND / 2);
  for (int i = 0; i < 20; i++) through += feed(&f, ca, "203.0.113.1:1", 1000, &to, head) == BDK_RELAY_FORWARD;
  assert_int_equal(through, 10);
  for (unsigned s = 1; s < 10; s++) {
    bdk_relay_sweep(f.relay, s * SECOND);
    for (int i = 0; i < 20; i++) through += feed(&f, ca, "203.0.113.1:1", 1000, &to, head) == BDK_RELAY_FORWARD;
  }
  assert_in_range(through, 19, 20); // of both: twenty, and one more that found them not yet spent
  assert_int_equal(open_end(&f, 10 * SECOND, 1, 0, "203.0.113.1:1", "a"), BDK_E_LIMIT);
  assert_int_equal(feed(&f, ca, "203.0.113.1:1", 1000, &to, head), BDK_RELAY_LOST); // so that it asks, and hears why
  assert_true(f.counters.value[BDK_COUNT_relay_limited] > 50);
  end(&f);
}

static void forgets_what_is_idle_or_has_expired(void **state) {
  (void)state;
  fixture f;
  begin(&f, (bdk_relay_config){0});
  bdk_route to;
  uint8_t head[BDK_RELAY_HEAD];
  open_end(&f, 0, 1, 0, "203.0.113.1:1", "a");
  uint32_t idle = f.own.channel;
  open_end(&f, 0, 2, 0, "203.0.113.3:1", "a");
  uint32_t busy = f.own.channel;
  open_end(&f, 0, 2, 1, "203.0.113.4:1", "b");
  f.expires_us = 500u * SECOND; // an old one takes nothing from what a later one gave
  open_end(&f, 0, 2, 1, "203.0.113.4:1", "b");
  uint64_t now = 0;
  for (; now < 999u * SECOND; now += SECOND) {
    bdk_relay_sweep(f.relay, now);
    assert_int_equal(feed(&f, busy, "203.0.113.3:1", 30, &to, head), BDK_RELAY_FORWARD);
    assert_int_equal(bdk_relay_count(f.relay), now < BDK_RELAY_IDLE_US ? 2 : 1);
  }
  assert_int_equal(feed(&f, idle, "203.0.113.1:1", 30, &to, head), BDK_RELAY_LOST);
  bdk_relay_sweep(f.relay, 1000u * SECOND); // their tickets' end
  assert_int_equal(bdk_relay_count(f.relay), 0);
  assert_int_equal(feed(&f, busy, "203.0.113.3:1", 30, &to, head), BDK_RELAY_LOST);
  end(&f);
}

static void holds_so_many_pairs_and_survives_without_memory(void **state) {
  (void)state;
  fixture f;
  begin(&f, (bdk_relay_config){.max = 3});
  for (int pair = 1; pair <= 3; pair++) assert_int_equal(open_end(&f, 0, pair, 0, "203.0.113.1:1", "a"), 0);
  assert_int_equal(open_end(&f, 0, 4, 0, "203.0.113.1:1", "a"), BDK_E_LIMIT);
  assert_int_equal(open_end(&f, 0, 3, 1, "203.0.113.2:1", "b"), 0); // into one that is there
  bdk_relay_sweep(f.relay, BDK_RELAY_IDLE_US);
  f.heap.fail_at = f.heap.calls + 1;
  assert_int_equal(open_end(&f, BDK_RELAY_IDLE_US, 5, 0, "203.0.113.1:1", "a"), BDK_E_LIMIT);
  assert_int_equal(open_end(&f, BDK_RELAY_IDLE_US, 5, 0, "203.0.113.1:1", "a"), 0);
  end(&f);
  for (size_t n = 1; n <= 3; n++) {
    spec_heap heap = {.fail_at = n};
    assert_null(bdk_relay_new(&(bdk_relay_config){.alloc = {spec_resize, &heap}}));
    assert_int_equal(heap.blocks, 0);
  }
  bdk_relay_free(NULL);
}

// One in 8,192 would be 0 by chance.
static void never_gives_out_channel_0(void **state) {
  (void)state;
  for (unsigned i = 0; i < 40000; i++) {
    fixture f;
    begin(&f, (bdk_relay_config){.max = 1, .seed = {(uint8_t)i, (uint8_t)(i >> 8)}});
    open_end(&f, 0, 1, 0, "203.0.113.1:1", "a");
    assert_int_not_equal(f.own.channel, 0);
    end(&f);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(forwards_between_the_ends_of_a_pair),
      cmocka_unit_test(tells_who_is_not_an_end_in_no_more_than_a_head),
      cmocka_unit_test(follows_an_end_that_opens_from_elsewhere),
      cmocka_unit_test(bounds_the_rate_of_an_end_and_the_bytes_of_a_pair),
      cmocka_unit_test(forgets_what_is_idle_or_has_expired),
      cmocka_unit_test(holds_so_many_pairs_and_survives_without_memory),
      cmocka_unit_test(never_gives_out_channel_0),
  };
  return cmocka_run_group_tests_name("core/relay", tests, NULL, NULL);
}
