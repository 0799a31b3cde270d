// SPDX-License-Identifier: MIT
// What the bindings share. A Lua object is a userdata, made closed before anything is acquired; its close is
// idempotent and is its __gc and __close too. What lives on a loop begins with a bdk_handle: the loop's anchor
// table keeps it alive until it is closed, and the C list lets either of the two go first.
// Callbacks stand in user values; C enters Lua through bdk_lua_call alone.
#ifndef BDK_BIND_H
#define BDK_BIND_H

#include <lauxlib.h>
#include <lua.h>

#include "core/addr.h"
#include "core/counter.h"
#include "core/message.h"
#include "io/driver.h"
#include "io/resolve.h"

// Asserts that a function has room for what it pushes. Under BDK_STRESS only: Lua guarantees LUA_MINSTACK,
// functions that may need more say so with luaL_checkstack.
#ifdef BDK_STRESS
#define BDK_STACK(L, n) luaL_checkstack((L), (n), "stress")
#else
#define BDK_STACK(L, n) ((void)0)
#endif

// --- call.c
// Calls the function below its `nargs` arguments. On an error: its text and traceback go to the function set
// with core.on_error, else as last.h says; nothing is left on the stack; false.
bool bdk_lua_call(lua_State *L, int nargs, int nresults);
// The same for fn(ctx): what pushes arguments may run out of memory, so it has to run inside.
bool bdk_lua_enter(lua_State *L, lua_CFunction fn, void *ctx);
lua_State *bdk_lua_main(lua_State *L);
// Makes a metatable; methods (may be NULL: `meta` has its own __index) and metamethods are separate tables.
void bdk_lua_type(lua_State *L, const char *type, const luaL_Reg *methods, const luaL_Reg *meta);
// Pushes nil, message, code. `error`: ours, or -errno. The second form puts "what: " before the message.
int bdk_lua_fail(lua_State *L, int error);
int bdk_lua_failf(lua_State *L, int error, const char *what, ...) __attribute__((format(printf, 3, 4)));
// Pushes nil, `text`, "invalid".
int bdk_lua_invalid(lua_State *L, const char *text, ...) __attribute__((format(printf, 2, 3)));
int bdk_on_error(lua_State *L);

// --- loop.c
typedef struct bdk_loop bdk_loop;
typedef struct bdk_handle bdk_handle;
struct bdk_handle {
  bdk_handle *prev, *next;
  bdk_loop *loop;                // NULL: closed
  void (*release)(bdk_handle *); // gives back what it holds; called once, when closed
};
struct bdk_loop {
  const bdk_driver_kind *kind; // NULL: virtual
  bdk_driver *driver;          // NULL: closed
  bdk_driver own;              // the virtual one
  lua_State *L;                // the main thread
  bdk_handle *handles;
  bdk_resolver *resolver; // made when first asked
  int count;
  bool is_virtual, running, stopped, closing;
};

bdk_loop *bdk_check_loop(lua_State *L, int idx); // throws when closed
bdk_loop *bdk_check_real(lua_State *L, int idx); // and when virtual
// The time of this turn; taken anew while the loop does not run.
uint64_t bdk_loop_now(bdk_loop *loop);
// Around a turn of a driver that is turned by its owner. Begin: false when closed, or inside a turn already.
bool bdk_loop_begin(bdk_loop *loop);
void bdk_loop_end(bdk_loop *loop);
// Anchors userdata `ud` (a bdk_handle) on the loop at `loop_idx`. May throw: do it before acquiring.
void bdk_handle_open(lua_State *L, int loop_idx, int ud, void (*release)(bdk_handle *));
// Idempotent.
void bdk_handle_close(lua_State *L, bdk_handle *h);
// Pushes the userdata of an open handle. False, and nothing pushed, when there is none. Allocates nothing.
bool bdk_handle_push(lua_State *L, bdk_handle *h);

// --- addr.c
bdk_addr bdk_check_addr(lua_State *L, int idx); // packed
void bdk_push_addr(lua_State *L, const bdk_addr *a);
// --- counters.c
bdk_counters *bdk_check_counters(lua_State *L, int idx); // NULL for nil and none
// --- schema.c
const bdk_schema *bdk_check_schema(lua_State *L, int idx);
// Encodes the arguments from `first` on. 0: a field does not fit, `*bad` names it. Throws on too many.
size_t bdk_schema_encode(lua_State *L, const bdk_schema *s, int first, uint8_t out[BDK_DATAGRAM_MAX], const char **bad);
void bdk_push_field(lua_State *L, const bdk_field_def *def, const bdk_field *f);
// --- wire.c. Encoding gives 0, and says why, where the value at `idx` (absolute) cannot be written.
size_t bdk_encode_wire(lua_State *L, int idx, uint8_t out[BDK_DATAGRAM_MAX], const char **code, const char **why);
void bdk_push_wire(lua_State *L, const uint8_t *bytes, size_t len); // bytes that bdk_wire_check accepted
// A key of a map, and their order: integers first.
typedef struct bdk_key {
  const char *s; // NULL: an integer
  size_t len;
  lua_Integer i;
} bdk_key;
bool bdk_read_key(lua_State *L, int idx, bdk_key *out); // false: neither; it stays where it is
void bdk_push_key(lua_State *L, const bdk_key *k);
int bdk_compare_keys(const void *a, const void *b); // for qsort
// --- log.c
// Escapes control characters, what turns the direction of text, and bytes that are not UTF-8 as \xNN; at most 4
// bytes out for each in.
size_t bdk_log_escape(char *out, const char *text, size_t len);
// --- fields of an argument table, `idx` absolute, and an argument. Push nothing; throw.
lua_Integer bdk_opt_integer(lua_State *L, int idx, const char *field, lua_Integer def, lua_Integer min,
                            lua_Integer max);
const char *bdk_opt_bytes(lua_State *L, int idx, const char *field, size_t *len); // NULL when nil
const char *bdk_need_bytes(lua_State *L, int idx, const char *field, size_t len); // exactly len
const uint8_t *bdk_check_bytes(lua_State *L, int idx, size_t len);                // an argument, of exactly len

// The module bodkin.core, with loops of this kind. [-0, +1, e]
int bdk_open_core(lua_State *L, const bdk_driver_kind *kind);

#include "open.h"

#endif
