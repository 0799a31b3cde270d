// SPDX-License-Identifier: MIT
#include "counter.h"

typedef struct row {
  const char *name, *text;
} row;

#define X(name, text) {#name, text},
static const row counters[] = {BDK_COUNTERS(X)};
static const row reasons[] = {BDK_REASONS(X)};
#undef X

const char *bdk_counter_name(int which) {
  return which >= 0 && which < BDK_COUNTER_COUNT ? counters[which].name : NULL;
}

const char *bdk_counter_text(int which) {
  return which >= 0 && which < BDK_COUNTER_COUNT ? counters[which].text : NULL;
}

const char *bdk_reason_name(int reason) {
  return reason >= 0 && reason < BDK_REASON_COUNT ? reasons[reason].name : NULL;
}

const char *bdk_reason_text(int reason) {
  return reason >= 0 && reason < BDK_REASON_COUNT ? reasons[reason].text : NULL;
}
