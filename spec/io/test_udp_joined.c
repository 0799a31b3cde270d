// SPDX-License-Identifier: MIT
// UDP sockets that give the kernel a burst to one place as one.
#include "udp.h"

// What goes to one place leaves as one call's one message, and arrives as it was given: datagrams of one length, the
// last of them shorter, then those that do not fit in with it.
static void a_burst_to_one_place_passes_the_kernel_joined(void **state) {
  (void)state;
  static const uint16_t lens[] = {100, 100, 100, 40, 60, 60, 0, 60};
  uint8_t text[128];
  world w;
  open_world(&w, "127.0.0.1:0", "127.0.0.1:0");
  bdk_udp *c = open_udp(&w, "127.0.0.1:0", 3);
  bdk_route b = to(w.b, "127.0.0.1"), ttl = b, other = to(c, "127.0.0.1");
  ttl.ttl = 9;
  int sent = sizeof lens / sizeof *lens;
  for (int i = 0; i < sent; i++) {
    memset(text, 'a' + i, sizeof text);
    assert_int_equal(0, bdk_udp_send(w.a, &b, text, lens[i]));
  }
  memset(text, 'z', sizeof text);
  assert_int_equal(0, bdk_udp_send(w.a, &other, text, 60));
  assert_int_equal(0, bdk_udp_send(w.a, &ttl, text, 60));
  assert_int_equal(0, bdk_udp_send(w.a, &b, text, 60));
  w.want = sent + 3;
  w.keep = true;
  tx_messages = 0;
  loop_run(&w.l);
  assert_int_equal(sent + 3, w.got);
  assert_int_equal(7, tx_messages); // 100 100 100 40 | 60 60 | 0 | 60 | the other's | with a TTL | without
  for (int i = 0, at = 0; i < w.got; i++) {
    if (w.kept[i].sock == 3) continue;
    int n = at++;
    assert_int_equal(n < sent ? lens[n] : 60, w.kept[i].len);
    if (w.kept[i].len) assert_int_equal(n < sent ? 'a' + n : 'z', w.kept[i].first);
    if (w.kept[i].len) assert_int_equal(w.kept[i].first, w.kept[i].last);
  }
  assert_int_equal(sent + 3, w.counters.value[BDK_COUNT_udp_tx]);
  assert_int_equal(100 * 3 + 40 + 60 * 6, w.counters.value[BDK_COUNT_udp_tx_bytes]);
  bdk_udp_close(c);
  close_world(&w);
}

// An error is one datagram's, whatever it left joined with: each gets its own try.
static void what_the_kernel_does_not_take_joined_it_gets_one_by_one(void **state) {
  (void)state;
  int errors[] = {EIO, EINVAL, EPERM, EMSGSIZE};
  for (size_t i = 0; i < sizeof errors / sizeof errors[0]; i++) {
    world w;
    open_world(&w, "127.0.0.1:0", "127.0.0.1:0");
    bool for_good = errors[i] == EIO || errors[i] == EINVAL;
    for (int burst = 1; burst <= 2; burst++) {
      tx_fault.error = errors[i];
      tx_fault.times = burst == 1 ? 2 : 0; // all four, then the first of them
      for (int n = 0; n < 4; n++) send_text(w.a, to(w.b, "127.0.0.1"), "taken");
      tx_messages = 0;
      w.want = burst == 1 ? 3 : 7;
      loop_run(&w.l);
      assert_int_equal(w.want, w.got);
      assert_int_equal(burst == 1 ? 3 : for_good ? 4 : 1, tx_messages);
    }
    assert_int_equal(7, w.counters.value[BDK_COUNT_udp_tx]);
    assert_int_equal(7 * 5, w.counters.value[BDK_COUNT_udp_tx_bytes]);
    assert_int_equal(1, w.counters.value[BDK_COUNT_udp_tx_unreachable]);
    assert_int_equal(1, w.unreachable);
    assert_int_equal(errors[i], w.unreachable_error);
    close_world(&w);
  }
}

// Of two bursts the kernel takes the first: the second waits whole.
static void a_joined_burst_that_was_not_taken_waits(void **state) {
  (void)state;
  world w;
  open_world(&w, "127.0.0.1:0", "127.0.0.1:0");
  tx_fault.limit = 1;
  tx_fault.error = EAGAIN;
  tx_fault.times = 1;
  for (int n = 0; n < 3; n++) send_text(w.a, to(w.b, "127.0.0.1"), "first");
  for (int n = 0; n < 3; n++) send_text(w.a, to(w.b, "127.0.0.1"), "second");
  w.want = 6;
  loop_run(&w.l);
  assert_int_equal(6, w.got);
  assert_memory_equal("second", w.data, 6);
  assert_int_equal(6, w.counters.value[BDK_COUNT_udp_tx]);
  assert_int_equal(3 * 11, w.counters.value[BDK_COUNT_udp_tx_bytes]);
  assert_int_equal(1, w.counters.value[BDK_COUNT_udp_tx_again]);
  close_world(&w);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      TEST(a_burst_to_one_place_passes_the_kernel_joined),
      TEST(what_the_kernel_does_not_take_joined_it_gets_one_by_one),
      TEST(a_joined_burst_that_was_not_taken_waits),
  };
  return cmocka_run_group_tests_name("udp joined", tests, NULL, NULL);
}
