// SPDX-License-Identifier: MIT
// O_NONBLOCK belongs to the open file, which others share (see stream.c). So a pipe or terminal is opened anew for
// each line: that is an open file of our own. Where that cannot be, out of descriptors or of another user, what
// polls writable gets no more than a pipe then takes without blocking.
#include "say.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

static int open_anew(int fd) {
  char path[32];
  snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
  return open(path, O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
}

static bool polls_writable(int fd) {
  struct pollfd p = {.fd = fd, .events = POLLOUT};
  return poll(&p, 1, 0) > 0;
}

static ssize_t try_write(int fd, const void *data, size_t len) {
  struct stat st;
  if (fstat(fd, &st) < 0) return -1;
  if (S_ISSOCK(st.st_mode)) return send(fd, data, len, MSG_DONTWAIT | MSG_NOSIGNAL);
  if (!S_ISFIFO(st.st_mode) && !isatty(fd)) return write(fd, data, len);
  int own = open_anew(fd);
  if (own >= 0) {
    ssize_t n = write(own, data, len);
    int error = errno;
    close(own);
    errno = error;
    return n;
  }
  if (!polls_writable(fd)) return 0;
  return write(fd, data, len < BDK_SAY_WHOLE ? len : BDK_SAY_WHOLE);
}

int bdk_say(int fd, const void *data, size_t len) {
  ssize_t n;
  if (len > INT32_MAX) len = INT32_MAX;
  do n = try_write(fd, data, len);
  while (n < 0 && errno == EINTR);
  if (n < 0) return errno == EAGAIN ? 0 : -errno;
  return (int)n;
}
