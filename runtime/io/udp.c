// SPDX-License-Identifier: MIT
// Receive buffers (64 × 2232 bytes) belong to the driver: a client that opens hundreds of sockets, most of
// them silent, pays for them once, and they stay in the cache. Send queues belong to the socket, since they
// outlive a turn when the kernel takes no more; they grow with what is really queued.
#include "udp.h"

#include <errno.h>
#include <netinet/udp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sockaddr.h"

#define SOCKET_BUFFER (1 << 20)
#define READ_BATCHES 4     // a readiness: then timers and other sockets get their turn
#define PAUSE_US 1000      // a queue of a network device drains in about this time …
#define PAUSE_MAX_US 64000 // … else it is asked for half as often each time
#define RX_CONTROL CMSG_SPACE(sizeof(struct in6_pktinfo))
#define TX_CONTROL (CMSG_SPACE(sizeof(struct in6_pktinfo)) + CMSG_SPACE(sizeof(int)) + CMSG_SPACE(sizeof(uint16_t)))
#define JOINED_MAX 60000u // bytes that the kernel is given as one, to be cut into datagrams

struct bdk_udp_rx {
  int users;
  struct mmsghdr msg[BDK_UDP_BATCH];
  struct iovec iov[BDK_UDP_BATCH];
  bdk_sockaddr from[BDK_UDP_BATCH];
  bdk_packet packet[BDK_UDP_BATCH];
  _Alignas(struct cmsghdr) uint8_t control[BDK_UDP_BATCH][RX_CONTROL];
  uint8_t data[BDK_UDP_BATCH][BDK_UDP_LEN_MAX];
};

typedef struct queued {
  bdk_route route;
  uint32_t at; // where its bytes start
  uint16_t len;
} queued;

struct bdk_udp {
  bdk_udp_config c;
  bdk_watch watch;
  bdk_hook hook;
  bdk_timer retry, rx_retry;
  bdk_addr local;
  bool calling, closed; // inside the owner's callback; to be freed after it
  bool waiting;         // until writable, or until `retry`
  bool want_writable;   // the former
  bool was_writable;    // so the kernel said, and no datagram left since
  bool rx_paused;       // until `rx_retry`
  bool joins;           // the kernel cuts what is given to it as one (UDP_SEGMENT)
  uint32_t pause_us;    // the next pause of sending, and of receiving; 0: the shortest
  uint32_t rx_pause_us;
  int head, count; // of queue; those before head have left
  queued queue[BDK_UDP_BATCH];
  uint8_t *bytes; // of all that is queued
  size_t used, cap;
  int failed_count; // told from the hook, never from inside bdk_udp_send
  struct {
    bdk_addr remote;
    int error;
  } failed[BDK_UDP_BATCH];
};

// The destination address a packet carried; the socket's own where the kernel does not say.
static void read_local(const bdk_udp *u, struct msghdr *m, bdk_addr *out) {
  *out = u->local;
  for (struct cmsghdr *h = CMSG_FIRSTHDR(m); h; h = CMSG_NXTHDR(m, h)) {
    if (h->cmsg_level == IPPROTO_IP && h->cmsg_type == IP_PKTINFO) {
      struct in_pktinfo info;
      memcpy(&info, CMSG_DATA(h), sizeof info);
      memcpy(out->ip, &info.ipi_addr, 4);
    } else if (h->cmsg_level == IPPROTO_IPV6 && h->cmsg_type == IPV6_PKTINFO) {
      struct in6_pktinfo info;
      memcpy(&info, CMSG_DATA(h), sizeof info);
      memcpy(out->ip, &info.ipi6_addr, 16);
      out->scope = bdk_addr_classify(out) == BDK_ADDR_LINK_LOCAL ? info.ipi6_ifindex : 0;
    }
  }
}

static struct bdk_udp_rx *rx_take(bdk_driver *d) {
  if (!d->udp_rx) {
    struct bdk_udp_rx *rx = calloc(1, sizeof *rx);
    if (!rx) return NULL;
    for (int i = 0; i < BDK_UDP_BATCH; i++) {
      rx->iov[i] = (struct iovec){rx->data[i], 0};
      rx->msg[i].msg_hdr = (struct msghdr){.msg_name = &rx->from[i], .msg_iov = &rx->iov[i], .msg_iovlen = 1};
      rx->msg[i].msg_hdr.msg_control = rx->control[i];
    }
    d->udp_rx = rx;
  }
  d->udp_rx->users++;
  return d->udp_rx;
}

static void rx_release(bdk_driver *d) {
  if (--d->udp_rx->users > 0) return;
  free(d->udp_rx);
  d->udp_rx = NULL;
}

static void destroy(bdk_udp *u) {
  rx_release(u->c.driver);
  free(u->bytes);
  free(u);
}

// Around each call of the owner: false when it closed the socket, which is then gone.
static bool called(bdk_udp *u) {
  u->calling = false;
  if (!u->closed) return true;
  destroy(u);
  return false;
}

// Errors that belong to an earlier datagram or to the device; the socket itself is well.
static bool is_network_error(int error) {
  switch (error) {
  case ECONNREFUSED:
  case ECONNRESET:
  case EHOSTUNREACH:
  case EHOSTDOWN:
  case ENETUNREACH:
  case ENETDOWN:
  case ENETRESET:
  case ENONET:
  case ENOPROTOOPT:
  case EOPNOTSUPP:
  case EPROTO:
  case EMSGSIZE:
  case EACCES:
  case EPERM:
  case ETIMEDOUT:
    return true;
  default:
    return false;
  }
}

static void set_watch(bdk_udp *u) {
  int events = (u->rx_paused ? 0 : BDK_READABLE) | (u->want_writable ? BDK_WRITABLE : 0);
  bdk_driver_watch(u->c.driver, &u->watch, events);
}

// Sets the timer; the pause after it is twice as long.
static bool pause_for(bdk_udp *u, bdk_timer *timer, uint32_t *pause_us) {
  if (*pause_us == 0) *pause_us = PAUSE_US;
  uint64_t due_us = u->c.driver->now_us + *pause_us;
  *pause_us = *pause_us < PAUSE_MAX_US ? *pause_us * 2 : PAUSE_MAX_US;
  return bdk_driver_timer(u->c.driver, timer, due_us) == 0;
}

// --- receiving

// What lies in the socket keeps it readable: while it cannot be read, asking again at once would be a busy loop.
static void rx_pause(bdk_udp *u) {
  bdk_count(u->c.counters, BDK_COUNT_udp_rx_failed, 1);
  u->rx_paused = pause_for(u, &u->rx_retry, &u->rx_pause_us);
  set_watch(u);
}

// The number of datagrams read (those too long are not among `*kept`), or 0 when there is nothing now.
static int read_batch(bdk_udp *u, struct bdk_udp_rx *rx, int max, int *kept) {
  for (int i = 0; i < max; i++) {
    rx->msg[i].msg_hdr.msg_namelen = sizeof(bdk_sockaddr);
    rx->msg[i].msg_hdr.msg_controllen = RX_CONTROL;
    rx->msg[i].msg_hdr.msg_flags = 0;
    rx->iov[i].iov_len = u->c.max_len;
  }
  int n = -1;
  for (int tries = 0; n < 0 && tries < BDK_UDP_BATCH; tries++) {
    n = recvmmsg(u->watch.fd, rx->msg, (unsigned)max, MSG_DONTWAIT, NULL);
    if (n >= 0 || errno == EINTR) continue;
    if (errno == EAGAIN) return 0;
    if (!is_network_error(errno)) break;
    bdk_count(u->c.counters, BDK_COUNT_udp_icmp, 1);
  }
  if (n < 0)
    rx_pause(u);
  else
    u->rx_pause_us = 0;
  uint64_t bytes = 0, truncated = 0;
  *kept = 0;
  for (int i = 0; i < n; i++) {
    struct msghdr *m = &rx->msg[i].msg_hdr;
    bytes += rx->msg[i].msg_len;
    if (m->msg_flags & MSG_TRUNC) {
      truncated++;
      continue;
    }
    bdk_packet *p = &rx->packet[(*kept)++];
    *p = (bdk_packet){.data = rx->data[i], .len = rx->msg[i].msg_len, .route.sock = u->c.number};
    bdk_sockaddr_read(&p->route.remote, &rx->from[i]);
    read_local(u, m, &p->route.local);
  }
  if (n <= 0) return 0;
  u->c.driver->rx_count += (uint32_t)n;
  bdk_count(u->c.counters, BDK_COUNT_udp_rx, (uint64_t)n);
  bdk_count(u->c.counters, BDK_COUNT_udp_rx_bytes, bytes);
  bdk_count(u->c.counters, BDK_COUNT_udp_rx_truncated, truncated);
  return n;
}

// How many datagrams this turn may still read, up to a batch.
static int allowance(const bdk_driver *d) {
  if (d->rx_limit == 0 || d->rx_count + BDK_UDP_BATCH <= d->rx_limit) return BDK_UDP_BATCH;
  return d->rx_count < d->rx_limit ? (int)(d->rx_limit - d->rx_count) : 0;
}

// False when the owner closed the socket.
static bool receive(bdk_udp *u) {
  struct bdk_udp_rx *rx = u->c.driver->udp_rx;
  for (int batch = 0; batch < READ_BATCHES; batch++) {
    int kept = 0, max = allowance(u->c.driver);
    int n = max > 0 ? read_batch(u, rx, max, &kept) : 0;
    if (kept > 0 && u->c.on_packets) {
      u->calling = true;
      u->c.on_packets(u->c.ctx, u, rx->packet, kept);
      if (!called(u)) return false;
    }
    if (n < BDK_UDP_BATCH) break;
  }
  return true;
}

// --- sending

static size_t put_control(struct msghdr *m, struct cmsghdr *h, int level, int type, const void *data, size_t len) {
  h->cmsg_level = level;
  h->cmsg_type = type;
  h->cmsg_len = CMSG_LEN(len);
  memcpy(CMSG_DATA(h), data, len);
  m->msg_controllen += CMSG_SPACE(len);
  return CMSG_SPACE(len);
}

// `segment`: the length to cut into, or 0.
static void write_control(const bdk_udp *u, const bdk_route *r, uint16_t segment, uint8_t control[TX_CONTROL],
                          struct msghdr *m) {
  uint8_t *at = control;
  m->msg_controllen = 0;
  // A socket bound to one address sends from there anyway; nothing can be sent from a multicast address.
  bdk_addr_class own = bdk_addr_classify(&u->local), from = bdk_addr_classify(&r->local);
  bool pick = own == BDK_ADDR_NONE && from != BDK_ADDR_NONE && from != BDK_ADDR_MULTICAST;
  int ttl = r->ttl;
  if (u->local.family == 4) {
    struct in_pktinfo info = {0};
    memcpy(&info.ipi_spec_dst, r->local.ip, 4);
    if (pick) at += put_control(m, (struct cmsghdr *)at, IPPROTO_IP, IP_PKTINFO, &info, sizeof info);
    if (ttl) at += put_control(m, (struct cmsghdr *)at, IPPROTO_IP, IP_TTL, &ttl, sizeof ttl);
  } else {
    struct in6_pktinfo info = {.ipi6_ifindex = r->local.scope};
    memcpy(&info.ipi6_addr, r->local.ip, 16);
    if (pick) at += put_control(m, (struct cmsghdr *)at, IPPROTO_IPV6, IPV6_PKTINFO, &info, sizeof info);
    if (ttl) at += put_control(m, (struct cmsghdr *)at, IPPROTO_IPV6, IPV6_HOPLIMIT, &ttl, sizeof ttl);
  }
  if (segment) put_control(m, (struct cmsghdr *)at, SOL_UDP, UDP_SEGMENT, &segment, sizeof segment);
  m->msg_control = m->msg_controllen ? control : NULL;
}

static void wait_while(bdk_udp *u) { u->waiting = pause_for(u, &u->retry, &u->pause_us); }

static void wait_writable(bdk_udp *u) {
  bdk_count(u->c.counters, BDK_COUNT_udp_tx_again, 1);
  // IPsec that is still to agree on keys refuses to send on a socket with all the room there is.
  if (u->was_writable) {
    u->was_writable = false;
    wait_while(u);
    return;
  }
  u->waiting = u->want_writable = true;
  set_watch(u);
}

static void skip_failed(bdk_udp *u, int error) {
  bdk_count(u->c.counters, BDK_COUNT_udp_tx_unreachable, 1);
  if (u->failed_count < BDK_UDP_BATCH) {
    u->failed[u->failed_count].remote = u->queue[u->head].route.remote;
    u->failed[u->failed_count++].error = error;
    bdk_driver_before_wait(u->c.driver, &u->hook);
  }
  u->head++;
}

typedef enum verdict { SEND_AGAIN, SEND_LATER, SEND_NEVER } verdict;

// What follows from an error on the first of the rest.
static verdict after_error(bdk_udp *u, int error, int *stale_errors) {
  switch (error) {
  case EAGAIN:
    wait_writable(u);
    return SEND_LATER;
  case ENOBUFS:
  case ENOMEM:
    bdk_count(u->c.counters, BDK_COUNT_udp_tx_nobufs, 1);
    wait_while(u);
    return SEND_LATER;
  case EINTR:
    if ((*stale_errors)++ < BDK_UDP_BATCH) return SEND_AGAIN;
    wait_while(u);
    return SEND_LATER;
  case ECONNREFUSED:
  case ECONNRESET:
  case EPROTO: // an ICMP error waiting on the socket, read by this call: nothing was said about this datagram
    if ((*stale_errors)++ >= BDK_UDP_BATCH) return SEND_NEVER;
    bdk_count(u->c.counters, BDK_COUNT_udp_icmp, 1);
    return SEND_AGAIN;
  default:
    return SEND_NEVER;
  }
}

static void compact(bdk_udp *u) {
  u->count -= u->head;
  if (u->count == 0) {
    u->used = 0;
  } else if (u->head > 0) {
    size_t gone = u->queue[u->head].at;
    memmove(u->bytes, u->bytes + gone, u->used - gone);
    u->used -= gone;
    memmove(u->queue, u->queue + u->head, (size_t)u->count * sizeof u->queue[0]);
    for (int i = 0; i < u->count; i++) u->queue[i].at -= (uint32_t)gone;
  }
  u->head = 0;
}

// The queue as it is given to the kernel.
typedef struct outgoing {
  int count;
  struct mmsghdr msg[BDK_UDP_BATCH];
  uint8_t datagrams[BDK_UDP_BATCH]; // of each message: more than one where they leave joined
  struct iovec iov[BDK_UDP_BATCH];
  bdk_sockaddr to[BDK_UDP_BATCH];
  _Alignas(struct cmsghdr) uint8_t control[BDK_UDP_BATCH][TX_CONTROL];
} outgoing;

static bool same_way(const bdk_route *a, const bdk_route *b) {
  return a->ttl == b->ttl && bdk_addr_equal(&a->remote, &b->remote) && bdk_addr_equal(&a->local, &b->local);
}

// How many datagrams from place `i` on can leave as one: all to the same place and of the same length, but for the
// last, which may be shorter. A burst then passes the kernel's stack once, which is most of what a datagram costs.
static int joined(const bdk_udp *u, int i) {
  const queued *first = &u->queue[i];
  int n = 1;
  for (size_t bytes = first->len; first->len > 0 && i + n < u->count; n++) {
    const queued *next = &u->queue[i + n];
    bytes += next->len;
    if (next->len == 0 || next->len > first->len || bytes > JOINED_MAX || !same_way(&first->route, &next->route)) break;
    if (next->len < first->len) return n + 1;
  }
  return n;
}

// What is queued, from the head on.
static void compose(const bdk_udp *u, bool join, outgoing *o) {
  o->count = 0;
  for (int i = u->head; i < u->count;) {
    const queued *q = &u->queue[i];
    int at = o->count++, n = join ? joined(u, i) : 1;
    const queued *last = &u->queue[i + n - 1];
    struct msghdr *m = &o->msg[at].msg_hdr;
    o->iov[at] = (struct iovec){u->bytes + q->at, last->at + last->len - q->at};
    *m = (struct msghdr){.msg_name = &o->to[at], .msg_iov = &o->iov[at], .msg_iovlen = 1};
    m->msg_namelen = bdk_sockaddr_make(&q->route.remote, &o->to[at]);
    memset(o->control[at], 0, TX_CONTROL);
    write_control(u, &q->route, n > 1 ? q->len : 0, o->control[at], m);
    o->datagrams[at] = (uint8_t)n;
    i += n;
  }
}

static void send_queue(bdk_udp *u) {
  outgoing o;
  if (u->waiting || u->count == 0) return;
  compose(u, u->joins, &o);
  int stale_errors = 0, at = 0;
  uint64_t sent = 0, bytes = 0;
  while (at < o.count) {
    int n = sendmmsg(u->watch.fd, o.msg + at, (unsigned)(o.count - at), MSG_DONTWAIT | MSG_NOSIGNAL), error = errno;
    for (; n > 0; n--, at++) {
      u->was_writable = false;
      u->pause_us = 0;
      u->head += o.datagrams[at];
      sent += o.datagrams[at];
      bytes += o.iov[at].iov_len;
    }
    if (n == 0) continue;
    verdict v = after_error(u, error, &stale_errors);
    if (v == SEND_LATER) break;
    if (v == SEND_AGAIN) continue;
    if (o.datagrams[at] > 1) {                               // one by one it shows whose fault it is
      if (error == EIO || error == EINVAL) u->joins = false; // the device's, or a link of small packets
      compose(u, false, &o);
      at = 0;
    } else {
      skip_failed(u, error);
      at++;
    }
  }
  bdk_count(u->c.counters, BDK_COUNT_udp_tx, sent);
  bdk_count(u->c.counters, BDK_COUNT_udp_tx_bytes, bytes);
  compact(u);
}

void bdk_udp_flush(bdk_udp *u) { send_queue(u); }

// Tells the owner, who may close the socket: the last thing done with `u`.
static void tell_failed(bdk_udp *u) {
  int n = u->failed_count;
  u->failed_count = 0;
  if (n == 0 || !u->c.on_unreachable) return;
  u->calling = true;
  for (int i = 0; i < n && !u->closed; i++) {
    bdk_addr remote = u->failed[i].remote; // what the owner sends now may fail, too, and be noted here
    u->c.on_unreachable(u->c.ctx, u, &remote, u->failed[i].error);
  }
  called(u);
}

static bdk_udp *owner_of(void *part, size_t offset) { return (bdk_udp *)((uint8_t *)part - offset); }

static void on_hook(bdk_hook *h) {
  bdk_udp *u = owner_of(h, offsetof(bdk_udp, hook));
  send_queue(u);
  tell_failed(u);
}

static void on_retry(bdk_timer *t, uint64_t now_us) {
  (void)now_us;
  bdk_udp *u = owner_of(t, offsetof(bdk_udp, retry));
  u->waiting = false;
  send_queue(u);
}

static void on_rx_retry(bdk_timer *t, uint64_t now_us) {
  (void)now_us;
  bdk_udp *u = owner_of(t, offsetof(bdk_udp, rx_retry));
  u->rx_paused = false;
  set_watch(u);
}

static void on_ready(bdk_watch *w, int events) {
  bdk_udp *u = owner_of(w, offsetof(bdk_udp, watch));
  if (events & BDK_WRITABLE && u->want_writable) {
    u->want_writable = u->waiting = false;
    u->was_writable = true;
    set_watch(u);
    send_queue(u);
  }
  if (events & BDK_READABLE && !u->rx_paused) receive(u);
}

static bool reserve(bdk_udp *u, size_t len) {
  if (u->bytes && u->used + len <= u->cap) return true;
  size_t cap = u->cap ? u->cap * 2 : 2048;
  while (cap < u->used + len) cap *= 2;
  uint8_t *bytes = realloc(u->bytes, cap);
  if (!bytes) return false;
  u->bytes = bytes;
  u->cap = cap;
  return true;
}

int bdk_udp_send(bdk_udp *u, const bdk_route *route, const uint8_t *data, size_t len) {
  if (u->closed) return BDK_E_CLOSED;
  if (route->remote.family != u->local.family || len > u->c.max_len) return BDK_E_INVALID;
  if (route->local.family != 0 && route->local.family != u->local.family) return BDK_E_INVALID;
  if (u->count == BDK_UDP_BATCH || !reserve(u, len)) {
    bdk_count(u->c.counters, BDK_COUNT_udp_tx_dropped, 1);
    return BDK_E_LIMIT;
  }
  u->queue[u->count++] = (queued){.route = *route, .at = (uint32_t)u->used, .len = (uint16_t)len};
  if (len > 0) memcpy(u->bytes + u->used, data, len);
  u->used += len;
  if (u->count == BDK_UDP_BATCH) send_queue(u);
  if (u->count > 0) bdk_driver_before_wait(u->c.driver, &u->hook);
  return 0;
}

// --- opening and closing

static int open_socket(const bdk_udp_config *c, bdk_addr *local) {
  int on = 1, size = SOCKET_BUFFER;
  bool v6 = c->bind.family == 6;
  int fd = bdk_sockaddr_open(&c->bind, SOCK_DGRAM);
  if (fd < 0) return -errno;
  // Bound to one address, a socket needs not be told for each datagram where it was sent to.
  bool any = bdk_addr_classify(&c->bind) == BDK_ADDR_NONE;
  if (any && v6 && setsockopt(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, &on, sizeof on) < 0) goto fail;
  if (any && !v6 && setsockopt(fd, IPPROTO_IP, IP_PKTINFO, &on, sizeof on) < 0) goto fail;
  // More than the system allows is cut down to that; any size works.
  setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
  setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
  if (bdk_sockaddr_bind(fd, &c->bind, local) == 0) return fd;
fail:;
  int error = errno;
  close(fd);
  return -error;
}

int bdk_udp_open(bdk_udp **out, const bdk_udp_config *config) {
  if (config->bind.family != 4 && config->bind.family != 6) return -EAFNOSUPPORT;
  if (config->max_len > BDK_UDP_LEN_MAX) return BDK_E_INVALID;
  bdk_udp *u = calloc(1, sizeof *u);
  if (!u) return -ENOMEM;
  u->c = *config;
  if (u->c.max_len == 0) u->c.max_len = BDK_DATAGRAM_MAX;
  u->hook.run = on_hook;
  u->retry.fire = on_retry;
  u->rx_retry.fire = on_rx_retry;
  u->watch.ready = on_ready;
  int none = 0, r = u->watch.fd = open_socket(config, &u->local);
  if (r < 0) goto fail;
  u->joins = setsockopt(u->watch.fd, SOL_UDP, UDP_SEGMENT, &none, sizeof none) == 0; // Linux 4.18
  r = bdk_driver_watch(u->c.driver, &u->watch, BDK_READABLE);
  if (r < 0) goto fail;
  r = -ENOMEM;
  if (!rx_take(u->c.driver)) goto fail;
  *out = u;
  return 0;
fail:
  bdk_driver_unwatch(u->c.driver, &u->watch);
  if (u->watch.fd >= 0) close(u->watch.fd);
  free(u);
  return r;
}

void bdk_udp_close(bdk_udp *u) {
  if (!u || u->closed) return;
  u->waiting = false;
  send_queue(u);
  bdk_count(u->c.counters, BDK_COUNT_udp_tx_dropped, (uint64_t)u->count);
  u->closed = true;
  bdk_driver_unwatch(u->c.driver, &u->watch);
  bdk_driver_cancel(u->c.driver, &u->retry);
  bdk_driver_cancel(u->c.driver, &u->rx_retry);
  bdk_driver_unhook(u->c.driver, &u->hook);
  close(u->watch.fd);
  u->watch.fd = -1;
  if (!u->calling) destroy(u);
}

const bdk_addr *bdk_udp_local(const bdk_udp *u) { return &u->local; }
