// SPDX-License-Identifier: MIT
#include "os.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

uint64_t bdk_os_now_us(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000u + (uint64_t)t.tv_nsec / 1000u;
}

void bdk_os_random(void *out, size_t len) {
  uint8_t *p = out;
  while (len > 0) {
    ssize_t n = getrandom(p, len, 0);
    if (n < 0 && errno == EINTR) continue;
    // Without entropy every key made here could be guessed: there is no safe way to go on.
    if (n < 0) abort();
    p += n;
    len -= (size_t)n;
  }
}

static void *resize(void *ctx, void *p, size_t old_size, size_t new_size) {
  (void)ctx;
  (void)old_size;
  if (new_size == 0) {
    free(p);
    return NULL;
  }
  return realloc(p, new_size);
}

const bdk_alloc bdk_os_alloc = {.resize = resize, .ctx = NULL};

static int read_whole(int fd, char *out, size_t cap, size_t *len) {
  *len = 0;
  for (;;) {
    char beyond; // to tell a file of `cap` bytes from a longer one
    bool full = *len == cap;
    ssize_t n = read(fd, full ? &beyond : out + *len, full ? 1 : cap - *len);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return n < 0 ? -errno : 0;
    if (full) return BDK_E_LIMIT;
    *len += (size_t)n;
  }
}

int bdk_os_read_private(const char *path, unsigned forbidden, void *out, size_t cap, size_t *len) {
  // What is opened is what is looked at, whatever happens to the name; and a FIFO must not make us wait.
  int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return -errno;
  struct stat st;
  int r = 0;
  if (fstat(fd, &st) < 0)
    r = -errno;
  else if (!S_ISREG(st.st_mode))
    r = S_ISDIR(st.st_mode) ? -EISDIR : -EINVAL;
  else if (st.st_mode & forbidden)
    r = BDK_E_REFUSED;
  else
    r = read_whole(fd, out, cap, len);
  close(fd);
  return r;
}

static int write_whole(int fd, const char *bytes, size_t len) {
  while (len > 0) {
    ssize_t n = write(fd, bytes, len);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return -errno;
    bytes += n;
    len -= (size_t)n;
  }
  return fsync(fd) < 0 ? -errno : 0;
}

// A name is on the disk once its directory is. Not every file system can, and the file is there: no error.
static void sync_parent(char *path) {
  char *slash = strrchr(path, '/');
  if (slash) slash[slash == path] = 0;
  int fd = open(slash ? path : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return;
  fsync(fd);
  close(fd);
}

// The file has another name until it is whole. A hard link, unlike a rename, fails where the name is taken.
int bdk_os_write_private(const char *path, const void *bytes, size_t len, bool replace) {
  char at[PATH_MAX], temporary[PATH_MAX + 8];
  if (strlen(path) >= sizeof at) return -ENAMETOOLONG;
  // What a symbolic link names is replaced, not the link.
  if (!replace || !realpath(path, at)) strcpy(at, path);
  snprintf(temporary, sizeof temporary, "%s.XXXXXX", at);
  int fd = mkostemp(temporary, O_CLOEXEC); // O_CREAT | O_EXCL, 0600
  if (fd < 0) return -errno;
  int r = write_whole(fd, bytes, len);
  close(fd);
  if (r == 0 && (replace ? rename(temporary, at) : link(temporary, at)) < 0) r = -errno;
  if (r < 0 || !replace) unlink(temporary);
  if (r == 0) sync_parent(at);
  return r;
}

int bdk_os_make_parents(const char *path) {
  char at[PATH_MAX];
  if (strlen(path) >= sizeof at) return -ENAMETOOLONG;
  strcpy(at, path);
  for (char *slash = strchr(at + (*at == '/'), '/'); slash; slash = strchr(slash + 1, '/')) {
    *slash = 0;
    if (mkdir(at, 0700) < 0 && errno != EEXIST) return -errno;
    *slash = '/';
  }
  return 0;
}
