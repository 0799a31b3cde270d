// SPDX-License-Identifier: MIT
// libbodkin: programs behind NATs talk to each other directly, from inside a main loop of yours.
//   bdk_config_init(&config, sizeof config); config.server = "bodkin://example.org#KEY";
//   bdk_open(&node, &config); bdk_host(node, NULL);              or bdk_join(node, code)
//   a frame: bdk_update(node, BDK_CLOCK, 0); while ((e = bdk_next(node))) … ; bdk_send(node, …)   end: bdk_close(node)
// Nothing happens outside bdk_update but what bdk_close says to others: what is called in between is queued.
// One thread a node; of another one only bdk_wake. No globals, no threads, no prints, no exit. An int returned is 0, or
// what is said here, or negative: a BDK_E_, or an errno of the system, negated; bdk_strerror has a sentence for both.
#ifndef BODKIN_H
#define BODKIN_H
#include <stddef.h>
#include <stdint.h>
#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)
#define BDK_CLOCK UINT64_MAX // for now_us: the machine's own monotonic clock
#define BDK_MESSAGE_MAX 1120 // bytes of one message, on every path
#define BDK_ID_SIZE 33       // of a char array that holds a match or peer: 32 hexadecimal digits and a zero
#define BDK_KEY_SIZE 44      // of one that holds a public key: 43 characters of base64url and a zero
#ifndef BDK_BASE_H           // also by name, in events; the command line and Lua know the same
enum { BDK_E_TIMEOUT = -1000, BDK_E_REFUSED = -1001, BDK_E_NO_MATCH = -1002, BDK_E_NO_PATH = -1003 };
enum { BDK_E_BLOCKED_UDP = -1004, BDK_E_BAD_KEY = -1005, BDK_E_TOO_OLD = -1006, BDK_E_APP_MISMATCH = -1007 };
enum { BDK_E_LIMIT = -1008, BDK_E_CLOSED = -1009, BDK_E_INVALID = -1010 };
#endif
enum { BDK_LOG_DEBUG, BDK_LOG_INFO, BDK_LOG_WARN, BDK_LOG_ERROR };
typedef struct bdk_node bdk_node;
// Everything but `server` may be left as bdk_config_init set it. Texts are copied.
typedef struct bdk_config {
  size_t size;
  const char *server, *address_server, *maintenance_server; // bodkin://HOST[:PORT][#KEY], the second also stun:HOST
  const char *app, *name, *props; // at most 64 and 32 bytes; a JSON object, at most 128 bytes as msgpack
  const char *bind, *local;       // "ADDR:PORT", in numbers; tell local addresses: "same-public", "always", "never"
  uint32_t timeout_ms;            // of each request to a server
  int log_level;                  // of those passed on to `log`
  void (*log)(void *ctx, int level, const char *text); // may call nothing of this node
  // Of Lua and what waits: as realloc, and free where new_size is 0 (then NULL). Sockets and sessions are malloc's.
  void *(*alloc)(void *ctx, void *p, size_t old_size, size_t new_size);
  void *log_ctx, *alloc_ctx;
  const uint8_t *seed; // 32 bytes from which every random byte is made: for tests. NULL: the system's
  // Files: a key, made at its first use; a token; servers trusted so far. The last one in place of the token's file.
  const char *identity, *token, *known_servers, *token_text;
  const uint8_t *identity_key; // in place of its file: 32 bytes, of bdk_keygen. Neither: a new one each time
  int trust_first_use; // 1: where the URL has no key, the first server that answers is taken for it, and remembered
  int ask_to_accept;   // 1: matches that are to be accepted wait for bdk_accept; 0: they are accepted at once
} bdk_config;
typedef enum bdk_event_kind {
  BDK_REGISTERED = 1, // id, publics, locals
  BDK_HOSTING,        // match, code: others join with it
  BDK_QUEUED,         // ticket; again, with present, of and reason: what happened to it, or why it waits
  BDK_MATCHED,        // match, peers, team, host, data
  BDK_CONNECTED,      // match, peer, path, via, remote, first_ms, commit_ms: messages may flow
  BDK_PATH,           // match, peer, path, via, remote, confirmed_ms, rtt_ms, commit_ms, why: confirmed, or changed
  BDK_MESSAGE,        // match, peer, channel, data
  BDK_CLOSED,         // match, peer, reason
  BDK_ERROR,          // error, code, message, hint; also match where it is of one
  BDK_PROPOSED,       // ticket, accept_ms, players: a match that is to be accepted
  BDK_HOST            // match, host: another one's room now, since its host left
} bdk_event_kind;
typedef struct bdk_candidate_path { // an address of the peer's that was tried
  const char *remote, *via, *state, *reason;
  uint32_t tests;
  double rtt_ms; // 0: not measured
} bdk_candidate_path;
// What does not belong to an event is 0 or NULL. Times count from the arrival of `matched`.
typedef struct bdk_event {
  size_t size; // newer versions add fields at the end
  bdk_event_kind kind;
  const char *name; // "registered" …
  const char *match, *peer, *id, *code, *ticket, *host;
  const char *const *peers, *const *publics, *const *locals;
  uint32_t peer_count, public_count, local_count, why_count;
  const bdk_candidate_path *why;
  const char *path, *via, *remote, *reason;         // path: "lan", "direct" or "relay"
  double first_ms, confirmed_ms, rtt_ms, commit_ms; // commit_ms: where the server shares its clock
  int team, channel, error;
  const char *message, *hint;
  const uint8_t *data; // of matched: a text as it is, anything else as msgpack
  size_t len;
  uint32_t accept_ms, players, present, of;
} bdk_event;
typedef struct bdk_node_stats {
  uint32_t matches, sessions, registered, events;        // events: those that wait for bdk_next
  uint64_t memory, memory_max;                           // bytes held from the allocator
  uint64_t packets_in, packets_out, bytes_in, bytes_out; // over UDP and TCP
  uint64_t dropped, lost; // packets that were none of ours, late or broken; messages beyond 1024 that nobody fetched
} bdk_node_stats;
const char *bdk_version(void);
int bdk_keygen(uint8_t secret[32], char public_key[BDK_KEY_SIZE]); // a new identity; public_key may be NULL
void bdk_config_init(bdk_config *config, size_t size);
int bdk_open(bdk_node **out, const bdk_config *config); // the log says what is not valid
void bdk_close(bdk_node *node);                         // leaves all matches; never waits; NULL is fine
// Reads at most `max_packets` datagrams (0: those of a few system calls), does what is due, sends. `now_us` is of any
// clock that does not go back, always the same one. BDK_E_INVALID from inside bdk_update.
int bdk_update(bdk_node *node, uint64_t now_us, int max_packets);
const bdk_event *bdk_next(bdk_node *node);       // or NULL; valid until its next call or bdk_close
uint64_t bdk_deadline(const bdk_node *node);     // when bdk_update is due, by its clock; UINT64_MAX: see bdk_fd
int bdk_fd(const bdk_node *node);                // readable (poll, epoll) when bdk_update has something to do
void bdk_wake(bdk_node *node);                   // makes bdk_fd readable, from any thread or a signal handler
int bdk_host(bdk_node *node, const char *code);  // a room; code NULL: one is made up. What fails later is a BDK_ERROR
int bdk_join(bdk_node *node, const char *where); // a room's code, or a client's id
int bdk_match(bdk_node *node, const char *queue, const char *props); // at most 32 bytes; a JSON object or NULL
// For a party: `size` clients (1 to 32) who say the same `party`, a text only they know, are matched together or not.
int bdk_match_party(bdk_node *node, const char *queue, const char *props, const char *party, uint32_t size);
int bdk_cancel(bdk_node *node, const char *ticket);  // as BDK_QUEUED named it; BDK_ERROR says that it is taken back
int bdk_accept(bdk_node *node, const char *ticket);  // these three do nothing where no such ticket waits, or nothing is
int bdk_decline(bdk_node *node, const char *ticket); // to be answered: no error, since what ended it may be on its way
// One datagram, unreliable, to `peer` or (NULL) all connected; channel 0. BDK_E_INVALID: to none; _LIMIT: 1 MB waits
int bdk_send(bdk_node *node, const char *match, const char *peer, int channel, const void *data, size_t len);
int bdk_leave(bdk_node *node, const char *match);
int bdk_stats(bdk_node *node, bdk_node_stats *out, size_t size);
// The lines of `bodkin why --json` for the id of a match or peer, or a name; NULL: all. Returns their length; they are
// written, with a zero, where that is less than `size`. BDK_E_LIMIT: no memory for them.
int bdk_why(bdk_node *node, const char *id, char *out, size_t size);
const char *bdk_strerror(int error);
#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
#endif
