// SPDX-License-Identifier: MIT
// bodkin.h over the client that scripts use, in a Lua state of the node's own (scripts/bodkin/embed.lua is its other
// half). Calls between updates leave a command in a list; a hook of the loop hands them to Lua in the next turn,
// before the sockets are flushed. Lua puts events, as tables, into a queue; bdk_next fills the struct from one, whose
// texts live as long as the table is held.
#include "node.h"

#include <limits.h>
#include <lualib.h>
#include <sodium.h>
#include <string.h>

#include "embed.h"
#include "io/drive_poll.h"
#include "io/os.h"

#define QUEUE_MAX (1u << 20) // bytes of commands that wait
#define KEY_LEN 32
#define QUEUE_NAME_MAX 32 // bytes, as scripts/bodkin/client/node.lua has it
#define PLAYERS_MAX 32    // of a party, likewise
#define PARTY_MAX 255     // bytes of its name

static const char current_key = 0; // registry: the event that bdk_next gave last

// --- memory
static void *counted(void *ctx, void *p, size_t old_size, size_t new_size) {
  bdk_node *n = ctx;
  size_t old = p ? old_size : 0; // Lua says there what a new block is for
  void *q = n->alloc.resize(n->alloc.ctx, p, old, new_size);
  if (new_size > 0 && !q) return NULL;
  n->memory += new_size - old;
  if (n->memory > n->memory_max) n->memory_max = n->memory;
  return q;
}

// --- what Lua calls; upvalue 1 is the node
static bdk_node *self(lua_State *L) { return lua_touserdata(L, lua_upvalueindex(1)); }

static void log_text(bdk_node *n, int level, const char *text) {
  if (n->log && level >= n->log_level) n->log(n->log_ctx, level, text);
}

// [-0, +0, -] sink of core.logger: "2026-01-31T12:00:00Z warn text"
static int on_log(lua_State *L) {
  static const struct {
    const char *word;
    int level;
  } levels[] = {{"debug ", BDK_LOG_DEBUG}, {"info ", BDK_LOG_INFO}, {"warn ", BDK_LOG_WARN}, {"error ", BDK_LOG_ERROR}};
  const char *line = luaL_checkstring(L, 1), *at = strchr(line, ' ');
  for (size_t i = 0; at && i < sizeof levels / sizeof *levels; i++) {
    size_t len = strlen(levels[i].word);
    if (strncmp(at + 1, levels[i].word, len) != 0) continue;
    log_text(self(L), levels[i].level, at + 1 + len);
    return 0;
  }
  log_text(self(L), BDK_LOG_INFO, line);
  return 0;
}

// [-0, +0, -] core.on_error's: a callback failed
static int on_error(lua_State *L) {
  log_text(self(L), BDK_LOG_ERROR, luaL_checkstring(L, 1));
  return 0;
}

static void say_last(void *ctx, const char *text, size_t len) {
  (void)len;
  log_text(ctx, BDK_LOG_ERROR, text);
}

// [-0, +1, e] random(n): the seed's stream, whose key is replaced at each use
static int on_random(lua_State *L) {
  bdk_node *n = self(L);
  lua_Integer len = luaL_checkinteger(L, 1);
  luaL_argcheck(L, len >= 0 && len <= 65536, 1, "out of range");
  luaL_Buffer b;
  uint8_t *out = (uint8_t *)luaL_buffinitsize(L, &b, (size_t)len + sizeof n->seed);
  randombytes_buf_deterministic(out, (size_t)len + sizeof n->seed, n->seed);
  memcpy(n->seed, out + len, sizeof n->seed);
  sodium_memzero(out + len, sizeof n->seed);
  luaL_pushresultsize(&b, (size_t)len);
  return 1;
}

static const char *field(lua_State *L, int idx, const char *name) {
  const char *s = lua_getfield(L, idx, name) == LUA_TSTRING ? lua_tostring(L, -1) : NULL;
  lua_pop(L, 1); // the table holds it
  return s;
}

static bdk_pair *find_pair(bdk_node *n, const char *match, const char *peer) {
  for (uint32_t i = 0; i < n->pair_count; i++) {
    bdk_pair *p = &n->pairs[i];
    if (strcmp(p->match, match) == 0 && (!peer || strcmp(p->peer, peer) == 0)) return p;
  }
  return NULL;
}

// Who is connected, so that bdk_send can tell at once.
static void note_pair(lua_State *L, bdk_node *n, bool connected) {
  const char *match = field(L, 1, "match"), *peer = field(L, 1, "peer");
  if (!match || !peer || strlen(match) >= BDK_ID_SIZE || strlen(peer) >= BDK_ID_SIZE) return;
  bdk_pair *p = find_pair(n, match, peer);
  if (!connected && p) *p = n->pairs[--n->pair_count];
  if (!connected || p) return;
  if (n->pair_count == n->pair_cap) {
    uint32_t cap = n->pair_cap ? n->pair_cap * 2 : 4;
    p = counted(n, n->pairs, n->pair_cap * sizeof *p, cap * sizeof *p);
    if (!p) luaL_error(L, "not enough memory");
    n->pairs = p;
    n->pair_cap = cap;
  }
  p = &n->pairs[n->pair_count++];
  memcpy(p->match, match, strlen(match) + 1);
  memcpy(p->peer, peer, strlen(peer) + 1);
}

// [-0, +0, e] emit(event)
static int on_emit(lua_State *L) {
  bdk_node *n = self(L);
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_settop(L, 1);
  int kind = bdk_event_kind_of(field(L, 1, "event"));
  if (kind == BDK_MESSAGE && n->messages >= BDK_NODE_MESSAGES_MAX) {
    n->lost++;
    return 0;
  }
  if (kind == BDK_CONNECTED || kind == BDK_CLOSED) note_pair(L, n, kind == BDK_CONNECTED);
  lua_rawgeti(L, LUA_REGISTRYINDEX, n->queue);
  lua_pushvalue(L, 1);
  lua_rawseti(L, -2, n->tail + 1);
  n->tail++;
  if (kind == BDK_MESSAGE) n->messages++;
  return 0;
}

// --- commands
static int run_command(lua_State *L) {
  bdk_command *c = lua_touserdata(L, 1);
  lua_rawgeti(L, LUA_REGISTRYINDEX, c->node->half);
  lua_getfield(L, -1, "run");
  lua_insert(L, -2);
  lua_pushstring(L, c->verb);
  lua_pushstring(L, c->a); // nil where NULL
  lua_pushstring(L, c->b);
  if (c->data)
    lua_pushlstring(L, (const char *)c->data, c->len);
  else
    lua_pushnil(L);
  lua_call(L, 5, 0);
  return 0;
}

static void free_command(bdk_node *n, bdk_command *c) {
  n->queued -= c->size;
  counted(n, c, c->size, 0);
}

static void on_turn(bdk_hook *h) {
  bdk_node *n = (bdk_node *)((char *)h - offsetof(bdk_node, hook));
  bdk_command *c = n->first;
  n->first = n->last = NULL; // what Lua's callers queue meanwhile is for the next turn
  while (c) {
    bdk_command *next = c->next;
    bdk_lua_enter(n->L, run_command, c);
    free_command(n, c);
    c = next;
  }
}

static char *copy(char **at, const void *from, size_t len, bool text) {
  char *to = *at;
  if (len > 0) memcpy(to, from, len);
  if (text) to[len] = 0;
  *at += len + text;
  return to;
}

static int queue(bdk_node *n, const char *verb, const char *a, const char *b, const void *data, size_t len) {
  size_t a_len = a ? strlen(a) : 0, b_len = b ? strlen(b) : 0;
  size_t size = sizeof(bdk_command) + a_len + b_len + len + 2;
  if (a_len > QUEUE_MAX || b_len > QUEUE_MAX || n->queued + size > QUEUE_MAX) return BDK_E_LIMIT;
  bdk_command *c = counted(n, NULL, 0, size);
  if (!c) return BDK_E_LIMIT;
  char *at = (char *)(c + 1);
  *c = (bdk_command){.node = n, .verb = verb, .size = size, .len = len};
  if (a) c->a = copy(&at, a, a_len, true);
  if (b) c->b = copy(&at, b, b_len, true);
  if (data) c->data = (uint8_t *)copy(&at, data, len, false);
  if (n->last)
    n->last->next = c;
  else
    n->first = c;
  n->last = c;
  n->queued += size;
  if (!n->hook.queued) {
    bdk_driver_before_wait(n->loop->driver, &n->hook);
    bdk_drive_poll_wake(n->loop->driver); // for a program that polls the descriptor
  }
  return 0;
}

int bdk_host(bdk_node *node, const char *code) {
  return node ? queue(node, "host", code, NULL, NULL, 0) : BDK_E_INVALID;
}

int bdk_join(bdk_node *node, const char *where) {
  return node && where ? queue(node, "join", where, NULL, NULL, 0) : BDK_E_INVALID;
}

int bdk_match_party(bdk_node *node, const char *name, const char *props, const char *party, uint32_t size) {
  if (!node || !name || strlen(name) < 1 || strlen(name) > QUEUE_NAME_MAX) return BDK_E_INVALID;
  char said[1 + PARTY_MAX]; // its size, and what it is called
  size_t len = party ? strlen(party) : 0;
  if (!party) return queue(node, "match", name, props, NULL, 0);
  if (len < 1 || len > PARTY_MAX || size < 1 || size > PLAYERS_MAX) return BDK_E_INVALID;
  said[0] = (char)size;
  memcpy(said + 1, party, len);
  return queue(node, "match", name, props, said, 1 + len);
}

int bdk_match(bdk_node *node, const char *name, const char *props) {
  return bdk_match_party(node, name, props, NULL, 1);
}

static int of_ticket(bdk_node *node, const char *verb, const char *ticket) {
  return node && ticket ? queue(node, verb, ticket, NULL, NULL, 0) : BDK_E_INVALID;
}

int bdk_cancel(bdk_node *node, const char *ticket) { return of_ticket(node, "cancel", ticket); }

int bdk_accept(bdk_node *node, const char *ticket) { return of_ticket(node, "accept", ticket); }

int bdk_decline(bdk_node *node, const char *ticket) { return of_ticket(node, "decline", ticket); }

int bdk_send(bdk_node *node, const char *match, const char *peer, int channel, const void *data, size_t len) {
  if (!node || !match || channel != 0 || (!data && len > 0) || len > BDK_MESSAGE_MAX) return BDK_E_INVALID;
  if (!find_pair(node, match, peer)) return BDK_E_INVALID;
  return queue(node, "send", match, peer, data ? data : "", len);
}

int bdk_leave(bdk_node *node, const char *match) {
  return node && match ? queue(node, "leave", match, NULL, NULL, 0) : BDK_E_INVALID;
}

// --- turns
int bdk_update(bdk_node *node, uint64_t now_us, int max_packets) {
  if (!node || max_packets < 0 || !bdk_loop_begin(node->loop)) return BDK_E_INVALID;
  int r = bdk_drive_poll_turn(node->loop->driver, now_us, (uint32_t)max_packets);
  bdk_loop_end(node->loop);
  return r;
}

static int take_event(lua_State *L) {
  bdk_node *n = lua_touserdata(L, 1);
  lua_rawgeti(L, LUA_REGISTRYINDEX, n->queue);
  lua_rawgeti(L, -1, n->head + 1);
  bdk_event_fill(L, lua_gettop(L), &n->event);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &current_key);
  lua_pushnil(L);
  lua_rawseti(L, -2, ++n->head);
  if (n->event.kind == BDK_MESSAGE) n->messages--;
  return 0;
}

const bdk_event *bdk_next(bdk_node *node) {
  // Where memory runs out the event stays for the next call.
  if (!node || node->head == node->tail || !bdk_lua_enter(node->L, take_event, node)) return NULL;
  return &node->event;
}

uint64_t bdk_deadline(const bdk_node *node) { return node ? bdk_drive_poll_deadline(node->loop->driver) : UINT64_MAX; }

int bdk_fd(const bdk_node *node) { return node ? bdk_drive_poll_fd(node->loop->driver) : -1; }

void bdk_wake(bdk_node *node) {
  if (node) bdk_drive_poll_wake(node->loop->driver);
}

static int get_stats(lua_State *L) {
  bdk_node *n = lua_touserdata(L, 1);
  bdk_node_stats *s = &n->stats;
  lua_rawgeti(L, LUA_REGISTRYINDEX, n->half);
  lua_getfield(L, -1, "stats");
  lua_insert(L, -2);
  lua_call(L, 1, 8);
  uint32_t *const counts[] = {&s->matches, &s->sessions, &s->registered};
  uint64_t *const sums[] = {&s->packets_in, &s->packets_out, &s->bytes_in, &s->bytes_out, &s->dropped};
  for (int i = 0; i < 3; i++) *counts[i] = (uint32_t)lua_tointeger(L, i - 8);
  for (int i = 0; i < 5; i++) *sums[i] = (uint64_t)lua_tointeger(L, i - 5);
  return 0;
}

int bdk_stats(bdk_node *node, bdk_node_stats *out, size_t size) {
  if (!node || !out) return BDK_E_INVALID;
  if (!bdk_lua_enter(node->L, get_stats, node)) return BDK_E_LIMIT;
  node->stats.events = (uint32_t)(node->tail - node->head);
  node->stats.memory = node->memory;
  node->stats.memory_max = node->memory_max;
  node->stats.lost = node->lost;
  memset(out, 0, size);
  memcpy(out, &node->stats, size < sizeof *out ? size : sizeof *out);
  return 0;
}

typedef struct why_call {
  bdk_node *node;
  const char *id;
  char *out;
  size_t size, len;
} why_call;

static int get_why(lua_State *L) {
  why_call *c = lua_touserdata(L, 1);
  lua_rawgeti(L, LUA_REGISTRYINDEX, c->node->half);
  lua_getfield(L, -1, "why");
  lua_insert(L, -2);
  lua_pushstring(L, c->id); // nil where NULL
  lua_call(L, 2, 1);
  const char *text = luaL_checklstring(L, -1, &c->len);
  if (c->out && c->len < c->size) memcpy(c->out, text, c->len + 1);
  return 0;
}

int bdk_why(bdk_node *node, const char *id, char *out, size_t size) {
  why_call c = {.node = node, .id = id, .out = out, .size = size};
  if (out && size > 0) *out = 0;
  if (!node) return BDK_E_INVALID;
  if (!bdk_lua_enter(node->L, get_why, &c) || c.len > INT_MAX) return BDK_E_LIMIT;
  return (int)c.len;
}

// --- life
void bdk_config_init(bdk_config *config, size_t size) {
  memset(config, 0, size);
  config->size = size;
  config->timeout_ms = 5000;
  config->log_level = BDK_LOG_INFO;
}

static int open_core(lua_State *L) { return bdk_open_core(L, &bdk_drive_poll); }

static void set_function(lua_State *L, bdk_node *n, const char *name, lua_CFunction fn) {
  lua_pushlightuserdata(L, n);
  lua_pushcclosure(L, fn, 1);
  lua_setfield(L, -2, name);
}

static void push_options(lua_State *L, const bdk_config *c) {
  const char *const texts[][2] = {{"server", c->server},
                                  {"address_server", c->address_server},
                                  {"maintenance_server", c->maintenance_server},
                                  {"app", c->app},
                                  {"name", c->name},
                                  {"props", c->props},
                                  {"bind", c->bind},
                                  {"local", c->local},
                                  {"identity", c->identity},
                                  {"token", c->token},
                                  {"token_text", c->token_text},
                                  {"known_servers", c->known_servers}};
  static const char *const levels[] = {"debug", "info", "warn", "error"};
  lua_newtable(L);
  for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
    lua_pushstring(L, texts[i][1]);
    lua_setfield(L, -2, texts[i][0]);
  }
  if (c->identity_key) {
    lua_pushlstring(L, (const char *)c->identity_key, KEY_LEN);
    lua_setfield(L, -2, "identity_key");
  }
  lua_pushboolean(L, c->trust_first_use != 0);
  lua_setfield(L, -2, "trust_first_use");
  lua_pushstring(L, c->ask_to_accept ? "ask" : "auto");
  lua_setfield(L, -2, "accept");
  lua_pushinteger(L, c->timeout_ms ? c->timeout_ms : 5000);
  lua_setfield(L, -2, "timeout_ms");
  int level = c->log_level < BDK_LOG_DEBUG ? BDK_LOG_DEBUG : c->log_level;
  lua_pushstring(L, levels[level > BDK_LOG_ERROR ? BDK_LOG_ERROR : level]);
  lua_setfield(L, -2, "log_level");
}

// No modules from the system's directories: those in C would look for a Lua in the process, and find the engine's.
static void only_embedded(lua_State *L) {
  lua_getglobal(L, "package");
  lua_pushliteral(L, "");
  lua_setfield(L, -2, "path");
  lua_pushliteral(L, "");
  lua_setfield(L, -2, "cpath");
  lua_pop(L, 1);
}

// Everything that may throw in opening. 1: the node, 2: its config
static int setup(lua_State *L) {
  bdk_node *n = lua_touserdata(L, 1);
  const bdk_config *c = lua_touserdata(L, 2);
  bdk_last_set(L, &n->unheard);
  luaL_openlibs(L);
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
  lua_pushcfunction(L, open_core);
  lua_setfield(L, -2, "bodkin.core");
  bdk_embed_install(L);
  only_embedded(L);
  lua_getglobal(L, "require");
  lua_pushvalue(L, -1);
  lua_pushliteral(L, "bodkin.core");
  lua_call(L, 1, 1);
  lua_getfield(L, -1, "on_error");
  lua_pushlightuserdata(L, n);
  lua_pushcclosure(L, on_error, 1);
  lua_call(L, 1, 0);
  lua_newtable(L);
  n->queue = luaL_ref(L, LUA_REGISTRYINDEX);
  lua_settop(L, 4); // 4: require
  lua_pushliteral(L, "bodkin.embed");
  lua_call(L, 1, 1);
  lua_getfield(L, -1, "new");
  push_options(L, c);
  lua_newtable(L);
  set_function(L, n, "emit", on_emit);
  set_function(L, n, "log", on_log);
  if (c->seed) set_function(L, n, "random", on_random);
  lua_call(L, 2, 1);
  lua_getfield(L, -1, "loop");
  n->loop = bdk_check_loop(L, -1); // the half holds it
  lua_pop(L, 1);
  n->half = luaL_ref(L, LUA_REGISTRYINDEX);
  return 0;
}

// A config of a newer header than this library's: what it asks for beyond has to be nothing.
static bool asks_for_more(const bdk_config *c) {
  const uint8_t *bytes = (const uint8_t *)c;
  for (size_t i = sizeof *c; i < c->size; i++)
    if (bytes[i]) return true;
  return false;
}

static int close_half(lua_State *L) {
  bdk_node *n = lua_touserdata(L, 1);
  lua_rawgeti(L, LUA_REGISTRYINDEX, n->half);
  lua_getfield(L, -1, "close");
  lua_insert(L, -2);
  lua_call(L, 1, 0);
  return 0;
}

static void free_node(bdk_node *n) {
  while (n->first) {
    bdk_command *c = n->first;
    n->first = c->next;
    free_command(n, c);
  }
  if (n->L) lua_close(n->L); // closes the loop, where it is open yet
  counted(n, n->pairs, n->pair_cap * sizeof *n->pairs, 0);
  sodium_memzero(n->seed, sizeof n->seed);
  n->alloc.resize(n->alloc.ctx, n, sizeof *n, 0);
}

int bdk_open(bdk_node **out, const bdk_config *config) {
  bdk_config c = {0};
  if (!out || !config || config->size < offsetof(bdk_config, timeout_ms)) return BDK_E_INVALID;
  *out = NULL;
  memcpy(&c, config, config->size < sizeof c ? config->size : sizeof c);
  bdk_alloc alloc = c.alloc ? (bdk_alloc){c.alloc, c.alloc_ctx} : bdk_os_alloc;
  if (asks_for_more(config)) return BDK_E_TOO_OLD;
  bdk_node *n = alloc.resize(alloc.ctx, NULL, 0, sizeof *n);
  if (!n) return BDK_E_LIMIT;
  *n = (bdk_node){.alloc = alloc, .log = c.log, .log_ctx = c.log_ctx, .log_level = c.log_level};
  n->memory = n->memory_max = sizeof *n;
  n->hook.run = on_turn;
  n->unheard = (bdk_last){say_last, n};
  if (c.seed) memcpy(n->seed, c.seed, sizeof n->seed);
  int r = BDK_E_LIMIT;
  n->L = lua_newstate(counted, n);
  if (!n->L) goto fail;
  lua_pushcfunction(n->L, setup);
  lua_pushlightuserdata(n->L, n);
  lua_pushlightuserdata(n->L, &c);
  int status = lua_pcall(n->L, 2, 0, 0);
  if (status != LUA_OK) {
    log_text(n, BDK_LOG_ERROR, lua_tostring(n->L, -1));
    r = status == LUA_ERRMEM ? BDK_E_LIMIT : BDK_E_INVALID;
    goto fail;
  }
  r = queue(n, "open", NULL, NULL, NULL, 0);
  if (r < 0) goto fail;
  *out = n;
  return 0;
fail:
  free_node(n);
  return r;
}

void bdk_close(bdk_node *node) {
  if (!node) return;
  if (node->hook.queued) bdk_driver_unhook(node->loop->driver, &node->hook);
  bdk_lua_enter(node->L, close_half, node);
  free_node(node);
}

int bdk_keygen(uint8_t secret[KEY_LEN], char public_key[BDK_KEY_SIZE]) {
  uint8_t public[KEY_LEN];
  if (!secret || sodium_init() < 0) return BDK_E_INVALID;
  bdk_os_random(secret, KEY_LEN);
  crypto_scalarmult_base(public, secret);
  if (public_key)
    sodium_bin2base64(public_key, BDK_KEY_SIZE, public, sizeof public, sodium_base64_VARIANT_URLSAFE_NO_PADDING);
  return 0;
}

const char *bdk_version(void) { return BDK_VERSION; }

const char *bdk_strerror(int error) {
  return error < 0 && error > BDK_E_TIMEOUT ? strerror(-error) : bdk_error_text(error);
}
