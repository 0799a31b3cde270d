// SPDX-License-Identifier: MIT
#include "http.h"

#include <curl/curl.h>
#include <dlfcn.h>
#include <lauxlib.h>
#include <stdbool.h>
#include <stdlib.h>

static const char type[] = "bodkin.http";

typedef struct job {
  lua_Integer id;
  CURL *easy;
  struct curl_slist *headers;
  struct job *next;
} job;

typedef struct http {
  CURLM *multi; // NULL: closed
  job *jobs;
} http;

static struct {
  void *library;
  CURL *(*easy_init)(void);
  CURLcode (*easy_setopt)(CURL *, CURLoption, ...);
  CURLcode (*easy_getinfo)(CURL *, CURLINFO, ...);
  void (*easy_cleanup)(CURL *);
  const char *(*easy_strerror)(CURLcode);
  struct curl_slist *(*slist_append)(struct curl_slist *, const char *);
  void (*slist_free_all)(struct curl_slist *);
  CURLM *(*multi_init)(void);
  CURLMcode (*multi_add_handle)(CURLM *, CURL *);
  CURLMcode (*multi_remove_handle)(CURLM *, CURL *);
  CURLMcode (*multi_perform)(CURLM *, int *);
  CURLMsg *(*multi_info_read)(CURLM *, int *);
  CURLMcode (*multi_cleanup)(CURLM *);
} curl;

static bool load_curl(void) {
  static const struct {
    const char *name;
    void *at;
  } wanted[] = {
      {"curl_easy_init", &curl.easy_init},
      {"curl_easy_setopt", &curl.easy_setopt},
      {"curl_easy_getinfo", &curl.easy_getinfo},
      {"curl_easy_cleanup", &curl.easy_cleanup},
      {"curl_easy_strerror", &curl.easy_strerror},
      {"curl_slist_append", &curl.slist_append},
      {"curl_slist_free_all", &curl.slist_free_all},
      {"curl_multi_init", &curl.multi_init},
      {"curl_multi_add_handle", &curl.multi_add_handle},
      {"curl_multi_remove_handle", &curl.multi_remove_handle},
      {"curl_multi_perform", &curl.multi_perform},
      {"curl_multi_info_read", &curl.multi_info_read},
      {"curl_multi_cleanup", &curl.multi_cleanup},
  };
  if (curl.library) return true;
  void *library = dlopen("libcurl.so.4", RTLD_NOW | RTLD_LOCAL);
  if (!library) return false;
  for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
    *(void **)wanted[i].at = dlsym(library, wanted[i].name);
    if (*(void **)wanted[i].at) continue;
    dlclose(library);
    return false;
  }
  curl.library = library;
  return true;
}

static void free_job(http *h, job *j) {
  for (job **at = &h->jobs; *at; at = &(*at)->next) {
    if (*at != j) continue;
    *at = j->next;
    break;
  }
  if (j->easy) {
    curl.multi_remove_handle(h->multi, j->easy);
    curl.easy_cleanup(j->easy);
  }
  curl.slist_free_all(j->headers);
  free(j);
}

static http *check(lua_State *L) {
  http *h = luaL_checkudata(L, 1, type);
  if (!h->multi) luaL_error(L, "closed http");
  return h;
}

static size_t discard(char *data, size_t size, size_t n, void *ctx) {
  (void)data;
  (void)ctx;
  return size * n;
}

static bool set_up(job *j, const char *url, const char *body, size_t len, long timeout_ms) {
  CURL *e = j->easy;
  return curl.easy_setopt(e, CURLOPT_URL, url) == CURLE_OK &&
         curl.easy_setopt(e, CURLOPT_PROTOCOLS_STR, "http,https") == CURLE_OK &&
         curl.easy_setopt(e, CURLOPT_POST, 1L) == CURLE_OK &&
         curl.easy_setopt(e, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)len) == CURLE_OK &&
         curl.easy_setopt(e, CURLOPT_COPYPOSTFIELDS, body) == CURLE_OK &&
         curl.easy_setopt(e, CURLOPT_HTTPHEADER, j->headers) == CURLE_OK &&
         curl.easy_setopt(e, CURLOPT_TIMEOUT_MS, timeout_ms) == CURLE_OK &&
         curl.easy_setopt(e, CURLOPT_NOSIGNAL, 1L) == CURLE_OK &&
         curl.easy_setopt(e, CURLOPT_WRITEFUNCTION, discard) == CURLE_OK &&
         curl.easy_setopt(e, CURLOPT_PRIVATE, j) == CURLE_OK;
}

// [-0, +(1|2), e]
static int post(lua_State *L) {
  http *h = check(L);
  size_t len;
  lua_Integer id = luaL_checkinteger(L, 2), timeout_ms = luaL_checkinteger(L, 6);
  const char *url = luaL_checkstring(L, 3), *body = luaL_checklstring(L, 5, &len);
  luaL_checktype(L, 4, LUA_TTABLE);
  lua_Integer n = luaL_len(L, 4);
  for (lua_Integer i = 1; i <= n; i++) {
    luaL_argcheck(L, lua_rawgeti(L, 4, i) == LUA_TSTRING, 4, "lines expected");
    lua_pop(L, 1);
  }
  job *j = calloc(1, sizeof *j);
  if (!j) return luaL_error(L, "not enough memory");
  j->id = id;
  j->next = h->jobs;
  h->jobs = j;
  bool ok = (j->easy = curl.easy_init()) != NULL;
  for (lua_Integer i = 1; ok && i <= n; i++) {
    lua_rawgeti(L, 4, i);
    struct curl_slist *more = curl.slist_append(j->headers, lua_tostring(L, -1));
    lua_pop(L, 1);
    if (more) j->headers = more;
    ok = more != NULL;
  }
  ok = ok && set_up(j, url, body, len, (long)timeout_ms) && curl.multi_add_handle(h->multi, j->easy) == CURLM_OK;
  if (!ok) {
    free_job(h, j);
    lua_pushnil(L);
    lua_pushliteral(L, "it cannot be asked for");
    return 2;
  }
  lua_pushboolean(L, true);
  return 1;
}

// [-0, +2, e]
static int turn(lua_State *L) {
  http *h = check(L);
  int running = 0, left = 0;
  lua_Integer n = 0;
  curl.multi_perform(h->multi, &running);
  lua_newtable(L);
  for (CURLMsg *m; (m = curl.multi_info_read(h->multi, &left));) {
    if (m->msg != CURLMSG_DONE) continue;
    long status = 0;
    CURLcode result = m->data.result;
    job *j = NULL;
    curl.easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, (char **)&j);
    curl.easy_getinfo(m->easy_handle, CURLINFO_RESPONSE_CODE, &status);
    lua_createtable(L, 3, 0);
    lua_pushinteger(L, j->id);
    lua_rawseti(L, -2, 1);
    if (result == CURLE_OK)
      lua_pushinteger(L, status);
    else
      lua_pushboolean(L, false);
    lua_rawseti(L, -2, 2);
    lua_pushstring(L, result == CURLE_OK ? "" : curl.easy_strerror(result));
    lua_rawseti(L, -2, 3);
    lua_rawseti(L, -2, ++n);
    free_job(h, j);
  }
  lua_pushinteger(L, running);
  return 2;
}

// [-0, +0, e] Idempotent
static int http_close(lua_State *L) {
  http *h = luaL_checkudata(L, 1, type);
  if (!h->multi) return 0;
  while (h->jobs) free_job(h, h->jobs);
  curl.multi_cleanup(h->multi);
  h->multi = NULL;
  return 0;
}

int bdk_http_open(lua_State *L) {
  static const luaL_Reg methods[] = {{"post", post}, {"turn", turn}, {"close", http_close}, {NULL, NULL}};
  if (!load_curl()) {
    lua_pushnil(L);
    lua_pushliteral(L, "there is no libcurl.so.4 here: install libcurl4");
    return 2;
  }
  http *h = lua_newuserdatauv(L, sizeof *h, 0);
  *h = (http){0};
  if (luaL_newmetatable(L, type)) {
    luaL_newlib(L, methods);
    lua_setfield(L, -2, "__index");
    lua_pushcfunction(L, http_close);
    lua_setfield(L, -2, "__gc");
  }
  lua_setmetatable(L, -2);
  h->multi = curl.multi_init();
  if (!h->multi) return luaL_error(L, "not enough memory for libcurl");
  return 1;
}
