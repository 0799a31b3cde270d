// SPDX-License-Identifier: MIT
// Queries over properties: data, not code. A query is msgpack: a map, of which each pair has to be among the
// properties, or an expression (docs/PROTOCOL.md, message list):
//   ["and", q, …] ["or", q, …] ["not", q]
//   ["=", name, value] ["!=", …] ["<", …] ["<=", …] [">", …] [">=", …] ["in", name, [value, …]] ["range", name, low,
//   high]
// Numbers compare by value, texts byte by byte; nothing else is less than anything. What is absent equals nothing.
#ifndef BDK_QUERY_H
#define BDK_QUERY_H

#include "wire.h"

#define BDK_QUERY_TERMS_MAX 64u

// What is wrong, and where: places in arrays from the outermost on, counted from 1.
typedef struct bdk_query_fault {
  const char *why; // at most 24 bytes
  uint8_t depth;
  uint32_t at[BDK_WIRE_DEPTH_MAX];
} bdk_query_fault;

// How many comparisons a query is at most, or -1 where it is none, and why in *fault (may be NULL). The bytes have
// passed bdk_wire_check.
int bdk_query_check(const uint8_t *query, size_t len, bdk_query_fault *fault);

// Whether properties, a msgpack map, are what a query wants. Both have been checked, also the query by the above.
bool bdk_query_matches(const uint8_t *query, size_t len, const uint8_t *props, size_t props_len);

#endif
