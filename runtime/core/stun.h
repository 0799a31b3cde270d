// SPDX-License-Identifier: MIT
// STUN's Binding method (RFC 8489): what any STUN client may ask our servers, and what any STUN server may answer ours.
// No authentication, and no answer with an optional attribute: 20 bytes or more in, at most 44 out. Requests of RFC
// 3489, without the magic cookie, are answered as RFC 5389 section 12.2 has it: some libraries send no others.
#ifndef BDK_STUN_H
#define BDK_STUN_H

#include "addr.h"

#define BDK_STUN_REQUEST_LEN 20u // of ours; others' may carry attributes
#define BDK_STUN_ANSWER_MAX 44u  // with an IPv6 address
#define BDK_STUN_UNKNOWN_MAX 6u  // attributes that an error may name within that
#define BDK_STUN_FIRST_MAX 3u    // the largest first byte of a STUN datagram

typedef enum bdk_stun_kind { // the message type: class and method (section 5)
  BDK_STUN_REQUEST = 0x0001,
  BDK_STUN_SUCCESS = 0x0101,
  BDK_STUN_ERROR = 0x0111,
} bdk_stun_kind;

typedef struct bdk_stun {
  bdk_stun_kind kind;
  const uint8_t *id;                      // 16 bytes, borrowed: the cookie and, from the fifth on, the tx
  bool classic;                           // request: there is no cookie, all 16 are the transaction id
  bdk_addr mapped;                        // success: where the request came from
  uint16_t code;                          // error: 300..699
  uint16_t unknown[BDK_STUN_UNKNOWN_MAX]; // request: what it asks to be understood and is not, each once
  uint8_t unknown_count;                  // BDK_STUN_UNKNOWN_MAX + 1: more than there is room for
} bdk_stun;

// Reads a Binding request, success or error. 0, or BDK_E_INVALID for anything else, for what is not exactly one message
// and for an answer that says nothing we may use. Attributes are skipped as the RFC allows; of those after
// MESSAGE-INTEGRITY, and of a second one of a type, nothing counts.
int bdk_stun_read(bdk_stun *out, const uint8_t *bytes, size_t len);
// Both return the length. An answer is a success with `from`, error 420 where the request has attributes that are not
// understood, or 0: the error would have to name more than fit.
size_t bdk_stun_write_request(const uint8_t tx[BDK_TX_LEN], uint8_t out[BDK_STUN_REQUEST_LEN]);
size_t bdk_stun_write_answer(const bdk_stun *request, const bdk_addr *from, uint8_t out[BDK_STUN_ANSWER_MAX]);

#endif
