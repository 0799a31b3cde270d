// SPDX-License-Identifier: MIT
#include "tun.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#define BATCH 64 // packets read from one device before the others, and what is due, get their turn
#define QUEUE_DEFAULT 4096u
#define IP_HEAD 20u
#define IP6_HEAD 40u
#define UDP_HEAD 8u

typedef struct held {
  uint64_t due_ns, seq;
  uint32_t port, len;
  uint8_t data[BDK_TUN_PACKET_MAX];
} held;

struct bdk_tun_copier {
  const bdk_tun_config *config;
  bdk_tun_stats stats;
  int *fds;
  uint64_t *rng; // one state a rule
  held *pool;
  held **heap, **spare; // `count` in the heap by (due, seq), the other cap - count spare
  uint32_t count, cap;
  uint64_t seq;
};
typedef struct bdk_tun_copier copier;

static uint64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

// SplitMix64 (Steele, Lea, Flood 2014): any seed will do, also neighbouring ones.
static double draw(uint64_t *state) {
  uint64_t z = (*state += 0x9e3779b97f4a7c15u);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return (double)((z ^ (z >> 31)) >> 11) * 0x1p-53;
}

int bdk_tun_prefix_parse(bdk_tun_prefix *out, const char *text) {
  char ip[INET6_ADDRSTRLEN];
  const char *slash = strchr(text, '/');
  size_t len = slash ? (size_t)(slash - text) : strlen(text);
  if (len >= sizeof ip) return BDK_E_INVALID;
  memcpy(ip, text, len);
  ip[len] = 0;
  bool v6 = strchr(ip, ':') != NULL;
  bdk_tun_prefix p = {.len = v6 ? 16 : 4, .bits = v6 ? 128 : 32};
  if (inet_pton(v6 ? AF_INET6 : AF_INET, ip, p.ip) != 1) return BDK_E_INVALID;
  if (slash) {
    char *end;
    unsigned long bits = strtoul(slash + 1, &end, 10);
    if (slash[1] < '0' || slash[1] > '9' || *end || bits > p.bits) return BDK_E_INVALID;
    p.bits = (uint8_t)bits;
  }
  *out = p;
  return 0;
}

bool bdk_tun_prefix_has(const bdk_tun_prefix *p, const uint8_t *ip, uint8_t len) {
  unsigned bytes = p->bits / 8u, rest = p->bits % 8u;
  if (len != p->len || memcmp(p->ip, ip, bytes) != 0) return false;
  return rest == 0 || (p->ip[bytes] ^ ip[bytes]) >> (8 - rest) == 0;
}

uint8_t bdk_tun_ends(const uint8_t *packet, size_t len, const uint8_t **src, const uint8_t **dst) {
  unsigned version = len ? packet[0] >> 4 : 0;
  bool v6 = version == 6;
  if ((!v6 && version != 4) || len < (v6 ? IP6_HEAD : IP_HEAD)) return 0;
  *src = packet + (v6 ? 8 : 12);
  *dst = packet + (v6 ? 24 : 16);
  return v6 ? 16 : 4;
}

bool bdk_tun_hop(uint8_t *header) {
  if (header[0] >> 4 == 6) { // RFC 8200 section 3: no checksum
    if (header[7] <= 1) return false;
    header[7]--;
    return true;
  }
  if (header[8] <= 1) return false;
  header[8]--;
  // RFC 1624 section 3 for a field that fell by 0x0100: the sum rises by as much, end-around carry.
  uint32_t sum = ((uint32_t)header[10] << 8 | header[11]) + 0x0100u;
  sum = (sum & 0xffffu) + (sum >> 16);
  header[10] = (uint8_t)(sum >> 8);
  header[11] = (uint8_t)sum;
  return true;
}

static uint32_t get16(const uint8_t *in) { return (uint32_t)in[0] << 8 | in[1]; }

static void put16(uint8_t *out, uint32_t v) {
  out[0] = (uint8_t)(v >> 8);
  out[1] = (uint8_t)v;
}

// RFC 1071: the complement of the sum of all 16-bit words, `sum` being that of others.
static uint32_t internet_checksum(uint32_t sum, const uint8_t *bytes, size_t len) {
  for (size_t i = 0; i + 1 < len; i += 2) sum += get16(bytes + i);
  if (len & 1) sum += (uint32_t)bytes[len - 1] << 8;
  while (sum >> 16) sum = (sum & 0xffffu) + (sum >> 16);
  return ~sum & 0xffffu;
}

bool bdk_tun_udp_read(bdk_tun_udp *out, const uint8_t *packet, size_t len) {
  if (len < IP_HEAD + UDP_HEAD || packet[0] != 0x45 || packet[9] != 17) return false;
  if (get16(packet + 6) & 0x3fffu) return false; // more fragments, or not the first
  const uint8_t *udp = packet + IP_HEAD;
  uint32_t total = get16(packet + 2), udp_len = get16(udp + 4);
  if (total > len || udp_len < UDP_HEAD || udp_len != total - IP_HEAD) return false;
  memcpy(out->src, packet + 12, 4);
  memcpy(out->src + 4, udp, 2);
  memcpy(out->dst, packet + 16, 4);
  memcpy(out->dst + 4, udp + 2, 2);
  out->ttl = packet[8];
  out->data = udp + UDP_HEAD;
  out->len = (uint16_t)(udp_len - UDP_HEAD);
  return true;
}

size_t bdk_tun_udp_write(const bdk_tun_udp *udp, uint8_t packet[BDK_TUN_PACKET_MAX]) {
  uint32_t udp_len = UDP_HEAD + udp->len, total = IP_HEAD + udp_len;
  if (total > BDK_TUN_PACKET_MAX) return 0;
  uint8_t *head = packet + IP_HEAD;
  memset(packet, 0, IP_HEAD + UDP_HEAD);
  packet[0] = 0x45;
  put16(packet + 2, total);
  packet[6] = 0x40; // don't fragment
  packet[8] = udp->ttl;
  packet[9] = 17;
  memcpy(packet + 12, udp->src, 4);
  memcpy(packet + 16, udp->dst, 4);
  put16(packet + 10, internet_checksum(0, packet, IP_HEAD));
  memcpy(head, udp->src + 4, 2);
  memcpy(head + 2, udp->dst + 4, 2);
  put16(head + 4, udp_len);
  memcpy(head + UDP_HEAD, udp->data, udp->len);
  // RFC 768: over the addresses, protocol and length, too; 0 would mean that there is none.
  uint32_t pseudo = 17 + udp_len;
  for (int i = 12; i < 20; i += 2) pseudo += get16(packet + i);
  uint32_t sum = internet_checksum(pseudo, head, udp_len);
  put16(head + 6, sum ? sum : 0xffffu);
  return total;
}

static bool before(const held *a, const held *b) {
  return a->due_ns != b->due_ns ? a->due_ns < b->due_ns : a->seq < b->seq;
}

static void push(copier *c, held *h) {
  uint32_t i = c->count++;
  for (; i > 0 && before(h, c->heap[(i - 1) / 2]); i = (i - 1) / 2) c->heap[i] = c->heap[(i - 1) / 2];
  c->heap[i] = h;
}

static held *pop(copier *c) {
  held *top = c->heap[0], *last = c->heap[--c->count];
  uint32_t i = 0;
  for (uint32_t kid; (kid = 2 * i + 1) < c->count; i = kid) {
    if (kid + 1 < c->count && before(c->heap[kid + 1], c->heap[kid])) kid++;
    if (!before(c->heap[kid], last)) break;
    c->heap[i] = c->heap[kid];
  }
  c->heap[i] = last;
  return top;
}

static const bdk_tun_route *route_of(const bdk_tun_config *config, const held *h) {
  const bdk_tun_route *best = NULL;
  const uint8_t *src, *dst;
  uint8_t len = bdk_tun_ends(h->data, h->len, &src, &dst);
  for (uint32_t i = 0; i < config->route_count; i++) {
    const bdk_tun_route *r = &config->routes[i];
    if (bdk_tun_prefix_has(&r->to, dst, len) && (!best || r->to.bits > best->to.bits)) best = r;
  }
  return best;
}

static uint64_t drawn_ns(const bdk_tun_rule *rule, uint64_t *rng) {
  uint64_t us = rule->delay_us;
  if (rule->jitter_us) us += (uint64_t)(draw(rng) * rule->jitter_us);
  if (rule->reorder > 0 && draw(rng) < rule->reorder) us += (uint64_t)(draw(rng) * rule->reorder_us);
  return us * 1000u;
}

static held *spare(const copier *c) { return c->count < c->cap ? c->spare[c->cap - c->count - 1] : NULL; }

static void hold(copier *c, held *h, uint64_t due_ns) {
  h->due_ns = due_ns;
  h->seq = c->seq++;
  push(c, h);
}

// Holds the packet in `h`, the next spare one, as its rule says and `more_us` longer; or forgets it.
static void forward(copier *c, held *h, const bdk_tun_rule *rule, uint64_t now, uint64_t more_us) {
  const bdk_tun_route *route = route_of(c->config, h);
  if (!route) return (void)c->stats.no_route++;
  h->port = route->port;
  now += more_us * 1000u;
  if (!rule) return hold(c, h, now);
  uint64_t *rng = &c->rng[rule - c->config->rules];
  if (rule->loss > 0 && draw(rng) < rule->loss) return (void)c->stats.lost++;
  bool twice = rule->duplicate > 0 && draw(rng) < rule->duplicate;
  hold(c, h, now + drawn_ns(rule, rng));
  if (!twice) return;
  held *second = spare(c);
  if (!second) return (void)c->stats.full++;
  second->port = h->port;
  second->len = h->len;
  memcpy(second->data, h->data, h->len);
  hold(c, second, now + drawn_ns(rule, rng));
  c->stats.doubled++;
}

static const bdk_tun_rule *rule_of(const copier *c, const held *h) {
  const uint8_t *src, *dst;
  uint8_t len = bdk_tun_ends(h->data, h->len, &src, &dst);
  for (uint32_t i = 0; i < c->config->rule_count; i++) {
    const bdk_tun_rule *r = &c->config->rules[i];
    if (bdk_tun_prefix_has(&r->from, src, len) && bdk_tun_prefix_has(&r->to, dst, len)) return r;
  }
  return NULL;
}

void bdk_tun_emit(bdk_tun_copier *c, const bdk_tun_udp *udp, uint32_t delay_us) {
  held *h = spare(c);
  if (!h) return (void)c->stats.full++;
  h->len = (uint32_t)bdk_tun_udp_write(udp, h->data);
  if (!h->len) return (void)c->stats.malformed++;
  forward(c, h, rule_of(c, h), now_ns(), delay_us);
}

static void admit(copier *c, held *h, uint64_t now) {
  bdk_tun_udp udp;
  const uint8_t *src, *dst;
  if (!bdk_tun_ends(h->data, h->len, &src, &dst)) return (void)c->stats.malformed++;
  if (!route_of(c->config, h)) return (void)c->stats.no_route++;
  if (!bdk_tun_hop(h->data)) return (void)c->stats.expired++;
  const bdk_tun_rule *rule = rule_of(c, h);
  if (!rule || !rule->hooked || !bdk_tun_udp_read(&udp, h->data, h->len)) return forward(c, h, rule, now, 0);
  uint8_t data[BDK_TUN_PACKET_MAX]; // what is emitted takes the place of `h`
  memcpy(data, udp.data, udp.len);
  udp.data = data;
  c->stats.hooked++;
  c->config->hook(c->config->ctx, c, (uint32_t)(rule - c->config->rules), &udp);
}

static void take(copier *c, int fd) {
  for (int n = 0; n < BATCH; n++) {
    held *h = spare(c);
    if (!h) { // read it all the same: a full device would stop its namespace
      uint8_t dropped[BDK_TUN_PACKET_MAX];
      if (read(fd, dropped, sizeof dropped) < 0) return;
      c->stats.full++;
      continue;
    }
    ssize_t len = read(fd, h->data, sizeof h->data);
    if (len < 0) return; // EAGAIN; a device set down (EIO) may come up again
    h->len = (uint32_t)len;
    admit(c, h, now_ns());
  }
}

static void give(copier *c) {
  while (c->count) {
    uint64_t now = now_ns();
    if (c->heap[0]->due_ns > now) return;
    held *h = pop(c);
    c->spare[c->cap - c->count - 1] = h;
    uint64_t late_us = (now - h->due_ns) / 1000u;
    if (late_us > c->stats.late_max_us) c->stats.late_max_us = late_us;
    if (write(c->fds[h->port], h->data, h->len) == (ssize_t)h->len)
      c->stats.copied++;
    else
      c->stats.failed++;
  }
}

// Opens the port's device inside its namespace and comes back; the descriptor works from anywhere.
static int attach(const bdk_tun_port *port, int home, const char **where) {
  struct ifreq request = {.ifr_flags = IFF_TUN | IFF_NO_PI};
  int fd = -1, error = 0, ns = -1;
  if (strlen(port->device) >= sizeof request.ifr_name) return BDK_E_INVALID;
  strcpy(request.ifr_name, port->device);
  *where = "namespace";
  if (port->netns && (ns = open(port->netns, O_RDONLY | O_CLOEXEC)) < 0) return -errno;
  *where = "setns";
  if (ns >= 0 && setns(ns, CLONE_NEWNET) < 0) {
    error = -errno;
    close(ns);
    return error;
  }
  *where = "open /dev/net/tun";
  fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
  if (fd < 0) error = -errno;
  if (!error && ioctl(fd, TUNSETIFF, &request) < 0) error = -errno, *where = "TUNSETIFF";
  if (ns >= 0 && setns(home, CLONE_NEWNET) < 0 && !error) error = -errno, *where = "setns back";
  if (ns >= 0) close(ns);
  if (error && fd >= 0) close(fd);
  return error ? error : fd;
}

static int attach_all(copier *c, const char **where, uint32_t *port) {
  int error = 0, home = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
  *where = "open /proc/self/ns/net";
  if (home < 0) return -errno;
  for (uint32_t i = 0; i < c->config->port_count && error >= 0; i++) {
    *port = i;
    error = attach(&c->config->ports[i], home, where);
    c->fds[i] = error >= 0 ? error : -1;
  }
  close(home);
  return error < 0 ? error : 0;
}

// True while stop_fd is neither at its end nor broken.
static bool go_on(const struct pollfd *p) {
  char ignored[256];
  if (p->revents & (POLLERR | POLLNVAL)) return false;
  if (!(p->revents & (POLLIN | POLLHUP))) return true;
  ssize_t n = read(p->fd, ignored, sizeof ignored);
  return n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR));
}

static int copy(copier *c, struct pollfd *polls) {
  uint32_t ports = c->config->port_count;
  for (uint32_t i = 0; i < ports; i++) polls[i] = (struct pollfd){.fd = c->fds[i], .events = POLLIN};
  polls[ports] = (struct pollfd){.fd = c->config->stop_fd, .events = POLLIN};
  for (;;) {
    struct timespec wait = {0, 0};
    if (c->count) {
      uint64_t now = now_ns(), due = c->heap[0]->due_ns, rest = due > now ? due - now : 0;
      wait = (struct timespec){(time_t)(rest / 1000000000u), (long)(rest % 1000000000u)};
    }
    if (ppoll(polls, ports + 1, c->count ? &wait : NULL, NULL) < 0) {
      if (errno != EINTR) return -errno;
      continue;
    }
    give(c);
    for (uint32_t i = 0; i < ports; i++) {
      if (polls[i].revents & (POLLERR | POLLHUP | POLLNVAL)) return -ENODEV; // its namespace went away
      if (polls[i].revents) take(c, c->fds[i]);
      give(c);
    }
    if (!go_on(&polls[ports])) return 0;
  }
}

static int validate(const bdk_tun_config *config) {
  if (!config->port_count || config->stop_fd < 0 || config->queue_max > 1u << 20) return BDK_E_INVALID;
  for (uint32_t i = 0; i < config->route_count; i++)
    if (config->routes[i].port >= config->port_count) return BDK_E_INVALID;
  for (uint32_t i = 0; i < config->rule_count; i++) {
    const bdk_tun_rule *r = &config->rules[i];
    if (r->hooked && !config->hook) return BDK_E_INVALID;
    const double chances[] = {r->loss, r->duplicate, r->reorder};
    const uint32_t delays[] = {r->delay_us, r->jitter_us, r->reorder_us};
    for (int n = 0; n < 3; n++)
      if (delays[n] > BDK_TUN_DELAY_MAX_US || !(chances[n] >= 0 && chances[n] <= 1)) return BDK_E_INVALID;
  }
  return 0;
}

int bdk_tun_copy(const bdk_tun_config *config, bdk_tun_stats *stats, const char **where, uint32_t *port) {
  copier c = {.config = config, .cap = config->queue_max ? config->queue_max : QUEUE_DEFAULT};
  *where = "configuration";
  *port = 0;
  int error = validate(config);
  if (error) return error;
  struct pollfd *polls = calloc(config->port_count + 1, sizeof *polls);
  c.fds = calloc(config->port_count, sizeof *c.fds);
  c.rng = calloc(config->rule_count + 1, sizeof *c.rng);
  c.pool = calloc(c.cap, sizeof *c.pool);
  c.heap = calloc(c.cap, sizeof *c.heap);
  c.spare = calloc(c.cap, sizeof *c.spare);
  *where = "memory";
  error = BDK_E_LIMIT;
  if (!polls || !c.fds || !c.rng || !c.pool || !c.heap || !c.spare) goto done;
  for (uint32_t i = 0; i < c.cap; i++) c.spare[i] = &c.pool[i];
  for (uint32_t i = 0; i < config->rule_count; i++) c.rng[i] = config->seed + (uint64_t)i * 0xda942042e4dd58b5u;
  for (uint32_t i = 0; i < config->port_count; i++) c.fds[i] = -1;
  error = attach_all(&c, where, port);
  if (!error) {
    // Best effort: without these a delay is late by the scheduler's latency, not wrong.
    prctl(PR_SET_TIMERSLACK, 1L, 0L, 0L, 0L);
    sched_setscheduler(0, SCHED_FIFO, &(struct sched_param){.sched_priority = 1});
    if (config->ready) config->ready(config->ctx);
    *where = "ppoll";
    error = copy(&c, polls);
  }
  for (uint32_t i = 0; i < config->port_count; i++)
    if (c.fds[i] >= 0) close(c.fds[i]);
done:
  if (stats) *stats = c.stats;
  free(polls);
  free(c.fds);
  free(c.rng);
  free(c.pool);
  free(c.heap);
  free(c.spare);
  return error;
}
