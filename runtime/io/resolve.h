// SPDX-License-Identifier: MIT
// Name resolution that never blocks the loop (c-ares on a driver).
#ifndef BDK_RESOLVE_H
#define BDK_RESOLVE_H

#include "../core/addr.h"
#include "driver.h"

typedef struct bdk_resolver bdk_resolver; // opaque

// Called once: `count` ≥ 1 addresses with `port` set, or count 0 and a sentence.
typedef void (*bdk_resolved)(void *ctx, const bdk_addr *addrs, int count, const char *error);

// NULL on failure. free is NULL-tolerant; queries under way are not called back.
bdk_resolver *bdk_resolver_new(bdk_driver *driver);
void bdk_resolver_free(bdk_resolver *r);
// Numeric addresses and localhost are answered without a query, yet never before this returns. /etc/hosts counts.
// 0 or BDK_E_LIMIT.
int bdk_resolve(bdk_resolver *r, const char *host, uint16_t port, bdk_resolved done, void *ctx);

#endif
