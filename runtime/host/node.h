// SPDX-License-Identifier: MIT
// What the halves of the embedding API share: the node, and how an event's table becomes the struct of bodkin.h.
#ifndef BDK_NODE_H
#define BDK_NODE_H

#include "bind.h"
#include "last.h"

#include "bodkin.h"

#define BDK_NODE_MESSAGES_MAX 1024 // that wait for bdk_next; as a socket's buffer would, it drops those beyond

typedef struct bdk_command bdk_command;
struct bdk_command { // its texts and data behind it, in the same block
  bdk_command *next;
  bdk_node *node;
  const char *verb; // of scripts/bodkin/embed.lua
  const char *a, *b;
  const uint8_t *data; // NULL: none
  size_t len, size;    // size: of the block
};

typedef struct bdk_pair {
  char match[BDK_ID_SIZE], peer[BDK_ID_SIZE];
} bdk_pair;

struct bdk_node {
  bdk_alloc alloc;
  uint64_t memory, memory_max;
  void (*log)(void *ctx, int level, const char *text);
  void *log_ctx;
  int log_level;
  bdk_last unheard; // what Lua could not be told
  uint8_t seed[32]; // of the next random bytes
  lua_State *L;
  bdk_loop *loop;
  int half, queue; // references to Lua's half and to the events that wait, at head + 1 .. tail
  int64_t head, tail;
  uint32_t messages; // among them
  uint64_t lost;
  bdk_hook hook;
  bdk_command *first, *last;
  size_t queued;
  bdk_pair *pairs; // connected
  uint32_t pair_count, pair_cap;
  bdk_event event; // the one given out
  bdk_node_stats stats;
};

// 0 for a name that is none.
int bdk_event_kind_of(const char *name);
// Fills the struct from the table at `idx` (absolute), which holds all texts and arrays. [-0, +0, m]
void bdk_event_fill(lua_State *L, int idx, bdk_event *out);

#endif
