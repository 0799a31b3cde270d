// SPDX-License-Identifier: MIT
// O_NONBLOCK belongs to the open file, which stdin shares with the shell and with other programs: set there,
// it outlives us and breaks them. So it is set on no descriptor that is not ours; sockets are read and written
// with MSG_DONTWAIT, and anything else only after poll said that it will not block.
#include "stream.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define READ_SIZE 16384
#define FLUSH_EARLY 65536      // queued bytes that are not held back until the loop sleeps
#define PIPE_WRITE 4096        // PIPE_BUF: a pipe that polls writable takes this much without blocking
#define LINGER_US 1000000      // how long a closed stream may go on writing
#define ACCEPTS 16             // a readiness
#define ACCEPT_RETRY_US 100000 // when out of descriptors
#define BACKLOG 64

struct bdk_stream {
  bdk_driver *driver;
  bdk_watch watch;
  bdk_hook hook;   // flushes, and when closed: lets go when the driver ends
  bdk_timer timer; // reads what cannot be watched; when closed: the end of patience
  bdk_stream_read read;
  void *ctx;
  bool owned, is_socket, watchable;
  bool ended;                // the reader was told the end
  bool write_closed, closed; // no more writes are taken; given up by its owner
  bool calling;              // inside `read`
  uint8_t *queue;
  size_t head, len, cap; // bytes head .. head+len of the queue are to be written
};

struct bdk_listener {
  bdk_driver *driver;
  bdk_watch watch;
  bdk_timer retry;
  bdk_stream_accept accept;
  void *ctx;
  bool calling, closed;
  dev_t dev; // of the socket file, so that a successor's is not removed
  ino_t ino;
  char path[sizeof(((struct sockaddr_un *)0)->sun_path)];
};

// --- streams

static void destroy(bdk_stream *s) {
  bdk_driver_unwatch(s->driver, &s->watch);
  bdk_driver_cancel(s->driver, &s->timer);
  bdk_driver_unhook(s->driver, &s->hook);
  bdk_driver_forget(s->driver, &s->hook);
  if (s->owned) close(s->watch.fd);
  free(s->queue);
  free(s);
}

static bool polls(int fd, short events) {
  struct pollfd p = {.fd = fd, .events = events};
  return poll(&p, 1, 0) > 0;
}

static void watch_needed(bdk_stream *s) {
  bool reading = s->read && !s->ended && !s->closed;
  if (!s->watchable) {
    if (reading)
      bdk_driver_timer(s->driver, &s->timer, s->driver->now_us);
    else if (!s->closed)
      bdk_driver_cancel(s->driver, &s->timer);
    return;
  }
  bdk_driver_watch(s->driver, &s->watch, (reading ? BDK_READABLE : 0) | (s->len > 0 ? BDK_WRITABLE : 0));
}

static void drop_queue(bdk_stream *s) {
  s->write_closed = true;
  s->head = s->len = 0;
}

static ssize_t write_some(bdk_stream *s) {
  const uint8_t *data = s->queue + s->head;
  if (s->is_socket) return send(s->watch.fd, data, s->len, MSG_DONTWAIT | MSG_NOSIGNAL);
  if (s->watchable && !s->owned) {
    if (!polls(s->watch.fd, POLLOUT)) {
      errno = EAGAIN;
      return -1;
    }
    return write(s->watch.fd, data, s->len < PIPE_WRITE ? s->len : PIPE_WRITE);
  }
  return write(s->watch.fd, data, s->len);
}

static void flush(bdk_stream *s) {
  while (s->len > 0) {
    ssize_t n = write_some(s);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EAGAIN) break;
    if (n < 0) { // nobody will ever read it; the reader learns of it from the descriptor
      drop_queue(s);
      break;
    }
    s->head += (size_t)n;
    s->len -= (size_t)n;
  }
  if (s->len == 0) s->head = 0;
}

static void on_hook(bdk_hook *h) {
  bdk_stream *s = (bdk_stream *)((uint8_t *)h - offsetof(bdk_stream, hook));
  flush(s);
  watch_needed(s);
}

// Lets the owner have `len` bytes, or the end. False when it closed the stream, which is then gone.
static bool hand_over(bdk_stream *s, const uint8_t *data, size_t len, int error) {
  s->ended = len == 0;
  s->calling = true;
  s->read(s->ctx, s, data, len, error);
  s->calling = false;
  if (!s->closed) return true;
  s->closed = false;
  bdk_stream_close(s);
  return false;
}

static void read_some(bdk_stream *s) {
  uint8_t data[READ_SIZE];
  ssize_t n;
  if (s->is_socket) {
    n = recv(s->watch.fd, data, sizeof data, MSG_DONTWAIT);
  } else {
    if (!polls(s->watch.fd, POLLIN)) return; // another reader of the same pipe or terminal was faster
    n = read(s->watch.fd, data, sizeof data);
  }
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
  int error = n < 0 ? -errno : 0;
  if (hand_over(s, data, n > 0 ? (size_t)n : 0, error)) watch_needed(s);
}

static void on_ready(bdk_watch *w, int events) {
  bdk_stream *s = (bdk_stream *)((uint8_t *)w - offsetof(bdk_stream, watch));
  if (events & BDK_WRITABLE) {
    flush(s);
    if (s->closed && s->len == 0) {
      destroy(s);
      return;
    }
    watch_needed(s);
  }
  if ((events & BDK_READABLE) && s->read && !s->ended && !s->closed) read_some(s);
}

static void on_timer(bdk_timer *t, uint64_t now_us) {
  (void)now_us;
  bdk_stream *s = (bdk_stream *)((uint8_t *)t - offsetof(bdk_stream, timer));
  if (s->closed) {
    destroy(s);
  } else if (s->read && !s->ended) {
    read_some(s);
  }
}

// The driver ends before a closed stream could write the rest.
static void on_driver_end(bdk_hook *h) { destroy((bdk_stream *)((uint8_t *)h - offsetof(bdk_stream, hook))); }

int bdk_stream_wrap(bdk_stream **out, bdk_driver *d, int fd, bool owned) {
  struct stat st;
  if (fstat(fd, &st) < 0) return -errno;
  bdk_stream *s = calloc(1, sizeof *s);
  if (!s) return -ENOMEM;
  *s = (bdk_stream){.driver = d, .owned = owned, .watch = {.fd = fd, .ready = on_ready}};
  s->hook.run = on_hook;
  s->timer.fire = on_timer;
  s->is_socket = S_ISSOCK(st.st_mode);
  // epoll refuses files, directories and devices such as /dev/null (EPERM); they never block either.
  s->watchable = s->is_socket || S_ISFIFO(st.st_mode) || isatty(fd);
  if (owned && s->watchable && !s->is_socket) fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
  *out = s;
  return 0;
}

void bdk_stream_reader(bdk_stream *s, bdk_stream_read read, void *ctx) {
  if (s->closed) return;
  s->read = read;
  s->ctx = ctx;
  watch_needed(s);
}

static bool reserve(bdk_stream *s, size_t len) {
  if (s->head > 0 && s->head + s->len + len > s->cap) {
    memmove(s->queue, s->queue + s->head, s->len);
    s->head = 0;
  }
  if (s->head + s->len + len <= s->cap) return true;
  size_t cap = s->cap ? s->cap * 2 : 1024;
  while (cap < s->len + len) cap *= 2;
  uint8_t *queue = realloc(s->queue, cap);
  if (!queue) return false;
  s->queue = queue;
  s->cap = cap;
  return true;
}

int bdk_stream_write(bdk_stream *s, const void *data, size_t len) {
  if (s->closed || s->write_closed) return BDK_E_CLOSED;
  if (len == 0) return 0;
  if (s->len + len > BDK_STREAM_QUEUE_MAX || !reserve(s, len)) {
    // What was written so far is cut off somewhere: the other side must not take it for all there was.
    drop_queue(s);
    if (s->is_socket) shutdown(s->watch.fd, SHUT_RDWR);
    return BDK_E_LIMIT;
  }
  memcpy(s->queue + s->head + s->len, data, len);
  s->len += len;
  if (s->len >= FLUSH_EARLY) flush(s);
  bdk_driver_before_wait(s->driver, &s->hook);
  return 0;
}

void bdk_stream_close(bdk_stream *s) {
  if (!s || s->closed) return;
  s->closed = true;
  if (s->calling) return; // hand_over closes it
  bdk_driver_unhook(s->driver, &s->hook);
  flush(s);
  if (s->len == 0 || !s->watchable || bdk_driver_timer(s->driver, &s->timer, s->driver->now_us + LINGER_US) < 0) {
    destroy(s);
    return;
  }
  s->hook.run = on_driver_end;
  bdk_driver_at_end(s->driver, &s->hook);
  watch_needed(s);
}

// --- Unix sockets

static int unix_address(const char *path, struct sockaddr_un *out) {
  size_t len = strlen(path);
  if (len == 0) return -EINVAL;
  if (len >= sizeof out->sun_path) return -ENAMETOOLONG;
  *out = (struct sockaddr_un){.sun_family = AF_UNIX};
  memcpy(out->sun_path, path, len + 1);
  return 0;
}

int bdk_stream_connect(bdk_stream **out, bdk_driver *d, const char *path) {
  struct sockaddr_un at;
  int r = unix_address(path, &at);
  if (r < 0) return r;
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return -errno;
  // Unix sockets connect at once or, when the other side's backlog is full, not at all (EAGAIN).
  r = connect(fd, (struct sockaddr *)&at, sizeof at) < 0 ? -errno : bdk_stream_wrap(out, d, fd, true);
  if (r < 0) close(fd);
  return r;
}

// Removes a socket file that nobody listens on. 0 when the path is free now.
static int remove_stale(const struct sockaddr_un *at) {
  struct stat st;
  if (lstat(at->sun_path, &st) < 0) return errno == ENOENT ? 0 : -errno;
  if (!S_ISSOCK(st.st_mode)) return -EADDRINUSE;  // a file of the user's, named by mistake, or a link laid as a trap
  if (st.st_uid != geteuid()) return -EADDRINUSE; // another's: not ours to remove, even where we may
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return -errno;
  int error = connect(fd, (const struct sockaddr *)at, sizeof *at) < 0 ? errno : 0;
  close(fd);
  if (error == ENOENT) return 0;
  if (error != ECONNREFUSED) return -EADDRINUSE;
  return unlink(at->sun_path) < 0 && errno != ENOENT ? -errno : 0;
}

static int bind_path(int fd, const struct sockaddr_un *at) {
  if (bind(fd, (const struct sockaddr *)at, sizeof *at) == 0) return 0;
  if (errno != EADDRINUSE) return -errno;
  int r = remove_stale(at);
  if (r < 0) return r;
  return bind(fd, (const struct sockaddr *)at, sizeof *at) < 0 ? -errno : 0;
}

static void listener_destroy(bdk_listener *l) {
  bdk_driver_unwatch(l->driver, &l->watch);
  bdk_driver_cancel(l->driver, &l->retry);
  close(l->watch.fd);
  free(l);
}

static void on_retry(bdk_timer *t, uint64_t now_us) {
  (void)now_us;
  bdk_listener *l = (bdk_listener *)((uint8_t *)t - offsetof(bdk_listener, retry));
  bdk_driver_watch(l->driver, &l->watch, BDK_READABLE);
}

static void on_accept(bdk_watch *w, int events) {
  (void)events;
  bdk_listener *l = (bdk_listener *)((uint8_t *)w - offsetof(bdk_listener, watch));
  l->calling = true;
  for (int i = 0; i < ACCEPTS && !l->closed; i++) {
    int fd = accept4(w->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0 && (errno == EINTR || errno == ECONNABORTED)) continue;
    if (fd < 0 && errno != EAGAIN) {
      // Out of descriptors or memory: the connection stays, so the listener would stay readable for ever.
      bdk_driver_unwatch(l->driver, w);
      bdk_driver_timer(l->driver, &l->retry, l->driver->now_us + ACCEPT_RETRY_US);
    }
    if (fd < 0) break;
    bdk_stream *s;
    if (bdk_stream_wrap(&s, l->driver, fd, true) < 0)
      close(fd);
    else
      l->accept(l->ctx, s);
  }
  l->calling = false;
  if (l->closed) listener_destroy(l);
}

int bdk_listener_open(bdk_listener **out, bdk_driver *d, const char *path, bdk_stream_accept accept, void *ctx) {
  struct sockaddr_un at;
  struct stat st;
  bool bound = false;
  int r = unix_address(path, &at);
  if (r < 0) return r;
  bdk_listener *l = calloc(1, sizeof *l);
  if (!l) return -ENOMEM;
  *l = (bdk_listener){.driver = d, .accept = accept, .ctx = ctx, .watch = {.fd = -1, .ready = on_accept}};
  l->retry.fire = on_retry;
  memcpy(l->path, at.sun_path, sizeof l->path);
  l->watch.fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (l->watch.fd < 0) goto fail_errno;
  // On Linux a socket file gets the mode its socket has, less the umask: so it is never open to others.
  if (fchmod(l->watch.fd, 0600) < 0) goto fail_errno;
  r = bind_path(l->watch.fd, &at);
  if (r < 0) goto fail;
  bound = true;
  if (lstat(path, &st) < 0 || listen(l->watch.fd, BACKLOG) < 0) goto fail_errno;
  l->dev = st.st_dev;
  l->ino = st.st_ino;
  r = bdk_driver_watch(d, &l->watch, BDK_READABLE);
  if (r < 0) goto fail;
  *out = l;
  return 0;
fail_errno:
  r = -errno;
fail:
  if (bound) unlink(path);
  if (l->watch.fd >= 0) close(l->watch.fd);
  free(l);
  return r;
}

void bdk_listener_close(bdk_listener *l) {
  struct stat st;
  if (!l || l->closed) return;
  l->closed = true;
  if (lstat(l->path, &st) == 0 && st.st_dev == l->dev && st.st_ino == l->ino) unlink(l->path);
  if (!l->calling) listener_destroy(l);
}
