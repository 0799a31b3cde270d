// SPDX-License-Identifier: MIT
// Every answer is handed over from a timer: so never from inside bdk_resolve, and never with c-ares on the
// stack, whose channel may then be destroyed by the callback.
#include "resolve.h"

#include "os.h"

#include <ares.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/time.h>

#define QUERIES_MAX 64 // under way at once
#define ADDRS_MAX 16   // a name
#define HOST_MAX 255   // RFC 1035 section 2.3.4
#define TIMEOUT_MS 1500
#define TRIES 3 // c-ares doubles the time-out each round: 10.5 s for one name server

typedef struct query query;
struct query {
  bdk_timer deliver;
  bdk_resolver *r;
  query *next, **link; // among r->queries
  bdk_resolved done;
  void *ctx;
  uint16_t port;
  int count;
  bdk_addr addrs[ADDRS_MAX];
  char host[HOST_MAX + 1];
  char error[HOST_MAX + 160];
};

typedef struct ares_watch ares_watch;
struct ares_watch {
  bdk_watch watch; // first: its address is what `ready` gets
  bdk_resolver *r;
  ares_watch *next;
};

struct bdk_resolver {
  bdk_driver *driver;
  ares_channel channel;
  bdk_timer timeout;
  ares_watch *watches;
  query *queries;
  int count;
};

static void arm_timeout(bdk_resolver *r) {
  struct timeval t;
  if (!ares_timeout(r->channel, NULL, &t)) {
    bdk_driver_cancel(r->driver, &r->timeout);
    return;
  }
  uint64_t wait_us = (uint64_t)t.tv_sec * 1000000u + (uint64_t)t.tv_usec;
  bdk_driver_timer(r->driver, &r->timeout, bdk_os_now_us() + wait_us);
}

static void on_timeout(bdk_timer *t, uint64_t now_us) {
  (void)now_us;
  bdk_resolver *r = (bdk_resolver *)((uint8_t *)t - offsetof(bdk_resolver, timeout));
  ares_process_fd(r->channel, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
  arm_timeout(r);
}

static void on_ready(bdk_watch *w, int events) {
  bdk_resolver *r = ((ares_watch *)w)->r;
  ares_socket_t fd = w->fd; // c-ares may close it, and so free w, on the way
  ares_process_fd(r->channel, events & BDK_READABLE ? fd : ARES_SOCKET_BAD,
                  events & BDK_WRITABLE ? fd : ARES_SOCKET_BAD);
  arm_timeout(r);
}

static void on_socket_state(void *ctx, ares_socket_t fd, int readable, int writable) {
  bdk_resolver *r = ctx;
  ares_watch **at = &r->watches;
  while (*at && (*at)->watch.fd != fd) at = &(*at)->next;
  ares_watch *w = *at;
  if (!readable && !writable) {
    if (!w) return;
    *at = w->next;
    bdk_driver_unwatch(r->driver, &w->watch);
    free(w);
    return;
  }
  if (!w) {
    w = calloc(1, sizeof *w);
    if (!w) return; // unwatched: the query ends in its time-out
    w->watch.fd = fd;
    w->watch.ready = on_ready;
    w->r = r;
    w->next = r->watches;
    r->watches = w;
  }
  bdk_driver_watch(r->driver, &w->watch, (readable ? BDK_READABLE : 0) | (writable ? BDK_WRITABLE : 0));
}

static void forget(query *q) {
  *q->link = q->next;
  if (q->next) q->next->link = q->link;
  q->r->count--;
}

static void on_deliver(bdk_timer *t, uint64_t now_us) {
  (void)now_us;
  query *q = (query *)((uint8_t *)t - offsetof(query, deliver));
  forget(q);
  q->done(q->ctx, q->addrs, q->count, q->count > 0 ? NULL : q->error); // may free the resolver
  free(q);
}

static void finish(query *q) {
  // A set timer's place in the wheel was reserved in bdk_resolve, so this moves it and cannot fail.
  bdk_driver_timer(q->r->driver, &q->deliver, q->r->driver->now_us);
}

static void add_addr(query *q, const struct sockaddr *from) {
  bdk_addr a = {.port = q->port};
  if (from->sa_family == AF_INET) {
    struct sockaddr_in v4;
    memcpy(&v4, from, sizeof v4);
    a.family = 4;
    memcpy(a.ip, &v4.sin_addr, 4);
  } else if (from->sa_family == AF_INET6) {
    struct sockaddr_in6 v6;
    memcpy(&v6, from, sizeof v6);
    a.family = 6;
    a.scope = v6.sin6_scope_id;
    memcpy(a.ip, &v6.sin6_addr, 16);
  } else {
    return;
  }
  bdk_addr_canon(&a);
  for (int i = 0; i < q->count; i++)
    if (bdk_addr_equal(&q->addrs[i], &a)) return;
  if (q->count < ADDRS_MAX) q->addrs[q->count++] = a;
}

static void say_error(query *q, int status) {
  const char *cause = ares_strerror(status);
  switch (status) {
  case ARES_SUCCESS:
  case ARES_ENODATA:
    snprintf(q->error, sizeof q->error, "no such host: %s (it has no address)", q->host);
    break;
  case ARES_ENOTFOUND:
  case ARES_ENONAME:
  case ARES_EBADNAME:
    snprintf(q->error, sizeof q->error, "no such host: %s (%s)", q->host, cause);
    break;
  default:
    snprintf(q->error, sizeof q->error, "cannot look up %s (%s): try its numeric address", q->host, cause);
  }
}

static void on_answer(void *ctx, int status, int timeouts, struct ares_addrinfo *info) {
  (void)timeouts;
  query *q = ctx;
  for (struct ares_addrinfo_node *n = info ? info->nodes : NULL; n; n = n->ai_next) add_addr(q, n->ai_addr);
  if (q->count == 0) say_error(q, status);
  finish(q);
  if (info) ares_freeaddrinfo(info);
}

bdk_resolver *bdk_resolver_new(bdk_driver *driver) {
  bdk_resolver *r = calloc(1, sizeof *r);
  if (!r) return NULL;
  r->driver = driver;
  r->timeout.fire = on_timeout;
  char lookups[] = "fb"; // files, then DNS, whatever nsswitch.conf says
  struct ares_options o = {.timeout = TIMEOUT_MS, .tries = TRIES, .lookups = lookups};
  o.sock_state_cb = on_socket_state;
  o.sock_state_cb_data = r;
  int mask = ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_LOOKUPS | ARES_OPT_SOCK_STATE_CB;
  if (ares_library_init(ARES_LIB_INIT_ALL) != ARES_SUCCESS) goto fail;
  if (ares_init_options(&r->channel, &o, mask) != ARES_SUCCESS) {
    ares_library_cleanup();
    goto fail;
  }
  return r;
fail:
  free(r);
  return NULL;
}

void bdk_resolver_free(bdk_resolver *r) {
  if (!r) return;
  ares_destroy(r->channel); // finishes every query, and unwatches every socket
  ares_library_cleanup();
  bdk_driver_cancel(r->driver, &r->timeout);
  while (r->queries) {
    query *q = r->queries;
    bdk_driver_cancel(r->driver, &q->deliver);
    forget(q);
    free(q);
  }
  free(r);
}

// RFC 6761 section 6.3: always loopback, and never asked for. A bare system has no /etc/hosts.
static bool is_localhost(const char *host, size_t len) {
  static const char name[] = "localhost";
  const size_t n = sizeof name - 1;
  if (len > 0 && host[len - 1] == '.') len--;
  return len >= n && strncasecmp(host + len - n, name, n) == 0 && (len == n || host[len - n - 1] == '.');
}

int bdk_resolve(bdk_resolver *r, const char *host, uint16_t port, bdk_resolved done, void *ctx) {
  if (r->count >= QUERIES_MAX) return BDK_E_LIMIT;
  query *q = calloc(1, sizeof *q);
  if (!q) return BDK_E_LIMIT;
  *q = (query){.r = r, .done = done, .ctx = ctx, .port = port, .deliver.fire = on_deliver};
  if (bdk_driver_timer(r->driver, &q->deliver, BDK_NEVER) < 0) {
    free(q);
    return BDK_E_LIMIT;
  }
  q->next = r->queries;
  q->link = &r->queries;
  if (q->next) q->next->link = &q->next;
  r->queries = q;
  r->count++;

  size_t len = strlen(host);
  snprintf(q->host, sizeof q->host, "%s", host);
  if (bdk_addr_parse(&q->addrs[0], host, len, port) == 0) {
    q->addrs[0].port = port;
    q->count = 1;
    finish(q);
  } else if (is_localhost(host, len)) {
    bdk_addr_parse(&q->addrs[0], "127.0.0.1", 9, port);
    bdk_addr_parse(&q->addrs[1], "::1", 3, port);
    q->addrs[0].port = q->addrs[1].port = port;
    q->count = 2;
    finish(q);
  } else if (len == 0 || len > HOST_MAX) {
    snprintf(q->error, sizeof q->error, "no such host: '%.40s' (a name has 1 to %d characters)", host, HOST_MAX);
    finish(q);
  } else {
    struct ares_addrinfo_hints hints = {.ai_family = AF_UNSPEC, .ai_flags = 0};
    ares_getaddrinfo(r->channel, q->host, NULL, &hints, on_answer, q);
    arm_timeout(r);
  }
  return 0;
}
