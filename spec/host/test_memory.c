// SPDX-License-Identifier: MIT
// The host and an embedded node with one allocation refused, and with all refused from one on: first those of the
// config's allocator, then all that malloc would serve, Lua's included. There are tens of thousands: the first are
// refused each in turn, of the later ones one in EVERY (of the environment; 1 in the soak).
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <lua.h>
#include <malloc.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/bodkin.h"
#include "host/host.h"

#define FIRST 100

void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *p, size_t size);
void __real_free(void *p);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *p, size_t size);
void __wrap_free(void *p);

typedef struct source { // of memory
  size_t calls, fail_at;
  bool fail_on;
  long blocks;
  size_t bytes;
} source;

static source malloced; // what is asked of malloc's kin
static bool everything; // it is that which is refused

static bool refuse(source *s) {
  s->calls++;
  return s->fail_at && (s->calls == s->fail_at || (s->fail_on && s->calls > s->fail_at));
}

void *__wrap_calloc(size_t count, size_t size) {
  if (refuse(&malloced)) return NULL;
  malloced.blocks++;
  return __real_calloc(count, size);
}

void *__wrap_realloc(void *p, size_t size) {
  if ((!p || size > malloc_usable_size(p)) && refuse(&malloced)) return NULL; // Lua relies on shrinking
  malloced.blocks += !p;
  return __real_realloc(p, size);
}

void __wrap_free(void *p) {
  malloced.blocks -= p != NULL;
  __real_free(p);
}

static void *allocate(void *ctx, void *p, size_t old_size, size_t new_size) {
  source *s = ctx;
  if (new_size == 0) {
    s->bytes -= old_size;
    s->blocks -= p != NULL;
    __real_free(p);
    return NULL;
  }
  if (new_size > old_size && refuse(s)) return NULL;
  s->bytes += new_size - (p ? old_size : 0);
  s->blocks += !p;
  return __real_realloc(p, new_size);
}

static void no_log(void *ctx, int level, const char *text) { (void)ctx, (void)level, (void)text; }

static int none_or(int error) {
  assert_true(error == 0 || error == BDK_E_LIMIT);
  return error;
}

// Opened, asked for something, updated and closed; the server is nobody.
static void node_lives(source *s) {
  static uint8_t seed[32];
  bdk_config c;
  bdk_node *node = NULL;
  bdk_node_stats stats;
  bdk_config_init(&c, sizeof c);
  c.server = "bodkin://127.0.0.1:9";
  c.bind = "127.0.0.1:0";
  c.app = "spec/1";
  c.props = "{\"map\":\"dust\"}";
  c.log = no_log;
  c.seed = seed;
  if (!everything) c.alloc = allocate, c.alloc_ctx = s;
  int error = bdk_open(&node, &c);
  if (error) { // where memory ran out in a script, that says so, which makes its config invalid
    assert_true(s->fail_at && s->calls >= s->fail_at && (error == BDK_E_LIMIT || error == BDK_E_INVALID));
    assert_null(node);
    return;
  }
  none_or(bdk_host(node, NULL));
  none_or(bdk_join(node, "bodav-lirom-tifug"));
  none_or(bdk_match(node, "duel", "{\"mmr\":1500}"));
  none_or(bdk_match_party(node, "duel", NULL, "us", 2));
  none_or(bdk_cancel(node, "none"));
  for (int i = 0; i < 6; i++) {
    assert_int_equal(bdk_update(node, 1000000u * (uint64_t)(i + 1), 0), 0);
    while (bdk_next(node)) continue;
  }
  none_or(bdk_stats(node, &stats, sizeof stats));
  none_or(bdk_why(node, NULL, NULL, 0));
  bdk_close(node);
}

static void host_starts(source *s) {
  lua_State *L = bdk_host_new(NULL);
  assert_true(L || (s->fail_at && s->calls >= s->fail_at));
  if (L) lua_close(L);
}

static void refuse_each(void (*scenario)(source *), source *s) {
  const char *given = getenv("EVERY");
  size_t every = given ? strtoul(given, NULL, 10) : 101;
  *s = (source){0};
  scenario(s);
  size_t total = s->calls;
  assert_true(total > FIRST);
  for (int on = 0; on < 2; on++) {
    for (size_t n = 1; n <= total; n += n < FIRST ? 1 : every) {
      *s = (source){.fail_at = n, .fail_on = on};
      scenario(s);
      s->fail_at = 0;
      assert_int_equal(s->blocks, 0);
      assert_int_equal(s->bytes, 0);
    }
  }
}

static void a_node_is_opened_on_its_own_memory(void **state) {
  static source own;
  (void)state;
  everything = false;
  malloced = (source){0};
  refuse_each(node_lives, &own);
  assert_int_equal(malloced.blocks, 0);
}

static void a_node_is_opened_on_any_memory(void **state) {
  (void)state;
  everything = true;
  refuse_each(node_lives, &malloced);
}

static void a_host_starts(void **state) {
  (void)state;
  assert_non_null(freopen("/dev/null", "w", stderr)); // where the host says what went wrong
  refuse_each(host_starts, &malloced);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_node_is_opened_on_its_own_memory),
      cmocka_unit_test(a_node_is_opened_on_any_memory),
      cmocka_unit_test(a_host_starts),
  };
  return cmocka_run_group_tests_name("host: memory", tests, NULL, NULL);
}
