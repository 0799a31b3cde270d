// SPDX-License-Identifier: MIT
// A second Lua state for scripts that are not trusted: what it may use of memory and work is counted, and once
// either is spent nothing in it can catch that. Work is counted in VM instructions; what C does for a script
// (allocating, matching patterns, sorting) is charged to the same account, so no script gets much time for free.
#ifndef BDK_SANDBOX_H
#define BDK_SANDBOX_H

#include "bind.h"

enum {
  BDK_SANDBOX_PERIOD = 1000,     // instructions between two looks at the account
  BDK_SANDBOX_STRING_MAX = 1280, // bytes of one string: comparing two is one instruction, however long they are
  BDK_SANDBOX_SAID_MAX = 1024,   // bytes kept of what it printed
  BDK_SANDBOX_STATE_MAX = 65536, // bytes of its table `state`
  BDK_SANDBOX_SMALL = 256,       // bytes of the largest block that comes from a chunk
  BDK_SANDBOX_EACH = 1000,       // instructions that a run may use more for each ticket that waits …
  BDK_SANDBOX_EACH_BYTES = 2000, // … and bytes
};

typedef struct bdk_sandbox {
  lua_State *L;       // NULL: closed
  lua_State *current; // the thread that runs, while one does
  size_t used, cap;
  uint64_t work, budget, limit; // limit: of this run
  double share;                 // of what a run may use
  uint64_t load;                // tickets that wait
  const char *dead;             // why it may not go on; NULL while it may
  char where[96];               // and where it was then
  char said[BDK_SANDBOX_SAID_MAX];
  size_t said_len;
  void *free[BDK_SANDBOX_SMALL / 16 + 1]; // blocks to be used again, by size; each begins with the next
  uint8_t *bump, *bump_end;               // of the chunk in use
  void *chunks;                           // each begins with the one before it
  void *adopted;                          // large blocks that small ones live in, see sandbox.c
  size_t chunk_len;
  uint8_t *told; // pieces, each after its length in two bytes
  size_t told_len, told_cap;
  bool running;
  bool holds;          // garbage is left where it is, while there is room
  struct bdk_net *net; // see sandbox_net.h; NULL: nothing is known
} bdk_sandbox;

static inline bdk_sandbox *bdk_sandbox_of(lua_State *L) { return *(bdk_sandbox **)lua_getextraspace(L); }

// Charges work done in C. Does not return once the account is spent. [-0, +0, v]
void bdk_sandbox_charge(lua_State *L, uint64_t work);
// Raises the error that ends a sandbox; called again wherever something may have caught it. [-0, +0, v]
int bdk_sandbox_die(lua_State *L);

// Garbage is left until much of the room is used, or the run ends; and is collected again. [-0, +0, -]
size_t bdk_sandbox_room(const bdk_sandbox *s);
void bdk_sandbox_hold(bdk_sandbox *s);
void bdk_sandbox_release(bdk_sandbox *s);

// Tells the owner at most 65535 bytes more, see sandbox:told. [-0, +0, e]
void bdk_sandbox_tell(lua_State *L, const uint8_t *bytes, size_t len);

// Pushes the primitive `tickets`, see sandbox_pass.c. [-0, +1, e]
void bdk_sandbox_push_tickets(lua_State *L);
// Pushes a table of what policies may call, see sandbox_help.c. [-0, +1, e]
void bdk_sandbox_push_helpers(lua_State *L);
// Where the table at `idx` is one that fills as it is read: fills it. [-0, +0, e]
void bdk_sandbox_fill(lua_State *L, int idx);

// Fill the global table of a sandbox. [-0, +0, e]
void bdk_sandbox_open_base(lua_State *L);   // base, coroutine, table, math, utf8
void bdk_sandbox_open_string(lua_State *L); // and string, with a matcher that is charged
void bdk_sandbox_open_state(lua_State *L);  // and state

// For methods. The sandbox at index 1, which is open and does not run. [-0, +0, e]
bdk_sandbox *bdk_sandbox_check(lua_State *L);
// Runs fn(job, …), on its account; the `extra` values on the top of its stack are further arguments.
int bdk_sandbox_run(bdk_sandbox *s, lua_CFunction fn, void *job, int extra, int results);
// nil, message, code of a run that failed: the error on the top of the sandbox's stack. [-0, +3, e]
int bdk_sandbox_push_failure(lua_State *L, bdk_sandbox *s, int status);
int bdk_sandbox_state(lua_State *L);   // sandbox:state
int bdk_sandbox_restore(lua_State *L); // sandbox:restore

// Makes modules[name] found by the sandbox's require: the function or text on the top. [-1, +0, e]
void bdk_sandbox_module(lua_State *L, const char *name, const char *chunkname);
// Charged call of `original` with the arguments as they are: the first one's length. [-0, +1, e]
void bdk_sandbox_push_charged(lua_State *L, lua_CFunction original);

#endif
