// SPDX-License-Identifier: MIT
// What every core module stands on: the allocator handed in by the owner, the error codes that Lua,
// JSON and C share, and the counters. Core itself knows no clock, socket, random source or malloc.
#ifndef BDK_BASE_H
#define BDK_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BDK_VERSION "0.1.0"
#define BDK_PROTOCOL_VERSION 1u
#define BDK_DATAGRAM_MAX 1200u // bytes of UDP payload, on every path
#define BDK_PAYLOAD_MAX 1120u  // bytes an application may send at once, on every path
#define BDK_ID_LEN 16u         // a client's id: BLAKE2b-128 of its X25519 public key
#define BDK_TX_LEN 12u         // a transaction id, as in RFC 8489 section 5
#define BDK_NEVER UINT64_MAX   // a deadline that does not come

// The allocator a table is given. `resize(ctx, NULL, 0, n)` allocates, `resize(ctx, p, old, 0)` frees
// and returns NULL; NULL for n > 0 is failure and leaves `p` as it was.
typedef struct bdk_alloc {
  void *(*resize)(void *ctx, void *p, size_t old_size, size_t new_size);
  void *ctx;
} bdk_alloc;

// X(NAME, value, name, exit code of the command line, sentence). Negative errno values are the OS's own.
#define BDK_ERRORS(X)                                                                                                  \
  X(TIMEOUT, -1000, "timeout", 1, "no answer came in time")                                                            \
  X(REFUSED, -1001, "refused", 6, "the other side refused")                                                            \
  X(NO_MATCH, -1002, "no_match", 4, "nobody to be matched with")                                                       \
  X(NO_PATH, -1003, "no_path", 5, "no path to the peer worked")                                                        \
  X(BLOCKED_UDP, -1004, "blocked_udp", 5, "this network lets no UDP out")                                              \
  X(BAD_KEY, -1005, "bad_key", 6, "a key or secret does not fit")                                                      \
  X(TOO_OLD, -1006, "too_old", 6, "the two sides speak different protocol versions")                                   \
  X(APP_MISMATCH, -1007, "app_mismatch", 6, "the two sides run different applications")                                \
  X(LIMIT, -1008, "limit", 1, "a limit was reached")                                                                   \
  X(CLOSED, -1009, "closed", 1, "already closed")                                                                      \
  X(INVALID, -1010, "invalid", 2, "an argument or message is not valid")

typedef enum bdk_error {
  BDK_OK = 0,
#define X(NAME, value, name, exit, text) BDK_E_##NAME = (value),
  BDK_ERRORS(X)
#undef X
} bdk_error;

// The stable name of an error ("timeout"); "invalid" for a value that is none of ours.
const char *bdk_error_name(int error);
// A sentence for an error; for negative errno values the caller asks the OS.
const char *bdk_error_text(int error);
// The error with this name, 0 if there is none.
int bdk_error_from_name(const char *name);
// The exit code of the command line for an error.
int bdk_error_exit(int error);

#endif
