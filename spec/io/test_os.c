// SPDX-License-Identifier: MIT
// Files that are their owner's alone, in a directory of the spec's own.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "io/os.h"

static char dir[] = "/tmp/bodkin-os-XXXXXX";
static char at[64];

static char *in_dir(const char *name) {
  snprintf(at, sizeof at, "%s/%s", dir, name);
  return at;
}

static int make_dir(void **state) {
  (void)state;
  return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state) {
  (void)state;
  char command[80];
  snprintf(command, sizeof command, "rm -rf %s", dir);
  return system(command);
}

static int entries(void) {
  DIR *d = opendir(dir);
  int n = 0;
  for (struct dirent *e; (e = readdir(d));) n += e->d_name[0] != '.';
  closedir(d);
  return n;
}

static void a_file_is_made_for_its_owner_alone(void **state) {
  (void)state;
  char *path = in_dir("made"), out[8];
  size_t len;
  struct stat st;
  mode_t old = umask(0);
  assert_int_equal(0, bdk_os_write_private(path, "secret", 6, false));
  umask(old);
  assert_int_equal(0, stat(path, &st));
  assert_int_equal(0600, st.st_mode & 07777);
  assert_int_equal(0, bdk_os_read_private(path, 077, out, sizeof out, &len));
  assert_int_equal(6, len);
  assert_memory_equal("secret", out, 6);
  int before = entries();
  assert_int_equal(-EEXIST, bdk_os_write_private(path, "other", 5, false));
  assert_int_equal(before, entries()); // nothing half made lies about
  assert_int_equal(0, bdk_os_read_private(path, 077, out, sizeof out, &len));
  assert_memory_equal("secret", out, 6);
  assert_int_equal(0, bdk_os_write_private(path, "other", 5, true));
  assert_int_equal(0, bdk_os_read_private(path, 077, out, sizeof out, &len));
  assert_int_equal(5, len);
  assert_int_equal(before, entries());
}

static void a_link_stays_when_what_it_names_is_replaced(void **state) {
  (void)state;
  char path[64], out[8];
  size_t len;
  struct stat st;
  strcpy(path, in_dir("target"));
  assert_int_equal(0, bdk_os_write_private(path, "one", 3, false));
  char *link = in_dir("link");
  assert_int_equal(0, symlink("target", link));
  assert_int_equal(-EEXIST, bdk_os_write_private(link, "two", 3, false));
  assert_int_equal(0, bdk_os_write_private(link, "two", 3, true));
  assert_int_equal(0, lstat(link, &st));
  assert_true(S_ISLNK(st.st_mode));
  assert_int_equal(0, bdk_os_read_private(path, 077, out, sizeof out, &len));
  assert_memory_equal("two", out, 3);
}

static void one_that_others_may_touch_is_refused(void **state) {
  (void)state;
  char *path = in_dir("open"), out[8];
  size_t len;
  assert_int_equal(0, bdk_os_write_private(path, "secret", 6, false));
  for (unsigned bit = 1; bit <= 0100; bit <<= 1) {
    assert_int_equal(0, chmod(path, 0600 | bit));
    memset(out, 0, sizeof out);
    int r = bdk_os_read_private(path, 077, out, sizeof out, &len);
    assert_int_equal(bit < 0100 ? BDK_E_REFUSED : 0, r);
    assert_int_equal(bit < 0100 ? 0 : 's', out[0]);
  }
  assert_int_equal(0, chmod(path, 0644));
  assert_int_equal(0, bdk_os_read_private(path, 022, out, sizeof out, &len));
  assert_int_equal(0, chmod(path, 0664));
  assert_int_equal(BDK_E_REFUSED, bdk_os_read_private(path, 022, out, sizeof out, &len));
}

static void what_is_no_file_or_too_long_is_refused(void **state) {
  (void)state;
  char out[8];
  size_t len;
  assert_int_equal(-ENOENT, bdk_os_read_private(in_dir("none"), 077, out, sizeof out, &len));
  assert_int_equal(-EISDIR, bdk_os_read_private(dir, 0, out, sizeof out, &len));
  char *fifo = in_dir("fifo"); // nobody writes to it: a blocking open would never return
  assert_int_equal(0, mkfifo(fifo, 0600));
  assert_int_equal(-EINVAL, bdk_os_read_private(fifo, 077, out, sizeof out, &len));
  char *path = in_dir("eight");
  assert_int_equal(0, bdk_os_write_private(path, "12345678", 8, false));
  assert_int_equal(0, bdk_os_read_private(path, 077, out, 8, &len));
  assert_int_equal(8, len);
  assert_int_equal(BDK_E_LIMIT, bdk_os_read_private(path, 077, out, 7, &len));
  assert_int_equal(-ENOENT, bdk_os_write_private(in_dir("no/such"), "x", 1, false));
}

static void directories_are_made_for_their_owner_alone(void **state) {
  (void)state;
  struct stat st;
  mode_t old = umask(0);
  assert_int_equal(0, bdk_os_make_parents(in_dir("a/b/file")));
  umask(old);
  assert_int_equal(0, stat(in_dir("a/b"), &st));
  assert_int_equal(0700, st.st_mode & 07777);
  assert_int_equal(-1, stat(in_dir("a/b/file"), &st));
  assert_int_equal(0, bdk_os_make_parents(in_dir("a/b/file")));
  assert_int_equal(0, bdk_os_make_parents("/"));
  assert_int_equal(0, bdk_os_make_parents("name"));
  assert_int_equal(0, bdk_os_write_private(in_dir("a/file"), "x", 1, false));
  assert_int_equal(-ENOTDIR, bdk_os_make_parents(in_dir("a/file/b/c")));
}

// Several processes make one file at once: one does, and nobody ever reads it half written.
static void of_many_who_make_one_at_once_one_does(void **state) {
  (void)state;
  char *path = in_dir("race"), mine[4096], out[4096];
  enum { MANY = 8 };
  for (int i = 0; i < MANY; i++) {
    if (fork() > 0) continue;
    memset(mine, 'a' + i, sizeof mine);
    int r = bdk_os_write_private(path, mine, sizeof mine, false);
    size_t len = 0;
    bool whole = bdk_os_read_private(path, 077, out, sizeof out, &len) == 0 && len == sizeof out;
    _exit(!whole ? 2 : r == 0 ? 1 : r == -EEXIST ? 0 : 3);
  }
  int made = 0;
  for (int i = 0, status; i < MANY; i++) {
    assert_true(wait(&status) > 0);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) < 2);
    made += WEXITSTATUS(status);
  }
  assert_int_equal(1, made);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_file_is_made_for_its_owner_alone),
      cmocka_unit_test(a_link_stays_when_what_it_names_is_replaced),
      cmocka_unit_test(one_that_others_may_touch_is_refused),
      cmocka_unit_test(what_is_no_file_or_too_long_is_refused),
      cmocka_unit_test(directories_are_made_for_their_owner_alone),
      cmocka_unit_test(of_many_who_make_one_at_once_one_does),
  };
  return cmocka_run_group_tests_name("os", tests, make_dir, remove_dir);
}
