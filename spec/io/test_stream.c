// SPDX-License-Identifier: MIT
// Unix sockets, pipes, terminals and files as streams.
#include "loop.h"

#include "io/stream.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

typedef struct world world;

typedef struct side {
  world *w;
  bdk_stream *s;
  size_t got, want; // bytes; the loop stops at `want`, and at the end when `stop_at_end`
  int reads, ends, error;
  bool echo, close_inside, stop_at_end, in_order;
  char text[64]; // the beginning of what came
} side;

struct world {
  loop l;
  bdk_listener *listener;
  int accepted;
  bool refuse, close_listener; // in the accept callback
  side client, server;
  char dir[32], path[64];
};

static void on_read(void *ctx, bdk_stream *s, const uint8_t *data, size_t len, int error) {
  side *x = ctx;
  assert_int_equal(0, x->ends);
  x->reads++;
  if (len == 0) {
    x->ends++;
    x->error = error;
    if (x->stop_at_end) loop_stop(&x->w->l);
  }
  for (size_t i = 0; i < len; i++) {
    if (x->got + i < sizeof x->text - 1) x->text[x->got + i] = (char)data[i];
    if (x->in_order) assert_int_equal((uint8_t)((x->got + i) % 251), data[i]);
  }
  x->got += len;
  if (x->echo && len > 0) assert_int_equal(0, bdk_stream_write(s, data, len));
  if (x->close_inside) {
    bdk_stream_close(s);
    x->s = NULL;
  }
  if (x->want && x->got >= x->want) loop_stop(&x->w->l);
}

static void on_accept(void *ctx, bdk_stream *s) {
  world *w = ctx;
  w->accepted++;
  if (w->refuse) {
    bdk_stream_close(s);
  } else {
    assert_null(w->server.s);
    w->server.s = s;
    bdk_stream_reader(s, on_read, &w->server);
  }
  if (w->close_listener) {
    bdk_listener_close(w->listener);
    w->listener = NULL;
  }
}

static void open_world(world *w) {
  memset(w, 0, sizeof *w);
  w->client.w = w->server.w = w;
  loop_open(&w->l, &loop_ev);
  strcpy(w->dir, "/tmp/bodkin-spec-XXXXXX");
  assert_non_null(mkdtemp(w->dir));
  snprintf(w->path, sizeof w->path, "%s/s", w->dir);
}

static void close_world(world *w) {
  bdk_stream_close(w->client.s);
  bdk_stream_close(w->server.s);
  bdk_listener_close(w->listener);
  loop_close(&w->l);
  assert_int_equal(0, rmdir(w->dir)); // nothing is left in it
}

static void listen_there(world *w) {
  assert_int_equal(0, bdk_listener_open(&w->listener, w->l.d, w->path, on_accept, w));
}

static void connect_there(world *w) {
  assert_int_equal(0, bdk_stream_connect(&w->client.s, w->l.d, w->path));
  bdk_stream_reader(w->client.s, on_read, &w->client);
}

static void write_pattern(side *x, size_t len) {
  uint8_t data[1000];
  for (size_t at = 0; at < len; at += sizeof data) {
    for (size_t i = 0; i < sizeof data; i++) data[i] = (uint8_t)((at + i) % 251);
    assert_int_equal(0, bdk_stream_write(x->s, data, sizeof data));
  }
}

static void what_is_written_is_echoed(void **state) {
  (void)state;
  world w;
  open_world(&w);
  listen_there(&w);
  connect_there(&w);
  w.server.echo = true;
  w.client.want = 11;
  assert_int_equal(0, bdk_stream_write(w.client.s, "hello ", 6));
  assert_int_equal(0, bdk_stream_write(w.client.s, "", 0));
  assert_int_equal(0, bdk_stream_write(w.client.s, "there", 5));
  loop_run(&w.l);
  assert_string_equal("hello there", w.client.text);
  assert_int_equal(1, w.server.reads); // one turn's writes leave together

  w.server.stop_at_end = true;
  bdk_stream_close(w.client.s);
  w.client.s = NULL;
  loop_run(&w.l);
  assert_int_equal(1, w.server.ends);
  assert_int_equal(0, w.server.error);
  loop_idle(&w.l, 2); // nothing comes after the end
  close_world(&w);
}

static void much_is_queued_and_arrives_in_order(void **state) {
  (void)state;
  world w;
  open_world(&w);
  listen_there(&w);
  connect_there(&w);
  w.server.in_order = true;
  w.server.want = 900000;
  write_pattern(&w.client, 900000);
  loop_run(&w.l);
  assert_int_equal(900000, w.server.got);
  close_world(&w);
}

static void a_closed_stream_still_writes_what_is_queued(void **state) {
  (void)state;
  world w;
  open_world(&w);
  listen_there(&w);
  connect_there(&w);
  w.server.in_order = w.server.stop_at_end = true;
  write_pattern(&w.client, 900000);
  bdk_stream_close(w.client.s);
  w.client.s = NULL;
  loop_run(&w.l);
  assert_int_equal(900000, w.server.got);
  assert_int_equal(0, w.l.d->endings != NULL);
  close_world(&w);
}

static void a_closed_stream_ends_with_its_driver_at_the_latest(void **state) {
  (void)state;
  world w;
  open_world(&w);
  listen_there(&w);
  connect_there(&w);
  loop_idle(&w.l, 1);
  bdk_stream_reader(w.server.s, NULL, NULL); // does not read
  write_pattern(&w.client, 900000);
  bdk_stream_close(w.client.s);
  w.client.s = NULL;
  assert_non_null(w.l.d->endings);
  close_world(&w); // the leak checker sees whether it is gone
}

static void a_reader_that_is_too_slow_is_cut_off(void **state) {
  (void)state;
  world w;
  open_world(&w);
  listen_there(&w);
  connect_there(&w);
  loop_idle(&w.l, 1);
  bdk_stream_reader(w.server.s, NULL, NULL);
  uint8_t data[10000] = {0};
  int r = 0;
  for (int i = 0; i < 1000 && r == 0; i++) r = bdk_stream_write(w.client.s, data, sizeof data);
  assert_int_equal(BDK_E_LIMIT, r);
  assert_int_equal(BDK_E_CLOSED, bdk_stream_write(w.client.s, data, 1));
  w.client.stop_at_end = true;
  loop_run(&w.l);
  assert_int_equal(1, w.client.ends);
  w.server.stop_at_end = true;
  bdk_stream_reader(w.server.s, on_read, &w.server);
  loop_run(&w.l);
  assert_int_equal(1, w.server.ends);
  close_world(&w);
}

static void a_peer_that_went_away_is_an_end_not_a_signal(void **state) {
  (void)state;
  world w;
  open_world(&w);
  listen_there(&w);
  connect_there(&w);
  w.refuse = true;
  w.client.stop_at_end = true;
  loop_run(&w.l);
  assert_int_equal(1, w.client.ends);
  assert_int_equal(0, bdk_stream_write(w.client.s, "x", 1)); // no SIGPIPE
  loop_idle(&w.l, 1);
  assert_int_equal(BDK_E_CLOSED, bdk_stream_write(w.client.s, "x", 1));
  close_world(&w);
}

static void streams_and_listeners_may_be_closed_in_their_callbacks(void **state) {
  (void)state;
  world w;
  open_world(&w);
  listen_there(&w);
  connect_there(&w);
  w.close_listener = w.server.close_inside = true;
  w.client.echo = w.server.echo = true; // what is written just before the close still leaves
  w.client.close_inside = w.client.stop_at_end = true;
  w.client.want = 5;
  assert_int_equal(0, bdk_stream_write(w.client.s, "hello", 5));
  loop_run(&w.l);
  assert_string_equal("hello", w.client.text);
  assert_null(w.listener);
  assert_null(w.server.s);
  assert_null(w.client.s);
  close_world(&w);
}

static void a_listener_s_file_is_private_and_removed_at_the_end(void **state) {
  (void)state;
  world w;
  struct stat st;
  open_world(&w);
  mode_t mask = umask(0);
  listen_there(&w);
  umask(mask);
  assert_int_equal(0, stat(w.path, &st));
  assert_int_equal(0600, st.st_mode & 07777);
  bdk_listener_close(w.listener);
  w.listener = NULL;
  assert_int_equal(-1, stat(w.path, &st));
  bdk_listener_close(NULL);
  close_world(&w);
}

static void a_file_nobody_answers_on_is_replaced(void **state) {
  (void)state;
  world w;
  open_world(&w);
  struct sockaddr_un at = {.sun_family = AF_UNIX};
  strcpy(at.sun_path, w.path);
  int fd = socket(AF_UNIX, SOCK_STREAM, 0);
  assert_int_equal(0, bind(fd, (struct sockaddr *)&at, sizeof at));
  assert_int_equal(0, listen(fd, 1));
  close(fd); // as after kill -9: the file stays
  assert_int_equal(-ECONNREFUSED, bdk_stream_connect(&w.client.s, w.l.d, w.path));
  listen_there(&w);
  connect_there(&w);
  w.server.want = 2;
  assert_int_equal(0, bdk_stream_write(w.client.s, "hi", 2));
  loop_run(&w.l);
  close_world(&w);
}

static void a_file_somebody_answers_on_is_left_alone(void **state) {
  (void)state;
  world w;
  open_world(&w);
  listen_there(&w);
  bdk_listener *second = NULL;
  assert_int_equal(-EADDRINUSE, bdk_listener_open(&second, w.l.d, w.path, on_accept, &w));
  assert_null(second);
  w.refuse = true; // the question whether anybody answers is a connection, too
  loop_idle(&w.l, 1);
  assert_int_equal(1, w.accepted);
  w.refuse = false;
  connect_there(&w);
  w.server.want = 2;
  assert_int_equal(0, bdk_stream_write(w.client.s, "hi", 2));
  loop_run(&w.l);
  close_world(&w);
}

static void a_file_that_is_no_socket_is_left_alone(void **state) {
  (void)state;
  world w;
  struct stat st;
  open_world(&w);
  int fd = open(w.path, O_CREAT | O_WRONLY, 0600);
  assert_int_equal(5, write(fd, "notes", 5));
  close(fd);
  assert_int_equal(-EADDRINUSE, bdk_listener_open(&w.listener, w.l.d, w.path, on_accept, &w));
  assert_int_equal(0, stat(w.path, &st));
  assert_int_equal(5, st.st_size);
  unlink(w.path);
  close_world(&w);
}

static void a_link_is_left_alone(void **state) {
  (void)state;
  world w;
  open_world(&w);
  char target[80];
  snprintf(target, sizeof target, "%s.target", w.path);
  // To nothing, to a file, to a socket nobody answers on: none is followed, and none removed.
  for (int kind = 0; kind < 3; kind++) {
    if (kind == 1) close(open(target, O_CREAT | O_WRONLY, 0600));
    if (kind == 2) {
      struct sockaddr_un at = {.sun_family = AF_UNIX};
      snprintf(at.sun_path, sizeof at.sun_path, "%s", target);
      int fd = socket(AF_UNIX, SOCK_STREAM, 0);
      assert_int_equal(0, bind(fd, (struct sockaddr *)&at, sizeof at));
      close(fd);
    }
    assert_int_equal(0, symlink(target, w.path));
    struct stat st;
    bdk_listener *l = NULL;
    assert_int_equal(-EADDRINUSE, bdk_listener_open(&l, w.l.d, w.path, on_accept, &w));
    assert_int_equal(0, lstat(w.path, &st));
    assert_true(S_ISLNK(st.st_mode));
    assert_int_equal(kind == 0 ? -1 : 0, lstat(target, &st));
    unlink(w.path);
    unlink(target);
  }
  close_world(&w);
}

static void another_user_s_file_is_left_alone(void **state) {
  (void)state;
  if (geteuid() != 0) skip();
  world w;
  open_world(&w);
  struct sockaddr_un at = {.sun_family = AF_UNIX};
  snprintf(at.sun_path, sizeof at.sun_path, "%s", w.path);
  int fd = socket(AF_UNIX, SOCK_STREAM, 0);
  assert_int_equal(0, bind(fd, (struct sockaddr *)&at, sizeof at));
  close(fd);
  assert_int_equal(0, chown(w.path, 12345, 12345));
  bdk_listener *l = NULL;
  assert_int_equal(-EADDRINUSE, bdk_listener_open(&l, w.l.d, w.path, on_accept, &w));
  assert_int_equal(0, unlink(w.path));
  close_world(&w);
}

static void a_successor_s_file_is_not_removed(void **state) {
  (void)state;
  world w;
  struct stat st;
  open_world(&w);
  listen_there(&w);
  bdk_listener *first = w.listener;
  unlink(w.path);
  listen_there(&w);
  bdk_listener_close(first);
  assert_int_equal(0, stat(w.path, &st));
  close_world(&w);
}

static void paths_that_cannot_be_are_errors(void **state) {
  (void)state;
  world w;
  open_world(&w);
  char path[200];
  memset(path, 'x', sizeof path - 1);
  path[sizeof path - 1] = 0;
  assert_int_equal(-ENAMETOOLONG, bdk_listener_open(&w.listener, w.l.d, path, on_accept, &w));
  assert_int_equal(-ENAMETOOLONG, bdk_stream_connect(&w.client.s, w.l.d, path));
  assert_int_equal(-EINVAL, bdk_listener_open(&w.listener, w.l.d, "", on_accept, &w));
  assert_int_equal(-ENOENT, bdk_listener_open(&w.listener, w.l.d, "/nonexistent/x", on_accept, &w));
  assert_int_equal(-ENOENT, bdk_stream_connect(&w.client.s, w.l.d, w.path));
  assert_int_equal(-EBADF, bdk_stream_wrap(&w.client.s, w.l.d, -1, false));
  assert_null(w.client.s);
  assert_null(w.listener);
  close_world(&w);
}

// --- what stdin may be

static void wrap(world *w, int fd) {
  assert_int_equal(0, bdk_stream_wrap(&w->client.s, w->l.d, fd, false));
  bdk_stream_reader(w->client.s, on_read, &w->client);
}

static void a_file_is_read_to_its_end_a_piece_each_turn(void **state) {
  (void)state;
  world w;
  open_world(&w);
  FILE *f = tmpfile();
  for (int i = 0; i < 100000; i++) fputc(i % 251, f);
  rewind(f);
  wrap(&w, fileno(f));
  w.client.in_order = w.client.stop_at_end = true;
  loop_run(&w.l);
  assert_int_equal(100000, w.client.got);
  assert_true(w.client.reads > 2);
  assert_int_equal(1, w.client.ends);
  fclose(f);
  close_world(&w);
}

static void dev_null_is_at_its_end(void **state) {
  (void)state;
  world w;
  open_world(&w);
  int fd = open("/dev/null", O_RDONLY);
  wrap(&w, fd);
  w.client.stop_at_end = true;
  loop_run(&w.l);
  assert_int_equal(1, w.client.ends);
  assert_int_equal(0, w.client.got);
  close(fd);
  close_world(&w);
}

static void a_shared_pipe_keeps_its_flags(void **state) {
  (void)state;
  world w;
  int fds[2];
  open_world(&w);
  assert_int_equal(0, pipe(fds));
  int flags = fcntl(fds[0], F_GETFL);
  wrap(&w, fds[0]);
  w.client.want = 4;
  assert_int_equal(4, write(fds[1], "one\n", 4));
  loop_run(&w.l);
  assert_int_equal(flags, fcntl(fds[0], F_GETFL));
  w.client.stop_at_end = true;
  close(fds[1]);
  loop_run(&w.l);
  assert_int_equal(1, w.client.ends);
  assert_string_equal("one\n", w.client.text);
  bdk_stream_close(w.client.s);
  w.client.s = NULL;
  assert_int_equal(0, close(fds[0])); // not owned: still open
  close_world(&w);
}

// Written without O_NONBLOCK and yet without blocking, though the pipe is full long before the end.
static void a_shared_pipe_is_written_without_blocking(void **state) {
  (void)state;
  world w;
  int fds[2];
  open_world(&w);
  assert_int_equal(0, pipe(fds));
  assert_int_equal(0, bdk_stream_wrap(&w.client.s, w.l.d, fds[1], false));
  write_pattern(&w.client, 300000);
  loop_idle(&w.l, 1);
  assert_int_equal(0, bdk_stream_wrap(&w.server.s, w.l.d, fds[0], true));
  bdk_stream_reader(w.server.s, on_read, &w.server);
  w.server.in_order = true;
  w.server.want = 300000;
  loop_run(&w.l);
  close(fds[1]);
  close_world(&w);
}

static void a_terminal_is_read_by_lines_and_keeps_its_flags(void **state) {
  (void)state;
  world w;
  open_world(&w);
  int outer = posix_openpt(O_RDWR | O_NOCTTY);
  assert_true(outer >= 0);
  assert_int_equal(0, grantpt(outer));
  assert_int_equal(0, unlockpt(outer));
  int inner = open(ptsname(outer), O_RDWR | O_NOCTTY);
  assert_true(inner >= 0);
  int flags = fcntl(inner, F_GETFL);
  wrap(&w, inner);
  assert_int_equal(3, write(outer, "hel", 3));
  loop_idle(&w.l, 2);
  assert_int_equal(0, w.client.got);
  w.client.want = 6;
  assert_int_equal(3, write(outer, "lo\n", 3));
  loop_run(&w.l);
  assert_string_equal("hello\n", w.client.text);
  assert_int_equal(flags, fcntl(inner, F_GETFL));
  bdk_stream_close(w.client.s);
  w.client.s = NULL;
  close(inner);
  close(outer);
  close_world(&w);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(what_is_written_is_echoed),
      cmocka_unit_test(much_is_queued_and_arrives_in_order),
      cmocka_unit_test(a_closed_stream_still_writes_what_is_queued),
      cmocka_unit_test(a_closed_stream_ends_with_its_driver_at_the_latest),
      cmocka_unit_test(a_reader_that_is_too_slow_is_cut_off),
      cmocka_unit_test(a_peer_that_went_away_is_an_end_not_a_signal),
      cmocka_unit_test(streams_and_listeners_may_be_closed_in_their_callbacks),
      cmocka_unit_test(a_listener_s_file_is_private_and_removed_at_the_end),
      cmocka_unit_test(a_file_nobody_answers_on_is_replaced),
      cmocka_unit_test(a_file_somebody_answers_on_is_left_alone),
      cmocka_unit_test(a_file_that_is_no_socket_is_left_alone),
      cmocka_unit_test(a_link_is_left_alone),
      cmocka_unit_test(another_user_s_file_is_left_alone),
      cmocka_unit_test(a_successor_s_file_is_not_removed),
      cmocka_unit_test(paths_that_cannot_be_are_errors),
      cmocka_unit_test(a_file_is_read_to_its_end_a_piece_each_turn),
      cmocka_unit_test(dev_null_is_at_its_end),
      cmocka_unit_test(a_shared_pipe_keeps_its_flags),
      cmocka_unit_test(a_shared_pipe_is_written_without_blocking),
      cmocka_unit_test(a_terminal_is_read_by_lines_and_keeps_its_flags),
  };
  return cmocka_run_group_tests_name("stream", tests, NULL, NULL);
}
