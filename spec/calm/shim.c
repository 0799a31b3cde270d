// SPDX-License-Identifier: MIT
// Between a program and its libc, preloaded: a wall clock that jumps, and sends and receives that fail. A page of the
// file $CALM is shared with the spec, which writes what is to go wrong and reads how often it did. $CALM_RANDOM: a file
// that gets all that the program draws from the system's random source. $CALM_SNDBUF: what SO_SNDBUF is set to.
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

typedef struct page {
  int64_t offset_s; // of the wall clock
  int32_t send_error, receive_error;
  uint64_t sends_failed, receives_failed;
} page;

static page none;
static volatile page *shared = &none;
static int random_fd = -1;

__attribute__((constructor)) static void begin(void) {
  const char *path = getenv("CALM"), *random_path = getenv("CALM_RANDOM");
  int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
  if (fd >= 0) {
    void *at = mmap(NULL, sizeof(page), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (at == MAP_FAILED) abort();
    shared = at;
    close(fd);
  }
  if (random_path) random_fd = open(random_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

static int real_clock(clockid_t id, struct timespec *t) {
  int r = (int)syscall(SYS_clock_gettime, id, t);
  if (r == 0 && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) t->tv_sec += shared->offset_s;
  return r;
}

int clock_gettime(clockid_t id, struct timespec *t) { return real_clock(id, t); }

int gettimeofday(struct timeval *restrict t, void *restrict zone) {
  struct timespec now;
  (void)zone;
  real_clock(CLOCK_REALTIME, &now);
  t->tv_sec = now.tv_sec;
  t->tv_usec = now.tv_nsec / 1000;
  return 0;
}

time_t time(time_t *out) {
  struct timespec now;
  real_clock(CLOCK_REALTIME, &now);
  if (out) *out = now.tv_sec;
  return now.tv_sec;
}

int sendmmsg(int fd, struct mmsghdr *msg, unsigned count, int flags) {
  if (shared->send_error) {
    shared->sends_failed++;
    errno = shared->send_error;
    return -1;
  }
  return (int)syscall(SYS_sendmmsg, fd, msg, count, flags);
}

int recvmmsg(int fd, struct mmsghdr *msg, unsigned count, int flags, struct timespec *timeout) {
  if (shared->receive_error) {
    shared->receives_failed++;
    errno = shared->receive_error;
    return -1;
  }
  return (int)syscall(SYS_recvmmsg, fd, msg, count, flags, timeout);
}

int setsockopt(int fd, int level, int name, const void *value, socklen_t len) {
  const char *bytes = getenv("CALM_SNDBUF");
  int size = bytes ? atoi(bytes) : 0;
  if (size > 0 && level == SOL_SOCKET && name == SO_SNDBUF) {
    value = &size;
    len = sizeof size;
  }
  return (int)syscall(SYS_setsockopt, fd, level, name, value, len);
}

ssize_t getrandom(void *out, size_t len, unsigned flags) {
  ssize_t n = syscall(SYS_getrandom, out, len, flags);
  if (n > 0 && random_fd >= 0 && write(random_fd, out, (size_t)n) != n) abort();
  return n;
}
