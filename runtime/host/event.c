// SPDX-License-Identifier: MIT
#include "node.h"

#include <string.h>

static const char *const names[] = {
    [BDK_REGISTERED] = "registered", [BDK_HOSTING] = "hosting",   [BDK_QUEUED] = "queued",   [BDK_MATCHED] = "matched",
    [BDK_CONNECTED] = "connected",   [BDK_PATH] = "path",         [BDK_MESSAGE] = "message", [BDK_CLOSED] = "closed",
    [BDK_ERROR] = "error",           [BDK_PROPOSED] = "proposed",
};

int bdk_event_kind_of(const char *name) {
  for (size_t i = BDK_REGISTERED; name && i < sizeof names / sizeof *names; i++)
    if (strcmp(names[i], name) == 0) return (int)i;
  return 0;
}

static const char *text(lua_State *L, int idx, const char *name) {
  const char *s = lua_getfield(L, idx, name) == LUA_TSTRING ? lua_tostring(L, -1) : NULL;
  lua_pop(L, 1); // the table holds it
  return s;
}

static double number(lua_State *L, int idx, const char *name) {
  lua_getfield(L, idx, name);
  double v = lua_tonumber(L, -1);
  lua_pop(L, 1);
  return v;
}

// Pushes the array `name` and memory for as many elements, which the event then holds, too. NULL, and nothing pushed,
// when it is empty.
static void *array(lua_State *L, int idx, const char *name, size_t size, uint32_t *count) {
  *count = lua_getfield(L, idx, name) == LUA_TTABLE ? (uint32_t)lua_rawlen(L, -1) : 0;
  if (*count == 0) {
    lua_pop(L, 1);
    return NULL;
  }
  void *memory = lua_newuserdatauv(L, *count * size, 0);
  memset(memory, 0, *count * size);
  lua_rawsetp(L, idx, name);
  return memory;
}

static const char *const *texts(lua_State *L, int idx, const char *name, uint32_t *count) {
  const char **list = array(L, idx, name, sizeof *list, count);
  if (!list) return NULL;
  for (uint32_t i = 0; i < *count; i++) {
    list[i] = lua_rawgeti(L, -1, i + 1) == LUA_TSTRING ? lua_tostring(L, -1) : "";
    lua_pop(L, 1);
  }
  lua_pop(L, 1);
  return list;
}

static const bdk_candidate_path *candidates(lua_State *L, int idx, const char *name, uint32_t *count) {
  bdk_candidate_path *list = array(L, idx, name, sizeof *list, count);
  if (!list) return NULL;
  for (uint32_t i = 0; i < *count; i++) {
    lua_rawgeti(L, -1, i + 1);
    int at = lua_gettop(L);
    list[i] = (bdk_candidate_path){.remote = text(L, at, "remote"), .via = text(L, at, "via")};
    list[i].state = text(L, at, "state");
    list[i].reason = text(L, at, "reason");
    list[i].tests = (uint32_t)number(L, at, "tests");
    list[i].rtt_ms = number(L, at, "rtt_ms");
    lua_pop(L, 1);
  }
  lua_pop(L, 1);
  return list;
}

void bdk_event_fill(lua_State *L, int idx, bdk_event *out) {
  luaL_checkstack(L, 8, "event");
  memset(out, 0, sizeof *out);
  out->size = sizeof *out;
  out->name = text(L, idx, "event");
  out->kind = (bdk_event_kind)bdk_event_kind_of(out->name);
  out->match = text(L, idx, "match");
  out->peer = text(L, idx, "peer");
  out->id = text(L, idx, "id");
  out->code = text(L, idx, "code");
  out->ticket = text(L, idx, "ticket");
  out->host = text(L, idx, "host");
  out->peers = texts(L, idx, "peers", &out->peer_count);
  out->publics = texts(L, idx, "public", &out->public_count);
  out->locals = texts(L, idx, "local", &out->local_count);
  out->why = candidates(L, idx, "why", &out->why_count);
  out->path = text(L, idx, "path");
  out->via = text(L, idx, "via");
  out->remote = text(L, idx, "remote");
  out->reason = text(L, idx, "reason");
  out->first_ms = number(L, idx, "first_ms");
  out->confirmed_ms = number(L, idx, "confirmed_ms");
  out->rtt_ms = number(L, idx, "rtt_ms");
  out->commit_ms = number(L, idx, "commit_ms");
  out->team = (int)number(L, idx, "team");
  out->channel = (int)number(L, idx, "channel");
  out->error = (int)number(L, idx, "error");
  out->message = text(L, idx, "message");
  out->hint = text(L, idx, "hint");
  out->accept_ms = (uint32_t)number(L, idx, "accept_ms");
  out->players = (uint32_t)number(L, idx, "players");
  out->present = (uint32_t)number(L, idx, "present");
  out->of = (uint32_t)number(L, idx, "of");
  if (lua_getfield(L, idx, "data") == LUA_TSTRING) out->data = (const uint8_t *)lua_tolstring(L, -1, &out->len);
  lua_pop(L, 1);
}
