// SPDX-License-Identifier: MIT
// Output that waits for nobody: pipes, terminals, sockets, full disks.
#include <setjmp.h> // before cmocka's
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "io/say.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { LINE = 100, MOST = 100000 }; // lines, bytes; no pipe or terminal here takes so many lines

static char line[LINE];

// Says lines until one does not go out whole; how many did. A wait would end in the alarm.
static int fill(int fd, size_t len) {
  static char text[BDK_SAY_WHOLE];
  memset(text, 'x', sizeof text);
  alarm(20);
  int n = 0;
  while (n < MOST && bdk_say(fd, text, len) == (int)len) n++;
  alarm(0);
  assert_in_range(n, 1, MOST - 1);
  return n;
}

static void set_pipe(int pair[2]) {
  assert_int_equal(0, pipe(pair));
  memset(line, 'x', sizeof line);
}

static void a_pipe_takes_lines_whole_or_not_at_all(void **state) {
  (void)state;
  static const size_t lengths[] = {LINE, 1500, BDK_SAY_WHOLE};
  static char got[1 << 20];
  for (int i = 0; i < 3; i++) {
    int pair[2];
    set_pipe(pair);
    int flags = fcntl(pair[1], F_GETFL), n = fill(pair[1], lengths[i]);
    assert_int_equal(0, bdk_say(pair[1], got, lengths[i]));
    assert_int_equal(flags, fcntl(pair[1], F_GETFL));
    assert_int_equal(n * (int)lengths[i], read(pair[0], got, sizeof got));
    assert_int_equal(LINE, bdk_say(pair[1], line, sizeof line));
    close(pair[0]);
    close(pair[1]);
  }
}

static void a_pipe_without_a_reader_is_an_error_not_a_signal(void **state) {
  (void)state;
  int pair[2];
  set_pipe(pair);
  close(pair[0]);
  assert_int_equal(-EPIPE, bdk_say(pair[1], line, sizeof line));
  close(pair[1]);
  assert_int_equal(-EBADF, bdk_say(pair[1], line, sizeof line));
}

static void a_terminal_that_stands_still_is_not_waited_for(void **state) {
  (void)state;
  memset(line, 'x', sizeof line);
  int outer = posix_openpt(O_RDWR | O_NOCTTY);
  assert_int_equal(0, grantpt(outer));
  assert_int_equal(0, unlockpt(outer));
  int inner = open(ptsname(outer), O_RDWR | O_NOCTTY);
  assert_true(inner >= 0);
  int flags = fcntl(inner, F_GETFL);
  fill(inner, LINE);
  for (int i = 0; i < 3; i++) assert_int_equal(0, bdk_say(inner, line, sizeof line));
  assert_int_equal(flags, fcntl(inner, F_GETFL));
  close(inner);
  close(outer);
}

static void a_socket_likewise(void **state) {
  (void)state;
  int pair[2];
  assert_int_equal(0, socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
  fill(pair[0], LINE);
  assert_int_equal(0, bdk_say(pair[0], line, sizeof line));
  close(pair[1]);
  assert_int_equal(-EPIPE, bdk_say(pair[0], line, sizeof line));
  close(pair[0]);
}

static void a_full_disk_is_an_error(void **state) {
  (void)state;
  int fd = open("/dev/full", O_WRONLY);
  assert_int_equal(-ENOSPC, bdk_say(fd, line, sizeof line));
  close(fd);
}

// Then the pipe cannot be opened anew.
static void without_descriptors_nothing_blocks_either(void **state) {
  (void)state;
  int pair[2];
  set_pipe(pair);
  struct rlimit before, none;
  assert_int_equal(0, getrlimit(RLIMIT_NOFILE, &before));
  none = before;
  none.rlim_cur = (rlim_t)pair[1] + 1; // as many as are open
  assert_int_equal(0, setrlimit(RLIMIT_NOFILE, &none));
  fill(pair[1], LINE);
  assert_int_equal(0, bdk_say(pair[1], line, sizeof line));
  assert_int_equal(0, setrlimit(RLIMIT_NOFILE, &before));
  close(pair[0]);
  close(pair[1]);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_pipe_takes_lines_whole_or_not_at_all),
      cmocka_unit_test(a_pipe_without_a_reader_is_an_error_not_a_signal),
      cmocka_unit_test(a_terminal_that_stands_still_is_not_waited_for),
      cmocka_unit_test(a_socket_likewise),
      cmocka_unit_test(a_full_disk_is_an_error),
      cmocka_unit_test(without_descriptors_nothing_blocks_either),
  };
  signal(SIGPIPE, SIG_IGN);
  return cmocka_run_group_tests_name("say", tests, NULL, NULL);
}
