// SPDX-License-Identifier: MIT
// A connection that has failed is closed at once and freed later, before the loop sleeps, when nobody is inside it; one
// that this side made stays a while as a memory that there is none, so that each datagram does not try again.
//
// They hang in chains by source, of which no one source can make a long one: a chain tells how many a source has, too.
#include "tcp.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../core/carriage.h"
#include "sockaddr.h"

#define READ_SIZE 16384
#define READ_SIZE_LIMITED 2048  // where the datagrams of a turn are limited
#define READS 4                 // a readiness: then timers and other sockets get their turn
#define ACCEPTS 64              // likewise
#define ACCEPT_RETRY_US 100000u // when out of descriptors
#define BACKLOG 512
#define QUEUE_KEPT 4096u  // bytes for what waits that are kept when nothing does, and that each may have
#define UNSENT 16384      // bytes that the kernel holds back at most
#define UNACKED_MS 10000u // then the connection is dead
#define DEFAULT_MAX 4096u
#define DEFAULT_EACH 256u
#define BUCKETS_LISTENING 1024u
#define BUCKETS_CONNECTING 16u

typedef struct conn conn;
struct conn {
  bdk_tcp *tcp;
  conn *next;       // of its bucket
  conn *dirty_next; // of those with something to be done before the loop sleeps
  bdk_watch watch;
  bdk_timer timer; // to connect, for a first datagram, for the next one; when broken: to be forgotten
  bdk_addr remote, local;
  uint64_t used_us; // when the last whole datagram came, or was given to be sent where this side connected
  bool connecting, broken, dirty;
  bool used;    // a datagram came
  bool waiting; // until writable
  uint8_t *out; // bytes head .. len are to be written
  size_t head, len, cap;
  bdk_carriage in;
};

struct bdk_tcp {
  bdk_tcp_config c;
  bdk_watch watch; // the listening one
  bdk_timer retry;
  bdk_hook hook;
  bdk_addr local;
  bool calling, closed;
  uint32_t count, bucket_count;
  size_t grown; // bytes of queues beyond QUEUE_KEPT
  conn *dirty;
  conn *buckets[];
};

// --- the table

static size_t source_len(const bdk_addr *a) { return a->family == 4 ? 4 : 8; }

static bool same_source(const bdk_addr *a, const bdk_addr *b) {
  return a->family == b->family && memcmp(a->ip, b->ip, source_len(a)) == 0;
}

static conn **bucket_of(bdk_tcp *t, const bdk_addr *a) {
  uint32_t h = 2166136261u; // FNV-1a
  for (size_t i = 0; i < source_len(a); i++) h = (h ^ a->ip[i]) * 16777619u;
  return &t->buckets[(h ^ h >> 16) % t->bucket_count];
}

static conn *find(bdk_tcp *t, const bdk_addr *remote) {
  conn *c = *bucket_of(t, remote);
  while (c && !bdk_addr_equal(&c->remote, remote)) c = c->next;
  return c;
}

static bool has_room(bdk_tcp *t, const bdk_addr *remote) {
  uint32_t each = 0;
  for (conn *c = *bucket_of(t, remote); c; c = c->next) each += same_source(&c->remote, remote);
  return t->count < t->c.max && each < t->c.max_each;
}

static conn *owner_of(void *part, size_t offset) { return (conn *)((uint8_t *)part - offset); }

// --- the life of a connection

static void mark(conn *c) {
  bdk_tcp *t = c->tcp;
  if (!c->dirty) {
    c->dirty = true;
    c->dirty_next = t->dirty;
    t->dirty = c;
  }
  if (!t->closed) bdk_driver_before_wait(t->c.driver, &t->hook);
}

static void disconnect(conn *c) {
  bdk_driver_unwatch(c->tcp->c.driver, &c->watch);
  if (c->watch.fd >= 0) close(c->watch.fd);
  c->watch.fd = -1;
  bdk_count(c->tcp->c.counters, BDK_COUNT_tcp_tx_dropped, c->head < c->len);
  c->head = c->len = 0;
}

// `why`: to be counted, or BDK_COUNTER_COUNT.
static void break_off(conn *c, bdk_counter why) {
  if (c->broken) return;
  bdk_tcp *t = c->tcp;
  if (why != BDK_COUNTER_COUNT) bdk_count(t->c.counters, why, 1);
  c->broken = true;
  disconnect(c);
  bdk_driver_cancel(t->c.driver, &c->timer);
  uint64_t until_us = t->c.driver->now_us + BDK_TCP_AGAIN_US;
  if (t->c.listens || bdk_driver_timer(t->c.driver, &c->timer, until_us) != 0) mark(c);
}

// Gives the queue's memory back.
static void free_queue(conn *c) {
  if (c->cap > QUEUE_KEPT) c->tcp->grown -= c->cap - QUEUE_KEPT;
  free(c->out);
  c->out = NULL;
  c->cap = 0;
}

// Not from inside it, and not while it is among the dirty ones.
static void destroy(conn *c) {
  bdk_tcp *t = c->tcp;
  disconnect(c);
  bdk_driver_cancel(t->c.driver, &c->timer);
  for (conn **at = bucket_of(t, &c->remote); *at; at = &(*at)->next) {
    if (*at != c) continue;
    *at = c->next;
    break;
  }
  t->count--;
  free_queue(c);
  free(c);
}

static void set_watch(conn *c) {
  bdk_driver_watch(c->tcp->c.driver, &c->watch,
                   c->connecting ? BDK_WRITABLE : BDK_READABLE | (c->waiting ? BDK_WRITABLE : 0));
}

static void write_out(conn *c) {
  while (!c->broken && !c->connecting && !c->waiting && c->head < c->len) {
    ssize_t n = send(c->watch.fd, c->out + c->head, c->len - c->head, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n >= 0) {
      c->head += (size_t)n;
    } else if (errno == EAGAIN || errno == ENOBUFS || errno == ENOMEM) {
      c->waiting = true;
      set_watch(c);
    } else if (errno != EINTR) {
      break_off(c, BDK_COUNT_tcp_failed);
    }
  }
  if (c->head < c->len) return;
  c->head = c->len = 0;
  if (c->cap > QUEUE_KEPT) free_queue(c); // there may be thousands of them
}

static void on_timer(bdk_timer *timer, uint64_t now_us) {
  conn *c = owner_of(timer, offsetof(conn, timer));
  bdk_tcp *t = c->tcp;
  if (c->broken) {
    if (c->dirty) return; // the hook ends it
    destroy(c);
  } else if (c->connecting) {
    break_off(c, BDK_COUNT_tcp_failed);
  } else if (!c->used && t->c.listens) {
    break_off(c, BDK_COUNT_tcp_broken);
  } else if (now_us - c->used_us >= t->c.idle_us) {
    break_off(c, c->in.have ? BDK_COUNT_tcp_broken : BDK_COUNTER_COUNT);
  } else {
    bdk_driver_timer(t->c.driver, timer, c->used_us + t->c.idle_us);
  }
}

// False when the owner closed the socket, which is then gone.
static bool hand_over(conn *c, const uint8_t *data, size_t len) {
  bdk_tcp *t = c->tcp;
  bdk_packet p = {.route = {.local = c->local, .remote = c->remote, .sock = t->c.number}, .data = data, .len = len};
  c->used = true;
  c->used_us = t->c.driver->now_us;
  t->c.driver->rx_count++;
  bdk_count(t->c.counters, BDK_COUNT_tcp_rx, 1);
  bdk_count(t->c.counters, BDK_COUNT_tcp_rx_bytes, len);
  if (!t->c.on_packets) return true;
  t->calling = true;
  t->c.on_packets(t->c.ctx, t, &p, 1);
  t->calling = false;
  if (!t->closed) return true;
  t->closed = false;
  bdk_tcp_close(t);
  return false;
}

// False when the socket is gone.
static bool read_in(conn *c) {
  bdk_driver *d = c->tcp->c.driver;
  uint8_t bytes[READ_SIZE];
  for (int reads = 0; reads < READS && !c->broken; reads++) {
    if (d->rx_limit && d->rx_count >= d->rx_limit) break;
    size_t size = d->rx_limit ? READ_SIZE_LIMITED : sizeof bytes;
    ssize_t n = recv(c->watch.fd, bytes, size, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) break;
    if (n <= 0) {
      break_off(c, n < 0 ? BDK_COUNT_tcp_failed : BDK_COUNTER_COUNT);
      break;
    }
    const uint8_t *at = bytes, *data;
    int len;
    while (!c->broken && (len = bdk_carriage_next(&c->in, &at, bytes + n, &data)) != 0) {
      if (len < 0)
        break_off(c, BDK_COUNT_tcp_broken);
      else if (!hand_over(c, data, (size_t)len))
        return false;
    }
    if ((size_t)n < size) break;
  }
  return true;
}

static void connected(conn *c) {
  int error = 0;
  socklen_t len = sizeof error;
  bdk_driver *d = c->tcp->c.driver;
  if (getsockopt(c->watch.fd, SOL_SOCKET, SO_ERROR, &error, &len) < 0 || error) {
    break_off(c, BDK_COUNT_tcp_failed);
    return;
  }
  bdk_sockaddr at;
  len = sizeof at;
  if (getsockname(c->watch.fd, &at.any, &len) == 0) bdk_sockaddr_read(&c->local, &at);
  c->connecting = false;
  c->used_us = d->now_us;
  bdk_count(c->tcp->c.counters, BDK_COUNT_tcp_opened, 1);
  bdk_driver_timer(d, &c->timer, c->used_us + c->tcp->c.idle_us);
  set_watch(c);
  write_out(c);
}

static void on_ready(bdk_watch *w, int events) {
  conn *c = owner_of(w, offsetof(conn, watch));
  if (c->connecting) {
    connected(c);
    return;
  }
  if (events & BDK_WRITABLE && c->waiting) {
    c->waiting = false;
    set_watch(c);
    write_out(c);
  }
  if (events & BDK_READABLE && !c->broken) read_in(c);
}

static void prepare(int fd) {
  int on = 1, unsent = UNSENT;
  unsigned unacked_ms = UNACKED_MS;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &unsent, sizeof unsent);
  setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &unacked_ms, sizeof unacked_ms);
}

// Takes `fd`; NULL, and it is closed, when that fails.
static conn *add(bdk_tcp *t, int fd, const bdk_addr *remote, bool connecting) {
  bdk_driver *d = t->c.driver;
  conn *c = calloc(1, sizeof *c);
  if (!c) {
    close(fd);
    return NULL;
  }
  c->tcp = t;
  c->watch = (bdk_watch){.fd = fd, .ready = on_ready};
  c->timer.fire = on_timer;
  c->remote = *remote;
  c->connecting = connecting;
  c->used_us = d->now_us;
  conn **bucket = bucket_of(t, remote);
  c->next = *bucket;
  *bucket = c;
  t->count++;
  if (bdk_driver_watch(d, &c->watch, connecting ? BDK_WRITABLE : BDK_READABLE) != 0 ||
      bdk_driver_timer(d, &c->timer, d->now_us + t->c.first_us) != 0) {
    destroy(c);
    return NULL;
  }
  return c;
}

// --- those that come

static void accept_later(bdk_tcp *t) {
  bdk_count(t->c.counters, BDK_COUNT_tcp_accept_failed, 1);
  // A busy loop is better than nobody accepted any more.
  if (bdk_driver_timer(t->c.driver, &t->retry, t->c.driver->now_us + ACCEPT_RETRY_US) == 0)
    bdk_driver_unwatch(t->c.driver, &t->watch);
}

static void on_retry(bdk_timer *timer, uint64_t now_us) {
  (void)now_us;
  bdk_tcp *t = (bdk_tcp *)((uint8_t *)timer - offsetof(bdk_tcp, retry));
  if (bdk_driver_watch(t->c.driver, &t->watch, BDK_READABLE) != 0) accept_later(t);
}

static void on_connections(bdk_watch *w, int events) {
  (void)events;
  bdk_tcp *t = (bdk_tcp *)((uint8_t *)w - offsetof(bdk_tcp, watch));
  for (int i = 0; i < ACCEPTS; i++) {
    bdk_sockaddr at;
    bdk_addr remote;
    socklen_t len = sizeof at;
    int fd = accept4(w->fd, &at.any, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) {
      if (errno == EAGAIN) return;
      if (errno != EMFILE && errno != ENFILE && errno != ENOBUFS && errno != ENOMEM) continue; // of one connection
      accept_later(t);
      return;
    }
    bdk_sockaddr_read(&remote, &at);
    conn *old = find(t, &remote); // which the other end has forgotten
    if (old) break_off(old, BDK_COUNTER_COUNT);
    if (old || !has_room(t, &remote)) {
      bdk_count(t->c.counters, BDK_COUNT_tcp_refused, 1);
      close(fd);
      continue;
    }
    prepare(fd);
    conn *c = add(t, fd, &remote, false);
    if (!c) {
      accept_later(t);
      return;
    }
    len = sizeof at;
    if (getsockname(fd, &at.any, &len) == 0) bdk_sockaddr_read(&c->local, &at);
    bdk_count(t->c.counters, BDK_COUNT_tcp_opened, 1);
  }
}

// --- those that are made

static conn *dial(bdk_tcp *t, const bdk_addr *remote) {
  bdk_sockaddr at;
  bdk_addr to = *remote, local;
  to.port = t->c.port;
  if (!has_room(t, remote)) return NULL;
  int fd = bdk_sockaddr_open(&to, SOCK_STREAM);
  if (fd < 0) return NULL;
  prepare(fd);
  bool ok = bdk_addr_classify(&t->local) == BDK_ADDR_NONE || bdk_sockaddr_bind(fd, &t->local, &local) == 0;
  socklen_t len = bdk_sockaddr_make(&to, &at);
  ok = ok && (connect(fd, &at.any, len) == 0 || errno == EINPROGRESS);
  conn *c = add(t, fd, remote, true);
  if (c && !ok) break_off(c, BDK_COUNT_tcp_failed); // remembered as one that failed
  return c;
}

static bool reserve(conn *c, size_t len) {
  if (c->len + len <= c->cap) return true;
  if (c->head > 0) {
    memmove(c->out, c->out + c->head, c->len - c->head);
    c->len -= c->head;
    c->head = 0;
    if (c->len + len <= c->cap) return true;
  }
  size_t cap = c->cap ? c->cap * 2 : QUEUE_KEPT, more = c->cap ? cap - c->cap : 0;
  if (c->tcp->grown + more > c->tcp->c.long_max) return false;
  uint8_t *out = realloc(c->out, cap);
  if (!out) return false;
  c->tcp->grown += more;
  c->out = out;
  c->cap = cap;
  return true;
}

int bdk_tcp_send(bdk_tcp *t, const bdk_route *route, const uint8_t *data, size_t len) {
  if (t->closed) return BDK_E_CLOSED;
  if (route->remote.family != t->local.family || len < 1 || len > BDK_DATAGRAM_MAX) return BDK_E_INVALID;
  if (route->ttl || route->remote.port == 0) return BDK_E_INVALID;
  conn *c = find(t, &route->remote);
  if (!c && !t->c.listens) c = dial(t, &route->remote);
  if (!c || c->broken) {
    bdk_count(t->c.counters, BDK_COUNT_tcp_tx_dropped, 1);
    return 0;
  }
  if (c->len - c->head + BDK_CARRIAGE_HEAD + len > BDK_TCP_QUEUE_MAX || !reserve(c, BDK_CARRIAGE_HEAD + len)) {
    bdk_count(t->c.counters, BDK_COUNT_tcp_tx_dropped, 1);
    return BDK_E_LIMIT;
  }
  bdk_carriage_head(c->out + c->len, len);
  memcpy(c->out + c->len + BDK_CARRIAGE_HEAD, data, len);
  c->len += BDK_CARRIAGE_HEAD + len;
  if (!t->c.listens) c->used_us = t->c.driver->now_us;
  bdk_count(t->c.counters, BDK_COUNT_tcp_tx, 1);
  bdk_count(t->c.counters, BDK_COUNT_tcp_tx_bytes, len);
  mark(c);
  return 0;
}

void bdk_tcp_flush(bdk_tcp *t) {
  for (conn *c = t->dirty; c; c = c->dirty_next) write_out(c);
}

static void on_hook(bdk_hook *h) {
  bdk_tcp *t = (bdk_tcp *)((uint8_t *)h - offsetof(bdk_tcp, hook));
  conn *c;
  while ((c = t->dirty)) {
    t->dirty = c->dirty_next;
    write_out(c); // may break it off, which marks only what is not marked
    c->dirty = false;
    if (c->broken && !c->timer.slot) destroy(c);
  }
}

// --- opening and closing

static int listen_at(const bdk_addr *bind_to, bdk_addr *local) {
  int on = 1;
  int fd = bdk_sockaddr_open(bind_to, SOCK_STREAM);
  if (fd < 0) return -errno;
  // Connections of a run before may linger there.
  if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0 && bdk_sockaddr_bind(fd, bind_to, local) == 0 &&
      listen(fd, BACKLOG) == 0)
    return fd;
  int error = errno;
  close(fd);
  return -error;
}

int bdk_tcp_open(bdk_tcp **out, const bdk_tcp_config *config) {
  if (config->bind.family != 4 && config->bind.family != 6) return -EAFNOSUPPORT;
  if (!config->listens && config->port == 0) return BDK_E_INVALID;
  uint32_t buckets = config->listens ? BUCKETS_LISTENING : BUCKETS_CONNECTING;
  bdk_tcp *t = calloc(1, sizeof *t + buckets * sizeof t->buckets[0]);
  if (!t) return -ENOMEM;
  t->c = *config;
  if (t->c.max == 0) t->c.max = DEFAULT_MAX;
  if (t->c.max_each == 0) t->c.max_each = DEFAULT_EACH;
  if (t->c.long_max == 0) t->c.long_max = BDK_TCP_LONG_MAX;
  if (t->c.first_us == 0) t->c.first_us = BDK_TCP_FIRST_US;
  if (t->c.idle_us == 0) t->c.idle_us = BDK_TCP_IDLE_US;
  t->bucket_count = buckets;
  t->hook.run = on_hook;
  t->retry.fire = on_retry;
  t->watch = (bdk_watch){.fd = -1, .ready = on_connections};
  t->local = config->bind;
  int r = 0;
  if (config->listens) {
    r = t->watch.fd = listen_at(&config->bind, &t->local);
    if (r >= 0) r = bdk_driver_watch(t->c.driver, &t->watch, BDK_READABLE);
  } else {
    t->local.port = 0;
  }
  if (r < 0) {
    if (t->watch.fd >= 0) close(t->watch.fd);
    free(t);
    return r;
  }
  *out = t;
  return 0;
}

void bdk_tcp_close(bdk_tcp *t) {
  if (!t || t->closed) return;
  t->closed = true;
  if (t->calling) return; // whoever called the owner ends it
  bdk_tcp_flush(t);
  for (uint32_t i = 0; i < t->bucket_count; i++)
    while (t->buckets[i]) destroy(t->buckets[i]);
  bdk_driver_unwatch(t->c.driver, &t->watch);
  if (t->watch.fd >= 0) close(t->watch.fd);
  bdk_driver_cancel(t->c.driver, &t->retry);
  bdk_driver_unhook(t->c.driver, &t->hook);
  free(t);
}

const bdk_addr *bdk_tcp_local(const bdk_tcp *t) { return &t->local; }
uint32_t bdk_tcp_count(const bdk_tcp *t) { return t->count; }
